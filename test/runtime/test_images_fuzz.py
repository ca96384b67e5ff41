# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Whatever bytes and sizes a driver sends, decoding gives an image or a FrameError."""

import cv2
from hralign_ros.runtime import decode_compressed, decode_raw, FrameError, ViewGeometry
from hralign_ros.runtime.images import RAW_ENCODINGS
import numpy as np
import pytest

hypothesis = pytest.importorskip('hypothesis', reason='hypothesis is not installed')
st = hypothesis.strategies

quick = hypothesis.settings(
    deadline=None, derandomize=True, database=None, max_examples=300,
    suppress_health_check=list(hypothesis.HealthCheck))
SIZE = st.one_of(st.integers(-2, 12), st.integers(-2 ** 31, 2 ** 32))


@quick
@hypothesis.given(
    data=st.binary(max_size=600), height=SIZE, width=SIZE, step=SIZE,
    encoding=st.one_of(st.sampled_from([*RAW_ENCODINGS, '16UC1']), st.text(max_size=8)))
def test_raw(data, height, width, step, encoding):
    """Guards the camera callback: fields of a message may hold anything."""
    try:
        image = decode_raw(data, height=height, width=width, step=step, encoding=encoding)
    except FrameError as error:
        assert error.reason.isidentifier() and error.reason == error.reason.lower()
        return
    assert image.shape == (height, width, 3) and image.dtype == np.uint8


@quick
@hypothesis.given(
    height=st.integers(1, 9), width=st.integers(1, 9), pad=st.integers(0, 5),
    encoding=st.sampled_from(['rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8']),
    seed=st.integers(0, 999))
def test_raw_that_fits(height, width, pad, encoding, seed):
    """Guards against refusing a good message, and against a wrong pixel in it."""
    channels = RAW_ENCODINGS[encoding][0]
    rows = np.random.default_rng(seed).integers(
        0, 256, (height, width * channels + pad), np.uint8)
    image = decode_raw(
        rows.tobytes(), height=height, width=width, step=rows.shape[1], encoding=encoding)
    pixels = rows[:, :width * channels].reshape(height, width, channels)
    order = [0, 0, 0] if channels == 1 else [2, 1, 0] if 'bgr' in encoding else [0, 1, 2]
    np.testing.assert_array_equal(image, pixels[..., order])


@pytest.fixture(scope='module')
def files():
    """Encode one small image in three formats."""
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    return [cv2.imencode(suffix, image)[1].tobytes() for suffix in ('.jpg', '.png', '.webp')]


@quick
@hypothesis.given(
    which=st.integers(0, 2), cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8))
def test_compressed(files, which, cut, changes):
    """Guards against a damaged image raising what nobody catches, out of OpenCV's depths."""
    data = bytearray(files[which])
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    try:
        image = decode_compressed(bytes(data[:int(cut * len(data))]), encoding='jpeg')
    except FrameError:
        return
    assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8


@quick
@hypothesis.given(data=st.binary(max_size=400), encoding=st.text(max_size=12))
def test_compressed_bytes(data, encoding):
    """Guards the same against bytes that were never an image."""
    try:
        decode_compressed(data, encoding=encoding)
    except FrameError:
        pass


@quick
@hypothesis.given(
    height=st.integers(1, 40), width=st.integers(1, 40), turns=st.integers(0, 3),
    crop=st.tuples(*[st.floats(0, 1)] * 4))
def test_geometry(height, width, turns, crop):
    """Guards against a legal crop leaving nothing, or the wrong part, of a small image."""
    left, top, right, bottom = crop
    hypothesis.assume(left < right and top < bottom)
    y, x = np.mgrid[:height, :width]
    image = np.dstack([y, x, y]).astype(np.uint8)
    got = ViewGeometry(90 * turns, crop).apply(image)
    upright = np.rot90(image, k=-turns)
    assert got.shape[0] >= 1 and got.shape[1] >= 1
    for axis, (low, high) in enumerate(((top, bottom), (left, right))):
        assert abs(got.shape[axis] - (high - low) * upright.shape[axis]) <= 1.5
    # The first pixel taken is the one that the left and upper edge of the crop cut.
    place = (int(top * upright.shape[0]), int(left * upright.shape[1]))
    np.testing.assert_array_equal(got[0, 0], upright[place])

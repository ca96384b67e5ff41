# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How a camera is mounted: its images are turned, then cropped."""

from hralign_ros.runtime import ViewGeometry
import numpy as np
import pytest


def marked(height=40, width=80):
    """Make an image whose pixels tell where they were: red is the row, green the column."""
    y, x = np.mgrid[:height, :width]
    return np.dstack([y, x, np.full_like(x, 77)]).astype(np.uint8)


@pytest.mark.parametrize('rotation', [0, 90, 180, 270])
@pytest.mark.parametrize('crop', [
    (0.0, 0.0, 1.0, 1.0), (0.25, 0.0, 0.75, 1.0), (0.0, 0.5, 1.0, 1.0), (0.5, 0.25, 0.75, 0.5)])
def test_rotation_then_crop(rotation, crop):
    """Guards the direction of rotation (clockwise) and the order: rotate first, then crop."""
    image = marked()
    upright = np.rot90(image, k=-rotation // 90)
    height, width = upright.shape[:2]
    left, top, right, bottom = crop
    want = upright[int(top * height):int(bottom * height), int(left * width):int(right * width)]
    got = ViewGeometry(rotation, crop).apply(image)
    np.testing.assert_array_equal(got, want)
    assert got.flags.c_contiguous


def test_clockwise_means_clockwise():
    """Guards the words: after 90 degrees clockwise what was on top is on the right."""
    image = np.zeros((4, 6, 3), np.uint8)
    image[0] = 255
    turned = ViewGeometry(90).apply(image)
    assert turned.shape == (6, 4, 3)
    assert (turned[:, -1] == 255).all() and (turned[:, :-1] == 0).all()


def test_no_geometry_no_copy():
    """Guards the usual camera from a copy for nothing."""
    image = marked()
    assert ViewGeometry().apply(image) is image


@pytest.mark.parametrize('crop', [(0.0, 0.0, 1e-9, 1e-9), (0.999999, 0.999999, 1.0, 1.0)])
def test_a_crop_is_never_empty(crop):
    """Guards against a crop that leaves no pixel of a small image."""
    assert ViewGeometry(0, crop).apply(marked(3, 5)).shape == (1, 1, 3)


@pytest.mark.parametrize('rotation', [45, -90, 360, 1])
def test_bad_rotation(rotation):
    """Guards the parameter: an angle that cameras are not mounted at is refused by name."""
    with pytest.raises(ValueError, match='0, 90, 180, 270'):
        ViewGeometry(rotation)


@pytest.mark.parametrize('crop', [
    (0.5, 0.0, 0.5, 1.0), (0.6, 0.0, 0.4, 1.0), (0.0, 1.0, 1.0, 0.0), (-0.1, 0.0, 1.0, 1.0),
    (0.0, 0.0, 1.0, 1.1), (float('nan'), 0.0, 1.0, 1.0), (0.0, 0.0, 1.0), (), (0.0,) * 5])
def test_bad_crop(crop):
    """Guards the parameter: fractions in order, four of them."""
    with pytest.raises(ValueError, match='crop'):
        ViewGeometry(0, crop)

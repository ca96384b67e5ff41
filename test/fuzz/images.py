# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Fuzzed: camera messages."""

from array import array
from collections.abc import Sequence
from typing import Any

import cv2
from fuzz.source import Source, Target
from hralign_ros.nodes import image_subscriptions
from hralign_ros.runtime.errors import FrameError
from hralign_ros.runtime.images import as_rgb_image, MAX_SIDE, RAW_ENCODINGS, ViewGeometry
import numpy as np
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage


class Images(Target):
    """Camera messages: an image within the limits comes out, or a FrameError."""

    longest = 4096
    _ENCODINGS = (*RAW_ENCODINGS, '16UC1', '8UC3', '')
    _FORMATS = ('jpeg', 'png', 'rgb8; jpeg compressed bgr8', '16UC1; compressedDepth png', '')

    def seeds(self) -> list[bytes]:
        """Give a small image in every encoding and in every kind of file."""
        pattern = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
        pattern[4:] = 90
        # All that OpenCV knows: it goes by the bytes, whatever the message says of them.
        files = [cv2.imencode(suffix, pattern)[1].tobytes() for suffix in (
            '.jpg', '.png', '.webp', '.bmp', '.gif', '.tiff', '.ppm', '.ras', '.hdr', '.jp2',
            '.avif') if cv2.haveImageWriter(f'x{suffix}')]
        head = bytes([0, 0, 255, 0, 255])
        return [*(head + bytes([1, index % 2]) + file for index, file in enumerate(files)),
                *(head + bytes([0, index, 11, 15, 0, 0, 1]) + pattern.tobytes()[:900]
                  for index in range(len(self._ENCODINGS)))]

    def __call__(self, data: bytes) -> bool:
        """Decode a message and look at the image as the encoder does."""
        source = Source(data)
        geometry = _geometry(source)
        if source.below(2):
            message: Any = CompressedImage(format=self._format(source, self._FORMATS))
            message.data = array('B', source.rest())
            size = None
        else:
            message = _raw_message(source, self._format(source, self._ENCODINGS))
            size = (message.height, message.width)
        try:
            image, _ = image_subscriptions.decode(message)
            image = as_rgb_image(image, what='an image')
        except FrameError as error:
            assert error.reason.isidentifier() and error.reason == error.reason.lower()
            assert str(error)
            return False
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        assert 1 <= min(image.shape[:2]) and max(image.shape[:2]) <= MAX_SIDE
        assert size is None or image.shape[:2] == size
        if image.size < 1_000_000:
            upright = geometry.apply(image)
            assert upright.size and upright.dtype == np.uint8 and upright.shape[2] == 3
        return True

    @staticmethod
    def _format(source: Source, known: Sequence[str]) -> str:
        """Choose a known name, or make one up."""
        index = source.below(len(known) + 1)
        # A message on the wire holds no lone surrogates.
        return known[index] if index < len(known) else source.text().replace('\ud800', '?')


def _geometry(source: Source) -> ViewGeometry:
    """Draw how a camera is mounted."""
    rotation = source.one_of((0, 90, 180, 270))
    edges = [source.share() for _ in range(4)]
    try:
        return ViewGeometry(rotation, (edges[0], edges[2], edges[1], edges[3]))
    except ValueError:
        assert not (edges[0] < edges[1] and edges[2] < edges[3])
        return ViewGeometry(rotation)


def _raw_message(source: Source, encoding: str) -> ImageMessage:
    """Draw an uncompressed image whose sizes mostly fit."""
    def size() -> int:
        number = source.whole(1)
        return (number + 1) % 25 if number < 225 else source.whole(4)

    height, width = size(), size()
    kind = source.whole(1)
    if kind < 200:
        layout = RAW_ENCODINGS.get(encoding, RAW_ENCODINGS['yuyv'])
        step = layout.row_bytes(width) + kind % 4
    else:
        step = source.whole(4) if kind < 230 else kind
    step = min(step, 2 ** 32 - 1)
    bigendian, whole = source.below(2), source.below(4)
    data = source.rest()
    if whole and height * step < 10_000:  # short cases are whole images, too
        data = data.ljust(height * step, b'\x7f')
    return ImageMessage(
        height=height, width=width, step=step, encoding=encoding, is_bigendian=bigendian,
        data=array('B', data))

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What a compressed image says of itself, read before a decoder is let at it.

A few hundred kilobytes can unpack to gigabytes, or keep a decoder busy for hours. Only the four
formats that cameras send are known here; what OpenCV can read besides stays out.
"""

import struct

import numpy as np
from numpy.typing import NDArray

# Metadata may come before a JPEG's size: more than this is no camera's.
_HEADER_BYTES = 1 << 20
_MAX_SEGMENTS = 1024
# A progressive JPEG has about ten. Each one is a pass over the whole image, and may have hardly
# any bytes of its own.
MAX_SCANS = 100

# Start-of-frame markers, and those without a length behind them.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_BARE = {0x01, *range(0xD0, 0xD8)}


def announced_size(data: NDArray[np.uint8]) -> tuple[int, int]:
    """
    Read height and width from the header of a JPEG, PNG, WebP or BMP.

    :param data: the whole file, uint8 [n].
    :raises ValueError: another format, a header that is cut off, a JPEG of too many scans.
    """
    head = data[:32].tobytes()
    try:
        if head.startswith(b'\xff\xd8'):
            return _jpeg(data)
        if head.startswith(b'\x89PNG\r\n\x1a\n'):
            return _png(data.data)
        if head[:4] == b'RIFF' and head[8:12] == b'WEBP':
            return _webp(head)
        if head.startswith(b'BM'):
            return _bmp(head)
    except (struct.error, IndexError) as error:
        raise ValueError('its header is cut off') from error
    raise ValueError('it is no JPEG, PNG, WebP or BMP')


def _png(data: memoryview) -> tuple[int, int]:
    """
    Read the size, and see that no chunk announces more bytes than there are.

    OpenCV allocates and clears what a chunk announces, up to 4 GiB, before it looks for the bytes.
    """
    if bytes(data[12:16]) != b'IHDR':
        raise ValueError('its first part is not the header')
    width, height = struct.unpack_from('>II', data, 16)
    at = 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at:at + 4], 'big')
        # Length, type and checksum stand around the chunk's own bytes.
        if at + 12 + length > len(data):
            raise ValueError(f'a chunk announces {length} bytes, but {len(data) - at} are left')
        if bytes(data[at + 4:at + 8]) == b'IEND':
            break
        at += 12 + length
    return height, width


def _bmp(head: bytes) -> tuple[int, int]:
    if struct.unpack_from('<I', head, 14)[0] == 12:  # the oldest kind
        width, height = struct.unpack_from('<HH', head, 18)
    else:
        width, height = struct.unpack_from('<ii', head, 18)
    return abs(height), width  # a negative height: rows from the top


def _webp(head: bytes) -> tuple[int, int]:
    kind = head[12:16]
    if kind == b'VP8X':
        low, high = struct.unpack_from('<HB', head, 24), struct.unpack_from('<HB', head, 27)
        return 1 + (high[0] | high[1] << 16), 1 + (low[0] | low[1] << 16)
    if kind == b'VP8L':
        bits = struct.unpack_from('<I', head, 21)[0]
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    if kind == b'VP8 ':
        width, height = struct.unpack_from('<HH', head, 26)
        return height & 0x3FFF, width & 0x3FFF
    raise ValueError('its first part is not the header')


def _jpeg(data: NDArray[np.uint8]) -> tuple[int, int]:
    """Walk from marker to marker to the start of the frame, as decoders do."""
    head = data[:_HEADER_BYTES].tobytes()
    at = 2
    for _ in range(_MAX_SEGMENTS):
        at = head.find(b'\xff', at)
        if at < 0:
            break
        while head[at] == 0xFF:  # any number of them may come before a marker
            at += 1
        marker = head[at]
        at += 1
        if marker == 0 or marker in _BARE:
            continue
        if marker in _FRAMES:
            height, width = struct.unpack_from('>HH', head, at + 3)
            # Within a scan no marker occurs by chance: each 0xFF there is followed by a zero.
            scans = data[at:].tobytes().count(b'\xff\xda')
            if scans > MAX_SCANS:
                raise ValueError(f'it has {scans} scans; at most {MAX_SCANS} are decoded')
            return height, width
        if marker in (0xD8, 0xD9, 0xDA):
            break
        at += struct.unpack_from('>H', head, at)[0]
    raise ValueError('it does not tell its size')

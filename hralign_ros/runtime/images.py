# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
From the bytes of a camera message to an RGB image: pure functions on numpy arrays.

All images are uint8 arrays [H, W, 3] in RGB order. An rgb8 image without row padding is a
view on the message's own bytes; every other 8-bit path makes exactly one copy.
"""

from array import array
from dataclasses import dataclass
import os
import re
import struct
import sys
from typing import Any, NamedTuple

# Larger images are refused before anything is allocated for them. OpenCV reads limits of its
# own when it is loaded, which is too late where somebody else has loaded it before.
MAX_SIDE = 8192
MAX_PIXELS = 7680 * 4320  # 8K; 100 MB as RGB
for _limit in ('OPENCV_IO_MAX_IMAGE_WIDTH', 'OPENCV_IO_MAX_IMAGE_HEIGHT'):
    os.environ.setdefault(_limit, str(MAX_SIDE))

import cv2  # noqa: E402
from hralign_ros.runtime.errors import FrameError  # noqa: E402
import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

Image = NDArray[np.uint8]
Buffer = bytes | bytearray | memoryview | array | NDArray[np.uint8]


class RawEncoding(NamedTuple):
    """
    How the pixels of a sensor_msgs/Image lie in its data.

    :param channels: samples a pixel in a row; in YUV 4:2:2 its Y, and U or V.
    :param conversion: OpenCV's to RGB; None: it is RGB.
    :param bits: of a sample; of 16 the upper 8 count, which is what cv_bridge does.
    :param shared: width and height of the block of pixels that has one colour.
    :param chroma_below: half as many rows of U and V follow the rows of Y.
    """

    channels: int
    conversion: int | None
    bits: int = 8
    shared: tuple[int, int] = (1, 1)
    chroma_below: bool = False

    def row_bytes(self, width: int) -> int:
        """Return how many bytes a row of so many pixels has, without padding."""
        return width * self.channels * self.bits // 8


# By the encoding's name. OpenCV names a Bayer pattern after the second pixel of the second row.
RAW_ENCODINGS: dict[str, RawEncoding] = {
    'rgb8': RawEncoding(3, None),
    'bgr8': RawEncoding(3, cv2.COLOR_BGR2RGB),
    'rgba8': RawEncoding(4, cv2.COLOR_RGBA2RGB),
    'bgra8': RawEncoding(4, cv2.COLOR_BGRA2RGB),
    'mono8': RawEncoding(1, cv2.COLOR_GRAY2RGB),
    'rgb16': RawEncoding(3, None, 16),
    'bgr16': RawEncoding(3, cv2.COLOR_BGR2RGB, 16),
    'rgba16': RawEncoding(4, cv2.COLOR_RGBA2RGB, 16),
    'bgra16': RawEncoding(4, cv2.COLOR_BGRA2RGB, 16),
    'mono16': RawEncoding(1, cv2.COLOR_GRAY2RGB, 16),
    **{f'bayer_{pattern}{bits}': RawEncoding(1, conversion, bits)
       for bits in (8, 16) for pattern, conversion in (
           ('rggb', cv2.COLOR_BayerBG2RGB), ('bggr', cv2.COLOR_BayerRG2RGB),
           ('gbrg', cv2.COLOR_BayerGR2RGB), ('grbg', cv2.COLOR_BayerGB2RGB))},
    **{name: RawEncoding(2, conversion, shared=(2, 1)) for name, conversion in (
        ('yuv422', cv2.COLOR_YUV2RGB_UYVY), ('uyvy', cv2.COLOR_YUV2RGB_UYVY),
        ('yuv422_yuy2', cv2.COLOR_YUV2RGB_YUY2), ('yuyv', cv2.COLOR_YUV2RGB_YUY2))},
    'nv12': RawEncoding(1, cv2.COLOR_YUV2RGB_NV12, shared=(2, 2), chroma_below=True),
    'nv21': RawEncoding(1, cv2.COLOR_YUV2RGB_NV21, shared=(2, 2), chroma_below=True),
}
# What compressed_image_transport says of an image of distances.
_DEPTH = re.compile(r'\s*(16|32|64)[USF]C\d|.*compressedDepth')

MAX_COMPRESSED_BYTES = 64 * 1024 * 1024
# Metadata may come before a JPEG's size: more than this is no camera's.
_HEADER_BYTES = 1 << 20
_MAX_SEGMENTS = 1024
# A progressive JPEG has about ten. Each one is a pass over the whole image, and may have hardly
# any bytes of its own.
MAX_SCANS = 100

# Start-of-frame markers, and those without a length behind them.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_BARE = {0x01, *range(0xD0, 0xD8)}

ROTATIONS = (0, 90, 180, 270)
_CV2_ROTATION = {
    90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_COUNTERCLOCKWISE,
}


def decode_message(message: Any) -> Image:
    """
    Decode a camera's message: live and from recordings, images are made here.

    :param message: sensor_msgs/Image or sensor_msgs/CompressedImage, whoever deserialised it.
    :returns: uint8 [H, W, 3], RGB.
    :raises FrameError: the image cannot be used.
    """
    if hasattr(message, 'format'):
        return decode_compressed(message.data, encoding=message.format)
    return decode_raw(
        message.data, height=message.height, width=message.width, step=message.step,
        encoding=message.encoding, is_bigendian=bool(message.is_bigendian))


def decode_raw(
    data: Buffer, *, height: int, width: int, step: int, encoding: str,
    is_bigendian: bool = False,
) -> Image:
    """
    Decode the bytes of a sensor_msgs/Image in one of RAW_ENCODINGS to RGB.

    :param data: the message's data, at least height * step bytes.
    :param step: bytes from one row to the next, padding included.
    :param is_bigendian: of samples of 16 bits: the upper byte comes first.
    :returns: uint8 [height, width, 3], RGB, C-contiguous.
    :raises FrameError: unsupported_encoding, empty_image, oversized_image, bad_step, truncated.
    """
    if encoding not in RAW_ENCODINGS:
        raise FrameError(
            'unsupported_encoding',
            f"encoding '{encoding}' is no colour image that is decoded here; allowed: "
            f'{", ".join(RAW_ENCODINGS)}. Set the camera driver to one of these')
    check_size(height, width)
    layout = RAW_ENCODINGS[encoding]
    if width % layout.shared[0] or height % layout.shared[1]:
        raise FrameError(
            'unsupported_encoding',
            f"encoding '{encoding}' has one colour for {layout.shared[0]}x{layout.shared[1]} "
            f'pixels, and the image is {width}x{height}; set the camera driver to an even size')
    flat = np.frombuffer(data, np.uint8)
    row = layout.row_bytes(width)
    count = height
    if layout.chroma_below:
        count += height // 2
        # Drivers differ in what a row is here; data of exactly this size has no padding.
        step = row if flat.size == count * row else step
    if step < row:
        raise FrameError(
            'bad_step',
            f'step is {step} bytes, but a row of {width} {encoding} pixels has {row}; '
            'the camera driver fills the message wrongly')
    if flat.size < count * step:
        raise FrameError(
            'truncated',
            f'{flat.size} bytes of data, but {count} rows of {step} bytes are '
            f'{count * step}; the message was cut or its size fields are wrong')
    rows = flat[:count * step].reshape(count, step)[:, :row]
    if layout.bits == 16:
        deep = np.ascontiguousarray(rows).view('>u2' if is_bigendian else '<u2')
        pixels: NDArray[Any] = deep.astype(np.uint16).reshape(count, width, layout.channels)
    else:
        pixels = rows.reshape(count, width, layout.channels)
    if layout.conversion is not None:
        pixels = cv2.cvtColor(pixels, layout.conversion)
    if layout.bits == 16:
        pixels = cv2.convertScaleAbs(pixels, alpha=255.0 / 65535.0)
    return np.ascontiguousarray(pixels, np.uint8)


def decode_compressed(data: Buffer, *, encoding: str = '') -> Image:
    """
    Decode the bytes of a sensor_msgs/CompressedImage (JPEG, PNG, WebP or BMP) to RGB.

    The image's size is read from its header and checked before OpenCV sees any of it.

    :param encoding: the message's format field, used to refuse depth images by name, and to turn
        a Bayer mosaic, which compressed_image_transport stores as a grey image, into colours.
    :returns: uint8 [H, W, 3], RGB. Orientation tags are ignored: the pixels are taken as stored.
    :raises FrameError: unsupported_encoding, empty_image, oversized_image, corrupt_image.
    """
    if _DEPTH.match(encoding):
        raise FrameError(
            'unsupported_encoding',
            f"format '{encoding}' is a depth image; connect a colour topic")
    flat = np.frombuffer(data, np.uint8)
    if flat.size == 0:
        raise FrameError('empty_image', 'a compressed image without data came')
    if flat.size > MAX_COMPRESSED_BYTES:
        raise FrameError(
            'oversized_image',
            f'a compressed image of {flat.size} bytes came; at most {MAX_COMPRESSED_BYTES} '
            'are decoded')
    try:
        check_size(*announced_size(flat))
        mosaic = stored_mosaic(encoding)
        bgr = cv2.imdecode(flat, cv2.IMREAD_UNCHANGED if mosaic else
                           cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if bgr is None:
            raise ValueError('OpenCV cannot decode it')
        if mosaic:
            height, width = bgr.shape[:2]
            if bgr.ndim != 2 or bgr.itemsize * 8 != RAW_ENCODINGS[mosaic].bits:
                raise ValueError(f'it is no {mosaic} mosaic')
            return decode_raw(
                np.ascontiguousarray(bgr).reshape(-1).view(np.uint8), height=height, width=width,
                step=width * bgr.itemsize, encoding=mosaic,
                is_bigendian=sys.byteorder == 'big')
    except (ValueError, cv2.error) as error:
        raise FrameError(
            'corrupt_image',
            f"{flat.size} bytes of format '{encoding}' are not an image that can be decoded "
            f'({error})') from error
    check_size(*bgr.shape[:2])
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def stored_mosaic(encoding: str) -> str:
    """Return the Bayer encoding that a CompressedImage of this format holds; '': none."""
    match = re.fullmatch(r'\s*(bayer_\w+);\s*\w+ compressed\s*', encoding)
    return match[1] if match and match[1] in RAW_ENCODINGS else ''


def announced_size(data: NDArray[np.uint8]) -> tuple[int, int]:
    """
    Read height and width from the header of a JPEG, PNG, WebP or BMP, before a decoder sees it.

    A few hundred kilobytes can unpack to gigabytes, or keep a decoder busy for hours. Only the
    four formats that cameras send are known here; what OpenCV can read besides stays out.

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


def check_size(height: int, width: int) -> None:
    """
    Refuse sizes that no camera sends.

    :raises FrameError: empty_image, oversized_image.
    """
    if height < 1 or width < 1:
        raise FrameError(
            'empty_image', f'the image is {width}x{height} pixels; it has nothing in it')
    if height > MAX_SIDE or width > MAX_SIDE or height * width > MAX_PIXELS:
        raise FrameError(
            'oversized_image',
            f'the image is {width}x{height} pixels; at most {MAX_SIDE} a side and {MAX_PIXELS} '
            'in all are taken')


def as_rgb_image(array: NDArray[np.generic], *, what: str) -> Image:
    """
    Check that an array is an image as the encoder takes it, and make it contiguous.

    :param what: how an error names the image, e.g. "view 'wrist'".
    :raises FrameError: bad_array, empty_image, oversized_image.
    """
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise FrameError(
            'bad_array',
            f'{what} is {array.dtype} {list(array.shape)}; needed is uint8 [H, W, 3] in RGB')
    check_size(*array.shape[:2])
    return np.ascontiguousarray(array, np.uint8)


@dataclass(frozen=True)
class ViewGeometry:
    """
    How a camera is mounted: rotate first, then crop.

    :param rotation: degrees clockwise that set the image upright, one of ROTATIONS.
    :param crop: left, top, right, bottom as fractions [0, 1] of the rotated image.
    """

    rotation: int = 0
    crop: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.rotation not in ROTATIONS:
            raise ValueError(
                f'rotation is {self.rotation}; allowed: {", ".join(map(str, ROTATIONS))} degrees')
        if len(self.crop) != 4:
            raise ValueError(
                f'crop has {len(self.crop)} numbers; needed are left, top, right, bottom')
        left, top, right, bottom = self.crop
        if not (0.0 <= left < right <= 1.0 and 0.0 <= top < bottom <= 1.0):
            raise ValueError(
                f'crop is {list(self.crop)}; left, top, right, bottom are fractions of the '
                'image with 0 <= left < right <= 1 and 0 <= top < bottom <= 1')

    def apply(self, image: Image) -> Image:
        """Rotate and crop an image; without either it is returned as it is."""
        if self.rotation:
            image = np.asarray(cv2.rotate(image, _CV2_ROTATION[self.rotation]), np.uint8)
        if self.crop != (0.0, 0.0, 1.0, 1.0):
            height, width = image.shape[:2]
            left, top, right, bottom = self.crop
            x0, y0 = int(left * width), int(top * height)
            x1 = max(x0 + 1, round(right * width))
            y1 = max(y0 + 1, round(bottom * height))
            image = np.ascontiguousarray(image[y0:y1, x0:x1])
        return image


# A view that is taken as it comes.
AS_IT_COMES = ViewGeometry()

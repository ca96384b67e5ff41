# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""From message bytes to RGB: right colours, no needless copy, a counted drop for the rest."""

from array import array
import struct
import subprocess
import sys
from types import SimpleNamespace
import zlib

import cv2
from hralign_ros.runtime import decode_compressed, decode_raw, FrameError
from hralign_ros.runtime.images import (
    announced_size,
    as_rgb_image,
    decode_message,
    MAX_SIDE,
    RAW_ENCODINGS,
)
import numpy as np
import pytest

# Rows of three pixels that differ in every channel and every place.
RGB = np.array([
    [[255, 0, 0], [0, 255, 0], [0, 0, 255]],
    [[10, 20, 30], [200, 150, 100], [255, 255, 255]]], np.uint8)
GREY = np.array([[0, 7, 255], [128, 9, 1]], np.uint8)
ALPHA = np.array([[0, 128, 255], [1, 2, 3]], np.uint8)
WIRE = {
    'rgb8': RGB,
    'bgr8': RGB[..., ::-1],
    'rgba8': np.dstack([RGB, ALPHA]),
    'bgra8': np.dstack([RGB[..., ::-1], ALPHA]),
    'mono8': GREY[..., None],
}


def wire(encoding, pad=0):
    """Lay pixels out as a camera driver sends them, with `pad` bytes of rubbish after a row."""
    rows = np.ascontiguousarray(WIRE[encoding]).reshape(2, -1)
    rows = np.hstack([rows, np.full((2, pad), 0xA5, np.uint8)])
    return rows.tobytes(), rows.shape[1]


def wanted(encoding):
    return np.repeat(GREY[..., None], 3, axis=2) if encoding == 'mono8' else RGB


def refused(reason, call, *args, **kwargs):
    """Check that a frame is refused for a reason; return the sentence."""
    with pytest.raises(FrameError) as caught:
        call(*args, **kwargs)
    assert caught.value.reason == reason, str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize('pad', [0, 1, 4, 13])
@pytest.mark.parametrize('encoding', sorted(WIRE))
@pytest.mark.parametrize('kind', [bytes, bytearray, memoryview, 'array'])
def test_raw_colours_are_exact(encoding, pad, kind):
    """Guards every channel order, row padding and kind of buffer: all in RGB, all exact."""
    data, step = wire(encoding, pad)
    data = array('B', data) if kind == 'array' else kind(data)
    image = decode_raw(data, height=2, width=3, step=step, encoding=encoding)
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, wanted(encoding))


def test_unpadded_rgb8_is_not_copied():
    """Guards the one path that costs nothing, which is the one most drivers take."""
    data, step = wire('rgb8')
    image = decode_raw(data, height=2, width=3, step=step, encoding='rgb8')
    assert np.shares_memory(image, np.frombuffer(data, np.uint8))
    data, step = wire('rgb8', 1)
    image = decode_raw(data, height=2, width=3, step=step, encoding='rgb8')
    assert not np.shares_memory(image, np.frombuffer(data, np.uint8))


def test_bytes_behind_the_last_row_are_ignored():
    """Guards drivers that send a buffer larger than the image."""
    data, step = wire('bgr8')
    image = decode_raw(data + b'tail', height=2, width=3, step=step, encoding='bgr8')
    np.testing.assert_array_equal(image, RGB)


@pytest.mark.parametrize('encoding', sorted(WIRE))
def test_a_real_size_with_padding(encoding):
    """Guards large strided rows, which OpenCV handles elsewhere than small ones."""
    channels = RAW_ENCODINGS[encoding][0]
    rows = np.random.default_rng(1).integers(0, 256, (481, 641 * channels + 7), np.uint8)
    image = decode_raw(rows.tobytes(), height=481, width=641, step=rows.shape[1],
                       encoding=encoding)
    pixels = rows[:, :641 * channels].reshape(481, 641, channels)
    order = {'rgb8': [0, 1, 2], 'bgr8': [2, 1, 0], 'rgba8': [0, 1, 2], 'bgra8': [2, 1, 0],
             'mono8': [0, 0, 0]}[encoding]
    np.testing.assert_array_equal(image, pixels[..., order])


@pytest.mark.parametrize('encoding', sorted(WIRE))
@pytest.mark.parametrize('step', [0, -1, -100, 1, 2])
def test_step_shorter_than_a_row(encoding, step):
    """Guards against reading rows on top of one another, and against a negative step."""
    data, _ = wire(encoding)
    text = refused('bad_step', decode_raw, data, height=2, width=3, step=step, encoding=encoding)
    assert str(step) in text and encoding in text


@pytest.mark.parametrize('encoding', sorted(WIRE))
def test_truncated_data(encoding):
    """Guards against reading behind the end of a message that was cut."""
    data, step = wire(encoding)
    for cut in (1, len(data) // 2, len(data)):
        refused('truncated', decode_raw, data[:-cut], height=2, width=3, step=step,
                encoding=encoding)


@pytest.mark.parametrize(('height', 'width'), [(0, 3), (2, 0), (0, 0), (-2, 3), (2, -3)])
def test_images_of_no_size(height, width):
    """Guards against an image with nothing in it reaching the model."""
    refused('empty_image', decode_raw, b'', height=height, width=width, step=9, encoding='rgb8')


@pytest.mark.parametrize(('height', 'width'), [
    (MAX_SIDE + 1, 1), (1, MAX_SIDE + 1), (2 ** 32 - 1, 2 ** 32 - 1), (MAX_SIDE, MAX_SIDE)])
def test_images_of_impossible_size(height, width):
    """Guards against allocating for a size that only a broken message has."""
    refused('oversized_image', decode_raw, b'', height=height, width=width, step=2 ** 32 - 1,
            encoding='mono8')


@pytest.mark.parametrize('encoding', ['', 'RGB8', '16UC1', '32FC1', '8UC3', 'nv24'])
def test_unsupported_encodings_are_named(encoding):
    """Guards what a user needs to know: which encoding came and which would do."""
    text = refused('unsupported_encoding', decode_raw, b'x' * 99, height=2, width=3, step=12,
                   encoding=encoding)
    assert f"'{encoding}'" in text
    assert all(name in text for name in RAW_ENCODINGS)


@pytest.mark.parametrize('pad', [0, 6])
@pytest.mark.parametrize('encoding', sorted(set(RAW_ENCODINGS) - set(WIRE)))
def test_what_industrial_cameras_send(encoding, pad):
    """
    Guards Bayer, YUV and 16 bits, which needed a cv_bridge that fits the loaded numpy.

    A red, a green and a blue area tell the order of colours and of the mosaic.
    """
    for is_bigendian in (False, True):
        data, step = industrial(encoding, blocks(), pad, is_bigendian=is_bigendian)
        image = decode_raw(data, height=48, width=64, step=step, encoding=encoding,
                           is_bigendian=is_bigendian)
        assert image.dtype == np.uint8 and image.flags.c_contiguous
        expected = blocks().mean(2).astype(int) if encoding == 'mono16' else blocks().astype(int)
        expected = np.broadcast_to(expected.reshape(48, 64, -1), (48, 64, 3))
        for column in (8, 32, 56):
            assert np.abs(image[8:-8, column].astype(int) - expected[8:-8, column]).max() <= 2
        refused('truncated', decode_raw, data[:-7], height=48, width=64, step=step + 2,
                encoding=encoding)
        refused('bad_step', decode_raw, data + b'x', height=48, width=64, step=10,
                encoding=encoding)


@pytest.mark.parametrize('step', [64, 96, 128])
def test_rows_of_nv12(step):
    """Guards drivers that give the bytes of Y, or of a pixel, for the row of an unpadded image."""
    data, _ = industrial('nv12', blocks())
    image = decode_raw(data, height=48, width=64, step=step, encoding='nv12')
    assert np.abs(image[24, 8].astype(int) - [230, 20, 20]).max() <= 2


@pytest.mark.parametrize('encoding', ['nv12', 'nv21', 'yuyv', 'uyvy', 'yuv422'])
def test_pixels_that_share_a_colour(encoding):
    """Guards against reading the colours of half a pixel."""
    text = refused('unsupported_encoding', decode_raw, bytes(9999), height=48, width=63,
                   step=200, encoding=encoding)
    assert 'even' in text


@pytest.mark.parametrize('encoding', ['bayer_rggb8', 'bayer_gbrg16'])
def test_a_mosaic_that_was_compressed(encoding):
    """Guards cameras of industry with image_transport: the mosaic was taken for a grey image."""
    data, _ = industrial(encoding, blocks())
    samples = np.frombuffer(data, np.uint16 if encoding.endswith('16') else np.uint8)
    _, png = cv2.imencode('.png', samples.reshape(48, 64))
    image = decode_compressed(png.tobytes(), encoding=f'{encoding}; png compressed ')
    step = len(data) // 48
    np.testing.assert_array_equal(image, decode_raw(
        data, height=48, width=64, step=step, encoding=encoding))
    # This one was given its colours before.
    done = encode('.png', blocks())
    np.testing.assert_array_equal(
        decode_compressed(done, encoding=f'{encoding}; png compressed bgr8'), blocks())
    refused('corrupt_image', decode_compressed, done, encoding=f'{encoding}; png compressed')


def test_message():
    """Guards the one way from a message to an image, for rclpy's and for rosbags' messages."""
    data, step = wire('bgr8', 3)
    raw = SimpleNamespace(data=np.frombuffer(data, np.uint8), height=2, width=3, step=step,
                          encoding='bgr8', is_bigendian=0)
    np.testing.assert_array_equal(decode_message(raw), RGB)
    data = np.frombuffer(encode('.png', photo()), np.uint8)
    np.testing.assert_array_equal(
        decode_message(SimpleNamespace(data=data, format='png')), photo())


def blocks():
    """Draw a red, a green and a blue area: uint8 [48, 64, 3] RGB."""
    image = np.empty((48, 64, 3), np.uint8)
    image[:, :22], image[:, 22:42], image[:, 42:] = (230, 20, 20), (20, 200, 40), (30, 40, 220)
    return image


def industrial(encoding, rgb, pad=0, *, is_bigendian=False):
    """Lay an RGB image out as cameras of industry send it."""
    height, width = rgb.shape[:2]
    if encoding.startswith('bayer'):
        planes = np.empty((height, width), np.uint8)
        for place, colour in enumerate(encoding[6:10]):
            row, column = divmod(place, 2)
            planes[row::2, column::2] = rgb[row::2, column::2, 'rgb'.index(colour)]
        samples = planes
    elif encoding.startswith('nv'):
        flat = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420).ravel()
        size = height * width
        u, v = flat[size:size * 5 // 4], flat[size * 5 // 4:]
        both = np.stack([u, v] if encoding == 'nv12' else [v, u], 1)
        samples = np.concatenate([flat[:size], both.ravel()]).reshape(-1, width)
    elif encoding.startswith(('yuv', 'yuyv', 'uyvy')):
        flat = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420).ravel()
        size = height * width
        y = flat[:size].reshape(height, width)
        u, v = (flat[start:start + size // 4].reshape(height // 2, -1).repeat(2, 0)
                for start in (size, size * 5 // 4))
        four = [y[:, ::2], u, y[:, 1::2], v]
        if encoding in ('uyvy', 'yuv422'):
            four = [u, y[:, ::2], v, y[:, 1::2]]
        samples = np.stack(four, 2).reshape(height, -1)
    else:
        alpha = np.full((height, width, 1), 9, np.uint8)
        order = rgb if encoding.startswith('rgb') else rgb[..., ::-1]
        samples = rgb.mean(2) if encoding == 'mono16' else np.concatenate(
            [order, alpha], 2) if 'a' in encoding else order
        samples = samples.astype(np.uint8).reshape(height, -1)
    if encoding.endswith('16'):
        deep = samples.astype('>u2' if is_bigendian else '<u2') * 257
        samples = deep.astype('>u2' if is_bigendian else '<u2').view(np.uint8)
    rows = np.hstack([samples, np.full((len(samples), pad), 0xA5, np.uint8)])
    return rows.tobytes(), rows.shape[1]


def photo(height=120, width=161):
    """Make a smooth colourful image, which JPEG keeps well."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    planes = [128 + 100 * np.sin(x / 23 + k) * np.cos(y / (17 + 5 * k)) for k in range(3)]
    return np.dstack(planes).astype(np.uint8)


def encode(suffix, rgb, *options):
    """Encode an RGB or grey image."""
    source = rgb if rgb.ndim == 2 else cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(suffix, source, list(options))
    assert done
    return data.tobytes()


@pytest.mark.parametrize('suffix', ['.png', '.bmp'])
def test_lossless_images_are_exact(suffix):
    """Guards the colour order of compressed images."""
    np.testing.assert_array_equal(decode_compressed(encode(suffix, photo())), photo())


@pytest.mark.parametrize('kind', [bytes, bytearray, memoryview, 'array'])
def test_jpeg(kind):
    """Guards the usual transport, from every kind of buffer."""
    data = encode('.jpg', photo(), cv2.IMWRITE_JPEG_QUALITY, 95)
    data = array('B', data) if kind == 'array' else kind(data)
    image = decode_compressed(data, encoding='rgb8; jpeg compressed bgr8')
    assert image.shape == photo().shape and image.flags.c_contiguous
    assert np.abs(image.astype(int) - photo()).mean() < 2.0


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_grey_images_become_rgb(suffix):
    """Guards a monochrome camera behind a compressed transport."""
    grey = photo()[..., 0]
    image = decode_compressed(encode(suffix, grey))
    assert image.shape == (*grey.shape, 3)
    np.testing.assert_array_equal(image[..., 0], image[..., 2])
    assert np.abs(image[..., 0].astype(int) - grey).mean() < 2.0


def test_transparency_and_16_bits():
    """Guards against PNG files that are not 8-bit RGB: they become that, or are refused."""
    rgba = np.dstack([photo(), np.full(photo().shape[:2], 128, np.uint8)])
    _, data = cv2.imencode('.png', cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA))
    np.testing.assert_array_equal(decode_compressed(data.tobytes()), photo())
    _, data = cv2.imencode('.png', photo()[..., ::-1].astype(np.uint16) * 257)
    image = decode_compressed(data.tobytes())
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - photo()).max() <= 1


def test_orientation_tags_are_ignored():
    """Guards against an image that turns itself: rotation is the view's parameter alone."""
    plain = encode('.jpg', photo(), cv2.IMWRITE_JPEG_QUALITY, 95)
    tiff = b'II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00' \
        b'\x00\x00\x00\x00'
    body = b'Exif\x00\x00' + tiff
    turned = plain[:2] + b'\xff\xe1' + struct.pack('>H', len(body) + 2) + body + plain[2:]
    np.testing.assert_array_equal(decode_compressed(turned), decode_compressed(plain))


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize('share', [0.02, 0.3, 0.7, 0.98])
def test_truncated_images(suffix, share):
    """Guards against half an image with a grey rest being taken for what the camera saw."""
    data = encode(suffix, photo())
    text = refused('corrupt_image', decode_compressed, data[:int(len(data) * share)],
                   encoding='jpeg')
    assert 'jpeg' in text


@pytest.mark.parametrize('data', [b'x', b'\xff\xd8\xff', b'not an image', bytes(5000)])
def test_what_is_no_image(data):
    """Guards against bytes that no decoder knows."""
    refused('corrupt_image', decode_compressed, data, encoding='jpeg')


def test_corrupt_headers():
    """Guards against rubbish behind a right signature."""
    for suffix in ('.jpg', '.png'):
        data = bytearray(encode(suffix, photo()))
        data[8:60] = bytes(52)
        refused('corrupt_image', decode_compressed, bytes(data))


def test_no_data():
    """Guards against a message without any bytes."""
    refused('empty_image', decode_compressed, b'', encoding='jpeg')


def test_depth_images_are_refused_by_name():
    """Guards against a depth topic: its header bytes would be taken for a corrupt image."""
    text = refused('unsupported_encoding', decode_compressed, b'\x00' * 12 + encode(
        '.png', photo()), encoding='16UC1; compressedDepth png')
    assert 'depth' in text
    # The transport "compressed" makes a PNG of distances: it was taken for a nearly black image.
    refused('unsupported_encoding', decode_compressed, encode('.png', photo()),
            encoding='16UC1; png compressed ')


@pytest.mark.parametrize('length', [2 ** 32 - 1, 2 ** 31, 2_000_000])
@pytest.mark.parametrize('chunk', ['IHDR', 'IDAT', 'IEND'])
def test_a_chunk_that_announces_gigabytes(length, chunk):
    """
    Guards the robot's memory against one damaged frame.

    A fuzzer found it: OpenCV allocates and clears what a chunk of a PNG file announces, 4 GiB for
    half a kilobyte, which took seven seconds, and only then finds that the bytes are not there.
    """
    data = bytearray(cv2.imencode('.png', photo())[1].tobytes())
    at = data.index(chunk.encode()) - 4
    data[at:at + 4] = length.to_bytes(4, 'big')
    refused('corrupt_image', decode_compressed, bytes(data), encoding='png')


def test_a_png_with_many_chunks_and_more_behind_it():
    """Guards against refusing good files: of many chunks, and with bytes behind their end."""
    pattern = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    data = cv2.imencode('.png', pattern)[1].tobytes()
    assert data.count(b'IDAT') > 1
    image = decode_compressed(data + b'\xff' * 9, encoding='png')
    np.testing.assert_array_equal(image, pattern[..., ::-1])


def _png(side):
    """Make a grey PNG of zeros, which packs a thousand to one."""
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack(
            '>I', zlib.crc32(kind + data))

    packer = zlib.compressobj(6)
    row = bytes(side + 1)
    packed = b''.join(packer.compress(row) for _ in range(side)) + packer.flush()
    return b'\x89PNG\r\n\x1a\n' + chunk(
        b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 0, 0, 0, 0)) + chunk(
        b'IDAT', packed) + chunk(b'IEND', b'')


def test_too_large_a_compressed_image():
    """Guards the limit on the side of an image for the compressed transport too."""
    with pytest.raises(FrameError) as caught:
        decode_compressed(_png(MAX_SIDE + 1), encoding='png')
    assert caught.value.reason in ('oversized_image', 'corrupt_image')


def test_a_small_message_cannot_fill_the_memory(tmp_path):
    """Guards the robot's memory: 250 kB of PNG that unpack to 750 MB are refused before that."""
    (tmp_path / 'bomb.png').write_bytes(_png(16_000))
    program = (
        'import resource, sys\n'
        'from hralign_ros.runtime.images import decode_compressed, FrameError\n'
        'data = open(sys.argv[1], "rb").read()\n'
        'before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n'
        'try:\n'
        '    decode_compressed(data)\n'
        'except FrameError as error:\n'
        '    print(error.reason)\n'
        'print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n')
    done = subprocess.run(
        [sys.executable, '-c', program, str(tmp_path / 'bomb.png')], capture_output=True,
        text=True, timeout=60, check=True)
    reason, grown = done.stdout.split()
    assert reason in ('oversized_image', 'corrupt_image')
    assert int(grown) < 300, f'{grown} MiB to refuse an image'


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp', '.webp'])
@pytest.mark.parametrize('size', [(1, 1), (33, 57), (480, 640), (1, 300), (300, 1)])
def test_the_size_is_known_before_decoding(suffix, size):
    """Guards the reading of headers, against what OpenCV makes of the same files."""
    data = np.frombuffer(encode(suffix, photo(*size)), np.uint8)
    assert announced_size(data) == size == cv2.imdecode(data, cv2.IMREAD_COLOR).shape[:2]


@pytest.mark.parametrize('options', [
    [], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]])
def test_the_size_of_a_jpeg_with_much_before_it(options):
    """Guards cameras that write Exif, colour profiles and padding before the image."""
    data = encode('.jpg', photo(), *options)
    exif = b'\xff\xe1\xff\xff' + b'\xff\xc0\xff\xda' * 16383 + b'x'
    for segment in (exif, b'\xff\xff\xff\xfe\0\x03x', b'garbage\xff\0'):
        data = data[:2] + segment + data[2:]
    assert announced_size(np.frombuffer(data, np.uint8)) == photo().shape[:2]


def announcing(suffix, height, width):
    """Make a small image whose header announces a large one."""
    data = bytearray(encode(suffix, photo(8, 8)))
    if suffix == '.png':
        struct.pack_into('>II', data, 16, width, height)
        struct.pack_into('>I', data, 29, zlib.crc32(data[12:29]))
    elif suffix == '.bmp':
        struct.pack_into('<ii', data, 18, width, height)
    elif suffix == '.jpg':
        struct.pack_into('>HH', data, data.index(b'\xff\xc0') + 5, height, width)
    else:
        data[12:] = b'VP8X' + struct.pack('<IIHBHB', 10, 0, (width - 1) & 0xFFFF, width - 1 >> 16,
                                          (height - 1) & 0xFFFF, height - 1 >> 16)
    return bytes(data)


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp', '.webp'])
@pytest.mark.parametrize('size', [(60_000, 60_000), (8192, 8192), (4, 9000)])
def test_a_header_that_announces_too_much(suffix, size, monkeypatch):
    """
    Guards against decompression bombs: no decoder sees an image whose header is too large.

    OpenCV's own limits are read when it is loaded, by whoever loads it first; they were all that
    stood between a JPEG of some kilobytes and 10 GB.
    """
    def never(*_):
        raise AssertionError('a decoder was let at it')

    monkeypatch.setattr(cv2, 'imdecode', never)
    text = refused('oversized_image', decode_compressed, announcing(suffix, *size))
    assert f'{size[1]}x{size[0]}' in text


def test_a_jpeg_of_a_thousand_scans():
    """
    Guards the worker against one message that keeps it busy for an hour.

    Each scan of a progressive JPEG is a pass over the whole image and costs some 40 bytes: 64 MB
    have room for a million and a half.
    """
    data = encode('.jpg', np.zeros((512, 512, 3), np.uint8), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last = data.rindex(b'\xff\xda')
    assert decode_compressed(data[:-2] + data[last:]).shape == (512, 512, 3)
    bomb = data[:-2] + data[last:-2] * 1000 + data[-2:]
    text = refused('corrupt_image', decode_compressed, bomb)
    assert 'scans' in text


@pytest.mark.parametrize('suffix', ['.tiff', '.jp2', '.ppm', '.gif', '.avif'])
def test_formats_that_no_camera_sends(suffix):
    """Guards against the decoders of OpenCV that nobody needs, and everybody could reach."""
    done, data = cv2.imencode(suffix, photo())
    assert done
    text = refused('corrupt_image', decode_compressed, data.tobytes(), encoding=suffix)
    assert 'JPEG, PNG, WebP or BMP' in text


def test_a_jpeg_of_segments_only():
    """Guards the reading of headers against a file made to keep it busy."""
    refused('corrupt_image', decode_compressed, b'\xff\xd8' + b'\xff\xe1\0\x02' * 1_000_000)
    refused('corrupt_image', decode_compressed, b'\xff\xd8' + b'\xff' * 1_000_000)


@pytest.mark.parametrize(('array_', 'reason'), [
    (np.zeros((4, 4), np.uint8), 'bad_array'),
    (np.zeros((4, 4, 4), np.uint8), 'bad_array'),
    (np.zeros((4, 4, 3), np.float32), 'bad_array'),
    (np.zeros((1, 4, 4, 3), np.uint8), 'bad_array'),
    (np.zeros((0, 4, 3), np.uint8), 'empty_image'),
    (np.zeros((4, 0, 3), np.uint8), 'empty_image'),
    (np.broadcast_to(np.uint8(0), (MAX_SIDE + 1, 1, 3)), 'oversized_image'),
])
def test_arrays_that_are_no_images(array_, reason):
    """Guards the plain-Python API: floats in [0, 1] or a batch are refused, not reinterpreted."""
    assert "view 'x'" in refused(reason, as_rgb_image, array_, what="view 'x'") \
        or reason != 'bad_array'

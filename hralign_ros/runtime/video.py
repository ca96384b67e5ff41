# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Frames out of video files and into them, by PyAV: the one place that reads and writes videos.

Time is in seconds from the first frame that a player would show, taken from the presentation time
stamps: with B-frames, packets lie in another order than images.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
import os
from pathlib import Path
from typing import Any

from hralign_ros.runtime.errors import DataError, FrameError, import_package
from hralign_ros.runtime.images import AS_IT_COMES, decode_compressed, ViewGeometry
from hralign_ros.runtime.pairing import PairingRules
import numpy as np
from numpy.typing import NDArray

# A frame this close to the edge of a span is in it. Files round time stamps to their ticks (1 ms
# in Matroska), and data sets add up durations that are rounded to microseconds.
EDGE_S = 1e-3


@dataclass(frozen=True)
class VideoInfo:
    """
    What the header of a video says.

    :param rate_hz: mean frame rate; 0: the header does not say.
    :param frames: how many there are; 0: the header does not say.
    :param encoding: codec and layout of pixels, as 'h264 yuv420p'.
    """

    rate_hz: float
    frames: int
    encoding: str


def probe(path: Path) -> VideoInfo:
    """
    Read the header and the first image: quick, and finds most broken files.

    :raises DataError: the file cannot be opened, has no video, or its first frame cannot be
        decoded.
    """
    with _opened(path) as (container, stream):
        for frame in _decoded(container, stream):
            _image(frame)
            return VideoInfo(_rate(stream), stream.frames,
                             f'{stream.codec_context.name} {stream.codec_context.pix_fmt}')
    raise DataError(f'video {path}: holds no frame')


def play(path: Path) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """
    Decode a video frame by frame.

    A file that is cut off is played as far as it goes.

    :yields: seconds from the first frame, ascending, and the image, uint8 [H, W, 3] RGB.
    :raises DataError: the file cannot be opened, holds no frame, or one cannot be decoded.
    """
    with _opened(path) as (container, stream):
        stream.thread_type = 'AUTO'
        first, seconds = None, -1.0
        for frame in _decoded(container, stream):
            first = frame.pts if first is None else first
            now = -1.0 if first is None or frame.pts is None \
                else float((frame.pts - first) * stream.time_base)
            # AVI with B-frames has no time stamps, and plays at its mean rate.
            seconds = now if now > seconds else seconds + 1.0 / (_rate(stream) or 30.0)
            yield seconds, _image(frame)
        if seconds < 0.0:
            raise DataError(f'video {path}: holds no frame')


def frame_times(path: Path) -> NDArray[np.float64]:
    """
    Return the time of each frame, without decoding where the container knows it.

    :returns: float64 [F] seconds from the first frame, ascending.
    :raises DataError: the file is corrupt, cut off, or holds no frame.
    """
    return _times(path)[0].copy()


def nearest(times_s: NDArray[Any], wanted_s: NDArray[Any]) -> NDArray[np.int64]:
    """
    Find the row of the time nearest to each wanted one, the earlier of two as near.

    :param times_s: [F], ascending, F at least 1.
    :param wanted_s: [W], of the same type and unit.
    :returns: int64 [W].
    """
    after = np.searchsorted(times_s, wanted_s).clip(0, len(times_s) - 1)
    before = (after - 1).clip(0)
    closer = np.abs(wanted_s - times_s[before]) <= np.abs(times_s[after] - wanted_s)
    return np.where(closer, before, after).astype(np.int64)


def within(times_s: NDArray[np.float64], span_s: Sequence[float]) -> NDArray[np.bool_]:
    """
    Tell which frames lie in a span.

    :param times_s: float64 [F].
    :param span_s: first and last second, both included; empty: everything.
    :returns: bool [F].
    """
    if not len(span_s):
        return np.ones(len(times_s), np.bool_)
    first, last = span_s
    return (times_s >= first - EDGE_S) & (times_s <= last + EDGE_S)


# How far apart frames of two cameras may be to count as simultaneous, and how old a view's newest
# frame may be: the node's own defaults.
_SAME_S, _OLD_S = PairingRules.tolerance / 1e9, PairingRules.max_age / 1e9


def newest_at(
    times_s: NDArray[np.float64], wanted_s: NDArray[np.float64], what: str,
) -> NDArray[np.int64]:
    """
    Find the row of the newest frame that a view has at each wanted time.

    :param times_s: float64 [F] of the view, ascending, F at least 1.
    :param wanted_s: float64 [W], of another view of the episode, ascending.
    :param what: the view's file, for the error.
    :returns: int64 [W].
    :raises DataError: one of them is more than half a second older or younger than its wanted
        time: a node would have left the view out.
    """
    rows = (np.searchsorted(times_s, wanted_s + _SAME_S, 'right') - 1).clip(0)
    age = wanted_s - times_s[rows]
    worst = int(np.abs(age).argmax())
    if abs(age[worst]) > _OLD_S:
        raise DataError(
            f'{what}: at {wanted_s[worst]:.1f} s its newest frame is of '
            f'{times_s[rows[worst]]:.1f} s; the videos of an episode must begin and end together '
            f'(within {_OLD_S:g} s), with a frame every {_OLD_S:g} s')
    return rows.astype(np.int64)


def read_frames(
    path: Path, times_s: Sequence[float] | NDArray[np.floating] | None = None,
    count: int | None = None, span_s: Sequence[float] = (),
    geometry: ViewGeometry = AS_IT_COMES,
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """
    Decode the frames nearest to given times, or some spread evenly.

    Decoding is sequential from the last key frame before the first wanted frame; only wanted
    frames are kept. A frame that is wanted twice comes twice.

    :param times_s: seconds from the first frame of the video.
    :param count: instead of times_s: so many frames, the span's first and last included (the
        middle one where it is 1).
    :param span_s: first and last second to choose from; empty: the whole video.
    :param geometry: how images are rotated and cropped.
    :returns: uint8 [F, H, W, 3] RGB, and float64 [F] the time of each in seconds.
    :raises DataError: the file is corrupt, cut off or empty, the span holds no frame, or not
        exactly one of times_s and count is given.
    """
    if (times_s is None) == (count is None):
        raise DataError('read_frames takes either times_s or count')
    times, stamps = _times(path)
    chosen = np.flatnonzero(within(times, span_s))
    if not len(chosen):
        raise DataError(
            f'video {path}: no frame between {span_s[0]:.3f} s and {span_s[1]:.3f} s; it lasts '
            f'{times[-1]:.3f} s')
    if times_s is not None:
        picks = nearest(times[chosen], np.asarray(times_s, np.float64))
    elif count is not None and count > 1:
        picks = np.rint(np.linspace(0, len(chosen) - 1, count)).astype(np.int64)
    else:
        picks = np.full(count or 0, len(chosen) // 2)
    if not len(picks):
        raise DataError(f'video {path}: no frame was asked for')
    wanted = chosen[picks]
    images = _decode(path, {stamps[i] for i in wanted.tolist()}, geometry)
    sizes = sorted({image.shape[:2] for image in images.values()})
    if len(sizes) > 1:
        raise DataError(f'video {path}: its images have several sizes, such as {sizes[0]} and '
                        f'{sizes[1]}; convert it to one size')
    return np.stack([images[stamps[i]] for i in wanted.tolist()]), times[wanted]


class RecordingWriter:
    """
    Write frames with times of their own to an MP4 file without loss, as a context manager.

    JPEG files are put in as they are; other images become H.264 in RGB, equal to the bit. (In YUV,
    even without loss otherwise, the embedding's tokens moved by cosines down to .99.)
    The file is there when the block has ended well, and replaces an older one in one step. Nothing
    is left where the block raises; a process that is killed leaves a hidden `.tmp` file.

    :param quality: constant rate factor of x264 for images other than JPEG; 0: without loss.
    :ivar frames: how many were added.
    """

    def __init__(self, path: Path, *, quality: int = 0) -> None:
        self.path, self.quality, self.frames = Path(path), quality, 0
        self._is_jpeg = False
        self._shape: tuple[int, ...] = ()
        self._last = -1
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> 'RecordingWriter':
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._scratch = _scratch(self.path)
        self._container = _import_av().open(str(self._scratch), 'w', format='mp4')
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        elif self._container is not None:
            self._end()

    def finish(self) -> None:
        """
        Write the end, and give the file its name; leaving the block does it as well.

        :raises DataError: there is no frame.
        """
        if self._container is None:
            return
        try:
            if not self.frames:
                raise DataError(f'video {self.path}: there is no frame to write')
            if not self._is_jpeg:
                self._container.mux(self._stream.encode())
            self._container.close()
            self._scratch.replace(self.path)
        finally:
            self._end()

    def _end(self) -> None:
        container, self._container = self._container, None
        if self.frames:  # PyAV has no end for a file without a beginning
            container.close()
        self._scratch.unlink(missing_ok=True)

    def add(self, image: NDArray[np.uint8], time_s: float, jpeg: bytes = b'') -> None:
        """
        Add a frame.

        :param image: uint8 [H, W, 3] RGB, all of one size.
        :param time_s: from the first frame [s], at least a microsecond after the frame before.
        :param jpeg: the file that it was decoded from, where it was one.
        :raises DataError: it is not of the right shape, or not later than the frame before, or
            some have a JPEG file and others have none.
        """
        av = _import_av()
        if not self.frames:
            self._start(image, bool(jpeg))
        if image.shape != self._shape or bool(jpeg) != self._is_jpeg:
            raise DataError(
                f'video {self.path}: a frame is {list(image.shape)}{" JPEG" if jpeg else ""}, the '
                f'first is {list(self._shape)}{" JPEG" if self._is_jpeg else ""}')
        ticks = round(time_s / _TICK)
        if ticks <= self._last:
            raise DataError(f'video {self.path}: a frame is not later than the one before')
        if jpeg:
            packet = av.Packet(jpeg)
            packet.stream = self._stream
            packet.pts = packet.dts = ticks
            packet.is_keyframe = True
            packets = [packet]
        else:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format='rgb24')
            frame.pts, packets = ticks, []
            frame.time_base = _TICK
            packets = self._stream.encode(frame)
        self._container.mux(packets)
        self._last = ticks
        self.frames += 1

    def _start(self, image: NDArray[np.uint8], is_jpeg: bool) -> None:
        if image.ndim != 3 or image.shape[2] != 3 or not image.size or image.dtype != np.uint8:
            raise DataError(f'video {self.path}: a frame is {image.dtype} {list(image.shape)}; '
                            'needed is uint8 [H, W, 3]')
        if is_jpeg:
            self._stream = self._container.add_stream('mjpeg')
            # The codec only asks for a format that it could write itself.
            self._stream.pix_fmt = 'yuvj420p'
        else:
            loss = {'crf': str(self.quality)} if self.quality else {'qp': '0'}
            # Frames are sought: a key frame is never far. Better presets take four times as long,
            # for reading too, and save a tenth.
            self._stream = self._container.add_stream(
                'libx264rgb', options={'preset': 'ultrafast', 'g': '60', **loss})
            self._stream.pix_fmt = 'rgb24'
        self._stream.height, self._stream.width = image.shape[:2]
        self._stream.time_base = self._stream.codec_context.time_base = _TICK
        self._shape, self._is_jpeg = image.shape, is_jpeg


# What the times of a recording are rounded to: a microsecond.
_TICK = Fraction(1, 1_000_000)


def _scratch(path: Path) -> Path:
    return path.with_name(f'.{path.name}.{os.getpid()}.tmp')


def write_video(
    path: Path, frames: Iterable[NDArray[np.uint8]], fps: float, *, quality: int = 20,
    preset: str = 'medium',
) -> Path:
    """
    Write an H.264 file (yuv420p, MP4); one that is there is replaced in one step.

    :param frames: each uint8 [H, W, 3] RGB, all of one size, H and W even.
    :param fps: frames per second.
    :param quality: constant rate factor of x264: 0 lossless to 51; 20 looks clean.
    :param preset: of x264; a faster one makes larger files.
    :returns: the file.
    :raises DataError: there is no frame, or one is not of the right shape.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = _scratch(path)
    av = _import_av()
    shape: tuple[int, ...] = ()
    try:
        with av.open(str(scratch), 'w', format='mp4') as container:
            stream: Any = container.add_stream(
                'libx264', rate=Fraction(fps).limit_denominator(100_000),
                # One thread: videos are made many at a time, by a process for each core.
                options={'crf': str(quality), 'threads': '1', 'preset': preset})
            stream.pix_fmt = 'yuv420p'
            for image in frames:
                if not shape:
                    shape = image.shape
                    if len(shape) != 3 or shape[2] != 3 or shape[0] % 2 or shape[1] % 2 \
                            or not image.size:
                        raise DataError(f'video {path}: a frame is {list(shape)}; needed is '
                                        '[H, W, 3] with even H and W')
                    stream.height, stream.width = shape[:2]
                if image.shape != shape or image.dtype != np.uint8:
                    raise DataError(f'video {path}: a frame is {image.dtype} '
                                    f'{list(image.shape)}, the first is uint8 {list(shape)}')
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format='rgb24')
                container.mux(stream.encode(frame))
            if not shape:
                raise DataError(f'video {path}: there is no frame to write')
            container.mux(stream.encode())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path


def _import_av() -> Any:
    """Import PyAV, which a robot without videos does not need."""
    return import_package('av', DataError, 'PyAV reads and writes videos: pip install av')


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a video; whatever goes wrong in the block is reported with the file's name."""
    av = _import_av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f'video {path}: holds no video stream')
            yield container, container.streams.video[0]
    except (av.FFmpegError, OSError, ValueError, FrameError) as error:
        raise DataError(f'video {path}: {getattr(error, "strerror", None) or error}') from error


def _rate(stream: Any) -> float:
    """Return the mean frame rate that the header gives [Hz]; 0: none."""
    return float(stream.average_rate or stream.base_rate or stream.guessed_rate or 0)


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """
    Read the packets in the order they are stored, the last one empty.

    AVI has no time stamps: it numbers the frames as they are stored, those that were dropped too.
    Where that is the order they are shown in, it is the time; what FFmpeg guesses is off at gaps.
    """
    stored = container.format.name == 'avi' and not stream.codec_context.has_b_frames
    for packet in container.demux(stream):
        if stored:
            packet.pts = packet.dts
        yield packet


def _decoded(container: Any, stream: Any, wanted: Collection[int] = ()) -> Iterator[Any]:
    """
    Decode frames in the order they are shown, from where the container stands.

    :param wanted: stamps of frames; others may be left out. Empty: all are wanted.
    """
    # JPEG files in an MP4 are decoded as those of a camera are: FFmpeg's colours differ a little.
    files = stream.codec_context.name == 'mjpeg' and stream.codec_context.codec_tag == 'mp4v'
    packets = _packets(container, stream)
    for packet in _needed(packets, wanted) if wanted else packets:
        if packet is None:
            yield from stream.codec_context.decode(None)
        elif not files:
            yield from packet.decode()
        elif packet.size:
            yield _JpegFrame(packet.pts, bytes(packet))


def _needed(packets: Iterable[Any], wanted: Collection[int]) -> Iterator[Any]:
    """
    Leave out the packets that no wanted frame depends on: data sets have key frames close by.

    Frames hang together from one key frame to the next, in the order they are stored. Those that
    are shown before the key frame which they are stored behind depend on the ones before it, too.

    :yields: packets, and None where the decoder has to give out what it holds back.
    """
    left = set(wanted)
    before: list[Any] = []
    group: list[Any] = []
    for packet in packets:
        if (packet.is_keyframe or not packet.size) and group:
            places = [place for place, one in enumerate(group) if one.pts in left]
            if places:
                if min(group[place].pts for place in places) < group[0].pts:
                    yield from before
                # A frame depends on nothing that is stored behind it.
                yield from group[:places[-1] + 1]
                left -= {one.pts for one in group}
                before = group[places[-1] + 1:]
            else:
                before = group
            group = []
            if not left:
                break
        if packet.size:
            group.append(packet)
    yield None


@dataclass(frozen=True)
class _JpegFrame:
    """A frame that is a file."""

    pts: int
    data: bytes


def _times(path: Path) -> tuple[NDArray[np.float64], list[int]]:
    """
    List the frames in the order they are shown; both lists are shared, and not to be changed.

    :returns: float64 [F] seconds from the first frame, and the stamp that finds each again.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f'video {path}: {error.strerror}') from error
    return _list_times(path, status.st_mtime_ns, status.st_size)


# A file of a data set holds many episodes, and is asked for its times by each.
@lru_cache(maxsize=8)
def _list_times(path: Path, modified: int, size: int) -> tuple[NDArray[np.float64], list[int]]:
    with _opened(path) as (container, stream):
        avi = container.format.name == 'avi'
        if avi and stream.codec_context.has_b_frames:
            raise DataError(f'video {path}: AVI does not say in which order these frames are '
                            'shown; convert it to MP4')
        packets, found = 0, set()
        for packet in _packets(container, stream):
            if packet.pts is None:
                if not packet.size:  # the end
                    continue
                raise DataError(f'video {path}: has no time stamps; convert it to MP4')
            packets += 1
            if packet.size and not packet.is_discard:
                found.add(packet.pts)
        # AVI counts frames that the camera dropped: empty chunks, of which no packet is made.
        if _avi_is_cut_off(path) if avi else packets < stream.frames:
            raise DataError(f'video {path}: is cut off, {packets} of {stream.frames} frames are '
                            'there; copy it again, or convert the part that is left '
                            '(ffmpeg -i FILE -c copy NEW)')
        tick = float(stream.time_base)
    if not found:
        raise DataError(f'video {path}: holds no frame')
    stamps = sorted(found)
    return (np.array(stamps, np.float64) - stamps[0]) * tick, stamps


def _avi_is_cut_off(path: Path) -> bool:
    """Tell whether the last RIFF chunk of an AVI file ends behind the end of the file."""
    place, end = 0, path.stat().st_size
    with open(path, 'rb') as file:
        while place + 8 <= end:
            file.seek(place)
            name, size = file.read(4), int.from_bytes(file.read(4), 'little')
            # A recorder that was killed has left the size open: what is there is all there is.
            if name != b'RIFF' or size in (0, 0xFFFFFFFF):
                return False
            place += 8 + size + size % 2
    return place > end + 1


def _decode(
    path: Path, wanted: set[int], geometry: ViewGeometry,
) -> dict[int, NDArray[np.uint8]]:
    images: dict[int, NDArray[np.uint8]] = {}
    with _opened(path) as (container, stream):
        # Where groups of pictures are open, what is shown just before a key frame may need the key
        # frame before that one, and a seek ends at the later: then from the start, and everything.
        for start, some in ((min(wanted), wanted), (stream.start_time or 0, ())):
            container.seek(start, stream=stream, backward=True)
            for frame in _decoded(container, stream, some):
                if frame.pts in wanted:
                    images[frame.pts] = geometry.apply(_image(frame))
                if len(images) == len(wanted):
                    return images
    raise DataError(f'video {path}: {len(wanted) - len(images)} of {len(wanted)} wanted frames '
                    'cannot be decoded')


def _image(frame: Any) -> NDArray[np.uint8]:
    """Return a frame as it is shown: telephones store images rotated or mirrored and say so."""
    if isinstance(frame, _JpegFrame):
        return decode_compressed(frame.data, encoding='jpeg')
    image: NDArray[np.uint8] = frame.to_ndarray(format='rgb24')
    matrix = frame.side_data.get('DISPLAYMATRIX')
    if matrix is None:
        return image
    # A pixel in column p and row q is shown in column a p + c q and row b p + d q.
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(b) > abs(a):
        image, across, down = image.swapaxes(0, 1), c, b
    else:
        across, down = a, d
    return np.ascontiguousarray(image[::-1 if down < 0 else 1, ::-1 if across < 0 else 1])

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

r"""
RH20T as it is published: robot scenes and the human demonstrations beside them.

    ROOT/task_description.json
    ROOT/RH20T_cfg3/task_0001_user_0001_scene_0001_cfg_0003/         a robot scene
        metadata.json                rating, finish_time (ms), calib
        cam_<serial>/color.mp4       or cam_<serial>/color/color.mp4, as the small release has it
        cam_<serial>/timestamps.npy  when each frame was taken (ms)
        transformed/tcp_base.npy, gripper.npy
    ROOT/RH20T_cfg3/task_0001_user_0001_scene_0001_cfg_0003_human/   a person doing the same
        metadata.json                start_time, end_time (ms), calib

ROOT may also be one RH20T_cfgN folder. An episode is one robot scene seen by one global camera,
with what the same camera saw of the human; cameras in the robot's hand become the views wrist,
wrist_2 of all episodes of their scene and are never paired by themselves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
import json
import math
from pathlib import Path
import re
from typing import Any

from hralign_ros.data.manifest import DataError, Episode, REFERENCE_VIEW
from hralign_ros.data.npy import load_plain
from hralign_ros.data.skipped import Faults
from hralign_ros.runtime.video import nearest, probe, VideoInfo
import numpy as np
from numpy.typing import NDArray

EMBODIMENTS = {1: 'flexiv', 2: 'flexiv', 3: 'ur5', 4: 'ur5', 5: 'franka', 6: 'kuka', 7: 'kuka'}
IN_HAND = {
    1: ('043322070878',),
    2: ('104422070042',),
    3: ('045322071843',),
    4: ('045322071843',),
    5: ('104422070042', '135122079702'),
    6: ('135122075425', '135122070361'),
    7: ('135122075425', '135122070361'),
}
DESCRIPTIONS = 'task_description.json'
DESCRIPTIONS_URL = 'https://rh20t.github.io/static/task_description.json'
FREE_LICENSE = 'CC-BY-SA-4.0'
NON_COMMERCIAL_LICENSE = 'CC-BY-NC-4.0'
FREE_SCENES = range(1, 6)
NON_COMMERCIAL_SCENES = range(6, 11)
SUCCESS_RATING = 2
STRICT_RATING = 5
BEST_RATING = 9

_SCENE_FOLDER = re.compile(r'(task_\d+)_user_\d+_(scene_(\d+))_cfg_(\d+)')
_CONFIG_FOLDER = re.compile(r'RH20T_cfg\d+')
# The published text does not name the key.
_FINISH_KEYS = ('finish_time', 'end_time')
# A state sample farther away says nothing about a frame.
_STATE_MS = 500
# By camera, int64 [S] ms and float64 [S, n].
_Samples = dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]


@dataclass(frozen=True)
class _Video:
    """
    What one camera recorded.

    :param file: relative to the root.
    :param stamps: int64 [F] ms of each frame; empty: not known.
    """

    file: str
    info: VideoInfo
    stamps: NDArray[np.int64]

    def times_s(self) -> tuple[float, ...]:
        """Return the second of each frame: videos play at a constant rate, drops or not."""
        return tuple(i / self.info.rate_hz for i in range(len(self.stamps)))


def read_rh20t(
    root: Path, *, task_descriptions: Path | None = None, commercial_only: bool = False,
    strict_success: bool = False, report: Callable[[str], object] = print,
    faults: Faults | None = None,
) -> list[Episode]:
    """
    Read the scenes of RH20T.

    Nothing that is wrong with a scene ends the reading. It is counted and reported:

    ===================  ======================================================================
    fault                what is done
    ===================  ======================================================================
    folder_name          a task_* folder of another form, or an unknown configuration: skipped
    licence              commercial_only, and the scene is not CC-BY-SA: skipped
    no_task_text         the task is not in task_description.json: scene skipped
    broken_metadata      metadata.json is missing or is not JSON: robot scene skipped; of a
                         human: the clip is used whole
    uncalibrated         calib is -1: robot scene skipped; of a human: left out
    no_rating            rating is missing or none of 0 to 9: kept, success not known
    no_cameras           a robot scene with no global camera: skipped
    corrupt_video        the video is missing or cannot be opened: the robot's: this camera
                         skipped; the human's: episode kept without a human clip; in-hand: that
                         view left out
    no_timestamps        missing, broken, or not of the video's length: kept, not trimmed and
                         without times and proprioception; of another time than start and end:
                         kept, not trimmed
    no_human             no _human folder: kept without human clips
    no_human_camera      the human folder lacks this camera: kept without a human clip
    no_robot_scene       a _human folder on its own: skipped
    no_state             tcp_base.npy or gripper.npy is broken, or one of them is missing, or
                         of another time: kept without proprioception
    ===================  ======================================================================

    A human clip is trimmed to start_time and end_time, a robot clip ends at its finish time.
    Proprioception of a frame is the sample nearest in time, as recorded: the hand's x, y, z, its
    quaternion, and the gripper's width in mm.

    :param root: the folder with RH20T_cfgN in it, or one of these; files are named relative to it.
    :param task_descriptions: None: task_description.json in root or beside it.
    :param commercial_only: leave out scenes 0006 to 0010, whose licence is non-commercial, and
        any scene whose licence is not known.
    :param strict_success: success is a rating of at least 5 instead of 2; ratings between are
        then neither success nor failure.
    :param report: gets the summary, line by line.
    :param faults: filled with every fault found.
    :returns: sorted by id: <cfg>/<scene folder>#cam_<serial>.
    :raises DataError: there is no configuration folder, or the task descriptions cannot be read.
    """
    root = Path(root)
    faults = Faults() if faults is None else faults
    folders = [root] if _CONFIG_FOLDER.fullmatch(root.absolute().name) else sorted(
        folder for folder in root.glob('RH20T_cfg*') if folder.is_dir())
    if not folders:
        raise DataError(f'{root}: no folder RH20T_cfg1 to RH20T_cfg7 in it')
    reader = _Reader(root, _descriptions(root, task_descriptions), commercial_only,
                     strict_success, faults)
    episodes, scenes = [], 0
    for folder in folders:
        for scene in sorted(f for f in folder.glob('task_*') if f.is_dir()):
            if scene.name.endswith('_human'):
                if not scene.with_name(scene.name.removesuffix('_human')).is_dir():
                    faults.add('no_robot_scene', scene.relative_to(root),
                               'a human demonstration without its robot scene; skipped')
                continue
            scenes += 1
            episodes += reader.scene(scene)
    report(f'{root}: {scenes} robot scenes, {len(episodes)} episodes, '
           f'{sum(bool(e.human_video) for e in episodes)} of them with a human clip')
    faults.tell(report)
    return sorted(episodes, key=lambda episode: episode.episode_id)


def _descriptions(root: Path, path: Path | None) -> dict[str, str]:
    """Read the English sentence of each task."""
    places = [Path(path)] if path else [root / DESCRIPTIONS, root.absolute().parent / DESCRIPTIONS]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise DataError(f'no {DESCRIPTIONS} at {" or ".join(map(str, places))}; it is published '
                        f'at {DESCRIPTIONS_URL}')
    try:
        values = json.loads(found.read_text(encoding='utf-8'))
        return {task: ' '.join(entry['task_description_english'].split())
                for task, entry in values.items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise DataError(f'{found}: not the task descriptions of RH20T: '
                        f'{type(error).__name__} {error}') from error


@dataclass(frozen=True)
class _Reader:
    """The options of one reading, and the steps that note faults."""

    root: Path
    texts: Mapping[str, str]
    commercial_only: bool
    strict_success: bool
    faults: Faults

    def fault(self, kind: str, path: Path, text: str) -> None:
        self.faults.add(kind, path.relative_to(self.root), text)

    def scene(self, folder: Path) -> list[Episode]:
        """Return the episodes of a robot scene, one for each global camera."""
        name = _SCENE_FOLDER.fullmatch(folder.name)
        config = int(name[4]) if name else 0
        if not name or config not in EMBODIMENTS:
            self.fault('folder_name', folder, 'not a scene of RH20T_cfg1 to 7; skipped')
            return []
        number = int(name[3])
        if self.commercial_only and number not in FREE_SCENES:
            self.fault('licence', folder, 'its licence is not free for commercial use; skipped')
            return []
        if not self.texts.get(name[1]):
            self.fault('no_task_text', folder, f'{name[1]} is not described; skipped')
            return []
        metadata = self.metadata(folder, 'skipped')
        if metadata is None or self.uncalibrated(folder, metadata, 'skipped'):
            return []
        template = Episode(
            episode_id=f'cfg{config}/{folder.name}', task_id=name[1],
            task_text=self.texts[name[1]], scene=f'cfg{config}-{name[2]}', camera='',
            embodiment=EMBODIMENTS[config], source='rh20t', license_id=_license(number),
            success=self.success(folder, metadata))
        return self.cameras(folder, template, metadata, IN_HAND[config])

    def cameras(
        self, folder: Path, template: Episode, metadata: Mapping[str, Any],
        in_hand: Sequence[str],
    ) -> list[Episode]:
        """Return an episode for each global camera of a scene."""
        serials = [camera.name.removeprefix('cam_') for camera in sorted(folder.glob('cam_*'))
                   if camera.is_dir()]
        views = {}
        for i, serial in enumerate(s for s in in_hand if s in serials):
            video = self.video(folder / f'cam_{serial}', 'this view is left out')
            if video:
                views[f'wrist_{i + 1}' if i else 'wrist'] = video.file
        serials = [serial for serial in serials if serial not in in_hand]
        if not serials:
            self.fault('no_cameras', folder, 'no global camera; skipped')
        human = self.human(folder)
        states = self.states(folder / 'transformed')
        finish = next((value for key in _FINISH_KEYS
                       if (value := _number(metadata, key)) is not None), math.inf)
        episodes = []
        for serial in serials:
            camera = folder / f'cam_{serial}'
            video = self.video(camera, 'this camera is skipped')
            if video is None:
                continue
            episodes.append(replace(
                template, episode_id=f'{template.episode_id}#cam_{serial}', camera=serial,
                robot_videos={REFERENCE_VIEW: video.file, **views},
                robot_span_s=self.span(camera, video, -math.inf, finish),
                time_s=video.times_s(), proprio=self.proprio(camera, states, video),
                **self.human_clip(human, serial)))
        return episodes

    def human(self, folder: Path) -> tuple[Path, float, float] | None:
        """Return the human folder of a robot scene, and when its demonstration starts and ends."""
        human = folder.with_name(f'{folder.name}_human')
        if not human.is_dir():
            self.fault('no_human', folder, 'no human demonstration; kept without human clips')
            return None
        metadata = self.metadata(human, 'used whole') or {}
        if self.uncalibrated(human, metadata, 'left out'):
            return None
        start, end = (_number(metadata, key) for key in ('start_time', 'end_time'))
        return (human, -math.inf if start is None else start, math.inf if end is None else end)

    def human_clip(
        self, human: tuple[Path, float, float] | None, serial: str,
    ) -> dict[str, Any]:
        """Return what the same camera saw of the human, as fields of an episode."""
        if human is None:
            return {}
        folder, start, end = human
        camera = folder / f'cam_{serial}'
        if not camera.is_dir():
            self.fault('no_human_camera', camera, 'the robot was recorded by this camera, the '
                       'human was not; kept without a human clip')
            return {}
        video = self.video(camera, 'kept without a human clip')
        return {} if video is None else {
            'human_video': video.file, 'human_span_s': self.span(camera, video, start, end)}

    def video(self, camera: Path, consequence: str) -> _Video | None:
        """Look at a camera's video and time stamps."""
        path = camera / 'color.mp4'
        path = path if path.is_file() else camera / 'color' / 'color.mp4'
        try:
            info = probe(path)
            if not info.rate_hz:
                raise DataError('no frame rate in its header')
        except DataError as error:
            what = str(error) if path.is_file() else 'no color.mp4'
            self.fault('corrupt_video', camera, f'{what}; {consequence}')
            return None
        return _Video(path.relative_to(self.root).as_posix(), info, self.stamps(camera, info))

    def stamps(self, camera: Path, info: VideoInfo) -> NDArray[np.int64]:
        """Read when each frame was taken; empty where that is not known."""
        path = camera / 'timestamps.npy'
        path = path if path.is_file() else camera / 'color' / 'timestamps.npy'
        try:
            if not path.is_file():
                raise DataError('no timestamps.npy')
            stamps = _integers(load_plain(path)['color'])
            if info.frames and len(stamps) != info.frames:
                raise DataError(f'{len(stamps)} time stamps for {info.frames} frames')
            if not len(stamps) or (np.diff(stamps) < 0).any():
                raise DataError('time stamps that are none or not in order')
            return stamps
        except (DataError, KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            self.fault('no_timestamps', camera, f'{error}; not trimmed')
            return np.zeros(0, np.int64)

    def span(
        self, path: Path, video: _Video, first_ms: float, last_ms: float,
    ) -> tuple[float, ...]:
        """Return the seconds of a video that were recorded in a time; none: all of it."""
        inside = np.flatnonzero((video.stamps >= first_ms) & (video.stamps <= last_ms))
        if len(inside) == len(video.stamps):
            return ()
        if len(inside) < 2:
            self.fault('no_timestamps', path, 'nothing was recorded between the start and the end '
                       'that metadata.json gives; not trimmed')
            return ()
        times = video.times_s()
        return (times[inside[0]], times[inside[-1]])

    def metadata(self, folder: Path, consequence: str) -> dict[str, Any] | None:
        path = folder / 'metadata.json'
        try:
            values = json.loads(path.read_text(encoding='utf-8'))
            if not isinstance(values, dict):
                raise ValueError('not an object')
            return values
        except (OSError, ValueError) as error:
            self.fault('broken_metadata', folder, f'metadata.json: {error}; {consequence}')
            return None

    def uncalibrated(
        self, folder: Path, metadata: Mapping[str, Any], consequence: str,
    ) -> bool:
        if metadata.get('calib') != -1:
            return False
        self.fault('uncalibrated', folder, f'calib is -1; {consequence}')
        return True

    def success(self, folder: Path, metadata: Mapping[str, Any]) -> bool | None:
        """Return what the rating says."""
        rating = _number(metadata, 'rating')
        if rating is None or rating > BEST_RATING:
            self.fault('no_rating', folder, f"rating is {metadata.get('rating')!r}; kept, "
                       'success not known')
            return None
        if rating < SUCCESS_RATING:
            return False
        return True if not self.strict_success or rating >= STRICT_RATING else None

    def states(self, folder: Path) -> list[_Samples] | None:
        """
        Read the robot's recorded states.

        :returns: of the hand (position and quaternion) and of the gripper (width in mm), by
            camera; None where there are none, or a fault was noted.
        """
        paths = folder / 'tcp_base.npy', folder / 'gripper.npy'
        # The video-only releases come without both.
        if not any(path.is_file() for path in paths):
            return None
        try:
            hand, gripper = map(load_plain, paths)
            return [
                {serial: _ordered([s['timestamp'] for s in samples],
                                  [np.ravel(s['tcp'])[:7] for s in samples], 7)
                 for serial, samples in hand.items() if len(samples)},
                {serial: _ordered(list(samples),
                                  [np.ravel(s['gripper_info'])[:1] for s in samples.values()], 1)
                 for serial, samples in gripper.items() if len(samples)}]
        except (DataError, AttributeError, KeyError, IndexError, TypeError, ValueError,
                OverflowError) as error:
            self.fault('no_state', folder, f'{type(error).__name__} {error}; kept without '
                       'proprioception')
            return None

    def proprio(
        self, camera: Path, states: list[_Samples] | None, video: _Video,
    ) -> Sequence[Sequence[float]]:
        """Return the eight numbers nearest to each frame; none where there is nothing near."""
        if states is None or not len(video.stamps):
            return ()
        # Every camera's list holds the same robot; most scenes have them all.
        chosen = [recorded.get(camera.name.removeprefix('cam_')) or next(iter(recorded.values()))
                  for recorded in states if recorded]
        near = [nearest(times, video.stamps) for times, _ in chosen]
        if len(near) < len(states) or any(
                (np.abs(times[rows] - video.stamps) > _STATE_MS).any()
                for (times, _), rows in zip(chosen, near, strict=True)):
            self.fault('no_state', camera, 'the recorded states are of another time; kept '
                       'without proprioception')
            return ()
        return tuple(map(tuple, np.concatenate([
            values[rows] for (_, values), rows in zip(chosen, near, strict=True)], 1).tolist()))


def _ordered(
    times: Sequence[Any], values: Sequence[Any], width: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Sort samples by time; refuse what is not finite or not of one width."""
    stamps, table = _integers(times), np.array(values, np.float64)
    if table.shape != (len(stamps), width) or not np.isfinite(table).all():
        raise ValueError(f'samples are {list(table.shape)}, not finite [{len(stamps)}, {width}]')
    order = np.argsort(stamps, kind='stable')
    return stamps[order], table[order]


def _integers(values: Any) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in 'iuf'):
        raise ValueError(f'time stamps are {array.dtype} {list(array.shape)}; needed is a list '
                         'of numbers')
    return array.astype(np.int64)


def _license(scene: int) -> str:
    """Return the licence by scene number, as the publishers give it; unknown ones assert none."""
    if scene in FREE_SCENES:
        return FREE_LICENSE
    return NON_COMMERCIAL_LICENSE if scene in NON_COMMERCIAL_SCENES else 'NOASSERTION'


def _number(values: Mapping[str, Any], key: str) -> float | None:
    """Return a number that is not negative; -1 stands for unknown."""
    value = values.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None

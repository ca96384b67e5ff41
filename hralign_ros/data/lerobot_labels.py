# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Progress and success of every frame of a LeRobot data set, by a bundle.

    ROOT/hralign_progress.parquet     index, episode_index, frame_index, progress_sparse, success,
                                      decision; one row per frame, ascending by index
    ROOT/data/...                     next.success, where stamping is asked for

The first four columns are those that LeRobot's RA-BC reads, in its types. Episodes are played to
the runtime as the node would see them, a few frames a second; what lies between two of these is
interpolated. What the node would have decided so far holds until it decides again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
import math
import os
from pathlib import Path
import time
from typing import Any

from hralign_ros.data.features import (
    build_features,
    cache_folder,
    Encode,
    Features,
    Tensors,
    Videos,
)
from hralign_ros.data.labels import LABELS
from hralign_ros.data.lerobot import cameras_of, read_info, read_lerobot, STAMP, SUCCESS
from hralign_ros.data.lerobot_label_files import (
    FILE_NAME,
    KEYS,
    keys_of,
    require_ours,
    require_stampable,
    stamp_frames,
    write_progress,
)
from hralign_ros.data.manifest import DataError, Episode, require_writable
from hralign_ros.data.replay import Recording
from hralign_ros.data.token_features import episode_videos
from hralign_ros.runtime.bundle import load_bundle, Manifest
from hralign_ros.runtime.decision import Decision, DecisionRules
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.errors import TaskError
from hralign_ros.runtime.images import ViewGeometry
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.text import TaskFeatures
import numpy as np
from numpy.typing import NDArray
import pyarrow as pa

Doubles = NDArray[np.float64]
SCHEMA_VERSION = 2


@dataclass(frozen=True)
class LabelOptions:
    """
    What labels depend on beside the bundle.

    :param hz: frames of each episode that are played a second, at most.
    :param alpha: the false-alarm rate that SUCCESS is decided at; None: as the node does.
    :param allow_unknown_tasks: decide on tasks that the bundle does not know, too.
    """

    hz: float = 5.0
    alpha: float | None = None
    allow_unknown_tasks: bool = False

    def rules(self, times: Doubles) -> DecisionRules:
        """
        Return the rules of decisions for an episode.

        Dwell times start again after a gap of a second. Where frames that are played lie further
        apart than that, by the recording or by `hz`, this would be at every frame.

        :param times: float64 [F] of all its frames [s].
        """
        rules = DecisionRules(alpha=self.alpha, allow_unknown_tasks=self.allow_unknown_tasks)
        if len(times) < 2:
            return rules
        # A frame that is played is the one nearest to its turn.
        gap_s = min(1.0 / self.hz, np.ptp(times)) + 1.5 * float(np.median(np.diff(times)))
        return replace(rules, max_gap=max(rules.max_gap, round(gap_s * 1e9)))


@dataclass(frozen=True)
class Labelled:
    """
    What was written.

    :param path: of the file of progress.
    :param frames: rows that have a probability.
    :param seconds: that these frames last.
    :param took_s: that labelling took, the start of processes included.
    :param verdicts: episodes by what was decided in the end.
    """

    path: Path
    frames: int
    seconds: float
    took_s: float
    verdicts: Mapping[str, int]

    @property
    def times_real_time(self) -> float:
        """Tell how many seconds of recording were labelled in a second."""
        return self.seconds / max(self.took_s, 1e-9)


@dataclass(frozen=True, eq=False)
class LabelEncoder:
    """
    What a bundle says of an episode: float64 [T] `row` of the frame, `probability`, `progress`.

    Then `decision`, `status`, and `frames`, [1], how many the episode has. NaN: there is none.

    :param bundle_sha256: hash of bundle.yaml, which has those of all its files.
    :param provider: as Encoder.load takes it.
    """

    bundle: Path
    bundle_sha256: str
    options: LabelOptions
    provider: str

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Give all that its numbers depend on."""
        return {'kind': 'labels', 'schema_version': SCHEMA_VERSION, 'bundle': self.bundle_sha256,
                **asdict(self.options)}

    def start(self, workers: int) -> Encode:
        """Load the bundle for this process."""
        encoder = load_for_labels(self.bundle, self.provider,
                                  threads=max(1, (os.cpu_count() or 1) // workers))
        return lambda videos, root: label_recording(encoder, videos, root, self.options)


def load_for_labels(bundle: Path, provider: str, threads: int = 1) -> Encoder:
    """Load a bundle with the cheapest embedding: it is not looked at."""
    return Encoder.load(bundle, provider=provider, threads=threads, parts=('mean',))


def label_recording(
    encoder: Encoder, videos: Videos, root: Path, options: LabelOptions,
) -> dict[str, NDArray[Any]]:
    """
    Play an episode.

    :returns: see LabelEncoder.
    :raises DataError: as Recording.
    """
    recording = Recording(encoder, videos, root)
    said = [(row, tick.success.probability, tick.success.progress, int(tick.decision),
             int(tick.status))
            for row, tick in recording.play(
                videos.instruction, rules=options.rules(recording.times), hz=options.hz)]
    columns = np.array([[np.nan if value is None else value for value in line] for line in said],
                       np.float64)
    return {'frames': np.array([len(recording.times)], np.float64),
            **{name: np.ascontiguousarray(columns[:, place]) for place, name in enumerate(
                ('row', 'probability', 'progress', 'decision', 'status'))}}


@dataclass(frozen=True, eq=False)
class FrameLabels:
    """
    Of every frame of an episode.

    :param progress: float64 [F], [0, 1]; NaN: none.
    :param probability: float64 [F], [0, 1]; NaN: none.
    :param decision: int64 [F], of Decision.
    """

    progress: Doubles
    probability: Doubles
    decision: NDArray[np.int64]

    @property
    def verdict(self) -> Decision:
        """Tell what was decided, SUCCESS or FAILURE; else RUNNING, or ABSTAIN if all are."""
        final = self.decision[np.isin(self.decision, (Decision.SUCCESS, Decision.FAILURE))]
        return Decision(int(final[0] if len(final) else self.decision.max()))

    @property
    def succeeded(self) -> NDArray[np.bool_]:
        """Tell of each frame whether SUCCESS is decided by then; that holds to the end."""
        return np.logical_or.accumulate(self.decision == int(Decision.SUCCESS))


def spread(played: Tensors) -> FrameLabels:
    """
    Bring what was said of some frames to all of an episode.

    :param played: see LabelEncoder.
    """
    rows, every = played['row'], np.arange(int(played['frames'][0]))
    last = np.searchsorted(rows, every, 'right') - 1

    def between(values: Doubles) -> Doubles:
        if np.isnan(values).any():
            return np.asarray(values[last], np.float64)
        return np.interp(every, rows, values)

    return FrameLabels(between(played['progress']), between(played['probability']),
                       played['decision'][last].astype(np.int64))


def label_lerobot(
    root: Path, bundle: Path, *, views: Mapping[str, str], options: LabelOptions | None = None,
    stamp: bool = False, output: Path | None = None, folder: Path | None = None,
    geometry: Mapping[str, ViewGeometry] | None = None, provider: str = 'auto',
    workers: int = 0, report: Report = print,
) -> Labelled:
    """
    Write the progress and the success of every frame of a LeRobot data set.

    A run that was stopped goes on where it was: what is computed lies in a folder of its own.

    :param views: the view of each camera that is used, as read_lerobot takes it; none: cameras
        that are called as a view of the bundle is, in the last part of their name.
    :param stamp: write next.success into the data set, too: true from the frame on in which
        SUCCESS is decided.
    :param output: file of progress; None: FILE_NAME in the data set.
    :param folder: of what is computed; None: one of the user's cache.
    :param geometry: by view, how its images are turned and cropped.
    :param provider: auto, cpu or cuda.
    :param workers: processes; 0: as many as there are cores.
    :raises DataError: the data set cannot be read or written, it holds labels of its own that
        would be stamped over, `output` is a file that this did not write, or the bundle says
        nothing that could be written.
    :raises HralignError: the bundle cannot be used.
    """
    began = time.monotonic()
    root, options = Path(root), options or LabelOptions()
    if not 0 < options.hz < math.inf:
        raise DataError(f'{options.hz:g} frames a second; needed is a number above 0')
    if options.alpha is not None and not 0 < options.alpha < 1:
        raise DataError(f'alpha is {options.alpha:g}; needed is a false-alarm rate between 0 and '
                        '1, one that the bundle has thresholds for')
    info, loaded = read_info(root), load_bundle(bundle)
    path = Path(output or root / FILE_NAME)
    require_ours(path, root)
    strange = sorted(set(views.values()) - set(loaded.manifest.views))
    if strange:
        raise DataError(f'--view {strange[0]}=...: the bundle has no such view; its views are '
                        f'{", ".join(loaded.manifest.views)}')
    encoder = load_for_labels(bundle, 'cpu')
    require_writable(path.parent)
    keys = keys_of(root)
    if stamp:
        require_stampable(root)
    folder = Path(folder or cache_folder(root))
    episodes = read_lerobot(root, views=dict(views) or _guess_views(root, info, loaded.manifest),
                            output=folder, report=report)
    if not episodes:
        raise DataError(f'{root}: no episode can be used')
    _check_tasks(encoder, episodes, options, stamp, report)
    source = {'source': STAMP, 'bundle': loaded.manifest.name, 'sha256': loaded.sha256,
              **asdict(options)}
    features = build_features(
        folder, root, {episode.episode_id: _videos(episode, geometry or {})
                       for episode in episodes},
        LabelEncoder(bundle, loaded.sha256, options, provider),
        workers=workers or os.cpu_count() or 1, report=report)
    labels = dict(_labels(features, episodes))
    table = _table(keys, labels)
    write_progress(path, table, source, str(bundle))
    rate = float(info.get('fps') or 0) or 1.0
    verdicts = [one.verdict.name for one in labels.values()]
    done = Labelled(
        path, sum(len(one.progress) for one in labels.values()),
        sum(len(one.progress) for one in labels.values()) / rate, time.monotonic() - began,
        {name: verdicts.count(name) for name in Decision.__members__ if name in verdicts})
    report(f'{path}: {done.frames} of {table.num_rows} frames in {len(labels)} episodes, '
           + ', '.join(f'{count} {name}' for name, count in done.verdicts.items()))
    report(f'{done.seconds:.0f} s of recording in {done.took_s:.0f} s: '
           f'{done.times_real_time:.1f} times real time')
    if stamp:
        files = stamp_frames(root, table, source)
        report(f'{root}: {SUCCESS} written into {files} files')
    return done


def _guess_views(root: Path, info: Mapping[str, Any], manifest: Manifest) -> dict[str, str]:
    """Find the cameras that are called as the bundle's views are."""
    cameras = cameras_of(info)
    found = {camera: camera.rsplit('.', 1)[-1] for camera in cameras
             if camera.rsplit('.', 1)[-1] in manifest.views}
    if not found:
        raise DataError(
            f'{root}: none of the cameras {", ".join(cameras) or "(none)"} is called as a view of '
            f'the bundle ({", ".join(manifest.views)}); say which is which, for example --view '
            f'{manifest.reference_view}={cameras[0] if cameras else "observation.images.front"}')
    return found


def _check_tasks(
    encoder: Encoder, episodes: Sequence[Episode], options: LabelOptions, stamp: bool,
    report: Report,
) -> None:
    """
    Say before the work what it will not give.

    :raises DataError: it would give nothing at all.
    """
    tasks: dict[str, TaskFeatures] = {}
    for episode in episodes:
        try:
            tasks[episode.task_text] = encoder.text.encode(episode.task_text)
        except TaskError as error:
            raise DataError(f'{episode.episode_id}: {error}. {LABELS} in the data set can give '
                            'it other words (task_text), or leave it out (discard)') from error
    texts = sorted(tasks)
    known = {text for text in texts if tasks[text].known}
    unknown = [text for text in texts if text not in known]
    if unknown:
        some = ', '.join(f"'{text}'" for text in unknown[:3]) \
            + (f' and {len(unknown) - 3} more' if len(unknown) > 3 else '')
        report(f'the bundle does not know {len(unknown)} of {len(texts)} tasks ({some}): their '
               'progress and probability come from its fallback task'
               + ('' if options.allow_unknown_tasks else ', and nothing is decided on them '
                  '(--allow-unknown-tasks, or `hralign success teach`)'))
    if stamp and not known and not options.allow_unknown_tasks:
        raise DataError(
            f'{SUCCESS} would be false throughout: the bundle knows none of the tasks, and '
            'decides nothing on those that it does not know. Teach it (`hralign success teach`), '
            'give --allow-unknown-tasks, or leave out --stamp')
    if not encoder.manifest.success.trained and not any(
            one.task.head for one in tasks.values()):
        raise DataError(f'{encoder.bundle.path}: its success head is not trained, so that it has '
                        'neither progress nor success to give; name another bundle')
    # One view may begin later than another, so that any part of an episode's views may count.
    calibrations = [
        calibration for text, views in {(e.task_text, frozenset(e.robot_videos)) for e in episodes}
        if text in known or options.allow_unknown_tasks
        for calibration in tasks[text].task.calibrations if set(calibration.views) <= views]
    if stamp and all(one.threshold(options.alpha) is None for one in calibrations):
        rates = sorted({rate for one in calibrations for rate in one.rates})
        raise DataError(
            f'{SUCCESS} would be false throughout: '
            + (f'alpha is {options.alpha:g}, and the tasks have thresholds for '
               f'{", ".join(f"{rate:g}" for rate in rates)}. Give one of these'
               if rates else 'no task has a threshold for SUCCESS with these views. Teach it '
               '(`hralign success teach`)') + ', or leave out --stamp')


def _videos(episode: Episode, geometry: Mapping[str, ViewGeometry]) -> Videos:
    videos = episode_videos(episode)
    return replace(videos, instruction=episode.task_text, geometry={
        view: geometry[view] for view in videos.files if view in geometry})


def _labels(
    features: Features, episodes: Sequence[Episode],
) -> Iterator[tuple[int, FrameLabels]]:
    """Give the labels of every episode that could be played."""
    for episode in episodes:
        if episode.episode_id in features:
            yield int(episode.episode_id.rsplit('_', 1)[-1]), spread(features[episode.episode_id])


def _table(keys: pa.Table, labels: Mapping[int, FrameLabels]) -> pa.Table:
    """
    Make a row for each frame of the data set; NaN and ABSTAIN for those without labels.

    :raises DataError: the bundle has no progress and no probability for any of them.
    """
    episodes, frames = (keys.column(name).to_numpy() for name in KEYS[1:])
    progress, success = np.full((2, len(episodes)), np.nan, np.float32)
    decision = np.zeros(len(episodes), np.int8)
    succeeded = np.zeros(len(episodes), np.bool_)
    for number, one in labels.items():
        mine = np.flatnonzero(episodes == number)
        rows = frames[mine]
        progress[mine], success[mine] = one.progress[rows], one.probability[rows]
        decision[mine], succeeded[mine] = one.decision[rows], one.succeeded[rows]
    if np.isnan(progress).all() and np.isnan(success).all():
        raise DataError('the bundle gives neither progress nor a probability for any frame')
    return pa.table({**{name: keys.column(name) for name in KEYS}, 'progress_sparse': progress,
                     'success': success, 'decision': decision, SUCCESS: succeeded})

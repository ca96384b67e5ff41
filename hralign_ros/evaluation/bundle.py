# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The report on a finished bundle: episodes are replayed to it as the node would play them.

Whatever the bundle holds is measured as it is, through the runtime: its calibration maps, its
thresholds, its limit of OUT_OF_DISTRIBUTION, tasks that were added to it. Nothing is fitted here.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from hralign_ros.calibration.calibrate import ALPHA, ALPHAS
from hralign_ros.calibration.scorer import Scored
from hralign_ros.calibration.traces import Trace
from hralign_ros.data.manifest import DataError, DataSet, Episode, REFERENCE_VIEW, SIMULATORS
from hralign_ros.data.token_features import episode_videos, EpisodeFeatures, open_views
from hralign_ros.evaluation.bootstrap import EvaluationError
from hralign_ros.evaluation.figures import probability_traces, reliability_diagram
from hralign_ros.evaluation.report import Measured, write_report
from hralign_ros.evaluation.success import example_traces, SIMULATED
from hralign_ros.evaluation.success_deciders import Judged
from hralign_ros.evaluation.success_events import measure_alarms, measure_delays
from hralign_ros.evaluation.success_ticks import (
    clusters_of,
    fraction_over,
    measure_calibration,
    measure_detection,
    time_alone,
    TIME_ONLY,
    uncalibrated,
    undecided,
)
from hralign_ros.runtime.decision import Status
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.report import Progress, Report
from hralign_ros.runtime.video import newest_at
from hralign_ros.training.devices import choose_device
from hralign_ros.training.success_clips import assign_splits, labelled, Recording
from hralign_ros.training.success_options import SuccessOptions
import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
_SECOND = 1_000_000_000
# Frames of a recording that are decoded at a time.
_BLOCK = 64
# Episodes of these have been used to make the bundle.
_USED = ('train', 'calibration', 'validation')


class BundleReplay:
    """
    Replays recordings to a bundle; stands where the evaluation of runs has a calibrated scorer.

    :param allow_unknown: decide on tasks that the bundle does not know, as the node's parameter
        `allow_unknown_tasks` does.
    """

    seed = 0

    def __init__(self, encoder: Encoder, *, allow_unknown: bool = False) -> None:
        self.encoder, self.allow_unknown = encoder, allow_unknown
        self._replayed: dict[str, Judged] = {}

    def replay(self, episode: Episode, root: Path) -> Recording:
        """
        Replay an episode's recordings from its start to its end.

        :raises DataError: they cannot be read, or do not go together.
        """
        encoder = self.encoder
        videos = {view: video for view, video in open_views(episode_videos(episode), root).items()
                  if view in encoder.manifest.views}
        if not videos:
            raise DataError(f'views {", ".join(episode.robot_videos) or "none"}; the bundle has '
                            f'{", ".join(encoder.manifest.views)}')
        reference = videos.get(REFERENCE_VIEW) or next(iter(videos.values()))
        times = reference.times
        wanted = {view: video.stamps[newest_at(video.times, times, video.path.name)]
                  for view, video in videos.items()}
        live = encoder.start_episode(episode.task_text)
        ticks = []
        for start in range(0, len(times), _BLOCK):
            some = slice(start, start + _BLOCK)
            frames = {view: video.read(wanted[view][some]) for view, video in videos.items()}
            for row, now in enumerate(times[some] - times[0]):
                ticks.append(live.step({view: images[row] for view, images in frames.items()},
                                       _SECOND + round(float(now) * _SECOND)))
        present = np.array([view in videos for view in encoder.manifest.views])
        nothing = np.zeros((len(times), len(present), 1, 0), np.float16)
        recording = labelled(episode, EpisodeFeatures(nothing, nothing[..., 0, :], present, times))
        said = [tick.success for tick in ticks]
        thresholds = {alpha: _numbers(
            None if s.calibration is None else s.calibration.threshold(alpha) for s in said)
            for alpha in ALPHAS}
        progress, failed, ood_score = (_numbers(values).astype(np.float32) for values in (
            (s.progress for s in said), (s.failure for s in said), (s.ood_score for s in said)))
        trace = Trace(recording, np.zeros((len(ticks), 0), np.float32), progress, failed,
                      ood_score, np.stack([tick.view_valid for tick in ticks]))
        # Ticks without a result have no modes either.
        modes = max(len(s.mode_risks) for s in said)
        risks = np.array([s.mode_risks if s.mode_risks else (0.0,) * modes for s in said])
        scored = Scored(trace, episode.task_id, _numbers(s.raw_score for s in said),
                        recording.done,
                        risks.reshape(len(said), modes))
        self._replayed[episode.episode_id] = Judged(
            scored, _numbers(s.probability for s in said), thresholds,
            np.array([int(tick.status) for tick in ticks]),
            Status.UNKNOWN_TASK if self.allow_unknown else Status.OK)
        return recording

    def __call__(self, recording: Recording) -> Judged:
        """Return what was said of a recording that was replayed."""
        return self._replayed[recording.episode.episode_id]

    def knows(self, recording: Recording) -> bool:
        """Whether the bundle knows a recording's task, by the words of its episode."""
        return not (self(recording).status & int(Status.UNKNOWN_TASK)).any()

    def thresholds_from(self, task_id: str) -> str:
        """Tell whether a task is one of the bundle's."""
        known = [self.knows(one.scored.recording) for one in self._replayed.values()
                 if one.scored.task_id == task_id]
        return 'the bundle' if known and all(known) else 'the fallback task'


def _numbers(values: Iterable[float | None]) -> Doubles:
    """
    Make an array of what may not be there.

    In double precision, as the node compares them: isotonic maps tell the ticks of one step
    apart by less than single precision has.
    """
    return np.array([np.nan if value is None else value for value in values], np.float64)


def evaluate_bundle(
    data: DataSet, bundle: Path, output: Path, *, splits: Sequence[str] = (),
    allow_unknown: bool = False, device: str = 'auto', commands: Sequence[str] = (),
    report: Report = print,
) -> Measured:
    """
    Replay recorded episodes to a bundle and write report.html, .json and .csv of what it said.

    :param splits: whose episodes are replayed; none: all but those that bundles are made of.
    :param allow_unknown: see BundleReplay.
    :param device: auto, cpu or cuda.
    :raises EvaluationError: no episode with recordings and success flags is left.
    """
    encoder = Encoder.load(bundle, provider=choose_device(device).provider)
    training = encoder.manifest.success.training
    # Robots that are held out elsewhere may have been trained on, by their seeds.
    data = assign_splits(data, SuccessOptions(
        all_robots=training.all_robots, leave_out=training.leave_out)
        if training else SuccessOptions())
    names = list(splits) or sorted({e.split for e in data.episodes} - set(_USED))
    # Streams are no attempts: nothing here is measured on them.
    chosen = [e for e in data.episodes
              if e.split in names and e.robot_videos and len(e.success_flags)
              and not any(tag.startswith('stream:') for tag in e.tags)]
    if not chosen:
        raise EvaluationError(
            f'{data.folder}: no episode of {", ".join(names) or "a test split"} with videos and '
            f'success flags; splits there: {", ".join(sorted({e.split for e in data.episodes}))}')
    one = BundleReplay(encoder, allow_unknown=allow_unknown)
    recordings: dict[str, list[Recording]] = {}
    progress = Progress(len(chosen), 'episodes', report)
    for episode in chosen:
        try:
            recordings.setdefault(episode.split, []).append(one.replay(episode, data.folder))
        except DataError as error:
            report(f'left out {episode.episode_id}: {error}')
        progress.step()
    if not recordings:
        raise EvaluationError(f'{data.folder}: not one episode could be replayed')
    name, found = encoder.manifest.name, Measured()
    measure_detection(found, {name: [(0, uncalibrated(one))], TIME_ONLY: [(0, time_alone)]},
                      recordings, report=report)
    samples = measure_calibration(found, name, [one], recordings)
    for split, some in recordings.items():
        measure_alarms(found, name, [one], some, split)
        measure_delays(found, name, [one], some, split)
        _measure_status(found, name, one, some, split)
        for recording in some:
            judged, times = one(recording), recording.features.time_s
            at, never_succeeds = judged.decision(), not recording.done.any()
            found.tables.setdefault('episodes', []).append({
                'split': split, 'episode': recording.episode.episode_id,
                'task': recording.episode.task_id,
                'failure': recording.episode.failure,
                'done_s': None if never_succeeds else float(times[int(recording.done.argmax())]),
                'success_s': None if at is None else float(times[at]),
                'highest_probability': float(np.nanmax(np.r_[-1.0, judged.probability])),
                'status': int(np.bitwise_or.reduce(judged.status))})
    if samples:
        found.draw('reliability', reliability_diagram(samples), 'Reliability',
                   'Random ticks, in bins of equal mass; lines: 95 % intervals as if ticks were '
                   'independent.')
    first = next(iter(recordings.values()))
    found.draw('traces', probability_traces(example_traces(one, first)), 'Probability over time',
               'Attempts in the order of their names; shaded: accomplished; dashed: the threshold '
               f'for {ALPHA:.0%} false alarms.')
    sources = {e.source for e in chosen}
    used = sorted(set(recordings) & set(_USED))
    write_report(
        Path(output), found, report, title=f'Bundle: {name}', commands=commands,
        data={
            'data set': data.folder.name, 'sources': ', '.join(sorted(sources)),
            'bundle': encoder.bundle.sha256[:16],
            **{f'attempts, {split}': len(some) for split, some in recordings.items()},
            'attempts at tasks that the bundle does not know': sum(
                not one.knows(recording) for some in recordings.values()
                for recording in some)},
        warnings=[
            *undecided([one], recordings),
            *([SIMULATED] if sources & SIMULATORS else []),
            *([f'Episodes of {", ".join(used)} may have been used to make the bundle: it looks '
               'better on them than it is.'] if used else [])])
    return found


def _measure_status(
    found: Measured, name: str, one: BundleReplay, recordings: Sequence[Recording], split: str,
) -> None:
    """Count in how many ticks each status bit is set."""
    for bit in (Status.OUT_OF_DISTRIBUTION, Status.UNCALIBRATED, Status.UNKNOWN_TASK,
                Status.VIEW_MISSING):
        ticks = np.concatenate([
            one(recording).status & int(bit) != 0 for recording in recordings])
        clusters = np.repeat(clusters_of(recordings),
                             [recording.frames for recording in recordings])
        found.add('status_rate', name, split, fraction_over(ticks[None], clusters),
                  status=bit.name)

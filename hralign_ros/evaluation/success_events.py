# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What a calibrated head says and decides over time.

False alarms, delays, streams in which nothing is accomplished, reversed recordings, cameras that
fail.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from zlib import crc32

from hralign_ros.calibration.calibrate import ALPHA, ALPHAS
from hralign_ros.calibration.scorer import Scored, ticks
from hralign_ros.evaluation.bootstrap import (
    cluster_mean,
    Estimate,
    rate,
    resample,
    rule_of_three,
    without_interval,
)
from hralign_ros.evaluation.report import Measured
from hralign_ros.evaluation.success_deciders import (
    CalibratedScorer,
    decided_on,
    Doubles,
    Judged,
    SuccessModel,
)
from hralign_ros.evaluation.success_ticks import (
    attempts,
    clusters_of,
    fraction_over,
    SEEN,
    stream_of,
)
from hralign_ros.runtime.decision import DecisionRules
from hralign_ros.training.success_clips import rearranged, Recording
import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score

# What the rule of one sample takes for a SUCCESS, and what is said with confidence.
PLAIN, SURE = 0.5, 0.9
DELAYS_S = (0.25, 0.5, 1.0)
_DRAWS = 500


def measure_alarms(
    found: Measured, name: str, ours: Sequence[SuccessModel], recordings: Sequence[Recording],
    split: str,
) -> None:
    """
    Measure how many attempts that never succeed are taken for a success, against the guarantee.

    Streams are no attempts: the calibration has none, and they alarm less often.
    """
    for alpha in ALPHAS:
        never_succeeding, without = decided_on(
            ours, [recording for recording in attempts(recordings) if not recording.done.any()],
            alpha)
        if not never_succeeding:
            continue
        alarms = np.array([[one(recording).decision(alpha) is not None
                            for recording in never_succeeding] for one in ours])
        found.add('false_alarm_rate', name, split, fraction_over(
            alarms, [recording.episode.task_id for recording in never_succeeding]), chance=alpha,
            seeds=[one.seed for one in ours], note=without, alpha=alpha)
        if alpha == ALPHA:
            tasks = np.array([recording.episode.task_id for recording in never_succeeding])
            for task in np.unique(tasks):
                here = alarms[:, tasks == task]
                bound = rate(int(here[0].sum()), here.shape[1])
                found.tables.setdefault('false_alarms_by_task', []).append({
                    'split': split, 'task': str(task), 'episodes': here.shape[1],
                    'seed': ours[0].seed, 'false_alarms': int(here[0].sum()), 'low': bound.low,
                    'high': bound.high, 'guarantee_broken': bound.low > alpha,
                    'rate_all_seeds': float(here.mean()),
                    'thresholds_from': ours[0].thresholds_from(str(task))})


def measure_delays(
    found: Measured, name: str, ours: Sequence[SuccessModel], recordings: Sequence[Recording],
    split: str,
) -> None:
    """
    Measure how late SUCCESS is decided, how often it is not, and how often before.

    Missed or late are attempts that end accomplished, and have been for the dwell time: no rule
    could decide the others. Too early are any that do not begin accomplished, of which the
    guarantee is; those that are undone again are among them.
    """
    dwell = DecisionRules().dwell * 1e-9
    succeeding, without = decided_on(ours, [
        recording for recording in attempts(recordings) if recording.done.any()
        and not recording.done[0]], ALPHA)
    if succeeding:
        early = np.array([[(at := one(recording).decision()) is not None
                           and at < recording.done.argmax() for recording in succeeding]
                          for one in ours])
        found.add('early_success_rate', name, split, fraction_over(early, clusters_of(succeeding)),
                  chance=ALPHA, seeds=[one.seed for one in ours], note=without)
    good, without = decided_on(ours, [
        r for r in attempts(recordings) if r.done[-1] and float(
            r.features.time_s[-1] - r.features.time_s[int(r.done.argmax())]) >= dwell],
        ALPHA)
    if not good:
        return
    first = [float(recording.features.time_s[int(recording.done.argmax())]) for recording in good]
    decided_s = np.full((len(ours), len(good)), np.nan)
    for number, one in enumerate(ours):
        for column, recording in enumerate(good):
            at = one(recording).decision()
            if at is not None:
                decided_s[number, column] = recording.features.time_s[at]
            found.tables.setdefault('decisions', []).append({
                'split': split, 'seed': one.seed, 'episode': recording.episode.episode_id,
                'done_s': first[column],
                'success_s': None if at is None else float(decided_s[number, column]),
                'left_s': float(recording.features.time_s[-1]) - first[column]})
    seeds, clusters = [one.seed for one in ours], clusters_of(good)
    found.add('missed_success_rate', name, split, fraction_over(np.isnan(decided_s), clusters),
              seeds=seeds, note=without)
    for metric, statistic in (('success_delay_median', np.median),
                              ('success_delay_p90', partial(np.quantile, q=0.9))):
        found.add(metric, name, split, delay(decided_s - np.array(first), clusters, statistic),
                  seeds=seeds)


def delay(
    late_s: Doubles, clusters: NDArray[np.str_], statistic: Callable[[Doubles], float],
) -> Estimate:
    """
    Return a statistic of delays, the mean over seeds, with its interval over clusters.

    :param late_s: from the first accomplished frame to the decision, [S, n]; NaN for never. Those
        below 0 were too early, and have no delay.
    """
    rows = np.flatnonzero((late_s >= 0).any(0))

    def over(chosen: NDArray[np.int64]) -> float:
        each = [row[row >= 0] for row in late_s[:, rows[chosen]]]
        return float(np.mean([statistic(row) for row in each if len(row)] or np.nan))

    if len(set(clusters[rows])) < 2:
        return without_interval(over(np.arange(len(rows))), len(rows))
    return resample(over, clusters[rows])


def reversed_recording(recording: Recording) -> Recording | None:
    """Reverse what led to a success; None where there is too little of it."""
    first = int(recording.done.argmax())
    if not recording.done.any() or first < 5:
        return None
    return rearranged(recording, np.arange(first)[::-1].copy(), np.zeros(first, bool))


def perturbed(recording: Recording, rng: np.random.Generator) -> Recording:
    """
    Vary a recording: a later start, pauses, lost frames, one view behind the other.

    No frame comes before an earlier one: where nothing was accomplished, nothing is now.
    """
    start = int(rng.integers(0, max(1, recording.frames // 3)))
    pause, lost = rng.uniform(0.0, 0.3, 2)
    steps = rng.choice([0, 1, 2], recording.frames, p=[pause, 1.0 - pause - lost, lost])
    rows = start + np.cumsum(steps) - steps[0]
    rows = rows[rows < recording.frames]
    lag = np.zeros(recording.features.tokens.shape[1], np.int64)
    lag[rng.integers(len(lag))] = rng.integers(0, 3)
    return rearranged(recording, np.maximum(rows[:, None] - lag, 0), recording.done[rows])


# A recording and the instruction under which it is scored; None: its own.
Stream = tuple[Recording, tuple[str, str] | None]


def collect_streams(recordings: Sequence[Recording],
                    tasks: Mapping[str, str]) -> dict[str, list[Stream]]:
    """
    Make streams in which nothing is accomplished, by kind.

    Idle, occluded and relit ones were rendered as such; wrong-task ones are attempts under another
    instruction, always the same one, reversed ones what led to a success, reversed.
    """
    streams: dict[str, list[Stream]] = {}
    for recording in recordings:
        kind = stream_of(recording)
        if not kind:
            others = sorted(set(tasks) - {recording.episode.task_id})
            if others:
                task = others[crc32(recording.episode.episode_id.encode()) % len(others)]
                streams.setdefault('wrong task', []).append((recording, (task, tasks[task])))
            backwards = reversed_recording(recording)
            if backwards is not None:
                streams.setdefault('reversed', []).append((backwards, None))
        elif not recording.done.any():
            streams.setdefault(kind, []).append((recording, None))
    return dict(sorted(streams.items()))


def measure_streams(
    found: Measured, name: str, one: CalibratedScorer, recordings: Sequence[Recording], *,
    perturbed_frames: int = 0,
) -> None:
    """
    Count false SUCCESS decisions on streams in which nothing is accomplished.

    Beside them what the rule of one sample above PLAIN would have done with the same
    probabilities, and what comes of the same streams perturbed: see `perturbed`. The last row of
    the table is of all kinds together; an episode is one segment however often it is replayed.

    :param perturbed_frames: about so many frames of perturbed streams, over all kinds; every
        stream is perturbed once at least, unless it is 0.
    """
    streams = collect_streams(recordings, one.scorer.run.texts)
    total = sum(recording.frames for some in streams.values() for recording, _ in some)
    rng = np.random.default_rng(0)
    # Episodes in which something was decided, by us and by the rule of one sample.
    alarmed: set[str] = set()
    naive_alarmed: set[str] = set()
    replays = max(1, round(perturbed_frames / max(total, 1))) if perturbed_frames else 0
    rows: list[dict[str, Any]] = []
    # Of each episode the longest stream: attempts under another instruction are whole, and where
    # there is no other one, what is reversed is all that there is.
    episodes: dict[str, Recording] = {}
    for kind, collected in streams.items():
        # Where nothing can be decided, nothing decided means nothing.
        some = [(stream, judged) for stream in collected if (
            judged := _judge(one, *stream, again=kind == 'reversed')).decides()]
        if not some:
            continue
        for (recording, _), _ in some:
            longest = episodes.setdefault(recording.episode.episode_id, recording)
            if recording.frames > longest.frames:
                episodes[recording.episode.episode_id] = recording
        own = [_outcome(judged) for _, judged in some]
        again = [
            _outcome(_judge(one, perturbed(recording, rng), instruction, again=True))
            for _ in range(replays) for (recording, instruction), _ in some]
        for (_, judged), (_, event, sampled) in zip(some, own, strict=True):
            alarmed |= {judged.scored.episode_id} if event else set()
            naive_alarmed |= {judged.scored.episode_id} if sampled else set()
        (frames, alarms, naive), of_perturbed = (
            [sum(row[column] for row in outcomes) for column in range(3)]
            for outcomes in (own, again))
        hours = sum(float(judged.scored.recording.features.time_s[-1])
                    for _, judged in some) / 3600
        rows.append({
            'stream': kind, 'segments': len(some), 'frames': frames, 'hours': round(hours, 4),
            'success_events': alarms, 'bound_per_segment': rule_of_three(alarms, len(some)),
            'events_one_sample': naive, 'perturbed_frames': of_perturbed[0],
            'perturbed_segments': len(again), 'perturbed_events': of_perturbed[1],
            'perturbed_events_one_sample': of_perturbed[2]})
        for variant, count in ((name, alarms), (f'one sample above {PLAIN}', naive)):
            found.add('false_success_rate', variant, SEEN, rate(count, len(some)),
                      control=variant != name, stream=kind)
    if rows:
        found.tables['streams'] = [*rows, {
            **{key: sum(row[key] for row in rows) for key in rows[0] if key != 'stream'},
            'stream': 'all', 'segments': len(episodes),
            'frames': sum(recording.frames for recording in episodes.values()),
            'hours': round(sum(
                float(recording.features.time_s[-1]) for recording in episodes.values()) / 3600,
                4),
            'success_events': len(alarmed), 'events_one_sample': len(naive_alarmed),
            'bound_per_segment': rule_of_three(len(alarmed), len(episodes))}]


def _judge(
    one: CalibratedScorer, recording: Recording, instruction: tuple[str, str] | None, *,
    again: bool,
) -> Judged:
    """Judge a recording under an instruction; `again`: it is not the episode's own recording."""
    seen = one.scorer.run_trace(recording) if again else one.scorer.trace_of(recording)
    return one.judge(one.scorer.score(seen, instruction=instruction))


def _outcome(judged: Judged) -> tuple[int, bool, bool]:
    """Return frames, whether SUCCESS is decided, and whether a sample is above PLAIN."""
    return (len(judged.probability), judged.decision() is not None,
            bool((np.nan_to_num(judged.probability) > PLAIN).any()))


def stuck(recording: Recording, view: int) -> Recording:
    """Return a recording in which a view shows the same image from the middle on."""
    rows = np.repeat(np.arange(recording.frames)[:, None], recording.features.tokens.shape[1],
                     axis=1)
    rows[:, view] = np.minimum(rows[:, view], recording.frames // 2)
    return rearranged(recording, rows, recording.done)


def measure_cameras(
    found: Measured, name: str, one: CalibratedScorer, recordings: Sequence[Recording],
) -> None:
    """Measure what a camera that is gone, stuck or late does to detection and to confidence."""
    # Without those that have no calibration map, whose probability is not a number.
    chosen = [recording for recording in attempts(recordings)
              if np.isfinite(one(recording).probability).all()]
    views = one.scorer.views
    # What is done to a recording, and how its trace is made.
    variations: dict[str, tuple[Callable[[Recording], Recording], dict[str, Any]]] = {
        'all views': (lambda recording: recording, {})}
    for number, view in enumerate(views):
        variations[f'no {view}'] = (
            lambda recording: recording, {'views': np.arange(len(views)) != number})
        variations[f'{view} stuck'] = (partial(stuck, view=number), {})
        for delay in DELAYS_S:
            variations[f'{view} {delay * 1000:.0f} ms late'] = (
                lambda recording: recording,
                {'delays': [delay * (i == number) for i in range(len(views))]})
    for what, (change, how) in variations.items():
        judged = [one.judge(one.scorer.score(one.scorer.run_trace(change(recording), **how)))
                  for recording in chosen]
        if not all(np.isfinite(j.probability).all() for j in judged):
            continue
        values, done, _ = ticks([replace(j.scored, scores=j.probability) for j in judged], 0)
        never_succeeding = [j.probability for j in judged if not j.scored.done.any()]
        if not never_succeeding or len(set(done.tolist())) < 2:
            continue
        auroc = float(roc_auc_score(done, values))
        sure = rate(sum(bool((p > SURE).any()) for p in never_succeeding), len(never_succeeding))
        found.add('auroc', name, SEEN, without_interval(auroc, len(values), len(chosen)),
                  cameras=what)
        found.add('confident_error_rate', name, SEEN, sure, cameras=what)


def measure_order(
    found: Measured, name: str, one: CalibratedScorer, recordings: Sequence[Recording],
) -> None:
    """Correlate by rank progress and raw score with time, forwards and backwards."""
    kinds: dict[str, list[Scored]] = {'successes': [], 'failures': [], 'reversed': []}
    for recording in attempts(recordings):
        kinds['successes' if recording.done[-1] else 'failures'].append(one(recording).scored)
        backwards = reversed_recording(recording)
        if backwards is not None:
            kinds['reversed'].append(one.scorer.score(one.scorer.run_trace(backwards)))
    for kind, some in kinds.items():
        if not some:
            continue
        for what, values in (
                ('progress', [s.trace.progress.astype(np.float64) for s in some]),
                ('score', [s.scores for s in some])):
            each = np.array(list(map(rank_correlation, values)))
            clusters = clusters_of([s.recording for s in some])
            mean = cluster_mean(each, list(clusters), draws=_DRAWS) if len(set(clusters)) > 1 \
                else without_interval(float(each.mean()), len(each), 1)
            found.add(f'{what}_rank_correlation', name, SEEN, mean, episodes=kind)


def rank_correlation(values: Doubles) -> float:
    """Correlate values with time (Spearman; VOC of GVL); constant ones and a single one give 0."""
    ordered = len(values) > 1 and np.ptp(values) > 0
    return float(stats.spearmanr(values, np.arange(len(values)))[0]) if ordered else 0.0

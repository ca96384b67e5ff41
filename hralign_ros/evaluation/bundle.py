# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The report on a finished bundle: episodes are replayed to it as the node would play them.

Whatever the bundle holds is measured as it is, through the runtime: its calibration maps, its
thresholds, its limit of OUT_OF_DISTRIBUTION, tasks that were added to it. Nothing is fitted here.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
import shlex

from hralign_ros.calibration.calibrate import ALPHA, ALPHAS
from hralign_ros.calibration.scorer import Scored
from hralign_ros.calibration.traces import Trace
from hralign_ros.data.content import recording_key
from hralign_ros.data.instructions import STILL
from hralign_ros.data.manifest import DataError, DataSet, Episode, SIMULATORS
from hralign_ros.data.replay import Recording as Played
from hralign_ros.data.token_features import episode_videos, EpisodeFeatures
from hralign_ros.evaluation.bootstrap import EvaluationError
from hralign_ros.evaluation.figures import probability_traces, reliability_diagram
from hralign_ros.evaluation.report import Measured, write_report
from hralign_ros.evaluation.success import example_traces, SIMULATED
from hralign_ros.evaluation.success_deciders import decided_on, Judged
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
from hralign_ros.runtime.bundle import Manifest, SuccessTraining
from hralign_ros.runtime.decision import Decision, DecisionRules, Status
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.report import Progress, Report
from hralign_ros.training.attempts import TAIL_S
from hralign_ros.training.devices import choose_device
from hralign_ros.training.success_clips import assign_splits, labelled, Recording
from hralign_ros.training.success_options import SuccessOptions
import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
# Episodes of these are used where a bundle is trained and calibrated.
_USED = ('train', 'calibration', 'validation')
# All that is measured, whatever its splits.
EVERYTHING = 'all'
# The condition of rows about decisions by the rate that the node takes by itself.
NODES_RATE = 'auto'


# The key of its thresholds, as the parameter alpha has it.
_NODES_ALPHA = 0.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Replayed(Judged):
    """
    What the node would have said of an attempt, with its defaults.

    :param decisions: of each tick, int64 [F].
    :param alpha: false-alarm rate that SUCCESS is decided at, of the first tick that has one;
        NaN: none has.
    """

    decisions: NDArray[np.int64]
    alpha: float

    @property
    def verdict(self) -> Decision:
        """Tell what was decided, SUCCESS or FAILURE; else RUNNING, or ABSTAIN if all ticks are."""
        final = self.decisions[np.isin(self.decisions, (Decision.SUCCESS, Decision.FAILURE))]
        return Decision(int(final[0] if len(final) else self.decisions.max()))

    def decision(self, alpha: float = ALPHA) -> int | None:
        """Return the row at which SUCCESS is decided; at the node's own rate, by the node."""
        if alpha != _NODES_ALPHA:
            return super().decision(alpha)
        succeeds = self.decisions == int(Decision.SUCCESS)
        return int(succeeds.argmax()) if succeeds.any() else None


class BundleReplay:
    """
    Replays recordings to a bundle; stands where the evaluation of runs has a calibrated scorer.

    :param allow_unknown: decide on tasks that the bundle does not know, as the node's parameter
        `allow_unknown_tasks` does.
    """

    seed = 0

    def __init__(self, encoder: Encoder, *, allow_unknown: bool = False) -> None:
        self.encoder, self.allow_unknown = encoder, allow_unknown
        self._replayed: dict[str, Replayed] = {}

    def replay(self, episode: Episode, root: Path) -> Recording:
        """
        Replay an episode's recordings from its start to its end.

        Where only the outcome of a success is known, its last TAIL_S count as accomplished.

        :raises DataError: they cannot be read, or do not go together.
        """
        played = Played(self.encoder, episode_videos(episode), root)
        times = played.times
        ticks = [tick for _, tick in played.play(
            episode.task_text, rules=DecisionRules(allow_unknown_tasks=self.allow_unknown))]
        present = np.array([view in played.views for view in self.encoder.manifest.views])
        nothing = np.zeros((len(times), len(present), 1, 0), np.float16)
        known = episode if len(episode.success_flags) else replace(
            episode, time_s=times.tolist(),
            success_flags=(bool(episode.success) & (times[-1] - times <= TAIL_S)).tolist())
        recording = replace(labelled(known, EpisodeFeatures(
            nothing, nothing[..., 0, :], present, times)), episode=episode)
        said = [tick.success for tick in ticks]
        thresholds = {alpha: _numbers(
            None if s.calibration is None else s.calibration.threshold(alpha) for s in said)
            for alpha in ALPHAS}
        thresholds[_NODES_ALPHA] = _numbers(tick.threshold for tick in ticks)
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
        self._replayed[episode.episode_id] = Replayed(
            scored, _numbers(s.probability for s in said), thresholds,
            np.array([int(tick.status) for tick in ticks]),
            Status.UNKNOWN_TASK if self.allow_unknown else Status.OK,
            _numbers(s.calibration.failure_threshold if s.calibration else None for s in said),
            decisions=np.array([int(tick.decision) for tick in ticks]),
            alpha=next((tick.alpha for tick in ticks if tick.alpha is not None), float('nan')))
        return recording

    def __call__(self, recording: Recording) -> Replayed:
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

    :param splits: whose episodes are replayed; none: all, whatever their splits. What the bundle
        is known to be made of is left out then, as long as there is anything else.
    :param allow_unknown: see BundleReplay.
    :param device: auto, cpu or cuda.
    :raises EvaluationError: no episode with recordings and an outcome is left.
    """
    encoder = Encoder.load(bundle, provider=choose_device(device).provider)
    data = data.only(e for e in _as_trained(data, encoder).episodes if STILL not in e.tags)
    chosen, used, warnings = _choose(data, encoder.manifest, splits)
    one = BundleReplay(encoder, allow_unknown=allow_unknown)
    recordings: dict[str, list[Recording]] = {}
    progress = Progress(len(chosen), 'episodes', report)
    for episode in chosen:
        try:
            recordings.setdefault(episode.split or 'no split', []).append(
                one.replay(episode, data.folder))
        except DataError as error:
            report(f'left out {episode.episode_id}: {error}')
        progress.step()
    if not recordings:
        raise EvaluationError(f'{data.folder}: not one episode could be replayed')
    counts = {split: len(some) for split, some in recordings.items()}
    if not splits and len(recordings) > 1:
        # First, as it is what was asked for.
        recordings = {EVERYTHING: [r for some in recordings.values() for r in some], **recordings}
    name, found = encoder.manifest.name, Measured()
    measure_detection(found, {name: [(0, uncalibrated(one))], TIME_ONLY: [(0, time_alone)]},
                      recordings, report=report)
    samples = measure_calibration(found, name, [one], recordings)
    for split, some in recordings.items():
        measure_alarms(found, name, [one], some, split)
        measure_delays(found, name, [one], [r for r in some if _timed(r)], split)
        _measure_decisions(found, name, one, some, split)
        _measure_status(found, name, one, some, split)
        for recording in some if split in counts else ():
            _tabulate(found, one, recording, split, used)
    if samples:
        found.draw('reliability', reliability_diagram(samples), 'Reliability',
                   'Random ticks, in bins of equal mass; lines: 95 % intervals as if ticks were '
                   'independent.')
    first = next(iter(recordings.values()))
    found.draw('traces', probability_traces(example_traces(one, first, alpha=_NODES_ALPHA)),
               'Probability over time',
               'Attempts in the order of their names; shaded: accomplished; dashed: the threshold '
               'of the rate that the node takes by itself.')
    report(_in_a_sentence(one, first))
    sources = {e.source for e in chosen}
    everyone = [r for split in counts for r in recordings[split]]
    vague = sum(not _timed(r) for r in everyone)
    write_report(
        Path(output), found, report, title=f'Bundle: {name}', commands=commands,
        data={
            'data set': data.folder.name, 'sources': ', '.join(sorted(sources)),
            'bundle': encoder.bundle.sha256[:16],
            **{f'attempts, {split}': count for split, count in counts.items()},
            'attempts at tasks that the bundle does not know': sum(
                not one.knows(recording) for recording in everyone)},
        warnings=[
            *warnings, *undecided([one], recordings),
            *([f'Of {vague} successes only the outcome is known: their last {TAIL_S:g} s count as '
               'accomplished, and nothing is said of how early or late they were decided. Mark '
               'their times: hralign data review.'] if vague else []),
            *([SIMULATED] if sources & SIMULATORS else [])])
    return found


def _choose(
    data: DataSet, manifest: Manifest, splits: Sequence[str],
) -> tuple[list[Episode], set[str], list[str]]:
    """
    Choose what is replayed.

    :returns: episodes; ids of those among them that the bundle is known to be made of; and what
        a reader has to know of the choice.
    :raises EvaluationError: nothing is left.
    """
    # Streams are no attempts: nothing here is measured on them.
    there = [e for e in data.episodes
             if e.robot_videos and (len(e.success_flags) or e.success is not None)
             and not e.discarded and not any(tag.startswith('stream:') for tag in e.tags)]
    chosen = [e for e in there if e.split in splits] if splits else there
    if not chosen:
        raise EvaluationError(
            f'{data.folder}: no episode{" of " + ", ".join(splits) if splits else ""} with videos '
            'and success flags or an outcome; splits there: '
            + ', '.join(sorted({e.split or 'none' for e in data.episodes})))
    used = _made_of(data, chosen, manifest)
    warnings = []
    if used and not splits and len(used) < len(chosen):
        warnings.append(
            f'{len(used)} episodes of these data were used to make the bundle, and are left out; '
            '--split measures them all the same.')
        chosen, used = [e for e in chosen if e.episode_id not in used], set()
    if used:
        warnings.append(
            f'{len(used)} of {len(chosen)} episodes were used to make the bundle: it looks better '
            'on them than it is. Measure it on others'
            + (', or see the page of hralign success teach, whose figures are of attempts left '
               'out.' if manifest.provenance.get('taught') else '.'))
    unknown = sorted({e.split for e in chosen if e.episode_id not in used} & set(_USED))
    if unknown:
        warnings.append(
            f'Measured were episodes of {", ".join(unknown)}, too. If the bundle was made of '
            'them, which cannot be seen in it, it looks better on them than it is; --split '
            'chooses others.')
    return chosen, used, warnings


def _as_trained(data: DataSet, encoder: Encoder) -> DataSet:
    """
    Put robots into splits as the head that decides was trained, by what it was told to leave out.

    Others that are held out elsewhere may have been trained on, by their seeds.
    """
    manifest = encoder.manifest

    def assigned(training: SuccessTraining | None) -> tuple[Episode, ...]:
        return tuple(assign_splits(data, SuccessOptions(
            all_robots=training.all_robots, leave_out=training.leave_out)
            if training else SuccessOptions()).episodes)

    own = assigned(manifest.success.training)
    beside = {file: assigned(head.training) for file, head in manifest.heads.items()}
    decides = {text: encoder.text.encode(text).task.head
               for text in {e.task_text for e in data.episodes}} if beside else {}
    return data.only(beside.get(decides.get(e.task_text, ''), own)[row]
                     for row, e in enumerate(data.episodes))


def _made_of(data: DataSet, episodes: Sequence[Episode], manifest: Manifest) -> set[str]:
    """
    Tell which episodes a bundle is known to be made of, by id.

    Taught recordings are known by their content. Of the data that a head was trained on only the
    folder's name and the sources are; there the splits say the rest.
    """
    found: set[str] = set()
    success, heads = manifest.success, manifest.heads.values()
    for training, command in ((success.training, success.command),
                              *((head.training, head.command) for head in heads)):
        if training and data.folder.resolve().name in _data_names(
                f'{training.command} {command}') and {
                e.source for e in episodes} <= set(training.sources):
            found |= {e.episode_id for e in episodes if e.split in _USED}
    taught = manifest.provenance.get('taught')
    keys = {key for some in taught.values() for key in some} \
        if isinstance(taught, Mapping) else set()
    if keys:
        found |= {e.episode_id for e in episodes if recording_key(data, e) in keys}
    return found


def _data_names(command: str) -> set[str]:
    """Read the names of the data sets off a command of training: what follows --data, --also."""
    try:
        words = shlex.split(command)
    except ValueError:  # an apostrophe in a path, noted without its quotes
        words = command.split()
    names, listed = set(), False
    for word in words:
        option, equals, value = word.partition('=')
        if word.startswith('--'):
            listed, word = option in ('--data', '--also'), value
        if listed and word:
            names.add(Path(word).name)
    return names


def _timed(recording: Recording) -> bool:
    """Tell whether the moment of a success is known; of a failure there is none to know."""
    return not recording.done.any() or any(recording.episode.success_flags)


def _tabulate(
    found: Measured, one: BundleReplay, recording: Recording, split: str, used: set[str],
) -> None:
    """Put an attempt into the table of episodes."""
    judged, times, episode = one(recording), recording.features.time_s, recording.episode
    at, nodes, never_succeeds = (
        judged.decision(), judged.decision(_NODES_ALPHA), not recording.done.any())
    out = judged.status & int(Status.OUT_OF_DISTRIBUTION) != 0
    found.tables.setdefault('episodes', []).append({
        'split': split, 'episode': episode.episode_id, 'task': episode.task_id,
        'succeeds': not never_succeeds, 'failure': episode.failure,
        'done_s': float(times[int(recording.done.argmax())])
        if not never_succeeds and _timed(recording) else None,
        'success_s': None if at is None else float(times[at]),
        'node_decision': judged.verdict.name,
        'node_success_s': None if nodes is None else float(times[nodes]),
        'node_alpha': None if np.isnan(judged.alpha) else judged.alpha,
        'highest_probability': float(np.nanmax(np.r_[-1.0, judged.probability])),
        'out_of_distribution': float(out.mean()),
        'status': int(np.bitwise_or.reduce(judged.status)),
        'made_the_bundle': episode.episode_id in used})


def _measure_decisions(
    found: Measured, name: str, one: BundleReplay, recordings: Sequence[Recording], split: str,
) -> None:
    """
    Measure what the node decides by itself, at the rate that it takes where none is asked for.

    Few attempts back no 5 %, so that a taught task may be in no row of that rate.
    """
    def add(metric: str, some: Sequence[Recording], events: Sequence[bool],
            chance: float | None = None) -> None:
        if some:
            found.add(metric, name, split, fraction_over(np.array([events]), clusters_of(some)),
                      note=without, chance=chance, alpha=NODES_RATE)

    decided, without = decided_on([one], recordings, _NODES_ALPHA)
    rows = {r.episode.episode_id: one(r).decision(_NODES_ALPHA) for r in decided}
    bad = [r for r in decided if not r.done.any()]
    good = [r for r in decided if r.done.any() and not r.done[0]]
    add('false_alarm_rate', bad, [rows[r.episode.episode_id] is not None for r in bad],
        float(np.mean([one(r).alpha for r in bad])) if bad else None)
    add('missed_success_rate', good, [rows[r.episode.episode_id] is None for r in good])
    timed = [r for r in good if _timed(r)]
    add('early_success_rate', timed, [
        (at := rows[r.episode.episode_id]) is not None and at < int(r.done.argmax())
        for r in timed])


def _in_a_sentence(one: BundleReplay, recordings: Sequence[Recording]) -> str:
    """Say what the node decides of these attempts, as who records them would count."""
    count: Counter[tuple[bool, Decision]] = Counter(
        (bool(r.done.any()), one(r).verdict) for r in recordings)
    good, bad = (sum(n for (kind, _), n in count.items() if kind is wanted)
                 for wanted in (True, False))
    ticks = np.concatenate([one(r).status for r in recordings])
    out = float((ticks & int(Status.OUT_OF_DISTRIBUTION) != 0).mean())
    silent = count[True, Decision.ABSTAIN] + count[False, Decision.ABSTAIN]
    return (f'the node decides SUCCESS in {count[True, Decision.SUCCESS]} of {good} successes and '
            f'in {count[False, Decision.SUCCESS]} of {bad} failures, FAILURE in '
            f'{count[True, Decision.FAILURE]} and {count[False, Decision.FAILURE]}; it abstains '
            f'throughout in {silent}; {out:.0%} of the ticks are out of distribution')


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

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Streams in which nothing is accomplished: how they are made, perturbed and counted."""

from dataclasses import replace
from types import SimpleNamespace

from hralign_ros.calibration.calibrated import Calibrated, CalibrationMap
from hralign_ros.calibration.maps import Fitted
from hralign_ros.calibration.scorer import Scored
from hralign_ros.evaluation.report import Measured
from hralign_ros.evaluation.success_deciders import CalibratedScorer
from hralign_ros.evaluation.success_events import (
    collect_streams,
    measure_alarms,
    measure_delays,
    measure_streams,
    perturbed,
)
from hralign_ros.evaluation.success_ticks import (
    fraction_over,
    measure_calibration,
    measure_ends,
    measure_modes,
    SPLITS,
    undecided,
)
import numpy as np
import pytest
from support.tiny_success import make_recording, TASKS


def stream_recording(number, kind='idle'):
    recording = make_recording('lift', number, kind=0)
    return replace(recording, episode=replace(
        recording.episode, episode_id=f'{kind}-{number}', tags=(f'stream:{kind}',)))


class Eager:
    """Takes recordings whose name ends in 1 for successes, and is a little sure of all."""

    def __init__(self):
        self.scorer = SimpleNamespace(
            run=SimpleNamespace(texts=TASKS), run_trace=lambda recording: recording,
            trace_of=lambda recording: recording,
            score=lambda recording, instruction=None: Scored(
                SimpleNamespace(recording=recording, stamps=None), recording.episode.task_id,
                np.zeros(recording.frames), recording.done, np.zeros((recording.frames, 0))))

    def judge(self, scored):
        return SimpleNamespace(
            scored=scored, probability=np.full(len(scored.scores), 0.6), decides=lambda: True,
            decision=lambda: 0 if scored.episode_id.endswith('1') else None)


RECORDINGS = [make_recording('lift', 0), make_recording('lift', 1),
              make_recording('open', 2, kind=0),
              stream_recording(5), stream_recording(1, 'lights')]


class Scripted(Eager):
    """Decides in each recording at the row that is written down for it."""

    def __init__(self, rows):
        super().__init__()
        self.rows, self.seed = rows, 0

    def thresholds_from(self, task_id):
        return 'all tasks'

    def __call__(self, recording):
        name = recording.episode.episode_id
        return SimpleNamespace(decides=lambda alpha: name in self.rows,
                               decision=lambda alpha=0.05: self.rows[name])


def test_what_is_missed_and_what_is_too_early():
    """
    Guards decisions: each rate counts the attempts that its guarantee is of.

    Successes that are undone again were in no number at all; such as end before any rule could
    have decided them counted as missed, and streams, which calibrations have none of, as attempts
    that keep the guarantee.
    """
    def recording(name, done, tags=()):
        plain = make_recording('lift', 0, frames=30)
        return replace(plain, done=np.array(done, bool), episode=replace(
            plain.episode, episode_id=name, tags=tags))

    late, undone = [0] * 20 + [1] * 10, [0] * 10 + [1] * 5 + [0] * 15
    recordings = {'good': (late, 22), 'missed': (late, None), 'early': (late, 12),
                  'undone early': (undone, 5), 'undone': (undone, 11),
                  'at the very end': ([0] * 29 + [1], None),
                  'never': ([0] * 30, None), 'alarm': ([0] * 30, 3)}
    some = [recording(name, done) for name, (done, _) in recordings.items()]
    some += [recording(f'idle {i}', [0] * 30, ('stream:idle',)) for i in range(5)]
    rows = {**{name: row for name, (_, row) in recordings.items()},
            **{f'idle {i}': None for i in range(5)}}
    found, one = Measured(), Scripted(rows)
    measure_delays(found, 'ours', [one], some, 'seen')
    measure_alarms(found, 'ours', [one], some, 'seen')
    for metric, conditions, value, n in (
            ('missed_success_rate', {}, 1 / 3, 3), ('early_success_rate', {}, 2 / 6, 6),
            ('false_alarm_rate', {'alpha': 0.05}, 1 / 2, 2)):
        row = found.find(metric, 'ours', 'seen', **conditions)
        assert (row['value'], row['n']) == (pytest.approx(value), n)


def test_what_is_never_decided_keeps_no_guarantee():
    """
    Guards false alarms: an attempt without a threshold counted as one without a false alarm.

    Of tasks that no calibration had seen, at a rate of 1 % that nothing was guaranteed for, none
    of 52 attempts alarmed: the report had a row of a guarantee that was kept.
    """
    def recording(name, done):
        plain = make_recording('lift', 0, frames=30)
        return replace(plain, done=np.array(done, bool),
                       episode=replace(plain.episode, episode_id=name))

    never, good = [0] * 30, [0] * 20 + [1] * 10
    some = [recording('alarm', never), recording('quiet', never), recording('silent', never),
            recording('good', good), recording('mute', good)]
    one = Scripted({'alarm': 3, 'quiet': None, 'good': 22})
    found = Measured()
    measure_alarms(found, 'ours', [one], some, 'seen')
    measure_delays(found, 'ours', [one], some, 'seen')
    alarms = found.find('false_alarm_rate', 'ours', 'seen', alpha=0.05)
    missed = found.find('missed_success_rate', 'ours', 'seen')
    assert (alarms['value'], alarms['n']) == (0.5, 2)
    assert alarms['note'].startswith('1 attempts have no threshold')
    assert missed['n'] == 1
    assert missed['note'].startswith('1 attempts have no threshold')
    assert undecided([one], {'seen': some})[0].startswith('seen: 2 of 5 attempts')
    nothing = Measured()
    measure_alarms(nothing, 'ours', [Scripted({})], some, 'seen')
    measure_delays(nothing, 'ours', [Scripted({})], some, 'seen')
    assert not nothing.rows


def test_a_calibrated_head_decides_as_the_node_does():
    """
    Guards what all figures about decisions rest on: thresholds by view, ABSTAIN, FAILURE.

    Where the wrist camera is gone, that set's own calibration map and threshold count.
    """
    def map_(shift, thresholds):
        fitted = Fitted('platt', {'scale': 1.0, 'shift': shift}, {}, 1, 1)
        return CalibrationMap(fitted, thresholds, 99, 99, False, failure_threshold=0.9)

    head = CalibratedScorer(
        SimpleNamespace(views=('wrist', 'third_person'), run=SimpleNamespace(
            options=SimpleNamespace(seed=0))),
        Calibrated(2.0, frozenset(['lift']), {
            ('lift', ('wrist', 'third_person')): map_(0.0, {0.05: 0.6, 0.1: 0.4}),
            ('lift', ('third_person',)): map_(0.0, {0.05: 0.99})}))
    recording = make_recording('lift', 0, frames=20)

    def judged(*, task='lift', one_view=(), out_of_distribution=(), failing=()):
        live = np.ones((20, 2), bool)
        live[list(one_view), 0] = False
        ood_score, risks = np.ones(20, np.float32), np.zeros((20, 3))
        ood_score[list(out_of_distribution)] = 2.5
        risks[list(failing), 1] = 0.95
        scores = np.where(np.arange(20) < 5, -2.0, 2.0)
        trace = SimpleNamespace(recording=recording, live=live, ood_score=ood_score,
                                stamps=np.arange(20) * 200_000_000)
        return head.judge(Scored(trace, task, scores, recording.done, risks))

    assert judged().decision() == 7 and judged().decision(0.1) == 7
    assert judged().decision(0.01) is None and not judged().decides(0.01)
    assert judged(out_of_distribution=[6]).decision() == 9
    assert judged(one_view=range(4, 10)).decision() == 12
    assert judged(failing=range(7)).decision() is None
    assert judged(failing=range(5)).decision() == 7, 'not for a second'
    assert judged().decides() and not judged(task='open').decides()
    assert judged(task='open').decision() is None


def test_every_split_that_tests_is_measured():
    """
    A head trained on the simulated table was measured on two of its seven test splits.

    The report's own list of splits was older than the table, whose held-out things, relations,
    instructions and labs it left out without a word.
    """
    assert {'test_seen', 'test_object', 'test_relation', 'test_instruction', 'test_lab',
            'test_task', 'test_view', 'test_embodiment', 'test_distractor'} == set(SPLITS)


def test_failures_that_only_the_instruction_tells_are_measured_apart():
    """
    Guards the figure that a head blind to the instruction fails on.

    Such a head tells failures of motion from successes, and those of language not at all.
    """
    def tagged(number, cause):
        recording = make_recording('lift', number, kind=0)
        return replace(recording, episode=replace(recording.episode, tags=(f'cause:{cause}',)))

    failures = [tagged(10 + i, 'language') for i in range(4)] + [
        tagged(20 + i, 'motion') for i in range(4)]
    # Successes and what was done well in place of them look the same.
    blind = {f.episode.episode_id: 1.0 if 'cause:language' in f.episode.tags else 0.0
             for f in failures}

    def score(recording):
        scored = Eager().scorer.score(recording)
        return replace(scored, scores=np.full(
            recording.frames, blind.get(recording.episode.episode_id, 1.0)))

    found = Measured()
    measure_ends(found, {'blind': [(0, score)]}, {
        'test_seen': [*(make_recording('lift', i) for i in range(4)), *failures],
        'test_view': failures})
    language, = found.select('auroc_at_end', cause='language')
    motion, = found.select('auroc_at_end', cause='motion')
    every, = found.select('auroc_at_end', cause='any')
    assert every['value'] == 0.75
    assert language['value'] == 0.5 and motion['value'] == 1.0
    # Of failures alone there is nothing to tell apart.
    assert language['split'] == 'test_seen' and '4 failures' in language['note']


def test_what_becomes_a_stream():
    """Guards the events: attempts under another instruction, successes backwards, and no more."""
    streams = collect_streams(RECORDINGS, TASKS)
    assert {kind: len(some) for kind, some in streams.items()} == {
        'idle': 1, 'lights': 1, 'reversed': 2, 'wrong task': 3}
    for recording, instruction in streams['wrong task']:
        assert instruction[0] != recording.episode.task_id
        assert instruction[1] == TASKS[instruction[0]]
    assert not any(recording.done.any() for recording, _ in streams['reversed'] + streams['idle'])


def test_a_perturbed_recording_accomplishes_nothing_new():
    """Guards false alarms that are none: frames stay in order, and their labels with them."""
    recording = make_recording('press', 3, frames=30)
    # Each frame and view says which one it is.
    marked = replace(recording, features=replace(recording.features, means=np.broadcast_to(
        np.arange(30.0)[:, None, None], recording.features.means.shape)))
    shown = set()
    for seed in range(200):
        again = perturbed(marked, np.random.default_rng(seed))
        rows = again.features.means[..., 0]
        assert 1 <= again.frames <= 30 and len(again.features.time_s) == again.frames
        assert (np.diff(rows, axis=0) >= 0).all(), 'no frame comes before an earlier one'
        newest = rows.max(1).astype(int)
        np.testing.assert_array_equal(again.done, recording.done[newest])
        assert (newest - rows.min(1) <= 2).all()
        shown.add((newest[0] > 0, again.frames < 20, bool((np.diff(newest) == 0).any())))
    assert len(shown) > 5, 'starts, paces and pauses of all kinds'


def test_an_episode_is_one_segment_however_often_it_is_played():
    """
    Guards the rule of three, which needs independent segments.

    An episode played forwards under another instruction and then backwards had been two.
    """
    found = Measured()
    measure_streams(found, 'ours', Eager(), RECORDINGS, perturbed_frames=400)
    *rows, total = found.tables['streams']
    by_kind = {row['stream']: row for row in rows}
    assert {kind: row['success_events'] for kind, row in by_kind.items()} == {
        'idle': 0, 'lights': 1, 'reversed': 1, 'wrong task': 1}
    assert (total['stream'], total['segments'], total['success_events']) == ('all', 5, 2)
    assert total['frames'] == sum(recording.frames for recording in RECORDINGS)
    assert by_kind['idle']['events_one_sample'] == 1
    assert (by_kind['wrong task']['events_one_sample'], total['events_one_sample']) == (3, 5)
    plays = total['perturbed_segments'] // sum(row['segments'] for row in rows)
    assert plays > 1 and by_kind['lights']['perturbed_events'] == plays
    assert 0.3 * 400 < total['perturbed_frames'] <= 1.5 * 400


def test_what_is_not_played_bounds_nothing():
    """
    Guards the rule of three of a head with one task: attempts under another are no streams then.

    All attempts were counted as segments without an event, though not one was played.
    """
    found, one = Measured(), Eager()
    one.scorer.run.texts = {'lift': TASKS['lift']}
    recordings = [recording for recording in RECORDINGS if recording.episode.task_id == 'lift']
    measure_streams(found, 'ours', one, recordings)
    *rows, total = found.tables['streams']
    assert total['segments'] == sum(row['segments'] for row in rows) < len(recordings) + 1
    assert total['frames'] == sum(row['frames'] for row in rows)


def test_chance_of_modes_is_within_tasks():
    """
    Guards a conclusion: modes that tell nothing but the task are at chance, not below it.

    Modes were dealt out over all tasks, which destroys how often each task has each.
    """
    rng = np.random.default_rng(0)
    recordings, kinds = [], ('slip', 'miss')
    for number in range(240):
        recording = make_recording(('lift', 'open')[number % 2], number, kind=0)
        recordings.append(replace(recording, episode=replace(
            recording.episode, episode_id=str(number), failure=kinds[int(rng.random() < 0.3)])))
    modes = {str(i): np.eye(3)[[int(rng.random() < (0.9, 0.1)[i % 2]) + (rng.random() < 0.02)]]
             for i in range(240)}
    scorer = SimpleNamespace(
        run=SimpleNamespace(options=SimpleNamespace(use_prompts=True, modes=3, seed=0),
                            mode_kinds=lambda trained: {}),
        trace_of=lambda recording: recording,
        modes=lambda recording: modes[recording.episode.episode_id])
    found = Measured()
    measure_modes(found, 'x', [scorer], recordings, 'seen', [f.episode for f in recordings])
    told, named = found.rows
    assert told['value'] == pytest.approx(told['chance'], abs=0.03)
    # Who always says what fails most often is right in 70 %.
    assert named['chance'] == pytest.approx(0.7, abs=0.06)


def test_intervals_of_shares_hold_what_few_events_cannot_show():
    """Guards "1.000 [1.000, 1.000]" of 49 attempts, and five seeds taken for more attempts."""
    tasks = [f't{i % 7}' for i in range(49)]
    all_missed = fraction_over(np.ones((5, 49), bool), tasks)
    assert all_missed.value == 1.0 and all_missed.low < 0.94 and all_missed.n == 49
    alike = np.repeat([[True], [False], [False], [False], [False], [False], [False]], 7, 1)
    events = alike.T.reshape(1, 49)
    assert fraction_over(events, tasks).high > fraction_over(
        events, [str(i) for i in range(49)]).high


def test_attempts_without_a_curve_are_left_out_and_counted():
    """Guards calibration: one attempt of a task without a map took all figures of its split."""
    recordings = [make_recording('lift', number, kind=('success', 0)[number % 2])
                  for number in range(12)]

    class Partly(Eager):
        seed = 0

        def __call__(self, recording):
            known = recording.episode.episode_id != 'lift-3'
            return SimpleNamespace(
                scored=self.scorer.score(recording),
                probability=np.full(recording.frames, 0.5 if known else np.nan))

    found = Measured()
    samples = measure_calibration(found, 'x', [Partly()], {'seen tasks': recordings})
    assert found.find(
        'expected_calibration_error', 'x', 'seen tasks', ticks='random_and_last')['n'] == 22
    assert len(samples['seen tasks'][0]) == 88
    assert all('1 attempts are UNCALIBRATED' in row['note'] for row in found.rows)

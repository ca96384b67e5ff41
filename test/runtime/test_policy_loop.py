# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""When a policy acts and when it does not, on a clock that the test turns."""

from dataclasses import replace

from hralign_ros.runtime import Encoder
from hralign_ros.runtime.decision import Decision
from hralign_ros.runtime.identity import Identity
from hralign_ros.runtime.policy import Layout, Policy
from hralign_ros.runtime.policy_channels import Commands, JointReading, Proprioception
from hralign_ros.runtime.policy_loop import PolicyLoop, Rules, Seen
import numpy as np
import pytest
from support.tiny_policy import TASK, tiny_graph, write_tiny_policy

MS = 1_000_000
PARTS = ('mean', 'keypoints')
VIEWS = ('right', 'left')
EPISODE = 1_000


class Bench:
    """A loop, its clock, and a world in which everything is as it should be."""

    def __init__(self, folder, encoder, rules=None, parts=PARTS, **values):
        views = VIEWS if parts else ()
        write_tiny_policy(
            folder, encoder if parts else None, parts, views, **{
                'actions': [{'name': 'tool.dx', 'unit': 'm'}, {'name': 'gripper'}],
                'proprio': [{'name': f'joint_{i}', 'unit': 'rad'} for i in range(3)], **values})
        policy = Policy.read(folder)
        spec = policy.spec
        self.now = 5_000_000 * MS
        self.layout = Layout.of(encoder)
        self.loop = PolicyLoop(policy, Commands(spec.actions, spec.period_s),
                               Proprioception(spec.proprio), lambda: self.now, rules)
        rows, dim = len(self.layout.views), self.layout.parts[-1].offset \
            + self.layout.parts[-1].size
        self.seen = Seen(
            0, EPISODE, TASK, self.layout.bundle_sha256, self.layout.identity.sha256,
            encoder.text.encode(TASK).instruction_sha256, self.layout.views, [True] * rows,
            [0] * rows, [part.name for part in self.layout.parts],
            [part.offset for part in self.layout.parts], np.ones((rows, dim), np.float32),
            configuration_id=encoder.configuration_id)
        self.loop.told(self.layout)

    def start(self):
        self.loop.start(EPISODE, TASK)
        return self

    def see(self, age=10, stamps=None, **changes):
        """Let the newest embedding come, of pixels so old [ms]."""
        stamp = self.now - age * MS
        self.seen = replace(self.seen, stamp=stamp, **{
            'view_stamps': stamps or [stamp] * len(self.layout.views), **changes})
        self.loop.see(self.seen)
        return self

    def feel(self, age=5, names=('joint_0', 'joint_1', 'joint_2'), value=1.0):
        self.loop.feel({name: JointReading(self.now - age * MS, value, 0.0, 0.0)
                        for name in names})
        return self

    def why(self):
        step = self.loop.step()
        assert (step.command is None) == (step.why is not None)
        return step.why.key if step.why else ''

    def withheld(self):
        return {key: n for key, n in self.loop.counts.items() if key.startswith('withheld')}


@pytest.fixture
def encoder(tiny):
    return Encoder.load(tiny, provider='cpu', threads=1, parts=('keypoints', 'task', 'mean'))


@pytest.fixture
def bench(tmp_path, encoder):
    return Bench(tmp_path / 'policy', encoder)


def test_it_acts_while_all_is_well(bench):
    """Two of four actions, then it looks again; latency is from the oldest pixels."""
    bench.start()
    moves, chunks = [], []
    for _ in range(4):
        bench.see(30).feel()
        step = bench.loop.step()
        moves.append(step.command.twist[0])
        chunks.append(step.chunk)
        bench.now += 100 * MS
    sizes = sum(part.size for part in bench.layout.parts if part.name in PARTS)
    first = 10.0 * (2 * sizes + 3)
    np.testing.assert_allclose(moves, [first, first + 10.0] * 2, rtol=1e-5)
    assert [chunk is not None for chunk in chunks] == [True, False] * 2
    assert chunks[0].actions.shape == (4, 2) and chunks[0].episode_id == EPISODE
    assert bench.loop.counts['commands'] == 4 and bench.loop.counts['chunks'] == 2
    assert list(bench.loop.latencies) == pytest.approx([0.03, 0.03])


@pytest.mark.parametrize(('spoil', 'key'), [
    (lambda b: b.see(201), 'old_embedding'),
    (lambda b: b.see(-201), 'future_embedding'),
    (lambda b: b.see(view_valid=[False, True, True]), 'invalid_view'),
    (lambda b: b.see(task='open the drawer'), 'other_task'),
    (lambda b: b.see(embedding_sha256='f' * 64), 'other_embedding'),
    (lambda b: b.see(episode_id=EPISODE - 1), 'no_embedding'),
    # Whose crop may be another one.
    (lambda b: b.see(configuration_id=b.seen.configuration_id + 1), 'no_info'),
    (lambda b: b.see(part_offsets=[0, 4, 8]), 'other_layout'),
    (lambda b: b.see().feel(201), 'old_proprio'),
    (lambda b: b.see().feel(-201), 'future_proprio'),
    (lambda b: b.loop.told(replace(b.layout, identity=Identity('e' * 64, {}))),
     'other_embedding'),
    (lambda b: b.loop.told(replace(b.layout, parts=b.layout.parts[:1])), 'other_embedding'),
], ids=lambda value: value if isinstance(value, str) else '')
def test_no_command_when_something_is_wrong(bench, spoil, key):
    """Guards the arm, once for each rule: it stops once, and the rest of the chunk is dropped."""
    bench.start().see().feel()
    before = bench.loop.step().command.twist[0]
    bench.now += 1 * MS
    spoil(bench)
    stop = bench.loop.stop()
    assert stop is not None and not stop.twist.any() and stop.gripper is None
    assert bench.loop.stop() is None and not bench.loop.moving
    assert [bench.why(), bench.why()] == [key, key]
    assert bench.withheld() == {f'withheld_{key}': 2}
    assert bench.loop.counts['stops'] == 1 and bench.loop.counts['chunks_dropped'] == 1
    # All is well again: a new look, not the rest of the old chunk.
    bench.loop.told(bench.layout)
    bench.see(0, view_valid=[True] * 3, task=TASK, embedding_sha256=bench.layout.identity.sha256,
              configuration_id=bench.layout.configuration_id,
              episode_id=EPISODE, part_offsets=[p.offset for p in bench.layout.parts]).feel(0)
    step = bench.loop.step()
    assert step.chunk is not None and step.command.twist[0] == before


def test_a_camera_that_has_ended_stops_it_though_the_other_is_fresh(bench):
    """
    Guards the 200 ms: the stamp of an embedding is that of its newest view.

    The encoder keeps a silent camera's last frame for as long as max_age_s of its own, and calls
    the view valid all that time.
    """
    bench.start().feel()
    now = bench.now
    left, middle, right = (bench.layout.views.index(view) for view in ('left', 'middle', 'right'))
    stamps = [now] * 3
    stamps[middle] = now - 900 * MS  # the policy does not look at this one
    stamps[left] = now - 150 * MS
    bench.see(0, stamps=stamps)
    assert bench.why() == ''
    stamps[left] = now - 201 * MS
    bench.see(0, stamps=stamps)
    assert bench.loop.stop() is not None and bench.why() == 'old_embedding'


def test_it_grows_old_between_two_embeddings(bench):
    """Guards against an encoder that has ended: nothing comes any more, and time goes on."""
    bench.start().see(0).feel(0)
    last, seen = 0, bench.now
    for _ in range(60):
        bench.feel(0)
        if bench.loop.step().command:
            last = bench.now
        bench.now += 10 * MS
    assert last - seen == 200 * MS
    assert bench.withheld() == {'withheld_old_embedding': 39}


def test_what_was_seen_before_the_clock_was_set_back_is_never_young_again(bench):
    """
    Guards the arm when a simulation is reset, or a computer's clock corrected, and a sender ends.

    The last embedding was held back as one of the future, and became young again once the clock
    had come to its stamp: for 0.4 s the arm moved on pixels that were ten seconds old.
    """
    bench.start().see().feel()
    assert bench.why() == ''
    bench.now -= 10_000 * MS
    assert bench.loop.stop() is not None and bench.why() == 'no_embedding'
    bench.now += 10_000 * MS
    bench.feel()
    assert bench.why() == 'no_embedding'
    bench.see().feel(names=())
    assert bench.why() == ''
    # The same of joint states; nobody looks at the clock but when something comes.
    bench.now -= 10_000 * MS
    bench.see()
    bench.now += 10_000 * MS
    bench.see()
    assert bench.why() == 'missing_proprio'
    bench.feel()
    assert bench.why() == '' and bench.loop.counts['clock_set_back'] == 2


@pytest.mark.parametrize(('parts', 'key'), [(('task',), 'other_pooling'), (PARTS, '')])
def test_plain_means_are_not_what_it_learnt_from(tmp_path, encoder, parts, key):
    """Guards against an encoder with pooling: mean; its bundle, parts and offsets are the same."""
    bench = Bench(tmp_path / 'p', encoder, parts=parts, graph=tiny_graph(
        2, sum(part.size for part in encoder.parts if part.name in parts))).start()
    bench.see().feel()
    assert bench.why() == ''
    bench.see(attends=False)
    assert bench.why() == key
    assert not key or bench.loop.stop() is not None
    assert not key or 'set pooling of the encoder' in bench.loop.step().why.text


def test_one_sender_whose_clock_is_ahead(bench):
    """
    Guards against a joint or a camera that ended long ago, behind another that goes on.

    The oldest stamp alone was looked at: one that was an hour ahead counted as young for an hour.
    """
    bench.start().see().feel().feel(-3_600_000, names=('joint_1',))
    step = bench.loop.step()
    assert step.why.key == 'future_proprio' and '3600.0 s ahead' in step.why.text
    bench.feel()
    assert bench.why() == ''
    stamps = [bench.now] * 3
    stamps[bench.layout.views.index('left')] += 5_000 * MS
    bench.see(stamps=stamps)
    assert bench.why() == 'future_embedding'


def test_it_grows_old_while_the_policy_thinks(bench, monkeypatch):
    """Guards a slow policy: its answer to pixels that are too old by then is not sent."""
    bench.start().see(150).feel(0)
    actions = Policy.actions

    def slow(*given):
        bench.now += 60 * MS
        return actions(*given)

    monkeypatch.setattr(Policy, 'actions', slow)
    assert bench.why() == 'old_embedding' and not bench.loop.moving


@pytest.mark.parametrize(('decision', 'outcome'), [
    (Decision.SUCCESS, 'success'), (Decision.FAILURE, 'failure')])
def test_success_and_failure_end_it(bench, decision, outcome):
    """And nothing begins it again but a start."""
    bench.start().see().feel()
    assert bench.why() == ''
    bench.loop.decide(EPISODE - 1, TASK, decision)
    bench.loop.decide(EPISODE, TASK, Decision.RUNNING)
    assert bench.loop.stop() is None
    bench.loop.decide(EPISODE, TASK, decision)
    assert bench.loop.stop() is not None and bench.loop.outcome == outcome
    bench.see()
    assert bench.why() == 'not_running' and not bench.withheld()
    assert bench.loop.counts[f'episodes_{outcome}'] == 1
    bench.loop.start(EPISODE + 5, TASK)
    assert bench.why() == 'no_embedding'
    bench.see(episode_id=EPISODE + 5)
    assert bench.why() == ''


def test_decisions_end_nothing_where_they_are_not_to(tmp_path, encoder):
    """Of an arm that the bundle had not seen every second SUCCESS came too early."""
    bench = Bench(tmp_path / 'p', encoder, Rules(end_on_decision=False)).start().see().feel()
    for decision in (Decision.SUCCESS, Decision.FAILURE):
        bench.loop.decide(EPISODE, TASK, decision)
        assert bench.why() == '' and bench.loop.outcome == ''


def test_success_of_another_instruction_does_not_end_it(bench):
    """
    Guards a scene that belongs to somebody else: they set an instruction, and it was accomplished.

    That ended the attempt as a success, and with next_episode=start the policy took the encoder
    back and moved the arm at that moment.
    """
    bench.start().see().feel()
    assert bench.why() == ''
    bench.see(episode_id=EPISODE + 1, task='open the drawer')
    bench.loop.decide(EPISODE + 1, 'open the drawer', Decision.SUCCESS)
    assert bench.why() == 'other_task' and not bench.loop.outcome
    bench.loop.decide(EPISODE + 1, TASK, Decision.SUCCESS)
    assert bench.loop.outcome == 'success'


@pytest.mark.parametrize('by', ['embedding', 'decision'])
def test_a_later_episode_of_the_encoder_drops_the_chunk(bench, by):
    """Guards against half a chunk of the episode before: somebody has reset the scene."""
    bench.start().see().feel()
    first = bench.loop.step().command.twist[0]
    if by == 'decision':
        bench.loop.decide(EPISODE + 1, TASK, Decision.RUNNING)
        assert bench.why() == 'no_embedding'
    bench.see(episode_id=EPISODE + 1)
    step = bench.loop.step()
    assert step.chunk.episode_id == EPISODE + 1 and step.command.twist[0] == first
    assert bench.loop.counts['chunks_dropped'] == 1
    assert bench.loop.counts['episodes_changed'] == 1


def test_an_attempt_that_takes_too_long(tmp_path, encoder):
    bench = Bench(tmp_path / 'p', encoder, Rules(max_episode=1000 * MS)).start().see().feel()
    assert bench.why() == ''
    bench.now += 1001 * MS
    bench.see().feel()
    assert bench.why() == 'not_running' and bench.loop.outcome == 'time_out'
    assert bench.loop.stop() is not None


def test_too_long_where_the_clock_was_set_back(tmp_path, encoder):
    """Guards max_episode_s: an attempt went on for as long as the clock had been set back."""
    bench = Bench(tmp_path / 'p', encoder, Rules(max_episode=1000 * MS)).start().see().feel()
    bench.now += 600 * MS
    assert bench.why() == 'old_embedding'
    bench.now -= 3_600_000 * MS
    bench.see().feel()
    assert bench.why() == ''
    bench.now += 401 * MS
    assert bench.why() == 'not_running' and bench.loop.outcome == 'time_out'


def test_abstain(tmp_path, encoder):
    """By default it goes on; with stop_on_abstain it holds until there is a decision."""
    for stop, expected in ((False, ['', '', '']), (True, ['abstain', 'abstain', ''])):
        bench = Bench(tmp_path / str(stop), encoder, Rules(stop_on_abstain=stop)).start()
        whys = [bench.see().feel().why()]
        for decision in (Decision.ABSTAIN, Decision.RUNNING):
            bench.loop.decide(EPISODE, TASK, decision)
            whys.append(bench.why())
        assert whys == expected


def test_a_joint_that_is_missing(bench):
    bench.start().see().feel(names=('joint_0', 'joint_2'))
    step = bench.loop.step()
    assert step.why.key == 'missing_proprio'
    assert step.why.text == ('no joint joint_1 in the joint states; there are: joint_0, joint_2')
    bench.feel(names=('joint_1',))
    assert bench.why() == ''


def test_each_joint_has_an_age_of_its_own(bench):
    """Guards against one of two senders that has ended."""
    bench.start().see().feel()
    bench.now += 201 * MS
    bench.see().feel(names=('joint_0', 'joint_1'))
    assert bench.why() == 'old_proprio'


def test_a_policy_that_fails(tmp_path, encoder):
    """Not a number becomes no command, and one sentence."""
    bench = Bench(tmp_path / 'p', encoder).start().see().feel(value=float('inf'))
    assert bench.why() == 'missing_proprio'
    bench.see(embedding=np.full_like(bench.seen.embedding, np.inf)).feel(value=-3e38)
    step = bench.loop.step()
    assert step.why.key == 'inference' and 'not finite' in step.why.text


def test_without_a_word_of_the_encoder_nothing_moves(tmp_path, encoder):
    """Guards against guessing what the numbers are."""
    bench = Bench(tmp_path / 'p', encoder).start().see().feel()
    bench.loop._layout = None
    assert bench.why() == 'no_info'


def test_a_policy_without_parts_stops_with_the_encoder_all_the_same(tmp_path, encoder):
    """It is blind to pixels, but somebody has to say when the attempt is over."""
    bench = Bench(tmp_path / 'p', encoder, parts=(), graph=tiny_graph(0, 0)).start().see().feel()
    assert bench.why() == ''
    bench.see(embedding_sha256='f' * 64, bundle_sha256='f' * 64)
    assert bench.why() == ''
    bench.now += 201 * MS
    bench.feel()
    assert bench.why() == 'old_embedding'

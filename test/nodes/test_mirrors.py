# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The mirrors in messages of std_msgs: true, silent where nothing is known, and taken back."""

from collections.abc import Iterator
from typing import Any

from hralign_msgs.msg import SuccessProbability, TaskEmbedding
from hralign_ros.nodes import parameters
from hralign_ros.nodes.mirrors import array_of, Mirrors
from hralign_ros.nodes.outcomes import Recording, RECORDING_TOPIC, words_for
from hralign_ros.runtime import Decision, Status
from lifecycle_msgs.msg import Transition
import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool, Float32MultiArray, Float64, String
from std_srvs.srv import SetBool, Trigger
from support.harness import episode_of, Harness, rows_of, stamp_of, VIEWS
from support.robot import Cameras, good, Shot
from support.tiny_bundle import write_tiny_bundle

CUP = 'pick up the cup'
MIRRORS = {f'mirrors__{name}': 'true' for name in (
    'embedding_array', 'probability', 'succeeded', 'failed', 'reward', 'reset', 'task')}
RUNNER = '/runner/end_episode'
TOPICS = {'/encoder/embedding/array': Float32MultiArray, '/encoder/success/probability': Float64,
          '/encoder/success/succeeded': Bool, '/encoder/success/failed': Bool,
          '/encoder/reward': Float64}
LATCHED = ('/encoder/success/succeeded', '/encoder/success/failed')


def silent(shot: Shot) -> list[Any]:
    """Send nothing."""
    return []


class Stage:
    """A node with all mirrors on, whose cameras stream, and who listens to them."""

    def __init__(self, harness: Harness, **parameters: str) -> None:
        self.harness = harness
        self.said: dict[str, list[Any]] = {topic: [] for topic in TOPICS}
        for topic in TOPICS:
            self.listen(topic, self.said[topic])
        self.process = harness.start_active(
            task=f"'{CUP}'", mirrors__outcome_service=RUNNER,
            mirrors__recording='save_or_delete', **MIRRORS, **parameters)
        self.cameras = Cameras(harness)
        self.cameras.start()

    def listen(self, topic: str, store: list[Any]) -> Any:
        """Listen to a mirror from now on; to a latched one, also to what was said before."""
        return self.harness.node.create_subscription(
            TOPICS[topic], topic, lambda message: store.append(message),
            QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE,
                       durability=DurabilityPolicy.TRANSIENT_LOCAL if topic in LATCHED
                       else DurabilityPolicy.VOLATILE))

    def newest(self, name: str) -> Any:
        """Tell what a mirror said last; None: nothing so far."""
        said = self.said[f'/encoder/{name}']
        return said[-1].data if said else None

    def decided(self, decision: Decision) -> None:
        """Wait until the mirrors say that, of the episode that is running."""
        began = self.harness.now()
        self.harness.wait(lambda: next(
            (m for m in self.harness.successes[-3:]
             if m.decision == decision and stamp_of(m) > began), None), decision.name)
        self.harness.wait(lambda: (self.newest('success/succeeded'),
                                   self.newest('success/failed')) == (
            decision == Decision.SUCCESS, decision == Decision.FAILURE), 'the mirrors')

    def succeeds_again(self) -> None:
        """Begin another episode, and wait for its SUCCESS."""
        self.harness.start_episode()
        self.decided(Decision.SUCCESS)

    def fails(self) -> None:
        """Begin another episode, and wait for its FAILURE."""
        assert self.harness.set_parameters(dwell_s=60.0, time_out_s=0.5).successful
        self.harness.start_episode()
        self.decided(Decision.FAILURE)
        assert self.harness.set_parameters(dwell_s=0.3, time_out_s=0.0).successful

    def fell_silent(self, topics: tuple[str, ...]) -> None:
        """Wait until nothing is on its way any more, then check that nothing comes."""
        seen = dict.fromkeys(topics, -1)

        def quiet() -> bool:
            counts = {topic: len(self.said[topic]) for topic in topics}
            same = counts == seen
            seen.update(counts)
            return same

        self.harness.wait(lambda: self.harness.spin(0.6) or quiet(), 'silence')
        self.harness.spin(0.6)
        assert quiet(), 'it speaks again'


@pytest.fixture(scope='module')
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give one that decides on every episode, however slow this machine is."""
    folder = tmp_path_factory.mktemp('bundle')
    write_tiny_bundle(folder, VIEWS, ood_threshold=1e6)
    return str(folder)


# These two have a node of their own, so they come before the one that the others share.

def test_shut_down(harness: Harness, bundle: str) -> None:
    """SIGINT takes back what was decided: who listens keeps the last word of a node that went."""
    stage = Stage(harness, bundle=bundle)
    stage.decided(Decision.SUCCESS)
    assert stage.process.stop() == 0, stage.process.output
    harness.wait(lambda: stage.newest('success/succeeded') is False, 'False')
    harness.wait(lambda: stage.newest('reward') == 0.0, 'no reward')
    stage.cameras.end()


def test_off_by_default(harness: Harness) -> None:
    """Without a parameter the node has no mirror."""
    process = harness.start_active()
    harness.wait(lambda: '/encoder/success' in harness.offered('encoder', 'publisher'), 'it')
    harness.spin(0.5)
    offered = harness.offered('encoder', 'publisher', 'service', 'subscriber')
    assert not {*TOPICS, '/encoder/reset', '/encoder/task', f'/{RECORDING_TOPIC}'} & set(offered)
    assert process.stop() == 0


@pytest.fixture(scope='module')
def stage(tmp_path_factory: pytest.TempPathFactory, bundle: str) -> Iterator[Stage]:
    """Give it for all tests that share a node."""
    harness = Harness(tmp_path_factory.mktemp('mirrors'))
    made = Stage(harness, bundle=bundle)
    yield made
    made.cameras.end()
    assert made.process.stop() == 0, made.process.output
    assert 'Traceback' not in made.process.output, made.process.output
    harness.close()


def test_they_say_what_the_messages_say(stage: Stage) -> None:
    """Numbers are those of the messages they mirror; the array's layout says how to read it."""
    harness = stage.harness
    stage.decided(Decision.SUCCESS)
    arrays = stage.said['/encoder/embedding/array']

    def mirrored() -> tuple[TaskEmbedding, Float32MultiArray] | None:
        rows = {rows_of(message).tobytes(): message for message in harness.embeddings}
        return next(((rows[key], one) for one in arrays
                     if (key := np.array(one.data, np.float32).tobytes()) in rows), None)

    message, array = harness.wait(mirrored, 'an array that is an embedding')
    view, element = array.layout.dim
    assert (view.label, view.size, view.stride) == ('view', len(VIEWS), len(array.data))
    assert (element.label, element.size, element.stride) == ('element', message.dim, message.dim)
    assert array.layout.data_offset == 0
    told = stage.said['/encoder/success/probability']
    harness.wait(lambda: told and {float(np.float32(one.data)) for one in told} <= {
        message.probability for message in harness.successes}, 'probabilities as in ~/success')
    harness.wait(lambda: stage.newest('reward') == 1.0, 'the reward')


def test_a_reset_takes_success_back(stage: Stage) -> None:
    """Guards a tree that asks right after a reset: the SUCCESS of the attempt before is gone."""
    stage.decided(Decision.SUCCESS)
    before = episode_of(stage.harness.successes[-1])
    # No result of the new episode may say it: what is seen is the taking back alone.
    stage.cameras.sends.update(dict.fromkeys(VIEWS, silent))
    stage.harness.wait(lambda: stage.harness.successes[-1].status & Status.STALE_VIEW, 'STALE')
    stage.fell_silent(tuple(TOPICS))
    assert stage.newest('success/succeeded') is True, 'held within the episode'
    answer = stage.harness.call(Trigger, '/encoder/reset', Trigger.Request())
    assert answer.success and answer.message.startswith('episode ')
    stage.harness.wait(lambda: stage.newest('success/succeeded') is False, 'False')
    stage.harness.wait(lambda: stage.newest('reward') == 0.0, 'no reward')
    stage.cameras.sends.update(dict.fromkeys(VIEWS, good))
    stage.decided(Decision.SUCCESS)
    assert episode_of(stage.harness.successes[-1]) > before


def test_nothing_while_stale(stage: Stage) -> None:
    """A stale result is mirrored by silence; who comes late still learns what was decided."""
    stage.decided(Decision.SUCCESS)
    stage.cameras.sends.update(dict.fromkeys(VIEWS, silent))
    stage.harness.wait(lambda: stage.harness.successes[-1].status & Status.STALE_VIEW, 'STALE')
    stage.fell_silent(tuple(TOPICS))
    late: list[Any] = []
    subscription = stage.listen('/encoder/success/succeeded', late)
    stage.harness.wait(lambda: late, 'the latched mirror')
    assert late[-1].data is True
    stage.harness.node.destroy_subscription(subscription)
    stage.cameras.sends.update(dict.fromkeys(VIEWS, good))
    stage.decided(Decision.SUCCESS)


def test_an_array_of_all_views_or_none(stage: Stage) -> None:
    """Zeros stand for a view that is missing, and an array cannot say so: none is sent."""
    stage.cameras.sends['wrist'] = silent
    stage.harness.wait(lambda: stage.harness.embeddings
                       and not all(stage.harness.embeddings[-1].view_valid), 'a view missing')
    stage.fell_silent(('/encoder/embedding/array',))
    count = len(stage.said['/encoder/success/probability'])
    stage.harness.wait(lambda: len(stage.said['/encoder/success/probability']) > count + 2,
                       'probabilities of the other view')
    stage.cameras.sends['wrist'] = good
    count = len(stage.said['/encoder/embedding/array'])
    stage.harness.wait(lambda: len(stage.said['/encoder/embedding/array']) > count, 'arrays')


def test_failure_is_mirrored_and_taken_back(stage: Stage) -> None:
    """FAILURE is one mirror's True and the other's False; its reward is 0."""
    harness = stage.harness
    assert harness.set_parameters(dwell_s=60.0, time_out_s=0.5).successful
    harness.start_episode()
    stage.decided(Decision.FAILURE)
    harness.wait(lambda: stage.newest('reward') == 0.0, 'no reward')
    assert harness.set_parameters(dwell_s=0.3, time_out_s=0.0).successful
    harness.set_task(CUP)
    stage.decided(Decision.SUCCESS)


def test_an_outcome_is_told_once(stage: Stage) -> None:
    """
    Who runs episodes is called when one is decided, and not again while that decision stands.

    A second call would end the episode that it has begun since. The log comes later than the
    messages on a busy machine, so that lines are counted against episodes: a line of the episode
    before was once taken for that of the running one, and the next one called a second time.
    """
    harness, calls = stage.harness, []

    def take(request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        calls.append(request.data)
        response.success = len(calls) == 1
        response.message = 'as you say' if response.success else 'none runs'
        return response

    def told() -> int:
        return stage.process.output.count(f'{RUNNER} (')

    def ended() -> int:
        return len({episode_of(message) for message in harness.successes
                    if message.decision in (Decision.SUCCESS, Decision.FAILURE)})

    def attempt() -> int:
        """Let one succeed; it is told once, whoever listens."""
        stage.succeeds_again()
        harness.wait(lambda: told() >= ended(), 'the outcome')
        return len(calls)

    assert attempt() == 0
    assert f'{RUNNER} (success): nobody serves it' in stage.process.output
    service = harness.node.create_service(SetBool, RUNNER, take)
    # The node learns of it when the graph has told it.
    harness.wait(attempt, 'a call')
    count, before = len(harness.successes), told()
    harness.wait(lambda: len(harness.successes) > count + 5, 'further results')
    assert calls == [True] and told() == before
    assert f'{RUNNER} (success): as you say' in stage.process.output
    stage.fails()
    harness.wait(lambda: told() >= ended(), 'the outcome')
    assert calls == [True, False]
    assert f'{RUNNER} (failure): refused: none runs' in stage.process.output
    harness.node.destroy_service(service)
    stage.succeeds_again()


def test_a_recording_ends_with_its_episode(stage: Stage) -> None:
    """
    A recording that was heard to begin is ended and saved by the SUCCESS of an episode within it.

    `record` begins a recording where none runs, so no word is said of any other SUCCESS.
    """
    harness, words = stage.harness, []
    topic = f'/{RECORDING_TOPIC}'
    listener = harness.node.create_subscription(
        String, topic, lambda message: words.append(message.data), 10)
    person = harness.node.create_publisher(String, topic, 10)
    harness.wait(lambda: person.get_subscription_count() == 2
                 and harness.node.count_publishers(topic) == 2, 'the node')
    stage.succeeds_again()
    person.publish(String(data='record'))
    harness.wait(lambda: words, 'the word')
    assert words == ['record'], 'none runs, so none was ended'
    # The node hears the word before it is asked for an episode, or one episode later. It says
    # nothing of any other, so it may be asked for more of them.
    harness.wait(lambda: words[1:] or stage.succeeds_again(), 'its end')
    harness.wait(lambda: words[2:], 'the second word')
    assert words == ['record', 'record', 'save']
    stage.succeeds_again()
    person.publish(String(data='record'))
    harness.wait(lambda: words[3:], 'the word')
    harness.wait(lambda: words[4:] or stage.fails(), 'its end')
    harness.wait(lambda: words[5:], 'the second word')
    assert words[3:] == ['record', 'record', 'delete']
    for made in (listener, person):
        getattr(harness.node, 'destroy_publisher' if made is person
                else 'destroy_subscription')(made)
    stage.succeeds_again()


def test_instructions_by_topic(stage: Stage) -> None:
    """An instruction that is taken begins an episode; a refused one is told to a person."""
    harness, process = stage.harness, stage.process
    publisher = harness.node.create_publisher(String, '/encoder/task', 1)
    harness.wait(publisher.get_subscription_count, 'the subscriber')

    def says(text: str) -> None:
        publisher.publish(String(data=text))

    before = episode_of(harness.successes[-1])
    says('lift the cup')
    harness.wait(lambda: harness.successes[-1].task == 'lift the cup', 'the instruction')
    assert episode_of(harness.successes[-1]) > before
    stage.decided(Decision.SUCCESS)
    before = episode_of(harness.successes[-1])
    says('x' * 513)
    status = harness.wait(lambda: (s := harness.statuses['/encoder: model'])
                          and '~/task' in s.message and s, 'the diagnosis', process)
    assert status.level == status.WARN and 'at most 512' in status.message
    assert 'an instruction on ~/task changed nothing' in process.output
    stage.decided(Decision.SUCCESS)
    assert episode_of(harness.successes[-1]) == before, 'a refused one changes nothing'
    says(CUP)
    harness.wait(lambda: harness.statuses['/encoder: model'].level == status.OK, 'its end')
    assert 'recovered: ~/task' in process.output
    harness.node.destroy_publisher(publisher)


def test_deactivated(stage: Stage) -> None:
    """What was decided is taken back before the publishers fall silent; it comes back no more."""
    stage.decided(Decision.SUCCESS)
    assert stage.harness.transition(Transition.TRANSITION_DEACTIVATE)
    stage.harness.wait(lambda: stage.newest('success/succeeded') is False, 'False')
    stage.fell_silent(tuple(TOPICS))
    assert stage.newest('success/succeeded') is False
    assert stage.harness.transition(Transition.TRANSITION_ACTIVATE)
    stage.decided(Decision.SUCCESS)


# Rules, told message by message.

class Told:
    """The values that each mirror was given, in order."""

    def __init__(self, **changes: Any) -> None:
        wanted = {name: row.default for name, row in parameters.table().items()} | {
            name.replace('__', '.'): True for name in MIRRORS} | changes
        self.values: dict[str, list[Any]] = {}
        self.mirrors = Mirrors(wanted, self._make)

    def _make(self, kind: type, name: str, qos: QoSProfile) -> Any:
        values = self.values[name.removeprefix('~/')] = []

        class Publisher:

            @staticmethod
            def publish(message: Any) -> None:
                values.append(message.data)

        return Publisher()

    def take(self) -> dict[str, list[Any]]:
        """Tell what was said since the last time, by those who said something."""
        said = {name: list(values) for name, values in self.values.items() if values}
        for values in self.values.values():
            values.clear()
        return said


def result(decision: Decision, status: Status = Status.OK, **fields: Any) -> SuccessProbability:
    """Make a result."""
    return SuccessProbability(decision=int(decision), status=int(status), **{
        'probability_valid': True, 'probability': 0.5, 'progress_valid': True, 'progress': 0.25,
        **fields})


@pytest.mark.parametrize('status', [
    Status.STALE_VIEW | Status.VIEW_MISSING, Status.OUT_OF_DISTRIBUTION, Status.UNKNOWN_TASK,
    Status.UNCALIBRATED, Status.NO_TASK])
@pytest.mark.parametrize('shaping', ['sparse', 'progress_difference'])
def test_what_must_not_be_taken_at_face_value_is_not_mirrored(
    status: Status, shaping: str,
) -> None:
    """A number without its status bits would be taken at face value."""
    told = Told(**{'mirrors.reward_shaping': shaping})
    told.mirrors.success(result(Decision.ABSTAIN, status))
    assert not told.take()


def test_a_probability_without_a_threshold_is_one() -> None:
    """It is calibrated; but nothing is decided, so there is no decision and no sparse reward."""
    told = Told()
    told.mirrors.success(result(Decision.ABSTAIN, Status.VIEW_MISSING))
    assert told.take() == {'success/probability': [0.5]}
    told.mirrors.success(result(Decision.ABSTAIN, probability_valid=False))
    assert not told.take()


def test_an_unknown_task_that_is_decided_on_is_mirrored() -> None:
    """With allow_unknown_tasks the node decides, and so say its mirrors."""
    told = Told()
    told.mirrors.success(result(Decision.RUNNING, Status.UNKNOWN_TASK))
    assert told.take()['success/probability'] == [0.5]


def test_sparse_rewards() -> None:
    """
    The reward stays at 1 from SUCCESS on, for who samples it; another episode begins at 0.

    A stack that looks at the newest reward 30 times a second would miss a single 1.
    """
    told = Told()
    for decision in (Decision.RUNNING, Decision.SUCCESS, Decision.SUCCESS):
        told.mirrors.success(result(decision))
    assert told.take()['reward'] == [0.0, 1.0, 1.0]
    told.mirrors.clear()
    assert told.take() == {'reward': [0.0], 'success/succeeded': [False],
                           'success/failed': [False]}
    told.mirrors.success(result(Decision.FAILURE))
    assert told.take()['reward'] == [0.0]
    told.mirrors.clear()
    assert 'reward' not in told.take(), 'there was none to take back'


def test_rewards_by_progress() -> None:
    """Their sum is the progress made in the episode, gaps or not; the first is 0."""
    told = Told(**{'mirrors.reward_shaping': 'progress_difference'})
    for progress, status in ((0.25, 0), (0.5, 0), (0.125, Status.STALE_VIEW), (0.75, 0)):
        told.mirrors.success(result(
            Decision.ABSTAIN if status else Decision.RUNNING, Status(status), progress=progress))
    assert told.take()['reward'] == [0.0, 0.25, 0.25]
    told.mirrors.clear()
    told.mirrors.success(result(Decision.RUNNING, progress=0.5))
    told.mirrors.success(result(Decision.RUNNING, progress_valid=False))
    assert told.take()['reward'] == [0.0], 'of another episode nothing is subtracted'


def test_an_array_as_it_is() -> None:
    """Rows of views, as in the embedding."""
    data = np.arange(6, dtype=np.float32)
    array = array_of(TaskEmbedding(view_names=list(VIEWS), dim=3, data=data.tolist()))
    assert np.array_equal(np.array(array.data, np.float32), data)
    assert [(one.label, one.size, one.stride) for one in array.layout.dim] == [
        ('view', 2, 6), ('element', 3, 3)]


@pytest.mark.parametrize(('words', 'since'), [
    ('', None), ('save delete exit', None), ('record', 0), ('record save', None),
    ('record record', None), ('record record record', None), ('record record save', None),
    ('record record save record', 3), ('record record delete record', 3),
    ('record record exit', None)])
def test_what_a_recorder_does(words: str, since: int | None) -> None:
    """
    As crisp_gym reads the words: waiting, recording, paused until it is saved or deleted.

    An encoder that started within a recording took the `record` that ended it for a beginning, and
    at its next SUCCESS said `record` to a recorder that waited, which began to record. So `save`
    and `delete` say that none runs, whatever was heard before.
    """
    recording = Recording()
    for now, word in enumerate(words.split()):
        recording.hear(word, now)
    assert recording.since == since


def test_a_failure_is_left_to_a_person() -> None:
    """Unless they wish otherwise: what is deleted is gone."""
    assert words_for(True, 'save') == words_for(True, 'save_or_delete') == ('record', 'save')
    assert words_for(False, 'save') == ('record',)
    assert words_for(False, 'save_or_delete') == ('record', 'delete')

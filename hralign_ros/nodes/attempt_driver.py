# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Attempts of a policy node on a simulated arm: set up a scene, start, watch, stop.

What is counted is what the nodes publish; the truth comes from the simulation, and neither the
encoder nor the policy hears of it. All times are those of the nodes' clock, in seconds from the
moment from which images show the scene; only latencies are of the system's clock.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
import math
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from hralign_ros.nodes.conversions import (
    MessageInfo,
    ns_to_stamp,
    received_at,
    sent_at,
    stamp_to_ns,
)
from hralign_ros.nodes.diagnostics import ERROR, WARN
from hralign_ros.nodes.image_subscriptions import decode
from hralign_ros.nodes.interfaces import (
    ActionChunk,
    LabelEpisode,
    SceneState,
    SetScene,
    StartEpisode,
    SuccessProbability,
    TaskEmbedding,
)
from hralign_ros.runtime.decision import Decision, Status
from hralign_ros.runtime.errors import HralignError
from hralign_ros.runtime.images import Image
from hralign_ros.runtime.recordings import header_stamp
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    qos_profile_sensor_data,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import String
from std_srvs.srv import Trigger

VIEWS = ('third_person', 'wrist')
WAITING = 'waiting for ~/start'
# How long a service or a node may take [s], on the system's clock.
_PATIENCE, _AGAIN_S = 60.0, 10.0
# How long a recorder may take until what it has of an attempt can be labelled [s].
_LABEL_S = 30.0
# After the truth a decision may come for so long, and after a decision the truth, simulated [s].
LINGER_S, _AFTER_S = 2.0, 0.5
# Images are kept so often [s].
_KEEP_S = 0.1
_RELIABLE = QoSProfile(depth=200, reliability=ReliabilityPolicy.RELIABLE)
_LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                      durability=DurabilityPolicy.TRANSIENT_LOCAL)
_DECIDED = {Decision.SUCCESS: 'success', Decision.FAILURE: 'failure'}


class AttemptError(HralignError):
    """A node does not answer, or refuses."""


@dataclass
class Seen:
    """
    What was published during one attempt, stamps in nanoseconds.

    :param truths: stamp, and whether the task was accomplished then.
    :param moves: stamps of twists that were not zero.
    :param sent: when each of them was sent, system time.
    :param came: when each of them came, system time.
    :param shown: by stamp, when images of the first view came, system time.
    :param chunks: stamp of the pixels, and when the chunk was decided on.
    :param embeddings: when it was sent, system time, and its stamp.
    :param ticks: stamp, decision, probability or NaN, status.
    :param recorded: stamp, view and serialised image, a few a second.
    :param end_on_decision: whether the policy ends an attempt on SUCCESS and FAILURE.
    """

    truths: list[tuple[int, bool]] = field(default_factory=list)
    moves: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    came: list[int] = field(default_factory=list)
    shown: dict[int, int] = field(default_factory=dict)
    chunks: list[tuple[int, int]] = field(default_factory=list)
    embeddings: list[tuple[int, int]] = field(default_factory=list)
    ticks: list[tuple[int, Decision, float, int]] = field(default_factory=list)
    recorded: list[tuple[int, str, bytes]] = field(default_factory=list)
    limit_ns: int = 0
    end_on_decision: bool = True

    @property
    def now(self) -> int:
        """Tell the newest time of the simulation [ns]; 0: none."""
        return self.truths[-1][0] if self.truths else 0

    @property
    def accomplished(self) -> int:
        """Tell when the task was first accomplished [ns]; 0: not so far."""
        return next((stamp for stamp, there in self.truths if there), 0)

    @property
    def decided(self) -> tuple[int, Decision] | None:
        """Tell the first decision that ends an attempt, and when."""
        return next(((stamp, decision) for stamp, decision, _, _ in self.ticks
                     if decision in _DECIDED), None)

    def over(self) -> bool:
        """Tell whether the attempt has come to its end, one way or the other."""
        decided = self.decided if self.end_on_decision else None
        if decided is not None and self.now - decided[0] > _AFTER_S * 1e9:
            return True
        if self.accomplished:
            return self.now - self.accomplished > LINGER_S * 1e9
        return bool(self.moves) and self.now - self.moves[0] > self.limit_ns

    def on_old_embedding(self, max_age: int) -> int:
        """Count moves when no embedding that had been sent was younger than `max_age` [ns]."""
        return sum(
            stamp - max((one for when, one in self.embeddings if when <= sent), default=0)
            > max_age for stamp, sent in zip(self.moves, self.sent, strict=True))

    def images(self, view: str) -> list[tuple[int, Image]]:
        """Decode what was kept of a view, uint8 [H, W, 3] RGB, oldest first."""
        return [(stamp, decode(deserialize_message(data, ImageMessage))[0])
                for stamp, one, data in self.recorded if one == view]


class AttemptDriver(Node):
    """
    Drive attempts, one after the other, on an executor of its own.

    :param max_age_s: the policy's; to count commands on older embeddings.
    :param label: tell a recorder what came of each attempt.
    :param end_on_decision: the policy's, too.
    """

    def __init__(self, max_age_s: float, *, label: bool = False,
                 end_on_decision: bool = True) -> None:
        super().__init__('attempt_driver')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self._max_age = round(max_age_s * 1e9)
        self._end_on_decision = end_on_decision
        self.seen = Seen()
        self._open = False
        self._since = 0
        # The newest episode of the encoder, and the one before this attempt; 0: none has come.
        self._newest_episode = self._old_episode = 0
        self._episode: int | None = None
        self._scene = -1
        self._policy_state = ''
        # What diagnostics complain of, by name.
        self._complaints: dict[str, tuple[bytes, str]] = {}
        self._kept = dict.fromkeys(VIEWS, 0)
        self._withheld: dict[str, int] = {}
        # Images of each view that the recorder has in its newest bag.
        self._recorded: dict[str, int] = {}
        self._factors: list[float] = []
        self.create_subscription(SceneState, 'arm_sim/truth', self._on_truth, _RELIABLE)
        on_twist: Callable[..., None] = self._on_twist
        self.create_subscription(TwistStamped, 'policy/twist', on_twist, _RELIABLE)
        self.create_subscription(ActionChunk, 'policy/chunk', self._on_chunk, _RELIABLE)
        self.create_subscription(String, 'policy/state', self._on_state, _LATCHED)
        on_embedding: Callable[..., None] = self._on_embedding
        self.create_subscription(TaskEmbedding, 'encoder/embedding', on_embedding, _RELIABLE)
        self.create_subscription(SuccessProbability, 'encoder/success', self._on_success,
                                 _RELIABLE)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, _RELIABLE)
        for view in VIEWS:
            def on_image(data: bytes, info: MessageInfo, view: str = view) -> None:
                self._on_image(view, data, info)

            callback: Callable[..., None] = on_image
            self.create_subscription(ImageMessage, f'{view}/image_raw', callback,
                                     qos_profile_sensor_data, raw=True)
        self._set_scene: Client = self.create_client(SetScene, 'arm_sim/set_scene')
        self._start: Client = self.create_client(Trigger, 'policy/start')
        self._stop: Client = self.create_client(Trigger, 'policy/stop')
        self._next_episode: Client = self.create_client(StartEpisode, 'encoder/start_episode')
        self._label: Client | None = self.create_client(
            LabelEpisode, 'recorder/label_episode') if label else None

    def listens_to(self, topic: str) -> int:
        """Count the subscriptions of this node to a topic."""
        return sum(one.topic_name == topic for one in self.subscriptions)

    def wait_ready(self, alive: Callable[[], None]) -> None:
        """
        Wait until arm, encoder and policy are there.

        :param alive: raises where one of them has ended.
        :raises AttemptError: one of them is not there in time.
        """
        def there() -> bool:
            self._check_complaints()
            return bool(self._waiting() and self.seen.now)

        self._until(there, alive,
                    'the policy node and the simulated arm')
        # Its episode is known by then: nothing that it says in it is of an attempt.
        self._until(lambda: self._newest_episode, alive, 'an embedding of the encoder')
        if self._label is not None:
            self._until(self._label.service_is_ready, alive, 'the recorder')
            # It answers before its cameras are connected: first images would be missing.
            self._until(lambda: all(self._recorded.get(view) for view in VIEWS), alive,
                        'an image in the recorder')

    def attempt(self, seed: int, alive: Callable[[], None],
                show: Callable[[Seen], None]) -> dict[str, Any]:
        """
        Make one attempt.

        :param alive: raises where a node has ended.
        :param show: given what has been seen so far, a few times a second.
        :returns: what came of it, for a line of attempts.jsonl.
        :raises AttemptError: a node does not answer, or refuses.
        """
        wall = time.monotonic()
        answer = self._call(self._set_scene, SetScene.Request(seed=seed), alive)
        if not answer.accepted:
            raise AttemptError(f'arm_sim/set_scene: {answer.message}')
        self._since, self._scene = stamp_to_ns(answer.start), seed
        self._episode = None
        self.seen, before, self._factors = Seen(
            end_on_decision=self._end_on_decision), dict(self._withheld), []
        self._kept = dict.fromkeys(VIEWS, 0)
        self._open = True
        self._until(lambda: self.seen.now, alive, f'the scene {seed}')
        # The attempt has an episode of its own, which ~/start begins.
        self._old_episode = self._newest_episode
        self.seen.ticks.clear()
        began = self._call(self._start, Trigger.Request(), alive)
        # Where an answer was lost and the question came twice, the second is refused.
        if not began.success and self._waiting():
            raise AttemptError(f'policy/start: {began.message}')
        # A policy that never moves fails the attempt, and the reason is in its state.
        last = time.monotonic()
        problem, patience = '', time.monotonic() + _PATIENCE
        newest, went_on = self.seen.now, time.monotonic()
        while not self.seen.over():
            self._spin(alive)
            if self.seen.now > newest:
                newest, went_on = self.seen.now, time.monotonic()
            elif time.monotonic() - went_on > _PATIENCE:
                raise AttemptError(f'the simulated arm has published nothing for {_PATIENCE:g} s')
            if time.monotonic() - last > 0.2:
                last = time.monotonic()
                show(self.seen)
            if not self.seen.moves:
                self._check_complaints()
                if time.monotonic() > patience:
                    problem = self._policy_state
                    break
        self._call(self._stop, Trigger.Request(), alive)
        self._until(lambda: self._waiting(), alive, 'the end of the attempt')
        self._open = False
        outcome = self._outcome()
        unlabelled = self._tell_recorder(bool(outcome['success']), alive)
        problem = '; '.join(filter(None, (problem, unlabelled)))
        return {'seed': seed, 'problem': problem, **outcome,
                'withheld': {name: count - before.get(name, 0)
                             for name, count in sorted(self._withheld.items())
                             if count > before.get(name, 0)},
                'real_time_factor': round(min(self._factors), 3) if self._factors else None,
                'wall_s': round(time.monotonic() - wall, 2)}

    def _tell_recorder(self, success: bool, alive: Callable[[], None]) -> str:
        """
        Label the attempt, if it is recorded; that ends before the next scene is set up.

        :returns: why it has no label; '': it has one, or is not recorded.
        """
        if self._label is None:
            return ''
        if self._episode is None:
            return 'not labelled: the policy has decided on nothing'
        begun = self._call(self._next_episode, StartEpisode.Request(), alive)
        self._newest_episode = max(self._newest_episode, stamp_to_ns(begun.episode_id))
        request = LabelEpisode.Request(
            outcome=LabelEpisode.Request.OUTCOME_SUCCESS if success
            else LabelEpisode.Request.OUTCOME_FAILURE, by='human:simulation')
        request.episode_id = ns_to_stamp(self._episode)
        if success:
            request.success_time = ns_to_stamp(self.seen.accomplished)
        # What is recorded waits for two seconds before it is written.
        end = time.monotonic() + _LABEL_S
        answer = self._call(self._label, request, alive)
        while not answer.accepted and time.monotonic() < end:
            self._spin(alive)
            answer = self._call(self._label, request, alive)
        return '' if answer.accepted else f'not labelled: {answer.message}'

    def _outcome(self) -> dict[str, Any]:
        """Count what was seen."""
        seen, since = self.seen, self._since
        begin = seen.moves[0] if seen.moves else 0

        def seconds(stamp: int) -> float:
            return round((stamp - since) * 1e-9, 3)

        there = seen.accomplished
        success = bool(there and begin and there - begin <= seen.limit_ns)
        waited = []
        for pixels, decided in seen.chunks:
            after = bisect_right(seen.moves, decided - 1)
            if after < len(seen.moves) and pixels in seen.shown:
                waited.append(round((seen.came[after] - seen.shown[pixels]) * 1e-9, 4))
        ticks = [tick for tick in seen.ticks if tick[0] >= begin]
        return {
            'success': success, 'first_command_s': seconds(begin) if begin else None,
            'accomplished_s': seconds(there) if there else None,
            'decision': _DECIDED[seen.decided[1]] if seen.decided else '',
            'decided_s': seconds(seen.decided[0]) if seen.decided else None,
            'end_s': seconds(seen.now), 'limit_s': seen.limit_ns * 1e-9,
            'commands': len(seen.moves),
            'commands_on_old_embedding': seen.on_old_embedding(self._max_age),
            'chunks': len(seen.chunks), 'image_to_command_s': waited,
            'ticks': len(ticks),
            'out_of_distribution': sum(
                bool(status & Status.OUT_OF_DISTRIBUTION) for *_, status in ticks),
            'abstained': sum(decision == Decision.ABSTAIN for _, decision, _, _ in ticks)}

    # What comes in.

    def _on_truth(self, message: SceneState) -> None:
        stamp = stamp_to_ns(message.header.stamp)
        if self._open and (message.seed != self._scene or stamp < self._since):
            return
        self.seen.truths.append((stamp, bool(message.accomplished)))
        self.seen.limit_ns = stamp_to_ns(message.limit)

    def _on_twist(self, message: TwistStamped, info: MessageInfo) -> None:
        linear, angular = message.twist.linear, message.twist.angular
        stamp = stamp_to_ns(message.header.stamp)
        if self._open and stamp >= self._since and any(
                (linear.x, linear.y, linear.z, angular.x, angular.y, angular.z)):
            self.seen.moves.append(stamp)
            self.seen.sent.append(sent_at(info))
            self.seen.came.append(received_at(info))

    def _on_chunk(self, message: ActionChunk) -> None:
        episode = stamp_to_ns(message.episode_id)
        # One of the attempt before may come late.
        if self._open and episode > self._old_episode:
            self._episode = episode
            self.seen.chunks.append(
                (stamp_to_ns(message.header.stamp), stamp_to_ns(message.publish_time)))

    def _on_state(self, message: String) -> None:
        self._policy_state = message.data

    def _on_embedding(self, message: TaskEmbedding, info: MessageInfo) -> None:
        self._newest_episode = max(self._newest_episode, stamp_to_ns(message.episode_id))
        if self._open:
            # The nodes' clocks are as far apart as /clock takes to each of them: by those a
            # command may seem to be sent before the embedding that it was decided on.
            self.seen.embeddings.append((sent_at(info), stamp_to_ns(message.header.stamp)))

    def _on_success(self, message: SuccessProbability) -> None:
        episode, stamp = stamp_to_ns(message.episode_id), stamp_to_ns(message.header.stamp)
        self._newest_episode = max(self._newest_episode, episode)
        if self._open and stamp >= self._since and episode > self._old_episode:
            self.seen.ticks.append((
                stamp, Decision(message.decision),
                float(message.probability) if message.probability_valid else math.nan,
                int(message.status)))

    def _on_image(self, view: str, data: bytes, info: MessageInfo) -> None:
        stamp = header_stamp(data)
        if view == VIEWS[0]:
            self.seen.shown.setdefault(stamp, received_at(info))
        if self._open and stamp >= self._since and stamp - self._kept[view] >= _KEEP_S * 1e9:
            self._kept[view] = stamp
            self.seen.recorded.append((stamp, view, bytes(data)))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.level in (ERROR, WARN):
                self._complaints[status.name] = status.level, status.message
            else:
                self._complaints.pop(status.name, None)
            for pair in status.values:
                if status.name == '/policy: commands' and pair.key.startswith('withheld_'):
                    self._withheld[pair.key.removeprefix('withheld_')] = int(pair.value)
                elif status.name == '/recorder: recording' and pair.key.startswith('images_'):
                    self._recorded[pair.key.removeprefix('images_')] = int(pair.value)
                elif status.name == '/arm_sim: simulation' and pair.key == 'real_time_factor' \
                        and math.isfinite(float(pair.value)):
                    self._factors.append(float(pair.value))

    # Waiting.

    def _check_complaints(self) -> None:
        """
        See that nothing is wrong that stays as it is.

        :raises AttemptError: a node cannot be configured, or the policy cannot be given what the
            encoder publishes.
        """
        for name in ('/encoder: model', '/policy: policy'):
            if self._complaints.get(name, (WARN, ''))[0] == ERROR:
                raise AttemptError(f'{name.lstrip("/")}: {self._complaints[name][1]}')

    def _waiting(self) -> bool:
        return self._policy_state.startswith(WAITING)

    def _spin(self, alive: Callable[[], None]) -> None:
        alive()
        self._executor.spin_once(timeout_sec=0.1)

    def _until(self, condition: Callable[[], Any], alive: Callable[[], None], what: str) -> None:
        end = time.monotonic() + _PATIENCE
        while not condition():
            self._spin(alive)
            if time.monotonic() > end:
                raise AttemptError('. '.join((
                    f'{what} did not come in {_PATIENCE:g} s',
                    f'The policy: {self._policy_state or "says nothing"}',
                    *(f'{name.lstrip("/")}: {text}'
                      for name, (_, text) in self._complaints.items()))))

    def _call(self, client: Any, request: Any, alive: Callable[[], None]) -> Any:
        """Call a service; a server that has not discovered the client yet is asked again."""
        self._until(client.service_is_ready, alive, client.srv_name)
        futures, asked = [client.call_async(request)], time.monotonic()

        def answered() -> bool:
            nonlocal asked
            if time.monotonic() - asked > _AGAIN_S:
                futures.append(client.call_async(request))
                asked = time.monotonic()
            return any(future.done() for future in futures)

        self._until(answered, alive, f'the answer of {client.srv_name}')
        return next(future.result() for future in futures if future.done())

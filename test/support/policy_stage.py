# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A policy node under test: what it sends is kept, and the robot around it is played."""

from array import array
from pathlib import Path
from typing import Any

from builtin_interfaces.msg import Time
from geometry_msgs.msg import TwistStamped
from hralign_msgs.msg import ActionChunk, EncoderInfo, SuccessProbability, TaskEmbedding
from hralign_msgs.srv import SetTask
from hralign_ros.nodes import conversions
from hralign_ros.runtime import Encoder
from lifecycle_msgs.srv import ChangeState, GetState
import numpy as np
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger
from support.harness import Harness, NodeProcess, stamp_of
from support.tiny_bundle import robot_bundle
from support.tiny_policy import TASK, write_tiny_policy

SECOND = 1_000_000_000
PARTS = ('keypoints', 'spatial')
VIEWS = ('third_person', 'wrist')
ACTIONS = [{'name': 'tool.dx', 'unit': 'm'}, {'name': 'gripper', 'unit': '-1 open, 1 closed'}]
PROPRIO = [{'name': f'joint_{i}', 'unit': 'rad'} for i in range(3)]
JOINTS = tuple(one['name'] for one in PROPRIO)
_MANY = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
_LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                      durability=DurabilityPolicy.TRANSIENT_LOCAL)


def write_robot_policy(folder: Path, bundle: Path | None = None, **values: Any) -> Path:
    """Write a policy for a bundle, the tiny one by default, that moves a tool and a gripper."""
    encoder = Encoder.load(bundle or robot_bundle(), provider='cpu', threads=1)
    return write_tiny_policy(folder, encoder, PARTS, VIEWS,
                             **{'actions': ACTIONS, 'proprio': PROPRIO, **values})


class Arm:
    """What a policy node sends, and joint states that come all the time while the test spins."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.process: NodeProcess | None = None
        self.twists: list[TwistStamped] = []
        self.grips: list[Float64] = []
        self.chunks: list[ActionChunk] = []
        self.states: list[str] = []
        # Names in the joint states; empty: none come.
        self.names: tuple[str, ...] = JOINTS
        self._joints = harness.node.create_publisher(JointState, '/joint_states', _MANY)
        for kind, topic, take, qos in (
                (TwistStamped, 'twist', self.twists.append, _MANY),
                (Float64, 'gripper', self.grips.append, _MANY),
                (ActionChunk, 'chunk', self.chunks.append, _MANY),
                (String, 'state', lambda message: self.states.append(message.data), _LATCHED)):
            harness.node.create_subscription(kind, f'/policy/{topic}', take, qos)
        harness.node.create_timer(0.02, self.feel)

    def feel(self) -> None:
        """Send joint states."""
        if self.names:
            message = JointState(name=self.names, position=[1.0] * len(self.names))
            message.header.stamp = time_of(self.harness.now())
            self._joints.publish(message)

    def start(self, policy: Path, **parameters: str) -> NodeProcess:
        """Start a policy node."""
        self.process = self.harness.start('policy', policy=str(policy), **parameters)
        return self.process

    def start_active(self, policy: Path, **parameters: str) -> NodeProcess:
        """Start a policy node and wait until it is active."""
        process = self.start(policy, autostart='true', **parameters)
        self.wait_state(('waiting', 'starting', 'acting', 'hold'))
        return process

    @property
    def state(self) -> str:
        """Tell what the node says that it does."""
        return self.states[-1] if self.states else ''

    def wait_state(self, words: str | tuple[str, ...]) -> str:
        """Wait until the node says that it does this; give all that it says."""
        return str(self.harness.wait(
            lambda: self.state if self.state.startswith(words) else '', f'{words}',
            self.process))

    def call(self, service: str) -> Trigger.Response:
        """Call ~/start or ~/stop."""
        return self.harness.call(Trigger, f'/policy/{service}', Trigger.Request(), once=True)

    def moves(self) -> list[TwistStamped]:
        """List the commands that move something."""
        return [one for one in self.twists if one.twist.linear.x]

    def wait_moves(self, count: int = 3) -> int:
        """Wait until there are so many more commands that move; give how many there are."""
        enough = len(self.moves()) + count
        self.harness.wait(lambda: len(self.moves()) >= enough, f'{count} commands', self.process)
        return len(self.moves())

    def wait_stop(self) -> None:
        """Wait until the newest command is the one after which nothing moves."""
        self.harness.wait(lambda: self.twists and not self.twists[-1].twist.linear.x, 'a stop',
                          self.process)

    def last_move(self) -> int:
        """Tell when the newest command that moves something was sent [ns]."""
        return stamp_of(self.moves()[-1])

    def values(self, status: str = 'commands') -> dict[str, str]:
        """Read the values of the newest diagnostics."""
        return {pair.key: pair.value
                for pair in self.harness.statuses[f'/policy: {status}'].values}

    def wait_error(self, status: str, words: str) -> str:
        """Wait for an ERROR with these words in diagnostics."""
        def told() -> str:
            found = self.harness.statuses[f'/policy: {status}']
            return found.message if found.level == found.ERROR and words in found.message else ''

        return str(self.harness.wait(told, words, self.process))

    def lifecycle(self) -> str:
        """Ask the node for its lifecycle state."""
        return str(self.harness.call(GetState, '/policy/get_state', GetState.Request())
                   .current_state.label)

    def transition(self, number: int) -> bool:
        """Ask the node for a transition."""
        request = ChangeState.Request()
        request.transition.id = number
        return bool(self.harness.call(
            ChangeState, '/policy/change_state', request, once=True).success)


class Stage(Arm):
    """A policy node, and an encoder that the test plays: one embedding in 20 ms while it spins."""

    def __init__(self, harness: Harness) -> None:
        super().__init__(harness)
        node = harness.node
        self.encoder = Encoder.load(robot_bundle(), provider='cpu', threads=1)
        self._embedding = node.create_publisher(TaskEmbedding, '/encoder/embedding', _MANY)
        self._success = node.create_publisher(SuccessProbability, '/encoder/success', _MANY)
        self._info = node.create_publisher(EncoderInfo, '/encoder/info', _LATCHED)
        node.create_service(SetTask, '/encoder/set_task', self._on_set_task)
        self.alive = True
        self.refuses = ''
        self.asked: list[str] = []
        self.episode, self.task = harness.now(), ''
        self.decision = SuccessProbability.DECISION_ABSTAIN
        # Fields of the embedding that are not as they should be.
        self.changes: dict[str, Any] = {}
        # Stamps of the embeddings that were sent [ns].
        self.sent: list[int] = []
        self.inform()
        node.create_timer(0.02, self.see)

    def inform(self, **changes: Any) -> None:
        """Say what the embeddings consist of."""
        message = conversions.info_message(self.encoder, warm_up=0.0, version='test')
        for name, value in changes.items():
            setattr(message, name, value)
        self._info.publish(message)

    def _on_set_task(
        self, request: SetTask.Request, response: SetTask.Response,
    ) -> SetTask.Response:
        self.asked.append(request.task)
        response.message = self.refuses
        response.accepted = not self.refuses
        if response.accepted:
            self.begin(request.task)
        response.episode_id, response.task = time_of(self.episode), self.task
        return response

    def begin(self, task: str = TASK) -> None:
        """Begin an episode."""
        self.episode, self.task = self.harness.now(), task
        self.decision = SuccessProbability.DECISION_ABSTAIN

    def see(self) -> None:
        """Send an embedding of now, and the decision."""
        if not self.alive:
            return
        views, parts = self.encoder.manifest.views, self.encoder.parts
        dim = parts[-1].offset + parts[-1].size
        now = self.harness.now()
        common = {'episode_id': time_of(self.episode), 'task': self.task,
                  'bundle_sha256': self.encoder.bundle.sha256, 'view_names': list(views),
                  'view_valid': [True] * len(views), 'view_stamps': [time_of(now)] * len(views)}
        message = TaskEmbedding(**{
            **common, 'dim': dim, 'part_names': [part.name for part in parts],
            'part_offsets': array('I', [part.offset for part in parts]),
            'configuration_id': time_of(self.encoder.configuration_id),
            'embedding_sha256': self.encoder.identity.sha256,
            'instruction_sha256': self.encoder.text.encode(self.task).instruction_sha256,
            'data': array('f', np.ones(len(views) * dim, np.float32).tobytes()),
            **self.changes})
        success = SuccessProbability(**common, decision=self.decision)
        for one in (message, success):
            one.header.stamp = time_of(now)
        self.sent.append(now)
        self._embedding.publish(message)
        self._success.publish(success)


def time_of(nanoseconds: int) -> Time:
    """Make a stamp."""
    return conversions.ns_to_stamp(nanoseconds)

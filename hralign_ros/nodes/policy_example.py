# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What a policy has to do with embeddings, and no more: copy this and put your policy in.

A policy takes the newest embedding, checks which views are in it, compares its own clock with the
acquisition stamp of each, and holds the robot still when either does not suffice.
"""

import sys

from builtin_interfaces.msg import Time as TimeMessage
from hralign_ros.nodes.interfaces import SuccessProbability, TaskEmbedding
from hralign_ros.nodes.parameters import declared, Parameter
from hralign_ros.nodes.process import run_node
import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from std_msgs.msg import String

PARAMETERS = (
    Parameter('rate_hz', 10.0, 'Control rate.', 0.1, 1000.0),
    Parameter('max_age_s', 0.2, 'Hold when the newest embedding is older [s].', 0.001, 10.0),
    # After a cleanup or a restart the encoder has the task of its launch file again.
    Parameter('task', '',
              'Hold while the encoder works on another instruction; empty: act on any.'),
    # Its own parameter embedding_parts says which ones the encoder publishes, and in which order.
    Parameter('parts', ['spatial', 'keypoints'],
              'Parts of the embedding that the policy takes; hold while there is none of a name.'),
)


class PolicyExample(Node):
    """
    Act on fresh embeddings, hold otherwise; what it does is published on ~/state.

    Subscribes to encoder/embedding and encoder/success; remap them as the encoder is named.
    """

    def __init__(self) -> None:
        super().__init__('policy_example')
        values = declared(self, PARAMETERS)
        self._max_age, self._task = values['max_age_s'], values['task']
        self._parts: list[str] = values['parts']
        self._newest: TaskEmbedding | None = None
        # The episode that has ended last, and how.
        self._ended: tuple[TimeMessage | None, str] = (None, '')
        self._space = ''
        self._state = ''
        # Depth 1: only the newest counts, and a queue would only make it older.
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self.create_subscription(TaskEmbedding, 'encoder/embedding', self._on_embedding, qos)
        self.create_subscription(SuccessProbability, 'encoder/success', self._on_success, qos)
        self._publisher = self.create_publisher(String, '~/state', qos)
        self.create_timer(1.0 / values['rate_hz'], self._control)

    def _on_embedding(self, message: TaskEmbedding) -> None:
        self._newest = message

    def _on_success(self, message: SuccessProbability) -> None:
        ends = {message.DECISION_SUCCESS: 'the task is accomplished',
                message.DECISION_FAILURE: 'the attempt has failed'}
        if message.decision in ends:
            self._ended = message.episode_id, ends[message.decision]

    def _why_hold(self) -> str:
        """Say why not to act; empty: act."""
        message = self._newest
        if message is None:
            return 'no embedding has come'
        missing = [name for name, valid in zip(
            message.view_names, message.view_valid, strict=True) if not valid]
        if missing:
            return f'without {", ".join(missing)}'
        # The acquisition stamps, and not the time of publication: what counts is how old the
        # pixels are that the robot would act on. Of every view: while one camera goes on, the
        # encoder keeps the last frame of another for max_age_s.
        now = self.get_clock().now()
        ages = [(now - Time.from_msg(stamp)).nanoseconds * 1e-9 for stamp in message.view_stamps]
        if max(ages) > self._max_age:
            return f'the newest embedding is older than {self._max_age:g} s'
        # Of a clock that was set back: else it would count as young for as long as that.
        if min(ages) < -self._max_age:
            return f'the newest embedding is {-min(ages):.1f} s ahead of the clock'
        if message.status & message.STATUS_NO_TASK:
            return 'no task is set'
        if self._task and message.task != self._task:
            return f"the encoder works on another instruction: '{message.task}'"
        lacking = [name for name in self._parts if name not in message.part_names]
        if lacking:
            return (f'the embedding has no part {", ".join(lacking)}; name it in the parameter '
                    'embedding_parts of the encoder')
        if self._space and message.embedding_sha256 != self._space:
            return 'the bundle has changed: its embeddings are in another space'
        # An attempt that has ended stays so: while a camera is covered the decision is ABSTAIN.
        if message.episode_id == self._ended[0]:
            return self._ended[1]
        return ''

    def _control(self) -> None:
        why = self._why_hold()
        if not why and self._newest is not None:
            self._space = self._newest.embedding_sha256
            parts = parts_of(self._newest)
            self._act(np.concatenate([parts[name].ravel() for name in self._parts]))
        state = f'HOLD: {why}' if why else 'ACT'
        if state != self._state:
            self.get_logger().info(state)
        self._state = state
        self._publisher.publish(String(data=state))

    def _act(self, seen: np.ndarray) -> None:
        """
        Put your policy here.

        :param seen: float32 [numbers], the parts one after the other, each of all views. ~/info of
            the encoder has the shape of each part.
        """


def parts_of(message: TaskEmbedding) -> dict[str, np.ndarray]:
    """
    Slice the rows of an embedding into its parts, float32 [V, n] by name.

    By name and offset: so a policy finds its parts wherever they are in a row.
    """
    rows = np.frombuffer(message.data, np.float32).reshape(len(message.view_names), message.dim)
    ends = [*message.part_offsets[1:], message.dim]
    return {name: rows[:, start:end] for name, start, end in zip(
        message.part_names, message.part_offsets, ends, strict=True)}


def main(arguments: list[str] | None = None) -> int:
    """Run the node as a process."""
    return run_node('policy_example', PolicyExample, arguments)


if __name__ == '__main__':
    sys.exit(main())

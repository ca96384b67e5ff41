# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What the node publishes, once more in messages of std_msgs, for programs that know no others.

Lossy: such a message has no stamp, task, episode or status. So it says less, never more: nothing
is sent while a result is stale, invalid or abstains, and what was decided is taken back when the
episode is over. docs/how_to/mirrors.md has the table.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from hralign_ros.nodes.interfaces import SuccessProbability, TaskEmbedding
from hralign_ros.nodes.process import let_arrive
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool, Float32MultiArray, Float64, MultiArrayDimension, MultiArrayLayout

# Parameters that switch one on, and what they make.
_TOPICS: dict[str, tuple[type, str]] = {
    'embedding_array': (Float32MultiArray, '~/embedding/array'),
    'probability': (Float64, '~/success/probability'),
    'succeeded': (Bool, '~/success/succeeded'),
    'failed': (Bool, '~/success/failed'),
    'reward': (Float64, '~/reward'),
}
_LATCHED = ('succeeded', 'failed')
_RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
_KEPT = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                   durability=DurabilityPolicy.TRANSIENT_LOCAL)

Decide: TypeAlias = Callable[[int], bool]
_SAYS: dict[str, Decide] = {
    'succeeded': lambda decision: decision == SuccessProbability.DECISION_SUCCESS,
    'failed': lambda decision: decision == SuccessProbability.DECISION_FAILURE,
}


class Mirrors:
    """
    Publish the mirrors that are switched on.

    :param wanted: the node's parameters by name.
    :param make: makes a publisher of a type, under a name, with a QoS.
    """

    def __init__(
        self, wanted: Mapping[str, Any], make: Callable[[type, str, QoSProfile], Any],
    ) -> None:
        self.publishers: dict[str, Any] = {
            name: make(kind, topic, _KEPT if name in _LATCHED else _RELIABLE)
            for name, (kind, topic) in _TOPICS.items() if wanted[f'mirrors.{name}']}
        self._sparse = wanted['mirrors.reward_shaping'] == 'sparse'
        # Of this episode: the last progress that was rewarded; and the last reward in any.
        self._progress: float | None = None
        self._rewarded = 0.0

    def embedding(self, message: TaskEmbedding) -> None:
        """Mirror an embedding, unless a view is missing: its row would be zeros."""
        if 'embedding_array' in self.publishers and all(message.view_valid):
            self.publishers['embedding_array'].publish(array_of(message))

    def success(self, message: SuccessProbability) -> None:
        """Mirror a result."""
        decided = message.decision != SuccessProbability.DECISION_ABSTAIN
        if decided:
            self._decision(message.decision)
        # An instruction that is unknown is no reason where the node decides on it.
        if not decided and message.status & ~SuccessProbability.STATUS_VIEW_MISSING:
            return
        if 'probability' in self.publishers and message.probability_valid:
            self.publishers['probability'].publish(Float64(data=message.probability))
        if 'reward' in self.publishers:
            self._reward(message, decided)

    def clear(self) -> None:
        """Take back what was decided, as another episode begins or none is running."""
        self._decision(SuccessProbability.DECISION_RUNNING)
        self._progress = None
        if self._sparse and self._rewarded:
            self._rewarded = 0.0
            self.publishers['reward'].publish(Float64())

    def close(self) -> None:
        """Take back what was decided, and let that arrive: a publisher may go after this."""
        self.clear()
        let_arrive(self.publishers[name] for name in (*_LATCHED, 'reward')
                   if name in self.publishers)

    def _decision(self, decision: int) -> None:
        for name, says in _SAYS.items():
            if name in self.publishers:
                self.publishers[name].publish(Bool(data=says(decision)))

    def _reward(self, message: SuccessProbability, decided: bool) -> None:
        if self._sparse:
            if not decided:
                return
            self._rewarded = float(_SAYS['succeeded'](message.decision))
        else:
            if not message.progress_valid:
                return
            before, self._progress = self._progress, message.progress
            self._rewarded = 0.0 if before is None else message.progress - before
        self.publishers['reward'].publish(Float64(data=self._rewarded))


def array_of(message: TaskEmbedding) -> Float32MultiArray:
    """Write an embedding as an array of views and elements, without an offset."""
    views = len(message.view_names)
    return Float32MultiArray(
        layout=MultiArrayLayout(dim=[
            MultiArrayDimension(label='view', size=views, stride=views * message.dim),
            MultiArrayDimension(label='element', size=message.dim, stride=message.dim)]),
        data=message.data)


def any_wanted(wanted: Mapping[str, Any]) -> bool:
    """Whether a mirror is switched on that publishes."""
    return any(wanted[f'mirrors.{name}'] for name in _TOPICS)

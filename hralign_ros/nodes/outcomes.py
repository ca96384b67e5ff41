# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Tell programs that run episodes how one has ended: once, when it is decided.

A reward that stays at 1 ends an episode for who samples it. Who wants to be called is called here:
a service that takes True or False, and crisp_gym's recorder, which takes words.
"""

from collections.abc import Callable, Mapping
from typing import Any

from hralign_ros.nodes.interfaces import SuccessProbability
from rclpy.client import Client
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from std_msgs.msg import String
from std_srvs.srv import SetBool

# As crisp_gym names and reads it.
RECORDING_TOPIC = 'record_transition'
_WORDS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
_ENDS = (SuccessProbability.DECISION_SUCCESS, SuccessProbability.DECISION_FAILURE)


class Recording:
    """
    What a recorder of crisp_gym does, told from the words that everybody hears.

    One word means two things to it, `record`: begin, and end. So nobody may say it who does not
    know which one it would be.

    :ivar since: when the recording that runs began [ns]; None: none runs, or nobody knows.
    """

    def __init__(self) -> None:
        self.since: int | None = None
        self._paused = False

    def hear(self, word: str, now: int) -> None:
        """Take note of a word; those that mean nothing at the moment change nothing."""
        if word == 'record' and not self._paused:
            self._paused = self.since is not None
            self.since = now if self.since is None else None
        elif word in ('save', 'delete', 'exit'):
            # Whatever was taken for a beginning: nothing runs once one is saved or deleted.
            self.since, self._paused = None, False


def words_for(success: bool, wish: str) -> tuple[str, ...]:
    """
    Say what ends a recording.

    :param wish: of the parameter mirrors.recording. With `save` a failure is left to a person.
    """
    if success:
        return 'record', 'save'
    return ('record', 'delete') if wish == 'save_or_delete' else ('record',)


class Outcomes:
    """
    Tell others what is decided, once in an episode.

    :param node: that clients and the subscription belong to.
    :param wanted: the node's parameters by name.
    :param make: makes a publisher of a type, under a name, with a QoS.
    :param clock: system time [ns], as episodes are named by it.
    """

    def __init__(
        self, node: Node, wanted: Mapping[str, Any],
        make: Callable[[type, str, QoSProfile], Any], clock: Callable[[], int],
    ) -> None:
        self._node, self._clock = node, clock
        self._wish = wanted['mirrors.recording']
        self._told: tuple[int, int] | None = None
        self._recording = Recording()
        self.publishers: list[Any] = []
        self._subscription: Subscription | None = None
        self._client: Client | None = None
        if self._wish != 'off':
            self.publishers = [make(String, RECORDING_TOPIC, _WORDS)]
            # Its own words come back to it as everybody's do, in the order of the others.
            self._subscription = node.create_subscription(
                String, RECORDING_TOPIC, self._hear, _WORDS)
        if wanted['mirrors.outcome_service']:
            self._service = node.resolve_service_name(wanted['mirrors.outcome_service'])
            self._client = node.create_client(SetBool, wanted['mirrors.outcome_service'])

    def _hear(self, message: String) -> None:
        self._recording.hear(message.data, self._clock())

    def success(self, message: SuccessProbability) -> None:
        """Take a result; may run on another thread than the executor's."""
        episode = (message.episode_id.sec, message.episode_id.nanosec)
        if message.decision not in _ENDS or episode == self._told:
            return
        self._told = episode
        succeeded = message.decision == SuccessProbability.DECISION_SUCCESS
        began = self._recording.since
        # Of an episode that began before the recording, which is another attempt, it says nothing.
        if began is not None and episode[0] * 1_000_000_000 + episode[1] > began:
            for word in words_for(succeeded, self._wish):
                self.publishers[0].publish(String(data=word))
        if self._client is not None:
            self._call(succeeded)

    def _call(self, succeeded: bool) -> None:
        assert self._client is not None
        log = self._node.get_logger()
        said = f'{self._service} ({"success" if succeeded else "failure"})'
        if not self._client.service_is_ready():
            log.warning(f'{said}: nobody serves it; it is not asked again for this episode')
            return

        def answered(future: Any) -> None:
            if future.cancelled() or future.exception():
                log.warning(f'{said}: {future.exception() or "cancelled"}')
            elif not future.result().success:
                log.warning(f'{said}: refused: {future.result().message}')
            else:
                log.info(f'{said}: {future.result().message or "taken"}')

        self._client.call_async(SetBool.Request(data=succeeded)).add_done_callback(answered)

    def close(self) -> None:
        """Give back what was made on the node."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        if self._client is not None:
            self._node.destroy_client(self._client)
        self._subscription = self._client = None

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What can be wrong between nodes: QoS that does not meet, topics and names used twice."""

from typing import Any

from hralign_ros.runtime.faults import Faults
from rclpy.duration import Duration, Infinite
from rclpy.node import Node
from rclpy.qos import qos_check_compatible, qos_policy_name_from_kind, QoSCompatibility, QoSProfile

# Keys of faults; those of a view begin with its name.
QOS, PUBLISHERS = 'qos', 'publishers'
CONSUMER, NAME, TASK = 'consumer', 'node name', '~/task'

# Policies by the words that rmw explains them with.
_POLICIES = {'RELIABILITY': 'best effort', 'DURABILITY': 'volatile', 'DEADLINE': 'deadline',
             'LIVELINESS': 'liveliness'}


def disagreement(offered: QoSProfile, asked: QoSProfile) -> str:
    """
    Tell why a publisher and a subscription do not meet; empty if they do.

    :returns: such as 'RELIABILITY (best effort publisher and reliable subscription)'.
    """
    # A profile that leaves them open has 0 there; what the graph tells of it is infinite.
    open_ = {name: Infinite for name in ('deadline', 'liveliness_lease_duration')
             if getattr(offered, name) == Duration()}
    if open_:
        offered = QoSProfile(**{slot.lstrip('_'): getattr(offered, slot)
                                for slot in QoSProfile.__slots__} | open_)
    compatibility, reasons = qos_check_compatible(offered, asked)
    if compatibility != QoSCompatibility.ERROR:
        return ''
    # Each reason begins with its level and ends with a semicolon; several follow each other.
    told = [reason.removeprefix('ERROR: ').lower() for reason in reasons.split(';')
            if reason.startswith('ERROR')]
    return ', '.join(
        ' '.join([*(name for name, words in _POLICIES.items() if words in reason), f'({reason})'])
        for reason in told)


def policy_of(event: Any) -> str:
    """Name the policy by which a publisher and a subscription do not meet, from rclpy's event."""
    return str(qos_policy_name_from_kind(event.last_policy_kind))


class Network:
    """
    Check the graph around a node. Faults begin by events or at a check, and end at a check.

    :ivar topics: resolved image topic by view.
    """

    def __init__(self, node: Node, faults: Faults) -> None:
        self._node, self._faults = node, faults
        self.topics: dict[str, str] = {}
        self._asked: dict[str, QoSProfile] = {}
        self._offered: dict[str, QoSProfile] = {}
        # How many times in a row a view was seen to have several publishers.
        self._several: dict[str, int] = {}

    def listen(self, view: str, topic: str, qos: QoSProfile) -> None:
        """Note how a view is subscribed to."""
        self.topics[view], self._asked[view] = topic, qos

    def offer(self, topic: str, qos: QoSProfile) -> None:
        """Note how a topic is published."""
        self._offered[topic] = qos

    def forget(self) -> None:
        """Forget all of them."""
        for noted in (self.topics, self._asked, self._offered, self._several):
            noted.clear()

    def unheard(self, view: str, policy: str) -> None:
        """Note by which policy a camera and its subscription do not meet; empty: they do."""
        self._faults.note(f'{view} {QOS}', policy and (
            f'a publisher on {self.topics[view]} offers an incompatible {policy}; nothing is '
            f'received from it. Set {view}.reliability to best_effort, or change the camera '
            'driver'))

    def refused(self, topic: str, policy: str) -> None:
        """Note by which policy a consumer asks for more than is offered; empty: none does."""
        self._faults.note(f'{CONSUMER} {topic}', policy and (
            f'a subscriber on {topic} asks for an incompatible {policy} and receives nothing; it '
            'is offered RELIABILITY reliable, DURABILITY '
            f'{self._offered[topic].durability.name.lower().replace("_", " ")}, and no DEADLINE '
            'or LIVELINESS'))

    def check(self) -> None:
        """Check the graph: end the faults that are over, and find what is there twice."""
        for view, topic in self.topics.items():
            publishers = self._node.get_publishers_info_by_topic(topic)
            self.unheard(view, next(filter(None, (
                disagreement(p.qos_profile, self._asked[view]) for p in publishers)), ''))
            # Twice in a row: of a driver that restarts, two are seen for a moment.
            self._several[view] = self._several.get(view, 0) + 1 if len(publishers) > 1 else 0
            if self._several[view] > 1:
                names = ', '.join(sorted(f'{p.node_namespace}/{p.node_name}'.replace('//', '/')
                                         for p in publishers))
                self._faults.bad(f'{view} {PUBLISHERS}', (
                    f'{len(publishers)} publishers on {topic} ({names}): their frames mix; stop '
                    'all but one, or remap'))
            elif not self._several[view]:
                self._faults.good(f'{view} {PUBLISHERS}')
        for topic, qos in self._offered.items():
            self.refused(topic, next(filter(None, (
                disagreement(qos, subscriber.qos_profile)
                for subscriber in self._node.get_subscriptions_info_by_topic(topic))), ''))
        own = (self._node.get_name(), self._node.get_namespace())
        same = self._node.get_node_names_and_namespaces().count(own)
        self._faults.note(NAME, '' if same < 2 else (
            f'{same} nodes are called {self._node.get_fully_qualified_name()}: their topics '
            'and services mix; stop all but one, or give each a name or namespace'))

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Why a publisher and a subscription do not meet: policies named, reasons told."""

from hralign_ros.nodes.network import disagreement
import pytest
from rclpy.duration import Duration, Infinite
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

BEST_EFFORT = {'reliability': ReliabilityPolicy.BEST_EFFORT}
# What the graph tells of a profile that leaves these open.
OPEN = {'deadline': Infinite, 'liveliness_lease_duration': Infinite,
        'liveliness': LivelinessPolicy.AUTOMATIC}
LATCHED = {'durability': DurabilityPolicy.TRANSIENT_LOCAL}


@pytest.mark.parametrize(('offered', 'asked', 'named'), [
    (BEST_EFFORT, {}, ['RELIABILITY']),
    ({}, LATCHED, ['DURABILITY']),
    (BEST_EFFORT, LATCHED, ['RELIABILITY', 'DURABILITY']),
    ({}, {'deadline': Duration(seconds=1)}, ['DEADLINE']),
    ({'deadline': Duration(seconds=2)}, {'deadline': Duration(seconds=1)}, ['DEADLINE']),
    ({'liveliness': LivelinessPolicy.AUTOMATIC},
     {'liveliness': LivelinessPolicy.MANUAL_BY_TOPIC}, ['LIVELINESS']),
    ({}, {'liveliness_lease_duration': Duration(seconds=1)}, ['LIVELINESS']),
])
def test_policies_are_named(offered, asked, named) -> None:
    """
    Guards the look at the graph, which knew reliability and durability alone.

    A deadline that was not offered was told by its event and taken back a second later.
    """
    told = disagreement(QoSProfile(depth=1, **offered), QoSProfile(depth=1, **asked))
    assert [word for word in told.replace('(', ' ').split() if word.isupper()] == named
    assert told.count('(') == len(named)


@pytest.mark.parametrize(('offered', 'asked'), [
    ({}, {}), ({}, OPEN), (OPEN, {}), ({}, BEST_EFFORT), (LATCHED, {}), (LATCHED, LATCHED),
    ({'deadline': Duration(seconds=1)}, {'deadline': Duration(seconds=2)}),
])
def test_those_that_meet(offered, asked) -> None:
    """Guards against a false alarm where the offer is as good or better."""
    assert disagreement(QoSProfile(depth=1, **offered), QoSProfile(depth=1, **asked)) == ''

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Other programs' parsers read all fields and constants of all messages.

PlotJuggler read none once: it took `string<=64[<=8]` for one string. It and Foxglove are asked by
`python -m benchmarks.ecosystem.parsers`; those that come from an index are asked here.
"""

import pytest

pytest.importorskip('mcap', reason='mcap is not installed')
messages = pytest.importorskip('benchmarks.ecosystem.messages')
parsers = pytest.importorskip('benchmarks.ecosystem.parsers')


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    return messages.write_bag(tmp_path_factory.mktemp('bags'), 'samples')


def test_every_field_has_a_value_of_its_own():
    """Else a reader that takes one field for another would go unnoticed."""
    kinds = {sample.kind.partition('/')[2] for sample in messages.samples()}
    assert kinds == {
        'action/WaitForSuccess_FeedbackMessage', 'msg/ActionChunk', 'msg/EmbeddingPart',
        'msg/EncoderInfo', 'msg/SceneState', 'msg/SuccessProbability', 'msg/TaskEmbedding',
        'msg/TaskInfo'}
    for sample in messages.samples():
        values = [value for value in sample.values.values() if not isinstance(value, bool)]
        assert len(set(values)) == len(values) > 5, sample.kind


def test_rosbags(bag):
    pytest.importorskip('rosbags', reason='rosbags is not installed')
    read = parsers.read_by_rosbags(bag)
    assert {sample.kind: parsers.faults(sample, read[sample.topic])
            for sample in messages.samples()} == {
        sample.kind: [] for sample in messages.samples()}


def test_mcap_ros2_support(bag):
    """It takes no name with an underscore, which the feedback of every action has."""
    pytest.importorskip('mcap_ros2', reason='mcap-ros2-support is not installed')
    read = parsers.read_by_mcap_ros2(bag)
    for sample in messages.samples():
        faults = parsers.faults(sample, read[sample.topic])
        if sample.kind.endswith('_FeedbackMessage'):
            assert len(faults) < 2 and all('is an invalid message name' in one for one in faults)
        else:
            assert faults == [], sample.kind


def test_a_reader_that_is_wrong(bag):
    """Guards the check itself: another number, a field too many, a constant too few."""
    sample, = (one for one in messages.samples() if one.kind.endswith('/SuccessProbability'))
    good = parsers.Read(dict(sample.values), dict(sample.constants))
    assert parsers.faults(sample, good) == []
    bad = parsers.Read({**sample.values, 'probability': 0.0, 'more': 1}, {
        name: value for name, value in sample.constants.items() if name != 'DECISION_SUCCESS'})
    assert [one.partition(':')[0] for one in parsers.faults(sample, bad)] == [
        'more', 'probability', 'DECISION_SUCCESS']
    assert parsers.faults(sample, None) == ['it was not read']

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Instructions and parameters that come too often, too long, or do not fit together."""

import time

from hralign_msgs.srv import SetTask
import pytest
from support.harness import episode_of, Harness, published
from support.robot import BOTH, Robot, Row, SECOND, TASK


def test_the_task_changes_ten_times_a_second(robot: Robot, rows: list[Row]) -> None:
    """Every change is accepted, each begins an episode, and every result says its own task."""
    robot.steady()
    harness = robot.harness
    client = harness.node.create_client(SetTask, '/encoder/set_task')
    robot.wait(client.service_is_ready, 'the service')
    tasks = ('close the drawer', 'open the window', 'push the puck', TASK)
    tasks_of: dict[int, str] = {}
    for i in range(31):
        ended = harness.now()
        answer = client.call_async(SetTask.Request(task=TASK if i == 30 else tasks[i % 4]))
        robot.wait(answer.done, 'the answer')
        assert answer.result().accepted
        tasks_of[episode_of(answer.result())] = answer.result().task
        robot.spin(max(0.0, 0.1 - (harness.now() - ended) / SECOND))
    harness.node.destroy_client(client)
    assert len(tasks_of) == 31
    robot.wait(lambda: robot.sees(BOTH, ended), 'results of the last task')
    for message in harness.embeddings:
        assert tasks_of.get(episode_of(message), message.task) == message.task
    rows.append(Row('the task changes ten times a second', 'begins an episode each time', '',
                    (published(robot.embedding) - ended) / SECOND))
    robot.steady()


REQUESTS = {
    'an empty task': ('', True), 'a task of 512 letters': ('x' * 512, True),
    'a task of 100,000 letters': ('y' * 100_000, False),
    'a task in Chinese and emoji': ('打开抽屉 🤖', True),
    'a task with control characters': ('open\x00the\x07drawer', False),
}


@pytest.mark.parametrize('name', REQUESTS)
def test_unusual_task(robot: Robot, rows: list[Row], name: str) -> None:
    """What cannot be used is refused with the reason and changes nothing; the rest is taken."""
    task, accepted = REQUESTS[name]
    if '\x00' in task:
        # A NUL ends a string on the wire; the rest of the characters are what can come.
        task = task.replace('\x00', '\x01')
    robot.steady()
    before = episode_of(robot.embedding)
    answer = robot.harness.set_task(task)
    assert answer.accepted is accepted, answer.message
    now = robot.harness.now()
    robot.wait(lambda: robot.sees(BOTH, now), 'results')
    assert robot.embedding.task == (task if accepted else TASK)
    if accepted:
        assert robot.harness.set_task(TASK).accepted
    else:
        assert episode_of(robot.embedding) == before
    rows.append(Row(name, 'begins an episode' if accepted else 'refuses, and continues as before',
                    f'answer: {answer.message}'[:120]))


def test_parameters_that_do_not_fit_together(robot: Robot, rows: list[Row]) -> None:
    """Each value is legal; together they are refused, all of them, with the reason."""
    robot.steady()
    refused = robot.harness.set_parameters(max_age_s=0.2, max_wait_s=0.3)
    assert not refused.successful and 'max_wait_s' in refused.reason
    now = robot.harness.now()
    robot.wait(lambda: robot.sees(BOTH, now), 'results')
    rows.append(Row('parameters, each legal, that do not fit together',
                    'refuses all of them, and continues as before', f'answer: {refused.reason}'))


def test_parameters_of_wrong_types_and_ranges(robot: Robot, rows: list[Row]) -> None:
    """A wrong type, NaN, a value out of range, one of no choice, a read-only one: all refused."""
    robot.steady()
    reasons = []
    for values in ({'max_age_s': 'much'}, {'max_age_s': float('nan')}, {'alpha': 2.0},
                   {'pairing': 'somehow'}, {'bundle': '/nowhere'}, {'dwell_s': float('inf')}):
        answer = robot.harness.set_parameters(**values)
        assert not answer.successful, values
        reasons.append(answer.reason)
    assert all(reasons)
    now = robot.harness.now()
    robot.wait(lambda: robot.sees(BOTH, now), 'results')
    rows.append(Row('parameters of wrong types, NaN, out of range, read-only',
                    'refuses each, and continues as before', f'answer: {reasons[3]}'))


def test_rules_change_a_hundred_times(robot: Robot, rows: list[Row]) -> None:
    """Pairing and decision rules change while frames are in flight; results go on."""
    robot.steady()
    began = time.monotonic()
    for i in range(100):
        assert robot.harness.set_parameters(
            pairing=('latest', 'approximate')[i % 2], dwell_s=0.3 + 0.002 * i).successful
    ended = robot.harness.now()
    assert robot.harness.set_parameters(pairing='approximate', dwell_s=0.3).successful
    robot.wait(lambda: robot.sees(BOTH, ended), 'results')
    rate = 100 / (time.monotonic() - began)
    rows.append(Row('rules change a hundred times in a row', 'continues with both views',
                    f'log: none ({rate:.0f} changes/s)',
                    (published(robot.embedding) - ended) / SECOND))


def test_a_parameter_file_for_another_node(harness: Harness, rows: list[Row]) -> None:
    """A text for a number ends the start with one sentence."""
    process = harness.start(max_age_s='much')
    assert process.wait() == 1
    assert 'max_age_s' in process.output and 'Traceback' not in process.output
    rows.append(Row('a text where a parameter is a number', 'ends with code 1',
                    process.output.strip().splitlines()[-1][:160]))

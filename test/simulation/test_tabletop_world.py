# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The table in the simulator: experts succeed, mistakes fail, a seed is always the same."""

import pytest

pytest.importorskip('mujoco', reason='the simulators are not installed')
pytest.importorskip('robosuite', reason='the simulators are not installed')

from hralign_ros.data.manifest import DataError, Episode  # noqa: E402, I100
from hralign_ros.simulation.behaviour import EXPERT  # noqa: E402, I100
from hralign_ros.simulation.lab_conduct import Conduct  # noqa: E402, I100
from hralign_ros.simulation.tabletop import describe, simulate_tabletop  # noqa: E402, I100
from hralign_ros.simulation.tabletop_goals import accomplished  # noqa: E402, I100
from hralign_ros.simulation.tabletop_scene import mistakes  # noqa: E402, I100
from hralign_ros.simulation.tabletop_tasks import (  # noqa: E402, I100
    FAMILIES,
    find_instructions,
    instructions,
)
from hralign_ros.simulation.tabletop_world import Tabletop  # noqa: E402, I100
import numpy as np  # noqa: E402, I100

INTO = 'put the blue block into the grey crate'


@pytest.fixture(scope='module')
def table():
    """Make one table, which takes a second."""
    return Tabletop(find_instructions((INTO,))[0], 'panda', 0)


@pytest.mark.parametrize('family', FAMILIES)
def test_an_expert_succeeds(family):
    """Guards scenes, plans and labels: what an expert does is accomplished, and stays so."""
    instruction = next(i for i in instructions() if i.goal.family == family)
    world = Tabletop(instruction, 'panda', 0)
    attempt = world.attempt(0, True, hz=5.0)
    assert attempt is not None and f'family:{family}' in attempt.tags
    trajectory = attempt.trajectory
    assert not trajectory.success[0] and all(trajectory.success[trajectory.success_frame:])
    assert accomplished(instruction.goal, world, True)
    assert len(trajectory.actions) == len(trajectory.time_s)
    assert {action.shape for action in trajectory.actions} == {(7,)}


def test_the_same_seed_is_the_same_attempt(table):
    """Guards resuming: an attempt is a function of its seed, whatever was done before it."""
    first = table.attempt(3, True, hz=5.0)
    table.attempt(4, False, hz=5.0)
    again = table.attempt(3, True, hz=5.0)
    fresh = Tabletop(find_instructions((INTO,))[0], 'panda', 0).attempt(3, True, hz=5.0)
    for other in (again, fresh):
        assert (other.kind, other.tags) == (first.kind, first.tags)
        assert len(other.trajectory.shots) == len(first.trajectory.shots)
        for one, two in zip(other.trajectory.shots, first.trajectory.shots, strict=True):
            np.testing.assert_array_equal(one.qpos, two.qpos)


@pytest.mark.parametrize('kind', ['wrong_object', 'wrong_place', 'wrong_relation'])
def test_a_mistake_is_done_well_and_is_a_failure(table, kind):
    """Guards the labels that only language tells: another goal is accomplished, not this one."""
    for meant in mistakes(table.goal, table.scene)[kind]:
        for take in range(4):
            trajectory = table.roll(1, Conduct(EXPERT), meant, take)
            if trajectory is not None and accomplished(meant, table):
                assert trajectory.success_frame is None
                return
    pytest.fail(f'no {kind} could be done')


def test_failures_say_why(table):
    """Guards tags: of a failure one reads how and why it came about."""
    for seed in range(3):
        attempt = table.attempt(seed, False, hz=5.0)
        assert attempt is not None and attempt.trajectory.success_frame is None
        cause = 'language' if attempt.kind.startswith('wrong') else 'motion'
        assert f'cause:{cause}' in attempt.tags
        assert any(tag.startswith('done:') for tag in attempt.tags) == (cause == 'language')


def test_a_set_says_how_its_expert_does():
    """Guards the summary: the first try counts, by family and arm, and failures by kind."""
    def episode(number, success, tags, failure=''):
        return Episode(str(number), 'a', 'a', 'train-000', '', 'panda', 'robosuite', 'MIT',
                       success=success, failure=failure, tags=tags)

    assert describe([
        episode(0, True, ['family:into', 'try:0']), episode(1, True, ['family:into', 'try:2']),
        episode(2, False, ['family:into', 'try:0'], 'drops')]) == [
        'successes at the first try, by family: into 1/2',
        'successes at the first try, by arm: panda 1/2', 'failures: drops 1 (100 %)']


@pytest.mark.parametrize(('wrong', 'message'), [
    ({'families': ('sing',)}, 'no family sing on the table; known: lift'),
    ({'arms': ('jaco',)}, 'no arm jaco on the table; known: panda'),
    ({'tasks': ('sing a song',)}, "no instruction 'sing a song'"),
    ({'hz': 100.0}, 'hz is 100'),
    ({'only': ('test_task',), 'hand': __file__}, 'nothing to make')])
def test_what_the_table_has_not(tmp_path, wrong, message):
    """Guards the options: each is refused with what is allowed, before anything is made."""
    with pytest.raises(DataError, match=message):
        simulate_tabletop(tmp_path / 'data', **wrong)

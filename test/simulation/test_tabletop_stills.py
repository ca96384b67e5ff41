# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Both ends of an attempt without its motion: what is so in them, and where things are."""

import json

import pytest

pytest.importorskip('mujoco', reason='the simulators are not installed')
pytest.importorskip('robosuite', reason='the simulators are not installed')

from hralign_ros.data.instructions import (  # noqa: E402, I100
    FILE_NAME as INSTRUCTIONS,
)
from hralign_ros.data.instructions import (  # noqa: E402
    NOT_SO,
    SO,
)
from hralign_ros.data.things import read_things  # noqa: E402, I100
from hralign_ros.simulation.appearance import make_appearance  # noqa: E402, I100
from hralign_ros.simulation.renderer import Renderer  # noqa: E402, I100
from hralign_ros.simulation.tabletop import simulate_tabletop  # noqa: E402, I100
from hralign_ros.simulation.tabletop_goals import accomplished  # noqa: E402, I100
from hralign_ros.simulation.tabletop_stills import goals_in, Stills  # noqa: E402, I100
from hralign_ros.simulation.tabletop_tasks import (  # noqa: E402, I100
    FAMILIES,
    find_instructions,
    goals_by_text,
    instructions,
)
import numpy as np  # noqa: E402, I100

INTO = 'put the blue block into the grey crate'


def told(attempt, mark):
    """Return the goals that the tags of an attempt have behind a mark."""
    return {goals_by_text()[tag.removeprefix(mark)] for tag in attempt.tags
            if tag.startswith(mark)}


@pytest.mark.parametrize('family', FAMILIES)
def test_ends_as_wanted(family):
    """Guards the labels: what a still tells of is what the goals say of its last frame."""
    instruction = next(i for i in instructions() if i.goal.family == family)
    world = Stills(instruction, 'panda', 0)
    for wanted in (True, False):
        attempt = world.attempt(20, wanted)
        assert attempt is not None and len(attempt.trajectory.shots) == 2
        assert attempt.trajectory.success == (False, wanted)
        yes, no = told(attempt, SO), told(attempt, NOT_SO)
        assert instruction.goal in (yes if wanted else no) and not yes & no
        assert yes | no <= set(goals_in(instruction.goal, world.scene))
        assert all(accomplished(goal, world) for goal in yes)
        assert not any(accomplished(goal, world) for goal in no)
        moved = not np.allclose(*(shot.qpos for shot in attempt.trajectory.shots), atol=1e-3)
        assert moved


def test_the_same_seed_is_the_same_still():
    """Guards resuming: a still is a function of its seed, whatever was made before it."""
    world = Stills(find_instructions((INTO,))[0], 'sawyer', 2)
    first = world.attempt(3, True)
    world.attempt(4, False)
    again = world.attempt(3, True)
    assert again.tags == first.tags and again.trajectory.time_s == first.trajectory.time_s
    for one, two in zip(again.trajectory.shots, first.trajectory.shots, strict=True):
        np.testing.assert_array_equal(one.qpos, two.qpos)


def test_where_things_are():
    """
    Guards the geometry of both cameras: what a place points at has the colour of the thing.

    A mirrored or shifted place would teach a model that words mean what lies beside them.
    """
    world = Stills(find_instructions((INTO,))[0], 'panda', 0)
    renderer = Renderer(world.stage, None, shadows=False)
    look, hits = make_appearance('train-10001'), {'third_person': [], 'wrist': []}
    for seed in range(6):
        attempt = world.attempt(seed, seed % 2 == 0)
        shots = attempt.trajectory.shots
        at = renderer.locate(world.model, shots, look, attempt.points['blue-block'][:, None])
        images = renderer.record_robot(world.model, shots, look)
        for view, places, frames in zip(hits, at, images, strict=True):
            for (x, y), frame in zip(places[:, 0], frames, strict=True):
                height, width = frame.shape[:2]
                if 0.0 <= x < 1.0 and 0.0 <= y < 1.0:
                    red, green, blue = frame[int(y * height), int(x * width)].astype(int)
                    hits[view].append(blue > 1.4 * max(red, green))
    renderer.close()
    # The arm hides it now and then.
    assert len(hits['third_person']) == 12 and sum(hits['third_person']) >= 9
    assert len(hits['wrist']) >= 3 and sum(hits['wrist']) >= 0.7 * len(hits['wrist'])


def test_a_data_set(tmp_path):
    """Guards the whole way: episodes to train on, their places, and all words they tell of."""
    output = tmp_path / 'data'
    simulate_tabletop(output, rounds=0, stills=16, tasks=(INTO,), humans=False, workers=1,
                      report=lambda line: None)
    from hralign_ros.data.manifest import read_manifest

    episodes = read_manifest(output / 'manifest.parquet').episodes
    assert 14 <= len(episodes) <= 16 and {e.split for e in episodes} == {'train'}
    assert {len(e.success_flags) for e in episodes} == {2} and len({e.scene for e in episodes}) > 1
    assert {e.success for e in episodes} == {True, False}
    places = read_things(output)
    for episode in episodes:
        assert (output / episode.robot_videos['wrist']).is_file()
        there = {tag.partition(':')[2] for tag in episode.tags if tag.startswith('thing:')}
        assert {(p.thing, p.view) for p in places[episode.episode_id]} == {
            (thing, view) for thing in there for view in ('third_person', 'wrist')}
        assert {p.at.shape for p in places[episode.episode_id]} == {(2, 2)}
    words = {row['text']: row for row in json.loads((output / INSTRUCTIONS).read_text())}
    said = {tag.partition(':')[2] for e in episodes for tag in e.tags
            if tag.startswith((SO, NOT_SO))}
    assert said and said <= set(words) and all(words[text]['paraphrases'] for text in said)

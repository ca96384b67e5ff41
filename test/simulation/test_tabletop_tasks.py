# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The catalogue of the table, its instructions, scenes and plan; none needs a simulator."""

from collections import Counter
import json
import re
from types import SimpleNamespace

from hralign_ros.data.manifest import DataError
from hralign_ros.data.splits import SPLITS
from hralign_ros.simulation.tabletop_conduct import kind_of, kinds_of
from hralign_ros.simulation.tabletop_goals import accomplished
from hralign_ros.simulation.tabletop_objects import CARRIED, kinds, things, those_that
from hralign_ros.simulation.tabletop_plan import (
    first_instructions,
    held_out_things,
    list_instructions,
    plan_tabletop,
    read_tabletop_splits,
)
from hralign_ros.simulation.tabletop_scene import (
    draw_layout,
    draw_scene,
    mistakes,
    WRONG_COLOUR,
    WRONG_OBJECT,
)
from hralign_ros.simulation.tabletop_tasks import (
    FAMILIES,
    find_instructions,
    FIXED,
    Goal,
    goals_by_text,
    instructions,
)
import numpy as np
import pytest

ARMS = ('panda', 'ur5e', 'sawyer', 'iiwa')
HELD_OUT = {'ur5e', 'iiwa'}


def test_there_are_enough_of_everything():
    """Guards what the table is for: many instructions, families and kinds of things."""
    assert len(instructions()) >= 400
    assert len(FAMILIES) >= 8 and {i.goal.family for i in instructions()} == set(FAMILIES)
    assert len(kinds()) >= 60 and len(things()) > len(kinds())
    assert all(len(set(i.paraphrases)) >= 2 for i in instructions())


def test_no_text_means_two_things():
    """Guards labels: a text, also a paraphrase, belongs to one goal only."""
    texts = Counter(text for i in instructions() for text in (i.text, *i.paraphrases))
    assert [text for text, count in texts.items() if count > 1] == []
    assert len({i.task_id for i in instructions()}) == len(instructions())
    assert len({i.goal for i in instructions()}) == len(instructions())


def test_texts_are_sentences():
    """Guards the templates: plain words, one space between them, nothing left to fill in."""
    for text in (text for i in instructions() for text in (i.text, *i.paraphrases)):
        assert re.fullmatch(r'[a-z]+( [a-z]+)+', text), text
        assert not re.search(r'\b(\w+) \1\b', text), text
    assert things()['small-red-block'].words == 'small red block'


@pytest.mark.parametrize('kind', kinds(), ids=lambda kind: kind.noun)
def test_a_kind_is_as_large_as_it_says(kind):
    """Guards placing and gripping: parts lie within the circle and the height of their kind."""
    for part in kind.parts:
        if len(part.size) == 1 and part.shape != 'sphere':
            continue  # a mesh
        size = np.array((*part.size, *part.size, *part.size)[:3])
        if part.shape == 'cylinder':
            size = np.array([part.size[0], part.size[0], part.size[1]])
        elif part.shape == 'capsule':
            size = np.array([part.size[0], part.size[0], part.size[0] + part.size[1]])
        x, y, z = np.deg2rad(part.turn)
        turn = _about(2, z) @ _about(1, y) @ _about(0, x)
        reach = np.abs(turn) @ size
        low, high = np.array(part.at) - reach, np.array(part.at) + reach
        assert low[2] > -0.002 and high[2] < kind.height + 0.02, part
        middle = float(np.hypot(part.at[0], part.at[1]))
        assert middle < kind.radius + 0.008, part


def _about(axis, angle):
    turn = np.eye(3)
    one, two = [i for i in range(3) if i != axis]
    turn[one, one] = turn[two, two] = np.cos(angle)
    turn[one, two], turn[two, one] = -np.sin(angle), np.sin(angle)
    return turn


@pytest.mark.parametrize('family', FAMILIES)
def test_a_scene_has_wrong_things_too(family):
    """Guards that language is needed: something else could be meant, and is called otherwise."""
    for number, instruction in enumerate(i for i in instructions() if i.goal.family == family):
        goal = instruction.goal
        rng = np.random.default_rng(number)
        scene = draw_scene(goal, rng)
        assert set(goal.needs) <= set(scene.loose)
        names = [things()[name] for name in scene.loose]
        assert not any(one.like(other) for one in names for other in names if one is not other)
        assert len(set(scene.parts)) == len(scene.parts)
        wrong = mistakes(goal, scene)
        assert wrong[WRONG_OBJECT] or wrong[WRONG_COLOUR]
        for other in (goal for some in wrong.values() for goal in some):
            assert other != goal and set(other.needs) <= set(scene.loose)
            assert other.texts[0] != instruction.text
        layout = draw_layout(scene, (goal,), rng)
        for one in names:
            for other in names:
                apart = np.hypot(*np.subtract(layout.at[one.name][:2], layout.at[other.name][:2]))
                assert one is other or apart > one.kind.radius + other.kind.radius


def test_scenes_are_drawn_alike_and_leave_out_what_they_must():
    """Guards held-out things: none is a wrong thing on the table of a training instruction."""
    avoid = held_out_things(read_tabletop_splits())
    assert {'rubber-duck', 'basket', 'turquoise-cup'} <= set(avoid) and 'red-block' not in avoid
    for number, instruction in enumerate(first_instructions(read_tabletop_splits(), 200)):
        scenes = [draw_scene(instruction.goal, np.random.default_rng(number), avoid)
                  for _ in range(2)]
        assert scenes[0] == scenes[1]
        assert not set(scenes[0].loose) - set(instruction.goal.needs) & set(avoid)


def test_splits_are_asked_for_by_name():
    """Guards held-out instructions, things, relations and labs; the rest is enough to train on."""
    rules = read_tabletop_splits()
    counts = Counter(rules.of_task(i.task_id) or 'train' for i in instructions())
    assert counts['train'] >= 400
    assert min(counts[split] for split in (
        'test_object', 'test_relation', 'test_instruction', 'validation')) >= 20
    of = {split: {i.goal.family for i in instructions() if rules.of_task(i.task_id) == split}
          for split in ('test_instruction', 'validation')}
    assert of['test_instruction'] == of['validation'] == set(FAMILIES)
    seen = {'task_id': 'pick-up-the-red-block', 'embodiment': 'panda', 'seed': 0,
            'episode_id': ''}
    assert rules.of(scene='train-001', **seen) == 'train'
    assert rules.of(scene='test-001', **seen) == 'test_lab'
    assert rules.of(scene='view-001', **seen) == 'test_view'
    assert rules.of(scene='train-001', **{**seen, 'seed': 9}) == 'test_seen'
    assert rules.of(scene='test-001', **{**seen, 'embodiment': 'ur5e'}) == 'test_embodiment'
    assert rules.of(scene='train-001', **{
        **seen, 'task_id': 'pick-up-the-rubber-duck'}) == 'test_object'
    # Every name of the file is one of an instruction.
    named = {pattern for rule in rules.held_out.values() for pattern in rule.tasks
             if '*' not in pattern} | rules.validation_tasks
    assert named <= {i.task_id for i in instructions()}


def test_fewer_instructions_are_among_more():
    """Guards the measurement over diversity: a longer list holds the shorter one."""
    rules = read_tabletop_splits()
    lists = [first_instructions(rules, count) for count in (0, 10, 40, 100, 400)]
    for shorter, longer in zip(lists, lists[1:], strict=False):
        assert {i.task_id for i in shorter} < {i.task_id for i in longer}
    assert [len(some) - len(lists[0]) for some in lists] == [0, 10, 40, 100, 400]
    trained = {i.goal.family for i in lists[2] if not rules.of_task(i.task_id)}
    assert trained == set(FAMILIES)


def test_the_plan_keeps_what_is_held_out_apart():
    """Guards training data: held-out arms, things and labs are in none of its splits."""
    rules = read_tabletop_splits()
    chunks = list(plan_tabletop(instructions(), rules, 2, arms=ARMS))
    counts: Counter = Counter()
    names = set()
    for chunk in chunks:
        for job in chunk.jobs:
            split = rules.of(task_id=chunk.task_id, scene=job.scene, seed=job.seed,
                             embodiment=chunk.embodiment, episode_id='')
            counts[split, job.wanted] += 1
            names.add((chunk.task_id, chunk.embodiment, job.scene, job.seed, job.kind))
            if split in ('train', 'calibration', 'test_seen'):
                assert job.scene.startswith('train-') and chunk.embodiment not in HELD_OUT
                assert chunk.avoid == held_out_things(rules)
    assert len(names) == sum(counts.values())
    assert {split for split, _ in counts} == set(SPLITS) - {'test_task', 'test_distractor'}
    assert all(counts[split, True] == counts[split, False] for split, _ in counts)


def test_a_part_of_the_plan_is_the_same_part():
    """Guards resuming and single tasks: an attempt does not depend on what else is made."""
    rules, some = read_tabletop_splits(), instructions()[5:9]
    tasks = {i.task_id for i in some}
    whole = [chunk for chunk in plan_tabletop(instructions(), rules, 2, arms=ARMS)
             if chunk.task_id in tasks]
    assert whole == list(plan_tabletop(some, rules, 2, arms=ARMS)) and len(whole) > 8


def test_half_of_the_failures_only_language_tells():
    """Guards the shares: attempts at the wrong goal are half of the failures, of all families."""
    for instruction in instructions()[:60]:
        goal = instruction.goal
        shares = kinds_of(goal.family, mistakes(goal, draw_scene(goal, np.random.default_rng(1))))
        assert sum(shares.values()) == pytest.approx(1.0)
        drawn = Counter(kind_of(seed, False, shares) for seed in range(400))
        mistaken = sum(count for kind, count in drawn.items() if kind.startswith('wrong'))
        assert 180 < mistaken < 220 and set(drawn) == set(shares)


def test_instructions_are_listed_and_found():
    """Guards the command: it counts what it prints, and refuses what there is not."""
    lines = list(list_instructions(read_tabletop_splits(), families=('button',)))
    assert lines[-1] == '8 instructions, 24 texts' and len(lines) == 8 + 3
    assert find_instructions(('press the red button',))[0].goal == Goal('button', 'red', 'press')
    with pytest.raises(DataError, match="no instruction 'sing'"):
        find_instructions(('sing',))
    with pytest.raises(DataError, match='no split tests; known: train'):
        list(list_instructions(read_tabletop_splits(), only=('tests',)))


def test_what_is_carried_is_used():
    """Guards the catalogue: nearly everything in it is in an instruction."""
    used = {name for i in instructions() for name in i.goal.needs}
    assert len({t.name for t in those_that(CARRIED)} - used) <= 5
    assert {i.goal.it for i in instructions() if i.goal.family in FIXED}.isdisjoint(things())


def test_the_words_of_every_mistake_are_known():
    """
    Guards instructions.json: it has the words of all that stills tell of.

    Of six thousand goals 42 were missing, such as to put the battery next to the black stand:
    nothing is asked to lie next to a stand, and what misses one lies there all the same.
    """
    known = goals_by_text()
    for number, instruction in enumerate(instructions()):
        scene = draw_scene(instruction.goal, np.random.default_rng(number))
        for some in mistakes(instruction.goal, scene).values():
            for goal in some:
                assert known[goal.texts[0]] == goal


@pytest.mark.parametrize('at', [(0.0, 0.0, 0.0), (0.0, 0.1, 0.0), (0.0, 0.1, 0.05),
                                (0.0, -0.1, 0.05), (0.1, 0.1, 0.0)])
@pytest.mark.parametrize('before', [False, True])
def test_labels_can_be_written(at, before):
    """
    Guards a set that ends half way: a thing that was pushed far enough and tilted up.

    Its label was a bool of numpy, which JSON does not know, and the whole command ended with it.
    """
    state = SimpleNamespace(centre=lambda name: np.array(at), start=lambda name: np.zeros(3),
                            speed=lambda name: 0.0, touch=lambda one, other: False)
    for goal in (i.goal for i in instructions() if i.goal.family == 'push'):
        json.dumps(accomplished(goal, state, before))

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Retrieval against cases worked out by hand or by another way of computing them."""

import math

from hralign_ros.evaluation.bootstrap import EvaluationError
from hralign_ros.evaluation.metrics.retrieval import retrieval
import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from support.metric_cases import ids, noise


def rows_of(features):
    """Give the same features whatever the text."""
    return lambda rows, text: features[rows]


def search(query, gallery, tasks=None, **options):
    options = {'identity': ids(len(query)), 'text': np.zeros(len(query), int),
               'tasks': ids(len(query), 't') if tasks is None else tasks, **options}
    return retrieval(rows_of(query), rows_of(gallery), **options)


def test_perfect_alignment_and_its_opposite():
    x = noise(20, 16).astype(np.float32)
    found = search(x, 3.0 * x)
    assert found.recall[1].value == 1.0 and found.recall[1].n == 20
    assert found.average_precision.value == 1.0 and found.median_rank.value == 1.0
    assert found.chance[1] == pytest.approx(0.05)
    # Everybody finds the neighbour's clip.
    assert search(x, np.roll(x, 1, axis=0)).recall[1].value == 0.0


def test_random_features_are_at_chance():
    found = search(noise(600, 16), noise(600, 16, seed=1), gallery_size=10, draws=10)
    assert found.chance == {1: pytest.approx(0.1), 5: pytest.approx(0.5)}
    assert found.recall[1].value == pytest.approx(0.1, abs=0.02)
    assert found.recall[5].value == pytest.approx(0.5, abs=0.04)
    assert found.recall[1].low < 0.1 < found.recall[1].high


def test_ranks_by_hand():
    """A query at 0 degrees; clips at 0, 10, 20, 30 degrees, of which 10 and 30 are right."""
    angles = np.radians([0, 10, 20, 30, 90])
    gallery = np.stack([np.cos(angles), np.sin(angles)], 1)
    query = np.tile([[1.0, 0.0]], (5, 1))
    query[0] = [0.0, 1.0]
    found = search(query, gallery, tasks=['blue', 'red', 'blue', 'red', 'red'], own_pair=False,
                   ks=(1, 2))
    # Blue 0, from 90 down, its own clip left out: red at 1 and 2, blue at 3: AP 1/3. Red 1, from
    # 0 up, without the clip at 10: blue twice, then red at 3 and 4: AP (1/3 + 2/4) / 2. Red 4:
    # red at 2 and 4: AP (1/2 + 2/4) / 2.
    assert found.index.tolist() == [0, 1, 2, 3, 4]
    assert found.precisions[[0, 1, 4]].tolist() == pytest.approx([1 / 3, 5 / 12, 1 / 2])
    assert found.ranks[[0, 1, 4]].tolist() == [3, 3, 2]
    assert found.hits[1][[0, 1, 4]].tolist() == [0, 0, 0]
    assert found.hits[2][[0, 1, 4]].tolist() == [0, 0, 1]
    assert found.chance[1] == pytest.approx((2 * 1 / 4 + 3 * 2 / 4) / 5)
    assert found.median_rank.value == np.median(found.ranks)


def test_average_precision_agrees_with_another_one():
    query, gallery = noise(40, 8), noise(40, 8, seed=1)
    tasks = np.random.default_rng(0).choice(['a', 'b', 'c'], 40)
    found = search(query, gallery, tasks=tasks, own_pair=False)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, gallery)]
    expected = [average_precision_score(np.delete(tasks == tasks[i], i), np.delete(row, i))
                for i, row in enumerate(unit[0] @ unit[1].T)]
    np.testing.assert_allclose(found.precisions, expected)


def test_ties_never_help():
    """Guards against collapse that looks like success: equal features find nothing."""
    same = np.ones((8, 4), np.float32)
    found = search(same, same)
    assert found.recall[1].value == 0.0 and found.ranks.tolist() == [8] * 8
    # Equal but for what float32 rounds.
    nearly = same * (1 + 1e-8 * noise(8, 4))
    assert search(same, nearly).recall[1].value == 0.0
    found = search(same, same, tasks=np.repeat(['a', 'b'], 4), own_pair=False)
    assert found.ranks.tolist() == [5] * 8


def test_own_pair_can_be_taken_out():
    x = noise(6, 8)
    tasks = np.repeat(['a', 'b', 'c'], 2)
    gallery = x.copy()
    found = search(x, gallery, tasks=tasks, own_pair=False)
    # Five clips are left, one of which is right; the own one would have been found.
    assert found.chance[1] == pytest.approx(1 / 5) and found.recall[1].value < 1.0
    lonely = search(x, gallery, tasks=['a', 'a', 'b', 'b', 'c', 'd'], own_pair=False)
    assert lonely.index.tolist() == [0, 1, 2, 3]


def test_other_scenes_only():
    """
    By hand: with scenes but without the own pair, only clips of other scenes compete.

    Each clip shows its scene more than its task; the nearest one of another scene is of the task
    for a and b, and of the wrong task for c, whose other clip looks like d's.
    """
    tasks = np.array(['a', 'b', 'c', 'd', 'a', 'b', 'c', 'd'])
    scenes = np.repeat(['here', 'there'], 4)
    shown = np.eye(4)[[0, 1, 2, 3, 0, 1, 3, 3]]
    x = np.concatenate([10 * np.eye(2).repeat(4, 0), shown], 1)
    found = search(x, x, tasks=tasks, own_pair=False, scenes=scenes)
    assert found.chance[1] == pytest.approx(1 / 4)
    # The second d finds its d; the first one finds c's clip as near, and a tie never helps.
    assert found.hits[1].tolist() == [1, 1, 0, 0, 1, 1, 0, 1]


def test_fixed_gallery_is_the_mean_over_galleries():
    """R@1 from 50 clips where exactly 3 wrong ones are nearer: all 3 must miss the gallery."""
    query = np.zeros((50, 2))
    query[:, 0] = 1.0
    angle = np.full(50, 1.0)
    angle[:4] = [0.1, 0.2, 0.3, 0.4]
    gallery = np.stack([np.cos(angle), np.sin(angle)], 1)
    found = search(query, gallery, gallery_size=10, draws=3000)
    expected = math.comb(46, 9) / math.comb(49, 9)
    assert found.chance[1] == pytest.approx(1 / 10)
    assert found.hits[1][3] == pytest.approx(expected, abs=0.03)
    assert found.hits[1][0] == 1.0
    assert found.ranks[3] == pytest.approx(1 + 3 * 9 / 49, abs=0.05)


def test_galleries_do_not_depend_on_the_features():
    """Guards pairing: two variants are asked about the same galleries."""
    first = search(noise(30, 4), noise(30, 4, seed=1), gallery_size=5, draws=3, seed=7)
    again = search(noise(30, 4), noise(30, 4, seed=1), gallery_size=5, draws=3, seed=7)
    other = search(noise(30, 4), noise(30, 4, seed=1), gallery_size=5, draws=3, seed=8)
    assert np.array_equal(first.ranks, again.ranks)
    assert not np.array_equal(first.ranks, other.ranks)
    x = noise(30, 4)
    scaled = search(x * 5, noise(30, 4, seed=1) * 3, gallery_size=5, draws=3, seed=7)
    assert np.array_equal(first.ranks, scaled.ranks)


def test_hard_gallery_holds_the_same_scene_and_other_tasks():
    """Features that know the scene alone solve the easy gallery's scene, and not the hard one."""
    scenes, tasks = np.repeat(['s0', 's1', 's2'], 4), np.tile(['a', 'b', 'c', 'c'], 3)
    scene = np.repeat(np.eye(3), 4, axis=0)
    found = search(scene, scene, tasks=tasks, scenes=scenes, ks=(1, 4))
    # Own pair and three others, except task c, which has one clip fewer of another task.
    assert found.chance[1] == pytest.approx((1 / 4 + 1 / 4 + 1 / 3 + 1 / 3) / 4)
    assert found.recall[1].value == 0.0 and found.recall[4].value == 1.0
    assert found.recall[1].clusters == 9
    task = np.concatenate([scene, np.tile([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], (3, 1))],
                          axis=1)
    assert search(task, task, tasks=tasks, scenes=scenes).recall[1].value == 1.0


def test_text_of_the_query_cannot_tell_the_clip():
    """Guards against the leak: features that are the text alone find nothing."""
    tasks, number = ids(6, 't'), np.arange(6)
    text = np.eye(6)

    def text_only(rows, text_number):
        return np.repeat(text[[text_number]], len(rows), axis=0)

    # With its own text in each clip the same features would be perfect.
    assert search(text, text, tasks=tasks).recall[1].value == 1.0
    found = retrieval(text_only, text_only, text=number, identity=ids(6), tasks=tasks)
    assert found.recall[1].value == 0.0 and found.ranks.tolist() == [6] * 6


def test_each_query_meets_the_gallery_pooled_with_its_text():
    """One text turns the gallery round: each query gets its own rows."""
    x, asked = noise(6, 8), []

    def pool_gallery(rows, text):
        asked.append((rows.tolist(), text))
        return x if text == 0 else np.roll(x, 1, axis=0)

    found = retrieval(rows_of(x), pool_gallery, text=[0, 0, 0, 1, 1, 1], identity=ids(6),
                      tasks=ids(6))
    assert found.hits[1].tolist() == [1, 1, 1, 0, 0, 0]
    assert asked == [(list(range(6)), 0), (list(range(6)), 1)]
    with pytest.raises(EvaluationError, match='integer'):
        retrieval(pool_gallery, pool_gallery, text=['a'], identity=['a'], tasks=['a'])


@pytest.mark.parametrize(('change', 'message'), [
    ({'query': np.zeros((4, 8))}, '4 of 4 features are zero'),
    ({'query': np.full((4, 8), np.nan)}, '4 of 4 rows are not finite'),
    ({'query': np.zeros((4, 0))}, 'not empty'),
    ({'query': np.ones(4)}, 'channels'),
    ({'gallery': np.ones((4, 7))}, '8 channels, the gallery 7'),
    ({'tasks': ['a']}, 'tasks'),
    ({'gallery_size': 5}, 'smaller size'),
    ({'scenes': ['a'] * 3}, 'scenes'),
    ({'ks': ()}, 'at least 1'),
    ({'own_pair': False}, 'no query'),
])
def test_what_retrieval_refuses(change, message):
    options = {'query': noise(4, 8), 'gallery': noise(4, 8), **change}
    with pytest.raises(EvaluationError, match=message):
        search(options.pop('query'), options.pop('gallery'), **options)

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The evaluation of runs: the same queries for all, controls apart, numbers as counted by hand."""

from dataclasses import replace
import json

from hralign_ros.data.manifest import DataError
from hralign_ros.evaluation import embeddings, encoder_measure
from hralign_ros.evaluation.bootstrap import EvaluationError
from hralign_ros.evaluation.encoder import evaluate_adaptation
from hralign_ros.evaluation.encoder_measure import FROZEN_MEAN, group_runs, measure, Variant
from hralign_ros.evaluation.metrics.names import MAIN_RETRIEVAL, METRICS
from hralign_ros.evaluation.report import Measured, read_report, Samples
import numpy as np
import pytest
from support import small_data as small
import torch

OWN_PAIR = {**MAIN_RETRIEVAL, 'gallery': 'own_pair'}
SPLIT = 'test_task'
PAIRS = 12


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def variants(*names):
    return [Variant(FROZEN_MEAN, ()), *group_runs([small.run(name) for name in names])]


def quickly(chosen, **options):
    options = {'splits': [SPLIT], 'full': False, 'probes': False, 'report': str, **options}
    return measure(encoder_measure.RunInputs(small.data()), chosen, **options)


def hits(found, variant):
    return found.samples['retrieval_r1', variant, SPLIT]


@pytest.fixture(scope='module')
def quick():
    """Measure two seeds, a control and a baseline in galleries of five."""
    return quickly(variants('adapted', 'shuffled', 'again', 'query'), gallery=5)


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    """Write a whole report; return its folder, what was measured and what was said."""
    folder, told = tmp_path_factory.mktemp('report') / 'new', []
    found = evaluate_adaptation(
        small.data(), [small.run('adapted')], folder, splits=[SPLIT],
        commands=['hralign encoder evaluate adapted'], report=told.append)
    return folder, found, told


def prepared(name='adapted', view='third_person'):
    """Return what encoding needs: run, features, items, texts."""
    run = small.run(name)
    store = encoder_measure.RunInputs(small.data())
    cache = store.clips(run)
    items = embeddings.split_items(small.data(), cache, SPLIT, view)
    return run, cache, items, store.texts(run, items)


def test_all_variants_have_the_same_queries(quick):
    """Guards every comparison: one list of episodes, in one order, for variants and seeds."""
    lists = {}
    for record in quick.tables['retrieval_per_episode']:
        lists.setdefault((record['variant'], record['seed']), []).append(record['episode'])
    assert list(lists) == [(FROZEN_MEAN, ''), ('adapted', 0), ('adapted', 1),
                           ('shuffled pairs', 0), ('query only', 0)]
    want = list(hits(quick, 'adapted').names)
    assert len(want) == PAIRS and all(names == want for names in lists.values())
    assert {name.split('_')[0] for name in want} == {'push-bar', 'pull-bar'}
    assert {v: s.values.shape for (_, v, _), s in quick.samples.items()} == {
        FROZEN_MEAN: (1, PAIRS), 'adapted': (2, PAIRS), 'shuffled pairs': (1, PAIRS),
        'query only': (1, PAIRS)}


def test_galleries_are_the_same_for_all(quick):
    """Guards the draw of galleries: one model under two names gets one result."""
    found = quickly([Variant('one', (small.run('adapted'),)),
                     Variant('other', (small.run('adapted'),))], gallery=5)
    np.testing.assert_array_equal(hits(found, 'one').values, hits(found, 'other').values)
    np.testing.assert_array_equal(hits(found, 'one').values[0], hits(quick, 'adapted').values[0])
    ratio, difference = found.compare('retrieval_r1', 'one', 'other', SPLIT)
    assert difference.value == difference.low == difference.high == 0
    assert ratio.value == pytest.approx(1.0)


def test_variants_of_different_clips_are_refused():
    """Guards against figures side by side that are of different queries."""
    run = small.run('adapted')
    items = embeddings.split_items
    try:
        calls = []

        def fewer(*arguments):
            calls.append(1)
            return items(*arguments)[len(calls) - 1:]
        encoder_measure.split_items = fewer
        with pytest.raises(EvaluationError, match="'other' has features of other clips"):
            quickly([Variant('one', (run,)), Variant('other', (run,))])
    finally:
        encoder_measure.split_items = items


def test_a_shuffled_run_is_a_control(quick):
    """Guards the report: what is there to fail is not among the results."""
    assert {(r['variant'], r['control']) for r in quick.rows} == {
        (FROZEN_MEAN, False), ('adapted', False), ('query only', False), ('shuffled pairs', True)}
    groups = {v.name: v.control for v in variants('adapted', 'shuffled', 'query')}
    assert groups == {FROZEN_MEAN: False, 'adapted': False, 'shuffled pairs': True,
                      'query only': False}
    random = replace(small.run('adapted'), options=replace(
        small.OPTIONS, weights='random', variant='random'))
    assert group_runs([random])[0].control


def test_runs_of_one_variant_are_its_seeds(quick):
    """Guards means over seeds: grouped by name, wherever they stand, with their own seeds."""
    elsewhere = quick.find('retrieval_r1', 'adapted', SPLIT, **MAIN_RETRIEVAL)
    assert elsewhere['value'] == pytest.approx(hits(quick, 'adapted').values.mean())
    rows = {r['variant']: r for r in quick.select('retrieval_r1', **OWN_PAIR)}
    assert rows['adapted']['seeds'] == [0, 1] and rows[FROZEN_MEAN]['seeds'] == []
    assert rows['adapted']['chance'] == pytest.approx(1 / 5)
    low, value, high = (rows['adapted'][k] for k in ('low', 'value', 'high'))
    assert low <= value <= high
    assert {r['metric'] for r in quick.rows} == {'retrieval_r1', 'proxy_a_distance'}


@pytest.mark.parametrize('name', [None, 'adapted', 'mean'])
def test_recall_by_hand(name):
    """Guards R@1 itself: in a gallery of all, counted here from the pooled features."""
    run, cache, items, texts = prepared(name or 'adapted')
    chosen = Variant('it', (run,) if name else ())
    found = quickly([Variant('one', (run,)), chosen], gallery=100)
    arrays = embeddings.encode_pairs(run.model, items, cache, texts, length=3,
                                     frozen_mean=not name)
    own, elsewhere = [], []
    for i, text in enumerate(arrays.text):
        text = min(text, arrays.human.shape[1] - 1)
        similarity = arrays.robot[:, text] @ arrays.human[i, text]
        own.append(similarity[i] > np.delete(similarity, i).max())
        there = arrays.scenes != arrays.scenes[i]
        right = arrays.tasks == arrays.tasks[i]
        elsewhere.append(similarity[there & right].max() > similarity[there & ~right].max())
    for conditions, expected in ((OWN_PAIR, own), (MAIN_RETRIEVAL, elsewhere)):
        assert found.find('retrieval_r1', 'it', SPLIT, **conditions)['value'] == pytest.approx(
            np.mean(expected))
    np.testing.assert_array_equal(hits(found, 'it').values[0], elsewhere)


def test_pairs_are_encoded_one_by_one(monkeypatch):
    """Guards chunks: their size changes nothing; features have norm 1; own text is own text."""
    run, cache, items, texts = prepared()
    whole = embeddings.encode_pairs(run.model, items, cache, texts, length=3)
    monkeypatch.setattr(embeddings, '_CHUNK', 5)
    parts = embeddings.encode_pairs(run.model, items, cache, texts, length=3)
    for field in ('human', 'robot'):
        np.testing.assert_allclose(
            getattr(whole, field), getattr(parts, field), atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(getattr(whole, field), axis=-1), 1, atol=1e-5)
    assert whole.human.shape == (PAIRS, 3, 96), 'two tasks, and the neutral text'
    one = [i for i in items if i.task_id == 'push-bar'][:2]
    alone = embeddings.encode_pairs(run.model, one, cache, texts, length=3)
    rows = [list(whole.names).index(i.robot.episode_id) for i in one]
    for mine, all_of_them in zip(alone.own(), whole.own(), strict=True):
        np.testing.assert_allclose(mine, all_of_them[rows], atol=1e-6)
    for mine, all_of_them in zip(alone.neutral(), whole.neutral(), strict=True):
        np.testing.assert_allclose(mine, all_of_them[rows], atol=1e-6)
    assert np.abs(whole.own()[0] - whole.neutral()[0]).max() > 2e-5


def test_humans_pass_by_the_adapters():
    """Guards the human stream in the evaluation: adapted in the co-training control only."""
    run, cache, items, texts = prepared()
    plain = embeddings.encode_pairs(run.model, items, cache, texts, length=3)
    control = embeddings.encode_pairs(run.model, items, cache, texts, length=3, adapt_human=True)
    np.testing.assert_array_equal(plain.robot, control.robot)
    assert np.abs(plain.human[:, 0] - control.human[:, 0]).max() > 1e-4


def test_single_frames_with_what_was_done_next():
    """Guards the probes: the mean command up to the next cached frame, the state at this one."""
    run, cache, items, texts = prepared()
    frames = embeddings.encode_frames(run.model, items, cache, texts, small.data())
    episodes = {e.episode_id: e for e in small.data().episodes}
    kept = [0, 2, 5, 7]
    np.testing.assert_allclose(cache.times(items[0].robot), np.array(kept) / small.RATE_HZ)
    assert len(frames.features) == PAIRS * 3 and frames.features.shape[1] == 96
    for i, item in enumerate(items):
        rows = slice(3 * i, 3 * i + 3)
        episode = episodes[item.robot.episode_id]
        assert set(frames.recordings[rows]) == {episode.episode_id}
        assert set(frames.tasks[rows]) == {episode.task_id}
        commands = np.array(episode.actions)
        np.testing.assert_allclose(
            frames.actions[rows], [commands[a:b].mean(0) for a, b in ((0, 2), (2, 5), (5, 7))])
        np.testing.assert_allclose(frames.proprio[rows], np.array(episode.proprio)[kept[:3]])
    pooled = embeddings.encode_pairs(run.model, items[:1], cache, texts, length=1).own()[1]
    np.testing.assert_allclose(frames.features[0], pooled[0], atol=1e-6)


def test_arms_with_other_joints_share_no_probe():
    """Guards the probes on mixed arms: the most common widths are taken, the rest left out."""
    run, cache, items, texts = prepared()
    data = small.data()
    odd = items[0].robot.episode_id
    changed = data.only(
        replace(e, actions=[[*a, 0.0] for a in e.actions]) if e.episode_id == odd else e
        for e in data.episodes)
    frames = embeddings.encode_frames(run.model, items, cache, texts, changed)
    assert set(frames.recordings) == {i.robot.episode_id for i in items[1:]}
    none = data.only(replace(e, actions=()) for e in data.episodes)
    with pytest.raises(EvaluationError, match='no episode of this split has actions'):
        embeddings.encode_frames(run.model, items, cache, texts, none)


def test_data_without_actions_are_measured_all_the_same():
    """Guards recorded data: the probes are left out and said to be, the rest is there."""
    data, told = small.data(), []
    none = data.only(replace(e, actions=()) for e in data.episodes)
    found = measure(encoder_measure.RunInputs(none), variants('adapted'), splits=[SPLIT],
                    full=False, report=told.append)
    assert any('the probes are left out' in line for line in told)
    assert {r['metric'] for r in found.rows} == {'retrieval_r1', 'proxy_a_distance'}


@pytest.mark.parametrize(('chosen', 'options', 'error', 'said'), [
    ((), {}, EvaluationError, 'at least one run is needed'),
    (('adapted',), {'splits': ['test_moon']}, DataError, 'no episode of split test_moon'),
    (('adapted',), {'view': 'head'}, DataError, 'has the view head'),
    (('adapted',), {'gallery': 1}, EvaluationError, 'a gallery of 1 clips; needed are 2')])
def test_what_cannot_be_measured(chosen, options, error, said):
    """Guards mistyped options: one sentence that says what there is."""
    with pytest.raises(error, match=said):
        quickly(variants(*chosen), **options)


def test_a_split_of_one_pair():
    """Guards against a figure of one pair, which would be found every time."""
    run, data = small.run('adapted'), small.data()
    one = [e for e in data.episodes if e.split != SPLIT or e.episode_id == 'push-bar_0_0']
    with pytest.raises(EvaluationError, match='split test_task: 1 pairs with features; needed'):
        measure(encoder_measure.RunInputs(data.only(one)), [Variant('it', (run,))],
                splits=[SPLIT], report=str)


def test_features_are_opened_once():
    """Guards the time of an evaluation: runs on one backbone share their features."""
    store = encoder_measure.RunInputs(small.data())
    one, other = (store.clips(small.run(name)) for name in ('adapted', 'again'))
    assert one is other
    assert store.clips(small.run('vit')) is not one


def test_the_report_has_everything(report):
    """Guards the files: all metrics of embeddings, images, warning, the command."""
    folder, found, told = report
    document = read_report(folder / 'report.json')
    kinds = {r['metric'] for r in document['rows']}
    assert kinds == {name for name in METRICS
                     if list(METRICS).index(name) < list(METRICS).index('auroc')}
    assert {r['variant'] for r in document['rows']} == {FROZEN_MEAN, 'adapted'}
    assert {(r['metric'], r['conditions'].get('direction'))
            for r in document['rows'] if r['control']} == {
        ('proxy_a_distance', None), ('retrieval_r1', 'human_to_robot'),
        ('retrieval_r1', 'robot_to_human')}
    names = {f['name'] for f in document['figures']}
    assert {'recall', 'gap', 'policy', 'embeddings', 'retrieval', 'attention',
            'training'} <= names
    assert all((folder / f'{name}.png').read_bytes()[:4] == b'\x89PNG' for name in names)
    assert document['commands'] == ['hralign encoder evaluate adapted']
    assert 'not RH20T' in document['warnings'][0]
    assert document['data']['training pairs'] == 12
    assert document['data'][f'episodes of {SPLIT}'] == PAIRS
    html = (folder / 'report.html').read_text('utf-8')
    assert 'not RH20T' in html and 'frozen, mean' in html
    assert (folder / 'report.csv').is_file()
    lines = (folder / 'retrieval_per_episode.csv').read_text().splitlines()
    assert len(lines) == 1 + 2 * PAIRS
    assert str(folder / 'report.html') in told[-1]
    assert str(small.data_folder()) not in json.dumps(document), 'no folder of this machine'


def test_seeds_are_compared_each_with_its_like():
    """By hand: of seeds 0, 1 and 1, 2 only 1 is compared; a variant without seeds with all."""
    def samples(variant, values, seeds, names='abcd'):
        found.samples['retrieval_r1', variant, 's'] = Samples(
            np.array(values, float), list(names), list('abcd'), seeds)

    found = Measured()
    for variant, values, seeds in (
            ('one', [[0, 0, 0, 0], [1, 1, 0, 1]], [0, 1]),
            ('other', [[1, 0, 0, 1], [1, 1, 1, 1]], [1, 2]), ('plain', [[1, 0, 0, 0]], [])):
        samples(variant, values, seeds)
    ratio, difference = found.compare('retrieval_r1', 'one', 'other', 's')
    assert ratio.value == 1.5 and difference.value == 0.25
    ratio, difference = found.compare('retrieval_r1', 'one', 'plain', 's')
    assert ratio.value == 1.5 and difference.value == pytest.approx(0.375 - 0.25)
    assert difference.low < -0.2, 'seeds are drawn too'
    samples('other', [[1, 0, 0, 1], [1, 1, 1, 1]], [3, 4])
    with pytest.raises(EvaluationError, match='no seed in common'):
        found.compare('retrieval_r1', 'one', 'other', 's')
    samples('other', [[1, 0, 0, 1], [1, 1, 1, 1]], [0, 1], 'abce')
    with pytest.raises(EvaluationError, match='not measured on the same episodes'):
        found.compare('retrieval_r1', 'one', 'other', 's')


def test_a_stranger_is_of_another_task():
    tasks = np.array(['a', 'b', 'a', 'a', 'a', 'c'])
    chosen = encoder_measure._of_another_task(tasks)
    assert (tasks[chosen] != tasks).all()


def test_policies_are_compared_on_the_same_episodes(report):
    """Guards the policy: paired by episode, and not better than itself."""
    _, found, _ = report
    metric = 'nearest_neighbour_action_error'
    _, difference = found.compare(metric, 'adapted', FROZEN_MEAN, SPLIT)
    assert difference.low <= difference.value <= difference.high
    mine, frozen = (found.samples[metric, v, SPLIT].values for v in ('adapted', FROZEN_MEAN))
    assert difference.value == pytest.approx(np.mean(mine - frozen))
    assert found.compare(metric, 'adapted', 'adapted', SPLIT)[1].value == 0


def test_runs_of_one_seed_are_not_one_variant():
    """Two different runs left with the default name were averaged as if they were two seeds."""
    run = small.run('adapted')
    with pytest.raises(EvaluationError, match="variant 'adapted': two runs with the same seed"):
        group_runs([run, run])
    assert [len(v.runs) for v in group_runs([run, small.run('again')])] == [2]


def test_cameras_of_one_recording_are_one(monkeypatch):
    """
    Guards RH20T, whose rows are cameras: each counted as an episode of its own.

    Of features that know nothing of the task the neighbours said .94 of it: what they found was
    the same recording, recorded from the side.
    """
    rng = np.random.default_rng(0)
    recordings, cameras = 40, 6
    of = np.repeat(np.arange(recordings), cameras)
    own = rng.normal(size=(recordings, 1, 16))[of]
    features = own + 0.1 * rng.normal(size=(len(of), 1, 16))
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    tasks = np.array([f't{r % 5}' for r in of])
    names = np.array([f'r{r}#{i}' for i, r in enumerate(of)])
    arrays = embeddings.PairArrays(
        features.astype(np.float32), features.astype(np.float32), np.zeros(len(of), np.int64),
        names, np.array([f'r{r}' for r in of]), tasks, np.array([f's{r // 5 % 2}' for r in of]))
    found = encoder_measure.retrievals(arrays, 100, full=True)
    assert found[encoder_measure.key_of(
        'retrieval_r1', gallery='task', direction='human_to_robot', text='neutral')
    ].values.mean() < 0.4
    shapes = encoder_measure.shapes(arrays)
    assert shapes[encoder_measure.key_of(
        'task_accuracy_drop', classifier='knn')].value < 0.3
    assert shapes[encoder_measure.key_of('task_distance_ratio')].value == pytest.approx(
        1, abs=0.1)


@pytest.mark.parametrize('full', [True, False])
def test_data_that_cannot_show_everything(tmp_path, full):
    """
    Guards the first evaluation on one's own clips: few tasks, all recorded in one place.

    The first metric that these cannot show ended it, after the features, without a report.
    """
    data = small.data()
    chosen = [e for e in data.episodes if e.split == SPLIT and e.task_id == 'push-bar']
    few = data.only([replace(e, scene='default') for e in chosen])
    told = []
    found = evaluate_adaptation(
        few, [small.run('adapted')], tmp_path / 'report', splits=[SPLIT], full=full,
        cache=small.data().folder / 'features', report=told.append)
    assert found.find('retrieval_r1', 'adapted', SPLIT, **OWN_PAIR)
    assert {'metric': 'proxy_a_distance', 'conditions': {'text': 'task'}, 'split': SPLIT}.items(
    ) <= found.left_out[0].items()
    assert any(': left out, ' in line for line in told)
    document = read_report(tmp_path / 'report' / 'report.json')
    assert any('proxy A-distance' in line for line in document['warnings'])
    assert full == any('task accuracy' in line for line in document['warnings'])


def test_a_baseline_is_what_the_backbone_gives(monkeypatch):
    """
    Guards "frozen, mean" of runs whose adapters come early: it was the mean of an inner layer.

    Whatever is behind the adapters has to be run, without them.
    """
    run, cache, items, texts = prepared()
    plain = embeddings.encode_pairs(run.model, items, cache, texts, length=3, frozen_mean=True)

    def behind(maps):
        return torch.flip(maps, (2,)) ** 2

    monkeypatch.setattr(run.model, 'frozen_maps', behind)
    more = embeddings.encode_pairs(run.model, items, cache, texts, length=3, frozen_mean=True)
    maps = embeddings._maps([item.robot for item in items], cache, 3)
    np.testing.assert_allclose(
        more.robot[:, 0], embeddings.mean_pool(behind(maps)).numpy(), atol=1e-6)
    assert np.abs(more.robot[:, 0] - plain.robot[:, 0]).max() > 1e-3


def test_tasks_that_were_trained_on_are_not_new(tmp_path):
    """
    Guards figures on held-out tasks after an import with a split file of one's own.

    Two of the tasks had been trained on; the old run was measured on them without a word.
    """
    data = small.data()
    learned = small.run('adapted').record['data']['tasks'][0]
    again = data.only([replace(e, split=SPLIT) if e.task_id == learned else e
                       for e in data.episodes])
    with pytest.raises(EvaluationError, match=f'was trained on {learned}, of test_task'):
        evaluate_adaptation(again, [small.run('adapted')], tmp_path, splits=[SPLIT], report=str)

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A whole run: what it trains and what it leaves, on which clips, and how it comes back."""

from dataclasses import replace
import json

from hralign_ros.data.manifest import DataError
from hralign_ros.data.pairs import HOW, human_clip, make_pairs
from hralign_ros.evaluation.embeddings import encode_pairs, NEUTRAL_TEXT
from hralign_ros.models.backbones import load_backbone
from hralign_ros.models.weight_files import ModelError
from hralign_ros.training.alignment_batches import make_items
from hralign_ros.training.alignment_run import (
    adapt,
    build_model,
    load_run,
    pair_features,
    text_encoder,
    text_features,
)
from hralign_ros.training.checkpoints import TrainingError
import numpy as np
import pytest
from support import small_data as small
import torch


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def features(name):
    """Open the features that a run was trained on."""
    run = small.run(name)
    return pair_features(small.data(), run.backbone, run.options)


def test_items(split='test_task'):
    pairs = make_pairs(small.data().of_split(split), views=('third_person',))
    return make_items(pairs, features('adapted'))[0]


test_items.__test__ = False


def texts(items):
    return text_features(text_encoder('minilm'), [
        NEUTRAL_TEXT, *(item.robot.task_text for item in items)])


@pytest.mark.parametrize('name', ['adapted', 'vit'])
def test_human_features_stay_bit_by_bit(name):
    """Guards the human stream: token maps and their mean are the same before and after."""
    after = small.run(name)
    before = build_model(after.backbone, small.RUNS[name], after.record['text_dim'])
    cache = features(name)
    humans = [human_clip(e) for e in small.data().episodes[:6]]
    maps = cache.stack(humans, [np.arange(cache.frames)] * len(humans))
    with torch.no_grad():
        assert torch.equal(before.frozen_maps(maps), after.model.frozen_maps(maps))
        robot = before.adapted_maps(maps), after.model.adapted_maps(maps)
    assert torch.equal(robot[0], before.frozen_maps(maps)), 'at the start they do nothing'
    assert not torch.allclose(*robot, atol=1e-4), 'and then they learn'
    fresh = load_run(after.folder).backbone.module.state_dict()
    assert all(torch.equal(value, fresh[name])
               for name, value in after.backbone.module.state_dict().items())


def test_a_run_comes_back_as_it_was():
    """Guards run.json and best.pt: loaded in another place, the model gives the same features."""
    run = small.run('adapted')
    again = load_run(run.folder)
    assert again.options == run.options and again.record == json.loads(json.dumps(run.record))
    assert not again.model.training and not run.model.training
    items = test_items()
    one, other = (encode_pairs(r.model, items, features('adapted'), texts(items))
                  for r in (run, again))
    for name in ('human', 'robot', 'text', 'names'):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    untrained = build_model(run.backbone, run.options, run.record['text_dim'])
    start = encode_pairs(untrained, items, features('adapted'), texts(items))
    assert np.abs(np.asarray(start.robot) - np.asarray(one.robot)).max() > 1e-3
    assert run.record['best_step'] > 0, 'the weights compared are trained ones'


def test_a_query_only_run_trains_the_query():
    """Guards the baseline without adapters: only the query's layer, robot maps as they came."""
    run = small.run('query')
    assert set(run.model.trained_parameters()) == {
        'attention.query.weight', 'attention.query.bias'}
    assert set(run.model.trained_state()) == set(run.model.trained_parameters())
    maps = torch.randn(2, 3, 96, 5, 5)
    assert torch.equal(run.model.adapted_maps(maps), maps)
    start = build_model(run.backbone, run.options, run.record['text_dim'])
    assert not torch.equal(start.attention.query.weight, run.model.attention.query.weight)


def test_a_mean_pooled_run_trains_the_adapters():
    """Guards the other baseline: no query, no text."""
    run = small.run('mean')
    assert all(name.startswith('adapters.') for name in run.model.trained_parameters())
    items = test_items()
    arrays = encode_pairs(run.model, items, features('mean'), texts(items))
    assert arrays.human.shape[1] == 1, 'one feature per clip, whatever the text'
    np.testing.assert_array_equal(arrays.own()[0], arrays.neutral()[0])


def test_the_seed_decides():
    """Guards paired comparisons: one seed one start, the frozen backbone is the same for all."""
    one, other = small.run('adapted'), small.run('again')
    assert one.record['cache'] == other.record['cache'] == small.run('query').record['cache']
    starts = [build_model(r.backbone, r.options, 384).trained_state() for r in (one, one, other)]
    assert all(torch.equal(v, starts[1][k]) for k, v in starts[0].items())
    assert any(not torch.equal(v, starts[2][k]) for k, v in starts[0].items())


@pytest.mark.parametrize('how', HOW)
def test_the_split_discipline(monkeypatch, tmp_path, how):
    """Guards the held-out tasks: none of their clips is trained on, however clips are paired."""
    import hralign_ros.training.alignment_run as module

    class Stop(Exception):
        pass

    seen = {}

    def stop(options, model, learning, held_out, cache, texts, *rest, **more):
        seen.update(learning=learning, held_out=held_out)
        raise Stop
    monkeypatch.setattr(module, 'AlignmentObjective', stop)
    with pytest.raises(Stop):
        adapt(small.data_folder(), tmp_path, replace(small.OPTIONS, pairs=how), report=str)
    training = {task for task, (split, *_) in small.TASKS.items() if split == 'train'}
    for part, tasks in (('learning', training), ('held_out', {'lift-cup'})):
        assert seen[part], part
        for clip in (c for pair in seen[part] for c in (pair.human, pair.robot)):
            assert clip.task_id in tasks and clip.file.split('/')[1].split('_')[0] in tasks
            assert clip.episode_id != 'failed'
    mixed = [p for p in seen['learning'] if p.human.task_id != p.robot.task_id]
    assert len(mixed) == (len(seen['learning']) if how == 'shuffled' else 0)
    assert all(p.human.task_id == p.robot.task_id for p in seen['held_out'])


def test_what_run_json_says():
    """Guards provenance: data, licences, what was asked for and what came of it."""
    folder, run, told = small.lines('adapted')
    record = json.loads((folder / 'run.json').read_text('utf-8'))
    assert record['data'] == {
        'pairs': 12, 'validation_pairs': 4, 'tasks': ['open-box', 'shut-box'], 'scenes': 2,
        'embodiments': ['panda'], 'sources': ['metaworld'], 'licenses': ['MIT']}
    assert record['options']['train']['steps'] == record['steps'] == 6
    assert record['command'] == 'hralign encoder train'
    assert record['backbone_source'] == 'the file weights.pth'
    assert 0 <= record['validation_r1'] <= 1 and not record['stopped_early']
    assert any('best at step' in line and str(folder) in line for line in told)
    assert (folder / 'best.pt').is_file() and (folder / 'log.csv').is_file()


def test_the_cache_serves_every_pairing():
    """Guards against features computed twice: any pairing opens the one that is there."""
    run, count = small.run('adapted'), len(list((small.data_folder() / 'features').iterdir()))
    data = small.data()
    for how in HOW:
        told = []
        cache = pair_features(data, run.backbone, run.options, report=told.append)
        assert cache.key == run.record['cache'] and not told
        for pair in make_pairs(data.of_split('train'), how, views=run.options.views):
            assert cache.has(pair.human) and cache.has(pair.robot)
    assert len(list((small.data_folder() / 'features').iterdir())) == count


def test_going_on_with_a_run(tmp_path):
    """Guards a run's folder: not overwritten by mistake; a finished one is finished."""
    folder, run, _ = small.lines('query')
    with pytest.raises(TrainingError, match='holds a run already'):
        adapt(small.data_folder(), folder, run.options, report=str)
    again = adapt(small.data_folder(), folder, run.options, resume=True, report=str)
    for name, value in run.model.trained_state().items():
        assert torch.equal(value, again.model.trained_state()[name])
    other = replace(run.options, train=replace(run.options.train, batch=5))
    with pytest.raises(TrainingError, match='batch'):
        adapt(small.data_folder(), folder, other, resume=True, report=str)


def test_partners_are_sampled_several_times(tmp_path):
    """Guards --partners: a robot clip has several humans, and each pair once."""
    options = replace(small.OPTIONS, pairs='cross_seed', partners=6, train=replace(
        small.OPTIONS.train, steps=1))
    run = adapt(small.data_folder(), tmp_path / 'run', options, report=lambda _: None)
    # 2 tasks in 2 scenes with 3 motions: each robot clip has two humans of another motion.
    assert run.record['data']['pairs'] == 24
    with pytest.raises(TrainingError, match='partners is 6, and pairs recorded'):
        adapt(small.data_folder(), tmp_path / 'no', replace(options, pairs='recorded'))


@pytest.mark.parametrize(('change', 'error', 'said'), [
    ({'trained': 'all'}, TrainingError, "'all'; allowed: adapters, query"),
    ({'pooling': 'max'}, TrainingError, "'max'; allowed: attention, mean"),
    ({'pairs': 'friends'}, DataError, "'friends': needed is one of recorded"),
    ({'views': ('side',)}, DataError, 'split train has the view side; there are: .*--view'),
    ({'position': 'last'}, ModelError, "'last'; allowed: early, middle, late"),
    ({'init': 'zero'}, ModelError, 'identity, release'),
    ({'text': 'bert'}, TrainingError, "'bert'; allowed: minilm, distilbert:FOLDER"),
    ({'text': 'distilbert:'}, TrainingError, 'allowed: minilm'),
    ({'backbone': 'resnet5'}, ModelError, 'resnet5'),
    ({'dtype': 'float8'}, TrainingError, "'float8'"),
    ({'frames': 0}, TrainingError, 'frames is 0'),
    ({'backbone': 'r3m_resnet18', 'weights': None}, ModelError,
     "no weights are named.* or 'random'"),
    ({'pairs': 'same_motion', 'train': replace(small.OPTIONS.train, batch=500)}, DataError,
     r'same_motion pairs of human and robot in the split train, needed are 500 .*--pairs'),
    # Of a long clip the cache has a few frames all over it; two seconds of them were one frame.
    ({'train': replace(small.OPTIONS.train, sampler='window', length=24), 'frames': 4}, DataError,
     r'window: 24 frames of 1.9 s, and half of the clips are 0.7 s .*--frames'),
    ({'train': replace(small.OPTIONS.train, objective='video_text'), 'pooling': 'mean'},
     TrainingError, 'use pooling attention')])
def test_wrong_options(tmp_path, monkeypatch, change, error, said):
    """Guards hours of work: what cannot be is said before any feature is computed."""
    import hralign_ros.data.features as module

    def fail(*args, **more):
        raise AssertionError('features are computed')
    monkeypatch.setattr(module, '_fill', fail)
    with pytest.raises(error, match=said):
        adapt(small.data_folder(), tmp_path / 'run', replace(small.OPTIONS, **change),
              cache=tmp_path / 'cache', report=str)
    assert not (tmp_path / 'run').exists()


def test_a_folder_that_cannot_be_written_is_found_first(tmp_path, monkeypatch):
    """Guards hours of features for a run that ends in a traceback, or in one that is there."""
    import hralign_ros.data.features as module

    def fail(*args, **more):
        raise AssertionError('features are computed')
    monkeypatch.setattr(module, '_fill', fail)
    (tmp_path / 'file').write_text('')
    with pytest.raises(TrainingError, match='no run can be written there'):
        adapt(small.data_folder(), tmp_path / 'file/run', small.OPTIONS, report=str,
              cache=tmp_path / 'cache')
    with pytest.raises(TrainingError, match='holds a run already'):
        adapt(small.data_folder(), small.run('adapted').folder, small.OPTIONS, report=str,
              cache=tmp_path / 'cache')


@pytest.mark.parametrize('setting', [{'sampler': 'flip'}, {'temperature': 0.0}])
def test_settings_that_are_refused(setting):
    """Guards the same: both were met only once all features were there."""
    with pytest.raises(TrainingError, match=next(iter(setting))):
        replace(small.OPTIONS.train, **setting)


def test_a_run_belongs_to_its_weights(tmp_path, monkeypatch):
    """
    Guards adapters behind another backbone than they were trained behind.

    A run kept the path of its weights as it was typed: with another file of that name there, or
    from another folder, its adapters were exported behind whatever that held.
    """
    path = tmp_path / 'w.pth'
    torch.save(load_backbone('r3m_resnet18', 'random', seed=1).module.state_dict(), path)
    monkeypatch.chdir(tmp_path)
    options = replace(small.OPTIONS, backbone='r3m_resnet18', weights='w.pth', frames=2,
                      train=replace(small.OPTIONS.train, steps=1, length=2))
    adapt(small.data_folder(), tmp_path / 'run', options, report=str, cache=tmp_path / 'cache')
    monkeypatch.chdir('/')
    assert load_run(tmp_path / 'run').options.weights == str(path)
    torch.save(load_backbone('r3m_resnet18', 'random', seed=2).module.state_dict(), path)
    with pytest.raises(TrainingError, match='other weights of r3m_resnet18'):
        load_run(tmp_path / 'run')


def test_videos_with_texts_need_no_batch_of_pairs(tmp_path):
    """Guards little data: the control draws its videos with replacement, and was refused."""
    options = replace(small.OPTIONS, train=replace(
        small.OPTIONS.train, objective='video_text', batch=40, steps=1))
    assert adapt(small.data_folder(), tmp_path / 'run', options, report=str).record['steps'] == 1


def test_what_is_no_run(tmp_path):
    """Guards `hralign encoder evaluate` and `export`: no run, half a run, a later version's."""
    with pytest.raises(TrainingError, match='nowhere: no finished run there'):
        load_run(tmp_path / 'nowhere')
    (tmp_path / 'run.json').write_text('{"schema_ver')
    with pytest.raises(TrainingError, match='no finished run'):
        load_run(tmp_path)
    record = dict(small.run('adapted').record)
    (tmp_path / 'run.json').write_text(json.dumps({**record, 'schema_version': 99}))
    with pytest.raises(TrainingError, match='schema 99, and this package reads 3'):
        load_run(tmp_path)
    other = {**record['options'], 'train': {**record['options']['train'], 'gone': 1}}
    (tmp_path / 'run.json').write_text(json.dumps({**record, 'options': other}))
    with pytest.raises(TrainingError, match="another version .*'gone'"):
        load_run(tmp_path)
    (tmp_path / 'run.json').write_text(json.dumps(record))
    with pytest.raises(TrainingError, match=r'best\.pt'):
        load_run(tmp_path)


def test_texts_are_encoded_once():
    """Guards the texts' table: each different text has one row, whatever the order."""
    encoder = text_encoder('minilm')
    table = text_features(encoder, ['open the box', 'shut the box', 'open the box'])
    assert sorted(table) == ['open the box', 'shut the box']
    np.testing.assert_allclose(table['shut the box'], encoder.encode(['shut the box'])[0],
                               atol=1e-6)

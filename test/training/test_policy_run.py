# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Behaviour cloning on tiny demonstrations in the real format."""

from dataclasses import replace

from hralign_ros.data.channels import Channels, write_channels
from hralign_ros.data.manifest import DataError, read_manifest, write_manifest
from hralign_ros.export.policy import write_policy
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.images import AS_IT_COMES, ViewGeometry
from hralign_ros.runtime.policy import Channel, Policy, read_policy
from hralign_ros.runtime.report import silent
from hralign_ros.runtime.video import read_frames
from hralign_ros.training.checkpoints import TrainingError
from hralign_ros.training.policy_options import PolicyOptions
from hralign_ros.training.policy_run import _observe, train_policy
import numpy as np
import pytest
from support.tiny_policy import TASK, write_demonstrations
import torch

OPTIONS = PolicyOptions(parts=('spatial', 'mean'), chunk=3, execute=2, steps=150, hidden=32,
                        bottleneck=8, batch=32, learning_rate=3e-3)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_demonstrations(tmp_path_factory.mktemp('demonstrations'))


def train(data, tiny, **changes):
    return train_policy(data, tiny, replace(OPTIONS, **changes), report=silent)


@pytest.fixture(scope='module')
def trained(data, tiny):
    return train(data, tiny)


def changed(data, tmp_path, change):
    """Copy a data set with every episode changed."""
    episodes = [change(e) for e in read_manifest(data).episodes]
    folder = tmp_path / 'changed'
    folder.mkdir()
    (folder / 'videos').symlink_to(data / 'videos')
    write_manifest(folder, episodes)
    return folder


def test_what_is_exported_is_what_was_trained(trained, tiny, data, tmp_path):
    """Guards the way from torch to the arm, and actions in their own units, scaling included."""
    folder = write_policy(trained, tmp_path / 'policy')
    encoder = Encoder.load(tiny, provider='cpu', threads=1, parts=OPTIONS.parts)
    policy = Policy.load(folder, encoder)
    spec = policy.spec
    assert spec.views == ('left', 'right') and spec.part_names == OPTIONS.parts
    assert (spec.chunk, spec.execute, spec.period_s) == (3, 2, 0.1)
    assert spec.training['demonstrations'] == 4
    episode = read_manifest(data).episodes[0]
    frames = {view: read_frames(data / file, times_s=np.asarray(episode.time_s))[0]
              for view, file in episode.robot_videos.items()}
    live = encoder.start_episode(TASK)
    errors = []
    for i, time_s in enumerate(episode.time_s):
        tick = live.step({view: frames[view][i] for view in frames},
                         stamp=1 + round(time_s * 1e9))
        made = policy.actions(tick.embedding, episode.proprio[i])
        rows = [encoder.manifest.views.index(view) for view in spec.views]
        with torch.no_grad():
            same = trained.network(torch.from_numpy(tick.embedding[rows])[None],
                                   torch.tensor(episode.proprio[i])[None])[0]
        np.testing.assert_allclose(made, same.numpy(), atol=1e-4)
        errors.append(np.abs(made[0] - episode.actions[i]))
    spread = np.std(episode.actions, axis=0)
    assert (np.mean(errors, axis=0) < 0.3 * spread).all(), 'it has learnt what can be told'


def test_it_says_what_its_embeddings_were_made_by(data, trained, tiny, tmp_path):
    """Guards a policy against an encoder that is set otherwise: demonstrations may be turned."""
    encoder = Encoder.load(tiny, provider='cpu', threads=1)
    spec = read_policy(write_policy(trained, tmp_path / 'plain'))
    learnt = spec.embedding
    assert (learnt.sha256, learnt.precision, learnt.pooling) == (
        encoder.identity.sha256, 'fp32', 'attention')
    assert learnt.ingredients == encoder.identity.only(spec.part_names)
    assert learnt.geometry == dict.fromkeys(spec.views, AS_IT_COMES)
    half = ViewGeometry(180, (0.0, 0.0, 0.5, 1.0))
    odd = changed(data, tmp_path, lambda e: replace(e, geometry={'left': half, **(
        {'right': half} if e.episode_id == 'demo_0' else {})}))
    spec = read_policy(write_policy(train(odd, tiny, steps=2), tmp_path / 'turned'))
    assert spec.embedding.geometry == {'left': half}
    policy = Policy.load(tmp_path / 'turned', Encoder.load(
        tiny, provider='cpu', threads=1, **spec.encoder_options))
    assert 'does not say how images of right' in policy.remark


def test_the_same_seed_is_the_same_policy(trained, data, tiny, tmp_path):
    """Guards that results can be made again, and that seeds differ."""
    one, again, other = (
        read_policy(write_policy(policy, tmp_path / name)) for name, policy in (
            ('one', trained), ('again', train(data, tiny)), ('other', train(data, tiny, seed=1))))
    assert one.graph_sha256 == again.graph_sha256 != other.graph_sha256


def test_a_chunk_is_what_comes_next(data):
    """Guards the labels: behind the end of a demonstration nothing is learnt."""
    episode = read_manifest(data).episodes[0]
    found = _observe(episode, None, (), (), (1, 0), 3, np.ones(12))
    actions = np.asarray(episode.actions, np.float32)
    np.testing.assert_array_equal(found.actions[2], actions[2:5])
    np.testing.assert_array_equal(found.there[-3:], [[1, 1, 1], [1, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(
        found.proprio, np.asarray(episode.proprio, np.float32)[:, [1, 0]])
    assert found.embedding.shape == (len(actions), 0, 0)


def test_the_newest_frame_by_then(data):
    """Guards data sets whose cameras have other times, or whose episodes begin within a file."""
    episode = replace(read_manifest(data).episodes[0], time_s=[12.0 + 0.1 * i for i in range(12)])
    frames = {'time_s': np.array([12.0004, 12.0999, 12.25, 12.3, 14.0]),
              'mean': np.arange(5, dtype=np.float32)[:, None, None].repeat(2, 1)}
    found = _observe(episode, frames, ('mean',), (1,), (), 3, np.ones(12))
    assert found.embedding[:, 0, 0].tolist() == [0, 1, 1, 3, 3, 3, 3, 3, 3, 3, 3, 3]


def test_without_a_camera(data, tiny, tmp_path):
    """Guards the baseline that sees nothing: it has no embedding, and needs no bundle."""
    write_policy(train(data, tiny, camera=False), tmp_path / 'blind')
    policy = Policy.load(tmp_path / 'blind')
    assert policy.spec.parts == () and policy.spec.bundle_sha256 == ''
    assert policy.actions(None, np.zeros(3)).shape == (3, 2)


def test_channels_are_chosen_by_name(data, tiny, tmp_path):
    """Guards what a policy knows: an object's place only where it is asked for."""
    folder = changed(data, tmp_path, lambda e: e)
    write_channels(folder, Channels(
        (Channel('tool.x', 'm'), Channel('object.x', 'm'), Channel('width', 'm')),
        (Channel('tool.dx', 'm'), Channel('gripper'))))
    plain = train(folder, tiny, camera=False, steps=2)
    assert [one.name for one in plain.proprio] == ['tool.x', 'width']
    assert plain.actions[0] == Channel('tool.dx', 'm')
    chosen = train(folder, tiny, camera=False, steps=2, proprio=('object.x', 'tool.x'))
    assert [one.name for one in chosen.proprio] == ['object.x', 'tool.x']
    with pytest.raises(TrainingError, match='no proprioception tool.z in the data; it has tool.x'):
        train(folder, tiny, camera=False, steps=2, proprio=('tool.z',))


def test_options_that_do_not_suit(data, tiny):
    for changes, words in (
            ({'parts': ('fingers',)}, 'parts fingers: .* makes spatial, keypoints'),
            ({'episodes': 9}, '4 demonstrations of cup; 9 were asked for'),
            ({'execute': 4}, 'execute is 4; allowed is chunk, 3')):
        with pytest.raises((DataError, TrainingError), match=words):
            train(data, tiny, **changes)
    with pytest.raises(TrainingError, match='no demonstration with actions of plate'):
        train_policy(data, tiny, OPTIONS, task='plate', report=silent)


@pytest.mark.parametrize(('change', 'words'), [
    (lambda e: replace(e, actions=()), 'no demonstration with actions'),
    (lambda e: replace(e, success=False), 'no demonstration with actions'),
    (lambda e: replace(e, task_id=e.episode_id), 'demonstrations of demo_0, demo_1'),
    (lambda e: replace(e, time_s=[(1 + (e.episode_id == 'demo_1')) * t for t in e.time_s]),
     'needed is one rate'),
    (lambda e: replace(e, proprio=[[0.0]] * 12) if e.episode_id == 'demo_3' else e,
     'proprio has 1 numbers a frame'),
], ids=['no actions', 'failed', 'tasks', 'rates', 'channels'])
def test_data_that_does_not_suit(data, tiny, tmp_path, change, words):
    with pytest.raises((DataError, TrainingError), match=words):
        train(changed(data, tmp_path, change), tiny, camera=False)

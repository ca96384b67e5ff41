# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Weights of RA-BC, by hand, and what is refused."""

from dataclasses import replace

from hralign_ros.data.manifest import DataError, read_manifest, write_manifest
from hralign_ros.export.policy import write_policy
from hralign_ros.runtime.policy import Policy
from hralign_ros.runtime.report import silent
from hralign_ros.training.policy_options import PolicyOptions
from hralign_ros.training.policy_run import train_policy
from hralign_ros.training.sample_weights import read_weights
import numpy as np
import pyarrow as pa
from pyarrow import parquet
import pytest
from support.tiny_policy import PROPRIO, write_demonstrations

FRAMES = 12


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Demonstrations as `hralign data import lerobot` names them."""
    folder = write_demonstrations(tmp_path_factory.mktemp('weighted'), frames=FRAMES)
    write_manifest(folder, [
        replace(e, episode_id=f'episode_{number:06d}', source='lerobot', success=None)
        for number, e in enumerate(read_manifest(folder).episodes)])
    return folder


def episodes_of(data):
    return read_manifest(data).episodes


def write(path, progress, **more):
    """Write what `hralign data label` does; progress [episodes][frames]."""
    numbers = np.repeat(np.arange(len(progress)), [len(one) for one in progress])
    frames = np.concatenate([np.arange(len(one)) for one in progress])
    order = np.random.default_rng(0).permutation(len(numbers))
    columns = {'episode_index': numbers, 'frame_index': frames,
               'progress_sparse': np.concatenate(progress).astype(np.float32), **more}
    parquet.write_table(pa.table({name: np.asarray(column)[order]
                                  for name, column in columns.items()}), path)
    return path


def test_a_frame_counts_by_what_progress_gains(data, tmp_path):
    """
    Guards the formula, on gains that can be told by hand: the last are over a shorter chunk.

    Gains over 2 frames are .04 (full), 0 (by the spread of all gains), and below 0 (not at all).
    """
    rising, resting = np.linspace(0.0, 0.22, FRAMES), np.full(FRAMES, 0.5)
    falling, unknown = rising[::-1], np.full(FRAMES, np.nan)
    found = read_weights(write(tmp_path / 'p', [rising, resting, falling, unknown]),
                         episodes_of(data), chunk=2)
    gains = np.array([0.04] * (FRAMES - 2) + [0.02, 0.0])
    every = np.concatenate([gains, np.zeros(FRAMES), -gains])
    resting_counts = 2 * every.std() / (4 * every.std())
    np.testing.assert_allclose(found[0], [1.0] * (FRAMES - 1) + [resting_counts], atol=1e-3)
    np.testing.assert_allclose(found[1], resting_counts, atol=1e-3)
    np.testing.assert_allclose(found[2], [0.0] * (FRAMES - 1) + [resting_counts], atol=1e-3)
    np.testing.assert_array_equal(found[3], 1.0, 'nothing is known of them')


def test_success_can_take_the_place_of_progress(data, tmp_path):
    """Guards taught tasks, of which a file has a probability and no progress."""
    one, other = np.linspace(0.0, 1.0, FRAMES), np.linspace(1.0, 0.0, FRAMES)
    path = write(tmp_path / 'p', [np.full(FRAMES, np.nan)] * 4,
                 success=np.concatenate([one, other, one, other]))
    with pytest.raises(DataError, match='no number for any of 4.*--sample-weights-of success'):
        read_weights(path, episodes_of(data), chunk=2)
    found = read_weights(path, episodes_of(data), chunk=2, signal='success')
    assert found[0][0] == 1.0 and found[1][0] == 0.0


@pytest.mark.parametrize(('progress', 'said'), [
    ([np.zeros(FRAMES)] * 3, 'has no episode 3; it has 3 episodes'),
    ([np.zeros(FRAMES)] * 3 + [np.zeros(FRAMES - 1)], 'has 11 frames of episode 3, which has 12'),
])
def test_labels_of_other_frames_are_refused(data, tmp_path, progress, said):
    """Guards policies against weights of a data set that has other episodes, or other frames."""
    path = write(tmp_path / 'p', progress)
    with pytest.raises(DataError, match=said):
        read_weights(path, episodes_of(data), chunk=2)


def test_frames_that_are_there_twice_are_refused(data, tmp_path):
    """Guards weights against a file of two data sets, one behind the other."""
    path = write(tmp_path / 'p', [np.zeros(FRAMES)] * 4,
                 frame_index=np.tile(np.arange(FRAMES) // 2, 4))
    with pytest.raises(DataError, match='frames of episode 0 are not numbered from 0 on'):
        read_weights(path, episodes_of(data), chunk=2)


def test_what_is_no_file_of_labels_is_refused(data, tmp_path):
    """Guards the messages: which file, which columns, and what to do."""
    for path in (tmp_path / 'absent', data / 'manifest.parquet'):
        with pytest.raises(DataError, match=r'episode_index, frame_index and progress_sparse'):
            read_weights(path, episodes_of(data), chunk=2)
    path = write(tmp_path / 'p', [np.zeros(FRAMES)] * 4)
    with pytest.raises(DataError, match='and success'):
        read_weights(path, episodes_of(data), chunk=2, signal='success')
    named = [replace(e, episode_id='demo_0', source='folder') for e in episodes_of(data)[:1]]
    with pytest.raises(DataError, match='no episode of a LeRobot data set'):
        read_weights(path, named, chunk=2)


def test_demonstrations_of_which_no_frame_counts_are_refused(data, tmp_path):
    """Guards against a policy that has learnt nothing: all others gain, and this one loses."""
    rising, falling = np.linspace(0.0, 1.0, FRAMES), np.linspace(0.001, 0.0, FRAMES)
    path = write(tmp_path / 'p', [falling, *[rising] * 40])
    with pytest.raises(DataError, match='weight of every frame of 1 demonstrations is 0'):
        read_weights(path, episodes_of(data)[:1], chunk=1)


def test_frames_without_weight_are_not_learnt_from(data, tiny, tmp_path):
    """Guards the way into the loss: two demonstrations do the opposite, and lose progress."""
    opposite = tmp_path / 'opposite'
    opposite.mkdir()
    write_manifest(opposite, [
        e if number < 2 else replace(e, actions=(-np.asarray(e.actions)).tolist())
        for number, e in enumerate(episodes_of(data))])
    rising = np.linspace(0.0, 1.0, FRAMES)
    path = write(tmp_path / 'p', [rising, rising, rising[::-1], rising[::-1]])
    joints = np.random.default_rng(1).normal(size=(50, PROPRIO)).astype(np.float32)
    errors, notes = {}, {}
    for name, weights in (('alike', None), ('weighted', path)):
        trained = train_policy(
            opposite, tiny, PolicyOptions(camera=False, chunk=1, execute=1, steps=400, hidden=32,
                                          batch=16), weights=weights, report=silent)
        policy = Policy.load(write_policy(trained, tmp_path / name))
        errors[name] = np.mean([abs(policy.actions(None, row)[0, 1] - row[0]) for row in joints])
        notes[name] = policy.spec.training.get('weights')
    assert errors['weighted'] < 0.6 * errors['alike']
    assert notes['alike'] is None and notes['weighted']['of'] == 'progress'
    assert 0.4 < notes['weighted']['mean'] < 0.6

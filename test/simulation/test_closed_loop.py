# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""An arm that takes commands, its expert, and policies in closed loop. Needs the simulators."""

import pytest

pytest.importorskip('robosuite', reason='the simulators are not installed')

from hralign_ros.data.channels import read_channels  # noqa: E402, I100
from hralign_ros.data.manifest import DataError, read_manifest  # noqa: E402, I100
from hralign_ros.data.rollouts import read_rollouts  # noqa: E402, I100
from hralign_ros.runtime import default_bundle, Encoder  # noqa: E402, I100
from hralign_ros.runtime.errors import PolicyError  # noqa: E402, I100
from hralign_ros.runtime.policy import Policy, read_policy  # noqa: E402, I100
from hralign_ros.runtime.report import silent  # noqa: E402, I100
from hralign_ros.runtime.video import frame_times  # noqa: E402, I100
from hralign_ros.simulation import arm, closed_loop  # noqa: E402, I100
from hralign_ros.simulation.arm import ACTIONS, ArmWorld, STATE  # noqa: E402, I100
from hralign_ros.simulation.demonstrate import simulate_demonstrations  # noqa: E402, I100
from hralign_ros.simulation.expert import Expert, FAILURES  # noqa: E402, I100
import numpy as np  # noqa: E402, I100
import yaml  # noqa: E402, I100


@pytest.fixture(scope='module')
def world():
    world = ArmWorld('lift')
    yield world
    world.close()


class Down(Policy):
    """A policy that always goes down, without a graph: onnx is not beside the simulators."""

    @classmethod
    def load(cls, folder, encoder=None, *, threads=1):
        policy = cls.__new__(cls)
        policy.spec, policy.remark = read_policy(folder), ''
        return policy

    def actions(self, embedding, proprio):
        assert (embedding is not None) == bool(self.spec.parts) and len(proprio) == 3
        return np.tile(np.array([0.0, 0.0, -0.02, -1.0], np.float32), (8, 1))


@pytest.fixture
def down(monkeypatch):
    monkeypatch.setattr(closed_loop, 'Policy', Down)


def write_policy(folder, parts=(), **values):
    """Write policy.yaml."""
    folder.mkdir(parents=True)
    (folder / 'policy.yaml').write_text(yaml.safe_dump({
        'schema_version': 1, 'task': 'lift the cube', 'graph_sha256': '0' * 64,
        'views': ['wrist', 'third_person'] if parts else [],
        'parts': [{'name': part.name, 'shape': list(part.shape)} for part in parts],
        'proprio': [{'name': one.name} for one in STATE[:3]],
        'actions': [{'name': one.name} for one in ACTIONS], 'chunk': 8, 'execute': 4,
        'period_s': 0.1, 'training': {'task_id': 'lift', 'embodiments': ['panda'],
                                      'scenes': ['lab-1']}, **values}), 'utf-8')
    return folder


def test_a_start_is_the_same_again(world):
    """Guards pairs: a seed is one start, whatever was done before; another is another."""
    world.reset(5)
    state, images = world.state(), world.images()
    for _ in range(5):
        world.act(np.array([0.03, 0.0, -0.03, 1.0]))
    assert world.time_s == 0.5
    world.reset(5)
    np.testing.assert_array_equal(world.state(), state)
    for view, image in world.images().items():
        assert image.shape == (192, 256, 3)
        np.testing.assert_array_equal(image, images[view])
    world.reset(6)
    assert np.abs(world.state()[4:6] - state[4:6]).max() > 1e-3


def test_commands_are_followed(world):
    """Guards the meaning of actions: metres along the world's axes; the gripper closes above 0."""
    world.reset(5)
    start = world.state()
    for _ in range(8):
        world.act(np.array([0.0, 0.02, 0.0, 1.0]))
    moved = world.state() - start
    assert moved[1] > 0.04 and abs(moved[0]) < 0.02 and abs(moved[2]) < 0.02
    assert moved[3] < -0.02
    for _ in range(8):
        world.act(np.array([0.0, 0.0, 0.0, -1.0]))
    assert world.state()[3] > start[3] - 0.01


def test_the_expert_finds_its_way_back(world):
    """Guards the labels: knocked aside on its way, it lifts the cube all the same."""
    world.reset(5)
    expert = Expert(world, np.random.default_rng(0))
    while world.time_s < world.limit_s and not world.accomplished:
        action = expert.action()
        if 0.5 < world.time_s < 1.0:
            action = np.array([0.05, 0.05, 0.0, -1.0])
        world.act(action)
    assert world.accomplished


def test_demonstrations_are_a_data_set(tmp_path):
    """Guards what a policy learns from, and resuming: what is there is not made again."""
    simulate_demonstrations(tmp_path, tasks=('lift',), episodes=1, report=silent)
    episode, = read_manifest(tmp_path).episodes
    assert episode.success and episode.task_text == 'lift the cube'
    assert read_channels(read_manifest(tmp_path)).actions == ACTIONS
    actions = np.array(episode.actions)
    assert actions.shape == (len(episode.time_s), 4)
    assert set(actions[:, 3]) == {-1.0, 1.0}
    for file in episode.robot_videos.values():
        np.testing.assert_allclose(frame_times(tmp_path / file), episode.time_s, atol=1e-6)
    with pytest.raises(DataError, match='add --resume'):
        simulate_demonstrations(tmp_path, tasks=('lift',), episodes=1, report=silent)
    before = (tmp_path / next(iter(episode.robot_videos.values()))).stat().st_mtime_ns
    simulate_demonstrations(tmp_path, tasks=('lift',), episodes=2, resume=True, report=silent)
    assert len(read_manifest(tmp_path).episodes) == 2
    assert (tmp_path / next(iter(episode.robot_videos.values()))).stat().st_mtime_ns == before


def test_attempts_that_fail_look_like_demonstrations(tmp_path):
    """Guards labels that are tried on them: each kind fails, with commands as good ones have."""
    simulate_demonstrations(tmp_path, tasks=('lift',), episodes=1, failing=4, report=silent)
    episodes = read_manifest(tmp_path).episodes
    failed = [e for e in episodes if not e.success]
    assert len(episodes) == 5 and {e.failure for e in failed} == set(FAILURES)
    assert not any(any(e.success_flags) for e in failed)
    for episode in failed:
        actions = np.array(episode.actions)
        assert actions.shape == (len(episode.time_s), 4)
        assert np.abs(actions[:, :3]).max() > 0.02, 'it moves'
        assert (1.0 in actions[:, 3]) == (episode.failure in ('near_miss', 'drops')), 'it closes'


def test_attempts_are_made_once(tmp_path, monkeypatch, down):
    """Guards resuming and pairs: the same seeds for both, only what is missing is made."""
    monkeypatch.setitem(arm.LIMIT_S, 'lift', 0.8)
    bundle = default_bundle()
    encoder = Encoder.load(bundle, provider='cpu', threads=1, parts=('mean',))
    policies = [write_policy(tmp_path / 'blind'),
                write_policy(tmp_path / 'seeing', encoder.parts,
                             bundle_sha256=encoder.bundle.sha256)]
    output = tmp_path / 'attempts'
    found = closed_loop.evaluate_policies(policies, output, bundle, episodes=2, report=silent)
    assert [(one.policy, one.seed, one.success) for one in found] == [
        ('blind', 100_000, False), ('blind', 100_001, False),
        ('seeing', 100_000, False), ('seeing', 100_001, False)]
    with pytest.raises(DataError, match='add --resume'):
        closed_loop.evaluate_policies(policies, output, bundle, report=silent)
    lines = (output / 'rollouts.jsonl').read_text('utf-8').splitlines(keepends=True)
    (output / 'rollouts.jsonl').write_text(''.join(lines[:3]) + lines[3][:20], 'utf-8')
    monkeypatch.setattr(closed_loop, 'roll', lambda *_: (True, 0.5))
    again = closed_loop.evaluate_policies(
        policies, output, bundle, episodes=2, resume=True, report=silent)
    assert [one.success for one in again] == [False, False, False, True]
    assert len(read_rollouts(output)) == 4


@pytest.mark.parametrize(('values', 'words'), [
    ({'actions': [{'name': f'joint_{i}'} for i in range(4)]}, 'its actions are joint_0'),
    ({'proprio': [{'name': f'joint_{i}'} for i in range(3)]}, 'it wants joint_0'),
    ({'period_s': 0.05}, 'its period is 0.05 s'),
    ({'training': {}}, 'does not say the task_id'),
])
def test_a_policy_that_does_not_suit_the_arm(tmp_path, values, words):
    folder = write_policy(tmp_path / 'p', **values)
    with pytest.raises(PolicyError, match=words):
        closed_loop.evaluate_policies([folder], tmp_path / 'out', default_bundle(), report=silent)


def test_frames_that_are_looked_at(tmp_path, world, monkeypatch):
    """Guards speed and clips: one frame a chunk, or those that a clip is made of."""
    seen = []
    plain = world.images
    monkeypatch.setattr(world, 'images', lambda: seen.append(world.time_s) or plain())
    monkeypatch.setattr(world, 'limit_s', 1.2)
    bundle = default_bundle()
    for parts, times in ((('mean',), [0.0, 0.4, 0.8]),
                         (('clip',), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])):
        encoder = Encoder.load(bundle, provider='cpu', threads=1, parts=parts)
        policy = Down.load(write_policy(
            tmp_path / parts[0], encoder.parts, bundle_sha256=encoder.bundle.sha256))
        seen.clear()
        assert closed_loop.roll(world, policy, encoder, 7) == (False, 1.2)
        assert seen == times


def test_unknown_places():
    for words, given in (("task 'fold'", {'task_id': 'fold'}),
                         ("arm 'hand'", {'task_id': 'lift', 'embodiment': 'hand'}),
                         ("lab 'train-1'", {'task_id': 'lift', 'lab': 'train-1'})):
        with pytest.raises(DataError, match=words):
            ArmWorld(**given)

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The plugin, by LeRobot's own registries, factories and pipelines; skipped where LeRobot is not.

In an environment that has it and the plugin: pip install 'pytest<8' pytest-timeout onnx, then
python -m pytest --noconftest test/lerobot_plugin.
"""

import json
import sys

from lerobot.envs.configs import (
    HILSerlProcessorConfig,
    HILSerlRobotEnvConfig,
    ResetConfig,
    RewardClassifierConfig,
)
from lerobot.lerobot_types import TransitionKey
from lerobot.processor import DataProcessorPipeline, VanillaObservationProcessorStep
from lerobot.processor.converters import create_transition, identity_transition
from lerobot.rewards.factory import (
    get_reward_model_class,
    make_reward_model,
    make_reward_model_config,
    make_reward_pre_post_processors,
)
from lerobot.rl import gym_manipulator
from lerobot.utils.import_utils import register_third_party_plugins
import lerobot_policy_hralign as plugin
from lerobot_policy_hralign.__main__ import main
from lerobot_policy_hralign.hil_serl import with_hralign
from lerobot_policy_hralign.player import as_image
import numpy as np
import pytest
from support.tiny_bundle import robot_bundle, ROBOT_VIEWS
import torch

TASK = 'pick up the cup'
# Of an episode's first frames, by the tiny bundle: 2, 4, 6 and 6 frames of two views count.
PROBABILITIES = [0.5, 0.7310586, 0.8807971, 0.8807971]


def images(*shape, seed=0):
    """Make images of every view."""
    rng = np.random.default_rng(seed)
    return {f'observation.images.{view}': torch.from_numpy(
        rng.integers(0, 255, (*shape, 3, 16, 16), np.uint8)) for view in ROBOT_VIEWS}


def make(**more):
    """Make the model as LeRobot does."""
    register_third_party_plugins()
    return make_reward_model(make_reward_model_config(
        'hralign', **{'bundle': str(robot_bundle()), 'device': 'cpu', 'task': TASK,
                      'fps': 5.0} | more))


def test_lerobot_finds_it():
    """Guards the name of the distribution, the modules and the classes: LeRobot goes by these."""
    model = make()
    assert type(model) is get_reward_model_class('hralign') and not model.is_trainable
    before, _ = make_reward_pre_post_processors(model.config)
    rewards = model.compute_reward(before({**images(4), 'task': [TASK] * 4}))
    assert rewards.dtype == torch.float32
    np.testing.assert_allclose(rewards, PROBABILITIES, rtol=1e-5)


def test_where_an_episode_begins():
    """Guards a reward that would be of two attempts at once."""
    model = make()
    model.compute_reward(images(2))
    np.testing.assert_allclose(model.compute_reward(images(1)), PROBABILITIES[2:3], rtol=1e-5)
    model.reset()
    np.testing.assert_allclose(model.compute_reward(images(1)), PROBABILITIES[:1], rtol=1e-5)
    many = {**images(4), 'episode_index': torch.tensor([7, 7, 8, 8]),
            'timestamp': torch.tensor([3.0, 3.2, 0.0, 0.2])}
    np.testing.assert_allclose(model.compute_reward(many), PROBABILITIES[:2] * 2, rtol=1e-5)
    back = {**images(2), 'timestamp': torch.tensor([1.0, 0.5])}
    np.testing.assert_allclose(model.compute_reward(back), PROBABILITIES[:1] * 2, rtol=1e-5)
    clips = {**images(2, 3), 'task': [TASK, 'lift the cup']}
    np.testing.assert_allclose(model.compute_reward(clips), PROBABILITIES[2:3] * 2, rtol=1e-5)


def test_what_a_reward_is():
    """Guards the three kinds; a task without calibration has no probability."""
    progress = make(reward_output='progress').compute_reward(images(3))
    np.testing.assert_allclose(progress, [1 / 3, 2 / 3, 1.0], rtol=1e-5)
    decided = make(reward_output='decision').compute_reward(images(6))
    # Above the threshold from the third frame on, for .3 s.
    assert decided.tolist() == [0, 0, 0, 0, 1, 1]
    assert torch.isnan(make().compute_reward({**images(1), 'task': 'open the drawer'})).all()
    with pytest.raises(ValueError, match='reward_output is .*allowed: success'):
        plugin.HralignConfig(reward_output='value')


def test_what_cannot_be_judged():
    """Guards silent nonsense: normalised images, wrong keys, no instruction."""
    model = make()
    with pytest.raises(KeyError, match='no images of observation.images.wrist.*cameras'):
        model.compute_reward({'observation.images.top': torch.zeros(1, 3, 16, 16)})
    normal = {key: (value / 255 - 0.5) / 0.2 for key, value in images(1).items()}
    with pytest.raises(ValueError, match='before they are normalised'):
        model.compute_reward(normal)
    with pytest.raises(ValueError, match='no instruction'):
        make(task='').compute_reward(images(1))
    with pytest.raises(ValueError, match="'task' has 2 instructions for 3 rows"):
        model.compute_reward({**images(3), 'task': [TASK] * 2})
    for wrong in (-3.0, float('nan')):
        with pytest.raises(ValueError, match='seconds from 0 up'):
            model.compute_reward({**images(1), 'timestamp': torch.tensor([wrong])})
    with pytest.raises(ValueError, match='views of this bundle are wrist, third_person'):
        make(cameras={'front': 'observation.images.front'})
    whole = images(1)['observation.images.wrist'][0]
    np.testing.assert_array_equal(as_image(whole / 255), as_image(whole))
    np.testing.assert_array_equal(as_image(whole.permute(1, 2, 0)), as_image(whole))


def test_a_camera_that_is_named_and_not_there():
    """
    It is an error, which says what there is.

    With a slip in one of two names the model judged by the other camera alone, without a word.
    """
    model = make(cameras={'wrist': 'observation.images.wirst',
                          'third_person': 'observation.images.third_person'})
    with pytest.raises(KeyError, match='no images of observation.images.wirst; there are '
                       'observation.images.third_person, observation.images.wrist'):
        model.compute_reward(images(1))
    # Nobody has named cameras here: one of them is enough.
    one = {'observation.images.wrist': images(1)['observation.images.wrist']}
    assert make().compute_reward(one).shape == (1,)


@pytest.mark.parametrize('output', plugin.configuration_hralign.OUTPUTS)
def test_clips_have_times(output):
    """
    The same frames give the same reward as a clip and as rows.

    The times of a clip's frames were not looked at: 12 frames at 30 Hz counted as 2.4 s by the
    configuration's 5 Hz, long enough to decide SUCCESS, and as .4 s where they came as rows.
    """
    model = make(reward_output=output)
    times = torch.arange(12) / 30.0
    frames = images(12)
    rows = model.compute_reward({**frames, 'timestamp': times})
    model.reset()
    clips = {key: torch.stack([value, value]) for key, value in frames.items()}
    for given in (torch.stack([times, times]), torch.stack([times, times + 7.0])):
        np.testing.assert_array_equal(
            model.compute_reward({**clips, 'timestamp': given}), [rows[-1]] * 2)
    clip = {key: value[None] for key, value in frames.items()}
    assert model.compute_reward({**clip, 'timestamp': times}) == rows[-1]
    # LeRobot gives a row's own time where it stacks images only; it says nothing of the others.
    np.testing.assert_array_equal(
        model.compute_reward({**clips, 'timestamp': times[-2:]}), model.compute_reward(clips))


def test_clips_that_cannot_be_judged():
    """A clip of no frames ended with an UnboundLocalError."""
    model = make()
    with pytest.raises(ValueError, match=r'clips of \[0\] frames; needed is one number above 0'):
        model.compute_reward(images(2, 0))
    with pytest.raises(ValueError, match='clips of 3 frames have 2 timestamps each'):
        model.compute_reward({**images(2, 3), 'timestamp': torch.zeros(2, 2)})
    with pytest.raises(ValueError, match='3 timestamps for 2 rows'):
        model.compute_reward({**images(2), 'timestamp': torch.arange(3)})
    with pytest.raises(ValueError, match='a row of one frame has 2 timestamps'):
        model.compute_reward({**images(2), 'timestamp': torch.zeros(2, 2)})


def test_the_command_writes_over_nothing_else(tmp_path, monkeypatch, capsys):
    """Given the folder of a policy by mistake, it replaced the policy's config.json."""
    def run_main(folder, *more):
        monkeypatch.setattr(sys, 'argv', [
            'x', str(folder), '--task', TASK, '--bundle', str(robot_bundle()), *more])
        main()

    config = tmp_path / 'policy/config.json'
    config.parent.mkdir()
    for text in ('{"type": "act"}', '[]', '{"a": 1', ''):
        config.write_text(text)
        with pytest.raises(SystemExit):
            run_main(config.parent)
        assert 'config.json is' in capsys.readouterr().err
        assert [path.name for path in config.parent.iterdir()] == ['config.json']
        assert config.read_text() == text
    with pytest.raises(SystemExit):
        run_main(config)
    with pytest.raises(SystemExit):
        run_main(tmp_path / 'reward', '--camera', 'wrist')
    assert 'needed is VIEW=KEY' in capsys.readouterr().err
    for _ in range(2):
        run_main(tmp_path / 'reward')
    assert json.loads((tmp_path / 'reward/config.json').read_text())['type'] == 'hralign'


def test_saved_and_loaded(tmp_path):
    """Guards what is handed to another computer: the bundle goes along."""
    model = make()
    model.save_pretrained(tmp_path / 'reward')
    config = json.loads((tmp_path / 'reward/config.json').read_text())
    assert (config['type'], config['bundle'], config['task']) == ('hralign', 'bundle', TASK)
    again = type(model).from_pretrained(tmp_path / 'reward')
    assert again.player.encoder.bundle.path == tmp_path / 'reward/bundle'
    np.testing.assert_array_equal(again.compute_reward(images(2)), model.compute_reward(images(2)))
    with pytest.raises(FileNotFoundError, match='hf download'):
        type(model).from_pretrained(tmp_path / 'nothing')


def run(step, count, **more):
    """Put frames through LeRobot's pipeline."""
    pipeline = DataProcessorPipeline([step], to_transition=identity_transition,
                                     to_output=identity_transition)
    for row in range(count):
        yield pipeline(create_transition(
            observation={key: value[row:row + 1] for key, value in images(count).items()}, **more))


def test_step():
    """Guards HIL-SERL: reward and end come with the decision; a reset begins an episode."""
    step = plugin.HralignRewardProcessorStep(bundle=str(robot_bundle()), task=TASK, fps=5.0)
    for _ in range(2):
        seen = list(run(step, 5))
        assert [one[TransitionKey.REWARD] for one in seen] == [0, 0, 0, 0, 1]
        assert [one[TransitionKey.DONE] for one in seen] == [False] * 4 + [True]
        assert [one[TransitionKey.INFO]['hralign.decision'] for one in seen] == [
            'RUNNING'] * 4 + ['SUCCESS']
        step.reset()
    # What the operator says stays.
    first = next(run(step, 1, reward=1.0, done=True))
    assert (first[TransitionKey.REWARD], first[TransitionKey.DONE]) == (1.0, True)
    again = type(step)(**step.get_config())
    assert again.get_config() == step.get_config() and json.dumps(step.get_config())


def test_step_of_several_environments():
    """A vector environment had the reward of its first one; it is refused."""
    step = plugin.HralignRewardProcessorStep(bundle=str(robot_bundle()), task=TASK, fps=5.0)
    with pytest.raises(ValueError, match='observation.images.wrist are of 2 environments'):
        step(create_transition(observation=images(2)))


def test_progress_as_reward():
    """Guards the other shaping: what progress has grown by, and none across a reset."""
    step = plugin.HralignRewardProcessorStep(
        bundle=str(robot_bundle()), task=TASK, fps=5.0, shaping='progress',
        terminate_on_success=False)
    for _ in range(2):
        seen = list(run(step, 5, reward=0.5))
        np.testing.assert_allclose([one[TransitionKey.REWARD] for one in seen],
                                   [0.5, 0.5 + 1 / 3, 0.5 + 1 / 3, 0.5, 0.5], rtol=1e-5)
        assert not any(one[TransitionKey.DONE] for one in seen)
        step.reset()


def test_pipeline_of_hil_serl(tmp_path):
    """Guards the place: where the classifier would be, but on whole images."""
    make(cameras={'wrist': 'observation.images.wrist'}).save_pretrained(tmp_path)
    for path, there in ((str(tmp_path), 1), (None, 0)):
        cfg = HILSerlRobotEnvConfig(name='gym_hil', fps=10, processor=HILSerlProcessorConfig(
            reset=ResetConfig(terminate_on_success=False),
            reward_classifier=RewardClassifierConfig(pretrained_path=path, success_reward=2.0)))
        environment, _ = with_hralign(gym_manipulator.make_processors)(None, None, cfg)
        kinds = [type(one).__name__ for one in environment.steps]
        assert kinds.count('HralignRewardProcessorStep') == there
        if there:
            place = kinds.index('HralignRewardProcessorStep')
            step = environment.steps[place]
            assert isinstance(environment.steps[place - 1], VanillaObservationProcessorStep)
            assert (step.success_reward, step.terminate_on_success) == (2.0, False)
            assert list(step._player.keys) == ['wrist']

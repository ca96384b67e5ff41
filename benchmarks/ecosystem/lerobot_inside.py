# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What LeRobot's own code makes of our labels and of our plugin; runs in LeRobot's environment.

    LEROBOT/bin/python benchmarks/ecosystem/lerobot_inside.py DATASET FOLDER

DATASET has been labelled with `hralign data label --stamp`; FOLDER is for what is written. Prints
a line of JSON at the end.
"""

import json
import logging
from pathlib import Path
import sys
from typing import Any

import lerobot
from lerobot.datasets import LeRobotDataset
from lerobot.envs.configs import (
    HILSerlProcessorConfig,
    HILSerlRobotEnvConfig,
    ResetConfig,
    RewardClassifierConfig,
)
from lerobot.lerobot_types import TransitionKey
from lerobot.rewards.factory import (
    get_reward_model_class,
    make_reward_model,
    make_reward_model_config,
    make_reward_pre_post_processors,
)
from lerobot.rewards.sarm.rabc import RABCWeights
from lerobot.rl import gym_manipulator
from lerobot.utils.import_utils import register_third_party_plugins
import numpy as np
import torch

CAMERAS = {view: f'observation.images.{view}' for view in ('wrist', 'third_person')}
TASK = 'lift the cube'


def weights(root: Path) -> dict[str, Any]:
    """Load the data set and the weights, and weigh a batch of LeRobot's loader."""
    data = LeRobotDataset('local/labelled', root=root)
    weighter = RABCWeights(root / 'hralign_progress.parquet', chunk_size=10,
                           device=torch.device('cpu'))
    loader = torch.utils.data.DataLoader(
        data, batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(0))
    batch = next(iter(loader))
    found, statistics = weighter.compute_batch_weights(batch)
    assert weighter.get_stats()['num_frames'] == len(data)
    assert len(found) == 32 and abs(float(found.sum()) - 32) < 1e-2, found
    assert batch['next.success'].dtype == torch.bool
    return {'frames': len(data), 'episodes': data.num_episodes,
            'zero_weights': statistics['num_zero_weight'],
            'full_weights': statistics['num_full_weight'],
            'delta_mean': weighter.delta_mean, 'delta_std': weighter.delta_std,
            'success_source': data.meta.features['next.success']['info']['source']}


def reward(root: Path, folder: Path) -> dict[str, Any]:
    """Find the plugin by LeRobot's registry, and judge an episode; save it and load it again."""
    register_third_party_plugins()
    model = make_reward_model(make_reward_model_config('hralign', device='cpu'))
    assert type(model) is get_reward_model_class('hralign')
    before, _ = make_reward_pre_post_processors(model.config)
    data = LeRobotDataset('local/labelled', root=root)
    rows = [data[row] for row in range(int(data.meta.episodes[0]['dataset_to_index']))]
    batch = {key: torch.stack([row[key] for row in rows])
             for key in (*CAMERAS.values(), 'timestamp', 'episode_index')}
    batch['task'] = [row['task'] for row in rows]
    model.reset()
    rewards = model.compute_reward(before(batch))
    model.config.task = TASK
    model.save_pretrained(folder / 'reward')
    again = make_reward_model(make_reward_model_config(
        'hralign', device='cpu', bundle=str(folder / 'reward/bundle'), task=TASK))
    assert torch.equal(again.compute_reward(before(batch)), rewards)
    return {'rows': len(rewards), 'first': float(rewards[0]), 'last': float(rewards[-1])}


def hil_serl(folder: Path) -> dict[str, Any]:
    """
    Run LeRobot's pipeline of HIL-SERL in a simulated environment, with the classifier replaced.

    The environment has a cube and an arm that nobody moves: what is looked at is that an episode
    begins with each reset, and that every transition has a reward, an end and what was seen.
    """
    import gym_hil  # noqa: F401
    import gymnasium
    from lerobot_policy_hralign.hil_serl import with_hralign
    from lerobot_policy_hralign.processor_hralign import HralignRewardProcessorStep

    env = gymnasium.make('gym_hil/PandaPickCubeBase-v0', image_obs=True)
    config = json.loads((folder / 'reward/config.json').read_text('utf-8'))
    config['cameras'] = {'wrist': 'observation.images.wrist',
                         'third_person': 'observation.images.front'}
    (folder / 'reward/config.json').write_text(json.dumps(config), 'utf-8')
    # That of a real robot: gym_hil's own has no place for a classifier.
    cfg = HILSerlRobotEnvConfig(
        name='gym_hil', fps=10, processor=HILSerlProcessorConfig(
            gripper=None, reset=ResetConfig(control_time_s=60.0), reward_classifier=(
                RewardClassifierConfig(pretrained_path=str(folder / 'reward')))))
    processors = with_hralign(gym_manipulator.make_processors)(env, None, cfg)
    step, = (one for one in processors[0].steps if isinstance(one, HralignRewardProcessorStep))
    episodes = []
    for _ in range(2):
        transition = gym_manipulator.reset_and_build_transition(env, *processors)
        episodes.append(step._player._episode.episode_id)
        for _ in range(5):
            transition = gym_manipulator.step_env_and_process_transition(
                env, transition, torch.zeros(env.action_space.shape), *processors)
            info = transition[TransitionKey.INFO]
            assert 0.0 <= info['hralign.probability'] <= 1.0, info
        assert step._player._episode.episode_id == episodes[-1]
    assert episodes[0] != episodes[1]
    return {'decision': info['hralign.decision'], 'done': bool(transition[TransitionKey.DONE]),
            'reward': float(transition[TransitionKey.REWARD]),
            'probability': info['hralign.probability']}


def main() -> None:
    """Run all."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    np.random.seed(0)
    root, folder = map(Path, sys.argv[1:])
    found: dict[str, Any] = {'version': lerobot.__version__, 'weights': weights(root)}
    print(json.dumps(found), flush=True)
    found['reward'] = reward(root, folder)
    print(json.dumps(found), flush=True)
    found['hil_serl'] = hil_serl(folder)
    print(json.dumps(found), flush=True)


if __name__ == '__main__':
    main()

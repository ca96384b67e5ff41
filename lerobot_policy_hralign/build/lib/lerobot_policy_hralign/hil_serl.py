# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
LeRobot's programs of HIL-SERL, rewarded by hralign_ros.

    python -m lerobot_policy_hralign.hil_serl gym_manipulator --config_path env.json
    python -m lerobot_policy_hralign.hil_serl actor --config_path train.json

LeRobot 0.6.1 builds its pipelines with its own classifier and asks for no other. So where
`env.processor.reward_classifier.pretrained_path` is a folder of the type hralign (`python -m
lerobot_policy_hralign` writes one), this puts HralignRewardProcessorStep into the pipeline: after
the images are tensors, and before they are cropped and made small. A folder of any other type goes
to LeRobot's own classifier as ever.
"""

from collections.abc import Callable
from dataclasses import replace
import importlib
import json
from pathlib import Path
import sys
from typing import Any

from lerobot.processor import VanillaObservationProcessorStep
from lerobot.utils.import_utils import register_third_party_plugins
from lerobot_policy_hralign.configuration_hralign import HralignConfig
from lerobot_policy_hralign.modeling_hralign import HralignRewardModel
from lerobot_policy_hralign.processor_hralign import HralignRewardProcessorStep

# Modules of lerobot.rl, and what runs each.
PROGRAMS = {'gym_manipulator': 'main', 'actor': 'actor_cli', 'learner': 'train_cli'}

MakeProcessors = Callable[..., tuple[Any, Any]]


def with_hralign(make_processors: MakeProcessors) -> MakeProcessors:
    """Wrap LeRobot's `make_processors`."""
    def make(env: Any, teleop_device: Any, cfg: Any, device: str = 'cpu') -> tuple[Any, Any]:
        step = step_of(cfg)
        if step is None:
            return make_processors(env, teleop_device, cfg, device)
        # Its own classifier would be loaded from there.
        classifier = replace(cfg.processor.reward_classifier, pretrained_path=None)
        environment, action = make_processors(
            env, teleop_device,
            replace(cfg, processor=replace(cfg.processor, reward_classifier=classifier)), device)
        place = next(number for number, one in enumerate(environment.steps)
                     if isinstance(one, VanillaObservationProcessorStep))
        environment.steps = [*environment.steps[:place + 1], step,
                             *environment.steps[place + 1:]]
        return environment, action

    return make


def step_of(cfg: Any) -> HralignRewardProcessorStep | None:
    """
    Make the step that an environment's configuration asks for.

    :param cfg: HILSerlRobotEnvConfig.
    :returns: None: it asks for no model of this type.
    """
    classifier = cfg.processor.reward_classifier
    path = Path(classifier.pretrained_path) if classifier and classifier.pretrained_path else None
    if path is None or not (path / 'config.json').is_file() or \
            json.loads((path / 'config.json').read_text('utf-8')).get('type') != 'hralign':
        return None
    config = HralignRewardModel.from_pretrained(path).config
    assert isinstance(config, HralignConfig)
    reset = cfg.processor.reset
    return HralignRewardProcessorStep(
        bundle=config.bundle, cameras=config.cameras, task=config.task, alpha=config.alpha,
        allow_unknown_tasks=config.allow_unknown_tasks, device=config.device or 'cpu',
        shaping='progress' if config.reward_output == 'progress' else 'sparse',
        success_reward=classifier.success_reward,
        terminate_on_success=reset.terminate_on_success if reset is not None else True)


def main() -> None:
    """Run one of LeRobot's programs."""
    if len(sys.argv) < 2 or sys.argv[1] not in PROGRAMS:
        sys.exit(f'usage: python -m lerobot_policy_hralign.hil_serl {{{",".join(PROGRAMS)}}} '
                 '--config_path FILE')
    register_third_party_plugins()
    gym_manipulator = importlib.import_module('lerobot.rl.gym_manipulator')
    make = with_hralign(gym_manipulator.make_processors)
    program = importlib.import_module(f'lerobot.rl.{sys.argv[1]}')
    for module in (gym_manipulator, program):
        if hasattr(module, 'make_processors'):
            module.make_processors = make
    sys.argv = sys.argv[1:]
    getattr(program, PROGRAMS[sys.argv[0]])()


if __name__ == '__main__':
    main()

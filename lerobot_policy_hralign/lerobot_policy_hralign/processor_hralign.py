# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The reward of a running episode, as a step of LeRobot's processor pipelines."""

from dataclasses import dataclass, field
import time
from typing import Any

from hralign_ros.runtime import Decision, Tick
from lerobot.configs import PipelineFeatureType, PolicyFeature
from lerobot.lerobot_types import EnvTransition, PolicyAction, TransitionKey
from lerobot.processor import (
    IdentityProcessorStep,
    PolicyProcessorPipeline,
    ProcessorStep,
    ProcessorStepRegistry,
)
from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action
from lerobot_policy_hralign.configuration_hralign import HralignConfig
from lerobot_policy_hralign.player import as_image, Player
import torch

SHAPINGS = ('sparse', 'progress')


@ProcessorStepRegistry.register('hralign_reward_processor')
@dataclass
class HralignRewardProcessorStep(ProcessorStep):
    """
    Give a transition its reward and its end.

    `sparse`: once SUCCESS is decided the reward is `success_reward`; otherwise it stays as it is.
    `progress`: what progress has grown by since the frame before is added to it. Nothing is said
    while the node would say nothing (ABSTAIN, no progress). `reset` begins an episode, as the
    pipeline does when the environment is reset. What was seen is in `info`, under
    hralign.probability, hralign.progress, hralign.decision and hralign.status.

    :param bundle: see HralignConfig, as of the next six.
    :param fps: None: frames are as far apart as they come.
    :param shaping: one of SHAPINGS.
    :param terminate_on_success: SUCCESS ends the episode.
    :param terminate_on_failure: FAILURE does.
    """

    bundle: str = ''
    cameras: dict[str, str] = field(default_factory=dict)
    task: str = ''
    alpha: float | None = None
    allow_unknown_tasks: bool = False
    device: str = 'cpu'
    fps: float | None = None
    shaping: str = 'sparse'
    success_reward: float = 1.0
    terminate_on_success: bool = True
    terminate_on_failure: bool = False

    def __post_init__(self) -> None:
        if self.shaping not in SHAPINGS:
            raise ValueError(f'shaping is {self.shaping!r}; allowed: {", ".join(SHAPINGS)}')
        if not self.task:
            raise ValueError('no instruction: say in `task` what the robot is to do')
        self._player = Player(HralignConfig(
            bundle=self.bundle, cameras=self.cameras, task=self.task, alpha=self.alpha,
            allow_unknown_tasks=self.allow_unknown_tasks, device=self.device,
            fps=self.fps or 10.0))
        self._progress: float | None = None

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        """
        Judge the images of a transition: [1, 3, H, W] or [3, H, W] each.

        :raises KeyError: there are no images of a camera.
        :raises ValueError: images of several environments, or of another form.
        """
        new = transition.copy()
        images = self._player.present(new.get(TransitionKey.OBSERVATION) or {})
        for view, value in images.items():
            if value.ndim == 4 and len(value) != 1:
                raise ValueError(
                    f'the images of {self._player.keys[view]} are of {len(value)} environments; '
                    'this step judges one episode, so give each environment a pipeline of its own')
        tick = self._player.step(
            {view: as_image(value[0] if value.ndim == 4 else value)
             for view, value in images.items()},
            time_s=time.monotonic() if self.fps is None else None)
        new[TransitionKey.REWARD] = self._reward(tick, float(new.get(TransitionKey.REWARD) or 0))
        ends = (self.terminate_on_success and tick.decision == Decision.SUCCESS) or (
            self.terminate_on_failure and tick.decision == Decision.FAILURE)
        new[TransitionKey.DONE] = bool(new.get(TransitionKey.DONE)) or ends
        new[TransitionKey.INFO] = {
            **(new.get(TransitionKey.INFO) or {}),
            'hralign.probability': tick.success.probability,
            'hralign.progress': tick.success.progress,
            'hralign.decision': tick.decision.name, 'hralign.status': int(tick.status)}
        return new

    def _reward(self, tick: Tick, given: float) -> float:
        if self.shaping == 'sparse':
            return self.success_reward if tick.decision == Decision.SUCCESS else given
        before, progress = self._progress, tick.success.progress
        if progress is None:
            return given
        self._progress = progress
        return given if before is None else given + progress - before

    def reset(self) -> None:
        """Let the next frame be the first one of an episode."""
        self._player.reset()
        self._progress = None

    def get_config(self) -> dict[str, Any]:
        """Return all parameters, as JSON has them."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def transform_features(
        self, features: dict[PipelineFeatureType, dict[str, PolicyFeature]],
    ) -> dict[PipelineFeatureType, dict[str, PolicyFeature]]:
        """Return the features: observations and actions stay as they are."""
        return features


def make_hralign_pre_post_processors(
    config: HralignConfig, dataset_stats: dict[str, dict[str, torch.Tensor]] | None = None,
) -> tuple[PolicyProcessorPipeline[dict[str, Any], dict[str, Any]],
           PolicyProcessorPipeline[PolicyAction, PolicyAction]]:
    """Make pipelines that change nothing: images go into the bundle as the cameras gave them."""
    return (
        PolicyProcessorPipeline(steps=[IdentityProcessorStep()], name='hralign_preprocessor'),
        PolicyProcessorPipeline(
            steps=[IdentityProcessorStep()], name='hralign_postprocessor',
            to_transition=policy_action_to_transition, to_output=transition_to_policy_action))

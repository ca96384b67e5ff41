# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the reward model `hralign` is told; config.json of a saved one."""

from dataclasses import dataclass, field

from lerobot.configs import FeatureType, PolicyFeature
from lerobot.configs.rewards import RewardModelConfig
from lerobot.utils.constants import OBS_IMAGES

OUTPUTS = ('success', 'progress', 'decision')


@RewardModelConfig.register_subclass('hralign')
@dataclass
class HralignConfig(RewardModelConfig):
    """
    Configuration of the reward model.

    :param bundle: its folder; relative to a saved model's own folder, where it is one; '': the
        bundle that is shipped with hralign_ros.
    :param cameras: the key of the images of each view of the bundle, such as
        {'wrist': 'observation.images.hand'}; none: observation.images.<view> of every view.
    :param task: the instruction where a batch has none.
    :param task_key: where a batch has its instructions.
    :param reward_output: success: the calibrated probability; progress; or decision: 1 once
        SUCCESS is decided in an episode, else 0.
    :param alpha: false-alarm rate that SUCCESS is decided at; None: as the node does.
    :param allow_unknown_tasks: decide on tasks that the bundle does not know, too.
    :param fps: of images without a timestamp.
    """

    bundle: str = ''
    cameras: dict[str, str] = field(default_factory=dict)
    task: str = ''
    task_key: str = 'task'
    reward_output: str = 'success'
    alpha: float | None = None
    allow_unknown_tasks: bool = False
    fps: float = 10.0

    tags: list[str] | None = field(default_factory=lambda: ['reward-model', 'success-detection'])

    def __post_init__(self) -> None:
        # The runtime is numpy's and onnxruntime's: there is nothing that torch would move.
        self.device = self.device or 'cpu'
        super().__post_init__()
        if self.reward_output not in OUTPUTS:
            raise ValueError(f'reward_output is {self.reward_output!r}; allowed: '
                             f'{", ".join(OUTPUTS)}')
        if not self.fps > 0:
            raise ValueError(f'fps is {self.fps}; needed is a number above 0')
        for key in self.cameras.values():
            self.input_features.setdefault(
                key, PolicyFeature(type=FeatureType.VISUAL, shape=(3, 224, 224)))
        self.output_features.setdefault(
            self.reward_output, PolicyFeature(type=FeatureType.REWARD, shape=(1,)))

    def key_of(self, view: str) -> str:
        """Name the images of a view; '': it has no camera."""
        return self.cameras.get(view, '') if self.cameras else f'{OBS_IMAGES}.{view}'

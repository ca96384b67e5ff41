# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""LeRobot's tensors, played to the runtime of hralign_ros."""

from collections.abc import Mapping
import math
from pathlib import Path
from typing import Any

from hralign_ros.runtime import DecisionRules, default_bundle, Encoder, Episode, Tick
from lerobot_policy_hralign.configuration_hralign import HralignConfig
import numpy as np
from numpy.typing import NDArray
import torch

_SECOND = 1_000_000_000


class Player:
    """
    One bundle, and the episode that runs.

    :param config: of the model.
    :raises hralign_ros.runtime.HralignError: the bundle or the instruction cannot be used.
    :raises ValueError: a camera is named for a view that the bundle has not.
    """

    def __init__(self, config: HralignConfig) -> None:
        self.config = config
        self.encoder = Encoder.load(
            Path(config.bundle).expanduser() if config.bundle else default_bundle(),
            provider='cpu' if config.device == 'cpu' else 'auto', parts=('mean',))
        views = self.encoder.manifest.views
        if unknown := set(config.cameras) - set(views):
            raise ValueError(f'cameras are given for {", ".join(sorted(unknown))}; the views of '
                             f'this bundle are {", ".join(views)}')
        self.keys = {view: key for view in views if (key := config.key_of(view))}
        self._rules = DecisionRules(
            alpha=config.alpha, allow_unknown_tasks=config.allow_unknown_tasks)
        self._episode: Episode | None = None
        self._task = config.task
        # Of the frame before, from the start of its clock [s].
        self._newest = 0.0
        self._which: Any = None
        if config.task:
            self.encoder.text.encode(config.task)

    def reset(self) -> None:
        """Let the next frame be the first one of an episode."""
        self._episode = None

    def present(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """
        Take the images of the views out of a batch or an observation.

        :raises KeyError: one that `cameras` of the configuration names is not there, or, where it
            names none, not one is.
        """
        found = {view: values[key] for view, key in self.keys.items() if key in values}
        missing = [key for key in self.keys.values() if key not in values]
        if missing and (self.config.cameras or not found):
            keys = sorted(map(str, values))
            images = [key for key in keys if 'image' in key] or keys
            raise KeyError(
                f'no images of {", ".join(missing)}; there are {", ".join(images) or "none"}. Say '
                'in `cameras` of the configuration which key is which view')
        return found

    def step(
        self, images: Mapping[str, NDArray[np.uint8]], *, task: str = '',
        time_s: float | None = None, which: Any = None,
    ) -> Tick:
        """
        Play one frame to the episode that runs, or to a new one.

        A new one begins after `reset`, with another instruction or another `which`, and where time
        goes back.

        :param images: uint8 [H, W, 3] RGB by view.
        :param task: the instruction; '': the configuration's.
        :param time_s: when it was taken; None: one period after the frame before.
        :param which: whatever tells episodes apart.
        :raises ValueError: there is no instruction, or the time is no number from 0 up.
        """
        task = task or self.config.task
        if not task:
            raise ValueError(
                f"no instruction: the batch has no '{self.config.task_key}', and the "
                'configuration no `task`')
        begins = self._episode is None or task != self._task or which != self._which
        if time_s is None:
            time_s = 0.0 if begins else self._newest + 1.0 / self.config.fps
        if not 0.0 <= time_s < math.inf:
            raise ValueError(f'a frame was taken at {time_s:g} s; needed are seconds from 0 up')
        if begins or time_s <= self._newest:
            self._episode = self.encoder.start_episode(task, self._rules)
        assert self._episode is not None
        self._task, self._which, self._newest = task, which, time_s
        return self._episode.step(images, _SECOND + round(time_s * _SECOND))


def as_image(image: torch.Tensor) -> NDArray[np.uint8]:
    """
    Make an image of the runtime from one of LeRobot.

    :param image: [3, H, W] RGB, floating point in [0, 1] or uint8; images of uint8 may be
        [H, W, 3].
    :returns: uint8 [H, W, 3].
    :raises ValueError: it is none of these.
    """
    if image.ndim != 3 or 3 not in (image.shape[0], image.shape[-1]):
        raise ValueError(f'an image is {list(image.shape)}; needed is [3, H, W] or [H, W, 3]')
    if image.shape[0] == 3:
        image = image.permute(1, 2, 0)
    if image.is_floating_point():
        low, high = float(image.min()), float(image.max())
        if not (low >= -1e-3 and high <= 1.0 + 1e-3):
            raise ValueError(
                f'an image has values from {low:.3g} to {high:.3g}; needed is floating point in '
                '[0, 1], or uint8. Take the images before they are normalised')
        image = (image.clamp(0.0, 1.0) * 255.0).round()
    return np.ascontiguousarray(image.to(torch.uint8).cpu().numpy())

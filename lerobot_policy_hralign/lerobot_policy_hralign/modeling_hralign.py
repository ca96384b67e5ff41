# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The reward model: what the runtime of hralign_ros says, as LeRobot asks for it."""

from pathlib import Path
import shutil
from typing import Any

from hralign_ros.runtime import Decision, Tick
from lerobot.configs.rewards import RewardModelConfig
from lerobot.rewards.pretrained import PreTrainedRewardModel
from lerobot_policy_hralign.configuration_hralign import HralignConfig
from lerobot_policy_hralign.player import as_image, Player
import torch
from torch import Tensor

# The folder of a saved model that its bundle is in.
_BUNDLE = 'bundle'


class HralignRewardModel(PreTrainedRewardModel):
    """
    Reward of images by a bundle.

    A bundle looks at a whole attempt, so a frame is judged by what came before it: rows of a batch
    are successive frames, and successive calls go on where the last one ended, until `reset`, or
    until the instruction or `episode_index` is another one or `timestamp` goes back. A row of
    images [T, 3, H, W] is an attempt of its own.
    """

    name = 'hralign'
    config_class = HralignConfig

    def __init__(self, config: HralignConfig) -> None:
        super().__init__(config)
        self.player = Player(config)

    def reset(self) -> None:
        """Let the next frame be the first one of an episode."""
        self.player.reset()

    def compute_reward(self, batch: dict[str, Any]) -> Tensor:
        """
        Judge every row of a batch.

        :param batch: images by key, floating point in [0, 1] or uint8: [B, 3, H, W] for successive
            frames, [B, T, 3, H, W] for clips, or [3, H, W] for one; `task`, one text or B; where
            there are any, `timestamp` [B] in seconds and `episode_index` [B]. `timestamp` [B, T]
            says when each frame of a clip was taken; without it they are 1 / fps apart.
        :returns: float32 [B]; NaN where the bundle says nothing.
        :raises KeyError: there are no images of a camera.
        :raises ValueError: images of another form, clips without frames, no instruction for a row,
            or a time below 0.
        """
        images = self.player.present(batch)
        images = {view: value if value.ndim > 3 else value[None]
                  for view, value in images.items()}
        count = {len(value) for value in images.values()}
        if len(count) != 1:
            raise ValueError(f'the cameras have {sorted(count)} rows; needed is one number')
        rows = count.pop()
        tasks = batch.get(self.config.task_key) or ''
        if isinstance(tasks, str):
            tasks = [tasks] * rows
        if len(tasks) != rows:
            raise ValueError(f"'{self.config.task_key}' has {len(tasks)} instructions for {rows} "
                             'rows; needed is one text, or one for each row')
        rewards = [
            self._row({view: value[row] for view, value in images.items()}, tasks[row],
                      _of(batch.get('timestamp'), row, rows),
                      _at(batch.get('episode_index'), row))
            for row in range(rows)]
        return torch.tensor(rewards, dtype=torch.float32, device=self.config.device)

    def _row(
        self, images: dict[str, Tensor], task: str, times_s: list[float], which: float | None,
    ) -> float:
        """
        Judge a row.

        :param times_s: of its frames, [] or one for each; a single one of a clip is the row's.
        """
        if all(value.ndim == 4 for value in images.values()):
            self.reset()
            lengths = {len(value) for value in images.values()}
            if len(lengths) != 1 or 0 in lengths:
                raise ValueError(f'the cameras have clips of {sorted(lengths)} frames; needed is '
                                 'one number above 0')
            length = lengths.pop()
            if len(times_s) not in (0, 1, length):
                raise ValueError(f'clips of {length} frames have {len(times_s)} timestamps each; '
                                 'needed is one for each frame, one for the row, or none')
            for frame in range(length):
                tick = self.player.step(
                    {view: as_image(value[frame]) for view, value in images.items()}, task=task,
                    time_s=times_s[frame] if len(times_s) == length else None)
            self.reset()
        else:
            if len(times_s) > 1:
                raise ValueError(f'a row of one frame has {len(times_s)} timestamps; needed is '
                                 'one, or none')
            tick = self.player.step({view: as_image(value) for view, value in images.items()},
                                    task=task, time_s=times_s[0] if times_s else None,
                                    which=which)
        return self._reward(tick)

    def _reward(self, tick: Tick) -> float:
        if self.config.reward_output == 'decision':
            return float(tick.decision == Decision.SUCCESS)
        value = tick.success.progress if self.config.reward_output == 'progress' \
            else tick.success.probability
        return float('nan') if value is None else value

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write config.json and, beside it, the bundle."""
        target = save_directory / _BUNDLE
        if target.resolve() != self.player.encoder.bundle.path.resolve():
            shutil.copytree(self.player.encoder.bundle.path, target, dirs_exist_ok=True)
        given, self.config.bundle = self.config.bundle, _BUNDLE
        try:
            self.config._save_pretrained(save_directory)
        finally:
            self.config.bundle = given

    @classmethod
    def from_pretrained(
        cls, pretrained_name_or_path: str | Path, *, config: RewardModelConfig | None = None,
        **more: Any,
    ) -> 'HralignRewardModel':
        """
        Load what `save_pretrained` wrote.

        :param pretrained_name_or_path: its folder.
        :param more: of LeRobot's signature; there are no weights beside the bundle.
        :raises FileNotFoundError: there is no such folder.
        """
        folder = Path(pretrained_name_or_path)
        if not folder.is_dir():
            raise FileNotFoundError(
                f'{folder} is no folder; a model on the Hub is downloaded first: '
                f'hf download {folder} --local-dir FOLDER')
        config = config or RewardModelConfig.from_pretrained(folder)
        if not isinstance(config, HralignConfig):
            raise TypeError(f"{folder} holds a reward model of type '{config.type}', not hralign")
        if config.bundle and (folder / config.bundle).is_dir():
            config.bundle = str(folder / config.bundle)
        model = cls(config)
        model.eval()
        return model


def _of(values: Any, row: int, rows: int) -> list[float]:
    """
    Take the numbers of a row, one or one for each frame; [] where there are none.

    :raises ValueError: they cannot be dealt out to the rows.
    """
    if values is None:
        return []
    flat = torch.as_tensor(values).reshape(-1)
    if len(flat) == 1:
        return [float(flat[0])]
    if len(flat) % rows:
        raise ValueError(f'there are {len(flat)} timestamps for {rows} rows')
    return [float(one) for one in flat.reshape(rows, -1)[row]]


def _at(values: Any, row: int) -> float | None:
    """Take a row's number, where there are any."""
    if values is None:
        return None
    flat = torch.as_tensor(values).reshape(-1)
    return float(flat[row if len(flat) > 1 else 0])

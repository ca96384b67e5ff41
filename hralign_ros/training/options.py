# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What can be chosen about the training loop, and how options are checked."""

from collections.abc import Mapping
from dataclasses import dataclass
import math
from typing import ClassVar

from hralign_ros.training.checkpoints import TrainingError

# By name of the option: the words that are allowed, or the lowest and the highest number.
Allowed = Mapping[str, tuple[str, ...] | tuple[float, float]]


def check_options(options: object, allowed: Allowed) -> None:
    """
    Check options one by one.

    :raises TrainingError: names the first that is not allowed, and what is.
    """
    for name, choice in allowed.items():
        value = getattr(options, name)
        if isinstance(choice[0], str):
            if value not in choice:
                raise TrainingError(f"{name} is '{value}'; allowed: {', '.join(map(str, choice))}")
            continue
        low, high = choice
        if not low <= value <= high:
            needed = f'{low:g} to {high:g}' if high < math.inf else f'{low:g} or more'
            raise TrainingError(f'{name} is {value}; needed is {needed}')


@dataclass(frozen=True)
class LoopOptions:
    """
    How the loop trains, whatever it trains.

    :param learning_rate: at its highest.
    :param final_rate: at the end of the cosine.
    :param warm_up: steps in which the rate rises linearly.
    :param weight_decay: of weights; biases have none.
    :param clip_norm: L2 norm of the gradient at most; 0: never clipped.
    :param average: decay of a running average of the weights, which is what is validated and
        kept; 0: the weights themselves are.
    :param validate_every: steps from one line of progress, and one validation where the objective
        has any, to the next.
    :param checkpoint_every: steps from one checkpoint to the next.
    """

    steps: int = 120
    seed: int = 0
    learning_rate: float = 1e-3
    final_rate: float = 1e-5
    warm_up: int = 10
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    average: float = 0.97
    validate_every: int = 20
    checkpoint_every: int = 20

    allowed: ClassVar[Allowed] = {
        'steps': (1, math.inf), 'seed': (0, math.inf), 'learning_rate': (0, math.inf),
        'final_rate': (0, math.inf), 'warm_up': (0, math.inf), 'weight_decay': (0, math.inf),
        'clip_norm': (0, math.inf), 'average': (0, 0.99999), 'validate_every': (1, math.inf),
        'checkpoint_every': (1, math.inf)}

    def __post_init__(self) -> None:
        """
        Check everything that can be checked without data.

        :raises TrainingError: an option is none of those allowed.
        """
        check_options(self, {**LoopOptions.allowed, **self.allowed})

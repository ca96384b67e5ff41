# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What can be chosen about training a policy."""

from dataclasses import dataclass
from typing import ClassVar

from hralign_ros.runtime.parts import DEFAULT_PARTS
from hralign_ros.training.options import Allowed, check_options


@dataclass(frozen=True)
class PolicyOptions:
    """
    How to train. The defaults suit ten to a hundred demonstrations.

    :param parts: of the embedding, in this order; none with --no-camera.
    :param camera: without it, the policy has proprioception alone.
    :param proprio: names of the numbers that it is given beside; default: all of the data but
        those of an object
    :param episodes: so many demonstrations, in the order of their names; 0: all.
    :param chunk: actions that the policy returns at a time.
    :param execute: so many of them are run before it is asked again.
    :param bottleneck: numbers that are left of the embedding.
    :param hidden: numbers in each of two layers.
    :param dropout: fraction of the embedding's numbers that are left out in each step.
    :param batch: observations in a step.
    :param weight_decay: of all weights.
    """

    parts: tuple[str, ...] = DEFAULT_PARTS
    camera: bool = True
    proprio: tuple[str, ...] = ()
    episodes: int = 0
    chunk: int = 8
    execute: int = 4
    bottleneck: int = 64
    hidden: int = 256
    dropout: float = 0.0
    steps: int = 2000
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    seed: int = 0

    allowed: ClassVar[Allowed] = {
        'episodes': (0, float('inf')), 'chunk': (1, 256), 'execute': (1, 256),
        'bottleneck': (1, 65536), 'hidden': (1, 65536), 'dropout': (0.0, 0.95),
        'steps': (1, float('inf')), 'batch': (1, float('inf')), 'learning_rate': (1e-9, 1.0),
        'weight_decay': (0.0, 10.0), 'seed': (0, 2 ** 31)}

    def __post_init__(self) -> None:
        check_options(self, self.allowed)

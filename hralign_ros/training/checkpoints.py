# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints: written in one step, read without pickle, enough to resume exactly."""

from collections.abc import Mapping
from dataclasses import dataclass
import json
import os
from pathlib import Path
from typing import Any

from hralign_ros.runtime.errors import first_line, HralignError
import torch
from torch import Tensor

SCHEMA_VERSION = 2


class TrainingError(HralignError):
    """A training run cannot begin, or cannot resume."""


@dataclass(frozen=True)
class Checkpoint:
    """
    A run at the end of a step.

    :param step: steps done.
    :param model: what is trained, by name.
    :param average: running average of what is trained, by name; empty where none is kept.
    :param optimiser: the optimiser's state dict; empty in a file that is not for resuming.
    :param generators: states of torch's random generators, by device.
    :param settings: everything that the run's result depends on, as JSON has it.
    :param progress: best results so far, and the like, as JSON has it.
    """

    step: int
    model: dict[str, Tensor]
    average: dict[str, Tensor]
    optimiser: dict[str, Any]
    generators: dict[str, Tensor]
    settings: Mapping[str, Any]
    progress: Mapping[str, Any]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; whenever the process dies, the file is the old one or the new one."""
    scratch = path.with_name(f'{path.name}.tmp')
    with scratch.open('wb') as file:
        torch.save({
            'schema_version': SCHEMA_VERSION, 'step': checkpoint.step, 'model': checkpoint.model,
            'average': checkpoint.average, 'optimiser': checkpoint.optimiser,
            'generators': checkpoint.generators, 'settings': json.dumps(checkpoint.settings),
            'progress': json.dumps(checkpoint.progress)}, file)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)


def read_checkpoint(path: Path) -> Checkpoint:
    """
    Read a checkpoint onto the CPU.

    :raises TrainingError: there is none, it is damaged, or of another version.
    """
    try:
        values = torch.load(path, weights_only=True, map_location='cpu')
        version = values['schema_version']
        if version == SCHEMA_VERSION:
            return Checkpoint(
                int(values['step']), values['model'], values['average'], values['optimiser'],
                values['generators'], json.loads(values['settings']),
                json.loads(values['progress']))
    except Exception as error:  # torch, pickle and zipfile share no base class
        raise TrainingError(
            f'{path} is no checkpoint of a training run: {first_line(error)}') from error
    raise TrainingError(
        f'{path} is a checkpoint of version {version}, and this package reads {SCHEMA_VERSION}')


def _change(before: object, now: object) -> str:
    """Describe how two values differ; of long lists only how many of their entries do."""
    if isinstance(before, list) and isinstance(now, list) and max(len(before), len(now)) > 8:
        same = sum(a == b for a, b in zip(before, now, strict=False))
        return (f'were {len(before)} and are now {len(now)}, {same} of them as they were (by '
                'their order, names and contents)')
    return f'was {before!r} and is now {now!r}'


def check_same(mine: Mapping[str, Any], theirs: Mapping[str, Any], path: Path) -> None:
    """
    Refuse to resume with other settings.

    :raises TrainingError: names every setting that differs, with both values.
    """
    # JSON knows no tuples.
    mine = json.loads(json.dumps(mine))
    differing = [f'{name} {_change(theirs.get(name), mine.get(name))}'
                 for name in sorted(mine.keys() | theirs.keys())
                 if mine.get(name) != theirs.get(name)]
    if differing:
        raise TrainingError(
            f'{path} is of a run with other settings: {"; ".join(differing)}. Resume with the '
            'same ones, or begin anew in another folder')

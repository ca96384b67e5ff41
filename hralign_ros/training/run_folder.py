# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The folder of a training run: names of its files, and the record of a finished one, run.json."""

from collections.abc import Mapping
import json
import os
from pathlib import Path
from typing import Any

from hralign_ros.training.checkpoints import TrainingError

LAST, BEST, LOG, RUN = 'last.pt', 'best.pt', 'log.csv', 'run.json'
SCHEMA_VERSION = 3


def prepare_folder(folder: Path, *, resume: bool) -> None:
    """
    Make a run's folder.

    :raises TrainingError: it cannot be made, or holds a run that is not to be resumed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f'{folder}: no run can be written there: {error}') from error
    if (folder / LAST).exists() and not resume:
        raise TrainingError(f'{folder} holds a run already; add --resume to continue it, or '
                            'name another folder')


def write_record(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write run.json in one step; return what is in it."""
    whole = {'schema_version': SCHEMA_VERSION, **record,
             'load_average': round(os.getloadavg()[0], 2)}
    scratch = folder / f'.{RUN}.tmp'
    scratch.write_text(json.dumps(whole, indent=1), encoding='utf-8')
    scratch.replace(folder / RUN)
    return whole


def read_record(folder: Path, command: str) -> dict[str, Any]:
    """
    Read run.json.

    :param command: that trains such runs, for the message.
    :raises TrainingError: there is none, or it is of another version.
    """
    path = folder / RUN
    try:
        record = json.loads(path.read_text(encoding='utf-8'))
        version = record['schema_version']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f'{folder}: no finished run there ({error}); {command} makes one') from error
    if version != SCHEMA_VERSION:
        raise TrainingError(f'{path}: schema {version}, and this package reads {SCHEMA_VERSION}; '
                            'train again')
    return dict(record)

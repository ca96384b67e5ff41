# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The folder of a training run, but for its checkpoints.

It holds log.csv and TensorBoard's files, for people, and run.json, the record of a finished run.
"""

from collections.abc import Iterable, Mapping, Sequence
import csv
import json
import os
from pathlib import Path
import time
from typing import Any

from hralign_ros.data.manifest import Episode
from hralign_ros.runtime.report import Report
from hralign_ros.training.checkpoints import check_same, read_checkpoint, TrainingError

LAST, BEST, LOG, RUN = 'last.pt', 'best.pt', 'log.csv', 'run.json'
SCHEMA_VERSION = 3


def prepare_folder(
    folder: Path, *, resume: bool, settings: Mapping[str, Any] | None = None,
) -> None:
    """
    Make a run's folder.

    :param settings: those of the new run that are known before any work.
    :raises TrainingError: it cannot be made, holds a run that is not to be resumed, or one of
        other settings.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f'{folder}: no run can be written there: {error}') from error
    if (folder / LAST).exists() and not resume:
        raise TrainingError(f'{folder} holds a run already; add --resume to continue it, or '
                            'name another folder')
    if settings and (folder / LAST).exists():
        before = read_checkpoint(folder / LAST).settings
        # Not all of them matter to every run.
        both = settings.keys() & before.keys()
        check_same({name: settings[name] for name in both},
                   {name: before[name] for name in both}, folder / LAST)


class TrainingLog:
    """
    Rows of log.csv, and the same in TensorBoard where that is installed.

    :param columns: beside step, loss, learning_rate and seconds.
    :param step: that a run is resumed after; None: it is a new one.
    """

    def __init__(self, folder: Path, columns: Sequence[str], step: int | None,
                 report: Report) -> None:
        self._columns = ('loss', *columns, 'learning_rate')
        self._began = time.monotonic()
        kept: list[list[str]] = []
        if step is not None and (folder / LOG).exists():
            with (folder / LOG).open(newline='', encoding='utf-8') as file:
                rows = [row for row in csv.reader(file) if row and row[0].isdigit()]
            # What was written after the checkpoint comes again.
            kept = [row for row in rows if int(row[0]) <= step]
        self._file = (folder / LOG).open('w', newline='', encoding='utf-8')
        self._writer = csv.writer(self._file)
        self._writer.writerows([('step', *self._columns, 'seconds'), *kept])
        self._before = float(kept[-1][-1]) if kept else 0.0
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder), purge_step=None if step is None else step + 1)
        except ModuleNotFoundError as error:
            report(f'no TensorBoard files: the package {error.name} is not installed')

    def __enter__(self) -> 'TrainingLog':
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._board:
            self._board.close()

    def flush(self) -> None:
        """Write down what is noted, before the checkpoint that counts on it."""
        self._file.flush()

    def row(self, step: int, found: Mapping[str, float], rate: float) -> None:
        """Note a step; a column that nothing is found for stays empty."""
        seconds = self._before + time.monotonic() - self._began
        known = {**found, 'learning_rate': rate}
        self._writer.writerow([step, *(f'{known[name]:.6g}' if name in known else ''
                                       for name in self._columns), f'{seconds:.1f}'])
        if self._board:
            for name, value in known.items():
                self._board.add_scalar(name, value, step)


def last_seconds(folder: Path) -> float:
    """Return how long a run in a folder has trained, all its sittings together."""
    with (folder / LOG).open(newline='', encoding='utf-8') as file:
        rows = list(csv.reader(file))
    return float(rows[-1][-1]) if len(rows) > 1 else 0.0


def described(episodes: Iterable[Episode]) -> dict[str, Any]:
    """Say for a run's record what the robots' episodes are that it was trained on."""
    known = list(episodes)
    return {
        'tasks': sorted({e.task_id for e in known}), 'scenes': len({e.scene for e in known}),
        'embodiments': sorted({e.embodiment for e in known}),
        'sources': sorted({e.source for e in known}),
        'licenses': sorted({e.license_id for e in known})}


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

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a training run writes down for people: log.csv and TensorBoard's files."""

from collections.abc import Callable
import csv
import math
from pathlib import Path
import time
from typing import Any

from hralign_ros.training.alignment_objective import Validation

LOG = 'log.csv'
_COLUMNS = ('step', 'loss', 'validation_loss', 'r1', 'learning_rate', 'seconds')


class TrainingLog:
    """Rows of log.csv, and the same in TensorBoard where that is installed."""

    def __init__(self, folder: Path, step: int, report: Callable[[str], None]) -> None:
        self._path = folder / LOG
        self._began = time.monotonic()
        kept: list[list[str]] = []
        if step and self._path.exists():
            with self._path.open(newline='', encoding='utf-8') as file:
                rows = [row for row in csv.reader(file) if row and row[0].isdigit()]
            # What was written after the checkpoint comes again.
            kept = [row for row in rows if int(row[0]) <= step]
        self._file = self._path.open('w', newline='', encoding='utf-8')
        self._writer = csv.writer(self._file)
        self._writer.writerows([_COLUMNS, *kept])
        self._before = float(kept[-1][-1]) if kept else 0.0
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
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

    def row(self, step: int, loss: float, found: Validation | None, rate: float) -> None:
        """Note a step; a value that is not known stays empty."""
        seconds = self._before + time.monotonic() - self._began
        known = {'loss': None if math.isnan(loss) else loss, 'learning_rate': rate,
                 'validation_loss': found and found.loss, 'r1': found and found.r1}
        self._writer.writerow([step, *('' if known[name] is None else f'{known[name]:.6g}'
                                       for name in _COLUMNS[1:-1]), f'{seconds:.1f}'])
        if self._board:
            for name, value in known.items():
                if value is not None:
                    self._board.add_scalar(name, value, step)


def last_seconds(folder: Path) -> float:
    """Return how long a run in a folder has trained, all its sittings together."""
    with (folder / LOG).open(newline='', encoding='utf-8') as file:
        rows = list(csv.reader(file))
    return float(rows[-1][-1]) if len(rows) > 1 else 0.0

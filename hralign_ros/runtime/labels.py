# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
How recorded episodes ended: labels.csv beside the bags.

One row an episode, in any order; where a file written by hand has several, the last one counts.
Columns: `episode`, the name of the bag's folder; `success`, one of OUTCOMES; `time_s`, seconds
from the episode's first image to the first in which the task is accomplished, or empty; `note`;
`by`, who says so: `human:<name>` or `model`; empty: a human who has written the file by hand.
Columns but the first two may be missing; further ones, as the import of bags has them, are kept.
"""

from collections.abc import Iterator
from contextlib import contextmanager
import csv
from dataclasses import dataclass
import fcntl
import io
import math
import os
from pathlib import Path
import re

from hralign_ros.runtime.errors import DataError
from hralign_ros.runtime.files import read_bounded

FILE = 'labels.csv'
COLUMNS = ('episode', 'success', 'time_s', 'note', 'by')
_NEEDED = COLUMNS[:2]
SUCCESS, FAILURE, DISCARD = OUTCOMES = ('success', 'failure', 'discard')
MODEL = 'model'
# Who has labelled where the file says nobody.
BY_HAND = 'human:by hand'
_HUMAN = re.compile(r'human:\S[^\n\r]{0,99}')
# About a million labels.
_MAX_BYTES = 64 << 20


class LabelError(DataError):
    """A label cannot be set, or the file of labels is not what it should be."""


@dataclass(frozen=True)
class Label:
    """
    How an episode ended.

    :param episode: name of the bag's folder.
    :param success: one of OUTCOMES.
    :param time_s: seconds from the episode's first image to the success; None: not known.
    :param by: who says so: human:<name> or model.
    """

    episode: str
    success: str
    time_s: float | None = None
    note: str = ''
    by: str = MODEL

    @property
    def human(self) -> bool:
        """Whether a human gave it."""
        return self.by != MODEL


def check_by(by: str) -> None:
    """
    Check the name of whoever labels.

    :raises LabelError: neither human:<name> nor model.
    """
    if by != MODEL and not _HUMAN.fullmatch(by):
        raise LabelError(
            f"'{by}' cannot have given a label; allowed: human:<name>, of at most 100 characters "
            f'on one line, or {MODEL}')


def read_labels(folder: Path) -> dict[str, Label]:
    """
    Read the labels of a folder of bags, by episode; none where there is no file.

    :raises LabelError: the file cannot be read as such.
    """
    path = Path(folder) / FILE
    columns, rows = _read(path)
    return {row['episode']: _label(row, f'{path}, row {number}')
            for number, row in enumerate(rows, 1) if columns}


def labelled_episodes(folder: Path) -> set[str]:
    """
    Name the episodes that have a label, whatever it says; none where there is no file.

    :raises LabelError: the file is no table of labels.
    """
    return {row['episode'] for row in _read(Path(folder) / FILE)[1]}


def set_label(folder: Path, label: Label) -> None:
    """
    Set the label of an episode, in place of the one that it has; the file is replaced in one step.

    Several processes may do so at once.

    :raises LabelError: the label has wrong values; it is the model's and a human has labelled the
        episode; the file is not what it should be, and stays as it is.
    :raises OSError: the file cannot be written.
    """
    _check(label)
    path = Path(folder) / FILE
    with locked(Path(folder)):
        columns, rows = _read(path)
        old = {}
        for row in rows:
            if row['episode'] == label.episode:
                old = row
        if old and old.get('by') != MODEL and not label.human:
            raise LabelError(
                f'{label.episode} is labelled {old["success"]} by {old.get("by") or "hand"}; a '
                'label by the model does not replace it')
        new = {**old, 'episode': label.episode, 'success': label.success, 'note': label.note,
               'by': label.by, 'time_s': '' if label.time_s is None else f'{label.time_s:.3f}'}
        text = io.StringIO(newline='')
        columns += [column for column in COLUMNS if column not in columns]
        writer = csv.DictWriter(text, columns, restval='', lineterminator='\n')
        writer.writeheader()
        writer.writerows([*(row for row in rows if row['episode'] != label.episode), new])
        write_whole(path, text.getvalue().encode())


def write_whole(path: Path, data: bytes) -> None:
    """
    Write a file so that it is there in full or not at all, also after a loss of power.

    :raises OSError: it cannot be written; one that was there stays as it was.
    """
    scratch = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        with open(scratch, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder written to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until nobody else changes the labels of a folder."""
    with open(folder / f'.{FILE}.lock', 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """
    Read columns and rows; nothing where there is no file.

    :raises LabelError: not a table with COLUMNS.
    """
    try:
        data = read_bounded(path, _MAX_BYTES)
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise LabelError(f'{path} cannot be read: {error}') from error
    if len(data) > _MAX_BYTES:
        raise LabelError(f'{path} is larger than {_MAX_BYTES >> 20} MiB; is it a table of labels?')
    try:
        # Programs for tables put a mark in front.
        reader = csv.DictReader(io.StringIO(data.decode('utf-8-sig'), newline=''), restval='')
        columns, rows = list(reader.fieldnames or ()), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise LabelError(f'{path} is no table of labels: {error}') from error
    missing = [column for column in _NEEDED if column not in columns]
    if missing or any(None in row for row in rows):
        raise LabelError(
            f'{path} has the columns {", ".join(columns) or "of an empty file"}'
            f'{"" if missing else ", and a row with more of them"}; needed are '
            f'{", ".join(_NEEDED)} and may be {", ".join(COLUMNS[2:])}. Correct it, or move it '
            'away')
    return columns, rows


def _label(row: dict[str, str], where: str) -> Label:
    """
    Read a row.

    :raises LabelError: a value cannot be used.
    """
    try:
        time_s = row.get('time_s', '').strip()
        label = Label(row['episode'], row['success'], float(time_s) if time_s else None,
                      row.get('note', ''), row.get('by') or BY_HAND)
        _check(label)
    except (LabelError, ValueError) as error:
        raise LabelError(f'{where}: {error}') from error
    return label


def _check(label: Label) -> None:
    """
    Check the values of a label.

    :raises LabelError: one cannot be used.
    """
    if label.success not in OUTCOMES:
        raise LabelError(f"success is '{label.success}'; allowed: {', '.join(OUTCOMES)}")
    if not label.episode or '/' in label.episode:
        raise LabelError(f"episode is '{label.episode}'; needed is the name of a bag's folder")
    if label.time_s is not None and not (math.isfinite(label.time_s) and label.time_s >= 0.0):
        raise LabelError(f'time_s is {label.time_s}; needed are seconds from the first image of '
                         'the episode, 0 or more, or nothing')
    if label.time_s is not None and label.success != SUCCESS:
        raise LabelError(f'time_s is {label.time_s} and success is {label.success}; only a '
                         'success has a time')
    check_by(label.by)

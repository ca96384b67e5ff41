# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
labels.csv: what a person, the recorder or the review page says of episodes, a line for each.

A header names the columns, in any order. `episode` is needed; the others may be left out or empty:

    episode                 its name; each import says what that is
    success                 success (yes), failure (no), or discard: leave the episode out
    time_s (or done_s)      of a success: from when on the task is accomplished [s], from the
                            episode's first image; of a failure: when it went wrong
    failure, failed_s       the kind of failure, and when it went wrong
    task_text               the instruction
    session                 what was recorded at one go: it never stands in two splits
    split                   the split, whatever a split file says
    scene, camera, embodiment, license_id
    bag, start_s, end_s     of a bag with many episodes: which bag, and from when to when [s], from
                            the bag's first image
    note, by                free words; who labels: human:NAME (or nothing), or model

Where there is a column `by`, a later line about an episode replaces an earlier one, but a model's
never a human's. Files as spreadsheets write them are read: commas, semicolons (then with commas in
numbers) or tabs; UTF-8 or UTF-16; empty lines at the end.
"""

from collections.abc import Iterable, Mapping
import csv
from dataclasses import dataclass, field
import io
import math
from pathlib import Path
import unicodedata

from hralign_ros.data.manifest import DataError
from hralign_ros.data.splits import SPLITS

LABELS = 'labels.csv'
COLUMNS = (
    'episode', 'task_text', 'success', 'time_s', 'done_s', 'failure', 'failed_s', 'scene',
    'camera', 'embodiment', 'license_id', 'split', 'session', 'bag', 'start_s', 'end_s', 'note',
    'by')
ANSWERS = {
    '': None, 'yes': True, 'true': True, '1': True, 'success': True,
    'no': False, 'false': False, '0': False, 'failure': False, 'discard': None}
MODEL = 'model'
# The tag of an episode that says who labelled it begins so.
BY = 'by:'
_TIMES = ('time_s', 'done_s', 'failed_s', 'start_s', 'end_s')


@dataclass(frozen=True)
class Label:
    """
    One line.

    :param success: None: not known.
    :param discard: the episode is to be left out.
    :param success_s: from when on the task is accomplished, from the first image [s].
    :param failed_s: when it went wrong, likewise.
    :param span_s: of an episode within a bag: start and end from the bag's first image [s], the
        end infinite where it is not given; (): the whole bag.
    :param words: all other columns that are not empty.
    """

    success: bool | None = None
    discard: bool = False
    success_s: float | None = None
    failed_s: float | None = None
    span_s: tuple[float, ...] = ()
    words: Mapping[str, str] = field(default_factory=dict)

    @property
    def tags(self) -> list[str]:
        """Tell who says how it ended, as an episode's tags have it; nothing where nobody does."""
        return [BY + self.words['by']] if 'by' in self.words and self.success is not None else []

    def word(self, column: str, otherwise: str = '') -> str:
        """Return a column of words, or something else where it is empty."""
        return self.words.get(column) or otherwise


def read_labels(path: Path) -> dict[str, Label]:
    """
    Read labels.csv; nothing where there is none.

    :returns: by episode.
    :raises DataError: it cannot be read, or is not as the module's text says.
    """
    if not path.is_file():
        return {}
    text = _text(path)
    header = text.partition('\n')[0]
    delimiter = next((one for one in ',;\t' if one in header), ',')
    labels: dict[str, Label] = {}
    try:
        reader = csv.DictReader(io.StringIO(text, newline=''), strict=True, delimiter=delimiter)
        columns = [column.strip() for column in reader.fieldnames or ()]
        # A spreadsheet may have written columns that are empty throughout.
        while columns and not columns[-1]:
            columns.pop()
        unknown = set(columns) - set(COLUMNS)
        if unknown or 'episode' not in columns or len(set(columns)) < len(columns):
            raise DataError(f'{path}: columns are {", ".join(columns)}; needed is episode, '
                            f'allowed are {", ".join(COLUMNS)}, each once')
        reader.fieldnames = columns
        for row in reader:
            where = f'{path}, line {reader.line_num}'
            extra: Iterable[str] = row.pop(None, None) or ()  # type: ignore[arg-type]
            if any(value.strip() for value in extra):
                raise DataError(f'{where}: more values than columns')
            values = {key: (value or '').strip() for key, value in row.items()}
            if any(values.values()):
                _add(labels, values, where, decimal=',' if delimiter == ';' else '.')
    except csv.Error as error:
        raise DataError(f'{path}: {error}') from error
    return labels


def _text(path: Path) -> str:
    """Read the text of a table, as spreadsheets encode it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f'{path}: {error.strerror}') from error
    try:
        if data[:2] in (b'\xff\xfe', b'\xfe\xff'):
            return data.decode('utf-16')
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = data[:error.start].count(b'\n') + 1
        raise DataError(
            f'{path}, line {line}: not UTF-8 (a spreadsheet of Windows may have written it in '
            'another encoding); save it as "CSV UTF-8"') from error


def _add(labels: dict[str, Label], values: dict[str, str], where: str, *, decimal: str) -> None:
    """Check a line and put it to the others."""
    # As people type it; some systems take letters apart in names of files.
    name = unicodedata.normalize('NFC', values['episode']).strip('/')
    if not name:
        raise DataError(f'{where}: it names no episode')
    old = labels.get(name)
    if old is not None:
        if 'by' not in values:
            raise DataError(f"{where}: '{name}' is named twice")
        if values['by'] == MODEL and old.word('by') != MODEL:
            return
    answer = values.get('success', '').lower()
    if answer not in ANSWERS:
        raise DataError(f"{where}: success is '{values['success']}'; needed is success (yes), "
                        'failure (no), discard or nothing')
    success = ANSWERS[answer]
    times = {column: _seconds(values.get(column, ''), decimal) for column in _TIMES}
    for column, seconds in times.items():
        if seconds is None and values.get(column):
            raise DataError(f"{where}: {column} is '{values[column]}'; needed is a number of "
                            'seconds from the first image, or nothing')
    if times['done_s'] is not None and not success:
        raise DataError(f'{where}: done_s is given, and success is not yes')
    if values.get('split') and values['split'] not in SPLITS:
        raise DataError(f"{where}: split is '{values['split']}'; allowed are {', '.join(SPLITS)}")
    span: tuple[float, ...] = ()
    if times['start_s'] is not None or times['end_s'] is not None:
        end = times['end_s']
        span = (times['start_s'] or 0.0, math.inf if end is None else end)
        if span[0] >= span[1]:
            raise DataError(f'{where}: end_s is not later than start_s')
    at, failed = times['time_s'], times['failed_s']
    labels[name] = Label(
        success=success, discard=answer == 'discard', span_s=span,
        success_s=(times['done_s'] if at is None else at) if success else None,
        failed_s=at if failed is None and success is False else failed,
        words={column: value for column, value in values.items()
               if value and column not in (*_TIMES, 'episode', 'success')})


def _seconds(text: str, decimal: str) -> float | None:
    """Read a number of seconds; None where it is none."""
    try:
        seconds = float(text.replace(decimal, '.'))
    except ValueError:
        return None
    return seconds if 0.0 <= seconds < math.inf else None

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
labels.csv, from which an import takes labels: what is said on the page is said there, too.

Otherwise the next import of the same recordings would bring the old labels back. The table stays
as it is in all other columns, lines, its separator and its encoding. The recorder changes such a
table as well, under the same lock.
"""

import csv
from dataclasses import dataclass
import io
import json
from pathlib import Path
import unicodedata

from hralign_ros.data.bag_files import PARTIAL
from hralign_ros.data.manifest import DataError, Episode
from hralign_ros.data.rosbag import RECORD, SOURCE, VIDEOS
from hralign_ros.review.labels import Label
from hralign_ros.runtime.labels import COLUMNS, FAILURE, FILE, locked, SUCCESS, write_whole


@dataclass(frozen=True)
class Place:
    """
    Where an import reads the label of an episode.

    :param name: of the episode, in the table.
    :param part: the name that it has where the table also says when it begins and ends.
    :param start_s: of its first image, on the clock of the episode's time_s: from there the
        table counts seconds.
    """

    table: Path
    name: str
    part: str = ''
    start_s: float = 0.0


def place_of(root: Path, episode: Episode) -> Place | None:
    """
    Find out where an import reads the label of an episode.

    :param root: folder of the manifest.
    :returns: None where it reads none: of simulated episodes, or of bags that have gone.
    """
    video = root / next(iter(episode.robot_videos.values()))
    if episode.source == 'folder':
        folder = video.parent
        return Place(folder.parents[1] / FILE, unicodedata.normalize(
            'NFC', f'{folder.parent.name}/{folder.name}'))
    above = [folder for folder in video.parents if folder.is_relative_to(root)]
    if episode.source == 'lerobot':
        start = next(iter((*episode.robot_span_s, *episode.time_s)), 0.0)
        return next((Place(folder / FILE, episode.recording, start_s=start) for folder in above
                     if (folder / 'meta/info.json').is_file()), None)
    if episode.source == SOURCE:
        record = next((folder / RECORD for folder in above if (folder / RECORD).is_file()), None)
        return None if record is None else _place_of_bag(root, episode, record)
    return None


def _place_of_bag(root: Path, episode: Episode, record: Path) -> Place | None:
    """Find the table of a bag: the nearest one, or else beside it, where a recorder puts one."""
    bag = Path(json.loads(record.read_text('utf-8'))['bag'])
    if not bag.exists():
        return None
    name = record.parents[1].relative_to(root / VIDEOS).as_posix()
    above = bag.parents[:name.count('/') + 1]
    folder = next((folder for folder in above if (folder / FILE).is_file()), above[0])
    here = bag.relative_to(folder)
    whole = here.as_posix().removesuffix(PARTIAL) if bag.is_dir() \
        else (here.parent / name.rpartition('/')[2]).as_posix()
    whole = unicodedata.normalize('NFC', whole)
    part = episode.episode_id.removeprefix(name).removeprefix('/')
    start = min(-episode.robot_offset_s.get(view, 0.0) for view in episode.robot_videos)
    return Place(folder / FILE, f'{whole}/{part}' if part else whole, part, start)


def write_label(place: Place, label: Label) -> None:
    """
    Write a label into the table, which is replaced in one step; a table that is not there is made.

    :raises DataError: the table cannot be understood.
    :raises OSError: it cannot be written.
    """
    with locked(place.table.parent):
        table = _read(place.table)
        rows = table.rows_of(place.name) or [
            row for row in table.rows_of(place.part) if row.get('start_s') or row.get('end_s')]
        if not rows and not label.outcome:
            return
        column = 'time_s' if 'time_s' in table.columns or 'done_s' not in table.columns \
            else 'done_s'
        for needed in ('success', column, 'by'):
            if needed not in table.columns:
                table.columns.append(needed)
        # Of several lines the last one counts.
        row = rows[-1] if rows else {'episode': place.name}
        for other in rows[:-1]:
            table.rows.remove(other)
        if not rows:
            table.rows.append(row)
        time = '' if label.time_s is None else f'{label.time_s - place.start_s:.3f}'
        for stale in ('time_s', 'done_s', *(
                () if label.outcome == FAILURE else ('failure', 'failed_s'))):
            if stale in row:
                row[stale] = ''
        row |= {'success': label.outcome, 'by': label.by,
                column: time.replace('.', table.decimal) if label.outcome == SUCCESS else ''}
        if not any(value for name, value in row.items() if name != 'episode'):
            table.rows.remove(row)
        _write(place.table, table)


@dataclass
class _Table:
    """A table as it was read."""

    columns: list[str]
    rows: list[dict[str, str]]
    delimiter: str = ','
    encoding: str = 'utf-8'
    line_end: str = '\n'

    @property
    def decimal(self) -> str:
        """Give the decimal mark: spreadsheets separate by ; where people write 1,5."""
        return ',' if self.delimiter == ';' else '.'

    def rows_of(self, name: str) -> list[dict[str, str]]:
        """Return the lines about an episode."""
        # Some systems take letters apart into their strokes and dots.
        return [row for row in self.rows if name and unicodedata.normalize(
            'NFC', row['episode']).strip().strip('/') == name]


def _read(path: Path) -> _Table:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return _Table(list(COLUMNS), [])
    encoding = 'utf-16' if data[:2] in (b'\xff\xfe', b'\xfe\xff') else \
        'utf-8-sig' if data[:3] == b'\xef\xbb\xbf' else 'utf-8'
    try:
        text = data.decode(encoding)
        header = text.partition('\n')[0]
        delimiter = next((one for one in ',;\t' if one in header), ',')
        reader = csv.DictReader(io.StringIO(text, newline=''), delimiter=delimiter, strict=True,
                                restval='')
        columns = [column.strip() for column in reader.fieldnames or ()]
        while columns and not columns[-1]:
            columns.pop()
        reader.fieldnames = columns
        rows = [{key: value for key, value in row.items() if key} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f'{path}: {error}') from error
    if 'episode' not in columns:
        raise DataError(f'{path}: columns are {", ".join(columns) or "none"}; needed is episode')
    return _Table(columns, rows, delimiter, encoding, '\r\n' if '\r\n' in text else '\n')


def _write(path: Path, table: _Table) -> None:
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, table.columns, restval='', delimiter=table.delimiter,
                            lineterminator=table.line_end)
    writer.writeheader()
    writer.writerows(row for row in table.rows if any(row.values()))
    write_whole(path, text.getvalue().encode(table.encoding))

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The report of an evaluation: JSON for programs, CSV for tables, one HTML file for people.

What is in report.json:

    schema_version
    title        text
    runs         optional: folder by the hash of the weights that were measured
    data         what was measured on: name -> text or number (data set, splits, clips, seeds)
    warnings     texts that every reader must see
    rows         measured values, see `Measured.add`; negative controls are marked
    figures      {name, title, caption}; the image lies beside it as PNG, by its name
    commands     what to type to get the same
    tables       name -> list of flat dictionaries, one file each: values per episode
"""

import base64
from collections.abc import Callable, Mapping, Sequence
import csv
from dataclasses import dataclass, field
from importlib.resources import files
import io
import json
import os
from pathlib import Path
import re
from typing import Any

from hralign_ros.evaluation.bootstrap import (
    Estimate,
    EvaluationError,
    Floats,
    Labels,
    paired_difference,
    paired_ratio,
    plain,
)
from hralign_ros.evaluation.metrics.names import describe, METRICS
import jinja2
import numpy as np

SCHEMA_VERSION = 2
_PNG = b'\x89PNG\r\n\x1a\n'
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.-]*')

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Samples:
    """
    What a value is the mean of, for paired comparisons.

    :param values: [S, n], a row per seed; one row for a variant without seeds.
    :param names: episode of each column, [n].
    :param clusters: what is drawn together for intervals, [n].
    :param seeds: of the rows; none for a variant without seeds.
    :param chance: what guessing gives, where that is known.
    """

    values: Floats
    names: Labels
    clusters: Labels
    seeds: Sequence[int] = ()
    chance: float | None = None


@dataclass
class Measured:
    """
    What was found, ready for a report.

    :param rows: see `add`.
    :param tables: rows per episode, by name.
    :param samples: by metric, variant and split.
    :param left_out: {metric, conditions, split, reason} of what these data cannot show.
    :param figures: {name, title, caption}, see `draw`.
    :param images: PNG by name of figure.
    """

    rows: list[Row] = field(default_factory=list)
    tables: dict[str, list[Row]] = field(default_factory=dict)
    samples: dict[tuple[str, str, str], Samples] = field(default_factory=dict)
    left_out: list[Row] = field(default_factory=list)
    figures: list[dict[str, str]] = field(default_factory=list)
    images: dict[str, bytes] = field(default_factory=dict)

    def add(
        self, metric: str, variant: str, split: str, estimate: Estimate, *,
        chance: float | None = None, seeds: Sequence[int] = (), note: str = '',
        control: bool = False, **conditions: Any,
    ) -> None:
        """
        Note a value.

        :param metric: a name of `METRICS`.
        :param variant: of the model, for example `adapted` or `frozen, mean`.
        :param split: which part of the data.
        :param chance: what guessing gives; None: as the metric says.
        :param seeds: of training, where the value is a mean over them.
        :param note: one sentence that a reader needs to know.
        :param control: a negative control: it is there to fail.
        :param conditions: what the value was measured under: gallery, direction, text, alpha, ...
        :raises EvaluationError: the metric is unknown, or a value has no n.
        """
        if metric not in METRICS:
            raise EvaluationError(f"report: no metric is called '{metric}'; names are "
                                  f'{", ".join(METRICS)}')
        if not estimate.n and np.isfinite(estimate.value):
            raise EvaluationError(f"report: '{metric}' has no n")
        if chance is None:
            chance = METRICS[metric].chance
        self.rows.append({
            'metric': metric, 'variant': variant, 'split': split, 'conditions': conditions,
            'control': control, **plain(estimate), 'chance': chance, 'seeds': list(seeds),
            'note': note})

    def draw(self, name: str, image: bytes, title: str, caption: str) -> None:
        """
        Note a figure.

        :param name: of its file.
        :param image: PNG.
        :raises EvaluationError: a name that no file can have, or an image that is none.
        """
        if not _NAME.fullmatch(name):
            raise EvaluationError(
                f"report: figure '{name}': a name has letters, digits, dots and dashes")
        if not image.startswith(_PNG):
            raise EvaluationError(f"report: no PNG was handed in for figure '{name}'")
        self.images[name] = image
        self.figures.append({'name': name, 'title': title, 'caption': caption})

    def select(self, metric: str, **conditions: Any) -> list[Row]:
        """Return the rows of a metric under exactly these conditions."""
        return [row for row in self.rows
                if row['metric'] == metric and row['conditions'] == conditions]

    def find(self, metric: str, variant: str, split: str, **conditions: Any) -> Row | None:
        """Return the row of one value; None where it was not measured."""
        return next((row for row in self.select(metric, **conditions)
                     if (row['variant'], row['split']) == (variant, split)), None)

    def compare(
        self, metric: str, one: str, other: str, split: str,
    ) -> tuple[Estimate, Estimate]:
        """
        Return ratio and difference of two variants on the same episodes and seeds.

        Of seeds, those that both have are compared, each with its like, and drawn too.

        :raises EvaluationError: they were measured on different episodes, or share no seed.
        """
        first, second = (self.samples[metric, name, split] for name in (one, other))
        if not np.array_equal(first.names, second.names):
            raise EvaluationError(f"'{one}' and '{other}' were not measured on the same episodes")
        a, b = (s.values if len(s.seeds) else s.values[0] for s in (first, second))
        if len(first.seeds) and len(second.seeds):
            common = [seed for seed in first.seeds if seed in second.seeds]
            if not common:
                raise EvaluationError(f"'{one}' and '{other}' have no seed in common")
            a, b = (s.values[[list(s.seeds).index(seed) for seed in common]]
                    for s in (first, second))
        return paired_ratio(a, b, first.clusters), paired_difference(a, b, first.clusters)


def rows_for_card(
    rows: Sequence[Row], variant: str, wanted: Sequence[tuple[str, Mapping[str, Any]]],
    baseline: str = '',
) -> dict[str, list[Row]]:
    """
    Pick from a report's rows what a bundle and its card say of a variant.

    :param wanted: metrics, each with the very conditions of the rows that are meant.
    :param baseline: variant whose value stands beside, as `baseline`.
    :returns: by metric, rows of split, conditions, value, interval, n, seeds, chance, baseline.
    """
    beside = {_identity({**row, 'variant': variant}): row['value'] for row in rows
              if row['variant'] == baseline}
    found: dict[str, list[Row]] = {}
    for metric, conditions in wanted:
        for row in rows:
            if (row['metric'], row['variant'], row['conditions'], row['control']) != (
                    metric, variant, conditions, False) or row['value'] is None:
                continue
            extra = {'chance': row['chance'], 'baseline': beside.get(_identity(row))}
            ends = [row['low'], row['high']]
            found.setdefault(metric, []).append({
                'split': row['split'], **conditions, 'value': round(row['value'], 3),
                'interval': None if None in ends else [round(end, 3) for end in ends],
                'n': row['n'], 'seeds': row['seeds'],
                **{key: round(value, 3) for key, value in extra.items() if value is not None}})
    return found


def _identity(row: Row) -> tuple[Any, ...]:
    """Tell what a row is of: no two rows of a report are of the same."""
    return (row['metric'], row['variant'], row['split'], row['control'],
            tuple(sorted((key, str(value)) for key, value in row['conditions'].items())))


def write_report(
    folder: Path, found: Measured, say: Callable[[str], None] = lambda _: None, *, title: str,
    data: Mapping[str, Any], warnings: Sequence[str] = (), commands: Sequence[str] = (),
    runs: Mapping[str, str] | None = None,
) -> dict[str, Path]:
    """
    Write report.json, report.csv, report.html, a CSV per table and a PNG per image into a folder.

    Files that are there are replaced, each in one step. Parameters are as in report.json.

    :param say: gets the path of the report.
    :returns: what was written, by name of file.
    :raises EvaluationError: two rows are of the same metric, variant, split and conditions, the
        name of a table cannot be one of a file, or a value cannot be written as JSON.
    """
    seen = set()
    for row in found.rows:
        if (identity := _identity(row)) in seen:
            raise EvaluationError(
                f'report: two rows are of {describe(row["metric"], row["conditions"])} / '
                f'{row["variant"]} / {row["split"]}')
        seen.add(identity)
    for table in found.tables:
        if not _NAME.fullmatch(table) or table == 'report':
            raise EvaluationError(f"report: '{table}' cannot be the name of a table's file")
    report = {'title': title, **({'runs': runs} if runs else {}), 'data': data,
              'warnings': list(warnings), 'rows': found.rows, 'figures': found.figures,
              'commands': list(commands), 'tables': found.tables}
    try:
        text = json.dumps({'schema_version': SCHEMA_VERSION, **report}, indent=1,
                          ensure_ascii=False, allow_nan=False) + '\n'
    except (TypeError, ValueError) as error:
        raise EvaluationError(f'report: cannot be written as JSON: {error}') from error
    content = {'report.json': text, 'report.csv': to_csv(found.rows),
               'report.html': to_html(report, found.images),
               **{f'{name}.csv': _table(records) for name, records in found.tables.items()}}
    files = {**{name: text.encode() for name, text in content.items()},
             **{f'{name}.png': image for name, image in found.images.items()}}
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        scratch = target / f'{name}.{os.getpid()}.tmp'
        scratch.write_bytes(value)
        scratch.replace(target / name)
    say(f'wrote {target / "report.html"}')
    return {name: target / name for name in files}


def read_report(path: Path) -> dict[str, Any]:
    """
    Read a report.json.

    :raises EvaluationError: it is missing, not JSON, or of another schema.
    """
    try:
        report = json.loads(Path(path).read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise EvaluationError(f'{path}: {error}') from error
    if not isinstance(report, dict) or report.get('schema_version') != SCHEMA_VERSION:
        raise EvaluationError(f'{path}: not a report of schema {SCHEMA_VERSION}')
    return report


def to_csv(rows: Sequence[Row]) -> str:
    """Return all rows in long form, one value a line, a column for each condition."""
    conditions = dict.fromkeys(key for row in rows for key in row['conditions'])
    columns = [name for key in (rows[0] if rows else ())
               for name in (conditions if key == 'conditions' else (key,))]
    return _table([{**{key: value for key, value in row.items() if key != 'conditions'},
                    **row['conditions'], 'seeds': ' '.join(map(str, row['seeds']))}
                   for row in rows], columns)


def to_html(report: Mapping[str, Any], images: Mapping[str, bytes]) -> str:
    """Return the report as one HTML file that needs nothing else; all text in it is escaped."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {
        'number': _number, 'words': lambda value: str(value).replace('_', ' '),
        'text': lambda value: value if isinstance(value, str) else json.dumps(
            value, ensure_ascii=False)}
    template = environment.from_string(
        files('hralign_ros.evaluation').joinpath('report.html.j2').read_text('utf-8'))
    names = dict.fromkeys(row['metric'] for row in report['rows'])
    return template.render(report, images={
        name: f'data:image/png;base64,{base64.b64encode(image).decode()}'
        for name, image in images.items()}, metrics=[
        _section(name, [row for row in report['rows'] if row['metric'] == name])
        for name in names])


def _section(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Gather one metric's table: a line per conditions and variant, a column per split."""
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        lines.setdefault(_identity({**row, 'split': ''}), {**row, 'cells': {}})[
            'cells'][row['split']] = row
    metric = METRICS[name]
    # Variants are to be compared, so those under the same conditions stand together.
    groups: list[dict[str, Any]] = []
    for row in rows:
        if row['conditions'] not in groups:
            groups.append(row['conditions'])
    return {'name': name, 'label': describe(name, {}), 'better': metric.better,
            'measures': metric.measures,
            'conditions': list(dict.fromkeys(key for row in rows for key in row['conditions'])),
            'splits': list(dict.fromkeys(row['split'] for row in rows)),
            'lines': sorted(lines.values(), key=lambda line: (
                groups.index(line['conditions']), line['control'])),
            'notes': [f'{describe(row["split"], row["conditions"])}, {row["variant"]}: '
                      f'{row["note"]}' for row in rows if row['note']]}


def _number(value: float | None) -> str:
    """Three digits that matter, and a real minus sign."""
    if value is None:
        return '–'
    size = abs(value)
    if size >= 100:
        text = f'{value:.0f}'
    elif size >= 10:
        text = f'{value:.1f}'
    elif size >= 0.01 or size == 0:
        text = f'{value:.3f}'
    else:
        text = f'{value:.2g}'
    return text.replace('-', '−')


def _table(records: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    names = columns or list(dict.fromkeys(key for record in records for key in record))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator='\n')
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()

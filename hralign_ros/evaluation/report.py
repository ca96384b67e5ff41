# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The report of an evaluation: JSON for programs, CSV for tables, one HTML file for people.

A report is a plain dictionary, so that it can be kept and merged:

    title        text
    data         what was measured on: name -> text or number (data set, splits, clips, seeds)
    warnings     texts that every reader must see
    rows         measured values, see `row`
    controls     the same for negative controls; shown in the same tables, marked as controls
    figures      {name, title, caption}; the image is handed in by name as PNG
    commands     what to type to get the same
    tables       optional: name -> list of flat dictionaries, one file each: values per episode
"""

import base64
from collections.abc import Callable, Mapping, Sequence
import csv
from html import escape
import io
import json
import os
from pathlib import Path
import re
from typing import Any

from hralign_ros.evaluation.bootstrap import Estimate, EvaluationError, plain

SCHEMA_VERSION = 1
_REQUIRED: dict[str, type] = {
    'title': str, 'data': dict, 'warnings': list, 'rows': list, 'controls': list,
    'figures': list, 'commands': list}
# Runs: folder by the hash of the weights that were measured.
_OPTIONAL = ('tables', 'schema_version', 'runs')
_ROW_KEYS = ('metric', 'variant', 'split', 'value', 'low', 'high', 'n', 'clusters', 'method',
             'better', 'chance', 'seeds', 'note')
_PNG = b'\x89PNG\r\n\x1a\n'
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.-]*')

Report = Mapping[str, Any]


def row(
    metric: str, variant: str, split: str, estimate: Estimate, *, better: str = '',
    chance: float | None = None, seeds: Sequence[int] = (), note: str = '',
) -> dict[str, Any]:
    """
    Make one row of a report.

    :param metric: what was measured, for example `R@1 human to robot, gallery 50`.
    :param variant: of the model, for example `adapted` or `frozen, mean`.
    :param split: which part of the data.
    :param better: higher, lower, or '' where neither is.
    :param chance: what guessing gives.
    :param seeds: of training, where the value is a mean over them.
    :param note: one sentence that a reader needs to know.
    """
    return {'metric': metric, 'variant': variant, 'split': split, **plain(estimate),
            'better': better, 'chance': chance, 'seeds': list(seeds), 'note': note}


def check_report(report: Report, images: Mapping[str, bytes]) -> None:
    """
    Refuse a report that could not be written or read.

    :raises EvaluationError: a key is missing or of the wrong kind, a row has no interval or no n,
        a value cannot be written as JSON, an image is missing or is none, or two rows are of the
        same metric, variant and split.
    """
    for key, kind in _REQUIRED.items():
        if not isinstance(report.get(key), kind):
            raise EvaluationError(f'report: {key} must be a {kind.__name__}')
    extra = sorted(set(report) - set(_REQUIRED) - set(_OPTIONAL))
    if extra:
        raise EvaluationError(f'report: unknown key {", ".join(extra)}')
    seen = set()
    for item in [*report['rows'], *report['controls']]:
        wrong = set(item) ^ set(_ROW_KEYS)
        if wrong:
            raise EvaluationError(
                f'report: a row lacks or must not have {", ".join(sorted(wrong))}')
        if item['value'] is not None and not item['n']:
            raise EvaluationError(f"report: '{item['metric']}' has no n")
        name = (item['metric'], item['variant'], item['split'])
        if name in seen:
            raise EvaluationError(f'report: two rows are of {" / ".join(name)}')
        seen.add(name)
    for figure in report['figures']:
        if set(figure) != {'name', 'title', 'caption'} or not _NAME.fullmatch(figure['name']):
            raise EvaluationError(
                'report: a figure has name (letters, digits, dots and dashes), title and caption')
        if not images.get(figure['name'], b'').startswith(_PNG):
            raise EvaluationError(f"report: no PNG was handed in for figure '{figure['name']}'")
    for table in report.get('tables', {}):
        if not _NAME.fullmatch(table) or table == 'report':
            raise EvaluationError(f"report: '{table}' cannot be the name of a table's file")
    try:
        json.dumps(report, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise EvaluationError(f'report: cannot be written as JSON: {error}') from error


def write_report(folder: Path, report: Report, images: Mapping[str, bytes]) -> dict[str, Path]:
    """
    Write report.json, report.csv, report.html and one CSV per table into a folder.

    Files that are there are replaced, each in one step.

    :param images: PNG by name of figure.
    :returns: what was written, by name of file.
    :raises EvaluationError: as check_report.
    """
    check_report(report, images)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    content = {
        'report.json': json.dumps({'schema_version': SCHEMA_VERSION, **report}, indent=1,
                                  ensure_ascii=False, allow_nan=False) + '\n',
        'report.csv': to_csv(report),
        'report.html': to_html(report, images)}
    for name, records in report.get('tables', {}).items():
        content[f'{name}.csv'] = _table(records)
    for name, text in content.items():
        scratch = target / f'{name}.{os.getpid()}.tmp'
        scratch.write_text(text, encoding='utf-8', newline='')
        scratch.replace(target / name)
    return {name: target / name for name in content}


def write_folder(
    folder: Path, report: Report, images: Mapping[str, bytes], say: Callable[[str], None],
) -> None:
    """Write a report with its images as files of their own, and say where to look."""
    files = write_report(folder, report, images)
    for name, image in images.items():
        (Path(folder) / f'{name}.png').write_bytes(image)
    say(f'look at {files["report.html"]}')


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


def to_csv(report: Report) -> str:
    """Return all rows in long form, one value a line, controls marked."""
    records = [{'control': False, **item} for item in report['rows']]
    records += [{'control': True, **item} for item in report['controls']]
    return _table([{**r, 'seeds': ' '.join(map(str, r['seeds']))} for r in records],
                  ('control', *_ROW_KEYS))


def to_html(report: Report, images: Mapping[str, bytes]) -> str:
    """Return the report as one HTML file that needs nothing else; all text in it is escaped."""
    items = [(item, False) for item in report['rows']]
    items += [(item, True) for item in report['controls']]
    metrics = list(dict.fromkeys(item['metric'] for item, _ in items))
    parts = [f'<h1>{escape(report["title"])}</h1>']
    if report['warnings']:
        lines = ''.join(f'<li>{escape(str(text))}</li>' for text in report['warnings'])
        parts.append(f'<section class="warnings" aria-label="Warnings"><ul>{lines}</ul></section>')
    if report['data']:
        lines = ''.join(f'<dt>{escape(str(key))}</dt><dd>{escape(_text(value))}</dd>'
                        for key, value in report['data'].items())
        parts.append(f'<h2>Data</h2><dl>{lines}</dl>')
    if metrics:
        parts.append('<h2>Results</h2><p class="hint">Value, below it the 95&nbsp;% interval and '
                     'n. Shaded rows are negative controls.</p>')
    parts += [_metric(metric, [(i, c) for i, c in items if i['metric'] == metric])
              for metric in metrics]
    if report['figures']:
        parts.append('<h2>Figures</h2>')
    for figure in report['figures']:
        data = base64.b64encode(images[figure['name']]).decode()
        title, caption = escape(figure['title']), escape(figure['caption'])
        parts.append(f'<figure><h3>{title}</h3><img alt="{title}" '
                     f'src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption>'
                     '</figure>')
    if report['commands']:
        lines = escape('\n'.join(str(line) for line in report['commands']))
        parts.append(f'<h2>Commands</h2><pre>{lines}</pre>')
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<title>{escape(report["title"])}</title>\n<style>{_STYLE}</style>\n</head>\n'
            '<body>\n' + '\n'.join(parts) + '\n</body>\n</html>\n')


def _metric(metric: str, items: Sequence[tuple[Mapping[str, Any], bool]]) -> str:
    """One table: a line per variant, controls last; a column per split."""
    splits = list(dict.fromkeys(item['split'] for item, _ in items))
    lines = list(dict.fromkeys((item['variant'], control) for item, control in items))
    cells = {(item['variant'], control, item['split']): item for item, control in items}
    better = next((item['better'] for item, _ in items if item['better']), '')
    head = ''.join(f'<th scope="col">{escape(split)}</th>' for split in splits)
    body = []
    for variant, control in lines:
        mark = ' <small>control</small>' if control else ''
        columns = ''.join(_cell(cells.get((variant, control, split))) for split in splits)
        body.append(f'<tr{" class=control" if control else ""}><th scope="row">{escape(variant)}'
                    f'{mark}</th>{columns}</tr>')
    notes = list(dict.fromkeys(item['note'] for item, _ in items if item['note']))
    below = ''.join(f'<p class="hint">{escape(note)}</p>' for note in notes)
    hint = f' <small>{escape(better)} is better</small>' if better else ''
    return (f'<section><h3>{escape(metric)}{hint}</h3><div class="wide"><table><thead><tr><th>'
            f'</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>{below}'
            '</section>')


def _cell(item: Mapping[str, Any] | None) -> str:
    if item is None:
        return '<td class="none">–</td>'
    # A ratio's upper end may be infinite, which JSON has no word for.
    upper = '∞' if item['high'] is None else _number(item['high'])
    interval = 'no interval' if item['low'] is None else f'{_number(item["low"])} to {upper}'
    seeds = f', {len(item["seeds"])} seeds' if item['seeds'] else ''
    chance = '' if item['chance'] is None else f'<br>chance {_number(item["chance"])}'
    return (f'<td><b>{_number(item["value"])}</b><small>{interval}<br>n {item["n"]}'
            f'{seeds}{chance}</small></td>')


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


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(records: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    names = columns or list(dict.fromkeys(key for record in records for key in record))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator='\n')
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()


_STYLE = """
:root { color-scheme: light dark; --line: #d5d9df; --shade: #f1f3f6; --dim: #5a6472;
  --warn: #8a4b00; --warnback: #fff4e0; }
@media (prefers-color-scheme: dark) { :root { --line: #3b424c; --shade: #22272e; --dim: #9aa5b3;
  --warn: #ffc46b; --warnback: #33270f; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; } h3 { margin-bottom: .4rem; }
h3 small { font-weight: normal; color: var(--dim); }
.warnings { border-left: 4px solid var(--warn); background: var(--warnback);
  padding: .4rem 1rem; } .warnings ul { margin: .3rem 0; padding-left: 1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .45rem 1rem .45rem .6rem; vertical-align: top;
  border-bottom: 1px solid var(--line); }
thead th { border-bottom-width: 2px; } tbody th { font-weight: normal; min-width: 11rem; }
td small { display: block; color: var(--dim); font-size: .78rem; line-height: 1.35;
  white-space: nowrap; }
th small { color: var(--dim); }
.control { background: var(--shade); } .none, .hint, figcaption { color: var(--dim); }
.hint { font-size: .9rem; margin: .3rem 0; }
figure { margin: 1.5rem 0; } figure img { max-width: 100%; background: #fff; padding: .5rem;
  border: 1px solid var(--line); border-radius: 6px; box-sizing: border-box; }
pre { overflow-x: auto; background: var(--shade); padding: .8rem 1rem; border-radius: 6px; }
"""

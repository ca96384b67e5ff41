# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Write the tables of docs/results/tabletop.md, and its picture, anew from results/tabletop.json.

    python -m benchmarks.success.tabletop_tables
"""

from collections.abc import Mapping, Sequence
import json
from math import hypot
from typing import Any

from benchmarks.pages import find, number, rewrite, ROOT, Row, table
from hralign_ros.evaluation.figures import bar_chart
from hralign_ros.evaluation.success_ticks import ANY, SEEN, TIME_ONLY

RESULTS = ROOT / 'results/tabletop.json'
PAGE = ROOT / 'docs/results/tabletop.md'
PICTURE = ROOT / 'docs/images/tabletop.png'
SPLITS = {
    SEEN: 'seen', 'test_lab': 'held-out labs', 'test_view': 'held-out views',
    'test_instruction': 'held-out instructions', 'test_object': 'held-out objects',
    'test_relation': 'held-out relation', 'test_embodiment': 'held-out arms',
    'validation': 'validation'}
# A metric and its conditions, by the title of the column.
_DETECTION: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    'AUROC': ('auroc', {}), 'false positives at 95 % recall': ('fpr_at_95_recall', {}),
    'AUROC at the end': ('auroc_at_end', {'cause': ANY}),
    'language failures': ('auroc_at_end', {'cause': 'language'}),
    'motion failures': ('auroc_at_end', {'cause': 'motion'}),
    'right instruction of the scene': ('instruction_accuracy', {'gallery': 'same_scene'})}
_DECISIONS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    'false alarms at 5 %': ('false_alarm_rate', {'alpha': 0.05}),
    'decided too early': ('early_success_rate', {}),
    'missed successes': ('missed_success_rate', {})}
_ALL_VIEWS = 'all views'
_HEADLINE: Sequence[tuple[str, str, str, Mapping[str, Any]]] = (
    ('auroc_held_out_instructions', 'auroc', 'test_instruction', {}),
    ('auroc_held_out_objects', 'auroc', 'test_object', {}),
    ('auroc_held_out_labs', 'auroc', 'test_lab', {}),
    ('fpr_95_held_out_instructions', 'fpr_at_95_recall', 'test_instruction', {}),
    ('right_instruction', 'instruction_accuracy', 'test_instruction', {'gallery': 'same_scene'}),
    ('missed_seen', 'missed_success_rate', SEEN, {}),
    ('missed_held_out_view', 'missed_success_rate', 'test_view', {}))


def tables(found: Mapping[str, Any]) -> dict[str, str]:
    """Draw all tables of the page, by the name of their mark."""
    rows, heads = found['rows'], list(found['training'])
    splits = [split for split in SPLITS if find(rows, 'auroc', heads[0], split)]

    def cells(name: str, split: str, columns: Mapping[str, tuple[str, Mapping[str, Any]]]) -> list[
            str]:
        some = [find(rows, metric, name, split, **conditions)
                for metric, conditions in columns.values()]
        more = {'instruction_accuracy': ' ({chance:.3f})', 'missed_success_rate': ' of {n}'}
        return [number(row) + ('' if row is None else more.get(row['metric'], '').format(**row))
                for row in some]

    def auroc(name: str, cameras: str) -> float | None:
        row = find(rows, 'auroc', name, SEEN, cameras=cameras)
        return None if row is None else float(row['value'])

    cameras = dict.fromkeys(row['conditions']['cameras'] for row in rows
                            if 'cameras' in row['conditions'])
    lost = [[what, *(f'{here:.3f} ({whole - here:+.3f})' if (
        here := auroc(name, what)) is not None and (whole := auroc(name, _ALL_VIEWS)) is not None
        else '-' for name in heads)] for what in cameras]
    return {
        'facts': table(['head', 'seeds', 'attempts', 'stills', 'goals of stills', 'steps',
                        'seconds of a run'], [
            [name, str(some['seeds']), *(str(some[key]) for key in (
                'attempts', 'stills', 'goals', 'steps', 'seconds'))]
            for name, some in found['training'].items()]),
        'detection': table(['split', 'head', *_DETECTION], [
            [SPLITS[split], name, *cells(name, split, _DETECTION)]
            for split in splits for name in (*heads, TIME_ONLY)]),
        'decisions': table(['split', 'head', *_DECISIONS], [
            [SPLITS[split], name, *cells(name, split, _DECISIONS)]
            for split in splits if split != 'validation' for name in heads]),
        'families': table(['instructions', 'attempts', 'AUROC at the end', 'elapsed time alone',
                           'false alarms at 5 %', 'missed successes'], [
            [family.removeprefix('family '), str(row['n']), number(row), number(find(
                rows, 'auroc_at_end', TIME_ONLY, family, cause=ANY)), *(
                    number(find(rows, metric, heads[0], family, **conditions))
                    for metric, conditions in (
                        _DECISIONS['false alarms at 5 %'], _DECISIONS['missed successes']))]
            for family in sorted({row['split'] for row in rows
                                  if row['split'].startswith('family ')})
            if (row := find(rows, 'auroc_at_end', heads[0], family, cause=ANY))]),
        'cameras': table(['cameras', *heads], lost)}


def headline(rows: Sequence[Row], head: str) -> dict[str, Any]:
    """
    Give a head's main figures by name, and under NAME_interval the intervals of those with one.

    What a held-out arm costs is a difference between two independent sets of attempts: for its
    interval the half-widths of the two are added in quadrature.
    """
    found: dict[str, Any] = {}
    for key, metric, split, conditions in _HEADLINE:
        if (row := find(rows, metric, head, split, **conditions)) is not None:
            found[key] = round(row['value'], 4)
            found[f'{key}_interval'] = [round(row['low'], 4), round(row['high'], 4)]
    seen, arm = (find(rows, 'auroc', head, split) for split in (SEEN, 'test_embodiment'))
    if seen is not None and arm is not None:
        loss = seen['value'] - arm['value']
        less = hypot(seen['value'] - seen['low'], arm['high'] - arm['value'])
        more = hypot(seen['high'] - seen['value'], arm['value'] - arm['low'])
        found['left_out_arm_loss'] = round(loss, 4)
        found['left_out_arm_loss_interval'] = [round(loss - less, 4), round(loss + more, 4)]
    whole, without = (find(rows, 'auroc', head, SEEN, cameras=cameras)
                      for cameras in (_ALL_VIEWS, 'no wrist'))
    if whole is not None and without is not None:
        found['lost_without_wrist'] = round(whole['value'] - without['value'], 4)
    return found


def picture(found: Mapping[str, Any]) -> bytes:
    """Draw AUROC at the end of attempts, by split: PNG."""
    return bar_chart([
        {**row, 'split': SPLITS[row['split']], 'control': row['variant'] == TIME_ONLY}
        for split in SPLITS for row in found['rows'] if row['split'] == split and (
            row['metric'], row['conditions']) == _DETECTION['AUROC at the end']],
        title='AUROC at the end of attempts')


if __name__ == '__main__':
    rewrite(PAGE, RESULTS, tables)
    PICTURE.write_bytes(picture(json.loads(RESULTS.read_text('utf-8'))))

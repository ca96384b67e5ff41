# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Write the tables of docs/success_results.md anew from results/success.json.

    python benchmarks/success_tables.py

What stands between the marks `<!-- NAME -->` and `<!-- end -->` is replaced, the rest is prose.
"""

from collections.abc import Mapping, Sequence
import json
from pathlib import Path
from statistics import median
import sys
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from pages import filled, rewrite, ROOT, table  # noqa: E402, F401

RESULTS = ROOT / 'results' / 'success.json'
ADD_TASK = ROOT / 'results' / 'add_task.json'
PAGE = ROOT / 'docs' / 'success_results.md'
MODES = ('Failure mode against kind, mutual information within tasks',
         'Failure kind named right')
Cell = Mapping[str, float | None]


def number(value: Cell | None, digits: int = 3) -> str:
    """Write a value with its interval, where it has one."""
    if value is None or value['value'] is None:
        return '-'
    text = f'{value["value"]:.{digits}f}'
    if value['low'] is None or value['high'] is None:
        return text
    return f'{text} [{value["low"]:.{digits}f}, {value["high"]:.{digits}f}]'


def tables(found: Mapping[str, Any]) -> dict[str, str]:
    """Draw all tables of the page, by the name of their mark."""
    splits = found['detection']
    detection = [[split, name, number(cells['auroc']), number(cells['fpr95']),
                  number(cells['average_precision'])]
                 for split, variants in splits.items() for name, cells in variants.items()
                 if name in found['main_variants']]
    ablations = [[name, str(cells['seeds']), number(cells['auroc_seen']),
                  number(cells.get('auroc_held_out_tasks')), number(cells['fpr95_seen']),
                  *(_beside(cells['modes'].get(mode)) for mode in MODES)]
                 for name, cells in found.get('ablations', {}).items()]
    calibration = [[split, *(number(cells.get(key)) for key in ('ece_any', 'ece', 'brier', 'nll'))]
                   for split, cells in found['calibration'].items()]
    rows = [[*key.split(' | '), number(cells), '-' if cells['chance'] is None
             else f'{cells["chance"]:.3f}', str(cells['n'])]
            for key, cells in found['rows'].items()
            if not key.startswith('E14') and key.split(' | ')[1] == found['main_variants'][0]]
    streams = [[row['stream'], str(row['segments']), str(row['frames']),
                str(row['success_events']), f'{row["bound_per_segment"]:.4f}',
                str(row['events_one_sample']), str(row['perturbed_frames']),
                f'{row["perturbed_events"]} of {row["perturbed_segments"]}',
                str(row['perturbed_events_one_sample'])] for row in found['tables']['streams']]
    cameras = [[row['what'], f'{row["auroc"]:.3f}', f'{row["auroc_loss"]:+.3f}',
                f'{row["sure_and_wrong"]:.4f}'] for row in found['tables']['cameras']]
    left_out = [[row['robot'], f'{row["attempts"]} ({row["successes"]}, {row["tasks"]})',
                 *(f'{number(row[when])}, seeds: {row[when]["seeds"]}'
                   for when in ('never_seen', 'trained_on')), str(row['in_training'])]
                for row in found.get('left_out', [])]
    by_task = found['tables']['false_alarms_by_task']
    broken = sum(row['low'] > 0.05 for row in by_task if row['split'] == 'seen tasks')
    count = sum(row['split'] == 'seen tasks' for row in by_task)
    facts = {
        'training episodes (successes, tasks, scenes)':
            f'{found["training"]["episodes"]} ({found["training"]["successes"]}, '
            f'{found["training"]["tasks"]}, {found["training"]["scenes"]})',
        'human recordings': str(found['training']['human_recordings']),
        'calibration episodes that never succeed': str(found['calibration_never_succeeding']),
        'seconds to train, one thread': ', '.join(f'{s:.0f}' for s in found['seconds']),
        'tasks whose own 95 % interval lies above 5 %': f'{broken} of {count}',
        'load average at the end': ', '.join(map(str, found['load_average']))}
    if 'real_footage_ood_rate' in found:
        facts |= {
            'real footage: ticks OUT_OF_DISTRIBUTION':
                f'{found["real_footage_ood_rate"]:.3f} of {found["real_footage_ticks"]}, '
                f'{found["real_footage_videos"]} videos',
            'real footage: SUCCESS decisions': str(found['real_footage_success_events']),
            'attempts of seen tasks: ticks OUT_OF_DISTRIBUTION':
                f'{found["in_distribution_ood_rate"]:.3f} of {found["in_distribution_ticks"]}'}
    shipped = _shipped(found['shipped']) if 'shipped' in found else {}
    return {
        **shipped,
        **(_added(json.loads(ADD_TASK.read_text('utf-8'))) if ADD_TASK.exists() else {}),
        'facts': table(['what', 'figure'], [[k, v] for k, v in facts.items()]),
        'detection': table(['split', 'variant', 'AUROC', 'false positives at 95 % recall',
                            'average precision'], detection),
        'ablations': table(['variant', 'seeds', 'AUROC, seen tasks', 'AUROC, held-out tasks',
                            'false positives at 95 % recall, seen tasks',
                            'modes and kinds: mutual information', 'kind named right'],
                           ablations),
        'calibration': table(['split', 'ECE of any tick', 'ECE', 'Brier', 'NLL'], calibration),
        'streams': table(['stream', 'segments', 'frames', 'SUCCESS', 'bound per segment, 95 %',
                          'one sample above 0.5', 'perturbed: frames', 'perturbed: SUCCESS',
                          'perturbed: one sample above 0.5'], streams),
        'left_out': table(['robot', 'attempts (successes, tasks)',
                           'AUROC, heads that never saw it', 'heads that saw both',
                           'its episodes in the training of those'], left_out),
        'cameras': table(['what', 'AUROC', 'loss', 'never succeeds, yet above 0.9'], cameras),
        'rows': table(['number', 'variant', 'split', 'value', 'chance or guarantee', 'n'], rows)}


def _shipped(found: Mapping[str, Any]) -> dict[str, str]:
    """Draw what is said of the shipped head."""
    trained = found['training']
    streams = found['tables']['streams'][-1]
    by_task = [row for row in found['tables']['false_alarms_by_task']
               if row['split'] == 'seen tasks']
    facts = {
        'training episodes (successes, tasks, scenes, human recordings)':
            f'{trained["episodes"]} ({trained["successes"]}, {trained["tasks"]}, '
            f'{trained["scenes"]}, {trained["human_recordings"]})',
        'calibration episodes that never succeed': str(found['calibration_never_succeeding']),
        'seeds': str(found['seeds']),
        'tasks whose own 95 % interval lies above 5 % (attempts of each, median)':
            f'{sum(row["low"] > 0.05 for row in by_task)} of {len(by_task)} '
            f'({median(row["episodes"] for row in by_task):g})',
        'streams of which nothing is accomplished in: frames, segments, SUCCESS':
            f'{streams["frames"]}, {streams["segments"]}, {streams["success_events"]}',
        'the same by one sample above 0.5': str(streams['events_one_sample'])}
    facts |= {f'{row["what"]}: AUROC, loss': f'{row["auroc"]:.3f}, {row["auroc_loss"]:+.3f}'
              for row in found['tables']['cameras'] if row['what'].startswith('no ')}
    if 'real_footage_ood_rate' in found:
        facts |= {
            'real footage: ticks OUT_OF_DISTRIBUTION, SUCCESS decisions':
                f'{found["real_footage_ood_rate"]:.3f} of {found["real_footage_ticks"]}, '
                f'{found["real_footage_success_events"]}',
            'attempts of seen tasks: ticks OUT_OF_DISTRIBUTION':
                f'{found["in_distribution_ood_rate"]:.3f} of {found["in_distribution_ticks"]}'}
    for split, cells in found.get('time_alone', {}).items():
        facts[f'time alone: AUROC, {split}'] = number(cells)
    columns = {'AUROC': 'auroc', 'false positives at 95 % recall': 'fpr95', 'ECE': 'ece',
               'ECE of any tick': 'ece_any',
               'false alarms at 5 %': 'false_alarms', 'missed successes': 'missed',
               'decided too early': 'early',
               'median delay [s]': 'delay_s'}
    return {
        'shipped': table(['split', *columns], [
            [split, *(number(cells.get(key)) for key in columns.values())]
            for split, cells in found['splits'].items()]),
        'shipped_facts': table(['what', 'figure'], [[k, v] for k, v in facts.items()])}


def _beside(cells: Cell | None) -> str:
    """Write a value beside that of chance."""
    if cells is None or cells['value'] is None:
        return '-'
    return f'{cells["value"]:.3f} ({cells["chance"]:.3f})'


def _added(found: Mapping[str, Any]) -> dict[str, str]:
    """Draw the learning curve of add-task."""
    sizes = sorted({row['clips_each'] for row in found['rows']})
    without = found['without']
    rows = [['none (shared prompts)', '', f'{without["auroc"]:.3f} '
             f'[{without["low"]:.3f}, {without["high"]:.3f}]', '', '', '', '']]
    for size in sizes:
        some = [row for row in found['rows'] if row['clips_each'] == size]
        rows.append([f'{size} + {size}', str(len(some)),
                     ', '.join(f'{row["auroc"]:.3f}' for row in some),
                     *(_average(some, key) for key in ('false_alarms', 'too_early', 'missed')),
                     ', '.join(f'{row["seconds"]:.0f}' for row in some)])
    return {'add_task': table(
        ['clips of success + failure', 'draws', 'AUROC on other attempts, each draw',
         'false alarms at 5 %', 'decided too early', 'missed', 'seconds to fit'], rows)}


def _average(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    """Average a share over the draws that have it."""
    known = [row[key] for row in rows if row.get(key) is not None]
    return f'{sum(known) / len(known):.3f}' if known else '-'


if __name__ == '__main__':
    rewrite(PAGE, RESULTS, tables)

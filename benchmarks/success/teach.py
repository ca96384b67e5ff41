# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Gather what is measured of teaching, and write the tables of docs/results/teaching.md anew.

    python -m benchmarks.success.teach [--tutorial-minutes X]

It gathers results/new_lab.json (`benchmarks.success.new_lab`), results/teach_real.json
(`benchmarks.success.teach_real`) and results/recorder_latency.json (`benchmarks.latency.recorder`)
into results/teach.json, and results/new_lab_50.json, a new lab that was also taught by 50 + 50.
What was not run is null.
"""

import argparse
from collections.abc import Mapping, Sequence
import json
from typing import Any

from benchmarks.pages import filled, ROOT, table

RESULTS = ROOT / 'results'
PAGE = ROOT / 'docs/results/teaching.md'
_COUNTS = (5, 10, 50, 200)
_FIGURES = {
    'decided_within_a_second': 'decided within 1 s', 'decided': 'decided', 'early': 'early',
    'false_alarms': 'failures called SUCCESS', 'failures_stopped': 'failures called FAILURE',
    'successes_stopped': 'successes called FAILURE',
    'out_of_distribution_ticks': 'ticks out of distribution'}


def _read(name: str) -> dict[str, Any]:
    path = RESULTS / f'{name}.json'
    return dict(json.loads(path.read_text('utf-8'))) if path.exists() else {}


def gather(tutorial_minutes: float | None, before: Mapping[str, Any]) -> dict[str, Any]:
    """Put the figures side by side, under the names that the issue gave them."""
    lab, real, recorder = _read('new_lab'), _read('teach_real'), _read('recorder_latency')
    fifty = _read('new_lab_50')
    results = {**fifty.get('results', {}), **lab.get('results', {})}

    def of(count: int, figure: str, labels: str = 'moment labelled') -> Any:
        return results.get(f'{count}+{count}, {labels}', {}).get(figure)

    def ood(*words: str) -> Any:
        rows = [row for name, row in lab.get('out_of_distribution', {}).items()
                if any(word in name for word in words)]
        return {'value': round(sum(r['count'] for r in rows) / sum(r['of'] for r in rows), 4),
                'of': sum(r['of'] for r in rows)} if rows else None

    return {
        **{f'new_lab_decided_{n}': of(n, 'decided_within_a_second') for n in _COUNTS},
        **{f'new_lab_early_{n}': of(n, 'early') for n in _COUNTS},
        **{f'new_lab_early_{n}_outcome_alone': of(n, 'early', 'outcome alone') for n in (5, 10)},
        **{f'new_lab_decided_{n}_outcome_alone': of(
            n, 'decided_within_a_second', 'outcome alone') for n in (5, 10)},
        'new_lab_false_alarms': of(10, 'false_alarms'),
        'new_lab_offered_alpha': of(10, 'offered_alpha'),
        'new_lab_refused_heads_10': of(10, 'refused_heads'),
        'new_lab_attempts': lab.get('fresh_attempts'),
        'ood_taught': ood('fresh attempts'), 'ood_swapped': ood('cameras swapped'),
        'ood_upside_down': ood('upside down'), 'ood_covered': ood('covered'),
        'ood_other_labs': ood(': lab-7', ': lab-9'),
        # Of the lab's own camera; to the other arm's lab these are other labs.
        'ood_moved_10_degrees': ood('kinova3: lab-1@10deg'),
        'ood_moved_10_cm': ood('kinova3: lab-1@10cm'),
        'add_task_before': before.get('add_task_before'),
        'real_auroc': real.get('auroc_by_source'),
        'gate_refused_below_clock': real and real['groups_below_clock']
        - real['groups_below_clock_with_a_threshold'],
        'gate_below_clock': real.get('groups_below_clock'),
        'teach_seconds_10_busy': lab.get('fit_seconds_10_a_task'),
        'teach_load_average': lab.get('load_average'),
        'recorder_latency_ratio': recorder.get('recorder_latency_ratio'),
        'tutorial_minutes': tutorial_minutes if tutorial_minutes is not None
        else before.get('tutorial_minutes'),
        'commands': ['python -m benchmarks.success.teach', *(
            part['command'] for part in (lab, fifty, real, recorder) if part.get('command'))]}


def tables() -> dict[str, str]:
    """Draw the page's tables, by the name of their mark."""
    lab, real = _read('new_lab'), _read('teach_real')
    made = {}
    if lab:
        made['NEW_LAB'] = _of_heads({**lab['results'], **_of_tasks(lab, 10)})
        made['BASELINES'] = table(
            ['decides by', 'decided within 1 s', 'early', 'failures called SUCCESS'],
            [[name, *(_percent(found[key]) for key in (
                'decided_within_a_second', 'early', 'false_alarms'))]
             for name, found in lab['baselines_10'].items()])
        made['OOD'] = table(['images', 'ticks out of distribution'], [
            [name, _percent(found)] for name, found in lab['out_of_distribution'].items()])
    if fifty := _read('new_lab_50'):
        made['FIFTY'] = _of_heads({
            **{name: found for name, found in fifty['results'].items() if 'only' not in name},
            **_of_tasks(fifty, 10), **_of_tasks(fifty, 50)})
    if real:
        made['REAL'] = table(
            ['source', 'task', 'successes + failures', 'AUROC, lower bound', 'of duration',
             'thresholds', 'decided', 'false'],
            [[row['source'], row['task'], f'{row["successes"]} + {row["failures"]}',
              f'{row["auroc"]:.2f}, {row["auroc_low"]:.2f}' if 'auroc' in row else 'too few',
              f'{row["elapsed_auroc"]:.2f}' if 'auroc' in row else '', str(row['thresholds']),
              str(row['decided']), str(row['false'])] for row in real['groups']])
    return made


def _of_tasks(lab: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Take what heads of each task do that learned from moments of success."""
    return {f'{count}+{count} of {name}': found
            for name, found in lab.get(f'by_task_{count}', {}).items() if 'moment' in name}


def _of_heads(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Draw a table of what heads decide, a row for each name."""
    columns = ['attempts', 'heads', 'abstain', 'rate offered', *_FIGURES.values(), 'delay [s]']
    return table(columns, [
        [name, f'{one["heads"]}', f'{one["refused_heads"]}',
         '' if one['offered_alpha'] is None else f'{100 * one["offered_alpha"]:.1f} %',
         *(_percent(one[key]) for key in _FIGURES),
         '' if one['median_delay_s'] is None else f'{one["median_delay_s"]:.1f}']
        for name, one in found.items()])


def _percent(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ''
    low, high = row['interval']
    return f'{100 * row["value"]:.0f} [{100 * low:.0f}, {100 * high:.0f}] % of {row["of"]}'


def main(arguments: Sequence[str] | None = None) -> int:
    """Gather and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('--tutorial-minutes', type=float)
    options = parser.parse_args(arguments)
    found = gather(options.tutorial_minutes, _read('teach'))
    (RESULTS / 'teach.json').write_text(json.dumps(found, indent=1) + '\n', 'utf-8')
    PAGE.write_text(filled(PAGE.read_text('utf-8'), tables()), 'utf-8')
    print(json.dumps(found, indent=1))
    return 0


if __name__ == '__main__':
    raise SystemExit(main())

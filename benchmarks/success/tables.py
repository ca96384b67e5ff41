# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Write the tables of docs/results/success.md anew from results/success.json.

    python -m benchmarks.success.tables

What stands between the marks `<!-- NAME -->` and `<!-- end -->` is replaced, the rest is prose.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.pages import find, number, rewrite, ROOT, Row, table

RESULTS = ROOT / 'results' / 'success.json'
PAGE = ROOT / 'docs/results/success.md'
SPLITS = {'test_seen': 'seen tasks', 'test_view': 'held-out views',
          'test_distractor': 'held-out distractors', 'test_task': 'held-out tasks',
          'test_embodiment': 'held-out embodiment', 'test_seen_30hz': 'seen tasks, 30 Hz'}
OURS, TIME_ONLY = 'failure prompts', 'time alone'
# A metric and its conditions, by the title of the column.
Columns = Mapping[str, tuple[str, Mapping[str, Any]]]
_DETECTION: Columns = {
    'AUROC': ('auroc', {}), 'false positives at 95 % recall': ('fpr_at_95_recall', {}),
    'average precision': ('average_precision', {})}
_ENDS = {'ticks': 'random_and_last'}
_CALIBRATION: Columns = {
    'ECE of any tick': ('expected_calibration_error', {'ticks': 'random'}),
    'ECE': ('expected_calibration_error', _ENDS), 'Brier score': ('brier_score', _ENDS),
    'NLL': ('negative_log_likelihood', _ENDS)}
_SHIPPED: Columns = {
    **{title: _DETECTION[title] for title in ('AUROC', 'false positives at 95 % recall')},
    **{title: _CALIBRATION[title] for title in ('ECE', 'ECE of any tick')},
    'false alarms at 5 %': ('false_alarm_rate', {'alpha': 0.05}),
    'missed successes': ('missed_success_rate', {}),
    'decided too early': ('early_success_rate', {}),
    'median delay [s]': ('success_delay_median', {})}


def tables(found: Mapping[str, Any]) -> dict[str, str]:
    """Draw all tables of the page, by the name of their mark."""
    rows = found['rows']
    splits = [split for split in SPLITS if find(rows, 'auroc', OURS, split)]
    shown = [row for row in rows if row['variant'] == OURS and 'cameras' not in row['conditions']
             and row['metric'] not in [m for m, _ in (*_DETECTION.values(),
                                                      *_CALIBRATION.values())]]
    streams = [[row['stream'], str(row['segments']), str(row['frames']),
                str(row['success_events']), f'{row["bound_per_segment"]:.4f}',
                str(row['events_one_sample']), str(row['perturbed_frames']),
                f'{row["perturbed_events"]} of {row["perturbed_segments"]}',
                str(row['perturbed_events_one_sample'])] for row in found['tables']['streams']]
    left_out = [[row['robot'], f'{row["attempts"]} ({row["successes"]}, {row["tasks"]})',
                 *(f'{number(row[when])}, seeds: {row[when]["seeds"]}'
                   for when in ('never_seen', 'trained_on')), str(row['in_training'])]
                for row in found.get('left_out', [])]
    trained = found['training']
    facts = {
        'training episodes (successes, tasks, scenes)':
            f'{trained["episodes"]} ({trained["successes"]}, {trained["tasks"]}, '
            f'{trained["scenes"]})',
        'human recordings': str(trained['human_recordings']),
        'calibration episodes that never succeed': str(found['calibration_never_succeeding']),
        'seconds to train, one thread': ', '.join(f'{s:.0f}' for s in found['seconds']),
        'tasks whose own 95 % interval lies above 5 %': _broken(found),
        'load average at the end': ', '.join(map(str, found['load_average'])), **_footage(found)}
    return {
        **(_shipped(found['shipped']) if 'shipped' in found else {}),
        'facts': table(['what', 'figure'], [[k, v] for k, v in facts.items()]),
        'detection': table(['split', 'variant', *_DETECTION], [
            [SPLITS[split], name, *_cells(rows, _DETECTION, name, split)]
            for split in splits for name in found['main_variants']]),
        'ablations': _ablations(found['ablations']) if 'ablations' in found else '',
        'calibration': table(['split', *_CALIBRATION], [
            [SPLITS[split], *_cells(rows, _CALIBRATION, OURS, split)] for split in splits]),
        'streams': table(['stream', 'segments', 'frames', 'SUCCESS', 'bound per segment, 95 %',
                          'one sample above 0.5', 'perturbed: frames', 'perturbed: SUCCESS',
                          'perturbed: one sample above 0.5'], streams),
        'left_out': table(['robot', 'attempts (successes, tasks)',
                           'AUROC, heads that never saw it', 'heads that saw both',
                           'its episodes in the training of those'], left_out),
        'cameras': table(['cameras', 'AUROC', 'loss', 'never succeeds, yet above 0.9'], [
            [*line, f'{error:.4f}'] for *line, error in _cameras(rows)]),
        'rows': table(['metric', 'conditions', 'split', 'value', 'chance or guarantee', 'n'], [
            [f'`{row["metric"]}`', ', '.join(
                f'{key} {value}' for key, value in row['conditions'].items()),
             SPLITS[row['split']], number(row),
             '-' if row['chance'] is None else f'{row["chance"]:.3f}', str(row['n'])]
            for row in shown])}


def _cells(rows: Sequence[Row], columns: Columns, variant: str, split: str) -> list[str]:
    """Write the values of a variant on a split."""
    return [number(find(rows, metric, variant, split, **conditions))
            for metric, conditions in columns.values()]


def _broken(found: Mapping[str, Any]) -> str:
    """Count the seen tasks whose interval of false alarms lies above the guarantee."""
    lows = [row['low'] for row in found['tables']['false_alarms_by_task']
            if row['split'] == 'test_seen']
    return f'{sum(low > 0.05 for low in lows)} of {len(lows)}'


def _cameras(rows: Sequence[Row]) -> list[tuple[str, str, str, float]]:
    """Gather AUROC, what is lost against all views, and confident errors, by cameras."""
    by_cameras = {row['conditions']['cameras']: row['value'] for row in rows
                  if row['metric'] == 'auroc' and 'cameras' in row['conditions']}
    errors = {row['conditions']['cameras']: row['value'] for row in rows
              if row['metric'] == 'confident_error_rate'}
    return [(what, f'{value:.3f}', f'{by_cameras["all views"] - value:+.3f}', errors[what])
            for what, value in by_cameras.items()]


def _footage(found: Mapping[str, Any]) -> dict[str, str]:
    """Say what real videos came to, where they were played."""
    if 'real_footage_ood_rate' not in found:
        return {}
    return {
        'real footage: ticks OUT_OF_DISTRIBUTION':
            f'{found["real_footage_ood_rate"]:.3f} of {found["real_footage_ticks"]}, '
            f'{found["real_footage_videos"]} videos',
        'real footage: SUCCESS decisions': str(found['real_footage_success_events']),
        'attempts of seen tasks: ticks OUT_OF_DISTRIBUTION':
            f'{found["in_distribution_ood_rate"]:.3f} of {found["in_distribution_ticks"]}'}


def _ablations(found: Mapping[str, Any]) -> str:
    """Draw variations of the recipe."""
    def beside(metric: str, variant: str) -> str:
        row = find(found['rows'], metric, variant, 'test_seen')
        return '-' if row is None else f'{row["value"]:.3f} ({row["chance"]:.3f})'

    return table(
        ['variant', 'seeds', 'AUROC, seen tasks', 'AUROC, held-out tasks',
         'false positives at 95 % recall, seen tasks', 'modes and kinds: mutual information',
         'kind named right'],
        [[name, str(seeds), *(
            number(find(found['rows'], metric, name, split)) for metric, split in (
                ('auroc', 'test_seen'), ('auroc', 'test_task'),
                ('fpr_at_95_recall', 'test_seen'))),
          beside('failure_mode_information', name), beside('failure_kind_accuracy', name)]
         for name, seeds in found['seeds_of'].items()])


def _shipped(found: Mapping[str, Any]) -> dict[str, str]:
    """Draw what is said of the shipped head."""
    trained, rows = found['training'], found['rows']
    streams = found['tables']['streams'][-1]
    splits = [split for split in SPLITS if find(rows, 'auroc', OURS, split)]
    attempts = median(row['episodes'] for row in found['tables']['false_alarms_by_task']
                      if row['split'] == 'test_seen')
    lacking = {f'{what}: AUROC, loss': f'{auroc}, {loss}'
               for what, auroc, loss, _ in _cameras(rows) if what.startswith('no ')}
    by_time = {f'time alone: AUROC, {SPLITS[split]}': number(find(rows, 'auroc', TIME_ONLY, split))
               for split in splits}
    facts = {
        'training episodes (successes, tasks, scenes, human recordings)':
            f'{trained["episodes"]} ({trained["successes"]}, {trained["tasks"]}, '
            f'{trained["scenes"]}, {trained["human_recordings"]})',
        'calibration episodes that never succeed': str(found['calibration_never_succeeding']),
        'seeds': str(found['seeds']),
        'tasks whose own 95 % interval lies above 5 % (attempts of each, median)':
            f'{_broken(found)} ({attempts:g})',
        'streams of which nothing is accomplished in: frames, segments, SUCCESS':
            f'{streams["frames"]}, {streams["segments"]}, {streams["success_events"]}',
        'the same by one sample above 0.5': str(streams['events_one_sample']),
        **lacking, **_footage(found), **by_time}
    return {
        'shipped': table(['split', *_SHIPPED], [
            [SPLITS[split], *_cells(rows, _SHIPPED, OURS, split)] for split in splits]),
        'shipped_facts': table(['what', 'figure'], [[k, v] for k, v in facts.items()])}


if __name__ == '__main__':
    rewrite(PAGE, RESULTS, tables)

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Write the tables of docs/results/adaptation.md anew from results/hralign.json.

    python -m benchmarks.encoder.tables

What stands between the marks `<!-- NAME -->` and `<!-- end -->` is replaced, the rest is prose.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.pages import find, number, rewrite, ROOT, Row, table
from hralign_ros.evaluation.metrics.names import MAIN_RETRIEVAL, METRICS, ROBOT_TO_HUMAN

RESULTS = ROOT / 'results' / 'hralign.json'
PAGE = ROOT / 'docs/results/adaptation.md'
ERROR = 'nearest_neighbour_action_error'
# A metric and its conditions, by the title of the column.
Columns = Mapping[str, tuple[str, Mapping[str, str]]]
COLUMNS: Columns = {
    'R@1 h→r': ('retrieval_r1', MAIN_RETRIEVAL),
    'r→h': ('retrieval_r1', {**MAIN_RETRIEVAL, 'direction': ROBOT_TO_HUMAN}),
    'h→r, neutral text': ('retrieval_r1', {**MAIN_RETRIEVAL, 'text': 'neutral'}),
    'h→r, clips shuffled': ('retrieval_r1', {**MAIN_RETRIEVAL, 'query': 'shuffled'}),
    'h→r, minus base': ('difference', {}),
    'own pair': ('retrieval_r1', {**MAIN_RETRIEVAL, 'gallery': 'own_pair'}),
    METRICS['proxy_a_distance'].label: ('proxy_a_distance', {'text': 'task'}),
    **{METRICS[metric].label: (metric, {})
       for metric in ('action_r2', 'proprioception_r2', ERROR)}}
BRIEF = {title: COLUMNS[title] for title in (
    'R@1 h→r', 'r→h', 'own pair', METRICS['proxy_a_distance'].label)}
_number = partial(number, digits=2, lacking='?')


def drawn(
    found: Mapping[str, Any], variants: Collection[str], columns: Columns = COLUMNS, *,
    splits: Sequence[str] = ('test_task',), **conditions: str,
) -> str:
    """Draw a table: a row per split and variant, value and interval per column."""
    lines = [(split, name) for split in splits for name in variants]

    def cell(metric: str, of: Mapping[str, str], split: str, name: str) -> Row | None:
        if metric == 'difference':
            return next((row for row in found['comparisons'] if name in found['ablations'] and (
                row['metric'], row['comparison'], row['variant']) == (
                'retrieval_r1', metric, name)), None)
        return find(found['rows'], metric, name, split, **of, **conditions)

    cells = {title: [cell(metric, of, *line) for line in lines]
             for title, (metric, of) in columns.items()}
    shown = {title: some for title, some in cells.items() if any(some)}
    return table(['', *shown], [
        [name if len(splits) == 1 else f'{split}: {name}', *(
            _number(some[row]) for some in shown.values())]
        for row, (split, name) in enumerate(lines)])


def tables(found: Mapping[str, Any]) -> dict[str, str]:
    """Draw all tables of the page, by the name of their mark."""
    names = list(dict.fromkeys(row['variant'] for row in found['rows']))
    main = [name for name in names
            if name not in found['ablations'] and name not in found.get('positions', {})]
    splits = [split for split in dict.fromkeys(row['split'] for row in found['rows'])
              if split != 'test_task']
    facts = {
        **{f'{METRICS[row["metric"]].label}, {row["comparison"]}: {row["variant"]} against '
           f'{row["compared_with"]}': _number(row)
           for row in found['comparisons'] if row['variant'] in main},
        'human token maps the same to the bit after training':
            found['human_token_maps_bit_identical'],
        'killed and resumed, the same to the bit': found['resume_identical'],
        'peak memory of a run [MB]': found['training']['peak_rss_mb'],
        'training of a run [s, one thread, two runs side by side]': ', '.join(
            f'{run["train"]:.0f}' for run in found['training']['seconds'])}
    for key, title in (
            ('export_max_abs_diff', 'torch against onnxruntime, real footage, largest difference'),
            ('export_compared_on', 'compared on'),
            ('int8_cosine', 'int8: cosine with float32, images of its calibration'),
            ('int8_cosine_on_footage', 'int8: the same on real footage'),
            ('int8_retrieval_r1_loss', 'int8: loss of R@1'),
            ('cached_step_speedup', 'step on the cache against three full streams, times faster'),
            ('two_rank_max_diff', 'two ranks against one, loss and gradients')):
        if key in found:
            value = found[key]
            facts[title] = f'{value["mean"]:.4f} (least {value["min"]:.4f}, n = {value["n"]})' \
                if isinstance(value, dict) else value
    return {
        'test_task': drawn(found, main), 'ablations': drawn(found, found['ablations']),
        'positions': drawn(found, found.get('positions', {})),
        'splits': drawn(found, main, BRIEF, splits=splits),
        'wrist': drawn(found, main, BRIEF, view='wrist'),
        'facts': table(['what', ''], [[name, str(value)] for name, value in facts.items()])}


if __name__ == '__main__':
    rewrite(PAGE, RESULTS, tables)

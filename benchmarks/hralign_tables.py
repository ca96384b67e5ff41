# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Write the tables of docs/adaptation_results.md anew from results/hralign.json.

    python benchmarks/hralign_tables.py

What stands between the marks `<!-- NAME -->` and `<!-- end -->` is replaced, the rest is prose.
"""

from collections.abc import Mapping
from pathlib import Path
import sys
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from pages import filled, rewrite, ROOT  # noqa: E402, F401

RESULTS = ROOT / 'results' / 'hralign.json'
PAGE = ROOT / 'docs' / 'adaptation_results.md'

COLUMNS = {
    'r1': 'R@1 h→r', 'r1_robot_to_human': 'r→h', 'r1_neutral_text': 'h→r, neutral text',
    'r1_clips_shuffled': 'h→r, clips shuffled', 'r1_minus_base': 'h→r, minus base',
    'r1_own_pair': 'own pair', 'proxy_a': 'proxy A', 'e5_action_r2': 'action R²',
    'e5_proprio_r2': 'proprioception R²', 'e6_error': 'E6 error'}


def table(rows: Mapping[str, Mapping[str, Any]], columns: Mapping[str, str] = COLUMNS) -> str:
    """Draw a table: a row per variant, value and interval per column; a dash where unknown."""
    shown = {key: title for key, title in columns.items() if any(key in r for r in rows.values())}
    lines = [f'| | {" | ".join(shown.values())} |', f'|---|{"---|" * len(shown)}']
    for name, row in rows.items():
        cells = [number(row[key]) if key in row else '-' for key in shown]
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def number(value: Mapping[str, float | None]) -> str:
    """Write a value with its interval; an end that is not there is a question mark."""
    low, high = ('?' if value[end] is None else f'{value[end]:.2f}' for end in ('low', 'high'))
    return f'{value["value"]:.2f} [{low}, {high}]'


def cosine(value: Mapping[str, float]) -> str:
    """Write mean and least cosine."""
    return f'{value["mean"]:.4f} (least {value["min"]:.4f}, n = {value["n"]})'


def tables(found: Mapping[str, Any]) -> dict[str, str]:
    """Draw all tables of the page, by the name of their mark."""
    brief = {key: COLUMNS[key] for key in ('r1', 'r1_robot_to_human', 'r1_own_pair', 'proxy_a')}
    splits = {f'{split}: {name}': row for split, rows in found['other_splits'].items()
              for name, row in rows.items()}
    e6 = found['control_e6']
    facts = {
        'adapted / better baseline, R@1 h→r': number(found['r1_ratio']),
        'adapted / frozen mean, R@1 h→r': number(found['r1_ratio_to_frozen_mean']),
        'E6 error, adapted - frozen mean': number(e6['adapted_minus_frozen_mean']),
        'E6 error, adapted - trained query': number(e6['adapted_minus_trained_query']),
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
            ('int8_r1_loss', 'int8: loss of R@1'),
            ('cached_step_speedup', 'step on the cache against three full streams, times faster'),
            ('two_rank_max_diff', 'two ranks against one, loss and gradients')):
        if key in found:
            value = found[key]
            facts[title] = cosine(value) if isinstance(value, dict) else value
    return {
        'test_task': table(found['test_task']),
        'ablations': table(found['ablations']),
        'positions': table(found.get('positions', {})),
        'splits': table(splits, brief),
        'wrist': table(found['wrist'], brief),
        'facts': '\n'.join(['| what | |', '|---|---|', *(
            f'| {name} | {value} |' for name, value in facts.items())])}


if __name__ == '__main__':
    rewrite(PAGE, RESULTS, tables)

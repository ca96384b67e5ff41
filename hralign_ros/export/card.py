# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The card: what a person should know before trusting a bundle."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from hralign_ros.runtime.bundle import Manifest
from hralign_ros.runtime.schema import to_document
import jinja2

# Licences of training videos that leave open what becomes of weights trained on them.
PERMISSIVE = {'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', 'CC0-1.0', 'CC-BY-4.0', 'MIT'}
_NOT_CONDITIONS = ('split', 'value', 'interval', 'n', 'seeds', 'chance', 'baseline')


def render_card(manifest: Manifest) -> str:
    """Write the card of a bundle in Markdown."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True,
                                     keep_trailing_newline=True)
    environment.filters['figures'] = _figures
    template = environment.from_string(
        files('hralign_ros.export').joinpath('card.md.j2').read_text('utf-8'))
    training = manifest.success.training
    return template.render(
        manifest=manifest, success_training=to_document(training) if training else {},
        trainings={file: to_document(head.training) for file, head in manifest.heads.items()})


def trained_license(licenses: Iterable[str]) -> str:
    """
    Say under which terms weights are that were trained here.

    :param licenses: SPDX names of those of the training videos, which may bind what is made of
        them.
    """
    others = ['none stated' if name in ('', 'NOASSERTION') else name
              for name in sorted(set(licenses) - PERMISSIVE)]
    return (f'what the licences of the training videos allow: {", ".join(others)}' if others
            else 'Apache-2.0')


def _figures(metrics: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    """Make a table of what was measured: its titles, then a row per value."""
    titles = ['metric', 'measured under', 'split', 'value [95 % interval]', 'chance',
              'frozen backbone, mean of all tokens', 'n', 'seeds']
    rows = []
    for metric, values in metrics.items():
        for row in values:
            interval = '' if row['interval'] is None else ' [{:.3f}, {:.3f}]'.format(
                *row['interval'])
            rows.append([
                f'`{metric}`', ', '.join(f'{key} {value}' for key, value in row.items()
                                         if key not in _NOT_CONDITIONS),
                row['split'], f'{row["value"]:.3f}{interval}',
                *(f'{row[key]:.3f}' if key in row else '' for key in ('chance', 'baseline')),
                str(row['n']), ', '.join(map(str, row['seeds']))])
    table = [titles, ['---'] * len(titles), *rows]
    return table if any(row[5] for row in rows) else [row[:5] + row[6:] for row in table]

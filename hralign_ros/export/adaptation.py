# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a bundle takes from an adaptation run: adapters, query, and what its card says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hralign_ros.data.manifest import SIMULATORS
from hralign_ros.models.heads import TaskAttention
from hralign_ros.training.alignment_run import Run
from hralign_ros.training.checkpoints import TrainingError
from torch import nn

# What a card says of a report, by the beginning of the metric's name.
_ON_CARDS = ('E1 R@1 of the task in other scenes', 'E1 R@1 human to robot',
             'E2 proxy A-distance, task text', 'E5', 'E6')


@dataclass(frozen=True, eq=False)
class Adaptation:
    """
    What adaptation adds to a bundle.

    :param adapters: trained, in evaluation mode; nn.Identity where only the query is trained.
    :param attention: with its trained query; None: no query was trained for this text encoder.
    :param position: of the adapters.
    :param name: of the adapters, for the manifest.
    :param training: what they were trained on and how good they are, for manifest and card:
        plain values only; `simulated` says whether all of the data is.
    :param licenses: of the videos that they were trained on.
    """

    adapters: nn.Module
    attention: TaskAttention | None
    position: str
    name: str
    training: Mapping[str, Any]
    licenses: Sequence[str]


def adaptation_of(run: Run, report: Mapping[str, Any] | None = None) -> Adaptation:
    """
    Take from a run what a bundle needs; and from a report, what its card says of the run.

    :param report: as `evaluation.report.read_report` reads it, of this run and maybe others.
    :raises TrainingError: no bundle can hold such a run, or the report is of other runs.
    """
    options, data = run.options, run.record['data']
    if options.pooling != 'attention' or options.text != 'minilm':
        raise TrainingError(
            f'{run.folder}: a bundle needs attention pooling and the text encoder minilm; this '
            f'run has {options.pooling} and {options.text}')
    train = options.train
    if train.objective == 'align':
        loss = ['Eq. 6 of HR-Align', *(['decoupled'] if train.decoupled else []),
                *(['same-task pairs masked'] if train.mask_same_task else []),
                'negatives pooled with the text of the clip they are compared with'
                if train.negatives == 'anchor' else 'negatives pooled with their own text',
                f'un-adapted negative x {train.frozen_weight:g}']
        how = 'adapted by HR-Align'
    else:
        loss, how = ['video and text only, no alignment'], 'co-trained without alignment'
    training: dict[str, Any] = {
        'simulated': set(data['sources']) <= SIMULATORS,
        'data': f'{data["pairs"]} pairs of human and robot clips ({", ".join(data["sources"])}, '
                f'{len(data["tasks"])} tasks, {data["scenes"]} scenes, '
                f'{", ".join(data["embodiments"])})',
        'robot views': ', '.join(options.views), 'pairs': options.pairs,
        'attention': f'{options.attention_floor:g} of it is even over the image',
        'licences of the data': ', '.join(data['licenses']),
        'loss': ', '.join(loss),
        'human video': 'never passed the adapters' if train.objective == 'align'
        else 'passed the adapters like robot video',
        'steps and batch': f'{run.record["best_step"]} x {train.batch}'
                           + (f', running average {train.average:g}' if train.average else ''),
        'seed': train.seed, 'command': run.record['command'],
        'validation': f'R@1 {run.record["validation_r1"]:.3f} on {data["validation_pairs"]} pairs '
                      'of tasks that are not trained on'}
    if report is not None:
        # Variant and seed are the same of most runs.
        if run.weights_sha256 not in report.get('runs', {}):
            raise TrainingError(
                f'the report is not of {run.folder}, or it is of an older version: write it with '
                f'`hralign evaluate {run.folder}`')
        training |= _measured(report['rows'], options.variant)
    return Adaptation(
        adapters=run.model.adapters, attention=run.model.attention, position=options.position,
        name=f'{options.position} x3, {how}' if options.trained == 'adapters'
        else 'none; only the query is trained', training=training, licenses=data['licenses'])


def _measured(rows: Sequence[Mapping[str, Any]], variant: str) -> dict[str, str]:
    """Say in one line per metric what a report has of a variant, and of the frozen backbone."""
    mine = [row for row in rows if row['variant'] == variant
            and row['metric'].startswith(_ON_CARDS)]
    beside = {(row['metric'], row['split']): row['value'] for row in rows
              if row['variant'] == 'frozen, mean'}
    found = {}
    for row in mine:
        ends = ', '.join('?' if row[end] is None else f'{row[end]:.3f}' for end in ('low', 'high'))
        words = [f'{row["value"]:.3f} [{ends}]']
        frozen = beside.get((row['metric'], row['split']))
        if frozen is not None:
            words.append(f'frozen backbone, mean of all tokens: {frozen:.3f}')
        if row.get('chance') is not None:
            words.append(f'chance {row["chance"]:.3f}')
        if len(row['seeds']) > 1:
            words.append(f'mean of seeds {", ".join(map(str, row["seeds"]))}')
        found[f'{row["metric"]} ({row["split"]})'] = '; '.join(words)
    return found

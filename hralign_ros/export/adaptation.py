# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a bundle takes from an adaptation run: adapters, query, and what its card says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hralign_ros.data.manifest import SIMULATORS
from hralign_ros.export.card import trained_license
from hralign_ros.models.hr_align import TaskAttention
from hralign_ros.training.alignment_run import Run
from hralign_ros.training.checkpoints import TrainingError
from torch import nn


@dataclass(frozen=True, eq=False)
class Adaptation:
    """
    What adaptation adds to a bundle.

    :param adapters: trained, in evaluation mode; nn.Identity where only the query is trained.
    :param attention: with its trained query; None: no query was trained for this text encoder.
    :param position: of the adapters.
    :param name: of the adapters, for the manifest.
    :param training: what they were trained on and how good they are, for manifest and card:
        plain values only; `simulated` says whether all of the data is. None: not trained.
    :param licenses: part -> licence, of adapters and query.
    """

    adapters: nn.Module
    attention: TaskAttention | None
    position: str
    name: str
    training: Mapping[str, Any] | None
    licenses: Mapping[str, str]


def adaptation_of(
    run: Run, metrics: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> Adaptation:
    """
    Take from a run what a bundle needs.

    :param metrics: what the card says of the run, as `evaluation.encoder.for_card` has it.
    :raises TrainingError: no bundle can hold such a run.
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
    if metrics:
        training['metrics'] = metrics
    return Adaptation(
        adapters=run.model.adapters, attention=run.model.attention, position=options.position,
        name=f'{options.position} x3, {how}' if options.trained == 'adapters'
        else 'none; only the query is trained', training=training,
        licenses={'adapters, query': trained_license(data['licenses'])})

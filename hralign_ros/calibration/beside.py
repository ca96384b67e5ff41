# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A head beside the success head of a bundle: it scores its own tasks, all others stay as they are.

It has no failure prompts, so that hundreds of tasks cost no more than their words, and its
weights are stored as int8. It is calibrated with the weights as they are stored.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
import re
from typing import Any

from hralign_ros.calibration.calibrated import Calibrated, calibrations_of
from hralign_ros.export.card import trained_license
from hralign_ros.export.compress import quantise_weights, round_weights
from hralign_ros.export.parity import check_parity, masked_graph, success_inputs
from hralign_ros.export.writer import graphs_of, write_bundle
from hralign_ros.models.success import SuccessHead
from hralign_ros.runtime.bundle import HeadSpec, load_bundle
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.tasks import FALLBACK, load_tasks, NEVER, Task, TaskTable
from hralign_ros.training.checkpoints import TrainingError
from hralign_ros.training.success_run import SuccessRun, training_of
from torch import nn, Tensor

OUTPUTS = ('score', 'failure', 'ood')
# The name of having failed, whichever way.
_MODE = 'failed'


class BesideHead(nn.Module):
    """
    A success head without failure prompts, as the graph of a head beside another one.

    :param head: to be exported; it is not copied.
    """

    def __init__(self, head: SuccessHead) -> None:
        super().__init__()
        self.head = head

    def forward(
        self, tokens: Tensor, mask: Tensor, age: Tensor, text: Tensor, fine: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """
        Score one clip; the outputs are named in OUTPUTS.

        :param text: [D], the instruction; all else as of `SuccessHead.forward`.
        :returns: raw score [1]; probability of having failed [1]; out-of-distribution score [1].
        """
        # One prompt that is not in use.
        texts = text.expand(2, -1)
        _, _, _, score, ood, failed, _ = self.head(
            tokens, mask, age, texts, mask.new_zeros(1), fine)
        return score, failed, ood


def file_of(name: str) -> str:
    """
    Name the file of a head.

    :raises TrainingError: it cannot be a part of a file name.
    """
    if not re.fullmatch(r'[a-z0-9][a-z0-9_]{0,40}', name):
        raise TrainingError(f"the head's name is '{name}'; needed are up to 41 of a-z, 0-9 and _")
    return f'shared_head.{name}.onnx'


def licensed_as(file: str) -> str:
    """Name the part of a bundle that the licence of a head's file is told of."""
    return f'head {file.split(".")[1]}'


def prepare_beside(run: SuccessRun, base: Path, name: str) -> SuccessRun:
    """
    Check that a run can stand beside the head of a bundle; round its weights as they are stored.

    :raises TrainingError: it cannot; before any work.
    """
    file = file_of(name)
    if run.options.use_prompts:
        raise TrainingError(
            f'{run.folder}: it has failure prompts, which a head beside another one has not; '
            'train it with --no-use-prompts')
    bundle = load_bundle(base)
    if not bundle.manifest.success.trained:
        raise TrainingError(f'{base}: its success head is not trained, so that there is nothing '
                            'to stand beside; leave out --beside')
    known = load_tasks(bundle)
    for task_id, text in run.texts.items():
        for words in (task_id, text):
            found = known.match(words)
            if found is not None and found.head != file:
                raise TrainingError(f"{base} knows '{words}' already, as {found.task_id}; a task "
                                    'has one head')
    head = deepcopy(run.head)
    round_weights(head)
    return replace(run, head=head)


def write_beside(
    run: SuccessRun, found: Calibrated, base: Path, output: Path, name: str, *,
    command: str = '', metrics: Mapping[str, Any] | None = None, report: Report = print,
) -> Path:
    """
    Write a bundle that has a run's head and tasks beside its own.

    :param run: as `prepare_beside` gave it.
    :param base: the bundle that the run was trained for.
    :param output: folder of the new one; replaced only once everything is there.
    """
    source, file = load_bundle(base), file_of(name)
    manifest, tasks = source.manifest, load_tasks(source)

    def task(task_id: str, words: str, of: str) -> Task:
        calibrations = calibrations_of(found, of)
        fails = any((one.failure_threshold or NEVER) < NEVER for one in calibrations)
        return Task(task_id, words, (), (_MODE,) if fails else (), calibrations, file,
                    round(found.ood_threshold, 6), prompts=tasks.fallback.prompts)

    own = tuple(task(task_id, text, task_id) for task_id, text in run.texts.items())
    kept, others = ([one for one in some if one.head != file]
                    for some in (tasks.tasks, tasks.others))
    lost = sorted({one.task_id for one in tasks.tasks if one.head == file} - set(run.texts))
    if lost:
        report(f'{file} takes the place of another one, {len(lost)} of whose tasks the bundle no '
               f'longer knows, such as {lost[0]}')
    graph, _ = masked_graph(BesideHead(run.head), feed := _inputs(run, source.manifest.views),
                            OUTPUTS, report)
    graph, stored = quantise_weights(graph, unfused=True), deepcopy(run.head)
    round_weights(stored, basis=True)
    parity = check_parity(graph, BesideHead(stored), feed, report)
    write_bundle(output, replace(
        manifest, heads={**manifest.heads, file: HeadSpec(
            training_of(run), run.head.grounding is not None, command, metrics or {})},
        licenses={**manifest.licenses,
                  licensed_as(file): trained_license(run.record['data']['licenses'])},
        metrics={**manifest.metrics, 'parity_max_abs_diff': {
            **manifest.metrics['parity_max_abs_diff'], file: parity}},
    ), {**graphs_of(source), file: graph}, TaskTable(
        (*kept, *own),
        tasks.fallback,
        (*others, task(f'{FALLBACK}.{name}', f'{FALLBACK} {name}', FALLBACK))))
    return output


def _inputs(run: SuccessRun, views: tuple[str, ...]) -> dict[str, Any]:
    """Make up what such a head could be given."""
    feed = success_inputs(run.head, len(views), run.options.length, 1,
                          run.head.video.out_features, 0.0)
    del feed['mode_mask']
    return {**feed, 'text': feed['text'][0]}

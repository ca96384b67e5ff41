# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The report on adaptation: measure all variants, draw the images, write one folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hralign_ros.data.manifest import DataSet, REFERENCE_VIEW, SIMULATORS
from hralign_ros.data.pairs import Clip
from hralign_ros.evaluation.bootstrap import EvaluationError
from hralign_ros.evaluation.embeddings import encode_pairs, PairArrays, split_items
from hralign_ros.evaluation.encoder_measure import (
    FROZEN_MEAN,
    group_runs,
    measure,
    POLICY,
    RunInputs,
    Variant,
)
from hralign_ros.evaluation.figures import (
    Answer,
    Attention,
    attention_figure,
    bar_chart,
    embeddings,
    Example,
    retrieval_examples,
    training_curve,
)
from hralign_ros.evaluation.metrics.names import (
    describe,
    HUMAN_TO_ROBOT,
    MAIN_RETRIEVAL,
    ROBOT_TO_HUMAN,
)
from hralign_ros.evaluation.report import Measured, read_report, rows_for_card, write_report
from hralign_ros.models.backbones import Preprocessing
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.video import read_frames
from hralign_ros.training.alignment_batches import Item
from hralign_ros.training.alignment_run import Run
from hralign_ros.training.devices import choose_device
from hralign_ros.training.run_folder import LOG
import numpy as np
from numpy.typing import NDArray
import torch

_CHARTS: dict[str, tuple[str, dict[str, str]]] = {
    'recall': ('retrieval_r1', MAIN_RETRIEVAL),
    'recall_neutral': ('retrieval_r1', {**MAIN_RETRIEVAL, 'text': 'neutral'}),
    'recall_own_pair': ('retrieval_r1', {**MAIN_RETRIEVAL, 'gallery': 'own_pair'}),
    'gap': ('proxy_a_distance', {'text': 'task'}),
    'policy': (POLICY, {})}
# Pairs that are drawn, at most: t-SNE of more takes hours.
_DRAWN = 4000
# The split of tasks that training knows nothing of.
TEST_TASKS = 'test_task'
SIMULATED = ('Simulated pairs are not RH20T: these figures say that the method works on this '
             'data, not how well it works on a real robot.')


def evaluate_adaptation(
    data: DataSet, runs: Sequence[Run], output: Path, *, splits: Sequence[str],
    view: str = REFERENCE_VIEW, gallery: int = 100, full: bool = True, probes: bool = True,
    cache: Path | None = None, device: str = 'auto', commands: Sequence[str] = (),
    report: Report = print,
) -> Measured:
    """
    Evaluate runs beside the frozen backbone and write report.html, .json and .csv.

    :param runs: runs of one variant differ in their seed; the first variant is the one shown.
    :returns: everything measured.
    :param device: auto, cpu or cuda; the runs' models are moved there.
    :raises EvaluationError: a split without pairs, or one of new tasks that a run was trained on.
    """
    chosen = choose_device(device)
    _check_new_tasks(data, runs, splits)
    for run in runs:
        run.model.to(chosen.torch)
    variants = [Variant(FROZEN_MEAN, ()), *group_runs(runs)]
    store = RunInputs(data, cache)
    found = measure(
        store, variants, splits=splits, view=view, gallery=gallery, full=full, probes=probes,
        report=report)
    _draw(found, store, variants[1].runs[0], splits[0], view)
    main = variants[1].runs[0]
    sources = sorted({e.source for e in data.episodes})
    write_report(
        Path(output), found, report,
        title=f'HR-Align adaptation: {main.options.backbone}, {view} view',
        runs={run.weights_sha256: run.folder.name for run in runs},
        data={
            'data set': data.folder.name, 'sources': ', '.join(sources),
            'training pairs': main.record['data']['pairs'],
            'training tasks': len(main.record['data']['tasks']),
            'validation pairs': main.record['data']['validation_pairs'],
            'gallery': gallery, 'view of the robot': view,
            **{f'episodes of {split}': sum(e.split == split for e in data.episodes)
               for split in splits},
            'seeds': ', '.join(map(str, sorted({run.options.train.seed for run in runs})))},
        warnings=[*([SIMULATED] if set(sources) & SIMULATORS else []), *(
            f'{describe(line["metric"], line["conditions"])}, {line["split"]}: left out, '
            f'{line["reason"]}' for line in found.left_out)],
        commands=commands)
    return found


def _check_new_tasks(data: DataSet, runs: Sequence[Run], splits: Sequence[str]) -> None:
    """Refuse tests of tasks that a run has learned, before the data were split anew."""
    if TEST_TASKS not in splits:
        return
    tasks = {e.task_id for e in data.of_split(TEST_TASKS).episodes}
    for run in runs:
        both = sorted(tasks & set(run.record['data']['tasks']))
        if both:
            raise EvaluationError(
                f'{run.folder} was trained on {", ".join(both)}, of {TEST_TASKS}: it would look '
                'better than it is. Train again with the splits as they are now, or import the '
                'data with those that it was trained with')


def _draw(found: Measured, store: RunInputs, run: Run, split: str, view: str) -> None:
    data, cache = store.data, store.clips(run)
    items = split_items(data, cache, split, view)
    texts = store.texts(run, items)
    before = encode_pairs(run.model, items, cache, texts, length=run.options.train.length,
                          frozen_mean=True)
    after = encode_pairs(
        run.model, items, cache, texts, length=run.options.train.length,
        adapt_human=run.options.train.objective == 'video_text')
    for name, (metric, conditions) in _CHARTS.items():
        if rows := found.select(metric, **conditions):
            title = describe(metric, conditions)
            found.draw(name, bar_chart(rows, title=title), title,
                       'Bars are means over seeds, whiskers 95 % intervals; hatched: controls.')
    some = np.unique(np.linspace(0, len(items) - 1, _DRAWN).round().astype(int))
    image = embeddings(*(np.concatenate([of[some] for of in arrays.neutral()])
                         for arrays in (before, after)),
                       tasks=np.tile(before.tasks[some], 2),
                       domains=np.repeat(['human', 'robot'], len(some)))
    found.draw('embeddings', image, 'Embeddings before and after',
               f'Pairs of {split}: t-SNE of features pooled with the neutral text.')
    found.draw('retrieval', retrieval_examples(_examples(data, items, after)),
               'Retrieval examples',
               f'Pairs of {split}: a human clip and the robot clips found for it, neutral text; a '
               'tick where the task is right; the middle frame of each answer.')
    found.draw('attention', attention_figure(_attention(store, run, items)),
               'Attention to the task',
               'Where the trained query looks, on frozen and on adapted tokens.')
    log = run.folder / LOG
    if log.exists():
        found.draw('training', training_curve(log, best='validation_r1'), 'Training',
                   'Of the first seed.')


def _examples(
    data: DataSet, items: Sequence[Item], arrays: PairArrays, count: int = 5, answers: int = 5,
) -> list[Example]:
    """Take queries of different tasks, evenly, without regard to whether they succeed."""
    human, robot = arrays.neutral()
    shown: dict[str, int] = {}
    for i, task in enumerate(arrays.tasks):
        shown.setdefault(str(task), i)
    chosen = list(shown.values())
    chosen = chosen[::max(1, len(chosen) // count)][:count]
    examples = []
    for i in chosen:
        similarity = robot @ human[i]
        order = np.argsort(-similarity, kind='stable')[:answers]
        examples.append(Example(
            frames=_frames(data, items[i].human, 4), title=items[i].robot.task_text,
            answers=[Answer(
                frame=_frames(data, items[j].robot, 3)[1],
                label=f'{"own pair, " if j == i else ""}{similarity[j]:.2f}: '
                      f'{items[j].robot.task_text}',
                right=bool(arrays.tasks[j] == arrays.tasks[i])) for j in order]))
    return examples


def _attention(
    store: RunInputs, run: Run, items: Sequence[Item], count: int = 4,
) -> list[Attention]:
    """Show attention on the middle frame of robot clips of different tasks."""
    from hralign_ros.training.clip_features import preprocess

    tasks: dict[str, Item] = {}
    for item in items:
        tasks.setdefault(item.task_id, item)
    chosen = list(tasks.values())[::max(1, len(tasks) // count)][:count]
    texts = store.texts(run, chosen)
    front, place = run.backbone.front(run.options.position), run.model.device
    shown = []
    with torch.no_grad():
        for item in chosen:
            frame = _frames(store.data, item.robot, 3)[1]
            maps = front(preprocess(frame[None], run.backbone.preprocessing))[None].to(place)
            text = torch.tensor(texts[item.robot.task_text], device=place)
            weights = [run.model.attention(
                m.flatten(3).transpose(2, 3), torch.ones(1, 1, device=place), text)[1][0, 0].cpu()
                .numpy() for m in (run.model.frozen_maps(maps), run.model.adapted_maps(maps))]
            shown.append(Attention(
                frame=_as_seen(frame, run.backbone.preprocessing), frozen=weights[0],
                adapted=weights[1], grid=run.backbone.grid, title=item.robot.task_text))
    return shown


def _as_seen(frame: NDArray[np.uint8], spec: Preprocessing) -> NDArray[np.uint8]:
    """Show the part of a frame that the backbone sees."""
    if spec.fit != 'crop':
        return frame
    height, width = frame.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    return frame[top:top + short, left:left + short]


def _frames(data: DataSet, clip: Clip, count: int) -> NDArray[np.uint8]:
    return read_frames(data.path(clip.file), count=count, span_s=clip.span_s,
                       geometry=clip.geometry)[0]


def for_card(report: Path, run: Run) -> dict[str, list[dict[str, Any]]]:
    """
    Pick from a report.json what a bundle's card says of a run's variant.

    :raises EvaluationError: it is not of this run.
    """
    document = read_report(report)
    # Variant and seed are the same of most runs.
    if run.weights_sha256 not in document.get('runs', {}):
        raise EvaluationError(
            f'{report} is not of {run.folder}, or it is of an older version: write it with '
            f'`hralign encoder evaluate {run.folder}`')
    return rows_for_card(document['rows'], run.options.variant, [
        *(('retrieval_r1', {'gallery': gallery, 'direction': direction, 'text': text})
          for gallery in ('other_scenes', 'own_pair')
          for direction in (HUMAN_TO_ROBOT, ROBOT_TO_HUMAN) for text in ('task', 'neutral')),
        ('proxy_a_distance', {'text': 'task'}), ('action_r2', {}), ('proprioception_r2', {}),
        (POLICY, {})], baseline=FROZEN_MEAN)

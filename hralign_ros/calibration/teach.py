# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Teach a bundle the tasks of one robot in its own lab, from attempts that somebody recorded there.

What is fitted, and every figure that is told, comes from attempts left out. A task gets thresholds
only where its scores tell more than elapsed time, and only for rates that its attempts can back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
import time

from hralign_ros.calibration.taught_task import fit_task, plain_name, TaughtTask
from hralign_ros.data.content import recording_key
from hralign_ros.data.manifest import DataError, DataSet, read_manifest, slug
from hralign_ros.export.parity import masked_graph
from hralign_ros.export.writer import graphs_of, require_replaceable, write_bundle
from hralign_ros.models.taught_head import OUTPUTS, TaughtHead
from hralign_ros.runtime.bundle import Manifest
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.report import Report, silent
from hralign_ros.runtime.tasks import check_task, FALLBACK, normalise_task, Task
from hralign_ros.training.attempts import Attempt, Attempts, load_attempts
from hralign_ros.training.taught_head import fit_ood, folds, new_head, ood_distances
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
# Left, top, right, bottom of a part of an image, as fractions.
Region = tuple[float, float, float, float]
# Attempts of each kind without which nothing can be told.
LEAST = 2
# Fraction of a left-out attempt's ticks that may be called out-of-distribution; and by how much
# the limit is raised above that, since a day has more light than a recording session.
_OOD_RATE, _OOD_MARGIN = 0.01, 1.25
_OOD_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Taught:
    """
    What came of teaching.

    :param output: the bundle.
    :param regions: float32 [V, N] by which tokens may be looked at; `proposed`, float32 [V, N],
        how much each token changes within attempts, at most 1.
    :param ood_rate: fraction of ticks of attempts left out that are out of distribution.
    :param seconds: encoding, and fitting.
    """

    output: Path
    base: Path
    data: DataSet
    manifest: Manifest
    robot: str
    tasks: tuple[TaughtTask, ...]
    regions: Floats
    proposed: Floats
    ood_rate: float
    seconds: tuple[float, float]


def teach(
    bundle: Path, data: Path, output: Path, *, tasks: Sequence[str] = (),
    aliases: Sequence[str] = (),
    regions: Mapping[str, Region] | None = None, store: Path | None = None,
    workers: int | str = 1, report: Report = print,
) -> Taught:
    """
    Write a bundle that knows the tasks of some recordings, in the lab that these are from.

    :param bundle: to start from; all its other tasks stay as they are.
    :param data: folder of a manifest, whose episodes say how they ended.
    :param tasks: instructions or ids of the tasks to teach; (): all there are.
    :param aliases: other instructions that mean the same, where it is one task.
    :param regions: by view, the part of the image to look at.
    :param store: folder of features.
    :raises HralignError: too few attempts, or names or folders that do not do; before any work.
    """
    require_replaceable(Path(output))
    found = read_manifest(data)
    encoder = Encoder.load(bundle, provider='cpu')
    manifest = encoder.manifest
    chosen = _chosen(found, tasks, manifest)
    names = {slug(e.task_text): e.task_text for e in chosen.episodes}
    if aliases and len(names) > 1:
        raise DataError(f'aliases are given for {len(names)} tasks; teach one at a time, or leave '
                        'them out')
    for alias in aliases:
        known = encoder.tasks.match(check_task(alias))
        if known is not None and known is not encoder.tasks.match(next(iter(names.values()))):
            raise DataError(f"'{alias}' is what the bundle's task {known.task_id} is called by; "
                            'leave it out')
    ids = {key: _task_id(encoder, text) for key, text in names.items()}
    twice = [texts for task_id in set(ids.values())
             if len(texts := [names[key] for key in ids if ids[key] == task_id]) > 1]
    if twice:
        raise DataError(f"'{twice[0][0]}' and '{twice[0][1]}' are one task to the bundle; give "
                        'their attempts one instruction')
    looked_at = _regions(manifest, regions or {})
    began = time.monotonic()
    attempts = load_attempts(chosen, bundle, folder=store, workers=workers, report=report)
    encoded = time.monotonic()
    report(f'{len(attempts.attempts)} attempts encoded in {encoded - began:.0f} s')
    attempts, indices = _same_views(attempts, manifest, report)
    # Before the fits, which may take minutes.
    for key, name in names.items():
        own = [a for a in attempts.attempts if slug(a.episode.task_text) == key]
        _require(name, sum(a.succeeds for a in own), sum(not a.succeeds for a in own))
        folds(own)
    # Beside a busy simulator threads of a library wait for one another: with two a fit took 144 s,
    # with one 20.
    with threadpool_limits(1):
        limits, rate = ood_limits(manifest, attempts, indices, report)
        taught = [fit_task(
            manifest, attempts,
            [a for a in attempts.attempts if slug(a.episode.task_text) == key],
            Task(ids[key], name,
                 _aliases(encoder, ids[key], name, aliases),
                 prompts=encoder.tasks.fallback.prompts),
            indices, looked_at, limits, report) for key, name in names.items()]
        graphs = {**graphs_of(encoder.bundle), **{
            one.task.head: _graph(one.head, manifest) for one in taught}}
    new = {one.task.task_id for one in taught}
    others = tuple(task for task in encoder.tasks.tasks if task.task_id not in new)
    heads = {task.head for task in (*others, *(one.task for one in taught)) if task.head}
    graphs = {file: content for file, content in graphs.items()
              if not file.startswith('head.') or file in heads}
    write_bundle(output, replace(manifest, provenance={
        **manifest.provenance, 'taught': _recordings(manifest, chosen, ids)}), graphs, replace(
            encoder.tasks, tasks=(*others, *(one.task for one in taught))))
    done = time.monotonic()
    report(f'fitted in {done - encoded:.0f} s; wrote {output}')
    report('embeddings are as before: policies that learnt on this bundle go on working'
           + _read_otherwise(encoder, [one.task for one in taught]))
    return Taught(
        Path(output), Path(bundle), chosen, manifest, _robot(chosen), tuple(taught), looked_at,
        _changes(attempts.attempts), rate, (encoded - began, done - encoded))


def _read_otherwise(encoder: Encoder, tasks: Sequence[Task]) -> str:
    """
    Name instructions that are encoded in other words once these tasks are in the bundle.

    What names a task of a bundle is encoded as that task's own name.

    :param encoder: of the bundle before.
    """
    changed = []
    for task in tasks:
        for text in (task.name, *task.aliases):
            known = encoder.tasks.match(text)
            if encoder.text.words_sha256(known.name if known else text) \
                    != encoder.text.words_sha256(task.name):
                changed.append(f"'{text}', which is read as '{task.name}' now")
    return '' if not changed else (
        '. Not so those that take the part task or clip with the instruction '
        + ' or '.join(changed))


def _recordings(
    manifest: Manifest, data: DataSet, ids: Mapping[str, str],
) -> dict[str, list[str]]:
    """Name the recordings that each task was taught with, so that nobody takes them for a test."""
    before = manifest.provenance.get('taught')
    found = dict(before) if isinstance(before, Mapping) else {}
    for key, task_id in ids.items():
        found[task_id] = sorted({recording_key(data, e) for e in data.episodes
                                 if slug(e.task_text) == key and e.success is not None} - {''})
    return found


def _chosen(data: DataSet, tasks: Sequence[str], manifest: Manifest) -> DataSet:
    """Take the episodes of the tasks that are asked for; check all that can be known so early."""
    wanted = {slug(task): task for task in tasks}
    there = {slug(e.task_text) for e in data.episodes} | {slug(e.task_id) for e in data.episodes}
    unknown = [task for key, task in wanted.items() if key not in there]
    if unknown:
        raise DataError(
            f"{data.folder}: no attempt at '{unknown[0]}'; there are attempts at "
            + ', '.join(sorted({f"'{e.task_text}'" for e in data.episodes})))
    chosen = data.only(e for e in data.episodes if not wanted or {
        slug(e.task_text), slug(e.task_id)} & set(wanted))
    robots = sorted({e.embodiment for e in chosen.episodes})
    if len(robots) > 1:
        raise DataError(f'{data.folder}: attempts of {", ".join(robots)}; a lab has one robot. '
                        'Teach each into a bundle of its own')
    for key in sorted({slug(e.task_text) for e in chosen.episodes}):
        own = [e for e in chosen.episodes if slug(e.task_text) == key]
        _require(own[0].task_text, sum(e.success is True for e in own),
                 sum(e.success is False for e in own))
    return chosen


def _same_views(
    found: Attempts, manifest: Manifest, report: Report,
) -> tuple[Attempts, list[int]]:
    """Choose the views that most attempts have, and the attempts that have all of those."""
    half = len(found.attempts) / 2
    views = [view for view in manifest.views
             if sum(view in a.views for a in found.attempts) > half]
    if not views:
        raise DataError('no view is in most of the attempts; teach those with the same cameras '
                        'together')
    kept = tuple(a for a in found.attempts if a.views >= set(views))
    lost = [a.episode.episode_id for a in found.attempts if not a.views >= set(views)]
    if lost:
        report(f'left out, as they lack {" or ".join(views)}: {", ".join(lost[:5])}'
               + (f' and {len(lost) - 5} more' if len(lost) > 5 else ''))
    unused = sorted({view for a in found.attempts for view in a.views} - set(views))
    if unused:
        report(f'not looked at, as most attempts lack it: {", ".join(unused)}')
    return replace(found, attempts=kept), [manifest.views.index(view) for view in views]


def _require(name: str, good: int, bad: int) -> None:
    if min(good, bad) < LEAST:
        raise DataError(
            f"'{name}': {good} attempts that succeed and {bad} that fail; at least {LEAST} of "
            'each are needed, 10 of each decide in most labs. Failures that look nearly like a '
            'success teach most')


def _task_id(encoder: Encoder, name: str) -> str:
    """Choose the id of a task: that of the one that it is in the bundle, or a new one."""
    known = encoder.tasks.match(check_task(name))
    if known is not None:
        return known.task_id
    plain = plain_name(slug(name))
    # What plain letters do not tell apart, such as a language written in others, a hash does.
    if plain != slug(name) or plain in {task.task_id for task in encoder.tasks.tasks} \
            or plain in ('', FALLBACK) or encoder.tasks.match(plain) is not None:
        plain = f'{plain}-{sha256(slug(name).encode()).hexdigest()[:8]}'.lstrip('-')
    return plain


def _aliases(
    encoder: Encoder, task_id: str, name: str, more: Sequence[str],
) -> tuple[str, ...]:
    """Keep what a task of the bundle is called by, and add to it."""
    before = next((task for task in encoder.tasks.tasks if task.task_id == task_id), None)
    texts = (*((before.name, *before.aliases) if before else ()), *more)
    kept = {normalise_task(text): check_task(text) for text in texts}
    kept.pop(normalise_task(name), None)
    return tuple(kept.values())


def _robot(data: DataSet) -> str:
    return data.episodes[0].embodiment


def _regions(manifest: Manifest, regions: Mapping[str, Region]) -> Floats:
    """Tell which tokens lie in the regions: float32 [V, N]."""
    rows, columns = manifest.tokens.grid
    inside = np.ones((len(manifest.views), rows, columns), np.float32)
    for view, (left, top, right, bottom) in regions.items():
        if view not in manifest.views:
            raise DataError(f'region of view {view}; the views of the bundle are '
                            f'{", ".join(manifest.views)}')
        if not (0.0 <= left < right <= 1.0 and 0.0 <= top < bottom <= 1.0):
            raise DataError(f'region of view {view} is {left},{top},{right},{bottom}; needed are '
                            'left, top, right, bottom as ascending fractions from 0 to 1')
        x, y = (np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows
        half = 0.5 / columns, 0.5 / rows
        inside[manifest.views.index(view)] = \
            ((y > top - half[1]) & (y < bottom + half[1]))[:, None] \
            * ((x > left - half[0]) & (x < right + half[0]))
    return inside.reshape(len(manifest.views), -1)


def _changes(attempts: Sequence[Attempt]) -> Floats:
    """Measure how much each token changes within attempts: float32 [V, N], at most 1 a view."""
    change = np.mean([np.square(a.tokens.astype(np.float32) - a.tokens[:1]).sum(-1).mean(0)
                      for a in attempts], axis=0)
    return np.asarray(change / np.maximum(change.max(1, keepdims=True), 1e-9), np.float32)


def ood_limits(
    manifest: Manifest, found: Attempts, views: Sequence[int], report: Report,
) -> tuple[Floats, float]:
    """
    Set each view's limit of the out-of-distribution score on attempts left out of the model.

    A wrist camera sees more than one that stands still: one limit for both would let the still one
    be moved, and the other one be covered.

    :returns: the limits of all views of the bundle, and the fraction of those attempts' ticks
        above them.
    """
    attempts = found.attempts
    fold = np.arange(len(attempts)) % min(_OOD_FOLDS, len(attempts))
    sessions: dict[str | int, int] = {}
    for i, a in enumerate(attempts):
        fold[i] = sessions.setdefault(a.episode.session or i, int(fold[i]))
    scores: list[Doubles] = [np.zeros(0)] * len(attempts)
    for k in range(int(fold.max()) + 1):
        head = new_head(manifest, found, [])
        fit_ood(head, [a for a, f in zip(attempts, fold, strict=True) if f != k], views)
        for i in np.flatnonzero(fold == k).tolist():
            scores[i] = ood_distances(head, attempts[i])

    def limits(some: Sequence[Doubles]) -> Floats:
        return np.asarray(np.quantile(
            np.concatenate(some), 1.0 - _OOD_RATE, axis=0) * _OOD_MARGIN, np.float32)

    # Each fold's by the limits that the others would have set.
    above = 0
    for k in range(int(fold.max()) + 1):
        others = limits([s for s, f in zip(scores, fold, strict=True) if f != k])
        above += sum(int((scores[i] > others)[:, list(views)].any(1).sum())
                     for i in np.flatnonzero(fold == k).tolist())
    rate = above / sum(len(s) for s in scores)
    report(f'{100 * rate:.1f} % of the ticks of attempts left out are out of distribution')
    return np.maximum(limits(scores), 1e-6), rate


def _graph(head: TaughtHead, manifest: Manifest) -> bytes:
    """Export a head, and compare the graph with it."""
    rng = np.random.default_rng(0)
    views, length = len(manifest.views), manifest.clip.length
    # As unlike one another as frames of a lab are.
    tokens = head.basis_mean.numpy() + rng.normal(
        0.0, 0.02, (views, length, *manifest.tokens.shape))
    return masked_graph(head, {
        'tokens': tokens.astype(np.float32), 'mask': np.ones((views, length), np.float32),
        'video': rng.standard_normal(manifest.text.dim).astype(np.float32) * 0.05,
    }, OUTPUTS, silent)[0]

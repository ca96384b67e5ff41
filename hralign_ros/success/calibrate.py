# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Make a bundle of a trained success head: graphs, prompts, calibration, thresholds.

All numbers are fitted to the calibration split, which nothing was trained on, through the text
encoder that the bundle carries. Tasks never seen get the shared prompts, and a calibration fitted
to the validation tasks, of which training saw nothing either.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
import tempfile
from typing import Any

from hralign_ros.data.manifest import DataError
from hralign_ros.runtime.bundle import ClipSpec
from hralign_ros.runtime.decision import DecisionRules
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.tasks import probability_of
from hralign_ros.success.alarms import alarm_level, conformal_threshold
from hralign_ros.success.bundle import TaskEntry, write_success_bundle
from hralign_ros.success.calibration import choose, Fitted
from hralign_ros.success.clips import Film
from hralign_ros.success.prompts import SHARED
from hralign_ros.success.run import load_films, open_data, SuccessRun
from hralign_ros.success.traces import raw_scores, Trace, trace
import numpy as np
from numpy.typing import NDArray

Report = Callable[[str], None]
Doubles = NDArray[np.float64]
ALPHAS = (0.01, 0.05, 0.1)
# Share of in-distribution ticks that may be called strange.
OOD_RATE = 0.02
# Episodes of a task that never succeed, from which its own thresholds are taken; below, those of
# all tasks together are.
OWN_THRESHOLDS = 30


@dataclass(frozen=True, eq=False)
class Scored:
    """
    An episode's ticks under one instruction.

    :param scores: raw, float64 [F].
    :param done: bool [F], whether that instruction is accomplished.
    """

    trace: Trace
    task_id: str
    scores: Doubles
    done: NDArray[np.bool_]

    @property
    def episode_id(self) -> str:
        """Name the episode."""
        return self.trace.film.episode.episode_id


def calibrate(
    run: SuccessRun, data: Path, bundle: Path, output: Path, *, workers: int = 1,
    store: Path | None = None, command: str = '', metrics: Mapping[str, Any] | None = None,
    report: Report = print,
) -> Path:
    """
    Calibrate a run and write a bundle with it.

    :param bundle: that the run was trained for; its other files are taken over.
    :param output: folder of the new bundle.
    :raises HralignError: another bundle, or too little data to calibrate with.
    """
    episodes, features = open_data(
        data, bundle, run.options, workers=workers, store=store, report=report)
    known = load_films(episodes, features, ['calibration'])
    strange = load_films(episodes, features, ['validation'])
    if not known:
        raise DataError(f'{data}: no calibration episode with features')
    with tempfile.TemporaryDirectory() as scratch:
        plain = write_success_bundle(
            run, bundle, Path(scratch) / 'bundle', [], command=command)
        encoder = Encoder.load(plain, provider='cpu')
        views = encoder.manifest.views
        entries: dict[str, TaskEntry] = {
            task: TaskEntry(task, run.texts[task] if task != SHARED else SHARED,
                            run.prompts[task], _mode_names(run, task))
            for task in (*run.texts, SHARED)}
        texts = {task: _text(encoder, entry, run.options.use_prompts)
                 for task, entry in entries.items() if task != SHARED}
        threshold = None
        for combination in _combinations(views):
            present = np.array([view in combination for view in views])
            report(f'calibrating {" + ".join(combination)}: {len(known)} episodes')
            clip = encoder.manifest.clip
            scored = [score(run, film, texts, clip, views=present) for film in known
                      if (film.features.present & present).sum() == len(combination)]
            unseen = [score(run, film, {}, clip, views=present, encoder=encoder,
                            shared=entries[SHARED]) for film in strange
                      if (film.features.present & present).sum() == len(combination)]
            if len(combination) == len(views):
                threshold = strangeness_threshold(s.trace for s in scored)
            for task, made in _calibrations(scored, run.options.seed, report).items():
                _add(entries, task, combination, made)
            if unseen:
                for task, made in _calibrations(unseen, run.options.seed, report).items():
                    if task == '':
                        _add(entries, SHARED, combination, made)
    return write_success_bundle(
        run, bundle, output, list(entries.values()), ood_threshold=threshold, command=command,
        metrics=metrics)


def score(
    run: SuccessRun, film: Film, texts: Mapping[str, tuple[Any, Any]], clip: ClipSpec, *,
    views: NDArray[np.bool_] | None = None, delays: Sequence[float] = (),
    encoder: Encoder | None = None, shared: TaskEntry | None = None, instruction: str = '',
) -> Scored:
    """
    Score an episode for its own instruction, or for another task's.

    :param texts: text features and mode mask by task id.
    :param encoder: with `shared`: encodes instructions that are not among them.
    :param instruction: task id of another task, which this episode never accomplishes.
    """
    seen = trace(run.head, film, clip, views=views, delays=delays)
    task = instruction or film.episode.task_id
    if task not in texts:
        assert encoder is not None and shared is not None
        text = _text(encoder, replace(shared, name=film.episode.task_text),
                     run.options.use_prompts)
    else:
        text = texts[task]
    return Scored(seen, task, raw_scores(run.head, seen, *text).astype(np.float64),
                  film.done & (not instruction))


def ticks(scored: Sequence[Scored], seed: int) -> tuple[Doubles, Any, NDArray[np.str_]]:
    """Take one random tick and the last tick of each episode: scores, labels, episode names."""
    rng = np.random.default_rng(seed)
    rows = [(s, i) for s in scored for i in (int(rng.integers(len(s.done))), len(s.done) - 1)]
    return (np.array([s.scores[i] for s, i in rows]), np.array([s.done[i] for s, i in rows]),
            np.array([s.episode_id for s, _ in rows]))


def strangeness_threshold(traces: Iterable[Trace], rate: float = OOD_RATE) -> float:
    """Choose the OOD score that so many of in-distribution ticks exceed."""
    return float(np.quantile(np.concatenate([t.strangeness for t in traces]), 1.0 - rate))


# A calibration, and thresholds by alpha.
_Made = tuple[Fitted, dict[float, float], dict[str, Any]]


def _calibrations(scored: Sequence[Scored], seed: int, report: Report) -> dict[str, _Made]:
    """
    Fit one curve to all tasks' ticks, and thresholds by task and, under '', of all together.

    One curve, since a task has some dozen calibration episodes; thresholds are each task's own
    where it has enough of them.
    """
    rows = ticks(scored, seed)
    fitted = choose(*rows, seed=seed)
    report('  ' + ', '.join(f'{name} {loss:.4f}' for name, loss in fitted.losses.items())
           + f': {fitted.method}')
    dwell = DecisionRules().dwell
    levels: dict[str, list[float]] = {}
    for s in scored:
        if not s.done.any():
            levels.setdefault(s.task_id, []).append(alarm_level(
                s.trace.stamps, fitted.apply(s.scores), dwell))
    together = [x for some in levels.values() for x in some]
    made: dict[str, _Made] = {}
    for task in ('', *sorted({s.task_id for s in scored})):
        own = together if task == '' else levels.get(task, [])
        enough = len(own) >= OWN_THRESHOLDS
        used = own if enough else together
        thresholds = {}
        for alpha in ALPHAS:
            found = conformal_threshold(used, alpha)
            if found is None:
                found = conformal_threshold(together, alpha)
            if found is not None:
                thresholds[alpha] = found
        made[task] = fitted, thresholds, {
            'never_succeeding': len(own), 'thresholds_from': 'own' if enough else 'all tasks'}
    return made


def _add(
    entries: dict[str, TaskEntry], task: str, views: Sequence[str], made: _Made,
) -> None:
    """Note a calibration of a task that the bundle knows."""
    if task not in entries:
        return
    fitted, thresholds, data = made
    entries[task] = replace(entries[task], calibrations=(*entries[task].calibrations, {
        'views': list(views), 'method': fitted.method,
        **{name: value if isinstance(value, list) else round(value, 6)
           for name, value in fitted.parameters.items()},
        'rows': fitted.count, 'episodes': fitted.episodes, **data,
        'thresholds': [{'alpha': alpha, 'probability': round(value, 7)}
                       for alpha, value in thresholds.items()]}))


def _mode_names(run: SuccessRun, task: str) -> tuple[str, ...]:
    """Name a task's modes after the kind of failure that most of their episodes are."""
    return tuple(f'mode {k + 1}' for k in range(run.options.modes)) \
        if run.options.use_prompts else ()


def _text(encoder: Encoder, entry: TaskEntry, prompted: bool) -> tuple[Any, Any]:
    """Encode an instruction with prompts, by the bundle's own graph."""
    features = encoder.text.encode_with(entry.name, entry.prompts)
    mask = np.full(len(entry.prompts), float(prompted), np.float32)
    return features, mask


def _combinations(views: Sequence[str]) -> list[tuple[str, ...]]:
    """List the sets of views to calibrate: all of them, and each on its own."""
    return [tuple(views), *((view,) for view in views if len(views) > 1)]


def apply_parameters(calibration: Mapping[str, Any], scores: Doubles) -> Doubles:
    """Map raw scores to probabilities by an entry of tasks.yaml."""
    return probability_of(calibration['method'], calibration, scores)

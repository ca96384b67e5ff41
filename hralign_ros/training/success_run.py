# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
One training of a success head, from a data set and a bundle to a run's folder.

run.json and head.safetensors say everything that calibration and export need.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
import json
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

from hralign_ros.data.manifest import DataSet, Episode, read_manifest
from hralign_ros.data.splits import read_splits
from hralign_ros.data.token_features import Basis, build_tokens, TokenFeatures
from hralign_ros.models.failure_prompts import Prompts
from hralign_ros.models.grounding import Grounding
from hralign_ros.models.success import SuccessHead
from hralign_ros.models.text import load_minilm, minilm_sentences
from hralign_ros.runtime.bundle import load_bundle, Manifest, SuccessTraining, TokenSpec
from hralign_ros.runtime.report import Report, silent
from hralign_ros.runtime.schema import in_brief, parse
from hralign_ros.runtime.tasks import check_task, FALLBACK, Task, TaskTable
from hralign_ros.training.checkpoints import TrainingError
from hralign_ros.training.devices import choose_device
from hralign_ros.training.distributed import is_first
from hralign_ros.training.loop import train
from hralign_ros.training.run_folder import (
    described,
    prepare_folder,
    read_record,
    write_record,
)
from hralign_ros.training.success_clips import (
    chosen_data,
    load_recordings,
    open_data,
    Recording,
    without_stills,
)
from hralign_ros.training.success_objective import SuccessObjective
from hralign_ros.training.success_options import SuccessOptions
from hralign_ros.training.success_scenes import (
    load_stills,
    require_some,
    Stills,
    told_stills,
)
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
import torch

K = TypeVar('K')
Floats = NDArray[np.float32]
HEAD = 'head.safetensors'
# Axes of the OOD Gaussian, and frames of each recording that it is fitted to.
_OOD_FRAMES = 6


@dataclass(frozen=True, eq=False)
class SuccessRun:
    """
    A finished run.

    :param prompts: float32 [K, L, D] by task id, and for FALLBACK.
    :param texts: instruction by task id.
    :param record: the contents of run.json.
    """

    folder: Path
    options: SuccessOptions
    head: SuccessHead
    prompts: Mapping[str, Floats]
    texts: Mapping[str, str]
    record: Mapping[str, Any]

    @property
    def basis(self) -> Basis:
        """Give the numbers in which its head reads tokens."""
        return Basis(self.head.basis_mean.numpy(), self.head.basis_matrix.numpy())

    @property
    def head_sha256(self) -> str:
        """Identify the trained head and its prompts."""
        return sha256((self.folder / HEAD).read_bytes()).hexdigest()

    def mode_kinds(self, trained: Mapping[str, Episode]) -> dict[tuple[str, int], str]:
        """
        Name modes after what most training failures in them are: kind by task id and mode.

        :param trained: training episodes by their id.
        """
        return _most_frequent(
            ((trained[name].task_id, mode), trained[name].failure)
            for name, mode in self.record['modes'].items()
            if name in trained and trained[name].failure)


def check_runs(runs: Sequence[SuccessRun], bundle: Path) -> None:
    """
    Check that runs are of this bundle's encoder, and differ in their seed only.

    :raises TrainingError: they are not, or do in more; to be called before any work is done.
    """
    manifest = load_bundle(bundle).manifest
    visual = manifest.files['visual.onnx'].sha256
    first = runs[0]
    seeds = [run.options.seed for run in runs]
    if len(set(seeds)) < len(seeds):
        raise TrainingError(f'runs have the seeds {", ".join(map(str, seeds))}; needed are '
                            'different ones, of one and the same training otherwise')
    for run in runs:
        trained = run.record['bundle']['visual']
        if trained != visual:
            raise TrainingError(
                f'{run.folder}: it was trained for the visual encoder {trained[:12]}..., and that '
                f'of {bundle} is {visual[:12]}...; name that bundle, or train again')
        other = [name for name in asdict(run.options) if name != 'seed' and getattr(
            run.options, name) != getattr(first.options, name)]
        if run.basis.key != first.basis.key:
            other.append('the basis of their features')
        if any(run.record['data'].get(name) != first.record['data'].get(name)
               for name in ('recordings', 'trained_on')):
            other.append('the recordings that they were trained on')
        if other:
            raise TrainingError(
                f'{run.folder} and {first.folder} differ in more than their seed: '
                f'{", ".join(other)}; evaluate them apart')


def make_head(manifest: Manifest, size: int, options: SuccessOptions) -> SuccessHead:
    """Make a head that fits a bundle."""
    return SuccessHead(
        len(manifest.views), manifest.tokens.channels, manifest.tokens.count, manifest.text.dim,
        size=size, newest=options.newest_path, grounding=_grounding(
            manifest.fine if options.grounded else None, manifest.text.dim))


def _grounding(fine: TokenSpec | None, text_dim: int) -> Grounding | None:
    return Grounding(fine.rows, fine.columns, fine.channels, text_dim) if fine else None


def train_success(
    data: Path, bundle: Path, output: Path, options: SuccessOptions, *, workers: int | str = 1,
    store: Path | None = None, also: Sequence[Path] = (), resume: bool = False,
    device: str = 'auto', command: str = '', report: Report = print,
) -> SuccessRun:
    """
    Train a success head for a bundle's tokens.

    :param data: folder with a manifest of successes and failures.
    :param also: more such folders, whose training episodes are added; what adaptation was
        trained on, say, has successes in more scenes.
    :param workers: processes that compute features.
    :param store: folder for features; None: features/ in the data set.
    :param resume: continue the run in the folder, where there is one.
    :param device: auto, cpu or cuda.
    :raises HralignError: data or options that do not do.
    """
    choose_device(device)
    report = report if is_first() else silent
    verified = load_bundle(bundle)
    prepare_folder(Path(output), resume=resume, settings=asdict(options))
    if options.length != verified.manifest.clip.length:
        report(f'clips of {options.length} frames, and {bundle} has '
               f'{verified.manifest.clip.length}: such a head can be compared with others, and '
               'not be put into that bundle')
    if options.grounded and verified.manifest.fine is None:
        raise TrainingError(
            f'{bundle}: it has no fine tokens for a grounded head to look at; `hralign bundle '
            'add-fine` writes a bundle that has')
    fit = verified.manifest.preprocessing.get('fit', 'squash')
    if options.grounded and options.pointing and fit != 'squash':
        raise TrainingError(
            f'{bundle}: its preprocessing does not show whole images (fit: {in_brief(fit)}), and '
            'things.parquet says where things are in those; train without pointing (--pointing '
            '0), or take a backbone whose fit is squash')
    if options.grounded:
        _check_stills((data, *also), verified.manifest, options)
    episodes, features = open_data(
        data, bundle, options, workers=workers, store=store, report=report)
    sets = [(episodes, features)]
    names = {e.episode_id for e in episodes.episodes}
    for folder in also:
        more = chosen_data(read_manifest(folder), options).of_split('train')
        # Failure modes are kept by id.
        both = names & {e.episode_id for e in more.episodes}
        if both:
            raise TrainingError(
                f"{folder} and {data} both have an episode '{min(both)}' ({len(both)} in all); "
                'import both into one manifest, from a folder above them')
        names |= {e.episode_id for e in more.episodes}
        sets.append((more, build_tokens(
            more, bundle, folder=features.folder, basis=features.basis, workers=workers,
            report=report)))
    stills = _stills(sets, verified.manifest, options, report) if options.grounded else None
    recordings = [recording for some, of in sets for recording in load_recordings(
        without_stills(some, options), of, ['train'], humans=True)]
    texts = task_texts(f.episode for f in recordings)
    if not texts:
        raise TrainingError(
            f'{data}: no training recording with features and success flags; by split there are '
            f'{episodes.splits_in_words()}')
    _check_texts(texts)
    if options.human_fraction and not any(recording.human for recording in recordings):
        raise TrainingError(
            f'{data}: human_fraction is {options.human_fraction}, and there is no human recording '
            'with features; `hralign simulate` makes them unless --no-humans, into a folder of '
            'their own where the episodes are there without. Without any: --human-fraction 0')
    torch.manual_seed(options.seed)
    head = make_head(verified.manifest, features.basis.matrix.shape[1], options)
    head.basis_mean.copy_(torch.from_numpy(features.basis.mean))
    head.basis_matrix.copy_(torch.from_numpy(features.basis.matrix))
    fit_ood_score(head, recordings)
    if head.grounding is not None and stills is not None:
        head.grounding.text_mean.copy_(torch.from_numpy(stills.mean))
    prompts = Prompts(
        load_minilm(), texts, modes=options.modes, length=options.prompt_length,
        human_prompt=options.human_prompt,
        others=done_instead(recordings, texts.values(), options) if options.hindsight else ())
    objective = SuccessObjective(options, head, prompts, recordings, {
        'store': features.key, 'basis': features.basis.key}, stills)
    report(f'{len(recordings)} recordings of {len(texts)} tasks')
    result = train(objective, Path(output), resume=resume, device=device, report=report)
    vectors = {task: prompts.vectors[prompts.row(task)].detach().clone().contiguous()
               for task in (*texts, FALLBACK)}
    used = [f.episode for f in recordings if not f.human]
    record: dict[str, Any] = {
        'options': asdict(options), 'command': command,
        'bundle': {'name': verified.manifest.name, 'sha256': verified.sha256,
                   'visual': verified.manifest.files['visual.onnx'].sha256},
        'size': int(features.basis.matrix.shape[1]), 'texts': texts,
        'fine': asdict(verified.manifest.fine) if head.grounding is not None
        and verified.manifest.fine else None,
        'modes': objective.modes,
        'data': {
            'episodes': len(used), 'successes': sum(bool(e.success) for e in used),
            'human_recordings': sum(f.human for f in recordings),
            'stills': len(stills.stills) if stills else 0,
            'goals': len(stills.texts) if stills else 0,
            'recordings': recordings_key(recordings),
            'trained_on': sorted({f.features.source[:16] for f in recordings if not f.human}),
            **described(used), 'tasks': sorted(texts)},
        'seconds': result.seconds}
    if is_first():
        save_file({**{f'head.{k}': v.contiguous() for k, v in head.state_dict().items()},
                   **{f'prompts.{k}': v for k, v in vectors.items()}}, Path(output) / HEAD)
        record = write_record(Path(output), record)
    report(f'{result.seconds:.0f} s; {output}')
    return SuccessRun(Path(output), options, head, {
        task: value.numpy() for task, value in vectors.items()}, texts, record)


def _check_stills(
    folders: Sequence[Path], manifest: Manifest, options: SuccessOptions,
) -> None:
    """
    Look for stills and their files before anything is encoded.

    :raises DataError: there are none, or what they speak of is not known.
    """
    assert manifest.fine is not None
    rules = read_splits(Path(options.split_file))
    require_some([still for folder in folders for still in told_stills(
        chosen_data(read_manifest(folder, series=False), options), manifest.reference_view,
        manifest.fine, rules)[0]])


def _stills(
    sets: Sequence[tuple[DataSet, TokenFeatures]], manifest: Manifest, options: SuccessOptions,
    report: Report,
) -> Stills:
    """
    Load the stills of all data sets.

    :raises DataError: there are none.
    """
    assert manifest.fine is not None
    rules, encoder = read_splits(Path(options.split_file)), minilm_sentences()
    found = [load_stills(data, features, manifest.reference_view, manifest.fine, rules, encoder,
                         report=report) for data, features in sets]
    stills = Stills(tuple(still for one in found for still in one.stills),
                    {goal: texts for one in found for goal, texts in one.texts.items()},
                    {text: vector for one in found for text, vector in one.vectors.items()})
    require_some(stills.stills)
    return stills


def _check_texts(texts: Mapping[str, str]) -> None:
    """Refuse instructions that no bundle could hold."""
    try:
        TaskTable(tuple(Task(task, check_task(text)) for task, text in texts.items()),
                  Task(FALLBACK, FALLBACK))
    except ValueError as error:
        raise TrainingError(f'{error}: give their episodes one id, or tell them apart by other '
                            'words') from error


def trained_on(run: SuccessRun, recordings: Iterable[Recording]) -> list[str]:
    """
    Name the episodes that a run was trained on, whatever split they are in now.

    By what their recordings are: names are the same in many data sets.
    """
    known = set(run.record['data'].get('trained_on', ()))
    return sorted(f.episode.episode_id for f in recordings
                  if f.features.source and f.features.source[:16] in known)


def recordings_key(recordings: Iterable[Recording]) -> str:
    """Identify what was trained on: which recordings, and their labels."""
    rows = sorted((f.episode.episode_id, f.human, f.episode.task_id, f.episode.task_text, crc32(
        f.done.tobytes() + f.failing.tobytes() + f.progress.tobytes())) for f in recordings)
    return sha256(json.dumps(rows).encode()).hexdigest()[:16]


def task_texts(episodes: Iterable[Episode]) -> dict[str, str]:
    """Return each task's instruction, the most frequent where there are several."""
    return dict(sorted(_most_frequent((e.task_id, e.task_text) for e in episodes).items()))


def done_instead(
    recordings: Iterable[Recording], known: Iterable[str], options: SuccessOptions,
) -> tuple[str, ...]:
    """List what was done in place of tasks: nothing known, and nothing that is held out."""
    splits = read_splits(Path(options.split_file))
    return tuple(sorted({f.instead for f in recordings if f.instead
                         and not splits.of_task(f.instead)} - set(known)))


def _most_frequent(pairs: Iterable[tuple[K, str]]) -> dict[K, str]:
    """Give by key the word that comes with it most often; of several the first by alphabet."""
    found: dict[K, Counter[str]] = {}
    for key, word in pairs:
        found.setdefault(key, Counter())[word] += 1
    return {key: max(sorted(words), key=lambda word: words[word])
            for key, words in found.items()}


def load_success_run(folder: Path) -> SuccessRun:
    """
    Load a finished run.

    :raises TrainingError: there is none, or it is of another version.
    """
    record = read_record(Path(folder), 'hralign success train')
    try:
        options = SuccessOptions(**record['options'])
        tensors = load_file(Path(folder) / HEAD)
        state = {k.removeprefix('head.'): v for k, v in tensors.items() if k.startswith('head.')}
        views, channels = state['ood_mean'].shape
        head = SuccessHead(
            views, channels, state['place'].shape[0], state['video.weight'].shape[0],
            size=state['basis_matrix'].shape[1], newest='newest.weight' in state,
            grounding=_grounding(TokenSpec(**record['fine']) if record.get('fine') else None,
                                 state['video.weight'].shape[0]))
        head.load_state_dict(state)
    # What torch raises of weights that do not fit names all of them, a line each.
    except (KeyError, TypeError, OSError, SafetensorError, RuntimeError) as error:
        raise TrainingError(
            f'{folder}: a run of another version of this package, or a damaged one '
            f'({" ".join(str(error).split())[:200]}); train again') from error
    head.eval()
    prompts = {k.removeprefix('prompts.'): v.numpy() for k, v in tensors.items()
               if k.startswith('prompts.')}
    return SuccessRun(Path(folder), options, head, prompts, record['texts'], record)


def fit_ood_score(head: SuccessHead, recordings: Iterable[Recording]) -> None:
    """
    Fit what `SuccessHead.ood_score` compares with: a Gaussian per view, of robots' recordings.

    The axes are the principal ones; along all others the variance is taken to be the same
    (probabilistic PCA).
    """
    rows: list[list[Floats]] = [[] for _ in head.ood_mean]
    for recording in recordings:
        if recording.human:
            continue
        chosen = np.unique(np.linspace(0, recording.frames - 1, _OOD_FRAMES).round().astype(int))
        for view, some in enumerate(rows):
            if recording.features.present[view]:
                some.append(recording.features.means[chosen, view].astype(np.float32))
    for view, some in enumerate(rows):
        if not some:
            continue
        points = np.concatenate(some).astype(np.float64)
        mean = points.mean(0)
        values, vectors = np.linalg.eigh(np.cov((points - mean).T))
        size = head.ood_axes.shape[1]
        head.ood_mean[view] = torch.from_numpy(mean)
        head.ood_matrix[view] = torch.from_numpy(vectors[:, ::-1][:, :size].copy())
        head.ood_axes[view] = torch.from_numpy(np.maximum(values[::-1][:size], 1e-9).copy())
        head.ood_rest[view] = float(max(values[::-1][size:].sum(), 1e-9))


def training_of(run: SuccessRun) -> SuccessTraining:
    """Say what a run was trained on, as a bundle does."""
    data, options = run.record['data'], run.options
    return parse(SuccessTraining, {
        **{key: data[key] for key in (
            'episodes', 'successes', 'human_recordings', 'scenes', 'embodiments', 'sources',
            'licenses')},
        'tasks': len(run.texts), 'seed': options.seed, 'command': run.record['command'],
        'head_sha256': run.head_sha256, 'all_robots': options.all_robots,
        'leave_out': options.leave_out}, str(run.folder))

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
One adaptation from a data set to a run's folder: pairs, features, model, training, run.json.

run.json says everything that is needed to make the model again and to tell where it comes from.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
import math
from pathlib import Path
import time
from typing import Any

from hralign_ros.data.features import features_folder
from hralign_ros.data.manifest import DataError, DataSet, read_manifest
from hralign_ros.data.pairs import human_clip, make_pairs, Pair, robot_clip
from hralign_ros.data.samplers import WINDOW_S
from hralign_ros.models.adapters import make_adapters
from hralign_ros.models.backbones import Backbone, load_backbone, RANDOM, require_weights
from hralign_ros.models.hr_align import HRAlign
from hralign_ros.models.published import resolve_weights
from hralign_ros.models.text import distilbert_sentences, minilm_sentences, SentenceFeatures
from hralign_ros.models.weight_files import read_checkpoint as read_weights
from hralign_ros.runtime.report import Report, silent
from hralign_ros.runtime.video import frame_times
from hralign_ros.training.alignment_batches import Item, make_items, Texts
from hralign_ros.training.alignment_objective import AlignmentObjective, R1
from hralign_ros.training.alignment_options import AdaptOptions, TrainOptions
from hralign_ros.training.checkpoints import read_checkpoint, TrainingError
from hralign_ros.training.clip_features import (
    build_clip_features,
    ClipFeatures,
    hash_weights,
    MapEncoder,
)
from hralign_ros.training.devices import choose_device
from hralign_ros.training.distributed import is_first
from hralign_ros.training.loop import train
from hralign_ros.training.run_folder import (
    BEST,
    described,
    prepare_folder,
    read_record,
    RUN,
    write_record,
)
import numpy as np
import torch
from torch import nn

# Clips whose length is looked at.
_SOME = 30
# Between the seeds of two samples of partners; those of neighbouring training seeds differ.
_NEXT = 1000


@dataclass(frozen=True)
class Run:
    """
    A finished run.

    :param model: with its best weights, in evaluation mode.
    :param record: the contents of run.json.
    """

    folder: Path
    options: AdaptOptions
    backbone: Backbone
    model: HRAlign
    record: Mapping[str, Any]

    @property
    def weights_sha256(self) -> str:
        """Identify what was trained, by which a report is known to be of this run."""
        return hash_weights(self.model)


def adapt(
    data: Path, output: Path, options: AdaptOptions, *, cache: Path | None = None,
    workers: int | str = 1, resume: bool = False, device: str = 'auto', command: str = '',
    report: Report = print,
) -> Run:
    """
    Adapt a backbone on the training pairs of a data set.

    :param cache: folder for features; None: features/ in the data set.
    :param workers: processes that compute features.
    :param device: auto, cpu or cuda.
    :param command: how a person repeats this, for run.json.
    :raises HralignError: data, options or weights that do not do.
    """
    began = time.monotonic()
    choose_device(device)
    report = report if is_first() else silent
    everything = read_manifest(Path(data), series=False)
    require_weights(options.backbone, options.weights)
    options = replace(options, weights=resolve_weights(
        options.backbone, options.weights, non_commercial=options.non_commercial))
    backbone = load_backbone(
        options.backbone, options.weights, non_commercial=options.non_commercial)
    if options.weights and options.weights != RANDOM:
        # A run is found again from any folder.
        file = Path(options.weights).resolve()
        options = replace(options, weights=str(file))
        if read_weights(file).adapters_state:
            report(f'{file} has adapters; they are not used, new ones are trained')
    seed = options.train.seed
    training_data = everything.of_split('train')
    learning = [pair for sample in range(options.partners) for pair in make_pairs(
        training_data, options.pairs, views=options.views, seed=seed + _NEXT * sample)]
    held_out = make_pairs(
        everything.of_split('validation'),
        options.validation_pairs or (
            'recorded' if options.pairs == 'shuffled' else options.pairs),
        views=options.views, seed=seed)
    # All of this before the features, so that a wrong option shows before hours of work.
    encoder = text_encoder(options.text)
    model = build_model(backbone, options, encoder.dim)
    _check_pairs(everything, options, learning, held_out)
    if options.train.sampler == 'window':
        _check_window(everything, options, learning)
    prepare_folder(Path(output), resume=resume, settings=asdict(options.train))
    features = pair_features(
        everything, backbone, options, cache=cache, workers=workers,
        report=report)
    cached = time.monotonic()
    texts = text_features(encoder, [p.robot.task_text for p in (*learning, *held_out)])
    objective = AlignmentObjective(
        options.train, model, learning, held_out, features, texts, report)
    result = train(objective, Path(output), resume=resume, device=device, report=report)
    model.eval()
    record: dict[str, Any] = {
        'options': asdict(options), 'text_dim': encoder.dim, 'text_encoder': encoder.name,
        'command': command,
        'backbone_sha256': hash_weights(backbone.module),
        'backbone_source': backbone.source, 'backbone_license': backbone.license_id,
        'data': _described(everything, *(make_items(pairs, features)[0] for pairs in (
            learning, held_out))), 'cache': features.key,
        'best_step': result.best_step, 'steps': result.steps,
        'stopped_early': result.stopped_early, **result.best,
        'seconds': {'cache': round(cached - began, 1), 'train': result.seconds},
        'peak_rss_mb': _peak_rss_mb(),
    }
    if is_first():
        record = write_record(Path(output), record)
    report(f'best at step {result.best_step}: R@1 {result.best[R1]:.3f} on validation pairs; '
           f'{result.seconds:.0f} s, peak {record["peak_rss_mb"]} MB; {output}')
    return Run(Path(output), options, backbone, model, record)


def _check_pairs(
    data: DataSet, options: AdaptOptions, learning: Sequence[Pair], held_out: Sequence[Pair],
) -> None:
    """
    Refuse pairs that no training can be done with.

    :raises DataError: says how many there are, of what, and which option changes that.
    """
    batch = options.train.batch if options.train.objective == 'align' else 1
    for split, pairs, needed in (('train', learning, batch), ('validation', held_out, 1)):
        count = len({(pair.human.key, pair.robot.episode_id) for pair in pairs})
        if count >= needed:
            continue
        there = data.of_split(split).episodes
        humans = sum(bool(e.human_video) for e in there)
        raise DataError(
            f'{data.folder}: {count} {options.pairs} pairs of human and robot in the split '
            f'{split}, needed are {needed} or more (--batch N changes that of training). The '
            f'split has {len(there)} episodes, {humans} with human video, of '
            f'{len({e.task_id for e in there})} tasks in {len({e.scene for e in there})} scenes; '
            'cross_scene needs a task in two scenes, same_motion needs human videos of the very '
            'motion, recorded needs one beside each robot (--pairs)')


def _check_window(data: DataSet, options: AdaptOptions, learning: Sequence[Pair]) -> None:
    """
    Refuse clips of which two seconds would be fewer cached frames than a step takes.

    :raises DataError: says how many frames the cache needs.
    """
    clips = {clip.key: clip for pair in learning for clip in (pair.human, pair.robot)}
    some = [clips[key] for key in sorted(clips)]
    seconds = []
    for clip in some[::max(1, len(some) // _SOME)]:
        try:
            seconds.append(clip.span_s[1] - clip.span_s[0] if clip.span_s
                           else float(frame_times(data.path(clip.file))[-1]))
        except DataError:  # it will be left out
            continue
    usual = float(np.median(seconds)) if seconds else 0.0
    needed = math.ceil(1 + usual * (options.train.length - 1) / WINDOW_S)
    if options.frames < needed:
        raise DataError(
            f'sampler is window: {options.train.length} frames of {WINDOW_S:g} s, and half of the '
            f'clips are {usual:.1f} s or longer with {options.frames} frames of each in the '
            f'cache; give --frames {needed}, or another sampler')


def _peak_rss_mb() -> int:
    """Return the most memory that was resident; getrusage would count what started us in."""
    status = Path('/proc/self/status').read_text('ascii')
    return int(next(line for line in status.splitlines() if line.startswith('VmHWM')).split()[1]
               ) // 1024


def load_run(folder: Path) -> Run:
    """
    Load a finished run.

    :raises TrainingError: there is none, or its files are of another version.
    """
    path, record = Path(folder) / RUN, read_record(Path(folder), 'hralign encoder train')
    try:
        chosen = dict(record['options'])
        chosen['train'] = TrainOptions(**chosen['train'])
        chosen['views'] = tuple(chosen['views'])
        options = AdaptOptions(**chosen)
    except (KeyError, TypeError) as error:
        raise TrainingError(f'{path}: options of another version of this package ({error}); '
                            'train again') from error
    backbone = load_backbone(
        options.backbone, options.weights, non_commercial=options.non_commercial)
    if hash_weights(backbone.module) != record['backbone_sha256']:
        raise TrainingError(
            f'{path}: it was trained behind other weights of {options.backbone} than '
            f"{options.weights or 'those of the installed package'} holds now; bring the old ones "
            'back, or train again')
    model = build_model(backbone, options, record['text_dim'])
    model.load_trained_state(read_checkpoint(Path(folder) / BEST).model)
    model.eval()
    return Run(Path(folder), options, backbone, model, record)


def build_model(backbone: Backbone, options: AdaptOptions, text_dim: int) -> HRAlign:
    """Make the model at its start; the seed decides every weight."""
    torch.manual_seed(options.train.seed)
    adapters: nn.Module = nn.Identity() if options.trained == 'query' else make_adapters(
        backbone, options.position, init=options.init)
    return HRAlign(adapters, backbone.back(options.position), text_dim, backbone.channels,
                   pooling=options.pooling, floor=options.attention_floor)


def text_encoder(name: str) -> SentenceFeatures:
    """
    Make the text encoder of a name.

    :raises TrainingError: no such encoder.
    """
    if name == 'minilm':
        return minilm_sentences()
    kind, _, folder = name.partition(':')
    if kind == 'distilbert' and folder:
        return distilbert_sentences(Path(folder))
    raise TrainingError(f"text encoder is '{name}'; allowed: minilm, distilbert:FOLDER")


def text_features(encoder: SentenceFeatures, texts: Iterable[str]) -> Texts:
    """Encode each different text once."""
    names = sorted(set(texts))
    return dict(zip(names, encoder.encode(names), strict=True))


def pair_features(
    data: DataSet, backbone: Backbone, options: AdaptOptions, *,
    cache: Path | None = None, workers: int | str = 1, report: Report = print,
) -> ClipFeatures:
    """Build or open the features of all clips of a data set that any pairing could need."""
    # The same clips whichever pairs and views are chosen: all runs on a data set share one cache.
    known = {view for e in data.episodes for view in e.robot_videos}
    views = tuple(sorted(known & {*options.views, *AdaptOptions.views}))
    clips = [human_clip(e) for e in data.episodes if e.human_video]
    clips += [robot_clip(e, view) for e in data.episodes if e.success is not False
              for view in views if view in e.robot_videos]
    return build_clip_features(
        features_folder(data.folder, cache, report), clips, data.folder,
        MapEncoder(backbone, options.position, frames=options.frames, dtype=options.dtype),
        workers=workers, report=report)


def _described(
    data: DataSet, learning: Sequence[Item], held_out: Sequence[Item],
) -> dict[str, Any]:
    """Say what a run was trained on; a pair is a human clip with all views of a robot episode."""
    used = {item.robot.episode_id for item in learning}
    return {'pairs': len(learning), 'validation_pairs': len(held_out),
            **described(e for e in data.episodes if e.episode_id in used)}

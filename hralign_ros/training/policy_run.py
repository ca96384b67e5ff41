# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Behaviour cloning: from demonstrations and a bundle's embeddings to a small policy."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hralign_ros.data.channels import Channels, read_channels
from hralign_ros.data.content import hash_file
from hralign_ros.data.embedding_features import build_embeddings, chosen_parts
from hralign_ros.data.features import Tensors
from hralign_ros.data.manifest import DataError, DataSet, Episode, read_manifest
from hralign_ros.models.policy import Normalisation, PolicyNetwork
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.identity import POOLED
from hralign_ros.runtime.images import AS_IT_COMES, ViewGeometry
from hralign_ros.runtime.policy import Channel, EmbeddingSpec, PartSpec
from hralign_ros.runtime.report import Report
from hralign_ros.training.checkpoints import TrainingError
from hralign_ros.training.policy_options import PolicyOptions
from hralign_ros.training.sample_weights import read_weights, Signal
import numpy as np
from numpy.typing import NDArray
import torch

Floats = NDArray[np.float32]
# Frames of an episode may be further apart or closer than in others by this fraction.
_RATE = 0.1
# Videos keep times to a fraction of a millisecond, and a recorder's clock may be off by as much.
_TICK_S = 1e-3
# A number whose spread is below this part of the others' is no better known for it.
_FLOOR = 0.1
# Less than one frame ever counts, and not none.
_NOTHING = 1e-6


@dataclass(frozen=True, eq=False)
class Observations:
    """
    What a policy learns from; N frames of all demonstrations.

    :param embedding: float32 [N, V, D].
    :param proprio: float32 [N, P].
    :param actions: float32 [N, chunk, A]; the chunk begins with the frame's own action.
    :param there: float32 [N, chunk], 0 behind the end of a demonstration.
    :param weight: float32 [N], 0 to 1: how much a frame counts.
    """

    embedding: Floats
    proprio: Floats
    actions: Floats
    there: Floats
    weight: Floats


@dataclass(frozen=True, eq=False)
class TrainedPolicy:
    """
    A policy before it is exported.

    :param network: in evaluation mode.
    :param parts: of the bundle's embedding, in order.
    :param views: of the embedding's rows.
    :param period_s: of the demonstrations' frames [s].
    :param embedding: what the embeddings were made by; None: there are none.
    :param training: what it was trained on, and how: plain values.
    """

    network: PolicyNetwork
    task: str
    parts: tuple[PartSpec, ...]
    views: tuple[str, ...]
    proprio: tuple[Channel, ...]
    actions: tuple[Channel, ...]
    execute: int
    period_s: float
    bundle_sha256: str
    embedding: EmbeddingSpec | None
    training: dict[str, Any]


def train_policy(
    data: Path, bundle: Path, options: PolicyOptions, *, task: str = '',
    weights: Path | None = None, weights_of: Signal = 'progress',
    features: Path | None = None, workers: int | str = 1, device: str = 'cpu',
    command: str = '', report: Report = print,
) -> TrainedPolicy:
    """
    Train a policy on demonstrations of one task.

    Episodes that failed or were discarded are left out; of those whose end is not known, all are
    taken.

    :param data: folder with a manifest whose episodes have actions.
    :param task: id or instruction of the task; '': the only one that the data has.
    :param weights: file of `hralign data label`, see sample_weights; None: all frames count alike.
    :param weights_of: what is in the file that counts.
    :param features: folder of features; None: in the data set.
    :param device: for torch.
    :raises DataError: the data, a video or the weights cannot be read, or are of other frames.
    :raises TrainingError: there are no such demonstrations, or options do not suit them.
    """
    if weights is None and weights_of != 'progress':
        raise DataError('--sample-weights-of says what counts of a file, and none is named '
                        '(--sample-weights)')
    demonstrations = choose_demonstrations(
        read_manifest(data), task, options.episodes)
    episodes = demonstrations.episodes
    channels = read_channels(demonstrations)
    proprio = _chosen(channels, options.proprio)
    period_s = _period(episodes)
    counts = [np.ones(len(e.time_s)) for e in episodes] if weights is None else read_weights(
        weights, episodes, chunk=options.chunk, signal=weights_of)
    instruction = episodes[0].task_text
    parts: tuple[PartSpec, ...] = ()
    views: tuple[str, ...] = ()
    bundle_sha256 = ''
    embedding: EmbeddingSpec | None = None
    found: list[Tensors | None] = [None] * len(episodes)
    if options.camera:
        store, encoder = build_embeddings(
            demonstrations, bundle, instruction, folder=features, workers=workers, report=report)
        parts = tuple(PartSpec(part.name, part.shape)
                      for part in chosen_parts(encoder, options.parts))
        found = [store[episode.episode_id] for episode in episodes]
        filmed = {view for episode in episodes for view in episode.robot_videos}
        views = tuple(view for view in encoder.manifest.views if view in filmed)
        rows = [encoder.manifest.views.index(view) for view in views]
        bundle_sha256 = encoder.bundle.sha256
        embedding = _made_by(encoder, instruction, [part.name for part in parts],
                             _geometry(episodes, views, report))
    else:
        rows = []
    columns = [channels.proprio.index(one) for one in proprio]
    observations = [_observe(episode, made, [part.name for part in parts], rows, columns,
                             options.chunk, count)
                    for episode, made, count in zip(episodes, found, counts, strict=True)]
    together = Observations(*(np.concatenate([getattr(one, field.name) for one in observations])
                              for field in fields(Observations)))
    network, loss = fit(together, options, device=device, report=report)
    return TrainedPolicy(
        network=network, task=instruction, parts=parts, views=views, proprio=proprio,
        actions=channels.actions, execute=options.execute, period_s=period_s,
        bundle_sha256=bundle_sha256, embedding=embedding, training={
            'task_id': episodes[0].task_id, 'demonstrations': len(episodes),
            'frames': len(together.actions), 'loss': round(loss, 5),
            'embodiments': sorted({e.embodiment for e in episodes}),
            'scenes': sorted({e.scene for e in episodes}),
            'sources': sorted({e.source for e in episodes}),
            'options': {name: list(value) if isinstance(value, tuple) else value
                        for name, value in asdict(options).items()},
            **({'weights': {'sha256': hash_file(weights), 'of': weights_of, 'mean': round(
                float(together.weight.mean()), 4)}} if weights is not None else {}),
            'command': command})


def _geometry(
    episodes: Sequence[Episode], views: Sequence[str], report: Report,
) -> dict[str, ViewGeometry]:
    """Tell how the images of each view were turned and cropped before they were encoded."""
    found = {}
    for view in views:
        ways = {e.geometry.get(view, AS_IT_COMES) for e in episodes if view in e.robot_videos}
        if len(ways) == 1:
            found[view] = ways.pop()
        else:
            report(f'  images of {view} were turned or cropped in {len(ways)} ways, as the camera '
                   'was mounted; what runs the policy cannot check that it does it right')
    return found


def _made_by(
    encoder: Encoder, instruction: str, parts: Sequence[str],
    geometry: Mapping[str, ViewGeometry],
) -> EmbeddingSpec:
    """Tell what some parts of embeddings were made by, of images that were turned and cropped."""
    return EmbeddingSpec(
        sha256=encoder.identity.sha256, ingredients=encoder.identity.only(parts),
        instruction_sha256=encoder.text.encode(instruction).instruction_sha256
        if set(parts) & set(POOLED) else '',
        precision=encoder.precision, pooling=encoder.pooling,
        rotation={view: one.rotation for view, one in geometry.items()},
        crop={view: one.crop for view, one in geometry.items()})


def choose_demonstrations(data: DataSet, task: str, count: int) -> DataSet:
    """
    Choose the demonstrations of a task.

    :param task: id or instruction; '': the only one.
    :param count: so many, in the order of their names; 0: all.
    :raises TrainingError: there are none, or fewer, or they are of several tasks.
    """
    good = [e for e in data.episodes
            if len(e.actions) and e.success is not False and not e.discarded]
    names = sorted({e.task_id for e in good})
    chosen = [e for e in good if task in ('', e.task_id, e.task_text)]
    if not chosen:
        raise TrainingError(
            f'{data.folder}: no demonstration with actions{f" of {task}" if task else ""} that '
            f'did not fail; there are some of: {", ".join(names) or "nothing"}')
    if len({e.task_id for e in chosen}) > 1:
        raise TrainingError(f'{data.folder}: demonstrations of {", ".join(names)}; name one with '
                            '--task')
    if count > len(chosen):
        raise TrainingError(f'{data.folder}: {len(chosen)} demonstrations of '
                            f'{chosen[0].task_id}; {count} were asked for')
    return data.only(sorted(chosen, key=lambda e: e.episode_id)[:count or None])


def _chosen(channels: Channels, names: Sequence[str]) -> tuple[Channel, ...]:
    """Choose proprioception by name; what is of an object no robot knows by itself."""
    there = {one.name: one for one in channels.proprio}
    if missing := [name for name in names if name not in there]:
        raise TrainingError(f'no proprioception {", ".join(missing)} in the data; it has '
                            f'{", ".join(there) or "none"}')
    return tuple(there[name] for name in names) if names else tuple(
        one for one in channels.proprio if not one.name.startswith('object.'))


def _period(episodes: Sequence[Episode]) -> float:
    """Return the time between frames, the same in all demonstrations [s]."""
    steps = [float(np.median(np.diff(e.time_s))) for e in episodes if len(e.time_s) > 1]
    if not steps or max(steps) > (1.0 + _RATE) * min(steps):
        raise TrainingError(
            f'frames are {min(steps, default=0.0):.3f} to {max(steps, default=0.0):.3f} s apart; '
            'needed is one rate in all demonstrations, as actions belong to a rate')
    return round(float(np.median(steps)), 6)


def _observe(
    episode: Episode, found: Tensors | None, parts: Sequence[str], rows: Sequence[int],
    columns: Sequence[int], chunk: int, weight: NDArray[np.float64],
) -> Observations:
    """Put together what a policy learns from one demonstration."""
    actions = np.asarray(episode.actions, np.float32)
    frames = len(actions)
    proprio = np.asarray(episode.proprio, np.float32).reshape(frames, -1)[:, columns]
    embedding = np.zeros((frames, len(rows), 0), np.float32)
    if found is not None:
        times = np.asarray(episode.time_s)
        # A camera's frames need not be those that the robot's numbers were noted with.
        places = np.maximum(np.searchsorted(found['time_s'], times + _TICK_S, 'right') - 1, 0)
        embedding = np.concatenate([found[part][places] for part in parts], axis=2)[:, rows]
    after = np.arange(frames)[:, None] + np.arange(chunk)
    return Observations(
        np.ascontiguousarray(embedding, np.float32), proprio,
        actions[np.minimum(after, frames - 1)], (after < frames).astype(np.float32),
        weight.astype(np.float32))


def normalise(data: Observations) -> Normalisation:
    """Find means and spreads; numbers that hardly vary get the spread of the others."""
    def of(values: Floats) -> torch.Tensor:
        spread = values.std(0)
        least = _FLOOR * np.sqrt((spread ** 2).mean()) if spread.size else 0.0
        return torch.from_numpy(np.stack([
            values.mean(0), np.maximum(np.maximum(spread, least), 1e-6)]).astype(np.float32))

    flat = data.actions[:, 0]
    each = [of(data.proprio[:, i:i + 1]) for i in range(data.proprio.shape[1])]
    return Normalisation(
        embedding=of(data.embedding),
        proprio=torch.cat(each, 1) if each else torch.zeros(2, 0),
        actions=torch.cat([of(flat[:, i:i + 1]) for i in range(flat.shape[1])], 1))


def fit(
    data: Observations, options: PolicyOptions, *, device: str = 'cpu', report: Report = print,
) -> tuple[PolicyNetwork, float]:
    """
    Fit a network to observations by mean squared error; the same seed gives the same network.

    :returns: the network in evaluation mode, on the CPU, and the mean loss of its last steps.
    :raises TrainingError: execute is more than chunk.
    """
    if options.execute > options.chunk:
        raise TrainingError(f'execute is {options.execute}; allowed is chunk, {options.chunk}, at '
                            'most')
    torch.manual_seed(options.seed)
    order = torch.Generator().manual_seed(options.seed)
    network = PolicyNetwork(
        normalise(data), chunk=options.chunk, bottleneck=options.bottleneck,
        hidden=options.hidden, dropout=options.dropout).to(device)
    tensors = [torch.from_numpy(values).to(device) for values in (
        data.embedding, data.proprio, data.actions, data.there * data.weight[:, None])]
    wanted = (tensors[2] - network.scale[0]) / network.scale[1]
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay,
        fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.steps)
    count = len(wanted)
    last: list[float] = []
    network.train()
    for step in range(options.steps):
        rows = torch.randint(count, (min(options.batch, count),), generator=order).to(device)
        made = network.normalised(tensors[0][rows], tensors[1][rows])
        there = tensors[3][rows][..., None]
        # Of a batch in which no frame counts, nothing is learnt.
        loss = (there * (made - wanted[rows]) ** 2).sum() / (
            there.sum().clamp(min=_NOTHING) * made.shape[-1])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step >= options.steps - 100:
            last.append(float(loss.detach()))
        if (step + 1) % max(1, options.steps // 4) == 0:
            report(f'  step {step + 1} of {options.steps}, loss {float(loss.detach()):.4f}')
    return network.cpu().eval(), float(np.mean(last))

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Stills, as a grounded head learns from them: two frames, and what is so and what is not.

The batch of a step is a pure function of the seed and the step, as that of attempts is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
import json
from pathlib import Path

from hralign_ros.data.features import write_file
from hralign_ros.data.instructions import NOT_SO, read_instructions, Said, SO, STILL
from hralign_ros.data.manifest import DataError, DataSet, Episode, slug
from hralign_ros.data.splits import Splits
from hralign_ros.data.things import Places, read_things
from hralign_ros.data.token_features import TokenFeatures
from hralign_ros.models.grounding import LOOKED_FOR
from hralign_ros.models.text import SentenceFeatures
from hralign_ros.runtime.bundle import TokenSpec
from hralign_ros.runtime.report import Progress, Report
from hralign_ros.training.distributed import Ranks
from hralign_ros.training.loop import Batch
from hralign_ros.training.success_options import SuccessOptions
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
import torch
from torch import Tensor

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]
# First word of the generator's seed.
_STILLS = 13


@dataclass(frozen=True, eq=False)
class Still:
    """
    One still.

    :param fine: of the reference view's first and last frame, float16 [2, M, R].
    :param goals: what one could have asked for, instructions.
    :param so: bool [G], whether it is so in the end.
    :param cells: int64 [G, LOOKED_FOR], in which fine token the thing is now, was, and its place
        is; -1: out of the image, or it has none.
    """

    episode_id: str
    fine: Halves
    goals: tuple[str, ...]
    so: NDArray[np.bool_]
    cells: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Stills:
    """
    Stills, and the words for what is so in them.

    :param texts: every way to say each goal.
    :param vectors: of each text, float32 [D], norm 1.
    """

    stills: tuple[Still, ...]
    texts: Mapping[str, tuple[str, ...]]
    vectors: Mapping[str, Floats]

    @property
    def mean(self) -> Floats:
        """Give the mean over all texts: float32 [D]."""
        return np.mean(list(self.vectors.values()), axis=0, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class StillBatch(Batch):
    """
    One step's s stills with U texts each, and the tokens of this rank's.

    :param fine: float32 [s of this rank, 2, M, R].
    :param text: float32 [s, U, D].
    :param so: float32 [s, U], 1 where it is so.
    :param used: float32 [s, U], 0 where there is no text.
    :param cells: int64 [s, U, LOOKED_FOR], -1 where it is not known.
    """

    fine: Tensor
    text: Tensor
    so: Tensor
    used: Tensor
    cells: Tensor


def require_some(stills: Sequence[object]) -> None:
    """
    Refuse to go on without any still.

    :raises DataError: there is none.
    """
    if not stills:
        raise DataError(
            'a grounded head learns from stills, and there is none to train on; `hralign data '
            'simulate --world tabletop --stills 8000` makes them')


@dataclass(frozen=True, eq=False)
class ToldStill:
    """
    What a data set tells of one of its stills, before anything is seen of it.

    :param goals, so, cells: as of Still.
    """

    episode: Episode
    goals: tuple[str, ...]
    so: NDArray[np.bool_]
    cells: NDArray[np.int64]


def told_stills(
    data: DataSet, view: str, grid: TokenSpec, rules: Splits,
) -> tuple[list[ToldStill], Mapping[str, Said]]:
    """
    Read what the stills of the training split tell, and the words that they use.

    What the split file holds out is left out of what is so and what is not; a still that the view
    was not recorded of, altogether.

    :param view: that fine tokens are of.
    :param grid: of fine tokens.
    :raises DataError: things.parquet or instructions.json is missing, or speaks of other things.
    """
    chosen = [e for e in data.episodes if STILL in e.tags and e.split == 'train'
              and not e.discarded and view in e.robot_videos]
    if not chosen:
        return [], {}
    said, places = read_instructions(data.folder), read_things(data.folder)
    free = {text: not rules.of_task(slug(text)) for text in said}
    found = []
    for episode in chosen:
        goals, so = told(episode.tags)
        try:
            kept = [row for row, goal in enumerate(goals) if free[goal]]
            cells = [cells_of(said[goals[row]], places[episode.episode_id], view, grid)
                     for row in kept]
        except KeyError as error:
            raise DataError(
                f'{data.folder}: {episode.episode_id} speaks of {error}, of which '
                'instructions.json or things.parquet does not know; complete the set by the '
                'command that made it (--resume)') from error
        if kept:
            found.append(ToldStill(episode, tuple(goals[row] for row in kept), so[kept],
                                   np.array(cells, np.int64)))
    return found, said


def load_stills(
    data: DataSet, features: TokenFeatures, view: str, grid: TokenSpec, rules: Splits,
    encoder: SentenceFeatures, *, report: Report = print,
) -> Stills:
    """
    Load the stills of a data set's training split.

    :param view, grid, rules: as of `told_stills`.
    :param encoder: of texts.
    :raises DataError: as `told_stills` does.
    """
    some, said = told_stills(data, view, grid, rules)
    stills = []
    for one in some:
        fine = features.load(one.episode).fine if features.has(one.episode) else None
        if fine is not None:
            stills.append(Still(
                one.episode.episode_id, fine[[0, -1]], one.goals, one.so, one.cells))
    if not stills:
        return Stills((), {}, {})
    texts = {goal: (goal, *said[goal].paraphrases)
             for goal in sorted({goal for still in stills for goal in still.goals})}
    every = sorted({text for some in texts.values() for text in some})
    report(f'{len(stills)} stills tell of {len(texts)} goals, by {len(every)} texts')
    vectors = _encoded(every, encoder, features.folder, report)
    return Stills(tuple(stills), texts, dict(zip(every, vectors, strict=True)))


def _encoded(
    texts: Sequence[str], encoder: SentenceFeatures, folder: Path, report: Report,
) -> Floats:
    """Encode texts, once for a folder of features: float32 [n, D]."""
    key = sha256(json.dumps([encoder.name, *texts]).encode()).hexdigest()[:20]
    path = folder / f'texts-{key}.safetensors'
    if not path.is_file():
        report(f'{path}: encoding texts')
        progress, rows = Progress(len(texts), 'texts', report), []
        for text in texts:
            rows.append(encoder.encode([text])[0])
            progress.step()
        write_file(path, save({'vectors': np.stack(rows)}))
    try:
        return np.asarray(load(path.read_bytes())['vectors'], np.float32)
    except (OSError, SafetensorError, KeyError) as error:
        raise DataError(f'{path}: {error}; delete it, and texts are encoded anew') from error


def told(tags: Iterable[str]) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
    """Read off an episode's tags which goals it tells of, and which of them are so: bool [G]."""
    rows = [(tag.partition(':')[2], tag.startswith(SO)) for tag in tags
            if tag.startswith((SO, NOT_SO))]
    return tuple(goal for goal, _ in rows), np.array([so for _, so in rows], bool)


def cells_of(
    said: Said, places: Sequence[Places], view: str, grid: TokenSpec,
) -> tuple[int, ...]:
    """
    Tell in which fine tokens the things of an instruction are.

    :returns: its thing in the last frame, in the first, and its place in the last; -1: out of the
        image, or there is none.
    :raises KeyError: it is about a thing that is not there.
    """
    at = {slug(one.thing): one.at for one in places if one.view == view}

    def cell(name: str, frame: int) -> int:
        if not name:
            return -1
        x, y = at[slug(name)][frame]
        inside = 0.0 <= x < 1.0 and 0.0 <= y < 1.0
        return int(y * grid.rows) * grid.columns + int(x * grid.columns) if inside else -1

    return cell(said.thing, -1), cell(said.thing, 0), cell(said.place, -1)


class StillBatches:
    """
    Batches of stills.

    :raises DataError: there are none.
    """

    def __init__(self, stills: Stills, options: SuccessOptions) -> None:
        require_some(stills.stills)
        self.stills, self.options = stills, options
        self.size = options.stills_per_step
        self._dim = len(next(iter(stills.vectors.values())))

    def load(self, step: int, ranks: Ranks) -> StillBatch:
        """Load the batch of a step (from 0) with the tokens of this rank's stills."""
        count = self.options.texts_per_still
        rng = np.random.default_rng([_STILLS, self.options.seed, step])
        chosen = [self.stills.stills[row]
                  for row in rng.integers(len(self.stills.stills), size=self.size)]
        text = np.zeros((self.size, count, self._dim), np.float32)
        so, used = np.zeros((2, self.size, count), np.float32)
        cells = np.full((self.size, count, LOOKED_FOR), -1, np.int64)
        for row, still in enumerate(chosen):
            for column, goal in enumerate(_some(still.so, count, rng)):
                ways = self.stills.texts[still.goals[goal]]
                text[row, column] = self.stills.vectors[ways[rng.integers(len(ways))]]
                so[row, column], used[row, column] = still.so[goal], 1.0
                cells[row, column] = still.cells[goal]
        fine = np.stack([still.fine for still in chosen[ranks.rows(self.size)]])
        return StillBatch(torch.from_numpy(fine.astype(np.float32)), *(
            torch.from_numpy(x) for x in (text, so, used, cells)))


def _some(so: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Choose at most so many goals, of which half are so where there are as many."""
    good, bad = (rng.permutation(np.flatnonzero(kind)) for kind in (so, ~so))
    good = good[:count // 2]
    return np.concatenate([good, bad[:count - len(good)]])

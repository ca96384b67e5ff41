# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Which attempts are made on the table: a pure function of the split file and the number of rounds.

Every round has all instructions, and another arm, other labs and other wrong things for each.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from zlib import crc32

from hralign_ros.data.manifest import DataError
from hralign_ros.data.splits import read_splits, SPLITS, Splits
from hralign_ros.runtime.resources import find_share
from hralign_ros.simulation.plan import Chunk, Job
from hralign_ros.simulation.tabletop_objects import things
from hralign_ros.simulation.tabletop_tasks import FAMILIES, Instruction, instructions

WORLD, STILLS = 'tabletop', 'tabletop-stills'
OBJECT = 'test_object'
SPLIT_FILE = 'config/splits_tabletop.yaml'
# Seeds of a round, ten to each of its jobs.
_SEEDS = 1000
# Attempts that train, of either kind, in one lab.
_TRAIN = 3
# Stills of one set of things, in so many labs; and their seeds, labs and sets of things are others
# than those of attempts.
_STILLS, _STILL_LABS, _FIRST_STILL = 16, 4, 10_000
_MANY_LABS = 1_000_000
# Instructions of a round that an arm that is held out does too: every so many.
_HELD_OUT_ARM = 4


def first_instructions(splits: Splits, count: int) -> tuple[Instruction, ...]:
    """
    Return so many instructions to train on, and all that are held out.

    Those of a smaller count are among those of a larger one, and are of all families as far as
    they go.
    """
    kept, trained = [], 0
    for instruction in instructions():
        held = bool(splits.of_task(instruction.task_id))
        if held or trained < count:
            kept.append(instruction)
            trained += not held
    return tuple(kept)


def read_tabletop_splits(path: Path | None = None) -> Splits:
    """Read a split file; None: the one that the package ships for this world."""
    return read_splits(path or find_share(SPLIT_FILE))


def held_out_things(splits: Splits) -> tuple[str, ...]:
    """Return the things that a split file holds out: they are on no other table either."""
    rule = splits.held_out.get(OBJECT)
    return tuple(name for name in things() if rule and rule.fits(f'-{name}-', ''))


def list_instructions(
    splits: Splits, *, only: Sequence[str] = (), families: Sequence[str] = (),
    paraphrases: bool = False,
) -> Iterator[str]:
    """
    List instructions, a line each, and count them.

    :param only: splits; () for all.
    :param families: only these; () for all.
    :param paraphrases: with these.
    :raises DataError: unknown split or family.
    """
    for what, given, known in (('split', only, SPLITS), ('family', families, FAMILIES)):
        if unknown := set(given) - set(known):
            raise DataError(f'no {what} {", ".join(sorted(unknown))}; known: {", ".join(known)}')
    rows = [(i, splits.of_task(i.task_id) or 'train') for i in instructions()]
    rows = [(i, split) for i, split in rows if (not only or split in only) and (
        not families or i.goal.family in families)]
    for instruction, split in rows:
        more = ''.join(f' | {text}' for text in instruction.paraphrases) if paraphrases else ''
        yield f'{instruction.goal.family:9s} {split:17s} {instruction.text}{more}'
    for counts in (Counter(i.goal.family for i, _ in rows), Counter(split for _, split in rows)):
        yield ', '.join(f'{name} {count}' for name, count in sorted(counts.items()))
    texts = {text for i, _ in rows for text in (i.text, *i.paraphrases)}
    yield f'{len(rows)} instructions, {len(texts)} texts'


def plan_tabletop(
    chosen: Sequence[Instruction], splits: Splits, rounds: int, *, arms: Sequence[str],
    failures: bool = True, humans: bool = True, hz: float = 5.0,
) -> Iterator[Chunk]:
    """
    List all chunks, round by round; each has one instruction, arm and set of things.

    :param arms: all that are used; those that the split file holds out do what is held out.
    :param failures: False: experts only; a later run with failures adds them.
    :param humans: False: robots only, of the same attempts.
    :param hz: frames a second.
    """
    usual = [arm for arm in arms if arm not in splits.test_embodiments]
    others = [arm for arm in arms if arm in splits.test_embodiments]
    avoid = held_out_things(splits)
    for number in range(rounds):
        for instruction in chosen:
            # A place in the order of all, so that what is made does not depend on what is chosen.
            place = _PLACES[instruction.task_id]
            pairs = [(usual[(place + number) % len(usual)], False)] if usual else []
            if others and (place + number) % _HELD_OUT_ARM == 0:
                pairs.append((others[place % len(others)], True))
            for arm, held in pairs:
                jobs = (replace(job, human=humans and job.human)
                        for job in _jobs(instruction, splits, number, place, held)
                        if failures or job.wanted)
                yield Chunk(WORLD, instruction.task_id, arm, number, tuple(jobs), hz,
                            () if splits.of_task(instruction.task_id) == OBJECT else avoid)


def plan_stills(
    chosen: Sequence[Instruction], splits: Splits, count: int, *, arms: Sequence[str],
    failures: bool = True,
) -> Iterator[Chunk]:
    """
    List about so many stills, all to train on: as many of each instruction as of another.

    :param count: rounded up to whole sets of things.
    :param arms: all that are used, but for those that the split file holds out.
    :param failures: False: successes only.
    """
    usual = [arm for arm in arms if arm not in splits.test_embodiments]
    trained = [i for i in chosen if not splits.of_task(i.task_id)]
    avoid = held_out_things(splits)
    if not usual or not trained:
        return
    for number in range(-(-count // _STILLS)):
        turn, which = divmod(number, len(trained))
        instruction = trained[which]
        jobs = []
        for i in range(_STILLS):
            lab = crc32(f'{instruction.task_id} {turn} {i // (_STILLS // _STILL_LABS)}'.encode())
            # Seeds end as those of training do.
            seed = 10 * (_FIRST_STILL + _STILLS * turn + i)
            if failures or i % 2 == 0:
                jobs.append(Job(f'train-{_FIRST_STILL + lab % _MANY_LABS}', seed, None,
                                human=False, wanted=i % 2 == 0))
        yield Chunk(STILLS, instruction.task_id, usual[(_PLACES[instruction.task_id] + turn)
                                                       % len(usual)], _FIRST_STILL + turn,
                    tuple(jobs), 0.0, avoid)


def _jobs(
    instruction: Instruction, splits: Splits, number: int, place: int, held: bool,
) -> Iterator[Job]:
    def some(kind: str, first: int, digit: int, count: int) -> Iterator[Job]:
        """List successes and failures in one lab, all seeds with the same last digit."""
        start = crc32(f'{instruction.task_id} {kind}'.encode()) + 7 * number + first
        lab = f'{kind}-{start % splits.scenes[kind]:03d}'
        for i in range(count):
            for wanted in (True, False):
                yield Job(lab, _SEEDS * number + 10 * (first + i) + digit, None, human=wanted,
                          wanted=wanted)

    split = splits.of_task(instruction.task_id)
    if held or (split and split != 'validation'):
        yield from some('test', 0, 0, 2)
        return
    if split:
        yield from some('validation', 0, 0, 2)
        return
    yield from some('train', 0, 0, _TRAIN)
    # Thresholds are guaranteed for labs like those trained in, on other seeds.
    yield from some('train', 10, 8 + (place + number) % 2, 1)
    turn = (place + number) % 3
    if turn < 2:
        yield from some('test' if turn else 'view', 20, 0, 1)


_PLACES = {instruction.task_id: i for i, instruction in enumerate(instructions())}

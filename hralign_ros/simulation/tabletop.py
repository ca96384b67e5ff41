# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Make attempts at hundreds of instructions on a table, in many labs, with several arms."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
import json
from pathlib import Path

from hralign_ros.data.instructions import FILE_NAME as INSTRUCTIONS
from hralign_ros.data.instructions import NOT_SO, SO
from hralign_ros.data.manifest import DataError, Episode, read_manifest, slug
from hralign_ros.data.splits import Splits
from hralign_ros.runtime.report import Report
from hralign_ros.simulation.plan import Chunk
from hralign_ros.simulation.simulate import (
    find_hand,
    finish,
    LEAST_HZ,
    make_all,
    make_folders,
    MOST_HZ,
)
from hralign_ros.simulation.tabletop_plan import (
    first_instructions,
    plan_stills,
    plan_tabletop,
    read_tabletop_splits,
)
from hralign_ros.simulation.tabletop_tasks import (
    FAMILIES,
    find_instructions,
    goals_by_text,
    instructions,
)


def simulate_tabletop(
    output: Path, *, rounds: int = 1, workers: int = 1, tasks: tuple[str, ...] = (),
    families: tuple[str, ...] = (), arms: tuple[str, ...] = (), count: int | None = None,
    failures: bool = True, only: tuple[str, ...] = (), hz: float | None = None,
    humans: bool = True, hand: Path | None = None, splits: Path | None = None,
    resume: bool = False, stills: int = 0, report: Report = print,
) -> Path:
    """
    Make a data set, or complete or extend it.

    :param rounds: each adds about 6000 attempts, at all instructions; may be 0 with stills.
    :param tasks: only these instructions, by id or words; () for all.
    :param families: only these; () for all.
    :param arms: only these; () for all.
    :param count: so many instructions to train on, beside those that are held out; None for all.
    :param failures: False: successes only; a later run adds the failures.
    :param only: splits to make; () for all.
    :param hz: frames a second; None: 5.
    :param humans: False: robots only. What is there is not made again, so humans cannot be added
        to it.
    :param hand: glTF file of the hand; None: what HRALIGN_HAND_MODEL names.
    :param splits: split file; None for the shipped one of this world.
    :param resume: there may be episodes already; those that are missing are made.
    :param stills: about so many of these too: an attempt's two ends without its motion.
    :returns: the manifest file; beside it are instructions.json, with all paraphrases, and
        things.parquet.
    :raises DataError: no rounds and no stills, unknown instruction, family or arm, rate out of
        range, no hand model, nothing to make, or there are episodes that are not to be completed.
    """
    from hralign_ros.simulation.tabletop_arm import ARMS

    for what, given, known in (('family', families, FAMILIES), ('arm', arms, tuple(ARMS))):
        if unknown := set(given) - set(known):
            raise DataError(f'no {what} {", ".join(sorted(unknown))} on the table; known: '
                            f'{", ".join(known)}')
    if hz is not None and not LEAST_HZ <= hz <= MOST_HZ:
        raise DataError(f'hz is {hz:g}; allowed: {LEAST_HZ:g} to {MOST_HZ:g}')
    if rounds < 0 or stills < 0 or not rounds + stills:
        raise DataError(f'{rounds} rounds and {stills} stills are to be made; needed is one of '
                        'them above 0, and none below')
    rules = read_tabletop_splits(splits)
    chosen = find_instructions(tasks) if tasks else first_instructions(
        rules, len(instructions()) if count is None else count)
    chosen = tuple(i for i in chosen if not families or i.goal.family in families)
    mesh_file = find_hand(hand) if humans else None
    output = Path(output)
    make_folders(output, resume=resume)
    planned = (*plan_tabletop(
        chosen, rules, rounds, arms=arms or tuple(ARMS), failures=failures, humans=humans,
        hz=hz or 5.0), *plan_stills(
        chosen, rules, stills, arms=arms or tuple(ARMS), failures=failures))
    chunks = [chunk for chunk in (_part(chunk, rules, only) for chunk in planned) if chunk.jobs]
    if not chunks:
        raise DataError('nothing to make: no attempt at what is chosen is of the splits '
                        f'{", ".join(only) or "(all)"}')
    asked = {chunk.task_id for chunk in chunks}
    report(f'{len(asked)} instructions')
    make_all(output, chunks, mesh_file, workers, report)
    manifest = finish(output, rules, report)
    episodes = read_manifest(manifest, series=False).episodes
    write_instructions(output, episodes)
    for line in describe(episodes):
        report(line)
    return manifest


def write_instructions(output: Path, episodes: Iterable[Episode]) -> Path:
    """
    Write the words of instructions, as a list of what Instruction and Goal have.

    Those that stills tell of, by SO and NOT_SO, are there too, listed instructions or not.
    """
    tasks, said = set(), set()
    for episode in episodes:
        tasks.add(episode.task_id)
        said |= {tag.partition(':')[2] for tag in episode.tags if tag.startswith((SO, NOT_SO))}
    goals = {i.text: i.goal for i in instructions() if i.task_id in tasks}
    goals |= {text: goal for text, goal in goals_by_text().items() if text in said}
    rows = [{'task_id': slug(text), 'text': text, 'paraphrases': list(goal.texts[1:]),
             'family': goal.family, 'object': goal.it, 'relation': goal.relation,
             'place': goal.place} for text, goal in goals.items()]
    path = Path(output) / INSTRUCTIONS
    path.write_text(json.dumps(rows, indent=1), encoding='utf-8')
    return path


def describe(episodes: Sequence[Episode]) -> list[str]:
    """
    Say how well the expert does, by family and arm, and how failures came about.

    An expert that does not succeed is tried again from another start; what counts here is the
    first try.
    """
    def tag(episode: Episode, name: str) -> str:
        return next((t.partition(':')[2] for t in episode.tags if t.startswith(f'{name}:')), '')

    good = [e for e in episodes if e.success]
    lines = []
    for what, of in (('family', lambda e: tag(e, 'family')), ('arm', lambda e: e.embodiment)):
        total, first = Counter(map(of, good)), Counter(of(e) for e in good if tag(e, 'try') == '0')
        lines.append(f'successes at the first try, by {what}: ' + ', '.join(
            f'{name} {first[name]}/{total[name]}' for name in sorted(total)))
    kinds = Counter(e.failure for e in episodes if not e.success)
    lines.append('failures: ' + ', '.join(
        f'{kind} {count} ({100 * count / sum(kinds.values()):.0f} %)'
        for kind, count in kinds.most_common()))
    return lines


def _part(chunk: Chunk, splits: Splits, only: tuple[str, ...]) -> Chunk:
    """Leave of a chunk what falls into some splits."""
    return replace(chunk, jobs=tuple(job for job in chunk.jobs if not only or splits.of(
        task_id=chunk.task_id, scene=job.scene, embodiment=chunk.embodiment, seed=job.seed,
        episode_id='') in only))

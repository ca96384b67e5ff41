# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Make a data set of paired episodes: simulate, video, write; resumes where it was stopped.

An episode is finished when its JSON file in episodes/ is there; the manifest is put together
from those at the end of every run.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
import json
import os
from pathlib import Path
import time
from typing import Any, TYPE_CHECKING

from hralign_ros.data.manifest import DataError, Episode, write_manifest
from hralign_ros.data.processes import processes
from hralign_ros.data.splits import read_splits, Splits
from hralign_ros.data.things import FILE_NAME as THINGS
from hralign_ros.data.things import Places, write_things
from hralign_ros.runtime.report import Report
from hralign_ros.simulation.behaviour import EXPERT, IDLE, make_behaviour
from hralign_ros.simulation.contact_sheets import (
    write_family_sheets,
    write_lab_sheets,
    write_sheets,
)
from hralign_ros.simulation.plan import Chunk, Job, plan_chunks
from hralign_ros.simulation.worlds import Trajectory, World
import numpy as np

if TYPE_CHECKING:  # these need the simulator
    from hralign_ros.simulation.appearance import Appearance
    from hralign_ros.simulation.renderer import Renderer

EPISODES, VIDEOS = 'episodes', 'videos'
# What an episode's file has beside the manifest's row: where things are.
_PLACES = 'places'
_VIEWS = ('third_person', 'wrist')
# A simulator or a graphics driver that leaks is thrown away with its process. (The executor's own
# max_tasks_per_child hangs on Python 3.11.)
_CHUNKS_PER_PROCESS = 20
HAND_MODEL = 'HRALIGN_HAND_MODEL'
LEAST_HZ, MOST_HZ = 1.0, 60.0


def simulate(
    output: Path, *, rounds: int = 6, workers: int = 1, tasks: tuple[str, ...] = (),
    failures: bool = True, purpose: str = 'adaptation', only: tuple[str, ...] = (),
    hz: float | None = None, humans: bool = True, hand: Path | None = None,
    splits: Path | None = None, resume: bool = False, report: Report = print,
) -> Path:
    """
    Make a data set, or complete or extend it.

    :param rounds: each adds about 750 episodes over all tasks.
    :param tasks: only these; () for all.
    :param failures: False: successes only, which is what adaptation needs; a later run adds the
        failures.
    :param purpose: what for, see plan_chunks; both can be in one data set.
    :param only: splits to make; () for all.
    :param hz: frames a second; None: what the purpose needs. A data set has one rate: names do
        not tell it, and what is there is not made again.
    :param humans: False: robots only. What is there is not made again, so humans cannot be added
        to it.
    :param hand: glTF file of the hand; None: what HRALIGN_HAND_MODEL names.
    :param splits: split file; None for the shipped one.
    :param resume: there may be episodes already; those that are missing are made.
    :returns: the manifest file.
    :raises DataError: unknown task, rate out of range, no hand model, nothing could be made, or
        there are episodes that are not to be completed.
    """
    if hz is not None and not LEAST_HZ <= hz <= MOST_HZ:
        raise DataError(f'hz is {hz:g}; allowed: {LEAST_HZ:g} to {MOST_HZ:g}')
    mesh_file = find_hand(hand) if humans else None
    rules = read_splits(splits)
    worlds = list(_worlds())
    unknown = set(tasks) - {task for _, task, _ in worlds}
    if unknown:
        raise DataError(f'no task {", ".join(sorted(unknown))}; known: '
                        f'{", ".join(sorted({task for _, task, _ in worlds}))}')
    chosen = [world for world in worlds if not tasks or world[1] in tasks]
    output = Path(output)
    make_folders(output, resume=resume)
    chunks = [_part(chunk, rules, only) for chunk in plan_chunks(
        chosen, rules, rounds, failures=failures, purpose=purpose, hz=hz, humans=humans)]
    make_all(output, chunks, mesh_file, workers, report)
    return finish(output, rules, report)


def make_folders(output: Path, *, resume: bool) -> None:
    """
    Make the folders of a data set.

    :raises DataError: there are episodes, which are not to be completed.
    """
    if not resume and next((output / EPISODES).glob('*.json'), None):
        raise DataError(f'{output} holds episodes already; add --resume to complete or extend '
                        'them, or name another folder')
    for folder in (EPISODES, VIDEOS):
        (output / folder).mkdir(parents=True, exist_ok=True)


def make_all(
    output: Path, chunks: list[Chunk], mesh_file: Path | None, workers: int, report: Report,
) -> None:
    """Make what is missing of all chunks."""
    worlds = len({(chunk.task_id, chunk.embodiment) for chunk in chunks})
    total = sum(len(chunk.jobs) for chunk in chunks)
    open_chunks = [chunk for chunk in chunks if _missing(output, chunk)]
    done = total - sum(len(_missing(output, chunk)) for chunk in open_chunks)
    report(f'{output}: {total} episodes of {worlds} worlds, {done} are there')
    began, before = time.monotonic(), done
    each = _CHUNKS_PER_PROCESS * workers
    for start in range(0, len(open_chunks), each):
        for chunk, made, problems in _in_processes(
                output, open_chunks[start:start + each], mesh_file, workers):
            done += made
            rate = (done - before) / (time.monotonic() - began)
            left = (total - done) / max(rate, 1e-9)
            report(f'{done}/{total}  round {chunk.round_number} {chunk.task_id} '
                   f'({chunk.embodiment})  {60 * rate:.0f}/min, {left / 60:.0f} min left')
            for problem in problems:
                report(f'  left out: {problem}')


def _in_processes(
    output: Path, chunks: list[Chunk], hand: Path | None, workers: int,
) -> Iterator[tuple[Chunk, int, list[str]]]:
    """Make chunks in fresh processes; yield each with what came of it as it ends."""
    with processes(workers) as pool:
        futures = {pool.submit(make_chunk, output, chunk, hand): chunk
                   for chunk in chunks}
        try:
            for future in as_completed(futures):
                yield futures[future], *future.result()
        except BrokenProcessPool as error:
            raise DataError(
                f'{output}: a simulating process ended abruptly ({error}); what is finished is '
                'kept, run the same command again to resume') from error


def finish(output: Path, splits: Splits | None, report: Report = print) -> Path:
    """
    Write the manifest and the contact sheets of what is there.

    :param splits: None: the attempts of a lab, which belong to no split.
    """
    episodes, located = [], []
    for path in sorted((output / EPISODES).glob('*.json')):
        row = json.loads(path.read_text(encoding='utf-8'))
        if 'left_out' in row:
            continue
        places = row.pop(_PLACES, [])
        located.append((row['episode_id'], [
            Places(thing, view, np.array(at, np.float32)) for thing, view, at in places]))
        episode = Episode(**row)
        split = '' if splits is None else splits.of(
            task_id=episode.task_id, scene=episode.scene, embodiment=episode.embodiment,
            seed=episode.seed, episode_id=episode.episode_id)
        episodes.append(Episode(**{**row, 'split': split}))
    if not episodes:
        raise DataError(f'{output}: no episode could be made')
    manifest = write_manifest(output, episodes)
    unplaced = sum(not places for _, places in located)
    if unplaced < len(located):
        write_things(output, located)
        if unplaced:
            report(f'{unplaced} of {len(located)} episodes are older than {THINGS}, which has no '
                   'places for them; make these anew where they are needed')
    else:
        (output / THINGS).unlink(missing_ok=True)
    for line in _summary(episodes):
        report(line)
    families = any(tag.startswith('family:') for tag in episodes[0].tags)
    sheets = write_family_sheets if families else write_sheets if splits else write_lab_sheets
    for sheet in sheets(output, episodes):
        report(f'wrote {sheet}')
    return manifest


def make_chunk(output: Path, chunk: Chunk, hand: Path | None) -> tuple[int, list[str]]:
    """
    Make what is missing of a chunk; runs in a worker process.

    :param hand: None: no job of the chunk has a human.
    """
    from hralign_ros.simulation.hand import read_hand
    from hralign_ros.simulation.renderer import Renderer

    world = _open(chunk)
    problems = []
    renderer = Renderer(world.stage, read_hand(hand) if hand else None)
    jobs = _missing(output, chunk)
    try:
        for job in jobs:
            name = _name(chunk, job)
            try:
                row = _make_episode(output, world, renderer, job, name, hz=chunk.hz)
            except (OSError, DataError):  # a full disk, say: no fault of the episode's
                raise
            except Exception as error:  # one unlucky episode must not end a night's work
                row = {'left_out': f'{type(error).__name__}: {error}'}
            if 'left_out' in row:
                problems.append(f'{name}: {row["left_out"]}')
            scratch = output / EPISODES / f'.{name}.{os.getpid()}.tmp'
            scratch.write_text(json.dumps(row), encoding='utf-8')
            scratch.replace(_record(output, name))
    finally:
        renderer.close()
        world.close()
    return len(jobs), problems


def _make_episode(
    output: Path, world: Any, renderer: Any, job: Job, name: str, *, hz: float,
) -> dict[str, Any]:
    from hralign_ros.runtime.video import write_video
    from hralign_ros.simulation.appearance import (
        make_appearance,
        make_perturbation,
        PERTURBATIONS,
        re_render,
    )

    rng = np.random.default_rng([job.seed, 7])
    tags: tuple[str, ...] = ()
    points: Mapping[str, Any] = {}
    if job.wanted is not None:
        attempt = world.attempt(job.seed, job.wanted, hz=hz)
        if attempt is None:
            return {'left_out': f'no attempt with this seed ends in {job.kind}'}
        kind, trajectory, tags = attempt.kind, attempt.trajectory, attempt.tags
        points = attempt.points
        # Another take for the other outcome of this seed.
        rng = np.random.default_rng([job.seed, 7, job.wanted])
    else:
        kind = EXPERT if job.fault is None else world.faults[job.fault % len(world.faults)]
        if job.stream == IDLE:
            kind = IDLE
        trajectory = world.run(job.seed, make_behaviour(kind, rng), hz=hz)
        if trajectory is None:
            return {'left_out': 'the expert does not succeed with this seed'}
    appearance = make_appearance(job.scene)
    perturbation = make_perturbation(job.stream, len(trajectory.shots), rng) \
        if job.stream in PERTURBATIONS else None
    look = re_render(appearance, rng)
    videos = dict(zip(_VIEWS, renderer.record_robot(
        world.model, trajectory.shots, look, perturbation), strict=True))
    places = _located(renderer, world.model, trajectory, look, points)
    success = trajectory.success_frame is not None
    if success and job.human:
        videos['human'] = renderer.record_human(
            world.model, trajectory.shots, re_render(appearance, rng))
    step = trajectory.time_s[1] - trajectory.time_s[0]
    files = {}
    for view, frames in videos.items():
        files[view] = f'{VIDEOS}/{world.task.task_id}/{name}_{view}.mp4'
        write_video(output / files[view], frames, 1.0 / step, quality=24)
    return {**asdict(_episode(world, job, name, kind, trajectory, files, tags)),
            **({_PLACES: places} if places else {})}


def _located(
    renderer: 'Renderer', model: Any, trajectory: Trajectory, look: 'Appearance',
    points: Mapping[str, Any],
) -> list[tuple[str, str, list[list[float]]]]:
    """Return thing, view and where it is in each frame."""
    if not points:
        return []
    seen = renderer.locate(
        model, trajectory.shots, look, np.stack(list(points.values()), axis=1))
    return [(thing, view, np.round(at[:, number], 4).tolist())
            for view, at in zip(_VIEWS, seen, strict=True) for number, thing in enumerate(points)]


def _episode(
    world: World, job: Job, name: str, kind: str, trajectory: Trajectory, files: dict[str, str],
    more_tags: tuple[str, ...],
) -> Episode:
    first = trajectory.success_frame
    success = first is not None
    human = files.get('human', '')
    return Episode(
        episode_id=name, task_id=world.task.task_id, task_text=world.task.text,
        scene=job.scene, camera=job.scene, embodiment=world.embodiment, source=world.source,
        license_id=world.license_id, seed=job.seed, success=success,
        failure='' if success else kind,
        robot_videos={view: files[view] for view in _VIEWS},
        human_video=human, human_from=name if human else '',
        time_s=[round(t, 6) for t in trajectory.time_s],
        success_flags=list(trajectory.success), progress=trajectory.progress(),
        actions=[[float(x) for x in action] for action in trajectory.actions],
        proprio=[[float(x) for x in state] for state in trajectory.proprio],
        fault_s=trajectory.fault_s,
        success_s=None if first is None else round(trajectory.time_s[first], 6),
        tags=[f'behaviour:{kind}', *([f'stream:{job.stream}'] if job.stream else []),
              *(['distractor'] if job.scene.startswith('distractor') else []), *more_tags])


def _summary(episodes: list[Episode]) -> Iterator[str]:
    """Count what is there, split by split."""
    for split in sorted({e.split for e in episodes}):
        some = [e for e in episodes if e.split == split]
        good = sum(bool(e.success) for e in some)
        yield (f'  {split:16s} {len(some):5d} episodes, {good} successes, '
               f'{len({e.task_id for e in some})} tasks, {len({e.scene for e in some})} scenes')


def _part(chunk: Chunk, splits: Splits, only: tuple[str, ...]) -> Chunk:
    """Leave of a chunk what falls into some splits."""
    return replace(chunk, jobs=tuple(job for job in chunk.jobs if not only or splits.of(
        task_id=chunk.task_id, scene=job.scene, embodiment=chunk.embodiment, seed=job.seed,
        episode_id='') in only))


def _name(chunk: Chunk, job: Job) -> str:
    return f'{chunk.task_id}_{chunk.embodiment}_{job.scene}_{job.seed:05d}_{job.kind}'


def _record(output: Path, name: str) -> Path:
    return output / EPISODES / f'{name}.json'


def _missing(output: Path, chunk: Chunk) -> list[Job]:
    return [job for job in chunk.jobs if not _record(output, _name(chunk, job)).exists()]


def _worlds() -> Iterator[tuple[str, str, str]]:
    """List simulator, task and embodiment of everything that can be made."""
    from hralign_ros.simulation import metaworld_tasks, robosuite_tasks

    for task in metaworld_tasks.TASKS:
        yield 'metaworld', task.task_id, 'sawyer'
    for embodiment in robosuite_tasks.ROBOTS:
        for task in robosuite_tasks.TASKS:
            yield 'robosuite', task.task_id, embodiment


def _open(chunk: Chunk) -> Any:
    """Open a World, or what has attempts instead of runs."""
    from hralign_ros.simulation import metaworld_tasks, robosuite_tasks, tabletop_plan

    if chunk.simulator == 'lab':
        from hralign_ros.simulation import lab_world

        return lab_world.Lab(
            {task.task_id: task for task in lab_world.TASKS}[chunk.task_id], chunk.embodiment)
    if chunk.simulator in (tabletop_plan.WORLD, tabletop_plan.STILLS):
        from hralign_ros.simulation import tabletop_stills, tabletop_tasks, tabletop_world

        instruction, = tabletop_tasks.find_instructions((chunk.task_id,))
        kind = tabletop_world.Tabletop if chunk.simulator == tabletop_plan.WORLD \
            else tabletop_stills.Stills
        return kind(
            instruction, chunk.embodiment, chunk.round_number, chunk.avoid)
    if chunk.simulator == 'metaworld':
        named = {task.task_id: task for task in metaworld_tasks.TASKS}
        return metaworld_tasks.MetaWorld(named[chunk.task_id])
    named = {task.task_id: task for task in robosuite_tasks.TASKS}
    return robosuite_tasks.Robosuite(named[chunk.task_id], chunk.embodiment)


def find_hand(given: Path | None) -> Path:
    """Find the hand model."""
    path = given or (Path(os.environ[HAND_MODEL]) if os.environ.get(HAND_MODEL) else None)
    if path is None or not Path(path).is_file():
        raise DataError(
            f'no hand model{f" at {path}" if path else ""}: `make sim` fetches one (right.glb of '
            f"WebXR's generic hand), or name a file with --hand or {HAND_MODEL}")
    return Path(path).resolve()

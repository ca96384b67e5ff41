# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Which human clip goes with which robot clip.

Failures are never paired: neither a robot that failed, nor the paired human of one. All randomness
is a generator's, seeded by the caller; the order of the manifest's rows does not matter.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hralign_ros.data.manifest import DataError, DataSet, Episode, HUMAN, REFERENCE_VIEW
from hralign_ros.runtime.images import AS_IT_COMES, ViewGeometry
import numpy as np

HOW = ('recorded', 'same_motion', 'cross_seed', 'cross_scene', 'shuffled')


@dataclass(frozen=True)
class Clip:
    """
    A video, or a part of one, with what is known of it.

    :param file: relative to the data set's folder.
    :param span_s: first and last second to be used; empty: all of it.
    :param geometry: how its images are turned and cropped.
    """

    file: str
    view: str
    episode_id: str
    task_id: str
    task_text: str
    scene: str
    embodiment: str
    span_s: tuple[float, ...] = ()
    geometry: ViewGeometry = AS_IT_COMES

    @property
    def key(self) -> str:
        """Name what is seen: clips with one key show the same frames, others do not."""
        name = self.file
        if self.span_s:
            name += f'#t={self.span_s[0]:.3f},{self.span_s[1]:.3f}'
        if self.geometry != AS_IT_COMES:
            left, top, right, bottom = self.geometry.crop
            name += f'#turned={self.geometry.rotation},{left},{top},{right},{bottom}'
        return name


@dataclass(frozen=True)
class Pair:
    """A robot clip and a human clip; of the same task, but for the shuffled control."""

    human: Clip
    robot: Clip


def human_clip(episode: Episode) -> Clip:
    """Return the human clip of a row that has one."""
    return Clip(
        episode.human_video, REFERENCE_VIEW, episode.episode_id, episode.task_id,
        episode.task_text, episode.scene, HUMAN, tuple(episode.human_span_s),
        episode.geometry.get(HUMAN, AS_IT_COMES))


def robot_clip(episode: Episode, view: str) -> Clip:
    """Return one of the robot clips of a row."""
    return Clip(
        episode.robot_videos[view], view, episode.episode_id, episode.task_id,
        episode.task_text, episode.scene, episode.embodiment, episode.robot_span(view),
        episode.geometry.get(view, AS_IT_COMES))


def make_pairs(
    data: DataSet, how: str = 'recorded', *, views: Sequence[str] = (REFERENCE_VIEW,),
    seed: int = 0,
) -> list[Pair]:
    """
    Pair the robot clips of a data set with human clips.

    A robot episode gets one human clip, recorded from the reference view, for all of its views.
    Where `how` finds none, the episode is left out.

    :param how: 'recorded': the human clip in the robot's own row; 'same_motion': only where that
        shows the robot's own motion; 'cross_seed': of the same task and scene, but another
        motion, by the same camera where there is one; 'cross_scene': of the same task in another
        scene;
        'shuffled': the recorded clips dealt out so that no pair has the same task, a control.
    :param views: of the robot clips.
    :param seed: of what is random: cross_seed, cross_scene, shuffled.
    :returns: sorted by the robot's episode, and within one in the order of views.
    :raises DataError: another `how`, a view that no episode has, or shuffled with one task only.
    """
    if how not in HOW:
        raise DataError(f"pairs '{how}': needed is one of {', '.join(HOW)}")
    known = {view for episode in data.episodes for view in episode.robot_videos}
    if known and set(views) - known:
        splits = ', '.join(sorted({episode.split or '(none)' for episode in data.episodes}))
        raise DataError(f'{data.folder}: no episode of the split {splits} has the view '
                        f'{", ".join(sorted(set(views) - known))}; there are: '
                        f'{", ".join(sorted(known))} (--view)')
    episodes = sorted(data.episodes, key=lambda episode: episode.episode_id)
    failed = {episode.episode_id for episode in episodes if episode.success is False}
    humans = [e for e in episodes if e.human_video and e.human_from not in failed]
    robots = [e for e in episodes if e.robot_videos and e.success is not False]
    rng = np.random.default_rng(seed)
    if how in ('cross_seed', 'cross_scene'):
        matched = _crossed(robots, humans, how, rng)
    else:
        recorded = [e for e in robots if e.human_video and e.human_from not in failed]
        if how == 'same_motion':
            recorded = [e for e in recorded if e.human_from == e.episode_id]
        matched = [(e, e) for e in recorded]
        if how == 'shuffled':
            matched = _shuffled(recorded, rng)
    return [Pair(human_clip(human), robot_clip(robot, view))
            for robot, human in matched for view in views if view in robot.robot_videos]


def _crossed(
    robots: Iterable[Episode], humans: Iterable[Episode], how: str, rng: np.random.Generator,
) -> list[tuple[Episode, Episode]]:
    """Choose for each robot a human clip of its task that shows something else."""
    by_task: dict[str, list[Episode]] = defaultdict(list)
    seen = set()
    for human in humans:
        clip = human_clip(human).key
        # Rows may share a human clip; it is not to be chosen more often for that.
        if clip not in seen:
            seen.add(clip)
            by_task[human.task_id].append(human)
    matched = []
    for robot in robots:
        there = [h for h in by_task[robot.task_id]
                 if (h.scene == robot.scene) == (how == 'cross_seed')
                 and _motion(h) != robot.recording]
        if how == 'cross_seed':
            there = [h for h in there if h.camera == robot.camera] or there
        if there:
            matched.append((robot, there[int(rng.integers(len(there)))]))
    return matched


def _motion(human: Episode) -> str:
    """Name the motion that a human clip shows."""
    return human.human_from.split('#', 1)[0] or human.recording


def _shuffled(
    episodes: Sequence[Episode], rng: np.random.Generator,
) -> list[tuple[Episode, Episode]]:
    """
    Deal the human clips out at random, none to its own task.

    That is possible where no task has more than half of the episodes; what a task has beyond is
    left out.
    """
    tasks = np.unique([episode.task_id for episode in episodes], return_inverse=True)[1]
    if not len(episodes) or tasks.max() == 0:
        raise DataError('shuffled pairs need human clips of two tasks or more')
    sizes = np.bincount(tasks)
    largest = int(sizes.argmax())
    surplus = int(sizes[largest]) - (len(tasks) - int(sizes[largest]))
    if surplus > 0:
        dropped = rng.choice(np.flatnonzero(tasks == largest), surplus, replace=False)
        kept = np.setdiff1d(np.arange(len(tasks)), dropped)
        episodes, tasks = [episodes[i] for i in kept], tasks[kept]
    order = rng.permutation(len(tasks))
    for i in np.flatnonzero(tasks[order] == tasks):
        # An exchange with an earlier one may have fixed this already.
        if tasks[order[i]] == tasks[i]:
            free = np.flatnonzero((tasks[order] != tasks[i]) & (tasks != tasks[order[i]]))
            j = rng.choice(free)
            order[i], order[j] = order[j], order[i]
    return [(episode, episodes[order[i]]) for i, episode in enumerate(episodes)]

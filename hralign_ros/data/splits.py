# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which split an episode belongs to: one file for everything that is trained or measured."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from zlib import crc32

from hralign_ros.data.manifest import DataError, Episode, recording_of, slug
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.resources import find_share
import yaml

SCHEMA_VERSION = 1
SEED_MODULUS = 10
SPLITS = ('train', 'validation', 'calibration', 'test_seen', 'test_task', 'test_view',
          'test_embodiment', 'test_distractor', 'test_object', 'test_relation', 'test_instruction',
          'test_lab')
SCENE_KINDS = ('train', 'validation', 'test', 'view', 'distractor')
# Kinds of scene that no training episode may have, and the split of a known task in them.
_SCENE_SPLITS = {'view': 'test_view', 'distractor': 'test_distractor', 'test': 'test_seen',
                 'validation': 'validation'}
# What a small set is shared out to, each split with both kinds of attempts, and how much of it.
SHARES = {'train': 0.6, 'calibration': 0.25, 'test_seen': 0.15}
_KEYS = {'schema_version', 'test_embodiments', 'test_tasks', 'validation_tasks', 'scenes',
         'seeds'}
_OPTIONAL = {'held_out'}


@dataclass(frozen=True)
class HeldOut:
    """
    What belongs to a split of its own: episodes of which one pattern fits.

    :param tasks: patterns of task ids, with * and ?.
    :param scenes: patterns of scenes.
    """

    tasks: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()

    def fits(self, task: str, scene: str) -> bool:
        """Tell whether an episode belongs to it."""
        return any(fnmatchcase(task, pattern) for pattern in self.tasks) or any(
            fnmatchcase(scene, pattern) for pattern in self.scenes)


@dataclass(frozen=True)
class Splits:
    """
    The rules of a split file.

    :param test_tasks: by `slug`, so that they may be written as instructions are.
    :param validation_tasks: likewise.
    :param scenes: how many scenes of each kind simulation makes.
    :param calibration_seeds: modulo SEED_MODULUS.
    :param test_seeds: modulo SEED_MODULUS.
    :param held_out: by split, what else is held back.
    """

    test_embodiments: frozenset[str]
    test_tasks: frozenset[str]
    validation_tasks: frozenset[str]
    scenes: Mapping[str, int]
    calibration_seeds: frozenset[int]
    test_seeds: frozenset[int]
    held_out: Mapping[str, HeldOut] = field(default_factory=dict)

    def of_task(self, task_id: str) -> str:
        """Return the split of all episodes of a task with usual robots; '' for none."""
        task = slug(task_id)
        for split, rule in self.held_out.items():
            if rule.fits(task, ''):
                return split
        return 'test_task' if task in self.test_tasks else \
            'validation' if task in self.validation_tasks else ''

    def of(
        self, *, task_id: str, scene: str, embodiment: str, seed: int | None, episode_id: str,
        session: str = '',
    ) -> str:
        """Return the split of an episode; the first rule that fits decides."""
        if embodiment in self.test_embodiments:
            return 'test_embodiment'
        for split, rule in self.held_out.items():
            if rule.fits(slug(task_id), scene):
                return split
        if slug(task_id) in self.test_tasks:
            return 'test_task'
        if slug(task_id) in self.validation_tasks:
            return 'validation'
        kind, _, place = scene.rpartition('-')
        if kind in _SCENE_SPLITS and place.isdigit():
            return _SCENE_SPLITS[kind]
        # All cameras of a recording, and all takes of a session, fall into one split.
        number = (crc32((session or recording_of(episode_id)).encode()) if seed is None else seed
                  ) % SEED_MODULUS
        if number in self.calibration_seeds:
            return 'calibration'
        return 'test_seen' if number in self.test_seeds else 'train'


def read_splits(path: Path | None = None) -> Splits:
    """
    Read a split file.

    :param path: None: the one that the package ships in config/.
    :raises DataError: it cannot be read, or holds something else.
    """
    try:
        path = Path(path or find_share('config/splits.yaml'))
        values: Any = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f'split file {path or "of the package"}: {error}; or name another'
                        ) from error
    if not isinstance(values, dict) or set(values) - _OPTIONAL != _KEYS:
        raise DataError(f'split file {path}: needed are exactly the keys '
                        f'{", ".join(sorted(_KEYS))}, and allowed is held_out')
    if values['schema_version'] != SCHEMA_VERSION:
        raise DataError(f'split file {path}: schema {values["schema_version"]}, and this package '
                        f'reads {SCHEMA_VERSION}')
    try:
        scenes = {str(kind): int(count) for kind, count in values['scenes'].items()}
        seeds = {str(split): frozenset(map(int, chosen))
                 for split, chosen in values['seeds'].items()}
        embodiments = frozenset(map(str, values['test_embodiments']))
        tests, validations = (frozenset(slug(str(name)) for name in values[key]) for key in (
            'test_tasks', 'validation_tasks'))
        splits = Splits(
            embodiments, tests, validations, scenes, seeds['calibration'], seeds['test_seen'],
            {str(split): HeldOut(**{str(key): tuple(map(str, patterns))
                                    for key, patterns in rule.items()})
             for split, rule in values.get('held_out', {}).items()})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f'split file {path}: {type(error).__name__} {error}') from error
    if set(splits.held_out) - set(SPLITS):
        raise DataError(f'split file {path}: held_out has '
                        f'{", ".join(sorted(set(splits.held_out) - set(SPLITS)))}; allowed are '
                        f'{", ".join(SPLITS)}')
    unknown = set(scenes) - set(SCENE_KINDS)
    both = splits.test_tasks & splits.validation_tasks
    if unknown or both or splits.calibration_seeds & splits.test_seeds:
        raise DataError(
            f'split file {path}: a task or a seed is in two splits, or a scene kind is none of '
            f'{", ".join(SCENE_KINDS)}: {sorted(both | unknown)}')
    return splits


def share_out(
    rules: Splits, episodes: Sequence[Episode], *, before: Mapping[str, str], balance: bool,
    report: Report,
) -> list[Episode]:
    """
    Give each episode its split; takes of one session never stand in two.

    A split that an episode already has stays, and is that of its session. Otherwise the rules
    decide. Where they hold nothing of a task back by name or scene, and leave one of SHARES
    without a success or without a failure of the task, its attempts are shared out instead, and
    stay where they are when more are added.

    :param before: splits of an earlier import, by episode.
    :param balance: whether small tasks are shared out.
    :param report: gets what is missing.
    :raises DataError: the episodes of one session were given two splits.
    """
    given: dict[str, str] = {}
    for episode in episodes:
        if episode.split and given.setdefault(_unit(episode), episode.split) != episode.split:
            raise DataError(
                f"session '{_unit(episode)}' is given the splits {given[_unit(episode)]} and "
                f'{episode.split}; its takes are alike, so they must have the same')
    chosen = {e.episode_id: given.get(_unit(e)) or rules.of(
        task_id=e.task_id, scene=e.scene, embodiment=e.embodiment, seed=e.seed,
        episode_id=e.episode_id, session=e.session) for e in episodes}
    if balance:
        tasks: dict[str, list[Episode]] = defaultdict(list)
        for episode in sorted(episodes, key=lambda e: e.episode_id):
            tasks[episode.task_id].append(episode)
        small = [some for some in tasks.values() if _is_small(some, chosen, before)]
        # Where its session stands already, whichever task it was for.
        stands = {_unit(e): split for some in small for e in some
                  if (split := given.get(_unit(e)) or before.get(e.episode_id, '')) in SHARES}
        for some in small:
            _balance(some, stands)
            chosen |= {e.episode_id: stands.get(_unit(e), chosen[e.episode_id]) for e in some}
        for name, some in tasks.items():
            _report_missing(name, some, chosen, report)
    return _one_split_a_session(
        [replace(e, split=chosen[e.episode_id]) for e in episodes], report)


def _unit(episode: Episode) -> str:
    return episode.session or episode.recording


def _is_small(
    episodes: Sequence[Episode], chosen: Mapping[str, str], before: Mapping[str, str],
) -> bool:
    """Tell whether a task's attempts are to be shared out, or were before."""
    if {chosen[e.episode_id] for e in episodes} - set(SHARES):
        return False
    counts = Counter((chosen[e.episode_id], e.success) for e in episodes)
    return any(not counts[split, kind] for split in SHARES for kind in (True, False)) or any(
        before.get(e.episode_id, chosen[e.episode_id]) != chosen[e.episode_id] for e in episodes)


def _balance(episodes: Iterable[Episode], stands: dict[str, str]) -> None:
    """Share the sessions of a task out, one of each kind for each split first; fill `stands`."""
    kinds: dict[str, set[bool]] = defaultdict(set)
    for episode in episodes:
        if episode.success is not None:
            kinds[_unit(episode)].add(episode.success)
    have = Counter((stands[unit], kind) for unit in kinds if unit in stands
                   for kind in kinds[unit])

    def wants(split: str, unit: str) -> tuple[int, float]:
        mine = kinds[unit]
        return sum(not have[split, kind] for kind in mine), sum(
            SHARES[split] * (1 + sum(have[one, kind] for one in SHARES)) - have[split, kind]
            for kind in mine)

    for unit in kinds:
        if unit not in stands:
            stands[unit] = max(SHARES, key=lambda split: wants(split, unit))  # noqa: B023
            have.update((stands[unit], kind) for kind in kinds[unit])


def _report_missing(
    task: str, episodes: Iterable[Episode], chosen: Mapping[str, str], report: Report,
) -> None:
    """Say which kinds of attempts a task lacks, before anything is computed of it."""
    labelled = [e for e in episodes if e.success is not None and chosen[e.episode_id] in SHARES]
    counts = Counter((chosen[e.episode_id], e.success) for e in labelled)
    words = {True: 'success', False: 'failure'}
    missing = [f'{split} has no {words[kind]}' for split in SHARES for kind in words
               if not counts[split, kind]]
    if labelled and missing:
        succeeded = sum(bool(e.success) for e in labelled)
        report(f'task {task}: {succeeded} succeeded, {len(labelled) - succeeded} failed; '
               f'{", ".join(missing)}: label more attempts (three sessions of each kind at least)')


def _one_split_a_session(episodes: Sequence[Episode], report: Report) -> list[Episode]:
    """Leave out what the rules put elsewhere than a held-out part of its session."""
    splits: dict[str, set[str]] = defaultdict(set)
    for episode in episodes:
        if episode.session:
            splits[episode.session].add(episode.split)
    # What is held back by name or scene comes first, what trains last.
    first = [*(split for split in SPLITS if split not in SHARES), *reversed(SHARES), '']
    kept = {session: min(of, key=first.index) for session, of in splits.items() if len(of) > 1}
    out = [e for e in episodes if e.split != kept.get(e.session, e.split)]
    if out:
        report(f'{len(out)} episodes are in no split, because their session is held back as '
               f'{", ".join(sorted({kept[e.session] for e in out}))}: {out[0].episode_id}, ...')
    return [replace(e, split='') if e.split != kept.get(e.session, e.split) else e
            for e in episodes]

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which split an episode belongs to: one file for everything that is trained or measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from hralign_ros.data.manifest import DataError, recording_of, slug
from hralign_ros.runtime.resources import find_share
import yaml

SCHEMA_VERSION = 1
SEED_MODULUS = 10
SPLITS = ('train', 'validation', 'calibration', 'test_seen', 'test_task', 'test_view',
          'test_embodiment', 'test_distractor')
SCENE_KINDS = ('train', 'validation', 'test', 'view', 'distractor')
# Kinds of scene that no training episode may have, and the split of a known task in them.
_SCENE_SPLITS = {'view': 'test_view', 'distractor': 'test_distractor', 'test': 'test_seen',
                 'validation': 'validation'}
_KEYS = {'schema_version', 'test_embodiments', 'test_tasks', 'validation_tasks', 'scenes',
         'seeds'}


@dataclass(frozen=True)
class Splits:
    """
    The rules of a split file.

    :param test_tasks: by `slug`, so that they may be written as instructions are.
    :param validation_tasks: likewise.
    :param scenes: how many scenes of each kind simulation makes.
    :param calibration_seeds: modulo SEED_MODULUS.
    :param test_seeds: modulo SEED_MODULUS.
    """

    test_embodiments: frozenset[str]
    test_tasks: frozenset[str]
    validation_tasks: frozenset[str]
    scenes: Mapping[str, int]
    calibration_seeds: frozenset[int]
    test_seeds: frozenset[int]

    def of(
        self, *, task_id: str, scene: str, embodiment: str, seed: int | None, episode_id: str,
    ) -> str:
        """Return the split of an episode; the first rule that fits decides."""
        if embodiment in self.test_embodiments:
            return 'test_embodiment'
        if slug(task_id) in self.test_tasks:
            return 'test_task'
        if slug(task_id) in self.validation_tasks:
            return 'validation'
        kind, _, place = scene.rpartition('-')
        if kind in _SCENE_SPLITS and place.isdigit():
            return _SCENE_SPLITS[kind]
        # All cameras of a recording fall into one split.
        number = (crc32(recording_of(episode_id).encode()) if seed is None else seed
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
    if not isinstance(values, dict) or set(values) != _KEYS:
        raise DataError(f'split file {path}: needed are exactly the keys '
                        f'{", ".join(sorted(_KEYS))}')
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
            embodiments, tests, validations, scenes, seeds['calibration'], seeds['test_seen'])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f'split file {path}: {type(error).__name__} {error}') from error
    unknown = set(scenes) - set(SCENE_KINDS)
    both = splits.test_tasks & splits.validation_tasks
    if unknown or both or splits.calibration_seeds & splits.test_seeds:
        raise DataError(
            f'split file {path}: a task or a seed is in two splits, or a scene kind is none of '
            f'{", ".join(SCENE_KINDS)}: {sorted(both | unknown)}')
    return splits

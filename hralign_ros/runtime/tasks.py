# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The tasks a bundle knows: names, aliases, failure prompts, calibration and thresholds.

Read from tasks.yaml and tasks.safetensors, the two small files that adding a task rewrites.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
import math
from typing import Any
import unicodedata

from hralign_ros.runtime.bundle import Bundle, TASK_TENSORS, TASKS
from hralign_ros.runtime.errors import BundleError, TaskError
from hralign_ros.runtime.providers import import_package
import numpy as np
from numpy.typing import NDArray
import yaml

MAX_TASK_CHARACTERS = 512
SHARED = 'shared'


def check_task(text: str) -> str:
    """
    Check an instruction and strip the white space around it.

    :returns: the instruction; empty means that none is set.
    :raises TaskError: too long, or it holds control characters.
    """
    if len(text) > MAX_TASK_CHARACTERS:
        raise TaskError(
            f'the task has {len(text)} characters; at most {MAX_TASK_CHARACTERS} are allowed. '
            'It is not cut: say it shorter')
    text = text.strip()
    if any(unicodedata.category(c) in ('Cc', 'Cs') and c not in '\t\n\r' for c in text):
        raise TaskError('the task holds control characters; send plain text')
    return text


def normalise_task(text: str) -> str:
    """Bring an instruction to the form in which names and aliases are compared."""
    text = unicodedata.normalize('NFKC', text).casefold()
    return ' '.join(text.split()).rstrip('.!').rstrip()


@dataclass(frozen=True)
class Calibration:
    """
    From the head's raw score to a probability: p = 1 / (1 + exp(-(scale * score + shift))).

    :param thresholds: false-alarm rate alpha -> probability above which SUCCESS may be decided.
    """

    scale: float
    shift: float
    thresholds: Mapping[float, float] = field(default_factory=dict)

    def apply(self, score: float) -> float:
        """Map a raw score to a probability in [0, 1]."""
        return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, self.scale * score + self.shift))))


@dataclass(frozen=True)
class Task:
    """
    One task of the bundle, or the shared one that stands in for tasks never seen.

    :param prompts: failure prompts, float32 [K, L, D].
    :param mode_mask: which of the K prompts are in use, float32 [K] of 0 and 1.
    :param mode_names: a name for each prompt in use, in order.
    :param calibration: None: its probability is not calibrated.
    """

    task_id: str
    name: str
    aliases: tuple[str, ...]
    prompts: NDArray[np.float32]
    mode_mask: NDArray[np.float32]
    mode_names: tuple[str, ...]
    calibration: Calibration | None


class TaskTable:
    """
    All tasks of a bundle.

    :param tasks: the tasks in the order of the file.
    :param shared: stands in for tasks that are not among them.
    """

    def __init__(self, tasks: tuple[Task, ...], shared: Task) -> None:
        self.tasks = tasks
        self.shared = shared
        self._by_text: dict[str, Task] = {}
        for task in tasks:
            for text in (task.name, task.task_id, *task.aliases):
                other = self._by_text.setdefault(normalise_task(text), task)
                if other is not task:
                    raise BundleError(
                        f"{TASKS}: '{text}' names both {other.task_id} and {task.task_id}")

    def match(self, text: str) -> Task | None:
        """Find the task that an instruction names, by normalised name, id or alias."""
        return self._by_text.get(normalise_task(text))

    @property
    def alphas(self) -> tuple[float, ...]:
        """False-alarm rates with a calibrated threshold, ascending."""
        found = {alpha for task in (*self.tasks, self.shared) if task.calibration
                 for alpha in task.calibration.thresholds}
        return tuple(sorted(found))


def load_tasks(bundle: Bundle) -> TaskTable:
    """
    Read the tasks of a bundle.

    :raises BundleError: the two files do not fit each other or the manifest.
    """
    safetensors = import_package('safetensors.numpy')
    try:
        document = yaml.safe_load(bundle.read(TASKS))
        tensors = safetensors.load(bundle.read(TASK_TENSORS))
    except BundleError:
        raise
    except Exception as error:  # safetensors and yaml share no base class
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BundleError(f'{bundle.path}: {TASKS} or {TASK_TENSORS}: {reason}') from error
    if not isinstance(document, dict) or not isinstance(document.get('tasks'), list):
        raise BundleError(f'{bundle.path / TASKS}: a mapping with a list of tasks is needed')
    try:
        shared = {**document.get(SHARED, {}), 'id': SHARED, 'name': SHARED}
        entries = [*document['tasks'], shared]
        tasks = [_task(entry, tensors, bundle) for entry in entries]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f'{bundle.path / TASKS}: {type(error).__name__}: {error}; '
            'the file does not keep its form') from error
    return TaskTable(tuple(tasks[:-1]), tasks[-1])


def _task(entry: Mapping[str, Any], tensors: Mapping[str, Any], bundle: Bundle) -> Task:
    """Build one task from its YAML entry and its tensor."""
    manifest = bundle.manifest
    task_id = str(entry['id'])
    prompts = tensors.get(f'prompts/{task_id}')
    shape = (manifest.modes, manifest.prompt_length, manifest.text_dim)
    if prompts is None or prompts.shape != shape or prompts.dtype != np.float32:
        came = 'missing' if prompts is None else f'{prompts.dtype} {list(prompts.shape)}'
        raise BundleError(
            f'{bundle.path / TASK_TENSORS}: prompts/{task_id} is {came}; needed is float32 '
            f'{list(shape)} [modes, prompt length, text dim]')
    if not np.isfinite(prompts).all():
        raise BundleError(
            f'{bundle.path / TASK_TENSORS}: prompts/{task_id} holds values that are not finite')
    name = str(entry['name'])
    aliases, modes = _texts(entry, 'aliases'), _texts(entry, 'modes')
    for text in (name, *aliases):
        if not 1 <= len(text) <= MAX_TASK_CHARACTERS:
            raise ValueError(
                f'task {task_id}: a name or alias has {len(text)} characters; needed are 1 to '
                f'{MAX_TASK_CHARACTERS}')
    if len(modes) > manifest.modes:
        raise BundleError(
            f'{bundle.path / TASKS}: task {task_id} names {len(modes)} modes; '
            f'the bundle has {manifest.modes}')
    mask = np.zeros(manifest.modes, np.float32)
    mask[:len(modes)] = 1.0
    calibration = None
    if entry.get('calibration') is not None:
        given = entry['calibration']
        if given['method'] not in ('temperature', 'platt'):
            raise BundleError(
                f'{bundle.path / TASKS}: task {task_id}: calibration method is '
                f"'{given['method']}'; allowed: temperature, platt")
        calibration = Calibration(
            scale=_number(given['scale'], 'scale'), shift=_number(given['shift'], 'shift'),
            thresholds={_number(t['alpha'], 'alpha', 1e-6, 1 - 1e-6):
                        _number(t['probability'], 'probability', 0.0, 1.0)
                        for t in given.get('thresholds', [])})
    return Task(
        task_id=task_id, name=name, aliases=aliases, prompts=prompts, mode_mask=mask,
        mode_names=modes, calibration=calibration)


def _texts(entry: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Read a list of texts; a single text is not taken for the list of its letters."""
    values = entry.get(key, [])
    if not isinstance(values, list):
        raise ValueError(f'{key} is {type(values).__name__}; needed is a list of texts')
    return tuple(str(value) for value in values)


def _number(
    value: Any, name: str, low: float = -math.inf, high: float = math.inf,
) -> float:
    """Read a finite number within limits."""
    number = float(value)
    if not math.isfinite(number) or not low <= number <= high:
        raise ValueError(f'{name} is {number}; needed is a number from {low:g} to {high:g}')
    return number

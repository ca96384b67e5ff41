# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The tasks a bundle knows: names, aliases, failure prompts, calibration and thresholds.

Read from tasks.yaml and tasks.safetensors, the two small files that adding a task rewrites.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
import math
from typing import Any
import unicodedata

from hralign_ros.runtime.bundle import Bundle, in_brief, TASK_TENSORS, TASKS
from hralign_ros.runtime.errors import BundleError, import_package, TaskError
from hralign_ros.runtime.files import load_yaml
import numpy as np
from numpy.typing import NDArray

MAX_TASK_CHARACTERS = 512
# The header of tasks.safetensors: about 100 bytes for each task.
MAX_HEADER_BYTES = 1 << 20
# The fallback task in tasks.yaml and tasks.safetensors.
FALLBACK = 'shared'
METHODS = ('temperature', 'platt', 'beta', 'isotonic')


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


def probability_of(
    method: str, parameters: Mapping[str, Any], scores: NDArray[np.floating],
) -> NDArray[np.float64]:
    """
    Map raw scores to probabilities in [0, 1].

    :param method: temperature or platt: sigmoid(scale * score + shift). beta: the same of
        a ln p - b ln(1 - p) + c, p being sigmoid(score). isotonic: linear between the points
        (scores, probabilities), flat beyond its ends.
    """
    scores = np.asarray(scores, np.float64)
    if method == 'isotonic':
        return np.interp(scores, parameters['scores'], parameters['probabilities'])
    if method == 'beta':
        odds = -parameters['a'] * np.logaddexp(0.0, -scores) \
            + parameters['b'] * np.logaddexp(0.0, scores) + parameters['c']
    else:
        odds = parameters['scale'] * scores + parameters['shift']
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(odds, -60.0, 60.0))))


@dataclass(frozen=True)
class Calibration:
    """
    From the head's raw score to a probability, for one set of views.

    :param method: one of METHODS.
    :param parameters: of the method, see `probability_of`.
    :param thresholds: false-alarm rate alpha -> probability above which SUCCESS may be decided.
    :param failed: attempts that never succeeded, among those behind the thresholds; 0: not said.
    :param succeeded: attempts that succeeded, likewise.
    :param pooled: these are attempts of all tasks together.
    """

    method: str
    parameters: Mapping[str, Any]
    thresholds: Mapping[float, float] = field(default_factory=dict)
    failed: int = 0
    succeeded: int = 0
    pooled: bool = False

    def threshold(self, alpha: float) -> float | None:
        """Look up the threshold of a false-alarm rate; None: there is none for it."""
        return next((value for rate, value in self.thresholds.items() if same_rate(rate, alpha)),
                    None)

    def apply(self, score: float) -> float:
        """Map a raw score to a probability in [0, 1]."""
        return float(probability_of(self.method, self.parameters, np.array(score)))


def same_rate(one: float, other: float) -> bool:
    """Whether two false-alarm rates are the same one; messages have them in single precision."""
    return math.isclose(one, other, rel_tol=1e-6)


def broken_guarantee(
    alpha: float, dwell_s: float, calibrated: Sequence[float], calibrated_dwell_s: float,
) -> str:
    """
    Say why decisions would not keep the rate of false alarms that is asked for.

    :param alpha: the rate.
    :param dwell_s: how long the probability will have to stay above the threshold.
    :param calibrated: rates that a bundle has thresholds for; none: it decides nothing.
    :param calibrated_dwell_s: what the thresholds were calibrated for.
    :returns: '' where they would.
    """
    if not calibrated:
        return ''
    if not any(same_rate(alpha, one) for one in calibrated):
        return (f'parameter alpha is {alpha:g}; the bundle has calibrated thresholds for '
                f'{", ".join(f"{one:g}" for one in calibrated)}')
    if dwell_s < calibrated_dwell_s - 1e-6:
        return (f'parameter dwell_s is {dwell_s:g}; the thresholds of the bundle were calibrated '
                f'for {calibrated_dwell_s:g} s, and guarantee no rate of false alarms for less')
    return ''


@dataclass(frozen=True)
class Task:
    """
    One task of the bundle, or its fallback task, which is used for tasks that it does not know.

    :param prompts: failure prompts, float32 [K, L, D].
    :param mode_mask: which of the K prompts are in use, float32 [K] of 0 and 1.
    :param mode_names: a name for each prompt in use, in order.
    :param calibrations: by the set of views that are there; with other views the probability is
        not calibrated.
    """

    task_id: str
    name: str
    aliases: tuple[str, ...]
    prompts: NDArray[np.float32]
    mode_mask: NDArray[np.float32]
    mode_names: tuple[str, ...]
    calibrations: Mapping[frozenset[str], Calibration]

    def threshold(self, views: Iterable[str], alpha: float) -> float | None:
        """Look up what SUCCESS needs while these views are there; None: nothing is decided."""
        calibration = self.calibrations.get(frozenset(views))
        return None if calibration is None else calibration.threshold(alpha)

    def verdict(self, views: Iterable[str]) -> str:
        """Say in a sentence what is decided while these views are there."""
        calibration = self.calibrations.get(frozenset(views))
        if calibration is None:
            return 'Not calibrated: every decision is ABSTAIN.'
        behind = ''
        if calibration.failed or calibration.succeeded:
            behind = (f', from {calibration.failed} failed and {calibration.succeeded} successful '
                      f'attempts{" of all tasks" if calibration.pooled else ""}')
        if not calibration.thresholds:
            return f'No threshold is calibrated{behind}: every decision is ABSTAIN.'
        rates = ', '.join(f'{alpha:g}' for alpha in sorted(calibration.thresholds))
        return f'SUCCESS can be decided at false-alarm rates of {rates}{behind}.'


class TaskTable:
    """
    All tasks of a bundle.

    :param tasks: the tasks in the order of the file.
    :param fallback: used for tasks that are not among them.
    """

    def __init__(self, tasks: tuple[Task, ...], fallback: Task) -> None:
        self.tasks = tasks
        self.fallback = fallback
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
        found = {alpha for task in (*self.tasks, self.fallback)
                 for calibration in task.calibrations.values()
                 for alpha in calibration.thresholds}
        return tuple(sorted(found))


def load_tasks(bundle: Bundle) -> TaskTable:
    """
    Read the tasks of a bundle.

    :raises BundleError: the two files do not fit each other or the manifest.
    """
    safetensors = import_package('safetensors.numpy', BundleError)
    try:
        document = load_yaml(bundle.read(TASKS))
        tensors = safetensors.load(_check_header(bundle.read(TASK_TENSORS)))
    except BundleError:
        raise
    except Exception as error:  # safetensors and yaml share no base class
        reason = (str(error) or type(error).__name__).splitlines()[0][:300]
        raise BundleError(f'{bundle.path}: {TASKS} or {TASK_TENSORS}: {reason}') from error
    if not isinstance(document, dict) or not isinstance(document.get('tasks'), list):
        raise BundleError(f'{bundle.path / TASKS}: a mapping with a list of tasks is needed')
    try:
        fallback = {**document.get(FALLBACK, {}), 'id': FALLBACK, 'name': FALLBACK}
        entries = [*document['tasks'], fallback]
        tasks = [_task(entry, tensors, bundle) for entry in entries]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BundleError(
            f'{bundle.path / TASKS}: {type(error).__name__}: {str(error)[:300]}; '
            'the file does not keep its form') from error
    return TaskTable(tuple(tasks[:-1]), tasks[-1])


def _check_header(data: bytes) -> bytes:
    """
    Check how long the header of a safetensors file says that it is.

    :raises ValueError: longer than the file, or than any header of tasks.
    """
    length = int.from_bytes(data[:8], 'little')
    if length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise ValueError(
            f'{TASK_TENSORS}: a header of {length} bytes is announced in a file of {len(data)}; '
            f'allowed are {MAX_HEADER_BYTES}. Export the bundle again')
    return data


def _task(entry: Mapping[str, Any], tensors: Mapping[str, Any], bundle: Bundle) -> Task:
    """Build one task from its YAML entry and its tensor."""
    manifest = bundle.manifest
    task_id = _text(entry['id'], 'id')
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
    name = _text(entry['name'], 'name')
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
    given = entry.get('calibration')
    given = [] if given is None else given
    if not isinstance(given, list):
        raise ValueError('calibration is no list; needed is one entry for each set of views')
    calibrations = {}
    for one in given:
        views = frozenset(_texts(one, 'views'))
        if not views or views - set(manifest.views):
            raise BundleError(
                f'{bundle.path / TASKS}: task {task_id}: a calibration is for the views '
                f'{", ".join(sorted(views)) or "none"}; the bundle has '
                f'{", ".join(manifest.views)}; calibrate again for those')
        calibrations[views] = _calibration(one, bundle, task_id)
    return Task(
        task_id=task_id, name=name, aliases=aliases, prompts=prompts, mode_mask=mask,
        mode_names=modes, calibrations=calibrations)


def _calibration(given: Mapping[str, Any], bundle: Bundle, task_id: str) -> Calibration:
    """Read one calibration; every number in it is checked."""
    method = given['method']
    if method not in METHODS:
        raise BundleError(
            f'{bundle.path / TASKS}: task {task_id}: calibration method is '
            f'{in_brief(method)}; allowed: {", ".join(METHODS)}')
    if method == 'isotonic':
        parameters: dict[str, Any] = {
            'scores': [_number(x, 'a score') for x in given['scores']],
            'probabilities': [_number(x, 'a probability', 0.0, 1.0)
                              for x in given['probabilities']]}
        for name, values in parameters.items():
            if not values or sorted(values) != values:
                raise ValueError(f'{name} are empty, or do not ascend')
        if len(parameters['scores']) != len(parameters['probabilities']):
            raise ValueError('scores and probabilities differ in number')
    else:
        names = ('a', 'b', 'c') if method == 'beta' else ('scale', 'shift')
        parameters = {name: _number(given[name], name) for name in names}
        if any(parameters[name] < 0 for name in names[:-1]):
            raise ValueError(f'{", ".join(names[:-1])}: needed is 0 or more, so that a higher '
                             'score never is a lower probability')
    return Calibration(
        method, parameters, {
            _number(t['alpha'], 'alpha', 1e-6, 1 - 1e-6):
            _number(t['probability'], 'probability', 0.0, 1.0)
            for t in given.get('thresholds', [])},
        failed=int(_number(given.get('never_succeeding', 0), 'never_succeeding', 0, 2**31)),
        succeeded=int(_number(given.get('succeeding', 0), 'succeeding', 0, 2**31)),
        pooled=given.get('thresholds_from') == 'all tasks')


def _texts(entry: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Read a list of texts; a single text is not taken for the list of its letters."""
    values = entry.get(key, [])
    if not isinstance(values, list):
        raise ValueError(f'{key} is {type(values).__name__}; needed is a list of texts')
    return tuple(_text(value, key) for value in values)


def _text(value: Any, what: str) -> str:
    """Read a text; what is nested is none, and would multiply by YAML's aliases when printed."""
    if not isinstance(value, (str, int, float)):
        raise ValueError(f'{what} holds a {type(value).__name__}; needed is a text')
    text = str(value)
    # Refuses halves of characters, which YAML can spell and no message can carry.
    text.encode()
    return text


def _number(
    value: Any, name: str, low: float = -math.inf, high: float = math.inf,
) -> float:
    """Read a finite number within limits."""
    number = float(value)
    if not math.isfinite(number) or not low <= number <= high:
        raise ValueError(f'{name} is {number}; needed is a number from {low:g} to {high:g}')
    return number

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The tasks a bundle knows: names, aliases, failure prompts, calibration and thresholds.

Read from tasks.yaml and tasks.safetensors, the two small files that adding a task rewrites.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
import math
from typing import Annotated, Any, get_args, Literal
import unicodedata

from hralign_ros.runtime.bundle import Bundle, TASK_TENSORS, TASKS
from hralign_ros.runtime.decision import DEFAULT_RULES, USUAL_FAILURE_THRESHOLD
from hralign_ros.runtime.errors import BundleError, import_package, TaskError
from hralign_ros.runtime.files import load_yaml
from hralign_ros.runtime.schema import Limits, NOT_STORED, parse, Text
import numpy as np
from numpy.typing import NDArray

MAX_TASK_CHARACTERS = 512
# The header of tasks.safetensors: about 100 bytes for each task.
MAX_HEADER_BYTES = 1 << 20
# The fallback task in tasks.yaml and tasks.safetensors.
FALLBACK = 'fallback'
Method = Literal['temperature', 'platt', 'beta', 'isotonic']
METHODS: tuple[Method, ...] = get_args(Method)
Name = Annotated[str, Limits(1, MAX_TASK_CHARACTERS)]
Count = Annotated[int, Limits(0, 2**31)]
Rate = Annotated[float, Limits(1e-6, 1 - 1e-6)]
Probability = Annotated[float, Limits(0.0, 1.0)]
# SUCCESS needs more than this, whatever the threshold: what is less likely than not is no success.
EVEN = 0.5
# The false-alarm rate that is decided by unless another one is asked for.
USUAL_RATE = 0.05
# A risk of having failed is never above it: FAILURE is not decided.
NEVER = 1.0
# How long a risk is held for FAILURE where its threshold is calibrated [s].
FAILURE_DWELL_S = DEFAULT_RULES.failure_dwell * 1e-9


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
class Sigmoid:
    """Parameters of temperature and platt; `scale` 0 or more: no higher score is less likely."""

    scale: Annotated[float, Limits(0.0)]
    shift: float


@dataclass(frozen=True)
class Beta:
    """Parameters of beta."""

    a: Annotated[float, Limits(0.0)]
    b: Annotated[float, Limits(0.0)]
    c: float


@dataclass(frozen=True)
class Isotonic:
    """Parameters of isotonic: points of a curve that never falls."""

    scores: Annotated[tuple[float, ...], Limits(1)]
    probabilities: Annotated[tuple[Probability, ...], Limits(1)]

    def __post_init__(self) -> None:
        if len(self.scores) != len(self.probabilities):
            raise ValueError('scores and probabilities differ in number')
        for values in (self.scores, self.probabilities):
            if tuple(sorted(values)) != values:
                raise ValueError('scores and probabilities are needed in ascending order')


_PARAMETERS: dict[str, Any] = {
    'temperature': Sigmoid, 'platt': Sigmoid, 'beta': Beta, 'isotonic': Isotonic}


@dataclass(frozen=True)
class Evidence:
    """
    Whether scores tell more than the clock, on attempts that the scores were not fitted to.

    :param auroc: of an attempt's highest score, those that succeed against those that do not.
    :param auroc_low: lower bound of it, by resampling attempts.
    :param elapsed_auroc: the same of how long an attempt lasts.
    :param attempts: that all of this was measured on.
    """

    auroc: Probability
    auroc_low: Probability
    elapsed_auroc: Probability
    attempts: Count = 0

    @property
    def suffices(self) -> bool:
        """Whether decisions may rest on the scores: they beat the clock, and chance."""
        return self.auroc_low > max(self.elapsed_auroc, EVEN)

    def __str__(self) -> str:
        return (f'AUROC {self.auroc:.2f}, at least {self.auroc_low:.2f}; elapsed time alone has '
                f'{self.elapsed_auroc:.2f}')


@dataclass(frozen=True)
class Calibration:
    """
    From the head's raw score to a probability, for one set of views.

    :param views: those that are there.
    :param parameters: of the method, see `probability_of`.
    :param thresholds: false-alarm rate alpha -> probability above which SUCCESS may be decided.
    :param failed: attempts that never succeeded, among those behind the thresholds; 0: not said.
    :param succeeded: attempts that succeeded, likewise.
    :param pooled: these are attempts of all tasks together.
    :param rows: ticks that the map was fitted to, of so many `episodes`.
    :param evidence: that the scores are worth deciding by; without enough of it nothing is
        decided. None: it was not measured.
    :param failure_threshold: FAILURE needs a risk above it; None: the node's own.
    :param failure_rate: bound on the rate of successful attempts in which FAILURE is decided, that
        the threshold was set for, with a dwell time of FAILURE_DWELL_S; None: there is none.
    :param dwell_s: SUCCESS needs a probability above the threshold for at least so long, whatever
        the node's own dwell time is.
    """

    views: Annotated[tuple[Text, ...], Limits(1, 8)]
    method: Method
    parameters: Mapping[str, Any]
    thresholds: Mapping[Rate, Probability] = field(default_factory=dict)
    failed: Count = 0
    succeeded: Count = 0
    pooled: bool = False
    rows: Count = 0
    episodes: Count = 0
    evidence: Evidence | None = None
    failure_threshold: Probability | None = None
    failure_rate: Rate | None = None
    dwell_s: Annotated[float, Limits(0.0, 60.0)] = 0.0

    def __post_init__(self) -> None:
        parse(_PARAMETERS[self.method], dict(self.parameters), 'parameters')

    @property
    def rates(self) -> tuple[float, ...]:
        """False-alarm rates that can be decided by, ascending."""
        enough = self.evidence is None or self.evidence.suffices
        return tuple(sorted(self.thresholds)) if enough else ()

    def rate(self, alpha: float | None) -> float | None:
        """
        Choose the false-alarm rate to decide by.

        :param alpha: the rate that is asked for; None: USUAL_RATE, or else the nearest one above
            it that there is a threshold for.
        :returns: None where nothing can be decided.
        """
        if alpha is None:
            return next((rate for rate in self.rates if rate > USUAL_RATE - 1e-9),
                        max(self.rates, default=None))
        return next((rate for rate in self.rates if same_rate(rate, alpha)), None)

    def threshold(self, alpha: float | None) -> float | None:
        """Look up what SUCCESS needs at a rate, see `rate`; None: nothing is decided."""
        rate = self.rate(alpha)
        return None if rate is None else max(self.thresholds[rate], EVEN)

    def apply(self, score: float) -> float:
        """Map a raw score to a probability in [0, 1]."""
        return float(probability_of(self.method, self.parameters, np.array(score)))


def same_rate(one: float, other: float) -> bool:
    """Whether two false-alarm rates are the same one; messages have them in single precision."""
    return math.isclose(one, other, rel_tol=1e-6)


def broken_guarantee(
    alpha: float | None, dwell_s: float, calibrated: Sequence[float], calibrated_dwell_s: float,
) -> str:
    """
    Say why decisions would not keep the rate of false alarms that is asked for.

    :param alpha: the rate; None: whichever a task has.
    :param dwell_s: how long the probability will have to stay above the threshold.
    :param calibrated: rates that a bundle has thresholds for; none: it decides nothing.
    :param calibrated_dwell_s: what the thresholds were calibrated for.
    :returns: '' where they would.
    """
    if not calibrated:
        return ''
    if alpha is not None and not any(same_rate(alpha, one) for one in calibrated):
        return (f'parameter alpha is {alpha:g}; the bundle has calibrated thresholds for '
                f'{", ".join(f"{one:.3g}" for one in calibrated)}; 0 takes the one of each task')
    if dwell_s < calibrated_dwell_s - 1e-6:
        return (f'parameter dwell_s is {dwell_s:g}; the thresholds of the bundle were calibrated '
                f'for {calibrated_dwell_s:g} s, and guarantee no rate of false alarms for less')
    return ''


@dataclass(frozen=True, eq=False)
class Task:
    """
    One task of the bundle, or its fallback task, which is used for tasks that it does not know.

    :param modes: a name for each failure prompt in use, in order.
    :param calibrations: one for each set of views; with other views the probability is not
        calibrated.
    :param prompts: failure prompts, float32 [K, L, D], from tasks.safetensors.
    :param head: file of the graph that scores this task: in one lab, as `hralign success teach`
        makes it, or with others that it learned together, as `hralign success calibrate --beside`
        does; empty: the success head of the bundle does, by the prompts.
    :param ood_threshold: of that graph's out-of-distribution score.
    :param robot: that it was taught on; empty: none.
    :param shares: which of the calibrations of `TaskTable.shared` are its own; in the file alone.
    """

    task_id: Text
    name: Name
    aliases: tuple[Name, ...] = ()
    modes: tuple[str, ...] = ()
    calibrations: tuple[Calibration, ...] = ()
    head: str = ''
    ood_threshold: Annotated[float, Limits(-1e9, 1e9)] | None = None
    robot: str = ''
    shares: str = ''
    prompts: NDArray[np.float32] = field(
        default_factory=lambda: np.zeros((0, 0, 0), np.float32), metadata=NOT_STORED)

    @cached_property
    def mode_mask(self) -> NDArray[np.float32]:
        """Which of the K prompts are in use, float32 [K] of 0 and 1."""
        return (np.arange(len(self.prompts)) < len(self.modes)).astype(np.float32)

    def calibration(self, views: Iterable[str]) -> Calibration | None:
        """Look up the calibration for a set of views; None: there is none."""
        wanted = frozenset(views)
        return next((one for one in self.calibrations if frozenset(one.views) == wanted), None)

    @property
    def when_unlike(self) -> str:
        """Say what to do where images are out of distribution for this task."""
        if self.robot:
            return ('Compare with the recordings that it was taught with: is a camera moved or '
                    'covered, are the views swapped, is rotation or crop another one, or the '
                    'light? Put it right, or record attempts as it is now and teach again '
                    '(docs/start/your_robot.md, step 5)')
        return ('Record attempts of this robot with the recorder, and teach them: hralign success '
                'teach (docs/start/your_robot.md)')

    def threshold(self, views: Iterable[str], alpha: float | None) -> float | None:
        """Look up what SUCCESS needs while these views are there; None: nothing is decided."""
        calibration = self.calibration(views)
        return None if calibration is None else calibration.threshold(alpha)

    def failure_threshold(self, views: Iterable[str], asked: float | None = None) -> float:
        """
        Look up what the risk of a failure mode has to exceed for FAILURE with these views.

        :param asked: what the node's parameter asks for; None: nothing.
        :returns: NEVER where no mode decides it. Where SUCCESS cannot be decided nothing is.
        """
        calibration = self.calibration(views)
        if calibration is None or not calibration.rates or not self.modes:
            return NEVER
        own = calibration.failure_threshold
        if own is not None and own >= NEVER:
            return NEVER  # risks tell no more than the clock, whatever is asked for
        return next(one for one in (asked, own, USUAL_FAILURE_THRESHOLD) if one is not None)

    def failure_rate(
        self, views: Iterable[str], asked: float | None = None,
        dwell_s: float = FAILURE_DWELL_S,
    ) -> float | None:
        """
        Look up the bound on the rate of FAILURE in attempts that succeed, with these views.

        :param asked: see `failure_threshold`.
        :param dwell_s: how long a risk has to be held for FAILURE.
        :returns: None: FAILURE is never decided by a mode, or no bound holds: none was calibrated,
            or it was for a higher threshold or a longer time.
        """
        views = tuple(views)
        calibration, threshold = self.calibration(views), self.failure_threshold(views, asked)
        if calibration is None or threshold >= NEVER \
                or threshold < self.failure_threshold(views) or dwell_s < FAILURE_DWELL_S - 1e-6:
            return None
        return calibration.failure_rate

    def _failures_in_words(self, views: Iterable[str]) -> str:
        threshold, rate = self.failure_threshold(views), self.failure_rate(views)
        if threshold >= NEVER:
            return 'FAILURE is decided by time_out_s alone.'
        if rate is None:
            return f'FAILURE is decided at a risk above {threshold:.3g}; no rate is guaranteed.'
        return f'FAILURE is decided at a false-alarm rate of {rate:.3g}.'

    def verdict(self, views: Iterable[str]) -> str:
        """Say in a sentence or two what is decided while these views are there."""
        views = tuple(views)
        calibration = self.calibration(views)
        if calibration is None:
            return 'Not calibrated: every decision is ABSTAIN.'
        behind = ''
        if calibration.failed or calibration.succeeded:
            behind = (f', from {calibration.failed} failed and {calibration.succeeded} successful '
                      f'attempts{" of all tasks" if calibration.pooled else ""}')
        measured = f' ({calibration.evidence})' if calibration.evidence else ''
        if calibration.evidence and not calibration.evidence.suffices:
            # Not those behind the thresholds, which may be of all tasks together.
            count = calibration.evidence.attempts
            return ('The scores do not tell more than elapsed time'
                    + (f', on {count} attempts' if count else '')
                    + f'{measured}: every decision is ABSTAIN.')
        if not calibration.rates:
            return f'No threshold is calibrated{behind}{measured}: every decision is ABSTAIN.'
        rates = ', '.join(f'{alpha:.3g}' for alpha in calibration.rates)
        return (f'SUCCESS can be decided at false-alarm rates of {rates}{behind}{measured}. '
                + self._failures_in_words(views))


@dataclass(frozen=True, eq=False)
class TaskTable:
    """
    All tasks of a bundle.

    :param tasks: the tasks in the order of the file.
    :param fallback: used for tasks that are not among them.
    :param others: used in its place, where the task that is nearest in meaning has their head.
    :param shared: calibrations that several tasks have, by a name; in the file alone.
    """

    tasks: tuple[Task, ...]
    fallback: Task
    others: tuple[Task, ...] = ()
    shared: Mapping[str, tuple[Calibration, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.others and not self.tasks:
            raise ValueError('others are used by which task is nearest, and there is no task; '
                             'export the bundle again')
        for text, task in self._named():
            other = self._by_text[normalise_task(text)]
            if other is not task:
                raise ValueError(f"'{text}' names both {other.task_id} and {task.task_id}")

    def _named(self) -> Iterator[tuple[str, Task]]:
        for task in self.tasks:
            for text in (task.name, task.task_id, *task.aliases):
                yield text, task

    @cached_property
    def _by_text(self) -> dict[str, Task]:
        return {normalise_task(text): task for text, task in reversed(list(self._named()))}

    def match(self, text: str) -> Task | None:
        """Find the task that an instruction names, by normalised name, id or alias."""
        return self._by_text.get(normalise_task(text))

    def of(self, text: str) -> Task:
        """Give the task that decides for an instruction: its own, or the fallback."""
        return self.match(text) or self.fallback

    @property
    def stored(self) -> 'TaskTable':
        """Give it as the file has it: calibrations that several tasks share stand there once."""
        kinds: list[tuple[Calibration, ...]] = []
        for task in self.tasks:
            if task.head and task.calibrations not in kinds:
                kinds.append(task.calibrations)
        names = {f'calibrations {number + 1}': kind for number, kind in enumerate(
            kind for kind in kinds
            if sum(task.calibrations == kind for task in self.tasks if task.head) > 1)}

        def shared(task: Task) -> Task:
            name = next((name for name, kind in names.items()
                         if task.head and task.calibrations == kind), '')
            return replace(task, calibrations=(), shares=name) if name else task

        return replace(self, tasks=tuple(shared(task) for task in self.tasks), shared=names)

    @property
    def everyone(self) -> tuple[Task, ...]:
        """Give all tasks, and those for instructions that name none of them."""
        return (*self.tasks, self.fallback, *self.others)

    def spare(self, nearest: Task) -> Task:
        """Choose the task for an instruction that names none, by the one nearest in meaning."""
        return next((one for one in self.others if one.head == nearest.head), self.fallback)

    @property
    def alphas(self) -> tuple[float, ...]:
        """False-alarm rates with a calibrated threshold, ascending."""
        return tuple(sorted({rate for task in self.everyone
                             for calibration in task.calibrations for rate in calibration.rates}))


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
    try:
        table = parse(TaskTable, document)
        fallback = _with_prompts(_with_shared(table.fallback, table), tensors, bundle)
        # A head beside the bundle's own has no use for prompts: those of the fallback do.
        tensors = {f'prompts/{task.task_id}': fallback.prompts for task in table.everyone
                   if task.head} | tensors
        tasks, others = (
            tuple(_with_prompts(_with_shared(task, table), tensors, bundle) for task in some)
            for some in (table.tasks, table.others))
        return TaskTable(tasks, fallback, others)
    except ValueError as error:
        raise BundleError(f'{bundle.path / TASKS}: {error}') from error


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


def _with_shared(task: Task, table: TaskTable) -> Task:
    """
    Give a task the calibrations that it shares.

    :raises ValueError: they are not there.
    """
    if not task.shares:
        return task
    if task.shares not in table.shared:
        raise ValueError(f"task {task.task_id} has the calibrations '{task.shares}', which are "
                         'not there; export the bundle again')
    return replace(task, calibrations=table.shared[task.shares], shares='')


def _with_prompts(task: Task, tensors: Mapping[str, Any], bundle: Bundle) -> Task:
    """
    Put a task together with its prompts, and check it against the manifest.

    :raises ValueError: it names views or modes that the bundle does not have.
    :raises BundleError: no prompts of its shape.
    """
    manifest, success = bundle.manifest, bundle.manifest.success
    prompts = tensors.get(f'prompts/{task.task_id}')
    shape = (success.modes, success.prompt_length, manifest.text.dim)
    if prompts is None or prompts.shape != shape or prompts.dtype != np.float32:
        came = 'missing' if prompts is None else f'{prompts.dtype} {list(prompts.shape)}'
        raise BundleError(
            f'{bundle.path / TASK_TENSORS}: prompts/{task.task_id} is {came}; needed is float32 '
            f'{list(shape)} [modes, prompt length, text dim]')
    if not np.isfinite(prompts).all():
        raise BundleError(
            f'{bundle.path / TASK_TENSORS}: prompts/{task.task_id} holds values that are not '
            'finite')
    if task.head and not bundle.has(task.head):
        raise ValueError(f'task {task.task_id} is scored by {task.head}, which the bundle lacks; '
                         'teach it again')
    if bool(task.head) != (task.ood_threshold is not None):
        raise ValueError(f'task {task.task_id}: head and ood_threshold are needed together')
    if len(task.modes) > success.modes:
        raise ValueError(
            f'task {task.task_id} names {len(task.modes)} modes; the bundle has {success.modes}')
    for calibration in task.calibrations:
        if set(calibration.views) - set(manifest.views):
            raise ValueError(
                f'task {task.task_id}: a calibration is for the views '
                f'{", ".join(sorted(calibration.views))}; the bundle has '
                f'{", ".join(manifest.views)}; calibrate again for those')
    return replace(task, prompts=prompts)

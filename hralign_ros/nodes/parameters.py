# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Every parameter of the encoder node, declared in one table.

Descriptors, validation, config/encoder.yaml and the table in docs/reference/parameters.md all
follow from it; a test keeps them in step.
"""

from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from hralign_ros.nodes.rclpy_compatibility import parameter_overrides
from hralign_ros.runtime.decision import DecisionRules, DEFAULT_RULES
from hralign_ros.runtime.encoder import Encoder, POOLINGS, PRECISIONS
from hralign_ros.runtime.errors import BundleError, HralignError
from hralign_ros.runtime.images import ROTATIONS, ViewGeometry
from hralign_ros.runtime.pairing import PairingRules
from hralign_ros.runtime.parts import check_part_names, DEFAULT_PARTS, PARTS
from hralign_ros.runtime.providers import PROVIDERS
from hralign_ros.runtime.tasks import broken_guarantee
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.expand_topic_name import expand_topic_name
from rclpy.node import Node
from rclpy.parameter import Parameter as RclpyParameter
from rclpy.validate_full_topic_name import validate_full_topic_name

DEFAULT_VIEWS = ('wrist', 'third_person')
# Parameters that every node has.
_STANDARD = ('use_sim_time', 'start_type_description_service')


class ParameterError(HralignError):
    """A parameter, or several together, have values that cannot be used."""


@dataclass(frozen=True)
class Parameter:
    """
    One parameter.

    :param low: least value of a number; `high` is the greatest.
    :param choices: all values allowed, where they can be listed.
    :param dynamic: may be changed while the node runs; all others are read-only.
    """

    name: str
    default: Any
    text: str
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    dynamic: bool = False

    def descriptor(self) -> ParameterDescriptor:
        """Describe the parameter as ROS 2 tools show it."""
        descriptor = ParameterDescriptor(
            description=self.text, read_only=not self.dynamic,
            additional_constraints=(
                f'one of: {", ".join(map(str, self.choices))}' if self.choices else ''))
        if self.low is not None and self.high is not None:
            if isinstance(self.default, int):
                descriptor.integer_range = [
                    IntegerRange(from_value=int(self.low), to_value=int(self.high), step=0)]
            else:
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=self.low, to_value=self.high, step=0.0)]
        return descriptor

    def converted(self, value: Any) -> Any:
        """Take whole numbers where floating-point numbers are meant; ROS 2 itself refuses them."""
        if isinstance(self.default, float):
            return float(value) if type(value) is int else value
        if isinstance(self.default, list) and isinstance(self.default[0], float) \
                and isinstance(value, (list, tuple, array)) and len(value) \
                and all(type(one) is int for one in value):
            return [float(one) for one in value]
        return value

    def check(self, value: Any) -> None:
        """
        Check a value's type, range and choices.

        ROS 2 does so too, but lets values pass that lie beside a range by a millionth.

        :raises ParameterError: the value cannot be used.
        """
        many, values, defaults = ('a list of ', value, self.default) \
            if isinstance(self.default, list) else ('', [value], [self.default])
        kind = type(defaults[0])
        if not isinstance(values, (list, tuple)) or not all(type(v) is kind for v in values):
            problem = f'a {type(value).__name__}; needed is {many}{kind.__name__}'
        elif self.low is not None and self.high is not None \
                and not self.low <= value <= self.high:
            problem = f'{value}; needed is a number from {self.low:g} to {self.high:g}'
        elif self.choices and value not in self.choices:
            problem = f"'{value}'; allowed: {', '.join(map(str, self.choices))}"
        else:
            return
        raise ParameterError(f'parameter {self.name} is {problem}')


NODE_PARAMETERS = (
    Parameter('bundle', '', "The bundle's directory; empty: the one shipped with this package. "
              'What lies there is read whenever the node is configured.'),
    Parameter('require_signature', False,
              'Fail at configure unless one of the trusted keys has signed the bundle.'),
    # Of an empty list ROS 2 does not know what it is a list of.
    Parameter('trusted_keys', [''],
              'PEM files of public keys that may sign the bundle; empty names are left out.'),
    Parameter('provider', 'auto', 'Where graphs run; auto: on CUDA where it is available.',
              choices=PROVIDERS),
    Parameter('require_gpu', False, 'Fail at configure instead of running on a CPU.'),
    Parameter('cuda_graph', False,
              'On a GPU, record CUDA graphs and replay them, with tensors kept on the GPU.'),
    Parameter('threads', 2, 'Threads of one operator on the CPU.', 1, 64),
    Parameter('precision', 'fp32',
              'Which visual graph to run; fp16 and int8 need a bundle that has it.',
              choices=PRECISIONS),
    Parameter('pooling', 'attention', 'How the parts task and clip pool the tokens of a view.',
              choices=POOLINGS),
    Parameter('embedding_parts', [''],
              f'Parts of the embedding, in this order; of {", ".join(PARTS)}. Empty names are '
              f'left out; without any: {", ".join(DEFAULT_PARTS)}, as far as the bundle has '
              'them.'),
    Parameter('task', '', 'Initial instruction; ~/set_task changes it.'),
    Parameter('views', list(DEFAULT_VIEWS),
              'Names of the camera views; the same as in the bundle.'),
    Parameter('autostart', False, 'Configure and activate without waiting for a manager.'),
    Parameter('stamp_source', 'header',
              'Acquisition time: the header stamp, or the time of arrival for drivers with a '
              'broken clock.',
              choices=('header', 'arrival')),
    Parameter('pairing', 'approximate',
              'Which frames make a set: stamps within tolerance_s (approximate), equal stamps '
              '(exact), or the newest frame of each view (latest).',
              choices=('approximate', 'exact', 'latest'), dynamic=True),
    Parameter('tolerance_s', 0.04,
              'Largest difference between the stamps of one approximate set [s].',
              0.0, 1.0, dynamic=True),
    Parameter('max_wait_s', 0.05, 'How long a frame waits for the other views [s].',
              0.0, 1.0, dynamic=True),
    Parameter('max_age_s', 0.5, 'A view whose newest frame is older is left out [s].',
              0.01, 10.0, dynamic=True),
    Parameter('max_future_s', 0.1, 'Frames stamped further ahead of the clock are dropped [s].',
              0.0, 10.0, dynamic=True),
    Parameter('stuck_after_s', 2.0,
              'A view that sends the same image, to the bit, for longer is left out [s]; 0: '
              'never, for simulators without noise.', 0.0, 60.0, dynamic=True),
    Parameter('reset_after_s', 1.0,
              'Stamps that stay further behind than this start a new episode [s].',
              0.1, 3600.0, dynamic=True),
    Parameter('allow_unknown_tasks', DEFAULT_RULES.allow_unknown_tasks,
              'Decide on instructions that the bundle does not know, by the calibration of its '
              'fallback task, which guarantees no false-alarm rate.',
              dynamic=True),
    Parameter('alpha', 0.0,
              'False-alarm rate whose calibrated threshold decides SUCCESS; one that the bundle '
              'offers (~/info). 0: for each task 0.05, or else the nearest rate above that its '
              'attempts can back; decision_alpha says which. The shipped bundle offers 0.01, 0.05 '
              'and 0.1.',
              0.0, 0.5, dynamic=True),
    Parameter('dwell_s', DEFAULT_RULES.dwell / 1e9,
              'How long the probability must stay above the threshold [s]; at least the dwell '
              'time of the calibration, 0.3 for the shipped bundle.',
              0.0, 60.0, dynamic=True),
    Parameter('failure_threshold', 0.0,
              'A failure mode above this probability decides FAILURE; 1: never; 0: what the task '
              'was calibrated for, or else 0.9.',
              0.0, 1.0, dynamic=True),
    Parameter('failure_dwell_s', DEFAULT_RULES.failure_dwell / 1e9,
              'How long a failure mode must stay above it [s].',
              0.0, 60.0, dynamic=True),
    Parameter('time_out_s', DEFAULT_RULES.time_out / 1e9,
              'An episode longer than this is a FAILURE [s]; 0: never.',
              0.0, 86400.0, dynamic=True),
    Parameter('wait_for_success.give_up_after_s', 5.0,
              'A goal of ~/wait_for_success ends with CANNOT_TELL when no result could be decided '
              'on for so long [s, real time].', 0.1, 3600.0, dynamic=True),
    Parameter('mirrors.embedding_array', False,
              'Publish embeddings as std_msgs/Float32MultiArray on ~/embedding/array.'),
    Parameter('mirrors.probability', False,
              'Publish the probability as std_msgs/Float64 on ~/success/probability.'),
    Parameter('mirrors.succeeded', False,
              'Publish as std_msgs/Bool on ~/success/succeeded whether SUCCESS is decided.'),
    Parameter('mirrors.failed', False,
              'Publish as std_msgs/Bool on ~/success/failed whether FAILURE is decided.'),
    Parameter('mirrors.reward', False, 'Publish a reward as std_msgs/Float64 on ~/reward.'),
    Parameter('mirrors.reward_shaping', 'sparse',
              'sparse: 1 from SUCCESS on, before that and in failure 0; progress_difference: '
              'progress since the result before.', choices=('sparse', 'progress_difference')),
    Parameter('mirrors.reset', False,
              'Serve ~/reset (std_srvs/Trigger), which does what ~/start_episode does.'),
    Parameter('mirrors.task', False,
              'Take instructions as std_msgs/String on ~/task; each does what ~/set_task does.'),
    Parameter('mirrors.outcome_service', '',
              'Service (std_srvs/SetBool) that is called once when an episode is decided: true '
              'for SUCCESS, false for FAILURE; empty: none.'),
    Parameter('mirrors.recording', 'off',
              'End a recording of crisp_gym by words on record_transition, when an episode that '
              'began in it is decided. save: SUCCESS saves it, FAILURE pauses it and leaves the '
              'rest to a person; save_or_delete: FAILURE deletes it.',
              choices=('off', 'save', 'save_or_delete')),
)

# For each view, with its name in front; {view} in a default stands for it.
VIEW_PARAMETERS = (
    Parameter('topic', '{view}/image_raw', 'Image topic; /compressed is added by `transport`.'),
    Parameter('transport', 'raw', 'raw: sensor_msgs/Image; compressed: CompressedImage.',
              choices=('raw', 'compressed')),
    Parameter('reliability', 'best_effort', 'Reliability asked of the publisher.',
              choices=('best_effort', 'reliable')),
    Parameter('required', True, 'A set waits for this view; at least one view must be required.'),
    Parameter('rotation', 0, 'Degrees clockwise that turn the image upright.',
              choices=ROTATIONS),
    Parameter('crop', [0.0, 0.0, 1.0, 1.0],
              'Left, top, right, bottom of the part to use, as fractions of the upright image.'),
)


def of_view(view: str, rows: Sequence[Parameter] = VIEW_PARAMETERS) -> list[Parameter]:
    """List the parameters of a view, each with its full name."""
    return [replace(row, name=f'{view}.{row.name}', default=row.default.format(view=view)
                    if isinstance(row.default, str) else row.default) for row in rows]


def table(views: Sequence[str] = DEFAULT_VIEWS) -> dict[str, Parameter]:
    """List all parameters by full name."""
    rows = [*NODE_PARAMETERS, *(row for view in views for row in of_view(view))]
    return {row.name: row for row in rows}


@dataclass(frozen=True)
class ViewSettings:
    """One camera view."""

    topic: str
    transport: str
    reliability: str
    required: bool
    geometry: ViewGeometry


@dataclass(frozen=True)
class Settings:
    """The node's parameters, checked one by one and together."""

    values: Mapping[str, Any]
    views: Mapping[str, ViewSettings]
    pairing: PairingRules
    decision: DecisionRules
    stuck_after: int

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> 'Settings':
        """
        Check values by full name and arrange them.

        :raises ParameterError: a value, or values together, cannot be used.
        """
        check_views(values['views'])
        views = {}
        for name, parameter in table(values['views']).items():
            parameter.check(values[name])
        try:
            check_part_names(given_names(values['embedding_parts']))
        except BundleError as error:
            raise ParameterError(f'parameter embedding_parts: {error}') from error
        for view in values['views']:
            try:
                geometry = ViewGeometry(
                    values[f'{view}.rotation'], tuple(values[f'{view}.crop']))
            except ValueError as error:
                raise ParameterError(f'parameters of view {view}: {error}') from error
            check_topic(f'{view}.topic', values[f'{view}.topic'])
            views[view] = ViewSettings(
                values[f'{view}.topic'], values[f'{view}.transport'],
                values[f'{view}.reliability'], values[f'{view}.required'], geometry)
        if values['mirrors.outcome_service']:
            check_topic('mirrors.outcome_service', values['mirrors.outcome_service'], 'service')
        if not any(view.required for view in views.values()):
            raise ParameterError(
                f'none of the views {", ".join(views)} is required; set <view>.required to true '
                'for at least one')
        if values['max_wait_s'] >= values['max_age_s']:
            raise ParameterError(
                f'max_wait_s is {values["max_wait_s"]} and max_age_s {values["max_age_s"]}: a '
                'frame would be too old before it has waited; set max_wait_s lower')
        if values['tolerance_s'] > values['max_age_s']:
            raise ParameterError(
                f'tolerance_s is {values["tolerance_s"]} and max_age_s {values["max_age_s"]}: '
                'frames would match that are too old to use; set tolerance_s lower')
        tolerance_s = {'approximate': values['tolerance_s'], 'exact': 0.0,
                       'latest': values['max_age_s']}[values['pairing']]
        return cls(
            values=dict(values), views=views, stuck_after=_ns(values['stuck_after_s']),
            pairing=PairingRules(
                tolerance=_ns(tolerance_s), max_wait=_ns(values['max_wait_s']),
                max_age=_ns(values['max_age_s']), max_future=_ns(values['max_future_s']),
                reset_after=_ns(values['reset_after_s'])),
            decision=DecisionRules(
                alpha=values['alpha'] or None, dwell=_ns(values['dwell_s']),
                failure_threshold=values['failure_threshold'] or None,
                failure_dwell=_ns(values['failure_dwell_s']), time_out=_ns(values['time_out_s']),
                allow_unknown_tasks=values['allow_unknown_tasks'],
                # With cameras so slow that max_age_s was raised, results are further apart too.
                max_gap=max(_ns(2 * values['max_age_s']), DEFAULT_RULES.max_gap)))

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


def given_names(names: Sequence[str]) -> tuple[str, ...]:
    """Leave out the empty name that stands for an empty list."""
    return tuple(name for name in names if name)


def check_views(views: Any) -> None:
    """
    Check the names of the views.

    :raises ParameterError: not a list of 1 to 8 different names.
    """
    if not isinstance(views, (list, tuple)) or not 1 <= len(views) <= 8 \
            or not all(isinstance(view, str) and view.replace('_', '').isalnum()
                       for view in views) \
            or len(set(views)) != len(views):
        raise ParameterError(
            f'parameter views is {views!r}; needed are 1 to 8 different names of letters, '
            'digits and underscores')


def check_topic(name: str, topic: str, kind: str = 'topic') -> None:
    """
    Check that a topic can be subscribed to; the node's own name does not matter for that.

    :param kind: what it names; services have names of the same form.

    :raises ParameterError: it cannot.
    """
    try:
        validate_full_topic_name(expand_topic_name(topic, 'encoder', '/'))
    except Exception as error:  # rclpy has one exception for each way to be wrong
        raise ParameterError(
            f'parameter {name} is {topic!r}; needed is a {kind} name, of letters, digits, '
            'underscores and slashes') from error


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def declare(node: Node) -> None:
    """
    Declare all parameters; the values given may still be senseless.

    :raises ParameterError: `views` is not a list of 1 to 8 different names.
    """
    for parameter in NODE_PARAMETERS:
        _declare(node, parameter)
    views = _value(node, 'views')
    check_views(views)
    for view in views:
        for parameter in of_view(view):
            _declare(node, parameter)


def declared(node: Node, rows: Sequence[Parameter]) -> dict[str, Any]:
    """
    Declare parameters that are checked one by one, and read them.

    :raises ParameterError: a value cannot be used.
    """
    for parameter in rows:
        _declare(node, parameter)
        parameter.check(_value(node, parameter.name))
    return {parameter.name: _value(node, parameter.name) for parameter in rows}


def _declare(node: Node, parameter: Parameter) -> None:
    """Declare one parameter; a value of a wrong type or range is named in the error."""
    name, given = parameter.name, parameter_overrides(node).get(parameter.name)
    converted = parameter.converted(given)
    new = converted is not given
    try:
        node.declare_parameter(name, converted if new else parameter.default,
                               parameter.descriptor(), ignore_override=new)
    except Exception as error:  # rclpy has one exception for each way to be wrong
        raise ParameterError(f'parameter {name}: {error}') from error
    # Of lists only that of no names may be empty.
    if _value(node, name) == [] and parameter.default != ['']:
        raise ParameterError(f'parameter {name} is given without a value; needed is one as '
                             f'{parameter.default!r}')


def _value(node: Node, name: str) -> Any:
    """Read a parameter; ROS 2 takes an empty list for a parameter that is not set."""
    value = node.get_parameter_or(name).value
    if value is None:
        return []
    return value if isinstance(value, (str, int, float, bool)) else list(value)


def current(node: Node) -> dict[str, Any]:
    """Read the values of all parameters by full name."""
    return {name: _value(node, name) for name in table(_value(node, 'views'))}


def unknown_names(given: Iterable[str], known: Collection[str]) -> list[str]:
    """
    Name what is given and not declared, each with the parameter that may be meant.

    ROS 2 ignores such names without a word.

    :param given: names of parameters.
    :param known: names of those that the node has.
    """
    found = []
    for name in sorted(given):
        if name not in known and name not in _STANDARD and not name.startswith('qos_overrides.'):
            near = get_close_matches(name, known, n=1, cutoff=0.75)
            found.append(name + (f' (did you mean {near[0]}?)' if near else ''))
    return found


def convert_changes(node: Node, changed: Sequence[RclpyParameter]) -> list[RclpyParameter]:
    """Take whole numbers for floating-point parameters in a set of changes."""
    known = table(_value(node, 'views'))
    return [RclpyParameter(p.name, value=known[p.name].converted(p.value))
            if p.name in known else p for p in changed]


def check_guarantee(values: Mapping[str, Any], encoder: Encoder) -> None:
    """
    Check that decisions keep the rate of false alarms that is asked for.

    :param values: of all parameters.
    :raises ParameterError: the bundle has no threshold for this alpha, without which nothing is
        decided; or its thresholds are for a longer dwell_s. A bundle without any is not refused.
    """
    broken = broken_guarantee(values['alpha'] or None, values['dwell_s'], encoder.tasks.alphas,
                              encoder.manifest.success.dwell_s)
    if broken:
        raise ParameterError(broken)


def validate_change(
    node: Node, changed: Sequence[RclpyParameter], encoder: Encoder | None = None,
) -> SetParametersResult:
    """
    Check a set of changes together with all other values; accept all of them or none.

    :param encoder: see check_guarantee; None while no bundle is loaded.
    """
    values = current(node)
    values |= {p.name: p.value for p in changed if p.name in values}
    try:
        Settings.read(values)
        if encoder:
            check_guarantee(values, encoder)
    except ParameterError as error:
        return SetParametersResult(successful=False, reason=str(error))
    return SetParametersResult(successful=True)

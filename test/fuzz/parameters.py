# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Fuzzed: parameters, at start, while the node runs, and straight into Settings."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from fuzz.source import Source, START, Target
from hralign_ros.nodes import parameters
from hralign_ros.runtime.decision import decide, Decision, DecisionState, Status
from hralign_ros.runtime.pairing import Frame, Pairing
import numpy as np
import rclpy
from rclpy.expand_topic_name import expand_topic_name
from rclpy.node import Node
from rclpy.parameter import Parameter as RclpyParameter
from rclpy.validate_full_topic_name import validate_full_topic_name


class _OwnNode(Node):
    """A node whose parameters can be declared again and again."""

    def __init__(self) -> None:
        super().__init__('fuzzed', start_parameter_services=False, enable_rosout=False)
        self.add_on_set_parameters_callback(partial(parameters.validate_change, self))

    def begin(self, overrides: Mapping[str, Any]) -> None:
        """Declare all parameters as a new node does that was started with some values."""
        # A new node for each case takes a hundred times as long.
        self._parameters.clear()
        self._descriptors.clear()
        self._parameter_overrides.clear()
        for name, value in overrides.items():
            self._parameter_overrides[name] = RclpyParameter(name, value=value)
        kept, self._on_set_parameters_callbacks[:] = list(self._on_set_parameters_callbacks), []
        try:
            parameters.declare(self)
        finally:
            self._on_set_parameters_callbacks[:] = kept


class Parameters(Target):
    """Parameters at start, while running, and straight into Settings.read: ParameterError only."""

    def __init__(self) -> None:
        if not rclpy.ok():
            rclpy.init()
        self._node = _OwnNode()
        self._rows = parameters.table()
        self._defaults = {name: row.default for name, row in self._rows.items()}
        self._begin()

    def seeds(self) -> list[bytes]:
        """Give cases for every parameter."""
        return [bytes([1, index, way, 7, 9, 200, 100, 50, rest]) for rest in (0, 1)
                for index in range(len(self._rows)) for way in range(0, 9, 2)]

    def __call__(self, data: bytes) -> bool:
        """Give a node some values, in one of three ways."""
        source = Source(data)
        # Of all bytes, so that a change anywhere draws anew: a start takes ten times as long, and
        # would otherwise be what most cases descend from.
        kind = sum(data) % 64
        count = 1 + source.below(4)
        changed = dict(self._change(source) for _ in range(count))
        if kind == 63:
            return self._start(changed)
        return self._set(changed) if kind % 2 else self._read(changed)

    def _start(self, changed: Mapping[str, Any]) -> bool:
        """Start a node with values, as from a file."""
        try:
            overrides = {name: RclpyParameter(name, value=value).value
                         for name, value in changed.items()}
        except TypeError:  # no parameter file can hold it
            return False
        try:
            self._node.begin(overrides)
            _check_settings(parameters.Settings.read(parameters.current(self._node)))
        except parameters.ParameterError as error:
            assert str(error)
            return False
        finally:
            self._begin()
        return True

    def _begin(self) -> None:
        """Give the node its defaults, from which it is changed."""
        self._node.begin({})
        self._held = parameters.current(self._node)

    def _set(self, changed: Mapping[str, Any]) -> bool:
        """Change values of a running node."""
        try:
            given = [RclpyParameter(name, value=value) for name, value in changed.items()]
            for one in given:
                one.to_parameter_msg()
        except (TypeError, AssertionError, OverflowError, UnicodeError):
            return False  # no service call can carry it
        result = self._node.set_parameters_atomically(given)
        after = parameters.current(self._node)
        if result.successful:
            _check_settings(parameters.Settings.read(after))
            self._held = after
        else:
            assert result.reason and after == self._held
        return bool(result.successful)

    def _read(self, changed: Mapping[str, Any]) -> bool:
        """Check values of any type."""
        values = {**self._defaults, **changed}
        if isinstance(values['views'], list):
            for view in values['views']:
                if isinstance(view, str):
                    values |= {row.name: values.get(row.name, row.default)
                               for row in parameters.of_view(view)}
        try:
            _check_settings(parameters.Settings.read(values))
        except parameters.ParameterError as error:
            assert str(error)
            return False
        return True

    def _change(self, source: Source) -> tuple[str, Any]:
        """Draw a name and a value for it, which may be of another type."""
        name = source.one_of(tuple(self._rows))
        row = self._rows[name]
        way = source.below(12)
        if way < 5 and row.low is not None and row.high is not None:
            value = source.one_of((
                row.low, row.high, row.low + (row.high - row.low) * source.share(),
                row.high + 0.1, row.low - 0.1, row.high * (1 + 5e-7)))
            return name, int(value) if isinstance(row.default, int) else float(value)
        if way < 5 and row.choices:
            return name, source.one_of(row.choices)
        if way < 5 and name.endswith('.crop'):
            return name, [source.share() for _ in range(4)]
        if way < 5 and isinstance(row.default, bool):
            return name, bool(source.below(2))
        if way == 5:
            return name, self._defaults[name]
        return name, self._anything(source, way)

    @staticmethod
    def _anything(source: Source, way: int) -> Any:
        """Draw a value of a type that parameters may have, or of one that they may not."""
        if way < 8:
            return source.real()
        if way == 8:
            return source.text()
        if way == 9:
            return source.one_of((None, True, False, b'', b'x', 0, 1, -1, 2 ** 63, -2 ** 70,
                                  10 ** 400, (), {}, [[]], object))
        if way == 10:
            return [source.text() for _ in range(source.below(10))]
        return [source.one_of((source.real(), source.whole(1), True, 'x', None))
                for _ in range(source.below(6))]


def _check_settings(settings: parameters.Settings) -> None:
    """Check that accepted values keep what is documented, and that the rules work."""
    values = settings.values
    rows = parameters.table(values['views'])
    assert 1 <= len(settings.views) <= 8 and set(settings.views) == set(values['views'])
    for name, row in rows.items():
        value = values[name]
        assert isinstance(value, (list, tuple)) if isinstance(row.default, list) \
            else type(value) is type(row.default), f'{name} is {value!r}'
        if row.low is not None and row.high is not None:
            assert row.low <= value <= row.high, f'{name} is {value!r}'
        assert not row.choices or value in row.choices, f'{name} is {value!r}'
    pairing, decision = settings.pairing, settings.decision
    assert 0 <= pairing.max_wait < pairing.max_age and 0 <= pairing.tolerance <= pairing.max_age
    for view in settings.views.values():
        validate_full_topic_name(expand_topic_name(view.topic, 'encoder', '/'))
        assert view.geometry.apply(np.zeros((2, 3, 3), np.uint8)).size
    required = [name for name, view in settings.views.items() if view.required]
    matcher: Pairing[None] = Pairing(tuple(settings.views), required, pairing)
    for name in required:
        matcher.offer(name, Frame(START, None), now=START, elapsed=START)
    found = matcher.take(now=START, elapsed=START)
    assert found is not None and set(found) == set(required)
    state, verdict = decide(
        DecisionState(), decision, stamp=START, probability=0.9, threshold=0.5, modes=(),
        status=Status.OK)
    assert verdict is (Decision.SUCCESS if decision.dwell == 0 else Decision.RUNNING)

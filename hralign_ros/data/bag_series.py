# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Numbers out of messages: joint states, poses and commands, and what of them was newest when."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from hralign_ros.runtime.errors import DataError
import numpy as np
from numpy.typing import NDArray

# More numbers in a message than this are no state of an arm.
_MOST = 1000


class Series:
    """
    The numbers of one topic over time.

    :param spec: TOPIC, or TOPIC:FIELD for one field of its messages, such as
        /joint_states:velocity or /pose:pose.position. Of a message with names (a JointState) it is
        the position where no field is named, each number under its name; of others all numbers
        but those of the header.
    :ivar names: of the numbers.
    """

    def __init__(self, spec: str) -> None:
        self.topic, _, self.field = spec.partition(':')
        self.names: list[str] = []
        self._times = array('q')
        self._rows = array('d')
        self._now: NDArray[np.float64] = np.empty(0)

    def __len__(self) -> int:
        """Count the messages."""
        return len(self._times)

    def add(self, message: Any, time: int) -> None:
        """
        Take the numbers of a message.

        :param time: [ns].
        :raises DataError: it has no such field, no numbers, or too many; or they are others than
            those of the messages before.
        """
        names, values = _numbers(message, self.field)
        if not names or len(names) > _MOST:
            raise DataError(f'{self.topic}: a message has {len(names)} numbers; needed are 1 to '
                            f'{_MOST}; name a field with TOPIC:FIELD')
        if names != self.names:
            self._rename(names, hasattr(message, 'name'))
            at = [self.names.index(name) for name in names]
        else:
            at = list(range(len(names)))
        self._now[at] = values
        self._times.append(time)
        self._rows.extend(self._now)

    def _rename(self, names: Sequence[str], named: bool) -> None:
        """Take up names that are new; what has none keeps its length."""
        new = [name for name in names if name not in self.names]
        if self.names and not named:
            raise DataError(f'{self.topic}: a message has {len(names)} numbers, those before '
                            f'{len(self.names)}')
        if new:
            old = self._table()
            self.names = [*self.names, *new]
            # Until it is told for the first time, nothing is known.
            table = np.full((len(old), len(self.names)), np.nan)
            table[:, :old.shape[1]] = old
            self._rows = array('d', table.tobytes())
            self._now = np.concatenate([self._now, np.full(len(new), np.nan)])

    def _table(self) -> NDArray[np.float64]:
        return np.frombuffer(self._rows, np.float64).reshape(len(self._times), len(self.names))

    def at(self, times: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """
        Give the newest numbers at given times; before the first message, those of the first.

        :param times: int64 [F] ns.
        :returns: float32 [F, N], and the age of each row's message [s], float64 [F]; negative
            before the first one.
        """
        stamps = np.frombuffer(self._times, np.int64)
        order = np.argsort(stamps, kind='stable')
        stamps, table = stamps[order], self._table()[order]
        for column in table.T:
            known = np.flatnonzero(~np.isnan(column))
            if len(known):
                column[:known[0]] = column[known[0]]
        rows = (np.searchsorted(stamps, times, 'right') - 1).clip(0)
        return table[rows].astype(np.float32), (times - stamps[rows]) * 1e-9


def _numbers(message: Any, path: str) -> tuple[list[str], list[float]]:
    """Return the numbers of a message or of a field of it, with names."""
    named = getattr(message, 'name', None)
    if named is not None and not isinstance(named, str) and hasattr(message, 'position'):
        values = np.asarray(getattr(message, path or 'position', ()), np.float64).ravel()
        return ([*named], values.tolist()) if len(values) == len(named) else ([], [])
    value = message
    for part in path.split('.') if path else ():
        if not hasattr(value, part):
            raise DataError(f'a message has no field {path}; there are: '
                            f'{", ".join(name for name, _ in _fields(value)) or "none"}')
        value = getattr(value, part)
    found = list(_leaves(value, path))
    return [name for name, _ in found], [number for _, number in found]


def _fields(message: Any) -> Iterator[tuple[str, Any]]:
    if is_dataclass(message):
        for one in fields(message):
            if not one.name.startswith('_'):
                yield one.name, getattr(message, one.name)


def _leaves(value: Any, name: str) -> Iterator[tuple[str, float]]:
    """Give all numbers in a value, without those of headers."""
    if isinstance(value, (bool, int, float, np.number, np.bool_)):
        yield name, float(value)
    elif is_dataclass(value):
        for field, inner in _fields(value):
            if field not in ('header', 'stamp', 'layout'):
                yield from _leaves(inner, f'{name}.{field}' if name else field)
    elif isinstance(value, (list, tuple, np.ndarray)):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f'{name}[{index}]')

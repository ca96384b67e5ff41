# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a target is, and how it draws the values of a case from bytes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
import math
import struct
from typing import Any, ClassVar

MS = 1_000_000
START = 1_700_000_000_000_000_000


class Source:
    """Draw values from bytes; behind their end everything is zero."""

    _REALS = (0.0, -0.0, 1.0, -1.0, 0.5, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324,
              1e-9, 1.0 + 1e-12, 4294967296.0)
    _WORDS = ('', ' ', 'a', '~', '/', '{', '}', '%s', '\x00', '\n', '\ud800', '\u202e', 'é',
              '\U0001f680', '../', '0', '-1', 'nan', 'true', '[', '*', '&', ': ', 'İ', 'ß', 'ﷺ')

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def done(self) -> bool:
        """Whether all bytes are used."""
        return self._at >= len(self._data)

    def rest(self) -> bytes:
        """Take all bytes that are left."""
        part, self._at = self._data[self._at:], len(self._data)
        return part

    def whole(self, size: int, *, signed: bool = False) -> int:
        """Draw a whole number of so many bytes."""
        part = self._data[self._at:self._at + size]
        self._at += size
        return int.from_bytes(part.ljust(size, b'\0'), 'little', signed=signed)

    def below(self, limit: int) -> int:
        """Draw a whole number from 0 to less than a limit."""
        return self.whole(1 if limit <= 256 else 4) % limit

    def between(self, low: int, high: int) -> int:
        """Draw a whole number from low to high."""
        return low + self.below(high - low + 1)

    def one_of(self, values: Sequence[Any]) -> Any:
        """Choose one of some values."""
        return values[self.below(len(values))]

    def share(self) -> float:
        """Draw a number from 0 to 1, both of which come up."""
        return self.whole(1) / 255

    def real(self) -> float:
        """Draw any float."""
        if self.below(2):
            return float(self.one_of(self._REALS))
        return float(struct.unpack('<d', struct.pack('<Q', self.whole(8)))[0])

    def text(self) -> str:
        """Draw a text: odd words, any characters, or one of them many times."""
        kind = self.below(8)
        if kind < 4:
            return ''.join(self.one_of(self._WORDS) for _ in range(self.below(5)))
        if kind < 7:
            return ''.join(chr(self.whole(3) % 0x110000) for _ in range(self.below(9)))
        return str(self.one_of(self._WORDS)) * self.below(700)


class Target(ABC):
    """
    One thing that is fuzzed: call it with the bytes of a case.

    :param longest: most bytes of a case.
    """

    longest: ClassVar[int] = 512

    def seeds(self) -> list[bytes]:
        """Give cases to begin with."""
        return [bytes(64), bytes(range(256))]

    @abstractmethod
    def __call__(self, data: bytes) -> bool:
        """
        Run a case.

        :returns: whether what came in was taken; else it was refused as it should be.
        :raises Exception: a guarantee was broken.
        """

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Faults that last: told once when they begin and once when they have ended."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
import time

# A fault that comes and goes is one fault until it has kept away for this long [ns].
QUIET = 800_000_000


@dataclass
class _Fault:
    """What is known of one: what to do, when it was last seen, whether it went well since."""

    text: str
    last: int
    good: bool = False


class Faults:
    """
    Keep book of what is wrong now; may be called from any thread.

    A camera of which every second image is broken would otherwise fill the log with a fault and
    a recovery each.

    :param on_begin: (key, text); told once for a fault.
    :param on_end: (key,); told once it is over.
    :param clock: monotonic time [ns].
    """

    def __init__(
        self, on_begin: Callable[[str, str], object], on_end: Callable[[str], object],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._on_begin, self._on_end, self._clock = on_begin, on_end, clock
        self._lock = Lock()
        self._faults: dict[str, _Fault] = {}

    def bad(self, key: str, text: str) -> None:
        """Note that something is wrong; `text` says what came and what to do."""
        with self._lock:
            new = key not in self._faults
            self._faults[key] = _Fault(text, self._clock())
        if new:
            self._on_begin(key, text)

    def good(self, key: str) -> None:
        """Note that what a fault is about went well this time."""
        if key not in self._faults:  # nearly always; needs no lock
            return
        with self._lock:
            fault = self._faults.get(key)
            if fault is not None:
                fault.good = True

    def note(self, key: str, problem: str) -> None:
        """Note what is wrong; empty: it went well this time."""
        if problem:
            self.bad(key, problem)
        else:
            self.good(key)

    def settle(self) -> None:
        """End the faults that have kept away for long enough; to be called now and then."""
        if not self._faults:
            return
        with self._lock:
            now = self._clock()
            over = [key for key, fault in self._faults.items()
                    if fault.good and now - fault.last >= QUIET]
            for key in over:
                del self._faults[key]
        for key in over:
            self._on_end(key)

    def lasting(self) -> dict[str, str]:
        """Return what is wrong now, text by key."""
        with self._lock:
            return {key: fault.text for key, fault in self._faults.items()}

    def clear(self) -> None:
        """Forget all of them without a word."""
        with self._lock:
            self._faults.clear()

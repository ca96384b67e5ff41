# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How long work tells a person what it does: a callback for sentences, and progress with ETA."""

from collections.abc import Callable
import time

# Called with one line of text; `print` by default, `silent` where nobody reads it.
Report = Callable[[str], None]
# Seconds between two lines of progress.
PERIOD_S = 10.0


def silent(text: str) -> None:
    """Report nothing."""


class Progress:
    """
    Report every few seconds how much of a known amount of work is done.

    :param total: how many units there are.
    :param unit: their plural, for the sentence.
    """

    def __init__(self, total: int, unit: str, report: Report) -> None:
        self.total, self.unit, self.report = total, unit, report
        self.began = self._told = time.monotonic()
        self.done = 0

    def step(self) -> None:
        """Count one unit; report if the last line is old."""
        self.done += 1
        now = time.monotonic()
        if now - self._told >= PERIOD_S:
            self._told = now
            rate = self.done / (now - self.began)
            self.report(f'  {self.done} of {self.total} {self.unit}, {rate:.1f}/s, '
                        f'{(self.total - self.done) / rate:.0f} s to go')

    @property
    def seconds(self) -> float:
        """Give the seconds since the start."""
        return time.monotonic() - self.began

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Counts, rates and latencies of a pipeline: what diagnostics are made of."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Latencies are of so many ticks, rates of so many events.
_TICKS, _EVENTS = 300, 60
# Rates are of the time since the last break that was longer [ns].
_BREAK = 2_000_000_000


@dataclass(frozen=True)
class Statistics:
    """
    What has happened so far; counts since activation, latencies over the last ticks.

    :param views: per view, counts by what became of its frames, its rate and its age.
    :param latency: acquisition to hand-over of the last ticks [s], oldest first.
    :param processing: duration of the same ticks [s].
    :param waiting: it has only just begun, or time has: nobody can have sent anything yet.
    :param blind: no required view has a fresh frame.
    :param rate: ticks per second over the last ticks; 0 with fewer than two.
    """

    views: Mapping[str, Mapping[str, int]]
    ages: Mapping[str, float | None]
    fresh: Mapping[str, bool]
    waiting: bool
    blind: bool
    rates: Mapping[str, float]
    ticks: Counter[str]
    latency: tuple[float, ...]
    processing: tuple[float, ...]
    rate: float
    skew: float
    episode_id: int
    task: str


class Tally:
    """
    Counts and times since it was made; all times are monotonic [ns].

    :param views: names of all views.
    """

    def __init__(self, views: Sequence[str]) -> None:
        self.ticks: Counter[str] = Counter()
        self.latency: deque[float] = deque(maxlen=_TICKS)
        self.processing: deque[float] = deque(maxlen=_TICKS)
        self._finished: deque[int] = deque(maxlen=_EVENTS)
        self._arrivals: dict[str, deque[int]] = {view: deque(maxlen=_EVENTS) for view in views}

    def arrived(self, view: str, elapsed: int) -> None:
        """Count a frame."""
        self._arrivals[view].append(elapsed)

    def published(self, elapsed: int, *, latency: int, processing: int) -> None:
        """Count a result, from its acquisition and from the beginning of its work on [ns]."""
        self.ticks['published'] += 1
        self._finished.append(elapsed)
        self.latency.append(latency * 1e-9)
        self.processing.append(processing * 1e-9)

    def rate(self, elapsed: int) -> float:
        """Tell how many results a second there are."""
        return _rate(self._finished, elapsed)

    def rates(self, elapsed: int) -> dict[str, float]:
        """Tell how many frames a second each view sends."""
        return {view: _rate(times, elapsed) for view, times in self._arrivals.items()}


def _rate(times: 'deque[int]', now: int) -> float:
    """Events per second over the times kept since the last break; 0 in one."""
    if len(times) < 2 or now - times[-1] > _BREAK:
        return 0.0
    kept = list(times)
    first = max((i for i in range(1, len(kept)) if kept[i] - kept[i - 1] > _BREAK), default=0)
    return (len(kept) - 1 - first) / max((kept[-1] - kept[first]) * 1e-9, 1e-9)

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
From single frames of several cameras to matched sets; pure bookkeeping, no threads, no clock.

Each view has one slot that holds its newest unused frame. A set is complete when every required
view that is alive has a frame newer than in the last set and the stamps lie within the tolerance;
after a bounded wait the set is taken without the late view. No frame is ever used twice, and the
stamp of a set is always newer than that of the set before.

All times are nanoseconds. `now` is on the clock of the stamps and may jump; `elapsed` only ever
grows and serves for waiting.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

Payload = TypeVar('Payload')


class Verdict(Enum):
    """What became of an offered frame."""

    ACCEPTED = 'accepted'
    REPLACED = 'replaced'  # accepted; an unused frame of the same view made way for it
    ZERO_STAMP = 'zero_stamp'
    FUTURE_STAMP = 'future_stamp'
    TOO_OLD = 'too_old'
    BEFORE_EPISODE = 'before_episode'
    REPEATED_STAMP = 'repeated_stamp'
    BACKWARD_STAMP = 'backward_stamp'
    TIME_RESET = 'time_reset'  # accepted; everything older was forgotten


# A view is fresh at least so long after a frame of it has come, by real time [ns].
_STANDSTILL = 2_000_000_000


@dataclass(frozen=True)
class PairingRules:
    """
    When frames belong together, and which are refused.

    :param tolerance: largest difference between the stamps of one set.
    :param max_wait: how long a frame waits for the others before it goes alone.
    :param max_age: a view whose newest frame is older is not alive; older frames are refused.
    :param max_future: a frame stamped further ahead of the clock is refused.
    :param reset_after: a view whose stamps stay further behind its last one starts time anew.
    """

    tolerance: int = 40_000_000
    max_wait: int = 50_000_000
    max_age: int = 500_000_000
    max_future: int = 100_000_000
    reset_after: int = 1_000_000_000

    @property
    def standstill(self) -> int:
        """Real time after which a view is given up whose clock may have stopped [ns]."""
        return max(4 * self.max_age, _STANDSTILL)


@dataclass(frozen=True)
class Frame(Generic[Payload]):
    """One camera frame: its acquisition stamp and whatever carries its pixels."""

    stamp: int
    payload: Payload


@dataclass
class _View(Generic[Payload]):
    pending: Frame[Payload] | None = None
    last_stamp: int | None = None
    last_arrival: int = 0
    # Since when a frame of this view waits, be it another one by now.
    waiting_since: int = 0
    behind_since: int | None = None
    behind_count: int = 0
    # Frames since the last one that became part of a set.
    unmatched: int = 0
    counts: Counter[str] = field(default_factory=Counter)


class Pairing(Generic[Payload]):
    """
    Match the frames of several views.

    :param views: names of all views.
    :param required: those that a set waits for; at least one.
    """

    # A single late packet is no jump of time: this many frames in a row, over this long.
    _RESET_FRAMES = 3
    _RESET_TIME = 300_000_000

    def __init__(
        self, views: Sequence[str], required: Sequence[str], rules: PairingRules,
    ) -> None:
        if not required or not set(required) <= set(views):
            raise ValueError(
                f'required views are {list(required)}; needed is at least one of {list(views)}')
        self.rules = rules
        self._required = tuple(required)
        self._views: dict[str, _View[Payload]] = {name: _View() for name in views}
        self._last_set: int | None = None
        self._opened: int | None = None
        self._start = 0
        self.last_skew = 0

    def start_episode(self, stamp: int) -> None:
        """
        Refuse frames stamped before this one, pending ones included.

        :param stamp: not in the future.
        """
        self._start = stamp
        for view in self._views.values():
            if view.pending is not None and view.pending.stamp < stamp:
                view.pending = None
                view.counts[Verdict.BEFORE_EPISODE.value] += 1

    def reset(self) -> None:
        """Forget all stamps, as after a jump of the clock; the counts stay."""
        for name, view in self._views.items():
            if view.pending is not None:
                view.counts['cleared'] += 1
            self._views[name] = _View(unmatched=view.unmatched, counts=view.counts)
        self._last_set = self._opened = None
        self._start = 0

    def offer(self, name: str, frame: Frame[Payload], *, now: int, elapsed: int) -> Verdict:
        """
        Offer a view's frame.

        :returns: what became of it. After TIME_RESET the caller starts a new episode.
        """
        verdict = self._judge(self._views[name], frame, now, elapsed)
        if verdict is Verdict.TIME_RESET:
            self.reset()
        view = self._views[name]
        view.counts[verdict.value] += 1
        view.counts['received'] += 1
        if verdict not in (Verdict.ACCEPTED, Verdict.REPLACED, Verdict.TIME_RESET):
            return verdict
        if self._opened is None:
            self._opened = elapsed
        # A frame that takes another's place takes over how long that has waited: otherwise a
        # camera that is faster than max_wait would wait for a dead one until that is given up.
        if view.pending is None or not self._newer(view.pending):
            view.waiting_since = elapsed
        view.unmatched += view.pending is not None
        view.pending = frame
        view.last_stamp = frame.stamp
        view.last_arrival = elapsed
        return verdict

    def _judge(
        self, view: _View[Payload], frame: Frame[Payload], now: int, elapsed: int,
    ) -> Verdict:
        """Decide what becomes of a frame, and keep count of stamps that stay behind."""
        rules = self.rules
        if frame.stamp <= 0:
            return Verdict.ZERO_STAMP
        if frame.stamp > now + rules.max_future:
            return Verdict.FUTURE_STAMP
        behind = view.last_stamp is not None and frame.stamp < view.last_stamp - rules.reset_after
        if not behind:
            view.behind_since, view.behind_count = None, 0
        else:
            if view.behind_since is None:
                view.behind_since = elapsed
            view.behind_count += 1
            if view.behind_count >= self._RESET_FRAMES \
                    and elapsed - view.behind_since >= self._RESET_TIME \
                    and now - frame.stamp <= rules.max_age:
                return Verdict.TIME_RESET
        # Before its age: a camera that repeats itself is not one whose clock is late.
        if frame.stamp == view.last_stamp:
            return Verdict.REPEATED_STAMP
        if now - frame.stamp > rules.max_age:
            return Verdict.TOO_OLD
        if now < self._start:  # the clock went back before any frame could show it
            self._start = 0
        if frame.stamp < self._start:
            return Verdict.BEFORE_EPISODE
        if view.last_stamp is not None and frame.stamp < view.last_stamp:
            return Verdict.BACKWARD_STAMP
        return Verdict.ACCEPTED if view.pending is None else Verdict.REPLACED

    def take(self, *, now: int, elapsed: int) -> dict[str, Frame[Payload]] | None:
        """
        Take the matched set, if one is complete or has waited long enough.

        :returns: frames that belong together, by view; views that came late are absent.
        """
        frames = self._candidate()
        if not frames:
            return None
        awaited = [name for name in self._required if self.alive(name, now, elapsed)]
        complete = all(name in frames for name in awaited)
        if not complete and elapsed - self._waiting_since(frames) < self.rules.max_wait:
            return None
        stamps = [frame.stamp for frame in frames.values()]
        self._last_set = max(stamps)
        self.last_skew = max(stamps) - min(stamps)
        for name, view in self._views.items():
            if name in frames:
                view.counts['matched'] += 1
                view.unmatched = 0
                view.pending = None
            elif view.pending is not None and view.pending.stamp < self._last_set:
                view.counts['unmatched'] += 1
                view.unmatched += 1
                view.pending = None
        return frames

    def _candidate(self) -> dict[str, Frame[Payload]]:
        """Choose the frames that would make a set now; empty if none can be made of them."""
        pending = {name: view.pending for name, view in self._views.items() if view.pending}
        required = {name: pending[name] for name in self._required if name in pending}
        if not required:
            return {}
        newest = max(frame.stamp for frame in required.values())
        frames = {name: frame for name, frame in required.items()
                  if newest - frame.stamp <= self.rules.tolerance}
        others = {name: frame for name, frame in pending.items() if name not in required}
        for name, frame in sorted(others.items(), key=lambda item: abs(item[1].stamp - newest)):
            stamps = [frame.stamp, *(f.stamp for f in frames.values())]
            if max(stamps) - min(stamps) <= self.rules.tolerance:
                frames[name] = frame
        if self._last_set is not None \
                and max(frame.stamp for frame in frames.values()) <= self._last_set:
            return {}
        return frames

    def _waiting_since(self, frames: Mapping[str, Frame[Payload]]) -> int:
        """
        Tell when the first required frame arrived that can still be part of a set.

        :param frames: those that would make a set now. A required one among them may be older
            than the last set, where the frame of another view makes the set newer.
        """
        return min(view.waiting_since for name, view in self._views.items()
                   if name in self._required and view.pending is not None
                   and (self._newer(view.pending) or name in frames))

    def _newer(self, frame: Frame[Payload]) -> bool:
        return self._last_set is None or frame.stamp > self._last_set

    def alive(self, name: str, now: int, elapsed: int) -> bool:
        """Whether a view may still send in time; one never seen may, at first."""
        if self._views[name].last_stamp is None:
            return self._opened is not None and elapsed - self._opened <= self.rules.max_age
        return self.fresh(name, now, elapsed)

    def fresh(self, name: str, now: int, elapsed: int) -> bool:
        """
        Whether a view's newest frame is at most max_age old.

        Simulated time may stand still when its source dies, so real time bounds it as well.
        """
        view = self._views[name]
        if view.last_stamp is None or now - view.last_stamp > self.rules.max_age:
            return False
        return elapsed - view.last_arrival <= self.rules.standstill

    def any_required_fresh(self, now: int, elapsed: int) -> bool:
        """Whether at least one required view is fresh."""
        return any(self.fresh(name, now, elapsed) for name in self._required)

    def wait_until(self) -> int | None:
        """Tell the `elapsed` time at which a set is taken without the late view; None: never."""
        frames = self._candidate()
        return self._waiting_since(frames) + self.rules.max_wait if frames else None

    def age(self, name: str, now: int) -> int | None:
        """Tell how old a view's newest frame is; None: it has sent none."""
        last = self._views[name].last_stamp
        return None if last is None else now - last

    def unmatched(self, name: str) -> int:
        """Count a view's frames that found no partner since the last one that did."""
        return self._views[name].unmatched

    def counts(self, name: str) -> dict[str, int]:
        """Count what became of a view's frames: received, matched, and one entry per Verdict."""
        return dict(self._views[name].counts)

    def count_drop(self, name: str, reason: str) -> None:
        """Count a frame that was matched and then could not be used."""
        self._views[name].counts[reason] += 1

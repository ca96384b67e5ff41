# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Fuzzed: decisions over time, and the matching of frames."""

from collections.abc import Sequence

from fuzz.source import MS, Source, START, Target
from hralign_ros.runtime.decision import decide, Decision, DecisionRules, DecisionState, Status
from hralign_ros.runtime.pairing import Frame, Pairing, PairingRules, Verdict
import numpy as np


class Decisions(Target):
    """Decisions against a second account of them; matched sets against their guarantees."""

    longest = 128

    def __call__(self, data: bytes) -> bool:
        """Play one sequence."""
        source = Source(data)
        if source.below(2):
            _play_decisions(source)
        else:
            _play_pairing(source)
        return True

    def seeds(self) -> list[bytes]:
        """Give quiet sequences of both kinds, and wild ones."""
        rng = np.random.default_rng(1)
        return [bytes([kind]) + rng.integers(0, most, 120, np.uint8).tobytes()
                for kind in (0, 1) for most in (2, 40, 256) for _ in range(4)]


def _rules(source: Source) -> tuple[DecisionRules, float | None]:
    """Draw rules that parameters may give, and a threshold that a calibration may."""
    durations = (0, 1, 50 * MS, 300 * MS, 1000 * MS)
    return DecisionRules(
        dwell=source.one_of(durations), failure_dwell=source.one_of(durations),
        failure_threshold=source.one_of((1.0, 0.0, 0.5, 0.9, source.share())),
        time_out=source.one_of((0, 0, 700 * MS, 5000 * MS)),
        max_gap=source.one_of((1000 * MS, 1000 * MS, 200 * MS, 4000 * MS)),
        allow_unknown_tasks=source.below(4) == 0), source.one_of(
            (None, 0.0, 0.5, 0.5, 0.5, 1.0, source.share()))


def _play_decisions(source: Source) -> None:
    """Decide over a sequence and keep a second, simpler account of what has to come out."""
    (rules, threshold), state, stamp = _rules(source), DecisionState(), START
    start, latched = None, None
    above: list[int] = []           # stamps in a row with the probability above its threshold
    risky: dict[int, list[int]] = {}  # the same for each failure mode
    count = source.below(4)
    for _ in range(64):
        if source.done:
            return
        event = source.below(16)
        if event == 15:
            rules, threshold = _rules(source)
        elif event == 14:
            count = source.below(4)
        elif event == 13:
            state, start, latched, above, risky = DecisionState(), None, None, [], {}
        stamp += source.one_of((0, 1, 33 * MS, 100 * MS, 300 * MS, 3000 * MS))
        probability = source.one_of((None, 0.0, 1.0, 0.5, 0.6, 0.6, 0.6, source.share()))
        modes = tuple(source.share() for _ in range(count))
        status = Status(source.one_of((0, 0, 0, 0, 32, 32, source.below(64))))
        state, decision = decide(
            state, rules, stamp=stamp, probability=probability, threshold=threshold, modes=modes,
            status=status)
        start = stamp if start is None else start
        doubts = status & ~Status.VIEW_MISSING
        if rules.allow_unknown_tasks:
            doubts &= ~Status.UNKNOWN_TASK
        if doubts or probability is None or threshold is None:
            above, risky = [], {}
            assert decision is Decision.ABSTAIN
            continue
        if latched is not None:
            assert decision is latched
            continue
        # A gap that is too long; where nothing could be decided the runs ended anyway.
        last = max((run[-1] for run in (above, *risky.values()) if run), default=stamp)
        if stamp - last > rules.max_gap:
            above, risky = [], {}
        above = [*above, stamp] if probability > threshold else []
        limit = rules.failure_threshold
        if len(risky) != count:
            risky = {mode: [] for mode in range(count)}
        for mode, value in enumerate(modes):
            risky[mode] = [*risky[mode], stamp] if value > limit else []
        wanted = Decision.RUNNING
        if above and above[-1] - above[0] >= rules.dwell:
            wanted = Decision.SUCCESS
        elif any(run and run[-1] - run[0] >= rules.failure_dwell for run in risky.values()) \
                or rules.time_out and stamp - start >= rules.time_out:
            wanted = Decision.FAILURE
        assert decision is wanted, f'{decision!r}, not {wanted!r}'
        latched = None if wanted is Decision.RUNNING else wanted


def _pairing_rules(source: Source) -> PairingRules:
    """Draw rules that parameters may give."""
    max_age = source.one_of((10, 50, 500, 10_000)) * MS
    return PairingRules(
        tolerance=min(max_age, source.one_of((0, 1, 4 * MS, 40 * MS, 1000 * MS))),
        max_wait=min(max_age - 1, source.one_of((0, 1, 5 * MS, 50 * MS, 1000 * MS))),
        max_age=max_age, max_future=source.one_of((0, 10, 100, 10_000)) * MS,
        reset_after=source.one_of((100, 1000, 3_600_000)) * MS)


def _play_pairing(source: Source) -> None:
    """Offer and take in any order, with losses and jumps, and check what pairing guarantees."""
    views = ('a', 'b', 'c')[:1 + source.below(3)]
    required = views[:1 + source.below(len(views))]
    pairing: Pairing[int] = Pairing(views, required, _pairing_rules(source))
    now, elapsed, serial, episode, last = START, 1, 0, 0, None
    accepted: dict[int, str] = {}
    for _ in range(96):
        if source.done:
            return
        event, rules = source.below(16), pairing.rules
        if event < 9:
            view = source.one_of(views)
            stamp = now + source.one_of((0, -1, 1, -5, -20, -200, 30, -2000, -4000)) * MS \
                + source.below(3)
            stamp = source.one_of((stamp,) * 15 + (0,))
            serial += 1
            verdict = pairing.offer(view, Frame(stamp, serial), now=now, elapsed=elapsed)
            if verdict is Verdict.TIME_RESET:
                last, episode, accepted = None, 0, {}
            if verdict in (Verdict.ACCEPTED, Verdict.REPLACED, Verdict.TIME_RESET):
                accepted[serial] = view
                assert 0 < stamp <= now + rules.max_future and now - stamp <= rules.max_age
        elif event < 13:
            passed = source.one_of((1, 10 * MS, 33 * MS, 300 * MS, 3000 * MS))
            now, elapsed = now + passed * (event != 12), elapsed + passed
        elif event == 13:
            now = max(1, now + source.whole(2, signed=True) * MS)
            # A clock that goes back behind the begin of the episode makes it void.
            episode = episode if now >= episode else 0
        elif event == 14:
            kind = source.below(3)
            if kind == 0:
                pairing.reset()
                last, episode, accepted = None, 0, {}
            elif kind == 1:
                episode = now - source.below(100) * MS
                pairing.start_episode(episode)
            else:
                pairing.rules = _pairing_rules(source)
        else:
            _check_counts(pairing, views)
            continue
        last = _check_taken(pairing, required, accepted, now, elapsed, episode, last)
    _check_counts(pairing, views)


def _check_taken(
    pairing: Pairing[int], required: Sequence[str], accepted: dict[int, str], now: int,
    elapsed: int, episode: int, last: int | None,
) -> int | None:
    """Take a set and check it; give its stamp, or that of the last one."""
    found = pairing.take(now=now, elapsed=elapsed)
    if found is None:
        until = pairing.wait_until()
        assert until is None or until > elapsed, 'a set waits for a time that has passed'
        return last
    stamps = [frame.stamp for frame in found.values()]
    assert last is None or max(stamps) > last
    assert pairing.last_skew == max(stamps) - min(stamps) <= pairing.rules.tolerance
    assert set(found) & set(required) and min(stamps) >= episode
    for view, frame in found.items():
        assert accepted.pop(frame.payload) == view  # missing: used before, or never accepted
    return max(stamps)


def _check_counts(pairing: Pairing[int], views: Sequence[str]) -> None:
    """Check that every frame is accounted for, and that nothing grows."""
    for view in views:
        counts = pairing.counts(view)
        ends = sum(number for reason, number in counts.items()
                   if reason not in ('received', 'accepted', 'time_reset'))
        pending = pairing._views[view].pending is not None
        assert counts.get('received', 0) == ends + pending
        assert len(counts) <= len(Verdict) + 4

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Rules that pairing keeps for any cameras, any stamps and any order of events."""

from dataclasses import replace

from hralign_ros.runtime.pairing import Frame, Pairing, PairingRules, Verdict
import pytest

hypothesis = pytest.importorskip('hypothesis', reason='hypothesis is not installed')
st = hypothesis.strategies

VIEWS = ('a', 'b', 'c')
RULES = PairingRules(tolerance=4, max_wait=5, max_age=50, max_future=10, reset_after=100)
START = 100_000
TAKEN_IN = ('received', 'accepted', 'time_reset')
# Of the parameter `pairing`: exact, approximate, latest.
TOLERANCES = st.sampled_from((0, RULES.tolerance, RULES.max_age))
TAKEN = (Verdict.ACCEPTED, Verdict.REPLACED, Verdict.TIME_RESET)

EVENTS = st.lists(st.one_of(
    st.tuples(st.just('offer'), st.sampled_from(VIEWS), st.integers(-8, 8)),
    st.tuples(st.just('offer'), st.sampled_from(VIEWS), st.integers(-150, 30)),
    st.tuples(st.just('pass'), st.integers(0, 12), st.just(0)),
    st.tuples(st.just('jump'), st.integers(-400, 400), st.just(0)),
    st.tuples(st.just('episode'), st.integers(-20, 20), st.just(0)),
    st.tuples(st.just('reset'), st.just(0), st.just(0)),
    st.tuples(st.just('zero'), st.sampled_from(VIEWS), st.just(0)),
), max_size=120)


@hypothesis.settings(deadline=None, derandomize=True, database=None, max_examples=400)
@hypothesis.given(events=EVENTS, required=st.integers(1, 3), tolerance=TOLERANCES)
def test_any_order_of_events(events, required, tolerance):
    """
    Guards what a user relies on, whatever the cameras do.

    Stamps of sets strictly increase until time is reset; no frame is in two sets; a set holds a
    required view and keeps the tolerance; only frames that were accepted are in it, none of before
    the episode; every frame is accounted for; and where no set is ready, nothing waits for a time
    that has passed.
    """
    pairing = Pairing(VIEWS, VIEWS[:required], replace(RULES, tolerance=tolerance))
    now, elapsed, serial, episode = START, 0, 0, 0
    last, used, accepted = None, set(), {}
    for kind, first, second in events:
        if kind == 'offer' or kind == 'zero':
            stamp = 0 if kind == 'zero' else now + second
            serial += 1
            verdict = pairing.offer(first, Frame(stamp, serial), now=now, elapsed=elapsed)
            if verdict is Verdict.TIME_RESET:
                last, episode, accepted = None, 0, {}
            if verdict in TAKEN:
                accepted[serial] = first
                assert stamp > 0 and abs(now - stamp) <= RULES.max_age
        elif kind == 'pass':
            now, elapsed = now + first, elapsed + first
        elif kind == 'jump':
            now += first
            episode = min(episode, now)
        elif kind == 'episode':
            episode = now + min(first, 0)
            pairing.start_episode(episode)
        else:
            pairing.reset()
            last, episode, accepted = None, 0, {}
        found = pairing.take(now=now, elapsed=elapsed)
        if found is not None:
            stamps = [frame.stamp for frame in found.values()]
            assert last is None or max(stamps) > last
            assert max(stamps) - min(stamps) <= tolerance
            assert pairing.last_skew == max(stamps) - min(stamps)
            assert set(found) & set(VIEWS[:required])
            assert min(stamps) >= episode
            for view, frame in found.items():
                assert frame.payload not in used and accepted[frame.payload] == view
                used.add(frame.payload)
            last = max(stamps)
        else:
            until = pairing.wait_until()
            assert until is None or until > elapsed
        for view in VIEWS:
            counts = pairing.counts(view)
            ends = sum(n for reason, n in counts.items() if reason not in TAKEN_IN)
            pending = pairing._views[view].pending is not None
            assert counts.get('received', 0) == ends + pending


@hypothesis.settings(deadline=None, derandomize=True, database=None, max_examples=300)
@hypothesis.given(events=EVENTS, required=st.integers(1, 3), tolerance=TOLERANCES)
def test_recovers_from_any_history(events, required, tolerance):
    """
    Guards against a filter that never matches again, whatever has happened to it before.

    After any jumps, losses and resets, all cameras send together at 30 Hz: within a second and a
    bit, in which stamps that stay behind are told from one late packet, each set is whole.
    """
    pairing = Pairing(VIEWS, VIEWS[:required], replace(RULES, tolerance=tolerance))
    now, elapsed = START, 0
    for kind, first, second in events:
        if kind in ('offer', 'zero'):
            stamp = 0 if kind == 'zero' else now + second
            pairing.offer(first, Frame(stamp, None), now=now, elapsed=elapsed)
        elif kind == 'pass':
            now, elapsed = now + first, elapsed + first
        elif kind == 'jump':
            now += 50 * first
        elif kind == 'episode':
            pairing.start_episode(now + min(first, 0))
        else:
            pairing.reset()
        pairing.take(now=now, elapsed=elapsed)
    whole = []
    # `elapsed` is in the units that the time of a reset is told in: nanoseconds.
    for _ in range(60):
        now, elapsed = now + 33, elapsed + 33_000_000
        for view in VIEWS:
            verdict = pairing.offer(view, Frame(now, None), now=now, elapsed=elapsed)
            if verdict is Verdict.TIME_RESET:
                pairing.start_episode(0)
        found = pairing.take(now=now, elapsed=elapsed)
        whole.append(found is not None and set(found) == set(VIEWS))
    assert all(whole[-20:]), whole


@hypothesis.settings(deadline=None, derandomize=True, database=None, max_examples=150)
@hypothesis.given(
    delays=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=30, max_size=60),
    lost=st.sets(st.tuples(st.integers(0, 59), st.booleans()), max_size=20))
def test_two_cameras_with_any_delays(delays, lost):
    """Guards against a stall: delays and losses cost frames, but sets go on to the newest one."""
    pairing = Pairing(('a', 'b'), ('a', 'b'), RULES)
    arrivals = sorted(
        (33 * k + delay, view, 33 * k) for k, pair in enumerate(delays)
        for view, delay in zip(('a', 'b'), pair, strict=True) if (k, view == 'b') not in lost)
    at, taken = 0, []
    for arrival, view, stamp in arrivals:
        while at < arrival:
            at += 1
            found = pairing.take(now=START + at, elapsed=at)
            if found:
                taken.append(max(frame.stamp for frame in found.values()) - START)
        pairing.offer(view, Frame(START + stamp, None), now=START + at, elapsed=at)
    for later in range(at + 1, at + 60):
        found = pairing.take(now=START + later, elapsed=later)
        if found:
            taken.append(max(frame.stamp for frame in found.values()) - START)
    sent = {stamp for _, _, stamp in arrivals}
    assert taken == sorted(set(taken))
    assert not sent or taken[-1] == max(sent)
    assert len(taken) >= 0.5 * len(sent)

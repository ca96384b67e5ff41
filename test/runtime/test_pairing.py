# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""From single frames to matched sets: never twice, never backwards, every drop counted."""

from dataclasses import replace

from hralign_ros.runtime.pairing import Frame, Pairing, PairingRules, Verdict
import pytest

MS = 1_000_000
START = 1_700_000_000_000 * MS
RULES = PairingRules(tolerance=40 * MS, max_wait=50 * MS, max_age=500 * MS, max_future=100 * MS,
                     reset_after=1000 * MS)
# Counts that tell how a frame was taken in; every other count is a frame's end.
TAKEN_IN = ('received', 'accepted', 'time_reset')


class Rig:
    """
    Cameras and a clock, all in milliseconds from START.

    :param offset: what monotonic time is ahead of the clock of the stamps.
    """

    def __init__(self, views=('left', 'right'), required=None, rules=RULES, offset=12345):
        self.views, self.offset = views, offset
        self.pairing = Pairing(views, required or views, rules)
        self.now = 0.0

    @property
    def times(self):
        return {'now': START + round(self.now * MS), 'elapsed': round(
            (self.now + self.offset) * MS)}

    def offer(self, view, stamp, at=None):
        if at is not None:
            self.now = at
        frame = Frame(START + round(stamp * MS), (view, stamp))
        return self.pairing.offer(view, frame, **self.times)

    def take(self, at=None):
        """Take a set: {view: stamp in ms}, or None."""
        if at is not None:
            self.now = at
        found = self.pairing.take(**self.times)
        if found is None:
            return None
        for view, frame in found.items():
            assert frame.payload[0] == view
        return {view: frame.payload[1] for view, frame in found.items()}

    def tally(self, view):
        """Check that no frame of a view is unaccounted for; return its counts."""
        counts = self.pairing.counts(view)
        pending = self.pairing._views[view].pending is not None
        ends = sum(n for reason, n in counts.items() if reason not in TAKEN_IN)
        assert counts.get('received', 0) == ends + pending, counts
        return counts


def test_a_complete_set():
    """Guards the plain case: both frames there, within the tolerance, taken once."""
    rig = Rig()
    assert rig.offer('left', 0) is Verdict.ACCEPTED
    assert rig.take() is None
    assert rig.offer('right', 40) is Verdict.ACCEPTED
    assert rig.take(at=41) == {'left': 0, 'right': 40}
    assert rig.pairing.last_skew == 40 * MS
    assert rig.take() is None
    assert rig.tally('left')['matched'] == rig.tally('right')['matched'] == 1


def test_no_set_without_frames():
    """Guards the idle worker: nothing to take, nothing to wait for."""
    rig = Rig()
    assert rig.take() is None and rig.pairing.wait_until() is None


def test_a_late_view_is_waited_for_and_then_left_out():
    """Guards the bounded wait: not earlier, not later, and the set names who is in it."""
    rig = Rig()
    rig.offer('left', 0, at=0)
    assert rig.take(at=49.9) is None
    assert rig.pairing.wait_until() == round((50 + rig.offset) * MS)
    assert rig.take(at=50) == {'left': 0}
    assert rig.pairing.wait_until() is None


def test_stamps_further_apart_than_the_tolerance():
    """Guards against pairing frames that show different moments: the older one is dropped."""
    rig = Rig()
    rig.offer('left', 0)
    rig.offer('right', 41, at=42)
    assert rig.take() is None
    assert rig.take(at=60) == {'right': 41}
    assert rig.tally('left')['unmatched'] == 1


def test_two_cameras_out_of_step():
    """Guards a steady stream: 30 Hz each, half a period apart, gives one set per frame."""
    rig = Rig()
    sets = []
    for k in range(30):
        rig.offer('left', 33.3 * k, at=33.3 * k)
        sets.append(rig.take())
        rig.offer('right', 33.3 * k + 16, at=33.3 * k + 16)
        sets.append(rig.take())
    found = [s for s in sets if s]
    assert len(found) == 30 and all(len(s) == 2 for s in found)
    rig.tally('left')
    rig.tally('right')


def test_latest_wins():
    """Guards latency: a newer frame takes the place of one that was not used."""
    rig = Rig()
    rig.offer('left', 0, at=0)
    assert rig.offer('left', 33, at=33) is Verdict.REPLACED
    rig.offer('right', 34, at=34)
    assert rig.take() == {'left': 33, 'right': 34}
    assert rig.tally('left')['replaced'] == 1


def test_a_frame_that_comes_after_its_set():
    """Guards the stamps of results: a set older than the last one is never made."""
    rig = Rig()
    rig.offer('left', 0, at=0)
    assert rig.take(at=50) == {'left': 0}
    rig.offer('right', 0, at=55)
    assert rig.take(at=56) is None
    assert rig.take(at=200) is None
    rig.offer('left', 200, at=201)
    rig.offer('right', 201, at=202)
    assert rig.take() == {'left': 200, 'right': 201}
    rig.tally('right')


def test_a_useless_frame_does_not_keep_the_worker_awake():
    """Guards an idle core: with no set possible there is no time in the past to wait until."""
    rig = Rig()
    rig.offer('left', 0, at=0)
    assert rig.take(at=50) == {'left': 0}
    rig.offer('right', 0, at=55)
    assert rig.take(at=56) is None
    assert rig.take(at=120) is None
    until = rig.pairing.wait_until()
    assert until is None or until > rig.times['elapsed']


def test_the_clock_goes_back_before_the_first_frame():
    """
    Guards against waiting for a time that was.

    The node was active, no camera had sent yet, and the computer's clock was set back by an hour:
    every frame then was from before the episode, until the hour was over.
    """
    pairing = Pairing(('left',), ('left',), PairingRules())
    pairing.start_episode(5_000_000_000)
    verdict = pairing.offer('left', Frame(1_000_000_000, None), now=1_000_000_000, elapsed=1)
    assert verdict is Verdict.ACCEPTED


def test_an_optional_view_alone_does_not_keep_the_worker_awake():
    """Guards the same where only a camera sends that no set waits for."""
    rig = Rig(('left', 'right'), ('left',))
    rig.offer('right', 0, at=0)
    assert rig.take(at=100) is None
    until = rig.pairing.wait_until()
    assert until is None or until > rig.times['elapsed']


def test_a_late_frame_that_an_optional_view_makes_newer():
    """
    Guards the worker against an end without a word.

    A fuzzer found it: `left` and `right` are required, `top` is not. A set went out without
    `right`, then a frame of `right` came that was older than that set, and one of `top` that was
    newer. Both together make a new set; but only required frames newer than the last set were
    asked since when they wait, there were none, and the ValueError ended the worker's thread.
    """
    rig = Rig(('left', 'right', 'top'), ('left', 'right'))
    rig.offer('left', 100, at=100)
    assert rig.take(at=150) == {'left': 100}
    rig.offer('right', 90, at=151)
    rig.offer('top', 110, at=152)
    assert rig.take() is None, 'left is awaited'
    assert rig.pairing.wait_until() == rig.times['elapsed'] + 49 * MS
    assert rig.take(at=201) == {'right': 90, 'top': 110}


@pytest.mark.parametrize('skew', [16, 80])
def test_a_camera_faster_than_the_wait_does_not_wait_for_ever(skew):
    """
    Guards max_wait at 30 Hz.

    Each new frame used to begin the wait anew, so that with frames every 33 ms and a wait of 50 ms
    it was never over: two cameras whose stamps did not match gave no set at all, and when one of
    two died there was half a second of silence, until it was given up.
    """
    rig = Rig(rules=replace(RULES, tolerance=10 * MS))
    sets = []
    for k in range(60):
        rig.offer('left', 33 * k, at=33 * k)
        sets.append(rig.take())
        rig.offer('right', 33 * k - skew, at=33 * k + 1)
        sets.append(rig.take())
    taken = [s for s in sets if s]
    assert len(taken) >= 19, 'two cameras that never match'
    # Now one dies.
    alone = []
    for k in range(60, 70):
        rig.offer('left', 33 * k, at=33 * k)
        alone.append(rig.take())
    assert sum(bool(s) for s in alone) >= 3, 'the dead one is waited for again and again'


def test_a_frame_waits_for_itself_only():
    """Guards a new frame's wait against being cut short by an older one that led nowhere."""
    rig = Rig()
    rig.offer('left', 0, at=0)
    assert rig.take(at=50) == {'left': 0}
    rig.offer('right', 0, at=55)  # too late for its set
    rig.offer('left', 100, at=110)
    assert rig.take(at=111) is None, 'right is given no time to send its frame of 100'
    rig.offer('right', 100, at=115)
    assert rig.take(at=115) == {'left': 100, 'right': 100}


@pytest.mark.parametrize(('stamp', 'now', 'verdict'), [
    (-START / MS, 1000, Verdict.ZERO_STAMP),
    (-START / MS - 5, 1000, Verdict.ZERO_STAMP),
    (1101, 1000, Verdict.FUTURE_STAMP),
    (499, 1000, Verdict.TOO_OLD),
    (1000, 1000, Verdict.REPEATED_STAMP),
    (999, 1000, Verdict.BACKWARD_STAMP),
    (1100, 1001, Verdict.REPLACED),
])
def test_stamps_that_are_refused(stamp, now, verdict):
    """Guards each reason by name, at its very limit, and its count."""
    rig = Rig()
    rig.offer('left', 1000, at=1000)
    assert rig.offer('left', stamp, at=now) is verdict
    assert rig.tally('left')[verdict.value] == 1
    assert rig.pairing.age('left', rig.times['now']) == (
        (now - stamp) * MS if verdict is Verdict.REPLACED else (now - 1000) * MS)


@pytest.mark.parametrize(('stamp', 'verdict'), [
    (1100, Verdict.ACCEPTED), (500, Verdict.ACCEPTED)])
def test_stamps_at_the_limit_are_taken(stamp, verdict):
    """Guards the limits themselves: they belong to what is allowed."""
    assert Rig().offer('left', stamp, at=1000) is verdict


def test_one_late_packet_is_no_reset():
    """Guards an episode against a single packet that was long on its way."""
    rig = Rig()
    for k in range(30):
        rig.offer('left', 100 * k, at=100 * k)
    assert rig.offer('left', 1500, at=2905) is Verdict.TOO_OLD
    assert rig.offer('left', 3000, at=3000) is Verdict.REPLACED
    verdicts = []
    for k in range(20):  # one late packet among good ones, again and again
        verdicts.append(rig.offer('left', 3100 + 100 * k, at=3100 + 100 * k))
        verdicts.append(rig.offer('left', 1000 + 100 * k, at=3110 + 100 * k))
    assert Verdict.TIME_RESET not in verdicts
    rig.tally('left')


@pytest.mark.parametrize('back', [1500, 60_000, 10 ** 9])
def test_a_clock_that_went_back(back):
    """Guards /clock starting anew: after three frames and 0.3 s of it, not before, and then on."""
    rig = Rig(offset=10 ** 10)
    rig.offer('left', 0, at=0)
    assert rig.take(at=60) == {'left': 0}
    rig.offset += back + 100
    verdicts = []
    for k in range(20):
        verdicts.append(rig.offer('left', 33 * k - back, at=33 * k - back))
        if verdicts[-1] is Verdict.TIME_RESET:
            break
    count = len(verdicts)
    assert verdicts[:-1] == [Verdict.BACKWARD_STAMP] * (count - 1)
    assert count >= 3 and 300 <= (count - 1) * 33 < 340
    stamp = 33 * (count - 1) - back
    assert rig.take(at=stamp + 60) == {'left': stamp}
    assert rig.tally('left')['time_reset'] == 1


def test_a_slow_camera_whose_clock_went_back():
    """Guards slow cameras: time alone is no proof, three frames have to say the same."""
    rig = Rig(offset=10 ** 10)
    rig.offer('left', 0, at=0)
    rig.offset += 60_100
    verdicts = [rig.offer('left', 500 * k - 60_000, at=500 * k - 60_000) for k in range(3)]
    assert verdicts == [
        Verdict.BACKWARD_STAMP, Verdict.BACKWARD_STAMP, Verdict.TIME_RESET]


def test_stamps_that_went_back_with_the_clock_where_it_was():
    """Guards against a driver's broken stamps being taken for a reset of time."""
    rig = Rig()
    rig.offer('left', 10_000, at=10_000)
    verdicts = {rig.offer('left', 5000 + 33 * k, at=10_033 + 33 * k) for k in range(60)}
    assert verdicts == {Verdict.TOO_OLD}


def test_a_reset_loses_no_count():
    """Guards the sum of counts over a reset: frames that waited then are counted as dropped."""
    rig = Rig()
    rig.offer('left', 0, at=0)
    rig.offer('right', 100, at=100)
    rig.pairing.reset()
    for view in rig.views:
        assert rig.tally(view)['received'] == 1
    assert rig.take(at=300) is None
    assert rig.offer('left', -5000, at=-5000) is Verdict.ACCEPTED


def test_a_dead_camera_is_not_waited_for():
    """Guards latency after a camera has died: sets follow at once, without it."""
    rig = Rig()
    rig.offer('left', 0, at=0)
    rig.offer('right', 0, at=0)
    assert len(rig.take(at=1)) == 2
    waits = []
    for k in range(1, 31):
        rig.offer('left', 33 * k, at=33 * k)
        waits.append(rig.take() is None)
        if waits[-1]:
            assert rig.take(at=33 * k + 32.9) is None or k > 1
    dead_from = 500 // 33 + 1
    assert not any(waits[dead_from:])
    assert rig.pairing.fresh('left', **rig.times) and not rig.pairing.fresh('right', **rig.times)
    assert rig.pairing.any_required_fresh(**rig.times)
    assert rig.offer('right', 1000, at=1000) is Verdict.ACCEPTED, 'and it may come back'
    assert rig.pairing.fresh('right', **rig.times)


def test_a_camera_never_seen_is_waited_for_at_first_only():
    """Guards the start: a driver that comes up late is given max_age, and then nothing waits."""
    rig = Rig()
    rig.offer('left', 0, at=0)
    assert rig.take(at=1) is None
    assert rig.pairing.alive('right', **rig.times)
    assert rig.take(at=50) == {'left': 0}
    rig.offer('left', 501, at=501)
    assert not rig.pairing.alive('right', **rig.times)
    assert rig.take() == {'left': 501}
    assert rig.pairing.age('right', rig.times['now']) is None


def test_a_simulated_clock_that_stands_still():
    """Guards against a dead simulation looking alive because its clock died with it."""
    rig = Rig()
    rig.offer('left', 0, at=0)
    assert rig.pairing.fresh('left', **rig.times)
    rig.offset += 5000
    assert not rig.pairing.fresh('left', **rig.times)
    assert not rig.pairing.any_required_fresh(**rig.times)


def test_optional_views_come_along_and_are_not_waited_for():
    """Guards views that are not required: in when they are there, never in the way."""
    rig = Rig(('left', 'right'), ('left',))
    rig.offer('left', 0, at=0)
    assert rig.take() == {'left': 0}
    rig.offer('right', 33, at=33)
    assert rig.take() is None, 'an optional view makes no set of its own'
    rig.offer('left', 34, at=34)
    assert rig.take() == {'left': 34, 'right': 33}


def test_the_tolerance_holds_between_all_frames():
    """Guards the word: the largest difference between any two stamps of a set."""
    rig = Rig(('left', 'middle', 'right'), ('left',))
    rig.offer('right', 0, at=80)
    rig.offer('left', 40, at=80)
    rig.offer('middle', 80, at=80)
    stamps = rig.take(at=200).values()
    assert max(stamps) - min(stamps) <= 40


def test_start_episode_refuses_older_frames():
    """Guards a new episode against images of the old one, waiting or on their way."""
    rig = Rig()
    rig.offer('left', 0, at=0)
    rig.pairing.start_episode(START + 10 * MS)
    assert rig.take(at=100) is None and rig.pairing.wait_until() is None
    assert rig.offer('right', 9, at=100) is Verdict.BEFORE_EPISODE
    assert rig.offer('left', 10, at=100) is Verdict.ACCEPTED
    assert rig.take(at=200) == {'left': 10}
    assert rig.tally('left')['before_episode'] == rig.tally('right')['before_episode'] == 1


def test_start_episode_keeps_newer_frames():
    """Guards a frame that was taken after the start but came before the service call did."""
    rig = Rig()
    rig.offer('left', 20, at=20)
    rig.pairing.start_episode(START + 10 * MS)
    assert rig.take(at=100) == {'left': 20}


def test_a_frame_that_was_taken_and_failed():
    """Guards the count of frames that could not be decoded."""
    rig = Rig()
    rig.pairing.count_drop('left', 'corrupt_image')
    assert rig.pairing.counts('left') == {'corrupt_image': 1}


@pytest.mark.parametrize('required', [(), ('up',), ('left', 'up')])
def test_required_views_must_exist(required):
    """Guards the parameter."""
    with pytest.raises(ValueError, match='left'):
        Pairing(('left', 'right'), required, RULES)

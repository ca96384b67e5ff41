# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The worker by itself, without a node, on a clock of the test's own."""

from threading import current_thread, Event
from threading import enumerate as living_threads

from hralign_ros.runtime import Encoder
from hralign_ros.runtime.decision import Decision, DecisionRules, Status
from hralign_ros.runtime.errors import FrameError, InferenceError
from hralign_ros.runtime.faults import Faults
from hralign_ros.runtime.pairing import PairingRules
from hralign_ros.runtime.pipeline import Callbacks, PAIRING, Pipeline, Result
import numpy as np
import pytest
from support.tiny_bundle import VIEWS, write_tiny_bundle  # noqa: E402

MS = 1_000_000
SECOND = 1000 * MS
START = 1_700_000_000 * SECOND
CUP = 'pick up the cup'
BROKEN = 'broken'


@pytest.fixture
def tiny(tmp_path):
    """Load the tiny bundle, whose head is surer with every frame that it sees."""
    write_tiny_bundle(tmp_path)
    return Encoder.load(tmp_path, provider='cpu', threads=1)


class Bench:
    """
    A pipeline whose time is what the test says it is.

    :param thread: whether it has a worker of its own; else `turn` does its work.
    :param slowness: how much faster elapsed time runs than the clock of the stamps.
    """

    def __init__(self, encoder, *, required=VIEWS, thread=False, slowness=1, **rules):
        self.now = START
        self.results: list[Result] = []
        # Ids of episodes that began, with the number of results before each.
        self.began: list[tuple[int, int]] = []
        self.published = Event()
        self.said = {}
        self.faults = Faults(
            lambda key, text: self.said.update({key: text}), lambda key: None,
            clock=lambda: self.now)
        self.image = np.random.default_rng(0)
        self.error = None
        self.pipeline = Pipeline(
            encoder, Callbacks(
                decode=self.decode, clock=lambda: self.now, on_result=self.on_result,
                after_result=lambda result: None,
                on_episode=lambda episode: self.began.append((episode, len(self.results))),
                elapsed=lambda: START + (self.now - START) * slowness),
            self.faults, required=required, pairing=PairingRules(),
            decision=DecisionRules(**rules), task=CUP)
        self.pipeline.start(thread=thread)

    def on_result(self, result):
        self.results.append(result)
        self.published.set()

    def decode(self, view, message):
        if self.error is not None:
            raise self.error
        if message is BROKEN:
            raise FrameError('truncated', 'too short')
        return self.image.integers(0, 255, (24, 32, 3), np.uint8), view

    def turn(self):
        self.pipeline.turn()

    def send(self, messages, *, offset=0):
        """Offer frames that are stamped now, one view after the other."""
        for view, message in messages.items():
            self.pipeline.offer(view, self.now + offset, message)


def all_views(message=''):
    return dict.fromkeys(VIEWS, message)


@pytest.mark.parametrize(('records', 'threads'), [(True, ['hralign_worker']), (False, [])])
def test_a_recorded_graph_is_recorded_by_the_thread_that_runs_it(
        tiny, monkeypatch, records, threads):
    """
    Guards the first frame on a GPU that records its graphs.

    A recording belongs to the thread that made it. The node's thread warmed up, the worker
    recorded all over again while the first frame waited.
    """
    warmed_by = []
    monkeypatch.setattr(tiny, 'records', records)
    monkeypatch.setattr(tiny, 'warm_up', lambda: warmed_by.append(current_thread().name))
    bench = Bench(tiny, thread=True)
    bench.send(all_views())
    assert bench.published.wait(10)
    assert bench.pipeline.stop() and warmed_by == threads


@pytest.mark.parametrize(('error', 'key'), [
    (InferenceError('out of memory'), 'inference'),
    (MemoryError('out of memory'), 'internal error')])
def test_a_warm_up_that_fails_is_told_and_does_not_end_the_worker(tiny, monkeypatch, error, key):
    """
    Guards the worker: without it no camera would ever be heard again.

    It ended when memory was short, and inference was called good at 0 Hz.
    """
    def warm_up():
        raise error
    monkeypatch.setattr(tiny, 'records', True)
    monkeypatch.setattr(tiny, 'warm_up', warm_up)
    bench = Bench(tiny, thread=True)
    bench.send(all_views())
    assert bench.published.wait(10), 'the worker still works'
    assert bench.pipeline.stop() and 'out of memory' in bench.said[key]


def test_the_time_out_begins_with_the_first_frame(tiny):
    """
    Guards the time-out against cameras that come up late.

    What was said before the first frame, that nothing is fresh, began the episode at time 0 of
    the clock: its first good frame was then a FAILURE, which held.
    """
    bench = Bench(tiny, time_out=300 * MS)
    bench.now += 800 * MS
    bench.turn()
    assert bench.results[-1].status & Status.STALE_VIEW
    for _ in range(4):
        bench.now += 100 * MS
        bench.send(all_views())
        bench.turn()
    assert [r.decision for r in bench.results[1:]] == [Decision.RUNNING] * 3 + [Decision.FAILURE]


def test_an_error_of_ours_does_not_leave_a_success_standing(tiny):
    """
    Guards SUCCESS against an error that comes back with every set.

    Whoever raised was out of the turn before silence was looked at, and at 30 Hz the next set was
    there already: the last SUCCESS stood for as long as memory was short.
    """
    bench = Bench(tiny, alpha=0.1)

    def play(sets):
        before = len(bench.results)
        for _ in range(sets):
            bench.now += 100 * MS
            bench.send(all_views())
            bench.turn()
        return bench.results[before:]
    assert play(20)[-1].decision is Decision.SUCCESS
    bench.error = MemoryError('none left')
    said = play(20)
    assert said and all(r.status & Status.STALE_VIEW for r in said)
    assert 'MemoryError' in bench.faults.lasting()['internal error']


def test_a_simulator_slower_than_real_time(tiny):
    """
    Guards SUCCESS where simulated time runs at a tenth of real time.

    A second passed between two frames of 10 Hz, though a tenth of one by the cameras' clock; in
    between nothing was called fresh, and dwell times began anew each time.
    """
    bench = Bench(tiny, slowness=10)
    for _ in range(10):
        bench.now += 100 * MS
        bench.send(all_views())
        bench.turn()
        bench.now += 60 * MS
        bench.turn()
        bench.now -= 60 * MS
    assert len(bench.results) == 10
    assert not any(r.status & Status.STALE_VIEW for r in bench.results)


def test_what_has_just_begun_is_not_blind(tiny):
    """Guards diagnostics against an ERROR at every activation and every loop of a bag."""
    bench = Bench(tiny)
    assert bench.pipeline.statistics().waiting
    bench.now += 600 * MS
    bench.turn()
    assert not bench.pipeline.statistics().waiting
    assert set(bench.faults.lasting()) == {f'{view} silence' for view in VIEWS}
    assert 'there are no results' in bench.faults.lasting()[f'{VIEWS[0]} silence']
    bench.now += 100 * MS
    bench.send(all_views())
    bench.turn()
    bench.now += 100 * MS
    bench.pipeline.time_jumped()
    assert bench.pipeline.statistics().waiting


def test_overlays_have_the_frame_of_their_camera(tiny):
    """Guards rviz and tf: every overlay had the reference camera's optical frame."""
    bench = Bench(tiny)
    bench.now += 100 * MS
    bench.send(all_views())
    bench.turn()
    assert bench.results[-1].frame_ids == {view: view for view in VIEWS}


def test_results_keep_the_name_of_the_reference_camera(tiny):
    """Guards tf: with a slow reference camera the frame_id changed with every message."""
    bench = Bench(tiny)
    reference = tiny.manifest.reference_view
    for number in range(6):
        bench.now += 100 * MS
        some = all_views() if number % 2 == 0 else {
            view: '' for view in VIEWS if view != reference}
        bench.send(some)
        bench.turn()
        bench.now += 60 * MS
        bench.turn()
    assert len(bench.results) == 6
    assert {result.frame_id for result in bench.results} == {reference}


def test_an_alpha_in_single_precision(tiny):
    """Guards who takes alpha from ~/info: its float32 0.1 is not Python's, and was refused."""
    bench = Bench(tiny, alpha=float(np.float32(0.1)))
    bench.now += 100 * MS
    bench.send(all_views())
    bench.turn()
    assert bench.results[-1].tick.threshold == 0.7


def test_a_model_that_hangs(tiny, monkeypatch):
    """
    Guards a SUCCESS against a model that does not return, and whoever wants to stop the node.

    The worker alone said that nothing is fresh, and it was the one that hung: the last SUCCESS
    stood, diagnostics were good, and deactivating waited for ever.
    """
    entered, go_on = Event(), Event()
    encode = tiny.encode_images

    def hang(images):
        entered.set()
        assert go_on.wait(30)
        return encode(images)
    monkeypatch.setattr(tiny, 'encode_images', hang)
    others = set(living_threads())
    bench = Bench(tiny, thread=True)
    hung, = set(living_threads()) - others
    bench.send(all_views())
    assert entered.wait(10)
    bench.now += 1500 * MS
    bench.pipeline.check_hang()
    assert bench.results == [] and bench.faults.lasting() == {}, 'slow is not hung'
    for _ in range(4):
        bench.now += 300 * MS
        bench.send(dict.fromkeys(VIEWS[:2], ''))
        bench.pipeline.check_hang()
    # At 2.1 and 2.7 s: twice a second.
    assert [bool(r.status & Status.STALE_VIEW) for r in bench.results] == [True, True]
    assert all(r.tick is None and r.decision is Decision.ABSTAIN for r in bench.results)
    wrong = bench.faults.lasting()
    assert 'not returned for 2.7 s' in wrong['inference']
    assert f'{VIEWS[2]} silence' in wrong and f'{VIEWS[0]} silence' not in wrong
    assert not bench.pipeline.stop(timeout_s=0.2)

    # It comes back when another worker is at work already: of its tick nothing is heard.
    bench.results.clear()
    monkeypatch.setattr(tiny, 'encode_images', encode)
    bench.pipeline.start(thread=False)
    go_on.set()
    hung.join(10)
    assert not hung.is_alive() and bench.results == []
    bench.now += 100 * MS
    bench.send(all_views())
    bench.turn()
    assert [r.tick is not None for r in bench.results] == [True]
    assert bench.pipeline.stop()


def test_a_broken_image_of_the_later_camera(tiny):
    """
    Guards results against one bad camera out of step with the others.

    Sets were of its newer frame and the others' older ones. Where its image was broken, what
    was left was no newer than the set before: an internal error, and ERROR for all of inference.
    """
    bench = Bench(tiny)
    for i in range(12):
        late = VIEWS[2], BROKEN if i % 2 else ''
        bench.send(dict.fromkeys(VIEWS[:2], ''))
        bench.now += 30 * MS
        bench.send(dict([late]))
        bench.turn()
        bench.now += 70 * MS
    counts = bench.pipeline.statistics().ticks
    assert counts['internal_error'] == 0 and counts['published'] == 12
    bench.faults.clear()
    # The others' frame has been used already: what is left of the set is nothing new.
    bench.pipeline.episode.step(
        {VIEWS[0]: bench.decode(VIEWS[0], '')[0]}, bench.now + 5 * MS)
    bench.send(all_views())
    bench.turn()
    counts = bench.pipeline.statistics().ticks
    assert counts['nothing_newer'] == 1 and 'internal error' not in bench.faults.lasting()


def test_episodes_that_begin_faster_than_a_tick_takes(tiny):
    """
    Guards against silence: a SUCCESS stood while two sources of /clock fought.

    Every result was of an episode that was over, and so was the word that nothing is fresh.
    """
    bench = Bench(tiny)
    inner = tiny.encode_images

    def restart(images):
        bench.pipeline.start_episode()
        return inner(images)
    tiny.encode_images = restart
    for _ in range(30):
        bench.now += 100 * MS
        bench.send(all_views())
        bench.turn()
    stale = [r for r in bench.results if r.status & Status.STALE_VIEW]
    assert len(stale) == len(bench.results) >= 5


def test_a_camera_that_always_comes_too_late_is_named(tiny):
    """
    Guards a camera that is not required and arrives just after the others.

    Each set was complete without it, and the next one too new for it: it was never seen, and
    diagnostics said that all is well.
    """
    bench = Bench(tiny, required=VIEWS[:2])
    for _ in range(12):
        bench.now += 100 * MS
        bench.send(dict.fromkeys(VIEWS[:2], ''))
        bench.turn()
        bench.now += 10 * MS
        bench.send({VIEWS[2]: ''}, offset=-10 * MS)
    assert all(r.status & Status.VIEW_MISSING for r in bench.results)
    assert 'set its required to true' in bench.faults.lasting()[PAIRING]
    assert VIEWS[2] in bench.faults.lasting()[PAIRING]


def test_a_slow_camera_is_no_fault_of_the_clocks(tiny):
    """Guards a view of 2.5 Hz beside 30 Hz: every pause of it was called a matter of clocks."""
    bench = Bench(tiny, required=VIEWS[:2])
    for i in range(60):
        bench.now += 33 * MS
        bench.send(all_views() if i % 12 == 0 else dict.fromkeys(VIEWS[:2], ''))
        bench.turn()
        assert PAIRING not in bench.faults.lasting()
    assert len(bench.results) == 60


@pytest.mark.parametrize('offset', [-70, 70])
def test_a_camera_of_another_clock_is_named_whichever_way(tiny, offset):
    """Guards a view that is not required: stamped ahead, its frames were replaced, not dropped."""
    bench = Bench(tiny, required=VIEWS[:2])
    for _ in range(30):
        bench.now += 33 * MS
        bench.send(dict.fromkeys(VIEWS[:2], ''))
        bench.send({VIEWS[2]: ''}, offset=offset * MS)
        bench.turn()
    assert VIEWS[2] in bench.faults.lasting()[PAIRING]


def test_clocks_that_fight_do_not_hide_dead_cameras(tiny):
    """Guards diagnostics: each jump gave the cameras time anew, and all was called well."""
    bench = Bench(tiny)
    for _ in range(20):
        bench.now += 300 * MS
        bench.pipeline.time_jumped()
        bench.turn()
    assert not bench.pipeline.statistics().waiting and bench.pipeline.statistics().blind
    assert f'{VIEWS[0]} silence' in bench.faults.lasting()


def test_counts_begin_with_activation(tiny):
    """Guards diagnostics: what was counted, and how fast, before a pause is not said after it."""
    bench = Bench(tiny)

    def play():
        for _ in range(5):
            bench.now += 100 * MS
            bench.send(all_views())
            bench.turn()
        return bench.pipeline.statistics()
    before = play()
    bench.pipeline.stop()
    bench.now += 3600 * SECOND
    bench.pipeline.start(thread=False)
    after = play()
    assert before.ticks == after.ticks and before.views == after.views
    assert len(after.latency) == len(after.processing) == 5
    # A camera that was away for a minute has the rate that it has now.
    bench.now += 60 * SECOND
    again = play()
    for rates in (before.rates, after.rates, again.rates):
        assert rates == pytest.approx(dict.fromkeys(VIEWS, 10.0))
    assert again.rate == pytest.approx(10.0)


def test_an_episode_is_announced_before_its_results(tiny):
    """Guards who takes back what was decided: no result of one episode comes under another."""
    bench = Bench(tiny)
    for begin in (lambda: None, bench.pipeline.start_episode,
                  lambda: bench.pipeline.set_task('open the drawer'),
                  bench.pipeline.time_jumped):
        begin()
        bench.now += 100 * MS
        bench.send(all_views())
        bench.turn()
    assert [number for _, number in bench.began] == [0, 1, 2, 3]
    assert [result.episode_id for result in bench.results] == [one for one, _ in bench.began]


def test_the_rate_of_one_episode(tiny):
    """A rate that was asked for with an episode outlives changed rules, and not its episode."""
    bench = Bench(tiny)
    pipeline = bench.pipeline
    assert pipeline.set_task(CUP, alpha=0.1).decider.rules.alpha == 0.1
    pipeline.update(PairingRules(), DecisionRules(alpha=0.05, dwell=7), stuck_after=0)
    assert pipeline.episode.decider.rules == DecisionRules(alpha=0.1, dwell=7)
    assert pipeline.start_episode().decider.rules == DecisionRules(alpha=0.05, dwell=7)

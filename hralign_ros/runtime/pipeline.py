# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
From camera frames as they come to results: the worker between callbacks and publishers.

Callbacks only put the newest frame of their view into a slot. One thread takes matched sets,
decodes, infers and hands results over. Nothing queues up: a slow model drops frames, and the
drops are counted. An error in one tick is noted and the next tick runs.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from threading import Condition, Thread
import time
import traceback
from typing import Any, TypeAlias

from hralign_ros.runtime.decision import Decision, DecisionRules, Status
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.episode import Episode, Tick
from hralign_ros.runtime.errors import FrameError, InferenceError
from hralign_ros.runtime.faults import Faults
from hralign_ros.runtime.images import Image
from hralign_ros.runtime.pairing import Frame, Pairing, PairingRules, Verdict
from hralign_ros.runtime.tally import Statistics, Tally
import numpy as np

_Set: TypeAlias = dict[str, Frame[Any]]
# How often a result is repeated as stale while no required camera is fresh [ns].
STALE_PERIOD = 500_000_000
# Key of the fault that live cameras do not match, and after how many sets and frames in a row.
PAIRING = 'pairing'
_ALONE = 10
# After a fault of our own, so that one that stays does not take a whole core [s].
_BREATH = 0.05
# A tick that takes longer hangs [ns]; and how long it may take to end once it is to stop [s].
_HUNG = 2_000_000_000
_LAST_TICK = 5.0


@dataclass(frozen=True)
class Result:
    """
    What is published: a tick, or that there is none.

    :param tick: None: no required view has a fresh frame.
    :param task: the instruction, and the bundle's id of it (empty: not one of its own).
    :param instruction_sha256: see text.TaskFeatures.
    :param frame_id: of the reference view's newest image.
    :param frame_ids: of each view's image in this tick.
    :param started: monotonic time at which work on the set began [ns].
    """

    tick: Tick | None
    episode_id: int
    task: str
    task_id: str
    instruction_sha256: str
    status: Status
    decision: Decision
    stamp: int
    frame_id: str
    frame_ids: Mapping[str, str]
    started: int


@dataclass(frozen=True)
class Callbacks:
    """
    What a pipeline asks of the program around it; called from the worker.

    :param decode: camera message -> RGB image and frame_id; raises FrameError.
    :param clock: now on the clock of the stamps [ns].
    :param on_result: takes a result whose episode is still the current one; from the thread that
        calls `check_hang`, too. Holds a lock that callbacks of the cameras wait for: only publish.
    :param after_result: the same result, without the lock, for what may take longer.
    :param on_episode: takes the id of an episode that begins, before any result of it and after
        the last one of the episode before; from the thread that begins it, with the same lock.
    :param elapsed: a time that only grows [ns], by which is told how long something takes.
    """

    decode: Callable[[str, Any], tuple[Image, str]]
    clock: Callable[[], int]
    on_result: Callable[[Result], None]
    after_result: Callable[[Result], None]
    on_episode: Callable[[int], None] = lambda episode_id: None
    elapsed: Callable[[], int] = time.monotonic_ns


class Pipeline:
    """
    Run one encoder on the frames of its cameras.

    :param faults: where what is wrong is noted; those of a view begin with its name.
    :param required: views that a set waits for.
    :param stuck_after: a view that has shown the same image for longer is left out [ns]; 0:
        never.
    """

    def __init__(
        self,
        encoder: Encoder,
        callbacks: Callbacks,
        faults: Faults,
        *,
        required: tuple[str, ...],
        pairing: PairingRules,
        decision: DecisionRules,
        stuck_after: int = 0,
        task: str = '',
    ) -> None:
        self._encoder = encoder
        self._call = callbacks
        self._faults = faults
        # Each view's last image, and the stamp since when it has been the same.
        self._images: dict[str, tuple[Image, int]] = {}
        self._required = required
        self._wake = Condition()
        self._pairing: Pairing[Any] = Pairing(encoder.manifest.views, required, pairing)
        self._decision_rules = decision
        # The false-alarm rate of this episode alone; None: that of the rules.
        self._alpha: float | None = None
        self._stuck_after = stuck_after
        self._episode = encoder.start_episode(task, decision)
        self._newest = (0, '')
        # Which start the worker belongs to; 0: it is to end. One that hung ends once it returns.
        self._running = self._starts = 0
        self._thread: Thread | None = None
        self._tally = Tally(encoder.manifest.views)
        # Monotonic times: since when frames are waited for, and of the last result that was sent
        # in place of one of images; None: none was due [ns].
        self._waiting = 0
        # Of the last result of images: monotonic time, and time of the clock [ns].
        self._last_tick = 0, 0
        self._stale_since: int | None = None
        # How many sets in a row lacked a view that is alive.
        self._alone = 0
        # Since when the worker is in a tick; None: it is not.
        self._busy_since: int | None = None

    # Called by the program around it.

    def start(self, *, thread: bool = True) -> None:
        """
        Start the worker, with a new episode of the task.

        :param thread: False: there is none, and the caller does its work by calling `turn`.
        """
        with self._wake:
            self._pairing = Pairing(
                self._encoder.manifest.views, self._required, self._pairing.rules)
            self._tally = Tally(self._encoder.manifest.views)
            self._new_episode(self._episode.task.text)
            self._starts += 1
            self._running = self._starts
            self._busy_since = None
            self._waiting = self._stale_since = self._call.elapsed()
            self._last_tick = self._waiting, self._call.clock()
        if thread:
            self._thread = Thread(
                target=self._work, args=(self._starts,), name='hralign_worker', daemon=True)
            self._thread.start()

    def turn(self) -> None:
        """
        Do once what the worker does over and over: wait for a set, then run it.

        Without a set it returns after half a second at the latest, and says what is missing.
        """
        self._turn(self._running)

    def stop(self, timeout_s: float = _LAST_TICK) -> bool:
        """
        Stop the worker; the tick that is running is finished and thrown away.

        :returns: False: it did not end in time. Its thread is left behind and ends, without
            another word, when the model returns.
        """
        with self._wake:
            self._running = 0
            self._wake.notify_all()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout_s)
        self._faults.clear()
        return thread is None or not thread.is_alive()

    def check_hang(self) -> None:
        """
        Say that there is no fresh result while the worker cannot, being in a tick that hangs.

        To be called a few times a second, from another thread than the worker's.
        """
        with self._wake:
            elapsed = self._call.elapsed()
            if not self._running or self._busy_since is None \
                    or elapsed - self._busy_since <= max(self._pairing.rules.max_age, _HUNG):
                return
            due, since = self._stale_due(), elapsed - self._busy_since
        self._faults.bad('inference', (
            f'the model has not returned for {since * 1e-9:.1f} s: no embeddings, and ~/success '
            'says STALE. Check the load of the computer and its GPU, or restart the process'))
        self._check_silence()
        if due:
            self._repeat_stale()

    def offer(self, view: str, stamp: int, message: Any) -> None:
        """Put a view's newest frame into its slot; returns at once."""
        elapsed = self._call.elapsed()
        now = self._call.clock()
        with self._wake:
            if not self._running:
                return
            self._tally.arrived(view, elapsed)
            verdict = self._pairing.offer(
                view, Frame(stamp, message), now=now, elapsed=elapsed)
            if verdict is Verdict.TIME_RESET:
                self._wait_anew(elapsed)
                self._new_episode(self._episode.task.text, keep_start=False)
            if verdict in (Verdict.ACCEPTED, Verdict.REPLACED, Verdict.TIME_RESET):
                self._wake.notify()
        for key, verdicts in (('stamps', _STAMP_FAULTS), ('order', _ORDER_FAULTS)):
            self._faults.note(f'{view} {key}', verdicts.get(verdict, '').format(
                view=view, ahead=(stamp - now) * 1e-9, behind=(now - stamp) * 1e-9))

    def set_task(self, task: str, *, alpha: float | None = None) -> Episode:
        """
        Set the instruction and start a new episode.

        :param alpha: false-alarm rate that this one episode is decided by; None: the rules'.
        :raises TaskError: the instruction cannot be used; nothing has changed.
        """
        # Encoded before the lock is taken: a new text takes tens of milliseconds.
        self._encoder.text.encode(task)
        with self._wake:
            return self._new_episode(task, alpha=alpha)

    def start_episode(self) -> Episode:
        """Start a new episode of the same task."""
        with self._wake:
            return self._new_episode(self._episode.task.text)

    def time_jumped(self) -> None:
        """Forget all stamps and start a new episode, because the clock went back."""
        with self._wake:
            self._pairing.reset()
            self._wait_anew(self._call.elapsed())
            self._new_episode(self._episode.task.text, keep_start=False)

    def _wait_anew(self, elapsed: int) -> None:
        """Give cameras time to send again, if they have since they were last waited for."""
        if self._last_tick[0] > self._waiting:
            self._waiting = elapsed

    def update(
        self, pairing: PairingRules, decision: DecisionRules, *, stuck_after: int,
    ) -> None:
        """Change the rules while running."""
        with self._wake:
            self._pairing.rules = pairing
            self._decision_rules = decision
            self._episode.decider.rules = self._rules()
            self._stuck_after = stuck_after

    @property
    def episode(self) -> Episode:
        """Give the current episode."""
        return self._episode

    def statistics(self) -> Statistics:
        """Take stock."""
        now, elapsed = self._call.clock(), self._call.elapsed()
        with self._wake:
            views = self._encoder.manifest.views
            ages = {view: self._pairing.age(view, now) for view in views}
            return Statistics(
                views={view: self._pairing.counts(view) for view in views},
                ages={view: None if age is None else age * 1e-9 for view, age in ages.items()},
                fresh={view: self._pairing.fresh(view, now, elapsed) for view in views},
                waiting=elapsed - self._waiting <= self._pairing.rules.max_age,
                blind=not self._pairing.any_required_fresh(now, elapsed),
                rates=self._tally.rates(elapsed), ticks=Counter(self._tally.ticks),
                latency=tuple(self._tally.latency), processing=tuple(self._tally.processing),
                rate=self._tally.rate(elapsed),
                skew=self._pairing.last_skew * 1e-9, episode_id=self._episode.episode_id,
                task=self._episode.task.text)

    def _new_episode(
        self, task: str, *, keep_start: bool = True, alpha: float | None = None,
    ) -> Episode:
        """Begin a new episode; the lock is held."""
        self._alpha = alpha
        self._episode = self._encoder.start_episode(task, self._rules())
        self._newest = (0, self._newest[1])
        if keep_start:
            self._pairing.start_episode(self._call.clock())
        self._call.on_episode(self._episode.episode_id)
        return self._episode

    def _rules(self) -> DecisionRules:
        """Give the rules that the current episode is decided by."""
        rules = self._decision_rules
        return rules if self._alpha is None else replace(rules, alpha=self._alpha)

    # Run by the worker.

    def _work(self, start: int) -> None:
        """Take matched sets until stopped, or started again without waiting for this thread."""
        try:
            # What the node's thread has recorded is of no use to this one.
            if self._encoder.records:
                self._encoder.warm_up()
        except InferenceError as error:
            self._faults.bad('inference', str(error))
        except Exception:  # no memory left, say
            self._faults.bad('internal error', traceback.format_exc())
        while self._running == start:
            self._turn(start)

    def _turn(self, start: int) -> None:
        """Do what there is to do, and say what is missed whatever became of that."""
        for part in (self._next_set, self._say_what_is_missed):
            try:
                part(start)
            except Exception:  # a fault of ours must not end the node
                self._tally.ticks['internal_error'] += 1
                self._faults.bad('internal error', traceback.format_exc())
                time.sleep(_BREATH)
        self._faults.settle()

    def _next_set(self, start: int) -> None:
        """Wait for a set, or for the time to say that there is none; then do it."""
        with self._wake:
            matched = self._take()
            if self._running == start and matched is None and not self._stale_due():
                self._wake.wait(self._patience())
                matched = self._take()
            if self._running != start:
                return
            episode = self._episode
            self._busy_since = None if matched is None else self._call.elapsed()
        if matched is not None:
            try:
                self._tick(episode, matched)
            finally:
                with self._wake:
                    if self._running == start:
                        self._busy_since = None

    def _say_what_is_missed(self, start: int) -> None:
        """Note silent views; publish STALE, also where frames come and none can be used."""
        if self._running != start:
            return
        self._check_silence()
        with self._wake:
            due = self._running == start and self._stale_due()
        if due:
            self._repeat_stale()

    def _take(self) -> _Set | None:
        """Take a matched set, if there is one; the lock is held."""
        return self._pairing.take(now=self._call.clock(), elapsed=self._call.elapsed())

    def _patience(self) -> float:
        """Seconds until there may be something to do without a new frame; the lock is held."""
        until = self._pairing.wait_until()
        wait = STALE_PERIOD if until is None else max(until - self._call.elapsed(), 1_000_000)
        return min(wait, STALE_PERIOD) * 1e-9

    def _stale_due(self) -> bool:
        """Whether it is time to say that nothing fresh is seen; the lock is held."""
        now, elapsed = self._call.clock(), self._call.elapsed()
        rules = self._pairing.rules
        last, last_clock = self._last_tick
        # Without a result for too long by both clocks: simulated time may be slow. By real time
        # alone once that is what a camera would be given up for, as it may not advance at all.
        missed = elapsed - last > max(rules.max_age, STALE_PERIOD) and (
            abs(now - last_clock) > rules.max_age or elapsed - last > rules.standstill)
        if self._pairing.any_required_fresh(now, elapsed) and not missed:
            self._stale_since = None
            return False
        # Say it at once when it begins, then every period.
        return self._stale_since is None or elapsed - self._stale_since >= STALE_PERIOD

    def _check_silence(self) -> None:
        """Note views that have sent nothing for too long."""
        with self._wake:
            now, elapsed = self._call.clock(), self._call.elapsed()
            rules = self._pairing.rules
            if elapsed - self._waiting < rules.max_age:
                return
            seeing = self._pairing.any_required_fresh(now, elapsed)
            ages = {view: self._pairing.age(view, now) for view in self._encoder.manifest.views
                    if not self._pairing.fresh(view, now, elapsed)}
        for view in self._encoder.manifest.views:
            age = ages.get(view)
            self._faults.note(f'{view} silence', '' if view not in ages else f'view {view}: ' + (
                'no frame has come' if age is None
                else 'no frame comes, and the clock does not advance' if age <= rules.max_age
                else f'the newest frame is {age * 1e-9:.1f} s old') + (
                    '; results continue without it' if seeing else '; there are no results'))

    def _repeat_stale(self) -> None:
        """Publish that there is no result of fresh images, in the episode that is now."""
        with self._wake:
            self._tally.ticks['stale'] += 1
            self._stale_since = self._call.elapsed()
            self._hand_over(self._episode, None, self._stale_since)

    def _tick(self, episode: Episode, matched: _Set) -> None:
        """Decode, infer and hand over one set."""
        started = self._call.elapsed()
        self._check_partners(matched)
        images, frame_ids = self._decode(matched)
        if not any(view in images for view in self._required):
            self._tally.ticks['no_image'] += 1
            return
        self._check_frame_ids(frame_ids)
        stamps = {view: matched[view].stamp for view in images}
        if max(stamps.values()) <= episode.newest:
            # What made this set newer than the last was an image that cannot be used.
            self._tally.ticks['nothing_newer'] += 1
            return
        try:
            tick = episode.step(images, stamps, max_age=self._pairing.rules.max_age * 1e-9)
        except InferenceError as error:
            self._tally.ticks['inference_error'] += 1
            self._faults.bad('inference', str(error))
            return
        for key in ('inference', 'internal error'):
            self._faults.good(key)
        reference = self._encoder.manifest.reference_view
        # A set without it keeps its name: results of a slower reference camera have one frame.
        frame_id = frame_ids.get(reference) or self._newest[1] or next(iter(frame_ids.values()))
        with self._wake:
            if episode is self._episode:
                self._last_tick = self._call.elapsed(), self._call.clock()
                self._newest = (tick.stamp, frame_id)
        self._hand_over(episode, tick, started, frame_ids)

    def _decode(self, matched: _Set) -> tuple[dict[str, Image], dict[str, str]]:
        """Decode a set's frames; those that cannot be used are counted and left out."""
        images, frame_ids = {}, {}
        for view, frame in matched.items():
            try:
                image, frame_id = self._call.decode(view, frame.payload)
                self._refuse_stuck(view, image, frame.stamp)
            except FrameError as error:
                with self._wake:
                    self._pairing.count_drop(view, error.reason)
                self._faults.bad(f'{view} images', f'view {view}: {error}')
            else:
                images[view], frame_ids[view] = image, frame_id
                self._faults.good(f'{view} images')
        return images, frame_ids

    def _refuse_stuck(self, view: str, image: Image, stamp: int) -> None:
        """
        Refuse an image that has been the same for too long: its stamp is newer than its pixels.

        No sensor repeats itself to the bit, so this is a driver that sends its last buffer again.

        :raises FrameError: the camera is stuck.
        """
        before, since = self._images.get(view, (None, stamp))
        # Few pixels first: of a live camera they differ.
        repeated = before is not None and before.shape == image.shape and since <= stamp \
            and np.array_equal(before[::16, ::16], image[::16, ::16]) \
            and np.array_equal(before, image)
        if not repeated:
            self._images[view] = (image, stamp)
        elif 0 < self._stuck_after <= stamp - since:
            raise FrameError('stuck', (
                f'the same image, to the bit, for {(stamp - since) * 1e-9:.1f} s under new '
                'stamps; restart the camera driver. Where images may truly repeat, as in '
                'simulation without noise, set stuck_after_s to 0'))

    def _check_frame_ids(self, frame_ids: Mapping[str, str]) -> None:
        """Note cameras without a name, or with one and the same."""
        for view, frame_id in frame_ids.items():
            same = [other for other, its in frame_ids.items() if its == frame_id]
            self._faults.note(f'{view} frame_id', (
                f'view {view}: frame_id is empty; set it in the camera driver to the name of the '
                "camera's optical frame" if not frame_id else
                f"views {' and '.join(same)} both come from frame '{frame_id}'; is the same "
                'camera remapped to both?' if len(same) > 1 else ''))

    def _check_partners(self, matched: _Set) -> None:
        """Note that live cameras do not match: nearly always their clocks differ."""
        with self._wake:
            now, elapsed = self._call.clock(), self._call.elapsed()
            alive = [view for view in self._encoder.manifest.views
                     if self._pairing.fresh(view, now, elapsed)]
            # Many sets without it, and many of its frames in none: not one that is merely slow.
            lacking = [view for view in alive if view not in matched]
            self._alone = self._alone + 1 if lacking else 0
            lacking = [view for view in lacking if self._alone >= _ALONE
                       and self._pairing.unmatched(view) >= _ALONE]
            ages = [self._pairing.age(view, now) or 0 for view in alive]
            tolerance = self._pairing.rules.tolerance
        if all(view in matched for view in alive):
            self._faults.good(PAIRING)
        elif lacking:
            late = ', '.join(view for view in lacking if view not in self._required)
            self._faults.bad(PAIRING, (
                f'the last {self._alone} sets were without {", ".join(lacking)}, which does send: '
                f'stamps are {(max(ages) - min(ages)) * 1e-6:.0f} ms apart, '
                f'{tolerance * 1e-6:.0f} ms are allowed. '
                "Synchronise the cameras' clocks; where the images of one only take longer to "
                'come, raise tolerance_s above that (hralign doctor says what is needed)'
                + (f'; or, where {late} only comes later, set its required to true, so that sets '
                   'wait for it' if late else '')))

    def _hand_over(
        self, episode: Episode, tick: Tick | None, started: int,
        frame_ids: Mapping[str, str] = {},  # noqa: B006  # never changed
    ) -> None:
        """Hand a result over unless a new episode has begun."""
        with self._wake:
            if episode is not self._episode or not self._running:
                self._tally.ticks['outdated'] += 1
                return
            status, decision = (tick.status, tick.decision) if tick else episode.without_frames()
            stamp, frame_id = self._newest
            result = Result(
                tick=tick, episode_id=episode.episode_id, task=episode.task.text,
                task_id=episode.task.task.task_id if episode.task.known else '',
                instruction_sha256=episode.task.instruction_sha256, status=status,
                decision=decision, stamp=stamp, frame_id=frame_id, frame_ids=frame_ids,
                started=started)
            self._call.on_result(result)
            if tick is None:
                return
            finished = self._call.elapsed()
            self._tally.published(finished, latency=self._call.clock() - tick.stamp,
                                  processing=finished - started)
        self._call.after_result(result)


_STAMP_FAULTS = {
    Verdict.ZERO_STAMP: 'view {view}: frames come without a stamp; fix the camera driver, or '
                        'set stamp_source to arrival',
    Verdict.FUTURE_STAMP: 'view {view}: frames are stamped {ahead:.3f} s ahead of the clock; '
                          'synchronise the clocks, set use_sim_time only where something '
                          'publishes /clock, or set stamp_source to arrival',
    Verdict.TOO_OLD: 'view {view}: frames are {behind:.3f} s old when they come; synchronise the '
                     'clocks, set use_sim_time for a bag, set stamp_source to arrival for a '
                     'driver that counts from its start, or raise max_age_s',
}

_ORDER_FAULTS = {
    Verdict.REPEATED_STAMP: 'view {view}: frames come again under the same stamp; fix the camera '
                            'driver, or stop a second publisher',
    Verdict.BACKWARD_STAMP: 'view {view}: frames come with older stamps than before; fix the '
                            'camera driver, or stop a second publisher',
}

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a task's map and thresholds guarantee where they rest on few clips."""

from hralign_ros.calibration.conformal import decided
from hralign_ros.calibration.few_clips import calibrate_few, EVEN, TaskClip
from hralign_ros.calibration.maps import choose, fit_few
from hralign_ros.data.manifest import DataError
from hralign_ros.runtime.tasks import Calibration, FALLBACK, probability_of, Task
import numpy as np
import pytest

VIEWS = frozenset('a')
STEP_S = 0.2


def fallback(thresholds=None):
    """Make the fallback task with a calibration by one view, or without any."""
    return Task(FALLBACK, FALLBACK, calibrations=() if thresholds is None else (
        Calibration(('a',), 'platt', {'scale': 1.0, 'shift': 0.0}, thresholds),))


def clip(rng, succeeds, frames=30, *, looks_done=4, apart=4.0):
    """Draw a clip whose last 4 ticks are accomplished and the 6 before unknown, with scores."""
    done = np.zeros(frames, np.float32)
    scores = rng.normal(-apart, 0.5, frames)
    if succeeds:
        done[-10:], done[-4:] = np.nan, 1.0
        scores[-looks_done:] += 2 * apart
    times = np.arange(frames) * STEP_S
    return TaskClip('', np.zeros((frames, 1), np.float32), times, done), scores


def clips(rng, count, **how):
    return [clip(rng, succeeds, **how) for _ in range(count) for succeeds in (True, False)]


def thresholds_of(found):
    return dict(found.thresholds)


def test_thresholds_do_not_fall_with_alpha():
    """
    Guards who asks for fewer alarms: with an alpha of .01 nearly any probability was a SUCCESS.

    Ten clips guarantee nothing for it, and the fallback had no threshold for that rate either,
    so that of the failures' own levels stood, lower than the one for .05. Clips that are too short
    to show anything before the success guarantee nothing either.
    """
    rng = np.random.default_rng(0)
    some = clips(rng, 10)
    every = {0.01: 0.7, 0.05: 0.6, 0.1: 0.3}
    found = thresholds_of(calibrate_few(VIEWS, some, fallback(every)))
    assert found[0.01] >= 0.7 and found[0.05] >= 0.6
    assert found[0.01] >= found[0.05] >= found[0.1] >= EVEN
    short = [clip(rng, True, 6) for _ in range(25)]
    bad = [one for one in some if not one[0].succeeds]
    few = calibrate_few(VIEWS, [*bad, *bad, *short], fallback(every))
    assert few.succeeded == 0 and few.grounds[0.05] == 'own and fallback'


def test_no_rate_without_anything_behind_it():
    """
    Guards an alpha of .01 from two clips: their own levels stood for it, next to 0.

    What neither the clips nor the fallback task can guarantee has no threshold: ABSTAIN, as in a
    bundle that was calibrated on as little.
    """
    rng = np.random.default_rng(1)
    said = []
    assert not calibrate_few(VIEWS, clips(rng, 2), fallback(), said.append).thresholds
    assert said == ['a: no threshold for an alpha of 0.05, so decisions will be ABSTAIN there: 19 '
                    'clips of each kind are needed, longer than the dwell time']
    assert set(thresholds_of(calibrate_few(
        VIEWS, clips(rng, 10), fallback({0.05: 0.6, 0.1: 0.5})))) == {0.05, 0.1}
    assert set(thresholds_of(calibrate_few(VIEWS, clips(rng, 20), fallback()))) == {0.05, 0.1}


def test_what_is_told_apart_with_ease_still_needs_to_be_likely():
    """Guards the first failure unlike the clips: of clips apart by far the threshold was 1e-6."""
    found = calibrate_few(VIEWS, clips(np.random.default_rng(2), 25, apart=12.0), fallback())
    assert found.grounds == {0.05: 'own', 0.1: 'own'}
    assert set(thresholds_of(found).values()) == {EVEN}


def test_too_early_is_also_what_nobody_knows():
    """
    Guards the guarantee about early decisions: it looked away where they happen.

    Of the 1.2 s before a clip's accomplished end nobody knows, and they were taken for
    accomplished: heads that were a second early in every clip had a threshold of their own for
    5 %, and decided all of them too early.
    """
    rng = np.random.default_rng(3)
    found = calibrate_few(VIEWS, clips(rng, 40, looks_done=9), fallback())
    threshold = thresholds_of(found)[0.05]
    early = 0
    for _ in range(100):
        new, scores = clip(rng, True, looks_done=9)
        probability = probability_of(found.method, found.parameters, scores)
        row = decided(np.round(new.time_s * 1e9).astype(np.int64), probability, threshold)
        early += row is not None and row < int((new.done == 1).argmax())
    assert found.succeeded == 40 and early <= 12


def test_a_clip_that_goes_on_for_long_is_named(clip_that_runs_on=3):
    """
    Guards recordings that were stopped late: one of them sets a threshold that misses most.

    What it shows 1 to 2 s before its end is accomplished in truth, and counts as too early. That
    is on the safe side; but nobody was told, and the node seemed not to know the task.
    """
    rng = np.random.default_rng(5)
    some = clips(rng, 10)
    said = []
    usual = thresholds_of(calibrate_few(VIEWS, some, fallback({0.05: 0.6}), said.append))[0.05]
    assert usual == 0.6 and '0 of the 10 successes would be missed' in said[0] and len(said) == 1
    late, scores = clip(rng, True, looks_done=9)
    some[2 * clip_that_runs_on] = TaskClip('late', late.video, late.time_s, late.done), scores
    said.clear()
    high = thresholds_of(calibrate_few(VIEWS, some, fallback({0.05: 0.6}), said.append))[0.05]
    assert high > 0.6 and ' 0 of the 10 successes' not in said[0]
    assert said[1].startswith('  success late sets it') and 'raise success_tail_s' in said[1]


def test_scores_that_fall_with_success_decide_nothing():
    """
    Guards two clips of a kind: of scores the wrong way round everything was .79 likely.

    The slope was set to nearly 0, and the rest of the line stayed where it was.
    """
    few = fit_few([np.array([7.0, 7.5]), np.array([8.0, 8.5])],
                  [np.array([False, True]), np.array([False, False])])
    assert few.apply(np.array([-8.0, 8.0])) == pytest.approx([0.35, 0.35], abs=0.1)
    rng, said = np.random.default_rng(6), []
    turned = [(c, -s) for c, s in clips(rng, 20)]
    assert not calibrate_few(VIEWS, turned, fallback({0.05: 0.6}), said.append).thresholds
    assert 'scores do not rise with success' in said[0]


@pytest.mark.parametrize('count', [2, 5, 10])
def test_few_clips_are_sure_of_little(count):
    """
    Guards probabilities of new tasks: ticks of one clip counted as if each were another attempt.

    With clips that differ from one another, 5 to 14 % of what was called .99 sure was wrong.
    """
    rng = np.random.default_rng(4)

    def draw(number):
        done = [np.full(4 if good else 20, good) for good in (True, False) for _ in range(number)]
        return [rng.normal(1.5 if d[0] else -2.0, 0.5, len(d)) + rng.normal(0, 1.5)
                for d in done], done

    new, truth = map(np.concatenate, draw(500))
    wrong, wrong_before, sure = 0, 0, 0
    for _ in range(20):
        scores, done = draw(count)
        few = fit_few(scores, done)
        assert (few.method, few.episodes) == ('platt', 2 * count)
        before = choose(np.concatenate(scores), np.concatenate(done), np.repeat(
            np.arange(2 * count).astype(str), [len(d) for d in done]), methods=('platt',))
        for_sure, for_sure_before = few.apply(new) > 0.99, before.apply(new) > 0.99
        sure += for_sure.sum()
        wrong += (for_sure & ~truth).sum()
        wrong_before += (for_sure_before & ~truth).sum()
    assert wrong <= 0.5 * wrong_before and wrong <= 0.05 * max(sure, 1)


def test_clips_of_one_kind():
    """Guards clips of which all known ticks are the same: nothing can be fitted to those."""
    with pytest.raises(DataError, match='rows that are accomplished and rows that are not'):
        fit_few([np.zeros(3)], [np.zeros(3, bool)])

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Ways to fail: six that differ from each other and from the expert's, drawn from a generator."""

from hralign_ros.simulation.behaviour import Behaviour, EXPERT, FAULTS, IDLE, make_behaviour
import numpy as np
import pytest


def draws(kind, count=200):
    rng = np.random.default_rng(3)
    return [make_behaviour(kind, rng) for _ in range(count)]


@pytest.mark.parametrize('kind', [EXPERT, IDLE, *FAULTS])
def test_drawn_from_the_generator(kind):
    """Guards a resumed data set: the same generator gives the same episode."""
    assert draws(kind) == draws(kind)
    assert {b.kind for b in draws(kind)} == {kind}


@pytest.mark.parametrize(('kind', 'least', 'most'), [
    ('wrong_place', 0.09, 0.16), ('near_miss', 0.035, 0.06)])
def test_how_far_it_misses(kind, least, most):
    """Guards the two misses: one by a hand's breadth, one by an object's, to every side."""
    offsets = np.array([b.offset for b in draws(kind)])
    aside = np.hypot(*offsets.T[:2])
    assert least <= aside.min() and aside.max() <= most and np.ptp(aside) > 0.7 * (most - least)
    assert offsets[:, 2].min() >= 0, 'never into the table'
    quarters = {(x > 0, y > 0) for x, y, _ in offsets}
    assert len(quarters) == 4
    assert {(b.start, b.noise) for b in draws(kind)} == {(0.0, 0.0)}


@pytest.mark.parametrize('kind', ['stops_early', 'drops'])
def test_when_it_begins(kind):
    """Guards faults on the way: they begin after the start and before the end."""
    starts = np.array([b.start for b in draws(kind)])
    assert 0.3 < starts.min() and starts.max() < 0.9 and np.ptp(starts) > 0.2
    assert {b.offset for b in draws(kind)} == {(0.0, 0.0, 0.0)}


def test_the_expert_trembles_less():
    """Guards the difference between a good attempt and the fault `noise`: tenfold."""
    assert {b.noise for b in draws(EXPERT)} == {0.08}
    assert min(b.noise for b in draws('noise')) > 10 * 0.08
    assert {b.noise for b in draws('no_grasp')} == {0.0}


def test_six_faults():
    """Guards the labels: six names, none of them the expert's."""
    assert len(set(FAULTS)) == 6 and EXPERT not in FAULTS
    assert make_behaviour('no_grasp', np.random.default_rng(0)) == Behaviour('no_grasp')

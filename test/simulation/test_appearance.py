# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Scenes: a pure function of their name, each of its kind, another take of the same place."""

from dataclasses import fields, replace
from functools import cache

from hralign_ros.runtime.errors import DataError
from hralign_ros.simulation.appearance import (
    make_appearance,
    make_perturbation,
    PERTURBATIONS,
    re_render,
    TEXTURE_SIZE,
)
import numpy as np
import pytest

KINDS = ('train', 'validation', 'test', 'view', 'distractor')
COUNT = 6
# What differs from take to take of one scene.
KNOCKED = {'bearing_deg', 'elevation_deg', 'distance', 'light', 'lightness', 'elbow_deg',
           'tilt_deg'}


@cache
def appearances(kind):
    return [make_appearance(f'{kind}-{i:02d}') for i in range(COUNT)]


def same(one, other, name):
    one, other = getattr(one, name), getattr(other, name)
    if name == 'textures':
        return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    return one == other


def test_a_scene_is_its_name():
    """Guards a resumed data set: the same place again; another number is another place."""
    first, second = appearances('train')[:2]
    again = make_appearance('train-00')
    assert all(same(first, again, field.name) for field in fields(first))
    assert not any(same(first, second, name) for name in (
        'bearing_deg', 'textures', 'tints', 'sleeve', 'light', 'elbow_deg'))


@pytest.mark.parametrize('kind', KINDS)
def test_values_are_what_a_renderer_takes(kind):
    """Guards the image: colours from 0 to 1, whole textures, light from above."""
    for appearance in appearances(kind):
        assert [t.shape for t in appearance.textures] == [(TEXTURE_SIZE, TEXTURE_SIZE, 3)] * 3
        assert all(t.dtype == np.uint8 for t in appearance.textures)
        colours = np.array([appearance.skin, appearance.sleeve,
                            *(d.colour for d in appearance.distractors)])
        assert colours.min() >= 0 and colours.max() <= 1
        assert len(appearance.tints) == 3 and np.min(appearance.tints) > 0.5
        assert np.linalg.norm(appearance.light) == pytest.approx(1.0)
        assert appearance.light[2] < -0.6
        assert abs(appearance.elbow_deg) <= 65 and 22 <= appearance.tilt_deg <= 50


def test_views_are_new_views():
    """Guards test_view: its cameras stand where no other kind of scene has one."""
    usual = [appearance for kind in KINDS if kind != 'view' for appearance in appearances(kind)]
    # Another take moves a camera by a degree or so.
    assert min(abs(v.bearing_deg) for v in appearances('view')) > max(
        abs(u.bearing_deg) for u in usual) + 5
    assert min(v.elevation_deg for v in appearances('view')) >= max(u.elevation_deg for u in usual)
    assert {np.sign(appearance.bearing_deg)
            for appearance in usual} == {-1, 1}, 'cameras on either side'


def test_only_distractor_scenes_have_distractors():
    """Guards test_distractor: three things or more, off the middle; elsewhere there are none."""
    for kind in KINDS:
        for appearance in appearances(kind):
            assert (3 <= len(appearance.distractors) <= 5) if kind == 'distractor' \
                else not appearance.distractors
    things = [d for appearance in appearances('distractor') for d in appearance.distractors]
    assert {d.kind for d in things} == {'box', 'cylinder', 'sphere'}
    for thing in things:
        x, y = thing.position
        assert np.hypot(x, y / 0.7) >= 0.27 - 1e-9 and 0.02 <= thing.size <= 0.045


def test_people_differ():
    """Guards the variety of hands: skin and sleeves of a dozen scenes are not all alike."""
    some = [appearance for kind in ('train', 'test') for appearance in appearances(kind)]
    assert len({one.skin for one in some}) == len({one.sleeve for one in some}) == len(some)
    assert np.ptp([np.mean(appearance.skin) for appearance in some]) > 0.2


def test_re_render():
    """Guards a pair of clips: the same place and person, camera and light a little different."""
    rng = np.random.default_rng(0)
    for appearance in appearances('train'):
        take, other = re_render(appearance, rng), re_render(appearance, rng)
        changed = {f.name for f in fields(appearance) if not same(appearance, take, f.name)}
        assert changed == KNOCKED
        assert take != replace(other, textures=take.textures), 'two takes differ'
        assert abs(take.bearing_deg - appearance.bearing_deg) < 6
        assert abs(take.distance / appearance.distance - 1) <= 0.02
        assert np.linalg.norm(take.light) == pytest.approx(1.0)
        assert np.dot(take.light, appearance.light) > 0.9


@pytest.mark.parametrize('kind', PERTURBATIONS)
def test_a_perturbation_is_long_and_strong_enough_to_perturb(kind):
    """Guards the streams: each changes its own thing, for a good part of the video."""
    rng = np.random.default_rng(4)
    for frames in (1, 9, 60):
        for drawn in (make_perturbation(kind, frames, rng) for _ in range(20)):
            assert drawn.light.shape == (frames,) and drawn.cover.shape == (frames, 3)
            covered = drawn.cover[:, 2].mean()
            if kind == 'lights':
                assert covered == 0 and 0.003 < drawn.light.min() and drawn.light.max() < 11
            else:
                assert (drawn.light == 1).all() and covered > 0.1
    assert np.ptp(make_perturbation('lights', 60, np.random.default_rng(4)).light) > 0.2
    with pytest.raises(ValueError, match='fog'):
        make_perturbation('fog', 3, rng)


LAB_CHANGES = {'10deg': {'bearing_deg'}, '12.5cm': {'aside'}, 'light': {'light', 'lightness'},
               'table': {'textures'}}


@pytest.mark.parametrize('change', LAB_CHANGES)
def test_a_lab_with_one_thing_changed(change):
    """Guards tests of what a head was not taught: the same lab but for what the name says."""
    lab, changed = make_appearance('lab-1'), make_appearance(f'lab-1@{change}')
    differ = {f.name for f in fields(lab) if not same(lab, changed, f.name)}
    assert differ == {'name'} | LAB_CHANGES[change]
    if change == '10deg':
        assert changed.bearing_deg == pytest.approx(lab.bearing_deg + 10.0)
    elif change == '12.5cm':
        assert changed.aside == pytest.approx(0.125)
    elif change == 'table':
        assert all(np.array_equal(a, b) for a, b in zip(
            lab.textures[1:], changed.textures[1:], strict=True)), 'floor and walls stay'


def test_an_unknown_change_is_refused():
    """Guards a name with a typing error: it is no new lab."""
    for name in ('lab-1@10', 'lab-1@tabel', 'lab-1@-3cm'):
        with pytest.raises(DataError, match='degrees.*centimetres.*light, table and distractors'):
            make_appearance(name)

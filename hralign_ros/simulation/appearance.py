# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How a scene looks: camera, light, surfaces, colours, the person; a pure function of its name."""

from dataclasses import dataclass, replace
import re
from zlib import crc32

from hralign_ros.runtime.errors import DataError
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

TEXTURE_SIZE = 256
PERTURBATIONS = ('lights', 'occluded')
# Where the third-person camera stands, degrees from straight behind the robot, to either side.
_BEARINGS = {'view': (88.0, 118.0)}
_USUAL_BEARINGS = (30.0, 80.0)
_ELEVATIONS = {'view': (38.0, 52.0)}
_USUAL_ELEVATIONS = (20.0, 38.0)
# Who sets up a camera in a lab sees to it that the work fills the image and is well lit.
LAB = 'lab'
_DISTANCES = {LAB: (0.7, 0.85)}
_USUAL_DISTANCES = (0.85, 1.2)
_LIGHTNESS = {LAB: ((0.45, 0.65), (0.3, 0.4))}
_USUAL_LIGHTNESS = ((0.3, 0.65), (0.2, 0.4))
_SKIN = ((0.96, 0.80, 0.69), (0.89, 0.69, 0.55), (0.78, 0.57, 0.42), (0.63, 0.43, 0.30),
         (0.45, 0.30, 0.21), (0.31, 0.20, 0.14))
_PATTERNS = ('plain', 'grain', 'tiles', 'speckles', 'stripes', 'clouds')


@dataclass(frozen=True)
class Shape:
    """A distractor: a static thing on the table; kind box, cylinder or sphere."""

    kind: str
    size: float
    position: tuple[float, float]
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class Appearance:
    """
    One scene.

    :param bearing_deg: of the camera, from straight behind the robot; positive to its right.
    :param elevation_deg: of the camera above the table.
    :param distance: factor on the task's own camera distance.
    :param target: [3] metres added to the point looked at.
    :param aside: metres by which the camera stands to the right, looking the same way.
    :param light: [3] direction the light shines in.
    :param lightness: of that light, and of the light from everywhere.
    :param textures: of table, floor and walls, [256, 256, 3] each.
    :param tints: three factors on the colours of the task's own objects.
    :param robot: colour that the brightness of each part of the robot is given.
    :param elbow_deg: where the elbow is, from straight behind the robot's place.
    :param tilt_deg: how far the hand leans towards the elbow.
    """

    name: str
    bearing_deg: float
    elevation_deg: float
    distance: float
    target: tuple[float, float, float]
    light: tuple[float, float, float]
    lightness: tuple[float, float]
    textures: tuple[Pixels, Pixels, Pixels]
    tints: tuple[tuple[float, float, float], ...]
    robot: tuple[float, float, float]
    skin: tuple[float, float, float]
    sleeve: tuple[float, float, float]
    sleeve_from: float
    elbow_deg: float
    tilt_deg: float
    distractors: tuple[Shape, ...]
    aside: float = 0.0


def make_appearance(scene: str) -> Appearance:
    """
    Make the scene of a name, always the same one.

    :param scene: <kind>-<number>; the kind decides where the camera may stand and whether there
        are distractors. <kind>-<number>@<change> is that scene with one thing changed: @10deg or
        @10cm, the third-person camera moved by so much; @light, another light; @table, another
        table; @distractors, four things lie about.
    :raises DataError: another change.
    """
    place, _, change = scene.partition('@')
    made = _draw(place)
    if not change:
        return made
    made = replace(made, name=scene)
    if moved := re.fullmatch(r'(\d+(?:\.\d+)?)(deg|cm)', change):
        amount = float(moved[1])
        return replace(made, bearing_deg=made.bearing_deg + amount) if moved[2] == 'deg' \
            else replace(made, aside=amount / 100.0)
    other = _draw(scene)
    if change == 'light':
        return replace(made, light=other.light, lightness=other.lightness)
    if change == 'table':
        return replace(made, textures=(other.textures[0], *made.textures[1:]))
    if change == 'distractors':
        rng = np.random.default_rng(crc32(scene.encode()))
        return replace(made, distractors=tuple(_distractor(rng) for _ in range(4)))
    raise DataError(f"scene '{scene}': after @, allowed are degrees (@10deg), centimetres "
                    '(@10cm), light, table and distractors')


def _draw(scene: str) -> Appearance:
    kind = scene.partition('@')[0].rsplit('-', 1)[0]
    rng = np.random.default_rng(crc32(scene.encode()))
    lightness = _LIGHTNESS.get(kind, _USUAL_LIGHTNESS)
    side = rng.choice((-1.0, 1.0))
    skin = np.array(_SKIN[rng.integers(len(_SKIN))]) * rng.uniform(0.92, 1.08)
    light = np.array([rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.7), -1.0])
    distractors = tuple(_distractor(rng) for _ in range(rng.integers(3, 6))) \
        if kind == 'distractor' else ()
    return Appearance(
        name=scene,
        bearing_deg=side * rng.uniform(*_BEARINGS.get(kind, _USUAL_BEARINGS)),
        elevation_deg=rng.uniform(*_ELEVATIONS.get(kind, _USUAL_ELEVATIONS)),
        distance=rng.uniform(*_DISTANCES.get(kind, _USUAL_DISTANCES)),
        target=_triple(rng.uniform(-0.04, 0.04, 3)),
        light=_triple(light / np.linalg.norm(light)),
        lightness=(rng.uniform(*lightness[0]), rng.uniform(*lightness[1])),
        textures=(_texture(rng), _texture(rng), _texture(rng)),
        tints=tuple(_triple(rng.uniform(0.55, 1.25, 3)) for _ in range(3)),
        robot=_triple(np.clip(rng.uniform(0.4, 1.5) * rng.uniform(0.6, 1.0, 3), 0.25, 1.5)),
        skin=_triple(np.clip(skin, 0.0, 1.0)), sleeve=_triple(rng.uniform(0.05, 0.95, 3)),
        sleeve_from=rng.uniform(0.03, 0.75), elbow_deg=rng.uniform(-65.0, 65.0),
        tilt_deg=rng.uniform(22.0, 50.0), distractors=distractors)


def re_render(appearance: Appearance, rng: np.random.Generator) -> Appearance:
    """Video the same scene again: the light a little different, the camera knocked slightly."""
    light = np.array(appearance.light) + rng.normal(0.0, 0.06, 3)
    return replace(
        appearance,
        bearing_deg=appearance.bearing_deg + rng.normal(0.0, 1.2),
        elevation_deg=appearance.elevation_deg + rng.normal(0.0, 0.8),
        distance=appearance.distance * rng.uniform(0.98, 1.02),
        light=_triple(light / np.linalg.norm(light)),
        lightness=(appearance.lightness[0] * rng.uniform(0.9, 1.1),
                   appearance.lightness[1] * rng.uniform(0.9, 1.1)),
        elbow_deg=appearance.elbow_deg + rng.normal(0.0, 8.0),
        tilt_deg=appearance.tilt_deg + rng.normal(0.0, 4.0))


@dataclass(frozen=True, eq=False)
class Perturbation:
    """
    What happens to an image while it is recorded, though nothing happens to the task.

    :param light: [F] factor on all light.
    :param cover: [F][3] where a dark thing is before the third-person camera: right and up as
        parts of the image's half height, and 1 or 0 for being there at all.
    """

    light: Floats
    cover: Floats


def make_perturbation(kind: str, frames: int, rng: np.random.Generator) -> Perturbation:
    """
    Draw a perturbation.

    :param kind: lights (switched or dimmed, one to three times), or occluded (something stands
        between camera and table for a fifth to two thirds of the time).
    :raises ValueError: another kind.
    """
    light, cover = np.ones(frames), np.zeros((frames, 3))
    if kind == 'lights':
        for _ in range(rng.integers(1, 4)):
            start, ramp = rng.integers(frames), rng.integers(1, 8)
            level = rng.choice((rng.uniform(0.15, 0.6), rng.uniform(1.4, 2.2)))
            part = np.clip((np.arange(frames) - start) / ramp, 0.0, 1.0)
            light = light * (1 - part) + level * part
    elif kind == 'occluded':
        length = max(1, int(frames * rng.uniform(0.2, 0.67)))
        start = rng.integers(max(1, frames - length))
        drift = np.linspace(-1.0, 1.0, length)[:, None] * rng.uniform(-0.4, 0.4, 2)
        cover[start:start + length, :2] = rng.uniform(-0.3, 0.3, 2) + drift
        cover[start:start + length, 2] = 1.0
    else:
        raise ValueError(f"perturbation '{kind}'; allowed: {', '.join(PERTURBATIONS)}")
    return Perturbation(light, cover)


def _triple(values: Floats) -> tuple[float, float, float]:
    return (float(values[0]), float(values[1]), float(values[2]))


def _distractor(rng: np.random.Generator) -> Shape:
    """Put a thing on the table, off the middle where the work is done."""
    angle = rng.uniform(0.0, 2.0 * np.pi)
    radius = rng.uniform(0.27, 0.42)
    return Shape(
        str(rng.choice(('box', 'cylinder', 'sphere'))), float(rng.uniform(0.02, 0.045)),
        (float(radius * np.cos(angle)), float(0.7 * radius * np.sin(angle))),
        _triple(rng.uniform(0.05, 0.95, 3)))


def _texture(rng: np.random.Generator) -> Pixels:
    """Draw a surface: a base colour with one of a few patterns."""
    n = TEXTURE_SIZE
    base, other = rng.uniform(0.15, 0.9, 3), rng.uniform(0.15, 0.9, 3)
    # Most rooms are not colourful.
    base = base.mean() + (base - base.mean()) * rng.uniform(0.1, 0.8)
    other = base + (other - base) * rng.uniform(0.15, 0.6)
    y, x = np.mgrid[0:n, 0:n] / n
    pattern = rng.choice(_PATTERNS)
    if pattern == 'plain':
        part = np.zeros((n, n))
    elif pattern == 'grain':
        wobble = _clouds(rng, 4) * 0.12
        part = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.integers(6, 16) * (x + wobble)))
    elif pattern == 'tiles':
        count = int(rng.integers(3, 9))
        part = ((np.floor(x * count) + np.floor(y * count)) % 2)
    elif pattern == 'speckles':
        part = (rng.random((n, n)) < rng.uniform(0.05, 0.3)).astype(float)
    elif pattern == 'stripes':
        part = (np.sin(2 * np.pi * rng.integers(4, 14) * x) > 0.3).astype(float)
    else:
        part = _clouds(rng, int(rng.integers(3, 8)))
    colour = base + part[..., None] * (other - base) + rng.normal(0.0, 0.012, (n, n, 1))
    return (np.clip(colour, 0.0, 1.0) * 255).astype(np.uint8)


def _clouds(rng: np.random.Generator, cells: int) -> Floats:
    """Draw smooth noise in [0, 1] by bilinear interpolation of a random grid that wraps around."""
    grid = rng.random((cells, cells))
    at = np.arange(TEXTURE_SIZE) / TEXTURE_SIZE * cells
    low, part = at.astype(int), at - at.astype(int)
    high = (low + 1) % cells
    rows = grid[low] * (1 - part[:, None]) + grid[high] * part[:, None]
    smooth: Floats = rows[:, low] * (1 - part) + rows[:, high] * part
    return smooth

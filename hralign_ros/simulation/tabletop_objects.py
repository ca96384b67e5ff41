# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What lies on the table: a catalogue of kinds, each in some colours, sizes or materials.

A kind is put together from primitives; six are meshes of robosuite (MIT). Metres; the origin of a
thing is the middle of its bottom. Nothing here needs a simulator.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

COLOURS = {
    'red': (0.85, 0.08, 0.08), 'blue': (0.10, 0.22, 0.85), 'green': (0.08, 0.58, 0.16),
    'yellow': (0.95, 0.82, 0.08), 'orange': (0.96, 0.46, 0.05), 'purple': (0.48, 0.14, 0.68),
    'pink': (0.96, 0.52, 0.70), 'white': (0.93, 0.93, 0.92), 'black': (0.08, 0.08, 0.09),
    'turquoise': (0.10, 0.75, 0.75), 'brown': (0.42, 0.24, 0.10), 'grey': (0.52, 0.52, 0.54)}
# Texture of robosuite, and what its light is multiplied by.
MATERIALS = {'wooden': ('light-wood.png', (1.0, 1.0, 1.0)),
             'metal': ('steel-brushed.png', (0.95, 0.97, 1.0))}
# What other parts are painted with.
_PAINTS = {'leaf': (0.16, 0.45, 0.12), 'cream': (0.95, 0.88, 0.70), 'dark': (0.15, 0.14, 0.14),
           'steel': (0.66, 0.68, 0.70), 'crust': (0.72, 0.46, 0.20), 'skin': (0.93, 0.80, 0.30),
           'flame': (1.0, 0.75, 0.25), 'clay': (0.75, 0.38, 0.22)}
# What things do: they are carried, stacked, pushed, put over a peg; others are put into, on or
# over them.
CARRIED, STACKED, PUSHED, THREADED = 'carried', 'stacked', 'pushed', 'threaded'
HOLDS, BEARS, PEG = 'holds', 'bears', 'peg'
# A gripper that opens 5.5 cm has some room left.
WIDEST_M = 0.046


@dataclass(frozen=True)
class Part:
    """
    A primitive, or a mesh of robosuite.

    :param shape: box, cylinder, sphere, capsule, ellipsoid, or the name of a mesh.
    :param size: half sizes as MuJoCo has them; of a mesh, its scale.
    :param at: of its middle.
    :param turn: about the fixed axes x, y and z, one after the other, degrees.
    :param paint: '' for the thing's own colour; otherwise of COLOURS, _PAINTS or a texture.
    """

    shape: str
    size: tuple[float, ...]
    at: tuple[float, float, float]
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    paint: str = ''

    @property
    def rgb(self) -> tuple[float, float, float]:
        """Return the colour of a part that has its own."""
        return COLOURS.get(self.paint) or _PAINTS.get(self.paint) or (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Kind:
    """
    A kind of thing.

    :param noun: what it is called.
    :param parts: first to last.
    :param looks: colours and materials that it comes in, each said with it; () for one look only,
        which is not said.
    :param roles: what can be done with it.
    :param grip: height at which fingers close, and how far from the middle, along x.
    :param axes: directions along which fingers may lie, degrees; () for any.
    :param radius: of what it covers, seen from above.
    :param height: of its top.
    :param inner: what it holds or bears lies within this, from its middle; (x, y), or (r,).
    :param floor: height at which a thing lies in or on it.
    """

    noun: str
    parts: tuple[Part, ...]
    looks: tuple[str, ...] = ()
    roles: frozenset[str] = frozenset({CARRIED})
    grip: tuple[float, float] = (0.02, 0.0)
    axes: tuple[float, ...] = ()
    radius: float = 0.03
    height: float = 0.04
    inner: tuple[float, ...] = ()
    floor: float = 0.0
    rolls: bool = False
    mass: float = 0.07


@dataclass(frozen=True)
class Thing:
    """
    A kind in one of its looks.

    :param look: of kind.looks, or ''.
    """

    kind: Kind
    look: str

    @property
    def words(self) -> str:
        """Return what it is called, without an article."""
        size, _, noun = self.kind.noun.partition(' ')
        if size in ('big', 'small') and self.look:
            return f'{size} {self.look} {noun}'
        return f'{self.look} {self.kind.noun}'.strip()

    @property
    def name(self) -> str:
        """Return a short name."""
        return self.words.replace(' ', '-')

    def does(self, role: str) -> bool:
        """Tell whether it has a role."""
        return role in self.kind.roles

    def like(self, other: 'Thing') -> bool:
        """Tell whether what one is called could mean the other too."""
        one, two = set(self.words.split()), set(other.words.split())
        return one <= two or two <= one


def _box(x: float, y: float, z: float, at: tuple[float, float, float], paint: str = '',
         turn: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Part:
    return Part('box', (x / 2, y / 2, z / 2), at, turn, paint)


def _rod(radius: float, length: float, at: tuple[float, float, float], paint: str = '',
         turn: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Part:
    return Part('cylinder', (radius, length / 2), at, turn, paint)


def _ball(radius: float, z: float, paint: str = '', x: float = 0.0, y: float = 0.0) -> Part:
    return Part('sphere', (radius,), (x, y, z), paint=paint)


def _egg(x: float, y: float, z: float, at: tuple[float, float, float], paint: str = '') -> Part:
    return Part('ellipsoid', (x, y, z), at, paint=paint)


def _ring(radius: float, height: float, wall: float, low: float, count: int = 12,
          lean: float = 0.0, paint: str = '') -> tuple[Part, ...]:
    """Make a round wall of flat pieces, its lower edge at a height; lean is outwards, degrees."""
    wide = 2 * (radius + wall) * np.tan(np.pi / count)
    parts = []
    for i in range(count):
        angle = 2 * np.pi * i / count
        parts.append(Part(
            'box', (wall / 2, wide / 2, height / 2),
            (float(radius * np.cos(angle)), float(radius * np.sin(angle)), low + height / 2),
            (0.0, lean, float(np.rad2deg(angle))), paint))
    return tuple(parts)


def _walls(x: float, y: float, height: float, wall: float, paint: str = '') -> tuple[Part, ...]:
    """Make a box without a lid; x and y are inner sizes."""
    return (
        _box(x + 2 * wall, y + 2 * wall, wall, (0.0, 0.0, wall / 2), paint),
        *(_box(wall, y + 2 * wall, height, (side * (x + wall) / 2, 0.0, height / 2), paint)
          for side in (-1, 1)),
        *(_box(x, wall, height, (0.0, side * (y + wall) / 2, height / 2), paint)
          for side in (-1, 1)))


_BRIGHT = ('red', 'blue', 'green', 'yellow', 'orange', 'purple')
_FEW = ('red', 'blue', 'green', 'yellow')
_BLOCK = frozenset({CARRIED, STACKED, PUSHED})
_PUSH = frozenset({CARRIED, PUSHED})
_X, _Y, _LIE = (0.0, 90.0, 0.0), (90.0, 0.0, 0.0), (90.0,)


def _cube(side: float, noun: str, looks: tuple[str, ...]) -> Kind:
    return Kind(noun, (_box(side, side, side, (0, 0, side / 2)),), looks, _BLOCK,
                (side / 2, 0.0), (0.0, 90.0), side * 0.71, side, (side / 2, side / 2), side)


def _lying(radius: float, length: float, noun: str, parts: tuple[Part, ...],
           looks: tuple[str, ...] = (), grip: float = 0.0) -> Kind:
    """Make something long that lies along x."""
    return Kind(noun, parts, looks, frozenset({CARRIED}), (max(radius, 0.009), grip), _LIE,
                length / 2, 2 * radius)


def _carried() -> Iterable[Kind]:
    """List what a hand carries."""
    yield _cube(0.036, 'block', (*_BRIGHT, 'pink', 'white', 'wooden', 'metal'))
    yield _cube(0.024, 'small block', _FEW)
    yield _cube(0.044, 'big block', _FEW)
    yield Kind('brick', (_box(0.07, 0.034, 0.028, (0, 0, 0.014)),), (
        'red', 'blue', 'yellow', 'grey', 'wooden'), _BLOCK, (0.014, 0.0), _LIE, 0.039, 0.028,
        (0.035, 0.017), 0.028)
    yield Kind('cylinder', (_rod(0.019, 0.05, (0, 0, 0.025)),), (
        'green', 'purple', 'orange', 'turquoise', 'wooden', 'metal'), _BLOCK, (0.027, 0.0),
        radius=0.02, height=0.05, inner=(0.012,), floor=0.05)
    yield Kind('ball', (_ball(0.021, 0.021),), ('red', 'blue', 'yellow', 'white'),
               grip=(0.019, 0.0), radius=0.021, height=0.042, rolls=True)
    handle = (_box(0.022, 0.007, 0.006, (0.030, 0, 0.045)),
              _box(0.006, 0.007, 0.03, (0.039, 0, 0.031)),
              _box(0.022, 0.007, 0.006, (0.030, 0, 0.017)))
    yield Kind('mug', (_rod(0.021, 0.056, (0, 0, 0.028)),
                       _rod(0.017, 0.002, (0, 0, 0.0565), 'dark'), *handle),
               ('red', 'blue', 'white', 'green', 'black'), _PUSH, (0.036, 0.0), (90.0,), 0.04,
               0.057)
    yield Kind('cup', (_rod(0.019, 0.05, (0, 0, 0.025)), _rod(0.022, 0.008, (0, 0, 0.05)),
                       _rod(0.018, 0.002, (0, 0, 0.0545), 'cream')),
               ('pink', 'yellow', 'turquoise', 'metal'), _PUSH, (0.030, 0.0), radius=0.022,
               height=0.055)
    yield Kind('bottle', (_rod(0.020, 0.07, (0, 0, 0.035)), _rod(0.010, 0.03, (0, 0, 0.083)),
                          _rod(0.012, 0.012, (0, 0, 0.104), 'white')),
               ('green', 'blue', 'red'), grip=(0.045, 0.0), radius=0.02, height=0.11)
    yield Kind('candle', (_rod(0.015, 0.055, (0, 0, 0.0275)),
                          _egg(0.004, 0.004, 0.009, (0, 0, 0.064), 'flame')),
               ('white', 'red', 'purple'), grip=(0.032, 0.0), radius=0.016, height=0.07)
    yield Kind('spool', (_rod(0.021, 0.008, (0, 0, 0.004), 'cream'), _rod(0.015, 0.034, (
        0, 0, 0.025)), _rod(0.021, 0.008, (0, 0, 0.046), 'cream')), ('red', 'blue', 'green'),
        grip=(0.026, 0.0), radius=0.021, height=0.05)
    wheels = tuple(_rod(0.009, 0.006, (x, y, 0.009), 'dark', _Y)
                   for x in (-0.022, 0.022) for y in (-0.018, 0.018))
    yield Kind('toy car', (_box(0.074, 0.03, 0.018, (0, 0, 0.019)),
                           _box(0.036, 0.028, 0.016, (-0.005, 0, 0.036), 'white'), *wheels),
               ('red', 'blue', 'yellow'), _PUSH, (0.02, 0.0), _LIE, 0.04, 0.044)
    yield Kind('toy boat', (_box(0.06, 0.032, 0.018, (0, 0, 0.009)), Part(
        'cylinder', (0.016, 0.009), (0.03, 0, 0.009)), _rod(0.003, 0.05, (0, 0, 0.043), 'brown'),
        _box(0.028, 0.002, 0.03, (0.012, 0, 0.05), 'white')), ('red', 'blue'),
        grip=(0.011, 0.0), axes=_LIE, radius=0.045, height=0.068)
    yield Kind('sponge', (_box(0.07, 0.042, 0.02, (0, 0, 0.010)),
                          _box(0.07, 0.042, 0.006, (0, 0, 0.023), 'leaf')), ('yellow', 'pink'),
               _PUSH, (0.014, 0.0), _LIE, 0.041, 0.026)
    yield Kind('die', (_box(0.034, 0.034, 0.034, (0, 0, 0.017)), *(
        _rod(0.0035, 0.001, (x, y, 0.0345), 'dark') for x, y in (
            (0, 0), (0.009, 0.009), (-0.009, -0.009), (0.009, -0.009), (-0.009, 0.009)))),
        ('white', 'red'), _PUSH, (0.017, 0.0), (0.0, 90.0), 0.025, 0.035)
    yield _lying(0.009, 0.12, 'marker', (_rod(0.009, 0.08, (-0.012, 0, 0.009), 'white', _X),
                                         _rod(0.010, 0.036, (0.046, 0, 0.010), '', _X)),
                 ('red', 'blue', 'green', 'black'))
    yield _lying(0.012, 0.12, 'screwdriver', (
        _rod(0.012, 0.06, (-0.025, 0, 0.012), '', _X),
        _rod(0.004, 0.06, (0.035, 0, 0.012), 'steel', _X)), ('red', 'yellow'), -0.025)
    yield from _single()


def _single() -> Iterable[Kind]:
    """List what comes in one look only."""
    yield _lying(0.014, 0.11, 'banana', (
        Part('capsule', (0.014, 0.022), (0, 0.004, 0.014), (0, 90, 0), 'yellow'),
        Part('capsule', (0.0125, 0.018), (0.034, -0.005, 0.014), (0, 90, -28), 'yellow'),
        Part('capsule', (0.0125, 0.018), (-0.034, -0.005, 0.014), (0, 90, 28), 'yellow'),
        _rod(0.005, 0.012, (0.056, -0.018, 0.014), 'brown', (0, 90, -28))))
    yield Kind('apple', (_ball(0.021, 0.021, 'red'), _rod(0.002, 0.012, (0, 0, 0.046), 'brown'),
                         _egg(0.009, 0.005, 0.002, (0.008, 0, 0.046), 'leaf')),
               grip=(0.02, 0.0), radius=0.022, height=0.05, rolls=True)
    yield Kind('pear', (_ball(0.021, 0.021, 'green'),
                        _egg(0.013, 0.013, 0.022, (0, 0, 0.042), 'green'),
                        _rod(0.002, 0.012, (0, 0, 0.068), 'brown')), grip=(0.022, 0.0),
               radius=0.022, height=0.072, rolls=True)
    yield Kind('tomato', (_egg(0.022, 0.022, 0.018, (0, 0, 0.018), 'red'), *(
        _egg(0.010, 0.003, 0.002, (0.006 * np.cos(a), 0.006 * np.sin(a), 0.036), 'leaf')
        for a in (0.0, 2.1, 4.2))), grip=(0.018, 0.0), radius=0.022, height=0.038, rolls=True)
    yield Kind('egg', (_egg(0.018, 0.018, 0.023, (0, 0, 0.023), 'cream'),
                       _rod(0.013, 0.008, (0, 0, 0.004), 'steel')), grip=(0.024, 0.0),
               radius=0.02, height=0.046)
    yield _lying(0.014, 0.12, 'carrot', (
        Part('capsule', (0.014, 0.014), (-0.024, 0, 0.014), (0, 90, 0), 'orange'),
        Part('capsule', (0.011, 0.016), (0.004, 0, 0.014), (0, 90, 0), 'orange'),
        Part('capsule', (0.007, 0.018), (0.034, 0, 0.014), (0, 90, 0), 'orange'),
        _egg(0.02, 0.012, 0.005, (-0.058, 0, 0.016), 'leaf')), grip=-0.018)
    yield _lying(0.016, 0.11, 'cucumber', (
        Part('capsule', (0.016, 0.036), (0, 0, 0.016), (0, 90, 0), 'leaf'),))
    yield Kind('mushroom', (_rod(0.012, 0.03, (0, 0, 0.015), 'cream'),
                            _egg(0.022, 0.022, 0.014, (0, 0, 0.034), 'clay')), grip=(0.030, 0.0),
               radius=0.022, height=0.048)
    yield Kind('doughnut', (_rod(0.022, 0.014, (0, 0, 0.007), 'crust'),
                            _rod(0.0215, 0.006, (0, 0, 0.016), 'pink'),
                            _rod(0.007, 0.001, (0, 0, 0.0195), 'dark')), grip=(0.010, 0.0),
               radius=0.022, height=0.02)
    yield Kind('ice cream', (_rod(0.011, 0.05, (0, 0, 0.025), 'crust'),
                             _ball(0.018, 0.062, 'pink'),
                             _rod(0.018, 0.004, (0, 0, 0.002), 'crust')),
               grip=(0.028, 0.0), radius=0.019, height=0.08)
    yield Kind('rubber duck', (_egg(0.028, 0.020, 0.017, (0, 0, 0.017), 'yellow'),
                               _ball(0.013, 0.041, 'yellow', 0.014),
                               _egg(0.008, 0.006, 0.003, (0.03, 0, 0.04), 'orange'),
                               _rod(0.014, 0.006, (0, 0, 0.003), 'yellow'),
                               _ball(0.003, 0.045, 'dark', 0.023, 0.008),
                               _ball(0.003, 0.045, 'dark', 0.023, -0.008)),
               grip=(0.016, -0.003), axes=_LIE, radius=0.03, height=0.055)
    yield Kind('snowman', (_rod(0.014, 0.006, (0, 0, 0.003), 'white'),
                           _ball(0.020, 0.021, 'white'), _ball(0.014, 0.05, 'white'),
                           _rod(0.015, 0.003, (0, 0, 0.062), 'dark'),
                           _rod(0.010, 0.016, (0, 0, 0.071), 'dark'),
                           _egg(0.009, 0.003, 0.003, (-0.018, 0, 0.05), 'orange')),
               grip=(0.022, 0.0), radius=0.021, height=0.08)
    yield Kind('cactus', (_rod(0.018, 0.03, (0, 0, 0.015), 'clay'),
                          Part('capsule', (0.010, 0.018), (0, 0, 0.052), paint='leaf'),
                          Part('capsule', (0.005, 0.008), (0, 0.015, 0.056), paint='leaf')),
               grip=(0.018, 0.0), radius=0.02, height=0.08)
    yield Kind('toy house', (_box(0.04, 0.04, 0.03, (0, 0, 0.015), 'cream'),
                             _box(0.030, 0.042, 0.030, (0, 0, 0.030), 'clay', (0, 45, 0)),
                             _box(0.002, 0.012, 0.018, (-0.0205, 0, 0.009), 'brown')),
               (), _PUSH, (0.015, 0.0), _LIE, 0.029, 0.051)
    yield Kind('pawn', (_rod(0.018, 0.010, (0, 0, 0.005), 'dark'),
                        _rod(0.010, 0.03, (0, 0, 0.024), 'dark'), _ball(0.013, 0.048, 'dark')),
               grip=(0.030, 0.0), radius=0.018, height=0.06)
    yield Kind('salt shaker', (_rod(0.017, 0.042, (0, 0, 0.021), 'white'),
                               _rod(0.0175, 0.014, (0, 0, 0.049), 'steel')), grip=(0.028, 0.0),
               radius=0.018, height=0.056)
    yield Kind('light bulb', (_rod(0.011, 0.024, (0, 0, 0.012), 'steel'),
                              _ball(0.020, 0.040, 'flame')), grip=(0.034, 0.0), radius=0.02,
               height=0.06)
    yield _lying(0.012, 0.12, 'hammer', (
        _rod(0.009, 0.10, (-0.015, 0, 0.012), 'crust', _X),
        _box(0.022, 0.07, 0.024, (0.042, 0, 0.012), 'steel')), grip=-0.005)
    yield _lying(0.012, 0.09, 'torch', (_rod(0.012, 0.06, (-0.015, 0, 0.016), 'dark', _X),
                                        _rod(0.016, 0.024, (0.027, 0, 0.016), 'steel', _X),
                                        _rod(0.013, 0.002, (0.0395, 0, 0.016), 'flame', _X)))
    yield _lying(0.008, 0.13, 'spoon', (_box(0.085, 0.010, 0.010, (-0.02, 0, 0.007), 'steel'),
                                        _egg(0.024, 0.016, 0.007, (0.04, 0, 0.008), 'steel')))
    yield _lying(0.009, 0.12, 'paintbrush', (
        _rod(0.007, 0.07, (-0.02, 0, 0.009), 'crust', _X),
        _box(0.018, 0.026, 0.014, (0.022, 0, 0.009), 'steel'),
        _box(0.026, 0.026, 0.010, (0.043, 0, 0.009), 'dark')))
    yield _lying(0.010, 0.06, 'battery', (_rod(0.011, 0.046, (-0.002, 0, 0.011), 'dark', _X),
                                          _rod(0.0112, 0.014, (0.021, 0, 0.011), 'orange', _X),
                                          _rod(0.004, 0.004, (0.030, 0, 0.011), 'steel', _X)))
    yield Kind('remote control', (_box(0.10, 0.034, 0.016, (0, 0, 0.008), 'dark'), *(
        _rod(0.004, 0.002, (x, y, 0.017), paint) for x, y, paint in (
            (0.035, 0.0, 'red'), (0.015, 0.008, 'grey'), (0.015, -0.008, 'grey'),
            (-0.005, 0.008, 'grey'), (-0.005, -0.008, 'grey')))), (), _PUSH, (0.009, 0.0), _LIE,
        0.053, 0.018)
    yield Kind('soap', (_egg(0.032, 0.020, 0.012, (0, 0, 0.012), 'turquoise'),
                        _box(0.03, 0.02, 0.004, (0, 0, 0.002), 'turquoise')), (), _PUSH,
               (0.012, 0.0), _LIE, 0.033, 0.024)
    yield Kind('matchbox', (_box(0.05, 0.034, 0.016, (0, 0, 0.008), 'blue'),
                            _box(0.051, 0.028, 0.010, (0, 0, 0.008), 'cream'),
                            _rod(0.010, 0.001, (0, 0, 0.0165), 'yellow')), (), _PUSH,
               (0.009, 0.0), _LIE, 0.031, 0.017)
    yield Kind('bell', (_rod(0.021, 0.008, (0, 0, 0.004), 'flame'),
                        _rod(0.017, 0.020, (0, 0, 0.018), 'flame'),
                        _egg(0.017, 0.017, 0.010, (0, 0, 0.028), 'flame'),
                        _rod(0.007, 0.040, (0, 0, 0.056), 'brown')),
               grip=(0.060, 0.0), radius=0.021, height=0.076)
    # Meshes, set on their lowest point; scale, that point, and then as Kind has it.
    for noun, mesh, scale, low, grip, axes, radius, height in (
            ('soda can', 'can', 0.8, 0.0403, 0.036, (), 0.02, 0.064),
            ('milk carton', 'milk', 0.85, 0.0678, 0.060, (0.0, 90.0), 0.026, 0.136),
            ('cereal box', 'cereal', 0.8, 0.075, 0.062, _LIE, 0.042, 0.12),
            ('loaf of bread', 'bread', 0.8, 0.0291, 0.024, _LIE, 0.031, 0.048),
            ('lemon', 'lemon', 1.0, 0.0199, 0.02, _LIE, 0.034, 0.04),
            ('wine bottle', 'bottle', 0.72, 0.0649, 0.045, (), 0.021, 0.115)):
        yield Kind(noun, (Part(mesh, (scale,), (0.0, 0.0, low * scale), paint=_OF_MESH.get(
            mesh, '')),), (), frozenset({CARRIED}), (grip, 0.0), axes, radius, height,
            rolls=mesh == 'lemon')


_OF_MESH = {'can': 'soda.png', 'milk': 'ceramic.png', 'cereal': 'cereal.png',
            'bread': 'bread.png', 'lemon': 'lemon.png', 'bottle': 'leaf'}


def _places() -> Iterable[Kind]:
    """List what things are put into, on and beside."""
    holds, bears = frozenset({HOLDS}), frozenset({BEARS})
    base = _rod(0.052, 0.006, (0, 0, 0.003))
    yield Kind('bowl', (base, *_ring(0.058, 0.036, 0.005, 0.004, lean=22.0)),
               ('red', 'blue', 'green', 'white', 'yellow', 'metal'), holds, radius=0.075,
               height=0.04, inner=(0.056,), floor=0.006, mass=0.6)
    yield Kind('crate', _walls(0.11, 0.11, 0.045, 0.006), ('red', 'blue', 'grey', 'wooden'),
               holds, radius=0.086, height=0.045, inner=(0.055, 0.055), floor=0.006, mass=0.6)
    grips = tuple(_box(0.014, 0.03, 0.008, (side * 0.073, 0, 0.045)) for side in (-1, 1))
    yield Kind('pot', (_rod(0.062, 0.006, (0, 0, 0.003)), *_ring(0.060, 0.052, 0.005, 0.004),
                       *grips), ('black', 'metal', 'orange'), holds, radius=0.08, height=0.056,
               inner=(0.055,), floor=0.006, mass=0.7)
    yield Kind('basket', (_rod(0.056, 0.006, (0, 0, 0.003), 'brown'), *_ring(
        0.056, 0.020, 0.006, 0.004, paint='crust'), *_ring(
            0.059, 0.020, 0.006, 0.024, paint='brown')), (), holds, radius=0.07, height=0.044,
        inner=(0.053,), floor=0.006, mass=0.5)
    yield Kind('bin', _walls(0.10, 0.10, 0.07, 0.005), ('green', 'black', 'orange'), holds,
               radius=0.078, height=0.07, inner=(0.05, 0.05), floor=0.005, mass=0.7)
    yield Kind('plate', (_rod(0.060, 0.006, (0, 0, 0.003)), *_ring(
        0.066, 0.006, 0.012, 0.003, 16, -60.0)), ('white', 'blue', 'pink', 'green'), bears,
        radius=0.075, height=0.012, inner=(0.058,), floor=0.006, mass=0.5)
    yield Kind('mat', (_box(0.13, 0.11, 0.006, (0, 0, 0.003)),),
               ('purple', 'turquoise', 'orange', 'grey'), bears, radius=0.085, height=0.006,
               inner=(0.063, 0.053), floor=0.006, mass=0.4)
    yield Kind('book', (_box(0.11, 0.14, 0.018, (0, 0, 0.010)),
                        _box(0.106, 0.136, 0.012, (0.004, 0, 0.010), 'white')),
               ('red', 'blue', 'green', 'brown'), bears, radius=0.089, height=0.019,
               inner=(0.053, 0.068), floor=0.019, mass=0.6)
    yield Kind('coaster', (_box(0.09, 0.09, 0.010, (0, 0, 0.005)),), ('black', 'red', 'wooden'),
               bears, radius=0.06, height=0.010, inner=(0.043, 0.043), floor=0.010, mass=0.3)
    yield Kind('cutting board', (_box(0.13, 0.12, 0.012, (0, 0, 0.006), 'light-wood.png'),
                                 _box(0.03, 0.03, 0.012, (0.08, 0, 0.006), 'light-wood.png')),
               (), bears, radius=0.09, height=0.012, inner=(0.063, 0.058), floor=0.012, mass=0.6)
    yield Kind('tray', (_box(0.16, 0.12, 0.006, (0, 0, 0.003)), *(
        _box(0.16, 0.005, 0.014, (0, side * 0.06, 0.007)) for side in (-1, 1)), *(
        _box(0.005, 0.12, 0.014, (side * 0.08, 0, 0.007)) for side in (-1, 1))),
        ('white', 'brown'), bears, radius=0.098, height=0.014, inner=(0.075, 0.055), floor=0.006,
        mass=0.6)
    yield Kind('peg', (_box(0.07, 0.07, 0.012, (0, 0, 0.006)), _rod(0.006, 0.05, (0, 0, 0.037))),
               ('red', 'blue', 'green', 'yellow', 'white', 'black'), frozenset({PEG}),
               radius=0.05, height=0.062, inner=(0.010,), floor=0.012, mass=0.7)
    yield Kind('ring', _ring(0.0165, 0.024, 0.006, 0.0, 8), (
        'red', 'blue', 'green', 'yellow', 'orange', 'purple'), frozenset({THREADED}),
        (0.014, 0.0), radius=0.022, height=0.024)
    yield Kind('stand', (_rod(0.05, 0.006, (0, 0, 0.003)), _rod(0.014, 0.034, (0, 0, 0.023)),
                         _rod(0.048, 0.008, (0, 0, 0.044))), ('white', 'black'), bears,
               radius=0.05, height=0.048, inner=(0.047,), floor=0.048, mass=1.0)


@cache
def kinds() -> tuple[Kind, ...]:
    """Return all kinds of loose things."""
    return (*_carried(), *_places())


@cache
def things() -> dict[str, Thing]:
    """Return all things by name."""
    made = [Thing(kind, look) for kind in kinds() for look in kind.looks or ('',)]
    return {thing.name: thing for thing in made}


def those_that(role: str) -> tuple[Thing, ...]:
    """Return the things that have a role."""
    return tuple(thing for thing in things().values() if thing.does(role))

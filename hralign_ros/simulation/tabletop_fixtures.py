# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Drawers, doors, chests, buttons, dials and sliders: what stands on the table and has joints.

Each stands with its front towards the robot, at -x; its origin is the middle of its bottom. Parts
have handles that fingers grip from above, one finger on either side along y: upright posts, or a
ball where the handle tilts.
"""

from collections.abc import Callable
from typing import Any

from hralign_ros.simulation.tabletop_build import add_part
from hralign_ros.simulation.tabletop_objects import Part
import mujoco

FIXTURE = 'fixture'
# What a joint goes through: metres or radians; dials go to either side from the middle.
TRAVEL = {'drawer': (0.0, 0.12), 'door': (0.0, 1.3), 'chest': (0.0, 1.25),
          'button': (0.0, 0.014), 'dial': (-1.2, 1.2), 'slider': (-0.09, 0.09)}
# Where a part stands at first, 0 to 1, for what is wanted of it.
AT_FIRST = {'open': 0.0, 'close': 0.95, 'press': 0.0, 'clockwise': 0.5,
            'counterclockwise': 0.5, 'left': 0.5, 'right': 0.5}
# Where a plan brings it.
AT_LAST = {'open': 0.92, 'close': 0.02, 'press': 1.0, 'clockwise': 0.06,
           'counterclockwise': 0.94, 'left': 0.94, 'right': 0.06}
# How far apart the parts of a fixture are, along y.
_APART = {'drawer': 0.13, 'door': 0.14, 'chest': 0.16, 'button': 0.085, 'dial': 0.15,
          'slider': 0.11}
# Radius of what a fixture covers with what sticks out, for other things to keep off.
REACH_M = 0.24


def handle(part: str) -> str:
    """Return the name of the site in a part's handle."""
    return f'handle_{part}'


def add_fixture(spec: Any, family: str, parts: tuple[str, ...], paint: str) -> None:
    """
    Put a fixture into a scene.

    :param parts: their colours; a joint and a handle is named after each.
    :param paint: of what does not move.
    """
    body = spec.worldbody.add_body(name=FIXTURE)
    places = [(i - (len(parts) - 1) / 2) * _APART[family] for i in range(len(parts))]
    for part, y in zip(parts, places, strict=True):
        _MAKERS[family](spec, body, part, y, paint)


def _part(
    body: Any, name: str, at: tuple[float, float, float], family: str,
    axis: tuple[float, float, float], friction: float, *, turns: bool = False, mass: float = 0.1,
) -> Any:
    """Add a body with a joint."""
    part = body.add_body(name=f'part_{name}', pos=list(at), gravcomp=family != 'chest')
    part.explicitinertial, part.mass, part.inertia = True, mass, [1e-4] * 3
    part.ipos = [-0.05 if family == 'chest' else 0.0, 0.0, 0.02]
    low, high = TRAVEL[family]
    part.add_joint(
        name=f'joint_{name}', axis=list(axis), range=[low, high], limited=True,
        type=mujoco.mjtJoint.mjJNT_HINGE if turns else mujoco.mjtJoint.mjJNT_SLIDE,
        frictionloss=friction, damping=0.02 if turns else 2.0, armature=1e-4 if turns else 0.05)
    return part


def _box(spec: Any, body: Any, size: tuple[float, float, float], at: tuple[float, float, float],
         paint: str) -> None:
    add_part(spec, body, Part('box', (size[0] / 2, size[1] / 2, size[2] / 2), at, paint=paint))


def _post(
    spec: Any, part: Any, name: str, at: tuple[float, float, float], *, ball: bool = False,
) -> None:
    """Add a handle whose middle is there."""
    if ball:
        below = (at[0], at[1], at[2] - 0.02)
        add_part(spec, part, Part('cylinder', (0.005, 0.012), below, paint='steel'))
        add_part(spec, part, Part('sphere', (0.0125,), at, paint=name), slips=True)
    else:
        add_part(spec, part, Part('capsule', (0.008, 0.026), at, paint=name), slips=True)
    part.add_site(name=handle(name), pos=list(at), group=4)


def _drawer(spec: Any, body: Any, name: str, y: float, paint: str) -> None:
    for side in (-1, 1):
        _box(spec, body, (0.15, 0.008, 0.09), (0.0, y + side * 0.061, 0.045), paint)
    _box(spec, body, (0.008, 0.13, 0.09), (0.072, y, 0.045), paint)
    _box(spec, body, (0.15, 0.13, 0.008), (0.0, y, 0.092), paint)
    part = _part(body, name, (0.0, y, 0.0), 'drawer', (-1, 0, 0), 0.6)
    _box(spec, part, (0.010, 0.128, 0.084), (-0.081, 0, 0.044), name)
    _box(spec, part, (0.13, 0.10, 0.006), (-0.01, 0, 0.012), 'cream')
    for side in (-1, 1):
        _box(spec, part, (0.13, 0.006, 0.05), (-0.01, side * 0.05, 0.035), 'cream')
    _box(spec, part, (0.05, 0.012, 0.010), (-0.110, 0, 0.030), 'steel')
    _post(spec, part, name, (-0.132, 0, 0.056))


def _door(spec: Any, body: Any, name: str, y: float, paint: str) -> None:
    for side in (-1, 1):
        _box(spec, body, (0.10, 0.006, 0.13), (0.0, y + side * 0.067, 0.065), paint)
    _box(spec, body, (0.006, 0.14, 0.13), (0.05, y, 0.065), paint)
    for z in (0.004, 0.133):
        _box(spec, body, (0.10, 0.14, 0.008), (0.0, y, z), paint)
    part = _part(body, name, (-0.056, y + 0.066, 0.0), 'door', (0, 0, -1), 0.01, turns=True)
    _box(spec, part, (0.010, 0.128, 0.122), (0, -0.066, 0.067), name)
    _box(spec, part, (0.046, 0.010, 0.010), (-0.026, -0.110, 0.040), 'steel')
    _post(spec, part, name, (-0.048, -0.110, 0.066))


def _chest(spec: Any, body: Any, name: str, y: float, paint: str) -> None:
    _box(spec, body, (0.12, 0.12, 0.006), (0, y, 0.003), paint)
    for side in (-1, 1):
        _box(spec, body, (0.12, 0.006, 0.06), (0, y + side * 0.057, 0.03), name)
        _box(spec, body, (0.006, 0.12, 0.06), (side * 0.057, y, 0.03), name)
    part = _part(body, name, (0.058, y, 0.062), 'chest', (0, 1, 0), 0.08, turns=True, mass=0.05)
    _box(spec, part, (0.122, 0.122, 0.008), (-0.058, 0, 0.005), name)
    _box(spec, part, (0.122, 0.02, 0.010), (-0.058, 0, 0.007), 'brown')
    _post(spec, part, name, (-0.104, 0, 0.040), ball=True)


def _button(spec: Any, body: Any, name: str, y: float, paint: str) -> None:
    _box(spec, body, (0.10, 0.085, 0.03), (0, y, 0.015), paint)
    add_part(spec, body, Part('cylinder', (0.028, 0.003), (0, y, 0.033), paint='dark'))
    part = _part(body, name, (0, y, 0.036), 'button', (0, 0, -1), 2.5)
    add_part(spec, part, Part('cylinder', (0.022, 0.010), (0, 0, 0.010), paint=name))
    part.add_site(name=handle(name), pos=[0, 0, 0.02], group=4)


def _dial(spec: Any, body: Any, name: str, y: float, paint: str) -> None:
    _box(spec, body, (0.14, 0.15, 0.02), (0, y, 0.01), paint)
    part = _part(body, name, (0, y, 0.02), 'dial', (0, 0, 1), 0.02, turns=True)
    add_part(spec, part, Part('cylinder', (0.048, 0.007), (0, 0, 0.008), paint=name))
    _box(spec, part, (0.05, 0.010, 0.006), (-0.022, 0, 0.016), 'white')
    _post(spec, part, name, (-0.034, 0, 0.044))


def _slider(spec: Any, body: Any, name: str, y: float, paint: str) -> None:
    # The rails lie along y, one behind the other.
    _box(spec, body, (0.11, 0.30, 0.016), (y, 0, 0.008), paint)
    _box(spec, body, (0.014, 0.26, 0.006), (y, 0, 0.018), 'dark')
    part = _part(body, name, (y, 0, 0.02), 'slider', (0, 1, 0), 1.0)
    _box(spec, part, (0.034, 0.036, 0.012), (0, 0, 0.008), name)
    _post(spec, part, name, (0, 0, 0.040))


_MAKERS: dict[str, Callable[[Any, Any, str, float, str], None]] = {
    'drawer': _drawer, 'door': _door, 'chest': _chest, 'button': _button, 'dial': _dial,
    'slider': _slider}

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What was heard of each camera, and what it means: pure functions, no ROS.

All times are nanoseconds. `arrival` and `stamp` are on the clock of the stamps; `elapsed` only
ever grows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hralign_ros.doctor.findings import error, Finding, ok, skipped, warn
from hralign_ros.runtime.images import Image
from hralign_ros.runtime.pairing import PairingRules
import numpy as np

_SECOND = 1_000_000_000
# Stamps before 2001 that are not zero were made by a simulator.
_LEAST_REAL_STAMP = 1_000_000_000 * _SECOND
# Clocks of one computer, read in two processes, differ by less.
_CLOCK_NOISE = 2_000_000
# Fractions that are worth a word.
_LOST = 0.1
_REPEATED = 0.2
# Fewer messages tell nothing.
FEWEST = 3
CLOCK_REMEDY = ("Synchronise the camera computer's clock with this one (chrony or PTP), or set "
                'stamp_source to arrival')


@dataclass(frozen=True)
class Publisher:
    """
    A publisher on a camera's topic.

    :param kind: its message type.
    :param qos_problem: why the encoder would receive nothing from it; empty: it would.
    """

    node: str
    kind: str
    qos_problem: str = ''


@dataclass(frozen=True)
class Received:
    """
    One message, without its pixels.

    :param image: size and encoding in words.
    :param size: bytes of data.
    :param digest: the same for the same data.
    :param fault: key of what is wrong with the image; empty: it can be decoded.
    :param explanation: what is wrong with it, or how it is decoded.
    """

    arrival: int
    elapsed: int
    stamp: int
    frame_id: str
    image: str
    size: int
    digest: int
    fault: str = ''
    explanation: str = ''


@dataclass(frozen=True)
class Camera:
    """
    One view, its settings, and what was heard of it.

    :param topic: as the encoder subscribes to it, with what the transport adds.
    :param kind: message type that the encoder expects.
    :param others: image topics that are published.
    :param until: end of the listening, on the clock of `elapsed`.
    :param newest: image that could be decoded, uint8 [H, W, 3] RGB; None: there is none.
    """

    view: str
    topic: str
    kind: str
    transport: str
    reliability: str
    required: bool
    publishers: tuple[Publisher, ...] = ()
    received: tuple[Received, ...] = ()
    others: tuple[str, ...] = ()
    seconds: float = 5.0
    until: int = 0
    newest: Image | None = field(default=None, compare=False, repr=False)

    def bad(self, name: str, found: str, remedy: str, **values: Any) -> Finding:
        """Make a finding that keeps the view from being used."""
        return (error if self.required else warn)(name, found, remedy, **values)


def camera_findings(
    camera: Camera, others: Sequence[Camera], rules: PairingRules, *, stamp_source: str,
    stuck_after: int = 0,
) -> Iterator[Finding]:
    """
    Check one camera.

    :param others: the other views.
    :param stuck_after: see content_finding.
    """
    yield publishers_finding(camera)
    if camera.publishers:
        yield type_finding(camera)
        yield qos_finding(camera)
    yield messages_finding(camera, rules)
    if not camera.received:
        for name in ('image', 'content', 'stamps', 'age', 'frame_id'):
            yield skipped(name, 'no message came')
        return
    yield image_finding(camera)
    yield content_finding(camera, stuck_after)
    if stamp_source == 'arrival':
        for name in ('stamps', 'age'):
            yield skipped(name, 'stamp_source is arrival: stamps are not used')
    else:
        yield stamps_finding(camera)
        yield age_finding(camera, rules)
    yield frame_id_finding(camera, others)


def publishers_finding(camera: Camera) -> Finding:
    """Check how many publishers there are: one is right."""
    nodes = ', '.join(publisher.node for publisher in camera.publishers)
    number = len(camera.publishers)
    values = {'topic': camera.topic, 'publishers': number}
    if number == 1:
        return ok('publishers', f'{camera.topic}, published by {nodes}', **values)
    if number > 1:
        return warn('publishers', f'{number} on {camera.topic}: {nodes}; their images would be '
                    'mixed', 'Stop all but one, or give each camera a topic of its own', **values)
    twin = (camera.topic.removesuffix('/compressed') if camera.transport == 'compressed'
            else f'{camera.topic}/compressed')
    if camera.transport == 'compressed' and twin.endswith('/compressed') and twin in camera.others:
        remedy = (f'Set {camera.view}.topic to {twin.removesuffix("/compressed")}: with transport '
                  'compressed, /compressed is added to it')
    elif twin in camera.others:
        other = 'raw' if camera.transport == 'compressed' else 'compressed'
        remedy = f'There is {twin}: set {camera.view}.transport to {other}'
    elif camera.others:
        remedy = (f'Start the camera driver, or set {camera.view}.topic to one of the image '
                  f'topics: {", ".join(camera.others[:8])}')
    else:
        remedy = ('Start the camera driver, with the same ROS_DOMAIN_ID and middleware; there is '
                  'no image topic at all')
    return camera.bad('publishers', f'none on {camera.topic}', remedy, **values)


def type_finding(camera: Camera) -> Finding:
    """Check the type of what is published."""
    wrong = sorted({p.kind for p in camera.publishers} - {camera.kind})
    if not wrong:
        return ok('type', camera.kind)
    return camera.bad(
        'type', f'{camera.topic} carries {", ".join(wrong)}; with {camera.view}.transport '
        f'{camera.transport} it has to be {camera.kind}',
        f'Set {camera.view}.topic to a camera topic without /compressed, and '
        f'{camera.view}.transport to raw or compressed')


def qos_finding(camera: Camera) -> Finding:
    """Check whether messages can come at all: a publisher must offer what is asked."""
    problems = [f'{p.node}: {p.qos_problem}' for p in camera.publishers if p.qos_problem]
    if not problems:
        return ok('QoS', f'{camera.reliability} is asked and offered')
    remedy = 'Change the QoS of the camera driver'
    if camera.reliability == 'reliable':
        remedy = f'Set {camera.view}.reliability to best_effort, or change the camera driver'
    make = camera.bad if len(problems) == len(camera.publishers) else warn
    return make('QoS', f'nothing is received from {"; ".join(problems)}', remedy)


def messages_finding(camera: Camera, rules: PairingRules) -> Finding:
    """Check how regularly messages come."""
    heard = camera.received
    if not heard:
        fitting = [p for p in camera.publishers if p.kind == camera.kind and not p.qos_problem]
        if not fitting:
            return skipped('messages', 'nobody publishes what the encoder can receive')
        return camera.bad(
            'messages', f'none in {camera.seconds:g} s, though {fitting[0].node} publishes',
            'See whether the camera driver sends (ros2 topic hz); if it does, images get lost: '
            'see Transport; in containers use --ipc=host and the same user', messages=0)
    if len(heard) < FEWEST:
        return camera.bad('messages', f'{len(heard)} in {camera.seconds:g} s',
                          'Raise the frame rate of the camera driver, or listen longer with '
                          '--seconds', messages=len(heard))
    rate = rate_of(heard)
    gap = largest_gap(heard, camera.until)
    lost = lost_fraction([m.stamp for m in heard])
    found = f'{rate:.1f} Hz ({len(heard)} messages), largest gap {gap * 1e-9:.2f} s'
    values = {'messages': len(heard), 'rate_hz': rate, 'largest_gap_s': gap * 1e-9,
              'lost_fraction': lost}
    if gap > rules.max_age:
        return warn('messages', f'{found}, more than max_age_s = {rules.max_age * 1e-9:g}: the '
                    'view is left out meanwhile',
                    "Check the camera's connection and the load of its computer", **values)
    if lost > _LOST:
        return warn('messages', f'{found}; by the stamps, {lost:.0%} of the frames are missing',
                    'Frames get lost on the way or in the driver: see Transport, or use '
                    f'{camera.view}.transport compressed', **values)
    return ok('messages', found, **values)


def rate_of(heard: Sequence[Received]) -> float:
    """Tell the rate of messages over the time between the first and the last [Hz]."""
    span = heard[-1].elapsed - heard[0].elapsed
    return (len(heard) - 1) * _SECOND / span if span > 0 else 0.0


def largest_gap(heard: Sequence[Received], until: int) -> int:
    """Tell the longest time without a message since the first, the end of listening included."""
    times = [m.elapsed for m in heard]
    return max(b - a for a, b in zip(times, [*times[1:], max(until, times[-1])], strict=True))


def lost_fraction(stamps: Sequence[int]) -> float:
    """Estimate which fraction of a steady camera's frames is missing between its stamps."""
    steps = np.diff(np.asarray(stamps, np.int64))
    steps = steps[steps > 0]
    if len(steps) < FEWEST:
        return 0.0
    frames = np.rint(steps / np.median(steps))
    return float(1.0 - len(steps) / max(frames.sum(), len(steps)))


_IMAGE_REMEDIES = {
    'unsupported_encoding': 'Set the camera driver to rgb8 or bgr8',
    'oversized_image': 'Set the camera driver to a smaller image',
}


def image_finding(camera: Camera) -> Finding:
    """Check size, encoding and step of the images."""
    kinds = list(dict.fromkeys(m.image for m in camera.received))
    faulty = [m for m in camera.received if m.fault]
    if faulty:
        remedy = _IMAGE_REMEDIES.get(
            faulty[0].fault, 'The camera driver fills its messages wrongly: update or replace it')
        some = f'{len(faulty)} of {len(camera.received)} ' if len(faulty) < len(camera.received) \
            else ''
        return camera.bad('image', f'{some}{faulty[0].image}: {faulty[0].explanation}',
                          remedy, fault=faulty[0].fault)
    if len(kinds) > 1:
        return warn('image', f'changes between {", ".join(kinds[:4])}',
                    'Let one camera with one setting publish here', images=kinds)
    return ok('image', f'{kinds[0]}, {camera.received[0].explanation}', images=kinds,
              bytes=camera.received[0].size)


def content_finding(camera: Camera, stuck_after: int = 1) -> Finding:
    """
    Check whether the images change: those of a real camera always do.

    :param stuck_after: after which the encoder leaves a stuck view out [ns]; 0: never.
    """
    digests = [m.digest for m in camera.received]
    if len(digests) < FEWEST:
        return skipped('content', 'too few messages came')
    same = sum(a == b for a, b in zip(digests, digests[1:], strict=False)) / (len(digests) - 1)
    if same == 1.0:
        return (camera.bad if stuck_after else warn)(
            'content', f'the same image {len(digests)} times: the camera is stuck'
            + (', and such a view is left out' if stuck_after else ''),
            'Start the camera driver again; for a simulated scene at rest set stuck_after_s to 0',
            repeated_fraction=same)
    if same > _REPEATED:
        return warn('content', f'{same:.0%} of the images are the one before again',
                    'Let the driver publish at the rate of the camera', repeated_fraction=same)
    return ok('content', 'the images change', repeated_fraction=same)


def stamps_finding(camera: Camera) -> Finding:
    """Check whether stamps can be acquisition times: there, and growing."""
    stamps = [m.stamp for m in camera.received]
    zero = sum(stamp <= 0 for stamp in stamps)
    if zero:
        return camera.bad(
            'stamps', f'{zero} of {len(stamps)} are zero; such frames are refused',
            'Let the camera driver stamp its frames, or set stamp_source to arrival', zero=zero)
    steps = np.diff(np.asarray(stamps, np.int64))
    backward, repeated = int((steps < 0).sum()), int((steps == 0).sum())
    if backward or repeated:
        return warn(
            'stamps', f'of {len(stamps)}, {backward} go back and {repeated} are repeated; such '
            'frames are refused', 'See whether two publishers share the topic; else fix the '
            'driver, or set stamp_source to arrival', backward=backward, repeated=repeated)
    return ok('stamps', 'all there, each newer than the one before')


def ages_of(camera: Camera) -> np.ndarray:
    """Tell how old each stamped frame was on arrival [s], float64 [n]."""
    return np.array([(m.arrival - m.stamp) * 1e-9 for m in camera.received if m.stamp > 0])


def age_finding(camera: Camera, rules: PairingRules) -> Finding:
    """Check the stamps against this computer's clock: transport takes time, clocks differ."""
    ages = ages_of(camera)
    if not len(ages):
        return skipped('age', 'no message has a stamp')
    median, late = (float(v) for v in np.percentile(ages, (50, 95)))
    allowed, future = rules.max_age * 1e-9, rules.max_future * 1e-9
    values = {'median_s': median, 'p95_s': late}
    if camera.received[-1].arrival <= 0:
        return camera.bad('age', 'use_sim_time is set, but no time comes on /clock',
                          'Start the simulator or the bag with its clock, or set use_sim_time to '
                          'false', **values)
    if median > allowed:
        if camera.received[-1].stamp < _LEAST_REAL_STAMP:
            return camera.bad(
                'age', 'stamps are not of this century, as those of a simulator, or of a clock '
                'that counts since boot', 'With a simulator, start the encoder with use_sim_time '
                'true, and put it into --params-file; with such a clock, set stamp_source to '
                'arrival', **values)
        return camera.bad('age', f'stamps are {median:.2f} s behind this clock; more than '
                          f'max_age_s = {allowed:g} is refused', CLOCK_REMEDY, **values)
    if median < -future:
        return camera.bad('age', f'stamps are {-median:.2f} s ahead of this clock; more than '
                          f'max_future_s = {future:g} is refused', CLOCK_REMEDY, **values)
    if median < -_CLOCK_NOISE * 1e-9:
        return warn('age', f'stamps are {-median * 1e3:.0f} ms ahead of this clock',
                    CLOCK_REMEDY, **values)
    found = f'{median * 1e3:.0f} ms (median), {late * 1e3:.0f} ms (p95)'
    if median > allowed / 2 or late > allowed:
        return warn('age', f'{found}; max_age_s is {allowed:g}',
                    'Frames are slow, or the clocks differ: use smaller or compressed images, '
                    'and synchronise the clocks; only then raise max_age_s', **values)
    return ok('age', found, **values)


def frame_id_finding(camera: Camera, others: Sequence[Camera]) -> Finding:
    """Check the frame_id: it should tell the cameras apart."""
    frame = camera.received[-1].frame_id
    if not frame:
        return warn('frame_id', 'empty', 'Set the frame_id of the camera driver')
    same = [o.view for o in others if o.received and o.received[-1].frame_id == frame]
    if same:
        return warn('frame_id', f"'{frame}', as {', '.join(same)} has it",
                    'See whether both views are the same camera; else give each driver its own '
                    'frame_id')
    return ok('frame_id', frame)

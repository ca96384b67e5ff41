# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How well the frames of several cameras fit together: pure functions, no ROS."""

from collections import Counter
from collections.abc import Iterator, Sequence
import math

from hralign_ros.doctor.cameras import ages_of, Camera, CLOCK_REMEDY, FEWEST
from hralign_ros.doctor.findings import error, Finding, ok, skipped, warn
from hralign_ros.runtime.pairing import Frame, Pairing, PairingRules
from hralign_ros.runtime.video import nearest
import numpy as np

# Fraction of the sets that should be complete.
_MATCHED = 0.95
# A greater tolerance would pair images of different moments.
_LARGEST_TOLERANCE = 0.1


def moments_of(camera: Camera, stamp_source: str) -> np.ndarray:
    """
    Take the usable times of a camera, by the stamp that the encoder would use.

    :returns: int64 [2, n], when each frame was taken and when it came, by rising stamp.
    """
    rows = sorted((m.arrival if stamp_source == 'arrival' else m.stamp, m.elapsed)
                  for m in camera.received if stamp_source == 'arrival' or m.stamp > 0)
    return np.array(rows, np.int64).reshape(-1, 2).T


def partners(views: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """
    Give each frame of the slowest view the nearest frames of the others.

    Frames outside the time that all views cover have no partner and are left out.

    :returns: differences of stamps and of arrival within each group [s], float64 [n] each.
    """
    slowest, _ = min(views, key=lambda view: view.shape[1])
    begin = max(int(stamps[0]) for stamps, _ in views)
    end = min(int(stamps[-1]) for stamps, _ in views)
    groups = [view[:, nearest(view[0], slowest)] for view in views]
    inside = (slowest >= begin) & (slowest <= end)
    skews, lags = np.ptp(np.stack(groups), axis=0)[:, inside] * 1e-9
    return skews, lags


def replay(cameras: Sequence[Camera], rules: PairingRules, stamp_source: str) -> Counter[str]:
    """
    Let the encoder's own pairing match what was heard.

    :returns: number of sets, and of those with all required views (`sets`, `full`).
    """
    required = [c.view for c in cameras if c.required] or [cameras[0].view]
    pairing: Pairing[None] = Pairing([c.view for c in cameras], required, rules)
    # While only some views had begun or were still heard, there was nothing to match.
    begin = max(c.received[0].elapsed for c in cameras)
    end = min(c.received[-1].elapsed for c in cameras)
    events = sorted((m.elapsed, m.arrival, c.view, m.arrival if stamp_source == 'arrival'
                     else m.stamp) for c in cameras for m in c.received
                    if begin <= m.elapsed <= end)
    counts: Counter[str] = Counter()
    # A partner of the first frame may have come before the listening began.
    first = True

    def take(now: int, elapsed: int) -> None:
        nonlocal first
        matched = pairing.take(now=now, elapsed=elapsed)
        if matched is not None and not first:
            counts['sets'] += 1
            counts['full'] += all(view in matched for view in required)
        first = first and matched is None

    for elapsed, now, view, stamp in events:
        while (due := pairing.wait_until()) is not None and due <= elapsed:
            before = pairing.wait_until()
            take(now - (elapsed - due), due)
            if pairing.wait_until() == before:
                break
        pairing.offer(view, Frame(stamp, None), now=now, elapsed=elapsed)
        take(now, elapsed)
    return counts


def pairing_finding(
    cameras: Sequence[Camera], rules: PairingRules, *, stamp_source: str,
) -> Iterator[Finding]:
    """Check how well the frames of the cameras fit together."""
    usable = {c.view: moments_of(c, stamp_source) for c in cameras}
    silent = [view for view, moments in usable.items() if moments.shape[1] < FEWEST]
    if silent or len(cameras) < 2:
        why = f'no usable frames of {", ".join(silent)}' if silent else 'there is one view only'
        yield skipped('skew', why)
        yield skipped('matched', why)
        return
    tolerance = rules.tolerance * 1e-9
    offsets = {c.view: float(np.median(ages_of(c))) for c in cameras if len(ages_of(c))}
    apart = max(offsets.values()) - min(offsets.values()) if len(offsets) > 1 else 0.0
    skews, lags = partners(list(usable.values()))
    if stamp_source == 'header' and apart > max(tolerance, _LARGEST_TOLERANCE):
        behind, *_, ahead = sorted(offsets, key=offsets.__getitem__, reverse=True)
        yield error('skew', f'frames of {ahead} and {behind} that come together have stamps '
                    f'{apart:.2f} s apart: their clocks differ', CLOCK_REMEDY, offset_s=apart)
    elif not len(skews):
        yield error('skew', 'the stamps of the cameras do not overlap', CLOCK_REMEDY)
    else:
        yield skew_finding(skews, tolerance)
    yield matched_finding(
        replay(cameras, rules, stamp_source),
        float(np.percentile(lags, 95)) if len(lags) else None, rules,
        period=min(float(np.median(np.diff(stamps))) * 1e-9 for stamps, _ in usable.values()))


def skew_finding(skews: np.ndarray, tolerance: float) -> Finding:
    """
    Check the differences between nearest stamps.

    :param skews: [s], float64 [n].
    """
    median, late = (float(v) for v in np.percentile(skews, (50, 95)))
    fraction = float((skews <= tolerance).mean())
    # Rounded up to a millisecond, with room for what was not heard.
    needed = float(np.ceil((late + 1e-4) * 1e3) / 1e3)
    found = (f'{median * 1e3:.1f} ms (median), {late * 1e3:.1f} ms (p95) between nearest stamps; '
             f'{fraction:.0%} within tolerance_s = {tolerance:g}')
    values = {'median_s': median, 'p95_s': late, 'fraction_within': fraction,
              'tolerance_95_s': needed}
    if fraction >= _MATCHED:
        return ok('skew', f'{found}; {needed:g} would do for 95 %', **values)
    if needed > _LARGEST_TOLERANCE:
        remedy = (f'95 % would need tolerance_s = {needed:g}, which pairs images of different '
                  'moments: synchronise the clocks, trigger the cameras together, or raise the '
                  'lower frame rate')
    else:
        remedy = (f'Trigger the cameras together or raise their rate; or set tolerance_s to '
                  f'{needed:g}, which 95 % would keep')
    return (error if fraction < 0.5 else warn)('skew', found, remedy, **values)


def matched_finding(
    counts: Counter[str], lag: float | None, rules: PairingRules, *, period: float = math.inf,
) -> Finding:
    """
    Check what the encoder's pairing made of what was heard.

    :param lag: how long after each other partners come, p95 [s].
    :param period: between the frames of the fastest camera [s].
    """
    if not counts['sets']:
        return error('matched', 'the encoder would make no set at all of these frames',
                     'See skew, and messages, stamps and age of each camera', sets=0)
    fraction = counts['full'] / counts['sets']
    found = f'{fraction:.0%} of {counts["sets"]} sets have all required views'
    values = {'sets': counts['sets'], 'full_fraction': fraction}
    if fraction >= _MATCHED:
        return ok('matched', found, **values)
    wait = rules.max_wait * 1e-9
    if lag is not None and period > lag > wait:
        remedy = (f'Partners come up to {lag:.3f} s after each other: make the slower camera '
                  f'faster, or set max_wait_s (now {wait:g}) above that')
    elif lag is not None and lag > wait:
        remedy = (f'Partners come up to {lag:.3f} s after each other, and of each camera only the '
                  f'newest frame is kept: make the slower one faster, or set tolerance_s (now '
                  f'{rules.tolerance * 1e-9:g}) above that, which pairs images so far apart, '
                  f'and max_wait_s (now {wait:g}) above {period:.3f}')
    else:
        remedy = 'See skew, and messages, stamps and age of each camera'
    return (error if fraction < 0.5 else warn)('matched', found, remedy, **values)

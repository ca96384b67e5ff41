# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Run the node for hours, or for a million ticks at once, and see whether anything grows.

    make soak ARGS="ticks --ticks 1000000"    # the worker alone, as fast as it goes
    make soak ARGS="hour --seconds 3600"      # the node itself, 2 x 30 Hz

`ticks` drives the node's own worker, conversions and faults in one process, without DDS, on a
clock of its own, with the tiny bundle of the tests (a real bundle's signatures, graphs of a few
kilobytes): what can leak there is ours. Faults of all kinds are drawn at random all the time.
`hour` is the process that a robot runs, with the default bundle and two cameras over DDS.
"""

import argparse
from array import array
from collections import Counter
from datetime import datetime, timezone
import json
import os
from pathlib import Path
import shlex
import sys
import tempfile
import time
from typing import Any

from hralign_ros.nodes import conversions, image_subscriptions
from hralign_ros.runtime.decision import Decision, DecisionRules, Status
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.errors import HralignError, InferenceError
from hralign_ros.runtime.faults import Faults
from hralign_ros.runtime.memory_limit import process_memory
from hralign_ros.runtime.pairing import PairingRules
from hralign_ros.runtime.pipeline import Callbacks, Pipeline, Result
import numpy as np
import onnxruntime
from sensor_msgs.msg import Image
from support.tiny_bundle import VIEWS, write_tiny_bundle

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / 'results/soak.json'
SECOND = 1_000_000_000
PERIOD = SECOND // 30
TASKS = ('', 'pick up the cup', 'open the drawer', 'close the window')
# This share of the run is left out of slopes: allocators and caches fill up first.
WARM_UP = 0.1
# How often, in moments of both cameras, a fault begins; and how many moments it may last.
_OFTEN, _LONG = 60, 90
KINDS = ('silent', 'stuck', 'truncated', 'encoding', 'repeated', 'behind', 'ahead', 'zero',
         'late', 'large', 'empty', 'jump back', 'jump ahead', 'nan', 'raise', 'task', 'episode',
         'rules', 'closed', 'nothing')


class Growth:
    """
    Samples of what must not grow.

    :ivar rows: (ticks, resident bytes, open handles, threads).
    """

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, int]] = []

    def sample(self, ticks: int) -> None:
        """Look at this process."""
        self.rows.append((ticks, process_memory()[1], len(os.listdir('/proc/self/fd')),
                          len(os.listdir('/proc/self/task'))))

    def slope(self) -> dict[str, float]:
        """Fit lines to all but the warm-up: MB of memory and handles per 100,000 ticks."""
        rows = np.array(self.rows[int(len(self.rows) * WARM_UP):], np.float64)
        per = {name: float(np.polyfit(rows[:, 0], rows[:, i], 1)[0]) * 100_000
               for i, name in ((1, 'rss'), (2, 'handles'), (3, 'threads'))}
        return {'rss_slope_mb_per_100k': round(per['rss'] / 1e6, 4),
                'handles_per_100k': round(per['handles'], 4),
                'rss_first_mb': round(rows[0, 1] / 1e6, 1),
                'rss_last_mb': round(rows[-1, 1] / 1e6, 1),
                'handles_first': int(rows[0, 2]), 'handles_last': int(rows[-1, 2]),
                'threads_first': int(rows[0, 3]), 'threads_last': int(rows[-1, 3])}


class Soak:
    """A worker, cameras that go wrong, and a check of every result."""

    def __init__(self, bundle: Path, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.now = 1000 * SECOND
        # Real time of the run, which never jumps.
        self.elapsed = SECOND
        self.ticks = self.stale = self.told = 0
        self.decided: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.begun: Counter[str] = Counter()
        self.last = (0, 0)
        self.encoder = Encoder.load(bundle, provider='cpu', threads=1)
        self.broken = self.error = ''
        self._break(self.encoder)
        self.faults = Faults(self._told, self._told_end, clock=lambda: self.elapsed)
        self.pipeline = Pipeline(
            self.encoder, Callbacks(
                decode=lambda view, message: image_subscriptions.decode(message),
                clock=lambda: self.now, on_result=self._check, after_result=lambda result: None,
                elapsed=lambda: self.elapsed),
            self.faults, required=VIEWS[:2], pairing=PairingRules(),
            decision=DecisionRules(), stuck_after=2 * SECOND, task=TASKS[1])
        self.pipeline.start()
        self.wrong: dict[str, tuple[str, int]] = {}
        self.stuck: dict[str, np.ndarray] = {}

    def _break(self, encoder: Encoder) -> None:
        """Let the visual graph fail where it is to."""
        graph = encoder._visual
        run = graph.run

        def failing(feed: Any) -> list[Any]:
            if self.broken == 'raise':
                raise InferenceError('visual.onnx failed: as it was told to')
            found = run(feed)
            if self.broken == 'nan':
                found[0] = found[0] * np.nan
            return found

        graph.run = failing  # type: ignore[method-assign]

    def _told(self, key: str, text: str) -> None:
        self.told += 1
        if key == 'internal error':
            self.error = text

    def _told_end(self, key: str) -> None:
        self.told += 1

    def _check(self, result: Result) -> None:
        """Check a result as test/faults does, and make the messages that would go out."""
        if result.tick is None:
            self.stale += 1
            assert result.decision is Decision.ABSTAIN and result.status & Status.STALE_VIEW
        else:
            self.ticks += 1
            assert np.isfinite(result.tick.embedding).all()
            assert not result.tick.embedding[~result.tick.view_valid].any()
            episode, stamp = self.last
            assert result.stamp > stamp or result.episode_id > episode, 'stamps go back'
            assert result.stamp <= self.now + 100_000_000
            self.last = (result.episode_id, result.stamp)
            conversions.embedding_message(result, self.encoder)
        if result.status & ~Status.VIEW_MISSING:
            assert result.decision is Decision.ABSTAIN
        self.decided[result.decision.name] += 1
        conversions.success_message(result, self.encoder)

    def moment(self, index: int) -> None:
        """Let all cameras send once, and the worker do its work."""
        rng = self.rng
        self.now += PERIOD
        self.elapsed += PERIOD
        if rng.integers(_OFTEN) == 0:
            self._begin(str(rng.choice(KINDS)), index)
        for who, (kind, until) in list(self.wrong.items()):
            if index >= until:
                self._end(who, kind)
        for view in VIEWS:
            self._send(view, self.wrong.get(view, ('', 0))[0])
        self.pipeline.check_hang()
        self._settle()

    def _settle(self) -> None:
        """Wait until the worker waits, and raise what it has found."""
        wake: Any = self.pipeline._wake
        while not wake._waiters and not self.error:
            time.sleep(0)
        if self.error:
            raise AssertionError(self.error)

    def _begin(self, kind: str, index: int) -> None:
        rng, pipeline = self.rng, self.pipeline
        self.begun[kind] += 1
        until = index + int(rng.integers(1, _LONG))
        if kind in ('nan', 'raise'):
            self.broken = kind
            self.wrong['model'] = (kind, until)
        elif kind == 'closed':
            # Counts are since the last start.
            self.counts += pipeline.statistics().ticks
            assert pipeline.stop()
            pipeline.start()
        elif kind == 'jump back':
            self.now -= int(rng.integers(1, 1000)) * SECOND
            pipeline.time_jumped()
            self.last = (0, 0)
        elif kind == 'jump ahead':
            self.now += int(rng.integers(1, 1000)) * SECOND
        elif kind == 'task':
            pipeline.set_task(str(rng.choice(TASKS)))
        elif kind == 'episode':
            pipeline.start_episode()
        elif kind == 'rules':
            pipeline.update(
                PairingRules(tolerance=int(rng.integers(0, 50_000_000))),
                DecisionRules(allow_unknown_tasks=bool(rng.integers(2))),
                stuck_after=int(rng.integers(0, 2)) * SECOND)
        else:
            for view in rng.permutation(VIEWS)[:int(rng.integers(1, len(VIEWS) + 1))]:
                self.wrong[str(view)] = (kind, until)

    def _end(self, who: str, kind: str) -> None:
        del self.wrong[who]
        self.stuck.pop(who, None)
        if who == 'model':
            self.broken = ''

    def _send(self, view: str, kind: str) -> None:
        """Send what a camera sends that is broken in one way, or in none."""
        rng, stamp = self.rng, self.now
        size = (48, 64) if kind == 'large' else (12, 16)
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        if kind == 'stuck':
            image = self.stuck.setdefault(view, image)
        message = Image(height=size[0], width=size[1], step=3 * size[1], encoding='rgb8',
                        data=array('B', image.tobytes()))
        message.header.frame_id = f'{view}_optical_frame'
        if kind == 'silent':
            return
        if kind in ('truncated', 'empty'):
            message.data = array('B', bytes(7 if kind == 'truncated' else 0))
        if kind == 'encoding':
            message.encoding = 'colour9'
        stamp = {'repeated': stamp - stamp % SECOND, 'behind': stamp - 20 * SECOND,
                 'ahead': stamp + 3600 * SECOND, 'zero': 0,
                 'late': stamp - 80_000_000}.get(kind, stamp)
        self.pipeline.offer(view, stamp, message)


def soak_ticks(ticks: int, seed: int) -> dict[str, Any]:
    """Run so many ticks with faults, and tell what grew."""
    growth, began = Growth(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix='hralign_soak_') as folder:
        write_tiny_bundle(Path(folder))
        soak = Soak(Path(folder), seed)
        index, step = 0, max(ticks // 200, 1)
        due = 0
        while soak.ticks < ticks:
            index += 1
            soak.moment(index)
            if soak.ticks >= due:
                due += step
                growth.sample(soak.ticks)
                if len(growth.rows) % 10 == 0:
                    rate = soak.ticks / (time.monotonic() - began)
                    print(f'{soak.ticks} ticks, {rate:.0f}/s, {growth.rows[-1][1] / 1e6:.1f} MB, '
                          f'{(ticks - soak.ticks) / max(rate, 1e-9):.0f} s to go', flush=True)
        counts = soak.counts + soak.pipeline.statistics().ticks
        soak.pipeline.stop()
    return {'ticks': soak.ticks, 'stale_results': soak.stale, 'log_lines': soak.told,
            'moments': index, 'hours_of_robot': round(index * PERIOD / SECOND / 3600, 1),
            'faults_begun': dict(sorted(soak.begun.items())),
            'decisions': dict(soak.decided), 'tick_counts': dict(counts), 'seed': seed,
            'seconds': round(time.monotonic() - began, 1), **growth.slope()}


def soak_hour(seconds: float) -> dict[str, Any]:
    """Run the real node for so long, and tell what grew and whether it fell behind."""
    from collector import Collector, growth, matched_frames, percentiles
    from hralign_ros.runtime.resources import find_share
    from processes import Cameras, encoder_node, Neighbours
    import yaml

    task = str(yaml.safe_load((find_share('demo/can') / 'episode.yaml').read_text())['task'])
    with tempfile.TemporaryDirectory(prefix='hralign_soak_') as name, Collector() as collector:
        folder = Path(name)
        with Cameras(folder) as cameras, encoder_node(folder, task) as node:
            collector.wait_for_embedding(node, after=node.started)
            time.sleep(2.0)
            neighbours, start = Neighbours(node, cameras), time.time_ns()
            cpu, samples = node.cpu_seconds(), []
            while time.time_ns() - start < seconds * 1e9:
                time.sleep(10.0)
                node.check()
                done = len(collector.arrivals(start, time.time_ns()))
                handles = len(os.listdir(f'/proc/{node.process.pid}/fd'))
                samples.append((done, node.memory_mb(), handles))
                if len(samples) % 30 == 0:
                    print(f'{len(samples) * 10} s, {done} ticks, {samples[-1][1]:.1f} MB',
                          flush=True)
            end = time.time_ns()
            took = (end - start) * 1e-9
            arrivals = collector.arrivals(start, end)
            sent = cameras.sent(start, end)
            used = (node.cpu_seconds() - cpu) / took
            others = neighbours.cores()
    rows = np.array(samples[int(len(samples) * WARM_UP):], np.float64)
    return {'seconds': round(took, 1), 'ticks': len(arrivals),
            **matched_frames(arrivals, sent),
            'latency': percentiles([a.latency for a in arrivals]), 'delay': growth(arrivals),
            'cpu_cores': round(used, 3), **others,
            'rss_slope_mb_per_100k': round(float(np.polyfit(rows[:, 0], rows[:, 1], 1)[0]) * 1e5,
                                           4),
            'rss_first_mb': rows[0, 1], 'rss_last_mb': rows[-1, 1],
            'handles_first': int(rows[0, 2]), 'handles_last': int(rows[-1, 2]),
            'rss_mb_every_300_s': [round(s[1], 1) for s in samples[29::30]]}


def main() -> int:
    """Run one of the two and add it to the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('what', choices=('ticks', 'hour'))
    parser.add_argument('--ticks', type=int, default=1_000_000)
    parser.add_argument('--seconds', type=float, default=3600.0)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--output', type=Path, default=RESULTS)
    options = parser.parse_args()
    try:
        found = soak_ticks(options.ticks, options.seed) if options.what == 'ticks' \
            else soak_hour(options.seconds)
    except HralignError as error:
        print(f'soak: {error}', file=sys.stderr)
        return 1
    found |= {'load_average': [round(x, 2) for x in os.getloadavg()],
              'onnxruntime': onnxruntime.__version__,
              'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
              'command': 'make soak ARGS="' + shlex.join(
                  Path(w).name if w.startswith('/') else w for w in sys.argv[1:]) + '"'}
    document = json.loads(options.output.read_text()) if options.output.exists() else {}
    document[options.what] = found
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(document, indent=1) + '\n')
    print(json.dumps(found, indent=1))
    return 0


if __name__ == '__main__':
    sys.exit(main())

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Watch an encoder while it runs: a live view in the terminal, and a report at the end.

The report folder gets report.png (images, attention, timelines) and ticks.csv.
"""

from collections import Counter, deque
from functools import partial
import math
from pathlib import Path
import sys
import time
from typing import Any, TextIO

from builtin_interfaces.msg import Time as TimeMessage
from diagnostic_msgs.msg import DiagnosticArray
from hralign_ros.nodes.conversions import stamp_to_ns
from hralign_ros.nodes.demo_report import draw_report, out_fraction, Recording, write_ticks
from hralign_ros.nodes.encoder_node import LATCHED, RELIABLE
from hralign_ros.nodes.image_subscriptions import decode
from hralign_ros.nodes.interfaces import EncoderInfo, SuccessProbability, TaskEmbedding
from hralign_ros.nodes.parameters import declared, Parameter
from hralign_ros.nodes.policy_example import parts_of
from hralign_ros.nodes.process import run_node
from hralign_ros.runtime.bundle import load_bundle
from hralign_ros.runtime.decision import Decision, Status
from hralign_ros.runtime.errors import FrameError, HralignError
from hralign_ros.runtime.tasks import load_tasks
import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image as ImageMessage

# Images kept for the report: one a second, for at most ten minutes.
_IMAGE_PERIOD_S = 1.0
_MOST_IMAGES = 600


PARAMETERS = (
    Parameter('report', 'demo_report', 'Folder for report.png and ticks.csv.'),
    Parameter('cameras', ['wrist/image_raw', 'third_person/image_raw'],
              'Image topics, in the order of the views; shown in the report.'),
)


class DemoMonitor(Node):
    """Show and record what one encoder publishes."""

    def __init__(self, terminal: TextIO | None = None) -> None:
        super().__init__('demo_monitor')
        values = declared(self, PARAMETERS)
        self._report_folder = Path(values['report'])
        self._terminal = terminal or sys.stdout
        self.recording = Recording()
        self._first: np.ndarray | None = None
        self._start: int | None = None
        # Of the newest row.
        self._stamp: TimeMessage | None = None
        self._recent: deque[float] = deque(maxlen=60)
        self._last_success: SuccessProbability | None = None
        self._newest_image: dict[int, ImageMessage] = {}
        self._overlays: dict[str, Any] = {}
        self._lines = 0
        reliable = QoSProfile(depth=30, reliability=ReliabilityPolicy.RELIABLE)
        self.create_subscription(
            TaskEmbedding, 'encoder/embedding', self._on_embedding, reliable)
        self.create_subscription(
            SuccessProbability, 'encoder/success', self._on_success, reliable)
        self.create_subscription(EncoderInfo, 'encoder/info', self._on_info, LATCHED)
        self.create_subscription(
            DiagnosticArray, '/diagnostics', self._on_diagnostics, reliable)
        sensor = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        for index, topic in enumerate(values['cameras']):
            self.create_subscription(
                ImageMessage, topic, partial(self._newest_image.__setitem__, index), sensor)
        self.create_timer(0.5, self._show)

    def _on_info(self, message: EncoderInfo) -> None:
        """Learn the views, and look at their attention."""
        self.recording.info = message
        for view in message.view_names:
            if view not in self._overlays:
                self._overlays[view] = self.create_subscription(
                    ImageMessage, f'encoder/attention/{view}', partial(self._on_overlay, view),
                    RELIABLE)

    def _on_embedding(self, message: TaskEmbedding) -> None:
        now = self.get_clock().now().nanoseconds * 1e-9
        stamp = stamp_to_ns(message.header.stamp)
        if self._start is None:
            self._start = stamp
        # Of norm 1, so that their products are cosines; without any there is no drift to show.
        parts = parts_of(message)
        values = next((parts[name] for name in ('task', 'clip', 'mean') if name in parts),
                      np.full((len(message.view_names), 1), math.nan, np.float32))
        if self._first is None and all(message.view_valid):
            self._first = values.copy()
        drift = [math.nan] * len(values)
        if self._first is not None:
            drift = [1.0 - float(a @ b) if valid else math.nan for a, b, valid in zip(
                values, self._first, message.view_valid, strict=True)]
        self.recording.view_names = list(message.view_names)
        self.recording.task = message.task
        self.recording.rows.append({
            'time_s': (stamp - self._start) * 1e-9,
            'latency_s': (stamp_to_ns(message.publish_time) - stamp) * 1e-9,
            'processing_s': stamp_to_ns(message.processing_duration) * 1e-9,
            'skew_s': float(message.skew),
            **{f'drift_{view}': one for view, one in zip(message.view_names, drift, strict=True)},
            'probability': math.nan, 'threshold': math.nan, 'failure': math.nan,
            'progress': math.nan, 'ood_score': math.nan, 'ood_limit': math.nan,
            'decision': '', 'status': ''})
        self._stamp = message.header.stamp
        self._recent.append(now)
        self._add_scores()

    def _on_success(self, message: SuccessProbability) -> None:
        self._last_success = message
        self._add_scores()

    def _add_scores(self) -> None:
        """Put the newest success message into the row of its tick, whichever came first."""
        message, rows = self._last_success, self.recording.rows
        # Of one stamp the first counts: it is repeated, as stale, when the cameras have stopped.
        if message is None or message.header.stamp != self._stamp or rows[-1]['decision']:
            return
        rows[-1]['decision'] = Decision(message.decision).name
        rows[-1]['status'] = _flags(message.status)
        for valid, name, value in (
                (message.decision_threshold_valid, 'threshold', message.decision_threshold),
                (message.failure_valid, 'failure', message.failure_probability),
                (message.progress_valid, 'progress', message.progress),
                (message.ood_valid, 'ood_score', message.ood_score),
                (message.ood_valid, 'ood_limit', message.ood_threshold),
                (message.probability_valid, 'probability', message.probability)):
            if valid:
                rows[-1][name] = float(value)

    def _on_overlay(self, view: str, message: ImageMessage) -> None:
        """Keep an overlay a second, and the camera image beside it."""
        if self._start is None:
            return
        seconds = (stamp_to_ns(message.header.stamp) - self._start) * 1e-9
        overlays = self.recording.overlays.setdefault(view, [])
        if len(overlays) >= _MOST_IMAGES \
                or (overlays and seconds - overlays[-1][0] < _IMAGE_PERIOD_S):
            return
        overlays.append((seconds, decode(message)[0].copy()))
        index = self.recording.view_names.index(view)
        image = self._newest_image.get(index)
        if image is not None:
            try:
                self.recording.images.setdefault(view, []).append(
                    (seconds, decode(image)[0].copy()))
            except FrameError as error:
                self.get_logger().warning(str(error), once=True)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            for pair in status.values:
                if pair.key.startswith('dropped_'):
                    self.recording.drops[f'{status.name.split()[-1]} {pair.key[8:]}'] = int(
                        pair.value)

    def _show(self) -> None:
        """Draw the live view: over itself on a terminal, a line at a time elsewhere."""
        rows, info = self.recording.rows, self.recording.info
        if info is None:
            return
        lines = [f'{info.backbone} on {info.provider}, bundle {info.bundle_name} '
                 f'{info.bundle_sha256[:8]}, embedding {info.embedding_sha256[:8]}, task: '
                 f'{self.recording.task or "none"}']
        if rows:
            last = rows[-60:]
            rate = (len(self._recent) - 1) / max(self._recent[-1] - self._recent[0], 1e-9)
            latency = np.percentile([row['latency_s'] for row in last], (50, 95)) * 1e3
            drift = ', '.join(f'{view} {last[-1][f"drift_{view}"]:.3f}'
                              for view in self.recording.view_names)
            lines += [
                f'{last[-1]["time_s"]:6.1f} s  {rate:5.1f} Hz  latency p50 {latency[0]:5.1f} ms '
                f'p95 {latency[1]:5.1f} ms  skew {last[-1]["skew_s"] * 1e3:4.1f} ms',
                f'drift from the first frame: {drift}',
                f'drops: {_drops(self.recording.drops)}']
        success = self._last_success
        if success is not None:
            probability = f'{success.probability:.3f}' if success.probability_valid else 'none'
            out = f'OOD score {success.ood_score:.3g} of {success.ood_threshold:.3g}, ' \
                if success.ood_valid else ''
            lines.append(f'success: probability {probability}, {out}'
                         f'{Decision(success.decision).name}, {_flags(success.status)}')
        if self._terminal.isatty():
            if self._lines:
                self._terminal.write(f'\x1b[{self._lines}A')
            self._terminal.write(''.join(f'\x1b[2K{line}\n' for line in lines))
            self._lines = len(lines)
        elif rows:
            self._terminal.write(' | '.join(lines[1:2] + lines[-1:]) + '\n')
        self._terminal.flush()

    def destroy_node(self) -> None:
        """Write the report before the node goes."""
        self.write_report()
        super().destroy_node()

    def write_report(self) -> None:
        """Write ticks.csv and report.png, if there was anything to see."""
        if not self.recording.rows:
            return
        self._report_folder.mkdir(parents=True, exist_ok=True)
        write_ticks(self.recording, self._report_folder / 'ticks.csv')
        self.recording.next_step = self._next_step()
        try:
            draw_report(self.recording, self._report_folder / 'report.png')
        except ImportError as error:
            self.get_logger().warning(
                f'no report.png: {error}; pip install matplotlib. ticks.csv is written')
            return
        rows = self.recording.rows
        fraction = out_fraction(rows)
        out = '' if fraction is None else f', {fraction:.0%} of them out of distribution'
        self._terminal.write(f'report: {self._report_folder}/report.png, ticks.csv '
                             f'({len(rows)} ticks{out})\n')

    def _next_step(self) -> str:
        """Tell what helps where images are out of distribution; '': the bundle cannot be read."""
        info = self.recording.info
        try:
            return load_tasks(load_bundle(info.bundle_path)).of(
                self.recording.task).when_unlike if info else ''
        except HralignError as error:
            self.get_logger().debug(str(error))
            return ''


def _flags(status: int) -> str:
    return '|'.join(flag.name or '' for flag in Status if flag and status & flag) or 'OK'


def _drops(drops: Counter[str]) -> str:
    return ', '.join(f'{name} {n}' for name, n in sorted(drops.items()) if n) or 'none'


def main(arguments: list[str] | None = None) -> int:
    """Run the monitor as a process until it is interrupted; 1: it has received nothing."""
    started = time.monotonic()
    monitors: list[DemoMonitor] = []

    def make() -> DemoMonitor:
        monitors.append(DemoMonitor())
        return monitors[0]

    if run_node('demo_monitor', make, arguments):
        return 1
    print(f'watched for {time.monotonic() - started:.0f} s')
    if monitors[0].recording.rows:
        return 0
    print('demo_monitor: nothing was received from the encoder, so there is no report (drops: '
          f'{_drops(monitors[0].recording.drops)}); `hralign doctor` tells what is missing',
          file=sys.stderr)
    return 1


if __name__ == '__main__':
    sys.exit(main())

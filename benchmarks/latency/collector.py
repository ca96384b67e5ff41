# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The receiving end: what a node publishes, when, and what follows from the stamps."""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Condition, Event, Thread
import time
from typing import Any

from benchmarks.latency.processes import BenchmarkError, Child, NAMESPACE
from diagnostic_msgs.msg import DiagnosticArray
from hralign_ros.nodes.conversions import stamp_to_ns
from hralign_ros.nodes.interfaces import EncoderInfo, TaskEmbedding
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
import numpy as np
from numpy.typing import NDArray
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions


@dataclass(frozen=True)
class Arrival:
    """
    One embedding message, all times in nanoseconds of the system clock.

    :param view_stamps: of the views that took part.
    :param processing: the node's own measure of decoding, inference and assembly.
    """

    stamp: int
    published: int
    received: int
    processing: int
    view_stamps: tuple[int, ...]

    @property
    def latency(self) -> float:
        """Acquisition to publication [ms]."""
        return (self.published - self.stamp) * 1e-6


class Collector:
    """
    Subscribe to the embeddings of the encoder and of the naive node.

    Messages come in on a thread of its own. Use it as a context.
    """

    def __init__(self) -> None:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node('collector', namespace=NAMESPACE)
        self._changed = Condition()
        self._arrivals: list[Arrival] = []
        self._drops: list[tuple[int, dict[str, int]]] = []
        self._infos: list[tuple[int, EncoderInfo]] = []
        reliable = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
        latched = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                             durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node = self._node
        for name in ('encoder', 'naive'):
            node.create_subscription(
                TaskEmbedding, f'{name}/embedding', self._on_embedding, reliable)
        node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, reliable)
        node.create_subscription(EncoderInfo, 'encoder/info', self._on_info, latched)
        self._client = node.create_client(ChangeState, 'encoder/change_state')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._stop = Event()
        self._thread = Thread(target=self._spin, daemon=True)

    def __enter__(self) -> 'Collector':
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5.0)
        self._executor.shutdown(timeout_sec=1.0)
        self._node.destroy_node()
        rclpy.try_shutdown()

    def _spin(self) -> None:
        while not self._stop.is_set():
            self._executor.spin_once(timeout_sec=0.2)

    def _on_embedding(self, message: TaskEmbedding) -> None:
        now = time.time_ns()
        arrival = Arrival(
            stamp=stamp_to_ns(message.header.stamp), published=stamp_to_ns(message.publish_time),
            received=now, processing=stamp_to_ns(message.processing_duration),
            view_stamps=tuple(stamp_to_ns(stamp) for stamp, valid in zip(
                message.view_stamps, message.view_valid, strict=True) if valid))
        with self._changed:
            self._arrivals.append(arrival)
            self._changed.notify_all()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        counts: dict[str, int] = {}
        for status in message.status:
            if status.name.startswith(f'{NAMESPACE}/encoder: camera'):
                for entry in status.values:
                    if entry.key.startswith('dropped_'):
                        key = entry.key.removeprefix('dropped_')
                        counts[key] = counts.get(key, 0) + int(entry.value)
        with self._changed:
            self._drops.append((time.time_ns(), counts))

    def _on_info(self, message: EncoderInfo) -> None:
        with self._changed:
            self._infos.append((time.time_ns(), message))

    def wait_for_embedding(
        self, child: Child, *, after: int, patience: float = 60.0,
    ) -> Arrival:
        """
        Wait for the first embedding received after an instant [ns].

        :raises BenchmarkError: the node has died, or nothing comes.
        """
        end = time.monotonic() + patience
        while time.monotonic() < end:
            with self._changed:
                found = next((a for a in self._arrivals if a.received > after), None)
                if found is not None:
                    return found
                self._changed.wait(0.1)
            child.check()
        raise BenchmarkError(
            f'{child.name}: no embedding in {patience:.0f} s:\n{child.output[-2000:]}')

    def arrivals(self, start: int, end: int) -> list[Arrival]:
        """Give what has come with stamps from `start` up to `end` [ns]."""
        with self._changed:
            return [a for a in self._arrivals if start <= a.stamp < end]

    def drops(self, start: int, end: int) -> dict[str, int]:
        """Tell by reason how many drops the node itself counted in between, to about 1 s."""
        with self._changed:
            before = [counts for at, counts in self._drops if at <= start and counts]
            upto = [counts for at, counts in self._drops if at <= end and counts]
        if not upto:
            return {}
        first = before[-1] if before else {}
        return {key: n - first.get(key, 0) for key, n in sorted(upto[-1].items())
                if n != first.get(key, 0)}

    def info(self, after: int) -> tuple[int, float] | None:
        """Tell when ~/info came after an instant [ns], and how long loading took [s]."""
        with self._changed:
            return next(((at, float(message.warm_up)) for at, message in self._infos
                         if at > after), None)

    def forget(self) -> None:
        """Forget everything, before another node is measured."""
        with self._changed:
            self._arrivals.clear()
            self._drops.clear()
            self._infos.clear()

    def set_active(self, active: bool) -> None:
        """Activate or deactivate the encoder through its lifecycle service."""
        if not self._client.wait_for_service(10.0):
            raise BenchmarkError("the encoder's change_state service is not there")
        request = ChangeState.Request()
        request.transition.id = (
            Transition.TRANSITION_ACTIVATE if active else Transition.TRANSITION_DEACTIVATE)
        done = Event()
        future = self._client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        if not done.wait(10.0) or not future.result().success:
            raise BenchmarkError(
                f'the encoder could not be {"activated" if active else "deactivated"}')


def percentiles(values: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    """Summarise milliseconds."""
    if not len(values):
        return dict.fromkeys(('p50_ms', 'p95_ms', 'p99_ms', 'max_ms'), float('nan'))
    p50, p95, p99, top = np.percentile(values, (50, 95, 99, 100))
    return {name: round(float(value), 2) for name, value in (
        ('p50_ms', p50), ('p95_ms', p95), ('p99_ms', p99), ('max_ms', top))}


def growth(arrivals: Sequence[Arrival], *, edge: float = 10.0) -> dict[str, float]:
    """
    Tell how the delay grows over a run.

    The slope is fitted to the medians of whole seconds, so that single late frames do not decide.

    :param edge: how much of the run's start and end to compare [s], at most a third of it.
    """
    stamps = np.array([a.stamp for a in arrivals], np.float64) * 1e-9
    latency = np.array([a.latency for a in arrivals])
    seconds = stamps - stamps[0]
    whole = seconds.astype(int)
    bins = np.unique(whole)
    medians = np.array([np.median(latency[whole == b]) for b in bins])
    slope = np.polyfit(bins / 60.0, medians, 1)[0] if len(bins) > 2 else float('nan')
    edge = min(edge, seconds[-1] / 3)
    return {
        'slope_ms_per_min': round(float(slope), 3), 'edge_s': round(float(edge), 1),
        'first_p50_ms': round(float(np.median(latency[seconds <= edge])), 2),
        'last_p50_ms': round(float(np.median(latency[seconds >= seconds[-1] - edge])), 2)}


def matched_frames(arrivals: Sequence[Arrival], sent: Sequence[NDArray[Any]]) -> dict[str, Any]:
    """
    Compare what was sent with what was used.

    :param sent: per view, rows of stamp, start and end of the sending [ns].
    """
    used = {stamp for a in arrivals for stamp in a.view_stamps}
    complete = sum(len(a.view_stamps) == len(sent) for a in arrivals)
    frames = sum(len(table) for table in sent)
    lost = sum(int(stamp) not in used for table in sent for stamp in table[:, 0])
    late = np.concatenate([table[:, 1] - table[:, 0] for table in sent]) * 1e-6
    sending = np.concatenate([table[:, 2] - table[:, 1] for table in sent]) * 1e-6
    return {
        'frames_sent': frames, 'drops': lost, 'incomplete_sets': len(arrivals) - complete,
        'camera_late_p50_ms': round(float(np.median(late)), 2),
        'camera_late_p99_ms': round(float(np.percentile(late, 99)), 2),
        'camera_sending_p50_ms': round(float(np.median(sending)), 2)}

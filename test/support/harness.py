# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A node process under test, and a node beside it that plays the cameras and listens."""

from array import array
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from hralign_msgs.msg import EncoderInfo, SuccessProbability, TaskEmbedding
from hralign_msgs.srv import SetTask, StartEpisode
from hralign_ros.runtime.video import play
from lifecycle_msgs.srv import ChangeState, GetState
import numpy as np
from rcl_interfaces.srv import SetParametersAtomically
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node, NodeNameNonExistentError
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from support.tiny_bundle import robot_bundle, ROBOT_VIEWS

ROOT = Path(__file__).resolve().parents[2]
VIEWS = ROBOT_VIEWS
# An order of magnitude above what anything here takes, and three leases of the middleware: where
# the goodbye of a process is lost, its going is noticed when its lease of 20 s runs out.
PATIENCE = 60.0
_RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
_LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                      durability=DurabilityPolicy.TRANSIENT_LOCAL)
FROM_RGB: dict[str, tuple[int | None, int]] = {
    'rgb8': (None, 3), 'bgr8': (cv2.COLOR_RGB2BGR, 3), 'rgba8': (cv2.COLOR_RGB2RGBA, 4),
    'bgra8': (cv2.COLOR_RGB2BGRA, 4), 'mono8': (cv2.COLOR_RGB2GRAY, 1),
}


class NodeProcess:
    """
    One of our nodes as a process, its output kept in a file.

    :param module: under hralign_ros.nodes; or a file.
    :param parameters: by name, as YAML text.
    """

    def __init__(
        self, module: str, log: Path, parameters: dict[str, str] | None = None,
        arguments: tuple[str, ...] = (), environment: dict[str, str] | None = None,
    ) -> None:
        self.log = log
        program = [module] if module.endswith('.py') else ['-m', f'hralign_ros.nodes.{module}']
        command = [sys.executable, *program, '--ros-args']
        for name, value in (parameters or {}).items():
            command += ['-p', f'{name}:={value}']
        with open(log, 'wb') as output:
            self.process = subprocess.Popen(
                [*command, *arguments], stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True, cwd=ROOT, env={**os.environ, **(environment or {})})

    @property
    def output(self) -> str:
        """Read what the process has printed so far."""
        return self.log.read_text('utf-8', errors='replace')

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal and wait for the end; return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end; a process that does not end is killed, and the test fails."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


class Harness:
    """The cameras' publishers and the outputs' subscribers, on a context of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = Node('harness', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.processes: list[NodeProcess] = []
        self.embeddings: list[TaskEmbedding] = []
        self.successes: list[SuccessProbability] = []
        self.infos: list[EncoderInfo] = []
        self.overlays: list[Image] = []
        # By name; one that has not come is OK and says nothing.
        self.statuses: dict[str, DiagnosticStatus] = defaultdict(DiagnosticStatus)
        self._cameras: dict[tuple[str, type, bool], Any] = {}
        self._clients: dict[str, Any] = {}
        self.subscribe()
        self.node.create_subscription(
            DiagnosticArray, '/diagnostics', self._on_diagnostics, _RELIABLE)

    def subscribe(self) -> None:
        """Listen to what the encoder publishes."""
        for kind, topic, store, qos in (
                (TaskEmbedding, '/encoder/embedding', self.embeddings, _RELIABLE),
                (SuccessProbability, '/encoder/success', self.successes, _RELIABLE),
                (EncoderInfo, '/encoder/info', self.infos, _LATCHED)):
            self.node.create_subscription(kind, topic, store.append, qos)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.statuses[status.name] = status

    def close(self) -> None:
        """
        End everything.

        Nodes are asked to end and not killed: what a killed one leaves in shared memory, at any
        point of its writing, is opened again by the next participant of this process, and Fast DDS
        follows the pointers that it finds there (its issue 6501: the whole run ended with a
        segmentation fault).
        """
        alive = [one for one in self.processes if one.process.poll() is None]
        for one in alive:
            one.process.send_signal(signal.SIGTERM)
        with ExitStack() as stack:
            # From the last to the first, each whatever becomes of the others.
            stack.callback(self._clean)
            stack.callback(rclpy.try_shutdown, context=self.context)
            stack.callback(self.node.destroy_node)
            stack.callback(self.executor.shutdown, timeout_sec=1.0)
            for one in alive:
                stack.callback(one.wait)

    def _clean(self) -> None:
        """Remove what nodes that were killed, or crashed, have left in shared memory."""
        if any(one.process.returncode not in (*range(256), -signal.SIGTERM)
               for one in self.processes):
            subprocess.run([sys.executable, ROOT / 'tools/clean_shared_memory.py'], check=True)

    def start(
        self, module: str = 'encoder_node', *, arguments: tuple[str, ...] = (),
        environment: dict[str, str] | None = None, **parameters: str,
    ) -> NodeProcess:
        """
        Start a node; a double underscore in a parameter's name stands for a dot.

        Most tests send one image over and over, which is what a stuck camera does. The bundle is
        the tiny one unless another is given.
        """
        if module == 'encoder_node':
            parameters = {
                'stuck_after_s': '0.0', 'bundle': str(robot_bundle()), **parameters}
        process = NodeProcess(
            module, self.folder / f'{Path(module).stem}_{len(self.processes)}.log',
            {name.replace('__', '.'): value for name, value in parameters.items()},
            arguments, environment)
        self.processes.append(process)
        return process

    def start_active(self, **parameters: str) -> NodeProcess:
        """Start an encoder and wait until it is active and sees the cameras."""
        process = self.start(autostart='true', **parameters)
        self.wait(lambda: self.infos, 'EncoderInfo', process)
        self.wait(lambda: self.state() == 'active', 'the state active', process)
        return process

    def wait(
        self, condition: Callable[[], Any], what: str, process: NodeProcess | None = None,
        limit: float = PATIENCE,
    ) -> Any:
        """
        Spin until a condition holds.

        :returns: what the condition returned.
        """
        until = time.monotonic() + limit
        while True:
            value = condition()
            if value:
                return value
            alive = process is None or process.process.poll() is None
            if time.monotonic() > until or not alive:
                log = '\n'.join(p.output[-3000:] for p in self.processes)
                raise AssertionError(f'{what} did not come ({"waited" if alive else "died"}):\n'
                                     f'{log}')
            self.executor.spin_once(timeout_sec=0.02)

    def offered(self, node: str, *kinds: str) -> dict[str, str]:
        """
        Ask the graph what a node has, without its name in front: types by name.

        What a node has comes by a message of its own, and may come after its services answer.

        :param node: in the root namespace.
        :param kinds: publisher, subscriber, service, client.
        :returns: empty while the graph does not know the node.
        """
        try:
            return {name: types[0] for kind in kinds for name, types in getattr(
                self.node, f'get_{kind}_names_and_types_by_node')(node, '/')}
        except NodeNameNonExistentError:
            return {}

    def spin(self, seconds: float) -> None:
        """Spin for a while, where the test is that nothing happens."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.executor.spin_once(timeout_sec=0.02)

    def call(self, kind: type, name: str, request: Any, *, once: bool = False) -> Any:
        """
        Call a service.

        A server that ended, or that has not discovered the client yet, may take a request into the
        void. So clients are kept, a new one is given a moment, and who is not answered asks again.

        :param once: the request means another thing when it comes again.
        """
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
            self.wait(self._clients[name].service_is_ready, f'service {name}')
            self.spin(0.3)
        client = self._clients[name]
        self.wait(client.service_is_ready, f'service {name}')
        futures = [client.call_async(request)]
        asked = time.monotonic()

        def answered() -> Any:
            nonlocal asked
            if not once and time.monotonic() - asked > 10.0:
                futures.append(client.call_async(request))
                asked = time.monotonic()
            return next((future for future in futures if future.done()), None)

        return self.wait(answered, f'answer of {name}').result()

    def state(self) -> str:
        """Ask the encoder for its lifecycle state."""
        return str(self.call(GetState, '/encoder/get_state', GetState.Request())
                   .current_state.label)

    def transition(self, number: int) -> bool:
        """Ask the encoder for a transition."""
        request = ChangeState.Request()
        request.transition.id = number
        return bool(self.call(
            ChangeState, '/encoder/change_state', request, once=True).success)

    def set_task(self, task: str) -> SetTask.Response:
        """Call ~/set_task."""
        return self.call(SetTask, '/encoder/set_task', SetTask.Request(task=task))

    def start_episode(self) -> StartEpisode.Response:
        """Call ~/start_episode."""
        return self.call(StartEpisode, '/encoder/start_episode', StartEpisode.Request())

    def set_parameters(self, **values: Any) -> Any:
        """Set parameters together; return the result."""
        request = SetParametersAtomically.Request(parameters=[
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()])
        return self.call(
            SetParametersAtomically, '/encoder/set_parameters_atomically', request).result

    def watch_attention(self, view: str) -> None:
        """Subscribe to a view's overlay."""
        self.node.create_subscription(
            Image, f'/encoder/attention/{view}', self.overlays.append,
            QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE))

    def now(self) -> int:
        """Tell the time that stamps are made of [ns]."""
        return int(self.node.get_clock().now().nanoseconds)

    def camera(self, view: str, kind: type = Image, *, reliable: bool = True) -> Any:
        """Get the publisher of a camera; wait until the encoder listens to it."""
        key = (view, kind, reliable)
        if key not in self._cameras:
            topic = f'/{view}/image_raw' + ('/compressed' if kind is CompressedImage else '')
            # Reliable reaches a best-effort subscriber too.
            self._cameras[key] = self.node.create_publisher(kind, topic, QoSProfile(
                depth=1, reliability=ReliabilityPolicy.RELIABLE if reliable
                else ReliabilityPolicy.BEST_EFFORT))
        publisher = self._cameras[key]
        self.wait(publisher.get_subscription_count, f'a subscriber of {publisher.topic_name}')
        return publisher

    def send(
        self, view: str, image: np.ndarray, stamp: int, *, encoding: str = 'rgb8',
        padding: int = 0,
    ) -> None:
        """Send an RGB image in an encoding, or as jpeg."""
        if encoding == 'jpeg':
            _, data = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                                   [cv2.IMWRITE_JPEG_QUALITY, 95])
            self.send_message(view, CompressedImage(
                format='jpeg', data=array('B', data.tobytes())), stamp)
            return
        conversion, channels = FROM_RGB[encoding]
        pixels = image if conversion is None else cv2.cvtColor(image, conversion)
        height, width = image.shape[:2]
        rows = pixels.reshape(height, width * channels)
        if padding:
            rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
        self.send_message(view, Image(
            height=height, width=width, step=rows.shape[1], encoding=encoding,
            data=array('B', np.ascontiguousarray(rows).tobytes())), stamp)

    def send_message(self, view: str, message: Image | CompressedImage, stamp: int) -> None:
        """Send a message as it is, stamped."""
        message.header.frame_id = f'{view}_optical_frame'
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
        self.camera(view, type(message)).publish(message)

    def send_until_embedded(
        self, images: dict[str, np.ndarray], *, encoding: str = 'rgb8', padding: int = 0,
    ) -> tuple[int, TaskEmbedding]:
        """
        Send one set of images, again under new stamps if one gets lost, until it is embedded.

        :returns: the stamp that was embedded, and the message.
        """
        until, patience = time.monotonic() + 3.0 * PATIENCE, 1.0
        while time.monotonic() < until:
            stamp = self.now()
            for view, image in images.items():
                self.send(view, image, stamp, encoding=encoding, padding=padding)
            # The newest set is waited for, longer each time: the machine may be slow, and whoever
            # calls counts on none being on its way any more. Not much longer, though: a set that
            # took more than max_age_s to arrive, as on a busy machine, is never embedded, and so
            # few sets were sent in a minute that all of them were too late once.
            patience = min(2.0 * patience, 8.0)
            wait = time.monotonic() + patience
            while time.monotonic() < wait:
                self.executor.spin_once(timeout_sec=0.02)
                for message in reversed(self.embeddings):
                    if stamp_of(message) == stamp and sum(message.view_valid) >= len(images):
                        return stamp, message
                    if stamp_of(message) < stamp:
                        break
        log = '\n'.join(p.output[-3000:] for p in self.processes)
        raise AssertionError(f'no embedding of the images sent came:\n{log}')

    def drops(self, view: str) -> dict[str, int]:
        """Read a camera's drop counts from the newest diagnostics."""
        status = self.statuses.get(f'/encoder: camera {view}')
        return {} if status is None else {
            pair.key.removeprefix('dropped_'): int(pair.value)
            for pair in status.values if pair.key.startswith('dropped_')}


def stamp_of(message: Any) -> int:
    """Read a message's stamp [ns]."""
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)


def published(message: Any) -> int:
    """Read when a message was published [ns]."""
    return int(message.publish_time.sec) * 1_000_000_000 + int(message.publish_time.nanosec)


def episode_of(message: Any) -> int:
    """Read the id of a message's episode as nanoseconds, which can be compared and be a key."""
    return int(message.episode_id.sec) * 1_000_000_000 + int(message.episode_id.nanosec)


def rows_of(message: TaskEmbedding) -> np.ndarray:
    """Read an embedding message as float32 [V, dim], all parts."""
    return np.frombuffer(message.data, np.float32).reshape(-1, message.dim)


def noise(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    """Make a smooth random image, uint8 [H, W, 3]."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def video_frames(path: Path, count: int, every: int = 3) -> list[np.ndarray]:
    """Read `count` frames of a video, uint8 [H, W, 3] RGB."""
    frames = [image for _, image in islice(play(path), 0, count * every, every)]
    assert len(frames) == count, f'{path} has fewer than {count * every} frames'
    return frames

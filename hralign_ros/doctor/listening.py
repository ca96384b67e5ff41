# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A node that subscribes as the encoder would; the only module with rclpy and nodes."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
import time
from typing import Any
import zlib

from hralign_ros.doctor.cameras import Camera, Publisher, Received
from hralign_ros.doctor.findings import error, Finding, ok, warn
from hralign_ros.nodes import image_subscriptions, parameters
from hralign_ros.nodes.network import disagreement
from hralign_ros.nodes.parameters import Settings
from hralign_ros.nodes.rclpy_compatibility import SubscriptionEventCallbacks
from hralign_ros.runtime.errors import first_line, FrameError
from hralign_ros.runtime.images import Image
from lifecycle_msgs.srv import GetState
import rclpy
from rclpy.client import Client
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CompressedImage

# Nodes usually find each other within 0.2 s, sometimes only in the next round of announcements.
DISCOVERY = 3.0
_PATIENCE = 3.0
# Messages kept of a camera, of which the newest that can be decoded is looked at.
_KEPT = 5
_IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')


def type_name(kind: type) -> str:
    """Name a message type as the graph does."""
    package, middle, *_ = kind.__module__.split('.')
    return f'{package}/{middle}/{kind.__name__}'


@dataclass
class _Ear:
    node: Node
    heard: list[Received] = field(default_factory=list)
    checked: dict[str, tuple[str, str]] = field(default_factory=dict)
    kept: deque[Any] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def __call__(self, message: Any) -> None:
        """Note a message; each kind of image is decoded once."""
        elapsed, arrival = time.monotonic_ns(), self.node.get_clock().now().nanoseconds
        data = memoryview(message.data)
        if isinstance(message, CompressedImage):
            image = key = message.format or 'no format'
        else:
            image = f'{message.width}x{message.height} {message.encoding or "no encoding"}'
            key = f'{image} {message.step} {data.nbytes}'
        self.kept.append(message)
        if key not in self.checked:
            self.checked[key] = _check(message)
        fault, explanation = self.checked[key]
        self.heard.append(Received(
            arrival=int(arrival), elapsed=elapsed,
            stamp=message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec,
            frame_id=message.header.frame_id, image=image, size=data.nbytes,
            digest=zlib.crc32(data), fault=fault, explanation=explanation))

    def newest(self) -> Image | None:
        """Decode the newest message that can be; None: there is none."""
        for message in reversed(self.kept):
            try:
                return image_subscriptions.decode(message)[0]
            except FrameError:
                continue
        return None


def _check(message: Any) -> tuple[str, str]:
    """Decode a message as the encoder would; tell what is wrong, or how it is decoded."""
    try:
        image, _ = image_subscriptions.decode(message)
    except FrameError as problem:
        return problem.reason, str(problem)
    if isinstance(message, CompressedImage):
        return '', f'decoded to {image.shape[1]}x{image.shape[0]}'
    return '', 'decoded directly'


class Listener:
    """
    A node in the encoder's place, with its parameters.

    :param namespace: that of the encoder: relative topics lie in it.
    :param given: values of parameters, by full name.
    """

    def __init__(
        self, namespace: str, given: Mapping[str, Any], encoder: str = 'encoder',
    ) -> None:
        self._encoder, self._given = encoder, given
        self._refused = ''
        overrides = []
        for name, value in given.items():
            try:
                overrides.append(Parameter(name, value=value))
            except Exception as problem:  # mixed lists and the like
                self._refused = f'parameter {name} is {value!r}: {first_line(problem)}'
        self._context = Context()
        rclpy.init(context=self._context, args=[])
        try:
            self.node = Node(
                'hralign_doctor', namespace=namespace, context=self._context, cli_args=[],
                use_global_arguments=False, enable_rosout=False, start_parameter_services=False,
                parameter_overrides=overrides)
        except BaseException:
            rclpy.try_shutdown(context=self._context)
            raise
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)

    @property
    def middleware(self) -> str:
        """Name the middleware in use."""
        return str(get_rmw_implementation_identifier())

    def settings(self) -> Settings:
        """
        Declare the parameters as the encoder does, and check them together.

        :raises ParameterError: the encoder would refuse them.
        """
        if self._refused:
            raise parameters.ParameterError(self._refused)
        parameters.declare(self.node)
        return Settings.read(parameters.current(self.node))

    def unknown_parameters(self) -> list[str]:
        """Name what the encoder would ignore, each with the parameter that may be meant."""
        return parameters.unknown_names(
            self._given, parameters.table(self.node.get_parameter('views').value))

    def listen(self, settings: Settings, seconds: float) -> list[Camera]:
        """Listen to all views as the encoder would, for some seconds."""
        ears: dict[str, _Ear] = {}
        wanted = {}
        subscriptions = []
        for name, view in settings.views.items():
            kind, topic, qos = image_subscriptions.camera_topic(
                self.node.resolve_topic_name(view.topic), view.transport, view.reliability,
                # The encoder takes the newest only; here, every message counts.
                depth=10)
            ears[name], wanted[name] = _Ear(self.node), (kind, topic, qos)
            # rclpy would print a warning of its own; the table says more.
            subscriptions.append(self.node.create_subscription(
                kind, topic, ears[name], qos,
                event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False)))
        self._spin(DISCOVERY, lambda: all(ear.heard for ear in ears.values()))
        for ear in ears.values():
            ear.heard.clear()
        self._spin(seconds)
        until = time.monotonic_ns()
        others = self._image_topics()
        cameras = [
            Camera(view=name, topic=topic, kind=type_name(kind), transport=view.transport,
                   reliability=view.reliability, required=view.required,
                   publishers=self._publishers(topic, qos), received=tuple(ears[name].heard),
                   others=tuple(others), seconds=seconds, until=until,
                   newest=ears[name].newest())
            for (name, view), (kind, topic, qos) in zip(
                settings.views.items(), wanted.values(), strict=True)]
        for subscription in subscriptions:
            self.node.destroy_subscription(subscription)
        return cameras

    def _spin(self, seconds: float, done: Any = lambda: False) -> None:
        """Spin for some seconds, or until it is done."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not done():
            self._executor.spin_once(timeout_sec=min(left, 0.1))

    def _image_topics(self) -> list[str]:
        return sorted(
            topic for topic, types in self.node.get_topic_names_and_types()
            if set(types) & set(_IMAGE_TYPES) and self.node.count_publishers(topic))

    def _publishers(self, topic: str, qos: Any) -> tuple[Publisher, ...]:
        found = [Publisher(f'{info.node_namespace.rstrip("/")}/{info.node_name}', info.topic_type,
                           disagreement(info.qos_profile, qos))
                 for info in self.node.get_publishers_info_by_topic(topic)]
        return tuple(sorted(found, key=lambda publisher: publisher.node))

    def encoder_finding(self) -> Finding:
        """Look for an encoder, and ask it for its state."""
        place = self.node.get_namespace()
        full = f'{place.rstrip("/")}/{self._encoder}'
        running = sum(name == self._encoder and namespace == place
                      for name, namespace in self.node.get_node_names_and_namespaces())
        if not running:
            return ok('encoder', f'none is running as {full}', running=0)
        if running > 1:
            return warn('encoder', f'{running} nodes are called {full}: services answer for one '
                        'of them', 'Stop all but one, or start them with other names or '
                        'namespaces', running=running)
        state = self._state(f'{full}/get_state')
        if state == 'active':
            return ok('encoder', f'{full} is active', running=1, state=state)
        if not state:
            return warn('encoder', f'{full} runs, but does not answer', 'See its log; stop it and '
                        'start it again', running=1, state='')
        if state == 'unconfigured':
            remedy = (f'ros2 lifecycle set {full} configure, then activate; if it refuses, its '
                      'log and /diagnostics say why')
        else:
            remedy = f'ros2 lifecycle set {full} activate'
        return warn('encoder', f'{full} is {state}: it publishes nothing', remedy, running=1,
                    state=state)

    def _state(self, service: str) -> str:
        """Ask a lifecycle node for its state; empty: no answer."""
        client: Client = self.node.create_client(GetState, service)
        try:
            self._spin(_PATIENCE, client.service_is_ready)
            if not client.service_is_ready():
                return ''
            future = client.call_async(GetState.Request())
            self._spin(_PATIENCE, future.done)
            answer = future.result() if future.done() else None
            return str(answer.current_state.label) if answer else ''
        finally:
            self.node.destroy_client(client)

    def close(self) -> None:
        """End the node."""
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)


def messages_finding() -> Finding:
    """Try to import hralign_msgs; the sentence that says what to do is the encoder's own."""
    try:
        import_module('hralign_ros.nodes.interfaces')
    except SystemExit as problem:
        found, _, remedy = str(problem).partition('). ')
        return error('hralign_msgs', f'{found})' if remedy else found,
                     ' '.join((remedy or found).split()))
    return ok('hralign_msgs', 'imported')

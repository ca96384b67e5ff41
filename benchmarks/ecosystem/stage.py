# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The real node and two cameras that play a recorded episode, for other people's programs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, ExitStack
import os
from pathlib import Path
import sys
from tempfile import TemporaryDirectory
import time
from typing import Any

from benchmarks.latency.processes import Child, VIEWS
from benchmarks.pages import ROOT
from hralign_ros.runtime.fast_dds import use_profile
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
import yaml

EPISODE = ROOT / 'demo/episodes/1_success'
TASK = str(yaml.safe_load((EPISODE / 'episode.yaml').read_text('utf-8'))['task'])
_PATIENCE_S = 120.0


class StageError(Exception):
    """Something did not come; the message says what."""


class Client:
    """A node of ours that listens and calls, beside the programs that are measured."""

    def __init__(self, name: str) -> None:
        self.node = Node(name)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)

    def wait(
        self, condition: Callable[[], Any], what: str, child: Child | None = None,
    ) -> Any:
        """
        Spin until a condition holds, and return its value.

        :param child: has to run meanwhile.
        :raises StageError: it does not hold, in two minutes.
        :raises BenchmarkError: the child has ended.
        """
        end = time.monotonic() + _PATIENCE_S
        while True:
            if child is not None:
                child.check()
            value = condition()
            if value:
                return value
            if time.monotonic() > end:
                raise StageError(f'{what} did not come in {_PATIENCE_S:.0f} s')
            self._executor.spin_once(timeout_sec=0.02)

    def done(self, future: Any, what: str) -> Any:
        """Wait for a future's result."""
        self.wait(future.done, what)
        return future.result()

    def call(self, kind: type, name: str, request: Any, child: Child | None = None) -> Any:
        """Call a service once; a child that has to run meanwhile may be given."""
        client = self.node.create_client(kind, name)
        self.wait(client.service_is_ready, f'the service {name}', child)
        # What is discovered may not have discovered its client yet.
        end = time.monotonic() + 1.0
        self.wait(lambda: time.monotonic() > end, 'a moment')
        try:
            return self.done(client.call_async(request), f'the answer of {name}')
        finally:
            self.node.destroy_client(client)

    def close(self) -> None:
        """End it."""
        self._executor.shutdown()
        self.node.destroy_node()


@contextmanager
def client(name: str) -> Iterator[Client]:
    """Give a client, with ROS started for it."""
    use_profile(os.environ, ROOT / 'config/fastdds_large_images.xml')
    rclpy.init()
    made = Client(name)
    try:
        yield made
    finally:
        made.close()
        rclpy.try_shutdown()


@contextmanager
def encoder(*arguments: str) -> Iterator[Child]:
    """
    Run the node with the shipped bundle on an episode that plays over and over.

    :param arguments: further ones of ROS: -p NAME:=VALUE, -r OLD:=NEW.
    """
    with TemporaryDirectory() as folder, ExitStack() as stack:
        for view in VIEWS:
            stack.enter_context(process(f'camera_{view}', 'hralign_ros.nodes.video_publisher', (
                '-p', f'file:={EPISODE / view}.mp4', '-p', 'loop:=true', '-p', f'frame_id:={view}',
                '-r', f'image_raw:={view}/image_raw', '-r', f'__node:=camera_{view}'),
                Path(folder)))
        node = stack.enter_context(process('encoder', 'hralign_ros.nodes.encoder_node', (
            '-p', 'autostart:=true', '-p', f'task:={TASK}', '-p', 'stuck_after_s:=0.0',
            '-p', 'embedding_parts:=[keypoints]', '-p', 'mirrors.reset:=true', *arguments),
            Path(folder)))
        node.wait_for_output('parameters: ', patience=_PATIENCE_S)
        yield node


def process(name: str, module: str, arguments: Sequence[str], folder: Path) -> Child:
    """Start a module with arguments of ROS."""
    return Child(name, [sys.executable, '-m', module, '--ros-args', *arguments], folder)

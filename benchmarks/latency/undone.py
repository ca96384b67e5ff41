# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The encoder node with one of its optimisations undone: undone.py WHAT [ROS arguments]."""

from collections.abc import Callable
import sys

from hralign_ros.nodes import process
from hralign_ros.nodes.encoder_node import main
import onnxruntime
from rclpy.executors import MultiThreadedExecutor


def spin() -> None:
    """Let onnxruntime's workers spin between operators, which is its default."""
    onnxruntime.SessionOptions.add_session_config_entry = lambda self, name, value: None


def many_threads() -> None:
    """Spin callbacks on four threads."""
    process.SingleThreadedExecutor = lambda: MultiThreadedExecutor(4)  # type: ignore


def nothing() -> None:
    """Change nothing here; the environment is another one, or none at all."""


WHAT: dict[str, Callable[[], None]] = {
    'nothing': nothing, 'spinning': spin, 'executor': many_threads,
    'transport': nothing}

if __name__ == '__main__':
    WHAT[sys.argv.pop(1)]()
    sys.exit(main())

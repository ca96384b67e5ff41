# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Running a node as a process: signals, and an end without a traceback."""

from collections.abc import Callable, Iterable, Sequence
import os
import signal
import sys
from threading import Event
import time
import traceback
from typing import Any, TypeVar

from hralign_ros.nodes.rclpy_compatibility import destroy_half_made_nodes, RCLError
from hralign_ros.runtime.errors import HralignError
import rclpy
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

AnyNode = TypeVar('AnyNode', bound=Node)

# How long a signal may wait until the executor handles it [s].
_SLICE = 0.2
# Who listens is given so long to confirm the last message, before its publisher goes [s].
_LAST_S = 0.3


class StartError(HralignError):
    """ROS 2 itself does not start."""


def _why_not_started(error: Exception) -> str:
    """Say in one sentence why ROS 2 does not start, and what to check."""
    lines = str(error).strip().splitlines() or ['no reason given']
    text = f'ROS 2 does not start: {" ".join(line.strip() for line in lines)[:500]}'
    if os.environ.get('ROS_SECURITY_ENABLE') == 'true':
        # rcl may name a library, a folder or nothing at all.
        text += ('. ROS_SECURITY_ENABLE is true: needed are a ROS 2 built with DDS security, '
                 'ROS_SECURITY_KEYSTORE, and in it the enclave of this node; see '
                 'docs/how_to/security.md')
    return text


def _check_security_words() -> None:
    """
    Refuse security settings that ROS 2 would take for none.

    It knows these values in this spelling only; with any other it starts unsecured.

    :raises StartError: one of them is spelt otherwise.
    """
    for name, allowed in (('ROS_SECURITY_ENABLE', ('true', 'false')),
                          ('ROS_SECURITY_STRATEGY', ('Enforce', 'Permissive'))):
        word = os.environ.get(name, '')
        if word and word not in allowed:
            raise StartError(
                f"{name} is '{word}', and ROS 2 would start without security; allowed: "
                f'{", ".join(allowed)}, in this spelling, or unset; see docs/how_to/security.md')


def _spin_once(executor: SingleThreadedExecutor, node: Node) -> None:
    try:
        executor.spin_once(timeout_sec=_SLICE)
    except ExternalShutdownException:
        raise
    except Exception:  # whatever a callback raised
        node.get_logger().error(f'a callback failed:\n{traceback.format_exc()}')


def let_arrive(publishers: Iterable[Any]) -> None:
    """
    Let the last messages of publishers that are about to go arrive; for all together a moment.

    A publisher that goes takes with it what is under way. On a busy machine an arm never got its
    stop when the process was ended.
    """
    until = time.monotonic() + _LAST_S
    for publisher in publishers:
        # Less than nothing would be for ever.
        publisher.wait_for_all_acked(Duration(seconds=max(0.0, until - time.monotonic())))


def run_node(
    name: str,
    make_node: Callable[[], AnyNode],
    arguments: Sequence[str] | None = None,
    *,
    finished: Callable[[AnyNode], bool] = lambda node: False,
    last_words: Callable[[AnyNode], float] = lambda node: 0.0,
) -> int:
    """
    Make a node and spin it until SIGINT, SIGTERM, or until it says that it has finished.

    Both signals, once or several times, end it with code 0. An exception in one callback is
    logged and the node continues: a perception node beside a moving arm does not die of one frame.

    :param name: of the program, before an error.
    :param make_node: called once rclpy is initialised.
    :param finished: asked a few times a second.
    :param last_words: called before the end, for what must be said while callbacks still run;
        returns for how long they are to after it [s].
    :returns: the exit code; 1: the error that is printed, from `make_node`, from `finished`, or
        ROS 2 refuses to start, for example because of its security settings.
    """
    node = executor = None
    problem = ''
    stop = Event()
    try:
        _check_security_words()
        rclpy.init(args=None if arguments is None else list(arguments),
                   signal_handler_options=SignalHandlerOptions.NO)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        executor = SingleThreadedExecutor()
        node = make_node()
        executor.add_node(node)
        while not stop.is_set() and not finished(node):
            _spin_once(executor, node)
        left = last_words(node)
        # From its return on: it may take longer itself than it asks for.
        until = time.monotonic() + left
        while left > 0.0:
            _spin_once(executor, node)
            left = until - time.monotonic()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RCLError as error:
        problem = _why_not_started(error)
    except HralignError as error:
        problem = str(error)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if executor is not None:
            executor.shutdown(timeout_sec=1.0)
        if node is not None:
            node.destroy_node()
        destroy_half_made_nodes()
        rclpy.try_shutdown()
    if problem:
        print(f'{name}: {problem}', file=sys.stderr)
    sys.stdout.flush()
    return 1 if problem else 0

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A node that has something to say at its end, and takes longer than it asks for to get there."""

from pathlib import Path
import sys
import time

from rclpy.node import Node

ASKED_S = 0.4


class Talker(Node):
    """Say one thing once it runs, and another at its end."""

    def __init__(self):
        super().__init__('talker')
        self._guard = self.create_guard_condition(lambda: print('my last words', flush=True))
        print('ready', flush=True)

    def last_words(self):
        """Leave something to say to the executor; then be busy, as with a model that hangs."""
        self._guard.trigger()
        time.sleep(2.0 * ASKED_S)
        return ASKED_S


if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from hralign_ros.nodes.process import run_node
    sys.exit(run_node('talker', Talker, last_words=Talker.last_words))

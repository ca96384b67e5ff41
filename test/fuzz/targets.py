# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What is fuzzed, and what may come out: each target makes a case of bytes and judges the outcome.

A target raises where the package broke a guarantee; what the package may raise it swallows. The
program beside this file feeds targets by millions; test/fuzz feeds them a few hundred.
"""

from collections.abc import Callable, Mapping

from fuzz.bundles import Bundles, Tasks
from fuzz.decisions import Decisions
from fuzz.images import Images
from fuzz.parameters import Parameters
from fuzz.source import Target

TARGETS: Mapping[str, Callable[[], Target]] = {
    'images': Images, 'parameters': Parameters, 'decisions': Decisions, 'tasks': Tasks,
    'bundle': Bundles}

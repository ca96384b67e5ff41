# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How long it takes from nothing, and from a machine that is set up, to the first embedding."""

from collections.abc import Callable
from contextlib import ExitStack
import os
from pathlib import Path
import shutil
import statistics
import subprocess
import tempfile
import time
from typing import Any

from benchmarks.latency.cameras import RATE
from benchmarks.latency.collector import Collector
from benchmarks.latency.processes import (
    BenchmarkError,
    Child,
    encoder_node,
    environment,
    NAMESPACE,
    ROOT,
    VIEWS,
)
from hralign_ros.runtime.fast_dds import SINCE_KILTED, UNTIL_JAZZY

Report = Callable[[str], None]

# Variables in which this checkout's environment must not reach a fresh clone.
_PATHS = ('PATH', 'PYTHONPATH', 'AMENT_PREFIX_PATH', 'CMAKE_PREFIX_PATH', 'COLCON_PREFIX_PATH',
          'LD_LIBRARY_PATH')
_SETUP_PATIENCE = 1800.0


def warm_start(
    collector: Collector, folder: Path, task: str, *, count: int, report: Report,
) -> dict[str, Any]:
    """
    Start the node again and again while cameras run.

    :returns: the median time to the first embedding, and medians of where it goes: until loading
        begins (interpreter, imports, discovery), loading and warming, and from ~/info on.
    """
    total, before, loading, after = [], [], [], []
    for number in range(count):
        collector.forget()
        with encoder_node(folder, task) as node:
            first = collector.wait_for_embedding(node, after=node.started)
            # ~/info is latched: a collector that found it late still gets it.
            deadline = time.monotonic() + 5.0
            while (info := collector.info(node.started)) is None and time.monotonic() < deadline:
                time.sleep(0.05)
        total.append((first.received - node.started) * 1e-9)
        if info is not None:
            loading.append(info[1])
            before.append((info[0] - node.started) * 1e-9 - info[1])
            after.append((first.received - info[0]) * 1e-9)
        report(f'warm start {number + 1} of {count}: {total[-1]:.2f} s')
    stages = {name: round(statistics.median(values), 3) for name, values in (
        ('until_loading_s', before), ('loading_and_warming_s', loading),
        ('until_first_embedding_s', after)) if values}
    return {'median_s': round(statistics.median(total), 2),
            'each_s': [round(value, 2) for value in total], **stages,
            'load_average': load_average()}


def load_average() -> list[float]:
    """Give the load average over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def fresh_environment() -> dict[str, str]:
    """Make the environment of a person who has just cloned the repository."""
    variables = environment()
    prefixes = {str(ROOT), str(ROOT.resolve())}
    own = [part for name in _PATHS for part in variables.get(name, '').split(os.pathsep)
           if any(part == p or part.startswith(f'{p}{os.sep}') for p in prefixes)]
    for name in _PATHS:
        kept = [part for part in variables.get(name, '').split(os.pathsep)
                if part and part not in own]
        variables[name] = os.pathsep.join(kept)
        if not kept:
            del variables[name]
    for name in ('VIRTUAL_ENV', UNTIL_JAZZY, SINCE_KILTED, 'MAKEFLAGS', 'MAKELEVEL'):
        variables.pop(name, None)
    # Packages are downloaded, as on a machine that has never seen them.
    variables['PIP_NO_CACHE_DIR'] = '1'
    return variables


def cold_start(collector: Collector, folder: Path, task: str, report: Report) -> dict[str, Any]:
    """
    Clone HEAD, set the clone up, start node and cameras from it, wait for an embedding.

    :raises BenchmarkError: one of these failed.
    """
    collector.forget()
    variables = fresh_environment()
    place = Path(tempfile.mkdtemp(prefix='hralign_cold_'))
    clone = place / 'clone'
    try:
        begun = time.time_ns()
        report('cold start: cloning')
        cloned = subprocess.run(
            ['git', 'clone', '--quiet', str(ROOT), str(clone)], env=variables,
            capture_output=True, text=True)
        if cloned.returncode:
            raise BenchmarkError(f'git clone failed: {cloned.stderr.strip()}')
        commit = subprocess.run(
            ['git', '-C', str(clone), 'rev-parse', '--short', 'HEAD'], env=variables,
            capture_output=True, text=True).stdout.strip()
        report('cold start: make setup')
        with Child('setup', ['make', 'setup'], folder, env=variables, cwd=clone) as setup:
            shown = 0
            deadline = time.monotonic() + _SETUP_PATIENCE
            while setup.process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.2)
                lines = setup.output.splitlines()
                for line in lines[shown:]:
                    report(f'  {line}')
                shown = len(lines)
            if setup.process.poll() != 0:
                raise BenchmarkError(f'make setup failed:\n{setup.output[-2000:]}')
        ready = time.time_ns()
        report(f'cold start: set up after {(ready - begun) * 1e-9:.0f} s, starting the node')
        with ExitStack() as stack:
            node = stack.enter_context(_from_clone(
                clone, folder, variables, 'encoder_node',
                {'autostart': 'true', 'provider': 'cpu', 'task': f"'{task}'"}))
            for view in VIEWS:
                stack.enter_context(_from_clone(
                    clone, folder, variables, 'video_publisher',
                    {'file': f"'{clone}/demo/can/{view}.mp4'", 'rate_hz': f'{RATE}.0',
                     'loop': 'true'},
                    remap={'image_raw': f'{view}/image_raw', '__node': f'{view}_camera'}))
            first = collector.wait_for_embedding(node, after=node.started)
        return {'seconds': round((first.received - begun) * 1e-9, 1),
                'setup_s': round((ready - begun) * 1e-9, 1),
                'start_s': round((first.received - ready) * 1e-9, 1), 'commit': commit,
                'load_average': load_average(),
                'how': 'git clone, make setup without pip cache, node and cameras started'}
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _from_clone(
    clone: Path, folder: Path, variables: dict[str, str], module: str,
    parameters: dict[str, str], *, remap: dict[str, str] | None = None,
) -> Child:
    """Start a node of the clone in the clone's own environment."""
    options = ['-r', f'__ns:={NAMESPACE}']
    for name, value in parameters.items():
        options += ['-p', f'{name}:={value}']
    for source, target in (remap or {}).items():
        options += ['-r', f'{source}:={target}']
    return Child(
        f'cold_{module}',
        ['bash', '-c', '. tools/env.sh && exec python "$@"', 'bash', '-m',
         f'hralign_ros.nodes.{module}', '--ros-args', *options],
        folder, env=variables, cwd=clone)

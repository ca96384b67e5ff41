# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Processes of the benchmark: started, watched, always stopped again."""

from collections.abc import Mapping, Sequence
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any

from benchmarks.latency.bare import STAGES
from benchmarks.latency.cameras import LOG_COLUMNS
from hralign_ros.runtime.fast_dds import use_profile
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
# One for each run, so that two runs in one ROS domain do not hear each other.
NAMESPACE = f'/latency_benchmark_{os.getpid()}'
VIEWS = ('wrist', 'third_person')
_PATIENCE = 10.0
_TICKS_PER_SECOND = os.sysconf('SC_CLK_TCK')


class BenchmarkError(Exception):
    """The benchmark cannot go on; the message says why."""


def environment() -> dict[str, str]:
    """Make the environment of a child, as a shell would hand it over."""
    variables = dict(os.environ)
    use_profile(variables, ROOT / 'config/fastdds_large_images.xml')
    # The mark of the ROS 2 wheels: without it a child sets itself up, as when a person starts it.
    variables.pop('_ROS_WHEELS_BOOTSTRAP_COMPLETE', None)
    return variables


class Child:
    """
    A child process in a session of its own, so that Ctrl-C reaches only the benchmark.

    Use it as a context: leaving it stops the process, kindly at first.

    :param folder: where its output goes.
    """

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, *,
        env: Mapping[str, str] | None = None, cwd: Path | None = None, pipes: bool = False,
    ) -> None:
        self.name = name
        self.started = time.time_ns()
        self._log = folder / f'{name}.{self.started}.log'
        pipe = subprocess.PIPE if pipes else None
        with self._log.open('wb') as log:
            self.process = subprocess.Popen(
                list(command), env=dict(env) if env is not None else environment(), cwd=cwd,
                stdin=pipe or subprocess.DEVNULL, stdout=pipe or log, stderr=log, text=pipes,
                start_new_session=True)

    def __enter__(self) -> 'Child':
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def output(self) -> str:
        """Give what it has printed."""
        return self._log.read_text(errors='replace')

    def check(self) -> None:
        """
        Make sure that it runs.

        :raises BenchmarkError: it has ended; the message holds the end of its output.
        """
        code = self.process.poll()
        if code is not None:
            raise BenchmarkError(
                f'{self.name} ended with code {code}:\n{self.output[-2000:]}')

    def wait_for_output(self, text: str, *, patience: float = 60.0) -> None:
        """Wait until it has printed a text."""
        end = time.monotonic() + patience
        while text not in self.output:
            self.check()
            if time.monotonic() > end:
                raise BenchmarkError(f"{self.name} did not say '{text}' in {patience:.0f} s")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it: interrupt, then kill; then its whole session, should anything be left."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass

    def cpu_seconds(self) -> float:
        """Tell the processor time that it has used, all threads."""
        fields = Path(f'/proc/{self.process.pid}/stat').read_text().rpartition(')')[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND

    def memory_mb(self, field: str = 'VmRSS') -> float:
        """Tell its resident memory, or with VmHWM the most it ever had."""
        for line in Path(f'/proc/{self.process.pid}/status').read_text().splitlines():
            if line.startswith(f'{field}:'):
                return int(line.split()[1]) * 1024 / 1e6
        return 0.0


class Neighbours:
    """
    What else runs on the machine: the processor time that is not the benchmark's own.

    :param ours: what of the benchmark runs throughout.
    """

    def __init__(self, *ours: 'Child | Cameras | Bare') -> None:
        self._ours = ours
        self._start = self._now()

    def _now(self) -> tuple[float, float, float]:
        fields = [int(n) for n in Path('/proc/stat').read_text().split(maxsplit=9)[1:9]]
        user, nice, system, _, _, irq, softirq, steal = fields
        busy = (user + nice + system + irq + softirq) / _TICKS_PER_SECOND
        own = time.process_time() + sum(child.cpu_seconds() for child in self._ours)
        return time.monotonic(), busy - own, steal / _TICKS_PER_SECOND

    def cores(self) -> dict[str, float]:
        """Tell how many cores others have used since, on this machine and beside it (steal)."""
        took, others, stolen = (b - a for a, b in zip(self._start, self._now(), strict=True))
        return {'other_cores': round(max(0.0, others / took), 2),
                'stolen_cores': round(stolen / took, 2)}


def encoder_arguments(task: str, **parameters: Any) -> list[str]:
    """Make the encoder's arguments; dots in names of parameters are two underscores here."""
    values = {'autostart': True, 'provider': 'cpu', 'threads': 2, 'task': task, **parameters}
    arguments = ['--ros-args', '-r', f'__ns:={NAMESPACE}', '--log-level', 'warn']
    for name, value in values.items():
        text = str(value).lower() if isinstance(value, (bool, int)) else f"'{value}'"
        arguments += ['-p', f'{name.replace("__", ".")}:={text}']
    return arguments


def encoder_node(folder: Path, task: str, **parameters: Any) -> Child:
    """Start the encoder node."""
    return Child('encoder', [sys.executable, '-m', 'hralign_ros.nodes.encoder_node',
                             *encoder_arguments(task, **parameters)], folder)


def naive_node(folder: Path, *, keep_memory: bool) -> Child:
    """Start the naive node, if wanted with a glibc that keeps freed memory of any size."""
    variables = environment()
    if keep_memory:
        variables['GLIBC_TUNABLES'] = ':'.join(
            f'glibc.malloc.{name}_threshold={1 << 32}' for name in ('mmap', 'trim'))
    return Child('naive', [sys.executable, '-m', 'benchmarks.latency.naive_node', '--ros-args',
                           '-r', f'__ns:={NAMESPACE}'], folder, env=variables)


class Cameras:
    """
    Two camera processes, one a view.

    :param size: width and height of the frames.
    :param encoding: rgb8 or jpeg.
    """

    def __init__(
        self, folder: Path, *, size: tuple[int, int] = (640, 480), encoding: str = 'rgb8',
    ) -> None:
        self._children: list[Child] = []
        self._logs: list[Path] = []
        for view in VIEWS:
            log = folder / f'{view}.{time.time_ns()}.frames'
            self._logs.append(log)
            self._children.append(Child(
                f'{view}_camera',
                [sys.executable, '-m', 'benchmarks.latency.cameras', '--views', view,
                 '--size', *map(str, size), '--encoding', encoding,
                 '--namespace', NAMESPACE, '--log', str(log)], folder))

    def __enter__(self) -> 'Cameras':
        try:
            for child in self._children:
                child.wait_for_output('ready')
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.stop()

    def cpu_seconds(self) -> float:
        """Tell the processor time that both have used."""
        return sum(child.cpu_seconds() for child in self._children)

    def sent(self, start: int, end: int) -> list[NDArray[np.int64]]:
        """
        Tell what was sent with stamps from `start` up to `end` [ns].

        :returns: per view, rows of stamp, start and end of the sending.
        """
        tables = []
        for child, log in zip(self._children, self._logs, strict=True):
            child.check()
            rows = np.fromfile(log, np.int64)
            rows = rows[:rows.size // LOG_COLUMNS * LOG_COLUMNS].reshape(-1, LOG_COLUMNS)
            chosen = (rows[:, 1] >= start) & (rows[:, 1] < end)
            tables.append(rows[chosen, 1:])
        return tables


class Bare:
    """The process that runs the graphs alone; see bare.py."""

    def __init__(self, folder: Path, bundle: Path, task: str, *, threads: int = 2) -> None:
        self._child = Child(
            'bare', [sys.executable, '-m', 'benchmarks.latency.bare', '--bundle', str(bundle),
                     '--threads', str(threads), '--task', task], folder, pipes=True)

    def __enter__(self) -> 'Bare':
        try:
            self._answer()
        except BaseException:
            self._child.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._child.stop()

    def cpu_seconds(self) -> float:
        """Tell the processor time that it has used."""
        return self._child.cpu_seconds()

    def run(self, seconds: float) -> NDArray[np.float64]:
        """Run for a while; return milliseconds by tick and stage."""
        assert self._child.process.stdin is not None
        self._child.process.stdin.write(f'run {seconds}\n')
        self._child.process.stdin.flush()
        return np.array(json.loads(self._answer()), np.float64).reshape(-1, len(STAGES)) * 1e-6

    def _answer(self) -> str:
        assert self._child.process.stdout is not None
        line = self._child.process.stdout.readline()
        if not line:
            self._child.process.wait()
            self._child.check()
        return line

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Many trainings, a few at a time, each in a process of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
import os
from pathlib import Path
import subprocess
import time


@dataclass(frozen=True)
class Job:
    """
    One run.

    :param name: for what is printed.
    :param folder: of the run; its log lies beside it.
    """

    name: str
    folder: Path
    command: Sequence[str]


def folder_of(runs: Path, variant: str, seed: int) -> Path:
    """Return the folder of a run."""
    words = ''.join(c if c.isalnum() else '_' for c in variant)
    return runs / f'{words}-{seed}'


def run_all(jobs: Sequence[Job], at_a_time: int) -> None:
    """
    Run all jobs in their order, one thread each, and say how far it is.

    :raises SystemExit: one of them failed.
    """
    waiting = list(jobs)
    total, began = len(waiting), time.monotonic()
    running: list[tuple[subprocess.Popen[bytes], str]] = []
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}
    while waiting or running:
        while waiting and len(running) < at_a_time:
            job = waiting.pop(0)
            job.folder.parent.mkdir(parents=True, exist_ok=True)
            with open(f'{job.folder}.log', 'ab') as log:
                running.append((subprocess.Popen(
                    job.command, stdout=log, stderr=subprocess.STDOUT, env=env), job.name))
        for process, name in list(running):
            if process.poll() is not None:
                running.remove((process, name))
                if process.returncode:
                    raise SystemExit(f'{name} failed with code {process.returncode}: see its log')
                done = total - len(waiting) - len(running)
                minutes = (time.monotonic() - began) / 60
                print(f'{done}/{total}  {name}  {minutes:.0f} min, '
                      f'{minutes / done * (total - done):.0f} min left', flush=True)
        time.sleep(1.0)

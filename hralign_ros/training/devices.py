# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where a command computes: one option for torch and onnxruntime, and how many CPU threads."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
import os
from pathlib import Path
import time

from hralign_ros.runtime.errors import HralignError
from hralign_ros.runtime.providers import PROVIDERS, SessionFactory
from hralign_ros.training.distributed import is_first
import torch

# How long the cores are watched for how busy they are [s].
_WATCH_S = 0.2


@dataclass(frozen=True)
class Device:
    """
    A device, as torch and as onnxruntime call it.

    :param torch: under torchrun, the GPU of this process's local rank.
    :param provider: for `Encoder.load`: auto, cpu or cuda.
    """

    torch: torch.device
    provider: str


def choose_device(name: str = 'auto', report: Callable[[str], None] | None = None) -> Device:
    """
    Choose where to compute, before any work is done, and cap torch's CPU threads.

    :param name: cpu; cuda; or auto, which takes a GPU where torch finds one, and another where
        onnxruntime does.
    :param report: told the device and the number of threads.
    :raises HralignError: cuda is asked for and torch or onnxruntime lacks it, or the name is
        another one.
    """
    if name not in PROVIDERS:
        raise HralignError(f"device is '{name}'; allowed: {', '.join(PROVIDERS)}")
    found = torch.cuda.is_available()
    if name == 'cuda':
        if not found:
            raise HralignError('device is cuda, and torch finds no GPU; use device cpu or auto')
        SessionFactory(name)
    device = torch.device('cpu')
    if name != 'cpu' and found:
        device = torch.device('cuda', int(os.environ.get('LOCAL_RANK', '0')))
        torch.cuda.set_device(device)
    cap_threads()
    if report and is_first():
        report(f'device {device}, {torch.get_num_threads()} CPU thread(s)')
    return Device(device, name)


@cache
def cap_threads() -> None:
    """
    Leave the cores that other programs use to them, once in a process.

    Threads that wait for one that has no core make torch 10 to 50 times slower. OMP_NUM_THREADS,
    where it is set, decides instead.
    """
    if 'OMP_NUM_THREADS' not in os.environ:
        torch.set_num_threads(max(1, min(torch.get_num_threads(), _free_cores())))


def _free_cores() -> int:
    """Count the cores of this process that are idle now."""
    before = _idle_ticks()
    time.sleep(_WATCH_S)
    spent = _idle_ticks() - before
    return round(spent / (_WATCH_S * os.sysconf('SC_CLK_TCK')))


def _idle_ticks() -> int:
    """Add up how long the cores of this process have been idle, in clock ticks."""
    mine = {f'cpu{core}' for core in os.sched_getaffinity(0)}
    lines = [line.split() for line in Path('/proc/stat').read_text('ascii').splitlines()]
    return sum(int(words[4]) for words in lines if words[0] in mine)

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The same training in one process or in several under torchrun.

Every rank encodes its slice of the global batch, all ranks see all features, and each computes the
loss of the global batch. The objective is the mean over ranks of that one loss: gathering passes
gradients back to the rank that made a feature, and the parameters' gradients are averaged.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import os
from typing import Any

from hralign_ros.runtime.errors import HralignError
import torch
from torch import distributed, nn, Tensor


@dataclass(frozen=True)
class Ranks:
    """
    This process's place among those that train together.

    :param index: 0 to count - 1; rank 0 reports and writes files.
    """

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this one reports and writes files."""
        return self.index == 0

    def rows(self, batch: int) -> slice:
        """
        Give this rank's rows of a global batch.

        :raises HralignError: the batch cannot be split evenly.
        """
        if batch % self.count:
            raise HralignError(f'a batch of {batch} cannot be split over {self.count} ranks; '
                               f'choose a multiple of {self.count}')
        size = batch // self.count
        return slice(self.index * size, (self.index + 1) * size)


def is_first() -> bool:
    """Tell whether this process reports and writes files, before it has joined the others."""
    return int(os.environ.get('RANK', '0')) == 0


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """
    Join the processes that torchrun has started, if it has; leave them at the end.

    A process group that is there already is used and left as it is.
    """
    if distributed.is_initialized():
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
        return
    if int(os.environ.get('WORLD_SIZE', '1')) < 2:
        yield Ranks()
        return
    distributed.init_process_group('nccl' if device.type == 'cuda' else 'gloo')
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


class _Gather(torch.autograd.Function):
    """Concatenate the rows of all ranks; backwards, sum what all ranks want of one's rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        parts = [torch.empty_like(x) for _ in range(ranks.count)]
        distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # A copy: autograd may hand the same tensor to others.
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total[ctx.ranks.rows(len(total))], None


def gather(x: Tensor, ranks: Ranks) -> Tensor:
    """
    Concatenate the rows of all ranks in the order of their index, gradient included.

    :param x: [n, ...], of the same shape on every rank.
    :returns: [count * n, ...].
    """
    if ranks.count == 1:
        return x
    gathered: Tensor = _Gather.apply(x, ranks)
    return gathered


def average_gradients(parameters: Iterable[nn.Parameter], ranks: Ranks) -> None:
    """
    Average gradients over the ranks in place, in one message; none on some ranks counts as 0.

    What has none on any rank keeps none, as optimisers leave such a parameter alone, and would go
    on moving one whose gradient is 0.
    """
    if ranks.count == 1:
        return
    chosen = list(parameters)
    there = torch.tensor([float(p.grad is not None) for p in chosen], device=chosen[0].device)
    flat = torch.cat([there, *(
        (torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in chosen)])
    distributed.all_reduce(flat)
    counts, *parts = flat.split([len(chosen), *(p.numel() for p in chosen)])
    for parameter, count, part in zip(chosen, counts.tolist(), parts, strict=True):
        parameter.grad = (part / ranks.count).view_as(parameter) if count else None


def share_from_first(tensors: Iterable[Tensor], ranks: Ranks) -> None:
    """Overwrite tensors in place with those of rank 0."""
    if ranks.count > 1:
        for tensor in tensors:
            distributed.broadcast(tensor.detach(), 0)


def meet(ranks: Ranks) -> None:
    """Wait until every rank is here: before files that another one reads or writes."""
    if ranks.count > 1:
        distributed.barrier()

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Failure prompts: each task's own, and the fallback task's for tasks never seen."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from hralign_ros.models.text import load_tokenizer, minilm_folder, PromptedTextEncoder
from hralign_ros.runtime.tasks import FALLBACK
import torch
from torch import nn, Tensor


class Prompts(nn.Module):
    """
    Learnable prompts, run through a frozen text encoder behind each task's text.

    They start as small random vectors about the mean word embedding, so that the encoder sees
    what it could have seen.

    :param encoder: frozen; not one of this module's own.
    :param texts: instruction by task id, fixed order.
    :param modes: K.
    :param length: L.
    :param human_prompt: also a prompt of one row for humans' videos.
    :param others: texts of no task, which have no prompts.
    """

    def __init__(
        self, encoder: PromptedTextEncoder, texts: dict[str, str], *, modes: int, length: int,
        human_prompt: bool = False, others: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._encoder = [encoder]  # in a list, so that it is no submodule
        self.tasks = tuple(texts)
        self.texts = dict(texts)
        words = encoder.embeddings.word_embeddings.weight
        middle, spread = words.mean(0), words.std(0)
        count = len(self.tasks) + 1
        start = middle + spread * torch.randn(count, modes, length, words.shape[1])
        self.vectors = nn.Parameter(start.detach())
        self.human = nn.Parameter(
            (middle + spread * torch.randn(1, length, words.shape[1])).detach()) \
            if human_prompt else None
        self._ids = [_ids(text) for text in texts.values()]
        self.others = tuple(others)
        self.plain: Tensor
        self.other_plain: Tensor
        with torch.no_grad():
            for name, some in (('plain', texts.values()), ('other_plain', self.others)):
                self.register_buffer(name, torch.stack([
                    text_features(encoder, text, self.vectors[0, :1, :1])[0] for text in some])
                    if some else torch.zeros(0, words.shape[1]), persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> 'Prompts':
        """Move the frozen encoder too, wherever this module is moved."""
        self._encoder[0]._apply(fn, recurse)
        super()._apply(fn, recurse)
        return self

    @property
    def every(self) -> Tensor:
        """Give the plain texts, [U, D]: those of the tasks, then the others."""
        return torch.cat([self.plain, self.other_plain])

    def row(self, task_id: str) -> int:
        """Return the row of a task's vectors; FALLBACK is behind all others."""
        return len(self.tasks) if task_id == FALLBACK else self.tasks.index(task_id)

    def features(self, tasks: Sequence[int], *, fallback: bool = False) -> Tensor:
        """
        Encode tasks' texts with their prompts.

        :param tasks: rows of tasks.
        :param fallback: with the fallback task's prompts instead of each task's own.
        :returns: [U, 1 + K, D], norm 1; the plain text first.
        """
        rows = [len(self.tasks)] * len(tasks) if fallback else list(tasks)
        encoded = self._encoder[0].prompted([self._ids[t] for t in tasks], self.vectors[rows])
        return torch.cat([self.plain[list(tasks)][:, None], encoded], dim=1)

    def human_texts(self, tasks: Sequence[int]) -> Tensor:
        """Encode tasks' texts as humans' videos are matched with: [U, D]."""
        if self.human is None:
            return self.plain[list(tasks)]
        return self._encoder[0].prompted(
            [self._ids[t] for t in tasks], self.human.expand(len(tasks), -1, -1, -1))[:, 0]


def text_features(encoder: PromptedTextEncoder, text: str, prompts: Tensor) -> Tensor:
    """Encode one text, plain and with each of K prompts [K, L, D]: [1 + K, D], norm 1."""
    ids = _ids(text).to(prompts.device)
    mask = torch.ones(prompts.shape[:2], dtype=torch.int64, device=prompts.device)
    return torch.as_tensor(encoder(ids, torch.ones_like(ids), prompts, mask))


@cache
def _ids(text: str) -> Tensor:
    return torch.tensor([_tokenizer().encode(text).ids])


@cache
def _tokenizer() -> Any:
    return load_tokenizer(minilm_folder())

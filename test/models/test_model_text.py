# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Text features: a text's feature is its own, whatever else is encoded with it."""

from importlib import import_module

import pytest

np = import_module('numpy')
torch = import_module('torch')
errors = import_module('hralign_ros.models.errors')
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
    features = text.load_distilbert(folder)
    got = features.encode(TEXTS)
    want = np.stack([hidden(bert, [i], [[1] * len(i)])[0].mean(0).numpy() for i in IDS])
    assert got.shape == (3, features.dim) == (3, 24) and got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-6)
    for i, one in enumerate(TEXTS):
        np.testing.assert_array_equal(features.encode([one])[0], got[i])
    assert features.encode([]).shape == (0, 24)


def test_r3ms_mean_depends_on_the_batch(folder, bert):
    """Guards the comparison with R3M: its mean takes in the padding, and so the other texts."""
    features = text.load_distilbert(folder, unmasked_batch_mean=True)
    padded = [i + [0] * (7 - len(i)) for i in IDS]
    mask = [[1] * len(i) + [0] * (7 - len(i)) for i in IDS]
    got = features.encode(TEXTS)
    np.testing.assert_allclose(got, hidden(bert, padded, mask).mean(1).numpy(), atol=1e-6)
    alone = features.encode(TEXTS[:1])
    assert np.abs(alone[0] - got[0]).max() > 1e-2
    np.testing.assert_allclose(alone, text.load_distilbert(folder).encode(TEXTS[:1]), atol=1e-6)
    assert features.encode([]).shape == (0, 24)


def test_distilbert_out_of_an_r3m(tmp_path, folder, bert):
    """Guards R3M's own language part: its weights, with a tokenizer from elsewhere."""
    state = {f'module.lang_enc.model.{k}': v + 1.0 for k, v in bert.state_dict().items()}
    torch.save({'r3m': state | {'module.convnet.conv1.weight': torch.zeros(1)}},
               tmp_path / 'model.pth')
    (folder / 'model.safetensors').unlink()
    features = text.load_distilbert(folder, weights=tmp_path / 'model.pth')
    assert torch.equal(features._bert.embeddings.word_embeddings.weight,
                       bert.embeddings.word_embeddings.weight + 1.0)
    assert not any(p.requires_grad for p in features._bert.parameters())
    assert not features._bert.training


def test_a_published_file_with_a_head(folder, bert):
    """Guards distilbert-base-uncased as published, below `distilbert.` and with a word head."""
    from safetensors.torch import save_file

    save_file({f'distilbert.{k}': v.clone() for k, v in bert.state_dict().items()}
              | {'vocab_transform.weight': torch.zeros(24, 24)}, folder / 'model.safetensors')
    want = hidden(bert, IDS[:1], [[1] * 5])[0].mean(0).numpy()
    np.testing.assert_allclose(text.load_distilbert(folder).encode(TEXTS[:1])[0], want, atol=1e-6)


@pytest.mark.parametrize('case', ['no tokenizer', 'no weights', 'no language', 'other size',
                                  'other words', 'too long'])
def test_distilbert_that_cannot_be(tmp_path, folder, bert, case):
    """Guards against half a text encoder: one sentence for each thing that may be missing."""
    weights, said = None, {
        'no tokenizer': 'vocab.txt', 'no weights': 'model.safetensors',
        'no language': 'no language part', 'other size': 'of another shape',
        'other words': '14 words', 'too long': '14 tokens; at most 12'}[case]
    if case == 'no tokenizer':
        (folder / 'vocab.txt').unlink()
    elif case == 'no weights':
        (folder / 'model.safetensors').unlink()
    elif case == 'no language':
        weights = tmp_path / 'w.pth'
        torch.save({'convnet.conv1.weight': torch.zeros(1)}, weights)
    elif case == 'other size':
        weights = tmp_path / 'w.pth'
        torch.save({f'lang_enc.model.{k}': v[:1] for k, v in bert.state_dict().items()}, weights)
    elif case == 'other words':
        (folder / 'vocab.txt').write_text('\n'.join([*WORDS, 'one', 'two']), 'utf-8')
    with pytest.raises(errors.ModelError, match=said):
        text.load_distilbert(folder, weights=weights).encode(['open ' * 12])


def test_minilm_sentences():
    """Guards the default: the encoder's plain row, norm 1, each text on its own."""
    encoder = text.load_minilm()
    features = text.MiniLMSentences(encoder)
    got = features.encode(TEXTS)
    assert got.shape == (3, features.dim) == (3, 384) and got.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1.0, atol=1e-5)
    ids = torch.tensor([features._tokenizer.encode(TEXTS[1]).ids])
    with torch.no_grad():
        want = encoder(ids, torch.ones_like(ids), torch.zeros(2, 3, 384),
                       torch.ones(2, 3, dtype=torch.int64))[0]
    np.testing.assert_allclose(got[1], want.numpy(), atol=1e-6)
    np.testing.assert_array_equal(features.encode(TEXTS[1:2])[0], got[1])
    assert got[0] @ features.encode(['open drawer'])[0] > got[0] @ got[1]
    with pytest.raises(errors.ModelError, match='at most 512'):
        features.encode(['open ' * 600])
    assert features.encode([]).shape == (0, 384)

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Backbones: the token map they guarantee, frozen, from weights that cannot run code."""

from importlib import import_module
import os

import pytest

torch = import_module('torch')
backbones = import_module('hralign_ros.models.backbones')
text = import_module('hralign_ros.models.text')


def pixels(count=1, seed=0):
    return torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(('name', 'channels', 'grid', 'kind'), [
    ('efficientnet_lite0', 1280, (7, 7), 'conv'), ('resnet50', 2048, (7, 7), 'conv'),
    ('vit_b_16', 768, (14, 14), 'vit')])
def test_what_a_backbone_gives(name, channels, grid, kind):
    """Guards what the manifest will say: channels, grid, kind; frozen; the same for each seed."""
    backbone = backbones.load_backbone(name)
    assert (backbone.channels, backbone.grid, backbone.kind) == (channels, grid, kind)
    assert backbone.preprocessing.size == 224 and backbone.preprocessing.fit == 'squash'
    assert not backbone.module.training
    assert not any(p.requires_grad for p in backbone.module.parameters())
    with torch.no_grad():
        tokens = backbone.module(pixels(2))
        again = backbones.load_backbone(name).module(pixels(2))
        alone = backbone.module(pixels(2)[1:])
    assert tokens.shape == (2, channels, *grid)
    assert torch.equal(tokens, again)
    torch.testing.assert_close(tokens[1:], alone, atol=1e-4, rtol=1e-4)


def test_another_seed_other_weights():
    """Guards --seed, which has to reach the random weights."""
    with torch.no_grad():
        one, two = (backbones.load_backbone('resnet50', seed=s).module(pixels()) for s in (0, 1))
    assert not torch.equal(one, two)


def test_an_unknown_backbone():
    """Guards a mistyped name: those that there are."""
    with pytest.raises(ValueError, match='efficientnet_lite0, resnet50, vit_b_16'):
        backbones.load_backbone('resnet5')


def test_the_default_weights_know_images():
    """Guards the real ImageNet weights: the classifier on top of the token map tells a stripe."""
    net = backbones.load_backbone('efficientnet_lite0').module
    with torch.no_grad():
        features = net(torch.zeros(1, 3, 224, 224)).mean((2, 3))
        direct = net.net(torch.zeros(1, 3, 224, 224))
        torch.testing.assert_close(net.net._fc(features), direct, atol=1e-3, rtol=1e-3)


def test_the_vit_is_torchvisions():
    """Guards the tokens of the ViT: those of torchvision's own encoder, in order, without CLS."""
    from torchvision.models import vit_b_16

    torch.manual_seed(0)
    net = vit_b_16(weights=None).eval()
    seen = []
    net.encoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        net(pixels())
        got = backbones.load_backbone('vit_b_16').module(pixels())
    torch.testing.assert_close(got.flatten(2).transpose(1, 2), seen[0][:, 1:])


@pytest.fixture(scope='module')
def state():
    from torchvision.models import resnet50

    torch.manual_seed(42)
    return resnet50(weights=None).state_dict()


@pytest.mark.parametrize('form', ['.pth', 'wrapped .pth', '.safetensors'])
def test_own_weights(tmp_path, state, form):
    """Guards --weights in each form that is guaranteed."""
    from safetensors.torch import save_file

    path = tmp_path / f'weights{form.split()[-1]}'
    if form == '.safetensors':
        save_file(state, path)
    else:
        torch.save({'state_dict': state} if 'wrapped' in form else state, path)
    backbone = backbones.load_backbone('resnet50', str(path))
    assert torch.equal(backbone.module[0].weight, state['conv1.weight'])
    assert backbone.license_id == 'as the weights given'
    assert path.name in backbone.source
    assert str(tmp_path) not in backbone.source, 'a path of this machine, on its way to the card'


def test_own_weights_for_the_default_backbone(tmp_path):
    """Guards the same for EfficientNet-Lite0: safetensors, and the licence of what was given."""
    from safetensors.torch import save_file

    plain = backbones.load_backbone('efficientnet_lite0')
    state = {key: value.clone() for key, value in plain.module.net.state_dict().items()}
    state['_conv_stem.weight'] += 1.0
    save_file(state, tmp_path / 'own.safetensors')
    own = backbones.load_backbone('efficientnet_lite0', str(tmp_path / 'own.safetensors'))
    assert torch.equal(own.module.net._conv_stem.weight, state['_conv_stem.weight'])
    assert own.license_id == 'as the weights given'


class Evil:
    """A pickle that makes a folder when it is read."""

    def __reduce__(self):
        return os.mkdir, (os.environ['EVIL'],)


@pytest.mark.parametrize('name', ['resnet50', 'efficientnet_lite0'])
def test_a_pickle_is_not_run(tmp_path, monkeypatch, name):
    """Guards against weights that are a program."""
    monkeypatch.setenv('EVIL', str(tmp_path / 'evil'))
    torch.save({'conv1.weight': Evil()}, tmp_path / 'weights.pth')
    with pytest.raises(Exception, match='(?i)weights'):
        backbones.load_backbone(name, str(tmp_path / 'weights.pth'))
    assert not (tmp_path / 'evil').exists()


@pytest.fixture(scope='module')
def minilm():
    return text.load_minilm()


def test_the_text_encoder_is_sentence_transformers(minilm):
    """Guards our own forward pass: transformers' BertModel, mean over its tokens, norm 1."""
    from transformers import BertModel

    bert = BertModel.from_pretrained(text.minilm_folder(), local_files_only=True).eval()
    ids = torch.tensor([[101, 2404, 1996, 12115, 1999, 1996, 2452, 102]])
    with torch.no_grad():
        hidden = bert(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        want = torch.nn.functional.normalize(hidden.mean(1), dim=1)
        got = minilm(ids, torch.ones_like(ids), torch.zeros(3, 4, 384),
                     torch.ones(3, 4, dtype=torch.int64))
    torch.testing.assert_close(got[:1], want, atol=1e-5, rtol=1e-4)


def test_prompts_stand_behind_the_text(minilm):
    """Guards failure prompts: the plain row does not see them, the others do, masked ones not."""
    ids = torch.tensor([[101, 2404, 1996, 12115, 102]])
    ones = torch.ones_like(ids)
    torch.manual_seed(0)
    prompts = torch.randn(3, 4, 384) * 0.3
    mask = torch.ones(3, 4, dtype=torch.int64)
    mask[2] = 0
    with torch.no_grad():
        rows = minilm(ids, ones, prompts, mask)
        plain = minilm(ids, ones, torch.zeros_like(prompts), mask)
    torch.testing.assert_close(rows[0], plain[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(rows[3], rows[0], atol=1e-5, rtol=1e-4)
    assert rows[1] @ rows[0] < 0.999 and rows[1] @ rows[2] < 0.999
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(4))


def test_the_text_encoder_is_frozen(minilm):
    """Guards the text space, which all bundles and all their tasks share."""
    assert not minilm.training and not any(p.requires_grad for p in minilm.parameters())
    assert (minilm.dim, minilm.max_tokens) == (384, 512)

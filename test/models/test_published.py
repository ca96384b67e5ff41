# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Published backbones: files of their exact layout, their terms, the hub and its absence."""

from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
import os
import subprocess
import sys
from threading import Thread

import pytest

torch = import_module('torch')
timm = import_module('timm')
backbones = import_module('hralign_ros.models.backbones')
published = import_module('hralign_ros.models.published')
safetensors = import_module('safetensors.torch')

REVISION = '0123456789abcdef0123456789abcdef01234567'


def pixels(side=224):
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))


def random_net(network, size=224):
    torch.manual_seed(7)
    net = timm.create_model(network, pretrained=False, num_classes=0, img_size=size)
    with torch.no_grad():
        for value in net.parameters():
            value.add_(0.02 * torch.randn(value.shape))
    return net.eval()


def tokens(backbone):
    with torch.no_grad():
        return backbone.module(pixels()).flatten(2).transpose(1, 2)


@pytest.mark.parametrize('name', ['dinov2_vits14', 'dinov3_vits16', 'theia_tiny'])
def test_each_is_what_its_network_is(name):
    """Guards names, sizes and grids: what a run and a bundle say of a published backbone."""
    backbone = backbones.load_backbone(name)
    patch = 14 if '14' in name else 16
    assert backbone.grid == (224 // patch, 224 // patch) and backbone.kind == 'vit'
    assert backbone.license_id == 'Apache-2.0 (architecture)'
    assert backbone.source == 'random weights'
    assert backbone.preprocessing.mean[0] == 0.485


def test_dinov2_of_518_pixels(tmp_path):
    """
    Guards the grid of positions: DINOv2's files are for 518 pixels, and 224 are what we show it.

    What the file holds at that size is what timm makes of it, by timm's own interpolation.
    """
    net = random_net('vit_small_patch14_dinov2', 518)
    state = {**net.state_dict(), 'mask_token': torch.zeros(1, 384)}
    torch.save(state, tmp_path / 'dinov2_vits14_pretrain.pth')
    assert state['pos_embed'].shape == (1, 1370, 384)
    backbone = backbones.load_backbone(
        'dinov2_vits14', str(tmp_path / 'dinov2_vits14_pretrain.pth'))
    own = timm.create_model(
        'vit_small_patch14_dinov2', pretrained=False, num_classes=0, img_size=224).eval()
    own.load_state_dict(import_module('timm.models.vision_transformer').checkpoint_filter_fn(
        dict(net.state_dict()), own))
    with torch.no_grad():
        want = own.forward_features(pixels())[:, 1:]
    torch.testing.assert_close(tokens(backbone), want, atol=1e-4, rtol=1e-4)
    assert backbone.license_id == 'Apache-2.0'
    assert backbone.source == 'the file dinov2_vits14_pretrain.pth'


def test_dinov3_by_its_own_names(tmp_path):
    """Guards DINOv3's own file: storage tokens, tables of angles and a masked bias of keys."""
    net = random_net('vit_small_patch16_dinov3')
    state = {}
    for name, value in net.state_dict().items():
        name = name.replace('reg_token', 'storage_tokens').replace('gamma_', 'ls')
        state[name + '.gamma' if name.endswith(('.ls1', '.ls2')) else name] = value
    for i in range(12):
        state[f'blocks.{i}.attn.qkv.bias'] = torch.zeros(3 * 384)
        state[f'blocks.{i}.attn.qkv.bias_mask'] = torch.zeros(3 * 384)
    state |= {'mask_token': torch.zeros(1, 384), 'rope_embed.periods': torch.zeros(16)}
    torch.save(state, tmp_path / 'dinov3_vits16.pth')
    backbone = backbones.load_backbone('dinov3_vits16', str(tmp_path / 'dinov3_vits16.pth'))
    with torch.no_grad():
        want = net.forward_features(pixels())[:, net.num_prefix_tokens:]
    torch.testing.assert_close(tokens(backbone), want, atol=1e-4, rtol=1e-4)
    assert backbone.license_id == 'DINOv3 License'


def test_siglip2_without_its_pooling(tmp_path):
    """Guards SigLIP 2: the attention that pools is in the file, and no part of a token map."""
    net = random_net('vit_base_patch16_siglip_224')
    assert any(name.startswith('attn_pool.') for name in net.state_dict())
    safetensors.save_file(net.state_dict(), tmp_path / 'model.safetensors')
    backbone = backbones.load_backbone('siglip2_vitb16', str(tmp_path / 'model.safetensors'))
    with torch.no_grad():
        torch.testing.assert_close(
            tokens(backbone), net.forward_features(pixels()), atol=1e-4, rtol=1e-4)
    assert backbone.preprocessing.mean == backbone.preprocessing.std == (0.5, 0.5, 0.5)


def theia_file(path):
    """Write Theia's layout: a ViT by the names of transformers, and translators beside it."""
    transformers = import_module('transformers')
    torch.manual_seed(3)
    net = transformers.ViTModel(transformers.ViTConfig(
        hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768),
        add_pooling_layer=False).eval()
    names = {'attention.q_proj': 'attention.attention.query', 'mlp.fc1': 'intermediate.dense',
             'attention.k_proj': 'attention.attention.key', 'mlp.fc2': 'output.dense',
             'attention.v_proj': 'attention.attention.value',
             'attention.o_proj': 'attention.output.dense'}
    state = {'translator.conv.weight': torch.zeros(4)}
    for name, value in net.state_dict().items():
        # As the library called them when these files were published.
        old = name.replace('layers.', 'encoder.layer.', 1)
        for new, before in names.items():
            old = old.replace(f'.{new}.', f'.{before}.')
        state[f'backbone.model.{old}'] = value.contiguous()
    safetensors.save_file(state, path)
    return net


def test_theia_by_the_names_of_transformers(tmp_path):
    """Guards Theia's file: its tokens are those that the transformers library computes."""
    net = theia_file(tmp_path / 'model.safetensors')
    backbone = backbones.load_backbone(
        'theia_tiny', str(tmp_path / 'model.safetensors'), non_commercial=True)
    with torch.no_grad():
        want = net(pixels()).last_hidden_state[:, 1:]
    torch.testing.assert_close(tokens(backbone), want, atol=1e-3, rtol=1e-3)
    assert 'non-commercial' in backbone.license_id


def test_vc1_is_an_mae_with_its_decoder(tmp_path):
    """Guards VC-1's file: timm's names under `model`, with the decoder that was trained beside."""
    net = random_net('vit_base_patch16_224')
    state = {**net.state_dict(), 'mask_token': torch.zeros(1, 1, 512),
             'decoder_embed.weight': torch.zeros(512, 768)}
    torch.save({'model': state}, tmp_path / 'vc1_vitb.pth')
    backbone = backbones.load_backbone(
        'vc1_vitb', str(tmp_path / 'vc1_vitb.pth'), non_commercial=True)
    with torch.no_grad():
        want = net.forward_features(pixels())[:, 1:]
    torch.testing.assert_close(tokens(backbone), want, atol=1e-4, rtol=1e-4)


def test_terms_that_forbid_commercial_use(tmp_path):
    """Guards a company that would find out at its launch: terms are asked about beforehand."""
    for weights in (str(tmp_path / 'vc1.pth'), 'hub'):
        with pytest.raises(ValueError, match='CC-BY-NC-4.0.*--non-commercial') as caught:
            backbones.load_backbone('vc1_vitb', weights)
        assert 'dinov2_vits14' in str(caught.value)
    assert backbones.load_backbone('theia_tiny', 'random').source == 'random weights'


def test_a_file_of_another_network(tmp_path):
    """Guards the wrong file: what is missing, and nothing half loaded."""
    torch.save(random_net('vit_tiny_patch16_224').state_dict(), tmp_path / 'w.pth')
    with pytest.raises(ValueError, match='of another shape: cls_token'):
        backbones.load_backbone('dinov2_vits14', str(tmp_path / 'w.pth'))


def test_weights_that_are_on_no_hub():
    """Guards --weights hub for what nobody put there: which are there."""
    with pytest.raises(ValueError, match='no hub has its weights.*dinov2_vits14'):
        backbones.load_backbone('efficientnet_lite0', 'hub')


class _Hub(BaseHTTPRequestHandler):
    """As much of the hub as one file takes: a HEAD and a GET with the headers that it sends."""

    content, stated = b'', ''

    def do_HEAD(self):
        self._send(b'')

    def do_GET(self):
        self._send(self.content)

    def _send(self, body):
        self.send_response(200)
        self.send_header('X-Repo-Commit', REVISION)
        self.send_header('X-Linked-Size', str(len(self.content)))
        self.send_header('X-Linked-Etag', f'"{self.stated}"')
        self.send_header('ETag', f'"{self.stated}"')
        self.send_header('Content-Length', str(len(self.content)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path):
    """Serve Theia's file on this machine; what is yielded may state another hash of it."""
    theia_file(tmp_path / 'served')

    class Served(_Hub):
        content = (tmp_path / 'served').read_bytes()
        stated = sha256(content).hexdigest()

    server = ThreadingHTTPServer(('127.0.0.1', 0), Served)
    Thread(target=server.serve_forever, daemon=True).start()
    yield Served, f'http://127.0.0.1:{server.server_address[1]}'
    server.shutdown()
    server.server_close()


def load_from(address, home):
    """
    Load by --weights hub in a process of its own: the library reads its address once.

    :param address: of the hub; '': there is no network.
    """
    program = ('from hralign_ros.models.backbones import load_backbone as load; '
               "print(load('theia_tiny', 'hub', non_commercial=True).source)")
    return subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, env={
            **os.environ, 'HF_ENDPOINT': address or 'http://127.0.0.1:9', 'HF_HOME': str(home),
            'HF_HUB_OFFLINE': str(int(not address)),
            'HF_HUB_DISABLE_XET': '1', 'NO_PROXY': '127.0.0.1', 'no_proxy': '127.0.0.1'},
        check=False)


def test_weights_of_the_hub(tmp_path, hub):
    """Guards --weights hub: fetched once, kept, used again without a network, and named."""
    _, address = hub
    first = load_from(address, tmp_path / 'home')
    want = 'model.safetensors of theaiinstitute/theia-tiny-patch16-224-cddsv at 0123456'
    assert first.returncode == 0 and first.stdout.strip() == want, first.stderr
    again = load_from('', tmp_path / 'home')
    assert again.returncode == 0 and again.stdout.strip() == want, again.stderr


def test_a_file_that_is_not_what_the_hub_states(tmp_path, hub):
    """Guards a file that was exchanged or cut: its hash is compared with the stated one."""
    served, address = hub
    served.stated = 'ab' * 32
    found = load_from(address, tmp_path / 'home')
    assert found.returncode and 'the file is damaged' in found.stderr, found.stderr


def test_a_cache_that_keeps_no_hash(tmp_path, hub):
    """
    A damaged file was used where the cache has no symbolic links, whose targets are hashes.

    The comparison was left out there without a word.
    """
    _, address = hub
    assert load_from(address, tmp_path / 'home').returncode == 0
    link, = (tmp_path / 'home').rglob('snapshots/*/model.safetensors')
    link.unlink()
    link.write_bytes(b'damaged')
    found = load_from('', tmp_path / 'home')
    assert found.returncode and 'keeps no hash beside it' in found.stderr, found.stderr


def test_no_network(tmp_path):
    """Guards a robot without a network: one sentence that says what to bring."""
    found = load_from('', tmp_path / 'home')
    assert found.returncode
    assert 'cannot be had' in found.stderr and 'give it as --weights' in found.stderr, found.stderr

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Files of weights: every published layout, whole or refused, and never a program."""

from importlib import import_module
import os

import pytest
from support.released import release_state

torch = import_module('torch')
adapters = import_module('hralign_ros.models.adapters')
backbones = import_module('hralign_ros.models.backbones')
checkpoints = import_module('hralign_ros.models.weight_files')
errors = import_module('hralign_ros.models.weight_files')
HralignError = import_module('hralign_ros.runtime.errors').HralignError

LAYERS = {'D_fc1': (512, 256, 1, 1), 'D_mapping': (512, 512, 1, 1), 'D_fc2': (2048, 64, 1, 1)}


@pytest.fixture(autouse=True)
def one_thread():
    """Keep small tensors on one core: more only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def filled(shapes):
    """Make tensors of given shapes, each with a value of its own, that cost no memory."""
    return {name: torch.full((), 1.0 + i).expand(shape) if 'num_batches' not in name
            else torch.tensor(i) for i, (name, shape) in enumerate(shapes.items())}


@pytest.fixture(scope='module')
def shapes():
    """Give the names and shapes in AdaptedR3M.pyth: 318 + 18 + 100 + 2."""
    from torchvision.models import resnet50
    from transformers import DistilBertConfig, DistilBertModel

    with torch.device('meta'):
        resnet, bert = resnet50(weights=None), DistilBertModel(DistilBertConfig())
    found = {f'convnet.{k}': tuple(v.shape) for k, v in resnet.state_dict().items()
             if not k.startswith('fc.')}
    for number in (1, 2, 3):
        for layer, shape in LAYERS.items():
            name = f'convnet.late_adapter_{number}.{layer}'
            found |= {f'{name}.weight': shape, f'{name}.bias': shape[:1]}
    found |= {f'lang_enc.model.{k}': tuple(v.shape) for k, v in bert.state_dict().items()}
    return found | {'lang_linear.weight': (2048, 768), 'lang_linear.bias': (2048,)}


@pytest.fixture(scope='module')
def release(shapes):
    return filled(shapes)


def part(state, beginning):
    return {k[len(beginning):]: v for k, v in state.items() if k.startswith(beginning)}


def without(state, *names):
    return {k: v for k, v in state.items() if k not in names}


def test_the_file_has_its_438_tensors(release):
    """Guards these tests: names and shapes are those of the published file."""
    assert len(release) == 438
    assert len(part(release, 'convnet.')) == 318 + 18
    assert len(part(release, 'lang_enc.model.')) == 100
    assert release['convnet.layer4.2.conv3.weight'].shape == (2048, 512, 1, 1)


@pytest.mark.parametrize('prefix', ['', 'module.', 'mvt1.', 'model.', 'module.mvt1.'])
@pytest.mark.parametrize('container', [None, 'r3m', 'model', 'model_state'])
def test_every_container_and_prefix(release, container, prefix):
    """Guards each way in which the authors' files wrap the same 438 tensors."""
    state = {f'{prefix}{k}': v for k, v in release.items()}
    content = {container: state, 'epoch': 9, 'cfg': 'TASK: x'} if container else state
    found = checkpoints.parse_checkpoint(content)
    assert found.layout == 'r3m_align'
    assert len(found.backbone_state) == 318 and len(found.adapters_state) == 18
    for theirs, ours in {'D_fc1': 'down', 'D_mapping': 'map', 'D_fc2': 'up'}.items():
        assert torch.equal(found.adapters_state[f'late_adapter_2.{ours}.weight'],
                           release[f'convnet.late_adapter_2.{theirs}.weight'])
    assert torch.equal(found.backbone_state['layer1.0.bn1.running_var'],
                       release['convnet.layer1.0.bn1.running_var'])


def test_adapted_r3m_becomes_a_backbone_with_adapters(tmp_path, release):
    """Guards AdaptedR3M.pyth from the file to the network: all values, running statistics too."""
    path = tmp_path / 'AdaptedR3M.pyth'
    torch.save({'model_state': release, 'optimizer_state': {'state': {}, 'param_groups': []},
                'epoch': 9, 'cfg': 'NUM_GPUS: 4'}, path)
    backbone = backbones.load_backbone('r3m_resnet50', str(path))
    state = backbone.module.state_dict()
    assert len(state) == 318
    assert all(torch.equal(v, release[f'convnet.{k}']) for k, v in state.items())
    row = adapters.load_adapters(checkpoints.read_checkpoint(path), backbone)
    assert torch.equal(
        row.late_adapter_3.up.weight, release['convnet.late_adapter_3.D_fc2.weight'])
    assert sum(p.numel() for p in row.parameters()) == 1_582_080
    assert 'AdaptedR3M.pyth' in backbone.source and 'none stated' in backbone.license_id


def test_a_trained_adapter_makes_the_round_trip(tmp_path):
    """Guards a file written from our own modules: the network computes the same afterwards."""
    backbone = backbones.load_backbone('r3m_resnet18')
    row = adapters.make_adapters(backbone)
    for parameter in row.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    path = tmp_path / 'own.pyth'
    torch.save({'model_state': release_state(
        backbone.module.state_dict(), row.state_dict())}, path)
    again = backbones.load_backbone('r3m_resnet18', str(path), seed=1)
    same = adapters.load_adapters(checkpoints.read_checkpoint(path), again)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        one = adapters.AdaptedBackbone(backbone, 'late', row.eval())(pixels)
        other = adapters.AdaptedBackbone(again, 'late', same.eval())(pixels)
    assert torch.equal(one, other)


def test_r3m_itself(tmp_path, release):
    """Guards R3M's own file: no adapters, a language reward that nobody here needs."""
    state = {f'module.{k}': v for k, v in release.items()
             if 'adapter' not in k and not k.startswith('lang_linear')}
    state['module.lang_rew.pred.0.weight'] = torch.zeros(4, 4)
    torch.save({'r3m': state}, tmp_path / 'model.pth')
    found = checkpoints.read_checkpoint(tmp_path / 'model.pth')
    assert (found.layout, found.adapters_state) == ('r3m', None)
    backbone = backbones.load_backbone('r3m_resnet50', str(tmp_path / 'model.pth'))
    assert torch.equal(backbone.module.conv1.weight, release['convnet.conv1.weight'])
    assert 'MIT' in backbone.license_id
    with pytest.raises(errors.ModelError, match='no late adapters'):
        adapters.load_adapters(found, backbone)


def test_a_policy_has_more_than_an_encoder(release):
    """Guards policies' files: their other layers are left out, the encoder is whole."""
    state = {f'mvt1.{k}': v for k, v in release.items()} | {'mvt1.fc_bef.weight': torch.zeros(2)}
    found = checkpoints.parse_checkpoint({'model_state': state})
    assert len(found.backbone_state) == 318 and len(found.adapters_state) == 18


def test_a_vit_with_adapters():
    """Guards the ViT's layout in a policy: adapters of linear layers below vit."""
    layers = ('D_fc1', 'D_mapping', 'D_fc2')
    state = {f'mvt1.vit.late_adapter_{i}.{layer}.{kind}': torch.full(shape, float(i))
             for i in (1, 2, 3) for layer in layers
             for kind, shape in (('weight', (8, 8)), ('bias', (8,)))}
    state['mvt1.vit.patch_embed.proj.weight'] = torch.zeros(8, 3, 16, 16)
    found = checkpoints.parse_checkpoint(state)
    assert found.layout == 'vit_align' and list(found.backbone_state) == [
        'patch_embed.proj.weight']
    assert torch.equal(found.adapters_state['late_adapter_3.map.bias'], torch.full((8,), 3.0))


@pytest.mark.parametrize('lost', [
    'convnet.late_adapter_2.D_mapping.bias', 'convnet.late_adapter_3.D_fc2.weight'])
def test_seventeen_adapter_tensors(release, lost):
    """Guards against half an adapter: all 18 tensors or none, and the message says which."""
    with pytest.raises(errors.ModelError, match='17 .* 18 .*' + lost.removeprefix('convnet.')):
        checkpoints.parse_checkpoint({'model_state': without(release, lost)})


def test_an_adapter_that_we_do_not_know(release):
    """Guards against a fourth adapter that would silently be left out."""
    state = release | {'convnet.late_adapter_4.D_fc1.bias': torch.zeros(1)}
    with pytest.raises(errors.ModelError, match='unknown: late_adapter_4.D_fc1.bias'):
        checkpoints.parse_checkpoint(state)


@pytest.mark.parametrize(('change', 'said'), [
    (lambda s: without(s, *[k for k in s if k.startswith('convnet.layer2.0.')]),
     'missing: layer2.0.conv1.weight, .*, .* and [0-9]+ more'),
    (lambda s: without(s, 'convnet.bn1.running_mean'), 'missing: bn1.running_mean'),
    (lambda s: s | {'convnet.layer5.weight': torch.zeros(1)},
     'not of this network: layer5.weight'),
    (lambda s: s | {'convnet.conv1.weight': torch.zeros(64, 3, 3, 3)},
     r'another shape: conv1.weight \[64, 3, 3, 3\], needed \[64, 3, 7, 7\]')])
def test_tensors_that_do_not_fit(tmp_path, release, change, said):
    """Guards against a backbone that is in part random: whole or refused, three names at most."""
    torch.save({'model_state': change(release)}, tmp_path / 'w.pth')
    with pytest.raises(errors.ModelError, match=said) as error:
        backbones.load_backbone('r3m_resnet50', str(tmp_path / 'w.pth'))
    assert 'w.pth' in str(error.value) and isinstance(error.value, HralignError)
    assert '318 tensors' in str(error.value)


def test_adapters_of_another_shape(release):
    """Guards adapters of ResNet-50 against being put into ResNet-18."""
    found = checkpoints.parse_checkpoint(release)
    with pytest.raises(errors.ModelError, match='late_adapter_1.down.weight'):
        adapters.load_adapters(found, backbones.load_backbone('r3m_resnet18'))


def test_counters_may_be_missing():
    """Guards old files of torchvision, which have no num_batches_tracked."""
    net = backbones.load_backbone('r3m_resnet18').module
    state = {k: v + 1 for k, v in net.state_dict().items() if not k.endswith('batches_tracked')}
    before = {k: v.clone() for k, v in net.state_dict().items()}
    checkpoints.load_state(net, state)
    after = net.state_dict()
    assert 0 < len(state) < len(after)
    for name, tensor in after.items():
        assert torch.equal(tensor, state.get(name, before[name])), name


@pytest.fixture(scope='module')
def vit_state():
    """Give the names and shapes of a ViT-S/16 in an MAE file, decoder and all."""
    from timm.models import VisionTransformer

    with torch.device('meta'):
        net = VisionTransformer(embed_dim=384, depth=12, num_heads=12, num_classes=0)
    shapes = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    return filled(shapes | {'mask_token': (1, 1, 192), 'decoder_embed.weight': (192, 384),
                            'decoder_blocks.0.attn.qkv.weight': (576, 192)})


@pytest.mark.parametrize('container', ['features', 'model', 'state_dict', None])
def test_mae_files(tmp_path, vit_state, container):
    """Guards the files of data4robotics (features or model) and MVP (model): decoder dropped."""
    content = {container: vit_state, 'args': {'lr': 1e-4}} if container else vit_state
    torch.save(content, tmp_path / 'mae.pth')
    assert checkpoints.read_checkpoint(tmp_path / 'mae.pth').layout == 'mae'
    backbone = backbones.load_backbone('mvp_vit_s', str(tmp_path / 'mae.pth'))
    assert (backbone.channels, backbone.grid, backbone.kind) == (384, (14, 14), 'vit')
    norm = backbone.module.get_submodule('end.norm')
    assert torch.equal(norm.weight, vit_state['norm.weight'])
    state = backbone.module.state_dict()
    assert torch.equal(state['middle.blocks.6.mlp.fc1.bias'], vit_state['blocks.6.mlp.fc1.bias'])
    assert torch.equal(state['late.blocks.0.mlp.fc1.bias'], vit_state['blocks.7.mlp.fc1.bias'])


def test_the_features_come_before_the_model(vit_state):
    """Guards data4robotics' order where a file has both."""
    found = checkpoints.parse_checkpoint({
        'model': {'patch_embed.proj.weight': torch.zeros(1)}, 'features': vit_state})
    assert len(found.backbone_state) == len(vit_state) - 3


def test_a_classifier_may_be_there_or_not(tmp_path):
    """Guards plain files of torchvision and timm: with their classifier, or cut off."""
    import timm
    from torchvision.models import resnet18

    torch.manual_seed(1)
    conv, vit = resnet18(weights=None), timm.create_model('vit_tiny_patch16_224', num_classes=7)
    for name, state in {'torchvision:resnet18': conv.state_dict(),
                        'timm:vit_tiny_patch16_224': vit.state_dict()}.items():
        for kept in (state, {k: v for k, v in state.items() if k[:3] not in ('fc.', 'hea')}):
            torch.save(kept, tmp_path / 'w.pth')
            backbone = backbones.load_backbone(name, str(tmp_path / 'w.pth'))
            first = next(iter(v for k, v in backbone.module.state_dict().items()
                              if k in ('conv1.weight', 'early.net.patch_embed.proj.weight')))
            assert any(torch.equal(first, v) for v in state.values())


class Evil:
    """A pickle that makes a folder when it is read."""

    def __reduce__(self):
        return os.mkdir, (os.environ['EVIL'],)


@pytest.mark.parametrize('name', ['r3m_resnet18', 'mvp_vit_s', 'timm:resnet18'])
def test_a_program_is_not_run(tmp_path, monkeypatch, name):
    """Guards against weights that are a program, wherever in the file it hides."""
    monkeypatch.setenv('EVIL', str(tmp_path / 'evil'))
    torch.save({'model_state': {'convnet.conv1.weight': torch.zeros(1)},
                'optimizer_state': Evil()}, tmp_path / 'w.pth')
    with pytest.raises(errors.ModelError, match='w.pth'):
        backbones.load_backbone(name, str(tmp_path / 'w.pth'))
    assert not (tmp_path / 'evil').exists()


@pytest.mark.parametrize(('content', 'said'), [
    ((torch.zeros(1), {}), 'tuple'), ({}, 'no named tensors'), ({'epoch': 3}, 'epoch'),
    ({'model': {'a': torch.zeros(1), 'b': 3}}, 'no tensor with a name: b'),
    ({'w': torch.zeros(1), 'module.w': torch.zeros(1)}, 'two tensors are called w')])
def test_what_is_no_state_dict(tmp_path, content, said):
    """Guards other people's files: one line that says what is in there."""
    torch.save(content, tmp_path / 'w.pth')
    with pytest.raises(errors.ModelError, match=said) as error:
        checkpoints.read_checkpoint(tmp_path / 'w.pth')
    assert '\n' not in str(error.value) and 'w.pth' in str(error.value)

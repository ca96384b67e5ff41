# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Exporting a bundle: repeatable, complete, and the same as torch."""

from hashlib import sha256
from importlib import import_module
import io

import pytest
from support.released import release_state

np = import_module('numpy')
onnx = import_module('onnx')
torch = import_module('torch')
cli = import_module('hralign_ros.cli.main')
runtime = import_module('hralign_ros.runtime')
adapters = import_module('hralign_ros.models.adapters')
checkpoints = import_module('hralign_ros.models.weight_files')
backbones = import_module('hralign_ros.models.backbones')
heads = import_module('hralign_ros.models.hr_align')
bundle = import_module('hralign_ros.export.bundle')
compress = import_module('hralign_ros.export.compress')
graphs = import_module('hralign_ros.models.onnx_export')
parity = import_module('hralign_ros.export.parity')
query = import_module('hralign_ros.export.query')
samples = import_module('hralign_ros.export.parity')
SessionFactory = import_module('hralign_ros.runtime.providers').SessionFactory
BundleError = import_module('hralign_ros.runtime.errors').BundleError


def run(model, **feed):
    return list(SessionFactory('cpu').create(model, name='graph').run(None, feed))


def shipped_visual():
    """Read the weights of the shipped adapters out of the graph, into torch."""
    model = onnx.load_from_string((runtime.default_bundle() / 'visual.onnx').read_bytes())
    weights = {t.name.removeprefix('adapters.'): torch.from_numpy(
        onnx.numpy_helper.to_array(t).copy()) for t in model.graph.initializer
        if t.name.startswith('adapters.')}
    backbone = backbones.load_backbone('efficientnet_lite0')
    row = adapters.adapters_of(backbone.channels, backbone.kind)
    row.load_state_dict(weights)
    return bundle._Visual(backbone, 'late', row), model.SerializeToString()


def graph_of(visual):
    return graphs.torch_graph(
        visual, [torch.zeros(2, 3, 224, 224)], inputs=['pixels'], outputs=['tokens'])


def test_the_visual_graph_repeats_itself():
    """
    Guards `make bundle`: the same weights give the same bytes, so that a change shows.

    Other bytes than the shipped ones on another processor are no fault, other tokens are.
    """
    visual, shipped = shipped_visual()
    model = graph_of(visual)
    assert sha256(model).hexdigest() == sha256(graph_of(shipped_visual()[0])).hexdigest()
    pixels = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    np.testing.assert_allclose(
        run(model, pixels=pixels)[0], run(shipped, pixels=pixels)[0], atol=1e-3)
    # Fine tokens are in the shipped one as well: 22 kB.
    assert abs(len(model) - len(shipped)) < 0.002 * len(shipped)


def test_the_shipped_adapters_stand_behind_the_plain_backbone():
    """
    Guards the claim of the shipped bundle: the backbone is as it was, the adapters are trained.

    They change tokens, by a part of what they are and not beyond recognition.
    """
    visual, shipped = shipped_visual()
    pixels = torch.from_numpy(np.concatenate([bundle._pixels(
        (runtime.default_bundle() / 'preprocess.onnx').read_bytes(), [image])
        for image in samples.sample_images(1)]))
    with torch.no_grad():
        plain = backbones.load_backbone('efficientnet_lite0').module(pixels)
        torch.testing.assert_close(
            visual.adapters(plain).flatten(2).transpose(1, 2),
            torch.from_numpy(run(shipped, pixels=pixels.numpy())[0]), rtol=0, atol=1e-3)
        change = (visual.adapters(plain) - plain).norm() / plain.norm()
    assert 0.01 < change < 1.0


def test_a_whole_bundle_of_resnet50(tmp_path, capsys):
    """Guards the other backbones to the end: by the command line, into the Encoder, to a tick."""
    folder = tmp_path / 'arm'
    assert cli.main(['encoder', 'export', '--output', str(folder), '--backbone', 'resnet50',
                     '--weights', 'random', '--view', 'wrist', 'left', 'right', '--seed',
                     '3']) == 0
    assert 'visual.onnx' in capsys.readouterr().out
    assert not (tmp_path / 'arm.new').exists(), 'what it was written to first is gone'
    encoder = runtime.Encoder.load(folder, provider='cpu')
    manifest = encoder.manifest
    assert (manifest.name, manifest.views) == ('arm', ('wrist', 'left', 'right'))
    assert (manifest.tokens.channels, manifest.tokens.grid, manifest.backbone.name) == (
        2048, (7, 7), 'resnet50')
    assert manifest.reference_view == 'right' and not manifest.success.trained
    image = samples.sample_images(2)[0]
    tick = encoder.start_episode('open the drawer').step({'left': image, 'right': image}, 1)
    np.testing.assert_allclose(np.linalg.norm(tick.embedding, axis=1), [0, 1, 1], atol=1e-5)
    # Without a classifier there is no query yet: attention is even, and the card says so.
    np.testing.assert_allclose(tick.attention[1:], 1 / 49, atol=1e-6)
    card = (folder / 'card.md').read_text('utf-8')
    assert 'attention is even' in card and 'resnet50' in card and 'random weights' in card
    command = manifest.provenance['command']
    assert '--view wrist left right' in command and '--seed 3' in command, command


def test_adapters_of_a_file_of_weights_are_exported(tmp_path):
    """
    Guards the authors' AdaptedR3M.pyth: its adapters were left out, and identities put there.

    The query cannot come along: theirs is for DistilBERT.
    """
    backbone = backbones.load_backbone('r3m_resnet18', 'random')
    row = adapters.make_adapters(backbone)
    for parameter in row.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    path, lines = tmp_path / 'AdaptedR3M.pyth', []
    torch.save({'model_state': release_state(
        backbone.module.state_dict(), row.state_dict())}, path)
    manifest = bundle.export_bundle(
        tmp_path / 'made', bundle.ExportOptions(backbone='r3m_resnet18', weights=str(path)),
        command='x', report=lines.append)
    assert any('late adapters of AdaptedR3M.pyth are used' in line for line in lines)
    assert 'late x3, from the file' in manifest.adapter.name
    assert manifest.licenses['adapters'] == manifest.backbone.license
    pixels = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = row(backbone.module(pixels)).flatten(2).transpose(1, 2).numpy()
    tokens = run((tmp_path / 'made/visual.onnx').read_bytes(), pixels=pixels.numpy())[0]
    np.testing.assert_allclose(tokens, expected, atol=1e-3)
    assert 'nothing has been aligned' not in (tmp_path / 'made/card.md').read_text('utf-8')


def test_adapters_at_several_places_are_no_bundle(tmp_path):
    """Guards files with adapters in three places: one was exported, and the others dropped."""
    backbone = backbones.load_backbone('r3m_resnet18', 'random')
    both = {name: value for position in ('early', 'late')
            for name, value in adapters.make_adapters(backbone, position).state_dict().items()}
    path = tmp_path / 'several.pyth'
    torch.save({'model_state': release_state(
        backbone.module.state_dict(), both)}, path)
    with pytest.raises(BundleError, match=r'adapters at several places \(early, late\)'):
        bundle.export_bundle(
            tmp_path / 'made', bundle.ExportOptions(backbone='r3m_resnet18', weights=str(path)),
            command='x', report=str)


def test_nothing_to_quantise():
    """Guards --int8 of a ViT: its one convolution stays float, and the file was called int8."""
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 2, 2), torch.nn.Flatten(2))
    model = graphs.torch_graph(net, [torch.zeros(1, 3, 8, 8)], inputs=['pixels'],
                               outputs=['tokens'])
    assert compress.quantise_static(model, [np.zeros((1, 3, 8, 8), np.float32)]) is None


def test_a_graph_that_differs_from_torch_is_refused():
    """Guards parity itself: a difference is an error, NaN included."""
    module = torch.nn.Linear(4, 2)
    model = graphs.torch_graph(module, [torch.zeros(1, 4)], inputs=['x'], outputs=['y'])
    feed = {'x': np.ones((1, 4), np.float32)}
    assert parity.check_parity(model, module, feed, lambda _: None) < 1e-5
    for change in (0.1, float('nan')):
        with torch.no_grad():
            module.bias.add_(change)
        with pytest.raises(RuntimeError, match='differs'):
            parity.check_parity(model, module, feed, lambda _: None)


def test_the_second_output_counts_as_well():
    """
    Parity took a graph whose second output is NaN: Python's max passes over all but a first NaN.

    Heads have up to seven outputs.
    """
    class Two(torch.nn.Module):

        def forward(self, x):
            return x + 1.0, torch.log(x)

    module, feed = Two(), {'x': np.ones((1, 4), np.float32)}
    model = graphs.torch_graph(module, [torch.ones(1, 4)], inputs=['x'], outputs=['y', 'z'])
    assert parity.check_parity(model, module, feed, lambda _: None) < 1e-5
    with pytest.raises(RuntimeError, match='differs'):
        parity.check_parity(model, module, {'x': -feed['x']}, lambda _: None)


def test_attention_over_nothing_in_onnxruntime():
    """Guards a dead view in the exported graph: zeros, where an optimiser would make it 0 / 0."""
    torch.manual_seed(0)
    module = heads.TaskAttention(8, 16, floor=0.5)
    feed = {'tokens': np.random.default_rng(0).random((2, 3, 4, 16), np.float32),
            'mask': np.array([[0, 0, 0], [0, 1, 1]], np.float32),
            'task': np.ones(8, np.float32)}
    model = graphs.torch_graph(
        module, [torch.from_numpy(v) for v in feed.values()], inputs=list(feed),
        outputs=['embedding', 'attention'])
    embedding, attention = run(model, **feed)
    assert not embedding[0].any() and not attention[0].any()
    assert np.linalg.norm(embedding[1]) == pytest.approx(1.0, abs=1e-5)
    shipped = (runtime.default_bundle() / 'embed.onnx').read_bytes()
    tokens = np.zeros((2, 5, 49, 1280), np.float32)
    embedding, attention = run(
        shipped, tokens=tokens, mask=np.zeros((2, 5), np.float32),
        task=np.ones(384, np.float32))
    assert not embedding.any() and not attention.any()


def test_what_only_the_exporter_needed_is_gone():
    """Guards against paths of the machine in a graph, and against operators no robot has."""
    model = onnx.load_from_string(graphs.torch_graph(
        torch.nn.Linear(4, 2), [torch.zeros(1, 4)], inputs=['x'], outputs=['y']))
    assert [(o.domain, o.version) for o in model.opset_import] == [('', 18)]
    assert not model.metadata_props and not model.functions and not model.doc_string
    assert not any(n.doc_string or n.metadata_props for n in model.graph.node)
    model.graph.node.add(op_type='Gelu', domain='com.microsoft', input=['x'], output=['z'])
    model.opset_import.add(domain='com.microsoft', version=1)
    with pytest.raises(ValueError, match='com.microsoft'):
        graphs.finish(model)


@pytest.mark.parametrize('fit', ['squash', 'crop'])
@pytest.mark.parametrize('size', [(1, 1), (1, 700), (2, 3), (37, 1283), (1081, 33), (15, 17)])
def test_preprocessing_takes_any_size(fit, size):
    """Guards images of odd, tiny and extreme sizes against torchvision's own resize."""
    from torchvision.transforms.v2 import functional

    spec = backbones.Preprocessing(size=56, fit=fit)
    image = np.random.default_rng(sum(size)).integers(0, 256, (*size, 3), np.uint8)
    planes = torch.from_numpy(image).permute(2, 0, 1).float()
    if fit == 'crop':
        side = min(size)
        top, left = (size[0] - side) // 2, (size[1] - side) // 2
        planes = planes[:, top:top + side, left:left + side]
    want = functional.resize(planes, [56, 56], antialias=True)
    want = functional.normalize(want / 255, list(spec.mean), list(spec.std)).numpy()
    got = run(graphs.preprocessing_graph(spec), image=image[None])[0][0]
    np.testing.assert_allclose(got, want, atol=2e-3)


def test_preprocessing_is_that_of_pillow():
    """Guards training on images that other tools resized: within one grey level of Pillow's."""
    from PIL import Image

    spec = backbones.Preprocessing(size=64, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    image = samples.sample_images(1)[0]
    want = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR))
    got = run(graphs.preprocessing_graph(spec), image=image[None])[0][0].transpose(1, 2, 0)
    assert np.abs(got - want).max() <= 1.1


def test_an_unknown_fit():
    """Guards the specification of a backbone."""
    with pytest.raises(ValueError, match='squash, crop'):
        graphs.preprocessing_graph(backbones.Preprocessing(fit='stretch'))


def test_int8_text_says_the_same():
    """Guards the shipped text encoder against the float one in torch: cosine 0.99 at least."""
    from tokenizers import Tokenizer

    encoder = runtime.Encoder.load(runtime.default_bundle(), provider='cpu')
    minilm = import_module('hralign_ros.models.text').load_minilm()
    tokenizer = Tokenizer.from_str(bundle._tokenizer().decode())
    none = torch.zeros(1, 1, 384), torch.zeros(1, 1, dtype=torch.int64)
    texts = (*samples.SAMPLE_TASKS[:6], 'a', 'Stelle die Tasse auf den Tisch', '把杯子放进碗里',
             'pick up the blue block and then put it to the left of the red bowl, slowly')
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text).ids])
        with torch.no_grad():
            exact = minilm(ids, torch.ones_like(ids), *none)[0].numpy()
        # Not `encode`, which replaces an alias by the name of its task.
        got = encoder.text.encode_with(text, encoder.tasks.fallback.prompts)[0]
        assert exact @ got >= 0.99, text


def test_int8_weights_of_every_kind():
    """Guards each form of weight: tables, MatMul, Gemm both ways round, one used twice, zeros."""
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {
        'table': rng.standard_normal((100, 64)), 'one': rng.standard_normal((64, 80)) * 3,
        'gemm': rng.standard_normal((80, 64)), 'turned': rng.standard_normal((70, 64)),
        'twice': rng.standard_normal((70, 70))}
    weights['one'][:, 5] = 0.0
    weights['table'][7] *= 1000.0
    nodes = [
        helper.make_node('Gather', ['table', 'ids'], ['a']),
        helper.make_node('MatMul', ['a', 'one'], ['b']),
        helper.make_node('Gemm', ['b', 'gemm'], ['c']),
        helper.make_node('Gemm', ['c', 'turned'], ['d'], transB=1),
        helper.make_node('MatMul', ['d', 'twice'], ['e']),
        helper.make_node('MatMul', ['e', 'twice'], ['y'])]
    graph = helper.make_graph(
        nodes, 'g', [helper.make_tensor_value_info('ids', onnx.TensorProto.INT64, ['n'])],
        [helper.make_tensor_value_info('y', onnx.TensorProto.FLOAT, ['n', 70])],
        [numpy_helper.from_array(w.astype(np.float32), k) for k, w in weights.items()])
    model = graphs.finish(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)]))
    small = compress.quantise_weights(model)
    stored = {t.name: t.data_type for t in onnx.load_from_string(small).graph.initializer}
    assert stored['twice'] == onnx.TensorProto.FLOAT, 'used twice: left as it is'
    assert all(stored[f'{k}_int8'] == onnx.TensorProto.INT8
               for k in ('table', 'one', 'gemm', 'turned'))
    ids = np.arange(100)
    exact, close = run(model, ids=ids)[0], run(small, ids=ids)[0]
    cosine = (exact * close).sum(1) / (
        np.linalg.norm(exact, axis=1) * np.linalg.norm(close, axis=1))
    assert cosine.min() >= 0.99 and len(small) < 0.6 * len(model)


def test_a_query_is_learnt_from_class_names():
    """Guards the regression: where texts tell the directions, it finds those of names left out."""
    rng = np.random.default_rng(0)
    names = [f'thing {i}' for i in range(400)]
    hidden = rng.standard_normal((400, 8))
    to_text, to_class = rng.standard_normal((8, 24)), rng.standard_normal((8, 16))
    features = {}
    for i, thing in enumerate(names):
        for template in query.TEMPLATES:
            feature = hidden[i] @ to_text + 0.05 * rng.standard_normal(24)
            features[template.format(thing)] = (
                feature / np.linalg.norm(feature)).astype(np.float32)
    found = query.fit_query(
        (hidden @ to_class).astype(np.float32), names, features.__getitem__)
    assert found.weight.shape == (16, 24) and found.weight.dtype == np.float32
    assert found.held_out_median_rank <= 5.0
    noise = {text: rng.standard_normal(24).astype(np.float32) for text in features}
    lost = query.fit_query((hidden @ to_class).astype(np.float32), names, noise.__getitem__)
    assert lost.held_out_median_rank > 100.0, 'nothing to learn, nothing found'


def test_a_query_is_scaled_to_a_spread():
    """Guards attention against being even, or a single token: the scores' spread is set."""
    rng = np.random.default_rng(0)
    plain = query.Query(rng.standard_normal((16, 8)).astype(np.float32),
                        rng.standard_normal(16).astype(np.float32), 1.0)
    tokens = rng.standard_normal((6, 49, 16)).astype(np.float32)
    texts = rng.standard_normal((5, 8)).astype(np.float32)
    scaled = query.scaled(plain, tokens, texts, spread=0.75)
    scores = np.einsum('bnc,mc->mbn', tokens, texts @ scaled.weight.T + scaled.bias)
    assert scores.std(axis=2).mean() == pytest.approx(0.75, rel=1e-4)


def test_sample_images():
    """Guards what an export is checked on: images of both views, evenly over the episode."""
    images = samples.sample_images(3)
    assert len(images) == 6
    assert all(p.shape == (480, 640, 3) and p.dtype == np.uint8 for p in images)
    assert all(p.std() > 10 for p in images)
    assert np.abs(images[0].astype(int) - images[1]).mean() > 5, 'the views alternate'


def test_own_weights_are_those_exported(tmp_path):
    """Guards --weights to the end of the graph: it holds the values that were given."""
    net = torch.nn.Conv2d(3, 4, 1)
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    (tmp_path / 'w.pth').write_bytes(buffer.getvalue())
    state = {name: value.clone() for name, value in net.state_dict().items()}
    fresh = torch.nn.Conv2d(3, 4, 1)
    backbones.load_file_into(fresh, str(tmp_path / 'w.pth'))
    model = graphs.torch_graph(fresh, [torch.zeros(1, 3, 2, 2)], inputs=['x'], outputs=['y'])
    stored = onnx.load_from_string(model).graph.initializer
    values = [onnx.numpy_helper.to_array(t) for t in stored if list(t.dims) == [4, 3, 1, 1]]
    np.testing.assert_array_equal(values[0], state['weight'].numpy())

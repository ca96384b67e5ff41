# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Fine tokens: where a graph makes them, what they are, and a bundle that gets them."""

from dataclasses import replace
from functools import cache
from importlib import import_module

from hralign_ros.data.manifest import DataError, read_manifest
from hralign_ros.data.token_features import Basis
from hralign_ros.export.compress import halve, quantise_static
from hralign_ros.export.parity import run_graph, sample_images
from hralign_ros.models.onnx_export import torch_graph
from hralign_ros.runtime import BundleError, default_bundle, Encoder, load_bundle
from hralign_ros.runtime.bundle import TokenSpec
from hralign_ros.runtime.identity import Identity
import numpy as np
import onnx
import pytest
from support.images import image, SECOND, START
from support.tiny_bundle import CHANNELS, GRID, robot_bundle, SIDE
import torch
from torch import nn

fine_tokens = import_module('hralign_ros.export.fine_tokens')
cli = import_module('hralign_ros.cli.main')
TOKENS = TokenSpec(GRID, GRID, CHANNELS)
# Channels of the stage before the last halving.
WIDTH = 10


class Block(nn.Module):
    """A residual block, after whose sum comes an activation, as in a ResNet."""

    def __init__(self, width):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1))

    def forward(self, x):
        return torch.relu(x + self.inner(x))


class Network(nn.Module):
    """
    A small network with the tiny bundle's tokens.

    :param residual: False: sums are of a map and a constant alone.
    """

    def __init__(self, residual=True):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), Block(8) if residual else nn.ReLU(),
            nn.Conv2d(8, WIDTH, 3, 2, 1), nn.ReLU())
        self.early, self.late = (Block(WIDTH), Block(WIDTH)) if residual else (
            nn.Conv2d(WIDTH, WIDTH, 1), nn.ReLU())
        self.bias = nn.Parameter(torch.randn(1, WIDTH, 1, 1) * 0.1)
        self.halve = nn.Conv2d(WIDTH, CHANNELS, 3, 2, 1)
        self.last = Block(CHANNELS) if residual else nn.ReLU()

    def stage(self, pixels):
        """Make what the last residual connection at twice the grid of tokens sums up."""
        x = self.early(self.stem(pixels))
        return x + self.late.inner(x)

    def forward(self, pixels):
        x = torch.relu(self.late(self.early(self.stem(pixels))) + self.bias)
        return self.last(self.halve(x)).flatten(2).transpose(1, 2)


@cache
def network():
    return Network().eval()


@cache
def exported(residual=True):
    module = network() if residual else Network(residual=False)
    return torch_graph(module, [torch.rand(2, 3, SIDE, SIDE)], inputs=['pixels'],
                       outputs=['tokens'])


def pixels(count=2):
    return np.random.default_rng(5).random((count, 3, SIDE, SIDE), np.float32)


def random_basis(channels, size=4):
    rng = np.random.default_rng(1)
    return Basis(rng.random(channels, np.float32),
                 rng.standard_normal((channels, size)).astype(np.float32))


def test_the_stage_before_the_last_halving():
    """
    Guards which map is handed out: the last residual sum at twice the grid of the tokens.

    Behind it is a sum with a constant, which is none; its numbers are torch's own, in the basis,
    and the tokens stay to the bit.
    """
    model = onnx.load_from_string(exported())
    stage = fine_tokens.find_stage(model, TOKENS)
    assert stage.tokens == TokenSpec(2 * GRID, 2 * GRID, WIDTH)
    with torch.no_grad():
        want = network().stage(torch.from_numpy(pixels())).flatten(2).transpose(1, 2).numpy()
    plain = run_graph(exported(), {'pixels': pixels()})
    for basis in (None, random_basis(WIDTH)):
        tokens, fine = run_graph(fine_tokens.with_stage(model, stage, basis), {
            'pixels': pixels()})
        np.testing.assert_array_equal(tokens, plain[0])
        np.testing.assert_allclose(fine, basis.apply(want) if basis else want, atol=1e-5)
    assert [output.name for output in model.graph.output] == ['tokens'], 'it was changed'


@pytest.mark.parametrize(('graph', 'tokens'), [
    (lambda: exported(residual=False), TOKENS), (exported, TokenSpec(3, 3, CHANNELS))])
def test_a_network_without_such_a_map(graph, tokens):
    """Guards plain networks, and grids that are no half of another: one clear sentence."""
    with pytest.raises(BundleError, match='no map of . x . behind a residual connection'):
        fine_tokens.find_stage(onnx.load_from_string(graph()), tokens)


def test_tokens_that_are_fine_enough():
    """Guards transformers: their tokens are a fine map themselves."""
    class Patches(nn.Module):

        def __init__(self):
            super().__init__()
            self.patch = nn.Conv2d(3, 6, 2, 2)

        def forward(self, image):
            return self.patch(image).flatten(2).transpose(1, 2)

    feed = {'pixels': np.random.default_rng(0).random((2, 3, 28, 28), np.float32)}
    graph = torch_graph(Patches(), [torch.from_numpy(feed['pixels'])], inputs=['pixels'],
                        outputs=['tokens'])
    model, spec = onnx.load_from_string(graph), TokenSpec(14, 14, 6)
    stage = fine_tokens.find_stage(model, spec)
    assert stage.tokens == spec
    basis = random_basis(6)
    tokens, fine = run_graph(fine_tokens.with_stage(model, stage, basis), feed)
    np.testing.assert_array_equal(tokens, run_graph(graph, feed)[0])
    np.testing.assert_allclose(fine, basis.apply(tokens), atol=1e-5)


def test_directions_in_which_nothing_varies():
    """
    Guards against noise as large as what is seen.

    A direction is scaled to variance 1; a channel that is always the same made numbers of 1e6 of
    rounding errors.
    """
    basis = Basis(np.ones(4, np.float32), np.diag([1 / 3, 0.5, 1e6, 20]).astype(np.float32))
    np.testing.assert_array_equal(
        fine_tokens._that_varies(basis).matrix, basis.matrix[:, [0, 1, 3]])


def test_the_shipped_network(shipped):
    """Guards the real thing: 14 x 14 of EfficientNet-Lite, and its tokens to the bit."""
    model = onnx.load_from_string(load_bundle(shipped).read('visual.onnx'))
    before = run_graph(model.SerializeToString(), feed := {
        'pixels': np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)})
    # As it was before it had them.
    for part in (model.graph.node, model.graph.initializer, model.graph.output):
        for one in [one for one in part if (
                one.output[0] if part is model.graph.node else one.name).startswith('fine')]:
            part.remove(one)
    graph = model.SerializeToString()
    stage = fine_tokens.find_stage(model, load_bundle(shipped).manifest.tokens)
    assert stage.tokens == TokenSpec(14, 14, 112)
    tokens, fine = run_graph(fine_tokens.with_stage(model, stage, random_basis(112)), feed)
    np.testing.assert_array_equal(tokens, run_graph(graph, feed)[0])
    np.testing.assert_array_equal(tokens, before[0])
    assert fine.shape == (2, 196, 4) and fine.std() > 0.1


@pytest.fixture
def plain(variant):
    """Make a bundle without fine tokens, whose visual encoder is the small network."""
    return variant(robot_bundle(), files={'visual.onnx': exported()})


def both(seed=0):
    return {'wrist': image(seed, 48, 64), 'third_person': image(seed + 100, 48, 64)}


def add_fine(plain, recordings, output):
    return cli.main(['bundle', 'add-fine', '--bundle', str(plain), '--data', str(recordings),
                     '--output', str(output)])


def test_a_bundle_gets_fine_tokens(plain, recordings, tmp_path, capsys):
    """
    Guards the command: embedding and scores stay to the bit, and only visual.onnx is another.

    So the identity of embeddings differs by that file alone, which is what the help says.
    """
    output = tmp_path / 'made'
    assert add_fine(plain, recordings, output) == 0
    old, new = load_bundle(plain), load_bundle(output)
    size = new.manifest.fine.channels
    assert f'4 x 4 fine tokens of {size} numbers, of third_person' in capsys.readouterr().out
    assert new.manifest.fine == TokenSpec(4, 4, size) and 5 <= size <= WIDTH
    for name in old.manifest.files:
        same = old.read(name) == new.read(name)
        assert same == (name not in ('visual.onnx', 'card.md')), name
    identities = [Identity.of(bundle.manifest) for bundle in (old, new)]
    assert identities[0].sha256 != identities[1].sha256
    assert {name for name, value in identities[0].ingredients.items()
            if identities[1].ingredients[name] != value} == {'visual.onnx'}
    encoders = [Encoder.load(path, provider='cpu', threads=1) for path in (plain, output)]
    episodes = [encoder.start_episode('pick up the cup') for encoder in encoders]
    for i in range(4):
        one, other = (episode.step(both(i), START + i * SECOND) for episode in episodes)
        np.testing.assert_array_equal(one.embedding, other.embedding)
        assert one.success.raw_score == other.success.raw_score
    fine = np.stack([encoders[1].encode_images(both(i))[1] for i in range(20)])
    assert fine.shape == (20, 16, size) and 0.2 < fine.std() < 5.0
    card = (output / 'card.md').read_text('utf-8')
    assert f'4 x 4 fine tokens of {size} values a frame, of third_person' in card
    assert 'hralign bundle add-fine --bundle' in card and '| sources | robosuite |' in card
    # Episodes of the split train alone.
    assert new.manifest.provenance['fine']['episodes'] == 3
    assert 'CC-BY-NC-4.0' in new.manifest.licenses['basis of fine tokens']
    assert not new.manifest.success.grounded, 'its head is as before'
    assert cli.main(['bundle', 'verify', '--bundle', str(output), '--device', 'cpu']) == 0
    assert f'fine       4 x 4 tokens of {size} values, of third_person' in capsys.readouterr().out


def test_what_the_help_says(capsys):
    """Guards who reads the help before doing it: what stays, and what has to be done anew."""
    with pytest.raises(SystemExit):
        cli.main(['bundle', 'add-fine', '--help'])
    said = ' '.join(capsys.readouterr().out.split())
    assert 'embedding_sha256' in said and 'policies that learnt on the old bundle' in said


def test_smaller_graphs_get_them_too(plain, recordings, variant, tmp_path):
    """Guards int8 and fp16: fine tokens are near those of float32, tokens as before."""
    frames = sample_images()
    encoder = Encoder.load(plain, provider='cpu', threads=1)
    batches = [encoder.preprocess(frames[i:i + 2]) for i in range(0, len(frames), 2)]
    low = {'visual.int8.onnx': quantise_static(exported(), batches),
           'visual.fp16.onnx': halve(exported())}
    source = variant(plain, files=low)
    assert add_fine(source, recordings, tmp_path / 'made') == 0
    manifest = load_bundle(tmp_path / 'made').manifest
    exact = Encoder.load(tmp_path / 'made', provider='cpu').encode_images(both())[1]
    for precision in ('int8', 'fp16'):
        assert manifest.metrics[f'fine_{precision}_cosine'] > 0.98
        old, new = (Encoder.load(path, provider='cpu', precision=precision).encode_images(both())
                    for path in (source, tmp_path / 'made'))
        np.testing.assert_allclose(new[0], old[0], atol=1e-6)
        cosine = (new[1] * exact).sum(1) / (
            np.linalg.norm(new[1], axis=1) * np.linalg.norm(exact, axis=1))
        assert cosine.mean() > 0.97, precision
    card = (tmp_path / 'made/card.md').read_text('utf-8')
    assert 'fine tokens, visual.int8.onnx against float32: mean cosine |' in card


def test_a_smaller_graph_that_is_too_far_off(plain, recordings, variant, tmp_path, monkeypatch,
                                             capsys):
    """Guards a score on int8: where its fine tokens are others, there is no such graph."""
    monkeypatch.setattr(fine_tokens, '_LEAST_COSINE', 1.1)
    source = variant(plain, files={'visual.fp16.onnx': halve(exported())})
    assert add_fine(source, recordings, tmp_path / 'made') == 0
    assert 'visual.fp16.onnx is left out' in capsys.readouterr().out
    assert not load_bundle(tmp_path / 'made').has('visual.fp16.onnx')


def test_what_cannot_be_done(plain, recordings, tmp_path, capsys):
    """Guards work that is lost, and a folder that is: each is refused in one sentence."""
    made = tmp_path / 'made'
    assert add_fine(plain, recordings, made) == 0
    capsys.readouterr()
    assert add_fine(made, recordings, tmp_path / 'again') == 1
    assert 'has fine tokens already: 4 x 4 of' in capsys.readouterr().err
    assert add_fine(robot_bundle(), recordings, tmp_path / 'again') == 1
    assert 'no map of 4 x 4' in capsys.readouterr().err
    assert not (tmp_path / 'again').exists()
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/thesis.txt').write_text('years of work')
    assert add_fine(plain, recordings, tmp_path / 'mine') == 1
    assert 'holds other things' in capsys.readouterr().err
    data = read_manifest(recordings)
    none = data.only(e for e in data.episodes if e.split != 'train')
    with pytest.raises(DataError, match='no training episode'):
        fine_tokens.add_fine(plain, none, tmp_path / 'again', command='x', report=str)
    lost = replace(data, episodes=[replace(
        e, robot_videos={'wrist': 'gone.mp4'}) for e in data.episodes])
    with pytest.raises(DataError, match='not one of 3 training episodes can be read'):
        fine_tokens.add_fine(plain, lost, tmp_path / 'again', command='x', report=str)


def test_a_reference_view_that_is_not_the_last(recordings, variant, tmp_path, capsys):
    """
    Such a bundle ended in a traceback, once all episodes were encoded and the basis was fitted.

    Fine tokens are of the last view: the manifest of what was made refused it, and nobody earlier.
    """
    source = variant(robot_bundle(), change=lambda d: d.update(reference_view='wrist'))
    assert add_fine(source, recordings, tmp_path / 'made') == 1
    said = capsys.readouterr().err
    assert 'reference view is wrist' in said and 'last one of its views' in said
    assert not (tmp_path / 'made').exists()


def test_in_place(plain, recordings):
    """Guards a bundle that is its own output."""
    assert add_fine(plain, recordings, plain) == 0
    assert load_bundle(plain).manifest.fine


def test_the_shipped_bundle_has_them():
    """Guards its shared head, which looks there, and who adds them twice: that is said."""
    assert load_bundle(default_bundle()).manifest.fine == TokenSpec(14, 14, 48)

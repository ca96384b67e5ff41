# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""spatial.onnx: the basis, the graph, and a bundle that gets it."""

from dataclasses import replace
from hashlib import sha256
from importlib import import_module

from hralign_ros.data.manifest import DataError, read_manifest
from hralign_ros.data.spatial_basis import fit_spatial_basis, spatial_basis_of, SpatialBasis
from hralign_ros.export.writer import graphs_of, write_bundle
from hralign_ros.runtime import BundleError, default_bundle, Encoder, load_bundle
from hralign_ros.runtime.bundle import TokenSpec
from hralign_ros.runtime.parts import keypoints_shape, spatial_shape
from hralign_ros.runtime.providers import SessionFactory
from hralign_ros.runtime.tasks import load_tasks
import numpy as np
import pytest
from support.images import image, START
from support.tiny_bundle import robot_bundle
import yaml

parts = import_module('hralign_ros.export.parts')
models = import_module('hralign_ros.models.spatial_parts')
cli = import_module('hralign_ros.cli.main')


def tokens_of(seed, count=4000, channels=12, size=5):
    """Make tokens with a few directions, one with rare large values."""
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((count, size)) * [9, 5, 3, 2, 1]
    hidden[:, 0] = 9 * (rng.exponential(1, count) - 1)
    mixing = np.linalg.qr(rng.standard_normal((channels, size)))[0]
    return (hidden @ mixing.T + rng.random(channels) * 4).astype(np.float32), mixing


def test_the_basis_is_that_of_the_principal_components():
    """Guards the fit against numpy's decomposition: mean 0, variance 1, largest first."""
    tokens, mixing = tokens_of(0)
    basis = fit_spatial_basis(iter(np.split(tokens.reshape(80, 50, 12), 8)), 5)
    reduced = (tokens - basis.mean) @ basis.matrix
    np.testing.assert_allclose(reduced.mean(0), 0.0, atol=1e-3)
    np.testing.assert_allclose(np.cov(reduced.T), np.eye(5), atol=2e-3)
    _, values, rows = np.linalg.svd(tokens - tokens.mean(0), full_matrices=False)
    directions = basis.matrix / np.linalg.norm(basis.matrix, axis=0)
    np.testing.assert_allclose(np.abs((directions.T * rows[:5]).sum(1)), 1.0, atol=1e-4)
    share = np.cumsum(values ** 2)[:5] / (values ** 2).sum()
    np.testing.assert_allclose(basis.explained, share, atol=1e-4)
    assert (np.diff(basis.explained) > 0).all()


def test_large_values_are_the_rare_ones():
    """
    Guards keypoints against the sign of a component, which no decomposition fixes.

    A softmax looks where a component is large; with the other sign it would look at the ground.
    """
    tokens, mixing = tokens_of(1)
    for turned in (tokens, 8.0 - tokens):
        basis = fit_spatial_basis([turned], 3)
        reduced = (turned - basis.mean) @ basis.matrix
        assert ((reduced ** 3).mean(0)[0] > 0.5) and reduced[:, 0].max() > -reduced[:, 0].min()
    again = fit_spatial_basis([tokens[:1500], tokens[1500:]], 3)
    np.testing.assert_allclose(
        again.matrix, fit_spatial_basis([tokens], 3).matrix, atol=1e-5)


@pytest.mark.parametrize(('tokens', 'size', 'message'), [
    ([], 3, 'no tokens'), ([np.ones((4, 5), np.float32)], 6, '1 to 5'),
    ([np.ones((4, 5), np.float32)], 0, '1 to 5')])
def test_a_basis_of_nothing(tokens, size, message):
    """Guards the limits of a fit."""
    with pytest.raises(ValueError, match=message):
        fit_spatial_basis(tokens, size)


def random_basis(spec, seed=0):
    rng = np.random.default_rng(seed)
    count = keypoints_shape(spec)[0]
    matrix = rng.standard_normal((spec.channels, count)) / np.sqrt(spec.channels)
    return SpatialBasis(rng.random(spec.channels).astype(np.float32), matrix.astype(np.float32),
                        np.ones(count, np.float32))


@pytest.mark.parametrize(('spec', 'grid'), [
    (TokenSpec(7, 7, 1280), (7, 7)), (TokenSpec(14, 14, 384), (7, 7)),
    (TokenSpec(5, 3, 40), (5, 3)), (TokenSpec(10, 7, 8), (7, 7)), (TokenSpec(1, 1, 4), (1, 1))])
def test_the_graph_against_numpy(spec, grid):
    """Guards every backbone's grid: at most 7 x 7 places, evenly averaged; keypoints of all."""
    basis = random_basis(spec)
    graph, worst = parts.spatial_graph(basis, spec, 2, report=str)
    tokens = np.random.default_rng(1).random((2, *spec.shape), np.float32)
    spatial, keypoints = SessionFactory('cpu').create(graph, name='spatial.onnx').run(
        None, {'tokens': tokens})
    assert worst < 1e-4 and spatial_shape(spec)[:2] == grid
    assert spatial.shape[1] <= 784 and spatial.shape == (2, np.prod(spatial_shape(spec)))
    reduced = (tokens - basis.mean) @ parts._rounded(basis.matrix)
    shown = reduced[..., :spatial_shape(spec)[2]].reshape(2, *spec.grid, -1)
    rows, columns = grid
    if spec.rows % rows == 0:
        averaged = shown.reshape(
            2, rows, spec.rows // rows, columns, spec.columns // columns, -1).mean((2, 4))
        np.testing.assert_allclose(spatial, averaged.reshape(2, -1), atol=1e-4)
    else:
        np.testing.assert_allclose(
            spatial.reshape(2, *grid, -1).mean((1, 2)), shown.mean((1, 2)), atol=1e-4)
    weights = np.exp(reduced) / np.exp(reduced).sum(1, keepdims=True)
    np.testing.assert_allclose(keypoints.reshape(2, -1, 2), np.einsum(
        'vnk,nx->vkx', weights, models.places(spec)), atol=1e-4)
    assert np.abs(keypoints).max() <= 1.0
    assert len(graph) < 2 * basis.matrix.size + 8000 + 4 * 49 * spec.count, 'not stored as int8'


def test_rounding_costs_little():
    """Guards the accuracy that int8 leaves: within a hundredth of a component's spread."""
    spec = TokenSpec(7, 7, 1280)
    basis = random_basis(spec)
    tokens = np.random.default_rng(2).standard_normal((98, 1280)).astype(np.float32)
    exact, rounded = tokens @ basis.matrix, tokens @ parts._rounded(basis.matrix)
    assert np.sqrt(((exact - rounded) ** 2).mean()) < 0.01 * exact.std()


def test_where_places_are():
    """Guards x to the right and y down, with the edges of the image at -1 and 1."""
    places = models.places(TokenSpec(2, 4, 3))
    np.testing.assert_allclose(places[:, 0], [-.75, -.25, .25, .75] * 2)
    np.testing.assert_allclose(places[:, 1], [-.5] * 4 + [.5] * 4)


def test_a_basis_of_other_tokens():
    """Guards a basis in a bundle that it was not fitted for."""
    with pytest.raises(ValueError, match='needed is'):
        models.SpatialParts(random_basis(TokenSpec(7, 7, 32)), TokenSpec(7, 7, 64))


def test_a_bundle_gets_its_parts(tmp_path, recordings, variant, capsys):
    """Guards the command: all but spatial.onnx, card and bundle.yaml stay as they are."""
    plain = variant(robot_bundle(), change=lambda d: d['files'].pop('spatial.onnx'))
    (plain / 'spatial.onnx').unlink()
    output = tmp_path / 'made'
    assert cli.main(['bundle', 'add-parts', '--bundle', str(plain), '--data', str(recordings),
                     '--output', str(output)]) == 0
    assert 'spatial.onnx has' in capsys.readouterr().out
    kept = {path.name for path in plain.iterdir()} - {'bundle.yaml', 'card.md'}
    for name in kept:
        assert (output / name).read_bytes() == (plain / name).read_bytes(), name
    assert {path.name for path in output.iterdir()} == kept | {
        'bundle.yaml', 'card.md', 'spatial.onnx'}
    document = yaml.safe_load((output / 'bundle.yaml').read_text('utf-8'))
    graph = (output / 'spatial.onnx').read_bytes()
    assert document['schema_version'] == 3 and document['files']['spatial.onnx'] == {
        'bytes': len(graph), 'sha256': sha256(graph).hexdigest()}
    about = document['provenance']['parts']
    # Four episodes of five frames and two views; those for tests are left out.
    assert (about['episodes'], about['images'], about['tasks'], about['scenes']) == (4, 40, 1, 4)
    assert about['arms'] == 'panda, ur5e' and about['licences'] == 'CC-BY-NC-4.0'
    assert 'CC-BY-NC-4.0' in document['licenses']['basis of spatial and keypoints']
    card = (output / 'card.md').read_text('utf-8')
    assert '| arms | panda, ur5e |' in card and 'hralign bundle add-parts --bundle' in card
    tick = Encoder.load(output, provider='cpu').start_episode('').step(
        {'wrist': image(1), 'third_person': image(2)}, START)
    assert [part.name for part in tick.parts] == ['spatial', 'keypoints', 'task']


def test_parts_are_replaced_in_place(recordings, variant):
    """Guards a basis of one's own images: it takes the place of the other, and no signature."""
    there = variant(robot_bundle(), files={'bundle.sig': b'somebody'}, rehash=False)
    before = (there / 'spatial.onnx').read_bytes()
    assert cli.main(['bundle', 'add-parts', '--bundle', str(there), '--data', str(recordings),
                     str(recordings)]) == 0
    assert (there / 'spatial.onnx').read_bytes() != before
    assert not (there / 'bundle.sig').exists()
    bundle = load_bundle(there)
    assert bundle.manifest.provenance['parts']['images'] == 80
    for name in bundle.manifest.files:
        bundle.read(name)


def test_data_that_nothing_can_be_fitted_to(tmp_path, recordings, variant):
    """Guards against a basis of test episodes, of no episode, and of videos that are gone."""
    data, encoder = read_manifest(recordings), Encoder.load(robot_bundle(), provider='cpu')
    tests = data.only(e for e in data.episodes if e.split == 'test_seen')
    with pytest.raises(DataError, match='split train or in none.*third_person, wrist'):
        spatial_basis_of([tests], encoder, str)
    lost = replace(data, episodes=[replace(
        e, robot_videos={'wrist': 'gone.mp4'}) for e in data.episodes])
    with pytest.raises(DataError, match='not one of 4 episodes can be read'):
        spatial_basis_of([lost], encoder, str)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/thesis.txt').write_text('years of work')
    with pytest.raises(BundleError, match='holds other things'):
        parts.add_parts(robot_bundle(), [data], tmp_path / 'mine', command='x', report=str)


def test_an_export_with_data(tmp_path, recordings, variant, monkeypatch):
    """Guards `hralign encoder export --data`: what an export wrote gets its parts at once."""
    folder = tmp_path / 'arm'
    plain = load_bundle(variant(robot_bundle(), change=lambda d: d['files'].pop('spatial.onnx')))
    monkeypatch.setattr(
        'hralign_ros.export.bundle.export_bundle', lambda output, *_, **__: write_bundle(
            output, plain.manifest, graphs_of(plain), load_tasks(plain)))
    words = ['encoder', 'export', '--output', str(folder), '--data', str(recordings)]
    assert cli.main(words) == 0
    encoder = Encoder.load(folder, provider='cpu')
    assert [part.name for part in encoder.parts] == ['spatial', 'keypoints', 'task']
    assert encoder.manifest.provenance['parts']['command'].startswith('hralign encoder export')
    assert cli.main(words[:-2]) == 0 and not load_bundle(folder).has('spatial.onnx')


def test_the_shipped_basis_is_one(encoder):
    """Guards the shipped spatial.onnx: over images its components are of the order of 1."""
    samples = import_module('hralign_ros.export.parity').sample_images(6)
    values = [encoder.start_episode('').step(
        {'wrist': one, 'third_person': other}, START).part('spatial')
        for one, other in zip(samples[::2], samples[1::2], strict=True)]
    assert 0.3 < np.std(values) < 3.0 and abs(np.mean(values)) < 1.0
    assert 'What its parts' in (default_bundle() / 'card.md').read_text('utf-8')

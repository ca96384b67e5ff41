# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What an encoder refuses: numbers that are none, graphs that fail, and input it cannot use."""

from hralign_ros.runtime import FrameError, InferenceError
import numpy as np
import pytest
from support.images import image, START, three

GRAPHS = [('_visual', 0), ('_spatial', 0), ('_spatial', 1), ('_embed', 0), ('_embed', 1),
          *(('_success', i) for i in range(5))]


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(('graph', 'output'), GRAPHS)
def test_values_that_are_no_numbers(tiny_encoder, monkeypatch, graph, output, value):
    """Guards consumers: whichever output is not finite, an error names the graph."""
    episode = tiny_encoder.start_episode('pick up the cup')
    episode.step(three(0), START)
    wrapped = getattr(tiny_encoder, graph)
    run = wrapped.run

    def broken(feed):
        outputs = [np.array(array) for array in run(feed)]
        outputs[output].reshape(-1)[0] = value
        return outputs

    with monkeypatch.context() as patch:
        patch.setattr(wrapped, 'run', broken)
        with pytest.raises(InferenceError, match=f'{graph[1:]}.onnx.*not finite'):
            episode.step(three(1), START + 1)
    assert np.isfinite(episode.step(three(2), START + 2).embedding).all(), 'and it goes on'


def test_text_features_that_are_no_numbers(tiny_encoder, monkeypatch):
    """Guards the same for the text encoder, at the latest when its feature is used."""
    graph = tiny_encoder.text._graph
    run = graph.run
    monkeypatch.setattr(graph, 'run', lambda feed: [run(feed)[0] * np.float32('nan')])
    with pytest.raises(InferenceError, match='not finite'):
        tiny_encoder.start_episode('pick up the cup').step(three(), START)


def test_tokens_that_are_no_numbers_are_not_remembered(tiny_encoder, monkeypatch):
    """Guards the memory: one bad frame must not spoil the clips of the frames after it."""
    episode = tiny_encoder.start_episode('pick up the cup')
    run = tiny_encoder._visual.run
    with monkeypatch.context() as patch:
        patch.setattr(tiny_encoder._visual, 'run', lambda feed: [run(feed)[0] * np.nan])
        with pytest.raises(InferenceError):
            episode.step(three(), START)
    assert episode.step(three(), START).success.clip_stamps == (START,)


def test_a_graph_that_fails(tiny_encoder, monkeypatch):
    """Guards against onnxruntime's own errors: they become one that names the graph."""
    with pytest.raises(InferenceError, match='visual.onnx failed'):
        tiny_encoder._visual.run({'pixels': np.zeros((1, 1), np.float32)})


@pytest.mark.parametrize(('images', 'word'), [
    ({}, 'none'), ({'ceiling': image()}, 'ceiling'),
    ({**three(), 'ceiling': image()}, 'ceiling')], ids=['none', 'unknown', 'one unknown'])
def test_views_that_are_none(tiny_encoder, images, word):
    """Guards the plain-Python API: the names that came and those that there are."""
    with pytest.raises(ValueError, match=f'{word}.*left, middle, right'):
        tiny_encoder.start_episode('').step(images, START)


@pytest.mark.parametrize('stamp', [START, START - 1, 1])
def test_a_stamp_that_is_not_newer(tiny_encoder, stamp):
    """Guards the order of time in plain Python, as pairing does in the node."""
    episode = tiny_encoder.start_episode('')
    first = episode.step(three(), START)
    with pytest.raises(ValueError, match='not newer'):
        episode.step(three(1), stamp)
    after = episode.step(three(), START + 1)
    assert after.view_stamps.tolist() == [START + 1] * 3
    np.testing.assert_allclose(after.embedding, first.embedding, atol=1e-6)


@pytest.mark.parametrize('stamp', [0, -5])
def test_a_stamp_of_zero(tiny_encoder, stamp):
    """Guards offline users who count time from 0: no result that silently holds no view."""
    with pytest.raises(ValueError, match='stamp'):
        tiny_encoder.start_episode('').step(three(), stamp)


def test_stamps_out_of_numpy(tiny_encoder):
    """Guards offline users whose stamps come from an array: they are whole numbers too."""
    stamps = np.arange(START, START + 3, dtype=np.int64)
    tick = tiny_encoder.start_episode('').step(three(), stamps[1])
    assert tick.stamp == START + 1


def test_a_view_without_a_stamp(tiny_encoder):
    """Guards against a bare KeyError where a view's stamp was forgotten."""
    with pytest.raises(ValueError, match='right'):
        tiny_encoder.start_episode('').step(three(), {'left': START, 'middle': START})


@pytest.mark.parametrize('image', [
    np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3)),
    np.zeros((0, 8, 3), np.uint8)], ids=lambda image: f'{image.dtype}{image.shape}')
def test_images_that_are_none(tiny_encoder, image):
    """Guards against floats or a missing channel being taken for an image."""
    episode = tiny_encoder.start_episode('')
    with pytest.raises(FrameError):
        episode.step({**three(), 'left': image}, START)
    assert episode.step(three(), START).view_valid.all()

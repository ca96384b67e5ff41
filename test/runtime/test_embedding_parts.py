# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The named parts of an embedding: which there are, what is in them, how they lie in a row."""

from hralign_ros.runtime import (
    BundleError,
    default_bundle,
    DEFAULT_PARTS,
    Encoder,
    PARTS,
    Status,
)
from hralign_ros.runtime.parts import keypoints_shape, spatial_shape
import numpy as np
import pytest
from support.images import SECOND, START, three
from support.tiny_bundle import CHANNELS, GRID, LENGTH, PLACES

TASK = 'pick up the cup'
# Shape and number of frames of each part of the tiny bundle.
ABOUT = {'spatial': ((GRID, GRID, CHANNELS), 1), 'keypoints': ((CHANNELS, 2), 1),
         'mean': ((CHANNELS,), 1), 'task': ((CHANNELS,), 1), 'clip': ((CHANNELS,), LENGTH)}


def load(bundle, *parts, **options):
    return Encoder.load(bundle, provider='cpu', threads=1, parts=parts, **options)


def play(encoder, task=TASK, count=5):
    episode = encoder.start_episode(task)
    return [episode.step(three(i), START + i * SECOND // 10) for i in range(count)]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_the_parts_of_a_row(tiny):
    """Guards the layout: in the order asked for, without gaps, and sliced as it says itself."""
    for names in (PARTS, tuple(reversed(PARTS)), ('keypoints', 'clip'), ('mean',)):
        encoder = load(tiny, *names)
        tick = play(encoder)[-1]
        assert tuple(part.name for part in encoder.parts) == names and tick.parts == encoder.parts
        assert tick.embedding.dtype == np.float32 and tick.embedding.flags.c_contiguous
        end = 0
        for part in encoder.parts:
            assert part.offset == end and (part.shape, part.frames) == ABOUT[part.name]
            end += part.size
            values = tick.part(part.name)
            assert values.shape == (3, *part.shape) and np.shares_memory(values, tick.embedding)
            np.testing.assert_array_equal(
                values.reshape(3, -1), tick.embedding[:, part.offset:end])
            np.testing.assert_array_equal(values, encoder.part(tick.embedding, part.name))
            assert part.unit_norm == (part.name in ('mean', 'task', 'clip'))
            if part.unit_norm:
                np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1.0, atol=1e-5)
        assert tick.embedding.shape == (3, end)


def test_no_part_depends_on_the_others(tiny):
    """Guards `clip` against the change that brought parts: each part's bits are its own."""
    every = play(load(tiny, *PARTS))
    for name in PARTS:
        for tick, alone in zip(every, play(load(tiny, name)), strict=True):
            np.testing.assert_array_equal(tick.part(name), alone.part(name), err_msg=name)


def test_what_is_in_the_parts(tiny):
    """Guards each part against numpy, in the newest frame and not in those before it."""
    encoder = load(tiny, *PARTS)
    episode = encoder.start_episode(TASK)
    for i in range(5):
        tick = episode.step(three(i), START + i * SECOND // 10)
        tokens = encoder.encode_images(three(i))[0]
        np.testing.assert_array_equal(
            tick.part('spatial'), tokens.reshape(3, GRID, GRID, CHANNELS))
        weights = np.exp(tokens) / np.exp(tokens).sum(1, keepdims=True)
        np.testing.assert_allclose(
            tick.part('keypoints'), np.einsum('vnc,nx->vcx', weights, PLACES), atol=1e-6)
        np.testing.assert_allclose(tick.part('mean'), unit(tokens.mean(1)), atol=1e-6)
        scores = np.exp(tokens @ (4.0 * episode.task.features[0, :CHANNELS]))
        scores /= scores.sum(1, keepdims=True)
        np.testing.assert_allclose(
            tick.part('task'), unit(np.einsum('vn,vnc->vc', scores, tokens)), atol=1e-5)
        np.testing.assert_allclose(tick.attention, scores, atol=1e-5)
        assert tick.pooling == 'attention'
    assert np.abs(tick.part('clip') - tick.part('task')).max() > 1e-3, 'a clip is another thing'


def test_a_keypoint_is_where_something_is(tiny):
    """Guards x to the right and y down: the upper right quarter is the bright one."""
    encoder = load(tiny, 'keypoints')
    image = np.zeros((32, 32, 3), np.uint8)
    image[:16, 16:, 1] = 255
    tick = encoder.start_episode('').step(dict.fromkeys(encoder.manifest.views, image), START)
    x, y = tick.part('keypoints')[0, 1]
    assert x > 0.1 and y < -0.1, (x, y)
    np.testing.assert_allclose(tick.part('keypoints')[0, 0], 0.0, atol=1e-6)


@pytest.mark.parametrize('task', ['', TASK])
def test_without_an_instruction_task_is_the_mean(tiny, task):
    """Guards NO_TASK and `pooling: mean`: what attends falls back, of as many frames as ever."""
    tick = play(load(tiny, 'mean', 'task', 'clip', pooling='mean' if task else 'attention'), task)[
        -1]
    assert tick.pooling == 'mean' and (Status.NO_TASK in tick.status) == (not task)
    np.testing.assert_array_equal(tick.part('task'), tick.part('mean'))
    assert np.abs(tick.part('clip') - tick.part('mean')).max() > 1e-3


@pytest.mark.parametrize('names', [('spatial', 'keypoints'), ('mean',)])
def test_attention_where_no_part_attends(tiny, monkeypatch, names):
    """Guards the overlay and the cost of such a choice: even attention, and no graph is run."""
    encoder = load(tiny, *names)
    monkeypatch.setattr(encoder, '_embed', None)
    tick = encoder.start_episode(TASK).step(
        {name: image for name, image in three().items() if name != 'left'}, START)
    np.testing.assert_allclose(tick.attention[1:], 1 / GRID ** 2, atol=1e-6)
    assert not tick.attention[0].any()


@pytest.mark.parametrize(('names', 'spatial', 'embed'), [
    (('spatial', 'keypoints', 'task'), 3, 3), (('clip',), 0, 3), (('task', 'clip'), 0, 6),
    (('keypoints', 'mean'), 3, 0), (('mean',), 0, 0)])
def test_how_often_graphs_run(tiny, monkeypatch, names, spatial, embed):
    """Guards the cost of a tick: a run for each part that attends, one for spatial, keypoints."""
    encoder, runs = load(tiny, *names), []
    for graph in (encoder._spatial, encoder._embed):
        if graph:
            monkeypatch.setattr(graph, 'run', lambda feed, run=graph.run, name=graph.name: (
                runs.append(name), run(feed))[1])
    play(encoder, count=3)
    assert (runs.count('spatial.onnx'), runs.count('embed.onnx')) == (spatial, embed)


def test_rows_of_absent_views_are_zeros(tiny):
    """Guards a camera that is not there, in every part; and one that is late is in with all."""
    encoder = load(tiny, *PARTS)
    episode = encoder.start_episode(TASK)
    first = three(0)
    del first['right']
    tick = episode.step(first, START)
    assert tick.view_valid.tolist() == [True, True, False]
    for name in PARTS:
        assert [bool(row.any()) for row in tick.part(name)] == [True, True, False], name
    rest = three(1)
    del rest['left']
    late = episode.step(rest, START + SECOND // 5)
    assert late.view_valid.all()
    for name in ('spatial', 'keypoints', 'mean', 'task'):
        np.testing.assert_array_equal(late.part(name)[0], tick.part(name)[0], err_msg=name)


def test_a_view_that_an_age_lets_in_again(tiny):
    """
    Guards max_age that is raised while a view is out: its last frame counts again, in all parts.

    The last set lacks that view, and a part made of that set alone would be of nothing.
    """
    encoder = load(tiny, *PARTS)
    episode = encoder.start_episode(TASK)
    first = episode.step(three(0), START)
    rest = three(1)
    del rest['left']
    out = episode.step(rest, START + 2 * SECOND // 10, max_age=0.1)
    assert not out.view_valid[0] and not out.embedding[0].any()
    back = episode.step(rest, START + 4 * SECOND // 10, max_age=0.5)
    assert back.view_valid.all() and back.view_stamps[0] == START
    for name in ('spatial', 'keypoints', 'mean', 'task'):
        np.testing.assert_array_equal(back.part(name)[0], first.part(name)[0], err_msg=name)


@pytest.mark.parametrize(('names', 'message'), [
    (('grid',), "'grid'; allowed: spatial, keypoints, mean, task, clip, each at most once"),
    (('task', 'task'), 'each at most once'), (('',), 'allowed')])
def test_parts_that_there_are_not(tiny, names, message):
    """Guards a mistyped part: what came, and what is allowed."""
    with pytest.raises(BundleError, match=message):
        load(tiny, *names)


def test_a_part_that_was_not_asked_for(tiny):
    """Guards who takes a part by name: what there is, and what to do."""
    encoder = load(tiny, 'task', 'mean')
    tick = play(encoder, count=1)[0]
    for take in (tick.part, lambda name: encoder.part(tick.embedding, name)):
        with pytest.raises(ValueError, match=r"no part 'spatial'.*task, mean.*when the encoder"):
            take('spatial')


def test_a_bundle_without_the_graph(tiny, variant):
    """Guards bundles of before: they offer what they can, and say what the others need."""
    plain = variant(tiny, change=lambda d: d['files'].pop('spatial.onnx'))
    assert [part.name for part in load(plain).parts] == ['task']
    tick = play(load(plain, 'mean', 'task', 'clip'))[-1]
    np.testing.assert_array_equal(
        tick.embedding, play(load(tiny, 'mean', 'task', 'clip'))[-1].embedding)
    for name in ('spatial', 'keypoints'):
        with pytest.raises(BundleError) as raised:
            load(plain, 'task', name)
        assert f'{plain} has no spatial.onnx' in str(raised.value)
        assert name in str(raised.value) and 'hralign bundle add-parts' in str(raised.value)
        assert 'mean, task, clip' in str(raised.value)


def test_the_graph_is_only_loaded_where_it_is_needed(tiny, variant):
    """Guards start-up, and an encoder for clips from a spatial.onnx that is none."""
    broken = variant(tiny, files={'spatial.onnx': b'no graph'})
    play(load(broken, 'clip'), count=1)
    with pytest.raises(BundleError, match='spatial.onnx'):
        load(broken)


def test_the_default():
    """Guards what is published where nobody chooses: all of it, by the shipped bundle."""
    encoder = Encoder.load(default_bundle(), provider='cpu')
    assert tuple(part.name for part in encoder.parts) == DEFAULT_PARTS
    tokens = encoder.manifest.tokens
    assert (spatial_shape(tokens), keypoints_shape(tokens)) == ((7, 7, 16), (64, 2))

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Fine tokens and a head that looks at them, on a tiny bundle whose numbers can be told by hand.

Its fine tokens are the mean colours of each sixteenth of the image; its score is ten times the
mean of those of the reference view's first frame, and that of the newest.
"""

from hralign_ros.runtime import Encoder, InferenceError
from hralign_ros.runtime.bundle import load_bundle
from hralign_ros.runtime.memory import assemble, EpisodeMemory, FrameSet, latest
import numpy as np
import pytest
from support.images import SECOND, START, three
from support.refusals import MISSING, put, refusal
from support.tiny_bundle import FINE, FINE_CHANNELS, LENGTH, SIDE, write_tiny_bundle

TASK = 'pick up the cup'
STEP = SECOND // 10


@pytest.fixture
def encoder(tiny_grounded):
    """Load it afresh."""
    return Encoder.load(tiny_grounded, provider='cpu', threads=1)


def level(value):
    return np.full((SIDE, SIDE, 3), value, np.uint8)


def seen(first, newest):
    """Tell the score by the levels of two frames of the reference view."""
    return pytest.approx((10 * first + newest) / 255, rel=1e-5)


def frames_in(tick, views):
    """Tell the score where the reference view takes no part: frames of the others."""
    return views * len(tick.success.clip_stamps)


def blocks(seed):
    """Make an image of sixteen plain blocks, and their colours in order, [16, 3]."""
    colours = np.random.default_rng(seed).integers(0, 256, (FINE, FINE, 3), np.uint8)
    size = SIDE // FINE
    return colours.repeat(size, 0).repeat(size, 1), colours.reshape(-1, 3) / np.float32(255)


def test_fine_tokens_are_of_the_reference_view(encoder):
    """Guards which view's they are, and the order of places: row by row from the top left."""
    image, colours = blocks(0)
    tokens, fine, shown = encoder.encode_images({'left': level(9), 'right': image})
    assert fine.shape == (FINE * FINE, FINE_CHANNELS) and fine.dtype == np.float32
    np.testing.assert_allclose(fine, colours, atol=1e-6)
    assert tokens.shape[0] == 3 and set(shown) == {'left', 'right'}
    _, absent, _ = encoder.encode_images({'left': image})
    assert not absent.any(), 'a view that is absent is black'


@pytest.mark.parametrize('count', [0, 1, 3, 4, 7])
def test_a_batch_has_the_numbers_of_single_images(encoder, count):
    """Guards features of recordings: fine tokens are kept for each image, in order."""
    images = [blocks(row)[0] for row in range(count)]
    tokens, fine = encoder.encode_batch(images)
    assert tokens.shape[0] == fine.shape[0] == count
    for row, image in enumerate(images):
        alone, its, _ = encoder.encode_images({'right': image})
        np.testing.assert_array_equal(fine[row], its)
        np.testing.assert_array_equal(tokens[row], alone[2])


def test_what_the_visual_graph_takes(encoder):
    """Guards `preprocess`: any number of images, zeros where there is none."""
    pixels = encoder.preprocess([level(255), None, level(51)])
    assert pixels.shape == (3, 3, SIDE, SIDE) and pixels.dtype == np.float32
    assert pixels[0].min() == 1.0 and not pixels[1].any()
    np.testing.assert_allclose(pixels[2], 0.2, atol=1e-6)


def test_the_first_frame_and_the_newest(encoder):
    """Guards a long episode: thinned five times over, it still knows the frame it began with."""
    episode = encoder.start_episode(TASK)
    for i in range(120):
        images = {**three(i, SIDE), 'right': level(200 - i)}
        tick = episode.step(images, START + i * STEP)
        assert tick.success.raw_score == seen(200, 200 - i)
    assert tick.success.probability == tick.success.calibration.apply(tick.success.raw_score)
    # The other heads are as in a bundle without.
    assert tick.success.progress == pytest.approx(1.0)


def test_a_camera_that_drops_out_and_comes_back(encoder):
    """
    Guards held frames: the newest is held as long as it is young enough, then the view is out.

    When it is back, the first frame is that of the episode and not the first one after the gap.
    """
    episode = encoder.start_episode(TASK)
    for i in range(40):
        there = i < 10 or i >= 30
        images = {'left': level(7), 'middle': level(8),
                  **({'right': level(100 + i)} if there else {})}
        tick = episode.step(images, START + i * STEP)
        if i < 15:
            # 0.5 s old at most: frames are held.
            assert tick.success.raw_score == seen(100, 100 + min(i, 9)), i
            assert tick.view_valid.all()
        elif i < 30:
            assert tick.success.raw_score == frames_in(tick, 2), i
            assert tick.view_valid.tolist() == [True, True, False]
        else:
            assert tick.success.raw_score == seen(100, 100 + i), i


def test_a_reference_camera_that_is_slower(encoder):
    """Guards a camera of half the rate: its own newest frame counts, at every tick."""
    episode, newest = encoder.start_episode(TASK), 0
    for i in range(30):
        newest = newest if i % 2 else i
        images = {'left': level(i), **({} if i % 2 else {'right': level(50 + i)})}
        tick = episode.step(images, START + i * STEP)
        assert tick.success.raw_score == seen(50, 50 + newest)


def test_a_camera_that_comes_late(encoder):
    """
    The first frame drifted: of a camera that came 0.3 s late, it was one of seconds later.

    Clips are spread over the whole episode, and their frames at the start were without that view.
    The first one with it was the second of the clip: in the middle of the attempt, whose change
    since then the head was shown in place of that since the start.
    """
    episode = encoder.start_episode(TASK)
    for i in range(60):
        images = {'left': level(7), **({'right': level(100 + i)} if i >= 3 else {})}
        tick = episode.step(images, START + i * STEP)
        assert tick.success.raw_score == (
            frames_in(tick, 1) if i < 3 else seen(103, 100 + i)), i


def test_an_episode_without_the_reference_camera(encoder, monkeypatch):
    """Guards the contract of success.onnx: it gets zeros, and the mask tells it."""
    clips, score = [], encoder.score
    monkeypatch.setattr(encoder, 'score', lambda clip, task: clips.append(clip) or score(
        clip, task))
    episode = encoder.start_episode(TASK)
    for i in range(12):
        tick = episode.step({'left': level(7), 'middle': level(9)}, START + i * STEP)
        assert tick.success.raw_score == frames_in(tick, 2)
    assert len(clips) == 12
    for clip in clips:
        assert clip.fine.shape == (2, FINE * FINE, FINE_CHANNELS) and not clip.fine.any()
        assert not clip.mask[2].any() and clip.mask[:2, -1].all()


def test_each_episode_begins_anew(encoder):
    """Guards two episodes of one encoder: neither knows the other's first frame."""
    one, other = (encoder.start_episode(TASK) for _ in range(2))
    one.step({'right': level(10)}, START)
    other.step({'right': level(20)}, START)
    assert one.step({'right': level(30)}, START + 1).success.raw_score == seen(10, 30)
    assert other.step({'right': level(30)}, START + 1).success.raw_score == seen(20, 30)


def test_scores_of_some_views_alone(encoder):
    """Guards `Episode.score`, which teaching calls: a view left out counts as missing."""
    episode = encoder.start_episode(TASK)
    with pytest.raises(ValueError, match='no frame was stepped'):
        episode.score(['right'])
    for i in range(20):
        tick = episode.step({'left': level(7), 'right': level(50 + i)}, START + i * STEP)
    assert episode.score(['right']).raw_score == seen(50, 69)
    assert episode.score(['left']).raw_score == frames_in(tick, 1)
    assert episode.score([]).raw_score == 0.0
    assert episode.score(['left', 'right']).raw_score == tick.success.raw_score


def test_without_an_instruction(encoder):
    """Guards an episode without a task: embeddings come, and nothing is scored."""
    tick = encoder.start_episode('').step({'right': level(9)}, START)
    assert tick.success.raw_score is None and np.isfinite(tick.embedding).all()


def test_warm_up(encoder):
    """Guards the first tick of a robot: every graph has run before it."""
    assert encoder.warm_up() > 0.0


def with_output(model, name, node, constants=()):
    """Put a node behind an output of a graph, which takes `inside` and gives the output."""
    import onnx

    model = onnx.load_from_string(model)
    for each in model.graph.node:
        each.output[:] = ['inside' if output == name else output for output in each.output]
    model.graph.node.append(node)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, key) for key, value in constants)
    return model.SerializeToString()


def test_fine_tokens_that_are_not_finite(tiny_grounded, variant):
    """Guards a bundle that does not fit its hardware: no score is made of NaN."""
    from onnx import helper

    encoder = Encoder.load(variant(tiny_grounded, files={'visual.onnx': with_output(
        (tiny_grounded / 'visual.onnx').read_bytes(), 'fine',
        helper.make_node('Log', ['inside'], ['fine']))}), provider='cpu')
    episode = encoder.start_episode(TASK)
    assert np.isfinite(episode.step({'right': level(9)}, START).success.raw_score)
    with pytest.raises(InferenceError, match='visual.onnx returned values that are not finite'):
        episode.step({'right': level(0)}, START + STEP)


def test_bundles_without_are_as_before(tiny, tmp_path):
    """Guards shipped bundles, and those whose head does not look at the fine tokens there are."""
    write_tiny_bundle(tmp_path, fine=True)
    plain, fine = (Encoder.load(path, provider='cpu', threads=1) for path in (tiny, tmp_path))
    assert plain.encode_images(three())[1] is None and plain.encode_batch([level(1)])[1] is None
    assert fine.encode_images(three())[1] is not None
    one, other = (encoder.start_episode(TASK) for encoder in (plain, fine))
    for i in range(12):
        ticks = [episode.step(three(i), START + i * STEP) for episode in (one, other)]
        np.testing.assert_array_equal(ticks[0].embedding, ticks[1].embedding)
        assert ticks[0].success.raw_score == ticks[1].success.raw_score == frames_in(ticks[0], 3)
        assert one._memory.newest.fine is None


@pytest.mark.parametrize(('grounded', 'field', 'value', 'names'), [
    (True, 'fine', MISSING, ('success.grounded', 'fine tokens')),
    (True, 'reference_view', 'left', ('left, middle, right', 'needed is left as the last')),
    (True, 'fine', {'rows': 4, 'columns': 4, 'channels': 5}, ('visual.onnx', 'fine')),
    (True, 'fine', {'rows': 2, 'columns': 4, 'channels': 3}, ('visual.onnx', 'fine')),
    (True, 'fine', {'rows': 4, 'columns': 4}, ('fine.channels', 'is missing')),
    (True, 'fine', {'rows': 4, 'columns': 0, 'channels': 3}, ('fine.columns', '1 to 64')),
    (True, 'fine', 4, ('fine', 'mapping')),
    (True, 'success/grounded', 'yes', ('success.grounded', 'true or false')),
    # Graphs and manifest of two bundles.
    (True, 'success/grounded', False, ('success.onnx', 'fine')),
    (False, 'fine', {'rows': 4, 'columns': 4, 'channels': 3}, ('visual.onnx', "'fine'")),
])
def test_manifests_that_do_not_fit(tiny, tiny_grounded, variant, grounded, field, value, names):
    """Guards against a bundle that would fail on the robot, at its first frame."""
    refusal(variant(tiny_grounded if grounded else tiny,
                    change=lambda d: put(d, field, value)), *names)


@pytest.mark.parametrize('name', ['visual.onnx', 'success.onnx'])
def test_graphs_of_a_bundle_without(tiny, tiny_grounded, variant, name):
    """Guards a manifest that says more than a graph can do."""
    refusal(variant(tiny_grounded, files={name: (tiny / name).read_bytes()}), name, 'fine')


def test_a_head_that_is_grounded_needs_more_than_fine_tokens(tiny, tiny_grounded, variant):
    """Guards the other way round: the head's graph takes what the manifest does not tell."""
    refusal(variant(tiny, files={'success.onnx': (
        tiny_grounded / 'success.onnx').read_bytes()}), 'success.onnx', 'fine')


def test_smaller_graphs_are_verified_too(tiny, tiny_grounded, variant):
    """Guards int8 graphs of before the bundle got fine tokens."""
    from functools import partial

    folder = variant(tiny_grounded, files={
        'visual.int8.onnx': (tiny / 'visual.onnx').read_bytes()})
    refusal(folder, 'visual.int8.onnx', 'fine',
            load=partial(Encoder.load, provider='cpu', precision='int8'))


def test_the_manifest_says_so(tiny, tiny_grounded):
    """Guards bundle.yaml: older readers take bundles without; their keys are not written."""
    manifest = load_bundle(tiny_grounded).manifest
    assert manifest.fine.shape == (FINE * FINE, FINE_CHANNELS) and manifest.success.grounded
    text = (tiny / 'bundle.yaml').read_text('utf-8')
    assert 'grounded' not in text and 'fine' not in text
    assert load_bundle(tiny).manifest.fine is None


def test_fine_tokens_of_a_clip():
    """Guards the memory by itself: a frame set of another view alone changes no fine token."""
    memory = EpisodeMemory(length=LENGTH, period=SECOND // 5, capacity=8, stride=STEP)
    live = np.array([True, True])
    assert memory.first_fine is None
    ends = []
    for i, valid in enumerate([[True, False], [True, True], [True, False], [False, True]] * 6):
        memory.add(FrameSet(
            START + i * STEP, np.where(valid, START + i * STEP, 0), np.array(valid),
            np.zeros((2, 1, 1), np.float32), np.full((2, 3), 10.0 + i, np.float32)), hold=STEP)
        clip = assemble(memory.spread_clip(), length=LENGTH, live=live,
                        first_fine=memory.first_fine)
        assert clip.fine.shape == (2, 2, 3)
        ends.append(clip.fine[:, 0, 0].tolist())
    # Absent at first; then the first is frame 1, and the newest that of frames 1 or 3 of four.
    assert ends[0] == [0.0, 0.0]
    newest = [10 + i - (0, 0, 1, 0)[i % 4] if i % 4 else 10 + i - 1 for i in range(1, 24)]
    assert ends[1:] == [[11.0, float(n)] for n in newest]
    assert assemble(memory.spread_clip(), length=LENGTH, live=live).fine is None
    out = assemble(memory.spread_clip(), length=LENGTH, live=np.array([True, False]),
                   first_fine=memory.first_fine)
    assert not out.fine.any() and out.fine.shape == (2, 2, 3)


def test_clips_of_one_frame_have_two_ends():
    """Guards clips of one frame: what has changed since the start can be seen all the same."""
    memory = EpisodeMemory(length=1, period=SECOND // 5, capacity=2, stride=STEP)
    for i in range(9):
        memory.add(FrameSet(START + i * STEP, np.array([START + i * STEP]), np.array([True]),
                            np.zeros((1, 1, 1), np.float32), np.full((1, 1), i, np.float32)))
    clip = assemble(memory.spread_clip(), length=1, live=np.array([True]),
                    first_fine=memory.first_fine)
    assert clip.fine.ravel().tolist() == [0.0, 8.0]


def test_the_newest_frame_of_each_view():
    """Guards `latest`: fine tokens come from the set that the last view's tokens come from."""
    old, new = (FrameSet(START + i, np.array([START + i, (START + i) * both]),
                         np.array([True, both]), np.full((2, 1, 1), i, np.float32),
                         np.full((1, 1), i, np.float32)) for i, both in ((1, True), (2, False)))
    for live, view, fine in (([True, True], [2, 1], 1), ([True, False], [2, 2], 2)):
        found = latest([old, new], np.array(live))
        assert found.tokens.ravel().tolist() == view and found.fine.item() == fine

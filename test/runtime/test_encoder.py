# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""From images to numbers: what a tick says, on bundles whose numbers can be told by hand."""

from dataclasses import replace
import time

from hralign_ros import runtime
from hralign_ros.runtime import (
    BundleError,
    Decider,
    Decision,
    DecisionRules,
    default_bundle,
    Encoder,
    Status,
    ViewGeometry,
)
from hralign_ros.runtime import encoder as encoder_module
from hralign_ros.runtime.episode import next_episode_id
import numpy as np
import pytest
from support.images import image, SECOND, START, three
from support.tiny_bundle import CHANNELS, GRID, LENGTH, robot_bundle, SIDE, write_beside

TASK = 'pick up the cup'


@pytest.fixture
def encoder():
    """Load the tiny bundle of two cameras afresh, for clips; test_parts.py is about the others."""
    pytest.importorskip('onnx', reason='onnx is not installed: it makes the tiny bundle')
    return Encoder.load(robot_bundle(), provider='cpu', threads=1, parts=('clip',))


def both(seed=0):
    return {'wrist': image(seed), 'third_person': image(seed + 100)}


def play(episode, count=7, every=SECOND // 10, images=both):
    return [episode.step(images(i), START + i * every) for i in range(count)]


def cosine(one, other):
    return (one * other).sum(-1) / (
        np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1))


def test_the_example_of_the_docstring():
    """Guards the guarantee of five lines: the example is run as it stands in the docstring."""
    lines = [line[4:] for line in runtime.__doc__.splitlines() if line.startswith('    ')]
    assert 3 <= len(lines) <= 5
    place = {'wrist_rgb': image(1), 'third_rgb': image(2), 'time_ns': time.time_ns()}
    exec('\n'.join(lines), place)
    tick = place['tick']
    assert tick.embedding.shape[0] == 2
    other = [line[4:] for line in encoder_module.__doc__.splitlines() if line.startswith('    ')]
    text = '\n'.join(other).replace("'models/default'", 'bundle')
    place = {**place, 'Encoder': Encoder, 'bundle': default_bundle()}
    exec(text, place)
    np.testing.assert_array_equal(place['tick'].embedding, tick.embedding)


def test_what_a_tick_says(encoder):
    """Guards every field of a result."""
    episode = encoder.start_episode(TASK)
    ticks = play(episode)
    for i, tick in enumerate(ticks):
        assert tick.episode_id == episode.episode_id and tick.stamp == START + i * SECOND // 10
        assert tick.embedding.shape == (2, CHANNELS) and tick.embedding.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(tick.embedding, axis=1), 1.0, atol=1e-5)
        assert tick.view_valid.tolist() == [True, True]
        assert tick.view_stamps.tolist() == [tick.stamp] * 2
        assert tick.attention.shape == (2, GRID * GRID) and (tick.attention >= 0).all()
        assert (tick.attention.sum(1) <= 1.0 + 1e-5).all()
        assert tick.pooling == 'attention'
        assert tick.status == Status.OK
        success, threshold = tick.success, encoder.manifest.ood_threshold
        assert 0.0 <= success.probability <= 1.0 and 0.0 <= success.progress <= 1.0
        assert 0.0 <= success.failure <= 1.0 and 0.0 <= success.ood_score <= threshold
        assert len(success.modes) == len(success.mode_names) > 0
        assert sum(success.modes) == pytest.approx(1.0, abs=1e-5)
        assert success.calibration is encoder.tasks.match(TASK).calibration(
            encoder.manifest.views)
        assert tick.success.clip_stamps[-1] == tick.stamp
        assert len(tick.success.clip_stamps) <= LENGTH
    assert ticks[0].attention.sum(1) == pytest.approx(1.0, abs=1e-5), 'one frame has it all'
    assert len(ticks[-1].success.clip_stamps) == LENGTH


def test_a_step_decides(tiny_encoder):
    """
    Guards who calls the library without a node: the decision comes with the tick.

    Decisions are those that a decider makes of the ticks' own numbers, by the rules given.
    """
    for rules in (DecisionRules(alpha=0.1), DecisionRules(alpha=0.1, dwell=0), DecisionRules()):
        decider = Decider(rules)
        ticks = play(tiny_encoder.start_episode('pick up the cup', rules), images=three)
        for tick in ticks:
            assert tick.alpha == (rules.alpha or 0.05)
            assert tick.threshold == tick.success.calibration.threshold(rules.alpha)
            assert tick.decision is decider(
                tick.stamp, probability=tick.success.probability, threshold=tick.threshold,
                modes=tick.success.mode_risks, status=tick.status)
        assert (ticks[-1].decision is Decision.ABSTAIN) == (ticks[-1].threshold is None)


def test_images_make_a_difference(encoder):
    """Guards against an embedding that says nothing: other images, other numbers."""
    episode = encoder.start_episode(TASK)
    one = episode.step(both(1), START).embedding
    same = encoder.start_episode(TASK).step(both(1), START).embedding
    other = encoder.start_episode(TASK).step(both(2), START).embedding
    np.testing.assert_array_equal(one, same)
    assert (cosine(one, other) < 0.999).all()


def test_the_task_makes_a_difference(encoder):
    """Guards that embeddings are task-aware: another task attends elsewhere."""
    ticks = [encoder.start_episode(task).step(both(1), START)
             for task in (TASK, 'close the drawer')]
    assert (np.abs(ticks[0].attention - ticks[1].attention).sum(1) > 0.01).all()
    assert (cosine(ticks[0].embedding, ticks[1].embedding) < 0.9999).all()


def test_the_same_again_is_the_same(encoder):
    """Guards offline against live: equal frames give equal bits, in another session too."""
    ticks = play(encoder.start_episode(TASK))
    again = play(Encoder.load(
        robot_bundle(), provider='cpu', parts=('clip',)).start_episode(TASK))
    for one, other in zip(ticks, again, strict=True):
        np.testing.assert_array_equal(one.embedding, other.embedding)
        np.testing.assert_array_equal(one.attention, other.attention)
        np.testing.assert_array_equal(one.success.video, other.success.video)
        assert replace(one.success, video=None) == replace(other.success, video=None)


def test_episodes_side_by_side(encoder):
    """Guards against one episode's memory leaking into another's."""
    alone = play(encoder.start_episode(TASK))
    first, second = encoder.start_episode(TASK), encoder.start_episode('close the drawer')
    mixed = []
    for i in range(7):
        mixed.append(first.step(both(i), START + i * SECOND // 10))
        second.step(both(50 + i), START + i * SECOND // 10)
    for one, other in zip(alone, mixed, strict=True):
        np.testing.assert_array_equal(one.embedding, other.embedding)


@pytest.mark.parametrize('view', ['wrist', 'third_person'])
def test_a_missing_view(encoder, view):
    """Guards a set without one camera: zeros and not valid there, the other as with both."""
    row = encoder.manifest.views.index(view)
    whole = encoder.start_episode(TASK).step(both(1), START)
    images = both(1)
    del images[view]
    tick = encoder.start_episode(TASK).step(images, START)
    assert not tick.embedding[row].any() and not tick.attention[row].any()
    assert tick.view_valid.tolist() == [i != row for i in range(2)]
    assert tick.view_stamps[row] == 0
    assert Status.VIEW_MISSING in tick.status and list(tick.images) == list(images)
    np.testing.assert_allclose(tick.embedding[1 - row], whole.embedding[1 - row], atol=1e-5)


@pytest.mark.parametrize('pooling', ['attention', 'mean'])
def test_a_view_that_stops_and_comes_back(tiny, pooling):
    """Guards max_age: a late view stays in with its old frame, then it is out, then in again."""
    episode = Encoder.load(tiny, provider='cpu', pooling=pooling).start_episode('pick up the cup')
    episode.step(three(0), START)
    rest = {view: image for view, image in three(1).items() if view != 'left'}
    late = episode.step(rest, START + SECOND // 2, max_age=0.5)
    assert late.view_valid.all() and late.view_stamps[0] == START
    assert Status.VIEW_MISSING not in late.status
    gone = episode.step(rest, START + SECOND // 2 + 1, max_age=0.5)
    assert gone.view_valid.tolist() == [False, True, True]
    assert gone.view_stamps[0] == 0 and not gone.embedding[0].any()
    assert Status.VIEW_MISSING in gone.status
    back = episode.step(three(2), START + SECOND)
    assert back.view_valid.all() and back.view_stamps.tolist() == [START + SECOND] * 3


def test_a_stamp_for_each_view(tiny_encoder):
    """Guards cameras out of step: the newest is the result's, each view keeps its own."""
    stamps = {'left': START + 5, 'middle': START + 9, 'right': START + 7}
    tick = tiny_encoder.start_episode('').step(three(), stamps)
    assert tick.stamp == START + 9 and tick.view_stamps.tolist() == list(stamps.values())


def test_views_of_different_sizes(encoder):
    """Guards cameras of unlike make: each is resized on its own, and both share one pass."""
    images = {'wrist': image(1, 240, 320), 'third_person': image(2, 721, 1283)}
    tick = encoder.start_episode(TASK).step(images, START)
    for view, row in (('wrist', 0), ('third_person', 1)):
        alone = encoder.start_episode(TASK).step({view: images[view]}, START)
        np.testing.assert_allclose(tick.embedding[row], alone.embedding[row], atol=1e-5)
    same = encoder.start_episode(TASK).step(
        {'wrist': image(1, 480, 640), 'third_person': images['third_person']}, START)
    assert cosine(tick.embedding[0], same.embedding[0]) > 0.97, 'size alone changes little'


def test_a_size_that_changes_in_mid_stream(encoder):
    """Guards a camera that is set to another mode while the node runs."""
    episode = encoder.start_episode(TASK)
    for i, (height, width) in enumerate([(480, 640), (240, 320), (1080, 1920), (1, 1), (3, 700)]):
        tick = episode.step(
            {'wrist': image(1, height, width), 'third_person': image(2)}, START + i)
        assert np.isfinite(tick.embedding).all() and tick.view_valid.all()


def test_arrays_that_are_not_contiguous(encoder):
    """Guards the plain-Python API: a flipped or BGR view of an array counts as its pixels say."""
    frame = image(1)
    swapped = np.ascontiguousarray(frame[..., ::-1])
    one = encoder.start_episode(TASK).step({'wrist': swapped[..., ::-1]}, START)
    other = encoder.start_episode(TASK).step({'wrist': frame}, START)
    np.testing.assert_array_equal(one.embedding, other.embedding)


def test_geometry_is_applied(encoder):
    """Guards rotation and crop: they equal an image mounted right, for that view only."""
    geometry = {'wrist': ViewGeometry(180, (0.25, 0.0, 1.0, 0.5))}
    mounted = Encoder.load(robot_bundle(), provider='cpu', geometry=geometry, parts=('clip',))
    images = both(1)
    tick = mounted.start_episode(TASK).step(images, START)
    upright = np.rot90(images['wrist'], 2)[:240, 160:]
    np.testing.assert_array_equal(tick.images['wrist'], upright)
    np.testing.assert_array_equal(tick.images['third_person'], images['third_person'])
    plain = encoder.start_episode(TASK).step({**images, 'wrist': upright}, START)
    np.testing.assert_array_equal(tick.embedding, plain.embedding)


def test_geometry_for_a_view_that_is_not_there(tiny):
    """Guards a mistyped view in the parameters."""
    with pytest.raises(BundleError, match='wrist.*left, middle, right'):
        Encoder.load(tiny, provider='cpu', geometry={'wrist': ViewGeometry(90)})


def count_runs(monkeypatch, encoder, graph):
    """Count how often a graph runs, and with what."""
    feeds = []
    wrapped = getattr(encoder, graph)
    run = wrapped.run
    monkeypatch.setattr(wrapped, 'run', lambda feed: feeds.append(feed) or run(feed))
    return feeds


def test_no_frame_is_encoded_twice(encoder, monkeypatch):
    """Guards the cost of a tick: one pass over the new frames, whatever the clip's length."""
    visual = count_runs(monkeypatch, encoder, '_visual')
    preprocess = count_runs(monkeypatch, encoder, '_preprocess')
    embed = count_runs(monkeypatch, encoder, '_embed')
    text = count_runs(monkeypatch, encoder.text, '_graph')
    play(encoder.start_episode(TASK), count=12)
    assert len(visual) == 12 and visual[0]['pixels'].shape == (2, 3, SIDE, SIDE)
    assert len(preprocess) == 24 and len(embed) == 12 and len(text) == 1
    assert embed[-1]['mask'].sum() == 2 * LENGTH, 'the clip is full all the same'


@pytest.mark.parametrize('task', ['', 'open the drawer'])
def test_mean_pooling_is_the_plain_mean(tiny, task):
    """
    Guards NO_TASK and `pooling: mean` against numpy: mean over the clip, then norm 1.

    The view absent from the last set is reported with its last frame.
    """
    encoder = Encoder.load(
        tiny, provider='cpu', pooling='mean' if task else 'attention', parts=('clip',))
    episode = encoder.start_episode(task)
    tokens = {}
    for i in range(9):
        stamp = START + i * SECOND // 10
        images = three(i)
        if i == 8:
            del images['middle']
        tokens[stamp] = encoder.encode_images(images)[0]
        tick = episode.step(images, stamp)
        assert tick.pooling == 'mean'
        if i in (1, 3):
            continue  # the wanted stamps lie before the episode
        clip = [START + k * SECOND // 10 for k in (i - 4, i - 2, i) if k >= 0]
        for row in range(3):
            seen = [tokens[s - SECOND // 10 if (row, s, i) == (1, stamp, 8) else s][row]
                    for s in clip]
            mean = np.concatenate(seen).mean(0)
            np.testing.assert_allclose(
                tick.part('clip')[row], mean / np.linalg.norm(mean), atol=1e-6)
            even = 1 / (4 * len(seen))
            np.testing.assert_allclose(tick.attention[row], even, atol=1e-6)
    assert (Status.NO_TASK in tick.status) == (not task)


def test_attention_pooling_is_that_of_the_paper(tiny):
    """Guards what goes into the graph: softmax over the clip's tokens, masked, against numpy."""
    tiny_encoder = Encoder.load(tiny, provider='cpu', threads=1, parts=('clip',))
    episode = tiny_encoder.start_episode('open the drawer')
    query = 4.0 * episode.task.features[0, :4]
    frames = []
    for i in range(3):
        frames.append(tiny_encoder.encode_images(three(i))[0])
        tick = episode.step(three(i), START + i * SECOND // 5)
        for row in range(3):
            tokens = np.concatenate([f[row] for f in frames])
            weights = np.exp(tokens @ query)
            weights /= weights.sum()
            pooled = weights @ tokens
            np.testing.assert_allclose(
                tick.embedding[row], pooled / np.linalg.norm(pooled), atol=1e-5)
            np.testing.assert_allclose(tick.attention[row], weights[-4:], atol=1e-5)


@pytest.mark.parametrize(('task', 'status'), [
    ('pick up the cup', Status.OK), ('open the drawer', Status.UNCALIBRATED),
    ('close the drawer', Status.UNKNOWN_TASK | Status.UNCALIBRATED),
    ('', Status.NO_TASK | Status.UNCALIBRATED)])
def test_status_of_a_trained_bundle(tiny_encoder, task, status):
    """Guards each bit on a bundle with a calibrated task, one without, and the rest."""
    episode = tiny_encoder.start_episode(task)
    assert episode.task_status == status
    assert episode.step(three(), START).status == status


def test_success_on_a_trained_bundle(tiny_encoder):
    """Guards calibration, modes and progress: the tiny head's score is the number of frames."""
    episode = tiny_encoder.start_episode('pick up the cup')
    for i, score in enumerate((3, 6, 9, 9)):
        success = episode.step(three(i), START + i * SECOND // 5).success
        assert success.raw_score == score
        assert success.probability == pytest.approx(1 / (1 + np.exp(-(0.5 * score - 1.0))))
        assert success.progress == pytest.approx(score / 9)
        assert success.modes == (0.5, 0.5)
        assert success.mode_names == ('dropped', 'never grasped')
        assert success.ood_score == pytest.approx(0.2 * i)
    plain = tiny_encoder.start_episode('open the drawer').step(three(), START).success
    assert plain.probability is None and plain.raw_score == 3, 'not calibrated: the score alone'
    assert plain.modes == (1.0,) and plain.mode_names == ('stuck',)
    assert tiny_encoder.start_episode('close the cup').step(three(), START).success.modes == ()


def test_out_of_distribution(tiny_encoder):
    """Guards the threshold: above it the bit is set; the tiny head's OOD score is the age."""
    episode = tiny_encoder.start_episode('pick up the cup')
    episode.step(three(0), START)
    assert episode.step(three(1), START + 5 * SECOND).status == Status.OK
    far = episode.step(three(2), START + 6 * SECOND)
    assert far.status == Status.OUT_OF_DISTRIBUTION and far.success.ood_score == pytest.approx(6)


def test_a_bundle_without_ood(tiny, variant):
    """Guards against a score that means nothing where no threshold is known."""
    encoder = Encoder.load(variant(tiny, change=lambda d: d.update(ood=None)), provider='cpu')
    episode = encoder.start_episode('pick up the cup')
    episode.step(three(0), START)
    tick = episode.step(three(1), START + 60 * SECOND)
    assert tick.status == Status.OK and tick.success.ood_score is None


def test_the_two_clips_of_one_memory(tiny_encoder):
    """Guards the success head's clip: spread over the episode, where the embedding's is recent."""
    episode = tiny_encoder.start_episode('pick up the cup')
    ticks = [episode.step(three(i), START + i * SECOND // 10) for i in range(40)]
    stamps = np.array(ticks[-1].success.clip_stamps) - START
    assert stamps[0] == 0 and stamps[-1] == 39 * SECOND // 10 and len(stamps) == 3
    assert abs(stamps[1] - 1.95 * SECOND) < 0.5 * SECOND


def test_images_are_not_changed(encoder):
    """Guards a caller's own array, which for rgb8 is the camera message itself."""
    images = both(3)
    for one in images.values():
        one.setflags(write=False)
    before = {view: image.copy() for view, image in images.items()}
    encoder.start_episode(TASK).step(images, START)
    for view, shown in images.items():
        np.testing.assert_array_equal(shown, before[view])


def test_results_are_not_changed_afterwards(tiny_encoder):
    """Guards a consumer that keeps a tick: the next one does not write into it."""
    episode = tiny_encoder.start_episode('pick up the cup')
    tick = episode.step(three(0), START)
    kept = tick.embedding.copy(), tick.view_stamps.copy(), tick.attention.copy()
    episode.step({'left': three(1)['left']}, START + SECOND)
    for now, then in zip((tick.embedding, tick.view_stamps, tick.attention), kept, strict=True):
        np.testing.assert_array_equal(now, then)


def test_warm_up(encoder, monkeypatch):
    """Guards the first real frame: every graph has run before, and nothing of it is remembered."""
    names = ('_preprocess', '_visual', '_embed', '_success')
    runs = [count_runs(monkeypatch, encoder, name) for name in names]
    assert 0.0 < encoder.warm_up() < 10.0
    assert all(runs)
    assert len(encoder.start_episode(TASK).step(both(), START).success.clip_stamps) == 1


def test_episode_ids():
    """Guards uniqueness: ids are times, and grow even within one tick of the clock."""
    before = time.time_ns()
    ids = [next_episode_id() for _ in range(2000)]
    assert ids == sorted(set(ids)) and ids[0] >= before
    assert ids[-1] < 2 ** 64


def test_warm_up_of_two_heads(tmp_path, monkeypatch):
    """
    Guards the first tick of a task: each head has run before, whichever is nearest to the words.

    The words 'warm up' went to one of the two heads, and the other one ran first beside the arm.
    """
    for name in ('warm up', 'close'):
        write_beside(tmp_path / name, f'{name} the drawer')
        encoder = Encoder.load(tmp_path / name, provider='cpu')
        encoder.other = encoder._heads['shared_head.more.onnx']
        runs = [count_runs(monkeypatch, encoder, graph) for graph in ('_success', 'other')]
        encoder.warm_up()
        assert all(runs), name

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Clips: what training draws, and that evaluation takes what the live memory would."""

from dataclasses import replace
from types import SimpleNamespace

from hralign_ros.calibration.traces import trace
from hralign_ros.data.token_features import EpisodeFeatures
from hralign_ros.models.success import SuccessHead
from hralign_ros.runtime.bundle import ClipSpec
from hralign_ros.runtime.memory import assemble, EpisodeMemory, FrameSet
from hralign_ros.training.success_clips import (
    load_recording,
    Recording,
    replay,
    sample_clip,
    stack_clips,
)
import numpy as np
import pytest
from support.tiny_success import C, D, make_recording, N, R, V
import torch

CLIP = ClipSpec(length=5, period_s=0.2, capacity=12, stride_s=0.1)
SECOND = 1_000_000_000


def memory():
    return EpisodeMemory(length=5, period=SECOND // 5, capacity=12, stride=SECOND // 10)


@pytest.mark.parametrize('frames', [1, 3, 60])
def test_offline_is_what_the_node_does(frames):
    """
    Guards against a skew between evaluation and node: the same clips, the same answers.

    The node's own memory and assembly, and the whole graph on tokens that were never reduced,
    against `trace`, which looks at every frame once. 60 frames thin the memory twice.
    """
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    head = SuccessHead(V, C, N, D, size=R, width=16, ood_size=3).eval()
    head.basis_mean.copy_(torch.randn(C))
    head.basis_matrix.copy_(torch.randn(C, R) * 0.5)
    head.ood_matrix.copy_(torch.linalg.qr(torch.randn(V, C, 3))[0])
    # In half precision already, as the store keeps them; reduced tokens are compared in it too.
    full = rng.normal(0, 1, (frames, V, N, C)).astype(np.float32)
    reduced = (full - head.basis_mean.numpy()) @ head.basis_matrix.numpy()
    times = np.cumsum(rng.uniform(0.05, 0.4, frames))
    recording = make_recording('lift', 0, frames=max(frames, 2))
    features = EpisodeFeatures(
        reduced, full.mean(2), np.array([True, True]), times)
    recording = Recording(recording.episode, features, False, recording.done[:frames],
                          recording.failing[:frames],
                          recording.progress[:frames])
    seen = trace(head, recording, CLIP)
    live = memory()
    text = torch.nn.functional.normalize(torch.randn(3, D), dim=1)
    for i, now in enumerate(np.round(times * SECOND).astype(np.int64) + SECOND):
        live.add(FrameSet(int(now), np.array([now, now]), np.array([True, True]), full[i]))
        clip = assemble(live.spread_clip(), length=5, live=np.array([True, True]))
        with torch.no_grad():
            got = head(*(torch.from_numpy(x) for x in (clip.tokens, clip.mask, clip.age)), text,
                       torch.ones(2))
        np.testing.assert_allclose(seen.video[i], got[6], atol=2e-5)
        np.testing.assert_allclose(seen.ood_score[i], got[4][0], rtol=1e-4)
        np.testing.assert_allclose(seen.progress[i], got[2][0], atol=1e-5)
        np.testing.assert_allclose(seen.failed[i], got[5][0], atol=1e-5)


@pytest.mark.parametrize(('length', 'delays'), [(1, ()), (5, (0.4, 0.0)), (5, (0.0, 0.9))])
def test_clips_that_do_not_begin_with_the_first_frame(length, delays):
    """
    Clips of one frame, and a late view's, were encoded beside a frame that was not in them.

    A baseline that sees the newest frame alone scored like a coin, for that reason only.
    """
    torch.manual_seed(0)
    head = SuccessHead(V, C, N, D, size=R, width=16, ood_size=3).eval()
    recording, clip = make_recording('lift', 0, frames=24), ClipSpec(length, 0.2, 12, 0.1)
    seen = trace(head, recording, clip, delays=delays)
    choices = replay(recording, clip, delays=delays)
    with torch.no_grad():
        expected = head.encode(*stack_clips([recording] * recording.frames, choices))
    np.testing.assert_allclose(seen.video, expected.video, atol=1e-5)
    np.testing.assert_allclose(seen.progress, torch.sigmoid(expected.progress), atol=1e-5)


def test_a_late_view_is_late_and_then_gone():
    """Guards late views: 0.4 s late has its age, 0.8 s late is left out, as in the node."""
    recording = make_recording('lift', 0, frames=15)
    rows, age = replay(recording, CLIP, delays=[0.4, 0.0])[-1]
    assert rows[0].max() == 12 and rows[1].max() == 14
    assert age[0][rows[0] == 12] == pytest.approx(0.4) and age[1][rows[1] == 14] == 0.0
    rows, _ = replay(recording, CLIP, delays=[0.8, 0.0])[-1]
    assert (rows[0] == -1).all() and (rows[1] >= 0).all()
    alone, _ = replay(recording, CLIP, views=np.array([True, False]))[-1]
    assert (alone[1] == -1).all() and (alone[0] >= 0).all()


def test_a_recording_that_is_a_part_of_a_longer_video():
    """
    Guards data sets that keep many episodes in one file, as LeRobot's do.

    Seconds were counted from the start of the file: in training the age of an episode's first
    frame was its place in the file, and all frames of a failure counted as failing.
    """
    whole = make_recording('lift', 1, kind=0)
    late = 1200.0 + whole.features.time_s
    kept = replace(whole.features, time_s=late)
    store = SimpleNamespace(has=lambda episode, human: True, load=lambda episode, human: kept)
    episode = replace(whole.episode, time_s=late.tolist(), fault_s=None)
    recording = load_recording(store, episode)
    np.testing.assert_allclose(recording.features.time_s, whole.features.time_s, atol=1e-6)
    np.testing.assert_array_equal(recording.done, whole.done)
    np.testing.assert_array_equal(recording.failing, whole.failing)
    assert 0 < recording.failing.sum() < recording.frames
    again = load_recording(store, replace(episode, fault_s=1200.0 + whole.features.time_s[-2]))
    assert again.failing.sum() == 2
    # A human of another pace: the robot's flags are not theirs.
    assert load_recording(store, episode, human=True) is None
    assert load_recording(store, replace(episode, human_from=episode.episode_id), human=True)


def test_progress_of_recordings_is_made_of_their_flags():
    """
    Guards the progress of own data: no importer has one, and the head published one all the same.

    It was that of weights which nothing had trained, and valid.
    """
    whole = make_recording('lift', 1)
    store = SimpleNamespace(has=lambda episode, human: True,
                            load=lambda episode, human: whole.features)
    recording = load_recording(store, replace(whole.episode, progress=()))
    first = int(recording.done.argmax())
    assert recording.progress[0] == 0.0 and (np.diff(recording.progress[:first + 1]) > 0).all()
    assert (recording.progress[first:] == 1.0).all()
    failed = make_recording('lift', 1, kind=0)
    store.load = lambda episode, human: failed.features
    assert np.isnan(load_recording(store, replace(failed.episode, progress=())).progress).all()


def test_what_training_draws():
    """Guards training clips: they end with the newest frame and never repeat one."""
    rng = np.random.default_rng(1)
    recording = make_recording('lift', 0, frames=30)
    for newest in (0, 1, 3, 29):
        for _ in range(50):
            rows, age = sample_clip(recording, newest, 5, rng, drop_view=0.4, late_view=0.3)
            there = rows >= 0
            assert there.any(), 'one view always stays'
            assert rows[there].max() <= newest and (age >= 0).all()
            for view in range(V):
                chosen = rows[view][there[view]]
                assert (np.diff(chosen) > 0).all()
            # Unless it comes late, a view that is there ends with the newest frame.
            assert newest in rows or newest - rows[there].max() <= 3
    human = make_recording('lift', 0, human=True)
    rows, _ = sample_clip(human, 10, 5, rng, drop_view=0.5)
    assert (rows[0] == -1).all() and (rows[1] >= 0).any(), 'a view that was not recorded'


def test_what_is_masked_is_zero():
    """Guards batches: tokens of absent frames are zeros, whatever the store holds there."""
    recording = make_recording('lift', 0)
    rows = np.array([[-1, -1, 0, 1, 2], [-1] * 5])
    tokens, mask, age = stack_clips([recording], [(rows, np.ones((V, 5), np.float32))])
    assert tokens.shape == (1, V, 5, N, R)
    assert not tokens[0, 1].any() and not tokens[0, 0, :2].any() and not age[0, 1].any()
    np.testing.assert_array_equal(mask[0].numpy(), rows >= 0)
    np.testing.assert_allclose(tokens[0, 0, 4], recording.features.tokens[2, 0])


def test_a_clip_of_one_frame_is_the_newest():
    """It was the first one: a baseline was trained on what had not begun yet."""
    recording = make_recording('lift', 0, frames=30)
    for seed in range(5):
        rows, age = sample_clip(recording, 17, 1, np.random.default_rng(seed))
        assert rows.tolist() == [[17], [17]] and not age.any()


def test_rewound_and_stalled_clips():
    """
    Guards progress and success against being clocks.

    A head that saw recordings forwards only takes late for done: a clip that has gone on and come
    back, or stood still, ends with the same frame at another time.
    """
    recording = make_recording('lift', 0, frames=30)
    back, still = [], []
    for seed in range(50):
        rows, age = sample_clip(recording, 10, 5, np.random.default_rng(seed), rewind=1.0)
        assert rows[0, -1] == 10 and age[0, -1] == 0.0 and rows.max() < 30
        assert (np.diff(age[0]) < 0).all()
        back.append(rows[0])
        rows, age = sample_clip(recording, 10, 5, np.random.default_rng(seed), stall=1.0)
        assert rows[0, -1] == 10 and rows.max() == 10
        # What has been seen longest ago is from the start, and further away than 10 frames.
        assert rows[0, 0] == 0 and age[0, 0] > recording.features.time_s[10]
        still.append(rows[0])
    assert np.mean([rows.max() > 10 for rows in back]) > 0.8
    assert np.mean([(rows == 10).sum() > 1 for rows in still]) > 0.5
    rows, _ = sample_clip(recording, 29, 5, np.random.default_rng(0), rewind=1.0)
    assert rows.max() == 29 and (np.diff(rows[0]) > 0).all(), 'nowhere to come back from'

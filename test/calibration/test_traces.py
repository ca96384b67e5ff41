# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Scores of whole episodes: those that the exported graph gives in the node, tick by tick."""

from dataclasses import replace

from hralign_ros.calibration.traces import judge, trace
from hralign_ros.data.token_features import EpisodeFeatures
from hralign_ros.evaluation.success_events import perturbed, reversed_recording, stuck
from hralign_ros.export.parity import masked_graph, run_graph, success_inputs
from hralign_ros.models.grounding import Grounding
from hralign_ros.models.success import OUTPUTS, SuccessHead
from hralign_ros.runtime.bundle import ClipSpec
from hralign_ros.runtime.memory import assemble, EpisodeMemory, FrameSet
from hralign_ros.training.success_clips import Recording
import numpy as np
import pytest
from support.tiny_success import C, D, FINE_R, GRID, make_recording, N, R, V
import torch

CLIP = ClipSpec(length=5, period_s=0.2, capacity=12, stride_s=0.1)
SECOND = 1_000_000_000
MODES = 2


@pytest.fixture(scope='module')
def head():
    torch.manual_seed(0)
    made = SuccessHead(V, C, N, D, size=R, width=16, ood_size=3,
                       grounding=Grounding(GRID, GRID, FINE_R, D, width=16))
    made.basis_mean.copy_(torch.randn(C))
    made.basis_matrix.copy_(torch.randn(C, R) * 0.5)
    made.ood_matrix.copy_(torch.linalg.qr(torch.randn(V, C, 3))[0])
    made.grounding.text_mean.copy_(torch.randn(D) * 0.05)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope='module')
def graph(head):
    return masked_graph(head, success_inputs(head, V, CLIP.length, MODES, D), OUTPUTS,
                        report=lambda _: None)[0]


def episode_of(head, frames):
    """Make full tokens, and the recording that the store would have of them."""
    rng = np.random.default_rng(1)
    full = rng.normal(0, 1, (frames, V, N, C)).astype(np.float32)
    fine = rng.normal(0, 1, (frames, GRID * GRID, FINE_R)).astype(np.float16)
    reduced = (full - head.basis_mean.numpy()) @ head.basis_matrix.numpy()
    made = make_recording('lift', 0, frames=frames)
    return full, Recording(made.episode, EpisodeFeatures(
        reduced, full.mean(2), np.array([True, True]), np.arange(frames) * 0.1, fine=fine),
        False, made.done, made.failing, made.progress)


def in_the_node(graph, recording, full, text, *, views, delays):
    """Step the node's own memory, run the graph: score and failure of every tick, [2, F]."""
    memory = EpisodeMemory(length=CLIP.length, period=SECOND // 5, capacity=CLIP.capacity,
                           stride=SECOND // 10)
    stamps = np.round(recording.features.time_s * SECOND).astype(np.int64) + SECOND
    late, said = np.round(np.array(delays) * SECOND).astype(np.int64), []
    for now in stamps:
        row = np.searchsorted(stamps, now - late, 'right') - 1
        valid = (row >= 0) & views
        row = np.maximum(row, 0)
        own = np.where(valid, stamps[row], 0)
        memory.add(FrameSet(
            int(now), own, valid, full[row, np.arange(V)],
            recording.features.fine[row[-1]].astype(np.float32)), hold=SECOND // 2)
        clip = assemble(memory.spread_clip(), length=CLIP.length,
                        live=valid & (now - own <= SECOND // 2), first_fine=memory.first_fine)
        made = run_graph(graph, {
            'tokens': clip.tokens, 'mask': clip.mask, 'age': clip.age, 'text': text,
            'mode_mask': np.ones(MODES, np.float32), 'fine': clip.fine})
        said.append((made[3][0], made[5][0]))
    return np.array(said).T


@pytest.mark.parametrize(('views', 'delays'), [
    ((True, True), (0.0, 0.0)), ((True, True), (0.3, 0.0)), ((True, True), (0.0, 0.3)),
    ((True, True), (0.0, 0.5)), ((True, True), (0.0, 0.9)), ((False, True), (0.0, 0.0)),
    ((True, False), (0.0, 0.0)), ((False, True), (0.0, 0.2))])
def test_scores_of_a_grounded_head_are_those_of_its_graph(head, graph, views, delays):
    """
    Guards calibration: maps and thresholds are fitted to what the node will say.

    With every view, one alone, and the reference view late, too late, or missing. 40 frames thin
    the memory twice.
    """
    full, recording = episode_of(head, 40)
    text = torch.nn.functional.normalize(torch.randn(
        1 + MODES, D, generator=torch.Generator().manual_seed(2)), dim=1).numpy()
    there = np.array(views)
    seen = trace(head, recording, CLIP, views=there, delays=delays)
    offline = np.stack(judge(head, seen, text, np.ones(MODES, np.float32)))
    live = in_the_node(graph, recording, full, text, views=there, delays=delays)
    np.testing.assert_allclose(offline, live, atol=1e-4)
    assert (np.ptp(offline, axis=1) > 1e-3).all()
    takes_part = views[1] and delays[1] <= 0.5
    assert ((seen.ends[:, 1] >= 0).mean() > 0.8) == takes_part
    assert (seen.ends[seen.ends[:, 1] >= 0, 0] == 0).all(), "the first frame is the episode's"
    # By the vector alone it would be another score.
    plain = np.stack(judge(head, seen.__class__(**{**vars(seen), 'ends': None}), text,
                           np.ones(MODES, np.float32)))
    assert ((np.abs(plain - offline) > 1e-4).any(axis=1) == takes_part).all()


def test_features_without_fine_tokens(head):
    """
    A grounded head was scored without a word by its vector alone, where features had none.

    Thresholds would have been of another score than the node's.
    """
    _, recording = episode_of(head, 6)
    seen = trace(head, replace(
        recording, features=replace(recording.features, fine=None)), CLIP)
    with pytest.raises(AssertionError, match='fine tokens'):
        judge(head, seen, np.eye(1 + MODES, D, dtype=np.float32), np.ones(MODES, np.float32))


def test_many_ticks(head, monkeypatch):
    """Guards blocks of ticks: their size is no part of the score."""
    _, recording = episode_of(head, 30)
    text = torch.nn.functional.normalize(torch.ones(1 + MODES, D), dim=1).numpy()
    seen, mask = trace(head, recording, CLIP), np.ones(MODES, np.float32)
    whole = judge(head, seen, text, mask)
    monkeypatch.setattr('hralign_ros.calibration.traces._BLOCK', 7)
    np.testing.assert_allclose(judge(head, seen, text, mask), whole, atol=1e-5)


def test_the_end_alone(head):
    """
    Guards the report's table of instructions: of hundreds, each was scored at every tick.

    Only the last one counts there, and a grounded head looks anew for each.
    """
    _, recording = episode_of(head, 12)
    text = torch.nn.functional.normalize(torch.ones(1 + MODES, D), dim=1).numpy()
    seen, mask = trace(head, recording, CLIP), np.ones(MODES, np.float32)
    alone, _ = judge(head, seen.end, text, mask)
    assert alone.shape == (1,)
    assert alone[0] == pytest.approx(judge(head, seen, text, mask)[0][-1], abs=1e-5)


def test_recordings_that_are_changed_have_their_own_fine_tokens(head):
    """Guards streams and broken cameras: reversed, perturbed and stuck ones."""
    _, recording = episode_of(head, 30)
    fine = recording.features.fine
    backwards = reversed_recording(recording)
    np.testing.assert_array_equal(
        backwards.features.fine, fine[:int(recording.done.argmax())][::-1])
    last = stuck(recording, 1)
    np.testing.assert_array_equal(last.features.fine[20:], fine[[15] * 10])
    np.testing.assert_array_equal(stuck(recording, 0).features.fine, fine)
    some = perturbed(recording, np.random.default_rng(0))
    assert len(some.features.fine) == some.frames
    # Tokens of the last view and fine tokens are of one frame.
    rows = [int(np.abs(recording.features.tokens[:, -1] - one).sum((1, 2)).argmin())
            for one in some.features.tokens[:, -1]]
    np.testing.assert_array_equal(some.features.fine, fine[rows])

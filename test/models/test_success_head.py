# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The success head: what it must not see, what it must not say, and what its score means."""

from hralign_ros.models import success
import numpy as np
import pytest
import torch

V, T, N, C, D, K, R = 2, 5, 9, 16, 12, 3, 6


def clip():
    return torch.from_numpy(
        np.random.default_rng(5).standard_normal((V, T, N, C)).astype(np.float32))


@pytest.fixture
def head():
    torch.manual_seed(0)
    module = success.SuccessHead(V, C, N, D, size=R, width=16, ood_size=4).eval()
    # As training leaves it: a basis that reduces.
    module.basis_matrix.copy_(torch.randn(C, R) * 0.5)
    module.ood_matrix.copy_(torch.linalg.qr(torch.randn(V, C, 4))[0])
    return module


def encode(head, tokens=None, mask=None, age=None, text=None, mode_mask=None):
    generator = torch.Generator().manual_seed(9)
    default = torch.nn.functional.normalize(
        torch.randn(1 + K, D, generator=generator), dim=1)
    with torch.no_grad():
        return head(
            clip() if tokens is None else tokens,
            torch.ones(V, T) if mask is None else mask,
            torch.zeros(V, T) if age is None else age,
            default if text is None else text,
            torch.ones(K) if mode_mask is None else mode_mask)


def test_what_the_head_gives(head):
    """Guards shapes and ranges of every output, and that the score is the probability's logit."""
    probability, modes, progress, score, ood, failed, video = encode(head)
    assert [x.shape for x in (probability, modes, progress, score, ood, failed, video)] == [
        (1,), (K,), (1,), (1,), (1,), (1,), (D,)]
    assert len(success.OUTPUTS) == 7
    torch.testing.assert_close(torch.sigmoid(score), probability)
    torch.testing.assert_close(modes.sum(), torch.tensor(1.0))
    assert 0 <= progress <= 1 and 0 <= failed <= 1 and ood >= 0


@pytest.mark.parametrize('there, newest', [
    ([[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]], [4, 4]), ([[1, 1, 0, 0, 0], [0, 1, 1, 1, 0]], [1, 3]),
    ([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0]], [2, None])])
def test_the_newest_frames_go_past_the_transformer(there, newest):
    """
    Guards the option `newest_path`: what is seen at once, of each view apart.

    With a transformer that lets nothing through, only the newest frame that a view really has
    moves the judgement; a view that is gone adds nothing.
    """
    torch.manual_seed(0)
    head = success.SuccessHead(V, C, N, D, size=R, width=16, ood_size=4, newest=True).eval()
    for layer in head.mix:
        for weight in layer.parameters():
            weight.detach().zero_()
    mask = torch.tensor(there, dtype=torch.float32)
    frames = torch.randn(1, V, T, head.norm.weight.shape[0])
    with torch.no_grad():
        before = head.join(frames, mask[None], torch.zeros(1, V, T))
        for view in range(V):
            for row in range(T):
                other = frames.clone()
                other[0, view, row] += 1.0
                moved = not torch.allclose(
                    head.join(other, mask[None], torch.zeros(1, V, T)), before)
                assert moved == (newest[view] == row), (view, row)


@pytest.mark.parametrize('used', [[1, 0, 0], [1, 1, 0], [0, 0, 0]])
def test_modes_that_are_not_in_use(head, used):
    """Guards tasks with fewer prompts: an unused one has no probability, the others share it."""
    modes = encode(head, mode_mask=torch.tensor(used, dtype=torch.float32))[1]
    assert all(float(m) == 0.0 for m, use in zip(modes, used, strict=True) if not use)
    assert float(modes.sum()) == pytest.approx(float(any(used)), abs=1e-6)


@pytest.mark.parametrize('view', range(V))
def test_the_head_does_not_see_masked_frames(head, view):
    """Guards a dead camera and young episodes: what stands in masked slots changes nothing."""
    mask = torch.ones(V, T)
    mask[view], mask[:, 0] = 0.0, 0.0
    other, age = clip(), torch.zeros(V, T)
    other[mask == 0] = 1e3
    age[mask == 0] = 99.0
    for one, two in zip(encode(head, mask=mask), encode(head, other, mask, age), strict=True):
        torch.testing.assert_close(one, two)


def test_nothing_at_all_is_still_a_number(head):
    """Guards against NaN out of a softmax over nothing, when every camera is dead."""
    for value in encode(head, mask=torch.zeros(V, T)):
        assert torch.isfinite(value).all()


def test_the_head_knows_time_and_views(head):
    """Guards what the transformer could not tell otherwise: ages, and which camera it is."""
    plain = encode(head)[3]
    age = torch.linspace(4.0, 0.0, T).expand(V, T)
    assert abs(float(encode(head, age=age)[3] - plain)) > 1e-4
    assert abs(float(encode(head, clip().flip(0))[3] - plain)) > 1e-4


def test_the_task_comes_into_the_score(head):
    """Guards that the probability is one of this task and of no other."""
    text = torch.nn.functional.normalize(torch.randn(1 + K, D), dim=1)
    assert abs(float(encode(head, text=text)[3] - encode(head)[3])) > 1e-4


def test_the_score_is_the_log_odds_of_the_text_among_the_prompts(head):
    """Guards Adapt2Reward's reading: exp s(text) / (exp s(text) + sum exp s(prompts))."""
    text = torch.nn.functional.normalize(torch.randn(1 + K, D), dim=1)
    probability = encode(head, text=text)[0]
    with torch.no_grad():
        reduced = (clip() - head.basis_mean) @ head.basis_matrix
        video = head.encode(reduced[None], torch.ones(1, V, T), torch.zeros(1, V, T)).video[0]
        share = torch.softmax(text @ video * head.scale, dim=0)[0]
    torch.testing.assert_close(probability[0], share)


def test_what_moves_is_seen_where_it_moves(head):
    """Guards change: the same tokens after another first frame are another clip."""
    other = clip()
    other[:, 0] += 1.0
    mask = torch.ones(V, T)
    with torch.no_grad():
        one, two = (head.pool_frames((x @ head.basis_matrix)[None], mask[None])[0]
                    for x in (clip(), other))
    assert (one[:, 1:] - two[:, 1:]).abs().max() > 1e-3, 'frames after the first know of it'
    mask[:, 0] = 0.0
    with torch.no_grad():
        one, two = (head.pool_frames((x @ head.basis_matrix)[None], mask[None])[0]
                    for x in (clip(), other))
    torch.testing.assert_close(one[:, 1:], two[:, 1:])


def test_ood_score_is_a_mahalanobis_distance():
    """Guards the OOD score against the plain formula, per view, the largest of those there."""
    torch.manual_seed(1)
    head = success.SuccessHead(V, C, N, D, size=R, width=16, ood_size=C - 1).eval()
    spread = torch.linspace(0.5, 3.0, C)
    head.ood_matrix.copy_(torch.eye(C)[:, 1:].expand(V, C, C - 1))
    head.ood_axes.copy_((spread[1:] ** 2).expand(V, C - 1))
    head.ood_rest.fill_(float(spread[0]) ** 2)
    means = torch.randn(V, T, C)
    got = head.ood_score(means, torch.ones(V, T))
    z = means.mean(1) / spread
    want = 0.5 * ((z[:, 1:] ** 2).mean(1) + z[:, 0] ** 2)
    torch.testing.assert_close(got, want.max(), rtol=1e-4, atol=1e-4)
    one = torch.ones(V, T)
    one[0] = 0.0
    torch.testing.assert_close(
        head.ood_score(means, one), want[1], rtol=1e-4, atol=1e-4)
    assert head.ood_score(means, torch.zeros(V, T)) == 0.0

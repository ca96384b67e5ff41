# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Grounding: each text and each clip is judged by itself, and a head falls back without it."""

from hralign_ros.models.grounding import Grounding, LOOKED_FOR
from hralign_ros.models.success import SuccessHead
import pytest
import torch

ROWS, COLUMNS, R, D = 3, 4, 5, 24
M = ROWS * COLUMNS


@pytest.fixture
def grounding():
    torch.manual_seed(0)
    made = Grounding(ROWS, COLUMNS, R, D, width=16)
    made.text_mean.copy_(torch.randn(D) * 0.1)
    return made.eval().requires_grad_(False)


def fine(count=3, seed=0):
    return torch.randn(count, 2, M, R, generator=torch.Generator().manual_seed(seed))


def texts(count=6, clips=3, seed=1):
    made = torch.randn(clips, count, D, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(made, dim=-1)


def test_shapes(grounding):
    judged = grounding(fine(), texts())
    assert judged.scores.shape == (3, 6) and judged.looks.shape == (3, 6, LOOKED_FOR, M)
    assert judged.scores.std() > 1e-3


def test_texts_do_not_know_of_each_other(grounding):
    """
    Guards training against a shortcut, and the robot against another score than in training.

    There six texts are judged of one still, on the robot one alone.
    """
    judged = grounding(fine(), texts())
    for row in range(6):
        alone = grounding(fine(), texts()[:, row:row + 1])
        torch.testing.assert_close(alone.scores[:, 0], judged.scores[:, row], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.looks[:, 0], judged.looks[:, row], atol=1e-5, rtol=0)


def test_clips_do_not_know_of_each_other(grounding):
    """Guards a batch: scores of a clip are the same whatever it is judged with."""
    judged = grounding(fine(), texts())
    for row in range(3):
        alone = grounding(fine()[row:row + 1], texts()[row:row + 1])
        torch.testing.assert_close(alone.scores[0], judged.scores[row], atol=1e-5, rtol=0)


@pytest.mark.parametrize('frame', [0, 1])
def test_both_frames_count(grounding, frame):
    """Guards what is seen: the start as well as now, and which is which."""
    changed = fine().clone()
    changed[:, frame, 5] += 3.0
    one, other = (grounding(some, texts()).scores for some in (fine(), changed))
    assert (one - other).abs().min() > 1e-5
    assert (grounding(fine().flip(1), texts()).scores - one).abs().max() > 1e-3


def test_cells_are_in_the_order_of_the_image(grounding):
    """Guards points: row by row from the top left, x to the right, y down, of 0 to 1."""
    assert grounding.points.shape == (M, 2)
    torch.testing.assert_close(grounding.points[0], torch.tensor([0.5 / COLUMNS, 0.5 / ROWS]))
    torch.testing.assert_close(
        grounding.points[COLUMNS - 1], torch.tensor([1 - 0.5 / COLUMNS, 0.5 / ROWS]))
    torch.testing.assert_close(
        grounding.points[-1], torch.tensor([1 - 0.5 / COLUMNS, 1 - 0.5 / ROWS]))


V, T, C, N, K = 2, 3, 7, 4, 2


def test_a_head_falls_back_where_the_last_view_is_not_there():
    """
    Guards cameras that are gone: the score is then that of the vector, of whatever is there.

    With any frame of the last view the grounding's is added, and says whether it has failed.
    """
    torch.manual_seed(0)
    plain = SuccessHead(V, C, N, D, size=4, width=16, ood_size=3)
    torch.manual_seed(0)
    head = SuccessHead(V, C, N, D, size=4, width=16, ood_size=3,
                       grounding=Grounding(ROWS, COLUMNS, R, D, width=16))
    head.load_state_dict(plain.state_dict(), strict=False)
    for module in (plain, head):
        module.basis_matrix.copy_(torch.eye(C, 4))
        module.eval().requires_grad_(False)
    clip = [torch.randn(V, T, N, C), torch.ones(V, T), torch.zeros(V, T), texts(1 + K, 1)[0],
            torch.ones(K)]
    both, only_first, only_last, late = (torch.ones(V, T) for _ in range(4))
    only_first[1] = 0.0
    only_last[0] = 0.0
    late[1, :-1] = 0.0
    found = head.grounding(fine(1), clip[3][None, :1])
    for mask in (both, only_first, only_last, late):
        clip[1] = mask
        want, got = plain(*clip), head(*clip, fine(1)[0])
        gone = mask is only_first
        score = want[3] if gone else want[3] + found.scores[0]
        torch.testing.assert_close(got[3], score)
        torch.testing.assert_close(got[0], torch.sigmoid(score))
        torch.testing.assert_close(
            got[5], want[5] if gone else torch.sigmoid(found.failed[0]))
        for row in (1, 2, 4, 6):
            torch.testing.assert_close(got[row], want[row])

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The torch modules against the papers' equations and against the published geometry."""

import pytest

torch = pytest.importorskip('torch', reason="torch is not installed (extra 'adapt')")

from hralign_ros.models.adapters import ConvAdapter, late_adapters, TokenAdapter  # noqa: E402
from hralign_ros.models.heads import SuccessHead, TaskAttention  # noqa: E402


def parameters(module: 'torch.nn.Module') -> int:
    """Count a module's parameters."""
    return sum(p.numel() for p in module.parameters())


def test_adapters_have_the_released_size() -> None:
    """HR-Align's R3M adapters have 1.6 M parameters, its ViT adapters 5.3 M."""
    assert parameters(ConvAdapter(2048)) == 527_360
    assert parameters(late_adapters(2048, 'conv')) == 1_582_080
    assert parameters(TokenAdapter(768)) == 1_771_776
    assert parameters(late_adapters(768, 'vit')) == 5_315_328


@pytest.mark.parametrize('kind', ['conv', 'vit'])
def test_adapters_start_as_the_exact_identity_and_learn(kind: str) -> None:
    """
    At the start nothing changes, bit by bit; and from there every layer gets a gradient.

    The authors' initialisation zeroes the middle layer: behind a ReLU that leaves all but one
    bias without gradient for ever, and their released adapters have indeed learnt nothing else.
    """
    torch.manual_seed(0)
    adapters = late_adapters(64, kind)
    x = torch.randn(2, 64, 3, 3)
    assert torch.equal(adapters(x), x)
    optimiser = torch.optim.SGD(adapters.parameters(), lr=0.1)
    target = torch.randn_like(x)
    before = {name: p.clone() for name, p in adapters.named_parameters()}
    for _ in range(3):
        optimiser.zero_grad()
        torch.nn.functional.mse_loss(adapters(x), target).backward()
        optimiser.step()
    unchanged = [name for name, p in adapters.named_parameters() if torch.equal(p, before[name])]
    assert unchanged == []


def test_attention_is_that_of_the_paper() -> None:
    """Eq. 4 and 5: softmax of the plain dot product over all T x H x W tokens; then the sum."""
    torch.manual_seed(1)
    attention = TaskAttention(8, 16).eval()
    tokens, task = torch.randn(2, 3, 4, 16), torch.randn(8)
    mask = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    embedding, weights = attention(tokens, mask, task)
    query = attention.query.weight @ task + attention.query.bias
    for view in range(2):
        frames = [t for t in range(3) if mask[view, t]]
        rows = torch.stack([tokens[view, t, n] for t in frames for n in range(4)])
        scores = torch.stack([torch.dot(row, query) for row in rows])
        share = torch.exp(scores - scores.max())
        share = share / share.sum()
        pooled = sum(s * row for s, row in zip(share, rows, strict=True))
        assert torch.allclose(embedding[view], pooled / pooled.norm(), atol=1e-5)
        assert torch.allclose(weights[view, frames].flatten(), share, atol=1e-6)
    assert torch.equal(weights[1, :2], torch.zeros(2, 4))


def test_a_view_without_frames_is_zeros() -> None:
    """A view that was never seen gives zeros, not the mean of whatever lies in the memory."""
    attention = TaskAttention(8, 16).eval()
    mask = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    embedding, weights = attention(torch.randn(2, 2, 4, 16), mask, torch.randn(8))
    assert torch.equal(embedding[0], torch.zeros(16))
    assert torch.equal(weights[0], torch.zeros(2, 4))
    assert abs(float(embedding[1].detach().norm()) - 1.0) < 1e-5


def test_the_success_head_ignores_what_is_masked() -> None:
    """Masked frames, unused modes and an empty clip change nothing and never give NaN."""
    torch.manual_seed(2)
    head = SuccessHead(2, 16, 8).eval()
    text = torch.nn.functional.normalize(torch.randn(4, 8), dim=1)
    tokens, age = torch.randn(2, 3, 4, 16), torch.rand(2, 3)
    mask = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    modes = torch.tensor([1.0, 1.0, 0.0])
    with torch.no_grad():
        first = head(tokens, mask, age, text, modes)
        changed = tokens.clone()
        changed[0, 0] = 1e3
        changed[1, :2] = -1e3
        second = head(changed, mask, age, text, modes)
        empty = head(tokens, torch.zeros_like(mask), age, text, modes)
    for one, other in zip(first, second, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert float(first[1][2]) == 0.0 and abs(float(first[1].sum()) - 1.0) < 1e-5
    assert 0.0 <= float(first[0]) <= 1.0
    assert all(torch.isfinite(value).all() for value in empty)

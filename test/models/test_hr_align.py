# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The trained half: pooling, streams, and what stays frozen."""

from hralign_ros.models.adapters import adapters_of
from hralign_ros.models.hr_align import HRAlign, mean_pool, pool
import pytest
from support import tiny_run
import torch
from torch import nn


def maps(clips=4, frames=3, channels=tiny_run.CHANNELS, seed=0, last=True):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(clips, frames, 3, 3, channels, generator=generator).permute(0, 1, 4, 2, 3)
    return x if last else x.contiguous()


def texts(count=4):
    return torch.randn(count, tiny_run.TEXT_DIM, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize('last', [True, False], ids=['channels_last', 'contiguous'])
@pytest.mark.parametrize('floor', [0.0, 0.5])
def test_pooling_is_that_of_the_bundle(last, floor):
    """Guards train against serve: the graph on the robot pools with TaskAttention."""
    model = tiny_run.make_model(floor=floor)
    attention = model.attention
    x, words = maps(last=last), texts()
    pooled = model.pooled(x, words)
    torch.testing.assert_close(
        pooled, model.pooled_for_each(x, words)[torch.arange(4), torch.arange(4)])
    for i in range(4):
        tokens = x[i].flatten(2).transpose(1, 2)[None]
        expected, _ = attention(tokens, torch.ones(1, 3), words[i])
        torch.testing.assert_close(pooled[i], expected[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(pooled.norm(dim=1), torch.ones(4))


def test_pooling_for_each_text_is_pooling_once_per_text():
    x, queries = maps(), torch.randn(5, tiny_run.CHANNELS)
    every = pool(x, queries[None])
    for k in range(5):
        torch.testing.assert_close(every[:, k:k + 1], pool(x, queries[k].expand(4, 1, -1)))


def test_mean_pooling_looks_at_no_text():
    model = tiny_run.make_model(pooling='mean')
    x = maps()
    pooled = model.pooled(x, texts())
    assert torch.equal(pooled, model.pooled(x, texts() * 3))
    torch.testing.assert_close(pooled, mean_pool(x))
    assert all(name.startswith('adapters.') for name in model.trained_parameters())
    with pytest.raises(ValueError, match='allowed: attention, mean'):
        tiny_run.make_model(pooling='max')


def test_untrained_adapters_change_nothing():
    model = tiny_run.make_model()
    _, frozen, adapted = tiny_run.streams_of(model, maps(), maps(seed=1), texts())
    torch.testing.assert_close(frozen, adapted, rtol=0, atol=1e-6)


@pytest.mark.parametrize('stream', range(3))
def test_every_stream_has_a_gradient_to_the_query(stream):
    """Guards the same query in all three streams: none of them is detached."""
    model = tiny_run.make_model()
    streams = tiny_run.streams_of(model, maps(), maps(seed=1), texts())
    only = [s if i == stream else s.detach() for i, s in enumerate(streams)]
    tiny_run.loss_of(*only).backward()
    assert model.attention.query.weight.grad.abs().max() > 1e-6


class _Back(nn.Module):
    """A frozen rest with a batch norm, as behind middle adapters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(tiny_run.CHANNELS, 16, 1)
        self.norm = nn.BatchNorm2d(16)

    def forward(self, x):
        return self.norm(self.conv(x))


def test_what_is_frozen_stays_as_it_was():
    """Guards the human stream: a training step changes neither its maps nor the batch norm."""
    torch.manual_seed(0)
    model = HRAlign(adapters_of(tiny_run.CHANNELS, 'conv'), _Back(), tiny_run.TEXT_DIM, 16)
    model.train()
    before = {k: v.clone() for k, v in model.back.state_dict().items()}
    human, robot = maps(), maps(seed=1)
    tokens = model.frozen_maps(human).clone()
    trained = model.trained_parameters()
    assert not any(name.startswith('back.') for name in trained)
    optimiser = torch.optim.SGD(trained.values(), lr=0.5)
    for _ in range(2):
        optimiser.zero_grad()
        tiny_run.loss_of(*tiny_run.streams_of(model, human, robot, texts())).backward()
        optimiser.step()
    assert all(p.grad is None for p in model.back.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.back.state_dict().items())
    assert torch.equal(model.frozen_maps(human), tokens)
    assert not torch.equal(model.adapted_maps(robot), model.frozen_maps(robot))
    assert all(p.grad is not None and p.grad.any() for name, p in trained.items()
               if name.endswith('weight'))


def test_weights_of_another_model_are_refused():
    model = tiny_run.make_model()
    state = model.trained_state()
    with pytest.raises(ValueError, match='weights of another model'):
        model.load_trained_state({k: v for k, v in state.items() if 'query' not in k})
    other = tiny_run.make_model(seed=1)
    other.load_trained_state(state)
    assert all(torch.equal(v, state[k]) for k, v in other.trained_state().items())


def test_a_video_is_scored_with_each_text_in_turn():
    """Guards the control against a leak: the score of a text depends on no other text."""
    model = tiny_run.make_model()
    words = texts(3)
    scores = model.text_scores(maps(), words)
    assert scores.shape == (4, 3)
    assert scores.abs().max() <= 1 + 1e-5
    torch.testing.assert_close(scores[:, 1:2], model.text_scores(maps(), words[1:2]))
    with pytest.raises(ValueError, match='pooling must be attention'):
        tiny_run.make_model(pooling='mean').text_scores(maps(), words)

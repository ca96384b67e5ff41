# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Adapters: nothing at the start, and yet all of them learn."""

from importlib import import_module

import pytest
import torch

adapters = import_module('hralign_ros.models.adapters')

CASES = {
    'conv': (lambda: adapters.ConvAdapter(64), 64),
    'conv without groups': (lambda: adapters.ConvAdapter(64, down=2, groups=1), 64),
    'vit': (lambda: adapters.TokenAdapter(48), 48),
    'three conv': (lambda: adapters.adapters_of(64, 'conv'), 64),
    'three vit': (lambda: adapters.adapters_of(48, 'vit'), 48),
}


def count(module):
    return sum(p.numel() for p in module.parameters())


def gradients(module, channels):
    """Compute every parameter's largest gradient for a loss that has no zero there."""
    module.zero_grad()
    torch.manual_seed(1)
    x = torch.randn(4, channels, 3, 5)
    (module(x) * torch.randn_like(x)).sum().backward()
    return {name: float(p.grad.abs().max()) for name, p in module.named_parameters()}


@pytest.mark.parametrize('case', CASES)
def test_identity_at_the_start(case):
    """Guards the frozen backbone: an untrained adapter changes no bit of what it gives."""
    make, channels = CASES[case]
    x = torch.randn(2, channels, 3, 5) * 10
    assert torch.equal(make()(x), x)


@pytest.mark.parametrize('case', ['conv', 'conv without groups', 'vit'])
def test_gradients_are_alive(case):
    """
    Guards against the authors' initialisation, with which almost nothing ever learns.

    `up` has a gradient at once, and after one step of plain SGD all layers have one.
    """
    torch.manual_seed(0)
    make, channels = CASES[case]
    module = make()
    first = gradients(module, channels)
    assert first['up.weight'] > 0 and first['up.bias'] > 0
    assert first['map.weight'] == first['down.weight'] == 0, 'up is zero, so nothing passes yet'
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    assert all(value > 0 for value in gradients(module, channels).values())


@pytest.mark.parametrize('kind', ['conv', 'vit'])
def test_a_row_of_adapters_learns(kind):
    """Guards three in a row: the last zero must not keep the first ones from their gradients."""
    torch.manual_seed(0)
    module = adapters.adapters_of(64, kind)
    gradients(module, 64)
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    assert all(value > 0 for value in gradients(module, 64).values())


def test_sizes_are_those_of_the_paper():
    """Guards the geometry that was released: three of them have 1.6 M and 5.3 M parameters."""
    assert count(adapters.ConvAdapter(2048)) == 527_360
    assert count(adapters.TokenAdapter(768)) == 1_771_776
    assert count(adapters.adapters_of(2048, 'conv')) == 1_582_080
    assert count(adapters.adapters_of(768, 'vit')) == 5_315_328


def test_names_are_those_of_the_authors():
    """Guards their checkpoint's keys, which name the adapters late_adapter_1 to 3."""
    names = list(dict(adapters.adapters_of(64, 'conv').named_children()))
    assert names == ['late_adapter_1', 'late_adapter_2', 'late_adapter_3']


def test_a_token_adapter_works_on_each_place():
    """Guards rows against columns: what happens at one place of the map changes no other."""
    torch.manual_seed(0)
    module = adapters.TokenAdapter(8)
    torch.nn.init.normal_(module.up.weight)
    x = torch.randn(1, 8, 3, 5)
    changed = x.clone()
    changed[0, :, 1, 4] += 1.0
    moved = (module(changed) - module(x)).abs().sum(1)[0] > 0
    assert moved.nonzero().tolist() == [[1, 4]]

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Attention as an image."""

from hralign_ros.runtime.overlay import attention_overlay
import numpy as np
import pytest


@pytest.mark.parametrize('shape', [(480, 640, 3), (61, 33, 3), (224, 224, 3), (1, 1, 3)])
def test_size_and_kind(shape):
    """Guards the topic: whatever the camera's size, an uint8 RGB image of the size asked for."""
    image = np.full(shape, 100, np.uint8)
    weights = np.arange(49, dtype=np.float32)
    for size in (224, 96):
        overlay = attention_overlay(image, weights, (7, 7), size=size)
        assert overlay.shape == (size, size, 3) and overlay.dtype == np.uint8


@pytest.mark.parametrize('value', [0.0, 1 / 49])
def test_even_attention_shows_no_heat(value):
    """Guards against colours that mean nothing: a missing view, or mean pooling."""
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    overlay = attention_overlay(image, np.full(49, value, np.float32), (7, 7))
    np.testing.assert_array_equal(overlay, image)


@pytest.mark.parametrize('place', [(0, 0), (0, 6), (6, 0), (3, 5)])
def test_heat_is_where_the_attention_is(place):
    """Guards rows and columns against being exchanged, and red against blue."""
    weights = np.full((7, 7), 0.001, np.float32)
    weights[place] = 1.0
    overlay = attention_overlay(np.zeros((70, 70, 3), np.uint8), weights.ravel(), (7, 7))
    red = overlay[..., 0].astype(int) - overlay[..., 2]
    hottest = np.unravel_index(red.argmax(), red.shape)
    assert tuple(int(i) // 32 for i in hottest) == place


def test_a_grid_that_is_not_square():
    """Guards bundles whose token map has more columns than rows."""
    weights = np.zeros((2, 4), np.float32)
    weights[0, 2] = 1.0
    overlay = attention_overlay(np.zeros((64, 64, 3), np.uint8), weights.ravel(), (2, 4), size=64)
    red = overlay[..., 0].astype(int) - overlay[..., 2]
    row, column = np.unravel_index(red.argmax(), red.shape)
    assert row < 32 and 32 <= column < 48

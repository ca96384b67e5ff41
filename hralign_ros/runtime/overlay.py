# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Attention as an image: a heat map over what the backbone saw."""

import cv2
from hralign_ros.runtime.images import Image
import numpy as np
from numpy.typing import NDArray


def attention_overlay(
    image: Image, attention: NDArray[np.float32], grid: tuple[int, int], *, size: int = 224,
) -> Image:
    """
    Lay a view's attention over its image.

    The colours span this image's own range, so they compare places within an image and not
    images with one another; even attention shows no heat at all.

    :param image: uint8 [H, W, 3] RGB, as it went into preprocessing.
    :param attention: weights of the image's tokens, float32 [N], N = rows * columns.
    :param grid: rows and columns of the token map.
    :param size: side of the result in pixels.
    :returns: uint8 [size, size, 3] RGB.
    """
    base = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    weights = attention.reshape(grid).astype(np.float32)
    span = float(weights.max() - weights.min())
    mean = float(weights.mean())
    if mean <= 0.0 or span < 0.01 * mean:
        return np.asarray(base, np.uint8)
    heat = cv2.resize((weights - weights.min()) / span, (size, size),
                      interpolation=cv2.INTER_CUBIC)
    heat = np.clip(heat, 0.0, 1.0)
    colours = cv2.cvtColor(
        cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    opacity = 0.15 + 0.45 * heat[..., None]
    return np.asarray(base * (1.0 - opacity) + colours * opacity, np.uint8)

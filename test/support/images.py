# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Images to encode, and the time at which they were taken."""

import cv2
import numpy as np

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def image(seed=0, height=480, width=640):
    """Make an image with large shapes, such as a backbone tells apart."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def three(seed=0, size=32):
    """Make one image for each view of the tiny bundle."""
    rng = np.random.default_rng(seed)
    return {view: rng.integers(0, 256, (size, size, 3), np.uint8)
            for view in ('left', 'middle', 'right')}

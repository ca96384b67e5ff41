# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Names and noise that the tests of all metrics use."""

import numpy as np


def ids(count, name='p'):
    return np.array([f'{name}{i:03d}' for i in range(count)])


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)

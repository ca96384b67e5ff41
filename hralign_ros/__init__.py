# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Task-aware embeddings and calibrated success probabilities from a wrist and a fixed camera."""

__version__ = '0.2.0'

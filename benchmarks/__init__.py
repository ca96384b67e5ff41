# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Measurements, by what they measure; run from the root: python -m benchmarks.GROUP.NAME."""

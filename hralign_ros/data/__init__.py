# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Data sets of paired clips: the manifest, its splits, readers of other formats, samplers."""

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Paired human and robot episodes in simulation; runs in a virtual environment of its own."""

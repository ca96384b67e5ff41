# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Torch modules: backbones, adapters, task attention and the success head."""

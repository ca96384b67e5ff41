# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""From torch modules to a bundle: graphs, text encoder, card, parity checks."""

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Domain gap and retrieval of the adapted encoder, and what its training costs."""

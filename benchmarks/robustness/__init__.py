# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Hours and millions of ticks, and what docs/faults/reliability.md gathers."""

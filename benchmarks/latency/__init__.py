# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The node beside the bare graphs: latency, processor time, memory, starts, GPU."""

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Success detection: baselines, ablations, held-out conditions, few clips."""

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

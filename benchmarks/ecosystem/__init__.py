# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What users have beside us, run with its own code: a module a consumer."""

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What each command of `hralign` asks for and does, one module per part of the work."""

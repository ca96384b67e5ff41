# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What tests share: processes under test, tiny bundles and data sets."""

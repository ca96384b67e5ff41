# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A local web page on which a person labels the episodes of a data set."""

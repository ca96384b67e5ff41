# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What can go wrong in the models."""

from hralign_ros.runtime.errors import HralignError


class ModelError(HralignError, ValueError):
    """A model that there is not, that cannot be cut as asked, or weights that do not fit it."""

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

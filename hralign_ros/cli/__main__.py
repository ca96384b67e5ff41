# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""`python -m hralign_ros.cli`."""

import sys

from hralign_ros.cli.main import main

sys.exit(main())

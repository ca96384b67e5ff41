# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Fuzzing: what is fuzzed, and the program that does it: make fuzz."""

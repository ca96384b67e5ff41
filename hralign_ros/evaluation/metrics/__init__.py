# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What an embedding or a success head is worth, from plain arrays, a module for each question.

Features are float32 or float64 [n, C], one row per clip or frame; labels are strings, one per
row. Every function says what it refuses with an EvaluationError; none of them changes its input,
and equal input and seed give equal output.
"""

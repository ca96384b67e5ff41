# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What an embedding is worth, from plain arrays: retrieval, domain gap, collapse, tasks, actions.

Features are float32 or float64 [n, C], one row per clip or frame; labels are strings, one per
row. Every function says what it refuses with an EvaluationError; none of them changes its input,
and equal input and seed give equal output.
"""

from hralign_ros.evaluation.metrics.domain_gap import proxy_a_distance, ProxyDistance
from hralign_ros.evaluation.metrics.nearest_neighbour import (
    nearest_neighbour_policy,
    Policy,
    policy_difference,
)
from hralign_ros.evaluation.metrics.probes import (
    action_probe,
    Probe,
    proprio_probe,
    r2_difference,
)
from hralign_ros.evaluation.metrics.retrieval import Retrieval, retrieval, retrieval_with_queries
from hralign_ros.evaluation.metrics.spread import linear_cka, Spread, spread
from hralign_ros.evaluation.metrics.task_separability import (
    Separability,
    separability,
    task_distance_ratio,
)

__all__ = [
    'Policy',
    'Probe',
    'ProxyDistance',
    'Retrieval',
    'Separability',
    'Spread',
    'action_probe',
    'linear_cka',
    'nearest_neighbour_policy',
    'policy_difference',
    'proprio_probe',
    'proxy_a_distance',
    'r2_difference',
    'retrieval',
    'retrieval_with_queries',
    'separability',
    'spread',
    'task_distance_ratio',
]

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What an embedding is worth, from plain arrays: retrieval, domain gap, collapse, tasks, actions.

Features are float32 or float64 [n, C], one row per clip or frame; labels are strings, one per
row. Every function says what it refuses with an EvaluationError; none of them changes its input,
and equal input and seed give equal output.
"""

from hralign_ros.evaluate.metrics.e1_retrieval import Retrieval, retrieval, retrieval_with_queries
from hralign_ros.evaluate.metrics.e2_gap import proxy_a_distance, ProxyDistance
from hralign_ros.evaluate.metrics.e3_spread import linear_cka, Spread, spread
from hralign_ros.evaluate.metrics.e4_tasks import Separability, separability, task_distance_ratio
from hralign_ros.evaluate.metrics.e5_probes import (
    action_probe,
    Probe,
    proprio_probe,
    r2_difference,
)
from hralign_ros.evaluate.metrics.e6_policy import (
    nearest_neighbour_policy,
    Policy,
    policy_difference,
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

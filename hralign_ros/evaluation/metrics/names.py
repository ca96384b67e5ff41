# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The names of all metrics: what code, JSON, CSV and tables call them.

What a value was measured under (gallery, direction, text, ...) is no part of a name: these are
the conditions of a row, beside its metric, variant and split.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """
    One metric.

    :param label: what charts and tables for people call it.
    :param better: higher, lower, or '' where neither is.
    :param measures: what it is, in one sentence.
    :param chance: what guessing gives, where this is one number; rows may say another one.
    """

    label: str
    better: str
    measures: str
    unit: str = ''
    chance: float | None = None


_RIGHT_CLIP = 'Conditions give the gallery, the direction of the search, and the text of both.'
METRICS: Mapping[str, Metric] = {
    # Of an embedding.
    'retrieval_r1': Metric(
        'R@1', 'higher', f'Fraction of queries whose nearest clip is a right one. {_RIGHT_CLIP}'),
    'retrieval_r5': Metric(
        'R@5', 'higher', f'Fraction of queries with a right clip in the nearest five. '
        f'{_RIGHT_CLIP}'),
    'retrieval_map': Metric(
        'mAP', 'higher', f'Mean over queries of the average precision. {_RIGHT_CLIP}'),
    'retrieval_median_rank': Metric(
        'median rank', 'lower', f'Median over queries of the first right rank. {_RIGHT_CLIP}'),
    'proxy_a_distance': Metric(
        'proxy A-distance', 'lower', 'How well a classifier tells human from robot clips: '
        '2 always, 0 not at all.', chance=0.0),
    'linear_cka': Metric(
        'linear CKA', 'higher', 'Similarity of the human and the robot clips of the pairs, '
        'unbiased.', chance=0.0),
    'effective_rank': Metric(
        'effective rank', '', 'How many directions the robot features use.'),
    'feature_variation': Metric(
        'feature variation', '', 'How far robot features are spread: 0 if all are the same.'),
    'task_distance_ratio': Metric(
        'distance within / between tasks', 'lower', 'Mean cosine distance of robot clips of one '
        'task, over that of different tasks.', chance=1.0),
    'task_accuracy': Metric(
        'task accuracy in a new scene', 'higher', 'Fraction of robot clips whose task a '
        'classifier names that did not see their scene.'),
    'task_accuracy_drop': Metric(
        'drop of task accuracy', 'lower', 'How much of the task accuracy is lost by not having '
        'seen the scene.'),
    'action_r2': Metric(
        'action R²', 'higher', 'Fraction of the variance of the action that a ridge regression '
        'on two frames explains.', chance=0.0),
    'proprioception_r2': Metric(
        'proprioception R²', 'higher', 'Fraction of the variance of the state of the arm that a '
        'ridge regression on one frame explains.', chance=0.0),
    'nearest_neighbour_action_error': Metric(
        'nearest-neighbour action error', 'lower', 'Mean absolute error of the actions of the '
        'nearest demo frames, in deviations of each dimension; open loop.'),
    # Of a success head.
    'auroc': Metric(
        'AUROC', 'higher', 'Probability that an accomplished tick scores above another one; of '
        'one random and the last tick of each attempt.', chance=0.5),
    'auroc_at_end': Metric(
        'AUROC at the end', 'higher', 'Probability that the last tick of a success scores above '
        'that of a failure. The condition gives what the failures are due to: what the '
        'instruction means (language), or how it was done (motion).', chance=0.5),
    'average_precision': Metric(
        'average precision', 'higher', 'Area under precision over recall, of the same ticks; '
        'chance is the prevalence.'),
    'fpr_at_95_recall': Metric(
        'false positives at 95 % recall', 'lower', 'Fraction of other ticks that score above the '
        'threshold that finds 95 % of the accomplished ones.', chance=0.95),
    'expected_calibration_error': Metric(
        'ECE', 'lower', 'Mean difference of stated probability and observed frequency, 15 bins '
        'of equal mass, debiased.'),
    'brier_score': Metric(
        'Brier score', 'lower', 'Mean squared difference of probability and outcome.'),
    'negative_log_likelihood': Metric(
        'NLL', 'lower', 'Mean negative logarithm of the probability of what happened.', 'nat'),
    'false_alarm_rate': Metric(
        'false alarms', 'lower', 'Fraction of the attempts that never succeed in which SUCCESS is '
        'decided, with the threshold for alpha; chance is alpha, the guarantee.'),
    'early_success_rate': Metric(
        'decided too early', 'lower', 'Fraction of the attempts that succeed, be it for a while, '
        'in which SUCCESS is decided before; chance is the guarantee.'),
    'missed_success_rate': Metric(
        'missed successes', 'lower', 'Fraction of the attempts that end accomplished, and have '
        'been for the dwell time, in which SUCCESS is not decided.'),
    'success_delay_median': Metric(
        'median delay', 'lower', 'Time from the first accomplished frame to SUCCESS, of those '
        'decided and not too early: median.', 's'),
    'success_delay_p90': Metric(
        '90 % delay', 'lower', 'The same: 90 % quantile.', 's'),
    'false_success_rate': Metric(
        'false SUCCESS per segment', 'lower', 'Fraction of the segments of a stream, in which '
        'nothing is accomplished, in which SUCCESS is decided.'),
    'progress_rank_correlation': Metric(
        'progress against time', '', 'Rank correlation of the progress with time; high in '
        'successes, low in failures and in reversed recordings.', chance=0.0),
    'score_rank_correlation': Metric(
        'raw score against time', '', 'Rank correlation of the raw score with time; high in '
        'successes, low in failures and in reversed recordings.', chance=0.0),
    'instruction_accuracy': Metric(
        'right instruction of all', 'higher', 'Fraction of the successes whose last tick scores '
        'highest for their own instruction.'),
    'confident_error_rate': Metric(
        'wrongly above 0.9', 'lower', 'Fraction of the attempts that never succeed with a '
        'probability above 0.9 at any tick.'),
    'failure_mode_information': Metric(
        'mutual information of mode and kind', 'higher', 'Normalised mutual information, within '
        "tasks, of the mode named at the end of a failure and the simulator's kind."),
    'failure_kind_accuracy': Metric(
        'failure kind named right', 'higher', 'Fraction of failures whose kind is what most '
        'training failures of the named mode are; chance names what most failures of the task '
        'are.'),
    'status_rate': Metric(
        'ticks with a status bit', '', 'Fraction of the ticks of which a result carries the bit.'),
}


HUMAN_TO_ROBOT, ROBOT_TO_HUMAN = 'human_to_robot', 'robot_to_human'
# Conditions of R@1 where one figure has to do: the background leads astray.
MAIN_RETRIEVAL = {'gallery': 'other_scenes', 'direction': HUMAN_TO_ROBOT, 'text': 'task'}


def describe(metric: str, conditions: Mapping[str, Any]) -> str:
    """Write a metric and its conditions for people: a title of a chart, a line of a warning."""
    known = METRICS.get(metric)
    label = metric if known is None else f'{known.label} [{known.unit}]' if known.unit \
        else known.label
    parts = [f'{key.replace("_", " ")} {str(value).replace("_", " ")}'
             for key, value in conditions.items()]
    return ', '.join([label, *parts])

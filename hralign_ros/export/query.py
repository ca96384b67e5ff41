# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A task query that needs no robot data: from words to the directions of an ImageNet classifier.

An untrained query would attend to noise. Here a ridge regression maps the text feature of a class
name to that class's weight vector in the backbone's own classifier, so that the attention to "put
the cup in the bowl" leans to where the classifier would see cups and bowls. It stands in until
the adaptation on paired video trains the query.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# A class name as people say it in an instruction; {} is the name.
TEMPLATES = ('{}', 'pick up the {}', 'put the {} on the table', 'move the {} to the left')
_PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


@dataclass(frozen=True)
class Query:
    """
    A linear layer from text features to queries.

    :param weight: float32 [C, D].
    :param bias: float32 [C].
    :param held_out_median_rank: of the right one among all classes, for class names left out.
    """

    weight: Floats
    bias: Floats
    held_out_median_rank: float


def fit_query(
    classifier: Floats, names: Sequence[str], encode: Callable[[str], Floats], *, seed: int = 0,
) -> Query:
    """
    Fit the regression; the penalty is chosen on classes left out.

    :param classifier: weight of the classifier, float32 [classes, C].
    :param names: name of each class.
    :param encode: text -> feature of norm 1, float32 [D].
    """
    texts = np.stack([[encode(template.format(name)) for name in names]
                      for template in TEMPLATES])
    centre = texts.reshape(-1, texts.shape[-1]).mean(0)
    texts = texts - centre
    directions = classifier - classifier.mean(0)
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)

    order = np.random.default_rng(seed).permutation(len(names))
    held_out, kept = order[:len(names) // 10], order[len(names) // 10:]
    ranks = {}
    for penalty in _PENALTIES:
        weight = _ridge(texts[:, kept], directions[kept], penalty)
        guess = texts[1, held_out] @ weight.T
        scores = (guess / np.linalg.norm(guess, axis=1, keepdims=True)) @ directions.T
        right = scores[np.arange(len(held_out)), held_out]
        ranks[penalty] = float(np.median((scores > right[:, None]).sum(1) + 1))
    penalty = min(ranks, key=ranks.__getitem__)
    weight = _ridge(texts, directions, penalty)
    return Query(
        weight.astype(np.float32), (-weight @ centre).astype(np.float32), ranks[penalty])


def _ridge(texts: Floats, directions: Floats, penalty: float) -> Floats:
    """Solve for [C, D], all templates at once."""
    x = texts.reshape(-1, texts.shape[-1])
    y = np.tile(directions, (texts.shape[0], 1))
    gram = x.T @ x + penalty * texts.shape[0] * np.eye(x.shape[1], dtype=np.float32)
    return np.asarray(np.linalg.solve(gram, x.T @ y).T, np.float32)


def scaled(query: Query, tokens: Floats, texts: Floats, *, spread: float = 1.5) -> Query:
    """
    Scale a query so that attention is neither even nor a single token.

    At a spread of 0.75 an instruction attends to a third to two thirds of a clip's tokens; at
    twice that the embedding of a moving scene jumps from frame to frame.

    :param tokens: of sample frames, float32 [B, N, C].
    :param texts: of sample tasks, float32 [M, D].
    :param spread: wanted standard deviation of the scores over a frame's tokens.
    """
    queries = texts @ query.weight.T + query.bias
    scores = np.einsum('bnc,mc->mbn', tokens, queries)
    factor = np.float32(spread / scores.std(axis=2).mean())
    return replace(query, weight=query.weight * factor, bias=query.bias * factor)

# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The classifiers of the metrics: one strength for all variants."""

from typing import Any, Literal
import warnings

from hralign_ros.evaluation.bootstrap import Floats
import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import threadpool_limits

# Strength of the logistic regressions; fixed, so that no variant gets a better tuned one. Strong
# regularisation is what separates held-out groups best with more features than clips.
LOGISTIC_C = 0.01
MLP_UNITS = 64
MLP_EPOCHS = 100

Classifier = Literal['linear', 'mlp']


def classify(
    classifier: Classifier, x: Floats, y: NDArray[Any], test: Floats, seed: int,
) -> NDArray[Any]:
    """Train on standardised features with classes of equal weight; return labels for test."""
    scaler = StandardScaler().fit(x)
    x, test = scaler.transform(x), scaler.transform(test)
    if classifier == 'linear':
        model = LogisticRegression(C=LOGISTIC_C, max_iter=1000)
        with threadpool_limits(1):
            x, test = span(x, test)
    else:
        model = MLPClassifier((MLP_UNITS,), alpha=1e-3, max_iter=MLP_EPOCHS, random_state=seed)
        x, test = x.astype(np.float32), test.astype(np.float32)
    # On busy cores threads wait for each other longer than they work.
    with threadpool_limits(1), warnings.catch_warnings():
        # The number of epochs is the budget; whether it was enough for the last digit is not news.
        warnings.simplefilter('ignore', ConvergenceWarning)
        model.fit(x, y, sample_weight=compute_sample_weight('balanced', y))
    return np.asarray(model.predict(test))


def span(x: Floats, test: Floats) -> tuple[Floats, Floats]:
    """
    Write rows in coordinates of the space that the training rows span, where that is smaller.

    Penalised linear models are the same there: their weights lie in that space.
    """
    if len(x) >= x.shape[1]:
        return x, test
    values, vectors = np.linalg.eigh(x @ x.T)
    kept = values > values.max() * 1e-10
    if not kept.any():
        return x, test
    scaled = vectors[:, kept] / np.sqrt(values[kept])
    return vectors[:, kept] * np.sqrt(values[kept]), test @ x.T @ scaled

"""Costs of decisions: a cost matrix (K, K), costs[true, predicted]; the decision is the class of least expected cost.

Decisions argmax p_k w_k with class weights w (K,) correspond to a cost of w_true for every mistake.

Source: Elkan, The Foundations of Cost-Sensitive Learning (2001).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ballast.exceptions import UserError, suggestion


def expected_costs(posteriors: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Expected cost (n, K) of assigning each message to each class: posteriors (n, K), costs (K, K).

    Examples
    --------
    >>> costs = np.array([[0.0, 1.0], [5.0, 0.0]])
    >>> expected_costs(np.array([[0.8, 0.2]]), costs)
    array([[1. , 0.8]])
    """
    return posteriors @ costs


def decide(posteriors: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """The class (n,) of least expected cost: posteriors (n, K), costs (K, K). The first class wins ties.

    Examples
    --------
    >>> costs = np.array([[0.0, 1.0], [5.0, 0.0]])
    >>> decide(np.array([[0.8, 0.2], [0.9, 0.1]]), costs)
    array([1, 0])
    """
    return expected_costs(posteriors, costs).argmin(axis=1)


def weights_to_costs(weights: np.ndarray) -> np.ndarray:
    """Costs (K, K) with decisions argmax p_k w_k: a mistake costs the weight (K,) of the true class.

    Examples
    --------
    >>> weights_to_costs(np.array([1.0, 5.0]))
    array([[0., 1.],
           [5., 0.]])
    """
    costs = np.repeat(weights[:, None], len(weights), axis=1)
    np.fill_diagonal(costs, 0)
    return costs


def cost_matrix(costs: Mapping[str, Mapping[str, float]], labels: Sequence[str]) -> np.ndarray:
    """Costs (K, K) from {true label: {predicted label: cost}}. The cost of a correct decision defaults to 0.

    Raises UserError with the label or the pair that is wrong.

    Examples
    --------
    >>> cost_matrix({"ham": {"spam": 1.0}, "spam": {"ham": 5.0}}, ["ham", "spam"])
    array([[0., 1.],
           [5., 0.]])
    """
    for name in [*costs, *(predicted for row in costs.values() for predicted in row)]:
        if name not in labels:
            raise UserError(f"names the label {name!r}: {suggestion(name, labels)}")
    matrix = np.zeros((len(labels), len(labels)))
    for row, true in enumerate(labels):
        for column, predicted in enumerate(labels):
            cost = costs.get(true, {}).get(predicted, 0 if row == column else None)
            if cost is None:
                raise UserError(f"misses the cost of predicting {predicted!r} for {true!r} (costs[true][predicted])")
            if not (np.isfinite(cost) and cost >= 0):
                raise UserError(f"the cost of predicting {predicted!r} for {true!r} must be at least 0, not {cost!r}")
            matrix[row, column] = cost
    if not (matrix > np.diag(matrix)[:, None]).any():
        raise UserError("no mistake costs more than the correct decision; raise the cost of a mistake")
    return matrix


def named_costs(costs: np.ndarray, labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Costs (K, K) as {true label: {predicted label: cost}}.

    Examples
    --------
    >>> named_costs(np.array([[0.0, 1.0], [5.0, 0.0]]), ["ham", "spam"])
    {'ham': {'ham': 0.0, 'spam': 1.0}, 'spam': {'ham': 5.0, 'spam': 0.0}}
    """
    return {true: dict(zip(labels, map(float, row), strict=True)) for true, row in zip(labels, costs, strict=True)}


def threshold(costs: np.ndarray, label: int) -> float:
    """The threshold on the posterior of one of two classes that costs (2, 2) imply (Elkan 2001, equation 2).

    Examples
    --------
    >>> costs = np.array([[0.0, 1.0], [4.0, 0.0]])
    >>> threshold(costs, label=1)
    0.2
    """
    other = 1 - label
    false_alarm, miss = costs[other, label] - costs[other, other], costs[label, other] - costs[label, label]
    # If correct decisions cost more than mistakes, the class is always or never predicted.
    return float(np.clip(false_alarm / (false_alarm + miss), 0, 1)) if false_alarm + miss > 0 else float(false_alarm > 0)

"""Review curve: precision and recall of the messages that are decided automatically, against the share that people decide."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ballast.evaluation.bootstrap import bootstrap_draws
from ballast.evaluation.costs import decide
from ballast.evaluation.review import review_order
from ballast.evaluation.statistic import safe_ratio

# Shares of messages that people decide.
SHARES = np.array([0, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2])
DECIMALS = 6
ROUNDING = 1e-12


def review_curve(
    posteriors: np.ndarray,
    classes: np.ndarray,
    costs: np.ndarray,
    label: int,
    class_weights: np.ndarray,
    groups: np.ndarray,
    *,
    kind: str = "budget",
    resamples: int = 200,
    confidence: float = 0.95,
    shares: np.ndarray = SHARES,
) -> dict[str, list[float]]:
    """Precision and recall of a label among the messages that people do not decide, at each share that they decide.

    Parameters
    ----------
    posteriors, classes, groups : (n, K), (n,), (n,) with groups numbered from 0.
    costs, class_weights : (K, K) of the operating point, and (K,) weights that give the class shares of production.
    kind : what people decide first: `budget` for the smallest margin of expected costs, `cost` for the highest expected cost.
    shares : (s,) at the production prior.

    Returns
    -------
    dict
        share (s,); precision, precision_low, precision_high, recall, recall_low and recall_high (s,).

    Examples
    --------
    >>> posteriors, classes = np.array([[0.9, 0.1], [0.45, 0.55], [0.2, 0.8], [0.8, 0.2]]), np.array([0, 0, 1, 0])
    >>> curve = review_curve(posteriors, classes, 1 - np.eye(2), 1, np.ones(2), np.arange(4), shares=np.array([0, 0.25]))
    >>> curve["precision"], curve["recall"]
    ([0.5, 1.0], [1.0, 1.0])
    """
    weights = class_weights[classes]
    order = np.argsort(review_order(posteriors, costs, kind), kind="stable")
    before = np.empty(len(order))
    # The share of messages that people decide no later than a message.
    before[order] = np.cumsum(weights[order]) / weights.sum()
    # The first of these shares at which people decide a message.
    until = np.searchsorted(shares, before - ROUNDING, side="left")
    assigned, member = decide(posteriors, costs) == label, classes == label
    n_groups, width = int(groups.max()) + 1, len(shares) + 1
    rows = [np.flatnonzero(mask) for mask in (assigned & member, assigned, member)]
    columns = np.concatenate([until[part] + position * width for position, part in enumerate(rows)])
    row = np.concatenate(rows)
    cells = sparse.coo_array((weights[row], (groups[row], columns)), shape=(n_groups, 3 * width)).tocsr()

    def rates(totals: np.ndarray) -> dict[str, np.ndarray]:
        left = [part[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:] for part in np.split(totals, 3, axis=1)]
        hits, all_assigned, members = left
        return {"precision": safe_ratio(hits, all_assigned), "recall": safe_ratio(hits, members)}

    draws = bootstrap_draws(lambda counts: rates(counts @ cells), n_groups, resamples, seed=0)
    curve = {"share": shares.tolist()}
    for name, value in rates(cells.sum(axis=0)[None]).items():
        low, high = np.quantile(draws[name], [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
        for suffix, column in (("", value[0]), ("_low", low), ("_high", high)):
            curve[f"{name}{suffix}"] = column.round(DECIMALS).tolist()
    return curve

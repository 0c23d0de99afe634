"""Cost curves: the expected cost of the decisions of a technique against the ratio of the costs of its two mistakes.

Source: Drummond and Holte, Cost Curves: An Improved Method for Visualizing Classifier Performance (2006). Their curves show the
best threshold for each ratio. Here a technique decides by its posteriors, so that the curve also shows what their calibration
costs (Hernández-Orallo, Flach and Ferri, Brier Curves, 2011).
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.special import logit

from ballast.evaluation.bootstrap import bootstrap_draws
from ballast.evaluation.statistic import safe_ratio

# Costs of a miss, in costs of a false alarm.
COST_RATIOS = np.logspace(-2, 2, 41)
DECIMALS = 6


def probability_costs(share: float, ratios: np.ndarray) -> np.ndarray:
    """The probability cost (r,) of cost ratios (r,): the share of the costs of always being wrong that misses have.

    share : of the class in production.

    Examples
    --------
    >>> probability_costs(0.1, np.array([1.0, 9.0]))
    array([0.1, 0.5])
    """
    return share * ratios / (share * ratios + 1 - share)


def cells_of_groups(log_odds: np.ndarray, positive: np.ndarray, groups: np.ndarray, at: np.ndarray) -> sparse.csr_array:
    """Messages (groups, 2r + 2) by group, class and number of the rising thresholds `at` (r,) that they exceed.

    Examples
    --------
    >>> cells_of_groups(np.array([1.0, 3.0]), np.array([True, False]), np.array([0, 1]), np.array([0.0, 2.0])).toarray()
    array([[0., 1., 0., 0., 0., 0.],
           [0., 0., 0., 0., 0., 1.]])
    """
    width = len(at) + 1
    columns = np.searchsorted(at, log_odds, side="left") + np.where(positive, 0, width)
    shape = (int(groups.max()) + 1, 2 * width)
    return sparse.coo_array((np.ones(len(groups)), (groups, columns)), shape=shape).tocsr()


def normalised_costs(cells: np.ndarray, share: float, ratios: np.ndarray) -> np.ndarray:
    """Expected cost (b, r) as a share of the cost of always being wrong, from sums (b, 2r + 2) of `cells_of_groups`.

    ratios : (r,) falling, one for each threshold.

    Examples
    --------
    >>> normalised_costs(np.array([[1.0, 3.0, 6.0, 2.0]]), share=0.5, ratios=np.array([1.0]))
    array([[0.25]])
    """
    at = probability_costs(share, ratios)
    of_class, others = np.split(cells, 2, axis=1)
    misses = of_class.cumsum(axis=1)[:, :-1]
    false_alarms = others[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    miss_rate = safe_ratio(misses, of_class.sum(axis=1, keepdims=True))
    return at * miss_rate + (1 - at) * safe_ratio(false_alarms, others.sum(axis=1, keepdims=True))


def cost_curve(
    log_odds: np.ndarray,
    positive: np.ndarray,
    groups: np.ndarray,
    share: float,
    *,
    resamples: int = 200,
    confidence: float = 0.95,
    ratios: np.ndarray = COST_RATIOS,
) -> dict[str, list[float]]:
    """The cost curve of a class, with an interval at each ratio by the bootstrap over groups.

    Parameters
    ----------
    log_odds, positive, groups : (n,) log odds of the class on the production prior, booleans, and groups numbered from 0.
    share : of the class in production.
    ratios : (r,) costs of a miss, in costs of a false alarm.

    Returns
    -------
    dict
        cost_ratio and probability_cost (r,); value, low and high (r,) of the expected cost, as a share of the cost of always
        being wrong; trivial (r,), the cost of the better of always and never assigning the class.

    Examples
    --------
    >>> curve = cost_curve(np.array([-1.0, 1.0]), np.array([False, True]), np.arange(2), share=0.5, ratios=np.array([1.0]))
    >>> curve["probability_cost"], curve["value"], curve["trivial"]
    ([0.5], [0.0], [0.5])
    """
    # A message is assigned if its expected cost of a miss exceeds that of a false alarm. Rising thresholds: falling ratios.
    falling = -np.sort(-ratios)
    cells = cells_of_groups(log_odds, positive, groups, logit(1 / (1 + falling)))

    def costs(counts: np.ndarray) -> dict[str, np.ndarray]:
        return {"cost": normalised_costs(counts @ cells, share, falling)}

    draws = bootstrap_draws(costs, cells.shape[0], resamples, seed=0)["cost"]
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    value = normalised_costs(cells.sum(axis=0)[None], share, falling)[0]
    at = probability_costs(share, falling)
    columns = {
        "cost_ratio": falling,
        "probability_cost": at,
        "value": value,
        "low": low,
        "high": high,
        "trivial": np.minimum(at, 1 - at),
    }
    return {name: column[::-1].round(DECIMALS).tolist() for name, column in columns.items()}

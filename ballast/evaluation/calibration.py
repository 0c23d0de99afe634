"""Bias-corrected temperature scaling, fitted on validation only.

Source: Guo et al., On Calibration of Modern Neural Networks (1706.04599), temperature; Alexandari, Kundaje and
Shrikumar, Maximum Likelihood with Bias-Corrected Calibration (1901.06852), the bias per class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

# A temperature outside this range only means that the classes are separable on validation.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0
# Pulls the fit towards no change with the weight of one observation. Without it, separable classes have no optimum.
PENALTY = 1.0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Calibrated logits are logits / temperature + bias (K,).

    Examples
    --------
    >>> Calibration(temperature=2.0, bias=np.array([0.0, 1.0])).apply(np.array([[4.0, -4.0]]))
    array([[ 2., -1.]])
    """

    temperature: float
    bias: np.ndarray

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Calibrate logits (n, K)."""
        return logits / self.temperature + self.bias


def fit_calibration(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """Fit temperature and bias on logits (n, K) and labels (n,) by penalised maximum likelihood.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(2, size=5000)
    >>> score = rng.normal(2 * labels - 1, 1)
    >>> overconfident = np.column_stack([np.zeros(5000), 6 * score])
    >>> fitted = fit_calibration(overconfident, labels)
    >>> round(fitted.temperature, 1)
    3.0
    """
    observations, classes = logits.shape
    one_hot = np.eye(classes)[labels]

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        inverse_temperature = np.exp(-parameters[0])
        scaled = logits * inverse_temperature
        log_posterior = log_softmax(scaled + parameters[1:], axis=1)
        residual = np.exp(log_posterior) - one_hot
        gradient = np.concatenate([[-(residual * scaled).sum()], residual.sum(axis=0)]) + PENALTY * parameters
        value = -log_posterior[one_hot.astype(bool)].sum() + PENALTY * (parameters**2).sum() / 2
        return value / observations, gradient / observations

    bounds = [(np.log(LOWEST_TEMPERATURE), np.log(HIGHEST_TEMPERATURE))] + [(None, None)] * classes
    result = minimize(objective, np.zeros(classes + 1), jac=True, method="L-BFGS-B", bounds=bounds)
    bias = result.x[1:]
    return Calibration(temperature=float(np.exp(result.x[0])), bias=bias - bias.mean())

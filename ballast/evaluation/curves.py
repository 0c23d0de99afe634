"""Precision-recall curves, calibration curves and confusion matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import log_softmax

from ballast.evaluation.metrics import CALIBRATION_BINS
from ballast.evaluation.protocol import Protocol
from ballast.evaluation.ranking import one_vs_rest
from ballast.evaluation.statistic import safe_ratio

# Points of a curve: enough for a smooth line, few enough for a page with dozens of techniques.
CURVE_POINTS = 200


def precision_recall_curve(log_odds: np.ndarray, positive: np.ndarray) -> dict[str, list[float]]:
    """Recall and precision at falling thresholds, thinned, from log_odds (n,) and positive (n,) booleans."""
    scores, rank = np.unique(log_odds, return_inverse=True)
    hits = np.cumsum(np.bincount(rank, weights=positive)[::-1])
    assigned = np.cumsum(np.bincount(rank)[::-1])
    chosen = np.unique(np.linspace(0, len(scores) - 1, CURVE_POINTS).astype(int))
    chosen = np.union1d(chosen, np.searchsorted(hits, np.linspace(1, hits[-1], CURVE_POINTS // 2)))
    precision, recall = safe_ratio(hits, assigned)[chosen], (hits / hits[-1])[chosen]
    return {"recall": [round(float(x), 6) for x in recall], "precision": [round(float(x), 6) for x in precision]}


def calibration_curve(probability: np.ndarray, positive: np.ndarray) -> dict[str, list[float]]:
    """Mean probability, class share and messages of each non-empty bin, from probability (n,) and positive (n,) booleans."""
    bins = np.minimum((probability * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    count = np.bincount(bins, minlength=CALIBRATION_BINS)
    filled = count > 0
    mean = np.bincount(bins, weights=probability, minlength=CALIBRATION_BINS)[filled] / count[filled]
    share = np.bincount(bins, weights=positive, minlength=CALIBRATION_BINS)[filled] / count[filled]
    return {"mean_probability": mean.round(6).tolist(), "share": share.round(6).tolist(), "messages": count[filled].tolist()}


def curves(logits: np.ndarray, protocol: Protocol) -> dict[str, Any]:
    """Precision-recall and calibration curve of each class from test logits (n, K)."""
    log_posterior = log_softmax(logits, axis=1)
    by_kind: dict[str, Any] = {"precision_recall": {}, "calibration": {}}
    for label, name in enumerate(protocol.names):
        positive = protocol.test.classes == label
        by_kind["precision_recall"][name] = precision_recall_curve(one_vs_rest(log_posterior, label), positive)
        by_kind["calibration"][name] = calibration_curve(np.exp(log_posterior[:, label]), positive)
    return by_kind


def confusion(logits: np.ndarray, protocol: Protocol) -> list[list[int]]:
    """Test messages by class (rows) and predicted class (columns)."""
    classes = len(protocol.names)
    cells = np.bincount(protocol.test.classes * classes + logits.argmax(axis=1), minlength=classes**2)
    return cells.reshape(classes, classes).tolist()

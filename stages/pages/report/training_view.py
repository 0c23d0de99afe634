"""Training curves in the report: the loss of each technique over its training."""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.pages.drawing import points
from stages.pages.report.results import Results

# Batches differ, so that the loss of single steps is noisy. The line shows means of this many parts of the training.
PARTS = 20


def loss_curve(steps: np.ndarray, losses: np.ndarray, parts: int = PARTS) -> tuple[list[float], list[float]]:
    """Mean loss of each part of a training, relative to the first part: shares of the training, and relative losses.

    Examples
    --------
    >>> loss_curve(np.arange(1, 9), np.array([0.5, 0.3, 0.2, 0.2, 0.1, 0.1, 0.0, 0.2]), parts=2)
    ([0.25, 0.75], [1.0, 0.333...])
    """
    part = np.minimum((steps - 1) * parts // steps.max(), parts - 1).astype(int)
    filled = np.unique(part)
    means = np.array([losses[part == number].mean() for number in filled])
    return ((filled + 0.5) / parts).tolist(), (means / means[0]).tolist()


def training_curves(results: Results) -> list[dict[str, Any]]:
    """A line for each technique that is trained in steps, of its first seed; losses of techniques have different units."""
    losses = results.losses
    first = losses[losses["seed"] == results.params.train.seeds[0]]
    lines = []
    for key, of_technique in first.groupby("technique"):
        name = str(key)
        if name in results.names and len(of_technique) > 1:
            xs, ys = loss_curve(of_technique["step"].to_numpy(), of_technique["loss"].to_numpy())
            path = points(xs, np.clip(ys, 0, 1).tolist())
            lines.append({"at": results.names.index(name), "name": name, "role": results.role(name), "path": path})
    return sorted(lines, key=lambda line: results.drawing_rank(line["role"]))

"""Estimate the quality of windows with NannyML's CBPE. NannyML's own environment runs this file; it imports nothing of Ballast.

Each argument is an npz file: posteriors of the class (d, m), decisions (d, m) and truth (d, m) of the labelled messages, and
posteriors (d, n) and decisions (d, n) of the windows. The output is a line of JSON for each file: metric -> values (d,).
"""

from __future__ import annotations

import json
import sys
import warnings
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd

METRICS = ["precision", "recall", "f1"]


def estimated(peer: Any, held_out: pd.DataFrame, window: pd.DataFrame) -> dict[str, float]:
    """CBPE's metrics of a window, fitted on the labelled messages."""
    columns = {"y_pred_proba": "probability", "y_pred": "decided", "y_true": "true"}
    estimator = peer.CBPE(problem_type="classification_binary", metrics=METRICS, chunk_number=1, **columns)
    estimator.fit(held_out)
    table = estimator.estimate(window).filter(period="analysis").to_df()
    return {metric: float(table[(metric, "value")].iloc[0]) for metric in METRICS}


def main(paths: list[str]) -> None:
    # NannyML's dependencies warn about each other.
    warnings.simplefilter("ignore")
    peer = import_module("nannyml")
    for path in paths:
        arrays = np.load(path)
        values: dict[str, list[float]] = {metric: [] for metric in METRICS}
        for draw, true in enumerate(arrays["truth"]):
            held_out = {"probability": arrays["held_out"][draw], "decided": arrays["held_out_decided"][draw], "true": true}
            window = {"probability": arrays["window"][draw], "decided": arrays["window_decided"][draw]}
            for metric, value in estimated(peer, pd.DataFrame(held_out), pd.DataFrame(window)).items():
                values[metric].append(value)
        print(json.dumps(values))


if __name__ == "__main__":
    main(sys.argv[1:])

"""What the plain baseline trains on: every training message once, with weight 1."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ballast.technique import TrainingData
from stages.store.messages import Messages


def baseline_data(messages: Messages, train: pd.DataFrame) -> TrainingData:
    """The training data of the baseline, from some of the messages."""
    return TrainingData(
        texts=train["text"].tolist(),
        labels=train["class"].to_numpy(),
        weights=np.ones(len(train)),
        label_names=messages.names,
        corpus=messages.table["text"].tolist(),
    )

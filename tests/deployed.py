"""A deployed version made by hand, for tests of what uses it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ballast import models
from ballast.encoders import file_sha256
from ballast.model import Model, PriorModel
from ballast.tfidf_model import fit_tfidf
from stages.files import DEPLOYED


def tfidf(messages: pd.DataFrame) -> Model:
    """A linear model fitted on messages (text, label)."""
    classes, labels = pd.factorize(messages["label"], sort=True)
    return fit_tfidf(list(messages["text"]), classes, np.ones(len(messages)), [str(label) for label in labels], 10.0)


def prior_model(shares: Mapping[str, float]) -> Model:
    """Gives every message the same logits."""
    return PriorModel(labels=list(shares), log_prior=np.log(np.array(list(shares.values()))))


def deploy(folder: Path, model: Model, version: str = "0001", **changes: Any) -> Path:
    """Deploy a model under the folder, with changes of its manifest; by default no class is dearer or rarer than another."""
    made = folder / DEPLOYED / version
    (made / "model").mkdir(parents=True)
    models.save(model, made / "model", {})
    labels, even = model.labels, dict.fromkeys(model.labels, 1 / len(model.labels))
    manifest = {
        "version": version,
        "reason": "promote",
        "window": None,
        "technique": "tfidf",
        "seed": 0,
        "labels": labels,
        "effective_prior": even,
        "production_prior": even,
        "operating_point": {"costs": {true: {other: float(true != other) for other in labels} for true in labels}},
        "files": {str(path.relative_to(made)): file_sha256(path) for path in sorted(made.rglob("*")) if path.is_file()},
        **changes,
    }
    (made / "manifest.json").write_text(json.dumps(manifest))
    history = [{"version": version, "at": "2026-01-31T00:00:00+00:00", "reason": "promote"}]
    (folder / DEPLOYED / "current.json").write_text(json.dumps({"version": version, "history": history}))
    return made

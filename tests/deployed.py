"""A deployed version made by hand, for tests of what uses it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ballast.io.digest import file_sha256
from ballast.models import folder as models
from ballast.models.base import Model
from ballast.models.prior import PriorModel
from ballast.models.tfidf import fit_tfidf
from stages.production.answer import answer_all, write_frame
from stages.store.files import read_json, write_json
from stages.store.project import PROJECT
from tests.project import Project, corpus, project_copy

# What the stage validate writes if it cannot load the encoder; its checks take seconds, and these tests do not need them.
VALIDATION = {"success": True, "expectations": [], "lengths": None}


def tfidf(messages: pd.DataFrame) -> Model:
    """A linear model fitted on messages (text, label)."""
    classes, labels = pd.factorize(messages["label"], sort=True)
    return fit_tfidf(list(messages["text"]), classes, np.ones(len(messages)), [str(label) for label in labels], 10.0)


def prior_model(shares: Mapping[str, float]) -> Model:
    """Gives every message the same logits."""
    return PriorModel(labels=list(shares), log_prior=np.log(np.array(list(shares.values()))))


def deploy(folder: Path, model: Model, version: str = "0001", **changes: Any) -> Path:
    """Deploy a model under the folder, with changes of its manifest; by default no class is dearer or rarer than another."""
    made = folder / PROJECT.deployed / version
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
    write_json(made / "manifest.json", manifest)
    pin = {"sha256": file_sha256(made / "manifest.json")}
    history = [{"version": version, "at": "2026-01-31T00:00:00+00:00", "reason": "promote", **pin}]
    write_json(folder / PROJECT.deployed / "current.json", {"version": version, "history": history})
    return made


def selected_project(folder: Path, python: Path, counts: Mapping[str, int], **changes: Any) -> Project:
    """A project in which a linear model of made-up messages is selected, with changes of its params; DVC ran no stage."""
    project = project_copy(folder, python)
    project.write("messages.csv", corpus(counts))
    quick = {"techniques": {"tfidf": {}}, "train.seeds": [0, 1], "evaluate.resamples": 100, "production.score.id_column": "id"}
    settings = {"ingest.source": "file", "ingest.path": "messages.csv", **quick, **changes}
    project.edit(settings)
    project.write(str(PROJECT.validation), VALIDATION)
    for stage in ("ingest", "search", "techniques", "resample", "train", "evaluate", "probe", "compare", "select"):
        names = [{"name": name} for name in settings["techniques"]] if stage in ("resample", "train", "evaluate") else [{}]
        seeds = [{"seed": seed} for seed in settings["train.seeds"]] if stage in ("resample", "train") else [{}]
        for name, seed in product(names, seeds):
            done = project.stage_here(stage, **name, **seed)
            assert done.code == 0, done.stderr
    return project


def promote(project: Project, **given: Any) -> str:
    """Deploy what is selected, or what else is asked for: the version."""
    arguments = {"source": Path(), "reason": "promote", "window": None, "reprior": None, "only": None}
    flags = dict.fromkeys(("rollback", "listing", "dry_run"), False)
    done = project.stage_here("production.promote", **{**arguments, **flags, **given})
    assert done.code == 0, done.stderr
    return done.stdout.strip()


def traffic(counts: Mapping[str, int], seed: int = 1) -> pd.DataFrame:
    """Messages (id, text, label) that training has not seen."""
    messages = corpus(counts, seed=seed)
    return messages.assign(id=[f"{seed}-{row}" for row in range(1, len(messages) + 1)])


def score(project: Project, window: str, messages: pd.DataFrame) -> None:
    """Score messages (id, text) as a window."""
    project.write(f"incoming/{window}.parquet", messages[["id", "text"]])
    done = project.stage_here("production.score", source=f"incoming/{window}.parquet", window=window)
    assert done.code == 0, done.stderr


def answer(project: Project, window: str, messages: pd.DataFrame) -> None:
    """Answer messages (id, text) in a window, as the process behind the endpoint does."""
    frames = BytesIO()
    write_frame(frames, {"window": window, "requests": [messages[["id", "text"]].to_dict("records")]})
    frames.seek(0)
    with contextlib.chdir(project.folder):
        answer_all(frames, BytesIO())


def watch(project: Project, window: str) -> dict[str, Any]:
    """Take in labels and watch a scored window: what the watch wrote."""
    for stage, given in (("production.feedback", {}), ("production.watch", {"window": window})):
        done = project.stage_here(stage, **given)
        assert done.code == 0, done.stderr
    return dict(read_json(project.folder / PROJECT.watch / f"{window}.json"))


def label(project: Project, name: str, messages: pd.DataFrame) -> None:
    """Deliver the labels of messages (id, label)."""
    project.write(f"{PROJECT.labels}/{name}.csv", messages[["id", "label"]])

"""Correct the deployed version to another class prior: the same weights, a new operating point."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from ballast.evaluation.adjustment import fit, with_intervals
from ballast.evaluation.cross_fitting import out_of_fold
from ballast.evaluation.intervals import intervals, point_values, pooled_draws
from ballast.evaluation.metrics import Decisions
from ballast.evaluation.operating_point import point_as_json, rule_from_json
from ballast.evaluation.protocol import Labelled, Protocol
from ballast.exceptions import UserError, suggestion
from ballast.io.digest import file_sha256
from ballast.io.paths import regular_file
from ballast.labels import check_all_labels
from stages.pages.model_card.text import markdown
from stages.pages.words import decision_rule, metric_name, with_interval
from stages.production.deployed import REFERENCE, Version, check_files, indices
from stages.production.versions import Manifest, shares_in_words
from stages.store.checked import read_frame
from stages.store.files import read_json
from stages.store.project import PROJECT
from stages.store.section import checked, read_yaml
from stages.store.training_sections import Evaluate

NOTE = re.compile(r"<!-- note -->.*?<!-- /note -->\n+", re.DOTALL)


def estimated_prior(window: str, labels: list[str]) -> dict[str, float]:
    """The estimated class prior of a window; raises UserError if there is no estimate."""
    windows = [path.stem for path in PROJECT.watch.glob("*.json")]
    path = PROJECT.watch / f"{window}.json"
    if window not in windows:
        raise UserError(f"no watched window {window!r} in {PROJECT.watch}; {suggestion(window, windows)}")
    try:
        shares = {str(label): float(share) for label, share in read_json(path)["estimated_prior"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: has no estimated_prior with a share for each label") from error
    check_all_labels(f"{path}: estimated_prior", shares, labels)
    if not all(0 < share < 1 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise UserError(f"{path}: the estimated_prior is {shares_in_words(shares)}; expected shares above 0 that sum to 1")
    return {label: shares[label] for label in labels}


def prior_deviation(window: str, labels: list[str]) -> dict[str, float]:
    """Standard deviation of each estimated class share of a window; 0 if there is no interval."""
    watched = read_json(PROJECT.watch / f"{window}.json") if regular_file(PROJECT.watch / f"{window}.json") else {}
    if not watched.get("low"):
        return dict.fromkeys(labels, 0.0)
    width = 2 * ndtri((1 + watched["confidence"]) / 2)
    return {label: float((watched["high"][label] - watched["low"][label]) / width) for label in labels}


def operating_point_for(prior: Mapping[str, float], base: Version) -> dict[str, Any]:
    """The operating point of a version for another production prior, by the version's own rule, as in stage evaluate."""
    labels, point = base.labels, base.manifest["operating_point"]
    settings = base.folder / PROJECT.params
    # The version's own settings, so that the fitted effective prior is the same as before.
    bootstrap = checked(Evaluate, read_yaml(settings)["evaluate"], str(settings))
    held_out = read_frame(base.folder / REFERENCE, required=False)
    split = {name: held_out[held_out["split"] == name] for name in ("validation", "test")}
    logits = {name: rows[[f"logit_{label}" for label in labels]].to_numpy() for name, rows in split.items()}
    validation = labelled_rows(split["validation"], labels)
    protocol = Protocol(
        names=labels,
        out_of_fold=out_of_fold([np.arange(len(validation.classes))], validation.classes, validation.groups),
        test=labelled_rows(split["test"], labels),
        production_prior=np.array([prior[label] for label in labels]),
        rule=rule_from_json(point, labels),
        resamples=bootstrap.resamples,
        confidence=bootstrap.confidence,
        seed=bootstrap.seed,
    )
    # The fit agrees with a prior that it gave or agreed with before, so the effective prior stays.
    fitted = fit(logits["validation"], protocol.out_of_fold, base.effective_prior, protocol)
    if not np.array_equal(fitted.effective, base.effective_prior):
        raise UserError(f"{base.folder / REFERENCE}: its logits do not fit the effective prior; promote the version again")
    fitted = with_intervals(fitted, logits["validation"], protocol.out_of_fold, protocol)
    weights = protocol.production_weights(protocol.test)
    decisions = Decisions(protocol.test_scores(fitted.preferences(fitted.corrected(logits["test"], protocol)), weights))
    values = point_values([decisions], protocol.test)
    draws = pooled_draws({"operating_point": [decisions]}, protocol.test, protocol)["operating_point"]
    return {
        **point,
        **point_as_json(fitted.operating_point, protocol.rule, labels),
        "production_prior": dict(prior),
        "test": intervals([decisions], values, draws, protocol),
    }


def labelled_rows(rows: pd.DataFrame, labels: list[str]) -> Labelled:
    """Classes and groups of rows of the reference."""
    return Labelled(classes=indices(rows["label"], labels), groups=np.unique(rows["group"], return_inverse=True)[1])


def link(path: Path, target: Path) -> None:
    """Make a hard link to a file, or a copy if the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def make_corrected(base: Version, prior: Mapping[str, float], window: str, version: str, folder: Path) -> Manifest:
    """Fill an empty folder with the deployed version on another production prior; returns the manifest."""
    point = operating_point_for(prior, base)
    files = dict(base.manifest["files"])
    for name in files:
        if name != PROJECT.model_card.name:
            link(base.folder / name, folder / name)
    earlier = (base.folder / PROJECT.model_card.name).read_text(encoding="utf-8")
    card = folder / PROJECT.model_card.name
    card.write_text(card_note(base, point, window, version) + NOTE.sub("", earlier), encoding="utf-8")
    files[card.name] = file_sha256(card)
    check_files(folder, files)
    return {**base.manifest, "production_prior": dict(prior), "operating_point": point, "files": files}


def card_note(base: Version, point: Mapping[str, Any], window: str, version: str) -> str:
    """The note on the model card of a corrected version, above the card of the version that the weights come from."""
    label = point["label"] or min(base.labels, key=lambda name: point["production_prior"][name])
    reached = ", ".join(
        f"{metric_name(f'{label}.{metric}')} {with_interval(point['test'][f'{label}.{metric}'])}"
        for metric in ("precision", "recall")
    )
    earlier, prior = (shares_in_words(source["production_prior"]) for source in (base.manifest, point))
    decision, reached = markdown(decision_rule(point, base.labels)), markdown(reached)
    return (
        f"<!-- note -->\n> **Version {version}** has the weights of version {base.name}, corrected from the class prior"
        f" {markdown(earlier)} to {markdown(prior)}, as estimated for the window {markdown(window)}.\n"
        f"> Its operating point was chosen again: {decision}. On the test messages, weighted to this prior: {reached}.\n"
        "> Priors, operating point and metrics below are those of the version that was first deployed with these weights.\n"
        "<!-- /note -->\n\n"
    )

"""Correct the deployed version to another class prior: the same weights, a new operating point."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

from ballast.evaluation.adjustment import adjust
from ballast.evaluation.intervals import intervals, point_values, pooled_draws
from ballast.evaluation.metrics import Decisions
from ballast.evaluation.operating_point import rule_from_json
from ballast.evaluation.out_of_fold import out_of_fold_estimates
from ballast.evaluation.protocol import Protocol
from ballast.exceptions import UserError, suggestion
from ballast.io.digest import file_sha256
from ballast.io.paths import regular_file
from ballast.labels import check_all_labels
from stages.pages.model_card.text import markdown
from stages.pages.words import decision_rule, metric_name, with_interval
from stages.production.deployed import REFERENCE, Version, check_files
from stages.production.reference import ReferenceScores, read_held_out, reference_scores
from stages.production.versions import Manifest, shares_in_words
from stages.store.files import read_json
from stages.store.params import read_params
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
    held_out = reference_scores(read_held_out(base), base.labels, declared_prior(base))
    protocol = protocol_for(prior, base, held_out)
    adjusted = adjust(held_out.scores, protocol)
    # The same scores give the same prior, except for rounding on another machine.
    if not np.allclose(adjusted.fit.effective, base.effective_prior, rtol=1e-5, atol=0):
        raise UserError(f"{base.folder / REFERENCE}: its logits do not fit the effective prior; promote the version again")
    weights = protocol.production_weights(protocol.test)
    # As stage select: an ensemble is tested as it is deployed, a single training as the mean of its kind.
    test = adjusted.test if held_out.ensemble is None else [adjusted.fit.corrected(held_out.ensemble, protocol)]
    decisions = [Decisions(protocol.test_scores(adjusted.fit.preferences(logits), weights)) for logits in test]
    values = point_values(decisions, protocol.test)
    draws = pooled_draws({"operating_point": decisions}, protocol.test, protocol)["operating_point"]
    # Earlier releases stored metrics of validation, which are for the former prior.
    point = {key: value for key, value in base.manifest["operating_point"].items() if key != "validation"}
    return {
        **point,
        **adjusted.as_json(protocol)["operating_point"],
        "production_prior": dict(prior),
        "out_of_fold": out_of_fold_estimates(adjusted, protocol).estimates["operating_point"],
        "test": intervals(decisions, values, draws, protocol),
    }


def declared_prior(base: Version) -> np.ndarray | None:
    """The declared prior (K,) of a version's technique, or None.

    Versions of earlier releases do not name it. With the effective prior in its place, the fit gives that again: it agrees
    with a prior that it gave or agreed with before.
    """
    declared = base.manifest.get("declared_prior", base.manifest["effective_prior"])
    return None if declared is None else np.array([declared[label] for label in base.labels])


def protocol_for(prior: Mapping[str, float], base: Version, held_out: ReferenceScores) -> Protocol:
    """The protocol of a version's own settings for another production prior."""
    labels, point = base.labels, base.manifest["operating_point"]
    settings = base.folder / PROJECT.params
    # Its own bootstrap, so that the fitted effective prior is the same as before. Earlier releases had fewer settings.
    evaluate = {**read_params().evaluate.model_dump(), **read_yaml(settings)["evaluate"]}
    bootstrap = checked(Evaluate, evaluate, str(settings))
    return Protocol(
        names=labels,
        out_of_fold=held_out.out_of_fold,
        test=held_out.test,
        production_prior=np.array([prior[label] for label in labels]),
        rule=rule_from_json(point, labels),
        resamples=bootstrap.resamples,
        confidence=bootstrap.confidence,
        seed=bootstrap.seed,
    )


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

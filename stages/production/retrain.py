"""The steps of a retraining outside the pipeline: prepare a checkout, compare its model, and record the decision.

`prepare` makes `production/retrain/<key>/worktree/`: the commit that is checked out here, these params with the new prior, and
all feedback that is new to the data. `challenge` compares the model that the pipeline selected there with the deployed one, and
writes `production/retrain/<key>/challenge.json`. `bring-home` copies the result of a promoted retraining to this checkout, so
that `dvc repro` has nothing to do here. `conclude` writes `decision.json`, which marks the retraining as done, and removes its
checkout. Each step can be repeated: it reuses existing results.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from ballast.cli import parser, run
from ballast.evaluation.operating_point import cost_matrix
from ballast.evaluation.priors import correct_prior
from ballast.exceptions import UserError, suggestion
from ballast.monitoring.challenge import ChallengeProtocol, Contender, challenge
from stages.production.checkouts import bring, changed_since, remove_checkout, run_git
from stages.production.deployed import Version, current_version, read_version
from stages.production.feedback import read_feedback
from stages.production.home import CODE, STATE, bring_home, state_here
from stages.production.members import members_of, test_logits, trainings_of
from stages.production.reference import read_held_out
from stages.production.reprior import estimated_prior, operating_point_for
from stages.production.retrained_params import retrained
from stages.production.windows import WINDOW, quoted_name
from stages.store.checked import read_frame, write_table
from stages.store.files import LONGEST_NAME, locked, read_json, replaced, write_json
from stages.store.logits import read_training
from stages.store.params import Params, read_params
from stages.store.project import PROJECT, Project
from stages.store.units import read_with_units

REFERENCE_TECHNIQUE = "baseline"


def prior_for(window: str | None, version: Version) -> dict[str, float]:
    """The prior to train for: that of the window, else that of the deployed version.

    If recall fell, the estimate of the window is wrong, because it assumes the earlier recall.
    """
    estimate = None if window is None else estimated_prior(window, version.labels)
    if estimate is None or read_json(PROJECT.watch / f"{window}.json").get("recall_fell"):
        return {label: float(share) for label, share in zip(version.labels, version.production_prior, strict=True)}
    return estimate


def write_params(home: Path, text: str, params: Params, prior: dict[str, float], technique: str) -> dict[str, Any]:
    """Write params with the new prior into the checkout; `production.retrain.techniques` says which entries they keep.

    Returns the omitted entries, and whether they are deleted; the former file is then beside the checkout.
    """
    entries = {technique, REFERENCE_TECHNIQUE} if params.production.retrain.techniques == "deployed" else None
    made = retrained(text, prior, entries, home.name)
    if made.deleted:
        (home / PROJECT.params).write_bytes(text.encode())
    with replaced(home / "worktree" / PROJECT.params) as temporary:
        temporary.write_bytes(made.text.encode())
    # It may hold secrets that only its owner may read.
    for path in (home / PROJECT.params, home / "worktree" / PROJECT.params):
        if path.exists():
            shutil.copymode(PROJECT.params, path)
    return {"left_out": made.left_out, "deleted": made.deleted}


def feedback_so_far() -> pd.DataFrame:
    """The rows for data/feedback.parquet: present rows and new ones of production; the last label of a message counts."""
    arrived = read_feedback().query("new")[["id", "text", "label", "split"]]
    earlier = [read_frame(PROJECT.feedback, required=False)[list(arrived.columns)]] if PROJECT.feedback.exists() else []
    return pd.concat([*earlier, arrived]).astype("str").drop_duplicates(["id", "text"], keep="last")


def prepare(key: str, window: str | None) -> dict[str, Any]:
    """Make the checkout of a retraining, unless it exists already.

    Returns {prepared}: false if another version has been deployed since the window was scored, in which case nothing is made.
    """
    params, version = read_params(), read_version(current_version())
    metric, metrics = params.production.retrain.metric, list(version.manifest["operating_point"]["test"])
    if metric not in metrics:
        raise UserError(
            f"params.yaml: production.retrain.metric {metric!r} is not a metric of decisions: {suggestion(metric, metrics)}"
        )
    home = PROJECT.retrain / key
    worktree = home / "worktree"
    ready = home / "prepared.json"
    if ready.exists():
        print(f"retrain: continuing in {worktree}", file=sys.stderr)
        return {"prepared": True}
    prior = prior_for(window, version)
    if window is not None and (scored_by := read_json(PROJECT.watch / f"{window}.json")["model"]) != version.name:
        # The window says nothing about the version that is deployed now.
        print(
            f"retrain: {window} was scored by {scored_by}, but {version.name} is deployed now; nothing to do", file=sys.stderr
        )
        return {"prepared": False}
    if folder := run_git("rev-parse", "--show-prefix"):
        raise UserError(
            f"{folder} is a folder within a git repository; a retraining needs the project at the root of its repository"
        )
    remove_checkout(worktree)
    base = state_here()
    if changed := changed_since(base["commit"], *CODE):
        print(f"retrain: uses the committed code, without the changes in {', '.join(changed)}", file=sys.stderr)
    run_git("worktree", "add", "--force", "--detach", str(worktree), base["commit"])
    base |= write_params(home, PROJECT.params.read_bytes().decode("utf-8"), params, prior, version.manifest["technique"])
    if PROJECT.lock.exists():
        shutil.copy(PROJECT.lock, worktree / PROJECT.lock)
    bring(params.ingest.path, worktree)
    bring(params.train.model, worktree)
    feedback = feedback_so_far()
    with replaced(worktree / PROJECT.feedback) as temporary:
        write_table(temporary, feedback)
    if PROJECT.dvc_config.exists():
        shutil.copy(PROJECT.dvc_config, worktree / PROJECT.dvc_config)
    cache = subprocess.run(["dvc", "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run(["dvc", "config", "--local", "cache.dir", str(Path(cache).resolve())], cwd=worktree, check=True)
    shifted = prior != prior_for(None, version)
    about = {"window": window, "prior": prior, "shifted": shifted, "feedback": len(feedback), "champion": version.name}
    write_json(ready, {**about, "base": base})
    print(f"retrain: {worktree}: {len(feedback):,} labelled messages from feedback", file=sys.stderr)
    return {"prepared": True}


def never_seen(test: pd.DataFrame, champion: Version) -> np.ndarray:
    """Whether each test message (n,) is surely new to a version: it was held out there too, or is feedback.

    This holds for all of them unless the data were split again, because feedback keeps its split.
    """
    held_out = read_held_out(champion).query("split == 'test'")
    return np.isin(test["group"], held_out["group"]) | (test["source"] == "feedback").to_numpy()


def compare_with_champion(key: str) -> dict[str, Any]:
    """Compare the model that was selected in the checkout with the deployed one, on the test messages there.

    Writes and returns `challenge.json`.
    """
    params = read_params()
    home = PROJECT.retrain / key
    prepared = read_json(home / "prepared.json")
    champion = read_version(prepared["champion"])
    worktree = Project(home / "worktree")
    pointer, point = (read_json(worktree.selected / f"{name}.json") for name in ("model", "operating_point"))
    messages = read_with_units(["text", "source"], worktree)
    trainings = {seed: read_training(pointer["technique"], seed, worktree) for seed in members_of(pointer)}
    labels = messages.names
    if labels != champion.labels or labels != pointer["labels"]:
        raise UserError(f"{home}: its labels are {', '.join(labels)}, those deployed {', '.join(champion.labels)}")
    unseen = never_seen(messages.test(), champion)
    test, logits = messages.test()[unseen], test_logits(pointer, trainings)[unseen].astype(np.float64)
    if left_out := int((~unseen).sum()):
        print(
            f"retrain: {left_out:,} test messages are left out, because the champion may have been trained on them",
            file=sys.stderr,
        )
    check_classes_left(test, champion, home)
    prior = np.array([prepared["prior"][label] for label in labels])
    effective = np.array([pointer["effective_prior"][label] for label in labels])
    challenger = Contender(
        posteriors=softmax(correct_prior(logits, effective, prior), axis=1), costs=cost_matrix(point["costs"], labels)
    )
    classes = test["class"].to_numpy()
    outcome = challenge(
        corrected_champion(champion, test["text"].tolist(), prepared["prior"]),
        challenger,
        classes,
        np.unique(test["group"], return_inverse=True)[1],
        ChallengeProtocol(
            names=labels,
            prior=prior,
            metric=params.production.retrain.metric,
            margin=params.production.retrain.margin,
            resamples=params.evaluate.resamples,
            confidence=params.evaluate.confidence,
            seed=params.evaluate.seed,
        ),
    )
    from_feedback = (test["source"] == "feedback").to_numpy()
    result = {
        **{name: value for name, value in prepared.items() if name != "base"},
        "champion_metric": outcome.champion,
        "challenger_metric": outcome.challenger,
        **{name: getattr(outcome, name) for name in ("difference", "low", "high", "not_worse")},
        **params.production.retrain.model_dump(include={"metric", "margin"}),
        "technique": pointer["technique"],
        **trainings_of(pointer),
        "left_out": left_out,
        "test": counts_by_label(classes, labels),
        "test_from_feedback": counts_by_label(classes[from_feedback], labels),
    }
    write_json(home / "challenge.json", result)
    print(f"retrain: {comparison_summary(result)}", file=sys.stderr)
    return result


def check_classes_left(test: pd.DataFrame, champion: Version, home: Path) -> None:
    """Raise UserError if a class has no test message that is surely new to the champion."""
    if gone := set(champion.labels) - set(test["label"]):
        raise UserError(
            f"{home}: the champion may have been trained on every test message of {', '.join(sorted(gone))}, because"
            f" {PROJECT.messages} was split again after version {champion.name}; promote a model of the new data by hand"
        )


def corrected_champion(champion: Version, texts: list[str], prior: dict[str, float]) -> Contender:
    """The deployed version as it would be without a retraining: on the new prior, with a new operating point."""
    shares = np.array([prior[label] for label in champion.labels])
    costs = operating_point_for(prior, champion)["costs"]
    logits = champion.load().logits(texts).astype(np.float64)
    posteriors = softmax(correct_prior(logits, champion.effective_prior, shares), axis=1)
    return Contender(posteriors=posteriors, costs=cost_matrix(costs, champion.labels))


def counts_by_label(classes: np.ndarray, labels: list[str]) -> dict[str, int]:
    """Messages of each class, from classes (n,)."""
    return dict(zip(labels, np.bincount(classes, minlength=len(labels)).tolist(), strict=True))


def comparison_summary(result: Mapping[str, Any]) -> str:
    """One line on the comparison."""
    verdict = "not worse than" if result["not_worse"] else "not shown to be as good as"
    return (
        f"{result['metric']} {result['challenger_metric']:.3f} is {verdict} the champion's {result['champion_metric']:.3f}:"
        f" difference {result['difference']:+.3f} ({result['low']:+.3f} to {result['high']:+.3f}), margin {result['margin']:g}"
    )


def conclude(key: str, version: str, instead: str | None) -> dict[str, Any]:
    """Write `decision.json`, with the version that is deployed now, and remove the checkout; returns what was written.

    instead : the decision if it is not that of the comparison.
    """
    home = PROJECT.retrain / key
    comparison = read_json(home / "challenge.json")
    decision = instead or ("promoted" if comparison["not_worse"] else "kept")
    state = read_json(home / STATE) if decision == "promoted" and (home / STATE).exists() else {}
    result = {**comparison, "decision": decision, "version": version, **state}
    write_json(home / "decision.json", result)
    remove_checkout(home / "worktree")
    print(f"retrain: {decision}, {version} is deployed", file=sys.stderr)
    return result


def main(
    step: str,
    key: str,
    window: str | None,
    version: str | None,
    instead: str | None = None,
    force: bool = False,
    unless_edited: bool = False,
    result: Path | None = None,
) -> None:
    if not WINDOW.fullmatch(key):
        raise UserError(
            f"the key {quoted_name(key)} must name a folder; expected at most {LONGEST_NAME} letters,"
            " digits, dots, dashes and underscores"
        )
    with locked(PROJECT.retrain / key):
        if step == "prepare":
            outcome = prepare(key, window)
        elif step == "challenge":
            outcome = compare_with_champion(key)
        elif step == "bring-home":
            outcome = bring_home(key, force=force, unless_edited=unless_edited)
        else:
            if version is None:
                raise UserError("conclude needs --version, the one that is deployed now")
            outcome = conclude(key, version, instead)
    if result is not None:
        write_json(result, outcome)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("step", choices=["prepare", "challenge", "bring-home", "conclude"])
    arguments.add_argument("key", help="name of the retraining: the window that triggered it")
    arguments.add_argument("--window", help="prepare: the window with the prior to train for")
    arguments.add_argument("--version", help="conclude: the version that is deployed now")
    arguments.add_argument(
        "--instead", choices=["outdated", "refused"], help="conclude: a decision other than that of the comparison"
    )
    arguments.add_argument(
        "--force", action="store_true", help="bring-home: replace files that were edited here, and keep copies"
    )
    arguments.add_argument("--unless-edited", action="store_true", help="bring-home: no error if files were edited here")
    arguments.add_argument("--result", type=Path, metavar="FILE", help="write the outcome of the step to a JSON file")
    run(main, arguments.parse_args())

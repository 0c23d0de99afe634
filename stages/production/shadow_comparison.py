"""Compare the decisions of a window's shadow with those of the version that scored the window."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from ballast.exceptions import UserError
from ballast.monitoring.decision import Policy, WindowDecision, misfit
from ballast.monitoring.estimated_performance import HeldOut, PerformanceProtocol, on_prior
from ballast.monitoring.label_shift import ScoredMessages
from ballast.monitoring.performance_difference import estimate_difference, share_that_differs
from stages.pages.words import metric_name, signed
from stages.production.deployed import Version, indices
from stages.production.performance import held_out_of
from stages.production.reference import Reference, read_reference
from stages.production.shadow import path_of, read_scores, read_shadow
from stages.store.checked import read_frame

Result = dict[str, Any]
# What a comparison holds, each None until it is known.
KEYS = ("problem", "n", "differ", "decisions", "held_out_groups", "withheld", "metrics", "verdict")


@dataclass(frozen=True, kw_only=True)
class JudgedWindow:
    """A window with the version that scored it, that version's held-out messages, and the decision of the watch."""

    name: str
    table: pd.DataFrame
    scored: ScoredMessages
    version: Version
    reference: Reference
    verdict: WindowDecision


def shadow_of(name: str | None, window: JudgedWindow, protocol: PerformanceProtocol, policy: Policy) -> Result | None:
    """The comparison with a window's shadow; None without one. A shadow that cannot be read is a `problem` in it."""
    if name is None:
        return None
    result: Result = {**dict.fromkeys(KEYS), "version": name}
    try:
        result |= comparison(read_shadow(name, window.version), window, protocol, policy)
    except UserError as error:
        result["problem"] = str(error)
    return {**result, "summary": summary(result, window.version)}


def comparison(shadow: Version, window: JudgedWindow, protocol: PerformanceProtocol, policy: Policy) -> Result:
    """How a shadow's decisions differ, and the estimated difference of their quality; raises UserError."""
    reference, scores = read_reference(shadow), read_scores(window.name, window.table, window.version, shadow)
    result: Result = {"n": len(scores), "withheld": window.verdict.withheld}
    if scores.empty:
        return result
    labels, groups = window.version.labels, window.scored.groups
    deployed, other = (indices(table["label"], labels) for table in (window.table, scores))
    counts = np.bincount(deployed * len(labels) + other, minlength=len(labels) ** 2).reshape(len(labels), -1).tolist()
    result["decisions"] = {label: dict(zip(labels, row, strict=True)) for label, row in zip(labels, counts, strict=True)}
    share = share_that_differs(deployed, other, groups, protocol.confidence)
    result["differ"] = {"count": int((deployed != other).sum()), **asdict(share)}
    posteriors = scores[[f"p_{label}" for label in labels]].to_numpy(dtype=np.float64)
    messages = ScoredMessages(posteriors=posteriors, groups=groups, descriptors={})
    if window.verdict.withheld is None and (reason := misfit(reference.messages, reference.classes, messages, policy)):
        result["withheld"] = f"for version {shadow.name}, {reason}"
    if result["withheld"] is not None or window.verdict.estimate is None:
        return result
    versions = held_out_of(window.version, window.reference), held_out_of(shadow, reference)
    ours, seen, prior = on_prior(versions[0], window.scored, window.verdict.estimate.prior)
    differences = estimate_difference(ours, versions[1], seen, prior, protocol)
    metrics = {name: asdict(difference) for name, difference in differences.items()}
    return {**result, "held_out_groups": in_common(*versions), "metrics": metrics, "verdict": verdict_of(metrics)}


def in_common(deployed: HeldOut, shadow: HeldOut) -> dict[str, int]:
    """How many held-out groups both versions have, and how many only one has."""
    ours, theirs = set(deployed.groups.tolist()), set(shadow.groups.tolist())
    return {"both": len(ours & theirs), "deployed": len(ours - theirs), "shadow": len(theirs - ours)}


def deciding(metrics: Mapping[str, Any]) -> str:
    """The metric that says which version is better: the cost if mistakes have costs, else macro F1."""
    return "cost" if "cost" in metrics else "macro_f1"


def verdict_of(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Whether a shadow is better or worse, as far as the interval of the deciding difference shows it.

    >>> verdict_of({"macro_f1": {"value": -0.02, "low": -0.03, "high": -0.01}})
    'worse'
    >>> verdict_of({"cost": {"value": -0.2, "low": -0.3, "high": -0.1}})
    'better'
    """
    name = deciding(metrics)
    low, high = (metrics[name][end] for end in ("low", "high"))
    if low <= 0 <= high:
        return "not shown"
    return "better" if (high < 0) == (name == "cost") else "worse"


def summary(result: Result, version: Version) -> str:
    """A comparison in a sentence."""
    beside = f"{result['version']} beside {version.name}"
    if result["problem"] is not None:
        return f"{beside}: not compared: {result['problem']}"
    if result["differ"] is None:
        return f"{beside}: {result['withheld']}"
    counts = f"{beside}: {result['differ']['count']:,} of {result['n']:,} decisions differ"
    metrics = result["metrics"]
    if metrics is None:
        return f"{counts}; the difference of their quality is not estimated: {result['withheld']}"
    # Of two classes, the rare one says enough.
    rare = min(version.labels, key=lambda label: version.production_prior[version.labels.index(label)])
    names = [f"{rare}.precision", f"{rare}.recall"] if len(version.labels) == 2 else []
    shown = [f"{metric_name(name)} {signed_interval(metrics[name])}" for name in [*names, deciding(metrics)]]
    verdict = {"not shown": "no difference is shown"}.get(result["verdict"], f"{result['version']} is {result['verdict']}")
    return f"{counts}; {', '.join(shown)}: {verdict}"


def signed_interval(difference: Mapping[str, float]) -> str:
    """A difference with its interval.

    >>> signed_interval({"value": 0.02, "low": -0.01, "high": 0.04})
    '+0.020 (-0.010 to +0.040)'
    """
    value, low, high = (signed(difference[key]) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def labelled_shadow(watched: Mapping[str, Any], feedback: pd.DataFrame) -> dict[str, int] | None:
    """How the two versions decided the labelled messages of a watched window; None without labels or comparison.

    feedback : all labelled messages.

    Returns {n, differ, deployed_right, shadow_right}: labelled messages, those that the versions decide differently, and the
    correct decisions among these.
    """
    rows = feedback[(feedback["window"] == watched["window"]) & (feedback["model"] == watched["model"])]
    if not (watched.get("shadow") or {}).get("differ") or rows.empty:
        return None
    try:
        decided = read_frame(path_of(watched["window"]), ["id", "label"]).set_index("id")["label"]
    except UserError as error:
        # The page over all windows does not need the labels of one.
        print(f"watch: the shadow of a window cannot be read: {error}", file=sys.stderr)
        return None
    both = rows.assign(shadow=rows["id"].map(decided)).dropna(subset="shadow")
    differ = both[both["called"] != both["shadow"]]
    return {
        "n": len(both),
        "differ": len(differ),
        "deployed_right": int((differ["label"] == differ["called"]).sum()),
        "shadow_right": int((differ["label"] == differ["shadow"]).sum()),
    }

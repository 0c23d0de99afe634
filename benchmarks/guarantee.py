"""Measure how often a limit holds in production, with a guarantee and without, when the truth is known.

Each simulation draws held-out messages from two normal distributions of scores, chooses an operating point, and computes its
precision, recall and false-positive rate in production exactly. With `--repeats 2000`, the number of broken limits may exceed
5% by chance only: `most_broken` is the 99.9% quantile of a binomial at 5%.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from scipy import special
from scipy.stats import binom, norm

from ballast.evaluation.costs import threshold
from ballast.evaluation.operating_point import OperatingPoint, choose_operating_point
from ballast.evaluation.rules import BUDGET_UNIT, Rule
from benchmarks.measuring import surroundings, write_result

JOBS = 2
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What to draw: held-out messages by class, distance of the class means, share of the rare class in production.

    largest : messages of the largest group of near duplicates; sizes are uniform from 1 on.
    """

    name: str
    others: int
    rare: int
    distance: float
    production: float | None = None
    largest: int = 1


SETTINGS = (
    Setting(name="13% rare", others=1500, rare=220, distance=4.0),
    Setting(name="13% rare, groups of near duplicates", others=1500, rare=220, distance=4.0, largest=4),
    Setting(name="13% rare, 4% in production", others=1500, rare=220, distance=4.0, production=0.04),
    Setting(name="13% rare, 30% in production", others=1500, rare=220, distance=3.0, production=0.3),
    Setting(name="1% rare", others=9900, rare=100, distance=4.0),
    Setting(name="0.1% rare", others=40_000, rare=40, distance=5.0),
)
RULES = {
    "precision": Rule(kind="precision", label=1, limit=0.9),
    "recall": Rule(kind="recall", label=1, limit=0.8),
    "budget": Rule(kind="budget", label=1, limit=20),
}


def draw_messages(setting: Setting, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, classes and groups (n,) of held-out messages. The messages of a group have almost the same score."""
    scores, classes, groups, count = [], [], [], 0
    for label, size in enumerate((setting.others, setting.rare)):
        sizes = rng.integers(1, setting.largest, size=size, endpoint=True)
        sizes = sizes[: np.searchsorted(sizes.cumsum(), size) + 1]
        of_group = np.repeat(np.arange(len(sizes)), sizes)[:size]
        noise = 0.3 if setting.largest > 1 else 0.0
        centre = rng.normal(scale=np.sqrt(1 - noise**2), size=len(sizes))
        scores.append(label * setting.distance + centre[of_group] + noise * rng.normal(size=size))
        classes.append(np.full(size, label))
        groups.append(count + of_group)
        count += len(sizes)
    return np.concatenate(scores), np.concatenate(classes), np.concatenate(groups)


def production_share(setting: Setting) -> float:
    """Share of the rare class in production."""
    return setting.rare / (setting.rare + setting.others) if setting.production is None else setting.production


def rates(setting: Setting, point: OperatingPoint) -> dict[str, float]:
    """Precision, recall and messages of the other class per BUDGET_UNIT that are assigned to the rare one, in production."""
    share = production_share(setting)
    log_odds = special.logit(min(max(threshold(point.costs, 1), 1e-15), 1 - 1e-15))
    at = (log_odds - special.logit(share)) / setting.distance + setting.distance / 2
    recall, wrong = norm.sf(at - setting.distance), norm.sf(at)
    precision = share * recall / (share * recall + (1 - share) * wrong)
    return {"precision": float(precision), "recall": float(recall), "budget": float(BUDGET_UNIT * wrong)}


def holds(rule: Rule, setting: Setting, point: OperatingPoint) -> bool:
    """Whether the limit of a rule holds in production."""
    value, limit = rates(setting, point)[rule.kind], rule.limit or 0.0
    return value <= limit if rule.kind == "budget" else value >= limit


def redraw(setting: Setting, seed: int) -> dict[str, dict[str, float]]:
    """What each rule gives on one draw, without and with a guarantee: met, holds, recall, stated probability."""
    rng = np.random.default_rng([seed, setting.rare, setting.others, setting.largest])
    scores, classes, groups = draw_messages(setting, rng)
    share = production_share(setting)
    log_odds = setting.distance * (scores - setting.distance / 2) + special.logit(share)
    logits = np.column_stack([np.zeros(len(scores)), log_odds])
    weights = np.array([1 - share, share]) / (np.bincount(classes) / len(classes))
    found = {}
    for name, plain in RULES.items():
        for kind, rule in (("plain", plain), ("guaranteed", guaranteed(plain))):
            point = choose_operating_point(rule, logits, classes, weights, groups)
            of_rule = {"met": point.met, "holds": holds(rule, setting, point), "recall": rates(setting, point)["recall"]}
            of_rule["probability"] = point.probability or 0.0
            found[f"{name}.{kind}"] = of_rule
    return found


def guaranteed(rule: Rule) -> Rule:
    """The rule with a guarantee."""
    return Rule(kind=rule.kind, label=rule.label, limit=rule.limit, guarantee=CONFIDENCE)


def summary(setting: Setting, repeats: int) -> dict[str, Any]:
    """Frequencies over redraws for each rule: met, broken although met, mean recall, mean stated probability."""
    drawn = Parallel(n_jobs=JOBS)(delayed(redraw)(setting, seed) for seed in range(repeats))
    table: dict[str, Any] = {}
    for name in drawn[0]:
        met = np.array([by_rule[name]["met"] for by_rule in drawn], dtype=bool)
        held = np.array([by_rule[name]["holds"] for by_rule in drawn], dtype=bool)
        recall = np.array([by_rule[name]["recall"] for by_rule in drawn])
        table[name] = {
            "met": float(met.mean()),
            "broken_although_met": int((met & ~held).sum()),
            "holds": float(held.mean()),
            "stated_probability": float(np.mean([by_rule[name]["probability"] for by_rule in drawn])),
            "recall": float(recall[met].mean()) if met.any() else None,
        }
    return table


def main(repeats: int) -> None:
    result: dict[str, Any] = {
        "where": surroundings(),
        "repeats": repeats,
        "confidence": CONFIDENCE,
        "limits": {name: rule.limit for name, rule in RULES.items()},
        "most_broken": int(binom.ppf(0.999, repeats, 1 - CONFIDENCE)),
        "settings": {},
    }
    for setting in SETTINGS:
        result["settings"][setting.name] = summary(setting, repeats)
        print(json.dumps({setting.name: result["settings"][setting.name]}), flush=True)
        write_result("guarantee", result)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    arguments.add_argument("--repeats", type=int, default=2000, help="simulated held-out sets of each setting")
    main(**vars(arguments.parse_args()))

"""The production prior and the rule of the operating point in params.yaml, in the order of the labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ballast.data.label_names import same_label, spelled
from ballast.evaluation.costs import cost_matrix
from ballast.evaluation.review import Review
from ballast.evaluation.rules import LIMITED, Rule
from ballast.exceptions import UserError
from ballast.labels import check_all_labels, check_labels
from stages.store.production_sections import OperatingPointSettings, ReviewSettings
from stages.store.project import PROJECT


def production_prior(
    setting: str | Mapping[str, float], counts: Mapping[str, int], params: Path = PROJECT.params
) -> np.ndarray:
    """The production prior (K,): the shares of the ingested counts for `data`, else the shares in params.

    params : the file of the setting, for errors.

    Raises UserError unless the shares name exactly the labels of the data.
    """
    if isinstance(setting, str):
        shares = np.array(list(counts.values()))
        return shares / shares.sum()
    where = f"{params}: production.prior"
    shares_of = spelled(setting, list(counts), where)
    check_all_labels(where, shares_of, list(counts))
    return np.array([shares_of[name] for name in counts])


def operating_rule(setting: OperatingPointSettings, names: list[str], production: np.ndarray) -> Rule:
    """The rule of the operating point; it is for the rarest class in production (K,) if params name no class.

    Raises UserError for an unknown label, and for costs without some pair of labels.
    """
    rarest, given = names[int(production.argmin())], setting.label
    label = rarest if given is None else same_label(given, names) or given
    check_labels(f"{PROJECT.params}: operating_point.label", [label], names)
    costs = None
    if setting.costs is not None:
        where = f"{PROJECT.params}: operating_point.costs"
        table = spelled(setting.costs, names, where)
        try:
            costs = cost_matrix({true: spelled(row, names, f"{where}.{true}") for true, row in table.items()}, names)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    return Rule(
        kind=setting.rule,
        label=names.index(label),
        costs=costs,
        limit=getattr(setting, setting.rule) if setting.rule in LIMITED else None,
        beta=1.0 if setting.beta is None else setting.beta,
        guarantee=setting.guarantee,
        review=review_of(setting.review),
    )


def review_of(setting: ReviewSettings | None) -> Review | None:
    """The messages that people decide, as params state them."""
    if setting is None:
        return None
    if setting.budget is not None:
        return Review(kind="budget", limit=setting.budget)
    assert setting.cost is not None
    return Review(kind="cost", limit=setting.cost)


def missed_limit(point: Mapping[str, Any]) -> str:
    """What an operating point of `point_as_json` that misses its limit does instead."""
    limit = f"{point['rule']} {point['limit']:g} of {point['label']}"
    guarantee = point["guarantee"]
    if guarantee is None:
        return f"no threshold satisfies {limit} out of fold; the point of highest precision is used"
    kind = point["label"] if guarantee["of_label"] else "other"
    needed = "no number" if guarantee["needed"] is None else f"about {guarantee['needed']:,}"
    return (
        f"{limit} cannot be guaranteed with confidence {guarantee['confidence']:g} from {guarantee['units']:,} distinct {kind}"
        f" messages; at the rates observed, {needed} would be enough; a threshold without a guarantee is used"
    )

"""What params.yaml says of production, in the order of the labels: its class prior, and how its operating point is chosen."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ballast.evaluation.operating_point import Rule, cost_matrix
from ballast.exceptions import UserError
from ballast.labels import check_all_labels, check_labels
from stages.store.production_sections import OperatingPointSettings
from stages.store.project import PROJECT


def production_prior(setting: str | Mapping[str, float], counts: Mapping[str, int]) -> np.ndarray:
    """The production prior (K,): the shares of the ingested counts by label for `data`, else as params give it.

    Raises UserError unless it names just the labels of the data.
    """
    if isinstance(setting, str):
        shares = np.array(list(counts.values()))
        return shares / shares.sum()
    check_all_labels(f"{PROJECT.params}: production.prior", setting, list(counts))
    return np.array([setting[name] for name in counts])


def operating_rule(setting: OperatingPointSettings, names: list[str], production: np.ndarray) -> Rule:
    """The rule that params give, of the rarest class in production (K,) where they name none.

    Raises UserError for a label that the data does not have, and for costs that miss a pair.
    """
    label = names[int(production.argmin())] if setting.label is None else setting.label
    check_labels(f"{PROJECT.params}: operating_point.label", [label], names)
    costs = None
    if setting.costs is not None:
        try:
            costs = cost_matrix(setting.costs, names)
        except UserError as error:
            raise UserError(f"{PROJECT.params}: operating_point.costs: {error}") from error
    limit = {"precision": setting.precision, "budget": setting.budget}.get(setting.rule)
    return Rule(kind=setting.rule, label=names.index(label), costs=costs, limit=limit)

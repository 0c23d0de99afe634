"""The selection of a technique from the evaluations and the rule in params.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.one_standard_error import Candidate, select
from ballast.exceptions import ArgumentError
from stages.store.params import Select


def candidate(evaluation: Mapping[str, Any], draws: Draws) -> Candidate:
    """An entry with its out-of-fold values and draws."""
    measured = {**evaluation["out_of_fold"]["corrected"], **evaluation["out_of_fold"]["operating_point"]}
    return Candidate(
        draws=draws,
        values={metric: estimate["value"] for metric, estimate in measured.items()},
        multiply_adds=evaluation["multiply_adds"],
        safe=evaluation["fitted"]["safe"],
    )


def selection(
    evaluations: Mapping[str, Mapping[str, Any]],
    held_out: Mapping[str, Draws],
    folds: Sequence[int],
    reference: str,
    rule: Select,
) -> dict[str, Any]:
    """The selected technique and why; if none satisfies the rule, `technique` is null and `reason` names the key in params.

    held_out : out-of-fold draws at the operating point, over messages alone.
    folds : (S,) fold of each training.
    """
    first = next(iter(evaluations.values()))
    try:
        return select(
            {name: candidate(evaluation, held_out[name]) for name, evaluation in evaluations.items()},
            first["labels"],
            metric=rule.metric,
            rule=rule.rule,
            constraints=rule.constraints,
            safe_only=rule.safe_only,
            reference=reference,
            folds=folds,
        )
    except ArgumentError as error:
        return {"technique": None, "reason": str(error)}

"""The results of the pipeline that the report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ballast.evaluation.metrics import higher_is_better
from stages.store.across_data_sets import Across
from stages.store.params import Params
from stages.store.studies import Result as StudyResult

FAMILIES = ("corrected", "raw")
# Labels with panels of their own. Data with more classes shows all of them in one table.
MOST_PANELS = 12


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that the page shows.

    selection : how the selection compares the candidates, and how stable it is.
    point : the operating point of the selected technique, with its metrics.
    levers : what would help; None if it is not measured.
    losses : training loss, in columns technique, seed, step, loss.
    calibration : technique -> label -> calibration curve of the raw posteriors, first seed.
    errors : mistakes of the techniques, by row of the messages.
    texts : row -> text of these messages; empty if the texts are hidden.
    n_predicted : label -> number of test messages that the selected technique predicts as this label.
    across : the benchmark across data sets, which are not the user's; None if it was not run.
    bounds : label -> lowest and highest plausible number of test messages under the production prior.
    """

    params: Params
    ingest: Mapping[str, Any]
    validation: Mapping[str, Any]
    board: Mapping[str, Any]
    evaluations: Mapping[str, Any]
    calibration: Mapping[str, Any]
    losses: pd.DataFrame
    probe: pd.DataFrame
    selected: Mapping[str, Any]
    selection: Mapping[str, Any]
    point: Mapping[str, Any]
    levers: Sequence[Mapping[str, Any]] | None
    perturbations: pd.DataFrame
    errors: Mapping[str, Any]
    texts: Mapping[int, str]
    model_card: str
    n_predicted: Mapping[str, int]
    bounds: Mapping[str, tuple[int, int]]
    claims: Sequence[Mapping[str, Any]]
    search: Mapping[str, Any]
    # How the settings of the encoder that are `auto` were chosen, in words.
    encoder: str
    studies: Mapping[str, StudyResult | None]
    across: Across | None

    @property
    def labels(self) -> list[str]:
        """The K labels."""
        return list(self.board["labels"])

    @property
    def names(self) -> list[str]:
        """The techniques, in the order of params.yaml."""
        return [name for name in self.params.techniques if name in self.board["techniques"]]

    @property
    def rarest(self) -> str:
        """The label with the smallest production share, which the page shows first."""
        return min(self.labels, key=lambda label: self.board["production_prior"][label])

    @property
    def panels(self) -> list[tuple[int, str]]:
        """Place and name of the labels with panels of their own: all or, of many, the rarest and those with the lowest F1."""
        labels, production = self.labels, self.board["production_prior"]
        if len(labels) <= MOST_PANELS:
            return list(enumerate(labels))
        reached = self.board["techniques"][self.selected["technique"]]["operating_point"]
        rarest = sorted(labels, key=lambda label: production[label])
        hardest = sorted(labels, key=lambda label: reached[f"{label}.f1"]["value"])
        alternating = [label for pair in zip(rarest, hardest, strict=True) for label in pair]
        chosen = list(dict.fromkeys([self.decided_label, self.rarest, *alternating]))[:MOST_PANELS]
        return [(index, label) for index, label in enumerate(labels) if label in chosen]

    @property
    def many(self) -> bool:
        """Whether there are more classes than panels."""
        return len(self.labels) > MOST_PANELS

    @property
    def n_seeds(self) -> int:
        """Number of seeds."""
        return len(self.params.train.seeds)

    @property
    def confidence(self) -> str:
        """Confidence of the intervals, as shown."""
        return f"{100 * self.params.evaluate.confidence:g}%"

    def first_seed(self, name: str) -> Mapping[str, Any]:
        """The test results of a technique's first seed, which the tables of one training show."""
        evaluation: Mapping[str, Any] = self.evaluations[name]["seeds"][str(self.params.train.seeds[0])]
        return evaluation

    def fitted(self, name: str) -> Mapping[str, Any]:
        """What is fitted on the out-of-fold scores of a technique."""
        fitted: Mapping[str, Any] = self.evaluations[name]["fitted"]
        return fitted

    @property
    def decided_label(self) -> str:
        """The label that the rule of the operating point is about, or the rarest."""
        return str(self.point["label"] or self.rarest)

    @property
    def tied(self) -> list[str]:
        """The techniques that are tied with the selected one, the best first: all lie within one standard error of the best."""
        names = set(self.selection["tied"]) - {self.selected["technique"]}
        return [name for name in self.ranked if name in names]

    @property
    def ranked(self) -> list[str]:
        """The techniques by their out-of-fold value of the metric that selects, the best first."""
        sign = -1 if higher_is_better(self.params.select.metric) else 1
        return sorted(self.names, key=lambda name: sign * self.selecting(name)["value"])

    def selecting(self, name: str) -> Mapping[str, float]:
        """A technique's out-of-fold value of the metric that selects: at the operating point if it depends on decisions."""
        metric, technique = self.params.select.metric, self.board["techniques"][name]
        if metric in technique["out_of_fold"]:
            estimate: Mapping[str, float] = technique["out_of_fold"][metric]
            return estimate
        of_probabilities: Mapping[str, float] = self.evaluations[name]["out_of_fold"]["corrected"][metric]
        return of_probabilities

    def drawing_rank(self, role: str) -> int:
        """Order of drawing by role: the line drawn last covers the others."""
        return ("other", "tied", "reference", "selected").index(role)

    def role(self, name: str) -> str:
        """How the page marks a technique: selected, reference, tied or other."""
        if name == self.selected["technique"]:
            return "selected"
        if name == self.board["reference"]:
            return "reference"
        return "tied" if name in self.tied else "other"

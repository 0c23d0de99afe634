"""The sections of `params.yaml` about production: production, operating_point."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ballast.io.urls import bare_address
from ballast.labels import label_name
from ballast.parameters import YEAR_HOURS, quoted
from stages.store.data_sections import DialectSettings
from stages.store.section import Section, sums_to_one
from stages.store.values import (
    CostsOfLabel,
    Count,
    Few,
    LabelName,
    NotNegative,
    Prior,
    Share,
    Text,
    label_names,
)


class Keep(Section):
    versions: Annotated[int, Field(ge=2, le=10_000, description="versions to keep")]
    windows: Annotated[int, Field(ge=1, le=1_000_000, description="scored windows to keep")]


class Score(Section):
    source: Annotated[str, Field(pattern=r"\{window\}", max_length=10_000)]
    window: Annotated[str, Field(pattern=r"%", max_length=100)]
    hours: Annotated[float, Field(ge=0, le=YEAR_HOURS)]
    text_column: Text | None
    id_column: Text | None
    dialect: DialectSettings | None = None
    # Lines longer than this are not read.
    longest_text: Annotated[int, Field(ge=1, le=1 << 24)]
    quarantine: Annotated[float, Field(ge=0, le=1)]


class Endpoint(Section):
    max_wait_ms: Annotated[float, Field(ge=0, le=1000)] = 5.0
    batch: Annotated[int, Field(ge=1, le=100_000)] = 512
    messages: Annotated[int, Field(ge=1, le=100_000)] = 1000
    megabytes: Annotated[int, Field(ge=1, le=1000)] = 10
    waiting: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000


class Watch(Section):
    confidence: Annotated[float, Field(ge=0.5, lt=1)]
    false_alarm: Share
    negligible: Annotated[float, Field(ge=0, lt=1)]
    tolerance: Share
    messages: Few
    floor: dict[str, Annotated[float, Field(gt=0, le=1)]] | None = None


class Labelling(Section):
    budget: Annotated[int, Field(ge=0, le=100_000, description="messages to label in each window; 0 is off")]
    random: Annotated[float, Field(gt=0, le=1, description="share of the labels that all messages get alike")]
    neighbours: Annotated[float, Field(ge=0, le=0.5, description="share of the labels for neighbours of known rare messages")]


class Retrain(Section):
    techniques: Literal["deployed", "all"]
    minimum_labels: Count
    metric: Text
    margin: NotNegative


def elsewhere(webhook: Any) -> Any:
    """Raise ValueError for an address with a path: such an address is a secret, because anyone who knows it can post to it."""
    indirect = isinstance(webhook, str) and re.fullmatch(r"\$[A-Za-z_][A-Za-z0-9_]*|file:.+", webhook)
    if isinstance(webhook, str) and not indirect and not bare_address(webhook):
        raise ValueError(
            "the address is a secret, and this file is not; put it into an environment variable and write $NAME here, or into a"
            " file of mode 0600 and write file:PATH"
        )
    return webhook


def version_name(version: Any) -> Any:
    """The name of a version; YAML reads 0003 as a number. Raises ValueError for anything else than a name or null."""
    name = f"{version:04d}" if isinstance(version, int) and not isinstance(version, bool) else version
    if name is not None and not (isinstance(name, str) and re.fullmatch(r"[0-9]{4,9}", name)):
        raise ValueError(f"expected the name of a version, such as 0003, or null, found {quoted(version)}")
    return name


class Production(Section):
    prior: Literal["data"] | Prior
    promote: Literal["auto", "review"]
    keep: Keep
    shadow: Annotated[str | None, BeforeValidator(version_name)] = None
    webhook: Annotated[str | None, BeforeValidator(elsewhere)]
    score: Score
    endpoint: Endpoint = Endpoint()
    watch: Watch
    labelling: Labelling
    retrain: Retrain

    @model_validator(mode="after")
    def whole(self) -> Production:
        if self.prior != "data":
            sums_to_one(self.prior, "prior")
        return self


# As in `ballast.evaluation.rules`, which a training must not depend on.
LIMITED = ("precision", "recall", "budget")


class ReviewSettings(Section):
    budget: Annotated[float | None, Field(ge=0, le=10_000, description="messages of 10,000 that people can read")] = None
    cost: Annotated[NotNegative | None, Field(description="cost of a review, in the unit of `costs`")] = None

    @model_validator(mode="after")
    def either(self) -> ReviewSettings:
        if (self.budget is None) == (self.cost is None):
            raise ValueError("review needs either budget or cost, such as {budget: 50}")
        return self


class OperatingPointSettings(Section):
    rule: Literal["f1", "f_beta", "macro_f1", "cost", "precision", "recall", "budget"]
    label: Annotated[LabelName | None, BeforeValidator(lambda label: label if label is None else label_name(label))]
    costs: Annotated[dict[str, CostsOfLabel], BeforeValidator(label_names)] | None
    precision: Annotated[float, Field(gt=0, le=1)] | None
    recall: Annotated[float, Field(gt=0, le=1)] | None
    budget: Annotated[float, Field(ge=0, lt=10_000)] | None
    beta: Annotated[float, Field(gt=0, le=100)] | None
    guarantee: Annotated[float, Field(ge=0.5, lt=1)] | None
    review: ReviewSettings | None

    @model_validator(mode="after")
    def complete(self) -> OperatingPointSettings:
        key = {"cost": "costs", "f_beta": "beta"}.get(self.rule, self.rule)
        if getattr(self, key, 0) is None:
            raise ValueError(f"rule {self.rule} needs {key}, which is null")
        if self.guarantee is not None and self.rule not in LIMITED:
            raise ValueError(f"guarantee needs a rule with a limit ({', '.join(LIMITED)}); rule {self.rule} has none")
        if self.review is not None and self.review.cost is not None and self.rule != "cost":
            raise ValueError(f"review.cost needs rule cost, which states the costs of mistakes; the rule is {self.rule}")
        return self

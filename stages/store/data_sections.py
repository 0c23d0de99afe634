"""The sections of `params.yaml` about data: ingest, validate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from ballast.data.splitting import rotation_folds
from ballast.io.printable import counted
from stages.store.section import Section, sums_to_one
from stages.store.values import (
    Count,
    LabelName,
    Prior,
    Seed,
    Share,
    Text,
    label_names,
)

MOST_FOLDS = 1000


class Fractions(Section):
    train: Annotated[Share, Field(description="share of the messages for training")]
    validation: Annotated[Share, Field(description="share for calibration and the choice of operating points: of one fold")]
    test: Annotated[Share, Field(description="share for the evaluation")]

    @model_validator(mode="after")
    def whole(self) -> Fractions:
        sums_to_one(self.model_dump(), "train, validation and test")
        count = rotation_folds(self.model_dump())
        if not 2 <= count <= MOST_FOLDS:
            raise ValueError(
                f"validation {self.validation:g} and test {self.test:g} give {counted(count, 'fold')}, because each fold"
                f" outside the test split has the share of validation; expected 2 to {MOST_FOLDS:,} folds"
            )
        return self


class Folds(Section):
    count: Annotated[int, Field(ge=2, le=MOST_FOLDS, description="number of folds")]
    index: Annotated[int, Field(ge=0, le=MOST_FOLDS, description="the fold that is the test split, from 0")]

    @model_validator(mode="after")
    def one_of_them(self) -> Folds:
        if self.index >= self.count:
            raise ValueError(f"index must be below count, which is {self.count}")
        return self


class Hub(Section):
    name: Annotated[Text | None, Field(description="name of the data set, such as ag_news")] = None
    config: Annotated[Text | None, Field(description="its configuration; null is its default")] = None
    split: Annotated[Text, Field(description="the split to read")] = "train"
    revision: Annotated[Text | None, Field(description="a commit or tag; null is the newest")] = None


class Ingest(Section):
    source: Literal["sms_spam", "file", "csv", "tsv", "jsonl", "parquet", "hub"]
    path: Annotated[str, Field(pattern=r"\S", max_length=10_000)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    hub: Hub = Hub()
    text_column: Text
    label_column: Text
    id_column: Text | None = None
    label_map: Annotated[dict[str, LabelName], BeforeValidator(label_names)] | None = None
    deduplicate: bool
    conflicts: Literal["drop", "fail"]
    split: Literal["grouped", "random"]
    fractions: Fractions
    folds: Folds | None = None
    train_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Seed

    @model_validator(mode="after")
    def each_column_is_one_thing(self) -> Ingest:
        named: dict[str, str] = {}
        for key in ("text_column", "label_column", "id_column"):
            column = getattr(self, key)
            if column is not None and (other := named.setdefault(column, key)) != key:
                raise ValueError(f"{key} and {other} are both {column!r}; expected two columns")
        return self


class Validate(Section):
    expected_prior: Prior | None
    false_alarm: Share
    minimum_count: Count

    @model_validator(mode="after")
    def whole(self) -> Validate:
        if self.expected_prior is not None:
            sums_to_one(self.expected_prior, "expected_prior")
        return self

"""The sections of `params.yaml` about data: ingest, validate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from ballast.data.splitting import rotation_folds
from ballast.io.printable import counted
from ballast.parameters import MANY
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


class DialectSettings(Section):
    """How text files are written, where detection is wrong; null detects."""

    encoding: Annotated[Text | None, Field(description="as Python names it, such as cp1252 or utf-16")] = None
    compression: Annotated[Literal["none", "gzip", "zstd", "bz2", "xz"] | None, Field(description="of the file")] = None
    delimiter: Annotated[str | None, Field(min_length=1, max_length=1, description="one character, such as ; or \\t")] = None
    quote: Annotated[Literal['"', "'", "none"] | None, Field(description="with none, quotes are data")] = None
    escape: Annotated[Literal["double", "backslash"] | None, Field(description="how a quote is written within quotes")] = None
    header: Annotated[bool | None, Field(description="false names the columns column1, column2, ...")] = None

    @model_validator(mode="after")
    def known(self) -> DialectSettings:
        if self.encoding is not None:
            try:
                "a".encode(self.encoding)
            except (LookupError, UnicodeError, ValueError) as error:
                raise ValueError(
                    f"encoding: {self.encoding!r} is no text encoding of Python; expected cp1252 or another"
                ) from error
        if self.delimiter is not None and self.delimiter in "\r\n\"'":
            raise ValueError(f"delimiter: {self.delimiter!r} ends a line or quotes a field; expected another character")
        return self


class Ingest(Section):
    source: Literal["sms_spam", "file", "csv", "tsv", "jsonl", "json", "parquet", "xlsx", "hub"]
    path: Annotated[str, Field(pattern=r"\S", max_length=10_000)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    hub: Hub = Hub()
    dialect: DialectSettings = DialectSettings()
    rejects: Annotated[int, Field(ge=0, le=MANY)] = 0
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

"""The sections of `params.yaml` about data: ingest, validate."""

from __future__ import annotations

import codecs
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
# Encodings of names of hosts, which Python counts among those of text.
NO_TEXT = ("idna", "punycode")


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


class OfSplits(Section):
    train: Annotated[Text, Field(description="of the training messages")]
    validation: Annotated[Text | None, Field(description="of validation; null divides the training messages into folds")] = None
    test: Annotated[Text, Field(description="of the test messages")]


class Hub(Section):
    name: Annotated[Text | None, Field(description="name of the data set, such as ag_news")] = None
    config: Annotated[Text | None, Field(description="its configuration; null is its default")] = None
    split: Annotated[
        Text | OfSplits, Field(description="the split to read; or, with ingest.split: column, {train, validation, test}")
    ] = "train"
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
                if codecs.lookup(self.encoding).name in NO_TEXT:
                    raise LookupError
                "a".encode(self.encoding)
            except (LookupError, UnicodeError, ValueError) as error:
                raise ValueError(
                    f"encoding: {self.encoding!r} is no text encoding of Python; expected cp1252 or another"
                ) from error
        if self.delimiter is not None and self.delimiter in "\r\n\"'":
            raise ValueError(f"delimiter: {self.delimiter!r} ends a line or quotes a field; expected another character")
        return self


COLUMN_KEYS = ("id_column", "text_column", "label_column", "group_column", "time_column", "split_column")
# Rules that take the test split from the data. The others draw it at random and preserve the class shares.
FIXED_SPLITS = ("time", "column")


class Ingest(Section):
    source: Literal["sms_spam", "file", "csv", "tsv", "jsonl", "json", "parquet", "xlsx", "hub"]
    path: Annotated[str, Field(pattern=r"\S", max_length=10_000)]
    files: Annotated[
        Text | None, Field(description="a name or pattern of files in the folder or zip archive `path`, such as `*.csv`")
    ] = None
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
    split: Literal["grouped", "random", "group_column", "time", "column"]
    group_column: Text | None = None
    time_column: Text | None = None
    split_column: Text | None = None
    split_map: Annotated[dict[LabelName, Literal["train", "validation", "test"]], BeforeValidator(label_names)] | None = None
    split_files: OfSplits | None = None
    drop_crossing: bool = False
    fractions: Fractions
    folds: Folds | None = None
    train_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Seed

    @model_validator(mode="after")
    def each_column_is_one_thing(self) -> Ingest:
        named: dict[str, str] = {}
        for key in COLUMN_KEYS:
            column = getattr(self, key)
            if column is not None and (other := named.setdefault(column, key)) != key:
                raise ValueError(f"{key} and {other} are both {column!r}; expected two columns")
        return self

    @model_validator(mode="after")
    def what_the_split_needs(self) -> Ingest:
        if complaint := split_complaint(self):
            raise ValueError(complaint)
        return self


def split_complaint(settings: Ingest) -> str | None:
    """What contradicts `split` among the settings of a split; None if nothing does."""
    rule, by_hub = settings.split, isinstance(settings.hub.split, OfSplits)
    columns = [key for key in ("group_column", "time_column", "split_column") if getattr(settings, key) is not None]
    sources = [key for key in ("split_column", "split_files") if getattr(settings, key) is not None]
    sources += ["hub.split"] if by_hub else []
    if settings.source == "sms_spam" and (columns or sources):
        return f"{[*columns, *sources][0]} is set, but the source sms_spam has only texts and labels; expected another source"
    if rule in ("group_column", "time") and getattr(settings, needed := f"{rule.removesuffix('_column')}_column") is None:
        return f"split: {rule} needs {needed}, the column with the {'times' if rule == 'time' else 'senders or threads'}"
    if rule == "column" and len(sources) != 1:
        found = f"found {' and '.join(sources)}" if sources else "found none"
        return f"split: column needs one of split_column, split_files and a mapping as hub.split; {found}"
    for key, rules in (
        ("group_column", ("group_column", *FIXED_SPLITS)),
        ("time_column", ("time",)),
        *((key, ("column",)) for key in sources),
        ("drop_crossing", FIXED_SPLITS),
        ("folds", ("grouped", "random", "group_column")),
    ):
        value = by_hub if key == "hub.split" else getattr(settings, key)
        if value and rule not in rules:
            reason = "; the test split comes from the data, and folds would draw another one" if key == "folds" else ""
            return f"{key} is set, but split is {rule}{reason}; remove {key}, or set split to {' or '.join(rules)}"
    if settings.split_map is not None and settings.split_column is None:
        return "split_map is set, but split_column is not; split_map renames the values of that column"
    if settings.split_files is not None and (settings.sha256 is not None or settings.source == "hub"):
        conflict = "source: hub" if settings.source == "hub" else "sha256, which pins one file"
        return f"split_files names files in the folder ingest.path; it cannot be combined with {conflict}"
    return "hub.split is a mapping, but source is not hub" if by_hub and settings.source != "hub" else None


class Validate(Section):
    expected_prior: Prior | None
    false_alarm: Share
    minimum_count: Count

    @model_validator(mode="after")
    def whole(self) -> Validate:
        if self.expected_prior is not None:
            sums_to_one(self.expected_prior, "expected_prior")
        return self

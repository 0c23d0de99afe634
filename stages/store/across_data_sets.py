"""The benchmark across data sets: its settings, `studies/datasets/params.yaml`, and the files of its results.

Each data set has its own result, so that a data set that is added later does not run the others again.
"""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from ballast.evaluation.comparison import REFERENCE
from ballast.exceptions import UserError
from stages.store.files import read_json
from stages.store.params import Params
from stages.store.project import PROJECT
from stages.store.section import Section, checked, read_yaml
from stages.store.studies import ACROSS_DATA_SETS, Override, overridden, params_path
from stages.store.values import Count, Name, Seed, Text

NAME = ACROSS_DATA_SETS
# Version of the protocol of the results. Results of an earlier protocol count as missing.
PROTOCOL = 1
# At the most probable class on the production prior, and at the operating point.
FAMILIES = ("corrected", "operating_point")
SECONDS_COLUMNS = ("data_set", "entry", "training_seconds", "message_passes", "machine")
METRICS = ("macro_f1", "rare_f1", "rare_recall", "tail_macro_f1", "rare_pr_auc", "log_loss", "accuracy")

# Keys of `ingest` that say where the data are, and not what they are.
PLACE = {"source", "path", "sha256", "hub", "text_column", "label_column", "id_column", "label_map", "dialect", "split_column"}

Estimates = dict[str, dict[str, dict[str, float]]]
Differences = dict[str, dict[str, dict[str, Any]]]


class Published(Section):
    """A figure that others report for a data set, and whether its protocol is the same as ours.

    metric, value : as printed; None if only the design of the comparison is cited.
    same_protocol : whether training data, test set and metric agree, so that the figures may be compared.
    """

    data_set: Text
    source: Text
    address: Text
    model: Text
    metric: Text | None
    value: float | None
    same_protocol: bool
    note: Text


class DataSet(Section):
    """A data set: what it tests, where it is from, and what its sections of params.yaml change.

    file, hub : keys of `ingest` for `data/raw/<name>.csv`, and for the hub if the hub has the data set in this form.
    """

    tests: Text
    address: Text
    licence: Text
    params: Override = Field(default={})
    file: dict[str, Any] | None = None
    hub: dict[str, Any] | None = None


class DataSets(Section):
    """The params.yaml of the benchmark: `common` and each data set override keys of the main one."""

    question: Text
    common: Override
    data_sets: Annotated[dict[Name, DataSet], Field(min_length=1)]

    @model_validator(mode="after")
    def one_reference(self) -> DataSets:
        """Raise ValueError without the entry that all data sets compare with."""
        techniques = self.common.get("techniques", {})
        if techniques and REFERENCE not in techniques:
            raise ValueError(f"common.techniques has no entry {REFERENCE!r}, which all others are compared with; add it")
        return self


class Counts(Section):
    """Messages of all classes, and of the rarest one."""

    messages: Count
    rare: int


class Entry(Section):
    """An entry on one data set: values with intervals, differences from the baseline, and from its threshold.

    values : by family; `raw` is on the unweighted test set, as others publish their figures.
    over_threshold : decisions for the most probable class, minus those of the baseline at its operating point.
    """

    technique: str
    values: Estimates
    differences: Differences | None
    over_threshold: dict[str, dict[str, Any]] | None


class Chosen(Section):
    """The entry that the default rule selects, and its verdicts on test against the entries that it should not lose to."""

    technique: str | None
    metric: str
    against: dict[str, dict[str, Any]]


class DataSetResult(Section):
    """The result of one data set. `settings` and `source` are the digests of what it was measured with.

    encoder : learning rate and frozen layers of every training.
    crossing : rows of training or validation that have a near duplicate in a later split.
    """

    protocol: int
    settings: str
    source: str | None
    data: str
    code: str
    classes: Count
    rarest: str
    tail: Annotated[list[str], Field(min_length=1)]
    share: float
    prior: float
    train: Counts
    test: Counts
    split: str
    crossing: int
    seeds: Annotated[list[Seed], Field(min_length=1)]
    confidence: float
    margin: float
    reference: str
    encoder: dict[str, float]
    entries: Annotated[dict[str, Entry], Field(min_length=1)]
    threshold: dict[str, dict[str, Any]]
    chosen: Chosen


class Across(Section):
    """`studies/results/datasets.json`: all data sets, what holds across them, and what is missing."""

    protocol: int
    question: str
    confidence: float
    reference: str
    data_sets: dict[str, dict[str, Any]]
    techniques: dict[str, dict[str, Any]]
    ranks: dict[str, dict[str, Any]]
    threshold: dict[str, Any]
    rarity: dict[str, Any]
    published: list[dict[str, Any]]
    missing: dict[str, str]


def folder() -> Path:
    """The folder of the results of single data sets."""
    return PROJECT.study_results / NAME


def data_set_path(name: str) -> Path:
    """The path of the result of one data set."""
    return folder() / f"{name}.json"


def across_path() -> Path:
    """The path of the result across data sets."""
    return PROJECT.study_results / f"{NAME}.json"


def seconds_path() -> Path:
    """The path of the table of seconds, which is apart because no rerun gives the same numbers."""
    return folder() / "seconds.csv"


def raw_path(name: str) -> Path:
    """Where the file of a data set is expected."""
    return Path("data/raw") / f"{name}.csv"


def read_seconds() -> list[dict[str, str]]:
    """The rows of the table of seconds; empty without it."""
    path = seconds_path()
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if any(set(row) != set(SECONDS_COLUMNS) or None in row.values() for row in rows):
        raise UserError(f"{path}: expected the columns {', '.join(SECONDS_COLUMNS)}; restore it with git, or delete it")
    return rows


def read_settings() -> DataSets:
    """The settings of the benchmark; raises UserError."""
    return checked(DataSets, read_yaml(params_path(NAME)), str(params_path(NAME)))


def read_published() -> list[Published]:
    """What others report, in `studies/datasets/published.yaml`; empty without the file."""
    path = params_path(NAME).with_name("published.yaml")
    if not path.is_file():
        return []
    return [checked(Published, entry, f"{path}: figures") for entry in read_yaml(path)["figures"]]


def content_of(settings: DataSets, name: str) -> dict[str, Any]:
    """The content of params.yaml for a data set, without the place of its data.

    `ingest` is that of the benchmark alone, because the main one describes other data.
    """
    main = {**read_yaml(PROJECT.params), "ingest": {}}
    return overridden(overridden(main, settings.common), settings.data_sets[name].params)


def with_place(content: dict[str, Any], place: dict[str, Any], name: str) -> tuple[dict[str, Any], Params]:
    """The content with the place of the data, and as validated params; raises UserError that names the data set."""
    placed = overridden(content, {"ingest": place})
    return placed, checked(Params, placed, f"{params_path(NAME)}: data_sets.{name}")


def settings_digest(params: Params) -> str:
    """A digest of the settings that determine a result, wherever the data are. A new key with its default changes nothing."""
    sections = {
        "ingest": params.ingest.model_dump(exclude=PLACE, exclude_defaults=True),
        "prior": params.production.prior,
        "train": {**params.train.settings(), "seeds": params.train.seeds},
        "techniques": params.techniques,
        "evaluate": params.evaluate.model_dump(),
        "operating_point": params.operating_point.model_dump(exclude_defaults=True),
        "select": params.select.model_dump(),
    }
    return hashlib.sha256(json.dumps(sections, sort_keys=True).encode()).hexdigest()


def read_result(name: str, settings: str | None = None) -> DataSetResult | None:
    """The result of a data set; None if there is none of this protocol, and of these settings if they are given.

    Raises UserError for a damaged file.
    """
    path = data_set_path(name)
    if not path.is_file():
        return None
    content = read_json(path)
    if content.get("protocol") != PROTOCOL:
        return None
    result = checked(DataSetResult, content, f"{path}: not the result of a data set; run `make study NAME={NAME}`")
    return result if settings in (None, result.settings) else None


def read_across() -> Across | None:
    """The result across data sets; None if the benchmark has not run, or under an earlier protocol. Raises UserError."""
    path = across_path()
    if not path.is_file():
        return None
    content = read_json(path)
    if content.get("protocol") != PROTOCOL:
        return None
    try:
        return checked(Across, content, str(path))
    except UserError as error:
        raise UserError(f"{path}: not the result of the benchmark; run `make study NAME={NAME}` ({error})") from error

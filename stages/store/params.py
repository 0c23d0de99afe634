"""What `params.yaml` may say: every key with its type and limits; an unknown key is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ballast.cli import parser, run
from ballast.exceptions import UserError, suggestion
from ballast.io.paths import regular_file
from ballast.io.urls import bare_address
from ballast.io.yaml_text import LARGEST_BYTES, yaml_mapping
from ballast.labels import label_name
from ballast.parameters import YEAR_HOURS, quoted
from stages.store.project import PROJECT
from stages.store.values import (
    CostsOfLabel,
    Count,
    Few,
    Finite,
    Gpus,
    LabelName,
    Minutes,
    Name,
    NotNegative,
    Plain,
    PlainFinite,
    Positive,
    Prior,
    Processes,
    Seed,
    Share,
    Text,
    label_names,
)


class Section(BaseModel):
    """A mapping that knows its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, coerce_numbers_to_str=False)


def sums_to_one(shares: dict[str, float], name: str) -> None:
    """Raise ValueError unless the shares sum to 1."""
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"{name} must sum to 1, not {sum(shares.values()):g}")


class Fractions(Section):
    train: Share
    validation: Share
    test: Share

    @model_validator(mode="after")
    def whole(self) -> Fractions:
        sums_to_one(self.model_dump(), "train, validation and test")
        return self


class Folds(Section):
    count: Annotated[int, Field(ge=2, le=1000)]
    index: Annotated[int, Field(ge=0, le=1000)]

    @model_validator(mode="after")
    def one_of_them(self) -> Folds:
        if self.index >= self.count:
            raise ValueError(f"index must be below count, which is {self.count}")
        return self


class Hub(Section):
    name: Text | None = None
    config: Text | None = None
    split: Text = "train"
    revision: Text | None = None


class Ingest(Section):
    source: Literal["sms_spam", "file", "csv", "tsv", "jsonl", "parquet", "hub"]
    path: Annotated[str, Field(pattern=r"\S", max_length=10_000)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    hub: Hub = Hub()
    text_column: Text
    label_column: Text
    id_column: Text | None = None
    label_map: dict[str | int | bool, LabelName] | None = None
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

    @model_validator(mode="after")
    def each_value_has_one_label(self) -> Ingest:
        labels: dict[str, str] = {}
        for value, label in (self.label_map or {}).items():
            if (other := labels.setdefault(label_name(value), label)) != label:
                raise ValueError(f"label_map gives the value {label_name(value)} the labels {other!r} and {label!r}")
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


class Keep(Section):
    versions: Annotated[int, Field(ge=2, le=10_000)]
    windows: Annotated[int, Field(ge=1, le=1_000_000)]


class Score(Section):
    source: Annotated[str, Field(pattern=r"\{window\}", max_length=10_000)]
    window: Annotated[str, Field(pattern=r"%", max_length=100)]
    hours: Annotated[float, Field(ge=0, le=YEAR_HOURS)]
    text_column: Text | None
    id_column: Text | None
    # A longer line is not read.
    longest_text: Annotated[int, Field(ge=1, le=1 << 24)]
    quarantine: Annotated[float, Field(ge=0, le=1)]


class Watch(Section):
    confidence: Annotated[float, Field(ge=0.5, lt=1)]
    false_alarm: Share
    negligible: Annotated[float, Field(ge=0, lt=1)]
    tolerance: Share
    messages: Few


class Retrain(Section):
    techniques: Literal["deployed", "all"]
    minimum_labels: Count
    metric: Text
    margin: NotNegative


def elsewhere(webhook: Any) -> Any:
    """Raise ValueError for an address with a path, which is a secret: whoever knows it can write there."""
    known = isinstance(webhook, str) and re.fullmatch(r"\$[A-Za-z_][A-Za-z0-9_]*|file:.+", webhook)
    if isinstance(webhook, str) and not known and not bare_address(webhook):
        raise ValueError(
            "an address is a secret, and this file is not; put it into an environment variable and write $NAME here, or into a"
            " file of mode 0600 and write file:PATH"
        )
    return webhook


class Production(Section):
    prior: Literal["data"] | Prior
    promote: Literal["auto", "review"]
    keep: Keep
    webhook: Annotated[str | None, BeforeValidator(elsewhere)]
    score: Score
    watch: Watch
    retrain: Retrain

    @model_validator(mode="after")
    def whole(self) -> Production:
        if self.prior != "data":
            sums_to_one(self.prior, "prior")
        return self


def one_encoder(model: Any) -> Any:
    """Raise ValueError for a list of encoders."""
    if isinstance(model, list):
        raise ValueError("one encoder is expected here; a list of them is for studies/encoders/params.yaml")
    return model


class Train(Section):
    # Where and how a training runs, which changes no result but by rounding, and by what dropout draws.
    PLACE: ClassVar[frozenset[str]] = frozenset({"processes", "checkpoint_minutes"})

    model: Annotated[Text, BeforeValidator(one_encoder)]
    epochs: Few
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    # No optimiser steps over more than the weights' own size.
    learning_rate: Annotated[float, Field(gt=0, le=10)]
    warmup: Annotated[float, Field(ge=0, le=1)]
    weight_decay: Annotated[float, Field(ge=0, le=100)]
    max_grad_norm: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    # Encoders have dozens.
    frozen_layers: Annotated[int, Field(ge=0, le=1000)]
    # What an encoder takes is far less; the memory of attention grows with its square.
    max_length: Annotated[int, Field(ge=4, le=131_072)]
    precision: Literal["auto", "bf16", "fp32"]
    device: Literal["auto", "cpu", "cuda"]
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000)]
    processes: Processes
    checkpoint_minutes: Annotated[Minutes, Field(gt=0)]

    @model_validator(mode="after")
    def distinct(self) -> Train:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, not {self.seeds}")
        return self

    def settings(self) -> dict[str, Any]:
        """What decides a training's result, but for its seed."""
        return self.model_dump(exclude={"seeds", *self.PLACE})


class Space(Section):
    low: Finite | None = None
    high: Finite | None = None
    log: bool = False
    per_class: bool = False
    choices: Annotated[list[PlainFinite], Field(min_length=2, max_length=1000)] | None = None

    @model_validator(mode="after")
    def one_kind(self) -> Space:
        if self.choices is not None:
            if self.model_fields_set != {"choices"}:
                raise ValueError("choices stand alone, without low, high, log and per_class")
        elif self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        elif not self.low < self.high:
            raise ValueError(f"low must be below high, not {self.low:g} and {self.high:g}")
        elif self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 where log is true, not {self.low:g}")
        return self


class Search(Section):
    trials: Annotated[int, Field(ge=0, le=100_000)]
    metric: Text
    seed: Seed
    spaces: dict[Name, dict[str, Space]]

    @model_validator(mode="after")
    def something_to_search(self) -> Search:
        for name, spaces in self.spaces.items():
            if not spaces:
                raise ValueError(f"spaces.{name} names no parameter")
        if self.trials and not self.spaces:
            raise ValueError(f"trials is {self.trials}, but spaces names no entry of techniques")
        return self


class Evaluate(Section):
    # Each is kept for every metric: more gives no digit that the seed does not move.
    resamples: Annotated[int, Field(ge=100, le=100_000)]
    confidence: Annotated[float, Field(ge=0.5, lt=1)]
    seed: Seed


class OperatingPoint(Section):
    rule: Literal["f1", "macro_f1", "cost", "precision", "budget"]
    label: Annotated[LabelName | None, BeforeValidator(lambda label: label if label is None else label_name(label))]
    costs: Annotated[dict[str, CostsOfLabel], BeforeValidator(label_names)] | None
    precision: Annotated[float, Field(gt=0, le=1)] | None
    budget: Annotated[float, Field(ge=0, lt=10_000)] | None

    @model_validator(mode="after")
    def complete(self) -> OperatingPoint:
        key = {"cost": "costs"}.get(self.rule, self.rule)
        if getattr(self, key, 0) is None:
            raise ValueError(f"rule {self.rule} needs {key}, which is null")
        return self


class Probe(Section):
    texts: Annotated[list[Annotated[str, Field(max_length=100_000)]], Field(min_length=1, max_length=10_000)]
    perturbations: Annotated[list[Text], Field(max_length=1000)]
    padding: Text


class Select(Section):
    metric: Text
    at: Literal["corrected", "operating_point"]
    tolerance: NotNegative
    constraints: dict[str, Finite]
    safe_only: bool


class Report(Section):
    show_texts: bool
    mistakes: Few
    sample: Annotated[int, Field(ge=1, le=10_000_000)]


class Nodes(Section):
    train: Literal["here", "ray", "kubernetes"]
    address: Text | None
    cpus: Few
    gpus: Gpus
    gpus_of: dict[Name, Gpus]
    wait_minutes: Minutes
    deployment: Annotated[str, Field(pattern=r"^[^/\s]+/[^/\s]+$", max_length=200)]

    @model_validator(mode="after")
    def such_shares_exist(self) -> Nodes:
        for name, count in {"gpus": self.gpus, **{f"gpus_of.{name}": count for name, count in self.gpus_of.items()}}.items():
            if count % 1 and (count > 1 or self.train == "kubernetes"):
                where = "on Kubernetes" if self.train == "kubernetes" else "above 1"
                raise ValueError(f"{name} is {count:g}; {where} only whole GPUs can be had")
        return self


class Params(Section):
    ingest: Ingest
    validate_: Annotated[Validate, Field(alias="validate")]
    production: Production
    train: Train
    techniques: Annotated[dict[Name, dict[str, Plain] | None], Field(min_length=1, max_length=1000)]
    search: Search
    evaluate: Evaluate
    operating_point: OperatingPoint
    probe: Probe
    select: Select
    report: Report
    nodes: Nodes

    @model_validator(mode="after")
    def text_is_no_id(self) -> Params:
        score, ingest = self.production.score, self.ingest
        text, id_ = score.text_column or ingest.text_column, score.id_column or ingest.id_column
        if text == id_:
            raise ValueError(f"production.score: text and id are both in the column {text!r}; expected two columns")
        return self

    @model_validator(mode="after")
    def known_entries(self) -> Params:
        for name in self.nodes.gpus_of:
            if name not in self.techniques:
                raise ValueError(f"nodes.gpus_of names {name!r}: {suggestion(name, self.techniques)}")
        return self


def fields_of(kind: Any) -> Mapping[str, Any]:
    """The fields of a section, which may be optional; none of what is no section."""
    kinds = [each for each in (kind, *get_args(kind)) if isinstance(each, type) and issubclass(each, BaseModel)]
    return kinds[0].model_fields if kinds else {}


def known_keys(section: type[BaseModel], place: tuple[str | int, ...]) -> list[str]:
    """The keys of the mapping at a place within params."""
    kind: Any = section
    for key in place:
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        else:
            fields = fields_of(kind)
            kind = next((field.annotation for name, field in fields.items() if key in (name, field.alias)), None)
    return [field.alias or name for name, field in fields_of(kind).items()]


# As in dict[str,float].
UNION_BRANCH = re.compile(r"[a-z-]+\[.*\]", re.DOTALL)


def complaint(error: ValidationError, model: type[BaseModel]) -> str:
    """One line on one thing that is wrong: the deepest, which of the branches of a union is the one meant."""
    first = max(error.errors(), key=lambda each: len(each["loc"]))
    # Pydantic names the branch of a union too.
    place = tuple(part for part in first["loc"] if not UNION_BRANCH.fullmatch(str(part)))
    where = ".".join(map(str, place)) or "the file"
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}: {suggestion(str(place[-1]), known_keys(model, place[:-1]))}"
    if first["type"] == "missing":
        return f"missing key {where!r}"
    if first["type"] == "value_error":
        # Our own words name what was found; the input would be a whole section.
        return f"{where}: {first['ctx']['error']}" if place else str(first["ctx"]["error"])
    return f"{where}: {first['msg']}, found {quoted(first['input'])}"


def read_yaml(path: Path, largest: int = LARGEST_BYTES) -> dict[Any, Any]:
    """The mapping that a YAML file holds; raises UserError."""
    try:
        regular_file(path)
        with path.open("rb") as file:
            # One byte more shows that it is too large, and no more of it is read.
            content = file.read(largest + 1)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run from the repository's root") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return yaml_mapping(content, largest)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


Model = TypeVar("Model", bound=BaseModel)


def checked(model: type[Model], content: Any, where: str) -> Model:
    """The content of a file as a model; raises UserError that says where, names the key and what was expected."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: {complaint(error, model)}") from error


def read_params(path: Path = PROJECT.params) -> Params:
    """Read and check the whole file; raises UserError that names the key and what was expected."""
    return checked(Params, read_yaml(path), str(path))


def main() -> None:
    read_params()


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())

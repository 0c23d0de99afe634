"""What `params.yaml` may say: every key with its type and limits; an unknown key is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ballast.command import parser, run
from ballast.errors import UserError, nearest
from ballast.labels import by_label, label_name
from ballast.paths import regular_file
from ballast.urls import bare_address, hidden
from stages.files import LONGEST_NAME

PARAMS = Path("params.yaml")

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# A name becomes a file, a folder and a DVC stage.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$", max_length=LONGEST_NAME)]


def label_names(shares: Any) -> Any:
    """Labels as text; what is no mapping is left to complain about."""
    return by_label(shares) if isinstance(shares, dict) else shares


Prior = Annotated[dict[str, Share], BeforeValidator(label_names)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]
CostsOfLabel = Annotated[dict[str, Cost], BeforeValidator(label_names)]


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
    count: Annotated[int, Field(ge=2)]
    index: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def one_of_them(self) -> Folds:
        if self.index >= self.count:
            raise ValueError(f"index must be below count, which is {self.count}")
        return self


class Hub(Section):
    name: str | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None


class Ingest(Section):
    source: Literal["sms_spam", "file", "csv", "tsv", "jsonl", "parquet", "hub"]
    path: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    hub: Hub = Hub()
    text_column: str
    label_column: str
    id_column: str | None = None
    label_map: dict[str | int | bool, str] | None = None
    deduplicate: bool
    conflicts: Literal["drop", "fail"]
    split: Literal["grouped", "random"]
    fractions: Fractions
    folds: Folds | None = None
    train_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Seed


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
    versions: Annotated[int, Field(ge=2)]
    windows: Count


class Score(Section):
    source: Annotated[str, Field(pattern=r"\{window\}")]
    window: Annotated[str, Field(pattern=r"%")]
    hours: Annotated[float, Field(ge=0)]
    text_column: str | None
    id_column: str | None
    longest_text: Count
    quarantine: Annotated[float, Field(ge=0, le=1)]


class Watch(Section):
    confidence: Annotated[float, Field(ge=0.5, lt=1)]
    false_alarm: Share
    negligible: Annotated[float, Field(ge=0, lt=1)]
    tolerance: Share
    messages: Count


class Retrain(Section):
    techniques: Literal["deployed", "all"]
    minimum_labels: Count
    metric: str
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)]


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


def auto_or_count(processes: Any) -> Any:
    """Raise ValueError unless it is `auto` or a number of processes."""
    if processes != "auto" and (not isinstance(processes, int) or isinstance(processes, bool) or processes < 1):
        raise ValueError(f"must be auto or a whole number of at least 1, not {processes!r}")
    return processes


class Train(Section):
    # Where and how a training runs, which changes no result but by rounding, and by what dropout draws.
    PLACE: ClassVar[frozenset[str]] = frozenset({"processes", "checkpoint_minutes"})

    model: Annotated[str, BeforeValidator(one_encoder)]
    epochs: Count
    batch_size: Count
    learning_rate: Positive
    warmup: Annotated[float, Field(ge=0, le=1)]
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    max_grad_norm: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    frozen_layers: Annotated[int, Field(ge=0)]
    max_length: Annotated[int, Field(ge=4)]
    precision: Literal["auto", "bf16", "fp32"]
    device: Literal["auto", "cpu", "cuda"]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    processes: Annotated[int | str, BeforeValidator(auto_or_count)]
    checkpoint_minutes: Positive

    @model_validator(mode="after")
    def distinct(self) -> Train:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, not {self.seeds}")
        return self

    def settings(self) -> dict[str, Any]:
        """What decides a training's result, but for its seed."""
        return self.model_dump(exclude={"seeds", *self.PLACE})


class Space(Section):
    low: Annotated[float, Field(allow_inf_nan=False)] | None = None
    high: Annotated[float, Field(allow_inf_nan=False)] | None = None
    log: bool = False
    per_class: bool = False
    choices: Annotated[list[Any], Field(min_length=2)] | None = None

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
    trials: Annotated[int, Field(ge=0)]
    metric: str
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
    resamples: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(ge=0.5, lt=1)]
    seed: Seed


class OperatingPoint(Section):
    rule: Literal["f1", "macro_f1", "cost", "precision", "budget"]
    label: Annotated[str | None, BeforeValidator(lambda label: label if label is None else label_name(label))]
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
    texts: Annotated[list[str], Field(min_length=1)]
    perturbations: list[str]
    padding: Annotated[str, Field(pattern=r"\S")]


class Select(Section):
    metric: str
    at: Literal["corrected", "operating_point"]
    tolerance: Annotated[float, Field(ge=0)]
    constraints: dict[str, Finite]
    safe_only: bool


class Report(Section):
    show_texts: bool
    mistakes: Count
    sample: Count


Gpus = Annotated[float, Field(ge=0, strict=False, allow_inf_nan=False)]


class Nodes(Section):
    train: Literal["here", "ray", "kubernetes"]
    address: str | None
    cpus: Count
    gpus: Gpus
    gpus_of: dict[Name, Gpus]
    wait_minutes: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    deployment: Annotated[str, Field(pattern=r"^[^/]+/[^/]+$")]

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
    techniques: Annotated[dict[Name, dict[str, Any] | None], Field(min_length=1)]
    search: Search
    evaluate: Evaluate
    operating_point: OperatingPoint
    probe: Probe
    select: Select
    report: Report
    nodes: Nodes

    @model_validator(mode="after")
    def known_entries(self) -> Params:
        for name in self.nodes.gpus_of:
            if name not in self.techniques:
                raise ValueError(f"nodes.gpus_of names {name!r}: {nearest(name, self.techniques)}")
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


def complaint(error: ValidationError, model: type[BaseModel]) -> str:
    """One line on one thing that is wrong: the deepest, which of the branches of a union is the one meant."""
    first = max(error.errors(), key=lambda each: len(each["loc"]))
    # Pydantic names the branch of a union too, as in dict[str,float].
    place = tuple(part for part in first["loc"] if "[" not in str(part))
    where = ".".join(map(str, place)) or "the file"
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}: {nearest(str(place[-1]), known_keys(model, place[:-1]))}"
    if first["type"] == "missing":
        return f"missing key {where!r}"
    if first["type"] == "value_error":
        # Our own words name what was found; the input would be a whole section.
        return f"{where}: {first['ctx']['error']}"
    found = hidden(repr(first["input"]))
    return f"{where}: {first['msg']}, found {found if len(found) < 100 else found[:97] + '...'}"


def read_yaml(path: Path) -> Any:
    """What a YAML file holds; raises UserError."""
    try:
        regular_file(path)
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run from the repository's root") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error


Model = TypeVar("Model", bound=BaseModel)


def checked(model: type[Model], content: Any, where: str) -> Model:
    """The content of a file as a model; raises UserError that says where, names the key and what was expected."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: {complaint(error, model)}") from error


def read_params(path: Path = PARAMS) -> Params:
    """Read and check the whole file; raises UserError that names the key and what was expected."""
    return checked(Params, read_yaml(path), str(path))


def main() -> None:
    read_params()


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())

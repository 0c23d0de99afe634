"""The sections of `params.yaml` about training: train, search, evaluate, nodes."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from ballast.parameters import quoted
from stages.store.section import Section
from stages.store.values import (
    Few,
    Finite,
    Gpus,
    Minutes,
    Name,
    PlainFinite,
    Positive,
    Processes,
    Seed,
    Text,
)


def one_encoder(model: Any) -> Any:
    """Raise ValueError for a list of encoders."""
    if isinstance(model, list):
        raise ValueError("expected one encoder; a list of encoders belongs in studies/encoders/params.yaml")
    return model


def list_of_seeds(seeds: Any) -> Any:
    """Raise ValueError for seeds outside a list."""
    if not isinstance(seeds, list):
        raise ValueError(f"expected a list of seeds, such as [0] or [0, 1, 2], found {quoted(seeds)}")
    return seeds


def number_or_auto(value: Any, number: ValidatorFunctionWrapHandler) -> Any:
    """The value if it is `auto` or a valid number; raises ValueError."""
    if value == "auto":
        return value
    if isinstance(value, str):
        raise ValueError(f"expected auto or a number, found {quoted(value)}")
    return number(value)


OR_AUTO = WrapValidator(number_or_auto)
# Pydantic warns of a text where it expects a number.
AS_IT_IS = PlainSerializer(lambda value: value)


class Train(Section):
    # Keys for where and how a training runs. They change results only by rounding and by what dropout draws.
    PLACE: ClassVar[frozenset[str]] = frozenset({"processes", "checkpoint_minutes"})
    # Keys that the stage `encoder` decides if they are `auto`.
    AUTO: ClassVar[tuple[str, ...]] = ("learning_rate", "frozen_layers")

    model: Annotated[Text, BeforeValidator(one_encoder)]
    epochs: Few
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    # A larger step would exceed the size of the weights.
    learning_rate: Annotated[float, Field(gt=0, le=10), OR_AUTO, AS_IT_IS]
    warmup: Annotated[float, Field(ge=0, le=1)]
    weight_decay: Annotated[float, Field(ge=0, le=100)]
    max_grad_norm: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    # Encoders have dozens of layers.
    frozen_layers: Annotated[int, Field(ge=0, le=1000), OR_AUTO, AS_IT_IS]
    # Encoders take far fewer tokens; the memory of attention grows with the square.
    max_length: Annotated[int, Field(ge=4, le=131_072)]
    long_texts: Literal["truncate", "head_and_tail", "windows"] = "truncate"
    precision: Literal["auto", "bf16", "fp32"]
    device: Literal["auto", "cpu", "cuda"]
    seeds: Annotated[list[Seed], BeforeValidator(list_of_seeds), Field(min_length=1, max_length=1000)]
    processes: Processes
    checkpoint_minutes: Annotated[Minutes, Field(gt=0)]

    @model_validator(mode="after")
    def distinct(self) -> Train:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, not {self.seeds}")
        return self

    @property
    def auto(self) -> list[str]:
        """The keys that are `auto`."""
        return [key for key in self.AUTO if getattr(self, key) == "auto"]

    def settings(self) -> dict[str, Any]:
        """The settings that determine the result of a training, without the seed, and without defaults of later versions."""
        return self.model_dump(exclude={"seeds", *self.PLACE}, exclude_defaults=True)


class Space(Section):
    low: Annotated[Finite | None, Field(description="smallest value")] = None
    high: Annotated[Finite | None, Field(description="largest value")] = None
    log: Annotated[bool, Field(description="draw the logarithm evenly instead of the value")] = False
    per_class: Annotated[bool, Field(description="search one number per class, relative to the largest class")] = False
    choices: Annotated[
        Annotated[list[PlainFinite], Field(min_length=2, max_length=1000)] | None,
        Field(description="values to choose from, instead of low and high"),
    ] = None

    @model_validator(mode="after")
    def one_kind(self) -> Space:
        if self.choices is not None:
            if self.model_fields_set != {"choices"}:
                raise ValueError("choices excludes low, high, log and per_class")
        elif self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        elif not self.low < self.high:
            raise ValueError(f"low must be below high, not {self.low:g} and {self.high:g}")
        elif self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 if log is true, not {self.low:g}")
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
                raise ValueError(f"spaces.{name} does not name a parameter")
        if self.trials and not self.spaces:
            raise ValueError(f"trials is {self.trials}, but spaces does not name an entry of techniques")
        return self


class Evaluate(Section):
    # All draws are stored for every metric; more would add digits that change with the seed.
    resamples: Annotated[int, Field(ge=100, le=100_000)]
    confidence: Annotated[float, Field(ge=0.5, lt=1)]
    seed: Seed
    safe_odds_ratio: Annotated[float, Field(gt=1, le=100)]
    margin: Annotated[float, Field(gt=0, lt=1)]


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
                raise ValueError(f"{name} is {count:g}; {where} only whole GPUs can be requested")
        return self

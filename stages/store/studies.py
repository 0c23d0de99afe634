"""Studies: the keys of their `params.yaml`, the variants of the main `params.yaml` that they define, and their results.

A study is a separate DVC pipeline, `studies/<name>/`, off by default. The stages of the main pipeline train its variants,
each in a separate folder, and evaluate them on the production prior of the main data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from ballast.exceptions import UserError, suggestion
from stages.store.encoder_settings import chosen, encoder_settings
from stages.store.files import read_json
from stages.store.ingested import prior_counts
from stages.store.params import Params, read_params
from stages.store.project import PROJECT
from stages.store.section import Section, checked, read_yaml
from stages.store.values import Count, Name, Seed

# The name of the variant that pools all folds.
POOLED_NAME = "all folds"
ACROSS_DATA_SETS = "datasets"
# Version of the protocol of the results. Results of an earlier protocol count as missing.
PROTOCOL = 2

Override = dict[str, dict[str, Any]]


class Axis(Section):
    """The numeric key of params in which the variants differ, such as `ingest.train_share`, and its title."""

    key: str
    title: str


class Study(Section):
    """A study's params.yaml. `common` and the variants override keys of the main one; `techniques` is replaced as a whole.

    folds : 0 to J - 1, for a study that trains each variant once for each of J folds and tests every message once. Fold number
        i adds i to the seeds.
    """

    question: str
    reference: str | None = None
    axis: Axis | None = None
    folds: list[int] = Field(default=[])
    common: Override = Field(default={})
    variants: dict[Name, Override] = Field(default={})

    @model_validator(mode="after")
    def folds_from_0(self) -> Study:
        if self.folds and (len(self.folds) < 2 or self.folds != list(range(len(self.folds)))):
            raise ValueError(f"folds must count from 0 to at least 1, such as [0, 1, 2, 3, 4]; found {self.folds}")
        return self


class Row(Section):
    """The result of a technique in a variant; differences are from the row that it is compared with."""

    variant: str
    technique: str
    at: float | None
    seeds: Annotated[list[Seed], Field(min_length=1)]
    training: dict[str, float]
    # Results of earlier versions lack it.
    encoder: dict[str, float] | None = None
    metrics: dict[str, dict[str, dict[str, float]]]
    compared_with: str | None
    differences: dict[str, dict[str, dict[str, Any]]] | None


class Result(Section):
    """The result of a study, for the data with the sha256 `data` and the settings with the digest `settings`.

    trainings : of each technique in each variant, by seed and by fold.
    """

    protocol: int
    data: str
    settings: str
    question: str
    labels: list[str]
    rarest: str
    support: Count
    trainings: Count
    confidence: float
    axis: Axis | None
    rows: Annotated[list[Row], Field(min_length=1)]
    claims: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A variant of params.yaml: its content and the validated model.

    key : its name in the study's params.yaml, which the folds of a variant share.
    pooled_as : the name of the pooled folds, if it is a fold.
    """

    content: Mapping[str, Any]
    params: Params
    key: str
    pooled_as: str


def params_path(study: str) -> Path:
    """The path of a study's settings."""
    return PROJECT.studies / study / "params.yaml"


def variant_folder(study: str, variant: str) -> Path:
    """The folder of a variant's logits; the name of an encoder may be a path."""
    return PROJECT.studies / study / "variants" / variant.lstrip("/")


def result_path(study: str) -> Path:
    """The path of a study's result."""
    return PROJECT.study_results / f"{study}.json"


def known_studies() -> list[str]:
    """The names of the studies of the main data. The benchmark across data sets has its own settings and results."""
    names = sorted(path.parent.name for path in PROJECT.studies.glob("*/dvc.yaml"))
    return [name for name in names if name != ACROSS_DATA_SETS]


def read_study(name: str) -> Study:
    """Read the settings of a study; raises UserError."""
    if not params_path(name).is_file():
        raise UserError(f"unknown study {name!r}: {suggestion(name, known_studies())}")
    return checked(Study, read_yaml(params_path(name)), str(params_path(name)))


def overridden(content: Mapping[str, Any], override: Override) -> dict[str, Any]:
    """The content of params.yaml with some keys overridden; `techniques` is replaced as a whole."""
    made = dict(deepcopy(content))
    for section, values in override.items():
        whole = section == "techniques" or not isinstance(made.get(section), Mapping)
        made[section] = values if whole else {**made[section], **values}
    return made


def data_prior() -> dict[str, float]:
    """The class shares of the main data, on which all variants are evaluated."""
    counts = prior_counts(read_json(PROJECT.ingest))
    return {label: count / sum(counts.values()) for label, count in counts.items()}


def overrides(study: Study, path: Path) -> dict[str, Override]:
    """The overrides of each variant: those in the study's params, or one for each encoder in a list."""
    models = study.common.get("train", {}).get("model")
    if not isinstance(models, list):
        if not study.variants:
            raise UserError(f"{path}: no variants; name some, or give a list of encoders as common.train.model")
        return {name: study.variants[name] for name in study.variants}
    if study.variants or not models or len(set(map(str, models))) < len(models):
        raise UserError(
            f"{path}: common.train.model: expected different encoders and no variants beside them, found {models!r}"
        )
    return {str(model): {"train": {"model": model}} for model in models}


def read_variants(name: str) -> dict[str, Variant]:
    """Read and validate all variants of a study; raises UserError that names the variant and the key."""
    study, path = read_study(name), params_path(name)
    main = overridden(read_yaml(PROJECT.params), {"train": chosen()})
    made, named = {}, overrides(study, path)
    for variant, override in named.items():
        content = overridden(overridden(main, study.common), override)
        params = checked(Params, content, f"{path}: variants.{variant}")
        if params.production.prior == "data":
            content = overridden(content, {"production": {"prior": data_prior()}})
        for full_name, of_fold in by_fold(variant, content, params, study.folds).items():
            own = checked(Params, of_fold, f"{path}: variants.{variant}")
            pooled_as = POOLED_NAME if own.ingest.folds is not None and not study.folds else variant
            made[full_name] = Variant(content=of_fold, params=own, key=variant, pooled_as=pooled_as)
    if study.reference is not None and study.reference not in named:
        raise UserError(f"{path}: reference: no variant {study.reference!r}: {suggestion(study.reference, named)}")
    return made


def by_fold(variant: str, content: Mapping[str, Any], params: Params, folds: list[int]) -> dict[str, Mapping[str, Any]]:
    """The content of each fold of a variant, or of the variant alone if the study has no folds."""
    if not folds:
        return {variant: content}
    return {
        f"{variant}/fold_{fold}": overridden(
            content,
            {
                "ingest": {"folds": {"count": len(folds), "index": fold}},
                "train": {"seeds": [seed + fold for seed in params.train.seeds]},
            },
        )
        for fold in folds
    }


def with_absolute_paths(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of params.yaml for a project in another folder: existing files and folders by their absolute paths."""

    def from_here(place: str) -> str:
        return str(Path(place).resolve()) if Path(place).exists() else place

    places = {"ingest": "path", "train": "model"}
    return {**content, **{name: {**content[name], key: from_here(content[name][key])} for name, key in places.items()}}


def value_at(content: Mapping[str, Any], key: str) -> float | None:
    """The number at a dotted key of params; None if there is none."""
    value: Any = content
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def settings_digest() -> str:
    """A digest of the main settings that determine a study's result: training and the production prior."""
    params = read_params()
    content = {"train": encoder_settings(params.train), "production.prior": params.production.prior}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def study_results() -> dict[str, Result | None]:
    """The result of each study; None if there is none for the present data and settings.

    Raises UserError for a damaged file.
    """
    now = (read_json(PROJECT.ingest)["sha256"], settings_digest())
    results: dict[str, Result | None] = {}
    for study in known_studies():
        path = result_path(study)
        results[study] = None
        if path.is_file():
            content = read_json(path)
            if "rows" in content and content.get("protocol", 1) < PROTOCOL:
                continue
            result = checked(Result, content, f"{path}: not the result of a study; run `make study NAME={study}`")
            results[study] = result if (result.data, result.settings) == now else None
    return results

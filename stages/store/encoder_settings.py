"""The settings of an encoder's training, with numbers for those that are `auto`: the stage `encoder` chose them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ballast.exceptions import UserError
from stages.store.files import read_json
from stages.store.params import read_params
from stages.store.project import PROJECT, Project
from stages.store.training_sections import Train


def chosen(project: Project = PROJECT) -> dict[str, Any]:
    """The values of the settings that are `auto`; empty if there are none. Raises UserError without `data/encoder.json`."""
    return values_of(read_params(project.params).train.auto, project)


def values_of(auto: Sequence[str], project: Project) -> dict[str, Any]:
    """The chosen values of the settings `auto`; raises UserError if `data/encoder.json` lacks one of them."""
    found = read_json(project.encoder) if auto else {}
    if missing := [key for key in auto if key not in found.get("auto", ())]:
        raise UserError(
            f"{project.encoder}: train.{missing[0]} is auto in {project.params}, but was not chosen; run `dvc repro`"
        )
    return {key: found[key] for key in auto}


def encoder_settings(train: Train, project: Project = PROJECT) -> dict[str, Any]:
    """The settings of the section `train` that determine the result of a training, without the seed."""
    return {**train.settings(), **values_of(train.auto, project)}


def in_words(found: Mapping[str, Any]) -> str:
    """What was chosen and why, from the content of `data/encoder.json`; empty if nothing was `auto`.

    Examples
    --------
    >>> in_words({"learning_rate": 5e-4, "auto": ["learning_rate"], "log_loss": {"0.0005": 0.1, "0.001": None}})
    'learning_rate: 0.0005, by log loss on the validation messages of seed 0 (0.0005 0.1000, 0.001 diverged).'
    """
    said = []
    if "frozen_layers" in found["auto"]:
        said.append(
            f"frozen_layers: {found['frozen_layers']}, all but the highest layer."
            if found["frozen_layers"]
            else "frozen_layers: 0, all layers are trained."
        )
    if found["log_loss"]:
        tried = ", ".join(f"{rate} {'diverged' if loss is None else f'{loss:.4f}'}" for rate, loss in found["log_loss"].items())
        said.append(f"learning_rate: {found['learning_rate']:g}, by log loss on the validation messages of seed 0 ({tried}).")
    return " ".join(said)


def choice_in_words(project: Project = PROJECT) -> str:
    """What the stage `encoder` chose and why; empty if params leave nothing open."""
    return in_words(read_json(project.encoder)) if read_params(project.params).train.auto else ""

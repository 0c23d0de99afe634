"""The settings of an encoder's training, with numbers for those that are `auto`: the stage `encoder` chose them."""

from __future__ import annotations

from typing import Any

from stages.store.files import read_json
from stages.store.params import read_params
from stages.store.project import PROJECT, Project


def chosen(project: Project = PROJECT) -> dict[str, Any]:
    """The values of the settings that are `auto`; empty if there are none. Raises UserError without `data/encoder.json`."""
    auto = read_params(project.params).train.auto
    found = read_json(project.encoder) if auto else {}
    return {key: found[key] for key in auto}


def encoder_settings(project: Project = PROJECT) -> dict[str, Any]:
    """The settings that determine the result of a training, without the seed."""
    return {**read_params(project.params).train.settings(), **chosen(project)}

"""The registry of techniques: one file each, its name is the technique's name, its `build` makes the technique."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping, Sequence
from types import ModuleType

import numpy as np

from ballast.exceptions import UserError, suggestion
from ballast.labels import by_label, check_labels
from ballast.technique import Technique


def technique_names() -> list[str]:
    """Names of all techniques, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def module_of(technique: str) -> ModuleType:
    """The module of a technique; raises UserError with the known names."""
    if technique not in technique_names():
        raise UserError(f"unknown technique {technique!r}: {suggestion(technique, technique_names())}")
    return importlib.import_module(f"{__name__}.{technique}")


def accepted_parameters(technique: str) -> dict[str, inspect.Parameter]:
    """The parameters that a technique's `build` takes, by name."""
    parameters = inspect.signature(module_of(technique).build).parameters
    return {name: each for name, each in parameters.items() if each.kind is inspect.Parameter.KEYWORD_ONLY}


def check_parameters(technique: str, parameters: Mapping[str, object]) -> None:
    """Raise UserError for a parameter that the technique does not know, or one that it needs and lacks."""
    accepted = accepted_parameters(technique)
    for name in parameters:
        if name not in accepted:
            raise UserError(
                f"unknown parameter {name!r} of {technique}: {suggestion(name, accepted) if accepted else 'it takes none'}"
            )
    lacking = [n for n, each in accepted.items() if each.default is inspect.Parameter.empty and n not in parameters]
    if lacking:
        raise UserError(f"{technique} needs the parameter {', '.join(map(repr, lacking))}")


def by_index(name: str, value: object, labels: Sequence[str]) -> object:
    """Turn the label names of a mapping into class indices; raises UserError for a name that is no label."""
    if not isinstance(value, Mapping):
        return value
    named = by_label(value)
    check_labels(name, named, labels)
    return {list(labels).index(label): each for label, each in named.items()}


def build(technique: str, counts: np.ndarray, labels: Sequence[str], parameters: Mapping[str, object]) -> Technique:
    """Make a technique for a training split.

    Parameters
    ----------
    technique : file name in this folder, without the ending.
    counts : (K,) training messages of each class.
    labels : K label names in the order of the class indices.
    parameters : as in `params.yaml`; classes by their label names.
    """
    check_parameters(technique, parameters)
    indexed = {name: by_index(f"{technique}.{name}", value, labels) for name, value in parameters.items()}
    return module_of(technique).build(counts, labels, **indexed)

"""The registry of techniques. Each has a file with the technique's name and a function `build`."""

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
    """The module of a technique. Raises UserError for an unknown name."""
    if technique not in technique_names():
        raise UserError(f"unknown technique {technique!r}: {suggestion(technique, technique_names())}")
    return importlib.import_module(f"{__name__}.{technique}")


def accepted_parameters(technique: str) -> dict[str, inspect.Parameter]:
    """The parameters of a technique's `build`, by name."""
    parameters = inspect.signature(module_of(technique).build).parameters
    return {name: parameter for name, parameter in parameters.items() if parameter.kind is inspect.Parameter.KEYWORD_ONLY}


def check_parameters(technique: str, parameters: Mapping[str, object]) -> None:
    """Raise UserError for an unknown parameter, or a missing one without a default."""
    accepted = accepted_parameters(technique)
    for name in parameters:
        if name not in accepted:
            raise UserError(
                f"unknown parameter {name!r} of {technique}: {suggestion(name, accepted) if accepted else 'it takes none'}"
            )
    missing = [
        name for name, parameter in accepted.items() if parameter.default is inspect.Parameter.empty and name not in parameters
    ]
    if missing:
        raise UserError(f"{technique} needs the parameter {', '.join(map(repr, missing))}")


def by_index(name: str, value: object, labels: Sequence[str]) -> object:
    """Replace the label names of a mapping by class indices. Raises UserError for an unknown label."""
    if not isinstance(value, Mapping):
        return value
    named = by_label(value)
    check_labels(name, named, labels)
    return {list(labels).index(label): item for label, item in named.items()}


def build(technique: str, counts: np.ndarray, labels: Sequence[str], parameters: Mapping[str, object]) -> Technique:
    """Build a technique for a training split.

    Parameters
    ----------
    technique : name of a file in this folder, without the extension.
    counts : (K,) training messages of each class.
    labels : K label names in the order of the class indices.
    parameters : keyword arguments of the technique's `build`, with label names for classes.

    Raises
    ------
    UserError : the technique or a parameter is unknown, or a value is invalid.
    """
    check_parameters(technique, parameters)
    indexed = {name: by_index(f"{technique}.{name}", value, labels) for name, value in parameters.items()}
    return module_of(technique).build(counts, labels, **indexed)

"""A section of a YAML file as a model: every key with its type and limits; an unknown key is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from ballast.exceptions import UserError, suggestion
from ballast.io.paths import regular_file
from ballast.io.yaml_text import LARGEST_BYTES, yaml_mapping
from ballast.parameters import quoted


class Section(BaseModel):
    """A mapping with a fixed set of typed keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, coerce_numbers_to_str=False)


def sums_to_one(shares: dict[str, float], name: str) -> None:
    """Raise ValueError unless the shares sum to 1."""
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"{name} must sum to 1, not {sum(shares.values()):g}")


def fields_of(kind: Any) -> Mapping[str, Any]:
    """The fields of a section, optional or not; empty if the type is not a section."""
    sections = [part for part in (kind, *get_args(kind)) if isinstance(part, type) and issubclass(part, BaseModel)]
    return sections[0].model_fields if sections else {}


def known_keys(section: type[BaseModel], place: tuple[str | int, ...]) -> list[str]:
    """The keys that the mapping at a place within a section may have."""
    kind: Any = section
    for key in place:
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        else:
            fields = fields_of(kind)
            kind = next((field.annotation for name, field in fields.items() if key in (name, field.alias)), None)
    return [field.alias or name for name, field in fields_of(kind).items()]


# A branch of a union in a place that pydantic reports, such as dict[str,float].
UNION_BRANCH = re.compile(r"[a-z-]+\[.*\]", re.DOTALL)


def complaint(error: ValidationError, model: type[BaseModel]) -> str:
    """One line on the most deeply nested error, which belongs to the branch of a union that the user meant."""
    first = max(error.errors(), key=lambda details: len(details["loc"]))
    place = tuple(part for part in first["loc"] if not UNION_BRANCH.fullmatch(str(part)))
    where = ".".join(map(str, place)) or "the file"
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}: {suggestion(str(place[-1]), known_keys(model, place[:-1]))}"
    if first["type"] == "missing":
        return f"missing key {where!r}"
    if first["type"] == "value_error":
        # Our own message names the value; the input would be a whole section.
        return f"{where}: {first['ctx']['error']}" if place else str(first["ctx"]["error"])
    return f"{where}: {first['msg']}, found {quoted(first['input'])}"


def read_yaml(path: Path, largest: int = LARGEST_BYTES) -> dict[Any, Any]:
    """Read the mapping in a YAML file; raises UserError."""
    try:
        regular_file(path)
        with path.open("rb") as file:
            # One more byte than allowed shows that the file is too large.
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
    """Validate the content of a file as a model; raises UserError that names the file, the key and what was expected."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: {complaint(error, model)}") from error

"""The reference of `params.yaml`: keys, types and limits from the schema; values and meanings from the file itself."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from docs.generate.markdown import literal
from stages.store.params import Params
from stages.store.section import read_yaml
from stages.store.training_sections import OR_AUTO

# A key with its comment, as in "    seed: 0   # of the split"; a "#" within a value has no blank before it.
COMMENTED = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?P<value>.*?)(?: # *(?P<comment>.*))?$")
BASIC = {int: "integer", float: "number", str: "text", bool: "`true` or `false`"}
# Longer values would widen the table; the file shows them.
LONGEST_VALUE = 40


@dataclass(frozen=True)
class Key:
    """One key of `params.yaml`: its dotted path, what it accepts, its value in the shipped file and its meaning."""

    path: str
    accepts: str
    value: Any
    meaning: str


def comments_of(text: str) -> dict[str, str]:
    """Map each dotted key of a YAML file to the comment in its line."""
    comments: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        if not (match := COMMENTED.match(line)):
            continue
        indent = len(match["indent"])
        above = [*((depth, key) for depth, key in above if depth < indent), (indent, match["key"])]
        comments[".".join(key for _, key in above)] = match["comment"] or ""
    return comments


def bounds(constraints: list[Any]) -> str:
    """Describe the limits of a number, or of the length of a list; empty without limits."""
    signs: dict[str, str] = {}
    for limit in flattened(constraints):
        for kind, name, sign in ((Ge, "ge", "≥"), (Gt, "gt", ">"), (Le, "le", "≤"), (Lt, "lt", "<")):
            if isinstance(limit, kind):
                signs[sign] = f"{getattr(limit, name):,.10g}"
    if signs.keys() == {"≥", "≤"}:
        return f"{signs['≥']} to {signs['≤']}"
    return ", ".join(f"{sign} {number}" for sign, number in signs.items())


def flattened(constraints: list[Any]) -> Iterator[Any]:
    """Limits, also those that pydantic holds in the metadata of a field."""
    for constraint in constraints:
        if isinstance(constraint, FieldInfo):
            yield from flattened(constraint.metadata)
        else:
            yield constraint


def describe(annotation: Any, constraints: list[Any] | None = None) -> str:
    """Describe in words what a type annotation accepts."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return describe(arguments[0], [*arguments[1:], *(constraints or [])])
    if origin in (Union, types.UnionType):
        # The type before null: "text, or null".
        parts = [describe(part, constraints) for part in arguments if part is not type(None)]
        return " or ".join(dict.fromkeys(parts)) + (", or `null`" if type(None) in arguments else "")
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    limits = bounds(constraints or [])
    after = (f" ({limits})" if limits else "") + (" or `auto`" if OR_AUTO in flattened(constraints or []) else "")
    if origin is list:
        return f"list of {describe(arguments[0])}"
    if origin is dict:
        return f"mapping of {describe(arguments[0])} to {describe(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    return BASIC.get(annotation, "any value") + after


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The model of a section, also within an optional type or a mapping of names to sections; None for other types."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(section_of, get_args(annotation))), None)


def mappings_around(annotation: Any) -> int:
    """How many mappings of names lie around the section in a type."""
    inner = max(map(mappings_around, get_args(annotation)), default=0)
    return inner + (get_origin(annotation) is dict)


def keys_of(model: type[BaseModel], values: Any, comments: Mapping[str, str], prefix: str = "") -> Iterator[Key]:
    """All keys of a model and of the sections in it, in the order of the schema."""
    for name, info in model.model_fields.items():
        key = info.alias or name
        path = f"{prefix}{key}"
        value = values.get(key, info.default) if isinstance(values, Mapping) else info.default
        yield Key(path, describe(info.annotation, info.metadata), value, comments.get(path) or info.description or "")
        if (section := section_of(info.annotation)) is not None:
            inner = "<name>." * mappings_around(info.annotation)
            yield from keys_of(section, value, comments, f"{path}.{inner}")


def all_keys(root: Path) -> list[Key]:
    """Every key of the shipped `params.yaml`."""
    path = root / "params.yaml"
    return list(keys_of(Params, read_yaml(path), comments_of(path.read_text(encoding="utf-8"))))


def shown(value: Any) -> str:
    """A value as YAML shows it, in a code span; long ones are left to the file."""
    if value is PydanticUndefined:
        return ""
    if isinstance(value, Mapping | list) and len(str(value)) > LONGEST_VALUE:
        return f"{len(value)} {'entry' if len(value) == 1 else 'entries'}"
    words = {True: "true", False: "false", None: "null"}
    return f"`{words[value] if value is None or isinstance(value, bool) else value}`".replace("|", "\\|")


def params_tables(root: Path) -> str:
    """One Markdown section and table per section of `params.yaml`."""
    keys = all_keys(root)
    lines: list[str] = []
    for section in (key for key in keys if "." not in key.path):
        inner = [key for key in keys if key.path.startswith(f"{section.path}.")]
        lines += [f"## {section.path}", ""]
        if section.meaning:
            lines += [f"{literal(section.meaning[:1].upper() + section.meaning[1:])}.", ""]
        if inner:
            lines += ["| key | accepts | shipped value | meaning |", "|---|---|---|---|"]
        for key in inner:
            split = any(other.path.startswith(f"{key.path}.") for other in inner) and isinstance(key.value, Mapping)
            name = key.path.removeprefix(f"{section.path}.")
            lines.append(f"| `{name}` | {key.accepts} | {'' if split else shown(key.value)} | {literal(key.meaning)} |")
        lines.append("")
    return "\n".join(lines)

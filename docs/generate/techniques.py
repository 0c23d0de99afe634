"""The table of techniques: one row per file of `ballast/techniques/`."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module
from pathlib import Path

import ballast.techniques
from docs.generate.markdown import literal


def techniques_table(root: Path) -> str:
    """Each technique with its parameters, their defaults and the first sentence of its module's docstring."""
    lines = ["| technique | parameters | what it does |", "|---|---|---|"]
    for module in pkgutil.iter_modules(ballast.techniques.__path__):
        technique = import_module(f"ballast.techniques.{module.name}")
        options = [
            f"`{name}`" if option.default is option.empty else f"`{name}={option.default!r}`"
            for name, option in inspect.signature(technique.build).parameters.items()
            if option.kind is option.KEYWORD_ONLY
        ]
        summary = " ".join((inspect.getdoc(technique) or "").partition("\n\n")[0].split())
        lines.append(f"| `{module.name}` | {', '.join(options)} | {literal(summary)} |")
    return "\n".join(lines)

"""The rooms and shelves of the architecture page, from the docstrings of the code."""

from __future__ import annotations

import ast
from pathlib import Path

from docs.generate.markdown import literal

ROOMS = ("ballast", "stages", "flows")


def summary(path: Path) -> str:
    """The first paragraph of a module's docstring, in one line."""
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return literal(" ".join(doc.partition("\n\n")[0].split()))


def shelves(root: Path, room: str) -> list[Path]:
    """The folders of a room, with the room itself first."""
    return [root / room, *sorted(path.parent for path in (root / room).glob("*/__init__.py"))]


def modules(shelf: Path) -> list[Path]:
    """The modules of a shelf and of the folders in it; for a room only its own."""
    found = shelf.glob("*.py") if shelf.name in ROOMS else shelf.rglob("*.py")
    return sorted(path for path in found if path.name != "__init__.py")


def shelves_tables(root: Path) -> str:
    """A table of shelves for each room, then the modules of each shelf, folded."""
    lines: list[str] = []
    for room in ROOMS:
        lines += [f"### {room}/", "", summary(root / room / "__init__.py"), "", "| folder | content |", "|---|---|"]
        lines += [f"| `{room}/{shelf.name}/` | {summary(shelf / '__init__.py')} |" for shelf in shelves(root, room)[1:]]
        lines += ["", f":::{{dropdown}} All modules of {room}/", ""]
        for shelf in shelves(root, room):
            where = shelf.relative_to(root).as_posix()
            lines += [f"**{where}/**", "", "| module | does |", "|---|---|"]
            lines += [f"| `{path.relative_to(shelf).as_posix()}` | {summary(path)} |" for path in modules(shelf)]
            lines.append("")
        lines += [":::", ""]
    return "\n".join(lines)

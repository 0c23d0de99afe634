"""Which of our files a Python file imports, found by reading and not by running."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGES = ("ballast", "stages", "flows")


def file_of(module: str, root: Path) -> Path | None:
    """The file of one of our modules, None for anything else."""
    if module.split(".")[0] not in PACKAGES:
        return None
    base = root.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def imported(file: Path, root: Path) -> set[Path]:
    """Our files that one file names in its import statements, inside functions too; not those for type checks only."""
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body = [ast.Pass()]
    modules = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = file.relative_to(root).with_suffix("").parts[: -node.level] if node.level else ()
            module = ".".join([*package, *([node.module] if node.module else [])])
            modules += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return {path for module in modules if (path := file_of(module, root))}


def transitive_imports(file: Path, root: Path, stop: frozenset[Path] = frozenset()) -> set[Path]:
    """Our files that a file imports, directly or through others; a file in `stop` is left out and not followed."""
    found: set[Path] = set()
    waiting = [file]
    while waiting:
        for path in imported(waiting.pop(), root) - found - stop:
            found.add(path)
            waiting.append(path)
    return found - {file}

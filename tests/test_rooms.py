"""The rooms of the house: imports run one way, the library needs little, and DVC hears of every module that a stage runs."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ballast.io.digest import file_sha256
from stages.store import project
from stages.store.checked import write_arrays
from stages.store.files import read_json
from stages.store.ingested import validation_counts
from stages.store.messages import read_messages
from stages.store.project import PROJECT
from stages.store.sources import (
    BY_CARD,
    PACKAGE_INIT,
    PACKAGES,
    PLUMBING,
    covered_by_cards,
    file_of,
    imported,
    sources_of,
    stage_files,
    transitive_imports,
)
from stages.store.training_sections import Train
from tests.project import ROOT, Project, corpus, yaml

# The files of each room; the room to the left may import what is to the right.
MAY_IMPORT = {"ballast": {"ballast"}, "stages": {"ballast", "stages"}, "flows": {"ballast", "flows"}}
LIBRARY_NEEDS = {"torch", "transformers", "accelerate", "numpy", "scipy", "sklearn", "pandas", "safetensors", "tqdm"}
ORCHESTRATION = {
    "dvc",
    "dvclive",
    "prefect",
    "evidently",
    "great_expectations",
    "datasets",
    "pydantic",
    "ruamel",
    "pyarrow",
    "stages",
    "flows",
}


def files_of(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("room", PACKAGES)
def test_imports_run_one_way(room: str) -> None:
    wrong = [
        f"{relative(file)} imports {relative(other)}"
        for file in files_of(room)
        for other in imported(file, ROOT)
        if other.relative_to(ROOT).parts[0] not in MAY_IMPORT[room]
    ]
    assert wrong == []


@pytest.mark.parametrize("room", PACKAGES)
def test_imports_are_absolute_so_that_they_can_be_followed(room: str) -> None:
    for file in files_of(room):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{relative(file)}:{getattr(node, 'lineno', 0)}"


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    sources = {
        "ballast/__init__.py": "",
        "ballast/a.py": "import numpy\nimport ballast.b\ndef f():\n    from ballast import c",
        "ballast/b.py": "from ballast.d import x",
        "ballast/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ballast.e\nimport ballast.a",
        "ballast/d.py": "",
        "ballast/e.py": "",
        "ballast/sub/__init__.py": "from . import f",
        "ballast/sub/f.py": "from ..d import x\nfrom .g import y",
        "ballast/sub/g.py": "",
    }
    project = Project(tmp_path, ROOT)
    for name, source in sources.items():
        project.write(name, source.encode())

    def found(name: str, *stop: str) -> set[str]:
        stops = frozenset(tmp_path / each for each in stop)
        return {path.relative_to(tmp_path).as_posix() for path in transitive_imports(tmp_path / name, tmp_path, stops)}

    everything = {"ballast/__init__.py", "ballast/b.py", "ballast/c.py", "ballast/d.py"}
    assert found("ballast/a.py") == everything
    assert found("ballast/a.py", "ballast/b.py") == {"ballast/__init__.py", "ballast/c.py"}
    assert found("ballast/e.py") == set()
    assert found("ballast/sub/__init__.py") == {"ballast/sub/f.py", "ballast/sub/g.py", "ballast/d.py"}
    assert file_of("numpy.linalg", tmp_path) is None


# The library knows arguments, not the settings or the tools of the pipeline around it.
PIPELINE = re.compile(r"params\.yaml|\bdvc\b|\bstages?\b", re.IGNORECASE)


def test_the_library_does_not_mention_the_pipeline() -> None:
    mentions = [
        f"{relative(file)}:{number}: {line.strip()}"
        for file in files_of("ballast")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if PIPELINE.search(line)
    ]
    assert mentions == []


def imported_packages(file: Path) -> set[str]:
    """Packages that are neither ours nor of the standard library, named anywhere in a file."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - set(PACKAGES)


def test_training_and_scoring_need_few_packages() -> None:
    files = {
        ROOT / "ballast/__init__.py",
        ROOT / "ballast/training/fine_tune.py",
        ROOT / "ballast/technique.py",
        ROOT / "ballast/models/folder.py",
    }
    files |= {other for file in list(files) for other in transitive_imports(file, ROOT)}
    beyond = {relative(file): more for file in files if (more := imported_packages(file) - LIBRARY_NEEDS)}
    assert beyond == {}


@pytest.mark.parametrize("module", ["ballast", "ballast.training.fine_tune"])
def test_importing_the_library_loads_no_orchestration(module: str, workspace: Project) -> None:
    listing = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = workspace.run(sys.executable, "-W", "error", "-c", listing)
    assert done.code == 0, done.stderr
    loaded = set(done.stdout.split())
    assert loaded & ORCHESTRATION == set()
    assert module == "ballast.training.fine_tune" or loaded & LIBRARY_NEEDS == set()


DVC: dict[str, Any] = yaml.load(ROOT / "dvc.yaml")["stages"]
STUDIES: dict[str, Any] = {
    f"{path.parent.name}:{name}": stage
    for path in sorted((ROOT / "studies").glob("*/dvc.yaml"))
    for name, stage in yaml.load(path)["stages"].items()
}


def module_file(stage: dict[str, Any]) -> Path:
    """The file that a stage's command runs."""
    found = re.match(r"python -m ([\w.]+)", stage["cmd"])
    assert found is not None, stage["cmd"]
    file = file_of(found[1], ROOT)
    assert file is not None, stage["cmd"]
    return file


COVERED = covered_by_cards(ROOT)


def test_only_what_is_made_for_techniques_is_left_to_the_cards() -> None:
    assert "ballast/models/tfidf.py" in COVERED
    assert not COVERED & {
        f"ballast/{name}.py"
        for name in ("models/folder", "models/encoder", "training/fine_tune", "sampling", "technique", "models/pretrained")
    }


# A stage that always runs is never stale; the first one reads all code.
@pytest.mark.parametrize("name", [*DVC, *(name for name, stage in STUDIES.items() if not stage.get("always_changed"))])
def test_a_stage_depends_on_its_own_list_of_sources(name: str) -> None:
    stage = (DVC | STUDIES)[name]
    file = module_file(stage)
    rooms = tuple(f"{room}/" for room in PACKAGES)
    code = [dep for dep in stage["deps"] if dep in PACKAGES or dep.startswith((*rooms, "data/sources"))]
    assert code == (["ballast", "stages"] if name == "sources" else [f"data/sources/{file.stem}.json"])
    assert name == "sources" or stage_files(ROOT)[file.stem] == file


def test_sources_are_all_that_a_stage_imports_and_their_templates() -> None:
    for name, file in stage_files(ROOT).items():
        imports = {relative(path) for path in transitive_imports(file, ROOT, frozenset({ROOT / PACKAGE_INIT}))}
        sources = sources_of(name)
        assert relative(file) in sources
        assert imports - sources <= set(PLUMBING) | (COVERED if name in BY_CARD else set()), name
        assert all((ROOT / source).is_file() for source in sources)
    assert {name for name, stage in DVC.items() if any(dep.startswith("data/techniques") for dep in stage["deps"])} == set(
        BY_CARD
    )
    assert {"stages/pages/report/report.html", "stages/pages/page.css"} <= sources_of("report")
    assert "ballast/techniques/focal.py" not in sources_of("train")
    assert "ballast/techniques/focal.py" in sources_of("search") & sources_of("variant") & sources_of("techniques")
    assert set(PLUMBING) & sources_of("techniques")


def test_what_only_a_deployed_model_needs_retrains_nothing() -> None:
    """The package's own file has the version, and functions that load a deployed model; both change between trainings."""
    for name in ("probe", "resample", "train"):
        sources = sources_of(name)
        deployed = {"ballast/__init__.py", "ballast/models/deployed.py", "ballast/evaluation/costs.py"}
        assert not sources & (deployed | {"ballast/io/secret_urls.py", "stages/store/setting_errors.py"}), name
    assert {"ballast/models/folder.py", "ballast/models/encoder.py"} <= sources_of("probe") & sources_of("train")


def test_sources_are_written_with_their_sha256(workspace: Project) -> None:
    done = workspace.run(sys.executable, "-m", "stages.store.sources")
    assert done.code == 0, done.stderr
    written = {path.stem: read_json(path) for path in (workspace.folder / PROJECT.sources).glob("*.json")}
    assert set(written) == set(stage_files(ROOT))
    assert written["train"]["stages/train.py"] == file_sha256(ROOT / "stages/train.py")


@pytest.mark.parametrize("name", ["resample", "evaluate"])
def test_these_stages_load_nothing_that_trains(name: str, workspace: Project) -> None:
    workspace.write("messages.csv", corpus({"ham": 60, "spam": 30}))
    workspace.edit({"techniques": {"class_weight": {"weights": "inverse"}}, "evaluate.resamples": 100})
    assert workspace.stage_here("ingest").code == workspace.stage_here("techniques").code == 0
    ingested = read_json(workspace.folder / PROJECT.ingest)
    counts = {split: sum(each.values()) for split, each in ingested["splits"].items()}
    counts["validation"] = sum(validation_counts(ingested, [0]).values())
    scores = {split: np.random.default_rng(0).normal(size=(count, 2)) for split, count in counts.items()}
    saved = workspace.folder / PROJECT.logits / "class_weight/0.npz"
    saved.parent.mkdir(parents=True)
    others = {
        "train_classes": np.arange(counts["train"]) % 2,
        "declared_prior": np.array([0.5, 0.5]),
        "parameters": np.array(1),
        "multiply_adds": np.array(1),
        "validation_rows": read_messages([], project.Project(workspace.folder)).validation(0).index.to_numpy(),
    }
    write_arrays(saved, scores | others)
    arguments = {"resample": "'class_weight', 0", "evaluate": "'class_weight'"}[name]
    listing = f"import sys; from stages.{name} import main; main({arguments}); print(*sys.modules)"
    done = workspace.run(sys.executable, "-c", listing)
    assert done.code == 0, done.stderr
    assert {"ballast.training.fine_tune", "ballast.models.encoder", "torch", "transformers"} & set(done.stdout.split()) == set()


def params_of(name: str) -> set[str]:
    return {key for each in DVC[name].get("params", []) for key in ([each] if isinstance(each, str) else each["params.yaml"])}


SETTING = re.compile(r"params(?:\(\))?\.(?!yaml)(\w+)(?:\.(\w+))?")


@pytest.mark.parametrize(
    "name", [name for name, stage in DVC.items() if "params.yaml" not in stage["deps"] and name != "sources"]
)
def test_params_name_what_a_stage_reads(name: str) -> None:
    read = {(section.rstrip("_"), key) for section, key in SETTING.findall(module_file(DVC[name]).read_text(encoding="utf-8"))}
    named = params_of(name)
    unnamed = {
        f"{section}.{key}"
        for section, key in read
        if key != "model_dump"
        and section != "techniques"
        and section not in named
        and not any(each.startswith(f"{section}.{key}" if key else section) for each in named)
    }
    assert unnamed == set()


def test_a_training_depends_on_all_settings_but_seeds_and_place() -> None:
    settings = {f"train.{key}" for key in Train.model_fields.keys() - {"seeds", *Train.PLACE}}
    assert params_of("train") == settings
    for name in (name for name in STUDIES if name.endswith(":variant")):
        assert settings < {key for key in STUDIES[name]["params"] if isinstance(key, str)}


@pytest.mark.parametrize("name", DVC)
def test_every_stage_says_what_it_is_for_and_the_run_cache_restores_it(name: str) -> None:
    assert DVC[name]["desc"]
    outs = [out for kind in ("outs", "metrics", "plots") for out in DVC[name].get(kind, [])]
    assert outs
    # `persist` keeps a stage out of DVC's run cache; one stage also removes files, so it must run.
    persistent = [out for out in outs if isinstance(out, dict) and next(iter(out.values())).get("persist")]
    assert persistent == ([{"data/techniques": {"persist": True}}] if name == "techniques" else [])

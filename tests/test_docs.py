"""The manual: what it generates is complete, its code runs, and its commands exist."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import pytest

from ballast.evaluation.metrics import metric_names
from ballast.models import folder as models
from docs.generate import BLOCKS, MARKER
from docs.generate.docstrings import listed_fields
from docs.generate.files import MEANINGS, files_tables, outputs, read
from docs.generate.params import all_keys, describe, params_tables
from docs.generate.shelves import ROOMS, shelves_tables
from docs.generate.speed import SECTIONS, speed_sections, speed_tables
from stages.store.params import Params
from tests import manual
from tests.deployed import deploy, tfidf
from tests.project import ROOT, Project, corpus, project_copy

DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
TEXTS = [path for path in (*(ROOT / name for name in ("README.md", "CONTRIBUTING.md")), *PAGES) if path.is_file()]


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


with_code = pytest.mark.parametrize("page", TEXTS, ids=page_name)


def test_every_block_has_a_page() -> None:
    named = [name for page in PAGES for name in MARKER.findall(page.read_text(encoding="utf-8"))]
    assert sorted(named) == sorted(BLOCKS)


def test_the_reference_of_files_has_every_output_of_the_pipeline() -> None:
    assert read(ROOT / MEANINGS)["pipeline"].keys() == outputs(ROOT).keys()
    table = files_tables(ROOT)
    assert all(f"| `{path}` | `{stage}` |" in table for path, (stage, _) in outputs(ROOT).items())


@pytest.mark.parametrize("path", ["reports/leaderboard.json", "reports/claims.json"])
def test_the_reference_of_files_has_the_keys_of_committed_files(path: str) -> None:
    content = json.loads((ROOT / path).read_text(encoding="utf-8"))
    keys = {key for entry in (content if isinstance(content, list) else [content]) for key in entry}
    assert keys - {"ballast.sha256"} == set(read(ROOT / MEANINGS)["pipeline"][path]["columns"])


def test_the_reference_of_metrics_has_every_metric() -> None:
    page = (DOCS / "reference/metrics.md").read_text(encoding="utf-8").partition("## Intervals")[0]
    shown = set(re.findall(r"^\| `(\S+)` \|", page, flags=re.MULTILINE))
    # The gap is a metric of comparisons only.
    assert shown - {"<label>.recall_gap"} == set(metric_names(["<label>"]))


def test_the_reference_of_params_has_every_key() -> None:
    keys = {key.path: key for key in all_keys(ROOT)}
    assert {key for key in keys if "." not in key} == {field.alias or name for name, field in Params.model_fields.items()}
    assert keys["train.epochs"].accepts == "integer (1 to 10,000)"
    assert keys["evaluate.confidence"].accepts == "number (≥ 0.5, < 1)"
    assert keys["ingest.conflicts"].accepts == "`drop` or `fail`"
    assert "search.spaces.<name>.<name>.low" in keys
    # The headings of groups need no meaning of their own.
    groups = {path.rpartition(".")[0] for path in keys}
    assert [path for path, key in keys.items() if not key.meaning and path not in groups] == []
    table = params_tables(ROOT)
    assert all(f"`{path.partition('.')[2]}` |" in table for path in keys if "." in path)


def test_the_architecture_page_names_what_exists() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|]+ \| `([\w/.]+)`[^|]*\|(?: `(\w+)`)? \|$", text, flags=re.MULTILINE)
    assert len(rows) > 20
    for path, name in rows:
        assert (ROOT / path).exists(), path
        if name and path.endswith(".py"):
            assert re.search(rf"^(def|class) {name}\b", (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE), (
                path,
                name,
            )


def test_the_architecture_page_names_every_shelf_and_module() -> None:
    tables = shelves_tables(ROOT)
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            shelf = path.relative_to(ROOT).parts[1] if len(path.relative_to(ROOT).parts) > 2 else ""
            assert not shelf or f"| `{room}/{shelf}/` |" in tables
            assert path.name == "__init__.py" or f"{path.name}` | " in tables


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int | None, "integer, or `null`"),
        (dict[str, list[int]], "mapping of text to list of integer"),
        (bool, "`true` or `false`"),
    ],
)
def test_types_are_described_in_words(annotation: object, words: str) -> None:
    assert describe(annotation) == words


def test_fields_of_a_docstring_become_a_list() -> None:
    lines = ["Two fields.", "", "low, high : ends of", "    the interval.", "Afterwards."]
    assert listed_fields(lines) == ["Two fields.", "", "* **low, high**: ends of", "  the interval.", "", "Afterwards."]
    numpydoc = ["Parameters", "----------", "name : str"]
    assert listed_fields(numpydoc) == numpydoc


def test_the_speed_page_shows_every_committed_benchmark() -> None:
    text = speed_tables(ROOT)
    for name, (heading, _) in SECTIONS.items():
        assert (f"## {heading}\n" in text) == (ROOT / f"benchmarks/{name}.json").exists()


def test_a_benchmark_that_was_never_run_or_lacks_a_number_has_no_section() -> None:
    families = {
        "train": {"stages": 2, "seconds": 60.0, "training": 30.0, "scoring": 20.0, "start": 10.0},
        "dvc": {"stages": 4, "seconds": 40.0},
    }
    full = {"seconds": 100.0, "techniques": 2, "second_repro_seconds": 2.0, "second_flow_seconds": 9.0, "families": families}
    result = {"full": full, "device": "a processor", "cpus": 2, "date": "2026-01-02"}
    lines = speed_sections(
        {"overhead": result, "score": {"device": "a processor", "cpus": 2, "date": "2026-01-02"}}
    ).splitlines()
    assert [line for line in lines if line.startswith("#")] == ["## A whole run"]
    assert lines[2].startswith("`make repro` takes 1.7 minutes for 2 entries")
    assert lines[6:10] == [
        "| DVC itself | 4 | 40 | 40% |",
        "| train: training | 2 | 30 | 30% |",
        "| train: scoring | 2 | 20 | 20% |",
        "| train: start | 2 | 10 | 10% |",
    ]
    assert lines[-1] == "`benchmarks/overhead.json`: a processor, 2 cores, 2026-01-02."


@pytest.fixture(scope="module")
def example_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples read: a model of `tfidf` and a deployed version."""
    folder = tmp_path_factory.mktemp("example")
    model = tfidf(corpus({"ham": 160, "spam": 60}))
    (folder / "models/tfidf/0").mkdir(parents=True)
    models.save(model, folder / "models/tfidf/0", {})
    deploy(folder, model)
    return folder


# The examples have a test of their own, which also compares what they print.
@pytest.mark.parametrize("page", [page for page in TEXTS if page.parent.name != "examples"], ids=page_name)
def test_python_blocks_run(page: Path, example_folder: Path) -> None:
    scope: dict[str, object] = {"__name__": page.stem}
    with contextlib.chdir(example_folder):
        for block in manual.blocks(page.read_text(encoding="utf-8"), "python"):
            # Empty lines before the code let an error name the line of the page.
            exec(compile("\n" * block.line + block.text, str(page), "exec"), scope)


@with_code
def test_console_blocks_name_commands_that_exist(page: Path) -> None:
    for block in manual.blocks(page.read_text(encoding="utf-8"), "console"):
        lines = manual.commands(block)
        assert lines, f"{page_name(page)}:{block.line}: a console block needs lines that begin with $"
        for line in lines:
            manual.check_command(line, f"{page_name(page)}:{block.line}")


@with_code
def test_blocks_are_in_languages_that_are_checked(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    languages = {match["language"] for match in manual.BLOCK.finditer(text)}
    assert languages <= {"python", "console", "yaml", "text", "json", "csv", "output"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("make repro   # run it", [["make", "repro"]]),
        ("A=1 B_C=x make serve PORT=1 && dvc push", [["make", "serve", "PORT=1"], ["dvc", "push"]]),
        ("cat a | python -m flows.score - > b", [["cat", "a"], ["python", "-m", "flows.score", "-"]]),
    ],
)
def test_command_lines_are_split(line: str, words: list[list[str]]) -> None:
    assert manual.simple_commands(line) == words


@pytest.mark.parametrize(
    "line",
    [
        "make nothing",
        "python -m flows.nothing",
        "python -m flows.watch --windo x y",
        "dvc nothing",
        "frobnicate",
        "make repro X=1",
    ],
)
def test_commands_that_do_not_exist_fail(line: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"^here: "):
        manual.check_command(line, "here")


def test_a_page_is_executed_in_order(workspace: Project) -> None:
    page = """---
execute: true
---

<!-- file: labels/first.csv -->
```text
id,label
```

```yaml
evaluate: {resamples: 123}
```

```console
$ cat labels/first.csv params.yaml > both
```

<!-- not executed -->
```console
$ exit 3
```
"""
    assert manual.executes(page)
    manual.execute(page, workspace, "page")
    both = (workspace.folder / "both").read_text(encoding="utf-8")
    assert both.startswith("id,label\n") and "resamples: 123" in both
    with pytest.raises(AssertionError, match=r"^page:19: exit 3"):
        manual.execute(page.replace("not executed", "other"), workspace, "page")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in TEXTS if manual.executes(page.read_text(encoding="utf-8"))], ids=page_name)
def test_pages_do_what_they_say(page: Path, tmp_path: Path, quick_python: Path) -> None:
    """The commands of a page run in a small project with a linear model, as a reader types them."""
    project = project_copy(tmp_path, quick_python)
    project.write("corpus.csv", corpus({"ham": 1600, "spam": 400}))
    quick = {"techniques": {"tfidf": {}}, "evaluate.resamples": 100, "probe.perturbations": []}
    project.edit({"ingest.source": "file", "ingest.path": "corpus.csv", **quick})
    # What `make` would install lies on the path already.
    for name in ("bin/activate", "installed"):
        project.write(f".venv/{name}", b"")
    manual.execute(page.read_text(encoding="utf-8"), project, page_name(page))

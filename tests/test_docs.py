"""The manual: what it generates is complete, its code runs, its commands exist, and its pages need no network."""

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
from tests.browser import Watched
from tests.deployed import deploy, selected_project, tfidf
from tests.project import ROOT, corpus

DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
BUILT = DOCS / "_build/html"
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


@pytest.mark.parametrize("path", ["reports/leaderboard.json", "reports/claims.json", "data/ingest.json"])
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


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in TEXTS if manual.executes(page.read_text(encoding="utf-8"))], ids=page_name)
def test_pages_that_execute_do(page: Path, tmp_path: Path, quick_python: Path) -> None:
    project = selected_project(tmp_path, quick_python, {"ham": 160, "spam": 60})
    for block in manual.blocks(page.read_text(encoding="utf-8"), "console"):
        for line in manual.commands(block):
            done = project.run("bash", "-c", line)
            assert done.code == 0, f"{page_name(page)}:{block.line}: {line}\n{done.stderr}"


@pytest.fixture
def built() -> Path:
    """The folder of the built manual; building takes too long for a test, so CI does it before."""
    if not (BUILT / "index.html").is_file():
        pytest.skip("no built manual; run `make docs`")
    return BUILT


def built_pages(built: Path) -> list[Path]:
    """The pages of the manual; the theme leaves a template among its static files."""
    return sorted(path for path in built.rglob("*.html") if "_static" not in path.parts)


# What a browser loads with a page; a link loads nothing until somebody follows it.
LOADED = re.compile(r"<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*?\b(?:src|data)=[\"']?([^\"' >]+)")
STYLES = re.compile(
    r"<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preload|icon|preconnect|dns-prefetch))[^>]*?\bhref=[\"']?([^\"' >]+)"
)
IN_STYLES = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')]+)")


def test_the_built_manual_names_no_file_of_another_host(built: Path) -> None:
    named = [
        (path.relative_to(built).as_posix(), address)
        for path in built_pages(built)
        for pattern in (LOADED, STYLES)
        for address in pattern.findall(path.read_text(encoding="utf-8"))
    ]
    assert len(named) > 100
    assert [(path, address) for path, address in named if re.match(r"(\w+:)?//", address)] == []
    assert [path for path in built.rglob("*.css") if IN_STYLES.search(path.read_text(encoding="utf-8"))] == []


def test_the_pages_of_the_built_manual_ask_nothing_of_other_hosts(built: Path, desktop: Watched) -> None:
    for path in built_pages(built):
        desktop.open(path, settled=path.name in ("index.html", "search.html"))
    assert len(desktop.requests) > 100
    assert [request for request in desktop.requests if not request.startswith(built.as_uri())] == []
    assert desktop.complaints == []


def test_the_pages_of_the_built_manual_fit_a_phone(built: Path, phone: Watched) -> None:
    wide = [f"reference/{name}" for name in ("api", "commands", "files", "params")]
    for path in (built / f"{name}.html" for name in ("index", "architecture", "speed", "tutorial", *wide)):
        page = phone.open(path)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path.name


def test_the_search_of_the_built_manual_works_without_a_server(built: Path, desktop: Watched) -> None:
    page = desktop.open(built / "search.html")
    page.goto(f"{(built / 'search.html').as_uri()}?q=threshold")
    page.wait_for_selector("ul.search li a")
    assert "architecture" in str(page.eval_on_selector_all("ul.search li a", "links => links.map((link) => link.href).join()"))

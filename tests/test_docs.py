"""The manual: what it generates is complete, its code runs, its commands exist, and its pages need no network."""

from __future__ import annotations

import re

import pytest

from docs.generate import BLOCKS, MARKER
from docs.generate.docstrings import listed_fields
from docs.generate.files import MEANINGS, files_tables, outputs, read
from docs.generate.params import all_keys, describe, params_tables
from docs.generate.shelves import ROOMS, shelves_tables
from stages.store.params import Params
from tests.project import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)


def test_every_block_has_a_page() -> None:
    named = [name for page in PAGES for name in MARKER.findall(page.read_text(encoding="utf-8"))]
    assert sorted(named) == sorted(BLOCKS)


def test_the_reference_of_files_has_every_output_of_the_pipeline() -> None:
    assert read(ROOT / MEANINGS)["pipeline"].keys() == outputs(ROOT).keys()
    table = files_tables(ROOT)
    assert all(f"| `{path}` | `{stage}` |" in table for path, (stage, _) in outputs(ROOT).items())


def test_the_reference_of_params_has_every_key() -> None:
    keys = {key.path: key for key in all_keys(ROOT)}
    assert {key for key in keys if "." not in key} == {field.alias or name for name, field in Params.model_fields.items()}
    assert keys["train.epochs"].accepts == "integer (1 to 10,000)"
    assert keys["evaluate.confidence"].accepts == "number (≥ 0.5, < 1)"
    assert keys["ingest.conflicts"].accepts == "`drop` or `fail`"
    assert "search.spaces.<name>.low" in keys
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

"""Many classes with an official split, from the file to the report: tables of all classes instead of matrices."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from stages.pages.model_card.text import MOST_CLASSES
from stages.pages.report.results import MOST_PANELS
from stages.store.files import read_json
from stages.store.project import PROJECT
from tests.project import WORDS, Project, workspace

CLASSES = [f"intent {number:02d}" for number in range(24)]
EACH = 20


def intents() -> pd.DataFrame:
    """Messages of the classes, each with two words of its own and three of anybody, and an official split."""
    rng = np.random.default_rng(0)
    rows = []
    for number, label in enumerate(CLASSES):
        for message in range(EACH):
            words = [*rng.choice(WORDS[2 * number : 2 * number + 2], 1), *rng.choice(WORDS[60:], 4)]
            part = "test" if message % 4 == 0 else "validation" if message % 4 == 1 else "train"
            rows.append((" ".join(rng.permutation(words)), label, part))
    return pd.DataFrame(rows, columns=["text", "label", "part"])


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with tfidf and majority, after its report."""
    project = workspace(tmp_path_factory.mktemp("many"))
    project.write("messages.csv", intents())
    project.edit(
        {
            "ingest.split": "column",
            "ingest.split_column": "part",
            "techniques": {"tfidf": {}, "majority": {}},
            "search.spaces": {},
            "evaluate.resamples": 100,
            "probe.texts": ["bababa bebe"],
            "probe.perturbations": [],
        }
    )
    per_technique = [
        (stage, {"name": name, **seed})
        for name in ("tfidf", "majority")
        for stage, seed in (("train", {"seed": 0}), ("evaluate", {}))
    ]
    for stage, arguments in (
        *((stage, {}) for stage in ("ingest", "validate", "search", "techniques", "resample")),
        *per_technique,
        *((stage, {}) for stage in ("probe", "compare", "errors", "select", "report")),
    ):
        done = project.stage_here(stage, **arguments)
        assert done.code == 0, f"{stage}: {done.stderr}"
    return project


def test_validation_names_the_smallest_class_only(reported: Project) -> None:
    expectations = [each["name"] for each in read_json(reported.folder / PROJECT.validation)["expectations"]]
    assert len(expectations) < 30
    assert any(name.startswith("enough of every class in test, the fewest of intent") for name in expectations)


def test_all_classes_are_in_one_table_and_few_have_panels(reported: Project) -> None:
    page = (reported.folder / "reports/index.html").read_text(encoding="utf-8")
    table = page[page.index('<section id="classes">') : page.index('<section id="curves">')]
    assert set(re.findall(r'data-class="([^"]+)"', table)) == set(CLASSES)
    chooser = page[page.index('<select id="label"') : page.index("</select>")]
    assert chooser.count("<option") == MOST_PANELS
    for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL):
        assert row.count("<td") + row.count("<th") <= len(CLASSES)
    assert "Confused classes" in page
    assert 'class="matrix' not in page
    assert "The test set is the official one (column part), 120 messages. Validation is official too." in page


def test_the_model_card_has_no_matrix(reported: Project) -> None:
    card = (reported.folder / PROJECT.model_card).read_text(encoding="utf-8")
    assert max(line.count("|") for line in card.splitlines()) <= MOST_CLASSES
    for label in CLASSES:
        assert f"| {label} | 10 | 5 | 5 |" in card
    assert "The test set is the official one (column part), 120 messages." in card
    assert len(card.splitlines()) < 250


def test_all_seeds_use_the_official_validation(reported: Project) -> None:
    evaluation = read_json(reported.folder / PROJECT.evaluations / "tfidf.json")
    assert evaluation["seeds"]["0"]["fold"] is None
    assert sum(evaluation["out_of_fold"]["messages"].values()) == 5 * len(CLASSES)

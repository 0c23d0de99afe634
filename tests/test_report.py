"""The report in a browser without network: it says what the results say, works, and lets no text of the data act."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, Locator, Page
from scipy.special import softmax

from ballast.evaluation.metrics import LOSSES
from ballast.evaluation.operating_point import cost_matrix, decide
from stages.pages.drawing import Axis, joined, nice_step, share_axis, shared_axis
from stages.pages.model_card.text import markdown
from stages.pages.report.answer_view import answer
from stages.pages.report.data_view import drift
from stages.pages.report.leaderboard_view import COLUMNS
from stages.pages.report.operating_point_view import disagreements
from stages.pages.report.results import Results
from stages.pages.report.view import page
from stages.store.checked import write_arrays
from stages.store.files import read_json, write_json
from stages.store.messages import read_messages
from stages.store.project import PROJECT
from tests.browser import CONTRAST, DESKTOP, HOSTILE, HOSTILE_TEXT, PHONE, Watched, watched
from tests.project import Project, workspace

with warnings.catch_warnings():
    # On import Evidently uses numpy.core, and Litestar under it, what they deprecate.
    warnings.simplefilter("ignore", DeprecationWarning)
    from stages.pages.evidently import with_shares
    from stages.report import read_results

PAGES = ("index.html", "evidently_techniques.html", "evidently_drift.html")
INTENTS = dict(zip((f"intent {letter}" for letter in "abcdefgh"), (500, 260, 150, 90, 60, 45, 40, 30), strict=True))
SPLITS = {"train": 0.4, "validation": 0.25, "test": 0.35}


@dataclass(frozen=True)
class Built:
    """A project whose report was written."""

    project: Project
    texts: list[str]

    @property
    def reports(self) -> Path:
        return self.project.folder / PROJECT.reports

    def read(self, path: Path) -> Any:
        return read_json(self.project.folder / path)

    def html(self, name: str) -> str:
        return (self.reports / name).read_text(encoding="utf-8")

    @property
    def board(self) -> dict[str, Any]:
        made: dict[str, Any] = self.read(PROJECT.leaderboard)
        return made

    @property
    def rarest(self) -> str:
        prior = self.board["production_prior"]
        return min(self.board["labels"], key=lambda label: prior[label])

    def evaluation(self, name: str) -> dict[str, Any]:
        made: dict[str, Any] = self.read(PROJECT.evaluations / f"{name}.json")
        return made

    def results(self) -> Results:
        with contextlib.chdir(self.project.folder):
            return read_results(read_messages(["text"]))[0]

    def stage(self, stage: str, **arguments: Any) -> None:
        with contextlib.chdir(self.project.folder):
            import_module(f"stages.{stage}").main(**arguments)


def split_of(counts: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Label and split of each message."""
    for label, count in counts.items():
        ends = np.round(np.cumsum(list(SPLITS.values())) * count).astype(int)
        for at in range(count):
            yield label, list(SPLITS)[int(np.searchsorted(ends, at, side="right"))]


def build(
    folder: Path, counts: Mapping[str, int], techniques: Mapping[str, str], seeds: Sequence[int], texts: Sequence[str]
) -> Built:
    """Write logits of made-up models for made-up messages, run the stages from evaluate to report on them.

    techniques : name of the entry -> file of the technique; a majority answers the shares, the others are often right.
    texts : of the probe; each message holds one of them too.
    """
    rng = np.random.default_rng(0)
    project = workspace(folder)
    project.edit(
        {
            "techniques": {name: {"technique": file} for name, file in techniques.items()},
            "train.seeds": list(seeds),
            "evaluate.resamples": 100,
            "probe.texts": list(texts),
        }
    )
    rows = pd.DataFrame(split_of(counts), columns=["label", "split"])
    rows["text"] = [f"{texts[at % len(texts)]} number {at}" for at in range(len(rows))]
    rows = rows.assign(id=rows.index.astype(str), group=rows.index // 2, fold=-1, source="made up").sample(
        frac=1, random_state=0
    )
    project.write(str(PROJECT.messages), rows)
    labels = sorted(counts)
    splits = {
        split: {label: int(((rows["split"] == split) & (rows["label"] == label)).sum()) for label in labels} for split in SPLITS
    }
    ingest = {"rows": len(rows) + 5, "kept": len(rows), "dropped": {"duplicate": 4, "conflict": 1}, "groups": len(rows) // 2}
    ingest |= {
        "feedback": 0,
        "labels": dict(counts),
        "splits": splits,
        "folds": [],
        "served_by": "made <i>up</i>",
        "sha256": "ab" * 32,
    }
    write_json(folder / PROJECT.ingest, ingest)
    held = {"name": f"enough {labels[0]}", "success": True, "severity": "critical", "observed": 1234, "expected": "at least 3"}
    failed = held | {"name": "is a warning", "success": False, "severity": "warning"}
    write_json(folder / PROJECT.validation, {"success": True, "expectations": [held, failed]})
    classes = {split: np.searchsorted(labels, rows["label"][rows["split"] == split].tolist()) for split in SPLITS}
    prior = np.array([counts[label] for label in labels]) / len(rows)
    built = Built(project, list(texts))
    for at, (name, file) in enumerate(techniques.items()):
        write_json(folder / PROJECT.cards / f"{name}.json", {"name": name, "technique": file, "parameters": {}, "sources": {}})
        probes = {}
        for seed in seeds:
            logits = {split: np.tile(np.log(prior), (len(each), 1)) for split, each in classes.items()}
            if file != "majority":
                for split, each in classes.items():
                    logits[split] += (
                        rng.normal(0, 1.2, logits[split].shape) + (2 + at / len(techniques)) * np.eye(len(labels))[each]
                    )
            path = folder / PROJECT.logits / name / f"{seed}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            declared = prior if at % 2 else np.full(len(labels), np.nan)
            arrays = {
                "train_classes": classes["train"],
                "declared_prior": declared,
                "parameters": 22_700_000 if at else 82_400,
                "multiply_adds": 82_400 * (1 + at),
                "validation_rows": np.flatnonzero(rows["split"] == "validation"),
            }
            write_arrays(path, logits | arrays)
            probes[str(seed)] = rng.normal(0, 2, (len(texts), len(labels))).tolist()
        # The first text was too long once it was perturbed.
        left_out = {"texts": list(texts), "scored": list(range(1, len(texts))), "skipped": {"0": "too long"}}
        perturbed = {"leet": {**left_out, "logits": {seed: each[1:] for seed, each in probes.items()}}}
        probe = {"texts": list(texts), "labels": labels, "logits": probes, "perturbed": perturbed}
        write_json(folder / PROJECT.probes / f"{name}.json", probe)
        built.stage("evaluate", name=name)
    for stage in ("compare", "errors", "select"):
        built.stage(stage)
    built.stage("report")
    return built


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Two classes with hostile names, hostile texts, one seed."""
    names = ["baseline", "class_weight", "downsample", "focal", "tfidf", "majority"]
    texts = ["Call to claim your prize!", HOSTILE_TEXT, "ok", "NA"]
    techniques = {**{name: name for name in names}, "class_weight_ten": "class_weight"}
    return build(tmp_path_factory.mktemp("two"), dict(zip(HOSTILE, (520, 130), strict=True)), techniques, [0], texts)


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Eight classes, 25 techniques with long names, one seed."""
    techniques = {f"technique_with_a_long_name_{at}": "focal" for at in range(23)} | {
        "baseline": "baseline",
        "majority": "majority",
    }
    return build(
        tmp_path_factory.mktemp("eight"), INTENTS, techniques, [0], ["Where is my card?", "I want my money back", "hello"]
    )


@pytest.fixture(scope="module")
def builds(two: Built, eight: Built) -> dict[str, Built]:
    return {"two": two, "eight": eight}


def two_of(labels: list[str]) -> list[str]:
    """The first and the last label; what is shown of those between is made in the same way."""
    return [labels[0], labels[-1]]


BOTH = pytest.mark.parametrize("which", ["two", "eight"])


def choose(shown: Page, label: str | None = None, family: str | None = None) -> None:
    if label is not None:
        shown.select_option("#label", label=label)
    if family is not None:
        shown.locator(".segments label", has_text=family.capitalize()).click()


def body(shown: Page) -> Locator:
    """The rows of the leaderboard that can be seen."""
    visible = shown.locator(".board tbody:visible")
    assert visible.count() == 1
    return visible.locator("tr")


# The text of every cell: that of the number or name, without what stands beside it.
CELLS = """
rows => rows.map(row => [...row.cells].map(cell => (cell.querySelector(".value, .label") ?? cell).innerText.trim()))
"""


def columns_of(shown: Page) -> dict[str, list[str]]:
    """The leaderboard that can be seen: the texts of each column from the top, by its heading."""
    headings = [text.strip().splitlines()[0].rstrip(" ▾▴↓") for text in shown.locator(".board thead th").all_inner_texts()]
    rows = body(shown).evaluate_all(CELLS)
    assert rows and len(set(headings)) == len(COLUMNS) + 3
    return dict(zip(headings, map(list, zip(*rows, strict=True)), strict=True))


def test_the_watch_sees_requests_complaints_and_what_acts(desktop: Watched, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text('<img src="https://example.com/x.png"><script>console.error("no"); var broken = 1; missing()</script>')
    desktop.open(bad, settled=True)
    assert desktop.requests == [bad.as_uri(), "https://example.com/x.png"]
    assert any("no" in complaint for complaint in desktop.complaints) and any("missing" in each for each in desktop.complaints)
    with pytest.raises(AssertionError):
        desktop.assert_clean(bad)
    desktop.requests, desktop.complaints = [bad.as_uri()], []
    with pytest.raises(AssertionError):
        desktop.assert_clean(bad)


@BOTH
@pytest.mark.parametrize("name", PAGES)
def test_pages_work_from_disk_without_network(which: str, name: str, builds: dict[str, Built], desktop: Watched) -> None:
    built = builds[which]
    shown = desktop.open(built.reports / name, settled=True)
    marks = {
        "index.html": ".board tr",
        "evidently_techniques.html": ".heatmaplayer image",
        "evidently_drift.html": ".barlayer path",
    }
    shown.locator(f"{marks[name]} >> visible=true").first.wait_for()
    text = shown.locator("body").inner_text()
    words = {
        "index.html": "Leaderboard",
        "evidently_techniques.html": "recall",
        "evidently_drift.html": "Drift in column 'class'",
    }
    assert words[name] in text
    if name == "index.html":
        for label, family in itertools.product(two_of(built.board["labels"]), ("raw", "corrected")):
            choose(shown, label, family)
    desktop.assert_clean(built.reports / name)


@pytest.mark.parametrize("name", PAGES)
def test_names_and_texts_of_the_data_are_only_shown(name: str, two: Built, desktop: Watched) -> None:
    shown = desktop.open(two.reports / name, settled=True)
    shown.wait_for_function("document.body.innerText.includes('script')")
    text = shown.evaluate("document.documentElement.textContent.replace(/[‹›]/g, sign => sign === '‹' ? '<' : '>')")
    assert all(label in text for label in HOSTILE)
    assert (HOSTILE_TEXT in text) == (name == "index.html")
    assert shown.locator("img[src=x], svg[onload]").count() == 0
    if name == "index.html":
        assert shown.locator("script").count() == 1
        assert shown.locator("option").all_inner_texts() == sorted(HOSTILE)
        assert "made <i>up</i>" in text and "{{ 7 * 7 }}" in text
    desktop.assert_clean(two.reports / name)


def test_the_policy_of_the_page_would_stop_what_slips_through(two: Built, desktop: Watched, tmp_path: Path) -> None:
    html = two.html("index.html")
    slipped = tmp_path / "slipped.html"
    slipped.write_text(
        html.replace("<main>", f"<main>{HOSTILE[0]}<script>broken = 1</script><img src='https://example.com/a'>")
    )
    assert slipped.read_text() != html
    shown = desktop.open(slipped, settled=True)
    for stopped in ("inline event handler", "inline script", "example.com"):
        assert any(stopped in complaint and "violates" in complaint for complaint in desktop.complaints), stopped
    assert shown.evaluate("typeof broken") == "undefined"
    choose(shown, family="raw")
    assert len(columns_of(shown)["F1"]) == 7, "our own script still runs"


def test_texts_are_hidden_when_params_say_so(two: Built, desktop: Watched, tmp_path: Path) -> None:
    shutil.copytree(two.project.folder, tmp_path / "hidden")
    built = dataclasses.replace(two, project=dataclasses.replace(two.project, folder=tmp_path / "hidden"))
    built.project.edit({"report.show_texts": False})
    built.stage("report")
    shown_before = desktop.open(two.reports / "index.html").locator("body").evaluate("body => body.textContent")
    long_texts = [text for text in built.texts if len(text) > 3]
    assert long_texts and all(text in shown_before for text in long_texts)
    for name in PAGES:
        text = desktop.open(built.reports / name, settled=True).locator("body").evaluate("body => body.textContent")
        assert not any(long in text or long in built.html(name) for long in long_texts), name
    shown = desktop.open(built.reports / "index.html")
    rows = shown.locator(".probe tbody:visible th").all_inner_texts()
    assert rows == [f"text {number}" for number in range(1, len(built.texts) + 1)]
    messages = shown.locator("#errors td.text, #errors .neighbours bdi").all_text_contents()
    assert messages and all(re.fullmatch(r"row \d+", each) for each in messages)


@BOTH
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_first_screen_answers_and_shows_no_text(
    which: str, size: tuple[int, int], builds: dict[str, Built], browser: Browser
) -> None:
    built = builds[which]
    with watched(browser, size) as watch:
        shown = watch.open(built.reports / "index.html")
        chosen = built.read(Path("selected/model.json"))["technique"]
        f1 = built.board["techniques"][chosen]["operating_point"][f"{built.rarest}.f1"]
        sentence = shown.locator(".answer").inner_text()
        assert sentence.startswith(f"Deploy {chosen}. ")
        assert (
            f"{f1['value']:.3f}" in sentence and f"{f1['low']:.3f} to {f1['high']:.3f}" in sentence and built.rarest in sentence
        )
        support = built.read(PROJECT.ingest)["splits"]["test"][built.rarest]
        caveat = " ".join(shown.locator(".caveat").all_inner_texts())
        assert f"With {support} “{built.rarest}” messages in the test set" in caveat or chosen == "baseline"
        assert "One seed: " in caveat and "use at least 2 seeds in train.seeds" in caveat
        first_row = body(shown).first.bounding_box()
        assert first_row is not None and first_row["y"] + first_row["height"] < size[1]
        texts = shown.locator(".text:visible")
        assert texts.count() > 0
        assert min(box["y"] for box in (each.bounding_box() for each in texts.all()) if box is not None) > size[1]


@BOTH
def test_the_leaderboard_says_what_the_results_say(which: str, builds: dict[str, Built], desktop: Watched) -> None:
    built = builds[which]
    shown = desktop.open(built.reports / "index.html")
    board = built.board["techniques"]
    assert shown.locator("#label").evaluate("each => each.selectedOptions[0].textContent") == built.rarest
    seen = set()
    labels = sorted({built.rarest, built.board["labels"][0], built.board["labels"][1]})
    for label, family in itertools.product(labels, ("corrected", "raw")):
        choose(shown, label, family)
        columns = columns_of(shown)
        names = columns["Technique"]
        assert sorted(names) == sorted(board)
        for column in COLUMNS:
            expected = [f"{board[name][family][column.key(label)]['value']:.3f}" for name in names]
            assert columns[column.title] == expected, (column.title, label, family)
        f1 = [board[name][family][f"{label}.f1"]["value"] for name in names]
        assert f1 == sorted(f1, reverse=True)
        seen.add(tuple(columns["Precision"]))
    assert len(seen) == 2 * len(labels), "labels and families differ"
    assert set(columns["Parameters"]) == {"22.7 M", "82.4 k"}
    chosen = shown.locator(".board tbody:visible tr.selected")
    assert chosen.count() == 1 and "selected" in chosen.inner_text()
    assert shown.locator(".board tbody:visible tr.reference").count() == 1


def test_every_column_explains_itself(two: Built, desktop: Watched) -> None:
    shown = desktop.open(two.reports / "index.html")
    buttons = shown.locator(".board thead button")
    assert buttons.count() == len(COLUMNS) + 3
    assert all(len(button.get_attribute("title") or "") > 20 for button in buttons.all())
    explained = shown.locator(".meanings dt")
    assert not explained.first.is_visible()
    shown.locator(".meanings summary").click()
    assert {column.title for column in COLUMNS} < set(explained.all_inner_texts())


# Where each row's interval is drawn, in pixels; null where it is off the scale.
PLACES = """
rows => rows.map(row => {
  const [bar, dot] = [".range", ".dot"].map(part => row.querySelector(`td.forest ${part}`)?.getBoundingClientRect());
  const places = bar && { low: bar.left, high: bar.right, value: (dot.left + dot.right) / 2 };
  return [row.querySelector("th").dataset.value, places ?? null];
})
"""


@BOTH
def test_intervals_are_drawn_where_their_numbers_are(which: str, builds: dict[str, Built], desktop: Watched) -> None:
    built = builds[which]
    shown = desktop.open(built.reports / "index.html")
    for label, family in itertools.product((built.rarest, built.board["labels"][0]), ("corrected", "raw")):
        choose(shown, label, family)
        centres = (
            "marks => marks.map(mark => [Number(mark.textContent), mark.getBoundingClientRect().x + mark.offsetWidth / 2])"
        )
        ticks = shown.locator(".board .axis:visible span").evaluate_all(centres)
        assert len(ticks) >= 3
        (first, left), (last, right) = ticks[0], ticks[-1]
        drawn = 0
        for name, places in body(shown).evaluate_all(PLACES):
            estimate = built.board["techniques"][name][family][f"{label}.f1"]
            if places is None:
                assert not first <= estimate["value"] <= last
                continue
            drawn += 1
            for end, place in places.items():
                expected = left + (right - left) * (min(max(estimate[end], first), last) - first) / (last - first)
                assert place == pytest.approx(expected, abs=2.5), (name, end)
        assert drawn >= 4


@pytest.mark.parametrize("title", ["Technique", "Precision", "Log loss", "Effective prior", "Parameters"])
def test_sorting(title: str, eight: Built, desktop: Watched) -> None:
    shown = desktop.open(eight.reports / "index.html")
    keys = {
        "Technique": lambda name: name,
        "Precision": lambda name: eight.board["techniques"][name]["corrected"][f"{eight.rarest}.precision"]["value"],
        "Log loss": lambda name: eight.board["techniques"][name]["corrected"]["log_loss"]["value"],
        "Effective prior": lambda name: eight.board["techniques"][name]["fitted_prior"][eight.rarest]["value"],
        "Parameters": lambda name: eight.board["techniques"][name]["parameters"],
    }
    heading = shown.locator(".board thead th", has_text=title)
    before = columns_of(shown)["Technique"]
    best_first = {"Precision": "descending", "Effective prior": "descending"}.get(title, "ascending")
    orders = []
    for _ in range(2):
        heading.locator("button").click()
        orders.append(heading.get_attribute("aria-sort"))
        names = columns_of(shown)["Technique"]
        values = [keys[title](name) for name in names]
        if title == "Technique":  # the browser's order of digits and underscores is not Python's
            values = shown.evaluate(
                "names => names.map(name => [...names].sort((a, b) => a.localeCompare(b)).indexOf(name))", names
            )
        assert values == sorted(values, reverse=orders[-1] == "descending")
        assert names != before and sorted(names) == sorted(before)
    assert orders == [best_first, {"ascending": "descending", "descending": "ascending"}[best_first]]
    assert shown.locator(".board [aria-sort]").count() == 1
    choose(shown, family="raw")
    assert len(columns_of(shown)["Technique"]) == 25
    desktop.assert_clean(eight.reports / "index.html")


def test_what_has_no_value_sorts_last(two: Built, desktop: Watched) -> None:
    shown = desktop.open(two.reports / "index.html")
    for _ in range(2):
        shown.locator(".priors:visible th", has_text="Declared").locator("button").click()
        declared = shown.locator(".priors:visible tbody tr td:nth-child(3)").all_inner_texts()
        assert declared.count("none") == 4 and set(declared[-4:]) == {"none"}


@BOTH
def test_curves_of_every_technique_can_be_told_apart(which: str, builds: dict[str, Built], desktop: Watched) -> None:
    built = builds[which]
    shown = desktop.open(built.reports / "index.html")
    names = list(built.board["techniques"])
    for label, family in itertools.product(two_of(built.board["labels"]), ("raw", "corrected")):
        choose(shown, label, family)
        figures = shown.locator("#curves figure:visible")
        assert figures.count() == 3
        assert figures.locator("g.line").count() == 3 * len(names)
        assert all(figures.nth(at).locator("g.line").count() == len(names) for at in range(3))
    assert "corrected" in shown.locator("#curves figure:visible figcaption").last.inner_text()
    shown.locator("#curves").scroll_into_view_if_needed()
    chip = shown.locator(".legend button[data-technique]").nth(1)
    chip.hover()
    lit = shown.locator("#curves figure:visible g.highlighted")
    assert {each.get_attribute("data-technique") for each in lit.all()} == {
        chip.get_attribute("data-technique")
    } and lit.count() >= 3
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"
    assert shown.locator("#curves figure:visible g.line:visible").count() < 3 * len(names)
    shown.locator("#few").click()
    pressed = shown.locator(".legend [aria-pressed=true]").all_inner_texts()
    assert sorted(pressed) == sorted({"baseline", built.read(Path("selected/model.json"))["technique"]})
    shown.locator("#all").click()
    assert shown.locator(".legend [aria-pressed=false]").count() == 0


MIDDLE = """
path => {
  const middle = path.getPointAtLength(path.getTotalLength() / 2).matrixTransform(path.getScreenCTM());
  return [middle.x, middle.y];
}
"""


def test_a_line_says_its_name_when_pointed_at(two: Built, desktop: Watched) -> None:
    shown = desktop.open(two.reports / "index.html")
    line = shown.locator("#curves figure:visible g.line.selected").first
    line.scroll_into_view_if_needed()
    place = line.locator("path").evaluate(MIDDLE)
    shown.mouse.move(*place)
    assert shown.locator("#tip").is_visible()
    assert shown.locator("#tip").inner_text() == two.read(Path("selected/model.json"))["technique"]
    shown.mouse.move(5, 5)
    assert not shown.locator("#tip").is_visible()


def test_curves_are_those_of_the_evaluation(two: Built, desktop: Watched) -> None:
    shown = desktop.open(two.reports / "index.html")
    name = two.read(Path("selected/model.json"))["technique"]
    curve = two.evaluation(name)["curves"]["precision_recall"][two.rarest]
    path = shown.locator("#curves .charts:visible figure").first.locator("g.selected path").get_attribute("d")
    assert path is not None
    drawn = {tuple(map(int, point.split())) for point in path.strip("M").split("L")}
    assert drawn == {(round(4000 * x), round(4000 * (1 - y))) for x, y in zip(curve["recall"], curve["precision"], strict=True)}
    dots = shown.locator("#curves .charts:visible figure").nth(2).locator(".dots.selected circle title").all_text_contents()
    counts = [int(text.split(": ")[1].split(" messages")[0].replace(",", "")) for text in dots]
    assert sum(counts) == sum(two.read(PROJECT.ingest)["splits"]["test"].values())


@BOTH
def test_confusion_matrices_probe_and_operating_points_say_what_the_results_say(
    which: str, builds: dict[str, Built], desktop: Watched
) -> None:
    built = builds[which]
    shown = desktop.open(built.reports / "index.html")
    names = list(built.results().names)
    probe = pd.read_csv(built.project.folder / PROJECT.probe_table, keep_default_na=False)
    label = built.board["labels"][0]
    for family in ("corrected", "raw"):
        choose(shown, label, family)
        figures = shown.locator(".matrices figure")
        assert figures.count() == len(names)
        assert [text.strip() for text in figures.locator("figcaption").all_inner_texts()] == names
        cells = [int(text) for text in figures.locator("table:visible td.heat").all_inner_texts()]
        tables = [built.evaluation(name)["seeds"]["0"]["confusion"][family] for name in names]
        assert cells == np.array(tables).ravel().tolist()
        rows = shown.locator(".probe tbody:visible tr")
        assert rows.count() == len(built.texts)
        for text, row in zip(built.texts, rows.all(), strict=True):
            found = [int(cell) for cell in row.locator("td").all_inner_texts()]
            table = probe[(probe["text"] == text) & (probe["label"] == label)].set_index("technique")[family]
            assert found == pytest.approx([100 * table[name] for name in names], abs=0.51)
            assert row.locator("th").inner_text() == text
    assert f"highest {built.rarest} F1 on the held-out messages" in shown.locator("#operating-point .lead").first.inner_text()
    rows = {row.locator(".label").inner_text(): row for row in shown.locator("#operating-point [data-label]:visible tr").all()}
    priors = {row.locator(".label").inner_text(): row for row in shown.locator("#priors tbody:visible tr").all()}
    assert set(rows) == set(priors) == set(names)
    for name in names:
        each = built.board["techniques"][name]
        cells = [text.strip() for text in rows[name].locator("td").all_inner_texts()]
        decided = [each["operating_point"][f"{label}.{metric}"]["value"] for metric in ("f1", "precision", "recall")]
        assert cells[1:4] == [f"{value:.3f}" for value in decided]
        assert cells[4] == f"{10_000 * each['operating_point'][f'{label}.false_positive_rate']['value']:.1f}"
        assert cells[5] == f"{each['corrected'][f'{label}.f1']['value']:.3f}"
        *_, safe, temperature = priors[name].locator("td").all_inner_texts()
        assert safe == each["safe"] and safe in ("safe", "unsafe", "unknown")
        assert temperature == f"{built.evaluation(name)['seeds']['0']['calibration']['temperature']:.2f}"
    shown.locator("#operating-point details").evaluate_all("all => all.forEach(each => each.open = true)")
    card = built.project.folder.joinpath(PROJECT.model_card).read_text(encoding="utf-8")
    assert shown.locator("#operating-point pre").inner_text().strip() == card.strip()
    costs = [float(text) for text in shown.locator(".costs td.number").all_inner_texts()]
    point = built.read(Path("selected/operating_point.json"))
    expected = [point["costs"][true][predicted] for true in point["labels"] for predicted in point["labels"]]
    assert costs == pytest.approx(expected, rel=5e-3)


def test_another_program_can_apply_what_was_selected(two: Built) -> None:
    point, pointer = two.read(Path("selected/operating_point.json")), two.read(Path("selected/model.json"))
    labels = point["labels"]
    with np.load(two.project.folder / PROJECT.logits / pointer["technique"] / f"{pointer['seed']}.npz") as saved:
        logits = saved["test"]
    shift = [math.log(point["production_prior"][label] / point["effective_prior"][label]) for label in labels]
    decided = decide(softmax(logits + shift, axis=1), cost_matrix(point["costs"], labels))
    with contextlib.chdir(two.project.folder):
        classes = read_messages([]).of("test")["class"].to_numpy()
    rarest = labels.index(two.rarest)
    assert point["label"] == two.rarest and point["met"]
    found = point["test"][f"{two.rarest}.recall"]
    assert found["low"] <= found["value"] <= found["high"]
    assert found["value"] == pytest.approx((decided[classes == rarest] == rarest).mean())
    assert point["test"][f"{two.rarest}.false_positive_rate"]["value"] == pytest.approx(
        (decided[classes != rarest] == rarest).mean()
    )


def test_the_model_card_says_what_is_known_and_lets_no_name_act(two: Built) -> None:
    card = two.project.folder.joinpath(PROJECT.model_card).read_text(encoding="utf-8")
    chosen = two.read(Path("selected/model.json"))["technique"]
    for name in ("Intended use", "Data", "Class priors", "Operating point", "Metrics on test", "Known limits", "How to use"):
        assert f"\n## {name}\n" in card
    for words in (
        "655 rows read",
        "4 duplicate",
        "the highest",
        "validation messages",
        f'ballast.load("models/{chosen}/0")',
    ):
        assert words in card
    assert "Macro F1 at the operating point: " in card or chosen == two.board["reference"]
    assert "inconclusive" not in card and "not the variation between trainings (one seed)" in card
    assert "<" not in card.partition("## How to use")[0]
    tables = [line for line in card.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables) and len(tables) > 40
    [code] = re.findall(r"```python\n(.*?)```", card, flags=re.S)
    compile(code, PROJECT.model_card.name, "exec")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("class_weight", r"class\_weight"),
        ("a|b\n# c", r"a\|b \# c"),
        ("[x](javascript:1)", r"\[x\](javascript:1)"),
        ("<b>&`*", r"&lt;b&gt;&amp;\`\*"),
    ],
)
def test_names_are_only_text_in_markdown(text: str, shown: str) -> None:
    assert markdown(text) == shown and markdown(0.5) == 0.5


def test_a_limit_that_nothing_keeps_is_said(two: Built, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(two.project.folder, tmp_path / "limited")
    built = dataclasses.replace(two, project=dataclasses.replace(two.project, folder=tmp_path / "limited"))
    built.project.edit({"operating_point.rule": "budget", "operating_point.budget": 5})
    for name in two.board["techniques"]:
        built.stage("evaluate", name=name)
    assert "evaluate: majority: no threshold satisfies budget 5 of" in capsys.readouterr().err
    assert not built.evaluation("majority")["seeds"]["0"]["operating_point"]["met"]
    for stage in ("compare", "select", "report"):
        built.stage(stage)
    shown = built.html("index.html")
    assert "On validation, no threshold meets the limit for" in shown and "at most 5 false alarms per 10,000 other" in shown
    card = built.project.folder.joinpath(PROJECT.model_card).read_text(encoding="utf-8")
    assert "cannot distinguish a budget of 5 from zero" in card
    for name, each in built.board["techniques"].items():
        point = built.evaluation(name)["seeds"]["0"]["operating_point"]
        assert not point["met"] or point["validation"][f"{built.rarest}.false_positive_rate"] <= 5e-4
        assert each["operating_point"][f"{built.rarest}.recall"]["value"] > 0
    built.project.edit({"select.constraints": {f"{built.rarest}.recall": 1.1}})
    built.stage("compare")
    assert "select.constraints: no technique satisfies" in built.project.stage_here("select").error


def test_where_raw_and_corrected_disagree_is_said_in_a_sentence(two: Built) -> None:
    results = two.results()
    board = json.loads(json.dumps(results.board))
    for name, each in board["techniques"].items():
        for family in ("raw", "corrected"):
            moved = 0.3 if name == "focal" and family == "raw" else 0.1
            for label, metric in itertools.product(results.labels, ("mean_probability", "f1")):
                each[family][f"{label}.{metric}"] = estimate(moved if metric == "mean_probability" else 0.9)
    [sentence] = disagreements(board, results.names)[results.labels.index(results.rarest)]["sentences"]
    assert sentence["name"] == "focal" and "is 30.0% raw and 10.0% corrected. Its raw probabilities fit" in sentence["words"]
    assert "F1" not in sentence["words"]
    assert "Where raw and corrected metrics disagree" in page(dataclasses.replace(results, board=board))


def test_data_and_validation_are_shown(two: Built, desktop: Watched) -> None:
    shown = desktop.open(two.reports / "index.html")
    text = shown.locator("#data").inner_text()
    for part in ("655\nrows read", "650\nused", "4 duplicate, 1 conflict", "325 groups"):
        assert part.replace("\n", " ") in " ".join(text.split()), part
    assert shown.locator(".classes tbody tr").count() == 2
    expectations = shown.locator("#data details tbody tr").all_inner_texts()
    assert "is a warning" in expectations[0] and "no" in expectations[0], "what failed comes first, in sight"
    assert "1,234" in expectations[1]
    widths = shown.locator(".classes .stack").evaluate_all(
        "stacks => stacks.map(stack => [...stack.children].reduce((sum, part) => sum + part.offsetWidth, 0))"
    )
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize(("which", "scheme"), [("two", "light"), ("two", "dark"), ("eight", "light")])
def test_a_phone_shows_all_without_scrolling_sideways(
    which: str, scheme: str, builds: dict[str, Built], browser: Browser
) -> None:
    built = builds[which]
    with watched(browser, PHONE, color_scheme=scheme, is_mobile=True, has_touch=True) as watch:
        shown = watch.open(built.reports / "index.html")
        shown.locator("details").evaluate_all("all => all.forEach(each => each.open = true)")
        for label, family in itertools.product(two_of(built.board["labels"]), ("raw", "corrected")):
            choose(shown, label, family)
            assert shown.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [PHONE[0], PHONE[0]]
        value = body(shown).first.locator("td.forest .value").bounding_box()
        assert value is not None and value["x"] + value["width"] <= PHONE[0], "the number beside its interval is in sight"
        watch.assert_clean(built.reports / "index.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(scheme: str, two: Built, browser: Browser) -> None:
    with watched(browser, color_scheme=scheme) as watch:
        shown = watch.open(two.reports / "index.html")
        background = shown.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == (scheme == "dark")
        contrasts = shown.evaluate(CONTRAST)
        assert len(contrasts) > 200
        assert [each for each in contrasts if each[0] < 4.0] == []


def test_without_javascript_the_rarest_class_is_shown(two: Built, browser: Browser) -> None:
    with watched(browser, java_script_enabled=False) as watch:
        shown = watch.page
        shown.goto((two.reports / "index.html").as_uri())
        assert len(columns_of(shown)["F1"]) == 7
        assert "enable JavaScript" in shown.locator("noscript").inner_text()


def test_evidently_agrees_with_the_leaderboard(two: Built, desktop: Watched) -> None:
    shown = desktop.open(two.reports / "evidently_techniques.html")
    shown.locator("table tbody tr").first.wait_for()
    rows = [row.locator("td, th").all_inner_texts() for row in shown.locator("table tbody tr").all()]
    names = {label.replace("<", "‹").replace(">", "›"): label for label in two.board["labels"]}
    found = {(row[0], names[row[1]]): row[2:] for row in rows}
    assert len(found) == 2 * len(two.board["techniques"])
    for (name, label), cells in found.items():
        corrected = two.evaluation(name)["seeds"]["0"]["corrected"]
        assert cells == [f"{corrected[f'{label}.{metric}']:.3f}" for metric in ("f1", "precision", "recall")]


def test_evidently_gets_a_sample_of_a_large_test_set(two: Built, tmp_path: Path) -> None:
    shutil.copytree(two.project.folder, tmp_path / "sampled")
    built = dataclasses.replace(two, project=dataclasses.replace(two.project, folder=tmp_path / "sampled"))
    built.project.edit({"report.sample": 60})
    built.stage("report")
    assert "metrics on 60 test messages" in built.html("evidently_techniques.html")
    assert "Current: 60 test messages" in built.html("evidently_drift.html")
    assert "metrics on 60 test messages" not in two.html("evidently_techniques.html")


def test_the_same_results_give_the_same_pages(two: Built) -> None:
    before = {name: two.html(name) for name in PAGES}
    two.stage("report")
    assert {name: two.html(name) for name in PAGES} == before


def test_the_page_stays_light(two: Built, eight: Built) -> None:
    assert len(two.html("index.html")) < 500_000
    assert len(eight.html("index.html")) < 4_500_000


def test_a_missing_result_is_the_users_error(two: Built, tmp_path: Path) -> None:
    shutil.copytree(two.project.folder, tmp_path / "missing")
    project = dataclasses.replace(two.project, folder=tmp_path / "missing")
    (project.folder / PROJECT.leaderboard).unlink()
    assert "leaderboard.json: no such file" in project.stage_here("report").error


def with_params(results: Results, section: str, **changes: Any) -> Results:
    changed = getattr(results.params, section).model_copy(update=changes)
    return dataclasses.replace(results, params=results.params.model_copy(update={section: changed}))


def with_verdicts(results: Results, verdicts: Mapping[str, str]) -> Results:
    """Results in which techniques differ otherwise from the reference."""
    board = json.loads(json.dumps(results.board))
    for name, verdict in verdicts.items():
        board["techniques"][name]["comparison"]["operating_point"]["metrics"]["macro_f1"]["verdict"] = verdict
    return dataclasses.replace(results, board=board)


def test_the_answer_says_whether_the_difference_is_real(two: Built) -> None:
    results = dataclasses.replace(two.results(), selected={"technique": "focal", "seed": 0})
    own = results.board["techniques"]["focal"]["comparison"]["operating_point"]["metrics"]["macro_f1"]
    sentences = answer(results)["against"]
    assert f"its macro F1 differs from that of baseline by {own['difference']:+.3f} (95% interval" in sentences
    assert f"{own['low']:+.3f} to {own['high']:+.3f}). " in sentences and sentences.endswith(".")
    level = dict.fromkeys([name for name in results.names if name != "baseline"], "not shown")
    unproven = answer(with_verdicts(results, level))["against"]
    assert unproven.endswith("No technique has a significantly better macro F1 than baseline.")
    some = level | {"tfidf": "better", "majority": "worse"}
    assert answer(with_verdicts(results, some))["against"].endswith(
        "tfidf has a significantly better macro F1 than baseline; majority has a significantly worse one."
    )
    reference = dataclasses.replace(results, selected={"technique": "baseline", "seed": 0})
    assert "It is the reference. The other techniques are compared with it." in answer(reference)["against"]


@pytest.mark.parametrize(("seeds", "start"), [([0], "One seed: "), ([0, 1], ""), ([0, 1, 2], "")])
def test_the_answer_warns_of_few_seeds(seeds: list[int], start: str, two: Built) -> None:
    warned = answer(with_params(two.results(), "train", seeds=seeds))["seeds"]
    assert warned.startswith(start) and bool(warned) == bool(start)


def test_the_answer_names_what_would_improve_the_model(two: Built) -> None:
    results = dataclasses.replace(two.results(), studies={"learning_curve": None, "ratio": None})
    study, _, seeds = answer(results)["improve"]
    assert study["code"] == "make study NAME=learning_curve" and seeds["code"] == "train.seeds"
    assert "<code>make study NAME=learning_curve</code>" in page(results).partition("</header>")[0]
    enough = with_params(dataclasses.replace(results, studies={}), "train", seeds=[0, 1, 2])
    few, *more = answer(enough)["improve"]
    assert few["text"].startswith(f"Label more {results.rarest} messages: the test set has ") and not more
    splits = {split: dict.fromkeys(counts, 50) for split, counts in enough.ingest["splits"].items()}
    assert answer(dataclasses.replace(enough, ingest={**enough.ingest, "splits": splits}))["improve"] == []


def test_many_techniques_are_counted_in_the_answer(two: Built) -> None:
    results = two.results()
    worse = with_verdicts(results, dict.fromkeys([name for name in results.names if name != "baseline"], "worse"))
    assert answer(worse)["against"].endswith(
        "No technique has a significantly better macro F1 than baseline; 6 techniques have a significantly worse one."
    )


def test_the_answer_names_the_rule(two: Built) -> None:
    results = two.results()
    board = json.loads(json.dumps(results.board))
    board["selection"] |= {"technique": "baseline", "best": "baseline", "standard_error": 0.0}
    results = with_params(dataclasses.replace(results, board=board), "select", constraints={}, safe_only=False)
    assert answer(results)["rule"] == "it has the best macro F1 on out-of-fold messages"
    board["selection"] |= {"best": "focal", "standard_error": 0.0123}
    assert answer(results)["rule"] == (
        "it is the cheapest technique within one standard error (0.012) of focal, which has the best macro F1 on out-of-fold"
        " messages"
    )
    limited = with_params(results, "select", constraints={"mcc": 0.4}, safe_only=True)
    assert answer(limited)["rule"].endswith("messages, among the techniques with MCC ≥ 0.4 and safe probabilities")


def test_drift_gives_a_verdict_on_labels_and_on_calls(two: Built) -> None:
    results = two.results()
    counts = results.ingest["splits"]["test"]
    assert drift(results)["labels_fit"] and "The test labels fit the production prior" in page(results)
    moved = dataclasses.replace(results, bounds={label: (0, counts[label] - 1) for label in results.labels})
    assert not drift(moved)["labels_fit"] and "The test labels do not fit the production prior" in page(moved)
    biased = dataclasses.replace(results, n_predicted=dict.fromkeys(results.labels, 0))
    assert drift(biased)["labels_fit"] and not drift(biased)["predictions_fit"]
    assert "do not fit</span> it" in page(biased) or "do not fit it" in page(biased)


@pytest.mark.parametrize("shares", [[0.8, 0.2], [0.2, 0.8], [0.5, 0.5], [0.999, 0.001], [1.0, 0.0]])
def test_the_reference_has_the_production_shares_and_no_row_twice(shares: list[float]) -> None:
    classes = np.repeat([0, 1], [400, 100])
    rows = with_shares(classes, np.array(shares), 10_000, np.random.default_rng(0))
    found = np.bincount(classes[rows], minlength=2)
    assert len(set(rows.tolist())) == len(rows)
    assert found / len(rows) == pytest.approx(shares, abs=0.005)
    assert np.any(found >= np.array([400, 100]) - 1), "no larger sample has these shares"
    few = with_shares(classes, np.array(shares), 50, np.random.default_rng(0))
    assert len(few) == pytest.approx(50, abs=1) and np.bincount(classes[few], minlength=2).min() >= 1


def estimate(value: float, spread: float = 0.01) -> dict[str, float]:
    return {"value": value, "low": value - spread, "high": value + spread}


@pytest.mark.parametrize(
    ("values", "loss", "off"),
    [
        ([0.96, 0.95, 0.94, 0.0], False, {0.0}),
        ([0.96, 0.95, 0.94, 0.0, 0.0], False, {0.0}),
        ([0.96, 0.9, 0.8, 0.7], False, set()),
        ([0.03, 0.05, 0.04, 0.4], True, {0.4}),
        ([0.5], False, set()),
        ([0.0, 0.0], False, set()),
    ],
)
def test_an_axis_leaves_out_only_what_is_far_behind(values: list[float], loss: bool, off: set[float]) -> None:
    axis = shared_axis([estimate(value) for value in values], loss=loss, limit=1)
    assert {value for value in values if axis.off(value)} == off
    kept = [estimate(value) for value in values if value not in off]
    assert axis.low - 1e-9 <= max(0, min(each["low"] for each in kept))
    assert axis.high + 1e-9 >= max(each["high"] for each in kept)
    assert axis.low in axis.ticks and len(axis.ticks) >= 2 and list(axis.ticks) == sorted(set(axis.ticks))


@pytest.mark.parametrize(("value", "loss", "limit"), [(1.0, False, 1), (0.0, True, np.inf), (0.0, False, 1), (0.5, False, 1)])
def test_equal_estimates_still_have_an_axis(value: float, loss: bool, limit: float) -> None:
    axis = shared_axis([{"value": value, "low": value, "high": value}] * 3, loss=loss, limit=limit)
    assert axis.low < axis.high and axis.low <= value <= axis.high and 0 <= axis.at(value) <= 100


def test_places_on_axes() -> None:
    axis = Axis(low=0.5, high=1)
    assert [axis.at(value) for value in (0.5, 0.75, 1, 0.2, 1.4)] == [0, 50, 100, 0, 100]
    assert [axis.off(value) for value in (0.2, 0.5, 1.4)] == ["low", "", "high"]
    shares = Axis(low=0.01, high=0.99, log_odds=True)
    assert shares.at(0.5) == 50 and shares.at(0.1) == pytest.approx(50 - 50 * math.log(9) / math.log(99), abs=0.01)
    for found in ([0.126], [0.02, 0.71], [0.0, 1.0], [1e-6], [0.5, 0.5]):
        axis = share_axis(found)
        places = [axis.at(tick) for tick in axis.ticks]
        assert len(places) >= 2 and min(np.diff(places)) >= 10.9
        assert all(axis.low <= max(1e-4, min(1 - 1e-4, share)) <= axis.high for share in found)
    assert [nice_step(span, 4) for span in (1, 0.12, 4, 0.8)] == [0.5, 0.05, 1, 0.2]


def test_small_bins_are_joined_without_losing_a_message() -> None:
    bins = {"mean_probability": [0.01, 0.3, 0.5, 0.7, 0.99], "share": [0.0, 0.5, 1.0, 1.0, 1.0], "messages": [90, 2, 3, 6, 4]}
    found = joined(bins)
    assert found["messages"] == [90, 15]
    assert found["share"] == pytest.approx([0, 14 / 15])
    assert found["mean_probability"][1] == pytest.approx((0.3 * 2 + 0.5 * 3 + 0.7 * 6 + 0.99 * 4) / 15)
    assert joined({key: values[:1] for key, values in bins.items()})["messages"] == [90]
    assert joined({"mean_probability": [0.1, 0.9], "share": [0.0, 1.0], "messages": [2, 3]})["messages"] == [5]


def test_losses_are_marked() -> None:
    assert {column.metric for column in COLUMNS if column.loss} == {"log_loss", "ece"} < LOSSES

"""The report in a browser without network: it says what the results say, works, and lets no text of the data act."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, Locator, Page
from scipy.special import softmax

from ballast.evaluation.metrics import LOSSES
from ballast.evaluation.operating_point import cost_matrix, decide
from stages.pages.model_card.text import markdown
from stages.pages.report.data_view import drift
from stages.pages.report.metrics_view import COLUMNS
from stages.pages.report.operating_point_view import disagreements
from stages.pages.report.view import page
from stages.store.messages import read_messages
from stages.store.project import PROJECT
from tests.browser import CONTRAST, HOSTILE, HOSTILE_TEXT, PHONE, Watched, watched
from tests.report_project import Built

PAGES = ("index.html", "evidently_techniques.html", "evidently_drift.html")


def two_of(labels: list[str]) -> list[str]:
    """The first and the last label; what is shown of those between is made in the same way."""
    return [labels[0], labels[-1]]


BOTH = pytest.mark.parametrize("which", ["two", "eight"])


def choose(shown: Page, label: str | None = None, family: str | None = None) -> None:
    if label is not None:
        shown.select_option("#label", label=label)
    if family is not None:
        shown.locator(".segments label", has_text=family.capitalize()).click()


def body(shown: Page, table: str = ".metrics") -> Locator:
    """The rows of a table that can be seen."""
    visible = shown.locator(f"{table} tbody:visible")
    assert visible.count() == 1
    return visible.locator("tr")


# The text of every cell: that of the number or name, without what stands beside it.
CELLS = """
rows => rows.map(row => [...row.cells].map(cell => (cell.querySelector(".value, .label") ?? cell).innerText.trim()))
"""


def columns_of(shown: Page, table: str = ".metrics") -> dict[str, list[str]]:
    """A table that can be seen: the texts of each column from the top, by its heading."""
    headings = [text.strip().splitlines()[0].rstrip(" ▾▴↓") for text in shown.locator(f"{table} thead th").all_inner_texts()]
    rows = body(shown, table).evaluate_all(CELLS)
    assert rows and len(set(headings)) == len(headings)
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
    built = two.copy(tmp_path / "hidden")
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
def test_the_leaderboard_ranks_by_what_selects(which: str, builds: dict[str, Built], desktop: Watched) -> None:
    built = builds[which]
    shown = desktop.open(built.reports / "index.html")
    board = built.board["techniques"]
    labels = built.board["labels"]
    for label in two_of(labels):
        choose(shown, label)
        columns = columns_of(shown, ".ranking")
        names = columns["Technique"]
        assert sorted(names) == sorted(board)
        selecting = [board[name]["out_of_fold"]["macro_f1"]["value"] for name in names]
        assert selecting == sorted(selecting, reverse=True)
        assert columns["Macro F1"] == [f"{value:.3f}" for value in selecting]
        for title in ("Precision", "Recall"):
            values = [board[name]["out_of_fold"][f"{label}.{title.lower()}"]["value"] for name in names]
            assert columns[title] == [f"{value:.3f}" for value in values]
        assert ("Threshold" in columns) == (len(labels) == 2)
        for name, verdict in zip(names, columns["Against baseline"], strict=True):
            comparison = board[name]["comparison"]
            expected = comparison and comparison["operating_point"]["metrics"]["macro_f1"]["verdict"]
            assert expected is None or expected in verdict
        assert set(columns["Operations"]) == {"227 M", "824 k"}
    rows = shown.locator(".ranking tbody:visible tr.selected")
    assert rows.count() == 1 and "selected" in rows.inner_text() and built.selected in rows.inner_text()
    tied = shown.locator(".ranking tbody:visible tr.tied .label").all_inner_texts()
    assert tied == [name for name in built.results().tied if name != "baseline"]


@BOTH
def test_all_metrics_are_those_of_the_results(which: str, builds: dict[str, Built], desktop: Watched) -> None:
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


def test_every_column_explains_itself(two: Built, desktop: Watched) -> None:
    shown = desktop.open(two.reports / "index.html")
    assert shown.locator(".metrics thead button").count() == len(COLUMNS) + 3
    buttons = shown.locator(".board thead button")
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
        ticks = shown.locator(".metrics .axis:visible span").evaluate_all(centres)
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


def test_sorting(eight: Built, desktop: Watched) -> None:
    shown = desktop.open(eight.reports / "index.html")
    techniques, rarest = eight.board["techniques"], eight.rarest
    keys: dict[str, Callable[[str], Any]] = {
        "Technique": lambda name: name,
        "Precision": lambda name: techniques[name]["corrected"][f"{rarest}.precision"]["value"],
        "Log loss": lambda name: techniques[name]["corrected"]["log_loss"]["value"],
        "Effective prior": lambda name: techniques[name]["fitted_prior"][rarest]["value"],
        "Parameters": lambda name: techniques[name]["parameters"],
    }
    for title, key in keys.items():
        heading = shown.locator(".metrics thead th", has_text=title)
        before = columns_of(shown)["Technique"]
        best_first = {"Precision": "descending", "Effective prior": "descending"}.get(title, "ascending")
        orders = []
        for _ in range(2):
            heading.locator("button").click()
            orders.append(heading.get_attribute("aria-sort"))
            names = columns_of(shown)["Technique"]
            values = [key(name) for name in names]
            if title == "Technique":  # the browser's order of digits and underscores is not Python's
                values = shown.evaluate(
                    "names => names.map(name => [...names].sort((a, b) => a.localeCompare(b)).indexOf(name))", names
                )
            assert values == sorted(values, reverse=orders[-1] == "descending")
            assert names != before and sorted(names) == sorted(before)
        assert orders == [best_first, {"ascending": "descending", "descending": "ascending"}[best_first]]
        assert shown.locator(".metrics [aria-sort]").count() == 1
    choose(shown, family="raw")
    assert len(columns_of(shown)["Technique"]) == 14
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
        figures = shown.locator("#curves .charts:not(.second) figure:visible")
        assert figures.count() == 3
        assert figures.locator("g.line").count() == 3 * len(names)
        assert all(figures.nth(at).locator("g.line").count() == len(names) for at in range(3))
    assert "corrected" in shown.locator("#curves .charts:not(.second) figure:visible figcaption").last.inner_text()
    shown.locator("#curves").scroll_into_view_if_needed()
    chip = shown.locator(".legend button[data-technique]").nth(1)
    chip.hover()
    lit = shown.locator("#curves .charts:not(.second) figure:visible g.highlighted")
    assert {each.get_attribute("data-technique") for each in lit.all()} == {
        chip.get_attribute("data-technique")
    } and lit.count() >= 3
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"
    assert shown.locator("#curves .charts:not(.second) figure:visible g.line:visible").count() < 3 * len(names)
    shown.locator("#few").click()
    pressed = shown.locator(".legend [aria-pressed=true]").all_inner_texts()
    coloured = {"baseline", built.selected, *built.results().tied}
    assert sorted(pressed) == sorted(coloured)
    legend = shown.locator(".legend button[data-technique]").all_inner_texts()
    assert legend[0] == built.selected and set(legend[: len(coloured)]) == coloured, "what matters comes first"
    shown.locator("#all").click()
    assert shown.locator(".legend [aria-pressed=false]").count() == 0


@BOTH
def test_cost_and_review_curves_are_those_of_the_coloured_techniques(
    which: str, builds: dict[str, Built], desktop: Watched
) -> None:
    built = builds[which]
    results = built.results()
    names, selected = results.names, built.selected
    coloured = [name for name in names if results.role(name) != "other"]
    shown = desktop.open(built.reports / "index.html")
    cost, review, training = shown.locator("#curves .charts.second figure").all()

    def drawn(figure: Locator) -> list[str]:
        lines = figure.locator("g.line").evaluate_all("lines => lines.map(line => Number(line.dataset.technique))")
        return sorted({names[at] for at in lines})

    assert drawn(cost) == sorted(coloured)
    assert drawn(review) == sorted({"baseline", selected})
    assert drawn(training) == sorted(name for name in names if built.board["techniques"][name]["technique"] == "focal")
    curve = built.evaluation(selected)["curves"]["cost"]
    path = cost.locator("g.selected path").first.get_attribute("d")
    assert path is not None
    heights = [4000 - int(point.split()[1]) for point in path.strip("M").split("L")]
    shares = [value / trivial for value, trivial in zip(curve["value"], curve["trivial"], strict=True)]
    top = max(heights) / max(shares)
    assert len(heights) == len(shares) and heights == pytest.approx([top * share for share in shares], abs=top * 0.01)
    assert review.locator("g.selected").count() == 2, "precision and recall"
    assert cost.locator(".band.selected").count() == 1 and review.locator(".band.selected").count() == 2


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
    assert shown.locator("#tip").inner_text() == two.selected
    shown.mouse.move(5, 5)
    assert not shown.locator("#tip").is_visible()


def test_curves_are_those_of_the_evaluation(two: Built, desktop: Watched) -> None:
    shown = desktop.open(two.reports / "index.html")
    name = two.selected
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
            table = probe[(probe["text"] == text) & (probe["label"] == label)].groupby("technique")[family].mean()
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
        assert temperature == f"{built.evaluation(name)['fitted']['calibration']['temperature']:.2f}"
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
    shift = [math.log(point["production_prior"][label] / point["effective_prior"][label]) for label in labels]
    with contextlib.chdir(two.project.folder):
        classes = read_messages([]).test()["class"].to_numpy()
    rarest = labels.index(two.rarest)
    rates: dict[str, list[float]] = {"recall": [], "false_positive_rate": []}
    for path in sorted((two.project.folder / PROJECT.logits / pointer["technique"]).glob("*.npz")):
        with np.load(path) as saved:
            decided = decide(softmax(saved["test"] + shift, axis=1), cost_matrix(point["costs"], labels))
        rates["recall"].append((decided[classes == rarest] == rarest).mean())
        rates["false_positive_rate"].append((decided[classes != rarest] == rarest).mean())
    assert point["label"] == two.rarest and point["met"]
    for metric, by_seed in rates.items():
        found = point["test"][f"{two.rarest}.{metric}"]
        assert found["low"] <= found["value"] <= found["high"]
        assert len(by_seed) == 2 and found["value"] == pytest.approx(np.mean(by_seed))


def test_the_model_card_says_what_is_known_and_lets_no_name_act(two: Built) -> None:
    card = two.project.folder.joinpath(PROJECT.model_card).read_text(encoding="utf-8")
    chosen = two.selected
    for name in ("Intended use", "Data", "Class priors", "Operating point", "Metrics on test", "Known limits", "How to use"):
        assert f"\n## {name}\n" in card
    for words in (
        "655 rows read",
        "4 duplicate",
        "the highest",
        "out-of-fold messages",
        "Nothing is fitted or chosen on test.",
        f'ballast.load("models/{chosen}/0")',
    ):
        assert words in card
    assert "Macro F1 at the operating point: " in card or chosen == two.board["reference"]
    assert "inconclusive" not in card and "one seed" not in card, "two seeds measure the variation between trainings"
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
    built = two.copy(tmp_path / "limited")
    built.project.edit({"operating_point.rule": "budget", "operating_point.budget": 5})
    for name in two.board["techniques"]:
        built.stage("evaluate", name=name)
    assert "evaluate: majority: no threshold satisfies budget 5 of" in capsys.readouterr().err
    assert not built.evaluation("majority")["fitted"]["operating_point"]["met"]
    for stage in ("compare", "select", "report"):
        built.stage(stage)
    shown = built.html("index.html")
    assert "Out of fold, no threshold meets the limit for" in shown and "at most 5 false alarms per 10,000 other" in shown
    card = built.project.folder.joinpath(PROJECT.model_card).read_text(encoding="utf-8")
    assert "cannot distinguish a budget of 5 from zero" in card
    labels, rarest = built.board["labels"], built.board["labels"].index(built.rarest)
    with contextlib.chdir(built.project.folder):
        messages = read_messages([])
    for name, technique in built.board["techniques"].items():
        fitted = built.evaluation(name)["fitted"]
        false_alarms = []
        for seed in technique["seeds"]:
            with np.load(built.project.folder / PROJECT.logits / name / f"{seed}.npz") as saved:
                shift = [
                    math.log(built.board["production_prior"][label] / fitted["effective_prior"][label]) for label in labels
                ]
                costs = cost_matrix(fitted["operating_point"]["costs"], labels)
                decided = decide(softmax(saved["validation"] + shift, axis=1), costs)
            others = messages.validation(seed)["class"].to_numpy() != rarest
            false_alarms += (decided[others] == rarest).tolist()
        assert not fitted["operating_point"]["met"] or np.mean(false_alarms) <= 5e-4
        assert technique["operating_point"][f"{built.rarest}.recall"]["value"] > 0
    built.project.edit({"select.constraints": {f"{built.rarest}.recall": 1.1}})
    built.stage("compare")
    assert "no technique satisfies" in built.project.stage_here("select").error


def near(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def test_where_raw_and_corrected_disagree_is_said_in_a_sentence(two: Built) -> None:
    results = two.results()
    board = json.loads(json.dumps(results.board))
    for name, each in board["techniques"].items():
        for family in ("raw", "corrected"):
            moved = 0.3 if name == "focal" and family == "raw" else 0.1
            for label, metric in itertools.product(results.labels, ("mean_probability", "f1")):
                each[family][f"{label}.{metric}"] = near(moved if metric == "mean_probability" else 0.9)
    [sentence] = disagreements(board, results.names, results.panels)[results.labels.index(results.rarest)]["sentences"]
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
        value = body(shown, ".ranking").first.locator("td.forest .value").bounding_box()
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
    built = two.copy(tmp_path / "sampled")
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
    assert len(eight.html("index.html")) < 5_500_000


def test_a_missing_result_is_the_users_error(two: Built, tmp_path: Path) -> None:
    project = two.copy(tmp_path / "missing").project
    (project.folder / PROJECT.leaderboard).unlink()
    assert "leaderboard.json: no such file" in project.stage_here("report").error


def test_drift_gives_a_verdict_on_labels_and_on_calls(two: Built) -> None:
    results = two.results()
    counts = results.ingest["splits"]["test"]
    assert drift(results)["labels_fit"] and "The test labels fit the production prior" in page(results)
    moved = dataclasses.replace(results, bounds={label: (0, counts[label] - 1) for label in results.labels})
    assert not drift(moved)["labels_fit"] and "The test labels do not fit the production prior" in page(moved)
    biased = dataclasses.replace(results, n_predicted=dict.fromkeys(results.labels, 0))
    assert drift(biased)["labels_fit"] and not drift(biased)["predictions_fit"]
    assert "do not fit</span> it" in page(biased) or "do not fit it" in page(biased)


def test_losses_are_marked() -> None:
    assert {column.metric for column in COLUMNS if column.loss} == {"log_loss", "ece"} < LOSSES

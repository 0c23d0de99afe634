"""Validate: the bounds of a class's count, and what stops the pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from ballast.data.expected_shares import count_bounds
from stages.pages.data_docs.view import offline
from stages.store.files import read_json
from stages.store.project import PROJECT
from tests.browser import HOSTILE, Watched
from tests.project import Outcome, Project

PRIOR = np.array([0.866, 0.134])
EIGHT = np.array([0.5, 0.2, 0.1, 0.08, 0.06, 0.04, 0.015, 0.005])


def held(counts: np.ndarray, bounds: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Whether all of a draw's counts (..., K) are within the bounds."""
    low, high = bounds
    return ((low <= counts) & (counts <= high)).all(axis=-1)


@pytest.mark.parametrize("prior", [PRIOR, EIGHT], ids=["two classes", "eight classes"])
@pytest.mark.parametrize("observations", [50, 5000, 1_000_000])
@pytest.mark.parametrize("false_alarm", [0.01, 0.2])
def test_a_fresh_draw_seldom_fails(prior: np.ndarray, observations: int, false_alarm: float) -> None:
    bounds = count_bounds(prior, observations, false_alarm)
    each = [
        binom.cdf(high, observations, p) - binom.cdf(low - 1, observations, p)
        for p, low, high in zip(prior, *bounds, strict=True)
    ]
    assert sum(1 - probability for probability in each) <= false_alarm
    if len(prior) == 2:  # one count tells the other: the probability is exact
        low, high = max(bounds[0][0], observations - bounds[1][1]), min(bounds[1][0], observations - bounds[0][1])
        passing = binom.cdf(high, observations, prior[0]) - binom.cdf(low - 1, observations, prior[0])
        assert passing >= 1 - false_alarm
    draws = np.random.default_rng(0).multinomial(observations, prior, size=20_000)
    assert held(draws, bounds).mean() >= 1 - false_alarm


def test_the_bounds_are_as_tight_as_they_can_be() -> None:
    low, high = count_bounds(PRIOR, 5000, 0.01)
    for p, least, most in zip(PRIOR, low, high, strict=True):
        assert binom.cdf(least, 5000, p) > 0.0025
        assert binom.sf(most - 1, 5000, p) > 0.0025
    assert (high - low < 0.06 * 5000).all()


@pytest.mark.parametrize(
    ("observations", "share", "passes"), [(5000, 0.134, True), (5000, 0.2, False), (5000, 0.08, False), (30, 0.2, True)]
)
def test_a_moved_share_is_told_from_chance(observations: int, share: float, passes: bool) -> None:
    spam = round(share * observations)
    assert held(np.array([observations - spam, spam]), count_bounds(PRIOR, observations, 0.01)) == passes


def test_twenty_percent_is_noticed_nearly_always() -> None:
    draws = np.random.default_rng(1).multinomial(5000, [0.8, 0.2], size=20_000)
    assert held(draws, count_bounds(PRIOR, 5000, 0.01)).mean() < 1e-3


def table(counts: dict[str, int], **columns: Any) -> pd.DataFrame:
    """Messages as ingest writes them, with the counts of each label; of ten rows, eight are in the folds and two in test."""
    labels = np.repeat(list(counts), list(counts.values()))
    numbers = np.arange(len(labels))
    places = numbers % 10
    made = {
        "id": numbers.astype(str),
        "text": [f"text {number}" for number in numbers],
        "label": labels,
        "group": numbers,
        "split": np.where(places < 8, "train", "test"),
        "fold": np.where(places < 8, places, -1).astype(np.int16),
        "source": "file",
    }
    return pd.DataFrame(made | columns)


def validate(
    workspace: Project, messages: pd.DataFrame, **settings: Any
) -> tuple[Outcome, dict[str, Any], dict[str, dict[str, Any]]]:
    """Run the stage: how it ended, what it wrote, and its expectations by name."""
    workspace.write(str(PROJECT.messages), messages)
    workspace.edit({key.replace("__", "."): value for key, value in settings.items()})
    done = workspace.stage_here("validate")
    written = read_json(workspace.folder / PROJECT.validation)
    return done, written, {each["name"]: each for each in written["expectations"]}


TWO = {"ham": 4330, "spam": 670}
EXPECTED = {"ham": 0.866, "spam": 0.134}


@pytest.mark.parametrize("prior", [None, EXPECTED], ids=["no expectation", "expected prior"])
def test_good_messages_pass(workspace: Project, prior: dict[str, float] | None) -> None:
    done, written, expectations = validate(workspace, table(TWO), validate__expected_prior=prior)
    assert done.code == 0, done.stderr
    assert written["success"] is True
    assert all(each["success"] for each in expectations.values())
    assert all(set(each) >= {"name", "success", "observed", "expected"} for each in written["expectations"])
    assert (workspace.folder / "data/data_docs/index.html").is_file()
    assert any("share of spam" in name for name in expectations) == (prior is not None)
    if prior is not None:
        share = expectations["share of spam is 13.4% except for chance"]
        low, high = count_bounds(np.array(list(prior.values())), 5000, 0.01)
        assert (share["observed"], share["expected"]) == (670, f"at least {low[1]}, at most {high[1]}")


FEW = table({"ham": 60, "spam": 30})
FAILING: dict[str, tuple[pd.DataFrame, dict[str, Any], tuple[str, ...]]] = {
    "moved share": (
        table({"ham": 4000, "spam": 1000}),
        {"validate__expected_prior": EXPECTED},
        ("share of spam is 13.4%", "1000", "share of ham is 86.6%"),
    ),
    "absent rare class": (
        table(TWO),
        {"validate__expected_prior": {"ham": 0.86, "spam": 0.139, "fraud": 0.001}},
        ("enough fraud in every fold", "enough fraud in test", "observed 0", "ingest.fractions"),
    ),
    "absent class of the label map": (FEW, {"ingest__label_map": {0: "ham", 1: "spam", 2: "fraud"}}, ("enough fraud in test",)),
    "unknown label": (
        table({"ham": 4330, "spam": 667, "eggs": 3}),
        {"validate__expected_prior": EXPECTED},
        ("every label is known", "3 of 5000 rows", "one of ham, spam"),
    ),
    "unknown label beside the label map": (
        FEW.replace({"label": {"spam": "eggs"}}),
        {"ingest__label_map": {"a": "ham"}},
        ("every label is known",),
    ),
    "too few in test": (
        FEW,
        {"validate__minimum_count": 7},
        ("enough spam in test", "observed 6", "at least 7", "ingest.fractions"),
    ),
    "too few in a fold": (
        FEW.drop(index=60),
        {},
        ("enough spam in every fold (observed 2, expected at least 3)", "1 of", "ingest.fractions"),
    ),
    "group in two splits": (FEW.assign(group=np.arange(1, 91) // 2), {}, ("no near duplicates in two splits", "17 of 46 rows")),
    "group in two folds": (FEW.assign(group=np.arange(90) // 2), {}, ("no near duplicates in two folds", "36 of 45 rows")),
    "test message in a fold": (FEW.assign(fold=FEW["fold"].abs()), {}, ("no test message is in a fold", "18 of 18 rows")),
    "message in no fold": (
        FEW.assign(fold=FEW["fold"].replace(7, -1)),
        {},
        ("every other message is in a fold", "9 of 72 rows"),
    ),
    "unknown split": (FEW.assign(split=["dev", *FEW["split"][1:]]), {}, ("every split is known", "1 of 90 rows")),
    "missing text": (FEW.assign(text=[None, *FEW["text"][1:]]), {}, ("no text is missing", "1 of 90 rows")),
    "missing label": (FEW.assign(label=[None, *FEW["label"][1:]]), {}, ("no label is missing", "1 of 90 rows")),
    "id twice": (FEW.assign(id=["1", *FEW["id"][1:]]), {}, ("each id occurs once", "2 of 90 rows")),
    "another column": (FEW.assign(more=1), {}, ("columns are as documented",)),
}


@pytest.mark.parametrize(("messages", "settings", "said"), FAILING.values(), ids=FAILING)
def test_a_failed_expectation_stops_the_pipeline(
    workspace: Project, messages: pd.DataFrame, settings: Any, said: tuple[str, ...]
) -> None:
    done, written, expectations = validate(workspace, messages, **settings)
    for words in said:
        assert words in done.error
    assert written["success"] is False
    failed = [name for name, each in expectations.items() if not each["success"]]
    header, *lines = done.stderr.splitlines()[:-1]
    assert header.split() == ["severity", "name", "observed", "expected"]
    assert len(lines) == len(failed) and all(any(name in line for line in lines) for name in failed)
    assert f"{len(failed)} of {len(expectations)} expectations failed" in done.error
    assert (workspace.folder / "data/data_docs/index.html").is_file()


def test_a_group_in_two_splits_is_a_counted_warning_when_the_split_is_random(workspace: Project) -> None:
    messages = FEW.assign(group=np.where(np.isin(np.arange(90), range(6, 10)), 6, np.arange(90)))
    done, written, expectations = validate(workspace, messages, ingest__split="random")
    assert done.code == 0, done.stderr
    for parts in ("splits", "folds"):
        leak = expectations[f"no near duplicates in two {parts}"]
        assert (written["success"], leak["success"], leak["severity"]) == (True, False, "warning")
        assert leak["observed"] == "1 of 87 rows fail"
        assert f"no near duplicates in two {parts}" in done.stderr and "error: " not in done.stderr


def test_as_a_user_sees_it(workspace: Project) -> None:
    workspace.write(str(PROJECT.messages), table({"ham": 80, "spam": 20}))
    workspace.edit({"validate.expected_prior": {"ham": 0.2, "spam": 0.8}})
    failed = workspace.stage("validate")
    assert "share of spam is 80.0% except for chance (observed 20, expected at least" in failed.error
    assert "data/data_docs/index.html" in failed.error
    assert failed.stdout == ""
    assert read_json(workspace.folder / PROJECT.validation)["success"] is False


def test_equal_messages_give_equal_bytes(workspace: Project) -> None:
    validate(workspace, FEW)
    first = (workspace.folder / PROJECT.validation).read_bytes()
    validate(workspace, FEW)
    assert (workspace.folder / PROJECT.validation).read_bytes() == first


# Each would make a page that took it for more than text fetch something, run, or lead to another host.
HOSTILE_LABELS = (
    *HOSTILE,
    "![x](http://elsewhere.test/x.png)",
    "[x](http://elsewhere.test/)",
    "http://elsewhere.test/x",
    "<http://elsewhere.test/x>",
    "`x` *x* __x__ ~~x~~ $x {{ 7 * 7 }} {% x %} ${x} \\ # | x",
    "<style>@import 'http://elsewhere.test/x.css'</style>",
    "<a href='javascript:broken=1'>x</a>",
)


def test_data_docs_show_hostile_labels_as_text_and_fetch_nothing(workspace: Project, desktop: Watched) -> None:
    prior = dict.fromkeys(HOSTILE_LABELS, 1 / len(HOSTILE_LABELS))
    done, _, expectations = validate(workspace, table(dict.fromkeys(HOSTILE_LABELS, 30)), validate__expected_prior=prior)
    assert done.code == 0, done.stderr
    docs = workspace.folder / "data/data_docs"
    pages = sorted(docs.rglob("*.html"))
    assert len(pages) == 7
    for path in pages:
        desktop.requests.clear()
        shown = desktop.open(path, settled=True)
        desktop.assert_clean(path)
        away = shown.locator("script, img, iframe, link, [src], [onerror], [href*='://'], [href^='javascript']")
        assert away.count() == 0, away.first.evaluate("each => each.outerHTML")
    rows = desktop.open(docs / "index.html").locator("tbody th").all_inner_texts()
    assert rows == [*expectations]
    for label in HOSTILE_LABELS:
        assert f"enough {' '.join(label.split())} in every fold" in rows
    desktop.page.get_by_text("each expectation with its result").first.click()
    assert "Must have greater than or equal to" in desktop.page.inner_text("body")


def test_what_is_fetched_or_run_is_taken_out_of_a_page() -> None:
    page = """<!DOCTYPE html><html><head><link href="http://a.test/x.css"><script>x()</script><script src=//a.test></script>
<style>b { background: url('http://a.test/x.png') }</style></head>
<body onload="x()"><img src="x"/><p title="&quot;">1 &lt; 2 &#38; 3</p>
<a href="HTTP://a.test">b</a><a href="//a.test">c</a><a href="d.html">d</a><footer>e</footer></body></html>"""
    left = offline(page)
    for gone in ("a.test", "x()", "<img", "footer"):
        assert gone not in left
    for kept in (
        '<p title="&quot;">1 &lt; 2 &#38; 3</p>',
        '<a href="d.html">d</a>',
        "<a>b</a><a>c</a>",
        "Content-Security-Policy",
    ):
        assert kept in left

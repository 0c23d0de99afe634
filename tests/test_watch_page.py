"""The pages of the watch in a browser without network: they say what the windows say, and let no text of the data act."""

from __future__ import annotations

import datetime
import itertools
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from ballast.monitoring.estimated_performance import performance
from stages.pages.watch.counting_view import counting, predicted_share, with_share
from stages.pages.watch.feedback_view import line
from stages.pages.watch.quality_view import measured
from stages.pages.watch.timeline_view import share_scale
from stages.pages.watch.view import NEWEST, answer, timeline_page
from stages.pages.words import percent
from tests.browser import CONTRAST, DESKTOP, HOSTILE, HOSTILE_TEXT, PHONE, Watched, watched

with warnings.catch_warnings():
    # On import Evidently uses numpy.core, and Litestar under it, what they deprecate.
    warnings.simplefilter("ignore", DeprecationWarning)
    from stages.pages.watch.evidently import Columns, window_page

HAM_SPAM = ("ham", "spam")
INTENTS = tuple(f"intent {letter}" for letter in "abcdefgh")
Window = dict[str, Any]


def shares_of(labels: Sequence[str], values: Sequence[float] | np.ndarray) -> dict[str, float]:
    return dict(zip(labels, map(float, values), strict=True))


def rates_of(labels: Sequence[str], right: float) -> dict[str, dict[str, float]]:
    """The rarest class is found less often; mistakes go to the others alike."""
    found = np.full(len(labels), right)
    found[-1] -= 0.05
    table = np.where(np.eye(len(labels)) > 0, found[:, None], (1 - found)[:, None] / (len(labels) - 1))
    return {label: shares_of(labels, row) for label, row in zip(labels, table, strict=True)}


def quality_of(
    labels: Sequence[str], rates: Mapping[str, Mapping[str, float]], estimate: np.ndarray, count: int
) -> dict[str, Any]:
    """The estimated performance of a window, with intervals of a plausible width."""
    table = np.array([[rates[true][label] for label in labels] for true in labels])
    values = {name: float(value) for name, (value,) in performance(estimate[None], table[None], labels).items()}
    metrics = {}
    for name, value in values.items():
        scale = 10_000 if name.endswith("10000") else 1
        deviation = 2 * scale * np.sqrt(max(value / scale * (1 - value / scale), 1e-4) / count * 4)
        metrics[name] = {"value": value, "low": max(0.0, value - deviation), "high": min(float(scale), value + deviation)}
    return {"metrics": metrics, "withheld": None, "below_floor": {}}


def made(
    name: str,
    prior: Sequence[float],
    truth: Sequence[float],
    *,
    labels: Sequence[str] = HAM_SPAM,
    count: int = 1000,
    decision: str = "steady",
    rng: np.random.Generator | None = None,
    **changes: Any,
) -> Window:
    """A window as the watch writes it: an estimate near the truth, a naive count that the model's rates bias."""
    rng = np.random.default_rng(len(name)) if rng is None else rng
    prior, truth = np.array(prior), np.array(truth)
    rates = rates_of(labels, 0.97)
    deviation = np.sqrt(truth * (1 - truth) / count) * 1.15
    estimate = np.clip(truth + rng.normal(0, 1, len(truth)) * deviation, 0.001, None)
    estimate /= estimate.sum()
    shift = ", ".join(f"{label} {a:.3f} -> {b:.3f}" for label, a, b in zip(labels, prior, estimate, strict=True))
    reasons = {
        "steady": "the class prior does not differ significantly from that of the deployed model",
        "reprior": f"the class prior moved ({shift})",
        "retrain": f"the class prior moved ({shift}) by more than 0.15",
        "below_floor": "the estimated spam.precision is 0.900 (0.850 to 0.940), below its floor of 0.95",
        "investigate": "no shift of the class prior explains the scores: 7.4% of the messages have others than any mixture",
    }
    naive = [predicted_share(rates, shares_of(labels, estimate), label) for label in labels]
    odd = decision == "investigate"
    return {
        "window": name,
        "n": count,
        "model": "0001",
        "labels": list(labels),
        "reference_prior": shares_of(labels, prior),
        "estimated_prior": shares_of(labels, estimate),
        "low": shares_of(labels, np.clip(estimate - 2 * deviation, 0, 1)),
        "high": shares_of(labels, np.clip(estimate + 2 * deviation, 0, 1)),
        "assumption_holds": not odd,
        "decision": decision,
        "reasons": [reasons[decision]],
        "methods": {
            "classify_and_count": shares_of(labels, naive),
            "decided_and_counted": shares_of(labels, naive),
            "emq": shares_of(labels, estimate * 0.99 + 0.01 / len(labels)),
            "pacc": shares_of(labels, estimate),
        },
        "findings": [
            {"name": "scores", "p": 3e-9 if odd else 0.4, "effect": 0.074 if odd else 0.004, "rejects": odd},
            {"name": "length", "p": 1e-5 if odd else 1.0, "effect": 0.42 if odd else 0.01, "rejects": odd},
            {"name": "unseen_words", "p": 0.7, "effect": 0.02, "rejects": False},
        ],
        "quarantined": int(rng.integers(0, 5)),
        "new_labels": dict.fromkeys(labels, 0),
        "rates": rates,
        "feedback": None,
        "estimated_performance": {"metrics": None, "withheld": reasons[decision], "below_floor": {}}
        if odd
        else quality_of(labels, rates, estimate, count),
        "to_label": [{"id": f"{name}-{at}", "group": at} for at in range(6)] if odd else [],
        **changes,
    }


def empty(name: str, **changes: Any) -> Window:
    """A window without messages."""
    nothing = {"n": 0, "estimated_prior": None, "low": None, "high": None, "methods": None, "findings": []}
    reasons = ["the window has no messages"]
    nothing["estimated_performance"] = {"metrics": None, "withheld": reasons[0], "below_floor": {}}
    window = made(name, (0.874, 0.126), (0.874, 0.126), decision="investigate")
    return {**window, **nothing, "reasons": reasons, "to_label": [], **changes}


def fed(count: int, labels: Sequence[str], values: Sequence[float], *, called: bool = True) -> dict[str, Any]:
    """Labelled feedback with some precision, recall and F1."""
    scores = {
        label: {"precision": value if called else None, "recall": value - 0.02, "f1": value - 0.01, "support": count // 5}
        for label, value in zip(labels, values, strict=True)
    }
    return {"n": count, "share": shares_of(labels, np.full(len(labels), 1 / len(labels))), "classes": scores}


def days(count: int) -> list[str]:
    first = datetime.date(2026, 3, 1)
    return [str(first + datetime.timedelta(days=at)) for at in range(count)]


def history(count: int, labels: Sequence[str] = HAM_SPAM) -> list[Window]:
    """Daily windows over which the rarest class grows, is corrected for, and once another kind of messages comes."""
    rng = np.random.default_rng(7)
    base = np.array([0.874, 0.126]) if len(labels) == 2 else np.arange(len(labels), 0, -1) / sum(range(len(labels) + 1))
    deployed, version, windows = base, 1, []
    for at, day in enumerate(days(count)):
        moved = base.copy()
        grown = 0.16 * max(0.0, np.sin(6.3 * at / max(count, 12)))
        moved[-1], moved[0] = moved[-1] + grown, moved[0] - grown
        decision = "reprior" if abs(moved[-1] - deployed[-1]) > 0.05 else "steady"
        if at % 23 == 9:
            decision = "investigate"
        if at % 61 == 11:
            decision = "retrain"
        if at % 29 == 15:
            decision = "below_floor"
        window = made(
            day,
            deployed,
            moved,
            labels=labels,
            count=int(rng.integers(300, 1400)),
            decision=decision,
            rng=rng,
            model=f"{version:04}",
        )
        if at % 5 == 3:
            values = np.clip(0.93 + rng.normal(0, 0.02, len(labels)), 0, 1)
            window["feedback"] = fed(int(rng.integers(40, 200)), labels, values.tolist(), called=at % 10 == 3)
        if decision == "retrain":
            window["reasons"] += ["a retraining needs 20 new labels of each class, but there are 3 of ham, 25 of spam"]
        if decision in ("reprior", "retrain"):
            deployed, version = moved, version + 1
        windows.append(window)
    return windows


def written(folder: Path, windows: Sequence[Window], texts: Mapping[str, str] | None = None) -> Path:
    path = folder / "index.html"
    path.write_text(timeline_page(windows, texts or {}, 0.95), encoding="utf-8")
    return path


def words(shown: Page, selector: str) -> str:
    return " ".join(shown.locator(selector).inner_text().split())


def of_labels(labels: Sequence[str], **changes: Any) -> dict[str, Any]:
    """What the labels of two windows show; no label shows the precision of the first class."""
    metric = {"value": 0.9123, "low": 0.85, "high": 0.95}
    metrics: dict[str, Any] = {f"{label}.{name}": metric for label in labels for name in ("precision", "recall")}
    metrics[f"{labels[0]}.precision"] = None
    counts = dict.fromkeys(labels, 40)
    return {"n": 80, "windows": ["a", "b"], "labelled": counts, "metrics": metrics, "disagrees": [], **changes}


def hostile() -> list[Window]:
    """Two windows whose names, labels, reasons, ids and descriptors would act."""
    windows = [
        made(name, (0.8, 0.2), (0.7, 0.3), labels=HOSTILE, decision="investigate", reasons=[HOSTILE_TEXT], model=HOSTILE[0])
        for name in (HOSTILE[0], "javascript:broken=1")
    ]
    for window in windows:
        window["findings"][1]["name"] = HOSTILE_TEXT
        window["to_label"] = [{"id": HOSTILE[1], "group": 1}, {"id": 'a,"b"', "group": 2}]
        window["feedback"] = fed(window["n"], HOSTILE, (0.9, 0.8))
        window["labelled_performance"] = of_labels(HOSTILE, disagrees=[f"{HOSTILE[0]}.recall"])
    return windows


CASES: dict[str, list[Window]] = {
    "one": history(1),
    "month": history(30),
    "year": history(400),
    "eight": history(40, INTENTS),
    "empty": [empty("a")],
    "ends empty": [*history(12), empty("2026-04-01")],
    "only empty": [empty("a"), empty("b", rates={})],
    "hostile": hostile(),
    "other labels": [made("a", (0.7, 0.3), (0.7, 0.3), labels=("x", "spam")), *history(2)],
    "extreme": [made("a", (1.0, 0.0), (0.0, 1.0), count=1)],
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page for each case."""
    made = {}
    for at, (name, windows) in enumerate(CASES.items()):
        folder = tmp_path_factory.mktemp(f"case{at}")
        made[name] = written(folder, windows, {HOSTILE[1]: HOSTILE_TEXT} if name == "hostile" else {})
    return made


@pytest.mark.parametrize("case", CASES)
def test_a_page_needs_nothing_and_does_not_scroll_sideways(case: str, pages: dict[str, Path], desktop: Watched) -> None:
    shown = desktop.open(pages[case], settled=True)
    shown.locator("details").evaluate_all("all => all.forEach(each => each.open = true)")
    if shown.locator("#zoom:visible").count():
        shown.locator("#zoom label", has_text="Zoom in").click()
    for width, height in (DESKTOP, PHONE):
        shown.set_viewport_size({"width": width, "height": height})
        assert shown.evaluate("document.documentElement.scrollWidth") == width
    assert shown.locator(".windows tbody tr").count() == len(CASES[case])
    desktop.assert_clean(pages[case])


def test_the_data_is_only_shown(pages: dict[str, Path], desktop: Watched) -> None:
    shown = desktop.open(pages["hostile"])
    text = shown.locator("body").evaluate("body => body.textContent")
    assert all(each in text for each in (*HOSTILE, HOSTILE_TEXT, "javascript:broken=1"))
    assert shown.locator("img, svg[onload]").count() == 0 and shown.locator("script").count() == 1
    links = {link.get_attribute("href") or "" for link in shown.locator("main a, header .caveat a").all()}
    assert {unquote(link) for link in links} == {f"{HOSTILE[0]}.html", "javascript:broken=1.html"}
    assert all(re.fullmatch(r"[\w.%~-]+", link) for link in links)
    for link in shown.locator(".windows a").all():
        assert (link.evaluate("each => each.protocol")) == "file:"
    shown.locator("#timeline .area").first.hover()
    assert HOSTILE[0] in shown.locator("#tip").inner_text()
    desktop.assert_clean(pages["hostile"])


def test_the_policy_would_stop_what_slips_through(pages: dict[str, Path], desktop: Watched, tmp_path: Path) -> None:
    html = pages["month"].read_text(encoding="utf-8")
    slipped = tmp_path / "slipped.html"
    slipped.write_text(html.replace("<main>", f"<main>{HOSTILE[0]}<script>broken = 1</script>"), encoding="utf-8")
    shown = desktop.open(slipped, settled=True)
    assert len(desktop.complaints) >= 2 and all("violates" in each for each in desktop.complaints)
    assert shown.evaluate("typeof broken") == "undefined"
    shown.locator("#timeline .area").first.hover()
    assert shown.locator("#tip").is_visible(), "our own script still runs"


def test_the_first_sentence_says_what_the_last_window_said(desktop: Watched, tmp_path: Path) -> None:
    last = made("2026-09-01", (0.874, 0.126), (0.69, 0.31), decision="retrain")
    last["reasons"].append("a retraining needs 20 new labels of each class, but there are 3 of ham, 25 of spam")
    windows = [last, *history(12)]
    shown = desktop.open(written(tmp_path, windows))
    sentence = words(shown, ".answer")

    def quality(metric: str) -> str:
        of_metric = last["estimated_performance"]["metrics"][f"spam.{metric}"]
        value, low, high = (percent(of_metric[key]) for key in ("value", "low", "high"))
        what = "of the messages assigned to spam are correct" if metric == "precision" else "of spam is detected"
        return f"{value} {what} ({low} to {high})"

    estimate, low, high = (percent(last[key]["spam"]) for key in ("estimated_prior", "low", "high"))
    assert sentence == (
        f"In the last window, 2026-09-01, an estimated {estimate} of 1,000 messages are spam (95% interval {low} to {high}). "
        f"Version 0001, which scored it, expected 12.6%. At this share, an estimated {quality('precision')}, and"
        f" {quality('recall')}. Decision: retrain."
    )
    because = words(shown, ".because")
    assert all(reason in because for reason in last["reasons"])
    first_row = shown.locator(".windows tbody tr").first
    assert "2026-09-01" in first_row.inner_text(), "the newest is first, in whatever order the windows come"
    box = shown.locator("#timeline .canvas").bounding_box()
    assert box is not None and box["y"] < 0.6 * DESKTOP[1]
    assert words(desktop.open(written(tmp_path, [*windows, empty("2026-09-02")])), ".answer") == (
        "The last window, 2026-09-02, has no messages. Decision: investigate."
    )


def test_of_many_classes_the_headline_shows_the_largest_relative_change() -> None:
    prior = np.arange(8, 0, -1) / 36
    for change, label in (
        ([0, -0.1, 0, 0, 0.1, 0, 0, 0], "intent e"),
        ([-0.05, 0, 0, 0, 0, 0, 0, 0.05], "intent h"),
        ([0.02, -0.02, 0, 0, 0, 0, 0, 0], "intent b"),
    ):
        assert answer(made("a", prior, prior + change, labels=INTENTS, count=100_000))["label"] == label
    unsure = made("a", prior, prior, labels=INTENTS, count=100_000)
    unsure["estimated_prior"]["intent h"], unsure["high"]["intent h"] = 0.1, 0.3
    unsure["estimated_prior"]["intent a"], unsure["low"]["intent a"] = 0.3, 0.28
    assert answer(unsure)["label"] == "intent a", "the interval of intent h holds its prior"
    assert answer(made("a", (0.9, 0.1), (0.5, 0.5)))["label"] == "spam"


def test_the_table_says_what_the_windows_say(pages: dict[str, Path], desktop: Watched) -> None:
    shown = desktop.open(pages["month"])
    rows = [row.locator("th, td").all_inner_texts() for row in shown.locator(".windows tbody tr").all()]
    assert len(rows) == 30
    for window, row in zip(reversed(CASES["month"]), rows, strict=True):
        shares = [window["methods"][method]["spam"] for method in ("classify_and_count", "emq", "pacc")]
        low, high = window["low"]["spam"], window["high"]["spam"]
        assert [cell.strip() for cell in row] == [
            window["window"],
            window["decision"],
            f"{percent(window['estimated_prior']['spam'])} {percent(low)} to {percent(high)}",
            percent(window["reference_prior"]["spam"]),
            *(percent(each) for each in shares),
            f"{window['n']:,}",
            str(window["quarantined"]),
            window["model"],
            "\n".join(window["reasons"]),
        ]
    year = desktop.open(pages["year"])
    assert year.locator(".windows tbody tr:visible").count() == NEWEST
    assert "370 older windows" in year.locator("#windows summary").inner_text()


def test_a_class_is_chosen_where_there_are_many(pages: dict[str, Path], desktop: Watched) -> None:
    shown = desktop.open(pages["eight"])
    assert shown.locator("#timeline figure").count() == 8 and "intent a" in shown.locator("#timeline").inner_text()
    last = CASES["eight"][-1]
    for label in ("intent h", "intent c"):
        shown.select_option("#label", label=label)
        text = shown.locator(".windows tbody tr").first.inner_text()
        assert percent(last["estimated_prior"][label]) in text and percent(last["low"][label]) in text
    assert shown.locator("#counting .rates tbody tr").count() == shown.locator("#feedback figure").count() == 8


# The middle of every mark and the ends of the intervals, in shares by the ticks beside them.
PLACES = """
figure => {
  const box = (each) => each.getBoundingClientRect();
  const middle = (each) => [box(each).x + box(each).width / 2, box(each).y + box(each).height / 2];
  const ticks = [...figure.querySelectorAll(".vertical span")]
    .map(each => [middle(each)[1], parseFloat(each.textContent) / 100]);
  const [[low, first], [high, last]] = [ticks[0], ticks.at(-1)];
  const value = (y) => first + (y - low) / (high - low) * (last - first);
  const marks = (name) => [...figure.querySelectorAll(name)].map(middle).sort((a, b) => a[0] - b[0]).map(([, y]) => value(y));
  const bars = box(figure.querySelector(".interval-bars"));
  const decided = ["steady", "reprior", "retrain", "below_floor", "investigate"].map(kind => `use[href="#${kind}"]`).join(", ");
  return {
    estimates: marks(decided), counts: marks('use[href="#counted"]'), truth: marks('use[href="#truth"]'),
    highest: value(bars.top), lowest: value(bars.bottom),
  };
}
"""


def test_marks_stand_where_their_numbers_are(desktop: Watched, tmp_path: Path) -> None:
    windows = history(24)
    windows[3]["feedback"] = fed(windows[3]["n"], HAM_SPAM, (0.9, 0.8))
    windows[4]["feedback"] = fed(windows[4]["n"] - 1, HAM_SPAM, (0.9, 0.8))
    shown = desktop.open(written(tmp_path, windows))
    found = shown.locator("#timeline figure").evaluate(PLACES)
    assert found["estimates"] == pytest.approx([window["estimated_prior"]["spam"] for window in windows], abs=0.004)
    assert found["counts"] == pytest.approx([window["methods"]["classify_and_count"]["spam"] for window in windows], abs=0.004)
    assert found["truth"] == pytest.approx([0.5], abs=0.004), "only where every message was labelled"
    assert found["highest"] == pytest.approx(max(window["high"]["spam"] for window in windows), abs=0.02)
    assert found["lowest"] == pytest.approx(min(window["low"]["spam"] for window in windows), abs=0.02)
    for window, area in zip(windows, shown.locator("#timeline .area").all(), strict=True):
        tip = area.get_attribute("data-tip") or ""
        assert tip.startswith(f"{window['window']}: {window['decision']}\nspam {percent(window['estimated_prior']['spam'])} (")


def test_decisions_differ_in_shape_and_stand_in_words(pages: dict[str, Path], desktop: Watched) -> None:
    shown = desktop.open(pages["month"])
    kinds = {window["decision"] for window in CASES["month"]}
    legend = shown.locator("#timeline .signs").inner_text()
    assert len(kinds) == 5 and all(kind in legend for kind in kinds)
    shapes = shown.locator(".marks .shape").evaluate_all(
        "all => all.map(each => (each.getAttribute('d') ?? 'circle') + each.r?.baseVal.value)"
    )
    assert len(set(shapes)) == len(shapes)


def test_a_tip_follows_the_pointer_and_the_finger(pages: dict[str, Path], desktop: Watched, phone: Watched) -> None:
    shown = desktop.open(pages["year"])
    area = shown.locator("#timeline .area").last
    area.hover()
    tip = shown.locator("#tip").bounding_box()
    assert tip is not None and tip["x"] >= 0 and tip["x"] + tip["width"] <= DESKTOP[0] and tip["y"] >= 0
    assert CASES["year"][-1]["window"] in shown.locator("#tip").inner_text()
    shown.mouse.move(5, 5)
    assert not shown.locator("#tip").is_visible()
    touched = phone.open(pages["month"])
    touched.locator("#timeline .area").nth(3).tap()
    assert CASES["month"][3]["window"] in touched.locator("#tip").inner_text()


def test_looking_closer_shows_the_newest(pages: dict[str, Path], phone: Watched) -> None:
    shown = phone.open(pages["year"])
    inner, last = shown.locator("#timeline .inner"), shown.locator("#timeline .area").last
    narrow = inner.evaluate("each => each.offsetWidth")
    shown.locator("#zoom label", has_text="Zoom in").click()
    assert inner.evaluate("each => each.offsetWidth") > 10 * narrow
    box = last.bounding_box()
    assert box is not None and 0 < box["x"] < PHONE[0] and box["width"] > 10
    shown.locator("#zoom label", has_text="All").click()
    assert inner.evaluate("each => each.offsetWidth") == narrow


def overlaps(shown: Page) -> int:
    """Names below the time line that lie over each other."""
    boxes = [box for each in shown.locator("#timeline .horizontal span:visible").all() if (box := each.bounding_box())]
    boxes.sort(key=lambda box: box["x"])
    return sum(left["x"] + left["width"] > right["x"] for left, right in itertools.pairwise(boxes))


@pytest.mark.parametrize("count", [2, 7, 400])
def test_names_of_windows_do_not_cover_each_other(count: int, desktop: Watched, tmp_path: Path) -> None:
    shown = desktop.open(written(tmp_path, history(count)))
    for width, height in (DESKTOP, PHONE):
        shown.set_viewport_size({"width": width, "height": height})
        assert overlaps(shown) == 0


def test_counting_is_explained_by_the_rates_of_the_model(pages: dict[str, Path], desktop: Watched) -> None:
    rates = {"ham": {"ham": 0.97, "spam": 0.03}, "spam": {"ham": 0.1, "spam": 0.9}}
    window = made("a", (0.8, 0.2), (0.8, 0.2), rates=rates)
    content = counting(window, share_scale([window], "spam"))
    # 0.2 x 0.9 + 0.8 x 0.03, and 0.4 x 0.9 + 0.6 x 0.03
    assert (content["recall"], content["false_positive_rate"], content["at_prior"]) == ("90.0%", "3.0%", "20.4%")
    assert (content["other"], content["at_other"]) == ("40.0%", "37.8%")
    assert sorted(row["counted"] for row in content["rows"]) == pytest.approx([0.204, 0.796])
    exact = {"ham": {"ham": 0.975, "spam": 0.025}, "spam": {"ham": 0.1, "spam": 0.9}}
    assert counting({**window, "rates": exact}, share_scale([window], "spam"))["same"]
    text = words(desktop.open(pages["eight"]), "#counting .lead")
    assert "of intent h and also predicts" in text and "of all other messages as “intent h”" in text


def test_a_share_takes_its_room_from_the_others() -> None:
    assert with_share({"a": 0.6, "b": 0.2, "c": 0.2}, "c", 0.5) == pytest.approx({"a": 0.375, "b": 0.125, "c": 0.5})
    assert with_share({"a": 0.0, "b": 0.0, "c": 1.0}, "c", 0.5) == pytest.approx({"a": 0.25, "b": 0.25, "c": 0.5})


def test_what_does_not_fit_and_what_to_label(desktop: Watched, tmp_path: Path) -> None:
    windows = [
        made("2026-01-01", (0.8, 0.2), (0.8, 0.2), decision="investigate"),
        made("2026-01-02", (0.8, 0.2), (0.8, 0.2), decision="investigate"),
        empty("2026-01-03"),
        made("2026-01-04", (0.8, 0.2), (0.8, 0.2)),
    ]
    text = "Your parcel waits <here>"
    shown = desktop.open(written(tmp_path, windows, {"2026-01-02-0": text, "2026-01-02-1": "x" * 1000}))
    rows = shown.locator(".findings tbody").all_inner_texts()
    assert [row.split()[0] for row in rows] == ["2026-01-03", "2026-01-02", "2026-01-01"]
    assert "the window has no messages" in rows[0]
    assert "7.4% of the messages" in rows[1] and "mean rank differs by +0.42" in rows[1] and "unseen" not in rows[1]
    listed = shown.locator(".to-label li").all_inner_texts()
    assert listed[0] == f"2026-01-02-0 {text}" and listed[2] == "2026-01-02-2" and len(listed) == 6
    assert len(listed[1]) < 330
    shown.locator("#investigate-windows summary").click()
    how = words(shown, "#investigate-windows details")
    assert "production/to_label/2026-01-02.csv" in how and "“ham” and “spam”" in how and "production/labels" in how
    hidden = written(tmp_path, windows).read_text(encoding="utf-8")
    assert "Their texts are hidden" in hidden and "parcel" not in hidden and "2026-01-02-0" in hidden
    assert "Windows to investigate" not in timeline_page(windows[3:], {}, 0.95)


def test_what_labels_show_is_beside_the_estimate_without_labels(tmp_path: Path) -> None:
    window = made("a", (0.8, 0.2), (0.8, 0.2), labelled_performance=of_labels(HAM_SPAM), estimated_performance=None)
    page = written(tmp_path, [window]).read_text(encoding="utf-8")
    assert "Quality in production" in page and "80 labels" in page and "2 windows" in page
    assert "0.912" in page and "0.850 to 0.950" in page and "without labels</th>" not in page and "contradict" not in page
    estimated = {"metrics": {"spam.recall": {"value": 0.777, "low": 0.7, "high": 0.8}}, "withheld": None}
    labelled = of_labels(HAM_SPAM, disagrees=["spam.recall"])
    page = timeline_page([{**window, "labelled_performance": labelled, "estimated_performance": estimated}], {}, 0.95)
    assert (
        "0.777" in page and "without labels</th>" in page and "contradict the estimate without labels: Recall of spam." in page
    )
    assert "Quality in production" not in timeline_page([{**window, "labelled_performance": None}], {}, 0.95)


def test_quality_is_shown_beside_labels_and_floors(desktop: Watched, tmp_path: Path) -> None:
    windows = history(12)
    windows[3]["feedback"] = fed(100, HAM_SPAM, (0.9, 0.8))
    page = timeline_page(windows, {}, 0.95, {"spam.precision": 0.9, "ham.recall": 0.5})
    path = tmp_path / "index.html"
    path.write_text(page, encoding="utf-8")
    shown = desktop.open(path)
    [figure] = shown.locator("#quality figure").all()
    assert "spam" in figure.locator("figcaption").inner_text()
    estimated = [window for window in windows if window["estimated_performance"]["metrics"]]
    assert 0 < len(estimated) < len(windows)
    assert figure.locator("use.tone-0").count() == figure.locator("use.tone-1").count() == len(estimated)
    assert figure.locator("use.truth").count() >= 2 and figure.locator("path.floor").count() == 1
    tips = [area.get_attribute("data-tip") or "" for area in figure.locator(".area").all()]
    for window, tip in zip(windows, tips, strict=True):
        quality = window["estimated_performance"]
        if quality["metrics"] is None:
            assert tip == f"{window['window']}: spam\nno estimate: {quality['withheld']}"
        else:
            value = quality["metrics"]["spam.precision"]["value"]
            assert f"Precision {value:.3f} (" in tip
    assert "labels show 0.800" in tips[3]
    figure.locator("summary").click()
    rows = [row.inner_text() for row in figure.locator("tbody tr").all()]
    assert len(rows) == 12 and "labels 0.800" in rows[-4]
    assert any("No estimate: no shift" in row for row in rows)


def test_labels_mostly_of_messages_to_label_are_not_drawn_as_quality() -> None:
    queue = [{"id": f"m{at}", "group": at} for at in range(50)]
    window = made("2026-04-01", (0.8, 0.2), (0.8, 0.2), to_label=queue)
    drawn = [measured({**window, "feedback": fed(n, HAM_SPAM, (0.9, 0.8))}, "spam", "recall") for n in (50, 100, 101)]
    assert drawn == [None, None, pytest.approx(0.78)]


def test_windows_of_an_earlier_release_have_no_quality() -> None:
    windows = history(3)
    for window in windows:
        del window["estimated_performance"]
    page = timeline_page(windows, {}, 0.95, {"spam.precision": 0.9})
    assert "Quality without labels" not in page and "assigned to spam are correct" not in page
    mixed = timeline_page([*windows, made("2026-04-01", (0.8, 0.2), (0.8, 0.2))], {}, 0.95)
    assert "an earlier release watched this window" in mixed


def test_feedback_is_shown_by_class(desktop: Watched, tmp_path: Path) -> None:
    windows = history(12)
    for window in windows:
        window["feedback"] = None
    assert "labelled feedback" not in timeline_page(windows, {}, 0.95)
    windows[2]["feedback"] = fed(100, HAM_SPAM, (0.9, 0.8))
    windows[5]["feedback"] = fed(100, HAM_SPAM, (0.9, 0.8), called=False)
    windows[7]["feedback"] = {"n": 0, "share": {}, "classes": {}}
    shown = desktop.open(written(tmp_path, windows))
    spam = shown.locator("#feedback figure").nth(1)
    assert "spam" in spam.locator("figcaption").inner_text()
    spam.locator("summary").click()
    rows = [row.locator("th, td").all_inner_texts() for row in spam.locator("tbody tr").all()]
    assert [row[0] for row in rows] == [windows[5]["window"], windows[2]["window"]]
    assert rows[0][3:] == ["–", "0.780", "0.790"] and rows[1][3:] == ["0.800", "0.780", "0.790"]
    assert spam.locator("use.tone-0").count() == 1 and spam.locator("use.tone-1").count() == 2


def test_a_line_is_broken_where_a_value_is_missing() -> None:
    assert line([0, None, 0.5, 1]) == "M500 4000M2500 2000L3500 0"
    assert line([None]) == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(scheme: str, pages: dict[str, Path], browser: Browser) -> None:
    with watched(browser, color_scheme=scheme) as watch:
        shown = watch.open(pages["month"])
        background = shown.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == (scheme == "dark")
        shown.locator("details").evaluate_all("all => all.forEach(each => each.open = true)")
        contrasts = shown.evaluate(CONTRAST)
        assert len(contrasts) > 200
        assert [each for each in contrasts if each[0] < 4.0] == []


def test_the_page_stays_light_and_the_same(pages: dict[str, Path]) -> None:
    assert pages["year"].stat().st_size < 800_000
    assert pages["one"].stat().st_size < 60_000
    assert timeline_page(CASES["month"][::-1], {}, 0.95) == pages["month"].read_text(encoding="utf-8")


def columns(count: int, classes: int = 2, *, decided: int | None = None, constant: bool = False) -> Columns:
    rng = np.random.default_rng(count)
    probability = np.full((count, classes), 1 / classes) if constant else rng.dirichlet(np.ones(classes), count)
    return Columns(
        decided=probability.argmax(axis=1) if decided is None else np.full(count, decided),
        probability=probability,
        descriptors={"length": np.zeros(count) if constant else rng.normal(4, 1, count), "other_scripts": np.zeros(count)},
    )


EVIDENTLY: dict[str, tuple[Window, Columns, Columns]] = {
    "usual": (made("2026-03-01", (0.8, 0.2), (0.5, 0.5), decision="reprior"), columns(300), columns(500)),
    "hostile": (hostile()[0], columns(100), columns(80)),
    "no message": (empty("w"), columns(100), columns(0)),
    "one message": (made("w", (0.8, 0.2), (0.8, 0.2), count=1), columns(100), columns(1)),
    "all the same": (made("w", (0.8, 0.2), (0.8, 0.2)), columns(100, constant=True), columns(80, constant=True)),
    "never decided for": (made("w", (0.8, 0.2), (0.8, 0.2)), columns(100, decided=0), columns(80, decided=1)),
}


EXPECTED_TEXTS = {
    "usual": ["Decision: reprior, because the class prior moved (ham 0.800 → ", "Reference: 300 labelled held-out", "biased"],
    "hostile": ["‹svg onload=", "Current: 80 of 1,000 unlabelled messages"],
    "no message": ["The window has no messages", "Decision: investigate"],
    "one message": ["The window has only one message", "Decision: steady"],
    "all the same": ["only identical messages"],
    "never decided for": ["Drift in column 'decided class'", "Drift score: 0.0"],
}
# A browser takes seconds for a page of Evidently's.
SHOWN = {"usual", "hostile", "no message"}


@pytest.mark.parametrize("case", EVIDENTLY)
def test_evidently_draws_a_window(case: str, desktop: Watched, tmp_path: Path) -> None:
    path = tmp_path / "drift.html"
    html = window_page(*EVIDENTLY[case], threshold=0.005)
    assert html == window_page(*EVIDENTLY[case], threshold=0.005) or case != "usual"
    assert all(hostile not in html for hostile in (*HOSTILE, HOSTILE_TEXT))
    assert html.count("Drift in column 'decided class'") == (case in ("usual", "hostile", "never decided for"))
    assert "Drift in column 'other_scripts'" not in html
    if case not in SHOWN:
        assert all(each in html for each in EXPECTED_TEXTS[case])
        return
    path.write_text(html, encoding="utf-8")
    shown = desktop.open(path)
    shown.wait_for_function("document.body.innerText.includes('Decision')")
    text = shown.locator("body").inner_text()
    assert all(each in text for each in EXPECTED_TEXTS[case]), text[:600]
    desktop.assert_clean(path)

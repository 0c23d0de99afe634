"""The three questions on the first screen of the report, and their answers from planted results."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from ballast.evaluation.operating_point import cost_matrix, threshold
from ballast.exceptions import UserError
from stages.pages.report.answer_view import answer, expected_cost, mistakes
from stages.pages.report.baseline_view import against_baseline
from stages.pages.report.levers_view import help_most
from stages.pages.report.results import Results
from stages.pages.report.view import page
from stages.store.files import read_json, write_json
from stages.store.leaderboard import PROTOCOL, read_leaderboard
from stages.store.project import PROJECT
from tests.browser import PHONE, watched
from tests.report_project import Built

SCREEN = (1280, 800)


def estimate(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def lever(name: str, gain: tuple[float, float, float] | None, **more: Any) -> dict[str, Any]:
    planted: dict[str, Any] = {"lever": name, "description": f"{name} in words.", "metric": "macro_f1", "cost": {}}
    return planted | {"measured_by": None, "note": None, "in_use": False, "gain": gain and estimate(*gain)} | more


LEVERS = [
    lever("A larger encoder", None, measured_by="make study NAME=encoders", cost={"minutes": 40}),
    lever("Relabel suspected errors", (-0.001, -0.004, 0.002), cost={"labels": 41}),
    lever("Twice as many labels", (0.006, 0.001, 0.011), cost={"labels": 4518, "trainings": 0}),
    lever("Average the seeds <i>", (0.002, -0.001, 0.005)),
    lever("Threshold or cost rule", (0.02, 0.01, 0.03), in_use=True),
]


def with_params(results: Results, section: str, **changes: Any) -> Results:
    changed = getattr(results.params, section).model_copy(update=changes)
    return dataclasses.replace(results, params=results.params.model_copy(update={section: changed}))


def selecting(results: Results, name: str, best: str, within: list[str], **more: Any) -> Results:
    """Results in which a rule has selected a technique, with some within one standard error of the best."""
    candidates = {
        other: {"difference": 0.0 if other == best else 0.002, "standard_error": 0.003, "within": other in within}
        for other in results.names
    }
    tied = [other for other in within if other != name]
    selection = {
        "technique": name,
        "rule": "one_standard_error",
        "best": best,
        "candidates": candidates,
        "tied": tied,
    }
    planted = {"stability": {name: 0.62}, "metric": "macro_f1", "standard_error": 0.003}
    return dataclasses.replace(results, selected={**results.selected, "technique": name}, selection=selection | planted | more)


def with_verdicts(results: Results, verdicts: Mapping[str, str]) -> Results:
    """Results in which techniques differ otherwise from the reference."""
    board = json.loads(json.dumps(results.board))
    for name, verdict in verdicts.items():
        board["techniques"][name]["comparison"]["operating_point"]["metrics"]["macro_f1"]["verdict"] = verdict
    return dataclasses.replace(results, board=board)


@pytest.mark.parametrize("which", ["two", "eight"])
@pytest.mark.parametrize("size", [SCREEN, PHONE], ids=["desktop", "phone"])
def test_the_first_screen_answers_the_three_questions(
    which: str, size: tuple[int, int], builds: dict[str, Built], browser: Browser, tmp_path: Path
) -> None:
    built = builds[which]
    html = tmp_path / "index.html"
    html.write_text(page(dataclasses.replace(built.results(), levers=LEVERS)))
    point = built.read(PROJECT.selected / "operating_point.json")
    with watched(browser, size) as watch:
        shown = watch.open(html)
        questions = shown.locator(".question")
        titles = ["What to deploy", "Is any technique better than the plain baseline?", "What would help most?"]
        assert questions.locator("h2").all_inner_texts() == titles
        for question in questions.all():
            box = question.bounding_box()
            assert box is not None and box["y"] >= 0 and box["y"] + box["height"] <= size[1], "all of it is on the first screen"
            assert box["x"] + box["width"] <= size[0]
        deploy = questions.nth(0).inner_text()
        assert f"Deploy {built.selected}" in deploy
        for metric in ("precision", "recall"):
            expected = point["out_of_fold"][f"{built.rarest}.{metric}"]
            assert f"{expected['value']:.3f} {expected['low']:.3f} to {expected['high']:.3f}" in " ".join(deploy.split())
            assert f"{point['test'][f'{built.rarest}.{metric}']['value']:.3f}" in deploy
        assert ("at threshold" in deploy) == (which == "two")
        assert "Twice as many labels" in questions.nth(2).locator(".answer").inner_text()
        assert shown.locator(".controls").bounding_box()["y"] >= size[1] - 260  # type: ignore[index]
        watch.assert_clean(html)


def test_a_phone_opens_the_explanations_on_request(two: Built, browser: Browser) -> None:
    with watched(browser, PHONE, has_touch=True, is_mobile=True) as watch:
        shown = watch.open(two.reports / "index.html")
        explained = shown.locator(".versus .more p").first
        assert not explained.is_visible()
        shown.locator(".versus .more summary").click()
        assert explained.is_visible()


def test_mistakes_per_ten_thousand_follow_from_the_rates() -> None:
    rates = {"rare.recall": estimate(0.9, 0.8, 0.95), "rare.false_positive_rate": estimate(0.01, 0.005, 0.02)}
    counts = mistakes(rates, "rare", share=0.1)
    assert counts["false_alarms"] == pytest.approx(estimate(90, 45, 180))
    assert counts["misses"] == pytest.approx(estimate(100, 50, 200))
    assert counts["total"]["value"] == pytest.approx(190)
    assert counts["total"]["low"] == pytest.approx(190 - (45**2 + 50**2) ** 0.5)
    assert counts["total"]["high"] == pytest.approx(190 + (90**2 + 100**2) ** 0.5)
    costs = {"rare": {"rare": 0.0, "rest": 5.0}, "rest": {"rare": 2.0, "rest": 0.0}}
    assert expected_cost(counts, costs, "rare")["value"] == pytest.approx(2 * 90 + 5 * 100)


def test_the_expected_mistakes_are_those_of_the_accuracy(two: Built) -> None:
    results = two.results()
    [*_, row] = answer(results)["rows"]
    accuracy = results.point["out_of_fold"]["accuracy"]["value"]
    assert row["title"] == "Mistakes per 10,000" and float(row["value"]) == pytest.approx(10_000 * (1 - accuracy), abs=1)


def test_the_cost_is_that_of_the_rule(two: Built) -> None:
    results = two.results()
    rare, common = results.rarest, next(label for label in results.labels if label != results.rarest)
    costs = {rare: {rare: 0.0, common: 4.0}, common: {rare: 1.0, common: 0.0}}
    point = {**results.point, "rule": "cost", "label": None, "costs": costs}
    [*_, row] = answer(dataclasses.replace(results, point=point))["rows"]
    counts = mistakes(results.point["out_of_fold"], rare, results.board["production_prior"][rare])
    assert row["title"] == "Cost per 10,000"
    assert float(row["value"].replace(",", "")) == pytest.approx(
        counts["false_alarms"]["value"] + 4 * counts["misses"]["value"], abs=1
    )


def test_the_threshold_has_its_interval(two: Built) -> None:
    results = two.results()
    ends = estimate(0.43, 0.31, 0.56)
    point = {**results.point, "label": results.rarest, "threshold": ends}
    assert answer(dataclasses.replace(results, point=point))["threshold"] == "at threshold 0.43 (0.31 to 0.56)"
    value = threshold(cost_matrix(results.point["costs"], results.labels), results.labels.index(results.rarest))
    unmeasured = dataclasses.replace(results, point={**results.point, "threshold": None})
    assert answer(unmeasured)["threshold"] == f"at threshold {value:.3g}"
    missed = dataclasses.replace(results, point={**results.point, "met": False, "rule": "precision", "limit": 0.99})
    assert "No threshold meets precision 0.99 out of fold." in page(missed)


def test_the_answer_says_why_the_technique_was_selected(two: Built) -> None:
    results = two.results()
    cheap = answer(selecting(results, "baseline", best="tfidf", within=["baseline", "tfidf", "focal"]))
    assert cheap["why"].startswith(f"Its macro F1 of {results.selecting('baseline')['value']:.3f} is within one standard error")
    assert "of the best (tfidf, " in cheap["why"]
    assert cheap["why"].endswith("of 3 such techniques it is the cheapest to run (824 k multiply-adds per message).")
    best = answer(selecting(results, "tfidf", best="tfidf", within=["tfidf"]))
    assert best["why"] == f"It has the best macro F1 ({results.selecting('tfidf')['value']:.3f})."
    assert best["tied"] == [
        "No other technique lies within one standard error of the best.",
        "The rule selects tfidf in 62% of bootstrap samples.",
    ]
    level = answer(selecting(results, "tfidf", best="tfidf", within=["tfidf", "focal"]))
    assert level["why"].endswith("and of the 2 within one standard error of it, none is cheaper.")
    assert level["tied"] == [
        "focal lies within one standard error of the best.",
        "The rule selects tfidf in 62% of bootstrap samples: several techniques are tied, and none of them is cheaper to run.",
    ]
    stable = selecting(results, "tfidf", best="tfidf", within=["tfidf", "focal"], stability={"tfidf": 0.93, "focal": 0.07})
    assert answer(stable)["tied"][1] == "The rule selects tfidf in 93% of bootstrap samples."
    limited = with_params(selecting(results, "tfidf", best="tfidf", within=["tfidf"]), "select", constraints={"mcc": 0.4})
    assert "the best macro F1 among the techniques with MCC ≥ 0.4 (" in answer(limited)["why"]
    safe = with_params(selecting(results, "tfidf", best="tfidf", within=["tfidf"]), "select", safe_only=True)
    assert "among the techniques with safe probabilities" in answer(safe)["why"]


def test_an_ensemble_is_what_the_page_and_the_card_describe(two: Built, tmp_path: Path) -> None:
    built = two.copy(tmp_path / "ensemble")
    built.project.edit({"select.deploy": "ensemble"})
    for stage in ("select", "report"):
        built.stage(stage)
    html = built.html("index.html")
    assert f"Deploy <b>{built.selected}</b>, the mean of 2 seeds" in html
    ensemble = built.board["techniques"][built.selected]["ensemble"][f"{built.rarest}.recall"]["value"]
    assert answer(built.results())["rows"][1]["test"] == f"{ensemble:.3f}", "the test column is that of the ensemble"
    card = built.project.folder.joinpath(PROJECT.model_card).read_text(encoding="utf-8")
    assert "the seeds 0 and 1, as the mean of their logits" in card
    assert f"`models/{built.selected}/0`, `models/{built.selected}/1`" in card


def test_the_report_works_without_levers(two: Built) -> None:
    shown = page(dataclasses.replace(two.results(), levers=None))
    assert f"Deploy <b>{two.selected}</b>" in shown
    assert "The levers are not measured. Run <code>dvc repro levers</code>." in shown


def test_the_second_answer_counts_the_verdicts(two: Built) -> None:
    results = two.results()
    others = [name for name in results.names if name != "baseline"]
    level = against_baseline(with_verdicts(results, dict.fromkeys(others, "not shown")))
    assert level["headline"] == "None is shown to be better."
    assert level["sentences"][0] == (
        "Of 6 other techniques, none is better, none is worse, none is equivalent, and for 6 no difference is shown."
    )
    decided = against_baseline(with_verdicts(results, dict.fromkeys(others, "equivalent") | {"majority": "worse"}))
    assert decided["headline"] == "No."
    assert "none is better, 1 is worse (majority), and 5 are equivalent" in decided["sentences"][0]
    better = against_baseline(with_verdicts(results, dict.fromkeys(others, "worse") | {"tfidf": "better"}))
    assert better["headline"] == "Yes: tfidf is better."
    assert [(bar["word"], bar["count"]) for bar in better["bars"]] == [
        ("better", 1),
        ("equivalent", 0),
        ("not shown", 0),
        ("worse", 5),
    ]


def test_the_second_answer_has_the_largest_gain_and_the_smallest_difference_to_be_shown(two: Built) -> None:
    results = two.results()
    differences = {
        name: technique["comparison"]["operating_point"]["metrics"]["macro_f1"]
        for name, technique in results.board["techniques"].items()
        if technique["comparison"]
    }
    best = max(differences, key=lambda name: differences[name]["difference"])
    gain = differences[best]
    shown = against_baseline(results)
    ends = f"({gain['low']:+.3f} to {gain['high']:+.3f})"
    chance = ", which may be chance" if gain["low"] <= 0 <= gain["high"] else ""
    assert shown["sentences"][1] == f"The largest gain in macro F1 is that of {best}: {gain['difference']:+.3f} {ends}{chance}."
    support = results.ingest["splits"]["test"][results.rarest]
    assert f"With {support} {results.rarest} test messages and 2 seeds, differences in macro F1 below 0." in shown["smallest"]
    assert "inconclusive" not in page(results).partition('id="claims"')[0]


def test_a_baseline_alone_has_nothing_to_be_compared_with(two: Built) -> None:
    results = two.results()
    board = {**results.board, "techniques": {"baseline": results.board["techniques"]["baseline"]}}
    params = results.params.model_copy(update={"techniques": {"baseline": {}}})
    alone = dataclasses.replace(results, board=board, params=params)
    assert against_baseline(alone)["headline"] == "There is no other technique."


def test_the_levers_are_ranked_by_gain_and_unmeasured_ones_name_their_command(two: Built) -> None:
    shown = help_most(LEVERS, "make levers")
    assert [row["name"] for row in shown["rows"]] == [
        "Twice as many labels",
        "Average the seeds <i>",
        "Relabel suspected errors",
        "Threshold or cost rule",
        "A larger encoder",
    ]
    assert shown["headline"] == "Twice as many labels." and shown["metric"] == "macro F1"
    first, *_, used, last = shown["rows"]
    assert used["cost"] == "in use" and not used["helps"], "what is in use already cannot help more"
    assert (first["gain"], first["ends"], first["helps"]) == ("+0.006", "+0.001 to +0.011", True)
    assert first["cost"] == "4,518 labels" and last["gain"] is None and last["measured_by"] == "make study NAME=encoders"
    too_small = lever("Twice as many labels", (0.0004, 0.0001, 0.011))
    assert help_most([*LEVERS[:2], too_small], "")["headline"] == "No measured lever is shown to help."
    html = page(dataclasses.replace(two.results(), levers=LEVERS))
    assert "not measured: <code>make study NAME=encoders</code>" in html
    assert "Average the seeds &lt;i&gt;" in html and "seeds <i>" not in html


@pytest.mark.parametrize("stage", ["report", "select"])
def test_old_results_are_an_error_that_says_what_to_do(stage: str, two: Built, tmp_path: Path) -> None:
    project = two.copy(tmp_path / "old").project
    path = project.folder / PROJECT.leaderboard
    board = read_json(path)
    assert read_leaderboard(path) == board
    del board["protocol"]
    write_json(path, board)
    error = project.stage_here(stage).error
    assert f"leaderboard.json: the results follow evaluation protocol 1, but this code expects protocol {PROTOCOL}" in error
    assert "run `dvc repro`" in error
    with pytest.raises(UserError, match="protocol 1"):
        read_leaderboard(path)

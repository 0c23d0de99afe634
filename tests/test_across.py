"""Ranks over data sets, and what the benchmark says about them: published values and planted truths."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from ballast.evaluation.across import mean_over_data_sets, rank_correlation, tail_classes
from ballast.evaluation.ranks import (
    against_control,
    all_pairs,
    critical_difference,
    friedman,
    level_groups,
    rank_p_value,
    ranked,
)
from ballast.exceptions import ArgumentError
from stages.pages.across.markdown import NOT_RUN, chapter
from stages.pages.across.sentences import rarity_sentence, sentences, technique_sentence, threshold_sentence
from stages.pages.across.view import bar_lanes, page
from stages.store.across_data_sets import DataSets, Published
from tests.across_results import ENTRIES, SETS, planted
from tests.browser import CONTRAST, DESKTOP, HOSTILE, PHONE, watched

# Demsar (2006), table 6: AUC of C4.5, with m, with cf and with both tuned, on 14 data sets.
CLASSIFIERS = ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"]
AUC = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        # The table rounds both to 0.975, but its ranks put C4.5+cf first.
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def test_the_example_of_demsar_has_its_published_ranks_and_tests() -> None:
    ranks = ranked(AUC)
    means = ranks.mean(axis=0)
    np.testing.assert_allclose(means, [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    # The paper's chi-squared of 9.28 ignores ties. Their correction divides by 1 - sum(t^3 - t) / (N (k^3 - k)).
    tied = sum(sum(count**3 - count for count in np.unique(row, return_counts=True)[1]) for row in ranks)
    test = friedman(ranks)
    uncorrected = test.statistic * (1 - tied / (14 * (4**3 - 4)))
    assert uncorrected == pytest.approx(9.28, abs=0.01)
    assert 13 * uncorrected / (14 * 3 - uncorrected) == pytest.approx(3.69, abs=0.01)
    assert test.p < 0.026 and test.p_f < 0.02
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.01)
    assert critical_difference(4, 14, confidence=0.90) == pytest.approx(1.12, abs=0.01)
    # Holm's procedure in section 3.2.2: p-values of 0.016, 0.019 and 0.607.
    found = [rank_p_value(means[0] - means[at], 4, 14) for at in (3, 1, 2)]
    np.testing.assert_allclose(found, [0.016, 0.019, 0.607], atol=2e-3)
    adjusted = against_control(dict(zip(CLASSIFIERS, means, strict=True)), 14, "C4.5")
    assert {name for name, p in adjusted.items() if p < 0.05} == {"C4.5+m", "C4.5+m+cf"}
    # The paper: at 0.05 no pair differs; at 0.10 pure C4.5 is worse than C4.5+m and C4.5+m+cf.
    order = sorted(means)
    assert level_groups(order, critical_difference(4, 14)) == [(0, 3)]
    assert level_groups(order, critical_difference(4, 14, 0.90)) == [(0, 2), (2, 3)]


def test_equal_techniques_are_rarely_found_to_differ_and_a_better_one_is_found() -> None:
    rng = np.random.default_rng(0)
    false, found, wrong = 0, 0, 0
    for _ in range(300):
        values = rng.normal(size=(8, 6))
        ranks = ranked(values)
        false += friedman(ranks).p_f < 0.05
        pairs = all_pairs(dict(enumerate(ranks.mean(axis=0))), 8)
        wrong += min(pairs.values()) < 0.05
        better = ranked(values + 3 * np.eye(6)[0])
        found += friedman(better).p_f < 0.05
    # At a level of 0.05, 300 simulations give at most 26 with probability 0.997.
    assert false <= 26 and wrong <= 26
    assert found >= 280


def test_ties_and_edges_of_ranks() -> None:
    assert ranked(np.array([[0.1, 0.1, 0.2]]), higher_is_better=False).tolist() == [[1.5, 1.5, 3.0]]
    level = friedman(ranked(np.full((4, 3), 0.5)))
    assert (level.p, level.p_f) == (1.0, 1.0)
    same_order = friedman(ranked(np.tile([0.3, 0.2, 0.1], (5, 1))))
    assert same_order.f == np.inf and same_order.p_f == 0
    with pytest.raises(ArgumentError, match="2 techniques on 5 data sets; Friedman's test needs 3 techniques"):
        friedman(np.ones((5, 2)))
    with pytest.raises(ArgumentError, match="every technique needs a value on every data set"):
        ranked(np.array([[0.1, np.nan]]))
    assert level_groups([1.0, 5.0, 9.0], width=1.0) == []


def test_correlation_with_rarity_needs_data_sets_and_finds_an_order() -> None:
    rising = rank_correlation([10, 20, 30, 40, 50, 60], [1, 2, 3, 4, 5, 6])
    assert rising == {"rho": 1.0, "p": pytest.approx(2 / 720)}
    unrelated = rank_correlation([10, 20, 30, 40, 50, 60], [3, 6, 1, 5, 2, 4])
    assert unrelated is not None and unrelated["p"] > 0.5
    assert rank_correlation([1, 2, 3, 4], [5, 5, 5, 5]) is None
    assert mean_over_data_sets([0.3]) == {"value": 0.3, "low": None, "high": None}
    assert tail_classes([9, 4, 4, 8, 7, 6, 5, 9, 9, 9, 9]) == [1, 2]


def only(name: str, effect: float, where: tuple[str, ...] = tuple(SETS)):  # type: ignore[no-untyped-def]
    """An effect of one entry on some data sets."""
    return lambda entry, data_set: effect if entry == name and data_set in where else 0.0


def test_the_sentences_say_that_nothing_helps_if_nothing_does() -> None:
    said = sentences(planted(gain=0.05))
    assert said[0] == (
        "A threshold alone changes the F1 of the rarest class by +0.050 (+0.050 to +0.050) for baseline, on average over 6 data"
        " sets; the threshold is better on 6. No technique without a threshold is shown to be better than the threshold on"
        " any of them."
    )
    assert said[1].startswith(
        "With a threshold for each, no technique is shown to be better than baseline in the F1 of the rarest class on any data"
        " set; 0 of 13 are worse on at least one of 6 data sets."
    )
    assert "are not shown to differ (Friedman" in said[1] and "0 of 13 are shown to be better there" in said[2]
    assert "no relation is shown" in said[2]


def test_the_sentences_name_what_helps_and_where() -> None:
    helpful = planted(only("focal", 0.10), only("ldam", 0.06, ("trec", "banking77")), gain=0.03)
    assert "Without a threshold, focal is shown to be better than the threshold on 6 of 6, and no technique on more." in (
        threshold_sentence(helpful)
    )
    said = technique_sentence(helpful)
    assert said.startswith(
        "With a threshold for each, ldam is better than baseline in the F1 of the rarest class on 2 of 6 data"
    )
    assert "and worse on none (+0.0" in said
    # What helps on one data set and harms on another is not recommended.
    mixed = planted(decided=lambda entry, data_set: (0.06 if data_set == "trec" else -0.06) if entry == "smote" else 0.0)
    assert "smote" not in technique_sentence(mixed)
    assert "on one data set without being worse on another" in technique_sentence(mixed)
    assert "1 of 13 is worse on at least one of 6 data sets" in technique_sentence(mixed)


def test_rarity_decides_if_it_is_planted() -> None:
    counts = {name: share * messages for name, (_, share, messages) in SETS.items()}

    def rarer_gains_more(entry: str, data_set: str) -> float:
        return 0.0 if entry in ("baseline", "tfidf", "majority") else 0.3 / np.log10(counts[data_set])

    said = rarity_sentence(planted(decided=rarer_gains_more))
    assert "largest on clinc_intents, which has 14 training messages" in said
    assert "techniques gain less where there are more rare messages (Spearman's rho -1.00" in said


def test_one_data_set_claims_nothing_across_data_sets() -> None:
    one = planted(only("focal", 0.10), gain=0.03, names=["trec"])
    assert one.ranks == {"corrected": {}, "operating_point": {}}
    said = sentences(one)
    assert "by +0.030 for baseline, on average over 1 data set" in said[0] and "Friedman" not in said[1]
    assert "1 data set cannot show how this depends on the number of rare messages." in said[2]
    assert "Ranks need two data sets" in chapter(one)


def test_without_a_technique_nothing_is_said_about_one_and_the_baseline_is_needed() -> None:
    said = sentences(planted(entries=("baseline", "tfidf", "majority"), names=["trec", "banking77"]))
    assert said[1] == "No technique against imbalance was run on the 2 data sets."
    about = {"tests": "x", "address": "x", "licence": "x"}
    with pytest.raises(ValueError, match=r"common\.techniques has no entry 'baseline'"):
        DataSets(question="?", common={"techniques": {"tfidf": {}}}, data_sets={"trec": about})


def test_ranks_leave_out_entries_that_a_data_set_lacks() -> None:
    across = planted(entries=("baseline", "focal", "ldam", "tfidf"))
    found = across.ranks["corrected"]["macro_f1"]
    assert set(found["mean_ranks"]) == {"baseline", "focal", "ldam", "tfidf"} and set(found["against_reference"]) == {
        "focal", "ldam", "tfidf",
    }  # fmt: skip
    worse = planted(only("tfidf", -0.2), entries=("baseline", "focal", "ldam", "tfidf"))
    assert worse.ranks["corrected"]["macro_f1"]["order"][-1] == "tfidf"
    # A loss is better if it is lower, in ranks and verdicts.
    assert worse.ranks["corrected"]["log_loss"]["order"][-1] == "tfidf"
    assert worse.techniques["tfidf"]["corrected"]["log_loss"]["verdicts"]["worse"] == 6


def test_bars_of_a_diagram_do_not_overlap() -> None:
    groups = [(0, 4), (2, 6), (5, 8), (7, 9)]
    lanes = bar_lanes(groups)
    for at, (first, _) in enumerate(groups):
        assert all(lanes[at] != lanes[other] or groups[other][1] < first for other in range(at))


def test_the_chapter_says_plainly_that_nothing_was_run() -> None:
    assert chapter(None) == NOT_RUN and "has not been run yet" in NOT_RUN
    text = chapter(planted(only("focal", 0.1), missing={"trec": "no file"}))
    assert "✓ +0." in text and "Missing: trec." in text
    assert all(re.match(r"(\||\d\. |#|\w|$)", line) for line in text.splitlines())
    widths = [
        line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("| entry") or "| focal" in line
    ]
    assert len(set(widths)) == 1


FIGURE = Published(
    data_set="trec", source=HOSTILE[0], address="https://example.org", model=HOSTILE[1], metric="accuracy", value=0.9,
    same_protocol=False, note="another split",
)  # fmt: skip
SECONDS = [
    {"data_set": "trec", "entry": "focal", "training_seconds": "12.5", "message_passes": "9", "machine": "x86_64, 2 CPUs"}
]


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_the_page_shows_the_result_and_lets_no_text_act(
    browser: Browser, tmp_path: Path, size: tuple[int, int], scheme: str
) -> None:
    across = planted(
        only("focal", 0.10), only("ldam", 0.06, ("trec", "banking77")), published=[FIGURE], missing={"gone": HOSTILE[0]}
    )
    path = tmp_path / "datasets.html"
    path.write_text(page(across, SECONDS), encoding="utf-8")
    with watched(browser, size, color_scheme=scheme) as watch:
        shown = watch.open(path)
        assert [item.inner_text() for item in shown.locator(".three li").all()] == sentences(across)
        assert shown.locator("table.changes:visible tbody tr").count() == len(ENTRIES) - 1
        row = shown.locator("table.changes:visible tr", has=shown.locator("th[data-value=ldam]"))
        assert row.locator("td.better").count() == 2
        assert shown.locator(".ranks:visible .names span").count() == len(ENTRIES)
        shown.select_option("#view", label="Log loss")
        assert shown.locator("[data-view]:visible h3").first.inner_text() == "Ranks: log loss"
        assert shown.locator("#rarity circle").count() == 2 * 13 * len(SETS)
        assert shown.locator("#rarity circle.better").count() == 4
        assert "12.5" in shown.locator("#seconds").inner_text()
        assert shown.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [size[0], size[0]]
        poor = [(ratio, element) for ratio, element in shown.evaluate(CONTRAST) if ratio < 4.5]
        assert poor == []
        watch.assert_clean(path)


def test_the_page_without_results_says_how_to_get_them(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "datasets.html"
    path.write_text(page(None, []), encoding="utf-8")
    with watched(browser) as watch:
        assert "make study NAME=datasets" in watch.open(path).locator("main").inner_text()
        watch.assert_clean(path)

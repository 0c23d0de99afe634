"""The search: what it finds on validation, what it must not see, and that it stays away while it is off."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from ballast.evaluation.bootstrap import Draws
from ballast.exceptions import UserError
from ballast.search import INVERSE_PENALTY, Embedded, best, check_spaces, reference_value, search, validation_logits
from ballast.technique import Technique
from ballast.techniques import build
from stages.pages.report.search_view import search_rows
from stages.store.files import read_json
from stages.store.project import PROJECT
from stages.store.search_transfer import search_transfer
from tests.project import Project, corpus

WEIGHTS = {"low": 0.5, "high": 30.0, "log": True, "per_class": True}
GAMMA = {"low": 0.0, "high": 5.0}


def embedded(counts: list[int], distance: float = 0.12) -> Embedded:
    """Clouds of unit vectors, one around each class's own direction; a third of each class is validation."""
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(len(counts)), counts)
    points = distance * np.eye(16)[classes] + 0.1 * rng.normal(size=(len(classes), 16))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    held = np.arange(len(classes)) % 3 == 0
    return Embedded(
        train=points[~held],
        train_classes=classes[~held],
        validation=points[held],
        validation_classes=classes[held],
        labels=[f"class {at}" for at in range(len(counts))],
    )


@pytest.fixture(scope="module")
def data() -> Embedded:
    return embedded([1500, 100], distance=0.1)


def tried(data: Embedded, technique: str = "class_weight", **changes: Any) -> list[Any]:
    settings = {"spaces": {"weights": WEIGHTS}, "metric": "class 1.f1", "trials": 8, "seed": 0, **changes}
    return search(technique, settings.pop("given", {}), settings.pop("spaces"), data, **settings)


@pytest.mark.parametrize("counts", [[900, 90], [300, 200, 60]])
def test_the_head_is_the_logistic_regression_on_embeddings(counts: list[int]) -> None:
    data = embedded(counts)
    for technique, weight in (
        (Technique(), None),
        (build("class_weight", data.counts, data.labels, {"weights": "inverse"}), "balanced"),
    ):
        regression = LogisticRegression(C=INVERSE_PENALTY, class_weight=weight, max_iter=1000).fit(
            data.train, data.train_classes
        )
        found = softmax(validation_logits(technique, data, 0).astype(float), axis=1)
        np.testing.assert_allclose(found, regression.predict_proba(data.validation), atol=0.02)


def test_it_finds_weights_that_help_where_the_plain_head_misses_the_rare_class(data: Embedded) -> None:
    plain = reference_value(data, "class 1.f1", 0)
    heard: list[tuple[int, float]] = []
    trials = tried(data, on_trial=lambda trial, value: heard.append((trial, value)))
    chosen = best(trials, "class 1.f1")
    assert chosen.value == max(each.value for each in trials) > plain + 0.1
    assert chosen.parameters["weights"]["class 0"] == 1 < chosen.parameters["weights"]["class 1"]
    assert [trial for trial, _ in heard] == list(range(1, 9))
    assert [value for _, value in heard] == np.maximum.accumulate([each.value for each in trials]).tolist()
    assert tried(data, trials=3) == trials[:3] != tried(data, seed=1, trials=3)


def test_a_loss_is_made_small(data: Embedded) -> None:
    trials = tried(data, metric="log_loss", trials=4)
    assert best(trials, "log_loss").value == min(each.value for each in trials)


def test_of_equal_trials_the_first_wins(data: Embedded) -> None:
    trials = tried(data, "focal", spaces={"gamma": {"choices": [0.0, 1e-9]}}, trials=5)
    assert best(trials, "class 1.f1") == trials[0] and {each.value for each in trials} == {trials[0].value}


def test_given_parameters_stay_and_choices_may_be_anything(data: Embedded) -> None:
    choices = [{"class 1": 0.25}, {"class 1": 0.75}]
    trials = tried(data, "focal", given={"gamma": 1.0}, spaces={"alpha": {"choices": choices}}, trials=6)
    assert all(set(each.parameters) == {"alpha"} and each.parameters["alpha"] in choices for each in trials)


def test_every_class_but_the_largest_has_a_weight_of_its_own() -> None:
    data = embedded([120, 300, 60, 45, 30, 24, 18, 15])
    [first, second] = tried(data, metric="macro_f1", trials=2)
    assert list(first.parameters["weights"]) == data.labels
    assert first.parameters["weights"]["class 1"] == second.parameters["weights"]["class 1"] == 1
    assert len(set(first.parameters["weights"].values())) == 8
    assert all(0.5 <= each <= 30 for each in first.parameters["weights"].values())


@pytest.mark.parametrize("technique", ["logit_adjust", "ldam", "lade", "effective_number", "downsample"])
def test_other_techniques_can_be_searched(technique: str, data: Embedded) -> None:
    space = {
        "logit_adjust": ("tau", {"low": 0.2, "high": 2.0}),
        "ldam": ("margin", {"low": 0.1, "high": 1.0}),
        "lade": ("alpha", {"low": 0.01, "high": 1.0, "log": True}),
        "effective_number": ("beta", {"choices": [0.9, 0.99]}),
        "downsample": ("ratio", {"low": 1.0, "high": 5.0}),
    }
    spaces = dict([space[technique]])
    check_spaces(technique, {}, spaces, data.counts, data.labels)
    assert all(0 <= each.value <= 1 for each in tried(data, technique, spaces=spaces, trials=2))


@pytest.mark.parametrize(
    ("technique", "spaces"),
    [
        ("tfidf", {"C": GAMMA | {"low": 1.0}}),
        ("smote", {"ratio": {"low": 1.0, "high": 3.0}}),
        ("augment", {"strength": {"low": 0.1, "high": 0.5}}),
    ],
)
def test_what_is_more_than_a_head_cannot_be_searched(technique: str, spaces: Any, data: Embedded) -> None:
    with pytest.raises(UserError, match=f"{technique} cannot be searched"):
        check_spaces(technique, {}, spaces, data.counts, data.labels)


@pytest.fixture
def ingested(workspace: Project, tiny_encoder: Path) -> Project:
    workspace.write("messages.csv", corpus({"ham": 200, "spam": 60}))
    entries = {"baseline": {}, "focal": {"gamma": 2.0}, "weighted": {"technique": "class_weight"}}
    workspace.edit(
        {
            "train.model": str(tiny_encoder),
            "train.max_length": 32,
            "techniques": entries,
            "search.trials": 3,
            "search.spaces": {"focal": {"gamma": GAMMA}, "weighted": {"weights": WEIGHTS}},
        }
    )
    assert workspace.stage_here("ingest").code == 0
    return workspace


def test_cards_hold_what_was_found_on_validation_and_never_on_test(ingested: Project) -> None:
    done = ingested.stage_here("search")
    assert done.code == 0, done.stderr
    assert "search: weighted: trial 3 of 3, macro_f1 0." in done.stderr
    first = (ingested.folder / PROJECT.search).read_bytes()
    found = read_json(ingested.folder / PROJECT.search)
    assert set(found) == {"focal", "weighted"} and [len(each["trials"]) for each in found.values()] == [3, 3]
    assert found["weighted"]["technique"] == "class_weight" and 0 < found["weighted"]["baseline"] <= 1

    assert ingested.stage_here("techniques").code == 0
    cards = {name: read_json(ingested.folder / PROJECT.cards / f"{name}.json") for name in ("baseline", "focal", "weighted")}
    assert cards["focal"]["parameters"] == found["focal"]["best"] and cards["focal"]["parameters"]["gamma"] != 2.0
    assert cards["weighted"]["parameters"] == found["weighted"]["best"] and cards["baseline"]["parameters"] == {}

    messages = pd.read_parquet(ingested.folder / PROJECT.messages)
    test = messages["split"] == "test"
    messages.loc[test, "text"] = "something else"
    messages.loc[test, "label"] = np.where(messages.loc[test, "label"] == "ham", "spam", "ham")
    ingested.write(str(PROJECT.messages), messages)
    assert ingested.stage_here("search").code == 0
    assert (ingested.folder / PROJECT.search).read_bytes() == first


def test_off_it_writes_nothing_loads_nothing_and_no_card_needs_it(ingested: Project) -> None:
    ingested.edit({"search.trials": 0, "search.spaces": {"of nobody": {"x": GAMMA}}})
    assert "search.spaces" in ingested.stage_here("search").error
    ingested.edit({"search.spaces": {"of_nobody": {"x": GAMMA}}})
    listing = "import sys; from stages.search import main; main(); print(*sys.modules)"
    done = ingested.run(sys.executable, "-c", listing)
    assert done.code == 0, done.stderr
    assert {"torch", "transformers", "optuna", "sklearn"} & set(done.stdout.split()) == set()
    assert read_json(ingested.folder / PROJECT.search) == {}
    assert "'weights'" in ingested.stage_here("techniques").error
    ingested.edit({"techniques.weighted.weights": "inverse"})
    (ingested.folder / PROJECT.search).unlink()
    assert ingested.stage_here("techniques").code == 0


WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unknown entry": ({"search.spaces": {"focl": {"gamma": GAMMA}}}, ("search.spaces", "'focl'", "did you mean 'focal'?")),
    "unknown parameter": (
        {"search.spaces.focal": {"gama": GAMMA}},
        ("search.spaces.focal", "unknown parameter 'gama' of focal", "did you mean 'gamma'?"),
    ),
    "parameter of none": ({"search.spaces": {"baseline": {"gamma": GAMMA}}}, ("unknown parameter 'gamma' of baseline", "none")),
    "low above high": (
        {"search.spaces.focal": {"gamma": {"low": 2.0, "high": 1.0}}},
        ("search.spaces.focal.gamma", "low must be below high", "2 and 1"),
    ),
    "low is high": ({"search.spaces.focal": {"gamma": {"low": 1.0, "high": 1.0}}}, ("low must be below high",)),
    "log of zero": ({"search.spaces.focal": {"gamma": {**GAMMA, "log": True}}}, ("low must be above 0 if log is true",)),
    "no end": (
        {"search.spaces.focal": {"gamma": {"low": 1.0}}},
        ("search.spaces.focal.gamma", "give low and high, or choices"),
    ),
    "range and choices": ({"search.spaces.focal": {"gamma": {**GAMMA, "choices": [1, 2]}}}, ("choices excludes low, high",)),
    "one choice": ({"search.spaces.focal": {"gamma": {"choices": [1]}}}, ("gamma.choices", "at least 2")),
    "unknown key": ({"search.spaces.focal": {"gamma": {"lw": 1}}}, ("'search.spaces.focal.gamma.lw'", "did you mean 'low'?")),
    "word for an end": ({"search.spaces.focal": {"gamma": {**GAMMA, "low": "0"}}}, ("gamma.low", "number", "found '0'")),
    "not a number": ({"search.spaces.focal": {"gamma": {**GAMMA, "low": float("nan")}}}, ("gamma.low", "found nan")),
    "no parameter": ({"search.spaces": {"focal": {}}}, ("spaces.focal does not name a parameter",)),
    "no entry": ({"search.spaces": {}}, ("search", "trials is 3, but spaces does not name an entry")),
    "negative trials": ({"search.trials": -1}, ("search.trials", "greater than or equal to 0")),
    "end that the technique refuses": (
        {"search.spaces.focal": {"gamma": {"low": -1.0, "high": 1.0}}},
        ("search.spaces.focal", "focal.gamma must be a number of at least 0, not -1.0"),
    ),
    "choice that the technique refuses": (
        {"search.spaces": {"weighted": {"weights": {"choices": ["inverse", "invrse"]}}}},
        ("search.spaces.weighted", "'invrse'"),
    ),
    "a number for a mapping": (
        {"search.spaces": {"weighted": {"weights": {"low": 1.0, "high": 2.0}}}},
        ("class_weight.weights must give a number for each class (ham, spam), not 1.0",),
    ),
    "a mapping for a number": (
        {"search.spaces.focal": {"gamma": {**GAMMA, "per_class": True}}},
        ("focal.gamma must be a number of at least 0",),
    ),
    "parameter that is lacking": ({"search.spaces": {"weighted": {"wights": WEIGHTS}}}, ("unknown parameter 'wights'",)),
    "unknown technique": ({"techniques.focal": {"technique": "focall"}}, ("unknown technique 'focall'", "'focal'?")),
    "unknown metric": ({"search.metric": "spam.f2"}, ("search.metric", "'spam.f2'", "did you mean 'spam.f1'?")),
}


@pytest.mark.parametrize(("edits", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_space_is_named_before_anything_trains(ingested: Project, edits: Any, said: tuple[str, ...]) -> None:
    # An encoder that is not there would be the first thing to fail.
    ingested.edit({"train.model": "nowhere", **edits})
    error = ingested.stage_here("search").error
    for words in ("params.yaml: ", *said):
        assert words in error
    assert not (ingested.folder / PROJECT.search).exists()


def test_a_result_that_is_missing_is_named(ingested: Project) -> None:
    assert f"{PROJECT.search}: no such file" in ingested.stage_here("techniques").error
    ingested.write(str(PROJECT.search), {"focal": {"best": {"gamma": 1.0}}})
    assert f"{PROJECT.search}: no result for the entry 'weighted'" in ingested.stage_here("techniques").error


@pytest.mark.parametrize(("gain", "verdict"), [(0.05, "better"), (0.0, "equivalent"), (-0.05, "worse")])
def test_the_search_says_whether_its_result_transfers(gain: float, verdict: str) -> None:
    """The searched entry against the untuned one of the same technique, not against the baseline."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.01, 1000)

    def draws(value: float) -> Draws:
        own = value + noise + rng.normal(0, 0.002, 1000)
        return Draws(values={"macro_f1": own}, seeds={"macro_f1": np.full(3, value)}, correct=np.ones((3, 1), dtype=bool))

    entries = {"baseline": None, "focal": {"gamma": 2.0}, "plain": {"technique": "focal"}, "tfidf": {}}
    held_out = {name: draws(0.8 + gain * (name == "focal")) for name in entries}
    results = {"focal": {"metric": "macro_f1"}, "tfidf": {"metric": "macro_f1"}}
    found = search_transfer(results, entries, held_out, confidence=0.95, margin=0.02)
    assert found["focal"]["untuned"] == "plain" and found["focal"]["comparison"]["verdict"] == verdict
    assert found["tfidf"] == {"untuned": None, "metric": "macro_f1", "comparison": None}
    entry = {"best": {"gamma": 2.0}, "metric": "macro_f1", "value": 0.9, "baseline": 0.8, "trials": []}
    [row] = search_rows({"focal": entry}, found)
    assert row["transfer"].startswith(f"{verdict}: {gain:+.3f} (") and row["transfer"].endswith("against plain, out of fold")
    held_out["focal"] = replace(held_out["focal"], values={})
    assert search_transfer(results, entries, held_out, confidence=0.95, margin=0.02)["focal"]["comparison"] is None


def test_parameters_read_well_in_the_report() -> None:
    found = {"best": {"weights": {"ham": 1.0, "spam": 3.5}, "rule": "x", "gamma": 2.0}, "metric": "macro_f1", "value": 0.9}
    [row] = search_rows({"mine": {**found, "baseline": 0.8, "trials": [{}, {}]}}, {})
    assert row["transfer"].startswith("not measured: add an entry with the technique of mine")
    assert row["parameters"] == ["weights: ham 1, spam 3.5", "rule: x", "gamma: 2"] and row["n_trials"] == 2

"""Claims of articles: what decides them, what does not, and what would."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.claim_verdicts import assess_claims, most_powerful
from ballast.evaluation.claims import (
    CONTRADICTED,
    INCONCLUSIVE,
    PASSES,
    PRIOR,
    SUPPORTED,
    Claim,
    Design,
    Part,
    prior_draws,
)
from ballast.evaluation.published_claims import claims
from ballast.evaluation.seed_variation import with_seed_variation
from ballast.exceptions import UserError
from ballast.techniques import build
from stages.store.claims import with_prior

ONE = np.ones((3, 1), dtype=bool)


def draws(value: float, spread: float, seeds: int = 3, metric: str = "spam.f1") -> Draws:
    """Draws of one metric around a value."""
    rng = np.random.default_rng(int(1000 * value))
    values = value + spread * rng.normal(size=2000)
    return Draws(values={metric: values}, seeds={metric: np.full(seeds, value)}, correct=np.ones((seeds, 1), dtype=bool))


def design(techniques: dict[str, Draws], trainings: int = 3, rare: int = 131, study: str | None = None) -> Design:
    return Design(draws=techniques, label="spam", rare=rare, trainings=trainings, confidence=0.95, study=study)


def claim_of(*parts: Part, **changes: object) -> Claim:
    return Claim(words="", source="", parts=parts, **changes)


def judged(direction: str, own: float, other: float, *, seeds: int = 3, spread: float = 0.002) -> str:
    claim = claim_of(Part(technique="focal", metric="spam.f1", direction=direction))
    techniques = with_seed_variation({"focal": draws(own, spread, seeds), "baseline": draws(other, spread, seeds)})
    return assess_claims([claim], design(techniques))[0]["verdict"]


@pytest.mark.parametrize(
    ("direction", "own", "other", "expected"),
    [
        ("higher", 0.95, 0.90, SUPPORTED), ("higher", 0.90, 0.95, CONTRADICTED), ("higher", 0.900, 0.901, CONTRADICTED),
        ("higher", 0.91, 0.90, SUPPORTED), ("higher", 0.902, 0.9, CONTRADICTED), ("lower", 0.901, 0.900, CONTRADICTED),
        ("lower", 0.90, 0.95, SUPPORTED), ("lower", 0.95, 0.90, CONTRADICTED),
        ("level", 0.900, 0.901, SUPPORTED), ("level", 0.80, 0.90, CONTRADICTED), ("level", 0.881, 0.90, INCONCLUSIVE),
        # Significant and larger than the margin, but the interval is not: neither level nor shown to be apart.
        ("level", 0.878, 0.90, INCONCLUSIVE), ("not level", 0.878, 0.90, INCONCLUSIVE),
        ("not level", 0.80, 0.90, SUPPORTED), ("not level", 0.900, 0.901, CONTRADICTED),
        ("not lower", 0.95, 0.90, SUPPORTED), ("not lower", 0.900, 0.901, SUPPORTED), ("not lower", 0.80, 0.90, CONTRADICTED),
        ("not higher", 0.80, 0.90, SUPPORTED), ("not higher", 0.95, 0.90, CONTRADICTED),
        # For a nearly perfect reference, half of the distance to 1 is the margin.
        ("not higher", 0.999, 0.98, CONTRADICTED), ("level", 0.999, 0.98, CONTRADICTED), ("level", 0.9, 0.912, SUPPORTED),
    ],
)  # fmt: skip
def test_claims_are_assessed_by_both_one_sided_tests(direction: str, own: float, other: float, expected: str) -> None:
    assert judged(direction, own, other) == expected


def test_one_training_decides_only_what_is_beyond_doubt() -> None:
    """With one seed, the variation between trainings is a stated bound."""
    assert judged("lower", 0.0, 0.97, seeds=1) == SUPPORTED
    assert judged("lower", 0.95, 0.97, seeds=1) == INCONCLUSIVE


def test_a_claim_of_several_parts_needs_them_all() -> None:
    techniques = {
        "baseline": draws(0.90, 0.002),
        "up": draws(0.95, 0.002),
        "down": draws(0.85, 0.002),
        "same": draws(0.901, 0.002),
    }

    def of(*names: str) -> dict[str, object]:
        parts = [Part(technique=name, metric="spam.f1", direction="higher") for name in names]
        return assess_claims([claim_of(*parts)], design(techniques))[0]

    assert of("up")["verdict"] == SUPPORTED and of("up", "same")["verdict"] == CONTRADICTED
    assert of("same")["note"] == "no difference is shown, and one of 0.02 or more is excluded" and of("down")["note"] is None
    assert of("up", "down")["verdict"] == CONTRADICTED
    assert of("up", "absent")["verdict"] == INCONCLUSIVE and not of("up", "absent")["complete"]
    assert "entries absent" in of("up", "absent")["note"]
    absent = of("absent")
    assert absent["effect"] is None and absent["note"] == (
        "not measured: needs the study claims (entries absent); make study NAME=claims"
    )


def test_an_undecided_claim_names_what_would_decide_it() -> None:
    """Twice the effect needs a quarter of the messages, and that many decide it in four of five redraws."""
    rng = np.random.default_rng(0)

    def measured(effect: float) -> dict[str, object]:
        values = 0.5 + effect + 0.03 * rng.normal(size=4000)
        own = Draws(values={"f1": values}, seeds={"f1": np.full(3, 0.5 + effect)}, correct=ONE)
        base = Draws(values={"f1": np.full(4000, 0.5)}, seeds={"f1": np.full(3, 0.5)}, correct=ONE)
        part = Part(technique="focal", metric="f1", direction="higher")
        return assess_claims([claim_of(part)], design({"focal": own, "baseline": base}))[0]

    sizes = [measured(effect)["decided_by"]["rare_messages"] for effect in (0.02, 0.04)]
    assert sizes[0] / sizes[1] == pytest.approx(4, rel=0.1)
    error = 0.03 * math.sqrt(131 / sizes[1])
    assert (rng.normal(0.04, error, 4000) / error > 1.96).mean() == pytest.approx(0.8, abs=0.03)
    note = measured(0.02)["note"]
    assert note.startswith("needs about ") and "spam test messages and 3 trainings of each entry (power 80%" in note
    # No effect at all: what decides is that none matters.
    assert measured(0.0)["decided_by"]["rare_messages"] == pytest.approx(sizes[0], rel=0.1)


@pytest.mark.parametrize(("effect", "wrong"), [(0.0, SUPPORTED), (0.02, CONTRADICTED)])
def test_false_verdicts_are_rare_over_all_claims(effect: float, wrong: str) -> None:
    """Twenty claims of a gain that is 0, or just what matters: in at most 5% of 200 runs one of them gets the wrong answer."""
    parts = [Part(technique=f"t{at}", metric="f1", direction="higher") for at in range(20)]
    runs = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)

        def level(rng: np.random.Generator = rng) -> Draws:
            value = 0.8 + effect + rng.normal(0, 0.004)
            return Draws(values={"f1": rng.normal(value, 0.004, 400)}, seeds={"f1": np.full(3, value)}, correct=ONE)

        exact = Draws(values={"f1": np.full(400, 0.8)}, seeds={"f1": np.full(3, 0.8)}, correct=ONE)
        techniques = {part.technique: level() for part in parts} | {"baseline": exact}
        runs += wrong in {found["verdict"] for found in assess_claims([claim_of(part) for part in parts], design(techniques))}
    # 5% of 200 is 10; 17 is its upper 99% bound.
    assert runs <= 17


def prior_verdict(share: float, low: float, high: float, direction: str) -> str:
    own = with_prior(draws(0.9, 0.01), {"value": share, "low": low, "high": high}, 0.13, 0.95)
    part = Part(technique="own", metric=PRIOR, direction=direction, reference=None)
    return assess_claims([claim_of(part)], design({"own": own}))[0]["verdict"]


def test_representative_probabilities_are_an_equivalence() -> None:
    """Within an odds ratio of 1.5 of 13%: from 9.1% to 18.3%."""
    assert prior_verdict(0.135, 0.12, 0.15, "level") == SUPPORTED
    assert prior_verdict(0.5, 0.42, 0.58, "level") == CONTRADICTED and prior_verdict(0.5, 0.42, 0.58, "not level") == SUPPORTED
    # The interval contains production, and much else.
    assert prior_verdict(0.15, 0.03, 0.52, "level") == INCONCLUSIVE == prior_verdict(0.15, 0.03, 0.52, "not level")
    values = prior_draws(0.5, 0.4, 0.6, production=0.13, confidence=0.95, resamples=4000)
    assert np.quantile(values, [0.025, 0.975]) + math.log(0.13 / 0.87) == pytest.approx(
        [math.log(2 / 3), math.log(3 / 2)], abs=0.01
    )


def test_computed_passes_are_certain_and_one_entry_can_refer_to_another_metric_of_its_own() -> None:
    def entry(passes: float, common: float, rare: float) -> Draws:
        values = {PASSES: passes, "ham.recall": common, "spam.recall": rare}
        return Draws(
            values={key: np.full(50, value) + (key != PASSES) * np.linspace(-0.01, 0.01, 50) for key, value in values.items()},
            seeds={key: np.full(3, value) for key, value in values.items()},
            correct=ONE,
        )

    techniques = {"weights": entry(1.0, 0.98, 0.80), "repeats": entry(1.7, 0.95, 0.95)}
    faster = claim_of(Part(technique="weights", metric=PASSES, direction="lower", reference="repeats"))
    gap = claim_of(
        Part(technique="weights", metric="ham.recall", direction="higher", reference="weights", reference_metric="spam.recall")
    )
    found = assess_claims([faster, gap], design(techniques))
    assert [each["verdict"] for each in found] == [SUPPORTED] * 2
    assert found[1]["effect"] == pytest.approx(0.18) and found[1]["parts"][0]["reference_metric"] == "spam.recall"


def test_a_formula_decides_some_claims() -> None:
    stated = claims("spam", "ham", ["baseline"], tuned=True)
    found = {each["claim"]: each for each in assess_claims(stated, design({}))}
    focal, accuracy = (
        found["Focal loss is for two classes only."],
        found["An accuracy of 99% means nothing where 1% of the messages are rare."],
    )
    assert focal["verdict"] == CONTRADICTED and focal["note"].startswith("by construction")
    assert accuracy["verdict"] == SUPPORTED and accuracy["note"].startswith("by construction")
    build("focal", np.array([5, 3, 2]), ["a", "b", "c"], {"gamma": 2})
    with pytest.raises(UserError):
        build("one_class", np.array([5, 3, 2]), ["a", "b", "c"], {})


def test_a_claim_is_measured_where_it_belongs() -> None:
    """A study of other data must not decide a claim about the main data, even if its entries have the same names."""
    part = Part(technique="focal", metric="spam.f1", direction="higher")
    techniques = {"focal": draws(0.95, 0.002), "baseline": draws(0.90, 0.002)}
    for study, expected in {None: SUPPORTED, "claims": SUPPORTED, "article_protocol": INCONCLUSIVE}.items():
        assert assess_claims([claim_of(part)], design(techniques, study=study))[0]["verdict"] == expected
    for study, expected in {None: INCONCLUSIVE, "ratio": SUPPORTED}.items():
        assert assess_claims([claim_of(part, study="ratio")], design(techniques, study=study))[0]["verdict"] == expected


def test_the_most_powerful_complete_design_decides_whatever_its_verdict() -> None:
    main = {"complete": True, "rare_messages": 131, "n_seeds": 3, "verdict": SUPPORTED}
    partly = {"complete": False, "rare_messages": 653, "n_seeds": 5, "verdict": CONTRADICTED}
    study = {"complete": True, "rare_messages": 653, "n_seeds": 5, "verdict": INCONCLUSIVE}
    assert most_powerful([main, partly]) == main and most_powerful([main, study]) == study == most_powerful([study, main])


def test_the_articles_claims_name_the_classes() -> None:
    stated = claims("fraud", "other", ["a", "b", "c"], "a", tuned=True)
    assert len({claim.words for claim in stated}) == len(stated) > 30
    assert all(claim.parts or claim.by_construction for claim in stated)
    metrics = {part.metric for claim in stated for part in claim.parts}
    assert metrics >= {"fraud.recall", "fraud.f1", "other.recall", PRIOR, PASSES}
    untuned = claims("fraud", "other", ["a"], tuned=False)
    assert sum(claim.caveat != other.caveat for claim, other in zip(stated, untuned, strict=True)) == 2
    [nothing] = [claim for claim in stated if claim.words.startswith("When only accuracy counts")]
    assert [part.technique for part in nothing.parts] == ["b", "c"]

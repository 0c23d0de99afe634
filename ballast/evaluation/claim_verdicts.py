"""Verdicts on claims: over all parts, with Holm's correction, the design that decides, and what would decide the rest.

A claim is *supported* if all of its parts are shown, *contradicted* if the opposite of any part is shown, and *inconclusive*
otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.claims import CLAIMS, CONTRADICTED, INCONCLUSIVE, SUPPORTED, Claim, Design, Effect, measure_effect
from ballast.evaluation.comparison import holm
from ballast.evaluation.power import Needed, needed

# What a second assessment, such as that on corrected metrics, adds to the first.
MEASURED = ("effect", "low", "high", "verdict", "parts")
# A number of messages that no one labels.
LARGEST = 10_000_000


def deciding(effects: Sequence[Effect], design: Design, level: float) -> Needed | None:
    """Rare test messages and trainings that would decide all undecided effects; None if one is exactly at its limit."""
    sizes = [
        needed(effect.distance, effect.error, rare=design.rare, seeds=design.trainings, level=level)
        for effect in effects
        if effect.verdict(design.confidence) == INCONCLUSIVE
    ]
    if not sizes or any(size is None for size in sizes):
        return None
    found = [size for size in sizes if size is not None]
    return Needed(rare=max(size.rare for size in found), seeds=max(size.seeds for size in found))


def rounded_up(number: int) -> str:
    """A number of messages or trainings, rounded up to two digits, in words.

    Examples
    --------
    >>> rounded_up(653), rounded_up(12_345), rounded_up(98_765_432)
    ('660', '13,000', 'more than 10,000,000')
    """
    if number > LARGEST:
        return f"more than {LARGEST:,}"
    step = 10 ** max(0, len(str(number)) - 2)
    return f"{-(-number // step) * step:,}"


def not_measured(claim: Claim, missing: Sequence[str]) -> str:
    """Which study measures the entries that a claim lacks."""
    study = claim.study or CLAIMS
    entries = "" if claim.study else f" (entries {', '.join(missing)})"
    return f"not measured: needs the study {study}{entries}; make study NAME={study}"


def what_decides(size: Needed | None, design: Design) -> str:
    """The messages and trainings that would decide a claim, in words."""
    if size is None:
        return "the effect is exactly at the margin, which no number of messages decides"
    trainings = "1 training" if size.seeds == 1 else f"{rounded_up(size.seeds)} trainings"
    return (
        f"needs about {rounded_up(size.rare)} {design.label} test messages and {trainings} of each entry (power 80%, if the"
        " effect is as measured)"
    )


def too_small(effects: Sequence[Effect], confidence: float) -> str | None:
    """What contradicts a claim whose difference is not in the other direction, but too small to matter."""
    opposite = [effect for effect in effects if effect.verdict(confidence) == CONTRADICTED]
    small = [
        effect.margin for effect in opposite if effect.part.direction in ("higher", "lower") and effect.low < 0 < effect.high
    ]
    return f"no difference is shown, and one of {max(small):.2g} or more is excluded" if small else None


def claim_verdict(claim: Claim, effects: Sequence[Effect], design: Design, level: float) -> dict[str, Any]:
    """A claim for JSON: effect and interval of its first part, verdict over all parts, design, and what would decide it."""
    verdicts = [effect.verdict(design.confidence) for effect in effects]
    complete = len(verdicts) == len(claim.parts)
    verdict = (
        claim.by_construction[0]
        if claim.by_construction
        else CONTRADICTED
        if CONTRADICTED in verdicts
        else SUPPORTED
        if verdicts and complete and set(verdicts) == {SUPPORTED}
        else INCONCLUSIVE
    )
    undecided = verdict == INCONCLUSIVE
    size = deciding(effects, design, level) if undecided and complete else None
    missing = [entry for entry in claim.entries if entry not in design.draws]
    note = (
        claim.by_construction[1]
        if claim.by_construction
        else not_measured(claim, missing or claim.entries)
        if not complete and undecided
        else what_decides(size, design)
        if undecided
        else too_small(effects, design.confidence)
    )
    first = effects[0] if effects else None
    return {
        "claim": claim.words,
        "source": claim.source,
        "effect": first.value if first else None,
        "low": first.low if first else None,
        "high": first.high if first else None,
        "verdict": verdict,
        "note": note,
        "caveat": claim.caveat,
        "design": design.words if effects else None,
        "rare_messages": design.rare if effects else None,
        "n_seeds": design.trainings if effects else None,
        "complete": complete,
        "decided_by": {"rare_messages": size.rare, "trainings": size.seeds} if size else None,
        "parts": [
            {
                **effect.part.as_json(),
                "effect": effect.value,
                "low": effect.low,
                "high": effect.high,
                "margin": effect.margin,
                "p_adjusted": min(effect.p_shown, effect.p_opposite),
                "verdict": effect.verdict(design.confidence),
            }
            for effect in effects
        ],
    }


def assess_claims(stated: Sequence[Claim], design: Design) -> list[dict[str, Any]]:
    """The claims with their verdicts in one design.

    P-values are adjusted over both answers of all parts of all claims (Holm), so that the probability of any false verdict is
    at most 1 - confidence.
    """
    effects = {
        (claim_number, part_number): effect
        for claim_number, claim in enumerate(stated)
        if claim.measured_by(design.study)
        for part_number, part in enumerate(claim.parts)
        if (effect := measure_effect(part, design.draws, design.confidence)) is not None
    }
    adjusted = holm(
        {(place, True): effect.p_shown for place, effect in effects.items()}
        | {(place, False): effect.p_opposite for place, effect in effects.items()}
    )
    effects = {
        place: replace(effect, p_shown=adjusted[place, True], p_opposite=adjusted[place, False])
        for place, effect in effects.items()
    }
    level = (1 - design.confidence) / max(1, len(effects))
    return [
        claim_verdict(claim, [effect for (number, _), effect in effects.items() if number == claim_number], design, level)
        for claim_number, claim in enumerate(stated)
    ]


def assess_raw_and_corrected(stated: Sequence[Claim], design: Design, corrected: Mapping[str, Draws]) -> list[dict[str, Any]]:
    """All claims assessed on raw metrics, as in the articles, and in addition on corrected ones.

    design : with the raw draws.
    """
    on_corrected = assess_claims(stated, replace(design, draws=corrected))
    return [
        {**on_raw, "corrected": {key: other[key] for key in MEASURED}}
        for on_raw, other in zip(assess_claims(stated, design), on_corrected, strict=True)
    ]


def most_powerful(assessments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of several assessments of one claim, the one that measures all parts on the most rare test messages.

    The choice looks at no verdict, so it favours none. The first one wins a tie.

    Examples
    --------
    >>> main = {"complete": True, "rare_messages": 131, "n_seeds": 3, "verdict": "inconclusive"}
    >>> study = {"complete": True, "rare_messages": 653, "n_seeds": 5, "verdict": "supported"}
    >>> most_powerful([main, study])["verdict"]
    'supported'
    """
    return dict(max(assessments, key=lambda each: (each["complete"], each["rare_messages"] or 0, each["n_seeds"] or 0)))

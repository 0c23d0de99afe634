"""Claims of the articles as differences to test, with effect, interval and verdict.

A claim is *supported* if all of its parts are shown, *contradicted* if the opposite of any part is shown, and *inconclusive*
otherwise. A part with the direction "level" is shown by an interval within the margin (Schuirmann 1987, two one-sided tests).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.comparison import MARGIN, bootstrap_p_value, holm, margin_for

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"

# Probability of the rare class for the first probe text.
PROBE = "probe.probability"

# Sources of the claims: articles on SMS spam, by what they compare.
TECHNIQUES, CONFIDENCE, RATIOS = (
    "article on techniques",
    "article on the probability of an obvious spam",
    "article on class ratios",
)

Direction = Literal["higher", "lower", "level", "not higher", "not lower"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One statement of a claim: the metric of `technique` is in `direction` relative to `reference`."""

    technique: str
    metric: str
    direction: Direction
    reference: str = "baseline"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim, its source and its parts.

    study : that measures the claim, if the main comparison does not.
    caveat : how the measurement differs from the claim.
    """

    words: str
    source: str
    parts: Sequence[Part]
    study: str | None = None
    caveat: str | None = None


def claims(rare: str, *, tuned: bool) -> list[Claim]:
    """The claims of the articles for the rare class `rare`, about entries with their default names.

    tuned : whether the parameters of focal loss were searched.
    """
    f1, recall, precision = f"{rare}.f1", f"{rare}.recall", f"{rare}.precision"
    all_metrics = ("accuracy", "macro_f1", precision, recall, f1)

    def one(words: str, *parts: Part, source: str = TECHNIQUES, caveat: str | None = None) -> Claim:
        return Claim(words=words, source=source, parts=parts, caveat=caveat)

    def part(technique: str, direction: Direction, metric: str = f1, reference: str = "baseline") -> Part:
        return Part(technique=technique, metric=metric, direction=direction, reference=reference)

    ten = f"class_weight_{rare}_10"
    return [
        one("Bias initialisation improves all metrics.", *(part("bias_init", "higher", metric) for metric in all_metrics)),
        one("Downsampling with upweighting lowers the recall of the rare class.", part("downsample_upweight", "lower", recall)),
        one("Upsampling with downweighting lowers the recall of the rare class.", part("upsample_downweight", "lower", recall)),
        one("Tuned focal loss beats the baseline.", part("focal", "higher"), caveat=None if tuned else "gamma not tuned here"),
        one("Inverse class weights beat the baseline.", part("class_weight", "higher")),
        one(
            "A weight of ten for the rare class raises its recall and lowers its precision and F1 against inverse weights.",
            part(ten, "higher", recall, "class_weight"),
            part(ten, "lower", precision, "class_weight"),
            part(ten, "lower", f1, "class_weight"),
        ),
        one("Weighting does as well as resampling.", part("class_weight", "level", f1, "upsample")),
        one("Upsampling overfits the rare class: its recall falls from training to test by more than the baseline's.",
            part("upsample", "higher", f"{rare}.recall_gap")),
        one("Downsampling loses data, and with it quality.", part("downsample", "lower")),
        one("On an obvious message, weighted and bias-initialised models are more certain than the baseline.",
            part("class_weight", "higher", PROBE), part("bias_init", "higher", PROBE), source=CONFIDENCE),
        one("On an obvious message, downsampling with upweighting and focal loss are less certain than the baseline.",
            part("downsample_upweight", "lower", PROBE), part("focal", "lower", PROBE), source=CONFIDENCE),
        Claim(words="Recall falls when training moves from balanced classes to one in ten.", source=RATIOS,
              parts=[part("ratio_10", "lower", recall, "ratio_1")], study="ratio"),
        one("One-class classification is poor where the classes are close.", part("one_class", "lower")),
        one("A simpler model suffices.", part("tfidf", "not lower")),
    ]  # fmt: skip


def nothing_helps(techniques: Sequence[str], reference: str) -> Claim:
    """The claim that no technique beats the reference in accuracy."""
    parts = [
        Part(technique=name, metric="accuracy", direction="not higher", reference=reference)
        for name in techniques
        if name != reference
    ]
    return Claim(words="When only accuracy counts, no technique helps.", source=TECHNIQUES, parts=parts)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A measured part: the difference with its interval, and the p-value of no difference."""

    part: Part
    value: float
    low: float
    high: float
    p: float
    seeds: int
    margin: float = MARGIN

    def verdict(self, confidence: float) -> str:
        """Supported if the part is shown, contradicted if its opposite is shown, otherwise inconclusive."""
        significant = self.p < 1 - confidence
        above, below = significant and self.value > 0, significant and self.value < 0
        within = self.low > -self.margin and self.high < self.margin
        shown, opposite = {
            "higher": (above, below),
            "lower": (below, above),
            "level": (within, significant and abs(self.value) > self.margin),
            "not higher": (self.high < self.margin, above and self.value > self.margin),
            "not lower": (self.low > -self.margin, below and self.value < -self.margin),
        }[self.part.direction]
        return SUPPORTED if shown else CONTRADICTED if opposite else INCONCLUSIVE


def measure_effect(part: Part, techniques: Mapping[str, Draws], confidence: float) -> Effect | None:
    """The effect of a part, or None if an entry or a metric is missing."""
    own, other = techniques.get(part.technique), techniques.get(part.reference)
    if own is None or other is None or part.metric not in own.values or part.metric not in other.values:
        return None
    differences = own.values[part.metric] - other.values[part.metric]
    value = own.point(part.metric) - other.point(part.metric)
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
    seeds = min(len(own.correct), len(other.correct))
    return Effect(
        part=part,
        value=value,
        low=float(min(low, value)),
        high=float(max(high, value)),
        p=bootstrap_p_value(differences),
        seeds=seeds,
        margin=margin_for(other.point(part.metric)),
    )


def claim_verdict(claim: Claim, effects: Sequence[Effect], confidence: float) -> dict[str, Any]:
    """A claim for JSON: effect and interval of its first part, verdict over all parts, and a note if it was not measured."""
    verdicts = [effect.verdict(confidence) for effect in effects]
    verdict = (
        CONTRADICTED
        if CONTRADICTED in verdicts
        else SUPPORTED
        if verdicts and len(verdicts) == len(claim.parts) and set(verdicts) == {SUPPORTED}
        else INCONCLUSIVE
    )
    note = None
    if not effects:
        missing = ", ".join(sorted({name for part in claim.parts for name in (part.technique, part.reference)}))
        note = f"not measured: needs {f'the study {claim.study}' if claim.study else f'the entries {missing}'}"
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
        "parts": [
            {
                "technique": effect.part.technique,
                "reference": effect.part.reference,
                "metric": effect.part.metric,
                "direction": effect.part.direction,
                "effect": effect.value,
                "low": effect.low,
                "high": effect.high,
                "p_adjusted": effect.p,
                "verdict": effect.verdict(confidence),
            }
            for effect in effects
        ],
    }


def assess_claims(stated: Sequence[Claim], techniques: Mapping[str, Draws], confidence: float) -> list[dict[str, Any]]:
    """All claims with their verdicts. P-values are adjusted over all parts of all claims (Holm)."""
    effects = {
        (claim_number, part_number): effect
        for claim_number, claim in enumerate(stated)
        for part_number, part in enumerate(claim.parts)
        if (effect := measure_effect(part, techniques, confidence)) is not None
    }
    adjusted = holm({place: effect.p for place, effect in effects.items()})
    effects = {place: replace(effect, p=adjusted[place]) for place, effect in effects.items()}
    return [
        claim_verdict(claim, [effect for (number, _), effect in effects.items() if number == claim_number], confidence)
        for claim_number, claim in enumerate(stated)
    ]


def assess_raw_and_corrected(
    stated: Sequence[Claim], raw: Mapping[str, Draws], corrected: Mapping[str, Draws], confidence: float
) -> list[dict[str, Any]]:
    """All claims assessed on raw metrics, as in the articles, and in addition on corrected ones."""
    on_corrected = assess_claims(stated, corrected, confidence)
    return [
        {**on_raw, "corrected": {key: other[key] for key in ("effect", "low", "high", "verdict", "parts")}}
        for on_raw, other in zip(assess_claims(stated, raw, confidence), on_corrected, strict=True)
    ]

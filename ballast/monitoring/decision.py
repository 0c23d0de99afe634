"""Decide what to do about a window without labels: nothing, correct the prior, retrain, or investigate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtri
from scipy.stats import binomtest

from ballast.monitoring.label_shift import Finding, ScoredMessages, findings, score_finding
from ballast.monitoring.quantification import ClassConditionals, PriorEstimate, estimate_prior, posterior_conditionals

# With fewer messages the normal approximation of means is not valid.
MINIMUM_MESSAGES = 50
# Kinds of false alarms, which share the allowed rate: a moved prior, messages that fit no prior, a drop of recall.
KINDS = 3
Decision = Literal["steady", "reprior", "retrain", "investigate", "below_floor"]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """When to act.

    confidence : of the reported interval of the prior.
    false_alarm : probability of a decision other than steady while nothing has changed.
    negligible : a smaller change of a share is ignored.
    tolerance : a larger change of a share calls for a retraining, if there are enough labels.
    minimum_labels : new labels of each class that a retraining needs.
    margin : a smaller drop of recall is ignored.
    """

    confidence: float
    false_alarm: float
    negligible: float
    tolerance: float
    minimum_labels: int
    margin: float


@dataclass(frozen=True, kw_only=True)
class RecallDrop:
    """Recall of a class by `support` labelled messages, and the expected recall on the held-out messages.

    by_queue : whether these messages are of the labelling queue; `found` is then weighted.
    """

    label: int
    expected: float
    found: float
    support: int
    by_queue: bool = False


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """Labels from production: new_labels (K,) messages that the deployed model was not trained on, and drops of recall."""

    new_labels: np.ndarray
    drops: list[RecallDrop]


@dataclass(frozen=True, kw_only=True)
class PriorShift:
    """How the class prior of a window differs from that of the deployed model.

    moved : (K,) classes whose share has moved.
    moved_by_message : (K,) the same if near duplicates counted as independent messages.
    size, largest_group : messages of the window and of its largest group of near duplicates.
    """

    estimate: PriorEstimate
    moved: np.ndarray
    moved_by_message: np.ndarray
    size: int
    largest_group: int

    @property
    def too_few(self) -> bool:
        """Whether the window has too few messages for a decision."""
        return self.size < MINIMUM_MESSAGES


@dataclass(frozen=True, kw_only=True)
class WindowDecision:
    """The decision on a window with its reasons, one sentence each.

    estimate, findings : None and empty for a window without messages.
    unexplained : names of the findings that no shift of the prior explains.
    withheld : why the quality of the decisions cannot be estimated; None if it can.
    """

    decision: Decision
    reasons: list[str]
    estimate: PriorEstimate | None
    findings: list[Finding]
    unexplained: list[str]
    withheld: str | None = None


def shifted_classes(
    estimate: PriorEstimate, prior: np.ndarray, deviation: np.ndarray, size: int, confidence: float, negligible: float
) -> np.ndarray:
    """Classes (K,) with a share that differs from a prior (K,) significantly and by more than is negligible.

    deviation : (K,) standard deviation of that prior, if it was estimated from an earlier window.
    size : messages of the window. An exact binomial test must agree, since the normal approximation fails for few messages.
    """
    quantile = ndtri((1 + confidence) / 2) * deviation
    low = estimate.prior - np.hypot(estimate.prior - estimate.low, quantile)
    high = estimate.prior + np.hypot(estimate.high - estimate.prior, quantile)
    counts = np.round(estimate.prior * size).astype(int)
    exact = [binomtest(int(count), size, share).pvalue < 1 - confidence for count, share in zip(counts, prior, strict=True)]
    return ((prior < low) | (prior > high)) & np.array(exact) & (np.abs(estimate.prior - prior) > negligible)


def prior_shift(
    window: ScoredMessages, conditionals: ClassConditionals, prior: np.ndarray, deviation: np.ndarray, policy: Policy
) -> PriorShift:
    """Compare the prior of a window with that of the deployed model (K,), which has the standard deviation (K,)."""
    groups, size = window.groups, len(window.groups)
    # Bonferroni over the shares; two classes have one.
    strict = 1 - policy.false_alarm / KINDS / (len(prior) if len(prior) > 2 else 1)

    def moved(by: np.ndarray) -> np.ndarray:
        wide = estimate_prior(window.posteriors, by, conditionals, confidence=strict)
        return shifted_classes(wide, prior, deviation, size, strict, policy.negligible)

    by_group = moved(groups) if size >= MINIMUM_MESSAGES else np.zeros(len(prior), dtype=bool)
    _, sizes = np.unique(groups, return_counts=True)
    return PriorShift(
        estimate=estimate_prior(window.posteriors, groups, conditionals, confidence=policy.confidence),
        moved=by_group,
        moved_by_message=moved(np.arange(size)) if len(sizes) < size else by_group,
        size=size,
        largest_group=int(sizes.max()),
    )


def missing_labels(feedback: Feedback, policy: Policy, labels: list[str]) -> list[str]:
    """The reason against a retraining if there are too few new labels; empty if there are enough."""
    if (feedback.new_labels >= policy.minimum_labels).all():
        return []
    counts = ", ".join(f"{count} of {name}" for name, count in zip(labels, feedback.new_labels, strict=True))
    return [f"a retraining needs {policy.minimum_labels} new labels of each class, but there are {counts}"]


def choose_decision(
    shift: PriorShift, unexplained: list[Finding], feedback: Feedback, prior: np.ndarray, policy: Policy, labels: list[str]
) -> tuple[Decision, list[str]]:
    """The decision and its reasons, given what the window and the feedback show."""
    lacking = missing_labels(feedback, policy, labels)
    if unexplained:
        return "investigate", [unexplained_by_prior(finding) for finding in unexplained]
    if not shift.too_few and not shift.moved.any() and shift.moved_by_message.any():
        template = f"{shift.largest_group} of {shift.size} messages are of one template"
        return "investigate", [f"near duplicates move the class prior: {template}"]
    if feedback.drops:
        reasons = [
            f"recall of {labels[drop.label]} on {drop.support} labelled messages{' of the queue, weighted,' * drop.by_queue}"
            f" is {drop.found:.3f}, was {drop.expected:.3f}"
            for drop in feedback.drops
        ]
        return "investigate" if lacking else "retrain", reasons + lacking
    if shift.moved.any():
        shares = zip(labels, prior, shift.estimate.prior, strict=True)
        change = ", ".join(f"{name} from {before:.3f} to {now:.3f}" for name, before, now in shares)
        if not (np.abs(shift.estimate.prior - prior)[shift.moved] > policy.tolerance).any():
            return "reprior", [f"the class prior moved ({change})"]
        moved = f"the class prior moved ({change}) by more than {policy.tolerance:g}"
        return "reprior" if lacking else "retrain", [moved, *lacking]
    if shift.too_few:
        return "steady", [f"{shift.size} messages are too few to tell; at least {MINIMUM_MESSAGES} are needed"]
    return "steady", ["the class prior does not differ significantly from that of the deployed model"]


def assess_window(
    reference: ScoredMessages,
    classes: np.ndarray,
    window: ScoredMessages,
    prior: np.ndarray,
    policy: Policy,
    *,
    labels: list[str],
    feedback: Feedback,
    deviation: np.ndarray | None = None,
) -> WindowDecision:
    """Decide what to do about a window.

    Parameters
    ----------
    reference, classes : the deployed model's labelled held-out messages and their class indices (m,); every class occurs.
    window : the same model's scores of the window.
    prior : (K,) that the deployed model is corrected to.
    labels : the K names.
    feedback : labels from production.
    deviation : (K,) standard deviation of the prior, if it was estimated from a window.
    """
    if len(window.groups) == 0:
        reason = "the window has no messages"
        return WindowDecision(
            decision="investigate", reasons=[reason], estimate=None, findings=[], unexplained=[], withheld=reason
        )
    conditionals = posterior_conditionals(reference.posteriors, classes, reference.groups)
    shift = prior_shift(window, conditionals, prior, np.zeros(len(prior)) if deviation is None else deviation, policy)
    tests = [] if shift.too_few else findings(reference, classes, window, shift.estimate.prior)
    unexplained = [test for test in tests if rejected(test, policy)]
    decision, reasons = choose_decision(shift, unexplained, feedback, prior, policy, labels)
    return WindowDecision(
        decision=decision,
        reasons=reasons,
        estimate=shift.estimate,
        findings=tests,
        unexplained=[test.name for test in unexplained],
        withheld=why_withheld(decision, reasons, shift, feedback),
    )


def why_withheld(decision: Decision, reasons: list[str], shift: PriorShift, feedback: Feedback) -> str | None:
    """Why the quality of the decisions on a window cannot be estimated without labels; None if it can.

    The estimate takes the rates of the model's decisions in each class from the held-out messages. They are the same in the
    window only under label shift.
    """
    if decision == "investigate" or feedback.drops:
        return "; ".join(reasons)
    if shift.too_few:
        return f"{shift.size} messages are too few to test for label shift; at least {MINIMUM_MESSAGES} are needed"
    return None


def rejected(finding: Finding, policy: Policy) -> bool:
    """Whether a test shows that no shift of the class prior explains a window."""
    # Half of the share of false alarms is for the scores, half for the descriptors.
    return finding.rejects(policy.false_alarm / KINDS / 2)


def misfit(reference: ScoredMessages, classes: np.ndarray, window: ScoredMessages, policy: Policy) -> str | None:
    """Why a version's scores of a window are no mixture of those of the classes; None if the test does not show it.

    reference, classes : the version's labelled held-out messages and their class indices (m,).
    """
    finding = score_finding(reference, classes, window)
    return unexplained_by_prior(finding) if rejected(finding, policy) else None


def unexplained_by_prior(finding: Finding) -> str:
    """The reason of a finding that no shift of the class prior explains."""
    return f"no shift of the class prior explains the {describe(finding)}"


def describe(finding: Finding) -> str:
    """A sentence part that describes a finding."""
    name = finding.name.replace("_", " ")
    if finding.name == "scores":
        return f"scores: those of {finding.effect:.1%} of the messages fit no mixture of the classes"
    return f"texts' {name}: its mean rank is {finding.effect:+.2f} standard deviations off"

"""What a window without labels says about the class prior, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtri
from scipy.stats import binomtest, fisher_exact

from ballast.monitoring.label_shift import Finding, ScoredMessages, findings
from ballast.monitoring.quantification import PriorEstimate, estimate_prior, posterior_conditionals

# The normal approximation of means says nothing of fewer messages.
LEAST_MESSAGES = 50
# Kinds of false alarms, which share what is allowed: the prior, what does not fit, a drop of recall.
KINDS = 3
Decision = Literal["steady", "reprior", "retrain", "investigate"]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """When to act: see `production.watch` and `production.retrain` in params.yaml."""

    confidence: float
    false_alarm: float
    negligible: float
    tolerance: float
    minimum_labels: int
    margin: float


@dataclass(frozen=True, kw_only=True)
class RecallDrop:
    """Recall of a class on labelled feedback, against that on the labelled messages of the deployed model."""

    label: int
    expected: float
    found: float
    support: int


@dataclass(frozen=True, kw_only=True)
class WindowDecision:
    """The decision with its reasons, one sentence each; estimate and findings are None and empty where there is no message.

    unexplained : the findings that no shift of the prior explains.
    """

    decision: Decision
    reasons: list[str]
    estimate: PriorEstimate | None
    findings: list[Finding]
    unexplained: list[str]


def shifted_classes(
    estimate: PriorEstimate, prior: np.ndarray, deviation: np.ndarray, size: int, confidence: float, negligible: float
) -> np.ndarray:
    """Classes (K,) whose share has moved from a prior (K,) by more than chance and more than is negligible.

    deviation : (K,) of that prior, which is itself an estimate where a window gave it.
    size : messages of the window. An exact binomial test has to agree, for the normal approximation fails for a few messages.
    """
    known = ndtri((1 + confidence) / 2) * deviation
    low = estimate.prior - np.hypot(estimate.prior - estimate.low, known)
    high = estimate.prior + np.hypot(estimate.high - estimate.prior, known)
    counts = np.round(estimate.prior * size).astype(int)
    exact = [binomtest(int(count), size, share).pvalue < 1 - confidence for count, share in zip(counts, prior, strict=True)]
    return ((prior < low) | (prior > high)) & np.array(exact) & (np.abs(estimate.prior - prior) > negligible)


def recall_drops(
    classes: np.ndarray, called: np.ndarray, fed_classes: np.ndarray, fed_called: np.ndarray, policy: Policy, count: int
) -> list[RecallDrop]:
    """The classes whose recall on labelled feedback fell by more than the margin (Fisher's exact test, Bonferroni).

    Recall does not depend on the class prior. classes, called : (m,) of the labelled messages; fed_* : (n,) of the feedback.
    """
    drops = []
    for label in range(count):
        before, now = called[classes == label] == label, fed_called[fed_classes == label] == label
        if len(now) < policy.minimum_labels or len(before) == 0:
            continue
        table = [[now.sum(), (~now).sum()], [before.sum(), (~before).sum()]]
        p = fisher_exact(table, alternative="less").pvalue
        if p < policy.false_alarm / KINDS / count and before.mean() - now.mean() > policy.margin:
            drops.append(RecallDrop(label=label, expected=float(before.mean()), found=float(now.mean()), support=len(now)))
    return drops


def assess_window(
    reference: ScoredMessages,
    classes: np.ndarray,
    window: ScoredMessages,
    prior: np.ndarray,
    policy: Policy,
    *,
    labels: list[str],
    new_labels: np.ndarray,
    drops: list[RecallDrop],
    deviation: np.ndarray | None = None,
) -> WindowDecision:
    """Decide on a window.

    Parameters
    ----------
    reference, classes : the deployed model's labelled held-out messages, (m,) class indices; every class occurs.
    window : the same model's scores of the window.
    prior : (K,) that the deployed model is corrected to.
    labels : the K names.
    new_labels : (K,) labelled messages that the deployed model was not trained with.
    drops : what labelled feedback shows.
    deviation : (K,) of the prior, where it was estimated from a window.
    """
    if len(window.groups) == 0:
        reason = "the window has no messages"
        return WindowDecision(decision="investigate", reasons=[reason], estimate=None, findings=[], unexplained=[])
    conditionals = posterior_conditionals(reference.posteriors, classes, reference.groups)
    size, known = len(window.groups), np.zeros(len(prior)) if deviation is None else deviation
    # Bonferroni over the shares; that of two classes is one.
    strict = 1 - policy.false_alarm / KINDS / (len(prior) if len(prior) > 2 else 1)
    estimate, wide = (
        estimate_prior(window.posteriors, window.groups, conditionals, confidence=each) for each in (policy.confidence, strict)
    )
    few = size < LEAST_MESSAGES
    moved = ~np.array([few] * len(prior)) & shifted_classes(wide, prior, known, size, strict, policy.negligible)
    moved_by_message = moved
    if len(np.unique(window.groups)) < size:
        by_message = estimate_prior(window.posteriors, np.arange(size), conditionals, confidence=strict)
        moved_by_message = shifted_classes(by_message, prior, known, size, strict, policy.negligible)
    found = [] if few else findings(reference, classes, window, estimate.prior)
    # Half of theirs is for the scores, half for the descriptors.
    unexplained = [each for each in found if each.rejects(policy.false_alarm / KINDS / 2)]
    enough = bool((new_labels >= policy.minimum_labels).all())
    lacking = ", ".join(f"{count} of {name}" for name, count in zip(labels, new_labels, strict=True))
    without = f"a retraining needs {policy.minimum_labels} new labels of each class, there are {lacking}"
    shift = ", ".join(
        f"{name} from {before:.3f} to {now:.3f}" for name, before, now in zip(labels, prior, estimate.prior, strict=True)
    )
    decision: Decision
    if unexplained:
        decision = "investigate"
        reasons = [f"no shift of the class prior explains the {describe(each)}" for each in unexplained]
    elif not few and not moved.any() and moved_by_message.any():
        _, sizes = np.unique(window.groups, return_counts=True)
        decision = "investigate"
        reasons = [f"near duplicates move the class prior: {sizes.max()} of {len(window.groups)} messages are of one template"]
    elif drops:
        decision = "retrain" if enough else "investigate"
        reasons = [
            f"recall of {labels[each.label]} on {each.support} labelled messages is {each.found:.3f}, was {each.expected:.3f}"
            for each in drops
        ]
        reasons += [] if enough else [without]
    elif moved.any():
        beyond = bool((np.abs(estimate.prior - prior)[moved] > policy.tolerance).any())
        decision = "retrain" if beyond and enough else "reprior"
        reasons = [f"the class prior moved ({shift})" + (f" by more than {policy.tolerance:g}" if beyond else "")]
        reasons += [without] if beyond and not enough else []
    else:
        decision = "steady"
        reasons = [
            f"{size} messages are too few to tell; {LEAST_MESSAGES} would do"
            if few
            else "the class prior is within chance of that of the deployed model"
        ]
    return WindowDecision(
        decision=decision, reasons=reasons, estimate=estimate, findings=found, unexplained=[each.name for each in unexplained]
    )


def describe(finding: Finding) -> str:
    """A finding in words."""
    name = finding.name.replace("_", " ")
    if finding.name == "scores":
        return f"scores: {finding.effect:.1%} of the messages have others than any mixture of the classes"
    return f"texts' {name}: its mean rank is {finding.effect:+.2f} standard deviations off"

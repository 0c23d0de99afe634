"""Draw the figures of docs/how_we_judge.md from simulated numbers: `python -m docs.figures` writes docs/_static/figures/*.svg.

The numbers come from the functions that the pipeline uses. The seeds are fixed, so that a figure changes only with the code.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import expit, logit, ndtr, softmax

from ballast.data.splitting import NO_FOLD, stratified_grouped_folds, stratified_grouped_test
from ballast.evaluation.bootstrap import percentile_interval, resample_counts
from ballast.evaluation.calibration import fit_calibration
from ballast.evaluation.comparison import holm
from ballast.evaluation.priors import correct_prior

FOLDER = Path(__file__).parent / "_static" / "figures"
BLUE, ORANGE, GREEN, GREY, INK = "#0a62ad", "#c2500a", "#1d7a5f", "#9aa3ae", "#1c2430"
# Text stays text, and a white ground keeps the figures readable on dark pages.
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ballast",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}


def panels(count: int, height: float = 2.9) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side."""
    figure = Figure(figsize=(8.4 if count > 1 else 6.4, height), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    return figure, list(axes)


def split() -> Figure:
    """Groups of near duplicates under a random and a grouped split."""
    rng = np.random.default_rng(3)
    sizes = [1, 1, 4, 1, 3, 1, 1, 5, 1, 2, 1, 1, 3, 1, 1, 2, 1, 4, 1, 1]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.zeros(len(groups), dtype=int)
    figure, axes = panels(2, 2.4)
    for axis, title, units in (
        (axes[0], "by message: groups are torn apart", np.arange(len(groups))),
        (axes[1], "by group: groups stay together", groups),
    ):
        seed = int(rng.integers(100))
        test = stratified_grouped_test(labels, units, 0.2, 4, seed, ["message"])
        folds = np.full(len(labels), NO_FOLD)
        folds[~test] = stratified_grouped_folds(labels[~test], units[~test], 4, seed, ["message"])
        for name, rows, colour in (("train", folds > 0, GREY), ("validation", folds == 0, ORANGE), ("test", test, BLUE)):
            height = np.concatenate([np.arange(size) for size in sizes])
            axis.scatter(groups[rows], height[rows], s=60, marker="s", color=colour, label=name)
        axis.set(title=title, xlabel="group of near duplicates", yticks=[], ylim=(-0.7, 5), xticks=[])
        axis.spines["left"].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def bootstrap() -> Figure:
    """Bootstrap distributions of recall, over messages and over groups."""
    rng = np.random.default_rng(1)
    sizes = np.r_[np.ones(70, int), rng.integers(3, 9, 12)]
    right = rng.random(len(sizes)) < np.where(sizes > 1, 0.85, 0.95)
    figure, [axis] = panels(1)
    bins = np.linspace(0.72, 1, 43)
    for name, of_unit, hits, colour in (
        ("over messages: too narrow", np.ones(sizes.sum()), np.repeat(right, sizes).astype(float), GREY),
        ("over groups", sizes.astype(float), (right * sizes).astype(float), BLUE),
    ):
        counts = np.vstack(list(resample_counts(len(of_unit), 4000, 0)))
        recall = (counts @ hits) / (counts @ of_unit)
        low, high = percentile_interval(recall, 0.95)
        axis.hist(recall, bins=bins, color=colour, alpha=0.55, label=f"{name}: 95% interval {low:.2f} to {high:.2f}")
    axis.axvline((right * sizes).sum() / sizes.sum(), ymax=0.74, color=INK, linewidth=1)
    axis.set(xlabel="recall of the rare class in a resample", ylabel="resamples", yticks=[], ylim=(0, 620))
    axis.legend(loc="upper left", fontsize=9)
    return figure


def priors() -> Figure:
    """What the correction to another prior does to a probability."""
    raw = np.linspace(0.001, 0.999, 400)
    figure, [axis] = panels(1)
    axis.plot(raw, raw, color=GREY, linewidth=1, label="no correction")
    logits = np.column_stack([np.zeros_like(raw), logit(raw)])
    for share, colour in ((0.126, BLUE), (0.01, ORANGE)):
        corrected = softmax(correct_prior(logits, np.array([0.5, 0.5]), np.array([1 - share, share])), axis=1)[:, 1]
        axis.plot(raw, corrected, color=colour, linewidth=2, label=f"trained on 50%, production {share:.1%}")
        axis.plot([0.5], [share], "o", color=colour)
    axis.annotate("a raw 0.50 becomes the share\nof the class in production", (0.5, 0.126), (0.27, 0.16), fontsize=9)
    axis.set(xlabel="raw probability of the rare class", ylabel="corrected probability", xlim=(0, 1), ylim=(0, 1))
    axis.legend(loc="upper left", fontsize=9)
    return figure


def calibration() -> Figure:
    """Reliability before and after temperature scaling."""
    rng = np.random.default_rng(5)
    true_logit = rng.normal(-2.2, 2.2, 6000)
    labels = (rng.random(6000) < expit(true_logit)).astype(int)
    logits = np.column_stack([np.zeros(6000), 2.4 * true_logit + 0.8])
    fitted = fit_calibration(logits[:3000], labels[:3000])
    figure, [axis] = panels(1)
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    for name, scores, colour in (
        ("before: too sure", logits[3000:], ORANGE),
        ("after temperature and bias", fitted.apply(logits[3000:]), BLUE),
    ):
        probability = softmax(scores, axis=1)[:, 1]
        bins = np.minimum((probability * 10).astype(int), 9)
        mean = [probability[bins == number].mean() for number in range(10)]
        share = [labels[3000:][bins == number].mean() for number in range(10)]
        axis.plot(mean, share, "o-", color=colour, label=name)
    axis.set(xlabel="mean predicted probability", ylabel="share of the class", xlim=(0, 1), ylim=(0, 1))
    axis.legend(loc="upper left", fontsize=9)
    return figure


def operating_point() -> Figure:
    """Precision, recall and F1 over the threshold, with the thresholds of four rules."""
    rng = np.random.default_rng(7)
    positive = np.r_[np.ones(600, bool), np.zeros(4200, bool)]
    drawn = expit(np.where(positive, rng.normal(2.2, 2.0, 4800), rng.normal(-4.2, 1.6, 4800)))
    order = np.argsort(drawn)
    score, positive = drawn[order], positive[order]
    hits = positive[::-1].cumsum()[::-1]
    assigned = np.arange(len(score), 0, -1)
    precision, recall = hits / assigned, hits / positive.sum()
    f1 = 2 * hits / (assigned + positive.sum())
    figure, [axis] = panels(1, 3.2)
    for name, values, colour in (("precision", precision, BLUE), ("recall", recall, ORANGE), ("F1", f1, GREEN)):
        axis.plot(score, values, color=colour, linewidth=2, label=name)
    false_alarms = (assigned - hits) / (~positive).sum()
    chosen = {
        "best F1": score[f1.argmax()],
        "precision 0.98": score[np.argmax(precision >= 0.98)],
        "budget 10 in 10,000": score[np.argmax(false_alarms <= 0.001)],
        "costs 10 to 1": 10 / 11,
    }
    for name, at in chosen.items():
        axis.axvline(at, color=GREY, linewidth=1, linestyle="--")
        axis.text(at - 0.006, 0.03, name, fontsize=9, ha="right", rotation=90)
    axis.set(xlabel="threshold on the probability of the rare class", xlim=(0, 1), ylim=(0, 1.02))
    axis.legend(loc="lower left", fontsize=9, bbox_to_anchor=(0.06, 0.2))
    return figure


def comparison() -> Figure:
    """Paired differences with intervals, and p-values beside Holm's limits."""
    names = ["focal", "lade", "upsample", "smote", "one_class"]
    value = np.array([0.008, 0.004, 0.0, -0.016, -0.055])
    deviation = np.array([0.0045, 0.005, 0.006, 0.007, 0.008])
    p = dict(zip(names, 2 * ndtr(-np.abs(value / deviation)), strict=True))
    adjusted = holm(p)
    figure, axes = panels(2, 2.8)
    rows = np.arange(len(names))[::-1]
    colours = [BLUE if adjusted[name] < 0.05 else GREY for name in names]
    axes[0].axvline(0, color=INK, linewidth=1)
    axes[0].hlines(rows, value - 1.96 * deviation, value + 1.96 * deviation, color=colours, linewidth=3)
    axes[0].scatter(value, rows, color=colours, zorder=3)
    axes[0].set(yticks=rows, yticklabels=names, xlabel="F1 minus that of the baseline", title="paired differences")
    order = sorted(names, key=lambda name: p[name])
    limits = 0.05 / np.arange(len(names), 0, -1)
    axes[1].plot(range(1, 6), limits, color=ORANGE, label="Holm's limit", marker="_", linestyle="none", markersize=22)
    axes[1].scatter(
        range(1, 6), [max(p[name], 1e-6) for name in order], color=[BLUE if adjusted[n] < 0.05 else GREY for n in order]
    )
    axes[1].axhline(0.05, color=GREY, linewidth=1, linestyle=":")
    axes[1].set(yscale="log", xticks=range(1, 6), xticklabels=order, ylabel="p-value", title="five tests at once")
    axes[1].tick_params(axis="x", labelsize=8)
    axes[1].legend(fontsize=9, loc="lower right")
    return figure


def claims() -> Figure:
    """Intervals of an effect, and the verdicts that follow for two kinds of claims."""
    cases = [
        ("higher: supported", 0.03, 0.012, BLUE),
        ("higher: inconclusive", 0.012, 0.018, GREY),
        ("higher: contradicted", -0.03, 0.014, ORANGE),
        ("level: supported", 0.002, 0.012, BLUE),
        ("level: inconclusive", 0.01, 0.022, GREY),
        ("level: contradicted", 0.045, 0.015, ORANGE),
    ]
    figure, [axis] = panels(1, 2.8)
    axis.axvspan(-0.02, 0.02, color="#e8ecf1")
    axis.axvline(0, color=INK, linewidth=1)
    for row, (_, value, half, colour) in enumerate(cases):
        axis.plot([value - half, value + half], [-row, -row], color=colour, linewidth=3)
        axis.plot([value], [-row], "o", color=colour)
    axis.text(0, 0.75, "margin of 0.02", fontsize=9, ha="center")
    axis.set(yticks=-np.arange(len(cases)), yticklabels=[case[0] for case in cases], xlabel="effect", ylim=(-5.7, 1.2))
    return figure


def label_shift() -> Figure:
    """Windows that a shift of the prior explains, and one that it does not."""
    rng = np.random.default_rng(11)
    common, rare = rng.normal(-3, 1.1, 200_000), rng.normal(2.5, 1.3, 200_000)
    grid = np.linspace(-7, 7, 57)
    of_common, of_rare = (np.histogram(scores, grid, density=True)[0] for scores in (common, rare))
    middle = (grid[1:] + grid[:-1]) / 2
    figure, axes = panels(3, 2.6)
    strange = rng.normal(-0.4, 1.2, 1000)
    for axis, title, share, window in (
        (axes[0], "13% spam: steady", 0.13, None),
        (axes[1], "40% spam: reprior", 0.40, None),
        (axes[2], "other texts: investigate", 0.33, strange),
    ):
        if window is None:
            window = np.where(rng.random(1000) < share, rng.choice(rare, 1000), rng.choice(common, 1000))
        axis.hist(window, grid, density=True, color=GREY, alpha=0.6, label="window")
        axis.plot(
            middle, (1 - share) * of_common + share * of_rare, color=BLUE, linewidth=1.6, label="best mixture of the classes"
        )
        axis.set(title=title, xlabel="log odds of spam", yticks=[])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    drawing.__name__: drawing
    for drawing in (split, bootstrap, priors, calibration, operating_point, comparison, claims, label_shift)
}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, drawing in FIGURES.items():
            drawing().savefig(FOLDER / f"{name}.svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()

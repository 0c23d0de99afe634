"""Measure what would help most: levers with an expected gain in the selection metric, an interval and a cost.

Reads the messages, the logits of the selected technique and of the baseline, the selection, the suspected label errors and the
results of studies; writes `reports/levers.json`, a list of {lever, description, metric, gain: {value, low, high} or null, cost,
in_use, measured_by, note}. A gain is an improvement, also of a loss. `measured_by` is the command that measures a lever
without a gain. Nothing is chosen on the test split: a post hoc method is chosen out of fold and measured on test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.special import ndtri

from ballast.cli import parser
from ballast.evaluation.adjustment import Adjusted, adjust
from ballast.evaluation.cross_fitting import out_of_fold
from ballast.evaluation.learning_curve import Corpus, LearningCurve, draws_of_crossed, error_of, learning_curve
from ballast.evaluation.levers import (
    ensemble_gain,
    gain_of_more_messages,
    paired_gain,
    post_hoc_gain,
    relabelling_ceiling,
    threshold_gain,
)
from ballast.evaluation.metrics import higher_is_better
from ballast.evaluation.power_law import Extrapolation, extrapolate
from ballast.evaluation.protocol import Protocol
from ballast.models.embedding import Embedder
from ballast.models.pretrained import encoder_source
from stages.store.files import read_json, write_plain_json
from stages.store.frozen_states import cached_states
from stages.store.ingested import prior_counts
from stages.store.logits import protocol_of, read_trainings
from stages.store.messages import Messages
from stages.store.params import Params, read_params
from stages.store.project import PROJECT
from stages.store.running import run
from stages.store.setting_errors import settings_from
from stages.store.studies import Result, Row, study_results
from stages.store.units import read_with_units

Lever = dict[str, Any]
Estimate = Mapping[str, float]
MORE_SEEDS = "dvc exp run -S 'train.seeds=[0,1,2]'"
OF_DECISIONS = "no threshold changes this metric"


@dataclass(frozen=True, kw_only=True)
class Context:
    """The selected technique and the baseline, with what was fitted on their out-of-fold scores, and the protocol."""

    params: Params
    messages: Messages
    protocol: Protocol
    board: Mapping[str, Any]
    selected: str
    adjusted: Mapping[str, Adjusted]

    @property
    def metric(self) -> str:
        """The metric that selects."""
        return self.params.select.metric

    @property
    def of_selected(self) -> Adjusted:
        """What was fitted for the selected technique."""
        return self.adjusted[self.selected]

    def lever(
        self,
        name: str,
        description: str,
        gain: Estimate | None,
        cost: Mapping[str, int],
        *,
        note: str | None = None,
        in_use: bool = False,
        measured_by: str | None = None,
    ) -> Lever:
        """An entry of the file."""
        return {
            "lever": name,
            "description": description,
            "metric": self.metric,
            "gain": None if gain is None else dict(gain),
            "cost": dict(cost),
            "in_use": in_use,
            "measured_by": measured_by if gain is None else None,
            "note": note,
        }


def read_context() -> Context:
    """What the levers are measured with."""
    params, board = read_params(), read_json(PROJECT.leaderboard)
    messages = read_with_units(["text"])
    selected = read_json(PROJECT.selected / "model.json")["technique"]
    trainings = {name: read_trainings(name, params.train.seeds, messages) for name in {selected, board["reference"]}}
    protocol = protocol_of(params, messages, prior_counts(read_json(PROJECT.ingest)), trainings[selected])
    adjusted = {name: adjust([training.scores for training in of.values()], protocol) for name, of in trainings.items()}
    return Context(params=params, messages=messages, protocol=protocol, board=board, selected=selected, adjusted=adjusted)


def threshold(context: Context) -> Lever:
    """The rule of the operating point instead of the most probable class."""
    gain = threshold_gain(context.of_selected, context.metric, context.protocol)
    return context.lever(
        "Threshold or cost rule",
        f"Decide by the rule {context.protocol.rule.kind} instead of the most probable class. Out of fold.",
        gain,
        {"trainings": 0},
        in_use=True,
        note=OF_DECISIONS if gain is None else None,
    )


def post_hoc(context: Context) -> Lever:
    """The best post hoc method instead of the most probable class."""
    best = post_hoc_gain(context.of_selected, context.metric, context.protocol)
    method = "" if best is None else f": {best.method.replace('_', ' ')}"
    return context.lever(
        "Post hoc correction",
        f"Correct the logits of the trained model{method}, instead of deciding by the most probable class. The method is chosen"
        " out of fold and measured on test.",
        None if best is None else best.gain,
        {"trainings": 0},
        note=OF_DECISIONS if best is None else f"It replaces the rule {context.protocol.rule.kind}; the gains do not add up.",
    )


def technique(context: Context) -> Lever:
    """The selected technique instead of the baseline."""
    selected, reference, seeds = context.selected, context.board["reference"], context.params.train.seeds
    gain, note = None, f"{reference} is the baseline, and it is selected: no technique is shown to be worth more"
    if selected != reference:
        before, after = (
            draws_of_crossed(of.crossed, of.crossed_preferences, context.metric, context.protocol)
            for of in (context.adjusted[reference], context.of_selected)
        )
        gain = paired_gain(before, after, context.metric, context.protocol)
        note = "The technique is selected on the same messages, so its gain is slightly optimistic."
    return context.lever(
        "Another technique",
        f"Train with {'another technique' if selected == reference else selected} instead of {reference}."
        " Out of fold, at the operating point.",
        gain,
        {"trainings": len(seeds)},
        in_use=selected != reference,
        note=note,
    )


def ensemble(context: Context) -> Lever:
    """The mean of the logits of all seeds."""
    seeds = context.params.train.seeds
    gain = ensemble_gain(context.of_selected, context.metric, context.protocol)
    return context.lever(
        "Average the seeds",
        f"Deploy the mean of the logits of {len(seeds)} seeds (select.deploy: ensemble) instead of one seed. Frozen layers run"
        " once for all of them. On test.",
        gain,
        {"trainings": 0} if gain is not None else {"trainings": 2},
        in_use=context.params.select.deploy == "ensemble",
        measured_by=MORE_SEEDS,
        note=None if gain is None else "These trainings count as given: other seeds may gain more or less.",
    )


def larger_encoder(context: Context, result: Result | None) -> Lever:
    """The best other encoder of the study, if it ran."""
    gain, name = None, ""
    sign = 1 if higher_is_better(context.metric) else -1
    if result is not None:
        measured = [
            (row.variant, row.differences["corrected"][context.metric])
            for row in study_rows(result, context.selected)
            if row.differences is not None and context.metric in row.differences["corrected"]
        ]
        if measured:
            name, difference = max(measured, key=lambda pair: sign * float(pair[1]["difference"]))
            ends = sorted(sign * float(difference[end]) for end in ("low", "high"))
            gain = {"value": sign * float(difference["difference"]), "low": ends[0], "high": ends[1]}
    return context.lever(
        "A larger encoder",
        f"Fine-tune {name or 'another encoder'} instead of {context.params.train.model}. Measured by the study of encoders.",
        gain,
        {"trainings": len(context.params.train.seeds)},
        measured_by="make study NAME=encoders",
        note=None if gain is None else "Decisions are the most probable class on the production prior.",
    )


def study_rows(result: Result, name: str) -> list[Row]:
    """The rows of a technique in a study, or of the first technique if it is not in the study."""
    names = {row.technique for row in result.rows}
    chosen = name if name in names else result.rows[0].technique
    return [row for row in result.rows if row.technique == chosen]


def more_labels(context: Context, curve: LearningCurve, result: Result | None) -> Lever:
    """Twice as many labelled messages, by the learning curve."""
    of_study = None if result is None else study_extrapolation(result, context)
    extrapolation = curve.extrapolation if of_study is None else of_study
    how = "heads on frozen embeddings" if of_study is None else "full trainings"
    now = "; ".join(f"{size:,.0f}: {point['value']:.3f}" for size, point in zip(curve.sizes, curve.points, strict=True))
    return context.lever(
        "Twice as many labels",
        f"Label as many messages again. The learning curve of {how} is extrapolated by a power law; the technique is assumed to"
        " lose the same share of its error.",
        gain_of_more_messages(context.of_selected, extrapolation, context.metric, context.protocol),
        {"labels": len(context.messages.table) - len(context.messages.test())},
        note=f"Heads by training messages: {now}. `make study NAME=learning_curve` measures it with full trainings.",
    )


def study_extrapolation(result: Result, context: Context) -> Extrapolation | None:
    """The extrapolated learning curve of full trainings; None if the study has fewer than three sizes of this metric."""
    metric, protocol = context.metric, context.protocol
    rows = [row for row in study_rows(result, context.selected) if metric in row.metrics["corrected"]]
    by_size = {sum(row.training.values()): row.metrics["corrected"][metric] for row in rows}
    if len(by_size) < 3:
        return None
    sizes = np.array(sorted(by_size))
    points = [by_size[size] for size in sizes.tolist()]
    width = 2 * ndtri((1 + result.confidence) / 2)
    values = np.array([point["value"] for point in points])
    deviations = np.array([(point["high"] - point["low"]) / width for point in points])
    rng = np.random.default_rng(protocol.seed)
    draws = values + deviations * rng.normal(size=(protocol.resamples, len(values)))
    return extrapolate(sizes, error_of(metric, values), error_of(metric, draws))


def measured_curve(context: Context) -> LearningCurve:
    """The learning curve of heads on frozen embeddings, in every fold outside the test split."""
    messages, settings = context.messages, context.params.train
    table = messages.table
    encoder = Embedder.from_pretrained(
        encoder_source(settings.model), settings.device, settings.max_length, settings.precision, settings.long_texts
    )
    texts = table["text"].tolist()
    encoder.cache_embeddings(texts, partial(cached_states, PROJECT.states))
    corpus = Corpus(
        features=encoder.embed(texts),
        classes=table["class"].to_numpy(),
        groups=table["group"].to_numpy(),
        names=messages.names,
    )
    folds = range(max(1, messages.n_folds))
    rows = [messages.validation(fold).index.to_numpy() for fold in folds]
    held_out = out_of_fold(rows, corpus.classes, corpus.groups)
    train: Sequence[np.ndarray] = [messages.train(fold).index.to_numpy() for fold in folds]
    return learning_curve(corpus, train, held_out, np.concatenate(rows), context.metric, context.protocol)


def relabelling(context: Context, suspects: Mapping[str, Any]) -> Lever:
    """Correct the suspected label errors; only a reader can say how many there are."""
    names, held_out = context.messages.names, context.protocol.out_of_fold
    rows = np.concatenate([context.messages.validation(seed).index.to_numpy() for seed in context.params.train.seeds])
    suggested = {int(row): names.index(label) for row, label in suspects["suggested"].items()}
    classes = np.array([suggested.get(row, label) for row, label in zip(rows.tolist(), held_out.classes, strict=True)])
    ceiling = relabelling_ceiling(context.of_selected, classes, context.metric, context.protocol)
    return context.lever(
        "Correct wrong labels",
        f"Read {suspects['count']:,} messages with a suspicious label in reports/relabel.csv and correct those that are wrong.",
        None,
        {"labels": suspects["count"]},
        measured_by="python -m stages.production.relabel reports/relabel.csv",
        note=f"At most {ceiling:+.3f} if every suspicious label were wrong. No estimate is honest before a person has read"
        " them: the suspects are the messages on which models contradict the label, whether they are right or not.",
    )


@settings_from("train")
def main() -> None:
    context = read_context()
    studies = study_results()
    levers = [
        threshold(context),
        post_hoc(context),
        technique(context),
        ensemble(context),
        larger_encoder(context, studies.get("encoders")),
        more_labels(context, measured_curve(context), studies.get("learning_curve")),
        relabelling(context, read_json(PROJECT.errors)["suspects"]),
    ]
    write_plain_json(PROJECT.levers, levers)


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())

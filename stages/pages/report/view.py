"""The HTML page `reports/index.html`."""

from __future__ import annotations

from pathlib import Path

from ballast.evaluation.bootstrap import MINIMUM_SEEDS
from stages.pages.across.sentences import threshold_sentence
from stages.pages.html import SORT, STYLE, environment, script_hash, trusted_source
from stages.pages.report.answer_view import answer
from stages.pages.report.baseline_view import against_baseline
from stages.pages.report.classes_view import class_table
from stages.pages.report.comparison_view import comparisons
from stages.pages.report.cost_view import cost_chart, review_chart
from stages.pages.report.data_view import data, drift
from stages.pages.report.errors_view import errors, perturbed
from stages.pages.report.leaderboard_view import leaderboard
from stages.pages.report.levers_view import help_most
from stages.pages.report.metrics_view import all_metrics
from stages.pages.report.operating_point_view import disagreements, operating_point
from stages.pages.report.results import Results
from stages.pages.report.search_view import search_rows
from stages.pages.report.studies_view import studies
from stages.pages.report.techniques_view import confusions, curves, majority, priors, probe
from stages.pages.report.training_view import training_curves
from stages.pages.words import natural_order

HERE = Path(__file__).parent
ACROSS = "The benchmark across data sets: techniques, thresholds and rarity. It has not been run here."
# The command that measures the levers.
LEVERS = "dvc repro levers"


def page(results: Results) -> str:
    """The whole page."""
    board, names, labels, selected = results.board, results.names, results.labels, results.selected
    script = trusted_source(SORT) + trusted_source(HERE / "report.js")
    return (
        environment(HERE)
        .get_template("report.html")
        .render(
            results=results,
            params=results.params,
            ingest=results.ingest,
            labels=labels,
            order=[index for index in natural_order(labels) if index in dict(results.panels)],
            panels=results.panels,
            classes=class_table(results),
            first=labels.index(results.rarest),
            names=names,
            roles=[results.role(name) for name in names],
            answer=answer(results),
            confidence=results.confidence,
            baseline=against_baseline(results),
            levers=help_most(results.levers, LEVERS),
            leaderboard=leaderboard(results),
            metrics=all_metrics(results),
            curves=curves(results),
            costs=cost_chart(results),
            review=review_chart(results),
            training=training_curves(results),
            encoder=results.encoder,
            confusions=confusions(results),
            probe=probe(results),
            priors=priors(results),
            minimum_seeds=MINIMUM_SEEDS,
            disagreements=disagreements(board, names, results.panels),
            operating_point=operating_point(board, results.evaluations, names, selected, results.panels),
            data=data(results),
            drift=drift(results),
            **comparisons(results),
            searched=search_rows(results.search, board.get("search", {})),
            studies=studies(results.studies, board),
            across=ACROSS if results.across is None else threshold_sentence(results.across),
            majority=majority(results),
            errors=errors(results.errors, results.texts, names, results.panels, selected["technique"]),
            perturbed=perturbed(results.probe, results.perturbations, names, labels, results.panels),
            style=trusted_source(STYLE),
            script=script,
            script_hash=script_hash(script),
        )
    )

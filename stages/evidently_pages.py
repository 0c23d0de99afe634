"""The two Evidently pages: all techniques' per-class metrics side by side, and drift of the test set from the production prior.

Evidently draws; it is given classes and probabilities only, never a text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

# Evidently reads this when it is imported: no usage statistics are sent.
os.environ.setdefault("DO_NOT_TRACK", "1")

from evidently import BinaryClassification, DataDefinition, Dataset, MulticlassClassification, Report
from evidently.core.container import MetricContainer
from evidently.legacy.renderers.html_widgets import plotly_figure, text_widget
from evidently.metrics import F1ByLabel, PrecisionByLabel, RecallByLabel, ValueDrift

PER_CLASS = {"F1": F1ByLabel, "precision": PrecisionByLabel, "recall": RecallByLabel}
IDENTIFIER = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|metric_[0-9a-f]{32}")
# Nothing may be loaded: Evidently's page carries its script, font and pictures in itself.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; font-src data:; img-src data: blob:"


class Note(MetricContainer):  # type: ignore[misc]
    """A paragraph on the page."""

    title: str
    text: str

    def generate_metrics(self, context):  # type: ignore[no-untyped-def]
        return []

    def render(self, context, child_widgets=None):  # type: ignore[no-untyped-def]
        return [text_widget(title=self.title, text=self.text)]


class SideBySide(MetricContainer):  # type: ignore[misc]
    """Evidently's per-class metrics of several classifications as heat maps beside each other."""

    classifications: list[str]
    labels: list[str]

    def generate_metrics(self, context):  # type: ignore[no-untyped-def]
        return [
            metric(classification_name=name, tests={}) for metric in PER_CLASS.values() for name in self.classifications
        ]

    def render(self, context, child_widgets=None):  # type: ignore[no-untyped-def]
        figure = make_subplots(cols=len(PER_CLASS), subplot_titles=list(PER_CLASS), shared_yaxes=True, horizontal_spacing=0.02)
        for column, metric in enumerate(PER_CLASS.values(), start=1):
            results = [
                context.get_metric_result(metric(classification_name=name, tests={})) for name in self.classifications
            ]
            values = [
                [None if (found := result.get_label_result(label)) is None else found.value for label in self.labels]
                for result in results
            ]
            figure.add_trace(
                go.Heatmap(
                    z=values,
                    x=self.labels,
                    y=self.classifications,
                    texttemplate="%{z:.3f}" if len(self.labels) < 5 else "%{z:.2f}",
                    hovertemplate="%{y}, %{x}: %{z:.4f}<extra></extra>",
                    coloraxis="coloraxis",
                    xgap=2,
                    ygap=2,
                ),
                1,
                column,
            )
        figure.update_layout(coloraxis={"colorscale": "Blues", "cmin": 0, "cmax": 1}, height=140 + 30 * len(self.classifications))
        figure.update_yaxes(type="category", autorange="reversed", automargin=True)
        figure.update_xaxes(type="category", automargin=True)
        return [plotly_figure(title="Per-class metrics, side by side", figure=figure)]


def safe_names(names: Sequence[str]) -> list[str]:
    """Names that may stand in Evidently's script tag, which it fills without escaping: no `<` and no `&`."""
    made = [name.replace("<", "‹").replace(">", "›").replace("&", "＆") for name in names]
    return made if len(set(made)) == len(names) else [f"{at}: {name}" for at, name in enumerate(made, start=1)]


def finished(html: str, title: str) -> str:
    """The page with a title, without network, and with identifiers that depend on nothing but their order."""
    order: dict[str, str] = {}

    def numbered(match: re.Match[str]) -> str:
        return order.setdefault(match[0], f"{match[0].partition('_')[0] if '_' in match[0] else 'id'}_{len(order)}")

    head = f'<head><meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{title}</title>'
    return IDENTIFIER.sub(numbered, html).replace("<head>", head, 1)


def techniques_page(labels: Sequence[str], truth: np.ndarray, predicted: Mapping[str, np.ndarray], positive: int) -> str:
    """Per-class metrics of all techniques: K label names, classes (n,) and each technique's predicted classes (n,)."""
    names = np.array(safe_names(labels), dtype=object)
    frame = pd.DataFrame({"class": names[truth]} | {f"predicted by {name}": names[each] for name, each in predicted.items()})
    columns = {name: {"target": "class", "prediction_labels": f"predicted by {name}"} for name in predicted}
    classifications = [
        BinaryClassification(name=name, pos_label=names[positive], **each)
        if len(names) == 2
        else MulticlassClassification(name=name, **each)
        for name, each in columns.items()
    ]
    data = Dataset.from_pandas(frame, DataDefinition(classification=classifications, categorical_columns=list(frame.columns)))
    note = Note(
        title="All techniques on the test set",
        text=f"Evidently's per-class metrics of {len(truth):,} test messages, posteriors corrected to the production prior, first "
        "seed, every message counted once. The report's leaderboard has the same numbers with intervals.",
    )
    report = Report([note, SideBySide(classifications=list(predicted), labels=list(names))], include_tests=False)
    return finished(report.run(data, None).get_html_str(as_iframe=False), "Ballast: techniques side by side (Evidently)")


def drift_page(
    labels: Sequence[str], current: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray], technique: str, threshold: float
) -> str:
    """Drift of test labels, predictions and probabilities from the production prior.

    Parameters
    ----------
    labels : K names.
    current, reference : each with `classes` (n,), `predicted` (n,), `probability` (n, K); the reference's classes have the
        production shares.
    technique : whose predictions they are.
    threshold : p-value below which Evidently calls it drift.
    """
    names = np.array(safe_names(labels), dtype=object)
    probabilities = {f"probability of {name}": at for at, name in enumerate(names)}

    def dataset(columns: Mapping[str, np.ndarray]) -> Dataset:
        frame = pd.DataFrame({"class": names[columns["classes"]], "predicted class": names[columns["predicted"]]})
        frame = frame.assign(**{name: columns["probability"][:, at] for name, at in probabilities.items()})
        kinds = DataDefinition(categorical_columns=["class", "predicted class"], numerical_columns=list(probabilities))
        return Dataset.from_pandas(frame, kinds)

    note = Note(
        title="Test set against the production prior",
        text=f"Reference: {len(reference['classes']):,} validation messages, drawn without replacement so that their classes have "
        f"the production shares. Current: {len(current['classes']):,} test messages. The class and the class predicted by "
        f"{technique} are compared with the production shares themselves (chi-square), its probabilities with those it gives "
        "the reference (Kolmogorov-Smirnov). The verdict of the report is its own exact binomial test.",
    )
    items = [ValueDrift(column=column, method="chisquare", threshold=threshold) for column in ("class", "predicted class")]
    items += [ValueDrift(column=column, method="ks", threshold=threshold) for column in probabilities]
    run = Report([note, *items], include_tests=False).run(dataset(current), dataset(reference))
    return finished(run.get_html_str(as_iframe=False), "Ballast: drift from the production prior (Evidently)")

"""The two Evidently pages: per-class metrics of all techniques, and drift of the test set from the production prior.

Evidently only draws. It receives classes and probabilities, never a text.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from evidently import BinaryClassification, DataDefinition, Dataset, MulticlassClassification, Report
from evidently.core.container import MetricContainer
from evidently.legacy.renderers.html_widgets import plotly_figure, table_data, text_widget
from evidently.metrics import F1ByLabel, PrecisionByLabel, RecallByLabel, ValueDrift
from plotly.subplots import make_subplots
from sklearn.exceptions import UndefinedMetricWarning

PER_CLASS = {"F1": F1ByLabel, "precision": PrecisionByLabel, "recall": RecallByLabel}
CLASSES_TOGETHER = 8
IDENTIFIER = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|metric_[0-9a-f]{32}")
# The page may load nothing: it contains its script, font and pictures.
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
    """Evidently's per-class metrics of several classifications: a heat map with a column per classification, then a table."""

    classifications: list[str]
    labels: list[str]

    def metric(self, kind: str, name: str):  # type: ignore[no-untyped-def]
        """Evidently's metric of one classification."""
        return PER_CLASS[kind](classification_name=name, tests={})

    def generate_metrics(self, context):  # type: ignore[no-untyped-def]
        return [self.metric(kind, name) for kind in PER_CLASS for name in self.classifications]

    def values(self, context, kind: str) -> pd.DataFrame:  # type: ignore[no-untyped-def]
        """One metric of all classifications: a row per class, a column per classification."""
        results = {name: context.get_metric_result(self.metric(kind, name)) for name in self.classifications}
        by_label = {name: [result.get_label_result(label) for label in self.labels] for name, result in results.items()}
        values = {name: [None if entry is None else entry.value for entry in row] for name, row in by_label.items()}
        return pd.DataFrame(values, index=self.labels, dtype=float)

    def render(self, context, child_widgets=None):  # type: ignore[no-untyped-def]
        values = {kind: self.values(context, kind) for kind in PER_CLASS}
        # Evidently gives every plot the same height. With many classes, each metric needs its own plot.
        together = [list(PER_CLASS)] if len(self.labels) <= CLASSES_TOGETHER else [[kind] for kind in PER_CLASS]
        widgets = [
            plotly_figure(title=f"{', '.join(kinds)} by class", figure=heat_map({kind: values[kind] for kind in kinds}))
            for kinds in together
        ]
        texts = {kind: table.map("{:.3f}".format) for kind, table in values.items()}
        rows = [
            [name, label, *(texts[kind].at[label, name] for kind in PER_CLASS)]
            for label in self.labels
            for name in self.classifications
        ]
        return [
            *widgets,
            table_data(title="Metrics by technique and class", column_names=["technique", "class", *PER_CLASS], data=rows),
        ]


def heat_map(values: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Metrics below each other, classes as rows, techniques as columns, on one colour scale."""
    all_values = pd.concat(values.values()).to_numpy(dtype=float)
    # The lowest tenth shares the lightest colour. Otherwise one useless technique makes all others look alike.
    lowest = np.floor(20 * np.nanquantile(all_values, 0.1)) / 20
    figure = make_subplots(rows=len(values), subplot_titles=list(values), shared_xaxes=True, vertical_spacing=0.07)
    for row, table in enumerate(values.values(), start=1):
        cells = go.Heatmap(
            z=table.to_numpy(dtype=float),
            x=list(table.columns),
            y=list(table.index),
            texttemplate="%{z:.3f}" if table.shape[1] <= 15 else "%{z:.2f}",
            hovertemplate="%{x}, %{y}: %{z:.4f}<extra></extra>",
            coloraxis="coloraxis",
            xgap=2,
            ygap=2,
        )
        figure.add_trace(cells, row, 1)
    figure.update_layout(
        coloraxis={"colorscale": "Blues", "cmin": lowest, "cmax": 1}, height=500, margin={"t": 40, "b": 10}, font={"size": 11}
    )
    figure.update_yaxes(type="category", autorange="reversed", automargin=True)
    figure.update_xaxes(type="category", automargin=True)
    return figure


def safe(text: str) -> str:
    """A text without `<` and `&`. Evidently inserts texts into a script tag without escaping them."""
    return text.replace("<", "‹").replace(">", "›").replace("&", "＆")


def safe_names(names: Sequence[str]) -> list[str]:
    """Distinct names that are safe in Evidently's script tag."""
    escaped = [safe(name) for name in names]
    distinct = len(set(escaped)) == len(names)
    return escaped if distinct else [f"{number}: {name}" for number, name in enumerate(escaped, start=1)]


def with_shares(classes: np.ndarray, shares: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of the largest sample with given class shares, drawn without replacement.

    Parameters
    ----------
    classes : (n,) classes to draw from.
    shares : (K,) class shares of the sample.
    limit : largest size of the sample.
    """
    available = np.bincount(classes, minlength=len(shares))
    occurring = shares > 0
    size = min(float(limit), float((available[occurring] / shares[occurring]).min()))
    wanted = np.clip(np.round(size * shares).astype(int), 1, available)
    drawn = [rng.choice(np.flatnonzero(classes == k), count, replace=False) for k, count in enumerate(wanted)]
    rows: np.ndarray = np.sort(np.concatenate(drawn))
    return rows


def finished(html: str, title: str) -> str:
    """The page with a title, a policy that forbids requests, and reproducible identifiers."""
    order: dict[str, str] = {}
    numbered = IDENTIFIER.sub(lambda match: order.setdefault(str(match[0]), f"identifier_{len(order)}"), html)
    head = f'<head><meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{title}</title>'
    return numbered.replace("<head>", head, 1)


def techniques_page(labels: Sequence[str], truth: np.ndarray, predicted: Mapping[str, np.ndarray], positive: int) -> str:
    """Per-class metrics of all techniques: K label names, classes (n,) and each technique's predicted classes (n,)."""
    names = np.array(safe_names(labels), dtype=object)
    frame = pd.DataFrame(
        {"class": names[truth]} | {f"predicted by {name}": names[classes] for name, classes in predicted.items()}
    )
    columns = {name: {"target": "class", "prediction_labels": f"predicted by {name}"} for name in predicted}
    classifications = [
        BinaryClassification(name=name, pos_label=names[positive], **settings)
        if len(names) == 2
        else MulticlassClassification(name=name, **settings)
        for name, settings in columns.items()
    ]
    data = Dataset.from_pandas(frame, DataDefinition(classification=classifications, categorical_columns=list(frame.columns)))
    note = Note(
        title="All techniques on the test set",
        text=f"Evidently's per-class metrics on {len(truth):,} test messages, for the first seed. Posteriors are corrected to "
        "the production prior; messages are not weighted. The leaderboard of the report has the same metrics with intervals.",
    )
    report = Report([note, SideBySide(classifications=list(predicted), labels=list(names))], include_tests=False)
    with warnings.catch_warnings():
        # As everywhere in the report, a class that a technique never predicts has precision 0.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        html = report.run(data, None).get_html_str(as_iframe=False)
    return finished(html, "Ballast: techniques side by side (Evidently)")


def drift_page(
    labels: Sequence[str],
    current: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray],
    technique: str,
    threshold: float,
) -> str:
    """Drift of test labels, predictions and probabilities from the production prior.

    Parameters
    ----------
    labels : K names.
    current, reference : each with `classes` (n,), `predicted` (n,), `probability` (n, K); the reference's classes have the
        production shares.
    technique : the technique that made the predictions.
    threshold : p-value below which Evidently reports drift.
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
        text=f"Reference: {len(reference['classes']):,} out-of-fold messages, drawn without replacement so that their classes "
        f"have the production shares. Current: {len(current['classes']):,} test messages. Chi-square tests compare the labels "
        f"and the predictions of {technique} with the reference. Kolmogorov-Smirnov tests compare its probabilities. The "
        "verdict in the report uses an exact binomial test instead.",
    )
    items = [ValueDrift(column=column, method="chisquare", threshold=threshold) for column in ("class", "predicted class")]
    items += [ValueDrift(column=column, method="ks", threshold=threshold) for column in probabilities]
    run = Report([note, *items], include_tests=False).run(dataset(current), dataset(reference))
    return finished(run.get_html_str(as_iframe=False), "Ballast: drift from the production prior (Evidently)")

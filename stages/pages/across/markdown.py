"""The chapter *Which technique helps when* of the manual, from the result of the benchmark across data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stages.pages.across.sentences import about, p_in_words, sentences
from stages.pages.across.view import FAMILY_TITLES, METRIC_TITLES, table_rows
from stages.pages.words import metric_name, number, percent, signed
from stages.store.across_data_sets import Across

NOT_RUN = (
    "**The benchmark has not been run yet:** this repository has no `studies/results/datasets.json`. To run it:"
    " `make study NAME=datasets`."
)
# What the chapter shows; the page has all metrics.
SHOWN = (("rare_f1", "operating_point"), ("rare_f1", "corrected"), ("macro_f1", "operating_point"))
MARKS = {"better": "✓ ", "worse": "✗ ", "equivalent": "= ", "not shown": ""}


def cell_text(text: object) -> str:
    """Text in a cell of a Markdown table, without markup.

    >>> cell_text("a < b")
    'a &lt; b'
    """
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(map(cell_text, row))} |" for row in (head, ["---"] * len(head), *rows)] + [""]


def chapter(across: Across | None) -> str:
    """The generated part of the chapter."""
    if across is None:
        return NOT_RUN
    counted = about(across)
    lines = [
        *(f"{at}. {sentence}" for at, sentence in enumerate(sentences(across), start=1)),
        "",
        f"{counted['data_sets']} data sets, {counted['entries']} entries, {counted['seeds']} seeds, {counted['trainings']}"
        f" trainings. {counted['tuned']}",
        "",
        "### The data sets",
        "",
        *data_sets(across),
    ]
    for metric, family in SHOWN:
        title = f"{METRIC_TITLES[metric]}, {FAMILY_TITLES[family]}"
        lines += [
            f"### {title[0].upper()}{title[1:]}",
            "",
            *differences(across, metric, family),
            *ranks(across, metric, family),
        ]
    lines += ["### What others report", "", *published(across)]
    if across.missing:
        lines += [f"Missing: {', '.join(across.missing)}.", ""]
    return "\n".join(lines).rstrip()


def data_sets(across: Across) -> list[str]:
    """A row for each data set."""
    head = [
        "data set",
        "classes",
        "rarest class",
        "training messages, rare",
        "learning rate",
        "baseline F1",
        "a threshold gains",
        "selected",
    ]
    rows = []
    for name, result in across.data_sets.items():
        baseline = result["entries"][across.reference]["values"]["operating_point"]["rare_f1"]
        rows.append(
            [
                name,
                result["classes"],
                f"{result['rarest']}, {percent(result['share'])}",
                f"{result['train']['messages']:,}, {result['train']['rare']:,}",
                f"{result['encoder']['learning_rate']:g}",
                f"{baseline['value']:.3f} [{baseline['low']:.3f}, {baseline['high']:.3f}]",
                change(result["threshold"]["rare_f1"]),
                result["chosen"]["technique"] or "none",
            ]
        )
    return table(head, rows)


def change(compared: Mapping[str, Any] | None) -> str:
    """A difference with a mark for its verdict."""
    return "–" if compared is None else f"{MARKS[compared['verdict']]}{signed(compared['difference'])}"


def differences(across: Across, metric: str, family: str) -> list[str]:
    """Differences from the baseline, a row for each entry; ✓ better, ✗ worse, = equivalent, no mark: not shown."""
    rows = [
        [row["name"], *map(change, row["cells"]), row["counts"]["better"], row["counts"]["worse"]]
        for row in table_rows(across, family, metric)
    ]
    return table(["entry", *across.data_sets, "better", "worse"], rows)


def ranks(across: Across, metric: str, family: str) -> list[str]:
    """The mean ranks in a sentence."""
    found = across.ranks[family].get(metric)
    if found is None:
        return ["Ranks need two data sets and three entries that all of them have.", ""]
    order = ", ".join(f"{name} {found['mean_ranks'][name]:.1f}" for name in found["order"])
    different = [name for name, p in found["against_reference"].items() if p < 1 - across.confidence]
    shown = ", ".join(different) if different else "no entry"
    return [
        f"Mean ranks: {order}. Friedman's test: {p_in_words(found['friedman']['p_f'])}; critical difference"
        f" {found['critical_difference']:.1f} (Nemenyi). In rank, {shown} differs from {across.reference} (Holm).",
        "",
    ]


def published(across: Across) -> list[str]:
    """The figures of others beside the baseline's; the protocols differ where the note says so."""
    rows = []
    for figure in across.published:
        result = across.data_sets.get(figure["data_set"])
        values = result["entries"][across.reference]["values"]["raw"] if result else {}
        ours = values.get(figure["metric"] or "")
        rows.append(
            [
                figure["data_set"],
                f"{figure['source']}, {figure['address']}",
                figure["model"],
                "–" if figure["metric"] is None else metric_name(figure["metric"]),
                number(figure["value"]),
                "–" if ours is None else number(ours["value"]),
                figure["note"],
            ]
        )
    ours = f"{across.reference} at the most probable class"
    return table(["data set", "source", "model", "metric", "reported", ours, "note"], rows)

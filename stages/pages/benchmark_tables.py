"""Results of the benchmarks, `benchmarks/*.json`, as tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from stages.pages.words import metric_name
from stages.store.files import read_json

FOLDER = Path("benchmarks")


def watch_table(benchmark: dict[str, Any]) -> str:
    """Results of the simulations of the watch as a Markdown table."""
    steady, rarest = benchmark["steady_prior"], min(benchmark["labelled"], key=benchmark["labelled"].get)
    rows = [(f"steady, {row['n']:,} messages", row) for row in benchmark["false_alarms"]]
    rows += [(f"{row['prior']:.0%} {rarest}, {row['n']:,} messages", row) for row in benchmark["power"]]
    lines = [
        f"| simulated windows, deployed prior {steady:.1%} {rarest} | share with a decision other than *steady* |"
        " Evidently's default test | a test of predicted counts |",
        "|---|---|---|---|",
        *(f"| {name} | {row['watch']:.1%} | {row['evidently']:.1%} | {row['counting']:.1%} |" for name, row in rows),
    ]
    return "\n".join([*lines, "", simulation_text(benchmark)])


def simulation_text(benchmark: dict[str, Any]) -> str:
    """How the watch was simulated, the coverage of its intervals and its decisions on another kind of text."""
    coverage = {method: [row[method] for row in benchmark["coverage"]] for method in ("watch", "bootstrap")}
    ranges = {method: f"{min(shares):.1%} to {max(shares):.1%}" for method, shares in coverage.items()}
    priors = [row["prior"] for row in benchmark["coverage"]]
    other_text = next(row for row in benchmark["another_kind"] if row["share"] == 1)
    labelled = " and ".join(f"{count:,} {label}" for label, count in benchmark["labelled"].items())
    return (
        f"{benchmark['windows']:,} simulated windows of each kind ({benchmark['evidently_windows']:,} for Evidently). Every"
        f" simulation draws new labelled messages, {labelled}. The model is `{benchmark['technique']}`. The 95% interval covers"
        f" the true share in {ranges['watch']} of {benchmark['repeats']:,} simulations, for shares of {min(priors):.0%} to"
        f" {max(priors):.0%} and 500 to 5,000 messages. A plain bootstrap covers it in {ranges['bootstrap']}. For windows of"
        f" another kind of text (a programming manual), the decision is *investigate* in"
        f" {other_text.get('investigate', 0):.0%}."
    )


def counts_table(benchmark: dict[str, Any]) -> str:
    """Counts of a benchmark as a Markdown table."""
    lines = ["| counted | |", "|---|---|", *(f"| {name} | {count:,} |" for name, count in benchmark["counts"].items())]
    return "\n".join([*lines, "", repeated_by(benchmark)])


def counts_by(rows: str, title: str, first: str, benchmark: dict[str, Any]) -> str:
    """Counts of a benchmark by row and in all as a Markdown table.

    rows : the key of the benchmark that holds the counts by row, such as "commands".
    title : of the column with the names of the rows.
    first : the count in the first column; the others are in the order of the file.
    """
    counts = {**benchmark[rows], "all": benchmark["counts"]}
    columns = [first, *(column for column in benchmark["counts"] if column != first)]
    lines = [f"| {title} | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    lines += [f"| {name} | {' | '.join(f'{row[column]:,}' for column in columns)} |" for name, row in counts.items()]
    return "\n".join([*lines, "", repeated_by(benchmark)])


def repeated_by(benchmark: dict[str, Any]) -> str:
    """The command that repeats a benchmark, and where and when it ran."""
    return f"`{benchmark['command']}` ({benchmark['device']}, {benchmark['date']})"


def frozen_layers_table(benchmark: dict[str, Any]) -> str:
    """Learning rate, macro F1, log loss and processor time by data set and number of frozen layers, as a Markdown table."""
    lines = [
        "| data set | frozen layers | learning rate | macro F1 | log loss | processor seconds of a training |",
        "|---|---|---|---|---|---|",
    ]
    for name, by_layers in benchmark["summary"].items():
        for layers, row in by_layers.items():
            measured = f"{row['macro_f1']:.3f} | {row['log_loss']:.3f} | {row['processor_seconds']:.0f}"
            lines.append(f"| {name} | {layers} | {row['learning_rate']:g} | {measured} |")
    seeds = {row["seeds"] for by_layers in benchmark["summary"].values() for row in by_layers.values()}
    note = f"Means of {min(seeds)} trainings of the baseline, each on its validation fold. `{benchmark['command']}`"
    return "\n".join([*lines, "", f"{note} ({benchmark['device']}, {benchmark['date']})."])


def labelling_table(benchmark: dict[str, Any]) -> str:
    """Bias, coverage and width of the interval of recall by share of the rare class, as a Markdown table."""
    lines = [
        "| rare class | labels | simulations | bias of recall | coverage of recall | width of its interval | at random |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in benchmark["settings"].items():
        queue, random = row["queue.recall"], row["random.recall"]
        # Without the sign of a negative zero.
        bias = round(queue["bias"], 3) + 0.0
        measured = f"{bias:.1%} | {queue['coverage']:.0%} | {queue['width']:.2f} | {random['width']:.2f}"
        lines.append(f"| {name} | {row['labels']:,} | {row['repeats']:,} | {measured} |")
    return "\n".join(lines)


def streams_table(benchmark: dict[str, Any]) -> str:
    """Members of the rare class among 100 labels by data set and choice of messages, as a Markdown table."""
    choices = {"queue": "queue", "random": "random", "uncertainty": "most uncertain"}
    ends = ", ".join(choices.values())
    lines = [
        f"| data set | rare class | {' | '.join(choices.values())} | average precision: {ends} |",
        "|---|---|---|---|---|---|",
    ]
    data_sets = {name: row for name, row in benchmark["streams"].items() if isinstance(row, dict)}
    for name, row in data_sets.items():
        rows = [row[choice] for choice in choices]
        found = [f"{each['found_per_100_labels']:.1f} ± {each['found_per_100_labels_deviation']:.1f}" for each in rows]
        last = ", ".join(f"{each['average_precision'][-1]:.2f}" for each in rows)
        lines.append(f"| {name} | {row['share']:.1%} | {' | '.join(found)} | {last} |")
    return "\n".join(lines)


def estimated_performance_table(benchmark: dict[str, Any]) -> str:
    """Coverage and error of the estimated performance beside CBPE's error, as a Markdown table."""
    columns = {
        "error": "error where the prior moved",
        "error_of_cbpe": "error of CBPE",
        "error_of_all_labels": "error of all labels",
        "error_of_exact_rates": "error of exact rates",
    }
    lines = [
        f"| population | metric | coverage | lowest and highest of a cell | {' | '.join(columns.values())} |",
        "|---" * (4 + len(columns)) + "|",
    ]
    for population, metrics in benchmark["summary"].items():
        for name, row in metrics.items():
            errors = [f"{row[key]:.3f}" if key in row else "–" for key in columns]
            covered = f"{row['coverage']:.1%} | {row['lowest']:.0%}, {row['highest']:.0%}"
            lines.append(f"| {population} | {metric_name(name)} | {covered} | {' | '.join(errors)} |")
    note = f"{benchmark['draws']} windows a cell, {benchmark['peer_draws']} of them for CBPE; 95% intervals"
    return "\n".join([*lines, "", f"{note}. `python -m benchmarks.estimated_performance` ({benchmark['where']['date']})."])


# Blocks with the results of a benchmark: the name of its file, and what makes the block.
BENCHMARKS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "watch": ("class_prior", watch_table),
    "frozen_layers": ("frozen_layers", frozen_layers_table),
    "labelling": ("labelling", labelling_table),
    "streams": ("labelling", streams_table),
    "estimated_performance": ("estimated_performance", estimated_performance_table),
    "kills": ("kills", partial(counts_by, "commands", "killed command", "kills")),
    "flips": ("flips", counts_table),
    "inputs": ("bad_inputs", partial(counts_by, "kinds", "kind", "tried")),
}


def benchmark_tables() -> dict[str, str]:
    """The content of the blocks of benchmarks, for the results that exist."""
    paths = {name: (FOLDER / f"{stem}.json", table) for name, (stem, table) in BENCHMARKS.items()}
    return {name: table(read_json(path)) for name, (path, table) in paths.items() if path.exists()}

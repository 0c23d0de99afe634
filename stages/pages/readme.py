"""Fill the marked blocks of README.md, SECURITY.md and the manual from the leaderboard and `benchmarks/*.json`; take pictures.

This module is not a stage of the graph. Run it with `make readme` after a run, a replay or a benchmark.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ballast.cli import parser, run
from stages.pages.across.markdown import chapter
from stages.pages.browsers import installed_browser
from stages.pages.words import magnitude, metric_name, signed
from stages.store.across_data_sets import read_across
from stages.store.files import read_json, replaced
from stages.store.leaderboard import read_leaderboard
from stages.store.project import PROJECT

README = Path("README.md")
# The Markdown files with marked blocks. A block may be in any of them.
MARKDOWN = (
    README,
    Path("SECURITY.md"),
    Path("docs/tutorial.md"),
    Path("docs/how_we_judge.md"),
    Path("docs/which_technique_helps_when.md"),
    Path("docs/guides/own_encoder.md"),
    Path("docs/guides/labelling.md"),
)
PICTURES = {
    PROJECT.reports / "index.html": PROJECT.reports / "screenshot.png",
    PROJECT.watch / "index.html": PROJECT.reports / "time_line.png",
}
CLASS_PRIOR = Path("benchmarks/class_prior.json")
BENCHMARKS_FOLDER = Path("benchmarks")
# No line break within an interval, however narrow the column.
INTERVAL = "{value:.3f} [{low:.3f},\N{NO-BREAK SPACE}{high:.3f}]"
BLOCK = re.compile(
    r"(?P<begin><!-- (?P<name>\w+): made by `?make readme`? -->)\n.*?(?P<end><!-- end of (?P=name) -->)", re.DOTALL
)


def rarest_label(board: dict[str, Any]) -> str:
    """The label with the smallest share in production."""
    prior: dict[str, float] = board["production_prior"]
    return min(prior, key=lambda label: prior[label])


def best_first(board: dict[str, Any]) -> list[str]:
    """Names of the techniques, by decreasing out-of-fold F1 of the rarest class at the operating point."""
    key, techniques = f"{rarest_label(board)}.f1", board["techniques"]
    return sorted(techniques, key=lambda name: -techniques[name]["out_of_fold"][key]["value"])


def f1_cells(entry: Mapping[str, Any], rarest: str) -> str:
    """F1 of the rarest class at the operating point, out of fold and on test, and precision and recall on test, as cells."""
    test = entry["operating_point"]
    f1 = [INTERVAL.format(**family[f"{rarest}.f1"]) for family in (entry["out_of_fold"], test)]
    rates = [f"{test[f'{rarest}.{metric}']['value']:.3f}" for metric in ("precision", "recall")]
    return " | ".join([*f1, *rates])


def verdict_cell(entry: Mapping[str, Any], rarest: str) -> str:
    """The verdict on F1 of the rarest class against the reference, with the difference."""
    if entry["comparison"] is None:
        return "reference"
    compared = entry["comparison"]["operating_point"]["metrics"][f"{rarest}.f1"]
    return f"{compared['verdict']} ({signed(compared['difference'])})"


def results_table(board: dict[str, Any]) -> str:
    """Results of the five best techniques, the reference and the two smallest models as a Markdown table."""
    ranked, techniques = best_first(board), board["techniques"]
    smallest = sorted(ranked, key=lambda name: techniques[name]["parameters"])[:2]
    rarest, reference = rarest_label(board), board["reference"]
    lines = [
        f"| technique | {rarest} F1, out of fold [95% interval] | {rarest} F1, test [95% interval] | precision | recall |"
        f" against {reference} | parameters |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in [name for name in ranked if name in {*ranked[:5], reference, *smallest}]:
        entry = techniques[name]
        cells = f"{f1_cells(entry, rarest)} | {verdict_cell(entry, rarest)}"
        lines.append(f"| {name} | {cells} | {magnitude(entry['parameters'])} |")
    return "\n".join([*lines, "", conditions(board)])


def conditions(board: dict[str, Any]) -> str:
    """The data behind a table of results, in words."""
    rarest, techniques = rarest_label(board), board["techniques"]
    n_seeds = len({seed for entry in techniques.values() for seed in entry["seeds"]})
    support = techniques[board["reference"]]["raw"][f"{rarest}.support"]["value"]
    return (
        f"Decisions at the operating points, on a production prior of {board['production_prior'][rarest]:.1%} {rarest}."
        f" {n_seeds} seed{'s' if n_seeds > 1 else ''}, {support:.0f} {rarest} messages in the test split."
        " Precision and recall are those on test."
    )


def leaderboard_table(board: dict[str, Any]) -> str:
    """The results of all techniques as a Markdown table."""
    rarest, reference = rarest_label(board), board["reference"]
    lines = [
        f"| technique | {rarest} F1, out of fold [95% interval] | {rarest} F1, test [95% interval] | precision | recall |"
        f" against {reference} | PR AUC | log loss | prior declared → fitted | parameters |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in best_first(board):
        entry = board["techniques"][name]
        others = " | ".join(f"{entry['corrected'][key]['value']:.3f}" for key in (f"{rarest}.pr_auc", "log_loss"))
        declared = "–" if entry["declared_prior"] is None else f"{entry['declared_prior'][rarest]:.3f}"
        priors = f"{declared}\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}{entry['fitted_prior'][rarest]['value']:.3f}"
        cells = f"{f1_cells(entry, rarest)} | {verdict_cell(entry, rarest)} | {others} | {priors}"
        lines.append(f"| {name} | {cells} | {magnitude(entry['parameters'])} |")
    return "\n".join([*lines, "", conditions(board)])


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
    """Counts of a benchmark as a Markdown table, with the command that repeats it."""
    counts = {name: count for name, count in (benchmark.get("counts") or benchmark).items() if type(count) is int}
    where = ", ".join(str(benchmark[key]) for key in ("device", "date") if key in benchmark)
    lines = ["| counted | |", "|---|---|", *(f"| {name} | {count:,} |" for name, count in counts.items())]
    return "\n".join([*lines, "", f"`{benchmark['command']}`" + (f" ({where})" if where else "")])


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
    "frozen_layers": ("frozen_layers", frozen_layers_table),
    "labelling": ("labelling", labelling_table),
    "streams": ("labelling", streams_table),
    "estimated_performance": ("estimated_performance", estimated_performance_table),
    "kills": ("kills", counts_table),
    "flips": ("flips", counts_table),
    "inputs": ("bad_inputs", counts_table),
}


def tables() -> dict[str, str]:
    """The content of each marked block, for the results that exist."""
    board = read_leaderboard()
    made = {
        "results": results_table(board),
        "leaderboard": leaderboard_table(board),
        "watch": watch_table(read_json(CLASS_PRIOR)),
        "datasets": chapter(read_across()),
    }
    for name, (stem, table) in BENCHMARKS.items():
        path = BENCHMARKS_FOLDER / f"{stem}.json"
        if path.exists():
            made[name] = table(read_json(path))
    return made


def filled(text: str, content: Mapping[str, str]) -> str:
    """Markdown with new content in its marked blocks. A block without new content is unchanged."""

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        return f"{match['begin']}\n{content[name]}\n{match['end']}" if name in content else match[0]

    return BLOCK.sub(block, text)


def take_picture(page: Path, picture: Path) -> None:
    """Screenshot of a page's first screen at 1280 x 800."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=installed_browser(), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        tab.goto(page.resolve().as_uri())
        with replaced(picture) as temporary:
            tab.screenshot(path=temporary, type="png")
        browser.close()


def main() -> None:
    content = tables()
    for page, picture in PICTURES.items():
        if page.exists():
            take_picture(page, picture)
        else:
            print(f"{page} does not exist; {picture} is unchanged", file=sys.stderr)
    for path in MARKDOWN:
        if path.exists():
            text = filled(path.read_text(encoding="utf-8"), content)
            with replaced(path) as temporary:
                temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())

"""Fill the marked blocks of README.md, SECURITY.md and the manual from the leaderboard and `benchmarks/*.json`; take pictures.

This module is not a stage of the graph. Run it with `make readme` after a run, a replay or a benchmark.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ballast.cli import parser, run
from stages.pages.across.markdown import chapter
from stages.pages.benchmark_tables import benchmark_tables
from stages.pages.browsers import installed_browser
from stages.pages.words import magnitude, signed
from stages.store.across_data_sets import read_across
from stages.store.files import replaced
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


def tables() -> dict[str, str]:
    """The content of each marked block, for the results that exist."""
    board = read_leaderboard()
    return {
        "results": results_table(board),
        "leaderboard": leaderboard_table(board),
        "datasets": chapter(read_across()),
        **benchmark_tables(),
    }


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

"""Fill the marked blocks of README.md, SECURITY.md and the manual from the leaderboard and `benchmarks/*.json`; take pictures.

This module is not a stage of the graph. Run it with `make readme` after a run, a replay or a benchmark.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ballast.cli import parser, run
from stages.store.files import read_json, replaced
from stages.store.project import PROJECT

README = Path("README.md")
# Every Markdown file that may have marked blocks; a block may stand in any of them.
MARKDOWN = (README, Path("SECURITY.md"), Path("docs/tutorial.md"), Path("docs/how_we_judge.md"))
PICTURES = {
    PROJECT.reports / "index.html": PROJECT.reports / "screenshot.png",
    PROJECT.watch / "index.html": PROJECT.reports / "time_line.png",
}
CLASS_PRIOR = Path("benchmarks/class_prior.json")
BENCHMARKS_FOLDER = Path("benchmarks")
BLOCK = re.compile(
    r"(?P<begin><!-- (?P<name>\w+): made by `?make readme`? -->)\n.*?(?P<end><!-- end of (?P=name) -->)", re.DOTALL
)
# Blocks that count what was tried, and their files.
TRIED = {"kills": "kills", "flips": "flips", "inputs": "bad_inputs"}
BROWSERS = ("chromium", "google-chrome", "chromium-browser")


def rarest_label(board: dict[str, Any]) -> str:
    """The label with the smallest share in production."""
    prior: dict[str, float] = board["production_prior"]
    return min(prior, key=lambda label: prior[label])


def best_first(board: dict[str, Any]) -> list[str]:
    """Names of the techniques, by decreasing corrected F1 of the rarest class."""
    key, techniques = f"{rarest_label(board)}.f1", board["techniques"]
    return sorted(techniques, key=lambda name: -techniques[name]["corrected"][key]["value"])


def results_table(board: dict[str, Any]) -> str:
    """Corrected test metrics as a Markdown table: the five best techniques, the reference and the two smallest models."""
    ranked, techniques = best_first(board), board["techniques"]
    smallest = sorted(ranked, key=lambda name: techniques[name]["parameters"])[:2]
    rarest = rarest_label(board)
    lines = [f"| technique | {rarest} F1 [95% interval] | precision | recall | weights |", "|---|---|---|---|---|"]
    for name in [name for name in ranked if name in {*ranked[:5], board["reference"], *smallest}]:
        metrics = techniques[name]["corrected"]
        f1 = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**metrics[f"{rarest}.f1"])
        precision, recall = (f"{metrics[f'{rarest}.{metric}']['value']:.3f}" for metric in ("precision", "recall"))
        lines.append(f"| {name} | {f1} | {precision} | {recall} | {techniques[name]['parameters']:,} |")
    return "\n".join([*lines, "", conditions(board)])


def conditions(board: dict[str, Any]) -> str:
    """One sentence about the data behind a table of results."""
    rarest, techniques = rarest_label(board), board["techniques"]
    n_seeds = len({seed for entry in techniques.values() for seed in entry["seeds"]})
    support = techniques[board["reference"]]["raw"][f"{rarest}.support"]["value"]
    return (
        f"{n_seeds} seed{'s' if n_seeds > 1 else ''}, {support:.0f} {rarest} messages in the test split, probabilities"
        f" corrected to a production prior of {board['production_prior'][rarest]:.1%} {rarest}."
    )


def leaderboard_table(board: dict[str, Any]) -> str:
    """The corrected test metrics of all techniques as a Markdown table."""
    rarest = rarest_label(board)
    lines = [
        f"| technique | {rarest} F1 [interval] | precision | recall | PR AUC | log loss | prior declared → fitted | weights |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in best_first(board):
        entry = board["techniques"][name]
        metrics = entry["corrected"]
        f1 = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**metrics[f"{rarest}.f1"])
        keys = [f"{rarest}.precision", f"{rarest}.recall", f"{rarest}.pr_auc", "log_loss"]
        others = " | ".join(f"{metrics[key]['value']:.3f}" for key in keys)
        declared = "–" if entry["declared_prior"] is None else f"{entry['declared_prior'][rarest]:.3f}"
        fitted = "unknown" if entry["safe"] is None else f"{entry['fitted_prior'][rarest]['value']:.3f}"
        lines.append(f"| {name} | {f1} | {others} | {declared} → {fitted} | {entry['parameters']:,} |")
    return "\n".join([*lines, "", conditions(board)])


def watch_table(found: dict[str, Any]) -> str:
    """What the simulations of the watch found, as a Markdown table."""
    steady, rare = found["steady_prior"], min(found["labelled"], key=found["labelled"].get)
    lines = [
        f"| simulated windows, deployed prior {steady:.1%} {rare} | share with a decision other than *steady* |"
        " Evidently's default test | a test of predicted counts |",
        "|---|---|---|---|",
    ]
    named = [(f"steady, {each['n']:,} messages", each) for each in found["false_alarms"]]
    named += [(f"{each['prior']:.0%} {rare}, {each['n']:,} messages", each) for each in found["power"]]
    lines += [f"| {name} | {each['watch']:.1%} | {each['evidently']:.1%} | {each['counting']:.1%} |" for name, each in named]
    ends = {kind: [each[kind] for each in found["coverage"]] for kind in ("watch", "bootstrap")}
    of = {kind: f"{min(each):.1%} to {max(each):.1%}" for kind, each in ends.items()}
    priors = [each["prior"] for each in found["coverage"]]
    other = next(each for each in found["another_kind"] if each["share"] == 1)
    labelled = " and ".join(f"{count:,} {label}" for label, count in found["labelled"].items())
    lines += [
        "",
        f"{found['windows']:,} simulated windows of each kind ({found['evidently_windows']:,} for Evidently). Every simulation"
        f" draws {labelled} labelled messages anew. The model is `{found['technique']}`. The 95% interval covers the true share"
        f" in {of['watch']} of {found['repeats']:,} simulations, for shares of {min(priors):.0%} to {max(priors):.0%} and 500"
        f" to 5,000 messages. A plain bootstrap covers it in {of['bootstrap']}. For windows of another kind of text (a"
        f" programming manual), the decision is *investigate* in {other.get('investigate', 0):.0%}.",
    ]
    return "\n".join(lines)


def counts_table(found: dict[str, Any]) -> str:
    """What was tried and counted, with the command that repeats it, as Markdown."""
    counts = {name: count for name, count in (found.get("counts") or found).items() if type(count) is int}
    where = ", ".join(str(found[key]) for key in ("device", "date") if key in found)
    lines = ["| counted | |", "|---|---|", *(f"| {name} | {count:,} |" for name, count in counts.items())]
    return "\n".join([*lines, "", f"`{found['command']}`" + (f" ({where})" if where else "")])


def tables() -> dict[str, str]:
    """The content of each marked block, for the results that exist."""
    board = read_json(PROJECT.leaderboard)
    tried = {name: BENCHMARKS_FOLDER / f"{stem}.json" for name, stem in TRIED.items()}
    return {
        "results": results_table(board),
        "leaderboard": leaderboard_table(board),
        "watch": watch_table(read_json(CLASS_PRIOR)),
    } | {name: counts_table(read_json(path)) for name, path in tried.items() if path.exists()}


def filled(text: str, content: Mapping[str, str]) -> str:
    """Markdown with new content in its marked blocks; a block without content stays as it is."""

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        return f"{match['begin']}\n{content[name]}\n{match['end']}" if name in content else match[0]

    return BLOCK.sub(block, text)


def take_picture(page: Path, picture: Path) -> None:
    """Screenshot of a page's first screen at 1280 x 800."""
    from playwright.sync_api import sync_playwright

    executable = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
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

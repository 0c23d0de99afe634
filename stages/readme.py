"""Put the results of the last run into README.md: the table from `reports/leaderboard.json`, a picture of the report.

Not a stage of the graph: run it with `make readme` after a run whose results are worth showing.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ballast.command import parser, run
from ballast.errors import UserError
from stages.files import LEADERBOARD, REPORTS, read_json, replaced

README = Path("README.md")
PICTURE = REPORTS / "screenshot.png"
BEGIN, END = "<!-- results: made by `make readme` -->", "<!-- end of results -->"
BROWSERS = ("chromium", "google-chrome", "chromium-browser")


def results_table(board: dict[str, Any]) -> str:
    """The leaderboard's corrected numbers of the rarest class as a Markdown table, best F1 first."""
    prior = board["production_prior"]
    rarest = min(prior, key=prior.get)
    seeds = sorted({seed for each in board["techniques"].values() for seed in each["seeds"]})
    ranked = sorted(board["techniques"].items(), key=lambda item: -item[1]["corrected"][f"{rarest}.f1"]["value"])
    lines = [
        f"| technique | {rarest} F1 [interval] | precision | recall | PR AUC | log loss | prior declared → fitted | weights |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, each in ranked:
        metrics = each["corrected"]
        f1 = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**metrics[f"{rarest}.f1"])
        keys = [f"{rarest}.precision", f"{rarest}.recall", f"{rarest}.pr_auc", "log_loss"]
        others = [f"{metrics[key]['value']:.3f}" for key in keys]
        declared = "–" if each["declared_prior"] is None else f"{each['declared_prior'][rarest]:.3f}"
        fitted = "unknown" if each["safe"] is None else f"{each['fitted_prior'][rarest]['value']:.3f}"
        lines.append(f"| {name} | {f1} | {' | '.join(others)} | {declared} → {fitted} | {each['parameters']:,} |")
    support = next(iter(board["techniques"].values()))["raw"][f"{rarest}.support"]["value"]
    seed_words = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    lines += [
        "",
        f"{seed_words}, {support:.0f} {rarest} messages in the test split, posteriors corrected to a production prior of"
        f" {prior[rarest]:.1%} {rarest}; intervals over groups of near duplicates.",
    ]
    return "\n".join(lines)


def with_results(readme: str, table: str) -> str:
    """The readme with the table between its markers; raises UserError when a marker is missing."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{README}: no lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


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
    table = results_table(read_json(LEADERBOARD))
    text = with_results(README.read_text(encoding="utf-8"), table)
    take_picture(REPORTS / "index.html", PICTURE)
    with replaced(README) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())

"""Deploy the selected model as a new version, correct the deployed one to another class prior, roll back, or store a version.

Reads `selected/` with its model, logits and messages, or `production/watch/<window>.json`. Writes the version's folder in
`production/deployed/` and then, in one step, `production/deployed/current.json`, which names the deployed version. Prints the
version.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ballast.cli import parser, run
from ballast.exceptions import UserError
from stages.production.candidate import make_candidate
from stages.production.deploy import Older, Request, deploy, make_stored, store
from stages.production.deployed import MANIFEST, current_version, history, read_manifest, read_version
from stages.production.reprior import estimated_prior, make_corrected
from stages.production.versions import (
    ROLLBACK,
    Manifest,
    disk_use,
    megabytes,
    rollback_chain,
    shares_in_words,
    sizes,
    switch,
    tidy,
    version_names,
)
from stages.store.files import locked, write_json
from stages.store.params import read_params
from stages.store.project import PROJECT


def print_versions() -> None:
    """Print a line for each version: when and why it was made, its technique and prior, and which one is deployed."""
    switches = history()
    made = {entry["version"]: entry for entry in reversed(switches) if entry["reason"] != ROLLBACK}
    rows, shadow = [], read_params().production.shadow
    for name in version_names():
        entry = made.get(name, {})
        manifest, _ = read_manifest(PROJECT.deployed / name / MANIFEST, entry.get("sha256"))
        reason = " ".join(filter(None, (manifest["reason"], manifest["window"])))
        prior = shares_in_words(manifest["production_prior"])
        deployed = "deployed" if switches and switches[-1]["version"] == name else "shadow" if name == shadow else ""
        rows.append((name, entry.get("at", "never"), reason, manifest["technique"], prior, megabytes(sizes(name)), deployed))
    if not rows:
        raise UserError(f"{PROJECT.deployed}: no version; `python -m flows.promote` deploys the selected model")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(disk_use())


def correct_to(window: str, request: Request) -> dict[str, Any]:
    """Deploy the weights of the deployed version on the class prior of a window."""
    deployed = read_version(current_version())
    prior = estimated_prior(window, deployed.labels)

    def make(folder: Path, version: str) -> Manifest:
        # If the prior is the same, keep the model card too, which names a window.
        same = prior == deployed.manifest["production_prior"]
        return deployed.manifest if same else make_corrected(deployed, prior, window, version, folder)

    return deploy(make, request)


def roll_back() -> dict[str, Any]:
    """Deploy the version before the deployed one again."""
    earlier = [name for name in rollback_chain(history())[:-1] if (PROJECT.deployed / name).is_dir()]
    if not earlier:
        raise UserError("there is no earlier version to roll back to; `python -m flows.promote --list` lists the versions")
    version = read_version(earlier[-1]).name
    switch(version, ROLLBACK)
    print(f"promote: rolled back to {version}; {disk_use()}", file=sys.stderr)
    return {"version": version, "new": True}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the command; see its --help."""

    reprior: str | None = None
    rollback: bool = False
    shadow: bool = False
    version: str | None = None
    listing: bool = False
    force: bool = False
    keep_newer: bool = False
    source: Path = Path()
    reason: str = "promote"
    window: str | None = None
    dry_run: bool = False
    only: str | None = None
    base: str | None = None
    result: Path | None = None


def promoted(options: Options) -> dict[str, Any]:
    """Do what the options ask for, under the lock: {version, new}, or the proposal of a dry run."""
    production = read_params().production
    spare: dict[str, Any] = {"keep": production.keep.versions, "spared": production.shadow}
    conditions = {**spare, "dry_run": options.dry_run, "only": options.only, "base": options.base}
    with locked(PROJECT.current):
        tidy()
        if options.rollback:
            return roll_back()
        if options.reprior is not None:
            return correct_to(options.reprior, Request(reason="reprior", window=options.reprior, **conditions))
        if options.shadow:
            return store(lambda folder, _: make_candidate(options.source, folder), **spare)
        older: Older = "deploy" if options.force else "keep" if options.keep_newer else "refuse"
        request = Request(reason=options.reason, window=options.window, older=older, **conditions)
        if options.version is not None:
            return deploy(make_stored(options.version), request)
        return deploy(lambda folder, _: make_candidate(options.source, folder), request)


def main(**given: Any) -> None:
    options = Options(**given)
    if options.listing:
        print_versions()
        return
    outcome = promoted(options)
    if options.result is not None:
        write_json(options.result, outcome)
        return
    print(outcome["version"] if "version" in outcome else json.dumps(outcome))


if __name__ == "__main__":
    arguments = parser(__doc__)
    what = arguments.add_mutually_exclusive_group()
    what.add_argument("--reprior", metavar="WINDOW", help="deploy the same weights on the class prior estimated for a window")
    what.add_argument("--rollback", action="store_true", help="deploy the previous version again")
    what.add_argument("--shadow", action="store_true", help="store the selected model as a version without deploying it")
    what.add_argument("--version", metavar="NAME", help="deploy a version that was stored with --shadow")
    what.add_argument("--list", action="store_true", dest="listing", help="list the versions")
    older = arguments.add_mutually_exclusive_group()
    older.add_argument(
        "--force",
        action="store_true",
        help="deploy even a model that is older, trained on fewer labels or shown worse in shadow",
    )
    older.add_argument("--keep-newer", action="store_true", help="keep the deployed version in that case, without an error")
    arguments.add_argument("--from", type=Path, default=Path(), dest="source", metavar="FOLDER", help="another checkout")
    arguments.add_argument("--reason", choices=["promote", "retrain"], default="promote", help="the reason in the manifest")
    arguments.add_argument("--window", help="the window that triggered it")
    arguments.add_argument("--dry-run", action="store_true", help="check everything and print the proposal as JSON")
    arguments.add_argument("--only", metavar="SHA256", help="deploy only this content, as --dry-run names it")
    arguments.add_argument("--base", metavar="VERSION", help="deploy only while this version is deployed")
    arguments.add_argument(
        "--result",
        type=Path,
        metavar="FILE",
        help="write {version, new}, or the proposal of a dry run, to a JSON file instead of standard output",
    )
    run(main, arguments.parse_args())

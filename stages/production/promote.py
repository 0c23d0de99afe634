"""Deploy the selected model as a new version, correct the deployed one to another class prior, or go back to the one before.

Reads `selected/` with its model, logits and messages, or `production/watch/<window>.json`; writes the version's folder in
`production/deployed/`, then, in one step, `production/deployed/current.json`, which says what is deployed. Prints the version.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ballast.cli import parser, run
from ballast.exceptions import UserError
from stages.production.candidate import of_source
from stages.production.deployed import CURRENT, MANIFEST, current_version, history, read_manifest, read_version
from stages.production.refused import refusal
from stages.production.reprior import estimated_prior, of_deployed, prior_deviation
from stages.production.versions import (
    ROLLBACK,
    Manifest,
    being_made,
    content,
    disk_use,
    megabytes,
    next_name,
    prune,
    shares_in_words,
    sizes,
    switch,
    tidy,
    version_names,
    way_here,
    with_contents,
)
from stages.store.files import DEPLOYED, locked, write_json
from stages.store.params import read_params

# An error, the deployed version stays, or it is deployed.
Older = Literal["refuse", "keep", "deploy"]


def print_versions() -> None:
    """Print a line for each version: when and why it was made, what it is, and which one is deployed."""
    switches = history()
    made = {entry["version"]: entry for entry in reversed(switches) if entry["reason"] != ROLLBACK}
    rows = []
    for name in version_names():
        entry = made.get(name, {})
        manifest, _ = read_manifest(DEPLOYED / name / MANIFEST, entry.get("sha256"))
        why = " ".join(filter(None, (manifest["reason"], manifest["window"])))
        prior = shares_in_words(manifest["production_prior"])
        deployed = "deployed" if switches and switches[-1]["version"] == name else ""
        rows.append((name, entry.get("at", "never"), why, manifest["technique"], prior, megabytes(sizes(name)), deployed))
    if not rows:
        raise UserError(f"{DEPLOYED}: no version; `python -m flows.promote` deploys the selected model")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(disk_use())


def deploy(
    make: Callable[[Path, str], Manifest],
    reason: str,
    window: str | None,
    *,
    keep: int,
    dry_run: bool,
    only: str | None,
    base: str | None,
    older: Older | None = None,
) -> None:
    """Make a version and switch to it, unless just that is deployed already; nothing has changed when this raises an error.

    make : fills an empty folder for a version of a name; its manifest but for the occasion.
    only : the content that may be deployed; None is any.
    base : the version that it was compared with, which is to be the deployed one still; None is any.
    older : what comes of an older model than the deployed one, or one that knows fewer labels; None does not ask.
    """
    version, deployed = next_name(), deployed_manifest()
    with being_made(version) as folder:
        manifest = {**make(folder, version), "version": version, "reason": reason, "window": window}
        if window is not None:
            manifest["prior_deviation"] = prior_deviation(window, manifest["labels"])
        found = content(manifest)
        known = deployed is not None and content(deployed) == found
        refused = None
        if older is not None and not known:
            refused = refusal(with_contents(history()), found, folder, deployed, also_rolled_back=older == "keep")
        if refused and older == "refuse":
            raise UserError(refused)
        stays = f"already deployed as {current_version()}" if known else refused if older == "keep" else None
        if dry_run:
            proposal = {"content": found, "new": stays is None, "candidate": manifest, "deployed": deployed}
            print(json.dumps({**proposal, "refused": refused}))
            return
        if only is not None and found != only:
            raise UserError("what would be deployed is not what was approved; nothing was deployed, ask for approval again")
        if stays is not None:
            print(f"promote: {stays}", file=sys.stderr)
            print(current_version())
            return
        if base is not None and current_version() != base:
            raise UserError(f"{current_version()} was deployed since {base} was looked at; nothing was deployed")
        write_json(folder / MANIFEST, manifest)
        folder.rename(DEPLOYED / version)
        switch(version, reason)
    if refused:
        print(f"promote: forced, though {refused}", file=sys.stderr)
    prune(keep, way_here(history())[-2:])
    prior = shares_in_words(manifest["production_prior"])
    print(f"promote: {version} is deployed: {manifest['technique']}, {prior}; {disk_use()}", file=sys.stderr)
    print(version)


def deployed_manifest() -> Manifest | None:
    """The manifest of the deployed version; None where there is none, or its files are not what they were."""
    if not history():
        return None
    try:
        return read_version(current_version()).manifest
    except UserError as error:
        print(f"promote: the deployed version is broken: {error}", file=sys.stderr)
        return None


def correct_to(window: str, *, keep: int, dry_run: bool, only: str | None, base: str | None) -> None:
    """Deploy the deployed version anew on the class prior of a window."""
    deployed = read_version(current_version())
    prior = estimated_prior(window, deployed.labels)

    def make(folder: Path, version: str) -> Manifest:
        # Corrected to it already; its card, which names a window, need not change.
        same = prior == deployed.manifest["production_prior"]
        return deployed.manifest if same else of_deployed(deployed, prior, window, version, folder)

    deploy(make, "reprior", window, keep=keep, dry_run=dry_run, only=only, base=base)


def go_back() -> None:
    """Deploy the version before the deployed one again."""
    earlier = [name for name in way_here(history())[:-1] if (DEPLOYED / name).is_dir()]
    if not earlier:
        raise UserError("there is no version to go back to: `python -m flows.promote --list` shows those that are kept")
    version = read_version(earlier[-1]).name
    switch(version, ROLLBACK)
    print(f"promote: went back to {version}; {disk_use()}", file=sys.stderr)
    print(version)


def main(
    source: Path,
    reason: str,
    window: str | None,
    reprior: str | None,
    rollback: bool,
    listing: bool,
    dry_run: bool,
    only: str | None,
    base: str | None = None,
    force: bool = False,
    keep_newer: bool = False,
) -> None:
    if listing:
        print_versions()
        return
    keep = read_params().production.keep.versions
    with locked(CURRENT):
        tidy()
        if rollback:
            go_back()
        elif reprior is not None:
            correct_to(reprior, keep=keep, dry_run=dry_run, only=only, base=base)
        else:

            def selected(folder: Path, _: str) -> Manifest:
                return of_source(source, folder)

            older: Older = "deploy" if force else "keep" if keep_newer else "refuse"
            deploy(selected, reason, window, keep=keep, dry_run=dry_run, only=only, base=base, older=older)


if __name__ == "__main__":
    arguments = parser(__doc__)
    what = arguments.add_mutually_exclusive_group()
    what.add_argument("--reprior", metavar="WINDOW", help="the deployed weights on the class prior estimated for a window")
    what.add_argument("--rollback", action="store_true", help="go back to the version before")
    what.add_argument("--list", action="store_true", dest="listing", help="list the versions")
    older = arguments.add_mutually_exclusive_group()
    older.add_argument("--force", action="store_true", help="also an older model, or one that knows fewer labels")
    older.add_argument("--keep-newer", action="store_true", help="no error where that would be so: the deployed one stays")
    arguments.add_argument("--from", type=Path, default=Path(), dest="source", metavar="FOLDER", help="of another checkout")
    arguments.add_argument("--reason", choices=["promote", "retrain"], default="promote", help="what the manifest says")
    arguments.add_argument("--window", help="the window that gave occasion")
    arguments.add_argument("--dry-run", action="store_true", help="check all and print what would be deployed, as JSON")
    arguments.add_argument("--only", metavar="SHA256", help="deploy nothing but this content, as --dry-run names it")
    arguments.add_argument("--base", metavar="VERSION", help="deploy only while this version is the deployed one")
    run(main, arguments.parse_args())

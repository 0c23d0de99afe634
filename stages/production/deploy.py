"""Deploy a version: write it to a separate folder, compare it with the deployed one, and switch to it in one step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ballast.exceptions import UserError
from stages.production.deployed import MANIFEST, current_version, history, read_version
from stages.production.refused import reason_to_refuse
from stages.production.reprior import prior_deviation
from stages.production.versions import (
    Manifest,
    content,
    disk_use,
    next_name,
    prune_versions,
    rollback_chain,
    shares_in_words,
    staging,
    switch,
    with_contents,
)
from stages.store.files import write_json
from stages.store.project import PROJECT

# What to do with an older model: raise an error, keep the deployed version, or deploy it all the same.
Older = Literal["refuse", "keep", "deploy"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """How to deploy a version.

    reason, window : what the manifest says about the occasion: promote, retrain or reprior, and the window that triggered it.
    keep : number of versions to keep on disk.
    dry_run : check everything, deploy nothing.
    only : sha256 of the only content that may be deployed; None allows any.
    base : the version that must still be deployed; None allows any.
    older : what to do with an older model, or one that was trained on fewer labels; None skips this check.
    """

    reason: str
    window: str | None = None
    keep: int
    dry_run: bool = False
    only: str | None = None
    base: str | None = None
    older: Older | None = None


def deploy(make: Callable[[Path, str], Manifest], request: Request) -> dict[str, Any]:
    """Make a version and switch to it, unless the deployed version has the same content.

    make : fills an empty folder for a version of the given name, and returns its manifest without the occasion.

    Returns {version, new}, or with `dry_run` the proposal. Raises UserError; nothing has changed then.
    """
    version, deployed = next_name(), deployed_manifest()
    with staging(version) as folder:
        manifest = {**make(folder, version), "version": version, "reason": request.reason, "window": request.window}
        if request.window is not None:
            manifest["prior_deviation"] = prior_deviation(request.window, manifest["labels"])
        proposal = proposed(manifest, folder, deployed, request.older)
        refused = proposal["refused"]
        if refused and request.older == "refuse":
            raise UserError(refused)
        if request.dry_run:
            return proposal
        if request.only is not None and proposal["content"] != request.only:
            raise UserError("the model to deploy differs from the approved one; nothing was deployed; ask for approval again")
        if not proposal["new"]:
            print(f"promote: {refused or f'already deployed as {current_version()}'}", file=sys.stderr)
            return {"version": current_version(), "new": False}
        if request.base is not None and current_version() != request.base:
            raise UserError(f"{current_version()} was deployed after {request.base} was compared; nothing was deployed")
        write_json(folder / MANIFEST, manifest)
        folder.rename(PROJECT.deployed / version)
        switch(version, request.reason)
    if refused:
        print(f"promote: forced, although {refused}", file=sys.stderr)
    prune_versions(request.keep, rollback_chain(history())[-2:])
    prior = shares_in_words(manifest["production_prior"])
    print(f"promote: {version} is deployed: {manifest['technique']}, {prior}; {disk_use()}", file=sys.stderr)
    return {"version": version, "new": True}


def proposed(manifest: Manifest, folder: Path, deployed: Manifest | None, older: Older | None) -> dict[str, Any]:
    """A version in a folder beside the deployed one: {content, new, candidate, deployed, refused}.

    `new` says whether it takes the place of the deployed version; `refused` says why it should not, or is None.
    """
    digest = content(manifest)
    same = deployed is not None and content(deployed) == digest
    refused = None
    if older is not None and not same:
        refused = reason_to_refuse(with_contents(history()), digest, folder, deployed, also_rolled_back=older == "keep")
    new = not same and not (refused and older == "keep")
    return {"content": digest, "new": new, "candidate": manifest, "deployed": deployed, "refused": refused}


def deployed_manifest() -> Manifest | None:
    """The manifest of the deployed version; None if no version is deployed, or if its files have changed."""
    if not history():
        return None
    try:
        return read_version(current_version()).manifest
    except UserError as error:
        print(f"promote: the deployed version is damaged: {error}", file=sys.stderr)
        return None

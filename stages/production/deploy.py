"""Deploy a version: write it to a separate folder, compare it with the deployed one, and switch to it in one step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ballast.exceptions import UserError, short, suggestion
from stages.production.deployed import MANIFEST, current_version, history, read_version
from stages.production.refused import reason_to_refuse
from stages.production.reprior import link, prior_deviation
from stages.production.shadow_shown import Shown, shown_in_shadow
from stages.production.versions import (
    SHADOW,
    Manifest,
    content,
    disk_use,
    never_deployed,
    next_name,
    prune_versions,
    rollback_chain,
    same_decisions,
    shares_in_words,
    staging,
    staging_folder,
    switch,
    version_names,
    with_contents,
)
from stages.store.files import write_json
from stages.store.project import PROJECT

# What to do with an older model, or one that is shown worse in shadow: raise an error, keep the deployed version, or deploy it.
Older = Literal["refuse", "keep", "deploy"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """How to deploy a version.

    reason, window : what the manifest says about the occasion: promote, retrain or reprior, and the window that triggered it.
    keep : number of versions to keep on disk.
    dry_run : check everything, deploy nothing.
    spared : a version that stays on disk.
    only : sha256 of the only content that may be deployed; None allows any.
    base : the version that must still be deployed; None allows any.
    older : what to do with an older model, one that was trained on fewer labels, or one that is shown worse in shadow; None
        skips this check.
    """

    reason: str
    window: str | None = None
    keep: int
    spared: str | None = None
    dry_run: bool = False
    only: str | None = None
    base: str | None = None
    older: Older | None = None


def deploy(make: Callable[[Path, str], Manifest], request: Request) -> dict[str, Any]:
    """Make a version and switch to it, unless the deployed version has the same content.

    If a version that was stored for a shadow decides like it, that one is deployed instead.

    make : fills an empty folder for a version of the given name, and returns its manifest without the occasion.

    Returns {version, new}, or with `dry_run` the proposal. Raises UserError; nothing has changed then.
    """
    version, deployed = next_name(), deployed_manifest()
    with staging(version) as folder:
        manifest = {**make(folder, version), "version": version, "reason": request.reason, "window": request.window}
        stored = None
        if request.window is None:
            stored = same_decisions(manifest, never_deployed())
            manifest["version"] = version = stored or version
        else:
            manifest["prior_deviation"] = prior_deviation(request.window, manifest["labels"])
        shown = None if stored is None or deployed is None else shown_in_shadow(stored, deployed["version"])
        proposal = proposed(manifest, folder, deployed, request.older, shown)
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
        if stored is None:
            write_json(folder / MANIFEST, manifest)
            folder.rename(PROJECT.deployed / version)
        switch(version, request.reason, proposal["shadow"])
    if shown is not None and not shown.worse:
        print(f"promote: {shown.words}", file=sys.stderr)
    if refused:
        print(f"promote: forced, although {refused}", file=sys.stderr)
    prune_versions(request.keep, [*rollback_chain(history())[-2:], request.spared])
    prior = shares_in_words(manifest["production_prior"])
    print(f"promote: {version} is deployed: {manifest['technique']}, {prior}; {disk_use()}", file=sys.stderr)
    return {"version": version, "new": True}


def store(make: Callable[[Path, str], Manifest], keep: int, spared: str | None) -> dict[str, Any]:
    """Make a version without switching to it, unless a version on disk decides like it.

    make, keep, spared : as for `deploy`.

    Returns {version, new}. Raises UserError if no version is deployed.
    """
    deployed, version = current_version(), next_name()
    with staging(version) as folder:
        manifest = {**make(folder, version), "version": version, "reason": SHADOW, "window": None}
        if (same := same_decisions(manifest, version_names())) is not None:
            print(f"promote: nothing was stored, because {same} decides like the selected model", file=sys.stderr)
            return {"version": same, "new": False}
        write_json(folder / MANIFEST, manifest)
        folder.rename(PROJECT.deployed / version)
        # With this folder, `tidy` takes a version without a switch for an unfinished one.
        staging_folder(version).rmdir()
    prune_versions(keep, [*rollback_chain(history())[-2:], spared])
    print(
        f"promote: {version} is stored, and {deployed} stays deployed; production.shadow: {version} compares them on the"
        f" windows that are scored from now on; {disk_use()}",
        file=sys.stderr,
    )
    return {"version": version, "new": True}


def make_stored(name: str) -> Callable[[Path, str], Manifest]:
    """A function that fills an empty folder with the files of a stored version and returns its manifest.

    Raises UserError for a version that does not exist, is damaged, or was deployed before.
    """
    if name not in (names := version_names()):
        raise UserError(f"{PROJECT.deployed}: no version {short(name)}: {suggestion(name, names)}")
    version = read_version(name)
    if name not in never_deployed() and name != current_version():
        raise UserError(f"{name} was deployed before; roll back with --rollback, or deploy the selected model with --force")

    def make(folder: Path, _: str) -> Manifest:
        for file in version.manifest["files"]:
            link(version.folder / file, folder / file)
        return version.manifest

    return make


def proposed(
    manifest: Manifest, folder: Path, deployed: Manifest | None, older: Older | None, shown: Shown | None
) -> dict[str, Any]:
    """A version in a folder beside the deployed one: {content, new, candidate, deployed, refused, shadow}.

    `new` says whether it takes the place of the deployed version; `refused` says why it should not, or is None; `shadow` says
    what was shown about it in shadow, or is None.
    """
    digest = content(manifest)
    same = deployed is not None and content(deployed) == digest
    refused = None
    if older is not None and not same:
        refused = reason_to_refuse(with_contents(history()), digest, folder, deployed, also_rolled_back=older == "keep")
        if refused is None and shown is not None and shown.worse:
            refused = f"{shown.words}. Nothing was deployed; --force deploys it all the same"
    new = not same and not (refused and older == "keep")
    words = None if shown is None or same else shown.words
    return {
        "content": digest,
        "new": new,
        "candidate": manifest,
        "deployed": deployed,
        "refused": refused,
        "shadow": words,
    }


def deployed_manifest() -> Manifest | None:
    """The manifest of the deployed version; None if no version is deployed, or if its files have changed."""
    if not history():
        return None
    try:
        return read_version(current_version()).manifest
    except UserError as error:
        print(f"promote: the deployed version is damaged: {error}", file=sys.stderr)
        return None

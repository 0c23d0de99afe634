"""What may not take the deployed version's place unnoticed: an older model, or one that knows fewer labelled messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from stages.production.deployed import VOCABULARY
from stages.production.home import waiting
from stages.production.versions import ROLLBACK, Manifest, version_names, way_here
from stages.store.project import PROJECT


def superseded(switches: Sequence[Mapping[str, str]], content: str) -> tuple[str, str] | None:
    """The version that was of a content and the one that was deployed after it; None where that was not replaced.

    What was only gone back from may be deployed again, until another version is.
    """
    at = last_of(switches, content)
    if at is None or all(entry["reason"] == ROLLBACK for entry in switches[at + 1 :]):
        return None
    later = next(entry["version"] for entry in switches[at + 1 :] if entry["reason"] != ROLLBACK)
    return switches[at]["version"], later


def rolled_back(switches: list[dict[str, str]], content: str) -> str | None:
    """The version of a content that was gone back from; None where it is on the way to the deployed one, or never was one."""
    at = last_of(switches, content)
    return None if at is None or switches[at]["version"] in way_here(switches) else switches[at]["version"]


def last_of(switches: Sequence[Mapping[str, str]], content: str) -> int | None:
    """The place of the last switch to a content."""
    return max((at for at, entry in enumerate(switches) if entry.get("content") == content), default=None)


def unknown_labels(folder: Path, deployed: Path) -> int:
    """How many labelled messages of feedback the deployed version knows, and one in a folder does not."""
    if not (deployed / VOCABULARY).is_file():
        return 0
    ours, theirs = (load_file(version / VOCABULARY)["feedback"] for version in (folder, deployed))
    return int((~np.isin(theirs, ours)).sum())


def refusal(
    switches: list[dict[str, str]], content: str, folder: Path, deployed: Manifest | None, *, also_rolled_back: bool = False
) -> str | None:
    """Why a version of a content, made in a folder, may not take the deployed one's place; None where it may.

    also_rolled_back : nor may one that was gone back from.
    """
    if (unknown := untold(switches, content, deployed)) is not None:
        return unknown
    old, gone = superseded(switches, content), rolled_back(switches, content) if also_rolled_back else None
    version = switches[-1]["version"] if switches else ""
    fewer = unknown_labels(folder, PROJECT.deployed / version) if deployed is not None else 0
    if old is not None:
        why = f"what is selected is version {old[0]} (content {content[:12]}), which {old[1]} has replaced since"
    elif fewer:
        why = f"what is selected (content {content[:12]}) does not know {fewer:,} labelled messages that {version} knows"
    elif gone is not None:
        why = f"what is selected is version {gone} (content {content[:12]}), which was gone back from"
    else:
        return None
    return f"{why}; {version} stays deployed. {advice(deployed)}"


def untold(switches: Sequence[Mapping[str, str]], content: str, deployed: Manifest | None) -> str | None:
    """Why nobody can tell whether a content is older than what is deployed; None where that can be told."""
    if not switches and (names := version_names()):
        return (
            f"{PROJECT.current} is missing, but {PROJECT.deployed} has the versions {', '.join(names)}, so nobody can tell"
            " whether what is selected is older. Restore that file from a backup; or deploy what is selected with --force"
        )
    if switches and deployed is None and switches[-1].get("content") != content:
        return (
            f"version {switches[-1]['version']} is deployed and broken, so nobody can tell whether what is selected (content"
            f" {content[:12]}) is older or knows fewer labels. Go back with --rollback; or deploy what is selected with --force"
        )
    return None


def advice(deployed: Manifest | None) -> str:
    """What to do instead of deploying an older model."""
    if deployed is not None and (key := waiting(deployed)):
        first = f"`python -m stages.production.retrain bring-home {key}` brings the result of the deployed version here"
    elif deployed is not None and deployed["reason"] == "reprior":
        prior = json.dumps(deployed["production_prior"])
        first = f"Set production.prior in params.yaml to the deployed {prior} and run `dvc repro`"
    else:
        first = "Run `dvc repro` with the labels and the params of the deployed version"
    return f"{first}; or go back with --rollback, or deploy what is selected with --force"

"""Why a version should not replace the deployed one: it is older, or was trained on fewer labelled messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from stages.production.deployed import VOCABULARY
from stages.production.home import waiting
from stages.production.versions import ROLLBACK, Manifest, rollback_chain, version_names
from stages.store.project import PROJECT


def superseded(switches: Sequence[Mapping[str, str]], content: str) -> tuple[str, str] | None:
    """The version with a content, and the version that replaced it; None if it was not replaced.

    A version that was only rolled back may be deployed again, until another version is deployed.
    """
    at = last_of(switches, content)
    if at is None or all(entry["reason"] == ROLLBACK for entry in switches[at + 1 :]):
        return None
    later = next(entry["version"] for entry in switches[at + 1 :] if entry["reason"] != ROLLBACK)
    return switches[at]["version"], later


def rolled_back(switches: list[dict[str, str]], content: str) -> str | None:
    """The version with a content that was rolled back; None if there is none."""
    at = last_of(switches, content)
    return None if at is None or switches[at]["version"] in rollback_chain(switches) else switches[at]["version"]


def last_of(switches: Sequence[Mapping[str, str]], content: str) -> int | None:
    """The index of the last switch to a content."""
    return max((at for at, entry in enumerate(switches) if entry.get("content") == content), default=None)


def unknown_labels(folder: Path, deployed: Path) -> int:
    """The number of labelled messages of feedback that the deployed version was trained on, and one in a folder was not."""
    if not (deployed / VOCABULARY).is_file():
        return 0
    ours, theirs = (load_file(version / VOCABULARY)["feedback"] for version in (folder, deployed))
    return int((~np.isin(theirs, ours)).sum())


def reason_to_refuse(
    switches: list[dict[str, str]], content: str, folder: Path, deployed: Manifest | None, *, also_rolled_back: bool = False
) -> str | None:
    """Why a version in a folder should not replace the deployed one; None if it may.

    also_rolled_back : refuse a version that was rolled back too.
    """
    if (reason := undecidable(switches, content, deployed)) is not None:
        return reason
    old, gone = superseded(switches, content), rolled_back(switches, content) if also_rolled_back else None
    version = switches[-1]["version"] if switches else ""
    fewer = unknown_labels(folder, PROJECT.deployed / version) if deployed is not None else 0
    if old is not None:
        why = f"the selected model is version {old[0]} (content {content[:12]}), which {old[1]} has replaced"
    elif fewer:
        why = f"the selected model (content {content[:12]}) was not trained on {fewer:,} labelled messages that {version} knows"
    elif gone is not None:
        why = f"the selected model is version {gone} (content {content[:12]}), which was rolled back"
    else:
        return None
    return f"{why}; {version} stays deployed. {advice(deployed)}"


def undecidable(switches: Sequence[Mapping[str, str]], content: str, deployed: Manifest | None) -> str | None:
    """Why it is unknown whether a content is older than the deployed one; None if it is known."""
    if not switches and (names := version_names()):
        return (
            f"{PROJECT.current} is missing, but {PROJECT.deployed} has the versions {', '.join(names)}, so the selected model"
            " may be older than the deployed one. Restore that file from a backup; or deploy the selected model with --force"
        )
    if switches and deployed is None and switches[-1].get("content") != content:
        return (
            f"version {switches[-1]['version']} is deployed and damaged, so the selected model (content {content[:12]}) may be"
            " older or know fewer labels. Roll back with --rollback; or deploy the selected model with --force"
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
    return f"{first}; or roll back with --rollback, or deploy the selected model with --force"

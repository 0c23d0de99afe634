"""The deployed model: its manifest, its history, and the announcement of each change to Prefect and to people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid5

from ballast.io.printable import trainings_in_words
from flows import artifacts
from flows.alarms import NAMESPACE, notify
from flows.locks import single_instance
from flows.state import read_bytes, read_state, write_state

DEPLOYED = Path("production/deployed")
CURRENT = DEPLOYED / "current.json"
ANNOUNCED = DEPLOYED / ".announced"
METRICS = ("precision", "recall", "f1")


def deployed_manifest() -> dict[str, Any]:
    """The manifest of the deployed version."""
    return manifest_of(read_state(CURRENT)["version"])


def manifest_of(version: str) -> dict[str, Any]:
    """The manifest of a version; raises UserError if it has changed since the version was deployed."""
    path = DEPLOYED / version / "manifest.json"
    pin = next((entry.get("sha256") for entry in history() if entry["version"] == version), None)
    # The oldest manifests carry no digest and have only the pin.
    return read_state(path) if pin is None else dict(json.loads(read_bytes(path, pin)))


def history() -> list[dict[str, str]]:
    """All changes of the deployed version, the oldest first."""
    return list(read_state(CURRENT)["history"]) if CURRENT.exists() else []


def n_announced() -> int:
    """Number of announced changes; raises UserError if the file is broken."""
    if not ANNOUNCED.exists():
        return 0
    # An earlier version wrote only the number.
    content = read_bytes(ANNOUNCED)
    return int(content) if content.strip().isdigit() else int(read_state(ANNOUNCED)["announced"])


def announce_pending(version: str, note: str) -> None:
    """Announce every change that has not been announced, including those of runs that were killed or had no Prefect.

    note : a reviewer's note on the change to `version`.
    """
    with single_instance(ANNOUNCED.with_suffix(".lock"), wait=True):
        for at, change in list(enumerate(history()))[n_announced() :]:
            announce(at, note if change["version"] == version else "")
            write_state(ANNOUNCED, {"announced": at + 1})


def announce(at: int, note: str) -> None:
    """Emit `model.promoted` for a change of the history, and publish the model card; does nothing for a deleted version."""
    changes = history()
    version, reason = changes[at]["version"], changes[at]["reason"]
    if not (DEPLOYED / version / "manifest.json").exists():
        return
    previous = changes[at - 1]["version"] if at else None
    manifest = manifest_of(version)
    payload = {
        "version": version,
        "reason": reason,
        "technique": manifest["technique"],
        "production_prior": manifest["production_prior"],
        "previous": previous,
        "window": manifest["window"],
        "note": note,
        "shadow": changes[at].get("shadow"),
    }
    labels = {"prefect.resource.name": f"model {version}", "ballast.reason": reason}
    event = uuid5(NAMESPACE, f"{version}/{reason}/{changes[at]['at']}")
    notify("model.promoted", f"ballast.model.{version}", payload, labels=labels, id=event)
    titles = {f"deployed {version}": manifest}
    if (DEPLOYED / str(previous) / "manifest.json").exists():
        titles[f"before {previous}"] = manifest_of(str(previous))
    card = read_bytes(DEPLOYED / version / "model_card.md", manifest["files"].get("model_card.md")).decode()
    shadow = f"{changes[at]['shadow']}\n\n" if changes[at].get("shadow") else ""
    text = f"Version **{version}** is deployed ({reason}).\n\n{shadow}{versions_table(titles)}\n\n{card}"
    artifacts.markdown(text, key="deployed-model", description=f"version {version}")


def versions_table(manifests: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table that compares versions by title: technique, prior, and test metrics."""
    first = next(iter(manifests.values()))
    rows: list[list[str]] = [["", *manifests], ["---"] * (len(manifests) + 1)]
    rows.append(["technique", *(f"{manifest['technique']}, {trainings_in_words(manifest)}" for manifest in manifests.values())])
    for label in first["labels"]:
        shares = [manifest["production_prior"].get(label) for manifest in manifests.values()]
        rows.append([f"production prior of {label}", *("" if share is None else f"{share:.3f}" for share in shares)])
    for metric in ["macro_f1", *(f"{label}.{metric}" for label in first["labels"] for metric in METRICS)]:
        values = [manifest["operating_point"]["test"].get(metric) for manifest in manifests.values()]
        rows.append([f"test {metric}", *("" if value is None else with_interval(value) for value in values)])
    rows.append(["commit", *(describe_commit(manifest["lineage"]) for manifest in manifests.values())])
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def describe_commit(lineage: Mapping[str, Any]) -> str:
    """The commit of a version, and the files that differed from it."""
    changes = f" and changes of {', '.join(lineage['modified'])}" if lineage["modified"] else ""
    return (lineage["commit"] or "none")[:12] + changes


def with_interval(metric: Mapping[str, float]) -> str:
    """The value and interval of a metric.

    >>> with_interval({"value": 0.9, "low": 0.85, "high": 0.94})
    '0.900 [0.850, 0.940]'
    """
    return "{value:.3f} [{low:.3f}, {high:.3f}]".format(**metric)

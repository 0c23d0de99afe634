"""The versions of the deployed model: which there are, what led to the deployed one, and the switch from one to another.

A version is a folder that never changes once it has its name. `current.json` says which one is deployed; replacing that file is
the whole switch, so whoever is killed leaves either the old or the new version deployed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from stages.production.deployed import MANIFEST, history, read_manifest
from stages.store.files import write_json
from stages.store.project import PROJECT

ROLLBACK = "rollback"
# What says how a version came about, not what it is.
OCCASION = ("version", "reason", "window", "prior_deviation")

Manifest = dict[str, Any]


def way_here(switches: list[dict[str, str]]) -> list[str]:
    """The versions that led to the deployed one, which is the last; what was gone back from is not among them."""
    way: list[str] = []
    for entry in switches:
        if entry["reason"] == ROLLBACK and entry["version"] in way:
            del way[way.index(entry["version"]) + 1 :]
        else:
            way.append(entry["version"])
    return way


def switch(version: str, reason: str) -> None:
    """Make a version the deployed one, all at once."""
    entry = {
        "version": version,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "reason": reason,
        "sha256": file_sha256(PROJECT.deployed / version / MANIFEST),
    }
    write_json(PROJECT.current, {"version": version, "history": with_contents([*history(), entry])})


def content(manifest: Manifest) -> str:
    """The sha256 of what a version is, whenever and for whatever reason it was deployed, and from whichever commit."""
    kept = {key: value for key, value in manifest.items() if key not in OCCASION}
    lineage = manifest.get("lineage", {})
    kept["lineage"] = {key: value for key, value in lineage.items() if key not in ("commit", "modified")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def with_contents(switches: list[dict[str, str]]) -> list[dict[str, str]]:
    """Each switch with the content of its version, also after that is deleted; without where nobody noted it before."""
    contents = []
    for entry in switches:
        # What is broken, or was deleted before contents were noted, has none.
        with contextlib.suppress(UserError, KeyError, TypeError):
            if "content" not in entry:
                manifest, _ = read_manifest(PROJECT.deployed / entry["version"] / MANIFEST, entry.get("sha256"))
                entry = {**entry, "content": content(manifest)}
        contents.append(entry)
    return contents


def partial(version: str) -> Path:
    """Where a version is while it is made or deleted."""
    return PROJECT.deployed / f".{version}.partial"


def version_names() -> list[str]:
    """The versions on the disk, the oldest first."""
    found = [path.name for path in PROJECT.deployed.glob("[0-9]*") if path.name.isdigit() and path.is_dir()]
    return sorted(found, key=int)


def prune(keep: int, needed: Collection[str]) -> list[str]:
    """Delete all but the newest `keep` versions and those that are needed; returns what was deleted."""
    doomed = [name for name in version_names()[:-keep] if name not in needed]
    for name in doomed:
        # Renamed first: a version is whole or gone, also for who is killed in between.
        (PROJECT.deployed / name).rename(partial(name))
        shutil.rmtree(partial(name))
    return doomed


def next_name() -> str:
    """The name of the next version; none is given twice."""
    names = {*version_names(), *(entry["version"] for entry in history())}
    return f"{max(map(int, names), default=0) + 1:04d}"


def tidy() -> None:
    """Remove what is half made or half deleted; a version whose making did not come to the switch was never deployed."""
    deployed = {entry["version"] for entry in history()}
    for left in PROJECT.deployed.glob(".*.partial"):
        name = left.name[1 : -len(".partial")]
        if not name.isdigit():
            continue
        if name not in deployed:
            shutil.rmtree(PROJECT.deployed / name, ignore_errors=True)
        shutil.rmtree(left)


@contextlib.contextmanager
def being_made(version: str) -> Iterator[Path]:
    """A folder to make a version in; it stays beside the version until after the switch, which is how `tidy` knows."""
    folder = partial(version) / "new"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        tidy()


def sizes(version: str) -> dict[tuple[int, int], int]:
    """The bytes of a version's files; a file with several names, also in other versions, has one key."""
    found = [path.stat() for path in (PROJECT.deployed / version).rglob("*") if path.is_file()]
    return {(each.st_dev, each.st_ino): each.st_size for each in found}


def megabytes(*of: Mapping[tuple[int, int], int]) -> str:
    """The disk that versions take together."""
    together = {key: size for each in of for key, size in each.items()}
    return f"{sum(together.values()) / 1e6:.1f} MB"


def disk_use() -> str:
    """How many versions are kept, and the disk they take."""
    names = version_names()
    return f"{len(names)} version{'s' * (len(names) != 1)} kept, {megabytes(*map(sizes, names))} on the disk"


def shares_in_words(shares: Mapping[str, float]) -> str:
    """A class prior in a line."""
    return ", ".join(f"{label} {share:.3g}" for label, share in shares.items())

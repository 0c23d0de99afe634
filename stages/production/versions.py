"""The versions of the deployed model: their folders, the history of switches, and the switch from one to another.

A version is a folder that never changes once it has its name. `current.json` names the deployed version. Replacing that file is
the whole switch, so a process that is killed leaves either the old or the new version deployed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from stages.production.deployed import MANIFEST, MODEL, history, pinned, read_manifest, read_version
from stages.store.files import write_json
from stages.store.project import PROJECT

ROLLBACK, SHADOW = "rollback", "shadow"
# Keys of a manifest that say how a version came about, not what it is.
OCCASION = ("version", "reason", "window", "prior_deviation")

Manifest = dict[str, Any]


def rollback_chain(switches: list[dict[str, str]]) -> list[str]:
    """The versions that led to the deployed one, which is the last; versions that were rolled back are not among them."""
    chain: list[str] = []
    for entry in switches:
        if entry["reason"] == ROLLBACK and entry["version"] in chain:
            del chain[chain.index(entry["version"]) + 1 :]
        else:
            chain.append(entry["version"])
    return chain


def switch(version: str, reason: str, shadow: str | None = None) -> None:
    """Make a version the deployed one, in one step; `shadow` is what was shown about it in shadow."""
    entry = {
        "version": version,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "reason": reason,
        "sha256": file_sha256(PROJECT.deployed / version / MANIFEST),
        **({"shadow": shadow} if shadow else {}),
    }
    write_json(PROJECT.current, {"version": version, "history": with_contents([*history(), entry])})


def content(manifest: Manifest) -> str:
    """The sha256 of what a version is, independent of when, why and from which commit it was deployed."""
    identity = {key: value for key, value in manifest.items() if key not in OCCASION}
    lineage = manifest.get("lineage", {})
    identity["lineage"] = {key: value for key, value in lineage.items() if key not in ("commit", "modified")}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def with_contents(switches: list[dict[str, str]]) -> list[dict[str, str]]:
    """Each switch with the content of its version, if that is known; it stays known after the version is deleted."""
    contents = []
    for entry in switches:
        # A damaged version, or one that was deleted before contents were recorded, has none.
        with contextlib.suppress(UserError, KeyError, TypeError):
            if "content" not in entry:
                manifest, _ = read_manifest(PROJECT.deployed / entry["version"] / MANIFEST, entry.get("sha256"))
                entry = {**entry, "content": content(manifest)}
        contents.append(entry)
    return contents


def staging_folder(version: str) -> Path:
    """The folder of a version while it is made or deleted."""
    return PROJECT.deployed / f".{version}.partial"


def version_names() -> list[str]:
    """The versions on disk, the oldest first."""
    names = [path.name for path in PROJECT.deployed.glob("[0-9]*") if path.name.isdigit() and path.is_dir()]
    return sorted(names, key=int)


def prune_versions(keep: int, needed: Collection[str | None]) -> list[str]:
    """Delete all versions except the newest `keep` and the needed ones; returns the deleted names."""
    doomed = [name for name in version_names()[:-keep] if name not in needed]
    for name in doomed:
        # Renamed first, so that a version is whole or gone even if this process is killed in between.
        (PROJECT.deployed / name).rename(staging_folder(name))
        shutil.rmtree(staging_folder(name))
    return doomed


def decisions_of(manifest: Manifest) -> dict[str, Any]:
    """What the decisions of a version follow from: its model, class priors and operating point."""
    files, point = manifest["files"], manifest["operating_point"]
    return {
        **{key: manifest[key] for key in ("labels", "effective_prior", "production_prior")},
        **{key: point.get(key) for key in ("costs", "review")},
        "model": {name: digest for name, digest in files.items() if Path(name).parts[0] == MODEL},
    }


def same_decisions(manifest: Manifest, names: Iterable[str]) -> str | None:
    """The first of some versions that decides like another one; None without one. Damaged versions do not count.

    Settings that have no effect on decisions, such as `production.shadow` itself, may differ.
    """
    for name in names:
        with contextlib.suppress(UserError, KeyError, TypeError):
            stored, _ = read_manifest(PROJECT.deployed / name / MANIFEST, pinned(name))
            if decisions_of(stored) == decisions_of(manifest):
                return read_version(name).name
    return None


def never_deployed() -> list[str]:
    """The versions on disk that were never deployed: those that were stored for a shadow; none if the history is lost."""
    deployed = {entry["version"] for entry in history()}
    return [name for name in version_names() if name not in deployed] if deployed else []


def next_name() -> str:
    """The name of the next version; names are never reused."""
    names = {*version_names(), *(entry["version"] for entry in history())}
    return f"{max(map(int, names), default=0) + 1:04d}"


def tidy() -> None:
    """Remove versions that are half made or half deleted: those with a partial folder and without a switch."""
    deployed = {entry["version"] for entry in history()}
    for left in PROJECT.deployed.glob(".*.partial"):
        name = left.name[1 : -len(".partial")]
        if not name.isdigit():
            continue
        if name not in deployed:
            shutil.rmtree(PROJECT.deployed / name, ignore_errors=True)
        shutil.rmtree(left)


@contextlib.contextmanager
def staging(version: str) -> Iterator[Path]:
    """A folder to make a version in; it exists until after the switch, so that `tidy` recognises an unfinished version."""
    folder = staging_folder(version) / "new"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        tidy()


def sizes(version: str) -> dict[tuple[int, int], int]:
    """The sizes in bytes of a version's files; a file with several names, also in other versions, has one key."""
    files = [path.stat() for path in (PROJECT.deployed / version).rglob("*") if path.is_file()]
    return {(file.st_dev, file.st_ino): file.st_size for file in files}


def megabytes(*of: Mapping[tuple[int, int], int]) -> str:
    """The disk space that versions take together."""
    together = {key: size for of_version in of for key, size in of_version.items()}
    return f"{sum(together.values()) / 1e6:.1f} MB"


def disk_use() -> str:
    """The number of versions, and the disk space they take."""
    names = version_names()
    return f"{len(names)} version{'s' * (len(names) != 1)}, {megabytes(*map(sizes, names))} on disk"


def shares_in_words(shares: Mapping[str, float]) -> str:
    """A class prior in a line."""
    return ", ".join(f"{label} {share:.3g}" for label, share in shares.items())

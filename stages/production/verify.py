"""Verify files at rest: DVC's cache, the outputs in dvc.lock, and in production/ the versions, windows, decisions and labels.

Prints a line for each damaged file with the command that restores it, and then fails. With --adopt it lists the files in
production/ that an earlier version wrote without a digest, and adds the digests.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ballast.cli import parser, run
from ballast.exceptions import UserError
from stages.production.adopt import adopt_all
from stages.production.answered import ENDING, check_answered
from stages.production.candidate import locked_stages
from stages.production.deployed import read_version
from stages.production.feedback import check_labels
from stages.production.home import few_of
from stages.production.verify_labelling import labelling_checks
from stages.production.versions import version_names
from stages.store.checked import opened
from stages.store.files import read_json
from stages.store.project import PROJECT
from stages.store.remedies import damaged, remedy

LOCK = PROJECT.lock.name
# Raises UserError if the file is damaged.
Check = Callable[[], object]
OBJECT = re.compile(r"[0-9a-f]{30}(\.dir)?")


def md5(path: Path) -> str:
    """MD5 of a file's bytes, which is its name in DVC's cache."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def cache_folder() -> Path:
    """The folder of DVC's objects; raises UserError."""
    done = subprocess.run(["dvc", "cache", "dir"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"dvc cache dir: {' '.join(done.stderr.split())}")
    return Path(done.stdout.strip()) / "files" / "md5"


def check_object(path: Path) -> None:
    """Raise UserError unless the MD5 of an object in the cache is its name."""
    if (digest := md5(path)) != f"{path.parent.name}{path.name}".removesuffix(".dir"):
        raise UserError(f"{path}: its md5 is {digest}; delete it, then run `dvc fetch` if a remote has it, else `dvc repro`")


def check_output(path: Path, expected: str, lock: Path) -> None:
    """Raise UserError unless a file is the one that a dvc.lock names."""
    if md5(path) != expected:
        raise damaged(path, f"differs from the one that {lock} names")


def objects(cache: Path) -> dict[Path, Check]:
    """The checks of all objects in the cache."""
    return {
        path: partial(check_object, path) for path in sorted(cache.glob("[0-9a-f][0-9a-f]/*")) if OBJECT.fullmatch(path.name)
    }


def outputs(lock: Path, cache: Path) -> dict[Path, Check]:
    """The checks of the present files that a dvc.lock names; the files of a folder by its listing in the cache."""
    checks: dict[Path, Check] = {}
    for stage in locked_stages(lock).values():
        for out in stage.get("outs", []):
            path, expected = lock.parent / out["path"], str(out["md5"])
            if expected.endswith(".dir"):
                for name, of_file in listing(cache / expected[:2] / expected[2:]).items():
                    checks[path / name] = partial(check_output, path / name, of_file, lock)
            else:
                checks[path] = partial(check_output, path, expected, lock)
    # Missing files were removed, or never made here.
    return {path: check for path, check in checks.items() if path.is_file()}


def missing_outputs(lock: Path) -> list[str]:
    """The outputs that a dvc.lock names and that are not here: DVC removes them before it starts a stage."""
    paths = [lock.parent / out["path"] for stage in locked_stages(lock).values() for out in stage.get("outs", [])]
    return sorted(path.as_posix() for path in paths if not path.exists())


def listing(path: Path) -> dict[str, str]:
    """The files of a folder with their MD5, from its listing in the cache; empty if that is missing or damaged."""
    try:
        return {str(entry["relpath"]): str(entry["md5"]) for entry in json.loads(path.read_bytes())}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def production() -> dict[Path, Check]:
    """The checks of the deployed version, of all versions and windows, and of all other state outside the graph."""
    checks: dict[Path, Check] = {}
    for path in (
        PROJECT.current,
        *sorted(PROJECT.watch.glob("*.json")),
        *sorted(PROJECT.retrain.glob("*/*.json")),
        *sorted(PROJECT.study_results.rglob("*.json")),
    ):
        checks[path] = partial(read_json, path)
    for path in (
        *sorted(PROJECT.scored.glob("*.parquet")),
        *sorted(PROJECT.shadow.glob("*.parquet")),
        PROJECT.labelled,
        *sorted(PROJECT.production.glob("replay/*.parquet")),
    ):
        checks[path] = partial(check_table, path)
    for path in sorted(PROJECT.answered.glob(f"*{ENDING}")):
        checks[path] = partial(check_answered, path)
    for path in sorted(PROJECT.labels.glob("*.parquet")):
        checks[path] = partial(check_labels, path)
    checks |= labelling_checks()
    checks[PROJECT.feedback] = partial(check_table, PROJECT.feedback, required=False)
    checks = {path: check for path, check in checks.items() if path.is_file()}
    return checks | {PROJECT.deployed / name: partial(read_version, name) for name in version_names()}


def check_table(path: Path, required: bool = True) -> None:
    """Raise UserError unless a table has the digest that it carries."""
    with opened(path, required=required):
        pass


def failures(checks: dict[Path, Check]) -> Iterator[str]:
    """The error of each damaged file."""
    for path, check in tqdm(checks.items(), desc="verify", unit=" files", disable=None, leave=False):
        try:
            check()
        except UserError as error:
            yield str(error)
        except (OSError, KeyError, TypeError, ValueError) as error:
            yield f"{path}: {' '.join(str(error).split())}; {remedy(path)}"


def main(adopt: bool) -> None:
    if adopt:
        adopt_all()
        return
    cache = cache_folder()
    checks: dict[Path, Check] = objects(cache)
    locks = [lock for lock in (Path(LOCK), *sorted(PROJECT.studies.glob(f"*/{LOCK}"))) if lock.is_file()]
    for lock in locks:
        checks |= outputs(lock, cache)
    checks |= production()
    damaged_files = set[str]()
    for failure in failures(checks):
        # Checking any version reads current.json, so its error repeats.
        if failure not in damaged_files:
            tqdm.write(failure, file=sys.stdout)
        damaged_files.add(failure)
    # A killed stage leaves its outputs missing, and a new clone has none.
    if missing := missing_outputs(locks[0]) if locks and locks[0] == Path(LOCK) else []:
        print(
            f"verify: {LOCK} names outputs that are missing here: {few_of(missing)}; `dvc checkout` restores those in the"
            " cache, `dvc repro` makes the others",
            file=sys.stderr,
        )
    if damaged_files:
        raise UserError(f"{len(damaged_files):,} of {len(checks):,} files are damaged")
    print(f"verify: {len(checks):,} files are intact", file=sys.stderr)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument(
        "--adopt", action="store_true", help="add digests to files in production/ that an earlier version wrote"
    )
    run(main, arguments.parse_args())

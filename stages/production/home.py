"""Bring the result of a promoted retraining home: this checkout then describes the deployed model.

Files that were edited here since the retraining began are not overwritten; the result waits in
`production/retrain/<key>/home/`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from stages.production.checkouts import changed_since, run_git
from stages.production.deployed import current_version, read_version
from stages.production.versions import Manifest, shares_in_words
from stages.store.checked import read_frame
from stages.store.files import read_json, replaced_folder, write_json
from stages.store.params import read_params
from stages.store.project import PROJECT
from stages.store.section import read_yaml
from stages.techniques import prune_outputs

# The files that a user edits, and the code that `dvc repro` runs.
EDITED = (PROJECT.params, PROJECT.feedback, PROJECT.lock)
CODE = ("ballast", "stages", str(PROJECT.graph))
HOME, FORMER, STATE = "home", "former", "home.json"
# After an upgrade, hundreds of files differ from the commit; `home.json` lists all of them.
SHOWN_FILES = 5


def sha256(path: Path) -> str | None:
    """The sha256 of a file; None if there is no file."""
    return file_sha256(path) if path.is_file() else None


def state_here() -> dict[str, Any]:
    """The state that a retraining begins from: the commit, and the sha256 of the files that a user edits."""
    return {"commit": run_git("rev-parse", "HEAD"), "files": {str(path): sha256(path) for path in EDITED}}


def uncached_outputs(graph: Path) -> list[Path]:
    """The outputs that are in git instead of DVC's cache."""
    paths = []
    for stage in read_yaml(graph)["stages"].values():
        for output in (*stage.get("outs", ()), *stage.get("metrics", ()), *stage.get("plots", ())):
            options = output if isinstance(output, dict) else {}
            paths += [Path(path) for path, chosen in options.items() if chosen.get("cache") is False]
    return paths


def is_of(manifest: Manifest, folder: Path) -> bool:
    """Whether a version, or the version that its weights come from, was made with the params and lock of a folder."""
    lineage = manifest.get("lineage", {})
    inputs = {"params": sha256(folder / PROJECT.params), "dvc_lock": sha256(folder / PROJECT.lock)}
    return None not in inputs.values() and inputs.items() <= lineage.items()


def waiting(manifest: Manifest) -> str | None:
    """The retraining that made a version if its result has not been brought home, else None."""
    for folder in sorted(PROJECT.retrain.glob(f"*/{HOME}")):
        if is_of(manifest, folder) and not was_brought(folder.parent):
            return folder.parent.name
    return None


def was_brought(home: Path) -> bool:
    """Whether the result of a retraining has been brought home."""
    return (home / STATE).exists() and bool(read_json(home / STATE)["brought_home"])


def bring_home(key: str, *, force: bool, unless_edited: bool) -> dict[str, Any]:
    """Bring the result of a retraining home: {brought_home, in_the_way}, the latter the files that were edited here since.

    Edited files are never overwritten silently: without `force` nothing is changed, which is an error unless `unless_edited`;
    with `force` the retraining's files take their place, and the former ones are saved.

    Raises UserError unless the version of this retraining is deployed.
    """
    home, version = PROJECT.retrain / key, read_version(current_version())
    result = home / HOME
    if not is_of(version.manifest, result if result.exists() else home / "worktree"):
        raise UserError(
            f"{home}: the deployed version {version.name} does not come from this retraining; nothing was brought home"
        )
    if not result.exists():
        pack(home)
    prepared, brought = read_json(home / "prepared.json"), was_brought(home)
    edits = [str(path) for path in EDITED if edited(path, prepared, result) and not merged(path, prepared, result)]
    edits += changed_since(prepared["base"]["commit"], *CODE) if "base" in prepared else []
    if edits and not force:
        if not brought:
            note(home, brought=False, edits=edits)
        line = (
            f"version {version.name} of the retraining {key} is deployed, but not brought home: {few_of(edits)} changed here"
            f" since it began; nothing was overwritten. Undo those changes, or merge from {result}, and run"
            f" `python -m stages.production.retrain bring-home {key}`; with"
            f" --force its files replace yours, which are saved in {home / FORMER}"
        )
        if not unless_edited:
            raise UserError(line)
        print(f"retrain: {line}", file=sys.stderr)
        return {"brought_home": brought, "in_the_way": edits}
    nothing_new = brought and all(sha256(path) == sha256(result / path) for path in EDITED)
    for path in files_of(result):
        if force or not merged(path, prepared, result):
            mine = path in EDITED and edited(path, prepared, result)
            take(result / path, path, former=home / FORMER if mine else None)
    checkout()
    params = read_params()
    prune_outputs(set(params.techniques), set(params.train.seeds))
    note(home, brought=True, edits=[])
    print(f"retrain: the result of {key} is here" if nothing_new else summary(key, prepared, result), file=sys.stderr)
    return {"brought_home": True, "in_the_way": []}


def few_of(names: Sequence[str]) -> str:
    """The first names, and the number of the others.

    >>> few_of(["params.yaml", "dvc.lock"]), few_of(list("abcdefg"))
    ('params.yaml, dvc.lock', 'a, b, c, d, e and 2 more')
    """
    more = f" and {len(names) - SHOWN_FILES} more" if len(names) > SHOWN_FILES else ""
    return ", ".join(names[:SHOWN_FILES]) + more


def pack(home: Path) -> None:
    """Store the files to bring home that are not in DVC's cache, so that the checkout can be removed."""
    worktree = home / "worktree"
    with replaced_folder(home / HOME) as folder:
        for path in (*EDITED, *uncached_outputs(worktree / PROJECT.graph)):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(worktree / path, folder / path)
    # It may hold secrets that only its owner may read.
    shutil.copymode(PROJECT.params, home / HOME / PROJECT.params)


def files_of(folder: Path) -> list[Path]:
    """The files of a folder by their relative paths, the lock last."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(paths, key=lambda path: (path == PROJECT.lock, path))


def edited(path: Path, prepared: Mapping[str, Any], result: Path) -> bool:
    """Whether a file differs from its state when the retraining began, and from the result of the retraining."""
    began = prepared.get("base", {"files": {}})["files"].get(str(path), "")
    return sha256(path) not in (began, sha256(result / path))


def merged(path: Path, prepared: Mapping[str, Any], result: Path) -> bool:
    """Whether a file that was edited here already contains the changes of the retraining: its prior, its labelled messages."""
    if not path.is_file() or not edited(path, prepared, result):
        return False
    if path == PROJECT.params:
        prior = read_params().production.prior
        return prior != "data" and prior == prepared["prior"]
    if path == PROJECT.feedback:
        ours, theirs = (read_frame(table, required=False).astype("str") for table in (path, result / path))
        return set(theirs.itertuples(index=False, name=None)) <= set(
            ours.reindex(columns=theirs.columns).itertuples(index=False, name=None)
        )
    return False


def take(source: Path, path: Path, former: Path | None) -> None:
    """Replace a file by another one, in one step; `former` is a folder that keeps the old file under its sha256."""
    content = sha256(path)
    if content == sha256(source):
        return
    if former is not None and content is not None:
        beside = former / content[:12] / path.name
        beside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, beside)
    # A fixed name, so that the file of a killed process is overwritten by the next one.
    temporary = path.with_name(f".{path.name}.home.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, temporary)
    if content is not None:
        shutil.copymode(path, temporary)
    temporary.replace(path)


def checkout() -> None:
    """Check out the outputs that the lock names from DVC's cache; `dvc repro` computes those that are missing there.

    Raises UserError when DVC fails.
    """
    command = ["dvc", "--wait-for-lock", "checkout", "--force", "--allow-missing", str(PROJECT.graph)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        reason = " ".join(done.stderr.split())[-300:]
        raise UserError(f"dvc checkout {PROJECT.graph}: {reason}; repeat the command")


def note(home: Path, *, brought: bool, edits: list[str]) -> None:
    """Record in the retraining's folder, and in its decision if there is one, whether its result is here."""
    state = {"brought_home": brought, "in_the_way": edits}
    write_json(home / STATE, state)
    if (decision := home / "decision.json").exists():
        write_json(decision, {**read_json(decision), **state})


def summary(key: str, prepared: Mapping[str, Any], result: Path) -> str:
    """One line on what was brought home."""
    what = [f"production.prior is {shares_in_words(prepared['prior'])}"]
    base = prepared.get("base", {})
    if left_out := base.get("left_out"):
        how = f"deleted ({PROJECT.retrain / key / PROJECT.params} has them)" if base["deleted"] else "comments"
        what.append(f"{len(left_out)} entries of techniques are {how}")
    what.append(f"{prepared['feedback']:,} labelled messages are in {PROJECT.feedback}")
    files = ", ".join(map(str, files_of(result)))
    return f"retrain: {key} is brought home: {'; '.join(what)}. Commit {files}"

"""Flip bytes in files at rest and run the commands that read them: each flip is reported or changes nothing.

Builds a small project with a deployed version, a corrected one, a scored, labelled and watched window and a retraining, then
flips one byte or bit at a time in every kind of file that outlives a command. The modification time stays, as when a disk
corrupts a file. Writes `benchmarks/flips.json`. The exit code is 1 if a flip changed a result without an error.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from benchmarks.measuring import ROOT, surroundings, write_result
from flows.prepared_python import prepared_python
from stages.production.verify import failures, production
from stages.store.remedies import remedy
from tests.deployed import answer, label, promote, score, selected_project, traffic, watch
from tests.prepared_python import IN_TESTS
from tests.project import Outcome, Project

COUNTS, SHIFTED = {"ham": 600, "spam": 120}, {"ham": 240, "spam": 160}
DEPLOYED = "production/deployed"
# Not part of a result: locks, times, internal files of git and DVC.
NOT_COMPARED = (".git/", ".dvc/", "durations/", "__pycache__/", ".lock", "data/data_docs/")
# The kinds of files, and the commands that read them.
READERS: dict[str, tuple[str, ...]] = {
    "data/messages.parquet": ("validate", "resample", "train", "evaluate", "errors", "feedback", "promote"),
    "data/feedback.parquet": ("ingest", "prepare"),
    "data/ingest.json": ("techniques", "evaluate", "select", "compare", "report", "promote"),
    "data/validation.json": ("select", "report"),
    "data/encoder.json": ("train", "report"),
    "data/techniques/*.json": ("resample", "train", "evaluate"),
    "data/samples/*/*.parquet": ("train",),
    "models/*/*/*": ("probe", "promote"),
    "logits/*/*.npz": ("evaluate", "errors", "report", "promote"),
    "curves/*/*/plots/metrics/*": ("compare",),
    "evaluations/*.json": ("compare", "errors", "select", "report", "promote"),
    "evaluations/*.npz": ("compare",),
    "probes/*.json": ("compare",),
    "reports/leaderboard.json": ("select", "report", "publish"),
    "reports/claims.json": ("report",),
    "reports/probe.csv": ("report",),
    "reports/perturbations.csv": ("report",),
    "reports/errors.json": ("report",),
    "selected/*": ("report", "promote"),
    "studies/results/ratio.json": ("compare", "report"),
    f"{DEPLOYED}/current.json": ("score", "watch", "correct", "prepare", "deployed"),
    f"{DEPLOYED}/.announced": ("announced",),
    f"{DEPLOYED}/0001/manifest.json": ("watch", "list"),
    f"{DEPLOYED}/0001/*": ("watch",),
    f"{DEPLOYED}/0001/model/*": ("watch",),
    f"{DEPLOYED}/0002/manifest.json": ("score", "deployed", "correct", "prepare"),
    f"{DEPLOYED}/0002/*": ("score", "correct"),
    f"{DEPLOYED}/0002/model/*": ("score",),
    "production/answered/w3.sqlite": ("answered", "verify"),
    "production/to_label/*": ("verify",),
    "production/labels/project-1.parquet": ("feedback", "verify"),
    "production/scored/w1.parquet": ("watch", "feedback"),
    "production/watch/w1.json": ("correct", "watch", "prepare", "decided"),
    "production/feedback.parquet": ("feedback", "watch", "prepare"),
    "production/retrain/w1/challenge.json": ("conclude",),
    "production/retrain/old/decision.json": ("decision",),
}


@dataclass(frozen=True)
class Flip:
    """One byte of a file, and the command that reads the file then."""

    name: str
    command: str
    position: int
    mask: int

    def apply(self, folder: Path) -> None:
        """Change the byte and keep the file's times."""
        path = folder / self.name
        times = path.stat()
        content = bytearray(path.read_bytes())
        content[self.position] ^= self.mask
        mode = times.st_mode
        path.chmod(0o644)
        path.write_bytes(content)
        path.chmod(mode)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def called(function: Callable[[], object], folder: Path) -> Outcome:
    """Call a function of the flows in a folder and return its outcome as that of a command."""
    with contextlib.chdir(folder):
        try:
            return Outcome(0, "", json.dumps(function(), sort_keys=True))
        except UserError as error:
            return Outcome(1, f"error: {error}\n")


def verified() -> None:
    """Raise the first error that `make verify` prints for the files in `production/`."""
    for failure in failures(production()):
        raise UserError(failure)


def commands() -> dict[str, Callable[[Project], Outcome]]:
    """The commands that read files, by name. Only the reading functions of the flows run, without a server."""
    from flows.deployed import deployed_manifest, n_announced
    from flows.pipeline import LEADERBOARD, leaderboard_table
    from flows.retrain import decision_of
    from flows.state import read_state

    def stage(name: str, /, **given: Any) -> Callable[[Project], Outcome]:
        return lambda project: project.stage_here(name, **given)

    def of_flows(function: Callable[[], object]) -> Callable[[Project], Outcome]:
        return lambda project: called(function, project.folder)

    flags = dict.fromkeys(("rollback", "listing", "dry_run"), False)
    deploying = {"source": Path(), "reason": "promote", "window": None, "reprior": None, "only": None, **flags}
    entry = {"name": "tfidf"}
    simple = ("ingest", "validate", "techniques", "probe", "compare", "errors", "select", "report", "feedback")
    return {
        **{name: stage(name) for name in simple},
        "evaluate": stage("evaluate", **entry),
        "resample": stage("resample", **entry, seed=0),
        "train": stage("train", **entry, seed=0),
        # The selected model is older than the deployed one.
        "promote": stage("promote", **deploying | {"dry_run": True, "force": True}),
        "correct": stage("promote", **deploying | {"dry_run": True, "reprior": "w1"}),
        "list": stage("promote", **deploying | {"listing": True}),
        "score": stage("score", source="incoming/w1.parquet", window="w2"),
        "answered": stage("score", source=None, window="w3"),
        "verify": of_flows(verified),
        "watch": stage("watch", window="w1"),
        "prepare": stage("retrain", step="prepare", key="again", window="w1", version=None),
        "conclude": stage("retrain", step="conclude", key="w1", window="w1", version="0001"),
        "decision": of_flows(lambda: decision_of(Path("production/retrain/old"))),
        "decided": of_flows(lambda: read_state(Path("production/watch/w1.json"))),
        "deployed": of_flows(deployed_manifest),
        "announced": of_flows(n_announced),
        "publish": of_flows(lambda: leaderboard_table(read_state(Path(LEADERBOARD)))),
    }


def built(folder: Path, python: Path) -> Project:
    """A project that contains every kind of file."""
    from flows.deployed import ANNOUNCED
    from flows.state import write_state
    from stages.store.files import write_json

    # The technique takes no training steps, so this curve is simulated.
    project = selected_project(folder, python, COUNTS)
    project.edit({"train.frozen_layers": "auto"})
    for stage in ("encoder", "validate", "errors"):
        done(project.stage_here(stage))
    for result in (ROOT / "studies/results").glob("*.json"):
        shutil.copy(result, project.folder / "studies/results")
    curve = project.folder / "curves/tfidf/0"
    (curve / "plots/metrics").mkdir(parents=True, exist_ok=True)
    (curve / "plots/metrics/loss.tsv").write_text("step\tloss\n1\t0.51\n2\t0.25\n", encoding="utf-8")
    files = (path for path in sorted(curve.rglob("*")) if path.is_file() and path.name != "files.json")
    write_json(curve / "files.json", {"files": {path.relative_to(curve).as_posix(): file_sha256(path) for path in files}})
    for stage in ("compare", "select", "report"):
        done(project.stage_here(stage))
    promote(project)
    score(project, "w1", traffic(SHIFTED))
    label(project, "w1", traffic(SHIFTED))
    watch(project, "w1")
    tasks = [{"message_id": row.id, "text": "", "label": row.label} for row in traffic(SHIFTED).itertuples()]
    project.write("project-1.json", json.dumps(tasks).encode())
    done(project.stage_here("label_studio", action="export", name="w1"))
    done(project.stage_here("label_studio", action="import", name="project-1.json"))
    answer(project, "w3", traffic(SHIFTED, seed=2))
    promote(project, reprior="w1")
    prepared = {"window": "w1", "prior": {"ham": 0.6, "spam": 0.4}, "shifted": True, "feedback": 400, "champion": "0001"}
    project.write("production/retrain/w1/challenge.json", {**prepared, "not_worse": True})
    project.write("production/retrain/old/decision.json", {**prepared, "decision": "kept", "version": "0001"})
    with contextlib.chdir(project.folder):
        write_state(ANNOUNCED, {"announced": 2})
    return project


def done(outcome: Outcome) -> None:
    """Raise AssertionError if a command failed."""
    assert outcome.code == 0, outcome.stderr


def draw(project: Project, count: int, seed: int) -> Iterator[Flip]:
    """Draw the given number of flips, from each kind of file in turn."""
    rng = np.random.default_rng(seed)
    kinds: list[str] = []
    for _ in range(count):
        kinds = kinds or [str(kind) for kind in rng.permutation(list(READERS))]
        kind = kinds.pop()
        files = sorted(path for path in project.folder.glob(kind) if path.is_file() and path.stat().st_size)
        path = files[rng.integers(len(files))]
        # Either one bit flips, or the byte gets another value.
        mask = 1 << int(rng.integers(8)) if rng.random() < 0.5 else int(rng.integers(1, 256))
        command = READERS[kind][rng.integers(len(READERS[kind]))]
        yield Flip(path.relative_to(project.folder).as_posix(), command, int(rng.integers(path.stat().st_size)), mask)


@dataclass
class Flipping:
    """Runs commands on copies of a project, always in the same folder, because some files hold absolute paths."""

    project: Project
    work: Path
    commands: Mapping[str, Callable[[Project], Outcome]] = field(default_factory=commands)
    undisturbed: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)

    def result(self, command: str, flip: Flip | None) -> tuple[Outcome, dict[str, str]]:
        """The outcome of a command, after a flip or undisturbed, and the sha256 of all files afterwards."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.project.folder, self.work, symlinks=True)
        copy = Project(self.work, self.work, self.project.environment)
        if flip is not None:
            flip.apply(self.work)
        with warnings_ignored():
            outcome = self.commands[command](copy)
        files = (path for path in sorted(self.work.rglob("*")) if path.is_file() and not path.is_symlink())
        names = {path.relative_to(self.work).as_posix(): path for path in files}
        return outcome, {
            name: file_sha256(path)
            for name, path in names.items()
            if not any(part in f"{name}" for part in NOT_COMPARED) and not name.endswith(".lock")
        }

    def verdict(self, flip: Flip) -> str:
        """The verdict on a flip: found, harmless, silent, or unclear if the error does not say what to do about the file."""
        if flip.command not in self.undisturbed:
            expected, clean = self.result(flip.command, None)
            # A command that fails anyway would hide what a flip does.
            done(expected)
            self.undisturbed[flip.command] = expected.stdout, clean
        outcome, files = self.result(flip.command, flip)
        if outcome.code:
            with contextlib.chdir(self.work):
                advice = remedy(Path(flip.name))
            named = flip.name in outcome.stderr and advice in outcome.stderr
            return "found" if named and "Traceback" not in outcome.stderr else "unclear"
        stdout, clean = self.undisturbed[flip.command]
        before = file_sha256(self.project.folder / flip.name)
        # The flipped file itself differs unless the command rewrote it.
        same = {name for name in files if files[name] == clean.get(name)}
        others = (files.keys() | clean.keys()) - same - {flip.name}
        rewritten = clean.get(flip.name) not in (None, before)
        if outcome.stdout == stdout and not others and not (rewritten and flip.name not in same):
            return "harmless"
        return "silent"


@contextlib.contextmanager
def warnings_ignored() -> Iterator[None]:
    """Ignore the warnings of libraries."""
    import warnings

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def tried(project: Project, work: Path, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Try the given number of flips; return the count of each verdict and a line for each failure."""
    flipping, verdicts, wrong = Flipping(project, work), Counter[str](), list[str]()
    for flip in tqdm(draw(project, count, seed), desc="flips", total=count, disable=None):
        verdict = flipping.verdict(flip)
        verdicts[verdict] += 1
        if verdict in ("silent", "unclear"):
            wrong.append(f"{verdict}: {flip}")
            tqdm.write(wrong[-1], file=sys.stderr)
    return verdicts, wrong


def main(flips: int, seed: int) -> None:
    print(f"flips: {flips} with seed {seed}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with prepared_python(IN_TESTS, wait=True) as python:
            project = built(folder / "project", python)
            verdicts, wrong = tried(project, folder / "work", flips, seed)
    counts = {name: verdicts[name] for name in ("found", "harmless", "silent", "unclear")}
    command = f"make test-flips FLIPS={flips} SEED={seed}"
    result = {"command": command, "counts": {"tried": flips, **counts}, "kinds": len(READERS), "seed": seed, **surroundings()}
    print(json.dumps(result["counts"], sort_keys=True))
    write_result("flips", result)
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    arguments.add_argument("--flips", type=int, default=100, help="how many (default 100)")
    arguments.add_argument("--seed", type=int, default=0, help="which ones (default 0)")
    main(**vars(arguments.parse_args()))

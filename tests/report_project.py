"""A project with made-up messages and logits, in which the stages from evaluate to report have run."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ballast.io.digest import file_sha256
from stages.pages.report.results import Results
from stages.store.checked import FILES, write_arrays
from stages.store.files import read_json, write_json
from stages.store.messages import Messages, read_messages
from stages.store.project import PROJECT
from tests.project import Project, workspace

with warnings.catch_warnings():
    # On import Evidently uses numpy.core, and Litestar under it, what they deprecate.
    warnings.simplefilter("ignore", DeprecationWarning)
    from stages.report import read_results

FOLDS, TEST = 8, 0.35
INTENTS = dict(zip((f"intent {letter}" for letter in "abcdefgh"), (500, 260, 150, 90, 60, 45, 40, 30), strict=True))
PARAMETERS = {"first": 82_400, "others": 22_700_000}


@dataclass(frozen=True)
class Built:
    """A project whose report was written."""

    project: Project
    texts: list[str]

    @property
    def reports(self) -> Path:
        return self.project.folder / PROJECT.reports

    def read(self, path: Path) -> Any:
        return read_json(self.project.folder / path)

    def html(self, name: str) -> str:
        return (self.reports / name).read_text(encoding="utf-8")

    @property
    def board(self) -> dict[str, Any]:
        made: dict[str, Any] = self.read(PROJECT.leaderboard)
        return made

    @property
    def rarest(self) -> str:
        prior = self.board["production_prior"]
        return min(self.board["labels"], key=lambda label: prior[label])

    @property
    def selected(self) -> str:
        return str(self.read(PROJECT.selected / "model.json")["technique"])

    def evaluation(self, name: str) -> dict[str, Any]:
        made: dict[str, Any] = self.read(PROJECT.evaluations / f"{name}.json")
        return made

    def results(self) -> Results:
        with contextlib.chdir(self.project.folder):
            return read_results(read_messages(["text"]))[0]

    def stage(self, stage: str, **arguments: Any) -> None:
        with contextlib.chdir(self.project.folder):
            import_module(f"stages.{stage}").main(**arguments)

    def copy(self, folder: Path) -> Built:
        """A copy of the project in another folder."""
        shutil.copytree(self.project.folder, folder)
        return dataclasses.replace(self, project=dataclasses.replace(self.project, folder=folder))


def folds_of(counts: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Label and fold of each message; -1 is test. Neighbours are near duplicates of each other and share a fold."""
    for label, count in counts.items():
        n_test = round(TEST * count / 2) * 2
        for at in range(count):
            yield label, -1 if at < n_test else (at - n_test) // 2 % FOLDS


def made_up_messages(counts: Mapping[str, int], texts: Sequence[str]) -> pd.DataFrame:
    """A shuffled table of messages; each holds one of the texts."""
    rows = pd.DataFrame(folds_of(counts), columns=["label", "fold"]).astype({"fold": np.int16})
    rows["split"] = np.where(rows["fold"] < 0, "test", "train")
    rows["text"] = [f"{texts[at % len(texts)]} number {at}" for at in range(len(rows))]
    rows = rows.assign(id=rows.index.astype(str), group=rows.index // 2, source="made up")
    return rows.sample(frac=1, random_state=0).reset_index(drop=True)


def ingested(rows: pd.DataFrame, labels: Sequence[str]) -> dict[str, Any]:
    """What the stage ingest says about the messages."""

    def counted(some: pd.DataFrame) -> dict[str, int]:
        return {label: int((some["label"] == label).sum()) for label in labels}

    splits = {split: counted(rows[rows["split"] == split]) for split in ("train", "validation", "test")}
    ingest = {"rows": len(rows) + 5, "kept": len(rows), "dropped": {"duplicate": 4, "conflict": 1}, "groups": len(rows) // 2}
    ingest |= {"feedback": 0, "labels": counted(rows), "splits": splits, "served_by": "made <i>up</i>", "sha256": "ab" * 32}
    return ingest | {"folds": [counted(rows[rows["fold"] == fold]) for fold in range(FOLDS)]}


def made_up_lengths(rows: pd.DataFrame) -> dict[str, Any]:
    """What the stage validate says about the lengths of the messages: every tenth of the rarest class is longer."""
    counts = rows["label"].value_counts()
    by_class = {label: {"messages": int(n), "longer": 0, "share_of_tokens_cut": 0.0} for label, n in counts.items()}
    rarest = by_class[counts.index[-1]]
    rarest |= {"longer": rarest["messages"] // 10, "share_of_tokens_cut": 0.05}
    all_classes = {"messages": len(rows), "longer": rarest["longer"], "share_of_tokens_cut": 0.003}
    settings = {"encoder": "minilm", "max_length": 128, "limit": 128, "positions": 512, "sufficient": 256}
    settings |= {"long_texts": "truncate"}
    return {**settings, "all": all_classes, "by_class": by_class}


def scores_of(messages: Messages, seed: int, strength: float | None, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The logits of one training: the class shares and, with a strength, as much evidence for the true class."""
    rows = {"validation": messages.validation(seed), "test": messages.test(), "train": messages.train(seed)}
    prior = messages.counts(messages.table) / len(messages.table)
    logits = {}
    for split, of_split in rows.items():
        logits[split] = np.tile(np.log(prior), (len(of_split), 1))
        if strength is not None:
            truth = np.eye(len(prior))[of_split["class"]]
            logits[split] += rng.normal(0, 1.2, logits[split].shape) + (strength + rng.normal(0, 0.05)) * truth
    numbers = {f"{split}_rows": of_split.index.to_numpy(dtype=np.int64) for split, of_split in rows.items()}
    return {**logits, **numbers, "train_classes": rows["train"]["class"].to_numpy()}


def write_losses(folder: Path, steps: int) -> None:
    """The training loss of each step, as a training saves it."""
    path = folder / "plots" / "metrics" / "loss.tsv"
    path.parent.mkdir(parents=True)
    rows = [f"{step}\t{1 / step}" for step in range(1, steps + 1)]
    path.write_text("\n".join(["step\tloss", *rows]) + "\n", encoding="utf-8")
    write_json(folder / FILES, {"files": {path.relative_to(folder).as_posix(): file_sha256(path)}})


def build(
    folder: Path, counts: Mapping[str, int], techniques: Mapping[str, str], seeds: Sequence[int], texts: Sequence[str]
) -> Built:
    """Write logits of made-up models for made-up messages, run the stages from evaluate to report on them.

    techniques : name of the entry -> file of the technique; a majority answers the shares, the others are often right, the
        later ones more often.
    texts : of the probe; each message holds one of them too.
    """
    rng = np.random.default_rng(0)
    project = workspace(folder)
    project.edit(
        {
            "techniques": {name: {"technique": file} for name, file in techniques.items()},
            "train.seeds": list(seeds),
            "evaluate.resamples": 100,
            "probe.texts": list(texts),
        }
    )
    labels = sorted(counts)
    rows = made_up_messages(counts, texts)
    project.write(str(PROJECT.messages), rows)
    write_json(folder / PROJECT.ingest, ingested(rows, labels))
    held = {"name": f"enough {labels[0]}", "success": True, "severity": "critical", "observed": 1234, "expected": "at least 3"}
    failed = held | {"name": "is a warning", "success": False, "severity": "warning"}
    lengths = made_up_lengths(rows)
    write_json(folder / PROJECT.validation, {"success": True, "expectations": [held, failed], "lengths": lengths})
    built = Built(project, list(texts))
    with contextlib.chdir(folder):
        messages = read_messages([])
    prior = messages.counts(messages.table) / len(rows)
    for at, (name, file) in enumerate(techniques.items()):
        write_json(folder / PROJECT.cards / f"{name}.json", {"name": name, "technique": file, "parameters": {}, "sources": {}})
        size = PARAMETERS["others" if at else "first"]
        constants = {
            "declared_prior": prior if at % 2 else np.full(len(labels), np.nan),
            "parameters": size,
            "multiply_adds": 10 * size,
        }
        probes = {}
        for seed in seeds:
            path = folder / PROJECT.logits / name / f"{seed}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            strength = None if file == "majority" else 2 + at / len(techniques)
            write_arrays(path, scores_of(messages, seed, strength, rng) | constants)
            if file == "focal":
                write_losses(folder / PROJECT.curves / name / str(seed), steps=40)
            probes[str(seed)] = rng.normal(0, 2, (len(texts), len(labels))).tolist()
        # The first text was too long once it was perturbed.
        left_out = {"texts": list(texts), "scored": list(range(1, len(texts))), "skipped": {"0": "too long"}}
        perturbed = {"leet": {**left_out, "logits": {seed: of_texts[1:] for seed, of_texts in probes.items()}}}
        probe = {"texts": list(texts), "labels": labels, "logits": probes, "perturbed": perturbed}
        # The first technique reads texts of any length.
        probe["max_length"] = 128 if at else None
        write_json(folder / PROJECT.probes / f"{name}.json", probe)
        built.stage("evaluate", name=name)
    for stage in ("compare", "errors", "select"):
        built.stage(stage)
    built.stage("report")
    return built

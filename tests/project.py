"""A temporary copy of the project to run stages and DVC in, and synthetic messages to feed it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from ballast.cli import run
from ballast.exceptions import TEMPORARY
from stages.store.checked import write_table
from stages.store.files import write_json

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).resolve().parents[1]
# The models of the tests are so small that a second thread costs more than it gives.
THREADS = "1"
# Results of earlier runs: a copy starts without them.
RESULTS = ("dvc.lock", "studies/*/dvc.lock", "studies/results/*.json", "data/ingest.json", "reports/*")
yaml = YAML(typ="safe", pure=True)
yaml.default_flow_style = False

SYLLABLES = [a + b for a, b in product("bdkmt", "aeo")]
# 225 words: each of at most eight classes has eight of its own, the rest are anybody's.
WORDS = [a + b for a, b in product(SYLLABLES, SYLLABLES)]
OWN = 8


def stage_module(name: str) -> str:
    """The module of a stage of the graph, of a step of production, or of another command, on whichever shelf it is."""
    path = name.replace(".", "/")
    shelf = next(
        shelf
        for shelf in ("", "production.", "store.", "study.")
        if (ROOT / f"stages/{shelf.replace('.', '/')}{path}.py").is_file()
    )
    return f"stages.{shelf}{name}"


def corpus(counts: Mapping[str, int], *, seed: int = 0, twins: float = 0.1, noise: float = 0.1) -> pd.DataFrame:
    """Made-up messages (text, label), as many of each class as asked for, all different, shuffled.

    A class shows in the words of its own that a message holds; a share `noise` of the messages holds those of another class. A
    share `twins` repeats an earlier message of its class with another number: a near duplicate.
    """
    rng = np.random.default_rng(seed)
    shared = WORDS[OWN * len(counts) :]
    rows: list[tuple[str, str]] = []
    for index, (label, count) in enumerate(counts.items()):
        sentences: list[list[str]] = []
        for _ in range(count):
            if sentences and rng.random() < twins:
                words = sentences[rng.integers(len(sentences))]
            else:
                shown = rng.integers(len(counts)) if rng.random() < noise else index
                own = WORDS[OWN * shown : OWN * (shown + 1)]
                words = [*rng.choice(shared, rng.integers(4, 9)), *rng.choice(own, 2)]
                sentences.append(words)
            rows.append((f"{' '.join(words)} {10_000 + len(rows)}", label))
    order = rng.permutation(len(rows))
    return pd.DataFrame([rows[at] for at in order], columns=["text", "label"])


def tiny_encoder(folder: Path, layers: int = 2) -> Path:
    """Save a BERT with random weights that knows the corpus's words; a value for train.model."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    digits = "0123456789"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *digits, *(f"##{digit}" for digit in digits)]
    BertTokenizerFast(vocab={token: index for index, token in enumerate(tokens)}).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "initializer_range": 0.2,
    }
    BertModel(BertConfig(vocab_size=len(tokens), max_position_embeddings=64, **sizes)).save_pretrained(folder)
    return folder


# Settings under which the tiny encoder trains in a second, on all machines alike.
TINY_TRAINING = {
    "epochs": 1,
    "batch_size": 256,
    "learning_rate": 0.003,
    "max_length": 32,
    "frozen_layers": 0,
    "precision": "fp32",
}
# The numbers that the stage `encoder` chooses for the example, which takes a minute.
NOT_AUTO = {"train.learning_rate": 5e-4, "train.frozen_layers": 5}


def environment(**changes: str) -> dict[str, str]:
    """This process's environment with the interpreter's programs first and one thread."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": THREADS, "DVC_NO_ANALYTICS": "1", **changes}


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    stderr: str
    stdout: str = ""

    @property
    def error(self) -> str:
        """The one readable line that a failed command ends with."""
        errors = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        assert self.code in (1, TEMPORARY), f"exit code {self.code}\n{self.stderr}"
        assert len(errors) == 1 and self.stderr.rstrip().endswith(errors[0]), self.stderr
        assert "Traceback" not in self.stderr, self.stderr
        assert ": :" not in errors[0], errors[0]
        return errors[0]


@dataclass(frozen=True)
class Project:
    """A folder with params.yaml and what else the stages need; `code` is where ballast and stages are."""

    folder: Path
    code: Path
    environment: dict[str, str] = field(default_factory=environment)

    def edit(self, changes: Mapping[str, Any]) -> None:
        """Set keys of params.yaml, named as in "ingest.path"."""
        path = self.folder / "params.yaml"
        params = yaml.load(path)
        for key, value in changes.items():
            *sections, last = key.split(".")
            section = params
            for name in sections:
                section = section[name]
            section[last] = value
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(params, file)

    def write(self, name: str, content: bytes | pd.DataFrame | Mapping[str, Any]) -> Path:
        """Write a file; a table in the format of the name's ending, JSON and parquet with their digests."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, Mapping):
            write_json(path, content)
        elif path.suffix == ".parquet":
            write_table(path, content)
        elif path.suffix == ".jsonl":
            content.to_json(path, orient="records", lines=True)
        else:
            content.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
        return path

    def run(self, *command: str, **changes: str) -> Outcome:
        """Run a command in the folder, with changes of the environment."""
        env = self.environment | {"PYTHONPATH": str(self.code)} | changes
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)
        return Outcome(done.returncode, done.stderr, done.stdout)

    def stage(self, name: str, *arguments: str, **changes: str) -> Outcome:
        """Run a stage as a user does."""
        return self.run(sys.executable, "-m", stage_module(name), *arguments, **changes)

    def stage_here(self, name: str, /, **arguments: Any) -> Outcome:
        """Run a stage of the checkout within this process, which saves its imports."""
        main = import_module(stage_module(name)).main
        stderr, stdout = io.StringIO(), io.StringIO()
        code: str | int | None = 0
        with contextlib.chdir(self.folder), contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(stdout):
            try:
                run(main, Namespace(traceback=False, **arguments))
            except SystemExit as end:
                code = end.code
        if isinstance(code, str):  # what the interpreter does with it
            print(code, file=stderr)
        return Outcome(1 if isinstance(code, str) else code or 0, stderr.getvalue(), stdout.getvalue())

    def repro(self, *arguments: str) -> set[str]:
        """Run `dvc repro`: the stages that ran."""
        done = self.run("dvc", "repro", *arguments)
        assert done.code == 0, done.stderr
        return ran(done.stdout)


def ran(output: str) -> set[str]:
    """The stages that DVC says it runs."""
    return set(re.findall(r"Running stage '([^']+)'", output))


def workspace(folder: Path) -> Project:
    """A folder with params.yaml and data only; the stages run from the checkout."""
    for name in ("params.yaml", "data/feedback.parquet"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "data/raw").mkdir()
    made = Project(folder, ROOT)
    made.edit({"ingest.source": "file", "ingest.path": "messages.csv", "train.seeds": [0], **NOT_AUTO})
    return made


def project_copy(folder: Path, python: Path | None = None) -> Project:
    """A copy of the project without its results, committed, where DVC works, with the `python` of another folder or ours.

    It trains with one seed.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if not any(fnmatch(name, pattern) for pattern in RESULTS) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    Project(folder, folder).edit({"train.seeds": [0], **NOT_AUTO})
    as_somebody = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    for command in (["init", "--quiet"], ["add", "."], [*as_somebody, "commit", "--quiet", "--no-verify", "-m", "A copy"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    made = environment(DVC_SITE_CACHE_DIR=str(folder / ".dvc/tmp/site"))
    return Project(folder, folder, made if python is None else made | {"PATH": f"{python}{os.pathsep}{made['PATH']}"})


def project_with_window(folder: Path, python: Path | None) -> Project:
    """A copy of the project with few messages, a window of another class prior, and the window's labels."""
    project = project_copy(folder, python)
    project.write("messages.csv", corpus({"ham": 900, "spam": 150}))
    window = corpus({"ham": 240, "spam": 160}, seed=1)
    window = window.assign(id=[f"m{row}" for row in range(len(window))])
    project.write("incoming/w1.csv", window[["id", "text"]])
    project.write("labels.csv", window[["id", "label"]])
    project.edit(
        {
            "ingest.source": "file",
            "ingest.path": "messages.csv",
            "evaluate.resamples": 100,
            "production.score.id_column": "id",
        }
    )
    return project


def copied(built: Project, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of a prepared project for one test, whose environment is that of this process too."""
    shutil.copytree(built.folder, folder, symlinks=True)
    for name, value in built.environment.items():
        monkeypatch.setenv(name, value)
    return Project(folder, folder, built.environment)

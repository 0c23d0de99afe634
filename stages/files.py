"""Reading and writing the pipeline's files: to a temporary name first, then renamed, so that nothing is lost."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ballast.digest as digest
from stages.remedies import missing, spoilt

MESSAGES = Path("data/messages.parquet")
FEEDBACK = Path("data/feedback.parquet")
INGEST = Path("data/ingest.json")
VALIDATION = Path("data/validation.json")
SEARCH = Path("data/search.json")
CARDS = Path("data/techniques")
SOURCES = Path("data/sources")
SAMPLES = Path("data/samples")
MODELS = Path("models")
STATES = Path("data/states")
LOGITS = Path("logits")
CURVES = Path("curves")
DURATIONS = Path("durations")
# Of trainings that go on; no outputs of DVC, which removes those before a stage runs.
# Elsewhere where a training may go on in another container than the one that began it.
CHECKPOINTS = Path(os.environ.get("BALLAST_CHECKPOINTS", "checkpoints"))
EVALUATIONS = Path("evaluations")
PROBES = Path("probes")
REPORTS = Path("reports")
LEADERBOARD = REPORTS / "leaderboard.json"
CLAIMS = REPORTS / "claims.json"
METRICS = REPORTS / "metrics.json"
PROBE_TABLE = REPORTS / "probe.csv"
PERTURBATION_TABLE = REPORTS / "perturbations.csv"
ERRORS = REPORTS / "errors.json"
PRECISION_RECALL = REPORTS / "precision_recall.csv"
TRAINING_LOSS = REPORTS / "training_loss.csv"
SELECTED = Path("selected")
MODEL_CARD = SELECTED / "model_card.md"
# State outside the graph, so that there is no cycle.
PRODUCTION = Path("production")
DEPLOYED = PRODUCTION / "deployed"
SCORED = PRODUCTION / "scored"
QUARANTINE = PRODUCTION / "quarantine"
LABELS = PRODUCTION / "labels"
WATCH = PRODUCTION / "watch"
RETRAIN = PRODUCTION / "retrain"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file or folder, after waiting for another process that has it; a process that is killed lets go.

    What a killed process left half-written beside `path` is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_partial(path)
        yield


def remove_partial(path: Path) -> None:
    """Remove what a killed process left half-written beside a path, which no other process writes just now."""
    for left in path.parent.glob(f".{path.name}.*.partial"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to; it takes the place of `path` only when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` to write to; it takes the place of `path` only when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        written = temporary / "new"
        written.mkdir()
        yield written
        if path.exists():
            path.rename(temporary / "old")
        written.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with sorted keys and its digest; equal content gives equal bytes."""
    write_plain_json(path, digest.with_digest(content))


def write_plain_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys without a digest, for those who read it elsewhere, or with one that another file holds."""
    with replaced(path) as temporary:
        text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that is as it was written, without its digest; raises UserError that says what makes it anew."""
    try:
        return digest.parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise missing(path) from error
    except digest.DigestError as error:
        raise spoilt(path, error) from error
    except ValueError as error:
        raise spoilt(path, f"not valid JSON ({error})") from error

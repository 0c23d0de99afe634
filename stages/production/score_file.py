"""Score one file of a file system into a folder of another one: the task of a worker."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from pyarrow import parquet

import ballast.io.digest as digest
from ballast.exceptions import UserError, user_error
from ballast.io.digest import file_sha256
from ballast.io.urls import register_secrets
from ballast.models.base import Model
from stages.production.deployed import Version
from stages.production.incoming import local_rows
from stages.production.scoring import Outputs, Scoring, columns_of, dialect_of, disk_full_as_user_error, score_rows
from stages.store.files import locked, replaced
from stages.store.params import Params
from stages.store.places import error_text

QUARANTINED = "_quarantine"
NOTHING = {"scored": 0, "quarantined": 0, "anew": False}


@dataclass(frozen=True)
class Target:
    """The folder for the scores: a path of a file system."""

    system: Any
    root: str

    def at(self, name: str) -> str:
        """The path of a file in the folder."""
        return f"{self.root.rstrip('/')}/{name}"

    @contextmanager
    def only_one(self, name: str) -> Iterator[None]:
        """Lock a file if the file system has locks; without locks, concurrent writers write the same content."""
        if isinstance(self.system, LocalFileSystem):
            with locked(Path(self.at(name))):
                yield
        else:
            yield

    @contextmanager
    def replaced(self, name: str) -> Iterator[Path]:
        """A local file to write to; it takes the place of a file in the folder only when the block succeeds."""
        if isinstance(self.system, LocalFileSystem):
            with replaced(Path(self.at(name))) as temporary:
                yield temporary
            return
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "written"
            yield written
            self.system.put_file(str(written), self.at(name))

    def removed(self, name: str) -> None:
        """Delete a file of the folder if it exists."""
        if self.system.exists(self.at(name)):
            self.system.rm_file(self.at(name))

    def metadata(self, name: str) -> dict[str, Any]:
        """The metadata of the scores in a file; empty if there is no file, or if it is damaged."""
        if isinstance(self.system, LocalFileSystem) and not Path(self.at(name)).is_file():
            return {}
        try:
            with self.system.open(self.at(name), "rb") as file:
                digest.check(file)
                return dict(json.loads(parquet.read_schema(file).metadata[b"ballast"]))
        # Each kind of storage has its own errors.
        except Exception:
            return {}


@contextmanager
def local_file(system: Any, path: str) -> Iterator[Path]:
    """A local copy of a file, which is read for its sha256 and for its rows."""
    if isinstance(system, LocalFileSystem):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "read"
        system.get_file(path, str(local))
        yield local


def output_name(name: str) -> str:
    """The file with the scores of a file."""
    return name if name.endswith(".parquet") else f"{name}.parquet"


def written_for(name: str) -> tuple[str, str]:
    """The files for the scores and for the quarantined rows of a file."""
    return output_name(name), f"{QUARANTINED}/{name}.jsonl"


@dataclass(frozen=True)
class Scorer:
    """Scores files of a file system with a loaded model into a folder."""

    system: Any
    target: Target
    params: Params
    version: Version
    model: Model

    def result(self, source: str, path: str, name: str) -> dict[str, Any]:
        """The result for a file: counts of rows, whether it was scored now, and an error, which affects no other file."""
        # A worker on another machine has not opened the URL of the source.
        register_secrets(path)
        try:
            return {"source": source, "error": "", **self.score(source, path, name)}
        except UserError as error:
            return {"source": source, "error": str(error), **NOTHING}
        except Exception as error:
            return {"source": source, "error": f"{source}: {type(error).__name__}: {error_text(error)}", **NOTHING}

    def score(self, source: str, path: str, name: str) -> dict[str, Any]:
        """Score a file, unless it has scores of the same bytes, model and settings; raises UserError."""
        columns, dialect = columns_of(self.params), dialect_of(self.params)
        scores, quarantine = written_for(name)
        with ExitStack() as stack:
            stack.enter_context(disk_full_as_user_error(self.target.at(scores)))
            try:
                local = stack.enter_context(local_file(self.system, path))
                sha256 = file_sha256(local)
            # Each kind of storage has its own errors.
            except Exception as error:
                raise user_error(f"{source}: cannot be read: {error_text(error)}", error) from error
            for name_written in (scores, quarantine):
                stack.enter_context(self.target.only_one(name_written))
            limits = self.params.production.score.model_dump(include={"longest_text", "quarantine"})
            settings = {"text": columns.text, "id": columns.id, **limits, **dialect.model_dump(exclude_none=True)}
            made_from = {"source_sha256": sha256, "settings": settings}
            present = self.target.metadata(scores)
            if {**made_from, "sha256": self.version.sha256}.items() <= present.items():
                return {"scored": present["scored"], "quarantined": present["quarantined"], "anew": False}
            try:
                counts = score_rows(
                    local_rows(local, source, columns, dialect, tell=False),
                    name,
                    source,
                    Scoring(params=self.params, version=self.version, model=self.model),
                    Outputs(
                        scored=self.target.replaced(scores),
                        quarantine=self.target.replaced(quarantine),
                        quarantine_name=self.target.at(quarantine),
                    ),
                    metadata=made_from,
                    progress=lambda rows: None,
                )
            except UserError:
                # The old scores are of other bytes or of another model, so they must not stay under this name.
                self.target.removed(scores)
                raise
            if not counts.quarantined:
                self.target.removed(quarantine)
        return {"scored": counts.scored, "quarantined": counts.quarantined, "anew": True}

"""Scoring one file of any file system into a folder of any other, once: what a worker does."""

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
from stages.production.incoming import read_file
from stages.production.scoring import Outputs, Scoring, columns_of, disk_full_as_user_error, score_rows
from stages.store.files import locked, replaced
from stages.store.params import Params
from stages.store.places import error_text

QUARANTINED = "_quarantine"
NOTHING = {"scored": 0, "quarantined": 0, "anew": False}


@dataclass(frozen=True)
class Target:
    """The folder at a path of a file system where scores are written."""

    system: Any
    root: str

    def at(self, name: str) -> str:
        """The path of a file in the folder."""
        return f"{self.root.rstrip('/')}/{name}"

    @contextmanager
    def only_one(self, name: str) -> Iterator[None]:
        """Keep other processes from writing a file, where files can be locked; elsewhere both write the same, whole."""
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
        """Delete a file of the folder, if it is there."""
        if self.system.exists(self.at(name)):
            self.system.rm_file(self.at(name))

    def about(self, name: str) -> dict[str, Any]:
        """What is kept with the scores in a file; empty where there is none, or not one that is as it was written."""
        if isinstance(self.system, LocalFileSystem) and not Path(self.at(name)).is_file():
            return {}
        try:
            with self.system.open(self.at(name), "rb") as file:
                digest.check(file)
                return dict(json.loads(parquet.read_schema(file).metadata[b"ballast"]))
        # Each kind of storage has errors of its own.
        except Exception:
            return {}


@contextmanager
def local_file(system: Any, path: str) -> Iterator[Path]:
    """A file as a local one, fetched once: it is read for its sha256 and for its rows."""
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
    """The files with the scores of a file and with its rows that are no messages."""
    return output_name(name), f"{QUARANTINED}/{name}.jsonl"


@dataclass(frozen=True)
class Scorer:
    """Scores files of one file system with a loaded model into a folder."""

    system: Any
    target: Target
    params: Params
    version: Version
    model: Model

    def result(self, source: str, path: str, name: str) -> dict[str, Any]:
        """What became of a file: how many rows, whether it was scored anew, or an error, which costs no other file anything."""
        # On another machine, which has not opened the source's URL.
        register_secrets(path)
        try:
            return {"source": source, "error": "", **self.score(source, path, name)}
        except UserError as error:
            return {"source": source, "error": str(error), **NOTHING}
        except Exception as error:
            return {"source": source, "error": f"{source}: {type(error).__name__}: {error_text(error)}", **NOTHING}

    def score(self, source: str, path: str, name: str) -> dict[str, Any]:
        """Score a file, unless its scores are there, of the same bytes, model and settings; raises UserError."""
        columns = columns_of(self.params)
        scores, quarantine = written_for(name)
        with ExitStack() as stack:
            stack.enter_context(disk_full_as_user_error(self.target.at(scores)))
            try:
                local = stack.enter_context(local_file(self.system, path))
                sha256 = file_sha256(local)
            # Each kind of storage has errors of its own.
            except Exception as error:
                raise user_error(f"{source}: cannot be read: {error_text(error)}", error) from error
            for name_written in (scores, quarantine):
                stack.enter_context(self.target.only_one(name_written))
            limits = self.params.production.score.model_dump(include={"longest_text", "quarantine"})
            settings = {"text": columns.text, "id": columns.id, **limits}
            made_from = {"source_sha256": sha256, "settings": settings}
            known = self.target.about(scores)
            if {**made_from, "sha256": self.version.sha256}.items() <= known.items():
                return {"scored": known["scored"], "quarantined": known["quarantined"], "anew": False}
            try:
                count, quarantined = score_rows(
                    read_file(LocalFileSystem(), source, str(local), columns),
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
                # What is there are scores of other bytes or by another model, which nobody is to take for this file's.
                self.target.removed(scores)
                raise
            if not quarantined:
                self.target.removed(quarantine)
        return {"scored": count, "quarantined": quarantined, "anew": True}

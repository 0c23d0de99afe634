"""The messages that the endpoint answered, by window: an SQLite database that each batch is written to before it is answered.

A batch is one transaction, and SQLite syncs it to the disk, so that a killed process leaves all of a batch or nothing. Each row
holds the sha256 of its content, which is checked whenever the row is read.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ballast.exceptions import UserError
from ballast.io.paths import regular_file
from stages.store.project import PROJECT
from stages.store.remedies import damaged

ENDING = ".sqlite"
# What SQLite has beside a database while a process uses it.
COMPANIONS = ("-wal", "-shm")
TABLE = """
CREATE TABLE IF NOT EXISTS answered (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL, answer TEXT NOT NULL, version TEXT NOT NULL,
    sha256 TEXT NOT NULL
)"""
COLUMNS = "id, text, answer, version, sha256"
# SQLite's default limit of variables in a statement was 999 for many years.
IDS_AT_ONCE = 900
# A reader holds no lock for longer.
BUSY_SECONDS = 30.0


class Answer(NamedTuple):
    """A message, its answer (label, probabilities, review, version), and the sha256 of the version's manifest."""

    id: str
    text: str
    answer: dict[str, Any]
    version: str


def path_of(window: str) -> Path:
    """The database of a window."""
    return PROJECT.answered / f"{window}{ENDING}"


def row_sha256(id_: str, text: str, answer: str, version: str) -> str:
    """The sha256 of a row's content."""
    return hashlib.sha256(json.dumps([id_, text, answer, version]).encode()).hexdigest()


def row_of(answer: Answer) -> tuple[str, str, str, str, str]:
    """The columns of an answer."""
    content = (answer.id, answer.text, json.dumps(answer.answer, sort_keys=True, ensure_ascii=False), answer.version)
    return (*content, row_sha256(*content))


def answer_of(path: Path, row: Sequence[str]) -> Answer:
    """The answer in the columns of a row; raises UserError if its sha256 is wrong."""
    *content, sha256 = row
    if not all(isinstance(value, str) for value in row) or row_sha256(*content) != sha256:
        raise damaged(path, "the sha256 of a row is wrong")
    return Answer(content[0], content[1], json.loads(content[2]), content[3])


class AnsweredMeanwhileError(UserError):
    """Another process has written an answer under the same id: a killed endpoint may leave one that finishes a batch."""


@contextmanager
def readable_errors(path: Path) -> Iterator[None]:
    """Raise SQLite's errors as UserError that names the file."""
    try:
        yield
    except sqlite3.OperationalError as error:
        # A text that is not UTF-8, whose error has no code and quotes the text, or another table.
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) == sqlite3.SQLITE_ERROR:
            raise damaged(path, "the table or a text is not as it was written") from error
        raise UserError(f"{path}: cannot be used: {error}; check the disk's space and the file's permissions") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise damaged(path, error) from error


class Answered:
    """The open database of a window; it is created if it is missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        regular_file(path)
        with readable_errors(path):
            self._database = sqlite3.connect(path, timeout=BUSY_SECONDS)
            # Readers do not wait for the writer, and a commit syncs one file.
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute(TABLE)

    def add(self, answers: Iterable[Answer]) -> None:
        """Write answers in one transaction; when this returns they are on the disk.

        Raises AnsweredMeanwhileError if the database has one of the ids.
        """
        values = ", ".join("?" for _ in COLUMNS.split(","))
        with readable_errors(self.path), self._database:
            try:
                self._database.executemany(f"INSERT INTO answered ({COLUMNS}) VALUES ({values})", map(row_of, answers))
            except sqlite3.IntegrityError as error:
                raise AnsweredMeanwhileError(str(damaged(self.path, error))) from error

    def find(self, ids: Sequence[str]) -> dict[str, Answer]:
        """The answers to those of the ids that have one, by id; raises UserError if a row is damaged."""
        answers = {}
        with readable_errors(self.path):
            for start in range(0, len(ids), IDS_AT_ONCE):
                some = ids[start : start + IDS_AT_ONCE]
                query = f"SELECT {COLUMNS} FROM answered WHERE id IN ({', '.join('?' for _ in some)})"
                answers.update({row[0]: answer_of(self.path, row) for row in self._database.execute(query, some)})
        return answers

    def close(self) -> None:
        """Close the database; SQLite then removes the files beside it."""
        self._database.close()


def opened(path: Path) -> sqlite3.Connection:
    """An existing database, to read; a writer does not wait for it."""
    regular_file(path)
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS)


def read_answered(path: Path) -> Iterator[Answer]:
    """The answers in a window's database, in the order in which they were given; raises UserError if it is damaged."""
    with readable_errors(path), closing(opened(path)) as database:
        for row in database.execute(f"SELECT {COLUMNS} FROM answered ORDER BY number"):
            yield answer_of(path, row)


def last_version(path: Path) -> tuple[str, str] | None:
    """The name and sha256 of the version that gave the last answer in a window's database; None if it has no answers."""
    with readable_errors(path), closing(opened(path)) as database:
        row = database.execute(f"SELECT {COLUMNS} FROM answered ORDER BY number DESC LIMIT 1").fetchone()
    if row is None:
        return None
    answer = answer_of(path, row)
    return str(answer.answer["version"]), answer.version


def check_answered(path: Path) -> None:
    """Raise UserError unless a database is whole and each row has the content that was written."""
    with readable_errors(path), closing(opened(path)) as database:
        ((result,),) = database.execute("PRAGMA integrity_check(1)")
    if result != "ok":
        raise damaged(path, result)
    for _ in read_answered(path):
        pass


def window_before(window: str) -> str | None:
    """The newest window with answers before a window; None if there is none. The names of windows sort by time."""
    names = [path.name.removesuffix(ENDING) for path in PROJECT.answered.glob(f"*{ENDING}")]
    return max((name for name in names if name < window), default=None)

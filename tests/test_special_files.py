"""What is no regular file where one is expected, long names, names that look like patterns, and permissions by the umask."""

from __future__ import annotations

import os
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ballast.exceptions import UserError
from ballast.io.paths import KINDS, check_folder, kind_of, real_folder, regular_file
from ballast.models.pretrained import encoder_source
from flows.settings import params
from stages.production.score_file import Target
from stages.production.score_folder import work
from stages.store.files import LONGEST_FILE_NAME, locked, remove_partial, replaced, replaced_folder
from stages.store.places import file_system
from tests.deployed import deploy, label, prior_model, promote, score, selected_project, traffic
from tests.project import Project, corpus

MESSAGES = corpus({"ham": 20, "spam": 10}, twins=0)
SPECIAL = ("FIFO", "socket", "device", "folder", "dangling link", "looping link")


def make(path: Path, kind: str) -> None:
    """Put something that is no regular file at a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        # Its path may be longer than a socket's may be.
        here = Path.cwd()
        os.chdir(path.parent)
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        finally:
            os.chdir(here)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere" if kind == "dangling link" else path.name)


WORDS = {
    "FIFO": "is a FIFO; expected a regular file",
    "socket": "is a socket; expected a regular file",
    "device": "is a device; expected a regular file",
    "folder": "is a folder; expected a regular file",
    "dangling link": "is a link to nowhere, which does not exist; fix or remove it",
    "looping link": "Too many levels of symbolic links; expected a readable file or folder",
}


@contextmanager
def in_time(seconds: float = 60.0) -> Iterator[None]:
    """A reader that waits for ever fails the test instead of holding it up."""

    def give_up() -> None:
        os._exit(3)

    timer = threading.Timer(seconds, give_up)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@pytest.fixture
def ready(workspace: Project) -> Project:
    """A workspace with messages that are ingested, and a deployed model."""
    workspace.write("messages.csv", MESSAGES)
    deploy(workspace.folder, prior_model({"ham": 0.8, "spam": 0.2}))
    assert workspace.stage_here("ingest").code == 0
    return workspace


def snapshot(project: Project) -> dict[str, bytes]:
    files = [path for path in project.folder.rglob("*") if not path.is_symlink() and path.is_file()]
    return {str(path.relative_to(project.folder)): path.read_bytes() for path in files if not path.name.endswith(".lock")}


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_is_refused_by_every_reader(ready: Project, kind: str) -> None:
    before = snapshot(ready)
    readers: dict[str, tuple[str, dict[str, Any]]] = {
        "messages.csv": ("ingest", {}),
        "data/feedback.parquet": ("ingest", {}),
        "window.csv": ("score", {"source": "window.csv", "window": "w"}),
        "window/b.csv": ("score", {"source": "window", "window": "w"}),
        "production/labels/a.csv": ("feedback", {}),
        "production/feedback.parquet": ("feedback", {}),
        "data/ingest.json": ("search", {}),
        "params.yaml": ("params", {}),
    }
    with in_time():
        for name, (stage, arguments) in readers.items():
            # A folder can be scored, and no stage but the source's reader finds one among its files.
            if kind == "folder" and name.startswith("window"):
                continue
            ready.write("window/a.csv", MESSAGES)
            path = ready.folder / name
            original = path.read_bytes() if path.is_file() else None
            if stage == "search":
                ready.edit({"search.trials": 1})
            make(path, kind)
            # Ingest reads the files of a folder.
            readable = kind == "folder" and name == "messages.csv"
            words = "is a folder without files to read (ingest.path)" if readable else WORDS[kind]
            assert f"{name}: {words}" in ready.stage_here(stage, **arguments).error
            path.rmdir() if kind == "folder" else path.unlink()
            if original is not None:
                path.write_bytes(original)
            (ready.folder / "window/a.csv").unlink()
    after = snapshot(ready)
    assert {name: after[name] for name in before if name != "params.yaml"} == {
        name: content for name, content in before.items() if name != "params.yaml"
    }


@pytest.mark.parametrize("kind", SPECIAL)
def test_the_functions_that_tell_kinds_apart(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    assert not regular_file(path) and not real_folder(path) and kind_of(path) is None
    make(path, kind)
    with pytest.raises(UserError, match=WORDS[kind]):
        regular_file(path)
    if kind == "folder":
        assert real_folder(path) and check_folder(tmp_path)
    else:
        with pytest.raises(UserError, match=r"expected a folder|fix or remove|symbolic links"):
            real_folder(path)
        with pytest.raises(UserError, match=WORDS[kind]):
            check_folder(tmp_path)
    assert set(KINDS.values()) >= {"a FIFO", "a socket", "a device", "a folder"}


def test_links_to_regular_files_are_files(ready: Project) -> None:
    for name in ("messages.csv", "params.yaml"):
        (ready.folder / f"real-{name}").write_bytes((ready.folder / name).read_bytes())
        (ready.folder / name).unlink()
        (ready.folder / name).symlink_to(f"real-{name}")
    ready.write("window/a.csv", MESSAGES)
    (ready.folder / "window/b.csv").symlink_to(ready.folder / "real-messages.csv")
    assert ready.stage_here("ingest").code == 0
    done = ready.stage_here("score", source="window", window="w")
    assert "60 messages scored" in done.stderr, done.stderr


def test_a_file_where_a_folder_is_expected(ready: Project) -> None:
    ready.write("production/labels", b"")
    assert "production/labels: is a regular file; expected a folder" in ready.stage_here("feedback").error
    ready.edit({"ingest.source": "sms_spam", "ingest.path": "messages.csv"})
    assert "messages.csv: is a regular file; expected a folder" in ready.stage_here("ingest").error
    make(ready.folder / "data/raw/FIFO", "FIFO")
    ready.edit({"ingest.path": "data/raw"})
    with in_time():
        assert "data/raw/FIFO: is a FIFO" in ready.stage_here("ingest").error


def test_settings_and_encoders_that_flows_and_trainings_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "params.yaml", "FIFO")
    make(tmp_path / "encoder/config.json", "FIFO")
    with in_time():
        with pytest.raises(UserError, match=r"params.yaml: is a FIFO"):
            params()
        with pytest.raises(UserError, match=r"encoder/config.json: is a FIFO"):
            encoder_source("encoder")
    assert encoder_source("roberta-base") == "roberta-base"


# Names


@pytest.mark.parametrize("name", ["*.csv", "[ab].csv", "a?.csv", "a[1].csv", "{a,b}.csv", "$(x) ;&|.csv", "a\\*.csv", "~.csv"])
def test_a_name_is_never_a_pattern(ready: Project, name: str) -> None:
    ready.write(name, MESSAGES)
    ready.write("b.csv", pd.concat([MESSAGES, MESSAGES.assign(text=MESSAGES["text"] + " more")]))
    ready.write("a1.csv", MESSAGES[:3])
    others = [ready.folder / f"production/scored/.{other}.parquet.0123abcd.partial" for other in ("b.csv", "a1.csv", "a")]
    for other in others:
        other.parent.mkdir(parents=True, exist_ok=True)
        other.touch()
    ready.edit({"ingest.path": name})
    assert ready.stage_here("ingest").code == 0
    assert len(pd.read_parquet(ready.folder / "data/messages.parquet")) == len(MESSAGES)
    assert "30 messages scored" in ready.stage_here("score", source=name, window="w").stderr
    ready.write(f"folder {name}/{name}", MESSAGES)
    assert "30 messages scored" in ready.stage_here("score", source=f"folder {name}", window="v").stderr
    with locked(ready.folder / f"production/scored/{name}.parquet"):
        assert all(other.exists() for other in others)


def test_what_is_left_half_written_is_found_by_its_whole_name(tmp_path: Path) -> None:
    own = [".w.0123abcd.partial", ".w.abc_1234.partial"]
    others = [
        ".w.parquet.0123abcd.partial",
        ".w.parquet.x.0123abcd.partial",
        ".ww.0123abcd.partial",
        ".w.0123abcd.partial.bak",
        ".w.partial",
        ".w.0123abc.partial",
        ".*.0123abcd.partial",
    ]
    for name in (*own, *others):
        (tmp_path / name).touch()
    (tmp_path / ".w.abcdabcd.partial").mkdir()
    (tmp_path / ".w.abcdabcd.partial/new").touch()
    remove_partial(tmp_path / "w")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
    remove_partial(tmp_path / "*")
    assert not (tmp_path / ".*.0123abcd.partial").exists()
    remove_partial(tmp_path / "nowhere/w")


def test_long_names(ready: Project, tmp_path: Path) -> None:
    before = snapshot(ready)
    for window in ("w" * 201, "w" * 10_000):
        error = ready.stage_here("score", source="messages.csv", window=window).error
        assert "of at most 200 letters" in error and f"({len(window):,} characters)" in error and len(error) < 300
    error = ready.stage_here("retrain", step="prepare", key="k" * 300, window=None, version=None).error
    assert "at most 200" in error
    ready.edit({"techniques": {"t" * 201: {"technique": "tfidf"}}})
    assert "at most 200 characters" in ready.stage_here("params").error
    assert {**snapshot(ready), "params.yaml": b""} == {**before, "params.yaml": b""}
    with (
        pytest.raises(UserError, match=r"the name has 256 bytes, the limit is 255; shorten it"),
        replaced(tmp_path / ("ä" * 128)),
    ):
        pass
    # The longest names can be written, and what is left of them half-written is found.
    longest = tmp_path / ("ä" * 127)
    for path in (longest, tmp_path / ("f" * LONGEST_FILE_NAME)):
        with locked(path), replaced(path) as temporary:
            temporary.write_text("new")
        assert path.read_text() == "new"
        with pytest.raises(ZeroDivisionError), replaced(path) as temporary:
            left = temporary.with_name(f"{temporary.name[:-16]}0123abcd.partial")
            left.write_text("half")
            raise ZeroDivisionError
        remove_partial(path)
        assert not left.exists()


def test_names_too_long_for_the_scores_of_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "in" / f"{'n' * 245}.csv"
    path.parent.mkdir()
    path.write_bytes(MESSAGES.to_csv(index=False).encode())
    with pytest.raises(UserError, match=r"the name has 257 bytes, the limit is 255; shorten it"):
        work(str(path.parent), Target(*file_system(str(tmp_path / "out"))))
    path.rename(path.with_name(f"{'n' * 240}.csv"))
    assert len(work(str(path.parent), Target(*file_system(str(tmp_path / "out"))))[1]) == 1


def test_the_longest_window_is_scored(ready: Project) -> None:
    ready.edit({"production.score.quarantine": 1.0, "production.score.longest_text": 20})
    done = ready.stage_here("score", source="messages.csv", window="w" * 200)
    assert done.code == 0, done.stderr


# The umask


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002, 0o027])
def test_files_and_folders_have_the_permissions_of_new_ones(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        with replaced(tmp_path / "in/file") as temporary:
            temporary.unlink()
            temporary.touch(0o600)  # as libraries do that write to a file of their own first
        with replaced_folder(tmp_path / "in/folder") as folder:
            (folder / "deep").mkdir()
            (folder / "deep/file").touch(0o600)
    for path in (tmp_path / "in", tmp_path / "in/folder", tmp_path / "in/folder/deep"):
        assert mode(path) == oct(0o777 & ~mask), path
    for path in (tmp_path / "in/file", tmp_path / "in/folder/deep/file"):
        assert mode(path) == oct(0o666 & ~mask), path
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("mask", [0o077, pytest.param(0o002, marks=pytest.mark.slow)])
def test_a_whole_run_keeps_the_umask(tmp_path: Path, mask: int) -> None:
    messages = traffic({"ham": 80, "spam": 80})
    with umask(mask):
        project = selected_project(tmp_path, Path(sys.executable).parent, {"ham": 90, "spam": 60})
        tracked = project.run("git", "ls-files").stdout.splitlines()
        assert promote(project) == "0001"
        score(project, "w", messages)
        label(project, "labels", messages)
        assert project.stage_here("feedback").code == 0
    made = [
        path
        for folder in ("data", "models", "logits", "curves", "evaluations", "probes", "reports", "selected", "production")
        for path in (project.folder / folder).rglob("*")
        if str(path.relative_to(project.folder)) not in tracked
    ]
    assert len(made) > 50
    wrong = {str(path): mode(path) for path in made if mode(path) != oct((0o777 if path.is_dir() else 0o666) & ~mask)}
    assert wrong == {}

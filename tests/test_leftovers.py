"""What a kill leaves: locks of DVC, a dvc.lock cut off, half-written files, commands without their flow."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from zc.lockfile import LockFile

from ballast.exceptions import UserError
from flows.nodes.commits import at_commit, head
from flows.recovery import cleanup, lock_backup
from flows.recovery.cleanup import GUARD, REPOSITORY, RWLOCK, recover
from flows.recovery.dvc_processes import is_alive, program
from stages.store.files import replaced, replaced_folder, write_json
from tests.flow_fixtures import StandIn, eventually, stand_in
from tests.project import ROOT

LOCK = "schema: '2.0'\nstages:\n  ingest:\n    cmd: sh step.sh data.txt\n    deps:\n    - path: raw.txt\n      hash: md5\n"
SLEEPS = "import time; print('begun', flush=True); time.sleep(600)"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / ".dvc/tmp").mkdir(parents=True)
    return folder


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts programs that sleep."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/dvc").write_text(SLEEPS)
    children: list[subprocess.Popen[bytes]] = []

    def begin(folder: Path, *words: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen([sys.executable, *words], cwd=folder, stdout=subprocess.PIPE)
        children.append(child)
        assert child.stdout is not None and child.stdout.readline() == b"begun\n"
        return child

    yield begin
    for child in children:
        child.kill()
        child.communicate()


def entry(pid: int, cmd: str = "dvc repro") -> dict[str, object]:
    return {"pid": pid, "cmd": cmd}


def write_rwlock(checkout: Path, *pids: int) -> None:
    """Each process reads the same file and writes one of its own."""
    content = {"write": {f"/w/{pid}": entry(pid) for pid in pids}, "read": {"/r": [entry(pid) for pid in pids]}}
    (checkout / RWLOCK).write_text(json.dumps(content))


def mended(checkout: Path) -> list[str]:
    lines: list[str] = []
    recover(lines.append, checkout)
    return lines


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["python", "/env/bin/dvc", "repro"], "dvc"),
        (["/env/bin/python3.11", "-X", "dev", "-m", "dvc", "repro"], "dvc"),
        (["python", "-Im", "dvc"], "dvc"),
        (["/env/bin/dvc", "repro"], "dvc"),
        (["python", "-P", "/clone/flows/dvc_command.py", "--report", "/tmp/result.json", "repro"], "dvc_command"),
        (["python", "-c", "pass", "dvc", "repro"], ""),
        (["python", "-m", "flows.repro", "dvc"], "repro"),
        (["python", "die_with_parent.py", "3", "dvc", "repro"], "die_with_parent"),
        (["sleep", "dvc"], "sleep"),
        (["python"], ""),
        (["python", "-m"], ""),
        ([], ""),
    ],
)
def test_what_a_command_line_runs(words: list[str], expected: str) -> None:
    assert program(words) == expected


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"write": {"/x',
        b"null",
        b"[]",
        b"\xff\xfe",
        b"{} {}",
        b'{"write": []}',
        b'{"write": {"/x": {"pid": "1", "cmd": "dvc"}}}',
        b'{"read": {"/x": {"pid": 1, "cmd": "dvc"}}}',
        b'{"other": {}}',
        b"[" * 100_000,
    ],
)
def test_an_unreadable_list_of_readers_and_writers_is_removed(checkout: Path, content: bytes) -> None:
    (checkout / RWLOCK).write_bytes(content)
    assert mended(checkout) == [f"{checkout / RWLOCK} removed: a killed dvc left it unreadable"]
    assert not (checkout / RWLOCK).exists()
    assert mended(checkout) == []


def test_only_entries_of_living_dvcs_of_this_checkout_stay(
    checkout: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    dvc = str(tmp_path / "bin/dvc")
    (inner := checkout / "production/retrain/w1/worktree").mkdir(parents=True)
    (inner / ".dvc").mkdir()
    living = start(checkout, dvc, "repro").pid
    (checkout / "studies").mkdir()
    below = start(checkout / "studies", "-X", "utf8", dvc, "repro").pid
    others = [start(checkout, "-c", SLEEPS).pid, start(tmp_path, dvc, "repro").pid, start(inner, dvc, "repro").pid]
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    eventually(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_ZOMBIE)
    others += [gone.pid, zombie.pid, 2**31 - 1]
    write_rwlock(checkout, living, below, *others)
    (half_copied := checkout / "models/.abcdefghijklmnopqrstuv.tmp").parent.mkdir()
    half_copied.touch()
    [line] = mended(checkout)
    assert line.startswith(f"{checkout / RWLOCK}: entries of process ") and all(str(pid) in line for pid in others)
    left = json.loads((checkout / RWLOCK).read_text())
    assert left == {
        "write": {f"/w/{pid}": entry(pid) for pid in (living, below)},
        "read": {"/r": [entry(living), entry(below)]},
    }
    assert half_copied.exists(), "it may be the living one's"
    assert mended(checkout) == []
    zombie.wait()


def test_a_living_dvc_that_began_after_the_list_was_written_has_no_entry_there(
    checkout: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    pid = start(checkout, str(tmp_path / "bin/dvc"), "repro").pid
    began = psutil.Process(pid).create_time()
    assert is_alive(entry(pid), checkout, began)
    assert not is_alive(entry(pid), checkout, began - 3600)
    write_rwlock(checkout, pid)
    os.utime(checkout / RWLOCK, (began - 3600, began - 3600))
    assert len(mended(checkout)) == 1
    assert json.loads((checkout / RWLOCK).read_text()) == {"write": {}, "read": {}}


def test_a_program_that_uses_dvc_as_a_library_keeps_its_entries(
    checkout: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    (tmp_path / "notebook.py").write_text(SLEEPS)
    pid = start(tmp_path, str(tmp_path / "notebook.py"), "a", "b").pid
    now = time.time()
    assert is_alive(entry(pid, f"{tmp_path}/notebook.py a b"), checkout, now)
    assert not is_alive(entry(pid, f"{tmp_path}/notebook.py a"), checkout, now)
    assert not is_alive(entry(pid, f"{tmp_path}/other.py a b"), checkout, now)


def test_half_copied_files_of_a_killed_dvc_are_removed(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "running_dvc", lambda root=None: iter([]))
    (checkout / RWLOCK).touch()
    names = [".dvc/cache/files/md5/ab/.abcdefghijklmnopqrstuv.tmp", "logits/.ABCDEFGHIJKLMNOPQRSTU-.tmp", "a.tmp", ".short.tmp"]
    for name in names:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    assert mended(checkout)[1:] == ["2 half-copied files of a killed dvc removed"]
    assert [(checkout / name).exists() for name in names] == [False, False, True, True]


def test_the_list_is_edited_under_the_lock_of_dvc(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "GUARD_SECONDS", 0.1)
    (checkout / RWLOCK).touch()
    lock = LockFile(str(checkout / GUARD))
    with pytest.raises(UserError, match=r"rwlock.lock: another dvc has held it for 0 s; end it, then try again"):
        mended(checkout)
    assert (checkout / RWLOCK).exists()
    lock.close()
    assert len(mended(checkout)) == 1


def test_what_a_living_dvc_writes_is_not_guessed(
    checkout: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    living = start(checkout, str(tmp_path / "bin/dvc"), "repro")
    (checkout / RWLOCK).touch()
    asked = []

    def ends(_: float) -> None:
        asked.append((checkout / RWLOCK).exists())
        living.kill()
        living.wait()

    monkeypatch.setattr(time, "sleep", ends)
    waiting, removed = mended(checkout)
    assert "waiting for the dvc that still runs in this checkout" in waiting and "removed" in removed
    assert asked == [True] and not (checkout / RWLOCK).exists()


def test_where_dvc_locks_by_hard_links(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / ".dvc/config.local").write_text("[core]\n    analytics = false\n    hardlink_lock = true\n")
    (checkout / RWLOCK).touch()
    assert len(mended(checkout)) == 1 and not (checkout / GUARD).exists()
    (checkout / REPOSITORY).touch()
    assert mended(checkout) == [], "it may be a dvc's on another machine, which is about to let go"
    monkeypatch.setattr(cleanup, "GUARD_SECONDS", -1.0)
    with pytest.raises(UserError, match=r"tmp/lock: held, but no dvc runs here; with core.hardlink_lock, .* delete it"):
        mended(checkout)


CUT = {
    "empty": ("", "it is empty"),
    "blank": (" \n", "it is empty"),
    "no schema": ("stages: {}\n", "not what DVC writes"),
    "a number": ("7", "not what DVC writes"),
    "in a word": (LOCK.replace("hash: md5", '"hash'), "row 8: not valid YAML"),
    "after a key": (LOCK[: LOCK.index("    - path")], "stage ingest is incomplete"),
    "before a command": (LOCK[: LOCK.index(" sh")], ""),
    "not text": ("\udcff", "not valid YAML: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
}


@pytest.mark.parametrize("case", CUT)
def test_a_dvc_lock_that_was_cut_off_is_the_last_whole_one_again(checkout: Path, case: str) -> None:
    content, wrong = CUT[case]
    path, study = checkout / "dvc.lock", checkout / "studies/ratio/dvc.lock"
    study.parent.mkdir(parents=True)
    for each in (path, study):
        each.write_text(LOCK)
    assert mended(checkout) == []
    for each in (path, study):
        each.write_bytes(content.encode(errors="surrogateescape"))
    lines = mended(checkout)
    if not wrong:
        assert lines == [], "DVC reads it"
        return
    assert lines == [
        f"{each} restored, because a killed dvc damaged it ({wrong}); stages that it lacks run again" for each in (path, study)
    ]
    assert path.read_text() == study.read_text() == LOCK
    assert (checkout / lock_backup.BROKEN / "dvc.lock").read_bytes() == content.encode(errors="surrogateescape")
    assert mended(checkout) == []


@pytest.mark.parametrize("kept", [True, False])
def test_a_dvc_lock_that_cannot_be_restored_says_what_to_do(checkout: Path, kept: bool) -> None:
    if kept:
        (checkout / "dvc.lock").write_text(LOCK)
        mended(checkout)
    merge = f"<<<<<<< ours\n{LOCK}=======\n>>>>>>> theirs\n" if kept else ""
    (checkout / "dvc.lock").write_text(merge)
    with pytest.raises(UserError) as raised:
        mended(checkout)
    assert str(raised.value) == (
        f"{checkout}/dvc.lock: {'row 2: not valid YAML' if kept else 'it is empty'}, so DVC does not know what is up to date;"
        " `git checkout -- dvc.lock` restores that of the last commit, or delete it: then all stages run again"
    )
    assert (checkout / "dvc.lock").read_text() == merge


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_list_of_readers_that_is_no_file_is_removed(checkout: Path, make: Callable[[Path], None]) -> None:
    path = checkout / RWLOCK
    path.unlink(missing_ok=True)
    make(path)
    assert mended(checkout) == [f"{path} removed: a killed dvc left it unreadable"] and not path.exists()


def test_a_broken_dvc_lock_where_dvc_has_not_run_yet_says_what_to_do(checkout: Path) -> None:
    shutil.rmtree(checkout / ".dvc/tmp", ignore_errors=True)
    (checkout / "dvc.lock").write_text("")
    with pytest.raises(UserError, match="it is empty, so DVC does not know what is up to date; `git checkout"):
        mended(checkout)


def test_a_dvc_lock_that_is_being_written_is_left_alone(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "GUARD_SECONDS", 0.1)
    (checkout / "dvc.lock").write_text(LOCK)
    mended(checkout)
    lock = LockFile(str(checkout / REPOSITORY))
    (checkout / "dvc.lock").write_text("")
    assert mended(checkout) == [] and (checkout / "dvc.lock").read_text() == ""
    lock.close()
    assert len(mended(checkout)) == 1


def test_the_last_one_that_stood_for_a_moment_is_kept_and_restored(checkout: Path) -> None:
    path, more = checkout / "dvc.lock", LOCK + "  validate:\n    cmd: 'true'\n"
    for text, seconds in ((LOCK, 20.0), (more, 10.0), ("schema", 0.0)):
        path.write_text(text)
        os.utime(path, (time.time() - seconds, time.time() - seconds))
        if text == LOCK:
            mended(checkout)
        lock_backup.back_up_written(checkout)
    assert len(mended(checkout)) == 1
    assert path.read_text() == more


def test_half_written_copies_of_a_killed_process_are_removed(checkout: Path) -> None:
    kept = checkout / lock_backup.VERIFIED
    kept.mkdir(parents=True)
    (kept / f".dvc.lock.{2**31 - 1}.partial").touch()
    (kept / f".dvc.lock.{os.getpid()}.partial").touch()
    mended(checkout)
    assert [path.name for path in kept.iterdir()] == [f".dvc.lock.{os.getpid()}.partial"]


def test_a_folder_without_dvc_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(LOCK)
    assert mended(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["dvc.lock"]


def test_make_repro_goes_on_after_a_kill(tmp_path: Path) -> None:
    repository: StandIn = stand_in(tmp_path)
    first = repository.run(sys.executable, "-m", "flows.repro", "ingest")
    assert first.code == 0, first.stderr
    (tmp_path / RWLOCK).write_text("")
    (tmp_path / "dvc.lock").write_text("")
    repository.on("sample@a-0", "exit 3")
    failed = repository.run(sys.executable, "-m", "flows.repro", "sample@a-0")
    assert failed.code == 255 and "ERROR: failed to reproduce 'sample@a-0'" in failed.stderr
    assert [line for line in failed.stderr.splitlines() if line.startswith("repro: ")] == [
        "repro: .dvc/tmp/rwlock removed: a killed dvc left it unreadable",
        "repro: dvc.lock restored, because a killed dvc damaged it (it is empty); stages that it lacks run again",
    ]
    assert repository.steps == ["start ingest", "end ingest", "start sample@a-0"]
    (tmp_path / "dvc.lock").write_text("<<<<<<< ours\nschema: '2.0'\n")
    assert repository.run(sys.executable, "-m", "flows.repro").error.startswith("error: dvc.lock: row 2: not valid YAML")
    assert repository.run(sys.executable, "-m", "flows.recovery.cleanup").error.startswith(
        "error: dvc.lock: row 2: not valid YAML"
    )


FLOW = "from flows.commands import run_command; run_command('step', ['sh', '-c', {!r}], print)"


def test_a_command_ends_with_its_flow_also_when_that_is_killed(tmp_path: Path) -> None:
    script = FLOW.format("echo $$ > pid; mv pid begun; sleep 600 & wait")
    flow = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
    with contextlib.ExitStack() as stack:
        stack.callback(flow.wait)
        stack.callback(flow.kill)
        command = psutil.Process(int(eventually(lambda: (begun := tmp_path / "begun").exists() and begun.read_text())))
        everything = [command, *eventually(command.children)]
        flow.send_signal(signal.SIGKILL)
        eventually(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in everything))


def test_a_lock_that_a_killed_git_left_on_a_nodes_index_is_removed(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *words], cwd=tmp_path, check=True)

    git("init", "--quiet")
    (tmp_path / ".dvc").mkdir()
    for name in ("first", "second"):
        (tmp_path / "file").write_text(name)
        git("add", "file")
        git("commit", "--quiet", "-m", name)
    second = head(tmp_path)
    (tmp_path / ".git/index.lock").touch()
    first = subprocess.run(
        ["git", "rev-parse", "HEAD~1"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.strip()
    with at_commit(tmp_path, first):
        assert (tmp_path / "file").read_text() == "first"
    with at_commit(tmp_path, second):
        assert (tmp_path / "file").read_text() == "second"


KILLED = """
import os, signal
from pathlib import Path
from stages.store.files import replaced, replaced_folder
with replaced(Path("{0}.json")) as file, replaced_folder(Path("{0}")) as folder:
    file.write_text("half")
    (folder / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_half_written_goes_but_not_what_a_living_one_writes(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", KILLED.format("a")], cwd=tmp_path, env=env, check=False)
        assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2, "the second removed what the first left"
    with replaced(tmp_path / "a.json") as file, replaced_folder(tmp_path / "a") as folder:
        assert len(list(tmp_path.iterdir())) == 2
        write_json(tmp_path / "a.json", {"by": "another"})
        with replaced_folder(tmp_path / "a"):
            pass
        assert file.exists() and folder.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.json"]


def test_an_error_within_is_passed_on_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replaced(tmp_path / "a"):
        raise FileNotFoundError
    with pytest.raises(FileNotFoundError), replaced_folder(tmp_path / "b"):
        raise FileNotFoundError
    assert list(tmp_path.iterdir()) == []

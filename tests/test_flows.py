"""The pipeline's flow: order, siblings, retries, failures, artifacts; against a server and without one."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from joblib import cpu_count

from ballast.exceptions import UserError
from flows.commands import (
    LAST_LINES,
    MAX_LINE_CHARACTERS,
    run_command,
    run_for_result,
    run_with_retries,
    stopping_commands,
)
from flows.failures import INTERRUPTED, StageFailed, escape_logs, printable_error
from flows.pipeline import pipeline, plan
from tests.flow_fixtures import Server, StandIn, eventually, prefect_server, stand_in
from tests.project import ROOT

pytestmark = [
    # DVC's index asks its trie for the value of a prefix that may be missing; pygtrie will change its answer one day.
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),
]

FAMILIES = ["ingest", "sample", "train@a-0", "train@b-0", "compare", "report"]
STAGES = ["ingest", "sample@a-0", "sample@b-0", "train@a-0", "train@b-0", "compare", "report"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with prefect_server(tmp_path_factory.mktemp("prefect")) as running:
        yield running


@pytest.fixture
def repository(tmp_path: Path) -> StandIn:
    return stand_in(tmp_path)


def one_after_the_other(stages: list[str]) -> list[str]:
    return [f"{event} {stage}" for stage in stages for event in ("start", "end")]


def test_all_stages_run_in_the_order_of_the_graph_once(repository: StandIn, server: Server) -> None:
    first = repository.flow(**server.environment)
    assert first.code == 0, first.stderr
    assert repository.steps == one_after_the_other(STAGES)
    assert set(repository.threads.values()) == {"unset"}

    run = server.last_run()
    assert (run["name"], run["state_type"]) == ("pipeline: all stages", "COMPLETED")
    runs = eventually(lambda: len(found := server.of_last_run("task_runs")) == len(FAMILIES) and found)
    assert [each["name"] for each in sorted(runs, key=lambda each: str(each["start_time"]))] == FAMILIES
    messages = eventually(
        lambda: len(found := server.of_last_run("logs")) > len(STAGES) and [each["message"] for each in found]
    )
    assert "Running stage 'train@b-0':" in messages

    made = server.artifacts_of_last_run()
    assert set(made) == {"leaderboard", "report"}
    rows = made["leaderboard"]["data"]
    assert made["leaderboard"]["type"] == "table"
    assert (json.loads(rows) if isinstance(rows, str) else rows) == [
        {
            "technique": "b",
            "selected": "",
            "macro_f1": "0.970 [0.950, 0.980]",
            "spam.f1": "0.940 [0.920, 0.950]",
            "spam.recall": "0.930 [0.910, 0.940]",
            "spam.precision": "0.950 [0.930, 0.960]",
        },
        {
            "technique": "a",
            "selected": "yes",
            "macro_f1": "0.950 [0.930, 0.960]",
            "spam.f1": "0.910 [0.890, 0.920]",
            "spam.recall": "0.900 [0.880, 0.910]",
            "spam.precision": "0.920 [0.900, 0.930]",
        },
    ]
    assert (repository.folder / "reports/index.html").as_uri() in made["report"]["data"]

    with inside(repository, server):
        pipeline()
    again = server.last_run()
    assert (again["id"] != run["id"], again["state_type"]) == (True, "COMPLETED")
    assert repository.steps == one_after_the_other(STAGES)


def test_siblings_run_side_by_side_and_share_the_cores_without_a_server(
    repository: StandIn, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for own, other in (("a", "b"), ("b", "a")):
        # Neither ends before the other has begun.
        wait = (
            f'until [ -f here-{other} ]; do n=$((n + 1)); [ $n -lt 600 ] || {{ echo "error: alone"; exit 1; }}; sleep 0.1; done'
        )
        repository.on(f"train@{own}-0", f"touch here-{own}", "n=0", wait)
    home = tmp_path_factory.mktemp("home")
    done = repository.flow("--concurrency", "2", "compare", PREFECT_HOME=str(home))
    assert done.code == 0, done.stderr
    assert "temporary server" in done.stderr
    steps = repository.steps
    assert steps[:6] == one_after_the_other(STAGES[:3])
    assert set(steps[6:8]) == {"start train@a-0", "start train@b-0"}
    assert set(steps[8:10]) == {"end train@a-0", "end train@b-0"}
    assert steps[10:] == one_after_the_other(["compare"])
    share = str(max(1, cpu_count() // 2))
    assert {name: count for name, count in repository.threads.items() if count != "unset"} == {
        "train@a-0": share,
        "train@b-0": share,
    }
    with contextlib.closing(sqlite3.connect(home / "prefect.db")) as database:
        assert database.execute("select key from artifact where key is not null").fetchall() == [("leaderboard",)]


@pytest.mark.slow
def test_the_server_of_a_run_without_one_asks_who_is_there(
    repository: StandIn, tmp_path_factory: pytest.TempPathFactory
) -> None:
    repository.on("ingest", "until [ -f go ]; do sleep 0.1; done")
    log = repository.folder / "flow.log"
    env = repository.environment | {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path_factory.mktemp("home"))}
    command = [sys.executable, "-m", "flows.pipeline", "ingest"]
    with log.open("wb") as output:
        flow = subprocess.Popen(command, cwd=repository.folder, env=env, stderr=output)
    try:
        eventually(lambda: repository.steps)
        (url,) = re.findall(r"temporary server on (\S+)", log.read_text())
        (serving,) = (each for each in psutil.Process(flow.pid).children() if "uvicorn" in " ".join(each.cmdline()))
        origin = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        assert httpx.get(f"{url}/api/version", timeout=30).status_code == 401
        answer = httpx.post(f"{url}/api/flow_runs/filter", json={}, headers=origin, timeout=30)
        assert answer.status_code in (401, 403) and "access-control-allow-origin" not in answer.headers
        asked = httpx.options(f"{url}/api/flow_runs/filter", headers=origin, timeout=30)
        assert asked.status_code == 400 and "access-control-allow-origin" not in asked.headers
        word = serving.environ()["PREFECT_SERVER_API_AUTH_STRING"]
        user, password = word.split(":")
        assert httpx.get(f"{url}/api/version", auth=(user, password), timeout=30).status_code == 200
        (repository.folder / "go").touch()
        assert flow.wait(timeout=300) == 0, log.read_text()
        assert password not in log.read_text()
    finally:
        flow.kill()
        flow.wait()


def test_a_failed_stage_is_shown_with_its_last_lines_and_ends_the_flow(repository: StandIn, server: Server) -> None:
    hostile = r"printf 'error: no class [/spam] \033[31m\000\n' >&2"
    repository.on("train@a-0", "for n in $(seq 30); do echo line $n; done", hostile, "exit 1")
    done = repository.flow(**server.environment)
    assert done.error == r"error: stage train@a-0 failed with exit code 1: no class [/spam] \x1b[31m\x00"
    assert "\x1b" not in done.stderr + done.stdout and "\0" not in done.stderr + done.stdout
    tail = [line.strip() for line in done.stderr.splitlines()[-LAST_LINES - 1 : -1]]
    assert tail[:-2] == [f"line {n}" for n in range(33 - LAST_LINES, 31)]
    assert tail[-2] == r"error: no class [/spam] \x1b[31m\x00"
    assert repository.steps == [*one_after_the_other(STAGES[:3]), "start train@a-0"]

    run = server.last_run()
    assert run["state_type"] == "FAILED"
    assert "stage train@a-0 failed with exit code 1: no class [/spam]" in run["state"]["message"]
    assert "line 30" in run["state"]["message"]
    made = server.artifacts_of_last_run()
    assert set(made) == {"failure"}
    assert "no class [/spam]" in made["failure"]["description"]
    assert "line 30" in made["failure"]["data"]


def test_only_transient_failures_are_tried_again(repository: StandIn, server: Server) -> None:
    for name in ("a-0", "b-0"):
        repository.on(f"sample@{name}", "true")
    once = "[ -f tried-{0} ] || {{ touch tried-{0}; {1}; }}"
    repository.on(
        "ingest", once.format("ingest", "echo 'error: sms_spam: no source reachable (hub, npm); put it at data/raw'; exit 75")
    )
    repository.on("train@a-0", once.format("a", "echo loading; kill -9 $$"))
    with (
        pytest.raises(StageFailed, match="train@b-0 failed with exit code 1: label 'spma' is unknown"),
        inside(repository, server),
    ):
        repository.on("train@b-0", "echo \"error: label 'spma' is unknown\"", "exit 1")
        pipeline(retry_delay_seconds=0.1)
    starts = [step.split()[1] for step in repository.steps if step.startswith("start")]
    assert starts == ["ingest", "ingest", "sample@a-0", "sample@b-0", "train@a-0", "train@a-0", "train@b-0"]
    runs = eventually(lambda: len(found := server.of_last_run("task_runs")) == 4 and found)
    assert {each["name"]: each["run_count"] for each in runs} == {"ingest": 2, "sample": 1, "train@a-0": 2, "train@b-0": 1}


def test_a_sibling_may_finish_but_none_begins_after_a_failure(
    repository: StandIn, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    repository.write("params.yaml", b"{techniques: {a: {}, b: {}}, seeds: [0, 1]}")
    repository.on("train@a-0", "until [ -f here ]; do sleep 0.1; done", "exit 3")
    repository.on("train@a-1", "touch here", "sleep 3")
    with pytest.raises(StageFailed, match="train@a-0 failed with exit code 3"), inside(repository, server):
        pipeline(concurrency=2)
    assert {step for step in repository.steps if "train" in step} == {"start train@a-0", "start train@a-1", "end train@a-1"}
    assert repository.threads["train@a-1"] == "7", "the user's own setting goes first"


@contextlib.contextmanager
def inside(repository: StandIn, server: Server) -> Iterator[None]:
    """Run the flow in this process, which saves its imports."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    with contextlib.chdir(repository.folder), temporary_settings({PREFECT_API_URL: server.url, PREFECT_HOME: server.home}):
        yield


def test_an_interrupt_ends_the_training_too_and_the_next_run_goes_on(repository: StandIn, server: Server) -> None:
    repository.on("train@a-0", "echo $$ > pid", "exec sleep 600")
    env = repository.environment | server.environment | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows.pipeline", "train@a-0"]
    options = {"cwd": repository.folder, "env": env, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command, **options) as flow:
        try:
            pid = int(
                eventually(
                    lambda: flow.poll() is None and (found := repository.folder / "pid").exists() and found.read_text().strip()
                )
            )
            eventually(lambda: psutil.Process(pid).name() == "sleep")
            os.killpg(flow.pid, signal.SIGINT)
            _, stderr = flow.communicate(timeout=300)
        finally:
            flow.kill()
    assert flow.returncode == 128 + signal.SIGINT
    assert stderr.rstrip().endswith(INTERRUPTED), stderr
    assert "Traceback" not in stderr
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert server.last_run()["state_type"] == "CRASHED"

    repository.on("train@a-0", "true")
    with inside(repository, server):
        pipeline(["train@a-0"])
    assert repository.steps == [
        *one_after_the_other(["ingest", "sample@a-0"]),
        "start train@a-0",
        *one_after_the_other(["train@a-0"]),
    ]
    assert server.last_run()["name"] == "pipeline: train@a-0"
    assert server.artifacts_of_last_run() == {}


@pytest.mark.slow
def test_an_interrupt_ends_the_flow_also_when_its_server_does_not_answer(repository: StandIn, server: Server) -> None:
    repository.on("train@a-0", "touch begun", "exec sleep 600")
    env = repository.environment | server.environment | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows.pipeline", "train@a-0"]
    port = server.url.split(":")[2].partition("/")[0]
    (serving,) = (each for each in psutil.process_iter(["cmdline"]) if (each.info["cmdline"] or [])[-3:-1] == ["--port", port])
    with subprocess.Popen(command, cwd=repository.folder, env=env, stderr=subprocess.PIPE, text=True) as flow:
        try:
            eventually((repository.folder / "begun").exists)
            serving.suspend()
            flow.send_signal(signal.SIGINT)
            _, stderr = flow.communicate(timeout=300)
        finally:
            serving.resume()
            flow.kill()
    assert flow.returncode == 128 + signal.SIGINT
    assert stderr.rstrip().endswith(INTERRUPTED), stderr


def test_an_unknown_target_is_one_readable_line(repository: StandIn, server: Server) -> None:
    assert repository.flow("nosuch", **server.environment).error == "error: Stage 'nosuch' not found inside 'dvc.yaml' file"
    assert repository.steps == []


def test_without_concurrency_nothing_could_run(repository: StandIn, server: Server) -> None:
    with (
        pytest.raises(UserError, match="concurrency is 0; expected a whole number from 1 to 1,024"),
        inside(repository, server),
    ):
        pipeline(concurrency=0)


def test_the_plan_is_that_of_dvc(repository: StandIn) -> None:
    with contextlib.chdir(repository.folder):
        families, outputs = plan([])
        assert list(families.items()) == [
            ("ingest", ["ingest"]),
            ("sample", ["sample@a-0", "sample@b-0"]),
            ("train", ["train@a-0", "train@b-0"]),
            ("compare", ["compare"]),
            ("report", ["report"]),
        ]
        assert {"reports/leaderboard.json", "reports/index.html"} < outputs
        assert plan(["train@b-0"]) == (
            {"ingest": ["ingest"], "sample": ["sample@b-0"], "train": ["train@b-0"]},
            {"data.txt", "samples/b/0", "models/b/0"},
        )


def test_members_that_need_each_other_are_an_error(repository: StandIn) -> None:
    repository.write(
        "dvc.yaml",
        b"stages:\n  s:\n    matrix: {n: [1, 2]}\n    cmd: 'true'\n    deps: ['x${item.n}']\n    outs: ['y${item.n}']\n"
        b"  t:\n    matrix: {n: [1]}\n    cmd: 'true'\n    deps: ['y${item.n}']\n    outs: ['x2']\n",
    )
    with contextlib.chdir(repository.folder), pytest.raises(UserError, match="members of s, t, s depend on each other"):
        plan([])


@pytest.mark.parametrize(
    ("code", "line", "transient"),
    [
        (75, "error: sms_spam: no source reachable (hub: offline; npm: offline); put 5,574 lines at data/raw/sms.txt", True),
        (75, "", True),
        (1, "error: https://example.org/sms.csv: cannot be read: timed out (ingest.path)", False),
        (-9, "step 41 of 113", True),
        (137, "step 41 of 113", True),
        (-15, "step 41 of 113", False),
        (1, "error: messages.csv: cannot be read as csv: 3 columns in line 7", False),
        (1, "error: no column 'txt' (ingest.text_column): did you mean 'text'?", False),
        (1, "a message that says no source reachable", False),
        (139, "Segmentation fault", False),
        (255, "ERROR: failed to reproduce 'train@a-0': '/clone/models/a/0' is busy, it is being blocked by:", False),
    ],
)
def test_what_is_transient(code: int, line: str, transient: bool) -> None:
    assert (
        StageFailed("ingest", code, ["Running stage 'ingest':", line, "ERROR: failed to reproduce 'ingest'"]).transient
        is transient
    )


def test_a_command_runs_in_this_environment_and_shows_its_progress() -> None:
    shown: list[str] = []
    code = r"import sys; print(sys.prefix); sys.stderr.write('1 of 2\r2 of 2\n'); sys.stdout.buffer.write(b'\xff\n')"
    run_command("step", ["python", "-c", code], shown.append)
    assert sorted(shown) == sorted([sys.prefix, "2 of 2", "\N{REPLACEMENT CHARACTER}"])
    with pytest.raises(StageFailed) as failed:
        run_command("step", ["python", "-c", "raise SystemExit(4)"], shown.append)
    assert failed.value.headline == "stage step failed with exit code 4: no output"


def test_a_command_returns_its_result_in_a_file() -> None:
    write = "import json, pathlib, sys; pathlib.Path(sys.argv[2]).write_text(json.dumps({'version': '0001'}))"
    assert run_for_result("step", ["python", "-c", write], print) == {"version": "0001"}
    with pytest.raises(UserError, match="wrote no result"):
        run_for_result("step", ["python", "-c", "pass"], print)


@pytest.mark.parametrize(("code", "failures", "runs"), [(75, 2, 3), (75, 3, 3), (1, 1, 1)])
def test_a_source_that_is_away_for_a_moment_is_read_again(code: int, failures: int, runs: int, tmp_path: Path) -> None:
    count, shown = tmp_path / "runs", list[str]()
    script = f"echo run >> {count}; [ $(wc -l < {count}) -gt {failures} ] || {{ echo 'error: away'; exit {code}; }}"
    with contextlib.nullcontext() if failures < runs else pytest.raises(StageFailed, match=f"exit code {code}: away"):
        run_with_retries("score", ["sh", "-c", script], shown.append, 0.01)
    assert len(count.read_text().splitlines()) == runs
    assert sum("trying again in 0.01 s" in line for line in shown) == min(runs - 1, failures)


def test_what_a_command_says_is_printable_and_its_lines_have_an_end() -> None:
    shown: list[str] = []
    code = r"print('a\x1b[31m\0\u202eb\t.'); print('x' * 100_000); raise SystemExit(4)"
    with pytest.raises(StageFailed) as failed:
        run_command("step", ["python", "-c", code], shown.append, {"PYTHONIOENCODING": "utf-8"})
    assert shown[0] == r"a\x1b[31m\x00\u202eb" + "\t."
    assert len(shown[1]) == 100_000 and len(failed.value.lines[1]) <= MAX_LINE_CHARACTERS
    record = logging.LogRecord("prefect.flow_runs", logging.INFO, "", 0, "window %s", ("\0\x1b",), None)
    escape_logs()
    assert logging.getLogger("prefect.flow_runs").filter(record)
    assert record.getMessage() == r"window \x00\x1b"


def test_an_error_with_control_characters_is_escaped_in_the_log_and_in_the_state() -> None:
    try:
        try:
            raise ValueError("header t\0e")
        except ValueError as error:
            raise RuntimeError("row \x1b[31m") from error
    except RuntimeError:
        record = logging.LogRecord("prefect.task_runs", logging.ERROR, "", 0, "failed: %s", ("\0",), sys.exc_info())
    escape_logs()
    assert logging.getLogger("prefect.task_runs").filter(record)
    shown = logging.Formatter().format(record)
    for words in (r"failed: \x00", r"ValueError: header t\x00e", r"RuntimeError: row \x1b[31m"):
        assert words in shown
    assert not set(shown) & {"\0", "\x1b"}
    with pytest.raises(UserError) as escaped, stopping_commands():
        raise ValueError("header t\0e")
    assert str(escaped.value) == r"ValueError: header t\x00e"
    for error in (ValueError("plain"), UserError("\0"), StageFailed("ingest", 1, ["two", "lines"])):
        assert printable_error(error) is error


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_who_is_told_to_end_ends_the_command(end: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.commands.stopped", threading.Event())

    def told(line: str) -> None:
        raise end

    with pytest.raises(end):
        run_command("step", ["sh", "-c", "echo begun; sleep 10; touch ended"], told, folder=tmp_path)
    assert not (tmp_path / "ended").exists()


def test_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.pipeline", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert re.search(r"--concurrency N\s+number of parallel trainings", done.stdout)
    assert "--traceback" in done.stdout

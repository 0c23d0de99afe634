"""`make serve`: a server, a worker and the deployments of infra/prefect.yaml; what is killed is started again."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest

from tests.deployed import deploy, prior_model
from tests.flow_fixtures import Server, eventually, free_port, prefect_server
from tests.project import ROOT
from tests.serve_fixtures import Served, belonging, every, kill, listed, serve_environment, served, site, wait_for

pytestmark = pytest.mark.slow
SLEEP = "echo $$ > pid; exec sleep 600"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = site(tmp_path_factory.mktemp("site"))
    shutil.copy(ROOT / "params.yaml", folder)
    deploy(folder, prior_model({"ham": 0.8, "spam": 0.2}))
    with served(folder, endpoint_port=free_port()) as started:
        yield started


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> None:
    if "running" in request.fixturenames:
        for script in (request.getfixturevalue("running").folder / "do").iterdir():
            script.unlink()


def refused(folder: Path, *arguments: str, **changes: str) -> str:
    """The last line of a start that fails."""
    command = [sys.executable, "-m", "flows.serve", *arguments]
    env = serve_environment(**changes)
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr.splitlines()[-1]


def test_it_says_what_is_deployed_and_when_it_runs(running: Served) -> None:
    assert f"Prefect: http://127.0.0.1:{running.port}\n" in running.output
    said = listed(running.output)
    moment = r"next \d{4}-\d\d-\d\d \d\d:\d\d UTC"
    assert re.fullmatch(rf"training +0 2 \* \* 0 UTC +{moment}", said["pipeline"])
    assert re.fullmatch(rf"scoring +30 0 \* \* \* UTC +{moment}", said["score"])
    assert re.fullmatch(rf"default +30 12 \* \* \* UTC +{moment}", said["watch"])
    assert re.fullmatch(r"default +by hand or by an event", said["promote"])
    assert re.fullmatch(r"training +by hand or by an event", said["retrain"])
    (step,) = running.deployment("score")["pull_steps"]
    assert step["prefect.deployments.steps.set_working_directory"] == {"directory": "{{ $BALLAST_ROOT }}"}, "the worker's own"


def test_the_server_is_for_this_machine_only_and_tells_nobody(running: Served) -> None:
    server = psutil.Process(running.pid("server"))
    listening = [each.laddr for each in server.net_connections("inet") if each.status == psutil.CONN_LISTEN]
    assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", running.port)]
    assert server.environ()["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert (running.folder / "production/prefect/prefect.db").is_file()


def test_a_run_is_in_the_repository_with_this_python(running: Served) -> None:
    assert running.ends(running.start("score", source="here", window="2026-11-20")) == "COMPLETED"
    assert f"start score 2026-11-20 in {running.folder} with {Path(sys.executable).parent}/python\n" in running.steps


def test_a_shift_starts_a_retraining_of_its_window_once_and_other_decisions_none(running: Served) -> None:
    running.emit("class-prior.shifted", {"ballast.decision": "reprior"}, window="0001")
    running.emit("class-prior.shifted", {"ballast.decision": "retrain"}, window="0002")
    wait_for(running, lambda: "end retrain" in running.steps)
    assert re.findall("end retrain (.*)", running.steps) == ["0002"], "a window's name stays text"


def test_one_training_at_a_time_and_the_other_queue_goes_on(running: Served) -> None:
    (running.folder / "do/pipeline").write_text("until [ -f go ]; do sleep 0.2; done")
    runs = [running.start("pipeline"), running.start("retrain", window="one")]
    wait_for(running, lambda: "start pipeline" in running.steps)
    assert running.ends(running.start("watch", window="beside")) == "COMPLETED"
    assert "retrain one" not in running.steps
    (running.folder / "go").touch()
    assert [running.ends(run) for run in runs] == ["COMPLETED", "COMPLETED"]
    assert running.steps.index("end pipeline") < running.steps.index("start retrain one")


def test_a_cancelled_run_ends_its_command(running: Served) -> None:
    (running.folder / "do/promote").write_text(SLEEP)
    run = running.start("promote")
    pid = int(wait_for(running, lambda: (found := running.folder / "pid").exists() and found.read_text().strip()))
    subprocess.run(
        [sys.executable, "-m", "prefect", "flow-run", "cancel", run],
        env={**running.environment, **running.server.environment},
        check=True,
        capture_output=True,
    )
    assert running.ends(run) == "CANCELLED"
    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_a_second_start_is_refused(running: Served) -> None:
    error = refused(running.folder, "--port", str(free_port()), "--endpoint-port", "0")
    names = ("server", "worker", "endpoint")
    pids = ", ".join([f"serve {running.process.pid}", *(f"{name} {running.pid(name)}" for name in names)])
    assert error == f"error: {running.folder}/production/prefect: already in use by {pids}; end it first"


def test_a_taken_port_is_named(running: Served, tmp_path: Path) -> None:
    error = refused(site(tmp_path / "site"), "--port", str(running.port))
    assert error == (
        f"error: cannot listen on 127.0.0.1:{running.port} (Address already in use); choose another port with --port"
    )


def test_the_endpoint_answers_and_is_restarted(running: Served) -> None:
    (address,) = re.findall(r"^Endpoint: (http://127\.0\.0\.1:\d+)/docs$", running.output, re.MULTILINE)

    def label(id_: int) -> str:
        try:
            response = httpx.post(f"{address}/score", json={"messages": [{"id": id_, "text": "hello"}]}, timeout=30)
        except httpx.TransportError:
            return ""
        return str(response.json()["answers"][0]["label"]) if response.status_code == 200 else ""

    assert wait_for(running, lambda: label(1)) == "ham"
    before = running.pid("endpoint")
    assert "PREFECT_API_AUTH_STRING" not in psutil.Process(before).environ()
    os.kill(before, signal.SIGKILL)
    wait_for(running, lambda: running.pid("endpoint") != before)
    assert wait_for(running, lambda: label(1)) == "ham"
    log = running.folder / "production/prefect/endpoint.log"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_outside_a_repository_it_says_so(tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert error == "error: infra/prefect.yaml: no such file; run this command in the root of the repository"


def test_what_cannot_be_deployed_ends_it_with_the_reason(tmp_path: Path) -> None:
    folder = site(tmp_path / "site")
    (folder / "flows/watch.py").unlink()
    error = refused(folder, "--port", str(free_port()))
    assert error.startswith("error: infra/prefect.yaml: not deployed: ")
    assert "watch.py" in error
    assert belonging(folder) == []


def test_a_killed_worker_is_started_again_and_its_run_goes_on(running: Served) -> None:
    (running.folder / "do/score").write_text("until [ -f go-on ]; do sleep 0.2; done")
    run = running.start("score", window="orphan")
    wait_for(running, lambda: "start score orphan" in running.steps)
    worker = running.pid("worker")
    os.kill(worker, signal.SIGKILL)
    wait_for(running, lambda: running.pid("worker") != worker)
    assert re.search(r"^the worker ended with exit code -9; restarting it in \d s$", running.output, re.MULTILINE)
    assert running.ends(running.start("watch", window="next")) == "COMPLETED"
    (running.folder / "go-on").touch()
    assert running.ends(run) == "COMPLETED", "the run's own process lived on"


def test_schedules_go_on_after_the_server_and_after_everything_was_killed(tmp_path: Path) -> None:
    folder = site(tmp_path / "site")
    every(folder, "score", 10)
    with served(folder) as running:
        wait_for(running, lambda: "end score" in running.steps)
        server = running.pid("server")
        os.kill(server, signal.SIGKILL)
        wait_for(running, lambda: running.pid("server") != server)
        before = running.steps.count("end score")
        wait_for(running, lambda: running.steps.count("end score") >= before + 3)
        assert re.search(r"^the server ended with exit code -9; restarting it in \d s$", running.output, re.MULTILINE)

        (folder / "do/score").write_text("sleep 600")
        wait_for(running, lambda: running.steps.count("start score") - running.steps.count("end score") == 2)
        wait_for(running, lambda: len(running.server.in_state("RUNNING")) == 2)
        running.process.kill()
        kill(belonging(folder))
        running.process.wait()
    # As if hours had passed: Prefect gives up what it should have noticed more than a minute before it was started again.
    with closing(sqlite3.connect(folder / "production/prefect/prefect.db")) as database, database:
        database.execute("DELETE FROM automation_bucket")
    (folder / "do/score").unlink()
    with served(folder) as again:
        # The two that were killed keep their places until they are found to have crashed; then come those that are late.
        before = again.steps.count("end score")
        wait_for(again, lambda: again.steps.count("end score") >= before + 3)

        def crashed() -> int:
            return len(again.server.in_state("CRASHED"))

        # The second one may have begun ten seconds after the first. One more where a run began while no server answered.
        wait_for(again, lambda: crashed() >= 2)
        assert crashed() <= 3
        assert len(again.server.all("deployments")) == 5
        assert len(again.deployment("score")["schedules"]) == 1
        automations = [each["name"] for each in again.server.all("automations")]
        assert len(automations) == len(set(automations)) == 4


def test_ending_it_ends_runs_and_their_commands_and_says_so_to_the_server(tmp_path: Path) -> None:
    folder = site(tmp_path / "site")
    (folder / "do/pipeline").write_text(SLEEP)
    with prefect_server(made(tmp_path / "elsewhere")) as server, served(folder, PREFECT_API_URL=server.url) as running:
        assert not (folder / "production").exists(), "the server is elsewhere"
        elsewhere = Served(folder, port_of(server), running.process)
        run = elsewhere.start("pipeline")
        pid = int(wait_for(running, lambda: (found := folder / "pid").exists() and found.read_text().strip()))
        began = time.monotonic()
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(timeout=60) == 0
        assert time.monotonic() - began < 30
        assert belonging(folder) == []
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        assert elsewhere.state(run)["type"] == "CRASHED"


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def port_of(server: Server) -> int:
    return int(server.url.split(":")[2].split("/")[0])


def test_a_run_that_was_killed_is_found_to_have_crashed_and_frees_its_place(tmp_path: Path) -> None:
    folder = site(tmp_path / "site")
    (folder / "do/pipeline").write_text(SLEEP)
    with served(folder) as running:
        run = running.start("pipeline")
        wait_for(running, lambda: (folder / "pid").exists())
        worker = psutil.Process(running.pid("worker"))
        kill([worker, *worker.children(recursive=True)])
        waiting = running.start("retrain", window="behind")
        wait_for(running, lambda: running.pid("worker") != worker.pid)
        assert running.state(run)["type"] == "RUNNING"
        assert running.ends(run) == "CRASHED"
        assert running.state(run)["message"] == "it was silent for 90 s: its process or its machine was killed"
        assert running.ends(waiting) == "COMPLETED"


def test_help() -> None:
    command = [sys.executable, "-m", "flows.serve", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Run production on this machine until Ctrl-C" in done.stdout
    assert re.search(r"--port PORT\s+port to listen on", done.stdout)

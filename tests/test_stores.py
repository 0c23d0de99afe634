"""The parts that infra/compose.yaml puts together, from the system's packages: PostgreSQL under Prefect, S3 under DVC."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import psutil
import pytest

from tests.flow_fixtures import eventually, free_port, stand_in
from tests.project import ROOT, Outcome, environment, yaml
from tests.s3 import ACCESS, CLIENT, answers, s3
from tests.serve_fixtures import served, site, wait_for

pytestmark = pytest.mark.slow

COMPOSE = yaml.load(ROOT / "infra/compose.yaml")
PASSWORD = "only-in-this-test"


def postgresql_program(name: str) -> str:
    """The newest of the system's PostgreSQL."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    program = str(found[-1]) if found else shutil.which(name)
    assert program, f"no {name}; `make test-slow` installs PostgreSQL"
    return program


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A PostgreSQL server with an empty database; yields the address for Prefect."""
    # It refuses to run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder.mkdir()
    if as_user:
        shutil.chown(folder, "postgres", "postgres")
        for parent in folder.parents:
            if not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
    word = folder / "password"
    word.write_text(PASSWORD)
    data, port = folder / "data", free_port()
    options = ["--username=prefect", f"--pwfile={word}", "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"]
    subprocess.run(
        [*as_user, postgresql_program("initdb"), "-D", str(data), *options], check=True, capture_output=True, cwd="/"
    )
    command = [*as_user, postgresql_program("postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder)]
    with (folder.parent / "postgresql.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", start_new_session=True)
    try:
        eventually(lambda: answers(port))
        yield f"postgresql+asyncpg://prefect:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        for process in (*psutil.Process(server.pid).children(), psutil.Process(server.pid)):
            process.terminate()
        server.wait(timeout=60)


def test_everything_is_served_from_postgresql(tmp_path: Path) -> None:
    folder = site(tmp_path / "site")
    with postgresql(tmp_path / "postgresql") as address:
        database = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": address}
        with served(folder, **database) as running:
            assert not (folder / "production/prefect/prefect.db").exists()
            first = running.start("score", window="first")
            assert running.ends(first) == "COMPLETED"
            running.emit("class-prior.shifted", {"ballast.decision": "retrain"}, window="0002")
            (run,) = wait_for(running, lambda: running.runs("retrain"))
            assert running.ends(run["id"]) == "COMPLETED"
            assert "end retrain 0002" in running.steps
            assert PASSWORD not in running.output
            # Programs of runs need not know it.
            assert PASSWORD in str(psutil.Process(running.pid("server")).environ())
            assert PASSWORD not in str(psutil.Process(running.pid("worker")).environ())
        with served(folder, **database) as again:
            # What is due by the clock may have run as well; the event has started one run, and starts none anew.
            assert {first, run["id"]} <= {each["id"] for each in again.server.in_state("COMPLETED")}
            assert [each["id"] for each in again.runs("retrain")] == [run["id"]]
            assert again.ends(again.start("score", window="second")) == "COMPLETED"


def test_a_nul_in_an_error_hides_nothing_with_postgresql(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "home").mkdir()
    repository = stand_in(tmp_path / "site")
    # As a stage that prints the header of a file in UTF-16 would.
    repository.on("ingest", r"printf 'error: raw.txt: no column t\000e\000x\000t\n' >&2", "exit 1")
    with postgresql(tmp_path / "postgresql") as address:
        done = repository.flow("ingest", PREFECT_HOME=str(tmp_path / "home"), PREFECT_SERVER_DATABASE_CONNECTION_URL=address)
    assert done.error == r"error: stage ingest failed with exit code 1: raw.txt: no column t\x00e\x00x\x00t"
    assert "Traceback" not in done.stderr and "503" not in done.stderr


def test_dvc_finds_a_corrupted_object_of_the_store(tmp_path: Path) -> None:
    with s3(tmp_path) as address:
        settings = {**ACCESS, "AWS_ENDPOINT_URL": address, "DVC_SYSTEM_CONFIG_DIR": str(tmp_path / "etc")}
        env = environment(**settings, DVC_SITE_CACHE_DIR=str(tmp_path / "site"))
        # The remote and the command that makes the bucket are those of the containers.
        content = COMPOSE["configs"]["dvc"]["content"]
        theirs = COMPOSE["services"]["worker"]["environment"]["AWS_ENDPOINT_URL"]
        assert theirs in content
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/config").write_text(content.replace(theirs, address))
        python, *bucket = COMPOSE["services"]["bucket"]["command"]
        assert python == "python"
        for _ in range(2):  # the second time it is there
            subprocess.run([sys.executable, *bucket], env=env, check=True)

        folder = tmp_path / "repository"
        folder.mkdir()

        def dvc(*arguments: str) -> Outcome:
            done = subprocess.run(["dvc", *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False)
            return Outcome(done.returncode, done.stderr, done.stdout)

        def pulled() -> Outcome:
            """Pull into an empty cache and an empty workspace."""
            shutil.rmtree(folder / ".dvc/cache", ignore_errors=True)
            (folder / "model.bin").unlink(missing_ok=True)
            return dvc("pull")

        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
        assert dvc("init", "--quiet").code == 0
        (folder / "model.bin").write_bytes(b"weights")
        assert dvc("add", "model.bin").code == 0
        pushed = dvc("push")
        assert pushed.code == 0, pushed.stderr
        assert pulled().code == 0
        assert (folder / "model.bin").read_bytes() == b"weights"

        store = boto3.client("s3", endpoint_url=address, **CLIENT)
        (key,) = (each["Key"] for each in store.list_objects_v2(Bucket="ballast")["Contents"])
        store.put_object(Bucket="ballast", Key=key, Body=b"weightz")
        broken = pulled()
        assert broken.code != 0
        assert not (folder / "model.bin").exists()

        # What `verify` is for: without it the wrong bytes are taken.
        (tmp_path / "etc/config").write_text((tmp_path / "etc/config").read_text().replace("verify = true", "verify = false"))
        assert pulled().code == 0
        assert (folder / "model.bin").read_bytes() == b"weightz"

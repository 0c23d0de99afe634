"""Trainings on other machines: a Ray cluster and a work pool, clones of their own, an S3 store, and what goes wrong there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import boto3
import httpx
import psutil
import pytest
import torch
from prefect.cli.deploy._models import DeploymentConfig, PrefectYamlModel
from prefect.settings import PREFECT_API_URL, temporary_settings

from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from ballast.training.launching import check_gpus
from flows.failures import StageFailed
from flows.node import on_worker, train
from flows.nodes.commits import at_commit, head
from flows.nodes.dispatch import Reads, check_committed, collect, engine_of, gpus_for, stale, train_elsewhere, train_on_nodes
from flows.nodes.engine import TrainingRequest, check_server
from flows.nodes.ray_cluster import check_address
from flows.nodes.remote import check_remote, lock_entries
from flows.prefect_server.zombie_runs import silent_run_automation
from stages.store.files import read_json
from stages.store.project import PROJECT
from tests.flow_fixtures import Server, eventually, free_port, prefect_server
from tests.project import ROOT, TINY_TRAINING, Outcome, Project, corpus, environment, project_copy, yaml
from tests.s3 import ACCESS, CLIENT, answers, s3
from tests.serve_fixtures import belonging, kill

TECHNIQUES: dict[str, dict[str, float]] = {"baseline": {}, "focal": {"gamma": 2.0}, "upsample": {}, "tfidf": {}}
# A head takes a token from its user's home, where one is; a node that joins does so only when told to.
TOKEN = "0123456789abcdef" * 4
REMOTE = ["remote", "add", "--default", "store", "s3://ballast/dvc"]


def git(folder: Path, *arguments: str) -> str:
    as_somebody = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *as_somebody, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@dataclass(frozen=True)
class Site:
    """A project whose trainings go elsewhere, two nodes with a clone each, an S3 store, and a Prefect server."""

    project: Project
    nodes: tuple[Path, Path]
    store: str
    server: Server

    def environment(self, **changes: str) -> dict[str, str]:
        """What a process of any of the machines needs."""
        inherited = {name: value for name, value in environment().items() if not name.startswith(("PREFECT_", "RAY_"))}
        ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
        return inherited | ACCESS | {"AWS_ENDPOINT_URL": self.store} | ray | self.server.environment | changes

    def of_node(self, node: Path) -> dict[str, str]:
        """What a node's processes need: its clone, and nothing of the code of another one."""
        return self.environment(BALLAST_ROOT=str(node), DVC_SITE_CACHE_DIR=str(node / ".dvc/tmp/site"))

    def flow(self, *arguments: str, **changes: str) -> Outcome:
        """Run the pipeline as a user does."""
        return self.project.run(sys.executable, "-m", "flows.pipeline", *arguments, **self.environment(**changes))

    def trainings(self) -> dict[str, dict[str, Any]]:
        """Which node trained what in the last flow, by technique."""
        (found,) = self.server.all("artifacts", artifacts={"key": {"any_": ["nodes"]}}, sort="CREATED_DESC", limit=1)
        rows = json.loads(found["data"]) if isinstance(found["data"], str) else found["data"]
        return {row["training"].partition("@")[2].rpartition("-")[0]: row for row in rows}


def die(node: Path, *, but: int | None = None) -> None:
    """Kill all of a node, as a machine that loses its power; or all but one of its processes."""
    kill(process for process in belonging(node) if process.pid != but)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    project = project_copy(folder / "project")
    project.write("messages.csv", corpus({"ham": 400, "spam": 100}))
    project.edit(
        {
            "ingest.source": "file",
            "ingest.path": "messages.csv",
            "techniques": TECHNIQUES,
            "evaluate.resamples": 100,
            "train.model": str(tiny_encoder),
            "nodes.cpus": 1,
            **{f"train.{key}": value for key, value in TINY_TRAINING.items()},
        }
    )
    for command in (REMOTE, ["remote", "modify", "store", "verify", "true"]):
        assert project.run("dvc", *command).code == 0
    git(project.folder, "commit", "--quiet", "--no-verify", "--all", "-m", "Settings")
    nodes = (folder / "a", folder / "b")
    for node in nodes:
        git(folder, "clone", "--quiet", str(project.folder), str(node))
    home = tmp_path_factory.mktemp("prefect")
    with s3(folder) as store, prefect_server(home) as server:
        boto3.client("s3", endpoint_url=store, **CLIENT).create_bucket(Bucket="ballast")
        yield Site(project, nodes, store, server)


@contextlib.contextmanager
def ray_cluster(site: Site) -> Iterator[str]:
    """A Ray cluster of the two nodes, room for one training each; yields the address for a machine that is not in it."""
    port, client = free_port(), free_port()
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1", "--num-gpus=0"]
    head, other = site.nodes
    starts = (
        (head, ["--head", f"--port={port}", f"--ray-client-server-port={client}", "--include-dashboard=false"]),
        (other, [f"--address=127.0.0.1:{port}"]),
    )
    processes = []
    try:
        for node, options in starts:
            output = node.parent / f"{node.name}.log"
            with output.open("wb") as log:
                started = subprocess.Popen([*ray, *options], cwd="/", env=site.of_node(node), stdout=log, stderr=log)
            processes.append(started)
            eventually(lambda output=output: "Ray runtime started" in output.read_text())
        eventually(lambda: answers(client))
        yield f"ray://127.0.0.1:{client}"
    finally:
        for node in site.nodes:
            die(node)
        for process in processes:
            process.wait()


@pytest.fixture
def clones(tmp_path: Path) -> tuple[Path, Path]:
    """A repository with one commit, and a clone of it."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    git(here, "init", "--quiet")
    commit_file(here, "code.py", "1")
    git(tmp_path, "clone", "--quiet", str(here), str(there))
    return here, there


def commit_file(folder: Path, name: str, content: str) -> str:
    """Commit a file: the commit's name."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)
    git(folder, "add", name)
    git(folder, "commit", "--quiet", "-m", name)
    return head(folder)


def test_a_clone_fetches_the_commit_that_it_lacks(clones: tuple[Path, Path]) -> None:
    here, there = clones
    wanted = commit_file(here, "code.py", "2")
    (there / "dvc.lock").write_text("DVC's own")
    with at_commit(there, wanted):
        assert (head(there), (there / "code.py").read_text()) == (wanted, "2")
    with at_commit(there, wanted), at_commit(there, wanted):
        pass  # as many as like may be at the same one
    for content in ("of the pipeline", "of another one"):
        wanted = commit_file(here, "dvc.lock", content)
        (there / "dvc.lock").write_text("DVC's own")
        with at_commit(there, wanted):
            assert (there / "dvc.lock").read_text() == content


def test_who_come_to_a_clone_together_and_want_the_same_share_it(clones: tuple[Path, Path]) -> None:
    here, there = clones
    wanted, both = commit_file(here, "code.py", "2"), threading.Barrier(2)

    def one(_: int) -> None:
        with at_commit(there, wanted, "of today"):
            both.wait(300)

    with ThreadPoolExecutor() as pool:
        list(pool.map(one, range(2)))


def test_a_clone_at_another_commit_that_it_cannot_have_names_both(clones: tuple[Path, Path]) -> None:
    here, there = clones
    found, wanted = head(there), commit_file(here, "code.py", "2")
    line = f"the clone is at commit {found[:12]}, the pipeline at {wanted[:12]}"
    for origin in (here.parent / "nowhere", there):
        git(there, "remote", "set-url", "origin", str(origin))
        with pytest.raises(UserError, match=line), at_commit(there, wanted):
            pass
        assert head(there) == found


def test_work_in_a_clone_is_not_lost(clones: tuple[Path, Path]) -> None:
    here, there = clones
    wanted = commit_file(here, "code.py", "2")
    (there / "code.py").write_text("mine")
    with pytest.raises(UserError, match=r"code\.py was changed here; commit or restore it"), at_commit(there, wanted):
        pass
    assert (there / "code.py").read_text() == "mine"
    git(there, "restore", "code.py")
    (there / "new.py").write_text("mine")
    wanted = commit_file(here, "new.py", "theirs")
    with pytest.raises(UserError, match=r"would be overwritten by checkout: new\.py"), at_commit(there, wanted):
        pass
    assert (there / "new.py").read_text() == "mine"


def test_nobody_moves_a_clone_while_another_trains_in_it(clones: tuple[Path, Path]) -> None:
    here, there = clones
    before, after = head(here), commit_file(here, "code.py", "2")
    seen: list[str] = []

    def other() -> None:
        with at_commit(there, after):
            seen.append(head(there))

    with at_commit(there, before):
        waiting = threading.Thread(target=other)
        waiting.start()
        waiting.join(0.5)
        assert (seen, head(there)) == ([], before)
    waiting.join(30)
    assert seen == [after]


def test_trainings_share_a_clone_only_with_those_that_have_the_same_data(clones: tuple[Path, Path]) -> None:
    _, there = clones
    commit, entered = head(there), threading.Event()

    def other() -> None:
        with at_commit(there, commit, "of today"):
            entered.set()

    with at_commit(there, commit, "of yesterday"), at_commit(there, commit, "of yesterday"):
        waiting = threading.Thread(target=other)
        waiting.start()
        assert not entered.wait(0.5)
    assert entered.wait(300)
    waiting.join()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A DVC repository with sources and settings, committed."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = false\n")
    commit_file(tmp_path, "ballast/code.py", "1")
    commit_file(tmp_path, "params.yaml", "{nodes: {train: here}, train: {epochs: 1}, techniques: {a: {}, focal: {gamma: 2}}}")
    return tmp_path


def remote(repository: Path, config: str) -> None:
    (repository / ".dvc/config").write_text("[core]\n    remote = store\n['remote \"store\"']\n    " + config)


def test_without_a_remote_nothing_can_be_shared(repository: Path) -> None:
    with pytest.raises(UserError, match="there is no DVC remote to share data through: run `dvc remote add --default"):
        check_remote(repository)


def test_a_remote_must_be_there_and_be_verified(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    remote(repository, f"url = {folder}\n    verify = true")
    with pytest.raises(UserError, match=f"DVC remote store \\({folder}\\) cannot be written and read here: .*no such folder"):
        check_remote(repository)
    folder.mkdir()
    check_remote(repository)
    assert list(folder.iterdir()) == []
    remote(repository, f"url = {folder}")
    with pytest.raises(UserError, match="would accept corrupted objects from it; run `dvc remote modify store verify true`"):
        check_remote(repository)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("ballast/code.py", "2", "ballast/code.py differs from the last commit"),
        ("ballast/techniques/new.py", "1", "ballast/techniques/new.py differs from the last commit"),
        ("params.yaml", "{train: {epochs: 2}, techniques: {a: {}}}", "params.yaml: train differs from the last commit"),
        (
            "params.yaml",
            "{train: {epochs: 1}, techniques: {a: {}, b: {}}}",
            "params.yaml: techniques.b is not in the last commit",
        ),
    ],
)
def test_what_a_node_would_not_see_is_refused(
    repository: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str, line: str
) -> None:
    monkeypatch.chdir(repository)
    check_committed(["train@a-0"])
    (repository / name).parent.mkdir(exist_ok=True)
    (repository / name).write_text(content)
    with pytest.raises(UserError, match=line):
        check_committed(["train@a-0", "train@b-0"])


def test_what_a_training_does_not_see_needs_no_commit(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    (repository / "README.md").write_text("words")
    # What an entry says reaches the node with its card.
    (repository / "params.yaml").write_text("{nodes: {train: ray}, train: {epochs: 1}, techniques: {a: {}, focal: {gamma: 3}}}")
    check_committed(["train@a-0", "train@focal-0"])


def test_gpus_are_asked_for_by_entry() -> None:
    wanted = {"gpus": 1, "gpus_of": {"tfidf": 0, "class_weight_spam_10": 0.25}}
    given = {name: gpus_for(f"train@{name}-17", wanted) for name in ("baseline", "tfidf", "class_weight_spam_10")}
    assert given == {"baseline": 1, "tfidf": 0, "class_weight_spam_10": 0.25}


def test_a_gpu_that_torch_does_not_see_is_not_replaced_by_the_cpu() -> None:
    check_gpus(0)
    with pytest.raises(UserError, match=r"requested GPUs: 99, but torch sees \d+;"):
        check_gpus(99)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_a_part_of_a_gpu_wants_one_too() -> None:
    with pytest.raises(UserError, match=r"requested GPUs: 0\.5, but torch sees 0;"):
        check_gpus(0.5)


def test_the_deployment_is_one_that_prefect_understands_and_takes_an_order() -> None:
    content = yaml.load(ROOT / "infra/nodes.yaml")
    PrefectYamlModel.model_validate(content)
    (deployment,) = content["deployments"]
    assert set(deployment) <= set(DeploymentConfig.model_fields)
    assert deployment["entrypoint"] == f"flows/node.py:{on_worker.fn.__name__}"
    assert f"{on_worker.name}/{deployment['name']}" == yaml.load(ROOT / "params.yaml")["nodes"]["deployment"]
    assert list(on_worker.parameters.properties) == [field.name for field in fields(TrainingRequest)]
    assert content["pull"] == yaml.load(ROOT / "infra/prefect.yaml")["pull"]


def test_ray_that_is_not_installed_says_how_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prefect_ray", None)
    with pytest.raises(UserError, match=r"nodes\.train is ray, which is not installed .*; run `make nodes`"):
        engine_of({"train": "ray", "address": None, "cpus": 1, "wait_minutes": 0})


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "head", "ray://head:words", "auto"])
def test_a_ray_cluster_that_is_not_there_is_told_at_once(address: str) -> None:
    address = address.format(port=free_port())
    with pytest.raises(UserError, match=re.escape(f"nodes.address: no Ray cluster answers at {address} (")):
        check_address(address)


@pytest.mark.parametrize("failures", [0, 2, 3])
def test_a_connection_that_fails_is_tried_again(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = iter([*[ConnectionError("RuntimeError: Starting Ray client server failed.")] * failures, None])

    def connect(reads: dict[str, Reads], retries: int) -> None:
        if (error := next(outcomes)) is not None:
            raise error

    flow = types.SimpleNamespace(with_options=lambda task_runner: connect)
    engine = types.SimpleNamespace(task_runner=lambda: None)
    for name, value in {
        "stale": lambda stages: {"train@a-0": {}},
        "engine_of": lambda wanted: engine,
        "nodes": lambda: {"address": "ray://head:10001"},
        "get_run_logger": lambda: logging.getLogger("test"),
        "train_on_nodes": flow,
        **dict.fromkeys(("run_command", "check_committed", "check_remote"), lambda *arguments: None),
    }.items():
        monkeypatch.setattr(f"flows.nodes.dispatch.{name}", value)
    expected = (
        pytest.raises(UserError, match="ray://head:10001 answers, but Ray does not connect")
        if failures > 2
        else contextlib.nullcontext()
    )
    with expected:
        train_elsewhere(["train@a-0"], retries=2)
    assert next(outcomes, "none left") == ("none left" if failures < 3 else None)


def test_a_cluster_elsewhere_needs_a_prefect_server_that_it_reaches(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "prefect_ray", types.ModuleType("prefect_ray"))
    monkeypatch.setattr("flows.nodes.engine.get_run_logger", lambda: logging.getLogger("test"))
    engine = engine_of({"train": "ray", "address": f"127.0.0.1:{free_port()}", "cpus": 1, "wait_minutes": 0})
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(UserError, match=r"nodes\.train is ray, which needs PREFECT_API_URL: a Prefect server that"),
    ):
        engine.task_runner()
    for address, warned in (("localhost:6379", False), ("ray://[::1]:10001", False), ("ray://head:10001", True)):
        caplog.clear()
        with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:4200/api"}):
            check_server("ray", address)
        assert ("which on a node is the node itself" in caplog.text) == warned


def test_a_node_without_a_clone_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for root in ("", str(tmp_path)):
        monkeypatch.setenv("BALLAST_ROOT", root)
        with pytest.raises(UserError, match=f"node .*:{root}: BALLAST_ROOT is not a clone of the project"):
            train("train@a-0", "0" * 40, "", {}, [], 0, print)


# One stage that notes that it ran and writes a folder with a manifest, as a training does.
TRAINING = """
if [ -f together ]; then
  touch begun-$1
  n=0
  until [ -f begun-a ] && [ -f begun-b ]; do n=$((n + 1)); [ $n -lt 3000 ] || { echo "error: alone"; exit 1; }; sleep 0.1; done
fi
mkdir -p models/$1/0
echo weights of $1 > models/$1/0/weights
sum=$(sha256sum models/$1/0/weights | cut -d' ' -f1)
echo "{\\"files\\": {\\"weights\\": \\"$sum\\"}}" > models/$1/0/manifest.json
echo $1 >> runs.log
"""
GRAPH = """
stages:
  data:
    cmd: echo messages > data
    outs: [data]
  train:
    matrix: {technique: [a, b], seed: [0]}
    cmd: sh train.sh ${item.technique}
    deps: [data, train.sh]
    outs: ["models/${item.technique}/${item.seed}"]
"""
STAGE = "train@a-0"


@dataclass(frozen=True)
class Pair:
    """Two clones of a small repository that share an S3 store, with credentials that the store checks."""

    here: Path
    there: Path
    store: Any

    def order(self, stage: str = STAGE) -> dict[str, Any]:
        """What the pipeline here asks the machine there to do."""
        subprocess.run(["dvc", "push", "--quiet", "data"], cwd=self.here, check=True)
        inputs = {"data": lock_entries(self.here)["data"]}
        order = TrainingRequest(stage=stage, commit=head(self.here), data="of today", inputs=inputs, paths=["data"], gpus=0)
        return {**asdict(order), "log": print}

    def corrupt(self, path: str) -> None:
        """Change a byte of what the store holds of a file or folder of dvc.lock."""
        entries = [*lock_entries(self.here).values(), *lock_entries(self.there).values()]
        (md5,) = {out["md5"] for entry in entries for out in entry["outs"] if out["path"] == path}
        if md5.endswith(".dir"):
            md5 = hashlib.md5((self.there / path / "weights").read_bytes()).hexdigest()
        key = f"dvc/files/md5/{md5[:2]}/{md5[2:]}"
        content = self.store.get_object(Bucket="ballast", Key=key)["Body"].read()
        self.store.put_object(Bucket="ballast", Key=key, Body=content[:-1] + b"!")


def runs(folder: Path) -> int:
    """How many trainings ran in a clone."""
    return len((folder / "runs.log").read_text().splitlines()) if (folder / "runs.log").exists() else 0


@pytest.fixture(scope="module")
def checking_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any, dict[str, str]]]:
    """An S3 server that checks credentials: its address, a client of its owner, and the right credentials of a node."""
    with s3(tmp_path_factory.mktemp("store")) as address:
        iam = boto3.client("iam", endpoint_url=address, **CLIENT)
        keys = {}
        # DVC never deletes what it shares; who trains need not be allowed to.
        for user, actions in {"owner": ["s3:*"], "node": ["s3:Get*", "s3:List*", "s3:Put*"]}.items():
            iam.create_user(UserName=user)
            allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
            iam.put_user_policy(UserName=user, PolicyName="store", PolicyDocument=json.dumps(allow))
            key = iam.create_access_key(UserName=user)["AccessKey"]
            keys[user] = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
        httpx.post(f"{address}/moto-api/reset-auth", content="0").raise_for_status()
        store = boto3.client("s3", endpoint_url=address, **(CLIENT | keys["owner"]))
        store.create_bucket(Bucket="ballast")
        yield address, store, {name.upper(): value for name, value in keys["node"].items()}


@pytest.fixture
def pair(tmp_path: Path, checking_store: tuple[str, Any, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Pair:
    address, store, access = checking_store
    for name, value in {**environment(), **ACCESS, **access, "AWS_ENDPOINT_URL": address}.items():
        monkeypatch.setenv(name, value)
    for each in store.list_objects_v2(Bucket="ballast").get("Contents", []):
        store.delete_object(Bucket="ballast", Key=each["Key"])
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    git(here, "init", "--quiet")
    for command in (["init"], REMOTE, ["remote", "modify", "store", "verify", "true"]):
        subprocess.run(["dvc", *command, "--quiet"], cwd=here, check=True)
    (here / ".gitignore").write_text("/data\n/models\n/runs.log\n")
    (here / "train.sh").write_text(TRAINING)
    (here / "dvc.yaml").write_text(GRAPH)
    git(here, "add", ".")
    git(here, "commit", "--quiet", "-m", "All")
    git(tmp_path, "clone", "--quiet", str(here), str(there))
    subprocess.run(["dvc", "repro", "--quiet", "data"], cwd=here, check=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("BALLAST_ROOT", str(there))
    monkeypatch.setattr("flows.nodes.dispatch.get_run_logger", lambda: logging.getLogger("test"))
    return Pair(here, there, store)


@pytest.mark.slow
def test_what_comes_back_is_what_the_node_trained_and_is_trained_once(pair: Pair) -> None:
    assert stale([STAGE]) == {STAGE: {"data": ["data"]}}
    answer = train(**pair.order())
    assert (answer["trained"], runs(pair.there)) == (True, 1)
    collect(STAGE, answer)
    assert (pair.here / "models/a/0/weights").read_bytes() == (pair.there / "models/a/0/weights").read_bytes()
    assert (stale([STAGE]), runs(pair.here)) == ({}, 0)

    # A file that is gone comes from the cache; what another clone trained comes from the run cache.
    (pair.here / "models/a/0/weights").unlink()
    assert stale([STAGE]) == {}
    assert (pair.here / "models/a/0/weights").exists()
    third = pair.there.with_name("third")
    git(pair.here.parent, "clone", "--quiet", str(pair.here), str(third))
    os.environ["BALLAST_ROOT"] = str(third)
    again = train(**pair.order())
    assert (again["trained"], runs(third), again["manifests"]) == (False, 0, answer["manifests"])

    with pytest.raises(UserError, match=r"models/a/0/manifest\.json: sha256 is .*, but .*:.*there trained one with 0"):
        collect(STAGE, answer | {"manifests": {"models/a/0": "0" * 64}})
    assert set(stale([STAGE])) == {STAGE}, "what is not proven is not up to date"


@pytest.mark.slow
def test_two_trainings_go_on_at_once_in_one_clone(pair: Pair) -> None:
    (pair.there / "together").touch()  # neither ends before the other has begun
    stages = ("train@a-0", "train@b-0")
    orders = [pair.order(stage) for stage in stages]
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda order: train(**order), orders))
    for stage, answer in zip(stages, answers, strict=True):
        collect(stage, answer)
    assert (stale(stages), runs(pair.there), runs(pair.here)) == ({}, 2, 0)


@pytest.mark.slow
@pytest.mark.parametrize("returns", [True, False])
def test_a_store_that_is_away_costs_no_training(pair: Pair, monkeypatch: pytest.MonkeyPatch, returns: bool) -> None:
    monkeypatch.setattr("flows.nodes.remote.TRY_AGAIN_SECONDS", 0.0)
    away, tries = pair.there / ".dvc/config.local", []

    def store(line: str) -> None:
        if line.startswith("Running stage"):
            away.write_text("['remote \"store\"']\n    url = s3://nowhere/dvc\n")
        elif line.startswith("ERROR: unexpected error"):
            tries.append(line)
            if returns:
                away.unlink()

    order = pair.order() | {"log": store}
    if returns:
        collect(STAGE, train(**order))
    else:
        with pytest.raises(StageFailed, match=f"stage {STAGE} failed with exit code 255: ERROR: .*bucket does not exist"):
            train(**order)
    assert (len(tries), runs(pair.there)) == (1 if returns else 3, 1)


class ThisProcess:
    """An engine that trains here, one after the other, and breaks as it is told to where a training's answer is asked for."""

    def __init__(self, broken: dict[str, Exception]) -> None:
        self.broken, self.requests = broken, dict[str, TrainingRequest]()

    def check(self, requests: list[TrainingRequest]) -> None:
        self.requests = {request.stage: request for request in requests}

    def submit(self, request: TrainingRequest) -> str:
        return request.stage

    def wait_any(self, running: dict[str, TrainingRequest]) -> str:
        return next(iter(running))

    def result(self, stage: str) -> dict[str, Any]:
        if stage in self.broken:
            raise self.broken[stage]
        return train(**asdict(self.requests[stage]), log=print)


@pytest.mark.slow
def test_whatever_goes_wrong_with_one_training_the_others_go_on(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    (pair.here / "params.yaml").write_text("nodes: {train: ray, gpus: 0, gpus_of: {}}")
    engine = ThisProcess({STAGE: httpx.ConnectError("the server is away")})
    monkeypatch.setattr("flows.nodes.dispatch.engine_of", lambda wanted: engine)
    monkeypatch.setattr("flows.artifacts.create_table_artifact", lambda table, **names: None)
    stages = (STAGE, "train@b-0")
    with pytest.raises(UserError, match=f"{STAGE}: ConnectError: the server is away"):
        train_on_nodes.fn(stale(stages), 0)
    assert (set(stale(stages)), runs(pair.there), runs(pair.here)) == ({STAGE}, 1, 0)


@pytest.mark.slow
def test_a_result_that_was_corrupted_in_the_store_is_neither_taken_nor_trained_here(pair: Pair) -> None:
    answer = train(**pair.order())
    pair.corrupt("models/a/0")
    line = f"{STAGE}: the DVC remote cannot provide models/a/0: missing or corrupted there; delete (.*) if it exists, and run"
    with pytest.raises(UserError, match=line) as raised:
        collect(STAGE, answer)
    assert not (pair.here / "models/a/0/weights").exists()
    assert runs(pair.here) == 0

    # What the line says leads out.
    match = re.search(line, str(raised.value))
    assert match is not None
    objects = match[1].split(", ")
    assert len(objects) == 2, "the file and the list that names it"
    for each in objects:
        pair.store.delete_object(Bucket="ballast", Key=each.removeprefix("s3://ballast/"))
    collect(STAGE, train(**pair.order()))
    assert (pair.here / "models/a/0/weights").exists() and runs(pair.there) == 1


@pytest.mark.slow
def test_what_a_commit_says_of_a_training_is_no_result(pair: Pair) -> None:
    subprocess.run(["dvc", "repro", "--quiet"], cwd=pair.here, check=True)
    commit_file(pair.here, "dvc.lock", (pair.here / "dvc.lock").read_text())
    # As in a fresh clone, and a node whose cache is new.
    shutil.rmtree(pair.here / ".dvc/cache")
    shutil.rmtree(pair.here / "models")
    (pair.here / "runs.log").unlink()
    subprocess.run(["dvc", "repro", "--quiet", "--force", "data"], cwd=pair.here, check=True)
    assert STAGE in stale([STAGE])
    answer = train(**pair.order())
    assert answer["trained"] and list(answer["manifests"]) == ["models/a/0"]
    collect(STAGE, answer)
    assert (stale([STAGE]), runs(pair.here), runs(pair.there)) == ({}, 0, 1)


@pytest.mark.slow
def test_a_store_that_is_away_while_results_are_brought_has_lost_none(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.nodes.remote.TRY_AGAIN_SECONDS", 0.0)
    answer = train(**pair.order())
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StageFailed, match="Could not connect") as raised:
        collect(STAGE, answer)
    assert "delete" not in str(raised.value)


@pytest.mark.slow
def test_data_that_was_corrupted_in_the_store_is_not_trained_on(pair: Pair) -> None:
    order = pair.order()
    pair.corrupt("data")
    with pytest.raises(UserError, match=f"node .*:{pair.there}: {STAGE}: the DVC remote cannot provide data: "):
        train(**order)
    assert (runs(pair.there), (pair.there / "data").exists()) == (0, False)


@pytest.mark.slow
def test_a_node_does_not_train_on_what_an_earlier_training_left(pair: Pair) -> None:
    (pair.there / "data").write_text("of last week")
    answer = train(**pair.order())
    assert (pair.there / "data").read_text() == "messages\n"
    collect(STAGE, answer)


@pytest.mark.slow
def test_a_training_with_other_data_waits_until_nobody_trains_in_the_clone(pair: Pair) -> None:
    order = pair.order()
    with ThreadPoolExecutor() as pool:
        with at_commit(pair.there, order["commit"], "of yesterday"):
            waiting = pool.submit(train, **order)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=5)
            assert not (pair.there / "data").exists()
        collect(STAGE, waiting.result())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "PermissionError: .*signature"),
        ("AWS_ACCESS_KEY_ID", "AKIANOBODY", "PermissionError: .*Access Key Id"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "EndpointConnectionError"),
    ],
)
def test_a_store_that_cannot_be_used_is_told_before_anything_trains(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    order = pair.order()
    monkeypatch.setenv(name, value)
    line = rf"DVC remote store \(s3://ballast/dvc\) cannot be written and read here: {said}"
    with pytest.raises(UserError, match=line):
        check_remote(pair.here)
    with pytest.raises(UserError, match=f"node .*:{pair.there}: {line}"):
        train(**order)
    assert runs(pair.there) == 0


def half_way(node: Path, *, trained_before: int) -> str:
    """The technique of a training that has begun on a node after so many others have ended there."""

    def found() -> str | None:
        done = trained_in(node)
        for process in belonging(node) if len(done) == trained_before else ():
            with contextlib.suppress(psutil.Error):
                match process.cmdline():
                    # One that has noted its end is no longer half-way.
                    case [_, "-m", "stages.train", technique, _] if technique not in done:
                        return technique
        return None

    answer = eventually(found)
    assert answer is not None
    return answer


def trainings(*nodes: Path) -> list[psutil.Process]:
    """The processes that train on nodes."""
    found = []
    for process in (each for node in nodes for each in belonging(node)):
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[1:3] == ["-m", "stages.train"]:
                found.append(process)
    return found


def trained_in(folder: Path) -> set[str]:
    """The techniques whose training ran to its end in a clone."""
    return {path.parent.name for path in (folder / "durations").glob("*/0.json")}


def manifest(folder: Path, technique: str) -> str:
    return file_sha256(folder / PROJECT.models / technique / "0/manifest.json")


@contextlib.contextmanager
def flow_running(site: Site, *arguments: str) -> Iterator[Callable[..., str]]:
    """The pipeline in the background; the value waits for its end, which is to be success, and returns what it said."""
    output = site.project.folder.parent / "flow.log"
    env = site.environment(DVC_SITE_CACHE_DIR=str(site.project.folder / ".dvc/tmp/site"))
    with output.open("wb") as log:
        command = [sys.executable, "-m", "flows.pipeline", *arguments]
        process = subprocess.Popen(command, cwd=site.project.folder, env=env, stdout=log, stderr=log)

    def ended(*, interrupt: bool = False) -> str:
        if interrupt:
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=900) == (128 + signal.SIGINT if interrupt else 0), output.read_text()
        return output.read_text()

    try:
        yield ended
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_four_techniques_are_trained_apart_and_only_what_a_killed_node_did_is_trained_again(site: Site) -> None:
    first, second = site.nodes
    with ray_cluster(site) as address:
        site.project.edit({"nodes.train": "ray", "nodes.address": address})
        with flow_running(site) as succeeded:
            killed = half_way(second, trained_before=1)
            die(second)
            said = succeeded()
    assert f"train@{killed}-0: lost (" in said
    rows = site.trainings()
    assert {name: row["lost"] for name, row in rows.items()} == {name: int(name == killed) for name in TECHNIQUES}
    assert all(row["trained"] for row in rows.values())
    assert rows[killed]["node"].endswith(f":{first}")

    # Each was trained to its end once, on the machine that says so, and none here.
    where = {name: {str(node) for node in site.nodes if name in trained_in(node)} for name in TECHNIQUES}
    assert where == {name: {row["node"].partition(":")[2]} for name, row in rows.items()}
    assert trained_in(second) and killed not in trained_in(second)
    assert trained_in(site.project.folder) == set()

    for name, row in rows.items():
        assert manifest(site.project.folder, name) == manifest(Path(row["node"].partition(":")[2]), name)
    board = read_json(site.project.folder / PROJECT.leaderboard)
    assert set(board["techniques"]) == set(TECHNIQUES)
    assert site.project.run("dvc", "repro", "--pull", **site.environment()).stdout.count("Running stage") == 0


@pytest.mark.slow
def test_a_gpu_that_no_node_has_is_refused_before_anything_trains(site: Site) -> None:
    with ray_cluster(site) as address:
        site.project.edit({"nodes.train": "ray", "nodes.address": address, "nodes.gpus_of": {"focal": 0.5}})
        with edited(site, {"techniques.focal.gamma": 1.0}):
            refused = site.flow("train@focal-0")
            stranger = site.flow("train@focal-0", RAY_AUTH_TOKEN=TOKEN[::-1])
    assert f"nodes.address: {address} answers, but Ray does not connect (ray client connection timeout)" in stranger.error
    assert stranger.stderr.count("trying again") == 2
    assert "train@focal-0 asks for a node with 1 CPU and 0.5 GPU" in refused.error
    assert refused.error.count("1 CPU and 0 GPU") == 2
    assert "Running stage 'train" not in refused.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_a_training_waits_for_a_node_as_long_as_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from prefect_ray.task_runners import PrefectRayFuture

    monkeypatch.setattr("flows.nodes.ray_cluster.POLL_SECONDS", 0.2)
    order = TrainingRequest(stage=STAGE, commit="", data="", inputs={}, paths=[], gpus=1)
    ray.init(address="local", num_cpus=1, num_gpus=0, include_dashboard=False, log_to_driver=False)
    try:
        wanted = {"train": "ray", "address": None, "cpus": 1}
        with pytest.raises(UserError, match=r"asks for a node with 1 CPU and 1 GPU .*: 1 CPU and 0 GPU"):
            engine_of(wanted | {"wait_minutes": 0}).check([order])
        engine = engine_of(wanted | {"wait_minutes": 1 / 60})
        engine.check([order])
        future = PrefectRayFuture[Any](uuid4(), ray.remote(num_gpus=1)(lambda: None).remote())
        begun = time.monotonic()
        assert engine.wait_any({future: order}) is future
        assert time.monotonic() - begun >= 1
        with pytest.raises(UserError, match=r"nodes\.wait_minutes"):
            engine.result(future)
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_a_training_ends_with_its_pipeline_also_when_that_is_killed(site: Site) -> None:
    with ray_cluster(site) as address:
        changes = {"nodes.train": "ray", "nodes.address": address, "nodes.gpus_of": {}, "techniques.focal.gamma": 1.25}
        with edited(site, changes), flow_running(site, "train@focal-0"):
            (training,) = eventually(lambda: trainings(*site.nodes))
            training.suspend()  # it does not end by itself
        eventually(lambda: not trainings(*site.nodes))


@contextlib.contextmanager
def edited(site: Site, changes: dict[str, object]) -> Iterator[None]:
    """Other settings for a while; what they say of nodes and techniques needs no commit."""
    before = (site.project.folder / "params.yaml").read_bytes()
    site.project.edit(changes)
    yield
    (site.project.folder / "params.yaml").write_bytes(before)


@pytest.mark.slow
def test_a_work_pool_trains_with_the_same_code_and_a_run_that_was_killed_is_sent_again(site: Site) -> None:
    first, _ = site.nodes
    site.project.edit({"nodes.train": "kubernetes", "nodes.gpus_of": {}, "techniques.focal.gamma": 1.5})
    nowhere = site.flow("train@focal-0")
    assert nowhere.error.startswith("error: nodes.deployment: the Prefect server has no deployment train/node")

    env = site.of_node(first) | {"PREFECT_WORKER_QUERY_SECONDS": "2"}
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    here = {name: value for name, value in env.items() if name != "BALLAST_ROOT"}
    for command in (
        ["work-pool", "create", "--type", "process", "--base-job-template", "infra/process-template.json", "gpu"],
        ["deploy", "--all", "--prefect-file", "infra/nodes.yaml"],
    ):
        subprocess.run([*prefect, *command], cwd=site.project.folder, env=here, check=True, capture_output=True)
    idle = site.flow("train@focal-0")
    assert "the pool gpu has no worker" in idle.error
    (deployment,) = site.server.all("deployments")
    (found,) = site.server.all("automations")
    assert found["name"] == silent_run_automation(UUID(deployment["id"])).name
    assert found["trigger"]["match_related"]["prefect.resource.id"] == f"prefect.deployment.{deployment['id']}"

    with (first.parent / "worker.log").open("wb") as log:
        command = [*prefect, "worker", "start", "--pool", "gpu", "--install-policy", "never"]
        worker = subprocess.Popen(command, cwd=first, env=env, stdout=log, stderr=log)
    try:
        eventually(lambda: site.server.all("work_pools", work_pools={"name": {"any_": ["gpu"]}})[0]["status"] == "READY")
        (first / "durations/focal/0.json").unlink(missing_ok=True)
        with flow_running(site, "train@focal-0") as succeeded:
            half_way(first, trained_before=len(trained_in(first)))
            die(first, but=worker.pid)
            said = succeeded()
        assert "train@focal-0: lost (" in said
        row = site.trainings()["focal"]
        assert (row["trained"], row["lost"], row["node"].partition(":")[2]) == (True, 1, str(first))
        assert manifest(site.project.folder, "focal") == manifest(first, "focal")
        assert trained_in(site.project.folder) == set()

        with edited(site, {"techniques.focal.gamma": 1.75}), flow_running(site, "train@focal-0") as ended:
            (training,) = eventually(lambda: trainings(first))
            training.suspend()  # it does not end by itself
            ended(interrupt=True)
        eventually(lambda: not trainings(first))
        eventually(lambda: site.server.last_run()["state_type"] == "CANCELLED")
    finally:
        worker.kill()
        worker.wait()
        die(first)

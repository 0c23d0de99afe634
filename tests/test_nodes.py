"""Trainings on other machines: a Ray cluster and a work pool, clones of their own, an S3 store, and what goes wrong there."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest

from tests.flow_fixtures import Server, eventually, free_port, prefect_server
from tests.project import TINY_TRAINING, Outcome, Project, corpus, environment, project_copy
from tests.s3 import ACCESS, CLIENT, s3

TECHNIQUES: dict[str, dict[str, float]] = {"baseline": {}, "focal": {"gamma": 2.0}, "upsample": {}, "tfidf": {}}
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
        inherited = {name: value for name, value in environment().items() if not name.startswith(("PREFECT_", "OMP_", "RAY_"))}
        access = {**ACCESS, "AWS_ENDPOINT_URL": self.store, "RAY_USAGE_STATS_ENABLED": "0"}
        return inherited | access | self.server.environment | changes

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


def belonging(node: Path) -> list[psutil.Process]:
    """The processes of a node."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("BALLAST_ROOT") == str(node) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def die(node: Path) -> None:
    """Kill all of a node, as a machine that loses its power."""
    for process in belonging(node):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


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
    """A Ray cluster of the two nodes, two cores each; yields its address."""
    port = free_port()
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=2", "--num-gpus=0"]
    head, other = site.nodes
    starts = ((head, ["--head", f"--port={port}", "--include-dashboard=false"]), (other, [f"--address=127.0.0.1:{port}"]))
    processes = []
    try:
        for node, options in starts:
            output = node.parent / f"{node.name}.log"
            with output.open("wb") as log:
                started = subprocess.Popen([*ray, *options], cwd="/", env=site.of_node(node), stdout=log, stderr=log)
            processes.append(started)
            eventually(lambda output=output: "Ray runtime started" in output.read_text(), 120)
        yield f"127.0.0.1:{port}"
    finally:
        for node in site.nodes:
            die(node)
        for process in processes:
            process.wait()


def test_four_techniques_are_trained_apart_and_what_a_killed_node_did_is_done_elsewhere(site: Site) -> None:
    with ray_cluster(site) as address:
        site.project.edit({"nodes.train": "ray", "nodes.address": address})
        done = site.flow()
        print(done.stderr, done.stdout)
        assert done.code == 0, done.stderr
        print(site.trainings())

"""Score the files of a folder with the deployed model, in parallel on the cores or GPUs of a Ray cluster.

Reads a folder of csv, tsv, jsonl, json, parquet and xlsx files, local or at a URL such as s3://, and the deployed version.
Writes a parquet file of scores for each file, and its malformed rows under `_quarantine/`. Files that have scores are skipped.
Code and model are sent to the machines of the cluster; a local path must mean the same on all of them.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from tqdm import tqdm

from ballast.cli import parser, run
from ballast.exceptions import UserError
from ballast.io.paths import real_folder
from ballast.io.printable import counted
from ballast.io.urls import public_url
from ballast.parameters import check_number
from ballast.training.launching import check_gpus
from stages.production.deployed import MANIFEST, Version, current_version, read_version, version_in
from stages.production.score_file import NOTHING, QUARANTINED, Scorer, Target, output_name, written_for
from stages.store.files import check_name
from stages.store.params import Params, read_params
from stages.store.places import error_text, file_system, is_url
from stages.store.project import PROJECT
from stages.tables.files import files_at

# Another worker scores the file of a killed worker. A file that has killed this many workers is given up.
TRIES = 4
MOST_WORKERS = 100_000
SECONDS_TO_ANSWER = 10.0
PACKAGES = ("ballast", "stages")
ROOT = Path(__file__).resolve().parents[2]


class Tries:
    """Counts how often each file was begun, over all workers."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()

    def begin(self, source: str) -> int:
        """Count a try of a file; returns the number of tries."""
        self.begun[source] += 1
        return self.begun[source]


class Worker:
    """A worker of the cluster, which holds the deployed model and scores one file at a time."""

    def __init__(
        self,
        files: Mapping[str, Any],
        version: str,
        pin: str,
        tries: Any,
        system: Any,
        target: Target,
        params: Params,
        gpus: float,
    ) -> None:
        """Load the model from its `files` (relative name: object of the cluster), after checking their sha256."""
        import ray

        self.get, self.tries = ray.get, tries
        # Reported for each file, because Ray would restart a worker that raises an error again and again.
        self.refusal = ""
        try:
            check_gpus(gpus)
        except UserError as error:
            self.refusal = f"{socket.gethostname()}: {error}"
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder) / version / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(ray.get(content))
            deployed = version_in(Path(folder) / version, pin)
            self.scorer = Scorer(system, target, params, deployed, deployed.load())

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The result for a file {source, path, name}."""
        if self.refusal:
            return {"source": row["source"], "error": f"{row['source']}: {self.refusal}", **NOTHING}
        if self.get(self.tries.begin.remote(row["source"])) > TRIES:
            return {
                "source": row["source"],
                "error": f"{row['source']}: {TRIES} workers were killed while they scored it",
                **NOTHING,
            }
        return self.scorer.result(**row)


def work(source: str, target: Target) -> tuple[Any, list[dict[str, str]]]:
    """The file system of a source, and its files {source, path, name}, the largest first, so that all workers end together.

    Raises UserError if two files would share one file of scores, if scores would be read as messages, or for a name that is
    too long.
    """
    system, files = files_at(source)
    root = file_system(source)[1].rstrip("/")
    inside = f"{target.root.rstrip('/')}/".removeprefix(f"{root}/")
    if target.system == system and not inside.startswith(("/", ".", "_")) and inside != f"{target.root.rstrip('/')}/":
        raise UserError(f"{target.root}: scores there would be read as messages; name a folder outside {public_url(source)}")
    rows = [
        {"source": shown, "path": path, "name": path.removeprefix(root).lstrip("/") or path.rsplit("/", 1)[-1]}
        for shown, path in files.items()
    ]
    for name in (written for row in rows for written in written_for(row["name"])):
        if isinstance(target.system, LocalFileSystem):
            check_name(Path(target.at(name)))
    taken: dict[str, str] = {}
    for row in rows:
        if (other := taken.setdefault(output_name(row["name"]), row["source"])) != row["source"]:
            raise UserError(f"{row['source']}: its scores would replace those of {other}; rename one of them")
    return system, sorted(rows, key=lambda row: (-(system.size(row["path"]) or 0), row["name"]))


def orphans(target: Target, rows: list[dict[str, str]]) -> list[str]:
    """Files of scores in the folder that belong to none of the files."""
    expected = {output_name(row["name"]) for row in rows}
    root = target.root.rstrip("/")
    names = (path.removeprefix(root).lstrip("/") for path in target.system.find(root))
    whole = (name for name in names if name.endswith(".parquet") and not name.rpartition("/")[2].startswith("."))
    return sorted(set(whole) - expected)


def absolute(path: str) -> str:
    """An absolute path; URLs are returned unchanged."""
    return path if is_url(path) else str(Path(path).resolve())


def place_of(target: str) -> tuple[Any, str]:
    """The file system and the path of the folder for the scores; raises UserError if it cannot be a folder."""
    if not is_url(target):
        real_folder(Path(target))
    try:
        return file_system(target)
    except UserError:
        raise
    # Each kind of storage has its own errors.
    except Exception as error:
        raise UserError(f"{public_url(target)}: cannot be written: {error_text(error)}") from error


def check_answers(address: str | None) -> None:
    """Raise UserError at once if nothing answers at HOST:PORT; Ray itself would wait for minutes."""
    host, _, port = (address or "").rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host.rpartition("/")[2], int(port)), SECONDS_TO_ANSWER).close()
        except OSError as error:
            raise UserError(f"no Ray cluster answers at {address}: {error_text(error)}") from error


@contextmanager
def cluster(address: str | None, workers: int | None, gpus: float) -> Iterator[Any]:
    """Ray, connected to a cluster; without an address, to a temporary one on the cores of this machine."""
    # Read when Ray is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if address is None:
        # Ray would store the token of its own clusters in a file that others may read.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError(f"Ray is not installed ({error}); `make nodes` installs it") from error
    check_answers(address)
    # With as many workers as cores, a second thread would slow another worker; with GPUs, threads prepare texts. Ray does not
    # hide GPUs from workers without one.
    alone = {} if gpus else {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment = {"py_modules": [str(ROOT / name) for name in PACKAGES], "env_vars": alone}
    local: dict[str, Any] = {"include_dashboard": False, "num_cpus": workers} if address is None else {}
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        ray.init(address=address or "local", runtime_env=environment, **local, **quiet)
    except Exception as error:
        raise UserError(
            f"Ray does not start at {address or 'this machine'}: {error_text(error)}; a cluster with a token needs"
            " RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def results(
    ray: Any, rows: list[dict[str, str]], worker_arguments: tuple[Any, ...], workers: int, gpus: float
) -> Iterator[dict[str, Any]]:
    """The result for each file, in the order of completion."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    # One file a block, and one block a worker: a killed worker loses only the file that it was scoring.
    files = ray.data.from_items(rows, override_num_blocks=len(rows))
    pool = ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1)
    yield from files.map(Worker, fn_constructor_args=worker_arguments, compute=pool, num_cpus=1, num_gpus=gpus).iter_rows()


def main(source: str, target: str, address: str | None, workers: int | None, gpus: float) -> None:
    if workers is not None:
        check_number("--workers", workers, 1, MOST_WORKERS, whole=True)
    check_number("--gpus", gpus, 0, 1024)
    params, version = read_params(), read_version(current_version())
    place = Target(*place_of(absolute(target)))
    system, rows = work(absolute(source), place)
    with cluster(address, workers, gpus) as ray:
        most = max(node["Resources"].get("GPU", 0) for node in ray.nodes())
        if gpus > most:
            raise UserError(f"--gpus is {gpus:g}, but no machine of the cluster has more than {most:g} GPUs")
        there = ray.cluster_resources()
        workers = workers or int(there["GPU"] / gpus if gpus else there.get("CPU", 1))
        folder = PROJECT.deployed / version.name
        files = {name: ray.put((folder / name).read_bytes()) for name in [MANIFEST, *version.manifest["files"]]}
        # If its machine is lost, it is restarted and counts from zero.
        counter = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Tries)
        worker_arguments = (files, version.name, version.sha256, counter.remote(), system, place, params, gpus)
        report_results(rows, results(ray, rows, worker_arguments, min(workers, len(rows)), gpus), version, public_url(target))
    if left := orphans(place, rows):
        print(
            f"score: {public_url(target)}: scores of files that are not in {public_url(source)}:"
            f" {', '.join(left)}; delete them",
            file=sys.stderr,
        )


def report_results(rows: list[dict[str, str]], done: Iterator[dict[str, Any]], version: Version, target: str) -> None:
    """Print the result for each file; raises UserError that names the files without scores."""
    failed, counts = [], dict.fromkeys(("scored", "quarantined", "anew"), 0)
    with tqdm(desc="score", total=len(rows), unit=" files", disable=None) as bar:
        for number, result in enumerate(done, 1):
            if result["error"]:
                failed.append(result["source"])
            for name in counts:
                counts[name] += result[name]
            bar.update()
            if bar.disable or result["error"]:
                summary = f"{result['source']}: {result['scored']:,} messages" + ("" if result["anew"] else ", scored before")
                bar.write(f"score: {number} of {len(rows)}: {result['error'] or summary}", file=sys.stderr)
    print(
        f"score: {target}: {counted(counts['scored'], 'message')} in {counted(len(rows) - len(failed), 'file')} scored with"
        f" version {version.name}, {counted(counts['anew'], 'file')} in this run;"
        f" {counted(counts['quarantined'], 'row')} in {QUARANTINED}/",
        file=sys.stderr,
    )
    if failed:
        names = ", ".join(sorted(failed))
        raise UserError(f"{len(failed):,} of {len(rows):,} files have no scores: {names}; the same command tries them again")


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("source", metavar="SOURCE", help="a folder or a URL such as s3://")
    arguments.add_argument("target", metavar="TARGET", help="the folder or URL for the scores")
    arguments.add_argument("--address", help="address of a Ray cluster: auto or HOST:6379 (default: this machine)")
    arguments.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="number of workers (default: one per core, or as many as the GPUs allow)",
    )
    arguments.add_argument(
        "--gpus", type=float, default=0, metavar="F", help="GPUs of each worker, which may be a fraction (default: 0)"
    )
    run(main, arguments.parse_args())

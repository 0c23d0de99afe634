"""Measure the overhead of a run: the start of each stage, runs with nothing to do, and where the time of a run goes.

Writes benchmarks/overhead.json. The run trains all entries of params.yaml in a fresh copy of the project, on a few simulated
messages and an encoder with random weights, so that nearly all of its time is overhead; `--full` runs the project unchanged.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.measuring import ROOT, logged, measured, read_result, recording_python, surroundings, write_result
from flows.prepared_python import prepared_python
from flows.recovery.dvc_processes import DVC
from stages.store.files import read_json
from stages.store.project import PROJECT
from tests.project import TINY_TRAINING, Project, corpus, project_copy, tiny_encoder, yaml

RAW = Path("data/raw")
# Packages whose import takes 0.1 s or more.
HEAVY = {"accelerate", "datasets", "evidently", "fsspec", "great_expectations", "imblearn", "matplotlib", "pandas", "plotly"}
HEAVY |= {"pyarrow", "pydantic", "quapy", "scipy", "sklearn", "torch", "transformers"}
# Each stage starts this often; the shortest start counts.
TIMES = 3


def stage_names() -> list[str]:
    """Every module of stages that is a command, by its full name."""
    commands = [path for path in sorted((ROOT / "stages").rglob("*.py")) if "__main__" in path.read_text(encoding="utf-8")]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in commands]


def starts() -> dict[str, dict[str, Any]]:
    """Seconds until each command prints its help, and the heavy packages that it imports."""
    found = {}
    for name in tqdm(stage_names(), desc="starts"):
        times = [measured("-m", name, "--help", folder=ROOT) for _ in range(TIMES)]
        listing = f"import sys, {name}; print(*sorted({HEAVY!r} & set(sys.modules)))"
        listed = subprocess.run([sys.executable, "-c", listing], cwd=ROOT, capture_output=True, text=True, check=True)
        shortest = min(times, key=lambda each: each["seconds"])
        found[name] = {"imports": listed.stdout.split()} | {key: round(value, 2) for key, value in shortest.items()}
    return found


def families(log: list[dict[str, Any]], whole: float, folder: Path) -> dict[str, Any]:
    """The seconds of a run by family of stages; a training is split into start, training and scoring, and DVC stands apart."""
    made: dict[str, dict[str, float]] = {}
    for each in log:
        module = each["command"][each["command"].index("-m") + 1].removeprefix("stages.")
        family = made.setdefault(module, {"stages": 0, "seconds": 0.0})
        family["stages"] += 1
        family["seconds"] += each["seconds"]
    done = [read_json(path) for path in (folder / PROJECT.durations).glob("*/*.json")]
    train = made["train"]
    train["training"] = sum(each["training_seconds"] for each in done)
    train["scoring"] = sum(each["scoring_seconds"] for each in done)
    train["start"] = train["seconds"] - train["training"] - train["scoring"]
    stages = len(log)
    made["dvc"] = {"stages": stages, "seconds": whole - sum(each["seconds"] for each in made.values())}
    return {name: {key: round(value, 1) for key, value in each.items()} for name, each in made.items()}


def small(project: Project) -> None:
    """Give a project few messages and a small encoder."""
    project.write("messages.csv", corpus({"ham": 300, "spam": 100}))
    tiny = {f"train.{key}": value for key, value in TINY_TRAINING.items()}
    project.edit({"train.model": str(tiny_encoder(project.folder / "encoder")), "probe.texts": ["baba kiki"], **tiny})
    project.edit({"ingest.source": "file", "ingest.path": "messages.csv"})


def run(full: bool, entries: list[str]) -> dict[str, Any]:
    """Seconds of the first run in a fresh copy of the project, by family of stages, and of a second run and a flow after it."""
    with tempfile.TemporaryDirectory() as temporary:
        project = project_copy(Path(temporary) / "project")
        # A clone has it, and DVC reads all of it.
        shutil.copy(ROOT / "dvc.lock", project.folder)
        if not full:
            small(project)
        elif RAW.is_dir():
            shutil.copytree(RAW, project.folder / RAW, dirs_exist_ok=True)
        techniques = yaml.load(project.folder / "params.yaml")["techniques"]
        if entries:
            techniques = {name: techniques[name] for name in entries}
            project.edit({"techniques": techniques})
        log = Path(temporary) / "log"
        settings = {key: project.environment[key] for key in ("DVC_SITE_CACHE_DIR", "PATH")}
        settings |= {"PREFECT_HOME": str(Path(temporary) / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        # As in `make repro`, each stage is a fork of a prepared process.
        with prepared_python() as prepared:
            path = recording_python(Path(temporary) / "bin", log, settings["PATH"], str(prepared / "python"))
            first = measured(
                *DVC, "repro", folder=project.folder, output=Path(temporary) / "out", **(settings | {"PATH": path})
            )
        table = families(logged(log), first["seconds"], project.folder)
        again = measured(*DVC, "repro", folder=project.folder, **settings)
        flow = measured("-m", "flows.pipeline", folder=project.folder, PYTHONPATH=str(project.folder), **settings)
    return {
        "seconds": round(first["seconds"], 1),
        "techniques": len(techniques),
        "families": table,
        "second_repro_seconds": round(again["seconds"], 1),
        "second_flow_seconds": round(flow["seconds"], 1),
    }


def table(found: Mapping[str, Any]) -> str:
    """The seconds of a run as lines of text."""
    lines = [f"{'family':12}{'stages':>8}{'seconds':>10}{'share':>8}"]
    for name, each in sorted(found["families"].items(), key=lambda item: -item[1]["seconds"]):
        lines.append(f"{name:12}{each['stages']:8.0f}{each['seconds']:10.1f}{each['seconds'] / found['seconds']:8.1%}")
        lines += [f"  {part:18}{each[part]:10.1f}" for part in ("start", "training", "scoring") if part in each]
    return "\n".join([*lines, f"{'all':20}{found['seconds']:10.1f}"])


def main(full: bool, no_starts: bool, entries: list[str]) -> None:
    """Measure, write after each measurement, and print; other measurements stay in the file."""
    result = read_result("overhead")
    if not no_starts:
        result |= {"starts": starts()} | surroundings()
        write_result("overhead", result)
    kind = "full" if full else "small"
    result |= {kind: run(full, entries)} | surroundings()
    write_result("overhead", result)
    print(table(result[kind]))
    print(f"a second `dvc repro` {result[kind]['second_repro_seconds']} s, the flow {result[kind]['second_flow_seconds']} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--full", action="store_true", help="the pipeline as params.yaml says, data/raw taken from this folder")
    parser.add_argument("--no-starts", action="store_true", help="leave out the start of each stage")
    parser.add_argument("--entries", nargs="*", default=[], help="of techniques in params.yaml; all, if none is named")
    main(**vars(parser.parse_args()))

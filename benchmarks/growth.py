"""Measure seconds and peak memory of each stage as the messages grow tenfold; writes benchmarks/growth.json and growth.svg.

Each stage runs as a command in a temporary project of simulated messages. The encoder is small, has random weights and one of
its two layers frozen, because the benchmark measures growth, not the cost of a network. Training passes each message once, and
the report samples. Other measurements stay in the file. The benchmark fails if a stage grows faster than n log n.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evaluate import write_messages, write_technique
from benchmarks.measuring import ROOT, measured, read_result, surroundings, write_result
from benchmarks.score import deploy
from tests.project import OWN, TINY_TRAINING, WORDS, Project, stage_module, tiny_encoder, workspace, yaml

PICTURE = ROOT / "benchmarks/growth.svg"
SHARES = {"ham": 0.87, "spam": 0.13}
# The share of messages that repeat an earlier one with another number.
TWINS = 0.1
AT_ONCE = 100_000
TECHNIQUES: dict[str, dict[str, Any]] = {"baseline": {}, "tfidf": {}, "majority": {}, "upsample": {}}
# Beyond a million messages, only stages without a model are measured.
FEW = 1_000_000
MEASURED = {
    "ingest": "ingest",
    "resample": "resample upsample 0",
    "validate": "validate",
    "train": "train baseline 0",
    "train_tfidf": "train tfidf 0",
    "probe": "probe",
    "compare": "compare",
    "errors": "errors",
    "select": "select",
    "report": "report",
    "score": "score window.csv --window w",
}
STAGES = (*MEASURED, "evaluate")
# A command that takes fewer seconds runs this often; the shortest run counts.
QUICK, TIMES = 5.0, 3
# Growth below this share of the fixed cost is noise and gives no exponent.
TELLING = 0.1
# n log n has the power 1.09 between 10^5 and 10^6; the rest allows for cache misses and noise.
FASTEST = 1.2


def write_csv(path: Path, count: int, seed: int = 0) -> None:
    """Write a csv file of simulated messages (text, label, id): common words, two words of the class, a number."""
    rng = np.random.default_rng(seed)
    words, labels = np.array(WORDS, dtype=object), np.array(list(SHARES))
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label,id\n")
        for start in range(0, count, AT_ONCE):
            rows = min(AT_ONCE, count - start)
            classes = rng.choice(len(SHARES), rows, p=list(SHARES.values()))
            lengths = rng.integers(4, 28, rows)
            drawn = rng.integers(OWN * len(SHARES), len(words), lengths.sum())
            of_class = OWN * classes[:, None] + rng.integers(OWN, size=(rows, 2))
            texts = [
                " ".join([*common, *own])
                for common, own in zip(np.split(words[drawn], lengths.cumsum()[:-1]), words[of_class], strict=True)
            ]
            # A twin has the class of the message that it repeats.
            source = np.where(rng.random(rows) < TWINS, rng.integers(np.arange(rows) + 1), np.arange(rows))
            file.writelines(
                f"{texts[of]} {start + at},{labels[classes[of]]},{seed}-{start + at}\n" for at, of in enumerate(source)
            )


@contextmanager
def made_up_project(count: int) -> Iterator[Project]:
    """A temporary project with the given number of messages."""
    with tempfile.TemporaryDirectory() as temporary:
        project = workspace(Path(temporary))
        project.edit({f"train.{key}": value for key, value in (TINY_TRAINING | {"frozen_layers": 1}).items()})
        project.edit({"train.model": str(tiny_encoder(project.folder / "encoder")), "techniques": TECHNIQUES})
        project.edit({"ingest.id_column": "id", "train.seeds": [0]})
        write_csv(project.folder / "messages.csv", count)
        yield project


def measure_pipeline(count: int, wanted: set[str]) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield name and measurement of each wanted stage; stages that only prepare others are left out."""
    names = list(MEASURED)
    last = max((names.index(name) for name in wanted if name in names), default=-1)
    with made_up_project(count) as project:

        def run(*command: str) -> dict[str, float]:
            found: list[dict[str, float]] = []
            while not found or (found[0]["seconds"] < QUICK and len(found) < TIMES):
                found.append(measured("-m", stage_module(command[0]), *command[1:], folder=project.folder))
            return min(found, key=lambda each: each["processor_seconds"])

        for name in names[: last + 1]:
            if name == "resample":
                run("techniques")
            if name == "train":
                for each in ("baseline", "tfidf", "majority"):
                    run("resample", each, "0")
            if name == "probe":
                project.edit({"techniques": {each: {} for each in ("baseline", "tfidf", "majority")}})
                run("train", "majority", "0")
                for each in ("baseline", "tfidf", "majority"):
                    run("evaluate", each)
            if name == "score":
                if name not in wanted:
                    continue
                deploy(project.folder, project.folder / "models/baseline/0")
                write_csv(project.folder / "window.csv", count, seed=1)
            yield name, run(*MEASURED[name].split())


def measure_evaluate(count: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Measure `evaluate` of one seed; `count` is the number of messages in all splits together."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        project = workspace(Path(temporary))
        project.edit({"train.seeds": [0]})
        fractions = yaml.load(project.folder / "params.yaml")["ingest"]["fractions"]
        test = round(fractions["test"] * count)
        table = write_messages(project.folder, count - test, test, rng)
        write_technique(project.folder, "baseline", 1, table, rng)
        yield "evaluate", measured("-m", "stages.evaluate", "baseline", folder=project.folder)


def exponent(sizes: np.ndarray, values: np.ndarray) -> float | None:
    """The power of n by which values (m,) grow between the last two sizes (m,), after the first value is subtracted.

    The first value is the fixed cost of a process. Returns None for fewer than three sizes and for values that hardly grow, and
    a lower bound for values that hardly grow before the last size.
    """
    if len(sizes) < 3:
        return None
    more, beyond = values[-2:] - values[0], sizes[-2:] - sizes[0]
    chance = TELLING * values[0]
    if more[1] <= chance:
        return None
    return round(float(np.log(more[1] / max(more[0], chance)) / np.log(beyond[1] / beyond[0])), 2)


def summary(found: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Summarise how a stage's seconds and memory grow, from its measurements by number of messages.

    The exponent is that of processor time, which depends less on other processes.
    """
    sizes = np.array(sorted(map(int, found)), dtype=float)
    values = {key: np.array([found[str(int(size))][key] for size in sizes]) for key in found[str(int(sizes[0]))]}
    per_million = {key: 1e6 * (of[-1] - of[0]) / max(1, sizes[-1] - sizes[0]) for key, of in values.items()}
    return {
        "measured": dict(found),
        "time_exponent": exponent(sizes, values["processor_seconds"]),
        "memory_exponent": exponent(sizes, values["peak_mb"]),
        "seconds_per_million": round(float(per_million["seconds"]), 1),
        "mb_per_million": round(float(per_million["peak_mb"])),
    }


def draw(stages: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw seconds and memory over messages: a line for each stage, and n log n for comparison."""
    import matplotlib

    matplotlib.use("svg")
    # Equal content gives equal bytes.
    matplotlib.rcParams["svg.hashsalt"] = "growth"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axis, key, title in zip(axes, ("seconds", "peak_mb"), ("seconds", "peak memory in MB"), strict=True):
        for at, (name, each) in enumerate(stages.items()):
            sizes = sorted(map(int, each["measured"]))
            values = [each["measured"][str(size)][key] for size in sizes]
            axis.plot(sizes, values, marker="o", markersize=3, color=pyplot.get_cmap("tab20")(at), label=name)
        sizes = sorted({int(size) for each in stages.values() for size in each["measured"]})
        whole = np.array(sizes, dtype=float)
        if key == "seconds":
            line = whole * np.log(whole)
            axis.plot(sizes, line / line[-1] * 100, color="grey", linestyle=":", label="n log n")
        axis.set(xscale="log", yscale="log", xlabel="messages", title=title)
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(PICTURE, metadata={"Date": None})
    pyplot.close(figure)


def main(sizes: list[float], most: float, stages: list[str]) -> int:
    """Measure and write after each measurement; return how many stages failed or grew too fast."""
    result = read_result("growth")
    found: dict[str, Any] = result.get("stages", {})
    failed = 0

    def record(name: str, size: int, values: Mapping[str, float]) -> None:
        kept = {key: round(value, 2) for key, value in values.items()}
        before = found.get(name, {}).get("measured", {})
        found[name] = summary(before | {str(size): kept})
        write_result("growth", {"stages": found, **surroundings()})
        draw({name: found[name] for name in STAGES if name in found})
        print(
            f"{name} of {size:,}: {kept['seconds']} s, processor {kept['processor_seconds']} s, {kept['peak_mb']:.0f} MB",
            file=sys.stderr,
            flush=True,
        )

    for size in sorted({int(each) for each in sizes if each <= most}):
        pipeline = {name for name in stages if name in MEASURED and (size <= FEW or name in ("ingest", "resample"))}
        parts = [measure_pipeline(size, pipeline), *([measure_evaluate(size)] if "evaluate" in stages else [])]
        for part in parts:
            try:
                for name, values in part:
                    if name in stages:
                        record(name, size, values)
            except subprocess.CalledProcessError as error:
                print(f"error: {' '.join(error.cmd)} at {size:,} messages failed", file=sys.stderr)
                failed += 1
    for name, each in found.items():
        for kind in ("time", "memory"):
            if (each[f"{kind}_exponent"] or 0) > FASTEST:
                print(f"error: {name}: {kind} grows by the power {each[f'{kind}_exponent']}", file=sys.stderr)
                failed += 1
    print(json.dumps({name: {key: value for key, value in each.items() if key != "measured"} for name, each in found.items()}))
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--sizes", type=float, nargs="*", default=[1e4, 1e5, 1e6, 1e7], help="numbers of messages")
    parser.add_argument("--most", type=float, default=1e7, help="leave out larger sizes")
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES))
    sys.exit(1 if main(**vars(parser.parse_args())) else 0)

"""Time scoring beside transformers' pipeline on the same messages and model, and measure the memory of long windows.

Writes benchmarks/score.json. Run `python -m benchmarks.score` in a folder where the pipeline has run, or name its parts. The
sides take turns, and the shortest time of each counts, because other processes can only make it longer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import pipeline

from ballast import load
from ballast.io.digest import file_sha256
from ballast.models.base import Model
from ballast.models.deployed import Version
from benchmarks.measuring import ROOT, measured, read_result, shortest, surroundings, write_result
from stages.production.incoming import read_rows
from stages.production.rows import Columns
from stages.store.files import write_json

ROWS_AT_ONCE = 10_000
# The share of exact duplicates in the published corpus: 403 of 5,574 messages.
REPEATS = 0.07
# At least this share of messages must get the pipeline's label.
LEAST_AGREEMENT = 0.999


def deploy(folder: Path, model: Path, version: str = "0001") -> None:
    """Deploy a model's folder in a project as a new version, with even priors and costs."""
    made = folder / "production/deployed" / version
    shutil.copytree(model, made / "model")
    labels = json.loads((model / "manifest.json").read_text())["labels"]
    even = dict.fromkeys(labels, 1 / len(labels))
    manifest = {
        "labels": labels,
        "effective_prior": even,
        "production_prior": even,
        "operating_point": {"costs": {true: {other: float(true != other) for other in labels} for true in labels}},
        "files": {str(path.relative_to(made)): file_sha256(path) for path in made.rglob("*") if path.is_file()},
    }
    write_json(made / "manifest.json", manifest)
    write_json(folder / "production/deployed/current.json", {"version": version, "history": []})


def write_window(path: Path, rows: int, words: np.ndarray) -> None:
    """Write a csv file of simulated messages of 4 to 30 words."""
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        file.write("text\n")
        for start in range(0, rows, ROWS_AT_ONCE):
            lengths = rng.integers(4, 31, min(ROWS_AT_ONCE, rows - start))
            drawn = np.split(rng.choice(words, lengths.sum()), lengths.cumsum()[:-1])
            file.writelines(" ".join(each) + "\n" for each in drawn)


def weigh(model: Path, rows: int, words: np.ndarray) -> dict[str, float]:
    """Peak memory in MB and seconds of `stages.production.score` on a window of the given length."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copy(ROOT / "params.yaml", folder)
        deploy(folder, model)
        write_window(folder / "window.csv", rows, words)
        found = measured("-m", "stages.production.score", "window.csv", "--window", "w", folder=folder)
    return {"peak_mb": round(found["peak_mb"]), "seconds": round(found["seconds"], 1)}


def texts_of(path: str) -> Iterator[str]:
    """The texts of a file with a column `text`."""
    for row in read_rows(path, Columns(text="text", id=None, settings={"text": "--messages"})):
        yield row.text


def even_version(model: Model) -> Version:
    """A deployed version of a model with even priors and costs."""
    count = len(model.labels)
    prior, costs = np.full(count, 1 / count), 1.0 - np.eye(count)
    return Version(
        name="even",
        folder=Path("even"),
        manifest={},
        sha256="",
        labels=model.labels,
        effective_prior=prior,
        production_prior=prior,
        costs=costs,
    )


def speed(encoder: Path, distinct: np.ndarray, count: int, times: int) -> dict[str, object]:
    """Seconds, ratios and agreement of both sides on the same messages."""
    texts = list(distinct[: round(count * (1 - REPEATS))])
    texts += list(np.random.default_rng(0).choice(np.array(texts, dtype=object), count - len(texts)))
    model = load(encoder)
    version = even_version(model)
    theirs = pipeline("text-classification", model=str(encoder))
    found = shortest(
        {
            "ours": lambda: version.score(model, texts),
            "ours_without_repeats": lambda: model.logits(texts),
            "pipeline": lambda: theirs(texts),
        },
        times,
    )
    seconds = found["clock"]
    labels = np.array(model.labels)[version.score(model, texts)[1]]
    agreement = np.mean([each["label"] == label for each, label in zip(theirs(texts), labels, strict=True)])
    return {
        "messages": count,
        "repeats": REPEATS,
        "times": times,
        "seconds": {kind: {name: round(each, 2) for name, each in sides.items()} for kind, sides in found.items()},
        "ratio": round(seconds["pipeline"] / seconds["ours"], 2),
        "ratio_without_repeats": round(seconds["pipeline"] / seconds["ours_without_repeats"], 2),
        "agreement": float(agreement),
        "messages_per_second": round(count / seconds["ours"]),
        **surroundings(),
    }


def main(encoder: Path, linear: Path, messages: str, count: int, times: int, rows: list[int], encoder_rows: list[int]) -> None:
    """Measure, write after each measurement, and print; other measurements stay in the file."""
    result = {"memory": {"encoder": {}, "linear": {}}} | read_result("score")
    distinct = pd.unique(np.array(list(texts_of(messages)), dtype=object))
    words = np.array(sorted({word for text in distinct for word in text.split() if '"' not in word and "," not in word}))
    if times:
        result |= speed(encoder, distinct, count, times)
        write_result("score", result)
    for name, model, sizes in (("encoder", encoder, encoder_rows), ("linear", linear, rows)):
        for size in sizes:
            result["memory"][name][str(size)] = weigh(model, size, words)
            write_result("score", result)
    print(json.dumps(result, indent=2, sort_keys=True))
    if result.get("agreement", 1.0) < LEAST_AGREEMENT:
        raise SystemExit(f"error: the labels are the pipeline's on {result['agreement']:.2%} of the messages only")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", type=Path, default=Path("models/baseline/0"), help="folder of a fine-tuned encoder")
    parser.add_argument("--linear", type=Path, default=Path("models/tfidf/0"), help="folder of the model for the long windows")
    parser.add_argument("--messages", default="data/messages.parquet", help="a file with a column text")
    parser.add_argument("--count", type=int, default=2000, help="messages that both sides score")
    parser.add_argument("--times", type=int, default=3, help="the shortest counts; 0 measures memory only")
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--encoder-rows", type=int, nargs="*", default=[2_000, 6_000])
    main(**vars(parser.parse_args()))

"""Time scoring beside transformers' pipeline, same messages and model, and weigh long windows; writes benchmarks/score.json.

Run as `python -m benchmarks.score` in a folder where the pipeline has run, or name its parts. Each side is timed several times
in turn and its shortest time counts, because what else runs on the machine can only make it longer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers import pipeline

from ballast import load
from ballast.encoders import file_sha256
from stages.incoming import Columns, read_rows
from stages.score import scored

ROOT = Path(__file__).resolve().parents[1]
ROWS_AT_ONCE = 10_000
# As in the published corpus, where 403 of 5,574 messages repeat another one exactly.
REPEATS = 0.07


def deploy(folder: Path, model: Path) -> None:
    """Deploy a model's folder, with even priors and costs."""
    made = folder / "production/deployed/0001"
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
    (made / "manifest.json").write_text(json.dumps(manifest))
    (folder / "production/deployed/current.json").write_text('{"version": "0001"}')
    shutil.copy(ROOT / "params.yaml", folder)


def write_window(path: Path, rows: int, words: np.ndarray) -> None:
    """A csv file of made-up messages of 4 to 30 words."""
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        file.write("text\n")
        for start in range(0, rows, ROWS_AT_ONCE):
            lengths = rng.integers(4, 31, min(ROWS_AT_ONCE, rows - start))
            drawn = np.split(rng.choice(words, lengths.sum()), lengths.cumsum()[:-1])
            file.writelines(" ".join(each) + "\n" for each in drawn)


def weigh(model: Path, rows: int, words: np.ndarray) -> dict[str, float]:
    """Peak memory in MB and seconds of `stages.score` on a window of so many rows."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        deploy(folder, model)
        write_window(folder / "window.csv", rows, words)
        started = time.perf_counter()
        command = [sys.executable, "-m", "stages.score", "window.csv", "--window", "w"]
        child = subprocess.Popen(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)})
        _, status, usage = os.wait4(child.pid, 0)
        assert status == 0, f"{command} failed"
        seconds = time.perf_counter() - started
    return {"peak_mb": round(usage.ru_maxrss / 1024), "seconds": round(seconds, 1)}


def shortest(sides: dict[str, Callable[[], object]], times: int) -> dict[str, dict[str, float]]:
    """Seconds of each side by the clock and of the processor: the shortest of several times, in turn."""
    clocks = {"clock": time.perf_counter, "processor": time.process_time}
    found = {kind: dict.fromkeys(sides, float("inf")) for kind in clocks}
    for _ in tqdm(range(times), desc="timing"):
        for name, side in sides.items():
            started = {kind: clock() for kind, clock in clocks.items()}
            side()
            for kind, clock in clocks.items():
                found[kind][name] = min(found[kind][name], clock() - started[kind])
            print(name, *(f"{kind} {each[name]:.2f} s" for kind, each in found.items()), file=sys.stderr, flush=True)
    return found


def texts_of(path: str) -> Iterator[str]:
    """The texts of a file with a column `text`."""
    for row in read_rows(path, Columns(text="text", id=None, settings={"text": "--messages"})):
        yield row.text


class Even:
    """Stands for a deployed version whose priors are those of its model."""

    def posteriors(self, logits: np.ndarray) -> np.ndarray:
        return torch.from_numpy(logits).double().softmax(dim=1).numpy()

    def decisions(self, posteriors: np.ndarray) -> np.ndarray:
        return posteriors.argmax(axis=1)


def speed(encoder: Path, distinct: np.ndarray, count: int, times: int) -> dict[str, object]:
    """Seconds, ratios and agreement of both sides on the same messages."""
    texts = list(distinct[: round(count * (1 - REPEATS))])
    texts += list(np.random.default_rng(0).choice(np.array(texts, dtype=object), count - len(texts)))
    model = load(encoder)
    theirs = pipeline("text-classification", model=str(encoder))
    found = shortest(
        {
            "ours": lambda: scored(texts, model, Even()),
            "ours_without_repeats": lambda: model.logits(texts),
            "pipeline": lambda: theirs(texts),
        },
        times,
    )
    seconds = found["clock"]
    labels = np.array(model.labels)[scored(texts, model, Even())[1]]
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
        "device": str(model.network.device),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "machine": platform.machine(),
    }


def main(encoder: Path, linear: Path, messages: str, count: int, times: int, rows: list[int], encoder_rows: list[int]) -> None:
    """Measure, write after each measurement, and print; what is not measured anew stays in the file."""
    path = ROOT / "benchmarks/score.json"
    result = json.loads(path.read_text()) if path.exists() else {"memory": {"encoder": {}, "linear": {}}}
    distinct = pd.unique(np.array(list(texts_of(messages)), dtype=object))
    words = np.array(sorted({word for text in distinct for word in text.split() if '"' not in word and "," not in word}))
    if times:
        result |= speed(encoder, distinct, count, times)
        path.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")
    for name, model, sizes in (("encoder", encoder, encoder_rows), ("linear", linear, rows)):
        for size in sizes:
            result["memory"][name][str(size)] = weigh(model, size, words)
            path.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")
    print(json.dumps(result, indent=2, sort_keys=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", type=Path, default=Path("models/baseline/0"), help="folder of a fine-tuned encoder")
    parser.add_argument("--linear", type=Path, default=Path("models/tfidf/0"), help="folder of the model for the long windows")
    parser.add_argument("--messages", default="data/messages.parquet", help="a file with a column text")
    parser.add_argument("--count", type=int, default=2000, help="messages that both sides score")
    parser.add_argument("--times", type=int, default=3, help="of which the shortest counts; 0 measures memory only")
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--encoder-rows", type=int, nargs="*", default=[2_000, 6_000])
    main(**vars(parser.parse_args()))

"""Time scoring a folder with one and with two workers on the same files and model; writes benchmarks/score_folder.json.

Run `python -m benchmarks.score_folder` in a folder where the pipeline has run, or name its parts. A worker has one thread. The
commands take turns, and run once more when all files are scored, which measures their start. The shortest times count, because
other processes can only make them longer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks.measuring import ROOT, measured, surroundings, write_result
from benchmarks.score import deploy, texts_of


def write_files(folder: Path, distinct: np.ndarray, files: int, rows: int) -> None:
    """Write parquet files of messages without duplicates, because duplicates in one run are scored once."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(files):
        texts = [f"{text} {number}" for text in rng.choice(distinct, rows, replace=False)]
        pd.DataFrame({"text": texts}).to_parquet(folder / f"part-{number:03}.parquet")


def main(encoder: Path, messages: str, files: int, rows: int, workers: list[int], times: int) -> None:
    """Measure, write and print."""
    distinct = pd.unique(np.array(list(texts_of(messages)), dtype=object))
    whole = dict.fromkeys(workers, float("inf"))
    starting, alone = dict(whole), float("inf")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copy(ROOT / "params.yaml", folder)
        deploy(folder, encoder)
        write_files(folder / "messages", distinct, files, rows)
        for _ in tqdm(range(times), desc="timing"):
            for count in workers:
                command = ("-m", "stages.production.score_folder", "messages", "scores", "--workers", str(count))
                shutil.rmtree(folder / "scores", ignore_errors=True)
                whole[count] = min(whole[count], measured(*command, folder=folder)["seconds"])
                starting[count] = min(starting[count], measured(*command, folder=folder)["seconds"])
            one_process = measured("-m", "stages.production.score", "messages", "--window", "w", folder=folder)
            alone = min(alone, one_process["seconds"])
    scoring = {count: whole[count] - starting[count] for count in workers}
    few, *_, many = sorted(workers)
    result = {
        "messages": files * rows,
        "files": files,
        "times": times,
        "seconds": {str(count): round(each, 1) for count, each in whole.items()},
        "seconds_starting": {str(count): round(each, 1) for count, each in starting.items()},
        "messages_per_second": {str(count): round(files * rows / each) for count, each in scoring.items()},
        "ratio": round(scoring[few] / scoring[many], 2),
        "ratio_with_starting": round(whole[few] / whole[many], 2),
        "seconds_of_one_process": round(alone, 1),
        "workers": [few, many],
        **surroundings(),
    }
    write_result("score_folder", result)
    print(json.dumps(result, indent=2, sort_keys=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", type=Path, default=Path("models/baseline/0"), help="folder of a fine-tuned encoder")
    parser.add_argument("--messages", default="data/messages.parquet", help="a file with a column text")
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--rows", type=int, default=2000, help="messages in a file")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--times", type=int, default=2, help="the shortest counts")
    main(**vars(parser.parse_args()))

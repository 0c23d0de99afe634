"""Measure reading a csv file with our reader, with pyarrow and with pandas; writes benchmarks/reading.json.

Each reader runs in a process of its own, whose seconds of the processor and peak memory count, with its start. The file of one
row shows what the start costs. Our reader also detects the dialect, rejects malformed rows and records the line of each row.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.growth import write_csv
from benchmarks.measuring import measured, surroundings, write_result

COMMAND = "python -m benchmarks.reading"
WANTED = {"text": "ingest.text_column", "label": "ingest.label_column", "id": "ingest.id_column"}
READERS = {
    "ballast": "import sys; from stages.tables.detect import Expected; from stages.tables.training import read_training;"
    f" print(len(read_training(sys.argv[1], Expected(wanted={WANTED})).table))",
    "pyarrow": "import sys; from pyarrow import csv; print(len(csv.read_csv(sys.argv[1])))",
    "pandas": "import sys, pandas; print(len(pandas.read_csv(sys.argv[1], dtype=str)))",
}
# One text in so many is quoted, and has a comma and quotes.
QUOTED = 10


def write_quoted(plain: Path, path: Path) -> None:
    """Write the rows of a file without quotes with some of the texts in quotes."""
    with plain.open(encoding="utf-8") as lines, path.open("w", encoding="utf-8") as file:
        for number, line in enumerate(lines):
            text, rest = line.split(",", 1)
            file.write(f'"{text}, ""so""",{rest}' if number % QUOTED == 1 else line)


def compared(path: Path, rows: int) -> dict[str, Any]:
    """Seconds of the processor and peak memory of each reader, and ours as a multiple of each other reader's."""
    found = {}
    for name, code in READERS.items():
        output = path.parent / "output"
        output.unlink(missing_ok=True)
        usage = measured("-c", code, str(path), folder=path.parent, output=output)
        if (count := int(output.read_text())) != rows:
            raise RuntimeError(f"{name} reads {count:,} rows of {rows:,}")
        found[name] = {"processor_seconds": round(usage["processor_seconds"], 2), "peak_mb": round(usage["peak_mb"])}
    ratios = {
        name: {key: round(found["ballast"][key] / value, 2) for key, value in usage.items()}
        for name, usage in found.items()
        if name != "ballast"
    }
    return {"readers": found, "ratio_to": ratios, "file_mb": round(path.stat().st_size / 2**20)}


def main(rows: int) -> None:
    """Measure, write and print."""
    files = {}
    with tempfile.TemporaryDirectory() as temporary, tqdm(total=4, desc="reading") as progress:
        plain, other = Path(temporary) / "plain.csv", Path(temporary) / "other.csv"
        for name in ("one row", "no quotes", "a tenth of the texts quoted", "gzip"):
            if name == "one row":
                write_csv(plain, 1)
            elif name == "no quotes":
                write_csv(plain, rows)
            elif name == "gzip":
                other.unlink()
                other = other.with_name("other.csv.gz")
                with plain.open("rb") as source, gzip.open(other, "wb", compresslevel=1) as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
            else:
                write_quoted(plain, other)
            path = plain if name in ("one row", "no quotes") else other
            files[name] = compared(path, 1 if name == "one row" else rows)
            progress.update()
    result = {"rows": rows, "files": files, "command": COMMAND, **surroundings()}
    write_result("reading", result)
    print(json.dumps(result, indent=2, sort_keys=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000, help="of a file; 10,000,000 rows need about 3 GB of disk")
    main(**vars(parser.parse_args()))

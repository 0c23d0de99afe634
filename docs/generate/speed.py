"""The tables of the speed page, from the JSON files that the benchmarks write."""

from __future__ import annotations

from pathlib import Path

from stages.pages.readme import BENCHMARKS, benchmarks_table
from stages.store.files import read_json


def speed_tables(root: Path) -> str:
    """The benchmarks' results as Markdown tables; a benchmark that has not run has no row."""
    measured = {name: read_json(root / path) for name, path in BENCHMARKS.items() if (root / path).exists()}
    return benchmarks_table(measured).replace("](benchmarks/", "](../benchmarks/")

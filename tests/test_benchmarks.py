"""The benchmarks measure what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ballast.models import folder as models
from benchmarks import estimated_performance, score_folder
from benchmarks.growth import FASTEST, exponent, write_csv
from benchmarks.measuring import logged, measured, recording_python
from benchmarks.overhead import families
from stages.store.files import write_json
from stages.store.project import PROJECT
from tests.deployed import tfidf
from tests.project import corpus


def test_a_peak_is_that_of_the_command_not_of_who_measures_it(tmp_path: Path) -> None:
    held = np.ones(50_000_000)  # 400 MB
    small = measured("-c", "pass", folder=tmp_path)["peak_mb"]
    large = measured("-c", "bytearray(100_000_000)", folder=tmp_path)["peak_mb"]
    assert held.nbytes > 1e6 * large and 90 < large - small < 110


def test_what_fails_is_not_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        measured("-c", "raise SystemExit('no such thing')", folder=tmp_path)
    assert "no such thing" in capsys.readouterr().err


def test_what_a_process_costs_is_no_growth_and_a_square_is_told_from_a_line() -> None:
    sizes = np.array([1e4, 1e5, 1e6])
    assert exponent(sizes, 5 + 2e-5 * sizes) == 1.0
    assert exponent(sizes, 5 + 2e-9 * sizes**2) > 1.9
    assert 1 < exponent(sizes, 5 + 2e-6 * sizes * np.log(sizes)) < 1.12
    assert exponent(sizes[:2], sizes[:2]) is None and exponent(sizes, np.full(3, 5.0)) is None
    # What grows at the end only: by more than a line, as far as chance lets see.
    assert exponent(sizes, 5 + 1e-11 * sizes**2) > FASTEST
    assert exponent(np.array([1e4, 1e5, 1e6, 1e7]), 1 + 5e-14 * np.array([1e4, 1e5, 1e6, 1e7]) ** 2) > FASTEST
    assert exponent(sizes, 5 + 3e-6 * sizes) < 1


def test_the_made_up_messages_are_the_same_each_time_and_some_are_near_duplicates(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_csv(tmp_path / name, 2000)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    messages = pd.read_csv(tmp_path / "one")
    assert len(messages) == messages["text"].nunique() == 2000
    assert abs((messages["label"] == "spam").mean() - 0.13) < 0.03
    assert abs(messages["text"].str.replace(r"\d", "", regex=True).duplicated().mean() - 0.1) < 0.03


def test_where_a_run_went_adds_up_to_the_whole(tmp_path: Path) -> None:
    write_json(tmp_path / PROJECT.durations / "baseline/0.json", {"training_seconds": 5.0, "scoring_seconds": 2.0})
    commands = {"stages.ingest": 3.0, "stages.train": 10.0, "stages.evaluate": 4.0}
    log = [{"command": ["python", "-m", name], "seconds": took} for name, took in commands.items()]
    found = families(log, 20.0, tmp_path)
    assert sum(each["seconds"] for each in found.values()) == 20
    assert found["train"] == {"stages": 1, "seconds": 10.0, "training": 5.0, "scoring": 2.0, "start": 3.0}
    assert found["dvc"] == {"stages": 3, "seconds": 3.0}


def test_a_python_that_records_runs_as_ours_and_says_what_failed(tmp_path: Path) -> None:
    path = recording_python(tmp_path / "bin", tmp_path / "log", os.environ["PATH"])
    codes = [
        subprocess.run(["python", "-c", f"import sys, numpy; sys.exit({code})"], env=os.environ | {"PATH": path}, check=False)
        for code in (0, 3)
    ]
    assert [each.returncode for each in codes] == [0, 1]
    assert [each["command"][-2] for each in logged(tmp_path / "log")] == ["-c", "-c"]


PEER = """
import pandas as pd
class CBPE:
    def __init__(self, **settings): self.settings = settings
    def fit(self, held_out): assert list(held_out) == ["probability", "decided", "true"]
    def estimate(self, window): self.n = len(window); return self
    def filter(self, period): return self
    def to_df(self): return pd.DataFrame({(metric, "value"): [self.n] for metric in self.settings["metrics"]})
"""


def test_estimates_and_those_of_a_peer_are_of_the_same_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nannyml.py").write_text(PEER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(estimated_performance, "MANY", 20_000)
    monkeypatch.setattr(estimated_performance, "JOBS", 1)
    population = estimated_performance.made_up(estimated_performance.TWO)
    assert population.shifted(0.3) == pytest.approx([0.7, 0.3])
    first, again = (estimated_performance.drawn(population, 0.3, 500, seed=1)[1] for _ in range(2))
    assert np.array_equal(first.posteriors, again.posteriors) and abs(first.classes.mean() - 0.3) < 0.1
    [peer] = estimated_performance.by_peer(population, [(0.3, 500)], 2, sys.executable)
    assert set(peer) == {"precision", "recall", "f1"} and all(values == [500.0, 500.0] for values in peer.values())
    row = estimated_performance.cell(population, 0.3, 500, 12, peer)
    recall = row["metrics"]["recall"]
    assert recall["truth"] == pytest.approx(population.rates[1, 1]) and recall["coverage"] > 0.5
    assert recall["error_of_cbpe"] > 400 and recall["error"] < 0.1
    summary = estimated_performance.summary([row], population)
    assert summary["recall"]["error"] == recall["error"] and summary["share"]["lowest"] == row["metrics"]["share"]["coverage"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="make nodes")
def test_a_folder_is_timed_with_one_worker_and_with_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = corpus({"ham": 60, "spam": 30})
    messages.to_parquet(tmp_path / "messages.parquet")
    (tmp_path / "model").mkdir()
    models.save(tfidf(messages), tmp_path / "model", {})
    found: dict[str, Any] = {}
    monkeypatch.setattr(score_folder, "write_result", lambda name, result: found.update({name: result}))
    score_folder.main(tmp_path / "model", str(tmp_path / "messages.parquet"), files=2, rows=40, workers=[1, 2], times=1)
    result = found["score_folder"]
    assert result["messages"] == 80 and set(result["seconds"]) == {"1", "2"}
    assert all(result["seconds"][each] > 0 for each in ("1", "2")) and result["seconds_of_one_process"] > 0

"""The benchmarks measure what they say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks.measuring import measured


def test_a_peak_is_that_of_the_command_not_of_who_measures_it(tmp_path: Path) -> None:
    held = np.ones(50_000_000)  # 400 MB
    small = measured("-c", "pass", folder=tmp_path)["peak_mb"]
    large = measured("-c", "bytearray(100_000_000)", folder=tmp_path)["peak_mb"]
    assert held.nbytes > 1e6 * large and 90 < large - small < 110


def test_what_fails_is_not_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        measured("-c", "raise SystemExit('no such thing')", folder=tmp_path)
    assert "no such thing" in capsys.readouterr().err

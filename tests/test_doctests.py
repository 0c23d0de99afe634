"""The examples in docstrings: run in every module that has some, and expected of the functions that users call."""

from __future__ import annotations

import ast
import doctest
from importlib import import_module
from pathlib import Path

import pytest

from tests.project import ROOT
from tests.test_rooms import PACKAGES, files_of, relative

PROMPT = ">>> "
WITH_EXAMPLES = [file for room in PACKAGES for file in files_of(room) if PROMPT in file.read_text(encoding="utf-8")]
# Pure functions of arrays, which the reference of the manual shows.
DOCUMENTED = [
    "ballast/data/splitting.py",
    "ballast/evaluation/bootstrap.py",
    "ballast/evaluation/calibration.py",
    "ballast/evaluation/metrics.py",
    "ballast/evaluation/candidates.py",
    "ballast/evaluation/cost_curve.py",
    "ballast/evaluation/costs.py",
    "ballast/evaluation/guarantee.py",
    "ballast/evaluation/operating_point.py",
    "ballast/evaluation/priors.py",
    "ballast/evaluation/ranking.py",
    "ballast/evaluation/review.py",
    "ballast/evaluation/review_curve.py",
    "ballast/evaluation/rules.py",
    "ballast/evaluation/statistic.py",
    "ballast/evaluation/thresholds.py",
    "ballast/evaluation/uncertainty.py",
    "ballast/monitoring/probability_sampling.py",
    "ballast/monitoring/quantification.py",
    "ballast/sampling.py",
]


@pytest.mark.parametrize("file", WITH_EXAMPLES, ids=relative)
def test_examples_give_what_they_show(file: Path) -> None:
    module = import_module(relative(file).removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted and not result.failed


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_public_function_has_an_example(name: str) -> None:
    functions = [
        node for node in ast.parse((ROOT / name).read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)
    ]
    public = [node for node in functions if not node.name.startswith("_")]
    assert public
    assert [node.name for node in public if PROMPT not in (ast.get_docstring(node) or "")] == []

"""Fixtures that several test files share."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from playwright.sync_api import Browser

from flows.prepared_python import prepared_python
from flows.recovery.dvc_processes import DVC
from tests import project as projects
from tests.browser import HOSTILE, HOSTILE_TEXT, PHONE, Watched, chromium, watched
from tests.prepared_python import IN_TESTS

if TYPE_CHECKING:
    from tests.report_project import Built

# On a busy machine an example takes as long as it takes.
hypothesis.settings.register_profile("ballast", deadline=None, database=None)
hypothesis.settings.load_profile("ballast")
# Before torch is imported: the tests share the machine with what else runs on it.
os.environ.setdefault("OMP_NUM_THREADS", projects.THREADS)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# What is started in the background ignores interrupts, and so would the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Names a file's content by its size: content can hold the time, and every worker must give a test the same name."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random BERT that knows the words of the corpus; a value for train.model."""
    return projects.tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def quick_python() -> Iterator[Path]:
    """A folder with a python whose stages need not import their libraries, and the `dvc` of `make repro`."""
    with prepared_python(IN_TESTS, wait=True) as folder:
        command = folder / "dvc"
        command.write_text(f'#!/bin/sh\nexec {shlex.join(DVC)} "$@"\n', encoding="utf-8")
        command.chmod(0o755)
        yield folder


@pytest.fixture
def workspace(tmp_path: Path) -> projects.Project:
    """A folder with params.yaml and data, for stages of the checkout."""
    return projects.workspace(tmp_path)


@pytest.fixture
def project(tmp_path: Path) -> projects.Project:
    """A copy of the project where DVC works."""
    return projects.project_copy(tmp_path)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of one file."""
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The report on two classes with hostile names, hostile texts, two seeds."""
    # Slow to import, and only the tests of the report use it.
    from tests.report_project import build

    names = ["baseline", "class_weight", "downsample", "focal", "tfidf", "majority"]
    texts = ["Call to claim your prize!", HOSTILE_TEXT, "ok", "NA"]
    techniques = {**{name: name for name in names}, "class_weight_ten": "class_weight"}
    return build(tmp_path_factory.mktemp("two"), dict(zip(HOSTILE, (520, 130), strict=True)), techniques, [0, 1], texts)


@pytest.fixture(scope="session")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The report on eight classes, with 14 techniques that have long names, and one seed."""
    from tests.report_project import INTENTS, build

    techniques = {f"technique_with_a_long_name_{at}": "focal" for at in range(12)}
    techniques |= {"baseline": "baseline", "majority": "majority"}
    texts = ["Where is my card?", "I want my money back", "hello"]
    return build(tmp_path_factory.mktemp("eight"), INTENTS, techniques, [0], texts)


@pytest.fixture(scope="session")
def builds(two: Built, eight: Built) -> dict[str, Built]:
    """Both reports, by their number of classes."""
    return {"two": two, "eight": eight}


@pytest.fixture
def desktop(browser: Browser) -> Iterator[Watched]:
    """A page of a usual screen."""
    with watched(browser) as watch:
        yield watch


@pytest.fixture
def phone(browser: Browser) -> Iterator[Watched]:
    """A page of a phone."""
    with watched(browser, PHONE, has_touch=True, is_mobile=True) as watch:
        yield watch

"""The examples of the manual print what their pages show, in seconds and without a network."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import NoReturn

import pytest

from docs.generate.examples import pages, with_output

MOST_SECONDS = 20


def test_there_are_examples_of_the_main_uses() -> None:
    names = {page.stem for page in pages()}
    assert names >= {"correct_the_class_prior", "estimate_the_class_prior", "write_a_technique"}


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_the_page_shows_what_its_blocks_print(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*address: object) -> NoReturn:
        raise AssertionError(f"an example connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    started = time.monotonic()
    text = page.read_text(encoding="utf-8")
    assert with_output(text, page.stem) == text, "run `python -m docs.generate.examples`"
    assert time.monotonic() - started < MOST_SECONDS

"""The page to label on: keys, progress, undo, the downloaded file and hostile texts; and Label Studio's files."""

from __future__ import annotations

import contextlib
import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page

from ballast.exceptions import UserError
from stages.pages.labelling.view import labelling_page
from stages.production.label_studio import import_tasks, interface, read_tasks
from stages.store.project import PROJECT
from tests.browser import DESKTOP, HOSTILE, HOSTILE_TEXT, PHONE, watched

IDS = ["a", "=1+1", 'q"uo,te', HOSTILE[0], "e"]
TEXTS = dict(zip(IDS, ["win a prize", "see you\nat eight", HOSTILE_TEXT, HOSTILE[1], "\u202eabc"], strict=True))
LABELS = ["ham", "spam", HOSTILE[1]]


def written(folder: Path, labels: list[str] = LABELS) -> Path:
    rows = [{"id": identifier, "predicted": "ham", "why": HOSTILE_TEXT} for identifier in IDS]
    path = folder / "w1.html"
    path.write_text(labelling_page("w1", rows, TEXTS, labels), encoding="utf-8")
    return path


def shown(page: Page) -> str:
    return page.locator(".messages li:visible .text").inner_text()


def labels_of(page: Page, folder: Path) -> list[list[str]]:
    with page.expect_download() as download:
        page.locator("#download").click()
    assert download.value.suggested_filename == "w1.csv"
    download.value.save_as(folder / "w1.csv")
    with (folder / "w1.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_keys_label_undo_and_skip_and_the_labels_are_downloaded(browser: Browser, tmp_path: Path) -> None:
    path = written(tmp_path)
    with watched(browser, DESKTOP) as watch:
        page = watch.open(path)
        assert shown(page) == "win a prize" and page.locator("#download").is_disabled() and page.locator("#undo").is_disabled()
        page.keyboard.press("2")
        assert shown(page) == "see you\nat eight" and page.locator("#count").inner_text() == "1"
        page.keyboard.press("1")
        assert HOSTILE_TEXT.split()[0] in shown(page)
        page.keyboard.press("u")
        assert shown(page) == "see you\nat eight" and page.locator("#count").inner_text() == "1"
        page.keyboard.press("2")
        page.keyboard.press("s")
        page.keyboard.press("3")
        page.keyboard.press("x")
        page.keyboard.press("Control+1")
        assert "\\u202eabc" in shown(page) and page.locator("#count").inner_text() == "3"
        assert labels_of(page, tmp_path) == [["id", "label"], ["a", "spam"], ["'=1+1", "spam"], [HOSTILE[0], LABELS[2]]]
        # The browser remembers the labels; a skipped message comes back.
        page.reload()
        assert page.locator("#count").inner_text() == "3" and HOSTILE_TEXT.split()[0] in shown(page)
        page.locator("button", has_text="ham").click()
        page.keyboard.press("1")
        assert shown(page) == "No message is left." and page.locator(".classes button").first.is_disabled()
        page.keyboard.press("1")
        assert len(labels_of(page, tmp_path)) == 6
        assert watch.complaints == [] and page.evaluate("typeof broken") == "undefined"


def test_the_page_fits_a_phone_and_requests_nothing(browser: Browser, tmp_path: Path) -> None:
    path = written(tmp_path, [f"intent {at} {'long ' * 12}" for at in range(40)])
    with watched(browser, PHONE) as watch:
        page = watch.open(path, settled=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        assert page.locator(".classes button").count() == 40 and page.locator(".classes kbd").count() == 33
        page.keyboard.press("a")
        assert page.locator("#last").inner_text().startswith("The last message is intent 9")
        watch.assert_clean(path)


def annotated(label: str | None, **changes: Any) -> dict[str, Any]:
    """A task as Label Studio exports it."""
    result = (
        [] if label is None else [{"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [label]}}]
    )
    return {"id": 7, "data": {"message_id": "m1", "text": "x"}, "annotations": [{"result": result, **changes}]}


def test_finished_tasks_of_label_studio_become_labels(tmp_path: Path) -> None:
    tasks = [
        annotated("spam"),
        annotated(None),
        annotated("ham", was_cancelled=True),
        {**annotated("ham"), "data": {"message_id": "=2", "text": "y"}},
        {"id": 3, "message_id": "m3", "text": "z", "label": "ham", "annotator": 1},
        {"id": 4, "message_id": "m4", "text": "z"},
    ]
    path = tmp_path / "project.json"
    path.write_text(json.dumps(tasks), encoding="utf-8")
    assert read_tasks(path).to_numpy().tolist() == [["m1", "spam"], ["=2", "ham"], ["m3", "ham"]]
    with contextlib.chdir(tmp_path):
        import_tasks(path)
    labels = pd.read_parquet(tmp_path / PROJECT.labels / "project.parquet")
    assert labels.to_numpy().tolist() == [["m1", "spam"], ["=2", "ham"], ["m3", "ham"]]
    assert "&lt;script" in interface(["<script>", "ham"])


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"{}", "not a list"),
        (b"[1]", "task 1: "),
        (b'[{"data": {"text": "x"}, "annotations": []}]', "task 1: no 'message_id'"),
        (b'[{"message_id": 7, "label": "ham"}]', "task 1: message_id is not text"),
        (b'[{"message_id": "1", "label": {"choices": ["ham", "spam"]}}]', "task 1: expected one label, got"),
        (b'[{"message_id": "1", "annotations": [{"result": [{}]}]}]', "task 1: no 'from_name'"),
    ],
)
def test_other_files_are_one_readable_line(tmp_path: Path, content: bytes, error: str) -> None:
    path = tmp_path / "project.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=error.replace("'", ".")) as raised:
        read_tasks(path)
    assert "\n" not in str(raised.value)

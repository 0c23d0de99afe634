"""The files with which people label a window: `verify` reports what is damaged, and nothing that people may do."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from ballast.exceptions import UserError
from stages.production.feedback import read_labels
from stages.production.label_studio import export, import_tasks
from stages.production.labelling import page_sha256, write_queue
from stages.production.verify import failures, production
from stages.store.checked import write_table
from stages.store.files import write_json
from stages.store.project import PROJECT

IDS = ["m1", "=1+1", "0012", "\u202eabc"]
TEXTS = ["win a prize", "+call me", "a\nb, c; d", 'say "no"']
LABELS = ["ham", "spam"]
SHEET = PROJECT.to_label / "w1.csv"


@pytest.fixture(autouse=True)
def window(tmp_path: Path) -> Iterator[None]:
    """A scored and watched window, with all files for people, and imported labels."""
    rows = [
        {
            "id": id_,
            "predicted": "ham",
            "probability": 0.9,
            "why": "chosen at random",
            "stratum": "any",
            "inclusion_probability": 1,
        }
        for id_ in IDS
    ]
    metadata = {"ballast": json.dumps({"model": "0001", "sha256": "x", "quarantined": 0})}
    scored = pa.table({"id": IDS, "text": TEXTS, "group": [1, 2, 3, 4]})
    with contextlib.chdir(tmp_path):
        PROJECT.scored.mkdir(parents=True)
        write_table(PROJECT.scored / "w1.parquet", scored.replace_schema_metadata(metadata))
        write_queue("w1", rows, dict(zip(IDS, TEXTS, strict=True)), LABELS, again=True)
        write_json(PROJECT.watch / "w1.json", {"to_label": rows, "labels": LABELS, "page_sha256": page_sha256("w1")})
        export("w1")
        tasks = [{"message_id": id_, "text": "", "label": "ham"} for id_ in IDS]
        Path("project-1.json").write_text(json.dumps(tasks))
        import_tasks(Path("project-1.json"))
        yield


def reported() -> list[str]:
    return list(failures(production()))


def test_the_files_as_they_were_written_are_intact() -> None:
    names = {path.name for path in production()}
    assert names >= {"w1.csv", "w1.html", "w1.label_studio.json", "w1.label_studio.xml", "project-1.parquet"}
    assert reported() == []


@pytest.mark.parametrize("separator", [",", ";"])
def test_people_may_fill_in_move_and_delete_rows(separator: str) -> None:
    sheet = pd.read_csv(SHEET, dtype=str, keep_default_na=False)
    sheet.iloc[[3, 1, 0]].assign(label=["ham", "", "spam"]).to_csv(SHEET, sep=separator, index=False)
    assert reported() == []


@pytest.mark.parametrize(("before", "after"), [("m1", "m2"), ("win", "wim"), ("any", "anx"), ("ham", "spam"), ("id,", "ie,")])
def test_a_row_that_changed_is_reported(before: str, after: str) -> None:
    SHEET.write_text(SHEET.read_text().replace(before, after))
    [line] = reported()
    assert line.startswith(f"{SHEET}: ")
    assert line.endswith("delete it, then run `python -m flows.watch --window w1`")


@pytest.mark.parametrize("name", ["to_label/w1.html", "to_label/w1.label_studio.xml", "labels/project-1.parquet"])
def test_a_flipped_bit_of_the_other_files_is_reported_or_harmless(name: str) -> None:
    path = PROJECT.production / name
    content, labels = path.read_bytes(), read_labels(LABELS)
    harmless = 0
    for at in range(0, len(content), max(1, len(content) // 40)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        lines = reported()
        assert [line.partition(": ")[0] for line in lines] in ([], [str(path)])
        harmless += not lines
        assert lines or read_labels(LABELS).equals(labels)
    assert harmless <= (2 if path.suffix == ".parquet" else 0), "only in the name of the digest"


def test_tasks_are_compared_with_the_window() -> None:
    path = PROJECT.to_label / "w1.label_studio.json"
    path.write_text(path.read_text().replace("prize", "price"))
    assert reported() == [f"{path}: differs from the window; run `python -m stages.production.label_studio export w1`"]


def test_damaged_labels_are_not_read() -> None:
    path = PROJECT.labels / "project-1.parquet"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"m1", b"m2"))
    with pytest.raises(UserError, match=r"project-1\.parquet: its sha256 is wrong; delete it, and bring the labels again"):
        read_labels(LABELS)


def test_without_the_window_there_is_no_check() -> None:
    SHEET.write_text("changed")
    (PROJECT.scored / "w1.parquet").unlink()
    assert reported() == []

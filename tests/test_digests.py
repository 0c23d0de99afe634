"""Digests: files carry theirs, every reader checks it, and an error says what makes the file anew."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fsspec.implementations.local import LocalFileSystem
from pyarrow import parquet

from ballast.exceptions import UserError
from ballast.io import digest
from benchmarks.flips import built, tried
from flows import state
from stages.production.score_file import Target
from stages.store.checked import read_arrays, read_frame, read_pinned, read_table, table_writer, write_arrays, write_table
from stages.store.files import read_json, write_json
from stages.store.project import PROJECT
from stages.store.remedies import remedy
from tests.deployed import deploy, prior_model
from tests.project import ROOT, Project

TABLE = pd.DataFrame({"id": [f"m{at}" for at in range(50)], "value": np.linspace(0, 1, 50), "text": "some words"})
ARRAYS = {"logits": np.arange(12, dtype=np.float32).reshape(6, 2), "raw.metrics": np.array(["f1", "recall"])}
OBJECT = {"labels": {"ham": 0.1, "späm": 1 / 3}, "seeds": [0, 1], "none": None}


def flipped(path: Path, position: int, mask: int) -> None:
    """Change a byte; the modification time stays, as when a disk spoils a file."""
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[position] ^= mask
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_equal_content_gives_equal_bytes_that_any_reader_reads(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / f"{name}.parquet", TABLE)
        write_arrays(tmp_path / f"{name}.npz", ARRAYS)
        write_json(tmp_path / f"{name}.json", OBJECT)
    for ending in ("parquet", "npz", "json"):
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), TABLE)
    pd.testing.assert_frame_equal(read_frame(tmp_path / "a.parquet", ["id"]), TABLE[["id"]])
    assert parquet.read_table(tmp_path / "a.parquet", page_checksum_verification=True).equals(pa.Table.from_pandas(TABLE))
    with np.load(tmp_path / "a.npz") as saved:
        assert {name: saved[name].tolist() for name in saved.files} == {name: each.tolist() for name, each in ARRAYS.items()}
    assert json.loads((tmp_path / "a.json").read_bytes()) == {**OBJECT, digest.KEY: digest.of_json(OBJECT)}
    assert read_json(tmp_path / "a.json") == OBJECT


def test_a_table_that_was_read_is_written_with_its_own_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_table(path, TABLE)
    write_table(path, parquet.read_table(path).slice(0, 10))
    assert len(read_table(path)) == 10


def test_a_table_is_written_part_by_part_with_more_metadata(tmp_path: Path) -> None:
    path, schema = tmp_path / "a.parquet", pa.schema([("id", pa.string())])
    with table_writer(path, schema, store_schema=False) as writer:
        for part in range(3):
            writer.write_table(pa.table({"id": [str(part)]}))
        writer.add_key_value_metadata({"ballast": "noted"})
    table = read_table(path)
    assert table["id"].to_pylist() == ["0", "1", "2"] and table.schema.metadata == {b"ballast": b"noted"}


WRITTEN: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "parquet": (lambda path: write_table(path, TABLE[:3]), read_table),
    "npz": (lambda path: write_arrays(path, ARRAYS), read_arrays),
    "json": (lambda path: write_json(path, OBJECT), read_json),
}


@pytest.mark.parametrize("ending", WRITTEN)
def test_no_flipped_byte_is_read_silently(tmp_path: Path, ending: str) -> None:
    write, read = WRITTEN[ending]
    path = tmp_path / f"a.{ending}"
    write(path)
    good, content = path.read_bytes(), repr(read(path))
    harmless = 0
    for position in range(len(good)):
        mask = 1 << (position % 8)
        path.write_bytes(good[:position] + bytes([good[position] ^ mask]) + good[position + 1 :])
        try:
            # White space of JSON.
            assert repr(read(path)) == content
            harmless += 1
        except UserError as error:
            assert str(error).startswith(f"{path}: ") and str(error).endswith("; delete it, then run `dvc repro`"), error
    assert harmless == 0 or ending == "json"
    for cut in (0, 1, 7, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:cut])
        if ending != "json" or cut < len(good) - 1:
            with pytest.raises(UserError, match=r"delete it, then run `dvc repro`"):
                read(path)
    path.unlink()
    with pytest.raises(UserError, match=r"a\.\w+: no such file; run `dvc repro`"):
        read(path)


def test_a_file_of_somebody_else_needs_no_digest_but_one_it_has_must_be_right(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    TABLE.to_parquet(path)
    assert len(read_table(path, required=False)) == len(TABLE)
    with pytest.raises(UserError, match="it has no sha256"):
        read_table(path)
    write_table(path, TABLE)
    flipped(path, 40, 1)
    with pytest.raises(UserError, match="its sha256 is wrong"):
        read_table(path, required=False)


def test_checksums_of_pages_in_somebody_elses_file_are_verified(workspace: Project) -> None:
    rows = pd.DataFrame({"text": [f"some words {at}" for at in range(60)], "label": ["ham", "spam"] * 30})
    path = workspace.folder / "messages.parquet"
    rows.to_parquet(path, write_page_checksum=True, compression=None, use_dictionary=False)
    flipped(path, path.read_bytes().index(b"some words 7") + 3, 1)
    workspace.edit({"ingest.path": "messages.parquet"})
    error = workspace.stage_here("ingest").error
    assert "messages.parquet: cannot be read as parquet" in error and "CRC" in error
    deploy(workspace.folder, prior_model({"ham": 0.5, "spam": 0.5}))
    error = workspace.stage_here("score", source="messages.parquet", window="w1").error
    assert "messages.parquet: cannot be read" in error and "CRC" in error


def test_a_file_whose_digest_another_one_holds(tmp_path: Path) -> None:
    path = tmp_path / "probe.csv"
    path.write_bytes(b"a,b\n")
    assert read_pinned(path, hashlib.sha256(b"a,b\n").hexdigest()) == b"a,b\n"
    with pytest.raises(UserError, match=r"probe.csv: its sha256 is wrong; delete it, then run `dvc repro`"):
        read_pinned(path, "0" * 64)


REMEDIES = {
    "data/messages.parquet": "delete it, then run `dvc repro`",
    "data/feedback.parquet": "run `python -m stages.production.retrain bring-home KEY` if the retraining KEY brought it"
    " here, else `git restore data/feedback.parquet`",
    "studies/results/ratio.json": "delete it, then run `make study NAME=ratio`",
    "studies/ratio/variants/ratio_1/training.json": "delete it, then run `make study NAME=ratio`",
    "production/deployed/current.json": "restore it from a backup, or move it away and run `python -m flows.promote --force`",
    "production/deployed/0001/manifest.json": "run `python -m flows.promote` to deploy the selected model again, or"
    " `python -m flows.promote --rollback`",
    "production/deployed/.announced": "delete it: the next `python -m flows.promote` announces all switches again",
    "production/scored/2026-01-31.parquet": "run `python -m flows.score SOURCE --window 2026-01-31`",
    "production/watch/w1.json": "delete it, then run `python -m flows.watch --window w1`",
    "production/feedback.parquet": "delete it, then run `python -m stages.production.feedback`,"
    " which reads production/labels/ again",
    "production/retrain/w1/decision.json": "delete production/retrain/w1/, then run `python -m flows.retrain --window w1`",
    "production/retrain/night/worktree/logits/a/0.npz": "delete production/retrain/night/, then run"
    " `python -m flows.retrain --key night`",
    "benchmarks/score.json": "run `python -m benchmarks.score`",
}


def test_the_remedy_is_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / PROJECT.watch).mkdir(parents=True)
    (tmp_path / PROJECT.watch / "w1.json").write_text("{}")
    with contextlib.chdir(tmp_path):
        assert {name: remedy(Path(name)) for name in REMEDIES} == REMEDIES
        assert (
            state.remedies(Path("production/retrain/w1/decision.json"))["remedy"]
            == REMEDIES["production/retrain/w1/decision.json"]
        )


def test_flows_check_what_they_read(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        path = Path("production/watch/w1.json")
        with pytest.raises(UserError, match=r"w1.json: no such file; run `python -m flows.watch --window w1`"):
            state.read_state(path)
        write_json(path, OBJECT)
        assert state.read_state(path) == OBJECT
        path.write_text(json.dumps(OBJECT))
        with pytest.raises(UserError, match=r"it has no sha256 .* if an earlier version wrote it, run .* --adopt`; else"):
            state.read_state(path)
        state.write_state(path, {"announced": 3})
        assert read_json(path) == {"announced": 3}


def test_a_deployed_version_is_what_current_json_pins(workspace: Project) -> None:
    folder = deploy(workspace.folder, prior_model({"ham": 0.5, "spam": 0.5}))
    workspace.write("a.csv", b"text\nhello\n")
    manifest = read_json(folder / "manifest.json")
    for change in ({"production_prior": {"ham": 0.9, "spam": 0.1}}, {"technique": "focal"}):
        write_json(folder / "manifest.json", manifest | change)
        error = workspace.stage_here("score", source="a.csv", window="w1").error
        assert "0001/manifest.json: its sha256 is" in error and "`python -m flows.promote --rollback`" in error
    assert not (workspace.folder / PROJECT.scored / "w1.parquet").exists()


def test_a_version_of_before_manifests_had_digests_has_its_pin(workspace: Project) -> None:
    folder = deploy(workspace.folder, prior_model({"ham": 0.5, "spam": 0.5}))
    current = workspace.folder / PROJECT.deployed / "current.json"
    (folder / "manifest.json").write_text(json.dumps(read_json(folder / "manifest.json")))
    content = read_json(current)
    content["history"][0].pop("sha256")
    current.write_text(json.dumps(content))
    workspace.write("a.csv", b"text\nhello\n")
    given = {"source": "a.csv", "window": "w1"}
    assert (
        "current.json: it has no sha256 (ballast.sha256); if an earlier version wrote it, run"
        in workspace.stage_here("score", **given).error
    )
    taken = workspace.stage_here("verify", adopt=True)
    assert (taken.code, taken.stdout) == (0, "production/deployed/current.json\n"), taken.stderr
    assert workspace.stage_here("score", **given).code == 0
    assert workspace.stage_here("verify", adopt=True).stdout == ""
    assert stat.S_IMODE(current.stat().st_mode) & 0o400


def test_windows_of_an_earlier_version_are_taken_over_as_they_are(workspace: Project) -> None:
    deploy(workspace.folder, prior_model({"ham": 0.5, "spam": 0.5}))
    workspace.write("a.csv", b"text\nhello\nyou\n")
    assert workspace.stage_here("score", source="a.csv", window="w1").code == 0
    path, watched = workspace.folder / PROJECT.scored / "w1.parquet", workspace.folder / PROJECT.watch / "w1.json"
    table = read_table(path)
    with parquet.ParquetWriter(path, table.schema.remove_metadata(), store_schema=False) as writer:
        writer.write_table(table.replace_schema_metadata(None))
        writer.add_key_value_metadata(table.schema.metadata)
    workspace.write(str(PROJECT.watch / "w1.json"), b'{"window": "w1"}')
    assert workspace.stage_here("verify", adopt=True).stdout.splitlines() == [
        str(PROJECT.watch / "w1.json"),
        str(PROJECT.scored / "w1.parquet"),
    ]
    assert read_table(path).equals(table, check_metadata=True) and read_json(watched) == {"window": "w1"}
    flipped(path, 40, 1)
    assert workspace.stage_here("verify", adopt=True).stdout == "", "what is spoilt is not taken over"


def test_scores_of_a_file_that_are_spoilt_are_made_anew(tmp_path: Path) -> None:
    target = Target(LocalFileSystem(), str(tmp_path))
    with table_writer(tmp_path / "a.parquet", pa.schema([("id", pa.string())]), store_schema=False) as writer:
        writer.write_table(pa.table({"id": ["1", "2"]}))
        writer.add_key_value_metadata({"ballast": json.dumps({"scored": 2})})
    assert target.metadata("a.parquet") == {"scored": 2}
    flipped(tmp_path / "a.parquet", 30, 1)
    assert target.metadata("a.parquet") == {}


GRAPH = """
stages:
  one:
    cmd: "mkdir -p models/a; echo weights > models/a/w; echo table > table.csv"
    outs: [models/a, table.csv]
"""


def test_verify_finds_what_is_spoilt_and_its_advice_makes_it_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path, tmp_path.parent)
    monkeypatch.setenv("PATH", project.environment["PATH"])
    project.write("dvc.yaml", GRAPH.encode())
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        assert project.run(*command).code == 0
    shutil.copy(ROOT / ".dvc/config", tmp_path / ".dvc/config")

    def verified() -> tuple[int, list[str]]:
        outcome = project.stage_here("verify", adopt=False)
        return outcome.code, outcome.stdout.splitlines()

    assert project.run("dvc", "repro").code == 0 and verified() == (0, [])
    outputs = {tmp_path / name: (tmp_path / name).read_bytes() for name in ("models/a/w", "table.csv")}
    for path in outputs:
        flipped(path, 1, 1)
    advice = "differs from the one that dvc.lock names; delete it, then run `dvc repro`"
    assert verified() == (1, [f"models/a/w: {advice}", f"table.csv: {advice}"]), "and none of the cache"
    # DVC trusts the time of a file.
    assert project.run("dvc", "repro").code == 0 and all(path.read_bytes() != good for path, good in outputs.items())
    for path in outputs:
        path.unlink()
    (tmp_path / "models/a").rmdir()
    # As after a killed stage, which is no damage.
    missing = project.stage_here("verify", adopt=False)
    assert missing.code == 0
    assert (
        "verify: dvc.lock names outputs that are missing here: models/a, table.csv; `dvc checkout` restores" in missing.stderr
    )
    assert project.run("dvc", "repro").code == 0 and all(path.read_bytes() == good for path, good in outputs.items())

    objects = {path: path.read_bytes() for path in sorted((tmp_path / ".dvc/cache/files/md5").glob("*/*"))}
    for path in objects:
        path.chmod(0o644)
        flipped(path, 1, 1)
        path.chmod(0o444)
    code, lines = verified()
    assert (code, len(lines)) == (1, len(objects)) == (1, 3)
    for line, path in zip(lines, objects, strict=True):
        assert line.startswith(f"{path}: its md5 is ")
        assert line.endswith("; delete it, then run `dvc fetch` if a remote has it, else `dvc repro`")
        path.unlink()
    assert project.run("dvc", "repro").code == 0 and all(path.read_bytes() == good for path, good in objects.items())
    assert verified() == (0, [])
    lock = tmp_path / "dvc.lock"
    lock.write_text(lock.read_text().replace("md5: ", "md4: "))
    assert project.stage_here("verify", adopt=False).error.startswith(
        "error: dvc.lock: not a valid lock file of DVC; restore it"
    )


@pytest.mark.slow
def test_flipped_bytes_are_named_or_change_nothing(tmp_path: Path, quick_python: Path) -> None:
    project = built(tmp_path / "project", quick_python)
    verdicts, wrong = tried(project, tmp_path / "work", 12, seed=1)
    assert wrong == [] and verdicts["found"] > 6

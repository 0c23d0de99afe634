"""The settings of params.yaml that flows need; the stages validate them."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ballast.cli import parser, run
from ballast.exceptions import UserError
from ballast.io.paths import check_folder, check_source, regular_file
from ballast.io.urls import redact, refusal, secrets_in
from ballast.io.yaml_text import LARGEST_BYTES, yaml_mapping
from ballast.parameters import YEAR_HOURS, check_number, quoted

PARAMS = Path("params.yaml")
READ_BY_DVC = (Path("dvc.yaml"), Path("dvc.lock"), Path("data/feedback.parquet"))


def read(path: Path) -> dict[str, Any]:
    """The content of a settings file; raises UserError if it cannot be read."""
    regular_file(path)
    try:
        with path.open("rb") as file:
            # One byte more than allowed shows that the file is too large.
            return settings(file.read(LARGEST_BYTES + 1), path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run this command in the root of the repository") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def settings(content: bytes, path: Path = PARAMS) -> dict[str, Any]:
    """The mapping in the bytes of a settings file; raises UserError."""
    try:
        return yaml_mapping(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def params() -> dict[str, Any]:
    """The content of params.yaml; raises UserError if it cannot be read."""
    return read(PARAMS)


def section(name: str) -> dict[str, Any]:
    """A section of params.yaml; raises UserError if it is missing."""
    content = params().get(name)
    if not isinstance(content, dict):
        raise UserError(f"{PARAMS}: {name}: expected keys with values, found {quoted(content)}")
    return content


def check_before_dvc() -> None:
    """Raise UserError for secrets, which DVC would write into dvc.lock, and for special files, which it would read forever."""
    for file in (PARAMS, *sorted(Path("studies").glob("*/params.yaml"))):
        for key, url in secrets_in(read(file), skip="probe").items():
            reason = refusal(key, url, from_environment=key != "ingest.path")
            raise UserError(f"{file}: {reason}")
    for file in READ_BY_DVC:
        regular_file(file)
    ingest = params().get("ingest")
    source = ingest.get("path") if isinstance(ingest, dict) else None
    if isinstance(source, str) and "::" in source and "://" in source:
        raise UserError(
            f"{PARAMS}: ingest.path: {redact(source)} is a URL that DVC cannot track; for a file in an archive, set ingest.path"
            " to the archive and ingest.files to the name of the file in it"
        )
    if isinstance(source, str) and "://" not in source:
        check_source(Path(source))
        if Path(source).is_dir():
            check_folder(Path(source))


def production() -> dict[str, Any]:
    """The section `production`; raises UserError if it cannot be read."""
    return section("production")


def nodes() -> dict[str, Any]:
    """The section `nodes`; by default, everything trains on this machine."""
    return {"train": "here", **(section("nodes") if params().get("nodes") is not None else {})}


def scoring() -> dict[str, Any]:
    """The section `production.score`: where and when windows are scored; raises UserError for missing or invalid values."""
    score = production().get("score")
    if not isinstance(score, dict):
        raise UserError(f"{PARAMS}: production.score: expected keys with values, found {quoted(score)}")
    for key in ("source", "window"):
        if not isinstance(score.get(key), str) or not score[key].strip():
            raise UserError(f"{PARAMS}: production.score.{key}: expected text, found {quoted(score.get(key))}")
    check_number(f"{PARAMS}: production.score.hours", score.get("hours"), 0, YEAR_HOURS)
    return score


def window_name(start: datetime) -> str:
    """The name of the window for a run with this scheduled start: the window that has just ended."""
    score = scoring()
    return (start - timedelta(hours=score["hours"])).strftime(score["window"])


if __name__ == "__main__":
    # For a check before `dvc` is started by hand.
    run(check_before_dvc, parser("Check the settings for secrets and special files before DVC starts.").parse_args())

"""What params.yaml says of production and of nodes, as flows need it; the stages check it."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ballast.command import parser, run
from ballast.errors import UserError
from ballast.paths import check_folder, check_source, regular_file
from ballast.urls import refusal, secrets_in

PARAMS = Path("params.yaml")
READ_BY_DVC = (Path("dvc.yaml"), Path("dvc.lock"), Path("data/feedback.parquet"))


def read(path: Path) -> dict[str, Any]:
    """All of a file of settings; raises UserError when it cannot be read."""
    regular_file(path)
    try:
        return dict(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run from the repository's root") from error
    except (YAMLError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error


def params() -> dict[str, Any]:
    """All of params.yaml; raises UserError when it cannot be read."""
    return read(PARAMS)


def check_before_dvc() -> None:
    """Raise UserError for what DVC must not see: secrets, which it writes into dvc.lock, and what it would read without end."""
    for file in (PARAMS, *sorted(Path("studies").glob("*/params.yaml"))):
        for key, url in secrets_in(read(file)).items():
            raise UserError(f"{file}: {refusal(key, url)}")
    for file in READ_BY_DVC:
        regular_file(file)
    source = params().get("ingest", {}).get("path")
    if isinstance(source, str) and "://" not in source:
        check_source(Path(source))
        if Path(source).is_dir():
            check_folder(Path(source))


def production() -> dict[str, Any]:
    """The section `production`; raises UserError when it cannot be read."""
    try:
        return dict(params()["production"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{PARAMS}: no section production can be read: {error}") from error


def nodes() -> dict[str, Any]:
    """The section `nodes`; without one everything is trained here."""
    return {"train": "here", **(params().get("nodes") or {})}


def window_name(start: datetime) -> str:
    """The window of a run that was to start at a time: the one that has ended by then."""
    score = production()["score"]
    return (start - timedelta(hours=score["hours"])).strftime(score["window"])


if __name__ == "__main__":
    # Before DVC starts by hand.
    run(check_before_dvc, parser(check_before_dvc.__doc__).parse_args())

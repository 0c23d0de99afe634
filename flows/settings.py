"""What params.yaml says of production and of nodes, as flows need it; the stages check it."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ballast.errors import UserError

PARAMS = Path("params.yaml")


def params() -> dict[str, Any]:
    """All of params.yaml; raises UserError when it cannot be read."""
    try:
        return dict(YAML(typ="safe", pure=True).load(PARAMS.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"{PARAMS}: no such file; run from the repository's root") from error
    except (YAMLError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise UserError(f"{PARAMS}: cannot be read: {' '.join(str(error).split())}") from error


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

"""The command that restores each missing or damaged file."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import ballast.io.digest as digest
from ballast.exceptions import UserError

# The first pattern that matches a file's path counts.
REMEDIES = (
    (
        r"production/retrain/(?P<key>[^/]+)/",
        "delete production/retrain/{key}/, then run `python -m flows.retrain {option} {key}`",
    ),
    (r"studies/(?P<study>[^/]+)/variants/", "delete it, then run `make study NAME={study}`"),
    (r"studies/results/(?P<study>[^/]+)/[^/]+\.json$", "delete it, then run `make study NAME={study}`"),
    (r"studies/results/(?P<study>[^/]+)\.json$", "delete it, then run `make study NAME={study}`"),
    (
        r"production/deployed/current\.json$",
        "restore it from a backup, or move it away and run `python -m flows.promote --force`",
    ),
    (
        r"production/deployed/[^/]+/",
        "run `python -m flows.promote` to deploy the selected model again, or `python -m flows.promote --rollback`",
    ),
    (r"production/deployed/\.announced$", "delete it: the next `python -m flows.promote` announces all switches again"),
    (r"production/(?:scored|shadow)/(?P<window>[^/]+)\.parquet$", "run `python -m flows.score SOURCE --window {window}`"),
    (
        r"production/answered/(?P<window>[^/]+)\.sqlite$",
        "stop the endpoint, save what `sqlite3 production/answered/{window}.sqlite .recover` can read, and delete the file",
    ),
    (
        r"production/to_label/(?P<window>[^/]+)\.label_studio\.[a-z]+$",
        "run `python -m stages.production.label_studio export {window}`",
    ),
    (r"production/to_label/(?P<window>[^/]+)\.[a-z]+$", "delete it, then run `python -m flows.watch --window {window}`"),
    (r"production/labels/", "delete it, and bring the labels again"),
    (r"production/watch/(?P<window>[^/]+)\.json$", "delete it, then run `python -m flows.watch --window {window}`"),
    (
        r"production/feedback\.parquet$",
        "delete it, then run `python -m stages.production.feedback`, which reads production/labels/ again",
    ),
    (r"production/replay/", "run `python -m flows.replay --schedule SHARES`"),
    (
        r"data/feedback\.parquet$",
        "run `python -m stages.production.retrain bring-home KEY` if the retraining KEY brought it here, else"
        " `git restore data/feedback.parquet`",
    ),
    (r"benchmarks/(?P<name>[^/]+)\.json$", "run `python -m benchmarks.{name}`"),
    (r"", "delete it, then run `dvc repro`"),
)
DELETE = "delete it, then "
ADOPT = "python -m stages.production.verify --adopt"


def remedy(path: Path) -> str:
    """The command that restores a damaged file."""
    for pattern, words in REMEDIES:
        if match := re.search(f"(?:^|/){pattern}" if pattern else pattern, path.absolute().as_posix()):
            return words.format(option=option(match["key"]) if "key" in match.groupdict() else "", **match.groupdict())
    raise AssertionError("the last pattern matches every path")


def option(key: str) -> str:
    """The option that names a retraining: by the window that triggered it, or by its key."""
    return "--window" if Path(f"production/watch/{key}.json").exists() else "--key"


def missing(path: Path) -> UserError:
    """The error of a missing file."""
    return UserError(f"{path}: no such file; {remedy(path).removeprefix(DELETE)}")


def damaged(path: Path, reason: object) -> UserError:
    """The error of a damaged file."""
    words = " ".join(str(reason).split())[:200]
    if isinstance(reason, digest.NoDigestError) and "production" in path.absolute().parts:
        return UserError(f"{path}: {words}; if an earlier version wrote it, run `{ADOPT}`; else {remedy(path)}")
    return UserError(f"{path}: {words}; {remedy(path)}")


if __name__ == "__main__":
    # Flows ask in this way, because they import no stage.
    arguments = argparse.ArgumentParser(description="Print how to recreate a missing or damaged file, as a JSON object.")
    arguments.add_argument("path", type=Path, help="the missing or damaged file")
    print(json.dumps({"remedy": remedy(arguments.parse_args().path), "adopt": ADOPT}))

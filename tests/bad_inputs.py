"""How a bad input is tried: one readable line must come of it, and nothing on the disk may change."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ballast.exceptions import TEMPORARY
from ballast.io.printable import LONGEST_LINE, UNSEEN
from tests.deployed import deploy, prior_model
from tests.project import ROOT, Outcome, Project, corpus, workspace, yaml

# What a failed scoring may write: which rows were malformed, and the locks that it held.
MAY_CHANGE = re.compile(r"production/quarantine/|(.*/)?\.[^/]+\.lock$")
GOOD = corpus({"ham": 20, "spam": 10}, twins=0)
IDS = GOOD.assign(id=[f"m{row}" for row in range(len(GOOD))])


@dataclass(frozen=True, kw_only=True)
class Case:
    """A bad input.

    kind : of input, for the counts.
    name : of the case, within its kind.
    stage : the command that reads it, and its arguments.
    said : what its line must hold.
    files : what is written first, by path; None removes a file.
    params : changes of params.yaml, by dotted key; raw bytes are the whole file.
    transient : whether a later try may succeed.
    """

    kind: str
    name: str
    stage: str
    said: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes | pd.DataFrame | None] = field(default_factory=dict)
    params: Mapping[str, Any] | bytes = field(default_factory=dict)
    transient: bool = False

    @property
    def id(self) -> str:
        """Its name among all cases."""
        return f"{self.kind}: {self.name}"


def as_yaml(value: Any) -> str:
    """A plain value as YAML in the style of JSON, which is read sooner."""
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_yaml(key)}: {as_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    return json.dumps(value)


def changed(params: Mapping[str, Any], changes: Mapping[str, Any]) -> bytes:
    """The bytes of a params.yaml with changes."""
    content: dict[str, Any] = deepcopy(dict(params))
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = content
        for name in sections:
            section = section[name]
        section[last] = value
    return as_yaml(content).encode()


PARAMS: dict[str, Any] = yaml.load(ROOT / "params.yaml")
PARAMS["ingest"] |= {"source": "file", "path": "messages.csv"}
PARAMS["techniques"] = {"baseline": {}, "class_weight": {"weights": "inverse"}}
PARAMS["search"]["spaces"] = {}
PARAMS["production"]["score"]["id_column"] = "id"


def base(folder: Path) -> Project:
    """A project in which every command finds what it needs: messages, cards, a deployed version, a scored window."""
    project = workspace(folder)
    project.write("params.yaml", changed(PARAMS, {}))
    project.write("messages.csv", IDS)
    project.write("window.csv", IDS)
    deploy(folder, prior_model({"ham": 0.8, "spam": 0.2}))
    for stage, arguments in (("ingest", {}), ("techniques", {}), ("score", {"source": "window.csv", "window": "w"})):
        done = project.stage_here(stage, **arguments)
        assert done.code == 0, done.stderr
    return project


def contents(folder: Path) -> dict[str, bytes | str]:
    """All files below a folder that no command may change unasked."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not MAY_CHANGE.match(name):
            found[name] = path.read_bytes()
    return found


def tried(project: Project, case: Case) -> tuple[Outcome, list[str]]:
    """How the command of a case ended, and what changed on the disk; all is as before afterwards."""
    before = contents(project.folder)
    for name, content in case.files.items():
        if content is None:
            (project.folder / name).unlink()
        else:
            project.write(name, content)
    project.write("params.yaml", case.params if isinstance(case.params, bytes) else changed(PARAMS, case.params))
    given = contents(project.folder)
    try:
        done = project.stage_here(case.stage, **case.arguments)
        after = contents(project.folder)
    finally:
        for name in contents(project.folder).keys() | before.keys():
            if name in before:
                project.write(name, before[name])  # type: ignore[arg-type]
            else:
                (project.folder / name).unlink()
    return done, sorted(name for name in given.keys() | after.keys() if given.get(name) != after.get(name))


def wrong(case: Case, done: Outcome, changes: list[str]) -> list[str]:
    """What is not as it should be: nothing, where the input is refused by one readable line."""
    lines = done.stderr.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    code = TEMPORARY if case.transient else 1
    problems = [f"exit code {done.code}, expected {code}"] if done.code != code else []
    if len(errors) != 1 or lines[-1:] != errors:
        return [*problems, f"{len(errors)} error lines at the end: {done.stderr[-500:]!r}"]
    line = errors[0]
    problems += [f"{words!r} is not in: {line}" for words in case.said if words not in line]
    if "Traceback" in done.stderr or "BALLAST_TRACEBACK" in line:
        problems.append(f"a traceback, or a hint at one: {line}")
    raw = {character for character in done.stderr + done.stdout if unicodedata.category(character) in UNSEEN} - {"\n"}
    if raw:
        problems.append(f"raw control characters {sorted(raw)!r}")
    if len(line) > LONGEST_LINE + len("error: "):
        problems.append(f"{len(line)} characters")
    return problems + [f"{name} changed" for name in changes]

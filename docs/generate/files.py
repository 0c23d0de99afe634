"""The reference of files: what `dvc.yaml` says about its outputs, and what `reference/files.yaml` says about all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

MEANINGS = Path("docs/reference/files.yaml")
# The groups of files.yaml, with the headings of the page.
GROUPS = {
    "pipeline": "Outputs of the pipeline",
    "beside": "Beside the pipeline",
    "production": "Production",
}
# What the formats call their parts; those of tables are columns.
FIELDS = {"JSON": "Keys", "npz": "Arrays"}


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    return dict(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))


def outputs(root: Path) -> dict[str, tuple[str, str]]:
    """Map each output of `dvc.yaml` to its stage and the stage's description, in the order of the graph."""
    written: dict[str, tuple[str, str]] = {}
    for stage, content in read(root / "dvc.yaml")["stages"].items():
        for kind in ("outs", "metrics", "plots"):
            for out in content.get(kind, []):
                path = out if isinstance(out, str) else next(iter(out))
                written[re.sub(r"\$\{item\.(\w+)\}", r"<\1>", path)] = (stage, content["desc"])
    return written


def files_tables(root: Path) -> str:
    """One Markdown table per group of files; raises KeyError for an output that files.yaml does not describe."""
    written, meanings = outputs(root), read(root / MEANINGS)
    lines: list[str] = []
    for group, heading in GROUPS.items():
        lines += [f"## {heading}", "", "| path | written by | content |", "|---|---|---|"]
        paths = written if group == "pipeline" else meanings[group]
        for path in paths:
            about = meanings[group][path]
            by = f"`{written[path][0]}`" if group == "pipeline" else about["by"]
            columns = ", ".join(f"`{name}`" for name in about.get("columns", ()))
            fields = f" {FIELDS.get(about['format'], 'Columns')}: {columns}." if columns else ""
            lines.append(f"| `{path}` | {by} | **{about['format']}.** {about['holds']}{fields} |")
        lines.append("")
    return "\n".join(lines)


def stages_table(root: Path) -> str:
    """The stages of `dvc.yaml` with their descriptions, in the order of the graph."""
    rows = [f"| `{name}` | {stage['desc']} |" for name, stage in read(root / "dvc.yaml")["stages"].items()]
    return "\n".join(["| stage | computes |", "|---|---|", *rows])

"""The Python API: one section per public module, filled by autodoc."""

from __future__ import annotations

import ast
from pathlib import Path

from docs.generate.markdown import literal

# Modules for users of the library; the others serve the pipeline.
MODULES = (
    "ballast",
    "ballast.models.base",
    "ballast.models.deployed",
    "ballast.technique",
    "ballast.sampling",
    "ballast.data.splitting",
    "ballast.evaluation.statistic",
    "ballast.evaluation.metrics",
    "ballast.evaluation.ranking",
    "ballast.evaluation.bootstrap",
    "ballast.evaluation.priors",
    "ballast.evaluation.calibration",
    "ballast.evaluation.costs",
    "ballast.evaluation.rules",
    "ballast.evaluation.operating_point",
    "ballast.evaluation.uncertainty",
    "ballast.evaluation.guarantee",
    "ballast.evaluation.review",
    "ballast.evaluation.review_curve",
    "ballast.evaluation.cost_curve",
    "ballast.monitoring.labelled_quality",
    "ballast.monitoring.labelling_queue",
    "ballast.monitoring.probability_sampling",
    "ballast.monitoring.quantification",
    "ballast.monitoring.label_shift",
)
SECTION = """### {module}

```{{eval-rst}}
.. automodule:: {module}
   :members:
```
"""


def file_of(root: Path, module: str) -> Path:
    """The file of a module or the `__init__.py` of a package."""
    path = root.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def api_sections(root: Path) -> str:
    """The sections of all public modules, preceded by a table of their first sentences."""
    rows = ["| module | holds |", "|---|---|"]
    for module in MODULES:
        doc = ast.get_docstring(ast.parse(file_of(root, module).read_text(encoding="utf-8"))) or ""
        summary = " ".join(doc.partition("\n\n")[0].split())
        rows.append(f"| {{py:mod}}`{module}` | {literal(summary)} |")
    return "\n".join([*rows, "", *(SECTION.format(module=module) for module in MODULES)])

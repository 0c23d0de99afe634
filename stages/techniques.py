"""Check all of `params.yaml`, resolve each technique to its file, and write one card per entry.

Reads `params.yaml`, `data/ingest.json` and `data/search.json`; writes `data/techniques/`. Outputs of entries and seeds that
`params.yaml` no longer names are removed, because a folder that another stage depends on must not contain them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

import ballast
from ballast.cli import parser
from ballast.data.label_names import with_label_keys
from ballast.data.perturbations import perturbations
from ballast.evaluation.metrics import check_metric
from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from ballast.techniques import module_of
from stages.store.cards import Card
from stages.store.files import read_json, replaced_folder, write_json
from stages.store.ingested import prior_counts, training_counts
from stages.store.params import Params, read_params
from stages.store.project import PROJECT, Project
from stages.store.protocol import operating_rule, production_prior
from stages.store.running import run
from stages.store.setting_errors import settings_from
from stages.store.sources import transitive_imports
from stages.store.values import finite_value

PACKAGE = Path(ballast.__file__).parent
# Every technique is built on these; the stages that use them have them among their sources.
ABSTRACTION = frozenset(PACKAGE / name for name in ("technique.py", "exceptions.py", "__init__.py"))


def sources(technique: str) -> dict[str, str]:
    """sha256 of a technique's file and of what it imports beside the abstraction, by path in the repository."""
    file = Path(str(module_of(technique).__file__))
    files = {file, *transitive_imports(file, PACKAGE.parent, ABSTRACTION)}
    return {path.relative_to(PACKAGE.parent).as_posix(): file_sha256(path) for path in files}


def found_by_search(params: Params, project: Project) -> dict[str, dict[str, object]]:
    """The best parameters of the search by entry; empty while it is off. Raises UserError if a result is missing."""
    if not params.search.trials:
        return {}
    results = read_json(project.search)
    missing = [name for name in params.search.spaces if name not in results]
    if missing:
        raise UserError(f"{project.search}: no result for the entry {missing[0]!r} of search.spaces; run `dvc repro`")
    return {name: results[name]["best"] for name in params.search.spaces}


def card_of(name: str, entry: dict[str, object], counts: np.ndarray, labels: list[str]) -> Card:
    """The card of an entry, after a check of its parameters; raises UserError."""
    parameters = dict(entry)
    technique = parameters.pop("technique", name)
    try:
        if not isinstance(technique, str):
            raise UserError(f"technique must be a name, not {technique!r}")
        parameters = with_label_keys(parameters, labels, technique)
        card = Card(name=name, technique=technique, parameters=parameters, sources=sources(technique))
        card.build(counts, labels)
        finite_value(parameters)
    except (UserError, ValueError) as error:
        raise UserError(f"params.yaml: techniques.{name}: {error}") from error
    return card


def check_names(params: Params, counts: dict[str, int]) -> None:
    """Raise UserError for an unknown label or metric in params; counts are the messages of the data by label."""
    labels = list(counts)
    for key, metric in [("metric", params.select.metric), *(("constraints", name) for name in params.select.constraints)]:
        check_metric(f"params.yaml: select.{key}", metric, labels)
    operating_rule(params.operating_point, labels, production_prior(params.production.prior, counts))


def prune_outputs(names: set[str], seeds: set[int], project: Project = PROJECT) -> None:
    """Remove the outputs of entries and seeds that params no longer name."""
    folders = (project.samples, project.models, project.logits, project.curves, project.evaluations, project.technique_metrics)
    for folder in folders:
        for entry in folder.glob("*"):
            keep = entry.name.split(".")[0] in names
            for path in (
                [output for output in entry.glob("*") if output.name.split(".")[0] not in map(str, seeds)]
                if keep and entry.is_dir()
                else []
            ):
                remove(path)
            if not keep:
                remove(entry)


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def main(project: Project = PROJECT) -> None:
    params = read_params(project.params)
    ingested = read_json(project.ingest)
    labels = list(ingested["labels"])
    counts = training_counts(ingested, 0)
    check_names(params, prior_counts(ingested))
    with settings_from("probe"):
        perturbations(params.probe.perturbations, params.probe.padding)
    searched = found_by_search(params, project)
    entries = {name: {**(entry or {}), **searched.get(name, {})} for name, entry in params.techniques.items()}
    cards = [card_of(name, entry, counts, labels) for name, entry in entries.items()]
    with replaced_folder(project.cards) as folder:
        for card in cards:
            write_json(folder / f"{card.name}.json", card.as_json())
    prune_outputs({card.name for card in cards}, set(params.train.seeds), project)


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())

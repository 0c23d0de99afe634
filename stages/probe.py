"""Score the probe texts with the models of every technique, original and perturbed.

Reads `models/` and the section `probe` of params; writes `probes/<name>.json`: the texts with the logits of each seed, how
many tokens of a text the models read, and for each perturbation the changed texts, the numbers of the scored texts, their
logits, and why the others were skipped. A text that a perturbation leaves unchanged says nothing about it. A perturbed text
with more tokens than the model reads would be truncated, so its probability would be that of another text. Loading the
libraries takes longer than scoring the few texts with all models, so one stage handles all techniques.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ballast.cli import parser
from ballast.data.perturbations import perturbations
from ballast.exceptions import UserError
from ballast.models.base import Model
from ballast.models.folder import load
from stages.store.checked import of_model
from stages.store.files import replaced_folder, write_json
from stages.store.params import Params, read_params
from stages.store.project import PROJECT, Project
from stages.store.running import run
from stages.store.setting_errors import settings_from


def load_model(folder: Path) -> Model:
    """Load a model of the graph; raises UserError if one of its files is damaged."""
    with of_model(folder):
        return load(folder)


def too_long(model: Model, texts: list[str]) -> np.ndarray:
    """Whether each of the texts (n,) has more tokens than the model reads."""
    counted = model.token_counts(texts)
    return np.zeros(len(texts), dtype=bool) if counted is None else counted[0] > counted[1]


def check_lengths(name: str, model: Model, texts: list[str]) -> None:
    """Raise UserError for a probe text that the model would truncate."""
    counted = model.token_counts(texts)
    if counted is None or (counted[0] <= counted[1]).all():
        return
    tokens, limit = counted
    at = int(np.argmax(tokens > limit))
    raise UserError(
        f"params.yaml: probe.texts entry {at + 1} has {tokens[at]} tokens, but {name} reads {limit} (train.max_length and"
        " train.long_texts); shorten it"
    )


def skipped(model: Model, texts: list[str], changed: list[str]) -> dict[str, str]:
    """Why some changed texts are skipped, by the number of the text."""
    long = too_long(model, changed)
    return {
        str(at): "unchanged" if new == old else "too long"
        for at, (old, new) in enumerate(zip(texts, changed, strict=True))
        if new == old or long[at]
    }


def probed(name: str, params: Params, project: Project = PROJECT) -> dict[str, Any]:
    """The logits of the models of one technique; raises UserError for a text that is too long for them."""
    texts = params.probe.texts
    models = {seed: load_model(project.models / name / str(seed)) for seed in params.train.seeds}
    first = next(iter(models.values()))
    check_lengths(name, first, texts)
    perturbed: dict[str, dict[str, Any]] = {}
    with settings_from("probe"):
        changes = perturbations(params.probe.perturbations, params.probe.padding)
    for key, change in changes.items():
        changed = list(map(change, texts))
        reasons = skipped(first, texts, changed)
        scored = [at for at in range(len(texts)) if str(at) not in reasons]
        perturbed[key] = {"texts": changed, "scored": scored, "skipped": reasons}
    # One call for each model, because its overhead exceeds the time for so few texts.
    parts = [texts, *([change["texts"][at] for at in change["scored"]] for change in perturbed.values())]
    ends = np.cumsum([len(part) for part in parts])[:-1]
    logits: list[dict[str, Any]] = [{} for _ in parts]
    for seed, model in models.items():
        scores = model.logits([text for part in parts for text in part]).astype(float).round(6)
        for of_part, values in zip(logits, np.split(scores, ends), strict=True):
            of_part[str(seed)] = values.tolist()
    for result, of_part in zip(perturbed.values(), logits[1:], strict=True):
        result["logits"] = of_part
    counted = first.token_counts([])
    return {
        "texts": texts,
        "labels": first.labels,
        "logits": logits[0],
        "perturbed": perturbed,
        # None: they read texts of any length.
        "max_length": None if counted is None else counted[1],
    }


def main(project: Project = PROJECT) -> None:
    params = read_params(project.params)
    with replaced_folder(project.probes) as folder:
        for name in tqdm(params.techniques, desc="probing", unit="technique", disable=None, leave=False):
            write_json(folder / f"{name}.json", probed(name, params, project))


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())

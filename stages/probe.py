"""Score the probe texts with every technique's models, as they are and perturbed.

Reads `models/` and the section `probe` of params; writes `probes/<name>.json`: the texts and each seed's logits, and for each
perturbation the changed texts, which of them were scored, their logits, and why the others were not. A text that a perturbation
leaves as it is says nothing about it. A perturbed text with more tokens than the model reads would lose its end, and the fall
of its probability would be that of another text. The texts are so few that loading a library takes longer than scoring them
with all models, so one stage does it for all techniques.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tqdm import tqdm

import ballast
from ballast.command import parser, run
from ballast.errors import UserError
from ballast.model import Model
from ballast.perturbations import perturbations
from stages.files import MODELS, PROBES, replaced_folder, write_json
from stages.params import Params, read_params


def too_long(model: Model, texts: list[str]) -> np.ndarray:
    """Which texts (n,) have more tokens than the model reads."""
    counted = model.token_counts(texts)
    return np.zeros(len(texts), dtype=bool) if counted is None else counted[0] > counted[1]


def check_lengths(name: str, model: Model, texts: list[str]) -> None:
    """Raise UserError for a probe text that the model would not read to its end."""
    counted = model.token_counts(texts)
    if counted is None or (counted[0] <= counted[1]).all():
        return
    tokens, limit = counted
    at = int(np.argmax(tokens > limit))
    raise UserError(
        f"params.yaml: probe.texts entry {at + 1} has {tokens[at]} tokens, but {name} reads {limit} (train.max_length);"
        " shorten it"
    )


def logits(models: dict[int, Model], texts: list[str]) -> dict[str, Any]:
    """Each seed's logits of texts."""
    return {str(seed): model.logits(texts).astype(float).round(6).tolist() for seed, model in models.items()}


def perturbed(models: dict[int, Model], texts: list[str], changed: list[str]) -> dict[str, Any]:
    """Changed texts with the logits of those that were scored."""
    long = too_long(next(iter(models.values())), changed)
    reasons = {
        at: "unchanged" if new == old else "too long"
        for at, (old, new) in enumerate(zip(texts, changed, strict=True))
        if new == old or long[at]
    }
    scored = [at for at in range(len(texts)) if at not in reasons]
    return {
        "texts": changed,
        "scored": scored,
        "skipped": {str(at): reason for at, reason in reasons.items()},
        "logits": logits(models, [changed[at] for at in scored]),
    }


def probed(name: str, params: Params) -> dict[str, Any]:
    """The logits of one technique's models; raises UserError for a text that is too long for them."""
    texts = params.probe.texts
    changes = perturbations(params.probe.perturbations, params.probe.padding)
    models = {seed: ballast.load(MODELS / name / str(seed)) for seed in params.train.seeds}
    first = next(iter(models.values()))
    check_lengths(name, first, texts)
    return {
        "texts": texts,
        "labels": first.labels,
        "logits": logits(models, texts),
        "perturbed": {key: perturbed(models, texts, list(map(change, texts))) for key, change in changes.items()},
    }


def main() -> None:
    params = read_params()
    with replaced_folder(PROBES) as folder:
        for name in tqdm(params.techniques, desc="probing", unit="technique", disable=None, leave=False):
            write_json(folder / f"{name}.json", probed(name, params))


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())

"""Train one technique with one seed and score validation and test once.

Reads the card, the messages and the sample; writes `models/<name>/<seed>/`, `logits/<name>/<seed>.npz` (validation and test,
(n, K) float32 each; declared_prior (K,), NaN where there is none; parameters) and the curve. How long it took goes to
`durations/`, outside of DVC, because it differs each time. A training that takes long keeps a checkpoint in `checkpoints/`.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from dvclive import Live
from scipy.special import log_softmax
from scmrepo.exceptions import SCMError

import ballast
from ballast.cli import parser, run
from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from ballast.models import folder as models
from ballast.models.base import Model
from ballast.parameters import SEEDS, check_number
from ballast.technique import Technique, TrainingData, TrainingSettings, weighted_share
from ballast.training.launching import is_first, launched
from stages.store.cards import Card, read_card
from stages.store.checked import FILES, read_frame, write_arrays
from stages.store.files import remove_partial, replaced, replaced_folder, write_json
from stages.store.frozen_states import kept
from stages.store.messages import read_messages
from stages.store.params import read_params
from stages.store.project import PROJECT

# Training messages of each class that are scored, to see how far a technique fits them better than those of test.
TRAIN_SCORED = 500


def first_of_each_class(classes: pd.Series, most: int) -> pd.Index:
    """The index of at most so many rows of each class, in the order of the table."""
    return classes.index[classes.groupby(classes).cumcount() < most]


@contextmanager
def live_curves(folder: Path) -> Iterator[Live]:
    """DVCLive without experiments of its own; the digests of what it wrote come beside it.

    Raises UserError in a git repository that has no commit, where it would fail.
    """
    try:
        live = Live(str(folder), save_dvc_exp=False, report=None, dvcyaml=None)
    except SCMError as error:
        raise UserError(f"git: {error}; DVCLive needs a commit, run `git commit` first") from error
    with live:
        yield live
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    write_json(folder / FILES, {"files": {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}})


def trained(technique: Technique, data: TrainingData, settings: TrainingSettings) -> Model:
    """Train in the technique's own way, or by fine-tuning the encoder."""
    if technique.fit is not None:
        return technique.fit(data, settings)
    # Seconds of imports that only an encoder needs.
    from ballast.training.fine_tune import fine_tune

    return fine_tune(technique, data, settings)


def fingerprint(card: Card, data: TrainingData, settings: Mapping[str, Any], seed: int) -> str:
    """What decides a training's result, but for the encoder's weights: settings, card, sample, sources and libraries."""
    package = Path(ballast.__file__).parent
    content = {
        "settings": dict(settings),
        "seed": seed,
        "card": card.as_json(),
        "labels": data.label_names,
        "texts": list(data.texts),
        "sources": {str(path.relative_to(package)): file_sha256(path) for path in sorted(package.rglob("*.py"))},
        "libraries": {name: version(name) for name in ("torch", "transformers")},
    }
    found = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    found.update(data.labels.tobytes())
    found.update(data.weights.tobytes())
    return found.hexdigest()


def main(name: str, seed: int) -> None:
    check_number("the seed", seed, 0, SEEDS, whole=True)
    section = read_params().train
    settings = section.settings()
    card = read_card(name)
    messages = read_messages(["text"])
    technique = card.build(messages.counts("train"), messages.names)
    if technique.fit is None and launched(section.processes, section.device, main, name, seed):
        return
    sample = read_frame(PROJECT.samples / name / f"{seed}.parquet")
    drawn = messages.table.loc[sample["row"]]
    repeated = sample["row"].duplicated().to_numpy()
    data = TrainingData(
        texts=technique.texts(drawn["text"].tolist(), repeated, np.random.default_rng(seed)),
        labels=drawn["class"].to_numpy(),
        weights=sample["weight"].to_numpy(),
        label_names=messages.names,
        corpus=messages.table["text"].tolist(),
    )
    checkpoint = None
    if technique.fit is None:
        # Seconds of imports that only an encoder needs.
        from ballast.training.checkpoint import Checkpoint

        path = PROJECT.checkpoints / name / f"{seed}.safetensors"
        checkpoint = Checkpoint(path, section.checkpoint_minutes, fingerprint(card, data, settings, seed))
    if not is_first():
        trained(technique, data, TrainingSettings(**settings, seed=seed, keep=kept, checkpoint=checkpoint))
        return
    for path in (PROJECT.curves / name / str(seed), PROJECT.models / name / str(seed), PROJECT.logits / name / f"{seed}.npz"):
        remove_partial(path)
    share = weighted_share(data.labels, data.weights, technique.class_weights, len(messages.names))
    declared = technique.declared_prior(share)
    tenths = 0

    with replaced_folder(PROJECT.curves / name / str(seed)) as curves, live_curves(curves) as live:

        def on_step(step: int, steps: int, loss: float, learning_rate: float) -> None:
            nonlocal tenths
            live.step = step
            live.log_metric("loss", loss)
            live.log_metric("learning_rate", learning_rate)
            if not sys.stderr.isatty() and 10 * step // steps > tenths:
                tenths = 10 * step // steps
                print(f"train: {name} seed {seed}: step {step} of {steps}, loss {loss:.4f}", file=sys.stderr)

        started = time.perf_counter()
        where = TrainingSettings(**settings, seed=seed, on_step=on_step, keep=kept, checkpoint=checkpoint)
        model = trained(technique, data, where)
        ready = time.perf_counter()
        logits = {split: model.logits(messages.of(split)["text"].tolist()) for split in ("validation", "test")}
        scored = time.perf_counter()
        train_rows = first_of_each_class(messages.of("train")["class"], TRAIN_SCORED)
        logits["train"] = model.logits(messages.table.loc[train_rows, "text"].tolist())
        if not all(np.isfinite(each).all() for each in logits.values()):
            raise UserError(f"{name} seed {seed}: the logits are not finite; lower train.learning_rate or the weights")
        classes = messages.of("validation")["class"].to_numpy()
        log_loss = -log_softmax(logits["validation"].astype(float), axis=1)[np.arange(len(classes)), classes].mean()
        live.summary["validation_log_loss"] = float(log_loss)

    with replaced_folder(PROJECT.models / name / str(seed)) as folder:
        details = {
            "technique": card.technique,
            "seed": seed,
            "priors": {"declared": None if declared is None else dict(zip(messages.names, declared.tolist(), strict=True))},
            "params": {"technique": {**card.parameters}, "train": settings},
        }
        models.save(model, folder, details)
    with replaced(PROJECT.logits / name / f"{seed}.npz") as temporary:
        prior = np.full(len(messages.names), np.nan) if declared is None else declared
        train_classes = messages.table.loc[train_rows, "class"].to_numpy()
        arrays = {
            **logits,
            "train_classes": train_classes,
            "declared_prior": prior,
            "parameters": np.array(model.parameters),
            **model.head_arrays(),
        }
        write_arrays(temporary, arrays)
    scored_texts = sum(len(logits[split]) for split in ("validation", "test"))
    durations = {
        "training_seconds": ready - started,
        "message_passes": len(data.texts) * settings["epochs"],
        "scoring_seconds": scored - ready,
        "scored": scored_texts,
    }
    write_json(PROJECT.durations / name / f"{seed}.json", durations)
    if checkpoint is not None:
        checkpoint.remove()
    rate = durations["message_passes"] / durations["training_seconds"]
    print(f"train: {name} seed {seed}: {durations['training_seconds']:.1f} s, {rate:,.0f} messages/s", file=sys.stderr)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("name", help="an entry of techniques in params.yaml")
    arguments.add_argument("seed", type=int, help="one of train.seeds in params.yaml")
    run(main, arguments.parse_args())

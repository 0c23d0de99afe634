"""Train one technique with one seed and score validation and test once.

The seed trains on the messages outside the test split and its validation fold, and validates on that fold. Reads the card, the
messages, the sample, and `data/encoder.json` for settings that are `auto`; writes `models/<name>/<seed>/`,
`logits/<name>/<seed>.npz` (logits (n, K) float32 of validation, test and some training messages, with their row numbers in the
table of messages (n,); declared_prior (K,), NaN where there is none; parameters) and the curve. Durations go to `durations/`,
outside DVC, because they differ each time. A long training writes checkpoints to `checkpoints/`.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from dvclive import Live
from scmrepo.exceptions import SCMError

import ballast
from ballast.cli import parser
from ballast.evaluation.log_loss import log_losses
from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from ballast.models import folder as models
from ballast.models.base import Model
from ballast.parameters import SEEDS, check_number
from ballast.technique import Technique, TrainingData, TrainingSettings, weighted_share
from ballast.training.launching import is_main_process, launch_if_parallel
from stages.store.cards import Card, read_card
from stages.store.checked import FILES, read_frame, write_arrays
from stages.store.encoder_settings import encoder_settings
from stages.store.files import remove_partial, replaced, replaced_folder, write_json
from stages.store.frozen_states import cached_states
from stages.store.messages import Messages, read_messages
from stages.store.params import read_params
from stages.store.project import PROJECT, Project
from stages.store.running import run
from stages.store.setting_errors import settings_from

# Training messages of each class to score, which shows how much better a technique fits them than test messages.
TRAIN_SCORED = 500
# Test messages whose lengths give the multiply-adds of a message.
COUNTED = 1000


def first_of_each_class(classes: pd.Series, most: int) -> pd.Index:
    """The index of at most `most` rows of each class, in the order of the table."""
    return classes.index[classes.groupby(classes).cumcount() < most]


@contextmanager
def live_curves(folder: Path) -> Iterator[Live]:
    """DVCLive without its own experiments; the digests of its files are written beside them.

    Raises UserError in a git repository without a commit, in which DVCLive fails.
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
    """Train with the technique's own `fit`, or fine-tune the encoder."""
    if technique.fit is not None:
        return technique.fit(data, settings)
    # A slow import, needed only for encoders.
    from ballast.training.fine_tune import fine_tune

    return fine_tune(technique, data, settings)


def fingerprint_of(card: Card, data: TrainingData, settings: Mapping[str, Any], seed: int) -> str:
    """A sha256 of everything that determines a training, except the encoder's weights."""
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
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    digest.update(data.labels.tobytes())
    digest.update(data.weights.tobytes())
    return digest.hexdigest()


def training_data(technique: Technique, messages: Messages, sample: pd.DataFrame, seed: int) -> TrainingData:
    """The texts, classes and weights to train on, from a sample (row, weight) of the messages."""
    rows = messages.table.loc[sample["row"]]
    repeated = sample["row"].duplicated().to_numpy()
    return TrainingData(
        texts=technique.texts(rows["text"].tolist(), repeated, np.random.default_rng(seed)),
        labels=rows["class"].to_numpy(),
        weights=sample["weight"].to_numpy(),
        label_names=messages.names,
        corpus=messages.table["text"].tolist(),
    )


def progress_report(live: Live, title: str) -> Callable[[int, int, float, float], None]:
    """A callback (step, steps, loss, learning rate) that logs the curve and, outside a terminal, prints ten lines."""
    tenths = 0

    def on_step(step: int, steps: int, loss: float, learning_rate: float) -> None:
        nonlocal tenths
        live.step = step
        live.log_metric("loss", loss)
        live.log_metric("learning_rate", learning_rate)
        if not sys.stderr.isatty() and 10 * step // steps > tenths:
            tenths = 10 * step // steps
            print(f"train: {title}: step {step} of {steps}, loss {loss:.4f}", file=sys.stderr)

    return on_step


def scored(model: Model, name: str, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Logits (n, K) and row numbers (n,) of messages, as arrays `name` and `<name>_rows`."""
    return {name: model.logits(rows["text"].tolist()), f"{name}_rows": rows.index.to_numpy(dtype=np.int64)}


def train_logits(model: Model, train: pd.DataFrame) -> dict[str, np.ndarray]:
    """Logits (n, K), row numbers (n,) and classes (n,) of a part of the training messages."""
    rows = train.loc[first_of_each_class(train["class"], TRAIN_SCORED)]
    return scored(model, "train", rows) | {"train_classes": rows["class"].to_numpy()}


@settings_from("train")
def main(name: str, seed: int, project: Project = PROJECT) -> None:
    check_number("the seed", seed, 0, SEEDS, whole=True)
    section, title = read_params(project.params).train, f"{name} seed {seed}"
    chosen = encoder_settings(section, project)
    card, messages = read_card(name, project), read_messages(["text"], project)
    train, validation = messages.train(seed), messages.validation(seed)
    technique = card.build(messages.counts(train), messages.names)
    if technique.fit is None and launch_if_parallel(section.processes, section.device, main, name, seed, project):
        return
    data = training_data(technique, messages, read_frame(project.samples / name / f"{seed}.parquet"), seed)
    settings = TrainingSettings(**chosen, seed=seed, cache=partial(cached_states, project.states))
    if technique.fit is None:
        # A slow import, needed only for encoders.
        from ballast.training.checkpoint import Checkpoint

        path = project.checkpoints / name / f"{seed}.safetensors"
        fingerprint = fingerprint_of(card, data, chosen, seed)
        settings = replace(settings, checkpoint=Checkpoint(path, section.checkpoint_minutes, fingerprint))
    if not is_main_process():
        trained(technique, data, settings)
        return
    curves, model_folder, logits_path = (
        project.curves / name / str(seed),
        project.models / name / str(seed),
        project.logits / name / f"{seed}.npz",
    )
    for path in (curves, model_folder, logits_path):
        remove_partial(path)
    declared = technique.declared_prior(weighted_share(data.labels, data.weights, technique.class_weights, len(messages.names)))
    with replaced_folder(curves) as folder, live_curves(folder) as live:
        started = time.perf_counter()
        model = trained(technique, data, replace(settings, on_step=progress_report(live, title)))
        ready = time.perf_counter()
        arrays = scored(model, "validation", validation) | scored(model, "test", messages.test())
        finished = time.perf_counter()
        arrays |= train_logits(model, train)
        if not all(np.isfinite(values).all() for values in arrays.values()):
            raise UserError(f"{title}: the logits are not finite; lower train.learning_rate or the weights")
        losses = log_losses(arrays["validation"], validation["class"].to_numpy())
        live.summary["validation_log_loss"] = float(losses.mean())
    with replaced_folder(model_folder) as folder:
        shares = None if declared is None else dict(zip(messages.names, declared.tolist(), strict=True))
        params = {"technique": {**card.parameters}, "train": chosen}
        details = {"technique": card.technique, "seed": seed, "priors": {"declared": shares}, "params": params}
        models.save(model, folder, details)
    with replaced(logits_path) as temporary:
        arrays["declared_prior"] = np.full(len(messages.names), np.nan) if declared is None else declared
        texts = messages.test()["text"].tolist()[:COUNTED]
        sizes = {"parameters": np.array(model.n_parameters), "multiply_adds": np.array(model.multiply_adds(texts))}
        write_arrays(temporary, {**arrays, **sizes, **model.head_arrays()})
    durations = {
        "training_seconds": ready - started,
        "message_passes": len(data.texts) * section.epochs,
        "scoring_seconds": finished - ready,
        "scored": len(arrays["validation"]) + len(arrays["test"]),
    }
    write_json(project.durations / name / f"{seed}.json", durations)
    said = f"train: {title}: {durations['training_seconds']:.1f} s"
    if settings.checkpoint is not None:
        settings.checkpoint.remove()
        said += f", {durations['message_passes'] / durations['training_seconds']:,.0f} messages/s"
    print(said, file=sys.stderr)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("name", help="an entry of techniques in params.yaml")
    arguments.add_argument("seed", type=int, help="one of train.seeds in params.yaml")
    run(main, arguments.parse_args())

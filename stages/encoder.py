"""Choose the settings of the encoder that are `auto` in `train`: the learning rate by trial, the frozen layers by rule.

`frozen_layers: auto` trains the highest layer only. `learning_rate: auto` fine-tunes the baseline as seed 0 does, at several
rates, and compares their log loss on the validation messages of that seed; see `ballast.training.learning_rate`. Reads params
and the messages outside the test split; writes `data/encoder.json`, which every training reads: the chosen values, and the mean
log loss of each rate that was tried (null if it diverges).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from ballast.cli import parser
from ballast.evaluation.log_loss import log_losses
from ballast.exceptions import DivergedError
from ballast.technique import Technique, TrainingSettings
from ballast.training.learning_rate import Losses, climb
from stages.store.baseline_data import baseline_data
from stages.store.encoder_settings import in_words
from stages.store.files import write_json
from stages.store.frozen_states import cached_states
from stages.store.messages import read_messages
from stages.store.params import Params, read_params
from stages.store.project import PROJECT, Project
from stages.store.running import run
from stages.store.setting_errors import settings_from

# The seed of the trials.
SEED = 0


def trial(settings: Mapping[str, Any], project: Project) -> tuple[Losses, np.ndarray]:
    """A function from a learning rate to the log loss (n,) of each validation message, and the losses of the class shares."""
    # A slow import, needed only for `auto`.
    from ballast.training.fine_tune import fine_tune

    messages = read_messages(["text"], project)
    train, validation = messages.train(SEED), messages.validation(SEED)
    texts, classes = validation["text"].tolist(), validation["class"].to_numpy()
    data = baseline_data(messages, train)

    def losses_of(rate: float) -> np.ndarray:
        own = {**settings, "learning_rate": rate, "seed": SEED, "cache": partial(cached_states, project.states)}
        try:
            logits = fine_tune(Technique(), data, TrainingSettings(**own)).logits(texts)
        except DivergedError:
            return np.full(len(classes), np.inf)
        losses = log_losses(logits, classes)
        print(f"encoder: learning rate {rate:g}: log loss {losses.mean():.4f}", file=sys.stderr, flush=True)
        return losses

    shares = messages.counts(train) / len(train)
    return losses_of, -np.log(shares[classes])


def chosen(params: Params, project: Project) -> dict[str, Any]:
    """The values of the settings, those of them that were `auto`, and the mean log loss by learning rate."""
    section, losses = params.train, {}
    settings = section.settings()
    if "frozen_layers" in section.auto:
        # A slow import, needed only for `auto`.
        from ballast.models.encoder import n_layers

        settings["frozen_layers"] = n_layers(section.model) - 1
    if "learning_rate" in section.auto:
        found = climb(*trial(settings, project))
        settings["learning_rate"] = found.rate
        losses = {f"{rate:g}": loss if math.isfinite(loss) else None for rate, loss in found.losses.items()}
    return {**{key: settings[key] for key in section.AUTO}, "auto": section.auto, "log_loss": losses}


@settings_from("train")
def main(project: Project = PROJECT) -> None:
    found = chosen(read_params(project.params), project)
    write_json(project.encoder, found)
    if said := in_words(found):
        print(f"encoder: {said}", file=sys.stderr)


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())

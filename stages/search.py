"""Search parameters for the entries of `techniques` in `search.spaces`; off while `search.trials` is 0.

Trains without the first validation fold and compares on it. Reads params, the messages outside the test split, and
`data/ingest.json`; writes `data/search.json`, from which the cards of those entries take their values: by entry its spaces, the
best parameters and their value, the baseline's value, every trial.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from ballast.cli import parser
from ballast.data.label_names import with_label_keys
from ballast.evaluation.metrics import check_metric
from ballast.exceptions import UserError, suggestion
from ballast.search import Embedded, best, check_spaces, reference_value, search
from stages.store.files import read_json, write_json
from stages.store.ingested import training_counts
from stages.store.messages import read_messages
from stages.store.params import Params, read_params
from stages.store.project import PROJECT
from stages.store.running import run
from stages.store.setting_errors import settings_from

Spaces = dict[str, dict[str, Any]]


def entry_of(params: Params, name: str, labels: Sequence[str]) -> tuple[str, dict[str, Any], Spaces]:
    """The technique of an entry, its fixed parameters, and the spaces of the searched ones."""
    spaces = {key: space.model_dump(exclude_defaults=True) for key, space in params.search.spaces[name].items()}
    given = {key: value for key, value in (params.techniques[name] or {}).items() if key not in spaces}
    technique = str(given.pop("technique", name))
    return technique, with_label_keys(given, labels, technique), spaces


def check_search(params: Params, ingested: dict[str, Any]) -> None:
    """Raise UserError for an invalid setting of `search`, before anything trains."""
    labels = list(ingested["labels"])
    counts = training_counts(ingested, 0)
    check_metric("params.yaml: search.metric", params.search.metric, labels)
    for name in params.search.spaces:
        if name not in params.techniques:
            raise UserError(
                f"params.yaml: search.spaces: unknown entry {name!r} of techniques: {suggestion(name, params.techniques)}"
            )
        try:
            check_spaces(*entry_of(params, name, labels), counts, labels)
        except UserError as error:
            raise UserError(f"params.yaml: search.spaces.{name}: {error}") from error


def embedded(params: Params) -> Embedded:
    """Train and validation of the first fold as frozen embeddings of the encoder that params name."""
    # Slow imports, needed only if the search is on.
    from ballast.models.embedding import Embedder
    from ballast.models.pretrained import encoder_source

    messages = read_messages(["text"])
    settings = params.train
    encoder = Embedder.from_pretrained(
        encoder_source(settings.model), settings.device, settings.max_length, settings.precision, settings.long_texts
    )
    train, validation = messages.train(0), messages.validation(0)
    return Embedded(
        train=encoder.embed(train["text"].tolist()),
        train_classes=train["class"].to_numpy(),
        validation=encoder.embed(validation["text"].tolist()),
        validation_classes=validation["class"].to_numpy(),
        labels=messages.names,
    )


def searched(params: Params, name: str, data: Embedded) -> dict[str, Any]:
    """The result of one entry, without the value of the baseline."""
    technique, given, spaces = entry_of(params, name, data.labels)
    settings = params.search
    with tqdm(total=settings.trials, desc=f"search {name}", unit="trial", disable=None, leave=False) as bar:

        def on_trial(trial: int, value: float) -> None:
            bar.update()
            if not sys.stderr.isatty() and 10 * trial // settings.trials > 10 * (trial - 1) // settings.trials:
                print(f"search: {name}: trial {trial} of {settings.trials}, {settings.metric} {value:.4f}", file=sys.stderr)

        tried = search(
            technique,
            given,
            spaces,
            data,
            metric=settings.metric,
            trials=settings.trials,
            seed=settings.seed,
            on_trial=on_trial,
        )
    chosen = best(tried, settings.metric)
    return {
        "technique": technique,
        "metric": settings.metric,
        "spaces": spaces,
        "best": chosen.parameters,
        "value": chosen.value,
        "trials": [{"parameters": trial.parameters, "value": trial.value} for trial in tried],
    }


@settings_from("train")
def main() -> None:
    params = read_params()
    results = {}
    if params.search.trials:
        check_search(params, read_json(PROJECT.ingest))
        data = embedded(params)
        baseline = reference_value(data, params.search.metric, params.search.seed)
        results = {name: searched(params, name, data) | {"baseline": baseline} for name in params.search.spaces}
    write_json(PROJECT.search, results)


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())

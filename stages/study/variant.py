"""Train one variant of a study with the stages of the main pipeline, in a separate folder.

Reads `params.yaml`, the study's `params.yaml` and the main data; writes `studies/<study>/variants/<variant>/`: the
messages without their texts, the logits, the settings of the encoder, and the counts of training messages. All variants are
validated before one trains.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from ballast.cli import parser
from ballast.exceptions import UserError, suggestion
from stages import encoder, ingest, resample, techniques, train
from stages.store.checked import read_frame, write_table
from stages.store.files import read_json, replaced_folder, write_json
from stages.store.ingested import prior_counts, training_counts
from stages.store.messages import read_messages
from stages.store.params import read_params
from stages.store.project import PROJECT, Project
from stages.store.running import run
from stages.store.studies import Variant, params_path, read_variants, variant_folder, with_absolute_paths
from stages.store.units import UNIT, has_units


def check_variants(study: str, variants: Mapping[str, Variant]) -> None:
    """Raise UserError if a technique of any variant rejects its parameters. The folds of a variant have the same techniques."""
    ingested = read_json(PROJECT.ingest)
    labels = list(ingested["labels"])
    counts = training_counts(ingested, 0)
    for name, variant in {variant.key: variant for variant in variants.values()}.items():
        try:
            techniques.check_names(variant.params, prior_counts(ingested))
            for entry, parameters in variant.params.techniques.items():
                techniques.card_of(entry, parameters or {}, counts, labels)
        except UserError as error:
            message = str(error).removeprefix(f"{PROJECT.params}: ")
            raise UserError(f"{params_path(study)}: variants.{name}: {message}") from error


def prepare(project: Project, variant: Variant) -> None:
    """Write the params and the messages of a variant; a variant that changes `ingest` ingests its messages again."""
    with project.params.open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(with_absolute_paths(variant.content), file)
    project.messages.parent.mkdir()
    # Variants share the cached outputs of frozen layers, which depend on the texts and the encoder only.
    PROJECT.states.mkdir(parents=True, exist_ok=True)
    project.states.symlink_to(PROJECT.states.resolve(), target_is_directory=True)
    if variant.params.ingest == read_params().ingest:
        shutil.copy(PROJECT.messages, project.messages)
        shutil.copy(PROJECT.ingest, project.ingest)
    else:
        shutil.copy(PROJECT.feedback, project.feedback)
        ingest.main(project)


def trained_on(name: str, seed: int, project: Project) -> dict[str, float]:
    """Training messages of each class, repeats included, that a technique's sample holds."""
    messages = read_messages([], project)
    rows = read_frame(project.samples / name / f"{seed}.parquet")["row"]
    counts = np.bincount(messages.table.loc[rows, "class"], minlength=len(messages.names))
    return dict(zip(messages.names, counts.tolist(), strict=True))


def train_all(variant: Variant, project: Project) -> None:
    """Train every technique of a variant with every seed; the weights are deleted."""
    encoder.main(project)
    techniques.main(project)
    seeds = variant.params.train.seeds
    for name in variant.params.techniques:
        for seed in seeds:
            resample.main(name, seed, project)
            train.main(name, seed, project)
            shutil.rmtree(project.models)
    counts = {name: trained_on(name, seeds[0], project) for name in variant.params.techniques}
    write_json(project.training, counts)


def main(study: str, variant: str) -> None:
    variants = read_variants(study)
    if variant not in variants:
        raise UserError(f"{params_path(study)}: no variant {variant!r}: {suggestion(variant, variants)}")
    check_variants(study, variants)
    with tempfile.TemporaryDirectory(prefix="ballast-study-") as temporary:
        project = Project(Path(temporary))
        prepare(project, variants[variant])
        train_all(variants[variant], project)
        units = [UNIT] if has_units(project) else []
        messages = read_frame(project.messages, ["id", "label", "group", *units, "split", "fold"])
        with replaced_folder(variant_folder(study, variant)) as folder:
            written = Project(folder)
            shutil.copytree(project.logits, written.logits)
            shutil.copy(project.training, written.training)
            written.messages.parent.mkdir()
            shutil.copy(project.encoder, written.encoder)
            write_table(written.messages, messages)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("study", help="a folder of studies/")
    arguments.add_argument("variant", help="one of its variants")
    run(main, arguments.parse_args())

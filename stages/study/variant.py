"""Train one variant of a study by the stages of the main pipeline, in a folder of its own.

Reads `params.yaml`, the study's `params.yaml` and the main data; writes `studies/<study>/variants/<variant>/`: the scored
messages without their texts, the logits, and what each technique was trained on. All variants are checked before one trains.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from ballast.cli import parser, run
from ballast.exceptions import UserError, suggestion
from stages import ingest, resample, techniques, train
from stages.store.checked import read_frame, write_table
from stages.store.files import read_json, replaced_folder, write_json
from stages.store.messages import read_messages
from stages.store.params import read_params
from stages.store.project import PROJECT
from stages.store.studies import Variant, params_path, read_variants, variant_folder


def check(study: str, variants: Mapping[str, Variant]) -> None:
    """Raise UserError unless every technique of every variant accepts its parameters."""
    ingested = read_json(PROJECT.ingest)
    labels = list(ingested["labels"])
    counts = np.array([ingested["splits"]["train"][label] for label in labels])
    for name, variant in variants.items():
        try:
            techniques.check_names(variant.params, ingested["labels"])
            for entry, parameters in variant.params.techniques.items():
                techniques.card_of(entry, parameters or {}, counts, labels)
        except UserError as error:
            said = str(error).removeprefix(f"{PROJECT.params}: ")
            raise UserError(f"{params_path(study)}: variants.{name}: {said}") from error


def from_here(place: str) -> str:
    """A file or folder of the repository as another folder sees it; anything else as it is."""
    return str(Path(place).resolve()) if Path(place).exists() else place


def prepare(folder: Path, variant: Variant) -> None:
    """Write the params and the messages of a variant; where it changes ingest, the messages are ingested anew."""
    content: dict[str, Any] = {**variant.content}
    content["ingest"] = {**content["ingest"], "path": from_here(content["ingest"]["path"])}
    content["train"] = {**content["train"], "model": from_here(content["train"]["model"])}
    with (folder / PROJECT.params).open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(content, file)
    same = variant.params.ingest == read_params().ingest
    (folder / PROJECT.messages).parent.mkdir()
    for path in (PROJECT.messages, PROJECT.ingest) if same else (PROJECT.feedback,):
        shutil.copy(path, folder / path)
    if not same:
        with contextlib.chdir(folder):
            ingest.main()


def trained_on(name: str, seed: int) -> dict[str, float]:
    """Training messages of each class, repeats included, that a technique's sample holds."""
    messages = read_messages([])
    rows = read_frame(PROJECT.samples / name / f"{seed}.parquet")["row"]
    counts = np.bincount(messages.table.loc[rows, "class"], minlength=len(messages.names))
    return dict(zip(messages.names, counts.tolist(), strict=True))


def train_all(variant: Variant) -> None:
    """Train every technique of a variant with every seed, in the current folder; the weights are not kept."""
    techniques.main()
    seeds = variant.params.train.seeds
    for name in variant.params.techniques:
        for seed in seeds:
            resample.main(name, seed)
            train.main(name, seed)
            shutil.rmtree(PROJECT.models)
    write_json(PROJECT.training, {name: trained_on(name, seeds[0]) for name in variant.params.techniques})


def main(study: str, variant: str) -> None:
    variants = read_variants(study)
    if variant not in variants:
        raise UserError(f"{params_path(study)}: no variant {variant!r}: {suggestion(variant, variants)}")
    check(study, variants)
    chosen = variants[variant]
    with tempfile.TemporaryDirectory(prefix="ballast-study-") as temporary:
        work = Path(temporary)
        prepare(work, chosen)
        with contextlib.chdir(work):
            train_all(chosen)
        messages = read_frame(work / PROJECT.messages, ["id", "label", "group", "split"])
        with replaced_folder(variant_folder(study, variant)) as folder:
            shutil.copytree(work / PROJECT.logits, folder / PROJECT.logits)
            shutil.copy(work / PROJECT.training, folder / PROJECT.training)
            (folder / PROJECT.messages).parent.mkdir()
            write_table(folder / PROJECT.messages, messages[messages["split"] != "train"])


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("study", help="a folder of studies/")
    arguments.add_argument("variant", help="one of its variants")
    run(main, arguments.parse_args())

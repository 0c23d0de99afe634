"""One data set of the benchmark: run the stages of the main pipeline in a separate folder, and read its leaderboard.

The folder, `studies/datasets/variants/<name>/`, stays, so that an interrupted run continues after the last finished entry.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow import parquet
from ruamel.yaml import YAML

from ballast.evaluation.across import tail_classes
from ballast.evaluation.adjustment import adjust
from ballast.evaluation.bootstrap import Draws, percentile_interval
from ballast.evaluation.comparison import compare, compare_metric, reference_of
from ballast.evaluation.levers import decisions_on_test
from ballast.evaluation.metrics import LOSSES
from ballast.evaluation.paired import differences_on_test
from ballast.evaluation.seed_variation import with_seed_variation
from ballast.io.digest import file_sha256
from stages import compare as compare_stage
from stages import encoder, evaluate, ingest, probe, resample, techniques, train
from stages.store.across_data_sets import FAMILIES, METRICS, NAME, PROTOCOL, settings_digest
from stages.store.files import read_json, replaced, write_json
from stages.store.ingested import prior_counts, training_counts
from stages.store.leaderboard import read_leaderboard
from stages.store.logits import protocol_of, read_draws, read_trainings
from stages.store.params import Params, read_params
from stages.store.project import PROJECT, Project
from stages.store.sources import ROOT, sources_of
from stages.store.studies import variant_folder, with_absolute_paths
from stages.store.training_sections import Train
from stages.store.units import read_with_units

TAIL = "tail.macro_f1"
THRESHOLD = "baseline with its threshold"
# What a folder was made with; another key means that everything in it is of other data or code.
KEY = Path("made_with.json")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A finished data set: its result, and rows (entry, training seconds, messages) for the table of seconds."""

    result: dict[str, Any]
    seconds: list[dict[str, Any]]


def code_digest() -> str:
    """A digest of the files that decide the logits."""
    files = sorted(sources_of("train") | sources_of("encoder") | sources_of("ingest") | sources_of("resample"))
    return hashlib.sha256(json.dumps({name: file_sha256(ROOT / name) for name in files}).encode()).hexdigest()


def prepare(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the params of a data set into its folder and ingest its messages, without feedback."""
    states, project = PROJECT.states.resolve(), Project(folder)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    with replaced(project.params) as temporary, temporary.open("w", encoding="utf-8") as file:
        # The order of the entries stays: the baseline also computes the frozen states that the others reuse.
        YAML(pure=True).dump(with_absolute_paths(content), file)
    # Without its rows: feedback belongs to the main data.
    parquet.write_table(parquet.read_schema(PROJECT.feedback).remove_metadata().empty_table(), project.feedback)
    states.mkdir(parents=True, exist_ok=True)
    link = project.states
    if not link.is_symlink():
        link.symlink_to(states, target_is_directory=True)
    ingest.main(project)


def messages_digest(project: Project) -> str:
    """A digest of texts, labels, splits and folds, whatever the source is called."""
    table = pd.read_parquet(project.messages, columns=["text", "label", "split", "fold"])
    return hashlib.sha256(table.to_json(orient="values").encode()).hexdigest()


def start_over_if_changed(params: Params, code: str, project: Project) -> None:
    """Delete the logits of other data, settings or code in a project's folder."""
    key = {"settings": settings_digest(params), "messages": messages_digest(project), "code": code}
    made_with = project.root / KEY
    if not made_with.is_file() or read_json(made_with) != key:
        for path in (project.samples, project.models, project.logits, project.curves, project.durations, project.probes):
            shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(project.evaluations, ignore_errors=True)
        project.encoder.unlink(missing_ok=True)
    write_json(made_with, key)


def train_entry(name: str, params: Params, project: Project) -> None:
    """Train an entry with all seeds, score the probe text, and delete the weights; a finished entry is skipped."""
    done = project.probes / f"{name}.json"
    if done.is_file():
        return
    for seed in params.train.seeds:
        finished = [project.models / name / str(seed), project.logits / name / f"{seed}.npz"]
        if not all(path.exists() for path in (*finished, project.durations / name / f"{seed}.json")):
            resample.main(name, seed, project)
            train.main(name, seed, project)
    write_json(done, probe.probed(name, params, project))
    shutil.rmtree(project.models / name)


def run(name: str, content: Mapping[str, Any], source: str | None) -> Measured:
    """Run all stages for a data set. Raises UserError of the stage that fails."""
    folder = variant_folder(NAME, name)
    folder.mkdir(parents=True, exist_ok=True)
    code = code_digest()
    prepare(folder, content)
    project = Project(folder)
    params = read_params(project.params)
    start_over_if_changed(params, code, project)
    techniques.main(project)
    if not project.encoder.is_file():
        encoder.main(project)
    for entry in params.techniques:
        train_entry(entry, params, project)
    for entry in params.techniques:
        evaluate.main(entry, project)
    compare_stage.main(project)
    made = {"protocol": PROTOCOL, "settings": settings_digest(params), "source": source, "code": code}
    return Measured(result={**made, **result_of(params, project)}, seconds=seconds_of(params, project))


def seconds_of(params: Params, project: Project) -> list[dict[str, Any]]:
    """Mean training seconds of each entry, and how many messages it passes over."""
    rows = []
    for name in params.techniques:
        of_seeds = [read_json(project.durations / name / f"{seed}.json") for seed in params.train.seeds]
        means = {key: float(np.mean([each[key] for each in of_seeds])) for key in ("training_seconds", "message_passes")}
        rows.append({"entry": name, **means})
    return rows


def keys_of(rarest: str) -> dict[str, str]:
    """The metric of the leaderboard behind each metric of the benchmark."""
    own = {"rare_f1": "f1", "rare_recall": "recall", "rare_pr_auc": "pr_auc"}
    keys = {metric: f"{rarest}.{own[metric]}" if metric in own else metric for metric in METRICS}
    return keys | {"tail_macro_f1": TAIL}


def with_tail(draws: Draws, tail: Sequence[str]) -> Draws:
    """The draws with the mean F1 of the tail classes as one more metric."""
    values, seeds = (np.mean([part[f"{label}.f1"] for label in tail], axis=0) for part in (draws.values, draws.seeds))
    return replace(draws, values={**draws.values, TAIL: values}, seeds={**draws.seeds, TAIL: seeds})


def threshold_gains(name: str, means: Mapping[str, Sequence[str]], params: Params, project: Project) -> dict[str, Any]:
    """What the operating point of an entry gains over the most probable class on test, by metric of its decisions.

    means : metric -> the metrics whose mean it is.
    """
    messages = read_with_units([], project)
    trainings = read_trainings(name, params.train.seeds, messages, project)
    protocol = protocol_of(params, messages, prior_counts(read_json(project.ingest)), trainings)
    adjusted, decided = adjust([training.scores for training in trainings.values()], protocol), decisions_on_test(protocol)
    before, after = adjusted.test, map(adjusted.fit.preferences, adjusted.test)
    gains = differences_on_test(list(map(decided, before)), list(map(decided, after)), means, protocol)
    return {metric: gain.entry(params.evaluate.confidence, params.evaluate.margin) for metric, gain in gains.items()}


def short(compared: Mapping[str, Any]) -> dict[str, Any]:
    """What the benchmark shows of a comparison."""
    return {key: compared[key] for key in ("difference", "low", "high", "p_adjusted", "margin", "verdict")}


def entries_of(board: Mapping[str, Any], keys: Mapping[str, str], drawn: Mapping[str, Any], params: Params) -> dict[str, Any]:
    """Values and differences of every entry: those of the leaderboard, and the same for the tail classes.

    drawn : family -> entry -> draws with the tail metric.
    """
    confidence, margin, reference = params.evaluate.confidence, params.evaluate.margin, board["reference"]
    tails = {family: compare(of_family, reference, [TAIL], confidence, LOSSES, margin) for family, of_family in drawn.items()}
    over = over_threshold(board, keys, drawn, params)
    entries = {}
    for name, row in board["techniques"].items():
        values: dict[str, Any] = {family: {} for family in FAMILIES}
        differences: dict[str, Any] = {family: {} for family in FAMILIES}
        for family in FAMILIES:
            draws = drawn[family][name]
            low, high = percentile_interval(draws.values[TAIL], confidence)
            measured = {**row[family], TAIL: {"value": draws.point(TAIL), "low": low, "high": high}}
            values[family] = {metric: measured[key] for metric, key in keys.items() if key in measured}
            if name != reference:
                compared = {**row["comparison"][family]["metrics"], TAIL: tails[family][name]["metrics"][TAIL]}  # type: ignore[index]
                differences[family] = {metric: short(compared[key]) for metric, key in keys.items() if key in compared}
        values["raw"] = {metric: row["raw"][key] for metric, key in keys.items() if key in row["raw"]}
        entries[name] = {
            "technique": row["technique"],
            "values": values,
            "differences": None if name == reference else differences,
            "over_threshold": over.get(name),
        }
    return entries


def over_threshold(
    board: Mapping[str, Any], keys: Mapping[str, str], drawn: Mapping[str, Any], params: Params
) -> dict[str, dict[str, Any]]:
    """Each entry's decisions for the most probable class, compared with the baseline's at its operating point."""
    reference, decided = board["reference"], [metric for metric in keys if metric not in ("rare_pr_auc", "log_loss")]
    rows = {name: draws for name, draws in drawn["corrected"].items() if name != reference}
    rows = {THRESHOLD: drawn["operating_point"][reference], **rows}
    found: dict[str, dict[str, Any]] = {name: {} for name in rows if name != THRESHOLD}
    for metric in decided:
        compared = compare_metric(rows, THRESHOLD, keys[metric], params.evaluate.confidence, True, params.evaluate.margin)
        for name, entry in compared.items():
            found[name][metric] = short(entry)
    return found


def chosen_of(board: Mapping[str, Any], drawn: Mapping[str, Draws], params: Params) -> dict[str, Any]:
    """The selected entry, and how it compares on test with the baseline and with tfidf, at the operating points."""
    name, metric = board["selection"]["technique"], params.select.metric
    against: dict[str, Any] = {}
    for other in dict.fromkeys((board["reference"], "tfidf")):
        if name is not None and other in drawn and other != name:
            compared = compare_metric(drawn, other, metric, params.evaluate.confidence, True, params.evaluate.margin)
            against[other] = short(compared[name])
    return {"technique": name, "metric": metric, "against": against}


def mean_training_counts(ingested: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, int]:
    """Messages of each label that one training learns from, on average over the seeds."""
    mean = np.mean([training_counts(ingested, seed) for seed in seeds], axis=0)
    return {label: round(count) for label, count in zip(ingested["labels"], mean.tolist(), strict=True)}


def counted(counts: Mapping[str, int], rarest: str) -> dict[str, int]:
    """Messages of all classes, and of the rarest one."""
    return {"messages": sum(counts.values()), "rare": counts[rarest]}


def result_of(params: Params, project: Project) -> dict[str, Any]:
    """The result of the data set in a project's folder."""
    board, ingested = read_leaderboard(project.leaderboard), read_json(project.ingest)
    labels, prior = board["labels"], board["production_prior"]
    rarest = min(labels, key=lambda label: prior[label])
    of_train = mean_training_counts(ingested, params.train.seeds)
    tail = [labels[at] for at in tail_classes([of_train[label] for label in labels])]
    raw = {
        family: {name: with_tail(read_draws(name, family, project), tail) for name in params.techniques} for family in FAMILIES
    }
    drawn = {family: with_seed_variation(of_family) for family, of_family in raw.items()}
    keys, reference = keys_of(rarest), reference_of(list(params.techniques))
    confidence, margin = params.evaluate.confidence, params.evaluate.margin
    decided = [metric for metric in METRICS if keys[metric] in raw["operating_point"][reference].values]
    means = {metric: [f"{label}.f1" for label in tail] if keys[metric] == TAIL else [keys[metric]] for metric in decided}
    return {
        "data": messages_digest(project),
        "classes": len(labels),
        "rarest": rarest,
        "tail": tail,
        "share": of_train[rarest] / sum(of_train.values()),
        "prior": prior[rarest],
        "train": counted(of_train, rarest),
        "test": counted(ingested["splits"]["test"], rarest),
        "split": params.ingest.split,
        "crossing": ingested["split"]["crossing"]["rows"],
        "seeds": params.train.seeds,
        "confidence": confidence,
        "margin": margin,
        "reference": reference,
        "encoder": {key: read_json(project.encoder)[key] for key in Train.AUTO},
        "entries": entries_of(board, keys, drawn, params),
        "threshold": threshold_gains(reference, means, params, project),
        "chosen": chosen_of(board, drawn["operating_point"], params),
    }

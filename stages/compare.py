"""Compare all techniques.

Reads the evaluations, probes and training curves; writes `reports/leaderboard.json`, `reports/claims.json`,
`reports/probe.csv`, `reports/perturbations.csv` and the tables that `dvc plots show` draws.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from ballast.cli import parser
from ballast.evaluation.bootstrap import Draws
from ballast.evaluation.claims import PROBE
from ballast.evaluation.comparison import compare, reference_of
from ballast.evaluation.metrics import LOSSES
from ballast.evaluation.priors import correct_prior
from ballast.evaluation.published_claims import claims
from ballast.evaluation.seed_variation import with_seed_variation, with_training_variation
from ballast.io.digest import file_sha256
from stages.store.checked import FILES, read_pinned
from stages.store.claims import claims_of_run, decided_claims
from stages.store.files import read_json, replaced, write_json, write_plain_json
from stages.store.leaderboard import PROTOCOL
from stages.store.logits import read_draws
from stages.store.params import read_params
from stages.store.project import PROJECT, Project
from stages.store.running import run
from stages.store.search_transfer import search_transfer
from stages.store.selection import selection
from stages.store.studies import study_results

FAMILIES = ("raw", "corrected")
# Files that the report reads.
PINNED = (PROJECT.claims, PROJECT.probe_table, PROJECT.perturbation_table, PROJECT.training_loss)
PERTURBATION_COLUMNS = ["technique", "seed", "perturbation", "text", "label", "raw", "corrected", "skipped"]


def with_probe(draws: Draws, probabilities: np.ndarray) -> Draws:
    """The draws with the probabilities (S,) of the rare class for the first probe text, which do not depend on the test set."""
    resamples = len(next(iter(draws.values.values())))
    values = {**draws.values, PROBE: np.full(resamples, probabilities.mean())}
    return replace(draws, values=values, seeds={**draws.seeds, PROBE: probabilities})


def of_labels(draws: Draws, labels: Collection[str], chosen: Collection[str]) -> Draws:
    """The draws without the metrics of the labels that are not among the chosen ones: for many classes, they are gigabytes."""

    def stays(metric: str) -> bool:
        label = metric.rpartition(".")[0]
        return label not in labels or label in chosen

    values, seeds = ({key: part[key] for key in part if stays(key)} for part in (draws.values, draws.seeds))
    sampling = None if draws.sampling is None else {key: draws.sampling[key] for key in draws.sampling if stays(key)}
    return replace(draws, values=values, seeds=seeds, sampling=sampling)


def compared_metrics(labels: list[str]) -> list[str]:
    """The metrics to compare techniques by: overall, and of each class."""
    overall = ["macro_f1", "balanced_accuracy", "accuracy", "mcc", "log_loss", "brier"]
    return overall + [f"{label}.{metric}" for label in labels for metric in ("precision", "recall", "f1", "pr_auc")]


def leaderboard(evaluations: dict[str, Any], probes: dict[str, Any], comparisons: dict[str, Any]) -> dict[str, Any]:
    """The pooled metrics of every technique, how many tokens of a text it reads, and its comparison with the reference."""
    first = next(iter(evaluations.values()))
    techniques = {
        name: {
            **{key: evaluation[key] for key in ("technique", "parameters", "multiply_adds", "post_hoc")},
            "max_length": probes[name]["max_length"],
            "seeds": sorted(map(int, evaluation["seeds"])),
            **{key: evaluation["fitted"][key] for key in ("declared_prior", "fitted_prior", "safe")},
            **evaluation["pooled"],
            "out_of_fold": evaluation["out_of_fold"]["operating_point"],
            "comparison": None if comparisons[name]["raw"] is None else comparisons[name],
        }
        for name, evaluation in evaluations.items()
    }
    return {
        "protocol": PROTOCOL,
        "labels": first["labels"],
        "reference": reference_of(list(evaluations)),
        "production_prior": first["production_prior"],
        "techniques": techniques,
    }


def probabilities(
    name: str, texts: list[str], labels: list[str], logits: dict[str, Any], evaluation: dict[str, Any]
) -> pd.DataFrame:
    """Probabilities of some texts and labels, raw and corrected to the production prior, by seed."""
    effective, target = (
        np.array([prior[label] for label in labels])
        for prior in (evaluation["fitted"]["effective_prior"], evaluation["production_prior"])
    )
    parts = []
    for seed, of_seed in logits.items():
        scores = np.array(of_seed).reshape(-1, len(labels))
        columns = {
            "technique": name,
            "seed": int(seed),
            "text": np.repeat(texts, len(labels)),
            "label": np.tile(labels, len(texts)),
            "raw": softmax(scores, axis=1).ravel().round(6),
            "corrected": softmax(correct_prior(scores, effective, target), axis=1).ravel().round(6),
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts)


def probe_table(name: str, probe: dict[str, Any], evaluation: dict[str, Any]) -> pd.DataFrame:
    """Probabilities of each probe text and label, by seed."""
    return probabilities(name, probe["texts"], probe["labels"], probe["logits"], evaluation)


def perturbation_table(name: str, probe: dict[str, Any], evaluation: dict[str, Any]) -> pd.DataFrame:
    """The same for perturbed probe texts; skipped texts have the reason instead of probabilities."""
    labels, parts = probe["labels"], []
    for perturbation, scores in probe["perturbed"].items():
        scored = [probe["texts"][at] for at in scores["scored"]]
        table = probabilities(name, scored, labels, scores["logits"], evaluation)
        skipped = [(probe["texts"][int(at)], reason) for at, reason in scores["skipped"].items()]
        left_out = pd.DataFrame(skipped, columns=["text", "skipped"]).merge(pd.DataFrame({"label": labels}), how="cross")
        left_out = left_out.merge(pd.DataFrame({"seed": list(map(int, scores["logits"]))}), how="cross").assign(technique=name)
        parts += [table.assign(perturbation=perturbation), left_out.assign(perturbation=perturbation)]
    return pd.concat([pd.DataFrame(), *parts]).reindex(columns=PERTURBATION_COLUMNS)


def first_probe(table: pd.DataFrame, label: str, family: str) -> np.ndarray:
    """The probabilities (S,) of a label for the first probe text of a technique's table, by seed."""
    of_label = table[(table["label"] == label) & (table["text"] == table["text"].iloc[0])]
    return of_label[family].to_numpy()


def precision_recall(evaluations: dict[str, Any]) -> pd.DataFrame:
    """Precision and recall of every technique and label, by decreasing threshold."""
    parts = [
        pd.DataFrame({"technique": name, "label": label, **curve}).rename_axis("order").reset_index()
        for name, evaluation in evaluations.items()
        for label, curve in evaluation["curves"]["precision_recall"].items()
    ]
    return pd.concat(parts)


def training_loss(names: list[str], seeds: list[int], project: Project = PROJECT) -> pd.DataFrame:
    """Loss by step of every training that has steps."""
    parts = [pd.DataFrame({"technique": [], "seed": [], "step": [], "loss": []})]
    for name in names:
        for seed in seeds:
            folder = project.curves / name / str(seed)
            path = folder / "plots" / "metrics" / "loss.tsv"
            if path.is_file():
                pinned = read_json(folder / FILES)["files"][path.relative_to(folder).as_posix()]
                table = pd.read_csv(BytesIO(read_pinned(path, pinned)), sep="\t")
                parts.append(table.assign(technique=name, seed=seed))
    return pd.concat(parts)


def read_evaluation(name: str, project: Project) -> dict[str, Any]:
    """The evaluation of a technique without its grid of priors, which is a third of it if there are many classes."""
    evaluation: dict[str, Any] = read_json(project.evaluations / f"{name}.json")
    del evaluation["prior_grid"]
    return evaluation


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as csv."""
    with replaced(path) as temporary:
        table.to_csv(temporary, index=False)


def main(project: Project = PROJECT) -> None:
    params = read_params(project.params)
    names = list(params.techniques)
    evaluations = {name: read_evaluation(name, project) for name in names}
    labels, prior = (next(iter(evaluations.values()))[key] for key in ("labels", "production_prior"))
    rarest, most_frequent = (choose(labels, key=lambda label: prior[label]) for choose in (min, max))
    probes = {name: read_json(project.probes / f"{name}.json") for name in names}
    tables = {name: probe_table(name, probes[name], evaluations[name]) for name in names}
    compared, probed = {}, {}
    confidence, margin = params.evaluate.confidence, params.evaluate.margin
    for family in FAMILIES:
        draws = {
            name: with_probe(read_draws(name, family, project), first_probe(table, rarest, family))
            for name, table in tables.items()
        }
        varied = with_seed_variation(draws)
        compared[family] = compare(varied, reference_of(names), compared_metrics(labels), confidence, LOSSES, margin)
        # The claims are about two classes.
        probed[family] = {name: of_labels(varied[name], labels, (rarest, most_frequent)) for name in names}
    decided = with_seed_variation({name: read_draws(name, "operating_point", project) for name in names})
    of_decisions = [metric for metric in compared_metrics(labels) if metric in decided[names[0]].values]
    compared["operating_point"] = compare(decided, reference_of(names), of_decisions, confidence, LOSSES, margin)
    del draws, varied, decided
    folds = [of_seed["fold"] for of_seed in evaluations[names[0]]["seeds"].values()]
    of_messages = {name: read_draws(name, "out_of_fold", project) for name in names}
    held_out = with_training_variation(of_messages, folds)
    compared["out_of_fold"] = compare(held_out, reference_of(names), of_decisions, confidence, LOSSES, margin)
    comparisons = {name: {family: by_name.get(name) for family, by_name in compared.items()} for name in names}
    board = leaderboard(evaluations, probes, comparisons)
    board["selection"] = selection(evaluations, of_messages, folds, board["reference"], params.select)
    if params.search.trials:
        board["search"] = search_transfer(read_json(project.search), params.techniques, held_out, confidence, margin)
    tuned = params.search.trials > 0 and "focal" in params.search.spaces
    stated = claims(rarest, most_frequent, names, board["reference"], tuned=tuned)
    of_run = claims_of_run(stated, evaluations, probed["raw"], probed["corrected"], confidence)
    of_studies = [study.claims for study in study_results().values() if study is not None] if project == PROJECT else []
    write_plain_json(project.claims, decided_claims(of_run, of_studies))
    write_csv(pd.concat(tables.values()), project.probe_table)
    write_csv(
        pd.concat([perturbation_table(name, probes[name], evaluations[name]) for name in names]), project.perturbation_table
    )
    write_csv(precision_recall(evaluations), project.precision_recall)
    write_csv(training_loss(names, params.train.seeds, project), project.training_loss)
    # Last, with the digests of the other files that the report reads.
    pinned = {path.as_posix(): file_sha256(project.root / path) for path in PINNED}
    write_json(project.leaderboard, {**board, "files": pinned})


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())

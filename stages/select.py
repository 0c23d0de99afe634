"""Select the technique to deploy.

Reads the leaderboard with its selection, the evaluations, and the counts of the data; writes `selected/`: model.json (which
technique, seed and folder, or seeds and folders of an ensemble), calibration.json, operating_point.json (costs and resulting
metrics) and model_card.md; and `reports/metrics.json`, which `dvc exp show` lists. The weights stay where they are.
"""

from __future__ import annotations

import sys
from typing import Any

from ballast.cli import parser
from ballast.exceptions import ArgumentError
from ballast.io.digest import file_sha256
from stages.pages.model_card.view import model_card
from stages.store.files import read_json, replaced_folder, write_json, write_plain_json
from stages.store.leaderboard import read_leaderboard
from stages.store.params import read_params
from stages.store.project import PROJECT
from stages.store.protocol import missed_limit
from stages.store.running import run
from stages.store.setting_errors import settings_from
from stages.store.short_metrics import selected_metrics


def trainings_to_deploy(name: str, seeds: list[int], deploy: str) -> dict[str, Any]:
    """Which trainings of a technique to deploy: seed and folder, or seeds and folders for an ensemble.

    Prior, calibration and operating point are fitted on out-of-fold scores of single models. They apply to an ensemble
    unchanged, because every message outside test is in the training data of some member.
    """
    folders = [(PROJECT.models / name / str(seed)).as_posix() for seed in seeds]
    if deploy == "ensemble":
        return {"seeds": seeds, "folders": folders}
    # The trainings differ in their fold only, so none is better for a known reason.
    return {"seed": seeds[0], "folder": folders[0]}


@settings_from("select")
def main() -> None:
    params = read_params()
    board = read_leaderboard()
    rule, name = params.select, board["selection"]["technique"]
    if name is None:
        raise ArgumentError(board["selection"]["reason"])
    evaluation = read_json(PROJECT.evaluations / f"{name}.json")
    technique, fitted = board["techniques"][name], evaluation["fitted"]
    priors = {"effective_prior": fitted["effective_prior"], "production_prior": board["production_prior"]}
    pointer = {
        "technique": name,
        **trainings_to_deploy(name, technique["seeds"], rule.deploy),
        "value": technique["out_of_fold"][rule.metric],
        "labels": board["labels"],
        **rule.model_dump(),
        **priors,
    }
    point = {
        **fitted["operating_point"],
        **priors,
        "labels": board["labels"],
        "fitted_on": evaluation["out_of_fold"]["messages"],
        "out_of_fold": technique["out_of_fold"],
        "test": technique["ensemble" if rule.deploy == "ensemble" else "operating_point"],
    }
    with replaced_folder(PROJECT.selected) as folder:
        write_json(folder / "calibration.json", fitted["calibration"])
        write_json(folder / "operating_point.json", point)
        card = model_card(pointer, point, board, read_json(PROJECT.ingest), read_json(PROJECT.validation)["lengths"])
        (folder / PROJECT.model_card.name).write_text(card, encoding="utf-8")
        files = {PROJECT.model_card.as_posix(): file_sha256(folder / PROJECT.model_card.name)}
        write_json(folder / "model.json", {**pointer, "files": files})
    write_plain_json(PROJECT.metrics, selected_metrics(name, evaluation))
    print(f"select: {name}, {rule.metric} {pointer['value']['value']:.3f}", file=sys.stderr)
    if not point["met"]:
        print(f"select: {missed_limit(point)}", file=sys.stderr)


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())

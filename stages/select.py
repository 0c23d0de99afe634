"""Select the technique to deploy.

Reads the leaderboard, the evaluations and the rule in params; writes `selected/`: model.json (which technique, seed and
folder), calibration.json, operating_point.json (costs and resulting metrics) and model_card.md. The weights
stay where they are.
"""

from __future__ import annotations

import sys

from ballast.cli import parser
from ballast.evaluation.metrics import higher_is_better
from ballast.evaluation.selection import metric_of, select
from ballast.io.digest import file_sha256
from stages.pages.model_card.view import model_card
from stages.store.files import read_json, replaced_folder, write_json
from stages.store.params import read_params
from stages.store.project import PROJECT
from stages.store.running import run
from stages.store.setting_errors import settings_from


@settings_from("select")
def main() -> None:
    params = read_params()
    board = read_json(PROJECT.leaderboard)
    rule = params.select
    name = select(
        board["techniques"],
        board["labels"],
        metric=rule.metric,
        tolerance=rule.tolerance,
        constraints=rule.constraints,
        at=rule.at,
        safe_only=rule.safe_only,
    )
    seeds = read_json(PROJECT.evaluations / f"{name}.json")["seeds"]
    technique = board["techniques"][name]
    # The mean over seeds on test chooses the technique. Validation chooses the seed, so that its test metrics stay unbiased.
    on_validation = {seed: evaluation["operating_point"]["validation"] for seed, evaluation in seeds.items()}
    metric = rule.metric if all(rule.metric in metrics for metrics in on_validation.values()) else "macro_f1"
    sign = 1 if higher_is_better(metric) else -1
    seed = max(on_validation, key=lambda name: (sign * on_validation[name][metric], -int(name)))
    fitted = seeds[seed]
    priors = {"effective_prior": fitted["effective_prior"], "production_prior": board["production_prior"]}
    pointer = {
        "technique": name,
        "seed": int(seed),
        "folder": (PROJECT.models / name / seed).as_posix(),
        "value": metric_of(technique, rule.metric, rule.at),
        "labels": board["labels"],
        **rule.model_dump(),
        **priors,
    }
    # The test metrics are those of the leaderboard: the mean over seeds, with its interval.
    point = {**fitted["operating_point"], **priors, "labels": board["labels"], "test": technique["operating_point"]}
    with replaced_folder(PROJECT.selected) as folder:
        write_json(folder / "calibration.json", fitted["calibration"])
        write_json(folder / "operating_point.json", point)
        card = model_card(pointer, point, board, read_json(PROJECT.ingest))
        (folder / PROJECT.model_card.name).write_text(card, encoding="utf-8")
        files = {PROJECT.model_card.as_posix(): file_sha256(folder / PROJECT.model_card.name)}
        write_json(folder / "model.json", {**pointer, "files": files})
    print(f"select: {name}, {rule.metric} {pointer['value']['value']:.3f}", file=sys.stderr)
    if not point["met"]:
        print(
            f"select: no threshold satisfies operating_point.{point['rule']} {point['limit']:g} on validation;"
            " the point of highest precision is used",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())

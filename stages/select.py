"""Select the technique to deploy.

Reads the leaderboard, the evaluations and the rule in params; writes `selected/`: model.json (which technique, seed and
folder), calibration.json and operating_point.json. The weights stay where they are.
"""

from __future__ import annotations

import sys

from ballast.command import parser, run
from ballast.metrics import LOSSES
from ballast.selection import select
from stages.files import EVALUATIONS, LEADERBOARD, MODELS, SELECTED, read_json, replaced_folder, write_json
from stages.params import read_params


def main() -> None:
    params = read_params()
    board = read_json(LEADERBOARD)
    rule = params.select
    name = select(
        board["techniques"], board["labels"], metric=rule.metric, tolerance=rule.tolerance, constraints=rule.constraints
    )
    evaluation = read_json(EVALUATIONS / f"{name}.json")
    sign = -1 if rule.metric in LOSSES else 1
    seed = max(evaluation["seeds"], key=lambda each: (sign * evaluation["seeds"][each]["corrected"][rule.metric], -int(each)))
    fitted = evaluation["seeds"][seed]
    pointer = {
        "technique": name,
        "seed": int(seed),
        "folder": (MODELS / name / seed).as_posix(),
        "metric": rule.metric,
        "value": board["techniques"][name]["corrected"][rule.metric],
        "tolerance": rule.tolerance,
        "constraints": rule.constraints,
        "labels": board["labels"],
        "effective_prior": fitted["effective_prior"],
        "production_prior": board["production_prior"],
    }
    with replaced_folder(SELECTED) as folder:
        write_json(folder / "model.json", pointer)
        write_json(folder / "calibration.json", fitted["calibration"])
        write_json(folder / "operating_point.json", {label: each["threshold"] for label, each in fitted["thresholds"].items()})
    print(f"select: {name}, {rule.metric} {pointer['value']['value']:.3f}", file=sys.stderr)


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())

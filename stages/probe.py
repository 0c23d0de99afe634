"""Score the probe texts with one technique's models.

Reads `models/<name>/` and `probe.texts`; writes `probes/<name>.json`: the texts and each seed's logits.
"""

from __future__ import annotations

import ballast
from ballast.command import parser, run
from stages.files import MODELS, PROBES, write_json
from stages.params import read_params


def main(name: str) -> None:
    params = read_params()
    texts = params.probe.texts
    models = {seed: ballast.load(MODELS / name / str(seed)) for seed in params.train.seeds}
    logits = {str(seed): model.logits(texts).astype(float).round(6).tolist() for seed, model in models.items()}
    write_json(PROBES / f"{name}.json", {"texts": texts, "labels": next(iter(models.values())).labels, "logits": logits})


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("name", help="an entry of techniques in params.yaml")
    run(main, arguments.parse_args())

"""Draw a technique's training sample: which messages, how often and with which weights.

Reads the card and the labels of the messages that the seed trains on; writes `data/samples/<name>/<seed>.parquet`: row (of
data/messages.parquet), weight.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ballast.cli import parser
from ballast.parameters import SEEDS, check_number
from stages.store.cards import read_card
from stages.store.checked import write_table
from stages.store.files import replaced
from stages.store.messages import read_messages
from stages.store.project import PROJECT, Project
from stages.store.running import run


def main(name: str, seed: int, project: Project = PROJECT) -> None:
    check_number("the seed", seed, 0, SEEDS, whole=True)
    messages = read_messages([], project)
    train = messages.train(seed)
    technique = read_card(name, project).build(messages.counts(train), messages.names)
    rows, weights = technique.sample(train["class"].to_numpy(), np.random.default_rng(seed))
    with replaced(project.samples / name / f"{seed}.parquet") as temporary:
        write_table(temporary, pd.DataFrame({"row": train.index.to_numpy()[rows], "weight": weights}))


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("name", help="an entry of techniques in params.yaml")
    arguments.add_argument("seed", type=int, help="one of train.seeds in params.yaml")
    run(main, arguments.parse_args())

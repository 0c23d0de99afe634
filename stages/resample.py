"""Draw the training samples: which messages, how often and with which weights.

Reads the cards and the labels of the messages that each seed trains on; writes `data/samples/<name>/<seed>.parquet`: row (of
data/messages.parquet), weight. One process draws all samples, because its start takes longer than a draw.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ballast.cli import parser
from ballast.exceptions import UserError
from ballast.parameters import SEEDS, check_number
from stages.store.cards import read_card
from stages.store.checked import write_table
from stages.store.files import replaced, replaced_folder
from stages.store.messages import Messages, read_messages
from stages.store.params import read_params
from stages.store.project import PROJECT, Project
from stages.store.running import run


def drawn(name: str, seed: int, messages: Messages, project: Project) -> pd.DataFrame:
    """The sample (row, weight) of a technique and seed."""
    train = messages.train(seed)
    technique = read_card(name, project).build(messages.counts(train), messages.names)
    rows, weights = technique.sample(train["class"].to_numpy(), np.random.default_rng(seed))
    return pd.DataFrame({"row": train.index.to_numpy()[rows], "weight": weights})


def main(name: str | None = None, seed: int | None = None, project: Project = PROJECT) -> None:
    if name is None or seed is None:
        if (name, seed) != (None, None):
            raise UserError("expected both NAME and SEED, or neither for all samples")
        names, messages = sorted(path.stem for path in project.cards.glob("*.json")), read_messages([], project)
        seeds = read_params(project.params).train.seeds
        with replaced_folder(project.samples) as folder:
            for entry in names:
                (folder / entry).mkdir()
                for number in seeds:
                    write_table(folder / entry / f"{number}.parquet", drawn(entry, number, messages, project))
        return
    check_number("the seed", seed, 0, SEEDS, whole=True)
    sample = drawn(name, seed, read_messages([], project), project)
    with replaced(project.samples / name / f"{seed}.parquet") as temporary:
        write_table(temporary, sample)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("name", nargs="?", help="an entry of techniques in params.yaml; by default all, with all seeds")
    arguments.add_argument("seed", nargs="?", type=int, help="one of train.seeds in params.yaml")
    run(main, arguments.parse_args())

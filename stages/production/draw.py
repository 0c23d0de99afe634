"""Draw windows of simulated traffic from labelled messages that the deployed model was neither trained nor calibrated on.

Reads the source that `ingest` names, or another file; writes each window to `production/replay/<window>.parquet` (id and
text) and, in `production/replay/labels/`, the labels that arrive for it later. `production/replay/truth/` has the labels of all
messages, for the messages that the watch asks to label. The windows of an earlier replay are removed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from ballast.cli import parser, run
from ballast.data.label_names import same_label
from ballast.exceptions import UserError
from ballast.io.urls import public_url
from ballast.parameters import SEEDS, check_number
from stages.pages.words import class_name
from stages.production.feedback import read_feedback
from stages.production.scoring import columns_of
from stages.store.checked import read_table, write_table
from stages.store.data_sections import Ingest
from stages.store.files import locked, replaced, replaced_folder
from stages.store.groups import groups_of
from stages.store.params import read_params
from stages.store.project import PROJECT
from stages.store.source import read_source
from stages.store.training_labels import training_labels

PREFIX = "replay-"
MOST_MESSAGES = 1_000_000
# Settings that read the columns of no split.
WITHOUT_SPLIT = {"split": "grouped", **dict.fromkeys(("group_column", "time_column", "split_column", "split_files"))}


def held_out(settings: Ingest) -> pd.DataFrame:
    """Text and label of the source's messages without near duplicates outside the test split, each text once."""
    source = read_source(settings)
    table = source.rows
    labels, _ = training_labels(table["label"], settings.label_map, source.where)
    # An older table has other groups and no column fold, which makes it an error.
    data = read_table(PROJECT.messages, ["group", "label", "split", "fold"])
    seen = data.filter(pa.compute.field("split") != "test")["group"]
    fresh = ~np.isin(groups_of(table["text"]), seen)
    rows = pd.DataFrame({"text": table["text"].to_pandas(), "label": labels.to_pandas()})[fresh]
    known = rows["label"].isin(data["label"].unique().to_pylist())
    return rows[known].drop_duplicates("text").reset_index(drop=True)


def class_counts(size: int, rare: str, share: float, counts: Mapping[str, int]) -> dict[str, int]:
    """Messages of each class in a window with a share of the rare class; the other classes keep their proportions."""
    others = {label: count for label, count in counts.items() if label != rare}
    left = size - round(size * share)
    ends = np.round(np.cumsum([0, *others.values()]) / sum(others.values()) * left).astype(int)
    return {rare: size - left, **dict(zip(others, np.diff(ends).tolist(), strict=True))}


def remove_earlier() -> None:
    """Remove the files of an earlier replay; raises UserError if there is real traffic."""
    real = [path for path in PROJECT.scored.glob("*.parquet") if not path.name.startswith(PREFIX)]
    if real:
        raise UserError(f"{real[0]}: a window of real traffic; a replay writes into the same folders, so run it in a clone")
    for folder in (PROJECT.scored, PROJECT.watch, PROJECT.quarantine, PROJECT.labels, PROJECT.to_label):
        for left in folder.glob(f"{PREFIX}*"):
            left.unlink()
    with locked(PROJECT.labelled), replaced(PROJECT.labelled) as temporary:
        feedback = read_feedback()
        write_table(temporary, feedback[~feedback["window"].str.startswith(PREFIX)])


def check_drawing(schedule: Sequence[float], size: int, labelled: float, seed: int) -> None:
    """Raise UserError for an argument out of range."""
    for share in schedule:
        check_number("SHARE", share, 0, 1)
    check_number("--size", size, 1, MOST_MESSAGES, whole=True)
    check_number("--labelled", labelled, 0, 1)
    check_number("--seed", seed, 0, SEEDS, whole=True)


def main(schedule: Sequence[float], size: int, labelled: float, seed: int, source: str | None) -> None:
    check_drawing(schedule, size, labelled, seed)
    params = read_params()
    own = {} if source is None else {"source": "file", "path": source, "sha256": None, **WITHOUT_SPLIT}
    messages = held_out(params.ingest.model_copy(update=own))
    rng = np.random.default_rng(seed)
    # Each class is drawn in random order, and from the start again when it runs out.
    shuffled = {str(label): rng.permutation(rows.to_numpy()) for label, rows in messages.groupby("label").groups.items()}
    counts = {label: len(rows) for label, rows in shuffled.items()}
    named = params.operating_point.label
    rare = same_label(named, counts) or named if named else min(counts, key=lambda label: counts[label], default="")
    if len(counts) < 2 or rare not in counts:
        left = ", ".join(f"{count:,} {class_name(label)}" for label, count in counts.items()) or "none"
        raise UserError(
            f"{public_url(source or params.ingest.path)}: only {left} are not in training or validation; expected"
            f" messages of {rare or 'the rare class'} and of another class"
        )
    remove_earlier()
    with replaced_folder(PROJECT.replay) as folder:
        for name in ("labels", "truth"):
            (folder / name).mkdir()
        for at, share in enumerate(schedule, start=1):
            window = f"{PREFIX}{at:02d}"
            rows = []
            for label, count in class_counts(size, rare, share, counts).items():
                rows.append(np.resize(shuffled[label], count))
                shuffled[label] = np.roll(shuffled[label], -count)
            drawn = messages.iloc[rng.permutation(np.concatenate(rows))]
            drawn = drawn.assign(id=[f"{window}-{row}" for row in range(1, size + 1)])
            columns = columns_of(params)
            renamed = drawn[["id", "text"]].set_axis([columns.id or "id", columns.text], axis=1)
            write_table(folder / f"{window}.parquet", renamed)
            given = drawn[rng.random(size) < labelled]
            if labelled:
                drawn[["id", "label"]].to_csv(folder / "truth" / f"{window}.csv", index=False)
            if len(given):
                given[["id", "label"]].to_csv(folder / "labels" / f"{window}.csv", index=False)
    of_each = ", ".join(f"{count:,} {class_name(label)}" for label, count in counts.items())
    print(f"replay: {len(schedule)} windows of {size:,} messages, drawn from {of_each}", file=sys.stderr)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("schedule", nargs="+", type=float, metavar="SHARE", help="share of the rare class in a window")
    arguments.add_argument("--size", type=int, default=1000, metavar="N", help="messages of a window")
    arguments.add_argument("--labelled", type=float, default=0.5, metavar="SHARE", help="share of messages with a label")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--source", metavar="FILE", help="labelled messages to draw from, with the columns of ingest")
    run(main, arguments.parse_args())

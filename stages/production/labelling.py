"""The labelling queue of a window: which messages people should label, and why, as csv for people and as rows for the watch.

The rows of the watch hold the probabilities with which the messages were chosen. People only ever hand back ids and labels, so
no edit of the csv file changes an estimate.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from ballast.monitoring.labelling_queue import (
    ANY,
    NEIGHBOUR,
    PREDICTED_COMMON,
    PREDICTED_RARE,
    UNUSUAL,
    Scores,
    Wanted,
    draw_queue,
)
from ballast.monitoring.similarity import largest_similarity
from stages.pages.labelling.view import labelling_page
from stages.production.deployed import Version, indices
from stages.store.checked import read_table
from stages.store.files import locked, read_json, replaced
from stages.store.production_sections import Labelling
from stages.store.project import PROJECT
from stages.store.relabelled import cell

COLUMNS = ["id", "text", "predicted", "probability", "why", "stratum", "inclusion_probability", "label"]
WHY = {
    UNUSUAL: "differs most from the labelled messages",
    NEIGHBOUR: "similar to labelled messages of a rare class",
    ANY: "chosen at random",
}
# Bounds the time for the similarities.
MOST_LABELLED = 2000

Row = dict[str, Any]


def members_of_rare_classes(feedback: pd.DataFrame, labels: Sequence[str]) -> list[str]:
    """Texts of labelled messages of some classes: those of production, the latest first, then those of the training split."""
    texts = feedback.loc[feedback["label"].isin(labels), "text"].tolist()[::-1]
    if len(texts) < MOST_LABELLED and PROJECT.messages.is_file():
        table = read_table(PROJECT.messages, ["text", "label", "split"]).to_pandas()
        texts += table.loc[table["label"].isin(labels) & (table["split"] == "train"), "text"].tolist()
    return texts[:MOST_LABELLED]


def reason(stratum: str, predicted: str, probability: float) -> str:
    """Why a message is in the queue, for the person who labels it.

    >>> reason("common-2", "ham", 0.7), reason("unusual", "ham", 0.7)
    ('a message predicted as ham with probability 0.70', 'differs most from the labelled messages')
    """
    kind = stratum.partition("-")[0]
    if kind in (PREDICTED_COMMON, PREDICTED_RARE):
        return f"a message predicted as {predicted} with probability {probability:.2f}"
    return WHY[kind]


def new_queue(
    window: str,
    table: pd.DataFrame,
    posteriors: np.ndarray,
    version: Version,
    feedback: pd.DataFrame,
    settings: Labelling,
    unusual: np.ndarray,
) -> list[Row]:
    """Draw the queue of a window; the same window and feedback give the same queue.

    posteriors : (n, K) calibrated, on the prior of the window, with the mistakes of the held-out messages.
    unusual : rows of the messages that differ most from the labelled ones.
    """
    if not settings.budget or table.empty:
        return []
    common = int(version.production_prior.argmax())
    rare = [label for at, label in enumerate(version.labels) if at != common]
    similarity = None
    if settings.neighbours and (labelled := members_of_rare_classes(feedback, rare)):
        similarity = largest_similarity(table["text"].tolist(), labelled, 1 - posteriors[:, common])
    scores = Scores(
        posteriors=posteriors,
        predicted=indices(table["label"], version.labels),
        groups=table["group"].to_numpy(),
        common=common,
    )
    wanted = Wanted(budget=settings.budget, random=settings.random, neighbours=settings.neighbours)
    seed = int.from_bytes(hashlib.sha256(window.encode()).digest()[:8])
    queue = draw_queue(scores, wanted, seed, unusual=unusual, similarity=similarity)
    rows = []
    for row, stratum, inclusion, size in zip(queue.rows, queue.strata, queue.inclusion, queue.sizes, strict=True):
        message = table.iloc[row]
        probability = float(message[f"p_{message['label']}"])
        rows.append(
            {
                "id": message["id"],
                "group": int(message["group"]),
                "predicted": message["label"],
                "probability": probability,
                "posteriors": dict(zip(version.labels, map(float, posteriors[row]), strict=True)),
                "why": reason(str(stratum), message["label"], probability),
                "stratum": str(stratum),
                "inclusion_probability": float(inclusion),
                "size": int(size),
            }
        )
    return rows


def drawn_before(window: str, table: pd.DataFrame, version: Version) -> list[Row]:
    """The queue of an earlier watch of the same scores; empty if there is none.

    It stays, because people may have labelled some of it, and their labels would change a new draw.
    """
    path = PROJECT.watch / f"{window}.json"
    earlier = read_json(path) if path.is_file() else {}
    rows: list[Row] = [row for row in earlier.get("to_label", []) if "inclusion_probability" in row]
    scored = dict(zip(table["id"], zip(table["group"], table["label"], strict=True), strict=True))
    same = earlier.get("model") == version.name and earlier.get("n") == len(table)
    return rows if same and all(scored.get(row["id"]) == (row["group"], row["predicted"]) for row in rows) else []


def write_queue(window: str, rows: Sequence[Row], texts: Mapping[str, str], labels: Sequence[str], *, again: bool) -> None:
    """Write the files for people: a sheet with an empty column for labels, and a page to label on.

    again : whether to replace an existing sheet, which people may have filled in.
    """
    sheet, page = (PROJECT.to_label / f"{window}.{ending}" for ending in ("csv", "html"))
    if not rows:
        if again:
            sheet.unlink(missing_ok=True)
            page.unlink(missing_ok=True)
        return
    with replaced(page) as temporary:
        temporary.write_text(labelling_page(window, rows, texts, labels), encoding="utf-8")
    if again or not sheet.is_file():
        write_sheet(sheet, rows, texts)
        print(f"watch: {window}: {len(rows)} messages to label in {page} and {sheet}", file=sys.stderr)


def page_sha256(window: str) -> str | None:
    """The sha256 of the page on which people label a window; None if there is no page."""
    page = PROJECT.to_label / f"{window}.html"
    return file_sha256(page) if page.is_file() else None


def write_sheet(path: Path, rows: Sequence[Row], texts: Mapping[str, str]) -> None:
    """Write the messages to label for a spreadsheet, which shows the texts and runs none of them."""
    filled = [{**row, "text": texts[row["id"]], "label": "", "probability": round(row["probability"], 4)} for row in rows]
    table = pd.DataFrame(filled, columns=COLUMNS)
    for name in ("id", "text", "predicted", "why"):
        table[name] = table[name].map(cell)
    with replaced(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def ids_to_label() -> set[str]:
    """The ids of all messages that a watched window asked to label."""
    # Under the lock under which windows are deleted.
    with locked(PROJECT.watch / "index.html"):
        return {row["id"] for path in PROJECT.watch.glob("*.json") for row in read_json(path)["to_label"]}


def spelled_for_people() -> dict[str, str]:
    """Ids by their spelling in the files for people, of those that a spreadsheet would run or not show.

    Files of the watch that are missing or damaged name no ids; the watch reports them.
    """
    ids: dict[str, str] = {}
    for path in PROJECT.watch.glob("*.json"):
        with suppress(UserError):
            ids |= {cell(row["id"]): row["id"] for row in read_json(path).get("to_label", []) if cell(row["id"]) != row["id"]}
    return ids

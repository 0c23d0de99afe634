"""The page over all watched windows, and the deletion of the oldest windows."""

from __future__ import annotations

import sys
from typing import Any

from ballast.exceptions import UserError
from stages.pages.watch.investigate_view import unusual_ids
from stages.pages.watch.view import timeline_page
from stages.production.feedback import read_feedback
from stages.production.labelled import add_labelled_performance
from stages.production.prune import prune_windows
from stages.production.shadow_comparison import labelled_shadow
from stages.production.watch_results import feedback_metrics
from stages.store.checked import read_table
from stages.store.files import locked, read_json, replaced
from stages.store.params import Params
from stages.store.project import PROJECT

PAGE = PROJECT.watch / "index.html"


def write_timeline(params: Params, window: str) -> list[str]:
    """Write the page over all windows, with the feedback that has arrived since each was watched.

    Deletes the oldest windows first, except the one that was just watched; returns their names.
    """
    feedback = read_feedback()
    with locked(PAGE):
        # Under the lock, so that no process reads a window while it is deleted.
        deleted = prune_windows(params.production.keep.windows, window)
        windows = [read_json(path) for path in sorted(PROJECT.watch.glob("*.json"))]
        for watched in windows:
            of_window = feedback[feedback["window"] == watched["window"]]
            watched["feedback"] = feedback_metrics(of_window, watched["labels"])
            if watched.get("shadow"):
                watched["shadow"]["labelled"] = labelled_shadow(watched, of_window)
        add_labelled_performance(max(windows, key=lambda watched: str(watched["window"])), windows, feedback)
        texts = texts_to_label(windows) if params.report.show_texts else {}
        page = timeline_page(windows, texts, params.production.watch.confidence, params.production.watch.floor)
        with replaced(PAGE) as temporary:
            temporary.write_text(page, encoding="utf-8")
    return deleted


def texts_to_label(windows: list[dict[str, Any]]) -> dict[str, str]:
    """Texts by id of the unusual messages to label in the last window that has any."""
    paths = {watched["window"]: PROJECT.scored / f"{watched['window']}.parquet" for watched in windows}
    asking = [watched for watched in windows if unusual_ids(watched) and paths[watched["window"]].is_file()]
    if not asking:
        return {}
    path, ids = paths[asking[-1]["window"]], unusual_ids(asking[-1])
    try:
        table = read_table(path, ["id", "text"], [("id", "in", ids)])
    except UserError as error:
        # The page over all windows does not need the texts of one.
        print(f"watch: the texts of a window cannot be read: {error}", file=sys.stderr)
        return {}
    return dict(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))

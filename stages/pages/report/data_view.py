"""The data in the report: class distribution, dropped rows, validation, and the test set against the production prior."""

from __future__ import annotations

from typing import Any

from ballast.data.splitting import SPLITS
from stages.pages.lengths import of_data
from stages.pages.report.results import Results
from stages.store.ingested import fixed_split
from stages.store.split_words import split_in_words


def data(results: Results) -> dict[str, Any]:
    """Class distribution, dropped rows and results of the validation."""
    ingest = results.ingest
    labels, splits = ingest["labels"], ingest["splits"]
    messages = {split: total for split in SPLITS if (total := sum(splits[split].values()))}
    total, largest = sum(labels.values()), max(labels.values())
    classes = [
        {
            "label": label,
            "rarest": label == results.rarest,
            "splits": [
                {
                    "name": split,
                    "count": splits[split][label],
                    "share": splits[split][label] / messages[split],
                    "width": round(100 * splits[split][label] / largest, 3),
                }
                for split in messages
            ],
            "count": labels[label],
            "share": labels[label] / total,
            "production": results.board["production_prior"][label],
        }
        for label in sorted(results.labels, key=lambda label: -labels[label])
    ]
    expectations = results.validation["expectations"]
    return {
        "classes": classes,
        "splits": [{"name": split, "count": messages[split]} for split in messages],
        "n_folds": len(ingest["folds"]),
        "test_set": split_in_words(ingest),
        "total": total,
        "largest_share": largest / total,
        "dropped": dict(sorted(ingest["dropped"].items(), key=lambda item: -item[1])),
        "lengths": of_data(results.validation["lengths"]),
        "expectations": sorted(expectations, key=lambda expectation: bool(expectation["success"])),
        "n_failed": sum(not expectation["success"] for expectation in expectations),
    }


def drift(results: Results) -> dict[str, Any]:
    """Exact binomial test of the test set's labels and predictions against the production prior."""
    counts = results.ingest["splits"]["test"]
    rows = []
    for label in results.labels:
        low, high = results.bounds[label]
        rows.append(
            {
                "label": label,
                "share": results.board["production_prior"][label],
                "low": low,
                "high": high,
                "labels": counts[label],
                "labels_fit": low <= counts[label] <= high,
                "predicted": results.n_predicted[label],
                "predictions_fit": low <= results.n_predicted[label] <= high,
            }
        )
    return {
        "rows": rows,
        "messages": sum(counts.values()),
        "false_alarm": results.params.validate_.false_alarm,
        "labels_fit": all(row["labels_fit"] for row in rows),
        "predictions_fit": all(row["predictions_fit"] for row in rows),
        "by_construction": results.params.production.prior == "data" and not fixed_split(results.ingest),
    }

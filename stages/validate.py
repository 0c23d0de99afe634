"""Validate the messages with Great Expectations: schema, nulls, labels, class shares, counts, no leak between splits
and folds. Count the messages that are longer than the encoder reads.

Reads `data/messages.parquet`; writes `data/validation.json` and Data Docs in `data/data_docs/`. A failed expectation
stops the pipeline with a table of what failed.
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import numpy as np
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.metadata_types import FailureSeverity
from great_expectations.expectations.row_conditions import Column

from ballast.cli import parser
from ballast.data.expected_shares import count_bounds
from ballast.data.label_names import clean_label, spelled
from ballast.data.splitting import NO_FOLD, SPLITS, rotation_folds
from ballast.exceptions import UserError
from stages.pages.data_docs.view import index_page, markdown, offline
from stages.pages.lengths import SERIOUS, length_lines
from stages.pages.words import class_name
from stages.store.checked import read_frame
from stages.store.data_sections import FIXED_SPLITS
from stages.store.files import replaced_folder, write_json
from stages.store.params import Params, read_params
from stages.store.project import PROJECT
from stages.store.running import run
from stages.store.token_lengths import read_by_encoder
from stages.store.units import UNIT

# With more classes, the smallest one stands for all.
MOST_CLASSES = 12
WORDS = {"min_value": "at least", "max_value": "at most", "value_set": "one of", "column_set": "exactly"}
LARGER_SPLITS = (
    "larger shares of test and validation in ingest.fractions give larger splits and folds",
    "an official split cannot grow; leave these classes out, or lower validate.minimum_count",
)
COLUMNS = ("id", "text", "label", "group", "split", "fold", "source")


def expected_labels(params: Params, present: list[str]) -> list[str]:
    """The labels that may occur: those of the expected prior, else of the label map, else of the data."""
    if (prior := expected_prior(params, present)) is not None:
        return sorted(prior)
    if params.ingest.label_map is not None:
        return sorted(set(map(clean_label, params.ingest.label_map.values())))
    return present


def expected_prior(params: Params, present: list[str]) -> dict[str, float] | None:
    """The expected share of each label, in the spelling of the labels that are present; None without an expectation."""
    shares = params.validate_.expected_prior
    return None if shares is None else spelled(shares, present, f"{PROJECT.params}: validate.expected_prior")


def message_expectations(messages: pd.DataFrame, params: Params) -> dict[str, Any]:
    """Expectations on the table of messages by their titles."""
    settings, present = params.validate_, sorted(messages["label"].dropna().unique())
    labels, shares = expected_labels(params, present), expected_prior(params, present)
    columns = (*COLUMNS, UNIT) if UNIT in messages else COLUMNS
    made: dict[str, Any] = {"columns are as documented": gxe.ExpectTableColumnsToMatchSet(column_set=list(columns))}
    for column in columns:
        made[f"no {column} is missing"] = gxe.ExpectColumnValuesToNotBeNull(column=column)
    made["each id occurs once"] = gxe.ExpectColumnValuesToBeUnique(column="id")
    made["every label is known"] = gxe.ExpectColumnValuesToBeInSet(column="label", value_set=labels)
    made["every split is known"] = gxe.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS))
    fixed = fixed_validation(messages)
    last = rotation_folds(params.ingest.fractions.model_dump()) - 1
    for split in SPLITS if fixed else ("test",):
        made[f"no {split} message is in a fold"] = gxe.ExpectColumnValuesToBeBetween(
            column="fold", min_value=NO_FOLD, max_value=NO_FOLD, row_condition=Column("split") == split
        )
    if not fixed:
        made["every other message is in a fold"] = gxe.ExpectColumnValuesToBeBetween(
            column="fold", min_value=0, max_value=last, row_condition=Column("split") == "train"
        )
    for split in ("validation", "test") if fixed else ("test",):
        for label in labels if len(labels) <= MOST_CLASSES else ():
            made[f"enough {class_name(label)} in {split}"] = gxe.ExpectTableRowCountToBeBetween(
                min_value=settings.minimum_count, row_condition=(Column("label") == label) & (Column("split") == split)
            )
    if shares is not None:
        prior = np.array([shares[label] for label in labels])
        # An official test set may have other shares on purpose; they are a warning of ingest.
        train_only = params.ingest.split in FIXED_SPLITS
        of_prior = messages[messages["split"] == "train"] if train_only else messages
        bounds = count_bounds(prior, len(of_prior), settings.false_alarm)
        for label, share, low, high in zip(labels, prior, *bounds, strict=True):
            made[f"share of {class_name(label)} is {share:.1%} except for chance"] = gxe.ExpectTableRowCountToBeBetween(
                min_value=int(low),
                max_value=int(high),
                row_condition=(Column("label") == label) & (Column("split") == "train")
                if train_only
                else Column("label") == label,
            )
    return made


def fixed_validation(messages: pd.DataFrame) -> bool:
    """Whether the validation split is fixed, so that no message is in a fold."""
    return bool((messages["split"] == "validation").any())


def group_expectations(split_rule: str) -> dict[str, Any]:
    """Expectations on the table of groups. A leak is only a warning for a random split or a split of the data's own."""
    severity = FailureSeverity.CRITICAL if split_rule in ("grouped", "group_column") else FailureSeverity.WARNING
    return {
        f"no near duplicates in two {parts}": gxe.ExpectColumnValuesToBeBetween(column=parts, max_value=1, severity=severity)
        for parts in ("splits", "folds")
    }


def fold_counts(messages: pd.DataFrame, labels: list[str], n_folds: int) -> pd.DataFrame:
    """Messages of each label in each fold: label, fold, messages."""
    rows = pd.MultiIndex.from_product([labels, range(n_folds)], names=["label", "fold"])
    return messages.value_counts(["label", "fold"]).reindex(rows, fill_value=0).rename("messages").reset_index()


def expectations_of_many(counts: pd.DataFrame, splits: Sequence[str], minimum_count: int) -> dict[str, Any]:
    """Expectations on the messages of many labels in splits or folds: the smallest number of each column, with its label.

    An expectation for each label would take minutes with hundreds of labels.
    """
    rarest = {split: counts["label"].iloc[int(counts[split].argmin())] for split in splits}
    return {
        f"enough of every class in {split}, the fewest of {rarest[split]}": (
            gxe.ExpectColumnMinToBeBetween(column=split, min_value=minimum_count)
        )
        for split in splits
    }


def class_counts(messages: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Messages of each label in each split, and in the smallest fold if there are folds: a row for each label."""
    of_splits = messages.value_counts(["label", "split"]).unstack(fill_value=0).reindex(index=labels, columns=list(SPLITS))
    counts = of_splits.fillna(0).astype(int)
    if (messages["fold"] >= 0).any():
        in_folds = messages[messages["fold"] >= 0].value_counts(["label", "fold"]).unstack(fill_value=0)
        counts["every fold"] = in_folds.reindex(index=labels, fill_value=0).min(axis=1)
    return counts.reset_index(names="label")


def fold_expectations(labels: list[str], minimum_count: int) -> dict[str, Any]:
    """Expectations on the table of folds by their titles: enough messages of each label in the smallest fold."""
    return {
        f"enough {class_name(label)} in every fold": gxe.ExpectColumnMinToBeBetween(
            column="messages", min_value=minimum_count, row_condition=Column("label") == label
        )
        for label in labels
    }


def run_expectations(context: Any, name: str, frame: pd.DataFrame, expectations: dict[str, Any]) -> list[dict[str, Any]]:
    """Run expectations on a table and render Data Docs; returns name, success, severity, observed and expected of each."""
    suite = gx.ExpectationSuite(name=name)
    for title, expectation in expectations.items():
        expectation.notes = markdown(title)
        suite.add_expectation(expectation)
    context.suites.add(suite)
    batch = context.data_sources.get("data").add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    docs = gx.checkpoint.UpdateDataDocsAction(name="data_docs", site_names=["data_docs"])
    checkpoint = context.checkpoints.add(gx.Checkpoint(name=name, validation_definitions=[definition], actions=[docs]))
    [result] = checkpoint.run(batch_parameters={"dataframe": frame}).run_results.values()
    # The results are in any order, so the notes identify them by their escaped titles.
    titles = {markdown(title): title for title in expectations}
    return [outcome(single, titles[single.expectation_config.notes]) for single in result.results]


def listed(value: Any) -> str | int | float:
    """A value as a table shows it."""
    if isinstance(value, np.generic):
        return listed(value.item())
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple | set) else value


def outcome(result: Any, title: str) -> dict[str, Any]:
    """One expectation's result as plain values."""
    config = result.expectation_config
    if result.exception_info and result.exception_info.get("raised_exception"):
        raise RuntimeError(f"expectation {title!r} could not be checked: {result.exception_info['exception_message']}")
    details = result.result
    observed = details.get("observed_value")
    if observed is None:
        observed = f"{details.get('unexpected_count', 0)} of {details.get('element_count', 0)} rows fail"
    limits = {key: config.kwargs[key] for key in WORDS if config.kwargs.get(key) is not None}
    expected = ", ".join(f"{WORDS[key]} {listed(value)}" for key, value in limits.items())
    return {
        "name": title,
        "success": bool(result.success),
        "severity": FailureSeverity(config.severity).value,
        "observed": listed(observed),
        "expected": expected or "no row fails",
    }


def table_of(failed: list[dict[str, Any]]) -> str:
    """The failed expectations as an aligned table."""
    frame = pd.DataFrame(failed)[["severity", "name", "observed", "expected"]]
    return frame.to_string(index=False, justify="left", max_colwidth=80)


def add_site(context: Any, folder: Path) -> None:
    """Have Great Expectations write its pages into a folder."""
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.resolve())}
    site = {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": store,
    }
    context.add_data_docs_site("data_docs", site)


def write_data_docs(folder: Path, results: Mapping[str, list[dict[str, Any]]]) -> None:
    """Make the pages of Great Expectations in a folder self-contained, and add an index."""
    shutil.rmtree(folder / "static")
    for page in folder.rglob("*.html"):
        page.write_text(offline(page.read_text(encoding="utf-8")), encoding="utf-8")
    links = {
        name: {
            "each expectation with its result": next(
                page.relative_to(folder).as_posix() for page in folder.glob(f"validations/{name}/**/*.html")
            ),
            "the suite": f"expectations/{name}.html",
        }
        for name in results
    }
    (folder / "index.html").write_text(index_page(results, links), encoding="utf-8")


def message_lengths(messages: pd.DataFrame, params: Params) -> tuple[dict[str, Any] | None, list[str]]:
    """What the encoder reads of the messages, and lines about it; None if the encoder cannot be loaded.

    The run may go on without it, because techniques such as tfidf need no encoder.
    """
    train = params.train
    try:
        texts, labels = messages["text"].tolist(), messages["label"].to_numpy()
        lengths = read_by_encoder(train.model, train.max_length, texts, labels, SERIOUS, train.long_texts)
    except UserError as error:
        return None, [f"the lengths of the messages are not counted, because {error}"]
    return lengths, length_lines(lengths)


def main() -> None:
    params = read_params()
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    messages = read_frame(PROJECT.messages)
    group = UNIT if UNIT in messages else "group"
    # The test split has no fold.
    folded = messages.assign(fold=messages["fold"].where(messages["fold"] >= 0))
    groups = folded.groupby(group, as_index=False).agg(splits=("split", "nunique"), folds=("fold", "nunique"))
    labels = expected_labels(params, sorted(messages["label"].dropna().unique()))
    folds = fold_counts(messages, labels, rotation_folds(params.ingest.fractions.model_dump()))
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    context.data_sources.add_pandas("data")
    with replaced_folder(PROJECT.data_docs) as folder:
        add_site(context, folder)
        results = {
            "messages": run_expectations(context, "messages", messages, message_expectations(messages, params)),
            "groups": run_expectations(context, "groups", groups, group_expectations(params.ingest.split)),
        }
        if len(labels) > MOST_CLASSES:
            counts = class_counts(messages, labels)
            places = ("validation", "test") if fixed_validation(messages) else ("test", "every fold")
            expectations = expectations_of_many(counts, places, params.validate_.minimum_count)
            results["classes"] = run_expectations(context, "classes", counts, expectations)
        elif not fixed_validation(messages):
            expectations = fold_expectations(labels, params.validate_.minimum_count)
            results["folds"] = run_expectations(context, "folds", folds, expectations)
        write_data_docs(folder, results)
    every = [expectation for of_table in results.values() for expectation in of_table]
    failed = [expectation for expectation in every if not expectation["success"]]
    critical = [expectation for expectation in failed if expectation["severity"] == FailureSeverity.CRITICAL.value]
    lengths, about_lengths = (None, []) if critical else message_lengths(messages, params)
    write_json(PROJECT.validation, {"success": not critical, "expectations": every, "lengths": lengths})
    if failed:
        print(table_of(failed), file=sys.stderr)
    if critical:
        names = "; ".join(f"{each['name']} (observed {each['observed']}, expected {each['expected']})" for each in critical)
        small = any(expectation["name"].startswith("enough ") for expectation in critical)
        hint = f"; {LARGER_SPLITS[params.ingest.split == 'column']}" if small else ""
        raise UserError(
            f"validation: {len(critical)} of {len(every)} expectations failed: {names}{hint}; see"
            f" {PROJECT.data_docs / 'index.html'}"
        )
    for line in (f"{len(every) - len(failed)} of {len(every)} expectations hold", *about_lengths):
        print(f"validate: {line}", file=sys.stderr)


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())

"""Read labelled messages from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from ballast.exceptions import user_error
from ballast.io.urls import public_url
from stages.tables.rows import check_columns


def read_hub(name: str, config: str | None, split: str, revision: str | None, wanted: Mapping[str, str]) -> pa.Table:
    """Read the wanted columns of a hub data set; class indices are replaced by their names."""
    import datasets

    try:
        rows = datasets.load_dataset(name, config, split=split, revision=revision)
    except Exception as error:
        reason = " ".join(str(error).split())
        message = f"hub data set {public_url(name)} cannot be loaded: {type(error).__name__}: {reason[:200]}"
        raise user_error(message, error) from error
    check_columns(public_url(name), rows.column_names, {column: f"ingest.{key}" for key, column in wanted.items()})
    table = rows.with_format("arrow")[:].select(list(wanted.values()))
    label_column = wanted["label_column"]
    feature = rows.features[label_column]
    if isinstance(feature, datasets.ClassLabel):
        at = pc.cast(table[label_column], pa.int64()).combine_chunks()
        # In hub data sets, -1 means no label.
        names = pa.array(feature.names).take(pc.if_else(pc.less(at, 0), None, at))
        table = table.set_column(table.column_names.index(label_column), label_column, names)
    return table

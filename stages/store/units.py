"""The table of messages for statistics over independent units."""

from __future__ import annotations

from pyarrow import parquet

from stages.store.checked import read_frame
from stages.store.messages import Messages, read_messages
from stages.store.project import PROJECT, Project

UNIT = "unit"


def read_with_units(columns: list[str], project: Project = PROJECT) -> Messages:
    """The given columns of a project's messages, and a column `group` of the units that are independent of each other.

    Units unite near duplicates with the messages of one sender or thread, if `ingest.group_column` names them. Otherwise they
    are the groups of near duplicates. Intervals and tests draw whole units.
    """
    messages = read_messages([*columns, "group"], project)
    if not has_units(project):
        return messages
    units = read_frame(project.messages, [UNIT])[UNIT]
    return Messages(table=messages.table.assign(group=units), names=messages.names)


def has_units(project: Project) -> bool:
    """Whether the table of messages has united units."""
    return UNIT in parquet.read_schema(project.messages).names

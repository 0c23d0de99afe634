"""What a reader states about a file beside its dialect: how often something occurs, and where first."""

from __future__ import annotations

from dataclasses import dataclass, field

# MySQL and PostgreSQL write a missing value so.
NULL = "\\N"
MISSING = f"missing values, written as {NULL}"
SPANNING = "records that span several lines"


@dataclass
class Remarks:
    """Counts of what occurs while rows are read.

    counts : by the words that state it. places : where the first one is.
    """

    counts: dict[str, int] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def add(self, words: str, place: str, count: int = 1) -> None:
        """Count something that begins at a place."""
        self.counts[words] = self.counts.get(words, 0) + count
        self.places.setdefault(words, place)

    def of_file(self, remarks: Remarks, source: str) -> None:
        """Add what was counted in a file; `source` is its name."""
        for words, count in remarks.counts.items():
            self.add(words, f"{source}: {remarks.places[words]}", count)

    def in_words(self) -> list[str]:
        r"""A line for each.

        >>> remarks = Remarks()
        >>> remarks.add(SPANNING, "line 12")
        >>> remarks.add(SPANNING, "line 31")
        >>> remarks.in_words()
        ['records that span several lines: 2, the first at line 12']
        """
        return [f"{words}: {count:,}, the first at {self.places[words]}" for words, count in self.counts.items()]

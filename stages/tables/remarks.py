"""What a reader states about a file beside its dialect: how often something occurs, and where first."""

from __future__ import annotations

from dataclasses import dataclass, field

# MySQL and PostgreSQL write a missing value so.
NULL = "\\N"
MISSING = f"missing values, written as {NULL}"
SPANNING, DIVIDED = "records that span several lines", "lines between quotes that are read as rows"
STRAY = "quotes that open a field and do not close it, so that quotes are data"
IF_TEXTS = "quote to the quotes of the file, if they enclose texts"
ADVICE = {SPANNING: "quote: none, if each line is a row", DIVIDED: IF_TEXTS, STRAY: IF_TEXTS}


@dataclass
class Remarks:
    """Counts of what occurs while rows are read.

    setting : the key of params.yaml that overrules the dialect; empty if there is none.
    counts : by the words that state it. places : where the first one is.
    """

    setting: str = ""
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
        r"""A line for each, with the setting that changes it.

        >>> remarks = Remarks("ingest.dialect")
        >>> remarks.add(SPANNING, "line 12")
        >>> remarks.add(SPANNING, "line 31")
        >>> remarks.in_words()
        ['records that span several lines: 2, the first at line 12; set ingest.dialect.quote: none, if each line is a row']
        """
        return [
            f"{words}: {count:,}, the first at {self.places[words]}"
            + (f"; set {self.setting}.{ADVICE[words]}" if self.setting and words in ADVICE else "")
            for words, count in self.counts.items()
        ]

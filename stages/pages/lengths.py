"""How many messages are longer than an encoder reads, and how much of them it does not see, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ballast.data.long_texts import WINDOWS, what_is_read
from ballast.io.printable import counted
from stages.pages.words import capitalize_first, percent

# If more messages of a class are cut off, the cut may remove what the class shows in.
SERIOUS = 0.05


def share_in_words(share: float) -> str:
    """A share in percent; a small one is not shown as zero.

    >>> share_in_words(0.00001), share_in_words(0.02)
    ('less than 0.01%', '2.0%')
    """
    return "less than 0.01%" if 0 < share < 1e-4 else percent(share)


def longer(counts: Mapping[str, Any], of_label: str = "") -> str:
    """How many messages are longer, such as `12 of 653 messages of spam (1.8%)`."""
    n_longer, messages = counts["longer"], counts["messages"]
    share = share_in_words(n_longer / max(1, messages))
    return f"{n_longer:,} of {counted(messages, 'message')}{of_label and f' of {of_label}'} ({share})"


def longer_than_read(lengths: Mapping[str, Any]) -> str:
    """How many messages are longer than the encoder reads, as the beginning of a sentence in lower case."""
    counts, limit = lengths["all"], f"{lengths['limit']:,} tokens"
    if not counts["longer"]:
        return f"no message is longer than {limit}"
    verb = "is" if counts["longer"] == 1 else "are"
    return f"{longer(counts)} {verb} longer than {limit}"


def longer_than_set(lengths: Mapping[str, Any]) -> str:
    """`longer_than_read` with the settings that set the limit."""
    keys = "train.max_length and train.long_texts" if lengths["long_texts"] == WINDOWS else "train.max_length"
    return f"{longer_than_read(lengths)} ({keys})"


def most_affected(lengths: Mapping[str, Any]) -> str:
    """The label with the largest share of longer messages."""
    of_label = lengths["by_class"]
    return max(of_label, key=lambda label: of_label[label]["longer"] / max(1, of_label[label]["messages"]))


def is_serious(counts: Mapping[str, Any]) -> bool:
    """Whether too many messages are longer than the encoder reads."""
    return bool(counts["longer"] > SERIOUS * counts["messages"])


def advice(lengths: Mapping[str, Any]) -> str:
    """What to change, without the full stop."""
    others = "use tfidf, which reads whole texts"
    if lengths["long_texts"] != WINDOWS:
        others = f"set train.long_texts: {WINDOWS}, or {others}"
    if lengths["sufficient"] > lengths["max_length"]:
        largest = lengths["sufficient"] == lengths["positions"]
        return (
            f"set train.max_length: {lengths['sufficient']}{', the largest that the encoder can read,' if largest else ''} for"
            f" more time and memory, or {others}"
        )
    return f"the encoder cannot read more at once; put what matters first, or {others}"


def length_lines(lengths: Mapping[str, Any]) -> list[str]:
    """Lines for the terminal: how much is cut off, and advice if it is much."""
    line = longer_than_set(lengths)
    if lengths["all"]["longer"]:
        line += f"; the encoder does not see the rest, {share_in_words(lengths['all']['share_of_tokens_cut'])} of all text"
    label = most_affected(lengths)
    counts = lengths["by_class"][label]
    if not is_serious(counts):
        return [line]
    cut = share_in_words(counts["share_of_tokens_cut"])
    warning = f"warning: the encoder does not see all of {longer(counts, label)}, and misses {cut} of the text of this class"
    return [line, f"{warning}; {advice(lengths)}"]


def of_data(lengths: Mapping[str, Any] | None) -> str:
    """What encoders read of the messages, for the report."""
    if lengths is None:
        return "The lengths of the messages are not counted, because the encoder could not be loaded."
    sentence = capitalize_first(longer_than_set(lengths))
    if not lengths["all"]["longer"]:
        return f"{sentence}, so encoders read whole messages."
    label = most_affected(lengths)
    counts = lengths["by_class"][label]
    sentences = [
        f"{sentence}.",
        f"Encoders read a part of each: {what_is_read(lengths['max_length'], lengths['long_texts'])} (train.long_texts);"
        f" {share_in_words(lengths['all']['share_of_tokens_cut'])} of all text is not read.",
        f"The class {label} is affected most: {longer(counts)}, {share_in_words(counts['share_of_tokens_cut'])} of its text.",
    ]
    if is_serious(counts):
        sentences.append(f"{capitalize_first(advice(lengths))}.")
    return " ".join(sentences)


def of_model(max_length: int | None, lengths: Mapping[str, Any] | None) -> str:
    """What a model reads of a text, for its card.

    max_length : tokens that it reads; None if it reads texts of any length.
    """
    if max_length is None:
        return "This model reads texts of any length."
    if lengths is None:
        return f"This model reads at most {max_length:,} tokens of a text. The lengths of the messages are not counted."
    sentence = f"This model reads a part of a longer text: {what_is_read(lengths['max_length'], lengths['long_texts'])}."
    cut = f", and {share_in_words(lengths['all']['share_of_tokens_cut'])} of all text is not read"
    return f"{sentence} {capitalize_first(longer_than_read(lengths))}{cut if lengths['all']['longer'] else ''}."

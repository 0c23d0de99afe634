"""Edit params.yaml for a retraining: another class prior, and omitted entries of techniques as comments.

Only the affected places of the text change, because the file is the user's: comments, quotes, order and spacing stay.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode

# The mappings whose keys are entries of techniques.
BY_ENTRY = (("techniques",), ("search", "spaces"), ("nodes", "gpus_of"))


@dataclass(frozen=True)
class Retrained:
    """The text, the entries it omits, and whether some are deleted, because they share a line with others."""

    text: str
    left_out: list[str]
    deleted: bool


@dataclass
class Edits:
    """Changes of a text: spans (start, end, new text), and lines (first, last, column, note above) to comment out."""

    text: str
    spans: list[tuple[int, int, str]] = field(default_factory=list)
    commented: list[tuple[int, int, int, str]] = field(default_factory=list)

    def applied(self) -> str:
        """The text after all changes."""
        text = self.text
        for start, end, new in sorted(self.spans, reverse=True):
            rest = text[end:]
            # A comment at the end of the line keeps its column if possible.
            blanks = len(rest) - len(rest.lstrip(" "))
            if blanks and rest.lstrip(" ").startswith("#"):
                rest = " " * max(1, blanks + (end - start) - len(new)) + rest.lstrip(" ")
            text = text[:start] + new + rest
        lines = text.splitlines(keepends=True)
        for first, last, column, note in sorted(self.commented, reverse=True):
            for at in range(first, last + 1):
                if stripped := lines[at].lstrip(" "):
                    indent = min(column, len(lines[at]) - len(stripped))
                    lines[at] = lines[at] if lines[at].isspace() else f"{lines[at][:indent]}# {lines[at][indent:]}"
            if note:
                ending = "\r\n" if lines[first].endswith("\r\n") else "\n"
                lines.insert(first, f"{' ' * column}# {note}{ending}")
        return "".join(lines)


def retrained(text: str, prior: Mapping[str, float], entries: Collection[str] | None, key: str) -> Retrained:
    """The text of params.yaml with another production prior and only the given entries of techniques; None keeps all."""
    wanted = parsed(text)
    left_out = [] if entries is None else [name for name in wanted["techniques"] if name not in entries]
    change(wanted, prior, left_out)
    try:
        edits, deleted = edited(
            text, prior, left_out, f'Left out by the retraining {key}; to restore an entry, remove its "# "'
        )
        made = edits.applied()
        if parsed(made) == wanted:
            return Retrained(made, left_out, deleted)
    except (YAMLError, LookupError, ValueError, TypeError, AttributeError):
        pass
    # Text with anchors and the like is rewritten, which keeps comments and quotes but not all spacing.
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    content = yaml.load(text)
    change(content, prior, left_out)
    return Retrained(dumped(yaml, content), left_out, bool(left_out))


def parsed(text: str) -> Any:
    """The content of the text."""
    return YAML(typ="safe", pure=True).load(text)


def dumped(yaml: YAML, content: Any) -> str:
    """The content as YAML."""
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()


def change(content: Any, prior: Mapping[str, float], left_out: Collection[str]) -> None:
    """Make the changes in the content of params.yaml."""
    content["production"]["prior"] = dict(prior)
    for *sections, last in BY_ENTRY:
        mapping = content
        for name in (*sections, last):
            mapping = mapping.get(name) or {}
        for name in [name for name in mapping if name in left_out]:
            del mapping[name]
    if not content["search"]["spaces"]:
        content["search"]["trials"] = 0


def edited(text: str, prior: Mapping[str, float], left_out: Collection[str], note: str) -> tuple[Edits, bool]:
    """The same changes as edits of the text, with a note above the lines to comment out, and whether an entry is deleted.

    Raises an error if the text cannot be edited in this way.
    """
    edits, root, deleted = Edits(text), YAML(typ="safe", pure=True).compose(text), False
    _, setting = child(root, "production", "prior")
    leaves = {key.value: value for key, value in setting.value} if isinstance(setting, MappingNode) else {}
    if leaves and set(leaves) == set(prior):
        edits.spans += [span(leaves[label], flow(share)) for label, share in prior.items()]
    else:
        edits.spans.append(span(setting, flow(dict(prior))))
    _, trials = child(root, "search", "trials")
    for path in BY_ENTRY:
        try:
            name, mapping = child(root, *path)
        except KeyError:
            continue
        if not isinstance(mapping, MappingNode):
            continue
        dropped = [key.value in left_out for key, _ in mapping.value]
        if not any(dropped):
            continue
        emptied = all(dropped)
        if emptied and path == ("search", "spaces"):
            edits.spans.append(span(trials, "0"))
        if mapping.flow_style:
            content = parsed(text[mapping.start_mark.index : mapping.end_mark.index])
            edits.spans.append(span(mapping, flow({key: value for key, value in content.items() if key not in left_out})))
            deleted = True
            continue
        if emptied:
            # A key with only comments would be null.
            colon = text.index(":", name.end_mark.index) + 1
            edits.spans.append((colon, colon, " {}"))
        above = f"{note} and the {{}} above" if emptied else note
        above += f"; trials was {trials.value}" if emptied and path == ("search", "spaces") and trials.value != "0" else ""
        comment_out(edits, mapping, dropped, above)
    return edits, deleted


def comment_out(edits: Edits, mapping: MappingNode, dropped: Sequence[bool], note: str) -> None:
    """Comment out the lines of some entries of a block, with a note above each run of lines."""
    keys = [key for key, _ in mapping.value]
    ends = [key.start_mark.index for key in keys[1:]] + [mapping.end_mark.index]
    for at, (key, end) in enumerate(zip(keys, ends, strict=True)):
        if dropped[at]:
            above = "" if at and dropped[at - 1] else note
            last = last_line(edits.text, key.start_mark.index, end)
            edits.commented.append((key.start_mark.line, last, key.start_mark.column, above))


def child(node: Node, *path: str) -> tuple[Node, Node]:
    """The key and value of nested mappings; raises KeyError."""
    key = node
    for name in path:
        key, node = {key.value: (key, value) for key, value in node.value}[name]
    return key, node


def span(node: Node, new: str) -> tuple[int, int, str]:
    """The span of a value and its replacement; raises ValueError for a block, which has no end of its own."""
    if not isinstance(node, ScalarNode) and not (isinstance(node, CollectionNode) and node.flow_style):
        raise ValueError("a block ends where the next key begins")
    return node.start_mark.index, node.end_mark.index, new


def flow(value: Any) -> str:
    """A value as YAML on one line."""
    yaml = YAML()
    yaml.default_flow_style = True
    yaml.width = 1_000_000
    return dumped(yaml, {"value": value}).strip().removeprefix("{value: ").removesuffix("}")


def last_line(text: str, start: int, end: int) -> int:
    """The number of the last line between two positions that is neither blank nor a comment."""
    lines = text[start:end].splitlines()
    full = [at for at, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")]
    return len(text[:start].splitlines(keepends=True)) - (0 if text[:start].endswith("\n") else 1) + full[-1]

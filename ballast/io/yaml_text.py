"""Read untrusted YAML with limits on size, depth and repetition by aliases; keys are text as written."""

from __future__ import annotations

from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, MaxDepthExceededError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from ballast.exceptions import UserError
from ballast.io.printable import one_line
from ballast.parameters import quoted

# Settings have a few pages.
LARGEST_BYTES = 1 << 20
# The parser is recursive, so the depth is limited. Real settings are less deep.
DEEPEST = 30
# Limit of values that aliases repeat. A few lines of nested aliases can expand to billions of values.
MOST_REPEATED = 10_000
LONGEST_REASON = 300


TEXT, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


class LimitedComposer(Composer):
    """Ruamel's composer with a limit on the values that aliases repeat. Raises UserError.

    Keys are text as written: `True`, `01` and `null` may name labels of the data, which are text.
    """

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader)
        self.values = self.repeated = 0
        # Number of values of each anchor; None while it is being read.
        self.sizes: dict[str, int | None] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The next node; see the class."""
        event = self.parser.peek_event()
        line, anchor = event.start_mark.line + 1, event.anchor
        if isinstance(event, AliasEvent):
            size = self.sizes.get(anchor, 0)
            if size is None:
                raise UserError(f"line {line}: *{anchor} is inside &{anchor} itself")
            self.repeated += size
            self.values += size
            if self.repeated > MOST_REPEATED:
                raise UserError(f"line {line}: aliases such as *{anchor} repeat more than {MOST_REPEATED:,} values")
            return super().compose_node(parent, index)
        if anchor in self.sizes:
            raise UserError(f"line {line}: the anchor &{anchor} is defined twice")
        before = self.values
        self.values += 1
        if anchor is not None:
            self.sizes[anchor] = None
        node: Node = super().compose_node(parent, index)
        if anchor is not None:
            self.sizes[anchor] = self.values - before
        # The key of a mapping has no index, its value has one. An anchor may repeat the key as a value, so its type stays.
        is_key = isinstance(parent, MappingNode) and index is None and anchor is None
        if is_key and isinstance(node, ScalarNode) and node.tag != MERGE:
            node.tag = TEXT
        return node


def yaml_value(content: bytes, largest: int = LARGEST_BYTES) -> Any:
    """The value of a YAML document. Raises UserError, with the line if possible."""
    if len(content) > largest:
        raise UserError(f"larger than {largest:,} bytes; expected settings of a few pages")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"not valid YAML: not UTF-8 at line {line}, byte 0x{content[error.start]:02x}; save it as utf-8"
        ) from error
    reader = YAML(typ="safe", pure=True)
    reader.Composer, reader.max_depth = LimitedComposer, DEEPEST
    try:
        return reader.load(text)
    except UserError as error:
        raise UserError(f"not valid YAML: {error}") from error
    except MaxDepthExceededError as error:
        line = error.problem_mark.line + 1
        raise UserError(f"not valid YAML: line {line}: more than {DEEPEST} nested levels of lists and mappings") from error
    # Besides its own errors, ruamel raises those of Python for invalid numbers, dates and keys.
    except Exception as error:
        raise UserError(f"not valid YAML: {one_line(reason(error), LONGEST_REASON)}") from error


def reason(error: Exception) -> str:
    """The message of an error of ruamel or Python, with the line if available."""
    parts = []
    for name in ("context", "problem"):
        mark, words = getattr(error, f"{name}_mark", None), getattr(error, name, None)
        parts += [f"{words} (line {mark.line + 1})" if mark and words else words] if words else []
    return ", ".join(parts) or str(error) or type(error).__name__


def yaml_mapping(content: bytes, largest: int = LARGEST_BYTES) -> dict[Any, Any]:
    """The mapping in a YAML document. Raises UserError for anything else."""
    value = yaml_value(content, largest)
    if not isinstance(value, dict):
        raise UserError(f"the file: expected keys with values, found {quoted(value)}")
    return value

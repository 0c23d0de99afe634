"""Run the Python blocks of the pages in docs/examples and write their output below them: python -m docs.generate.examples."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
# A block of Python and, if it printed something, its output in a block of text.
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n.*?^```\n)?", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    """The pages that have Python blocks."""
    return [page for page in sorted(EXAMPLES.glob("*.md")) if BLOCK.search(page.read_text(encoding="utf-8"))]


def with_output(text: str, name: str) -> str:
    """A page with the output of its Python blocks, which run one after another in one namespace named `name`."""
    namespace: dict[str, object] = {"__name__": name}

    def run(block: re.Match[str]) -> str:
        printed = io.StringIO()
        # The lines of a traceback are then those of the page.
        padding = "\n" * (text.count("\n", 0, block.start("code")))
        with contextlib.redirect_stdout(printed):
            exec(compile(padding + block["code"], f"{name}.md", "exec"), namespace)
        output = f"\n```text\n{printed.getvalue()}```\n" if printed.getvalue() else ""
        return f"```python\n{block['code']}```\n{output}"

    return BLOCK.sub(run, text)


def main() -> None:
    for page in pages():
        page.write_text(with_output(page.read_text(encoding="utf-8"), page.stem), encoding="utf-8")


if __name__ == "__main__":
    main()

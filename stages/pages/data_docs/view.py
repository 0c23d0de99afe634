"""The index of Data Docs, and the pages of Great Expectations without scripts and requests.

The original pages load scripts, styles and pictures from content delivery networks. They also render the names of
expectations, which contain labels of the data, as Markdown.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from stages.pages.html import STYLE, environment, trusted_source

HERE = Path(__file__).parent
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; form-action 'none'"
# Elements that need a script or another host.
DROPPED = {"script", "link", "img", "iframe", "object", "embed", "base", "footer", "button"}
WITHOUT_END = {"link", "img", "embed", "base"}
ELSEWHERE = re.compile(r"url\([^)]*\)")


def markdown(text: str) -> str:
    r"""A text with every special character of Markdown escaped.

    >>> markdown("![x](http://a.example/x.png)")
    '\\!\\[x\\]\\(http\\:\\/\\/a\\.example\\/x\\.png\\)'
    """
    return re.sub(r"([\\`*_{}\[\]()#+.!|~:<>&@/-])", r"\\\1", text)


class Offline(HTMLParser):
    """Copies a page without the elements that need a script or another host."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.parts: list[str] = []
        self.inside = 0

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        if tag in DROPPED:
            self.inside += tag not in WITHOUT_END
        elif not self.inside:
            self.parts.append(f"<{tag}{''.join(map(attribute, attrs))}>")
            if tag == "head":
                style = (HERE / "pages.css").read_text(encoding="utf-8")
                self.parts.append(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><style>{style}</style>')

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        if tag not in DROPPED and not self.inside:
            self.parts.append(f"<{tag}{''.join(map(attribute, attrs))}>")

    def handle_endtag(self, tag: str) -> None:
        if tag in DROPPED:
            self.inside -= tag not in WITHOUT_END
        elif not self.inside:
            self.parts.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self.copy(ELSEWHERE.sub("none", data))

    def handle_entityref(self, name: str) -> None:
        self.copy(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.copy(f"&#{name};")

    def handle_decl(self, decl: str) -> None:
        self.copy(f"<!{decl}>")

    def copy(self, text: str) -> None:
        """Copy a text unless it is inside a dropped element."""
        if not self.inside:
            self.parts.append(text)


def attribute(pair: tuple[str, str | None]) -> str:
    """An attribute as HTML; empty if it runs code, loads a file or links to another host."""
    name, value = pair
    value = value or ""
    fetched = name in ("src", "srcset", "data", "poster", "action", "formaction", "background", "ping")
    leads_away = name == "href" and re.match(r"\s*([a-z][a-z0-9+.-]*:|//)", value, re.IGNORECASE)
    if name.startswith("on") or fetched or leads_away or (name == "style" and ELSEWHERE.search(value)):
        return ""
    return f' {name}="{html.escape(value)}"'


def offline(page: str) -> str:
    """A page of Great Expectations without scripts and requests."""
    parser = Offline()
    parser.feed(page)
    parser.close()
    return "".join(parser.parts)


def index_page(tables: Mapping[str, Sequence[Mapping[str, Any]]], links: Mapping[str, Mapping[str, str]]) -> str:
    """The first page: all expectations of each table, failed ones first, with links (table -> title -> address)."""
    expectations = [expectation for results in tables.values() for expectation in results]
    failed = [expectation for expectation in expectations if not expectation["success"]]
    return (
        environment(HERE)
        .get_template("index.html")
        .render(
            tables={
                name: sorted(results, key=lambda expectation: bool(expectation["success"])) for name, results in tables.items()
            },
            links=links,
            n_failed=len(failed),
            n_critical=sum(expectation["severity"] == "critical" for expectation in failed),
            count=len(expectations),
            policy=POLICY,
            style=trusted_source(STYLE),
        )
    )

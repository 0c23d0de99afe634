"""The built manual in a browser without network; skipped before `make docs`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.browser import Watched
from tests.project import ROOT

BUILT = ROOT / "docs/_build/html"


@pytest.fixture
def built() -> Path:
    """The folder of the built manual; building takes too long for a test, so CI does it before."""
    if not (BUILT / "index.html").is_file():
        pytest.skip("no built manual; run `make docs`")
    return BUILT


def built_pages(built: Path) -> list[Path]:
    """The pages of the manual; the theme leaves a template among its static files."""
    return sorted(path for path in built.rglob("*.html") if "_static" not in path.parts)


# What a browser loads with a page; a link loads nothing until somebody follows it.
LOADED = re.compile(r"<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*?\b(?:src|data)=[\"']?([^\"' >]+)")
STYLES = re.compile(
    r"<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preload|icon|preconnect|dns-prefetch))[^>]*?\bhref=[\"']?([^\"' >]+)"
)
IN_STYLES = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')]+)")


def test_the_built_manual_names_no_file_of_another_host(built: Path) -> None:
    named = [
        (path.relative_to(built).as_posix(), address)
        for path in built_pages(built)
        for pattern in (LOADED, STYLES)
        for address in pattern.findall(path.read_text(encoding="utf-8"))
    ]
    assert len(named) > 100
    assert [(path, address) for path, address in named if re.match(r"(\w+:)?//", address)] == []
    assert [path for path in built.rglob("*.css") if IN_STYLES.search(path.read_text(encoding="utf-8"))] == []


def test_the_pages_of_the_built_manual_ask_nothing_of_other_hosts(built: Path, desktop: Watched) -> None:
    for path in built_pages(built):
        desktop.open(path, settled=path.name in ("index.html", "search.html"))
    assert len(desktop.requests) > 100
    assert [request for request in desktop.requests if not request.startswith(built.as_uri())] == []
    assert desktop.complaints == []


def test_the_pages_of_the_built_manual_fit_a_phone(built: Path, phone: Watched) -> None:
    wide = [f"reference/{name}" for name in ("api", "commands", "files", "params")]
    for path in (built / f"{name}.html" for name in ("index", "architecture", "speed", "tutorial", *wide)):
        page = phone.open(path)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path.name


def test_the_search_of_the_built_manual_works_without_a_server(built: Path, desktop: Watched) -> None:
    page = desktop.open(built / "search.html")
    page.goto(f"{(built / 'search.html').as_uri()}?q=threshold")
    page.wait_for_selector("ul.search li a")
    assert "architecture" in str(page.eval_on_selector_all("ul.search li a", "links => links.map((link) => link.href).join()"))

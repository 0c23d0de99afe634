"""A browser without network for the pages, and what it sees."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Route, sync_playwright

from stages.pages.browsers import installed_browser

DESKTOP, PHONE = (1280, 900), (390, 844)
# Each would set `broken` if any page took it for more than text.
HOSTILE = ("<img src=x onerror=\"broken='image'\">", "</script><script>broken='script'</script>")
HOSTILE_TEXT = "<svg onload=\"broken='text'\"></svg> {{ 7 * 7 }} '\" &amp; </td></table>"
# Contrast (WCAG 2) of every element that holds text with what is behind it, and how the element begins.
CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const colour = (text) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const found = colour(getComputedStyle(node).backgroundColor);
      if (found[3] === 255) return found;
    }
    return [255, 255, 255, 255];
  };
  const luminance = (found) => {
    const [red, green, blue] = found.slice(0, 3).map((value) => value / 255)
      .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const holds = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  return [...document.querySelectorAll("body *")]
    .filter((element) => element.checkVisibility() && !element.closest("svg, .skip, legend, noscript") && holds(element))
    .map((element) => {
      const pair = [luminance(colour(getComputedStyle(element).color)), luminance(behind(element))].sort((a, b) => b - a);
      return [(pair[0] + 0.05) / (pair[1] + 0.05), element.outerHTML.slice(0, 120)];
    });
}
"""


@contextlib.contextmanager
def chromium(*more: str) -> Iterator[Browser]:
    """The installed Chromium or, without one, Playwright's; with more flags if wanted."""
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", *more]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=installed_browser(), args=flags)
        yield launched
        launched.close()


@dataclass
class Watched:
    """A page and all that it did besides showing itself."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, path: Path, settled: bool = False) -> Page:
        """The page once it is loaded or, where that matters, once it has asked for nothing for a while."""
        self.page.goto(path.as_uri(), wait_until="networkidle" if settled else "load")
        return self.page

    def assert_clean(self, path: Path) -> None:
        """The page asked for nothing but itself, nothing complained, nothing of the data acted."""
        assert self.requests == [path.as_uri()]
        assert self.complaints == []
        assert self.page.evaluate("typeof broken") == "undefined"


@contextlib.contextmanager
def watched(browser: Browser, size: tuple[int, int] = DESKTOP, **options: Any) -> Iterator[Watched]:
    """A page whose network is refused; what it asks for and complains about is kept."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, offline=True, **options)
    page = context.new_page()
    watch = Watched(page)

    def handle(route: Route) -> None:
        if route.request.url.startswith("file://"):
            route.continue_()
        else:
            route.abort()

    context.route("**/*", handle)
    page.on("request", lambda request: None if request.url.startswith("data:") else watch.requests.append(request.url))
    page.on("console", lambda message: watch.complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: watch.complaints.append(str(error)))
    page.on("dialog", lambda dialog: (watch.complaints.append(dialog.message), dialog.dismiss()))
    yield watch
    context.close()

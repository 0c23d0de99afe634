"""The browser that shows pages for their screenshots and tests."""

from __future__ import annotations

import shutil

# The first one has no window, and is several times faster.
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome", "chromium-browser")


def installed_browser() -> str | None:
    """The path of an installed browser; None if there is none, for which Playwright has its own."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)

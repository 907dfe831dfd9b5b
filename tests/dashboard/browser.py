"""The browser of these tests: the machine's own Chromium, without a window.

Without one the tests skip on a laptop, with the reason, and fail where `MEMOS_TESTS_REQUIRE_SERVICES` is set.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


def chromium() -> str | None:
    """The path of the browser; None: there is none, and none is required."""
    given = os.environ.get("CHROMIUM_PATH")
    found = given or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if found is None and os.environ.get("MEMOS_TESTS_REQUIRE_SERVICES"):
        raise RuntimeError(
            "no Chromium is installed, and the services are required: apt-get install chromium"
        )
    return found


def expect(found: Any) -> Any:
    """Playwright's assertion about what is shown, which waits for it."""
    from playwright.sync_api import expect as expecting

    return expecting(found)


def settled(page: Any) -> None:
    """Wait until no panel of the shown part loads any more."""
    expect(page.locator("main > section:not([hidden]) [aria-busy=true]")).to_have_count(0)

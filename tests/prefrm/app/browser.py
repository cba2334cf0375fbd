"""Debian's chromium, for tests that look at a page."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
WAIT_MS = 120_000
# What a page asks for.
OWN = ("http://127.0.0.1:", "http://localhost:", "data:", "blob:")
QUIET = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of Playwright; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        yield browser
        browser.close()


@contextmanager
def opened_page(browser: Any, width: int = 1280, *, dark: bool = False) -> Iterator[Any]:
    """A page that asks no other server, and on which no script fails."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
    )
    page, problems = context.new_page(), list[str]()
    page.set_default_timeout(WAIT_MS)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda r: problems.append(r.url) if not r.url.startswith(OWN) else None)
    yield page
    context.close()
    assert problems == []


def faults(page: Any) -> list[str]:
    """The serious faults of accessibility of a page, by axe-core, each with its first element."""
    # While it waits for an answer, gradio fades what is to change.
    page.wait_for_function("!document.querySelector('.pending')")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{fault['id']}: {fault['nodes'][0]['html'][:200]} {fault['nodes'][0]['failureSummary']}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]


def is_as_wide_as_the_screen(page: Any) -> bool:
    """Whether nothing has to be scrolled sideways but what scrolls in itself."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


@contextmanager
def served(*arguments: str) -> Iterator[str]:
    """The URL of `prefrm app ...`, which runs in a process of its own until the block ends."""
    command = [sys.executable, "-m", "prefrm", "app", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("ready: "), f"the server did not start: {line}"
            yield line.removeprefix("ready: ").strip()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)

"""Chromium for the tests of pages: started in one way, its pictures taken in one way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
from playwright.async_api import Browser, Error, Locator, Page, async_playwright

CHROMIUM = Path(os.environ.get("DRIMBOX_CHROMIUM", "/usr/bin/chromium"))
_TRIES = 5


@asynccontextmanager
async def chromium_running(*pins: str) -> AsyncIterator[Browser]:
    """A browser that draws by itself, in French; ``pins`` are keys of servers that it takes for genuine."""
    arguments = [
        "--no-sandbox",
        # SwiftShader draws WebGL and nothing else: as a compositor it hangs now and then when a picture is taken.
        "--disable-gpu",
        "--enable-unsafe-swiftshader",
        "--disable-background-networking",
        # Shared memory is small on many a machine of CI.
        "--disable-dev-shm-usage",
    ]
    if pins:
        arguments.append(f"--ignore-certificate-errors-spki-list={','.join(pins)}")
    async with async_playwright() as playwright:
        others = _chromiums()
        browser = await playwright.chromium.launch(
            executable_path=str(CHROMIUM),
            # Its own fields, those of dates above all, are in the language of the account.
            env={**os.environ, "LANGUAGE": "fr"},
            args=arguments,
        )
        yield browser
        try:
            async with asyncio.timeout(30):
                await browser.close()
        except TimeoutError:
            # One that does not end by itself would keep its driver, and this process, for ever.
            for process in _chromiums() - others:
                with suppress(psutil.Error):
                    process.kill()


def _chromiums() -> set[psutil.Process]:
    """The browsers that this process has started."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "chrom" in process.name():
                found.add(process)
    return found


async def picture(of: Page | Locator, path: Path | None = None, *, full_page: bool = False) -> bytes:
    """What ``of`` shows, as PNG.

    On a busy machine Chromium now and then gives up waiting for its own frame and takes no picture; it says so and is
    asked again. Whatever else goes wrong is raised.
    """
    page = of if isinstance(of, Page) else of.page
    for left in reversed(range(_TRIES)):
        try:
            if isinstance(of, Page):
                return await of.screenshot(path=path, full_page=full_page)
            return await of.screenshot(path=path)
        except Error as error:
            if "Unable to capture screenshot" not in error.message or not left:
                raise
        await page.bring_to_front()
    raise AssertionError("unreachable")

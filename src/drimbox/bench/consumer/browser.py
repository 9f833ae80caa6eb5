"""The radiologist's screen: Chromium on the demonstration, timed from the click."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from drimbox.demo import story
from drimbox.demo.mesh import Mesh

_CHROMIUM = Path(os.environ.get("DRIMBOX_CHROMIUM", "/usr/bin/chromium"))
_PATIENCE = 180.0
_LIT = """canvas => {
  const small = document.createElement("canvas");
  small.width = small.height = 64;
  const context = small.getContext("2d");
  context.drawImage(canvas, 0, 0, 64, 64);
  const levels = new Set();
  for (const [at, value] of context.getImageData(0, 0, 64, 64).data.entries()) if (at % 4 === 0) levels.add(value);
  return levels.size;
}"""
_SEEN = """() => {
  const stage = document.querySelector(".stage");
  const picture = document.querySelector("#apercu img");
  return stage && (!picture || (picture.complete && picture.naturalWidth > 0));
}"""
_IN_STACK = """() => {
  const { viewportGridService, cornerstoneViewportService } = window.services ?? {};
  const [id] = viewportGridService?.getState().viewports.keys() ?? [];
  const viewport = id ? cornerstoneViewportService.getCornerstoneViewport(id) : null;
  return viewport?.getImageIds ? viewport.getImageIds().length : 0;
}"""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds from the click: to the picture of the first image, to that image in OHIF, to the last in its stack."""

    picture: float
    viewer: float
    whole: float


class Screen:
    """One browser of the radiologist; what it fetched once it keeps, as theirs does."""

    def __init__(self, browser: Any, mesh: Mesh) -> None:
        self._browser = browser
        self._mesh = mesh

    async def opened(self, images: int, *, reading: float) -> Times:
        """From the RIS to the list, which is looked at for ``reading`` seconds, then the click on the exam.

        In a tab that is closed afterwards.
        """
        ris = await self._browser.new_page()
        await ris.goto(self._mesh.ris_b)
        async with self._browser.expect_page() as opening:
            await ris.click("text=Images antérieures (DRIM-M)")
        page = await opening.value
        await page.wait_for_load_state()
        await self._admitted(page)
        address = await self._address(page)
        await asyncio.sleep(reading)
        begun = time.monotonic()
        await page.click(f'a[href="{urlsplit(address).path}"]')
        picture = await self._picture(page, begun)
        frame = page.frame_locator("iframe.viewer")
        canvas = frame.locator("canvas.cornerstone-canvas").first
        await canvas.wait_for(timeout=_PATIENCE * 1000)
        while await canvas.evaluate(_LIT) <= 16:
            _in_time(begun)
            await asyncio.sleep(0.02)
        viewer = time.monotonic() - begun
        inner = next(each for each in page.frames if each != page.main_frame)
        while await inner.evaluate(_IN_STACK) < images:
            _in_time(begun)
            await asyncio.sleep(0.1)
        whole = time.monotonic() - begun
        await page.close()
        await ris.close()
        return Times(picture, viewer, whole)

    async def _admitted(self, page: Any) -> None:
        if await page.locator("text=S’identifier avec").count():
            await page.locator("text=S’identifier avec").first.click()
            if await page.locator(f"button[value={story.LOGIN}]").count():
                await page.click(f"button[value={story.LOGIN}]")
        if await page.locator("text=J’en ai pris connaissance").count():
            await page.check("text=J’en ai pris connaissance")
            await page.click("text=Continuer")
        await page.locator('a[href*="/images/"]').first.wait_for(timeout=_PATIENCE * 1000)

    async def _address(self, page: Any) -> str:
        """Of the only exam in the list: no other was published."""
        addresses: list[str] = await page.eval_on_selector_all(
            'a[href*="/images/"]', "links => [...new Set(links.map(link => link.href.split('?')[0]))]"
        )
        if len(addresses) != 1:
            raise story.Untrue(f"{len(addresses)} exams in the list where one was to be")
        return addresses[0]

    async def _picture(self, page: Any, begun: float) -> float:
        """Until the picture is on the screen, or the viewer was quicker and has taken its place."""
        await page.wait_for_url("**/images/*", wait_until="commit")
        await page.wait_for_function(_SEEN, timeout=_PATIENCE * 1000, polling=10)
        return time.monotonic() - begun


def _in_time(begun: float) -> None:
    if time.monotonic() - begun > _PATIENCE:
        raise story.Untrue("nothing on the screen")


@asynccontextmanager
async def screen(mesh: Mesh) -> AsyncIterator[Screen | None]:
    """A browser for the block; None where Chromium, or what drives it, is not installed."""
    try:
        from playwright.async_api import async_playwright
    except ImportError:
        yield None
        return
    if not await asyncio.to_thread(_CHROMIUM.exists):
        yield None
        return
    pins = [_pin(mesh.state / "national" / "pki" / f"{name}.pem") for name in _SERVERS]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=str(_CHROMIUM),
            args=[
                "--no-sandbox",
                # SwiftShader draws WebGL and nothing else.
                "--disable-gpu",
                "--enable-unsafe-swiftshader",
                "--disable-background-networking",
                f"--ignore-certificate-errors-spki-list={','.join(pins)}",
            ],
        )
        context = await browser.new_context(viewport={"width": 1600, "height": 1000}, locale="fr-FR")
        yield Screen(context, mesh)
        await browser.close()


_SERVERS = ("psc-serveur", "ris-serveur", "b-consumer")


def _pin(certificate: Path) -> str:
    """The hash by which Chromium is told to believe a key of the test authority."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    info = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(info).digest()).decode("ascii")

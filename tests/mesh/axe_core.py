"""axe-core, which looks for what WCAG forbids: fetched once by npm, verified, kept in a folder, never committed."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

PACKAGE = "axe-core@4.14.1"
INTEGRITY = "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
# WCAG 2.2, levels A and AA, and what it took over from the versions before.
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def script(folder: Path) -> Path:
    """``axe.min.js`` in ``folder``, put there the first time. Skips plainly where npm cannot fetch it."""
    target = folder / f"{INTEGRITY[7:23].replace('/', '_')}.js"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".axe-", dir=folder) as scratch:
        try:
            subprocess.run(
                ["npm", "pack", PACKAGE, "--pack-destination", scratch],
                cwd=scratch,
                check=True,
                capture_output=True,
                timeout=120,
                env={**os.environ, "npm_config_ignore_scripts": "true", "npm_config_update_notifier": "false"},
            )
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"{PACKAGE} cannot be had from the npm registry: {type(error).__name__}")
        [package] = Path(scratch).glob("*.tgz")
        digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode("ascii")
        assert f"sha512-{digest}" == INTEGRITY, f"{PACKAGE} is not the package that is expected"
        with tarfile.open(package, "r:gz") as archive:
            inside = archive.extractfile("package/axe.min.js")
            assert inside is not None
            part = Path(scratch) / "axe.js"
            part.write_bytes(inside.read())
        part.replace(target)
    return target


async def complaints(page: Page, axe: str) -> list[str]:
    """What axe finds wrong on the page, without what frames of others hold: rule, what it wants, where."""
    # Not by a script element: the pages let none in.
    await page.evaluate(axe)
    found: dict[str, Any] = await page.evaluate(
        "tags => axe.run(document, {runOnly: {type: 'tag', values: tags}, iframes: false})",
        _TAGS,
    )
    return [
        f"{v['id']}: {v['help']} — {node['target']} {node['html'][:160]}"
        for v in found["violations"]
        for node in v["nodes"]
    ]

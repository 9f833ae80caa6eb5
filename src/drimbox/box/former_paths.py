"""Links that were made before this source had its present address are still answered (DB.SO.31).

The host of a request never counts. Its path does: those that the box itself had are remembered, others are a setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from drimbox.box.settings.source import WadoSection
from drimbox.reconciliation.walks import Walks
from drimbox.store.database import Pool


async def with_former_paths(app: ASGIApp, section: WadoSection, pool: Pool) -> ASGIApp:
    """The application, answering under every path that the source ever had."""
    remembered = [urlsplit(base).path for base, _ in await Walks(pool).addresses()]
    return FormerPaths(app, section.base_path, [*section.former_base_paths, *remembered])


class FormerPaths:
    """Hands a request under a former path on, as if it had come under the present one."""

    def __init__(self, app: ASGIApp, present: str, former: Sequence[str]) -> None:
        self._app = app
        self._present = _whole(present)
        # The longest first: one may be the beginning of another.
        self._former = sorted({_whole(path) for path in former} - {self._present, ""}, key=len, reverse=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = self._translated(scope)
        await self._app(scope, receive, send)

    def _translated(self, scope: Scope) -> Scope:
        path: str = scope["path"]
        if self._present and (path == self._present or path.startswith(f"{self._present}/")):
            return scope
        for former in self._former:
            if path == former or path.startswith(f"{former}/"):
                moved = self._present + path[len(former) :]
                return {**scope, "path": moved or "/", "raw_path": (moved or "/").encode()}
        return scope


def _whole(path: str) -> str:
    inner = path.strip("/")
    return f"/{inner}" if inner else ""

"""Files that are the same for everybody: our style and scripts, and the viewer's own files."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from drimbox.consumer.sessions import Gone
from drimbox.consumer.viewer_files import StaticFile
from drimbox.consumer.web.desk import desk_of
from drimbox.consumer.web.policies import WORKER_POLICY

PAGES = Path(__file__).parent.parent / "pages"
_OURS = {
    "style.css": "text/css",
    "ohif.css": "text/css",
    **dict.fromkeys(
        (
            "ahead.js",
            "beside.js",
            "device.js",
            "exams.js",
            "imports.js",
            "ohif.js",
            "ohif-arrival.js",
            "ohif-french.js",
            "ohif-tools.js",
            "ohif-words.js",
            "presence.js",
            "viewer.js",
        ),
        "text/javascript",
    ),
}


def our_files() -> Mapping[str, StaticFile]:
    return {name: StaticFile(PAGES / name, media_type, None, lasting=False) for name, media_type in _OURS.items()}


async def ours(request: Request) -> Response:
    """``/statique/…``"""
    return await _served(request, our_files().get(request.path_params["name"]))


async def viewers(request: Request) -> Response:
    """The viewer asks for its files at the root: that is built into it. Only files that were installed are served."""
    answer = await _served(request, desk_of(request).viewer.files.get(request.path_params["path"]))
    answer.headers["Content-Security-Policy"] = WORKER_POLICY
    return answer


def _kept_for(file: StaticFile) -> str:
    """Names that change with their content last; the rest of the installed viewer changes with an upgrade of the box,
    our own files at any time."""
    if file.lasting:
        return "public, max-age=31536000, immutable"
    return "no-cache" if file.path.is_relative_to(PAGES) else "public, max-age=3600"


async def _served(request: Request, file: StaticFile | None) -> Response:
    if file is None:
        raise Gone
    squeezed = file.compressed is not None and "gzip" in request.headers.get("accept-encoding", "")
    path = file.compressed if squeezed and file.compressed is not None else file.path
    headers = {
        "Cache-Control": _kept_for(file),
        "Vary": "Accept-Encoding",
        **({"Content-Encoding": "gzip"} if squeezed else {}),
    }
    # Read whole and sent at once: far faster than chunks through a thread pool (anchors.md 0, fact 5).
    body = await asyncio.to_thread(path.read_bytes)
    if not file.lasting:
        headers["ETag"] = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
    return Response(body, media_type=file.media_type, headers=headers)

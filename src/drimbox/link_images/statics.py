"""Files that are the same for everybody, and open to everybody: styles, scripts, and the viewer's own files."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from drimbox.consumer.viewer_files import StaticFile, ViewerFiles
from drimbox.consumer.web.policies import WORKER_POLICY
from drimbox.consumer.web.statics import PAGES as VIEWER_PAGES
from drimbox.foundation.errors import Refused

#: Where our own files are found.
STATICS = "/visionneuse"
#: What OHIF's page runs before OHIF, in this order.
SCRIPTS = ("ohif-words.js", "ohif-french.js", "ohif-arrival.js", "ohif-tools.js", "ohif.js", "ohif-visit.js")

_PAGES = Path(__file__).parent / "pages"
_OURS = {
    "visit.css": (_PAGES, "text/css"),
    "visit.js": (_PAGES, "text/javascript"),
    "ohif-visit.js": (_PAGES, "text/javascript"),
    "ohif-visit.css": (_PAGES, "text/css"),
    # The same viewer as the consumer's.
    "style.css": (VIEWER_PAGES, "text/css"),
    "ohif.css": (VIEWER_PAGES, "text/css"),
    **dict.fromkeys(
        ("viewer.js", "ohif.js", "ohif-arrival.js", "ohif-french.js", "ohif-tools.js", "ohif-words.js"),
        (VIEWER_PAGES, "text/javascript"),
    ),
}


def public_routes(viewer: ViewerFiles) -> list[Route]:
    """``/visionneuse/…`` and, last of all, the files that OHIF asks for at the root: that is built into it."""
    ours: Mapping[str, StaticFile] = {
        name: StaticFile(folder / name, media_type, None, lasting=False) for name, (folder, media_type) in _OURS.items()
    }

    async def our_file(request: Request) -> Response:
        return await _served(request, ours.get(request.path_params["name"]))

    async def viewer_file(request: Request) -> Response:
        answer = await _served(request, viewer.files.get(request.path_params["path"]))
        answer.headers["Content-Security-Policy"] = WORKER_POLICY
        return answer

    return [
        Route(f"{STATICS}/{{name}}", our_file, methods=["GET"]),
        Route("/{path:path}", viewer_file, methods=["GET"]),
    ]


async def _served(request: Request, file: StaticFile | None) -> Response:
    if file is None:
        raise Refused("Cette page n'existe pas", code="gone")
    squeezed = file.compressed is not None and "gzip" in request.headers.get("accept-encoding", "")
    path = file.compressed if squeezed and file.compressed is not None else file.path
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable" if file.lasting else "no-cache",
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
        **({"Content-Encoding": "gzip"} if squeezed else {}),
    }
    body = await asyncio.to_thread(path.read_bytes)
    if not file.lasting:
        headers["ETag"] = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
    return Response(body, media_type=file.media_type, headers=headers)

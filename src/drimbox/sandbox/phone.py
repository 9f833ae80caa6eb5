"""The telephone of a patient: what the site's own service would send as an SMS is shown on a page instead."""

from __future__ import annotations

import hashlib
import hmac
from collections import deque
from html import escape

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from drimbox.foundation.errors import Refused
from drimbox.sandbox.forms import read_json

MOST = 50
PATH = "/messages"
_FIELDS = {"text": str, "code": str, "valid_minutes": int, "ins": str, "ins_oid": str, "email": str, "mobile": str}
_PAGE = """<!doctype html>
<html lang="fr"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="3"><title>Téléphone du patient</title></head>
<body><main><h1>Téléphone du patient</h1>{messages}</main></body></html>
"""


def phone_app(secret: bytes = b"") -> Starlette:
    """``POST /messages`` takes what a DRIMbox sends, whole and signed with ``secret`` where there is one; ``GET`` gives
    the messages, the newest first, and ``/`` shows them."""
    received: deque[dict[str, object]] = deque(maxlen=MOST)

    async def take(request: Request) -> Response:
        body = await request.body()
        signed = f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"
        if secret and not hmac.compare_digest(signed, request.headers.get("x-drimbox-signature", "")):
            return Response("signature fausse\n", 403)
        try:
            content = await read_json(request)
        except Refused as error:
            return Response(f"{error.reason}\n", 400)
        wrong = [name for name, kind in _FIELDS.items() if not isinstance(content.get(name), kind)]
        if wrong or set(content) != set(_FIELDS):
            return Response("champs inattendus\n", 400)
        received.appendleft(content)
        return Response(status_code=204)

    async def listed(request: Request) -> Response:
        return JSONResponse(list(received))

    async def shown(request: Request) -> Response:
        texts = "".join(f"<pre>{escape(str(one['text']))}</pre><hr>" for one in received)
        return HTMLResponse(_PAGE.format(messages=texts or "<p>Aucun message.</p>"))

    return Starlette(
        routes=[
            Route(PATH, take, methods=["POST"]),
            Route(PATH, listed, methods=["GET"]),
            Route("/", shown, methods=["GET"]),
        ]
    )

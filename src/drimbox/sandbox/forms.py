"""Reading what a client sends: bounded, strict, each parameter once (RFC 6749 3.1 and 3.2)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from drimbox.foundation.errors import Refused

MAX_BODY = 64 * 1024
MAX_FIELDS = 50


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form body. Raises ``Refused`` (``invalid_request``) for anything else than a small clean form."""
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise Refused("Un formulaire application/x-www-form-urlencoded est attendu", code="invalid_request")
    body = await read_body(request)
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError as error:
        raise Refused("Formulaire mal formé", code="invalid_request") from error
    return once_each(pairs)


def once_each(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The parameters by name. Raises ``Refused`` (``invalid_request``) when one is repeated."""
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise Refused("Un paramètre est répété", code="invalid_request")
        found[name] = value
    return found


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object of a helper call. A page of another site cannot send one without asking first (CORS)."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise Refused("Un objet application/json est attendu", code="invalid_request")
    if "origin" in request.headers:
        raise Refused("Appel depuis une page web refusé", code="invalid_request")
    try:
        content = json.loads(await read_body(request))
    except (ValueError, RecursionError) as error:
        raise Refused("JSON mal formé", code="invalid_request") from error
    if not isinstance(content, dict):
        raise Refused("Un objet JSON est attendu", code="invalid_request")
    return content


async def read_body(request: Request) -> bytes:
    """The whole body, 64 KiB at most."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise Refused("Requête trop volumineuse", code="invalid_request")
    return bytes(body)

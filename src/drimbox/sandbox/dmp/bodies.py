"""Bodies of requests, never longer than is allowed."""

from __future__ import annotations

from starlette.requests import Request


async def bounded_body(request: Request, limit: int) -> bytes | None:
    """The whole body; None when it is over the limit (it is read to its end, so that the answer can be)."""
    received = bytearray()
    too_long = False
    async for chunk in request.stream():
        too_long = too_long or len(received) + len(chunk) > limit
        if not too_long:
            received += chunk
    return None if too_long else bytes(received)

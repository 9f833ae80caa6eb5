"""The event loop of a box: uvloop's, but for what it does to a connection that breaks while it is being made."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")


class Loop(uvloop.Loop):
    """When TLS fails on a socket that the caller connected (as the HTTP client does), uvloop closes its descriptor and
    leaves the socket object, which closes it once more when it is thrown away: by then the number may be that of
    another connection, of the database or of another peer, which dies of it, or libuv aborts the process.
    """

    async def create_connection(
        self,
        protocol_factory: Callable[[], Any],
        host: str | None = None,
        port: int | None = None,
        *,
        sock: socket.socket | None = None,
        **options: Any,
    ) -> Any:
        make: Any = super().create_connection
        try:
            return await make(protocol_factory, host, port, sock=sock, **options)
        except BaseException:
            if sock is not None:
                # The descriptor is the loop's, who closes it.
                sock.detach()
            raise


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` to its end on a new loop."""
    return uvloop.run(main, loop_factory=Loop)

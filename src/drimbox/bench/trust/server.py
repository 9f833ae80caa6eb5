"""A listener as the ``db`` host has it: ``python -m drimbox.bench.trust.server FILE``, a JSON file of ``Place``.

It prints its port, then obeys lines on its standard input: ``lists`` takes in the revocation lists anew,
``certificate`` presents the other pair of the file; each is answered with ``done``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.types import Receive, Scope, Send

from drimbox.foundation import event_loop
from drimbox.foundation.http_server import serving
from drimbox.trust.keystore import load_credential
from drimbox.trust.reload import reloadable
from drimbox.trust.tls import server_context
from drimbox.trust.watch import TrustWatch


@dataclass(frozen=True, slots=True)
class Place:
    """Files: two pairs of the server, the pinned authorities, their lists (none: revocation is not checked)."""

    pairs: list[list[str]]
    roots: str
    lists: list[str]


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def _serve(place: Place) -> int:
    trust = TrustWatch([Path(place.roots)], [Path(one) for one in place.lists])
    shown = 0

    def context() -> Any:
        certificate, key = place.pairs[shown]
        return trust.enrol(server_context(load_credential(Path(certificate), Path(key)), trust.trust))

    presented = reloadable()
    presented.present(context())
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with serving(_answer, host="127.0.0.1", port=0, tls=presented) as port:
        print(port, flush=True)
        while line := (await reader.readline()).decode().strip():
            if line == "lists":
                await asyncio.to_thread(trust.refresh)
            elif line == "certificate":
                shown = 1 - shown
                presented.present(await asyncio.to_thread(context))
            print("done", flush=True)
    return 0


if __name__ == "__main__":
    event_loop.run(_serve(Place(**json.loads(Path(sys.argv[1]).read_text("utf-8")))))

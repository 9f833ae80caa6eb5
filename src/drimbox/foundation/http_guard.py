"""What stands around a web application for people: headers on every answer, a ceiling on how often one may knock."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from drimbox.foundation.clock import Clock

_ALWAYS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}


class Guard:
    """Wraps an application.

    ``doors`` are the paths open to strangers, ``per_minute`` how often one address may use them. ``complete`` adds the
    headers in which an application differs, after its own and before the common ones: none replaces one that is there.
    ``correlated`` is entered around each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        clock: Clock,
        public_url: str,
        doors: frozenset[str],
        per_minute: int,
        complete: Callable[[MutableHeaders], None],
        correlated: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._app = app
        self._doors = doors
        self._knocks = Knocks(clock, per_minute)
        self._lasting_tls = not _is_local(urlsplit(public_url).hostname or "")
        self._complete = complete
        self._correlated = correlated

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                self._complete(headers)
                for name, value in _ALWAYS.items():
                    headers.setdefault(name, value)
                if self._lasting_tls:
                    headers.setdefault("Strict-Transport-Security", "max-age=31536000")
            await send(message)

        if scope["path"] in self._doors and not self._knocks.allow(_client(scope)):
            refusal = PlainTextResponse("Trop de demandes : réessayez dans une minute.\n", 429, {"Retry-After": "60"})
            await refusal(scope, receive, guarded)
            return
        with self._correlated():
            await self._app(scope, receive, guarded)


class Knocks:
    """A token bucket per caller, for a bounded number of callers."""

    _CALLERS = 10_000

    def __init__(self, clock: Clock, per_minute: int) -> None:
        self._clock = clock
        self._per_minute = float(per_minute)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allow(self, caller: str) -> bool:
        """Take one token of the caller's; False when there is none left."""
        now = self._clock.monotonic()
        left, since = self._buckets.pop(caller, (self._per_minute, now))
        left = min(self._per_minute, left + (now - since) * self._per_minute / 60)
        self._buckets[caller] = (left - 1 if left >= 1 else left, now)
        while len(self._buckets) > self._CALLERS:
            self._buckets.popitem(last=False)
        return left >= 1


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _is_local(host: str) -> bool:
    """HSTS on a loopback name would bind every other service of the machine, for a year."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")

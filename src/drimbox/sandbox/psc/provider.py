"""What the endpoints share: addresses, registrations, state, and the form of their errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused
from drimbox.sandbox.psc.clients import Client
from drimbox.sandbox.psc.faults import Faults
from drimbox.sandbox.psc.ledger import Ledger
from drimbox.sandbox.psc.people import User
from drimbox.sandbox.psc.tokens import Mint

REALM = "/auth/realms/esante-wallet"
PROTOCOL = f"{REALM}/protocol/openid-connect"
SCOPE = ("openid", "scope_all")

#: Tells a client's back-channel logout address of an ended session: address, logout token. It never raises.
LogoutNotifier = Callable[[str, str], Awaitable[None]]
Handler = Callable[["Provider", Request], Awaitable[Response]]

NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


@dataclass(frozen=True, slots=True)
class Provider:
    """One Pro Sante Connect. ``base_url`` is where services reach it, ``wallet_url`` where browsers do."""

    base_url: str
    wallet_url: str
    clients: Mapping[str, Client]
    users: Mapping[str, User]
    clock: Clock
    ledger: Ledger
    mint: Mint
    faults: Faults
    notify: LogoutNotifier | None
    poll_seconds: int = 5

    @property
    def issuer(self) -> str:
        """The issuer identifier."""
        return f"{self.base_url}{REALM}"

    def endpoint(self, name: str) -> str:
        """The address of a protocol endpoint."""
        return f"{self.base_url}{PROTOCOL}/{name}"


def served(provider: Provider, name: str, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """The handler as an endpoint that can be down or slow."""
    return partial(_served, provider, name, handler)


async def _served(provider: Provider, name: str, handler: Handler, request: Request) -> Response:
    fault = provider.faults.of(name)
    if fault == "down":
        return Response(status_code=HTTPStatus.SERVICE_UNAVAILABLE, headers=NO_STORE)
    if fault == "slow":
        await asyncio.sleep(provider.faults.seconds)
    return await handler(provider, request)


async def oauth_error(request: Request, error: Exception) -> Response:
    """A refusal in the form of RFC 6749 5.2 (RFC 6750 3 for bearers)."""
    if not isinstance(error, Refused):
        raise error
    headers = dict(NO_STORE)
    status = HTTPStatus.BAD_REQUEST
    if error.code == "invalid_client":
        status = HTTPStatus.UNAUTHORIZED
        if "authorization" in request.headers:
            headers["WWW-Authenticate"] = 'Basic realm="psc"'
    elif error.code == "invalid_token":
        status = HTTPStatus.UNAUTHORIZED
        headers["WWW-Authenticate"] = 'Bearer realm="psc", error="invalid_token"'
    elif error.code == "temporarily_unavailable":
        status = HTTPStatus.SERVICE_UNAVAILABLE
    return JSONResponse({"error": error.code, "error_description": error.reason}, status_code=status, headers=headers)

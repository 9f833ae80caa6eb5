"""The provider as one ASGI application."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Route

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused
from drimbox.sandbox.psc import authorize, devices, discovery, endpoints, helpers, logout, pages
from drimbox.sandbox.psc.clients import Client
from drimbox.sandbox.psc.faults import Faults
from drimbox.sandbox.psc.ledger import Ledger
from drimbox.sandbox.psc.people import User
from drimbox.sandbox.psc.provider import PROTOCOL, REALM, Handler, LogoutNotifier, Provider, oauth_error, served
from drimbox.sandbox.psc.tokens import Mint


def psc_app(
    base_url: str,
    clients: Sequence[Client],
    users: Sequence[User],
    *,
    clock: Clock,
    state: Path | None = None,
    wallet_url: str | None = None,
    notify: LogoutNotifier | None = None,
    controls: bool = False,
    poll_seconds: int = 5,
) -> Starlette:
    """A Pro Sante Connect at ``base_url`` (``https://host:port``, no path).

    The application keeps its ``Provider`` in ``app.state.provider``, for what stands behind the same logins.
    ``base_url`` is for services: its listener asks for a client certificate without demanding one. ``wallet_url`` is
    where browsers are sent; it may be another listener of the same application, which asks for none. ``state`` keeps
    the signing key over a restart. ``poll_seconds`` is how often a service may ask whether a professional has answered
    on their device. ``controls`` opens ``/sandbox/...`` (``helpers``).
    """
    provider = Provider(
        base_url=base_url,
        wallet_url=wallet_url or base_url,
        clients={client.client_id: client for client in clients},
        users={user.login: user for user in users},
        clock=clock,
        ledger=Ledger(clock),
        mint=Mint(f"{base_url}{REALM}", clock, state),
        faults=Faults(),
        notify=notify,
        poll_seconds=poll_seconds,
    )

    def route(path: str, name: str, handler: Handler, *methods: str) -> Route:
        return Route(path, served(provider, name, handler), methods=list(methods))

    routes = [
        route(f"{REALM}/.well-known/wallet-openid-configuration", "discovery", discovery.discovery, "GET"),
        route(f"{PROTOCOL}/certs", "certs", discovery.certs, "GET"),
        route("/auth", "authorization", authorize.authorize, "GET"),
        route(authorize.LOGIN_PATH, "authorization", authorize.log_in, "POST"),
        route(f"{PROTOCOL}/token", "token", endpoints.token, "POST"),
        route(f"{PROTOCOL}/ext/ciba/auth", "ciba", devices.ask, "POST"),
        route(devices.PAGE, "authorization", devices.page, "GET"),
        route(devices.PAGE, "authorization", devices.answer, "POST"),
        route(f"{PROTOCOL}/userinfo", "userinfo", endpoints.user_information, "GET", "POST"),
        route(f"{PROTOCOL}/token/introspect", "introspect", endpoints.introspect, "POST"),
        route(f"{PROTOCOL}/revoke", "revoke", endpoints.revoke, "POST"),
        route(f"{PROTOCOL}/logout", "logout", logout.logout, "GET", "POST"),
        Route(pages.STYLE_PATH, pages.style, methods=["GET"]),
    ]
    if controls:
        routes += [
            Route("/sandbox/users", partial(helpers.users, provider), methods=["GET"]),
            Route("/sandbox/token", partial(helpers.give_token, provider), methods=["POST"]),
            Route("/sandbox/devices", partial(helpers.devices, provider), methods=["GET", "POST"]),
            Route("/sandbox/faults", partial(helpers.control_faults, provider), methods=["GET", "POST", "DELETE"]),
        ]
    app = Starlette(routes=routes, exception_handlers={Refused: oauth_error})
    app.state.provider = provider
    return app

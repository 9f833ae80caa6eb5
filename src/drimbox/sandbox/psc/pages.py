"""The pages that a browser sees: login, refusal, goodbye. No script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from drimbox.sandbox.psc.clients import Client
from drimbox.sandbox.psc.ledger import DeviceRequest
from drimbox.sandbox.psc.people import User
from drimbox.sandbox.psc.provider import NO_STORE

STYLE_PATH = "/auth/style.css"
_FOLDER = Path(__file__).parent / "templates"


def login(client: Client, users: Sequence[User], csrf_token: str, return_origin: str) -> Response:
    """The choice of a test e-CPS. ``return_origin``: where the form's answer leads (browsers hold it to the policy)."""
    return _page(
        "login.html",
        {"client": client, "users": users, "csrf_token": csrf_token},
        form_action=f"'self' {return_origin}",
    )


def device(ringing: Sequence[DeviceRequest], clients: Mapping[str, Client], path: str) -> Response:
    """A telephone with the e-CPS of every test user: what rings on it."""
    asked = [(each, clients[each.client_id]) for each in ringing if each.client_id in clients]
    page = _page("device.html", {"asked": asked, "path": path}, form_action="'self'")
    page.headers["Refresh"] = "2"
    return page


def problem(title: str, reason: str) -> Response:
    """A refusal that cannot be sent back to the service."""
    return _page("problem.html", {"title": title, "reason": reason}, status=400)


def goodbye(frames: Sequence[str], destination: str | None) -> Response:
    """The end of a session: the services to tell, each in an unseen frame, then on to ``destination``."""
    origins = " ".join(sorted({f"{urlsplit(frame).scheme}://{urlsplit(frame).netloc}" for frame in frames}))
    page = _page("goodbye.html", {"frames": frames, "destination": destination}, frame_src=origins or "'none'")
    if destination is not None:
        page.headers["Refresh"] = f"2;url={destination}"
    return page


async def style(_request: Request) -> Response:
    """The style sheet of all pages."""
    return Response(
        (_FOLDER / "style.css").read_bytes(), media_type="text/css", headers={"Cache-Control": "max-age=300"}
    )


def _page(
    template: str, values: dict[str, Any], *, status: int = 200, form_action: str = "'none'", frame_src: str = "'none'"
) -> Response:
    environment = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined)
    policy = (
        f"default-src 'none'; style-src 'self'; form-action {form_action}; frame-src {frame_src}; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    return HTMLResponse(
        environment.get_template(template).render(values, style_path=STYLE_PATH),
        status_code=status,
        headers={
            **NO_STORE,
            "Content-Security-Policy": policy,
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
        },
    )

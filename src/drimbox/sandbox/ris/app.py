"""The RIS's own screen: one page that sends reports, and opens the contextual call of the consumer DRIMbox."""

from __future__ import annotations

import datetime as dt
import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, select_autoescape
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from drimbox.sandbox.ris import letters, wire
from drimbox.sandbox.ris.exams import Exam, exam
from drimbox.sandbox.ris.orders import OrderLetter, omi

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action *; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# What the buttons send: a report, or an order message with its ORC-1.
_SENT = {"": "Compte rendu", "changed": "Changement", "deleted": "Retrait"}
_CONTROLS = {"changed": "XO", "deleted": "CA"}


@dataclass(frozen=True, slots=True)
class Mllp:
    """Where reports are sent."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None


def call_parameters(identity: letters.Identity, *, consent: str = "yes") -> dict[str, str]:
    """The parameters of the contextual call for a patient (demonstrator.md 9, newest names)."""
    birth = identity.birth_date
    return {
        "Patient.identifier.value": identity.ins,
        "Patient.identifier.system": identity.ins_oid,
        "Patient.name.family": identity.family,
        "Patient.name.given": identity.given,
        "Patient.gender": identity.sex,
        "Patient.birthDate": f"{birth[:4]}-{birth[4:6]}-{birth[6:]}",
        "Address.district": identity.birth_place,
        "InformationEtConsentement": consent,
        "PatientID": identity.ipp,
        "PatientIDIssuer": f"AUT-AFFECTATION&{identity.ipp_issuer}&ISO",
    }


def ris_app(
    name: str,
    *,
    mllp: Mllp | None = None,
    call_url: str = "",
    identity: letters.Identity | None = None,
    link: Callable[[Exam], str] = lambda _exam: "",
) -> Starlette:
    """The page of one site's RIS: sends reports when ``mllp`` is given, calls the consumer when ``call_url`` is.

    ``identity`` is the patient on the screen; the official test patient by default. ``link`` gives the link to the
    images that the report of an exam carries.
    """
    who = identity or letters.Identity()
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "pages"), autoescape=select_autoescape(default=True)
    )

    def page(status: int = 200, **values: object) -> HTMLResponse:
        html = templates.get_template("ris.html").render(
            name=name,
            who=who,
            exams=[exam(letter) for letter in LETTERS] if mllp else [],
            call_url=call_url,
            call=call_parameters(who),
            **values,
        )
        return HTMLResponse(html, status_code=status, headers=_HEADERS)

    async def show(request: Request) -> Response:
        return page()

    async def send(request: Request) -> Response:
        form = await request.form()
        letter = str(form.get("exam", ""))
        if mllp is None or letter not in LETTERS or len(letter) != 1:
            return page(400, sent="", verdict="", problem="Examen inconnu")
        kind = str(form.get("message", ""))
        if kind not in _SENT:
            return page(400, sent="", verdict="", problem="Message inconnu")
        message = _message(kind, exam(letter), link, dt.datetime.now(dt.UTC))
        try:
            [answer] = await wire.send(mllp.host, mllp.port, [message], tls=mllp.tls)
        except (OSError, TimeoutError, ConnectionError):
            return page(502, sent=letter, verdict="", problem="La DRIMbox ne répond pas")
        return page(sent=letter, what=_SENT[kind], verdict=wire.verdict(answer), problem="")

    return Starlette(routes=[Route("/", show), Route("/envoyer", send, methods=["POST"])])


def _message(kind: str, known: Exam, link: Callable[[Exam], str], now: dt.datetime) -> bytes:
    identifier = f"RIS{secrets.token_hex(8)}"
    if kind in _CONTROLS:
        return omi(OrderLetter((known,), identifier, control=_CONTROLS[kind]), now)
    return letters.oru(letters.Letter(known, identifier, link=link(known)), now)

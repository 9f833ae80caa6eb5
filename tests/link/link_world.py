"""The door on a world where exams are published: a browser, a Pro Santé Connect and a patient's telephone."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, urlsplit

import httpx2
from lxml import html
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from drimbox.foundation.errors import DrimboxError, Refused, Rejected
from drimbox.foundation.http_guard import Guard
from drimbox.link.address import PATH
from drimbox.link.agreement import Agreement, finder_among
from drimbox.link.app import OneTimeCodes, link_app
from drimbox.link.contact import StoredContacts
from drimbox.link.limits import Allowance, Attempts
from drimbox.link.logouts import Over
from drimbox.link.patients import PatientDesk
from drimbox.link.ports import Code, Opened
from drimbox.link.visits import Limits
from drimbox.link.web.desk import Desk
from drimbox.manifest.read import read_manifest
from drimbox.national.psc.client import LogoutNotice
from drimbox.national.psc.tokens import Tokens
from drimbox.national.psc.userinfo import Practice, UserInfo
from drimbox.publication.publish import Outcome
from drimbox.record.audit import Kind, Recorded
from drimbox.reports.report import Coded
from drimbox.store.database import Pool
from publication.publication_examples import NOW, STUDY, World, letter_of, study_of, world_on

ORIGIN = "https://vi.test:8443"
ACCESSION = "ACN105"
SERIES = "1.2.250.1.213.4.5.2.2.105.201"
REPORT = letter_of().exam.document_id
LINK = f"{PATH}?requestType=STUDY&studyUID={STUDY}&accessionNumber={ACCESSION}&idCDA={REPORT}"
PATIENT = {"naissance": "28/03/1979", "sexe": "F", "lieu": "Dompremy"}
DOCTOR = UserInfo(
    subject="f:1:doctor",
    national_id="899700218896",
    family="MAXIMINA",
    given="ANNE",
    practices=(Practice(Coded("10", "1.2.250.1.71.1.2.7"), None, "1750803447", "Ambroise", "SA07", "Médecin"),),
)


def link(**changes: str | None) -> str:
    """The address of the link with some parameters changed; None takes one away."""
    given = {"requestType": "STUDY", "studyUID": STUDY, "accessionNumber": ACCESSION, "idCDA": REPORT} | changes
    return PATH + "?" + "&".join(f"{name}={value}" for name, value in given.items() if value is not None)


@dataclass
class FakePsc:
    """Says that whoever comes back with the code ``anne`` is Anne."""

    error: DrimboxError | None = None
    states: dict[str, tuple[str, str]] = field(default_factory=dict)
    revoked: list[str] = field(default_factory=list)
    person: UserInfo = DOCTOR
    session: str = "s"

    async def authorization_url(self, redirect_uri: str, state: str, nonce: str, verifier: str) -> str:
        if self.error is not None:
            raise self.error
        self.states[state] = (nonce, verifier)
        return f"https://psc.test/auth?state={state}"

    async def check_issuer(self, told: str | None) -> None:
        if told not in (None, "https://psc.test"):
            raise Rejected("Réponse d'un autre fournisseur", code="psc-issuer")

    async def exchange(self, code: str, redirect_uri: str, verifier: str, nonce: str) -> Tokens:
        assert redirect_uri == f"{ORIGIN}/connexion/retour"
        if code != "anne" or (nonce, verifier) not in self.states.values():
            raise Rejected("Code refusé", code="psc-code")
        return Tokens(
            "access", "", "id-token", NOW + dt.timedelta(minutes=2), None, self.person.subject, self.session, NOW
        )

    async def userinfo(self, access_token: str, *, subject: str = "") -> UserInfo:
        return self.person

    async def logout_url(self, id_token: str, redirect: str, state: str = "") -> str:
        return f"https://psc.test/logout?to={redirect}"

    async def logout_notice(self, logout_token: str) -> LogoutNotice:
        """Its word is ``session:subject``."""
        session, colon, subject = logout_token.partition(":")
        if not colon:
            raise Refused("Jeton refusé", code="psc-jwt")
        return LogoutNotice(subject, session)

    async def issuer(self) -> str:
        return "https://psc.test"

    async def page_origins(self) -> tuple[str, ...]:
        return ("https://psc.test",)


@dataclass
class Phone:
    """Where codes arrive. ``errors`` are what the next sendings end in."""

    name: str = "phone"
    codes: list[Code] = field(default_factory=list)
    errors: list[DrimboxError] = field(default_factory=list)

    async def send(self, code: Code) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.codes.append(code)

    @property
    def last(self) -> str:
        return self.codes[-1].digits


def facts(opened: Opened) -> Sequence[BaseRoute]:
    """What stands for the images: the facts of the visit, behind the guard."""

    async def shown(request: Request) -> Response:
        visit = await opened(request)
        told = f"{visit.who.visitor} {visit.who.name} {visit.study_uid} {visit.kos_uid} {visit.series_uid}"
        return HTMLResponse(f"<!doctype html><html lang=fr><title>Examen</title><main><h1>{told}</h1></main></html>")

    async def image(request: Request) -> Response:
        visit = await opened(request)
        return Response(visit.study_uid.encode(), media_type="application/dicom")

    async def presence(request: Request) -> Response:
        await opened(request)
        return Response(status_code=204)

    return [
        Route("/", shown, methods=["GET"]),
        Route("/image", image, methods=["GET"]),
        Route("/presence", presence, methods=["GET"]),
    ]


@dataclass
class Browser:
    """Keeps cookies, fills in forms, follows redirections inside the site."""

    client: httpx2.AsyncClient
    cookies: dict[str, str] = field(default_factory=dict)
    set_cookies: list[str] = field(default_factory=list)
    path: str = ""

    async def send(
        self, method: str, path: str, fields: dict[str, str] | None = None, *, follow: bool = True, **headers: str
    ) -> httpx2.Response:
        sent: dict[str, str | bytes] = {"accept": "text/html"}
        if method == "POST":
            sent |= {"origin": ORIGIN, "sec-fetch-site": "same-origin"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        while True:
            sent.pop("cookie", None)
            if self.cookies:
                sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items()).encode("latin-1")
            answer = await self.client.request(method, path, data=fields if method == "POST" else None, headers=sent)
            self.path = path
            self._keep(answer)
            if not follow or answer.status_code != 303 or urlsplit(answer.headers["location"]).netloc:
                return answer
            method, path, fields = "GET", answer.headers["location"], None

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self.send("GET", path, **headers)

    async def submit(self, page: httpx2.Response, *, follow: bool = True, **fields: str) -> httpx2.Response:
        """Fill in and send the one form of a page."""
        form = html.fromstring(page.content).forms[0]
        hidden = {e.name: e.value for e in form.xpath(".//input[@type='hidden']")}
        return await self.send("POST", form.action, {**hidden, **fields}, follow=follow)

    async def as_patient(self, address: str = LINK) -> httpx2.Response:
        """The page that asks for the identity."""
        return await self.submit(await self.get(address), visiteur="patient")

    async def as_professional(self, address: str = LINK) -> str:
        """The state with which PSC sends the browser back."""
        page = await self.submit(await self.get(address), visiteur="professional")
        [to] = html.fromstring(page.content).xpath("//a[@class='psc']/@href")
        return parse_qs(urlsplit(to).query)["state"][0]

    async def back(self, state: str, code: str = "anne", *, follow: bool = True, more: str = "") -> httpx2.Response:
        return await self.send("GET", f"/connexion/retour?state={state}&code={code}{more}", follow=follow)

    def _keep(self, answer: httpx2.Response) -> None:
        for line in answer.headers.get_list("set-cookie"):
            self.set_cookies.append(line)
            for name, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value


@dataclass
class Place:
    """One door and what it stands on."""

    app: ASGIApp
    desk: Desk
    world: World
    psc: FakePsc
    phone: Phone
    ended: list[str]

    def browser(self, address: str = "192.0.2.7") -> Browser:
        transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False, client=(address, 4000))
        return Browser(httpx2.AsyncClient(transport=transport, base_url=ORIGIN))

    async def settle(self) -> None:
        """Wait for what is done on the side."""
        assert isinstance(self.desk.patients, PatientDesk)
        await self.desk.patients.idle()

    async def patient(self, browser: Browser, address: str = LINK) -> httpx2.Response:
        """A patient through the whole door: the first page inside."""
        page = await browser.submit(await browser.as_patient(address), **PATIENT)
        await self.settle()
        return await browser.submit(page, code=self.phone.last)

    async def professional(self, browser: Browser, address: str = LINK) -> httpx2.Response:
        return await browser.back(await browser.as_professional(address))

    async def told(self, kind: Kind) -> list[Recorded]:
        """The journal about one kind of event, oldest first."""
        return [one for one in await self.world.traced() if one.event.kind is kind]


@asynccontextmanager
async def open_place(pool: Pool, **settings: object) -> AsyncIterator[Place]:
    """A door whose options may be changed; the clock stands still; exam E is published."""
    world = world_on(pool)
    world.pacs.hold(study_of())
    assert await world.run(letter_of()) in (Outcome.PUBLISHED, Outcome.NOTHING)
    psc, phone, ended = FakePsc(), Phone(), list[str]()
    opened: list[tuple[str, str]] = []

    async def open_incident(code: str, reason: str) -> None:
        opened.append((code, reason))
        async with pool.connection() as connection, connection.transaction():
            await world.incidents.open_for_note(connection, code=code, reason=reason)

    allowance = settings.pop("allowance", Allowance())
    assert isinstance(allowance, Allowance)
    options: dict[str, object] = {
        "place": "Centre de radiologie Ambroise",
        "version": "0.1.0",
        "public_url": ORIGIN,
        "agreement": Agreement(
            world.archive, read_manifest, finder_among({"pacs": world.pacs, "vna": world.vna}), world.clock
        ),
        "psc": psc,
        "over": Over(pool, world.clock),
        "journal": world.journal,
        "clock": world.clock,
        "images": facts,
        "ended": ended.append,
        "patients": OneTimeCodes(StoredContacts(pool), Attempts(pool, world.clock, allowance), (phone,), open_incident),
        "limits": Limits(),
        "per_minute": 1000,
        "beat": 0.001,
        **settings,
    }
    async with link_app(**options) as app:  # type: ignore[arg-type]
        assert isinstance(app, Guard)
        desk: Desk = app._app.state.desk  # type: ignore[attr-defined]
        yield Place(app, desk, world, psc, phone, ended)


def text_of(page: httpx2.Response) -> str:
    """What a person reads on a page."""
    tree = html.fromstring(page.content)
    return " ".join(" ".join(tree.xpath("//main//text()")).split())

"""The console as browsers meet it, on a world to publish in; passwords are hashed at little cost here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from http.cookies import SimpleCookie
from urllib.parse import urlsplit

import httpx2
from lxml import html
from starlette.types import ASGIApp

from drimbox.console.account import Account
from drimbox.console.accounts import Accounts
from drimbox.console.app import console_app
from drimbox.console.passwords import Cost, hashed
from drimbox.console.sessions import Limits
from drimbox.console.web.desk import Desk, SettingLine
from drimbox.foundation.clock import FixedClock
from drimbox.foundation.http_guard import Guard
from drimbox.record.audit import Actor, Event, Recorded, Search
from drimbox.store.database import Pool
from publication.publication_examples import NOW, World, study_of, world_on

ORIGIN = "https://console.test:8443"
CHEAP = Cost(log2_n=4, r=1, p=1)
PASSWORD = "Vert-de-gris 1950 !"
OTHER_PASSWORD = "Bleu-horizon 1977 ?"
INSTALLER = Actor(person="os:installer", system="test")
STUDY = "1.2.250.1.213.4.5.2.1.105"
ROLES = {
    "nobody": (),
    "operator": ("operateur",),
    "reader": ("operateur", "lecture-messages"),
    "administrator": ("administrateur",),
    "auditor": ("auditeur",),
}


@dataclass
class Browser:
    """Keeps cookies, follows redirections inside the site, fills in forms."""

    client: httpx2.AsyncClient
    cookies: dict[str, str] = field(default_factory=dict)
    set_cookies: list[str] = field(default_factory=list)
    path: str = ""

    async def send(
        self, method: str, path: str, fields: dict[str, object] | None = None, *, follow: bool = True, **headers: str
    ) -> httpx2.Response:
        sent: dict[str, str | bytes] = {}
        if method == "POST":
            sent = {"origin": ORIGIN, "sec-fetch-site": "same-origin"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        while True:
            if self.cookies:
                sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items()).encode("latin-1")
            else:
                sent.pop("cookie", None)
            answer = await self.client.request(method, path, data=fields if method == "POST" else None, headers=sent)
            self.path = path
            self._keep(answer)
            if not follow or answer.status_code != 303:
                return answer
            place = urlsplit(answer.headers["location"])
            if place.netloc:
                return answer
            method, path, fields = "GET", answer.headers["location"], None

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self.send("GET", path, **headers)

    async def submit(self, page: httpx2.Response, to: str, *, follow: bool = True, **fields: object) -> httpx2.Response:
        """Fill in and send the form of a page whose address ends in ``to``."""
        form = next(f for f in html.fromstring(page.content).forms if f.action.endswith(to))
        hidden = {e.name: e.value for e in form.xpath(".//input[@type='hidden']")}
        return await self.send("POST", form.action, {**hidden, **fields}, follow=follow)

    async def post(self, path: str, **fields: object) -> httpx2.Response:
        """Send a form of ours to any address, with the right token."""
        page = await self.get("/deconnexion")
        token = html.fromstring(page.content).xpath("//input[@name='jeton']/@value")
        return await self.send("POST", path, {"jeton": str(token[0]) if token else "", **fields}, follow=False)

    async def log_in(self, login: str, password: str = PASSWORD) -> httpx2.Response:
        return await self.submit(await self.get("/connexion"), "/connexion", identifiant=login, secret=password)

    def _keep(self, answer: httpx2.Response) -> None:
        for line in answer.headers.get_list("set-cookie"):
            self.set_cookies.append(line)
            for name, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value


@dataclass
class Site:
    """One console and what it stands on."""

    app: ASGIApp
    desk: Desk
    accounts: Accounts
    world: World
    clock: FixedClock

    @property
    def pool(self) -> Pool:
        return self.world.pool

    def browser(self) -> Browser:
        transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False, client=("192.0.2.7", 4000))
        return Browser(httpx2.AsyncClient(transport=transport, base_url=ORIGIN))

    async def person(self, roles: str = "operator", login: str = "", national_id: str = "") -> Account:
        """An account whose password is already its owner's own."""
        login = login or f"{roles}.essai"
        account = await self.accounts.add(
            login=login,
            name=f"{roles.capitalize()} Essai",
            roles=ROLES[roles],
            by=INSTALLER,
            national_id=national_id,
            password=hashed(PASSWORD, CHEAP),
        )
        async with self.pool.connection() as connection:
            await connection.execute("UPDATE account SET must_change = false WHERE id = %s", (account.id,))
        return replace(account, must_change=False)

    async def logged_in(self, roles: str = "operator") -> Browser:
        """A browser of somebody with these rights."""
        account = await self.accounts.by_login(f"{roles}.essai") or await self.person(roles)
        browser = self.browser()
        await browser.log_in(account.login)
        assert any(name.endswith("-session") for name in browser.cookies)
        return browser

    async def traced(self, *kinds: str) -> list[Event]:
        """The journal, oldest first; of these kinds when they are named."""
        found = await self.world.journal.search(Search(limit=1000), Actor(person="test"))
        events: list[Recorded] = [r for r in reversed(found) if r.event.kind.name != "AUDIT_READ"]
        return [r.event for r in events if not kinds or r.event.kind.name in kinds]

    async def incident(self, code: str = "study-unknown", study_uid: str = STUDY, **more: object) -> int:
        async with self.world.archive.transaction() as transaction:
            return await self.world.incidents.open(
                transaction,
                structure=str(more.pop("structure", "ambroise")),
                study_uid=study_uid,
                code=code,
                reason=str(more.pop("reason", "Aucun PACS ne connaît l'examen")),
                **more,  # type: ignore[arg-type]
            )


@asynccontextmanager
async def open_site(pool: Pool, **settings: object) -> AsyncIterator[Site]:
    """A console whose options may be changed; its clock stands still, as its world's does."""
    world = world_on(pool)
    world.pacs.hold(study_of())
    options: dict[str, object] = {
        "box_name": "Site A",
        "version": "0.1.0",
        "public_url": ORIGIN,
        "pool": pool,
        "clock": world.clock,
        "journal": world.journal,
        "structures": {"ambroise": "Centre de radiologie Ambroise", "other": "Autre"},
        "settings": (SettingLine("box", "name", "Site A", "name of this box"),),
        "limits": Limits(idle=900, session=8 * 3600),
        "cost": CHEAP,
        "logins_per_minute": 1000,
        **settings,
    }
    async with console_app(**options) as app:  # type: ignore[arg-type]
        assert isinstance(app, Guard)
        desk: Desk = app._app.state.desk  # type: ignore[attr-defined]
        yield Site(app, desk, desk.accounts, world, world.clock)


def text_of(page: httpx2.Response) -> str:
    """What a person reads on a page."""
    tree = html.fromstring(page.content)
    for unseen in tree.xpath("//head"):
        unseen.getparent().remove(unseen)
    return " ".join(" ".join(tree.itertext()).split())


__all__ = ["NOW", "Browser", "Site", "open_site", "text_of"]

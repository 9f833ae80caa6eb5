"""The listener crawled: whatever is sent, it answers as it says it does, and never with an error of its own."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import httpx2
import psycopg
import pytest
import schemathesis
from citizen_world import open_hall
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from link_api import description
from link_world import ORIGIN, Place, open_place
from lxml import html
from schemathesis import Case, GenerationMode

from drimbox.link.limits import Allowance
from drimbox.store import database

_ALWAYS = ("strict-transport-security", "content-security-policy", "x-content-type-options", "cache-control")
_ANY_LINK = "/IHEInvokeImageDisplay?requestType=STUDY&studyUID=1.2&accessionNumber=A&idCDA=1.2"


class Running:
    """A door on a loop of its own, so that the crawler, which knows none, can talk to it."""

    def __init__(self, dsn: str, *, vouched: bool = False) -> None:
        """``vouched``: patients come by an identity provider instead of a code."""
        self._dsn = dsn
        self.vouched = vouched
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stop = asyncio.Event()
        self._ready: Future[Place] = Future()
        self._thread.start()
        self._done = asyncio.run_coroutine_threadsafe(self._serve(), self._loop)
        self.place = self._ready.result(60)
        self.browser = self.place.browser()
        page = self.call(self.browser.get(_ANY_LINK))
        self.token = str(html.fromstring(page.content).xpath("//input[@name='jeton']/@value")[0])

    async def _serve(self) -> None:
        allowance = Allowance(10**6, 10**6)
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(database.opened(self._dsn, size=4))
            if self.vouched:
                hall = await stack.enter_async_context(open_hall(pool, per_minute=10**6, allowance=allowance))
                place = hall.place
            else:
                place = await stack.enter_async_context(open_place(pool, per_minute=10**6, allowance=allowance))
            self._ready.set_result(place)
            await self._stop.wait()
            if not self.vouched:
                await place.settle()

    def call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def answered(self, case: Case, *, ours: bool) -> httpx2.Response:
        """Send a case; ``ours``: as the browser whose form it is, so that more than the form is looked at."""
        sent = case.as_transport_kwargs(base_url=ORIGIN)
        headers = {name: str(value) for name, value in (sent.get("headers") or {}).items()}
        headers["cookie"] = "; ".join(f"{name}={value}" for name, value in self.browser.cookies.items())
        data = sent.get("data")
        if ours and isinstance(data, dict) and "jeton" in data:
            data = {**data, "jeton": self.token}
        body: dict[str, Any] = {"data": data} if isinstance(data, dict) else {"content": data}
        return await self.browser.client.request(
            sent["method"], sent["url"], params=sent.get("params"), headers=headers, **body
        )

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._done.result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@contextmanager
def a_database(server: str) -> Iterator[str]:
    name = f"t_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE drimbox_template")
    yield server.replace("/postgres?", f"/{name}?", 1)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module", params=["code", "provider"])
def running(_server: str, request: pytest.FixtureRequest) -> Iterator[Running]:
    with a_database(_server) as dsn:
        crawled = Running(dsn, vouched=request.param == "provider")
        yield crawled
        crawled.close()


def crawl(running: Running, examples: int) -> Counter[tuple[str, int]]:
    """Cases of every operation, those that the description allows and those that it does not; what they met."""
    met: Counter[tuple[str, int]] = Counter()
    for found in schemathesis.openapi.from_dict(description()).get_all_operations():
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try:
                _crawled(running, operation.as_strategy(generation_mode=mode), examples, met)
            except Unsatisfiable:
                # It takes nothing that could be wrong.
                assert mode is GenerationMode.NEGATIVE
    return met


def _crawled(running: Running, cases: Any, examples: int, met: Counter[tuple[str, int]]) -> None:
    @given(case=cases)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def one(case: Case) -> None:
        for ours in (True, False):
            answer = running.call(running.answered(case, ours=ours))
            met[case.path, answer.status_code] += 1
            told = case.operation.definition.raw["responses"]
            # An address or a method that is none of ours is said to be none, in our own words.
            assert str(answer.status_code) in {*told, "400", "404", "405"}, case.as_curl_command()
            kind = answer.headers.get("content-type", "text/html").split(";")[0]
            assert kind in ("text/html", "text/plain", "application/json"), kind
            for name in _ALWAYS:
                assert name in answer.headers, name
            assert "Traceback" not in answer.text

    one()


@pytest.mark.requirement("DB.VI-SO.28")
def test_a_short_crawl(running: Running) -> None:
    met = crawl(running, 6)
    assert len({path for path, _ in met}) == len(description()["paths"])
    assert sum(met.values()) > 60


@pytest.mark.slow
def test_a_long_crawl(running: Running) -> None:
    met = crawl(running, 300)
    assert sum(met.values()) > 3000
    # Deep enough to get beyond the forms.
    assert {("/lien/visiteur", 200), ("/IHEInvokeImageDisplay", 200), ("/psc/deconnexion", 400)} <= set(met)
    beyond = ("/lien/identite/retour", 400) if running.vouched else ("/lien/code", 403)
    assert beyond in met

"""The administrator is told of the queue: over a real SMTP server and a real HTTPS one, grouped, and never in vain."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from smtp_server import SmtpServer, smtp_server
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from drimbox.foundation.clock import FixedClock
from drimbox.foundation.errors import DrimboxError, Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.notification.mail import MailChannel
from drimbox.notification.notices import MOST_LINES, Notice, example, items_of
from drimbox.notification.teller import FAILED, Channel, Manner, Teller
from drimbox.notification.webhook import SIGNATURE, WebhookChannel
from drimbox.publication.incidents import Incidents, Severity
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.store.database import Connection, Pool

NOW = dt.datetime(2026, 7, 14, 9, 30, tzinfo=dt.UTC)
CONSOLE = "https://console.example.test"
STUDY = "1.2.250.1.213.4.5.2.1.105"
NAME = "PAT-TROIS"


@pytest.fixture(scope="module")
def server_pair(authority: TestAuthority) -> PemPair:
    return authority.issue(
        Profile.SSL_SERV, "smtp", common_name="localhost", unit="1750803447", organisation="S", hosts=("localhost",)
    )


@pytest.fixture(scope="module")
def server_tls(server_pair: PemPair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server_pair.certificate, server_pair.key)
    return context


@pytest.fixture(scope="module")
def client_tls(authority: TestAuthority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.roots))


def mail(server: SmtpServer, tls: ssl.SSLContext | None, **more: object) -> MailChannel:
    values: dict[str, object] = {
        "host": "localhost",
        "port": server.port,
        "security": "starttls",
        "tls": tls,
        "sender": "drimbox@site.test",
        "recipients": ("admin@site.test", "astreinte@site.test"),
        "clock": FixedClock(NOW),
        **more,
    }
    return MailChannel(**values)  # type: ignore[arg-type]


class Queue:
    """The operator's queue, and one channel that tells of it."""

    def __init__(self, pool: Pool, channel: Channel, **manner: object) -> None:
        self.pool = pool
        self.clock = FixedClock(NOW)
        self.incidents = Incidents(pool, self.clock)
        values: dict[str, object] = {"box": "Site A", "console": CONSOLE, "every": 900.0, **manner}
        self.teller = Teller(pool, self.clock, channel, Manner(**values), self._open)  # type: ignore[arg-type]

    async def add(self, code: str, study: str = STUDY, severity: Severity = "error") -> int:
        async with self.pool.connection() as connection:
            return await self.incidents.open(
                connection,
                structure="ambroise",
                study_uid=study,
                code=code,
                reason=f"Le patient {NAME}",
                severity=severity,
            )

    async def _open(self, connection: Connection, code: str, reason: str) -> None:
        await self.incidents.open_for_note(connection, code=code, reason=reason)


class Recording:
    """A channel that fails as often as it is told to."""

    name = "recording"

    def __init__(self, *errors: DrimboxError) -> None:
        self.errors = list(errors)
        self.notices: list[Notice] = []

    async def tell(self, notice: Notice) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.notices.append(notice)


@pytest.mark.requirement("DB.SO.21")
async def test_an_error_is_told_by_mail_without_health_data(
    pool: Pool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async with smtp_server(SmtpServer(tls=server_tls, password="s3cret")) as server:
        channel = mail(server, client_tls, username="drimbox", password=lambda: "s3cret")
        queue = Queue(pool, channel)
        before = await queue.add("before-the-channel")
        queue.clock.advance(60)
        await queue.teller.begin()
        number = await queue.add("dmp-xds")
        await queue.add("birth-place-differs", severity="warning")
        assert await queue.teller.turn() == 1
        assert await queue.teller.turn() == 0
    [letter] = server.letters
    assert (letter.secured, letter.login) == (True, "drimbox")
    assert (letter.sender, letter.recipients) == ("drimbox@site.test", ["admin@site.test", "astreinte@site.test"])
    assert letter.message["Subject"] == "[DRIMbox Site A] 1 erreur dans la file"
    assert letter.message["Auto-Submitted"] == "auto-generated"
    text = letter.message.get_content()
    assert f"{CONSOLE}/file/{number}" in text
    assert f"Examen {STUDY}" in text
    assert "1 x dmp-xds" in text
    assert "14/07/2026 11:31" in text
    assert NAME not in text
    assert f"n° {before}," not in text


@pytest.mark.requirement("DB.SO.21")
async def test_tls_from_the_first_octet_and_a_relay_without(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    notice = example("Site A", CONSOLE, NOW)
    async with smtp_server(SmtpServer(tls=server_tls, at_once=True)) as server:
        await mail(server, client_tls, security="tls").tell(notice)
        assert server.letters[0].secured
    async with smtp_server(SmtpServer()) as server:
        await mail(server, None, security="none").tell(notice)
        assert not server.letters[0].secured


@pytest.mark.requirement("DB.SO.21")
async def test_nothing_goes_out_in_the_clear_or_to_a_stranger(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    notice = example("Site A", CONSOLE, NOW)
    async with smtp_server(SmtpServer(tls=server_tls, offers_starttls=False, password="s3cret")) as server:
        with pytest.raises(Rejected, match="STARTTLS"):
            await mail(server, client_tls, username="u", password=lambda: "s3cret").tell(notice)
        assert server.letters == []
    async with smtp_server(SmtpServer(tls=server_tls)) as server:
        with pytest.raises(Rejected, match="certificat"):
            await mail(server, ssl.create_default_context()).tell(notice)
        assert server.letters == []


@pytest.mark.requirement("DB.SO.21")
async def test_what_the_server_answers_is_told_apart(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    notice = example("Site A", CONSOLE, NOW)
    for answers, kind, code in (
        ({"RCPT": ["450 4.2.1 admin@site.test busy"] * 2}, Unavailable, "450"),
        ({"RCPT": ["550 5.1.1 admin@site.test unknown"] * 2}, Rejected, "550"),
        ({"MAIL": ["451 4.3.0 later"]}, Unavailable, "451"),
        ({"DATA": ["554 5.7.1 no"]}, Rejected, "554"),
    ):
        async with smtp_server(SmtpServer(tls=server_tls, answers=answers)) as server:
            with pytest.raises(kind) as raised:
                await mail(server, client_tls).tell(notice)
            assert raised.value.peer_code == code
            assert "admin" not in raised.value.reason
    async with smtp_server(SmtpServer(tls=server_tls, password="other")) as server:
        with pytest.raises(Rejected, match="refuse"):
            await mail(server, client_tls, username="u", password=lambda: "s3cret").tell(notice)
    with pytest.raises(Unavailable, match="injoignable"):
        await mail(server, client_tls).tell(notice)


@pytest.mark.requirement("DB.SO.21")
async def test_errors_that_come_together_are_told_together(pool: Pool) -> None:
    channel = Recording()
    queue = Queue(pool, channel)
    await queue.teller.begin()
    await queue.add("dmp-xds", "1.2.1")
    assert await queue.teller.turn() == 1
    for number in range(2, 60):
        await queue.add("study-unknown" if number % 2 else "dmp-xds", f"1.2.{number}")
        assert await queue.teller.turn() == 0
    queue.clock.advance(899)
    assert await queue.teller.turn() == 0
    queue.clock.advance(1)
    assert await queue.teller.turn() == 58
    assert [len(notice.items) for notice in channel.notices] == [1, 58]
    last = channel.notices[-1]
    assert last.subject == "[DRIMbox Site A] 58 erreurs dans la file"
    assert last.text.count(f"{CONSOLE}/file/") == MOST_LINES
    assert f"et {58 - MOST_LINES} de plus" in last.text
    # Nothing twice; what happens again on an open line is not new.
    await queue.add("dmp-xds", "1.2.1")
    queue.clock.advance(900)
    assert await queue.teller.turn() == 0


@pytest.mark.requirement("DB.SO.21")
async def test_a_line_that_was_settled_meanwhile_is_told_as_such(pool: Pool) -> None:
    channel = Recording()
    queue = Queue(pool, channel, warnings=True)
    await queue.teller.begin()
    number = await queue.add("dmp-xds")
    await queue.add("birth-place-differs", severity="warning")
    await queue.incidents.close(number, "Classé", "Camille Essai")
    assert await queue.teller.turn() == 2
    assert "close depuis" in channel.notices[0].text
    assert channel.notices[0].subject == "[DRIMbox Site A] 1 erreur et 1 alerte dans la file"


@pytest.mark.requirement("DB.SO.21")
async def test_a_channel_that_fails_is_tried_again_and_said_in_the_queue(pool: Pool) -> None:
    away = Unavailable("Serveur SMTP injoignable", code="smtp", peer_code="ConnectionRefusedError")
    channel = Recording(*[away] * 4)
    queue = Queue(pool, channel)
    await queue.teller.begin()
    await queue.add("dmp-xds")
    waited = 0
    tries = 0
    while not channel.notices:
        before = len(channel.errors)
        await queue.teller.turn()
        tries += len(channel.errors) < before or bool(channel.notices)
        queue.clock.advance(30)
        waited += 30
        assert waited < 7200
    # 60 + 120 + 240 + 480 seconds between five tries.
    assert tries == 5
    assert 900 <= waited <= 1000
    [line] = await queue.incidents.list(open_only=False, code=FAILED)
    assert "n'est pas averti" in line.reason
    assert line.closed_at is not None
    assert [item.code for item in channel.notices[0].items] == ["dmp-xds"]


@pytest.mark.requirement("DB.SO.21")
async def test_of_two_nodes_one_tells_and_a_restart_forgets_nothing(pool: Pool) -> None:
    first, second = Recording(), Recording()
    one, two = Queue(pool, first), Queue(pool, second)
    await one.teller.begin()
    await two.teller.begin()
    await one.add("dmp-xds")
    assert await one.teller.turn() + await two.teller.turn() == 1
    assert len(first.notices) + len(second.notices) == 1
    again = Queue(pool, Recording())
    await again.teller.begin()
    await again.add("study-unknown", "1.2.9")
    assert await again.teller.turn() == 0
    again.clock.advance(900)
    assert await again.teller.turn() == 1


def test_what_peers_wrote_cannot_change_a_notice() -> None:
    row = {
        "id": 1,
        "code": "x\r\nBcc: other@site.test",
        "severity": "error",
        "study_uid": "1.2\n" + "3" * 500,
        "message_id": None,
        "structure": "a\u202eb",
        "opened_at": NOW,
        "closed_at": None,
    }
    [item] = items_of([row])
    assert item.code == "x??Bcc: other@site.test"
    assert len(item.label) == 128
    assert "\u202e" not in item.structure


# --- webhook ----------------------------------------------------------------------------------------------------------


class Service:
    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []

    async def answer(self, request: Request) -> Response:
        self.received.append((dict(request.headers), await request.body()))
        return Response(status_code=self.statuses.pop(0) if self.statuses else 204)


@pytest.fixture
async def service(server_tls: ssl.SSLContext) -> AsyncIterator[tuple[Service, str]]:
    service = Service()
    app = Starlette(routes=[Route("/hook", service.answer, methods=["POST"])])
    async with serving(app, host="127.0.0.1", port=0, tls=server_tls) as port:
        yield service, f"https://localhost:{port}/hook"


@pytest.mark.requirement("DB.SO.21")
async def test_a_webhook_is_called_and_signed(
    pool: Pool, service: tuple[Service, str], client_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    called, url = service
    async with HttpClient() as http:
        channel = WebhookChannel(http, url, client_tls, lambda: b"key")
        queue = Queue(pool, channel)
        await queue.teller.begin()
        number = await queue.add("dmp-xds")
        assert await queue.teller.turn() == 1
        called.statuses = [503, 404]
        with pytest.raises(Unavailable):
            await channel.tell(example("Site A", CONSOLE, NOW))
        with pytest.raises(Rejected):
            await channel.tell(example("Site A", CONSOLE, NOW))
    headers, body = called.received[0]
    assert headers[SIGNATURE.lower()] == f"sha256={hmac.new(b'key', body, hashlib.sha256).hexdigest()}"
    told = json.loads(body)
    assert (told["box"], told["total"], told["counts"]) == ("Site A", 1, {"dmp-xds": 1})
    assert told["incidents"][0]["url"] == f"{CONSOLE}/file/{number}"
    assert told["text"].startswith("[DRIMbox Site A] 1 erreur")
    assert NAME not in body.decode()

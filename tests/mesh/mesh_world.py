"""What the end-to-end tests do to the mesh and what they look at: the DMP, the operator's queue of site A."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import re
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from drimbox.demo import story
from drimbox.demo.mesh import PATIENT_AT_B, Mesh
from drimbox.demo.visitor import Page, Visitor
from drimbox.sandbox.pki import TestAuthority
from drimbox.sandbox.ris import letters, wire
from drimbox.sandbox.ris.app import call_parameters
from drimbox.sandbox.ris.exams import exam

NOW = dt.datetime(2026, 11, 23, 9, 0, tzinfo=dt.UTC)
# Milliseconds that a page may take on a machine that is busy with other things.
PATIENCE = 90_000
APPROVED = "urn:oasis:names:tc:ebxml-regrep:StatusType:Approved"


@dataclass(frozen=True, slots=True)
class World:
    """The running mesh. ``said`` are the steps that the start told."""

    mesh: Mesh
    said: list[str] = field(default_factory=list)

    # --- site A -------------------------------------------------------------------------------------------------------

    async def send(self, *messages: bytes) -> list[bytes]:
        """The answers of site A's HL7 listener, all on one connection."""
        return await wire.send("127.0.0.1", self.mesh.ports.mllp_a, messages)

    async def accepted(self, message: bytes) -> bytes:
        """Send what must be accepted; the answer."""
        [answer] = await self.send(message)
        assert wire.verdict(answer) == "AA", answer.decode()
        return answer

    async def sql(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Look into site A's database, as an operator would through the service of the box."""
        async with await psycopg.AsyncConnection.connect(self.dsn, row_factory=dict_row) as connection:
            return await (await connection.execute(query, values)).fetchall()

    @property
    def dsn(self) -> str:
        # Line 5 is the folder of the server's socket (PostgreSQL, "postmaster.pid").
        lines = (self.mesh.state / "a" / "postgres" / "postmaster.pid").read_text().splitlines()
        return f"postgresql://postgres:@/postgres?host={lines[4]}"

    async def incidents(self, study_uid: str = "", *, opened: bool = True) -> list[dict[str, Any]]:
        """The operator's queue about a study."""
        return await self.sql(
            "SELECT * FROM incident WHERE study_uid = %s AND (NOT %s OR closed_at IS NULL) ORDER BY id",
            study_uid,
            opened,
        )

    async def last_message(self) -> dict[str, Any]:
        """The last message that site A wrote down, with the code of its line in the operator's queue, if it has one."""
        [row] = await self.sql(
            "SELECT message.*, incident.code, incident.reason FROM message LEFT JOIN incident "
            "ON incident.message_id = message.id ORDER BY message.id DESC LIMIT 1"
        )
        return row

    async def at_rest(self, study_uid: str) -> None:
        """Wait until no work on the study is left."""

        async def idle() -> bool:
            rows = await self.sql(
                "SELECT 1 FROM procrastinate_jobs WHERE args ->> 'study_uid' = %s AND status IN ('todo', 'doing')",
                study_uid,
            )
            return not rows

        await eventually(idle, f"work on {study_uid} goes on")

    async def publish(self, letter: str) -> tuple[str, ...]:
        """Have site A publish an official exam, by the form message; its studies. Once is enough for all tests."""
        known = exam(letter)
        if not all([await self.kos(study) for study in known.studies]):
            await self.accepted(letters.oru(letters.Letter(known, control()), NOW))
            for study in known.studies:
                await self.published(study)
        return known.studies

    async def swept(self) -> bool:
        """Is no image on the disk of site A's box?"""
        try:
            folders = [self.mesh.state / "a" / name for name in ("spool", "scratch")]
            return not [p for folder in folders for p in folder.rglob("*") if p.is_file() and p.name != ".lock"]
        except FileNotFoundError:
            # A folder went while it was looked into.
            return False

    # --- the DMP ------------------------------------------------------------------------------------------------------

    async def documents(self) -> list[dict[str, Any]]:
        """Everything that the DMP ever registered."""
        found: list[dict[str, Any]] = await self.view("/dmp/documents")
        return found

    async def view(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """The sandbox DMP's own view."""
        url = self.mesh.national.dmp_view.removesuffix("/dmp") + path
        content = json.dumps(body).encode() if body is not None else None
        reply = await self.mesh.http.send(method, url, tls=self.mesh.tls, body=content)
        assert reply.status == 200, reply.body
        return json.loads(reply.body)

    async def kos(self, study_uid: str, *, current: bool = True) -> list[dict[str, Any]]:
        """The KOS of a study in the DMP, as its view describes them."""
        return [
            d
            for d in await self.view(f"/dmp/documents?study={study_uid}")
            if d["mime"] == "application/dicom" and (d["status"] == APPROVED or not current)
        ]

    async def published(self, study_uid: str, patience: float = 40.0) -> dict[str, Any]:
        """The one current KOS of the study, once it is there and site A is done with it."""

        async def there() -> bool:
            errors = [i["code"] for i in await self.incidents(study_uid) if i["severity"] == "error"]
            assert set(errors) <= {"waiting"}, errors
            return len(await self.kos(study_uid)) == 1

        await eventually(there, f"no KOS of {study_uid} in the DMP", patience)
        await self.at_rest(study_uid)
        [one] = await self.kos(study_uid)
        return one

    # --- site B -------------------------------------------------------------------------------------------------------

    async def listed(self, study_uid: str = "", login: str = story.LOGIN) -> tuple[Visitor, Page]:
        """A radiologist of site B in front of the list of exams, narrowed to one study if it is named."""
        return await story.consult(self.mesh, story.Timings(), self.said.append, login=login, study_uid=study_uid)

    async def opened(self, study_uid: str) -> story.Opened:
        """The study in the viewer of a new visitor."""
        visitor, listed = await self.listed(study_uid)
        return await story.open_exam(visitor, listed, study_uid, story.Timings(), self.said.append)

    async def seen(self, study_uid: str) -> dict[str, bytes]:
        """Every image of the study as site B shows it, once each was compared with the PACS's own."""
        opened = await self.opened(study_uid)
        received = await story.fetch_all(opened, story.Timings(), self.said.append)
        problems = await asyncio.to_thread(story.compare, self.mesh, study_uid, received, self.said.append)
        assert received
        assert problems == []
        return received

    def call(self, **more: str) -> dict[str, str]:
        """The contextual call of site B's RIS."""
        return call_parameters(PATIENT_AT_B) | more

    # --- anyone -------------------------------------------------------------------------------------------------------

    @property
    def endpoints(self) -> dict[str, Any]:
        """``endpoints.json``: what any outside client is told."""
        told: dict[str, Any] = json.loads((self.mesh.state / "endpoints.json").read_text("utf-8"))
        return told

    @property
    def authority(self) -> TestAuthority:
        """The test PKI of the mesh."""
        return TestAuthority(self.mesh.state / "national" / "pki")

    def original(self, sop_instance_uid: str) -> bytes:
        """The image as it was given to site A's PACS: the same octets, whatever the PACS makes of them."""
        study, series, number = re.fullmatch(r".*\.(\d+)\.(\d+)\.3(\d+)", sop_instance_uid).groups()  # type: ignore[union-attr]
        [path] = (self.mesh.state / "samples").glob(f"*/{study}/{series}/I{number}.dcm")
        return path.read_bytes()

    async def token(self, login: str = story.LOGIN, tls: ssl.SSLContext | None = None) -> str:
        """An access token of Pro Santé Connect, bound to the certificate that is shown (site B's by default)."""
        reply = await self.mesh.http.send(
            "POST",
            f"{self.mesh.national.psc_helpers}/token",
            tls=tls or self.mesh.tls_b,
            headers={"Content-Type": "application/json"},
            body=json.dumps({"user": login, "client_id": self.mesh.national.sites["b"].site.client_id}).encode(),
        )
        assert reply.status == 200, reply.body
        given: str = json.loads(reply.body)["access_token"]
        return given

    async def psc_faults(self, **faults: str | float) -> None:
        """Turn faults of Pro Santé Connect on; none: heal everything."""
        method, body = ("POST", json.dumps(faults).encode()) if faults else ("DELETE", None)
        reply = await self.mesh.http.send(
            method,
            f"{self.mesh.national.psc_helpers}/faults",
            tls=self.mesh.tls,
            headers={"Content-Type": "application/json"},
            body=body,
        )
        assert reply.status == 200, reply.body


def control() -> str:
    """A message identifier (MSH-10) that was never used."""
    return f"E2E{secrets.token_hex(8)}"


def official(file: Path) -> bytes:
    """An official message file, its placeholders filled in."""
    return letters.filled_in(file.read_bytes(), letters.Letter(exam("E"), control()), NOW)


def document_of(message: bytes) -> bytes:
    """The document in OBX-5."""
    found = re.search(rb"\^Base64\^([A-Za-z0-9+/=\s]*)", message)
    assert found is not None
    return base64.b64decode(found[1])


def with_document(message: bytes, document: bytes) -> bytes:
    """The message with another document in OBX-5."""
    encoded = base64.b64encode(document)
    return re.sub(rb"\^Base64\^[A-Za-z0-9+/=\s]*", lambda _: b"^Base64^" + encoded, message, count=1)


async def eventually(
    holds: Callable[[], Awaitable[bool]], otherwise: str, patience: float = 40.0, pause: float = 0.05
) -> None:
    """Wait until it holds. A peer that is down for now is asked again."""
    deadline = time.monotonic() + patience
    while True:
        with suppress(psycopg.OperationalError):
            if await holds():
                return
        if time.monotonic() > deadline:
            raise AssertionError(f"{otherwise} (after {patience:.0f} s)")
        await asyncio.sleep(pause)

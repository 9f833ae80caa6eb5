"""One source with what it needs, each in a process of its own: national services, PACS, PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from drimbox.bench.studies import write_study, zipped
from drimbox.bench.usage import family, postmaster, processor_seconds
from drimbox.demo import sites
from drimbox.demo.places import Ports, ports
from drimbox.demo.processes import Running, started
from drimbox.sandbox.pacs import embedded, orthanc
from drimbox.sandbox.pacs.peer import Destination, PacsPeer
from drimbox.sandbox.services import Endpoints, endpoints_of
from drimbox.sandbox.sites import ServicesConfig, config_to_json
from drimbox.store.embedded import address, stop_abandoned

_FIRST_PORT = 18_400
_TITLE = "PACS_A"


@dataclass(frozen=True, slots=True)
class Site:
    """Where everything is, and which processes do what."""

    folder: Path
    ports: Ports
    national: Endpoints
    pacs: PacsPeer
    box: Running
    sandbox: Running

    @property
    def dsn(self) -> str:
        return address(self.folder / "a" / "postgres")

    def processes(self) -> dict[str, list[int]]:
        """The processes of each part; an embedded PACS has none of its own."""
        pid = self.folder / "pacs" / "orthanc.pid"
        return {
            "the box": family(self.box.process.pid),
            "its PostgreSQL": family(postmaster(self.folder / "a" / "postgres")),
            "the sandbox DMP": family(self.sandbox.process.pid),
            "the PACS": [int(pid.read_text())] if pid.exists() else [],
        }

    def processor(self) -> dict[str, float]:
        """Seconds of processor time that each part has taken so far."""
        return {name: processor_seconds(pids) for name, pids in self.processes().items()}


@asynccontextmanager
async def running(folder: Path, studies: dict[int, int]) -> AsyncIterator[Site]:
    """A source whose PACS holds these studies (number and instances). Raises ``NotStarted``, ``Misconfigured``."""
    places = ports(folder, _FIRST_PORT)
    config = ServicesConfig(
        state=folder / "national",
        psc_port=places.psc,
        dmp_port=places.dmp,
        whitelist_port=places.whitelist,
        wallet_port=places.wallet,
        view_port=places.view,
    )
    file = folder / "services.json"
    file.write_text(config_to_json(config), "utf-8")
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(
            started("sandbox", ["sandbox", "--config", str(file)], log=folder / "sandbox.log")
        )
        national = endpoints_of(config)
        sites.write_site_a(folder / "site-a.toml", places, national)
        pacs = await asyncio.to_thread(stack.enter_context, _pacs(folder, places, studies))
        stack.callback(stop_abandoned, folder / "a" / "postgres")
        box = await stack.enter_async_context(
            started("site a", ["run", "--config", str(folder / "site-a.toml")], log=folder / "site-a.log")
        )
        yield Site(folder, places, national, pacs, box, sandbox)


@contextmanager
def _pacs(folder: Path, places: Ports, studies: dict[int, int]) -> Iterator[PacsPeer]:
    files = [file for number, count in studies.items() for file in write_study(folder / "files", number, count)]
    known = (Destination("DRIMBOX_A", "127.0.0.1", places.dicom_a),)
    if not orthanc.installed():
        with embedded.embedded_pacs(embedded.EmbeddedConfig(folder / "files", _TITLE, places.pacs_a, known)) as peer:
            yield peer
        return
    config = orthanc.OrthancConfig(folder / "pacs", _TITLE, places.pacs_a, places.pacs_a_http, known)
    with orthanc.orthanc(config) as peer:
        for start in range(0, len(files), 1000):
            orthanc.rest(peer, "POST", "/instances", zipped(files[start : start + 1000]), 600)
        yield peer


async def one(dsn: str, query: str, *values: object) -> tuple[object, ...]:
    """One row of the box's database."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        row = await (await connection.execute(query, values)).fetchone()
    assert row is not None
    return tuple(row)

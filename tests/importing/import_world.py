"""What the tests of imports share: an exam of another site, a source that hands it over, a box that imports."""

from __future__ import annotations

import asyncio
import datetime as dt
import shutil
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import DrimboxError, Rejected
from drimbox.identity.ins import Ins
from drimbox.images.client import FetchedInstance
from drimbox.images.header import check_ins, read_header, with_ins
from drimbox.images.workers import WorkerPool
from drimbox.importing.desk import Choice, Identifiers, ImportDesk
from drimbox.importing.fetching import LosslessFetcher
from drimbox.importing.ledger import Ledger
from drimbox.importing.means import Differing, Means
from drimbox.importing.orders import (
    Import,
    ImportedPatient,
    NewImport,
    State,
    WantedInstance,
    WantedSeries,
)
from drimbox.importing.ports import Login
from drimbox.importing.runner import Runner, carried_on
from drimbox.importing.targets import PacsTarget, Target
from drimbox.pacs.query import PacsStudyFinder
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.record.audit import Actor, Event
from drimbox.sandbox.pacs.exams import EXAMS
from drimbox.sandbox.pacs.peer import PacsPeer
from drimbox.sandbox.pacs.samples import write_study
from drimbox.store.database import Connection, Pool

INS = Ins.of("279035121518989", "1.2.250.1.213.1.4.10")
PERSON = "899700218896"
LOSSLESS = ("1.2.840.10008.1.2.4.70 1.2.840.10008.1.2.4.80 1.2.840.10008.1.2.1 1.2.840.10008.1.2",)
AS_STORED = ("1.2.840.10008.1.2.4.50 1.2.840.10008.1.2.4.91",)
LOCAL_ID = "IPP-B-4711"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def until(condition: Callable[[], Awaitable[object]], seconds: float = 90.0) -> None:
    """Wait until it holds."""
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, "it did not come to hold"
        await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Exam:
    """An exam as a source serves it: with the INS in each image."""

    study_uid: str
    title: str
    series: tuple[WantedSeries, ...]
    files: Mapping[str, Path]

    @property
    def uids(self) -> set[str]:
        return set(self.files)

    def only(self, *numbers: int) -> Exam:
        return replace(self, series=tuple(self.series[n] for n in numbers))


def make_exam(letter: str, folder: Path, *, ins: Ins = INS, number: int = 0) -> Exam:
    study = EXAMS[letter][number]
    write_study(study, folder / "raw")
    served = folder / "served"
    served.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    series: list[WantedSeries] = []
    for one in study.series:
        listed = []
        for path in sorted((folder / "raw" / str(study.number) / str(one.key)).glob("*.dcm")):
            content = path.read_bytes()
            change = with_ins(content, ins)
            header = read_header(content)
            target = served / f"{header.sop_instance_uid}.dcm"
            target.write_bytes(change.head + content[change.rest :])
            files[header.sop_instance_uid] = target
            listed.append(WantedInstance(header.sop_instance_uid, header.sop_class_uid))
        uid = study.series_uid(one)
        url = f"https://source.example/drim/studies/{study.study_uid}/series/{uid}"
        series.append(WantedSeries(uid, url, one.key, study.modality, one.description, tuple(listed)))
    return Exam(study.study_uid, study.description, tuple(series), files)


@dataclass
class Sources:
    """What ``WadoClient`` does, on files: each image is checked and handed over; it may fail on the way."""

    exam: Exam
    asked: list[tuple[str, Sequence[str]]] = field(default_factory=list)
    fails_after: int | None = None
    error: DrimboxError | None = None
    wrong: Mapping[str, Path] = field(default_factory=dict)
    pause: float = 0.0
    stops_at: int | None = None
    """Nothing more comes after so many, and nothing ends."""
    handed: int = 0
    only: frozenset[str] = frozenset()
    """Syntaxes that it has the images in; empty: whatever is asked for."""

    @asynccontextmanager
    async def fetch_series(
        self,
        retrieve_url: str,
        *,
        tls: ssl.SSLContext,
        token: Callable[[], Awaitable[str]],
        kos_uid: str,
        accept: Sequence[str],
        expected: Collection[str],
        ins: Ins,
        folder: Path,
    ) -> AsyncIterator[AsyncIterator[FetchedInstance]]:
        assert await token() == "jeton"
        self.asked.append((retrieve_url, tuple(accept)))
        if self.only and not self.only & {s for rank in accept for s in rank.split()}:
            raise Rejected("Aucun format", code="syntax-unavailable")
        yield self._images(sorted(expected), ins, folder)

    async def _images(self, uids: Sequence[str], ins: Ins, folder: Path) -> AsyncIterator[FetchedInstance]:
        for number, uid in enumerate(uids):
            if self.fails_after is not None and number >= self.fails_after and self.error is not None:
                raise self.error
            if number == self.stops_at:
                await asyncio.Event().wait()
            if self.pause:
                await asyncio.sleep(self.pause)
            source = self.wrong.get(uid, self.exam.files[uid])
            header = read_header(source.read_bytes())
            check_ins(header, ins)
            path = folder / f"{uid}.dcm"
            shutil.copyfile(source, path)
            self.handed += 1
            yield FetchedInstance(uid, header.sop_class_uid, header.transfer_syntax, path, path.stat().st_size)


@dataclass
class Logins:
    """Who is logged in."""

    here: bool = True

    def find(self, person: str, structure: str) -> Login | None:
        async def token() -> str:
            return "jeton"

        return Login(token, ssl.create_default_context()) if self.here else None


class Hosts:
    """The signed list: one source."""

    async def current(self) -> Hosts:
        return self

    def allows_host(self, host: str) -> bool:
        return host == "source.example"


@dataclass
class Journal:
    events: list[Event] = field(default_factory=list)

    async def write(self, connection: Connection | None, event: Event) -> None:
        self.events.append(event)


def pacs_at(peer: PacsPeer, **changes: object) -> Pacs:
    values: dict[str, object] = {"answer_timeout": 5.0, "connect_timeout": 2.0, **changes}
    return Pacs("pacs-b", peer.host, peer.port, peer.ae_title, "DRIMBOX_B", **values)  # type: ignore[arg-type]


@dataclass
class Box:
    """A box that imports."""

    pool: Pool
    ledger: Ledger
    desk: ImportDesk
    runner: Runner
    means: Means
    journal: Journal

    async def ask(self, exam: Exam, *, target: str = "pacs-b", rules: Identifiers | None = None, **more: object) -> int:
        rules = rules or Identifiers()
        patient = ImportedPatient(INS, LOCAL_ID, "2.25.1740066", "", "PAT-TROIS DOMINIQUE")
        patient = replace(patient, accession=rules.accession_number(""), **more)  # type: ignore[arg-type]
        return await self.desk.ask(
            NewImport(
                person=PERSON,
                actor=Actor(person=PERSON, name="Test", profession="10", structure="1130", address="127.0.0.1"),
                structure="cabinet",
                target=target,
                study_uid=exam.study_uid,
                stored_as=rules.stored_as(exam.study_uid, ""),
                kos_uid="1.2.3.999",
                title=exam.title,
                study_date="20210105",
                patient=patient,
                series=exam.series,
            )
        )

    async def order(self, order_id: int) -> Import:
        found = await self.ledger.find(order_id)
        assert found is not None
        return found

    async def state(self, order_id: int, *states: State, seconds: float = 90.0) -> Import:
        async def there() -> bool:
            return (await self.order(order_id)).state in states

        try:
            await until(there, seconds)
        except AssertionError:
            found = await self.order(order_id)
            raise AssertionError(f"{found.state}: {found.code} {found.reason}, {found.counts}") from None
        return await self.order(order_id)


@asynccontextmanager
async def importing(
    pool: Pool,
    folder: Path,
    sources: Sources,
    pacs: Pacs,
    *,
    logins: Logins | None = None,
    targets: Mapping[str, Target] | None = None,
    transcoder: WorkerPool | None = None,
    node: str = "node",
    whole_series: bool = False,
    give_up: dt.timedelta = dt.timedelta(days=1),
    shortest: float = 0.1,
    tries: int = 4,
    differing: Differing | None = None,
) -> AsyncIterator[Box]:
    """A box, its imports going on until the block ends."""
    async with AsyncExitStack() as stack:
        link = PacsLink(pacs)
        stack.callback(link.close)
        workers = transcoder or WorkerPool(size=1)
        stack.push_async_callback(workers.close)
        ledger, journal = Ledger(pool, node), Journal()
        own = {"pacs-b": PacsTarget("pacs-b", "PACS du cabinet", link, PacsStudyFinder(link))}
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        means = Means(
            ledger=ledger,
            targets=targets or own,
            fetcher=LosslessFetcher(sources, Hosts(), LOSSLESS, AS_STORED),
            logins=logins or Logins(),
            journal=journal,
            transcoder=workers,
            clock=SystemClock(),
            folder=folder,
            box_name="site-b",
            whole_series=whole_series,
            tries=tries,
            differing=differing,
        )
        runner = Runner(means, give_up=give_up, shortest=shortest)
        desk = ImportDesk(ledger, runner, [Choice(t.id, t.title) for t in means.targets.values()], {}, Identifiers())
        await stack.enter_async_context(carried_on(runner))
        yield Box(pool, ledger, desk, runner, means, journal)

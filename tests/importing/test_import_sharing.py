"""The cache of the consumer: fetched once for a site, served to none but those who could have fetched it."""

from __future__ import annotations

import asyncio
import datetime as dt
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from import_world import INS, Exam, make_exam, until

from drimbox.cache.limits import Limits
from drimbox.foundation.clock import FixedClock
from drimbox.foundation.errors import IdentityMismatch, Rejected, Unavailable
from drimbox.identity.ins import Ins
from drimbox.images.client import FetchedInstance, SourceState, WadoClient
from drimbox.images.header import check_ins, read_header
from drimbox.importing.sharing import Retention, SharedFetcher, expire, sharing

VIEW = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1 1.2.840.10008.1.2.4.80")
IMPORT = ("1.2.840.10008.1.2.1 1.2.840.10008.1.2.4.80",)
ANOTHER = Ins.of("279035121518989", "1.2.250.1.213.1.4.11")


@dataclass
class Wado:
    """A source that counts what it is asked."""

    exam: Exam
    asked: int = 0
    fails_after: int | None = None
    error: Exception | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def probe(self, retrieve_url: str, *, tls: ssl.SSLContext) -> SourceState:
        return SourceState.ALIVE

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
        self.asked += 1
        await token()
        yield self._images(sorted(expected), ins, folder)

    async def _images(self, uids: Sequence[str], ins: Ins, folder: Path) -> AsyncIterator[FetchedInstance]:
        for number, uid in enumerate(uids):
            if self.fails_after == number and self.error is not None:
                raise self.error
            if number == 2:
                await self.gate.wait()
            header = read_header(self.exam.files[uid].read_bytes())
            check_ins(header, ins)
            path = folder / f"{uid}.dcm"
            shutil.copyfile(self.exam.files[uid], path)
            yield FetchedInstance(uid, header.sop_class_uid, header.transfer_syntax, path, path.stat().st_size)


@dataclass
class Site:
    fetcher: SharedFetcher
    wado: Wado
    folder: Path
    clock: FixedClock
    contexts: dict[str, ssl.SSLContext]
    number: int = 0

    async def fetch(
        self,
        *,
        accept: Sequence[str] = VIEW,
        ins: Ins = INS,
        kos: str = "1.2.3.9",
        site: str = "cabinet",
        token: Callable[[], Awaitable[str]] | None = None,
    ) -> dict[str, Path]:
        async def good() -> str:
            return "jeton"

        self.number += 1
        folder = self.folder / f"session-{self.number}"
        folder.mkdir()
        series = self.wado.exam.series[0]
        found: dict[str, Path] = {}
        async with self.fetcher.fetch_series(
            series.retrieve_url,
            tls=self.contexts[site],
            token=token or good,
            kos_uid=kos,
            accept=accept,
            expected=[i.sop_instance_uid for i in series.instances],
            ins=ins,
            folder=folder,
        ) as images:
            async for image in images:
                assert image.path.parent == folder
                found[image.sop_instance_uid] = image.path
        return found


@pytest.fixture(params=[False, True], ids=["clear", "sealed"])
def sealed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@asynccontextmanager
async def sharing_site(
    folder: Path, *, sealed: bool = False, letter: str = "B", max_bytes: int = 2**30, retention: Retention | None = None
) -> AsyncIterator[Site]:
    exam = make_exam(letter, folder)
    wado = Wado(exam)
    wado.gate.set()
    clock = FixedClock(dt.datetime(2024, 3, 1, 9, tzinfo=dt.UTC))
    contexts = {name: ssl.create_default_context() for name in ("cabinet", "clinique", "inconnue")}
    names = {id(context): name for name, context in contexts.items() if name != "inconnue"}
    as_client: WadoClient = wado  # type: ignore[assignment]
    async with sharing(
        as_client,
        folder / "cache",
        b"k" * 32,
        Limits(max_bytes=max_bytes, min_free=0, whole=False, by_notes=True),
        retention or Retention(),
        clock,
        lambda tls: names.get(id(tls), ""),
        sealed=sealed,
    ) as fetcher:
        yield Site(fetcher, wado, folder, clock, contexts)


@pytest.mark.requirement("DB.CO.69", "DB.CO.70")
async def test_two_radiologists_fetch_once(tmp_path: Path, sealed: bool) -> None:
    async with sharing_site(tmp_path, sealed=sealed) as site:
        first = await site.fetch()
        second = await site.fetch()
        assert site.wado.asked == 1
        assert set(first) == set(second) == site.wado.exam.uids
        for uid, path in second.items():
            assert path.read_bytes() == site.wado.exam.files[uid].read_bytes()


async def test_two_at_the_same_moment_share_one_transfer(tmp_path: Path) -> None:
    async with sharing_site(tmp_path) as site:
        site.wado.gate.clear()
        both = [asyncio.create_task(site.fetch()), asyncio.create_task(site.fetch())]
        await asyncio.sleep(0.1)
        site.wado.gate.set()
        first, second = await asyncio.gather(*both)
        assert site.wado.asked == 1
        assert len(first) == len(second) == 20


async def test_a_view_then_an_import_fetch_once_where_nothing_was_lost(tmp_path: Path) -> None:
    async with sharing_site(tmp_path) as site:
        await site.fetch(accept=VIEW)
        await site.fetch(accept=IMPORT)
        assert site.wado.asked == 1


@pytest.mark.requirement("D24")
async def test_what_was_made_with_loss_is_not_imported(tmp_path: Path) -> None:
    async with sharing_site(tmp_path, letter="N") as site:
        await site.fetch(accept=VIEW)
        # The same exam, asked for without loss: the source is asked, whatever is here.
        with pytest.raises(Exception, match="syntaxe"):
            await site.fetch(accept=IMPORT)
        assert site.wado.asked == 2


@pytest.mark.parametrize("change", [{"ins": ANOTHER}, {"kos": "1.2.3.10"}, {"site": "clinique"}, {"site": "inconnue"}])
async def test_another_patient_kos_or_site_is_served_nothing_of_it(change: dict[str, object], tmp_path: Path) -> None:
    async with sharing_site(tmp_path) as site:
        await site.fetch()
        if "ins" in change:
            with pytest.raises(IdentityMismatch):
                await site.fetch(**change)  # type: ignore[arg-type]
        else:
            await site.fetch(**change)  # type: ignore[arg-type]
        assert site.wado.asked == 2


async def test_who_is_logged_out_is_served_nothing(tmp_path: Path) -> None:
    async def over() -> str:
        raise Rejected("Session terminée", code="login-ended")

    async with sharing_site(tmp_path) as site:
        await site.fetch()
        with pytest.raises(Rejected, match="terminée"):
            await site.fetch(token=over)


async def test_of_a_transfer_that_failed_nothing_stays(tmp_path: Path) -> None:
    async with sharing_site(tmp_path) as site:
        site.wado.fails_after, site.wado.error = 5, Unavailable("Coupée", code="source-error")
        with pytest.raises(Unavailable):
            await site.fetch()
        site.wado.fails_after = None
        assert len(await site.fetch()) == 20
        assert site.wado.asked == 2


async def test_a_disk_without_room_for_what_comes_is_told_in_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with sharing_site(tmp_path) as site:
        # Nothing can be made in what is no folder.
        spool = tmp_path / "cache-spool"
        spool.write_bytes(b"")
        with pytest.raises(Unavailable, match="Espace de stockage des images indisponible") as caught:
            await site.fetch()
        assert caught.value.code == "disk"
        assert "Traceback" not in caplog.text
        spool.unlink()
        assert len(await site.fetch()) == 20


async def test_a_mismatch_takes_back_what_was_handed_over(tmp_path: Path) -> None:
    async with sharing_site(tmp_path) as site:
        site.wado.fails_after, site.wado.error = 5, IdentityMismatch("Autre patient", code="ins-differs")
        with pytest.raises(IdentityMismatch):
            await site.fetch()
        assert list((tmp_path / "session-1").iterdir()) == []


async def test_the_last_reader_who_leaves_ends_the_transfer(tmp_path: Path) -> None:
    async with sharing_site(tmp_path) as site:
        site.wado.gate.clear()
        reading = asyncio.create_task(site.fetch())
        await asyncio.sleep(0.1)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        site.wado.gate.set()
        assert len(await site.fetch()) == 20
        assert site.wado.asked == 2


async def test_a_cache_that_is_full_serves_all_the_same(tmp_path: Path) -> None:
    async with sharing_site(tmp_path, max_bytes=200_000) as site:
        assert len(await site.fetch()) == 20
        assert len(await site.fetch()) == 20


async def test_the_session_goes_on_when_the_cache_lets_go(tmp_path: Path) -> None:
    async with sharing_site(tmp_path) as site:
        found = await site.fetch()
        cache = site.fetcher._cache
        for volume in cache.store.volumes:
            cache.store.drop(volume)
        await cache.store.settle()
        for uid, path in found.items():
            assert path.read_bytes() == site.wado.exam.files[uid].read_bytes()


async def test_it_is_there_after_a_restart_within_the_day(tmp_path: Path) -> None:
    async with sharing_site(tmp_path) as site:
        await site.fetch()

        async def kept() -> bool:
            return any(v.card.synced for v in site.fetcher._cache.store.volumes)

        await until(kept)
    async with sharing_site(tmp_path) as again:
        again.number = 10
        await again.fetch()
        assert again.wado.asked == 0
    async with sharing_site(tmp_path) as site:
        site.number = 30
        site.clock.advance(86400)
        assert expire(site.fetcher._cache.store, Retention(), site.clock) == 1
        await site.fetch()
        assert site.wado.asked == 1


def test_the_working_day() -> None:
    paris = ZoneInfo("Europe/Paris")
    day = Retention(day_ends=dt.time(20))
    assert day.limit(dt.datetime(2024, 3, 1, 9, tzinfo=paris)) == dt.datetime(2024, 2, 29, 20, tzinfo=paris)
    assert day.limit(dt.datetime(2024, 3, 1, 21, tzinfo=paris)) == dt.datetime(2024, 3, 1, 20, tzinfo=paris)
    assert Retention(hours=2).limit(dt.datetime(2024, 3, 1, 9, tzinfo=paris)) == dt.datetime(
        2024, 3, 1, 7, tzinfo=paris
    )

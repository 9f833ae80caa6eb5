"""The network between a PACS and us cuts, resets and stalls: whatever came is whole, what did not is told."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.pacs.access import AnyFinder, AnySource
from drimbox.pacs.contents import Contents
from drimbox.pacs.dicomweb import DicomWeb, WebService
from drimbox.pacs.dimse.storing import Outgoing
from drimbox.pacs.header import outgoing
from drimbox.pacs.query import PacsStudyFinder
from drimbox.pacs.retrieve import PacsGetSource, PacsSeriesSource, SeriesSource, StoredInstance
from drimbox.pacs.site import Pacs
from drimbox.pacs.store import PacsStore, Sent
from drimbox.pacs.ways import Ways
from drimbox.pacs.web_query import WebStudyFinder
from drimbox.pacs.web_retrieve import WebSeriesSource
from drimbox.sandbox.pacs.exams import EXAMS
from drimbox.sandbox.pacs.peer import PacsPeer
from pacs.between import Between, between
from pacs.conftest import OUR_AE
from pacs.desk import Desk, check_series, collect, desk, same
from pacs.test_store import storescp

STUDY = EXAMS["B"][0]
SERIES = STUDY.series[0]
SERIES_UID = STUDY.series_uid(SERIES)
UIDS = list(STUDY.instance_uids(SERIES))
# In the middle of the association, of the first image, of a later one.
CUTS = [("cut", 60), ("stall", 60), ("cut", 3_000), ("reset", 300_000), ("stall", 300_000)]


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    async with HttpClient() as client:
        yield client


def impatient(pacs: Pacs, **changes: object) -> Pacs:
    return replace(pacs, answer_timeout=0.5, connect_timeout=0.5, **changes)  # type: ignore[arg-type]


async def broken(source: SeriesSource, studies: Path) -> tuple[list[StoredInstance], Unavailable]:
    """What came, each image the PACS's own, and the error that says that it is not all."""
    place = {uid: studies / "B" / str(STUDY.number) / str(SERIES.key) / f"I{i}.dcm" for i, uid in enumerate(UIDS, 1)}
    got: list[StoredInstance] = []

    async def read() -> None:
        async with source.retrieve(STUDY.study_uid, SERIES_UID, UIDS) as instances:
            async for one in instances:
                assert await asyncio.to_thread(same, one.path, place[one.sop_instance_uid])
                got.append(one)

    began = time.monotonic()
    with pytest.raises(Unavailable) as error:
        await read()
    assert time.monotonic() - began < 10
    assert len(got) < len(UIDS)
    return got, error.value


def check_place(act: str, after: int, got: Sequence[StoredInstance]) -> None:
    """What had come whole was given; a reset may take away what lay in the buffers."""
    assert got or after <= 3_000 or act == "reset"
    assert not got or after > 3_000


def at(pacs: Pacs, proxy: Between) -> Pacs:
    return impatient(replace(pacs, port=proxy.port))


@pytest.mark.requirement("D14")
@pytest.mark.parametrize(("act", "after"), CUTS)
async def test_c_get_is_cut(act: str, after: int, orthanc_pacs: Pacs, studies: Path, tmp_path: Path) -> None:
    async with desk(orthanc_pacs, tmp_path / "spool") as opened:
        contents = Contents()
        study = await PacsStudyFinder(opened.link).find(STUDY.study_uid)
        assert study is not None
        contents.note(study)
        with between(orthanc_pacs.port, after=after, act=act) as proxy:
            async with desk(at(orthanc_pacs, proxy), tmp_path / "cut") as cut:
                source = PacsGetSource(cut.link, cut.inbox, PacsStudyFinder(cut.link), contents)
                got, error = await broken(source, studies)
                assert error.code in ("pacs-aborted", "pacs-silent")
                check_place(act, after, got)
                assert cut.folders() == []


@pytest.mark.requirement("D14")
@pytest.mark.parametrize(("act", "after"), CUTS)
async def test_dicomweb_is_cut(
    act: str, after: int, orthanc_pacs: Pacs, orthanc_peer: PacsPeer, studies: Path, http: HttpClient, tmp_path: Path
) -> None:
    with between(int(orthanc_peer.rest_url.rpartition(":")[2]), after=after, act=act) as proxy:
        web = web_service(http, orthanc_peer, proxy.port)
        async with desk(impatient(orthanc_pacs), tmp_path / "spool") as opened:
            source = WebSeriesSource(opened.link, web, opened.inbox)
            got, error = await broken(source, studies)
            assert error.code in ("pacs-aborted", "pacs-silent", "pacs-unreachable")
            check_place(act, after, got)
            assert opened.folders() == []
            # The same with a question: an answer that is cut is none.
            proxy.after = min(after, 300)
            with pytest.raises(Unavailable):
                await WebStudyFinder(opened.link, web).find(STUDY.study_uid)


@pytest.mark.parametrize(("act", "after"), [("cut", 60), ("stall", 600), ("cut", 1_500)])
async def test_c_find_is_cut(act: str, after: int, orthanc_pacs: Pacs, tmp_path: Path) -> None:
    with between(orthanc_pacs.port, after=after, act=act) as proxy:
        async with desk(at(orthanc_pacs, proxy), tmp_path / "spool") as opened:
            with pytest.raises(Unavailable):
                await PacsStudyFinder(opened.link).find(STUDY.study_uid)


@pytest.mark.requirement("D14")
@pytest.mark.parametrize("act", ["cut", "reset", "stall"])
async def test_the_way_back_of_a_c_move_is_cut(
    act: str, orthanc_pacs: Pacs, our_port: int, studies: Path, tmp_path: Path
) -> None:
    """Between Orthanc, which stores to us, and our receiver; the next retrieve is whole."""
    async with desk(impatient(orthanc_pacs), tmp_path / "spool") as opened:
        with between(opened.receiver.port, our_port, after=200_000, act=act, times=1, calling=True):
            source = PacsSeriesSource(opened.link, opened.inbox, OUR_AE, late_timeout=0.2)
            await broken(source, studies)
            assert opened.folders() == []
            await check_series(source, STUDY, SERIES, studies / "B")
        assert opened.folders() == []


# ------------------------------------------------------------------------------------------------------------- sending


async def store(pacs: Pacs, images: Sequence[Outgoing], sent: list[Sent], folder: Path) -> None:
    async with desk(pacs, folder) as opened, PacsStore(opened.link).sending(images) as results:
        async for one in results:
            sent.append(one)


@pytest.mark.parametrize(("act", "after"), [("cut", 60), ("cut", 3_000), ("reset", 300_000), ("stall", 300_000)])
async def test_a_c_store_out_that_is_cut_goes_out_again(act: str, after: int, studies: Path, tmp_path: Path) -> None:
    """Once: every image is stored in the end, and told of once. In the association: nothing was lost by it."""
    images = [outgoing(path) for path in sorted((studies / "B").rglob("*.dcm"))]
    with storescp(tmp_path / "got") as peer, between(peer.port, after=after, act=act, times=1, calling=True) as proxy:
        pacs = Pacs("essai", "127.0.0.1", proxy.port, peer.ae_title, answer_timeout=0.5, connect_timeout=0.5)
        sent: list[Sent] = []
        try:
            await store(pacs, images, sent, tmp_path / "spool")
        except Unavailable:
            # No association came about: that is told at once.
            assert after == 60
            assert sent == []
            return
    assert after > 60
    assert sorted(one.instance.sop_instance_uid for one in sent) == sorted(i.sop_instance_uid for i in images)
    assert all(one.stored for one in sent)
    landed = {pydicom.dcmread(path).SOPInstanceUID for path in (tmp_path / "got").iterdir()}
    assert landed >= {i.sop_instance_uid for i in images}


@pytest.mark.parametrize("act", ["cut", "stall"])
async def test_a_c_store_out_that_is_always_cut_is_told(act: str, studies: Path, tmp_path: Path) -> None:
    images = [outgoing(path) for path in sorted((studies / "B").rglob("*.dcm"))]
    with storescp(tmp_path / "got") as peer, between(peer.port, after=3_000, act=act, calling=True) as proxy:
        pacs = Pacs("essai", "127.0.0.1", proxy.port, peer.ae_title, answer_timeout=0.3, connect_timeout=0.5)
        sent: list[Sent] = []
        with pytest.raises(Unavailable):
            await store(pacs, images, sent, tmp_path / "spool")
    assert not any(one.stored for one in sent)


# ------------------------------------------------------------------------------------------------------------ fall-back


def web_service(http: HttpClient, peer: PacsPeer, port: int) -> WebService:
    address = DicomWeb(
        f"http://127.0.0.1:{port}/dicom-web", ssl.create_default_context(), peer.rest_user, peer.rest_password
    )
    return WebService(http, address, "essai")


@asynccontextmanager
async def box(
    pacs: Pacs, peer: PacsPeer, web_port: int, spool: Path, our_port: int, http: HttpClient
) -> AsyncIterator[tuple[Desk, AnySource, Ways]]:
    """Every way to Orthanc as a box puts them together, its DICOMweb behind a port of ours."""
    async with desk(pacs, spool, our_port) as opened:
        contents = Contents()
        finder = AnyFinder({"dimse": PacsStudyFinder(opened.link)}, Ways(("dimse",), SystemClock()), contents)
        sources: Mapping[str, SeriesSource] = {
            "dicomweb": WebSeriesSource(opened.link, web_service(http, peer, web_port), opened.inbox),
            "move": PacsSeriesSource(opened.link, opened.inbox, OUR_AE, late_timeout=0.2),
            "get": PacsGetSource(opened.link, opened.inbox, finder, contents),
        }
        ways = Ways(("dicomweb", "move", "get"), SystemClock())
        yield opened, AnySource(sources, ways), ways


async def test_what_is_cut_before_its_first_image_comes_by_another_way(
    orthanc_pacs: Pacs, orthanc_peer: PacsPeer, our_port: int, studies: Path, http: HttpClient, tmp_path: Path
) -> None:
    web_port = int(orthanc_peer.rest_url.rpartition(":")[2])
    with between(web_port, after=1_000, act="cut") as proxy:
        async with box(orthanc_pacs, orthanc_peer, proxy.port, tmp_path / "spool", our_port, http) as (
            opened,
            source,
            ways,
        ):
            await check_series(source, STUDY, SERIES, studies / "B")
            assert ways.in_order() == ("move", "get", "dicomweb")
            before = proxy.connections
            await check_series(source, STUDY, SERIES, studies / "B")
            assert proxy.connections == before
            assert opened.folders() == []


async def test_what_is_cut_after_its_first_image_is_told_and_never_filled_up(
    orthanc_pacs: Pacs, orthanc_peer: PacsPeer, our_port: int, studies: Path, http: HttpClient, tmp_path: Path
) -> None:
    web_port = int(orthanc_peer.rest_url.rpartition(":")[2])
    with between(web_port, after=300_000, act="cut") as proxy:
        async with box(orthanc_pacs, orthanc_peer, proxy.port, tmp_path / "spool", our_port, http) as (
            opened,
            source,
            _,
        ):
            got, _ = await broken(source, studies)
            assert got
            assert opened.folders() == []


async def test_every_way_at_once_and_nothing_is_mixed(
    orthanc_pacs: Pacs, orthanc_peer: PacsPeer, our_port: int, studies: Path, http: HttpClient, tmp_path: Path
) -> None:
    """Different studies by C-MOVE, C-GET and WADO-RS through one inbox, three times each, some read slowly."""
    web_port = int(orthanc_peer.rest_url.rpartition(":")[2])
    pacs = replace(orthanc_pacs, max_associations=8)
    async with (
        box(pacs, orthanc_peer, web_port, tmp_path / "spool", our_port, http) as (opened, _, _),
        asyncio.timeout(60),
    ):
        contents = Contents()
        ways: list[SeriesSource] = [
            PacsSeriesSource(opened.link, opened.inbox, OUR_AE, late_timeout=0.5),
            PacsGetSource(opened.link, opened.inbox, PacsStudyFinder(opened.link), contents),
            WebSeriesSource(opened.link, web_service(http, orthanc_peer, web_port), opened.inbox),
        ]
        await asyncio.gather(
            *(
                check_series(source, study, series, studies / letter, pause=0.01 * number)
                for number, source in enumerate(ways)
                for letter in "BCEFN"
                for study in EXAMS[letter]
                for series in study.series
            )
        )
        assert opened.folders() == []


async def test_two_pacs_of_which_one_refuses_c_move(
    orthanc_pacs: Pacs, orthanc_peer: PacsPeer, our_port: int, studies: Path, http: HttpClient, tmp_path: Path
) -> None:
    """Each PACS has what was learnt of it for itself; what one is asked for never comes out of the other."""
    async with box(orthanc_pacs, orthanc_peer, 1, tmp_path / "spool", our_port, http) as (opened, one, ways):
        # The same archive under another name: a destination that it does not know.
        learnt = Ways(("move", "get"), SystemClock())
        finder = PacsStudyFinder(opened.link)
        other = AnySource(
            {
                "move": PacsSeriesSource(opened.link, opened.inbox, "NOWHERE", late_timeout=0.2),
                "get": PacsGetSource(opened.link, opened.inbox, finder, Contents()),
            },
            learnt,
        )
        study = EXAMS["F"][0]
        await asyncio.gather(
            check_series(one, STUDY, SERIES, studies / "B", pause=0.01),
            check_series(other, study, study.series[0], studies / "F", pause=0.01),
        )
        # The first lost its DICOMweb, the second its C-MOVE.
        assert ways.in_order() == ("move", "get", "dicomweb")
        assert learnt.in_order() == ("get", "move")
        with pytest.raises(Unavailable):
            await collect(
                PacsSeriesSource(opened.link, opened.inbox, "NOWHERE", late_timeout=0.2),
                study.study_uid, None, ["1.2.3"], [],
            )  # fmt: skip
        assert opened.folders() == []

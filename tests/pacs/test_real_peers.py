"""Debian's own PACSs by every way that they have, in clear and over TLS: the same images, and refusals that tell."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from drimbox.foundation.errors import Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.pacs.contents import Contents
from drimbox.pacs.dicomweb import DicomWeb, WebService
from drimbox.pacs.header import outgoing, read_header
from drimbox.pacs.query import PacsStudyFinder
from drimbox.pacs.retrieve import PacsGetSource, PacsSeriesSource, StoredInstance
from drimbox.pacs.site import PacsLink
from drimbox.pacs.store import PacsStore
from drimbox.pacs.study import Instance, Series, Study
from drimbox.pacs.web_query import WebStudyFinder
from drimbox.pacs.web_retrieve import WebSeriesSource
from drimbox.sandbox.pacs import orthanc as debian
from drimbox.sandbox.pacs.exams import EXAMS
from drimbox.sandbox.pacs.peer import Destination, PacsPeer
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.trust.keystore import load_credential
from drimbox.trust.tls import client_context, load_trust, server_context
from pacs.between import tls_front
from pacs.conftest import OUR_AE, free_port, pacs_of
from pacs.desk import check_series, collect, desk
from pacs.test_get import DCMQRSCP, wait_for

STUDY = EXAMS["B"][0]
SERIES = STUDY.series[0]
UIDS = list(STUDY.instance_uids(SERIES))


# ------------------------------------------------------------------------------------------------ Orthanc, all over TLS


@pytest.fixture(scope="module")
def pairs(authority: TestAuthority) -> dict[str, PemPair]:
    """A certificate of Orthanc's, which serves and calls, and ours: a server's and a client's."""

    def issued(profile: Profile, name: str) -> PemPair:
        return authority.issue(profile, f"real-{name}", common_name="localhost", unit="U", organisation="O",
                               hosts=["localhost"])  # fmt: skip

    return {
        "orthanc": issued(Profile.SSL_BOTH, "orthanc"),
        "server": issued(Profile.SSL_SERV, "server"),
        "client": authority.issue(Profile.ORG_AUTH_CLI, "real-client", common_name="box", unit="U", organisation="O"),
    }


@pytest.fixture(scope="module")
def tls_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def over_tls(
    authority: TestAuthority,
    pairs: dict[str, PemPair],
    studies: Path,
    tls_port: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[PacsPeer]:
    """Orthanc with DICOM TLS both ways, which asks for certificates, and HTTPS."""
    if not debian.installed():
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    tls = debian.OrthancTls(pairs["orthanc"].certificate, pairs["orthanc"].key, authority.roots)
    config = debian.OrthancConfig(
        tmp_path_factory.mktemp("orthanc-tls"), "PACS_TLS", free_port(), free_port(),
        [Destination(OUR_AE, "127.0.0.1", tls_port)], tls=tls,
    )  # fmt: skip
    with debian.orthanc(config, sorted((studies / "B").rglob("*.dcm"))) as peer:
        yield peer


def calling(authority: TestAuthority, pairs: dict[str, PemPair]) -> ssl.SSLContext:
    return client_context(
        load_trust([authority.roots]), load_credential(pairs["client"].certificate, pairs["client"].key)
    )


def called(authority: TestAuthority, pairs: dict[str, PemPair]) -> ssl.SSLContext:
    pair = pairs["server"]
    return server_context(load_credential(pair.certificate, pair.key), load_trust([authority.roots]))


@pytest.mark.requirement("DB.SO.12", "DB.SO.32")
async def test_orthanc_over_tls_by_every_way(
    over_tls: PacsPeer,
    authority: TestAuthority,
    pairs: dict[str, PemPair],
    studies: Path,
    tls_port: int,
    tmp_path: Path,
) -> None:
    """C-ECHO, C-FIND, C-MOVE with C-STORE back to us, C-GET; QIDO-RS and WADO-RS; C-STORE out."""
    pacs = pacs_of(over_tls, tls_name="localhost")
    opened_desk = desk(
        pacs,
        tmp_path / "spool",
        tls_port,
        calling=calling(authority, pairs),
        called=called(authority, pairs),
        names={"PACS_TLS": frozenset({"localhost"})},
    )
    web_port = int(over_tls.rest_url.rpartition(":")[2])
    # Its DICOMweb behind a TLS proxy: Debian's Orthanc does not survive its first HTTPS request.
    async with tls_front(web_port, called(authority, pairs)) as front, HttpClient() as http, opened_desk as opened:
        await opened.link.echo()
        address = DicomWeb(
            f"https://localhost:{front}/dicom-web",
            calling(authority, pairs),
            over_tls.rest_user,
            over_tls.rest_password,
        )
        web = WebService(http, address, "essai")
        told = await PacsStudyFinder(opened.link).find(STUDY.study_uid)
        asked = await WebStudyFinder(opened.link, web).find(STUDY.study_uid)
        assert told is not None
        assert asked is not None
        assert told.series == asked.series
        for source in (opened.source(), opened.get_source(), WebSeriesSource(opened.link, web, opened.inbox)):
            await check_series(source, STUDY, SERIES, studies / "B")
        images = [outgoing(path) for path in sorted((studies / "B").rglob("*.dcm"))]
        async with PacsStore(opened.link).sending(images) as sent:
            assert all([one.stored async for one in sent])
        assert opened.folders() == []


async def test_a_retrieve_over_tls_is_left_early(
    over_tls: PacsPeer, authority: TestAuthority, pairs: dict[str, PemPair], tmp_path: Path
) -> None:
    """C-CANCEL goes out while the other thread reads what still comes; the next retrieve is whole."""
    async with desk(
        pacs_of(over_tls, tls_name="localhost"), tmp_path / "spool", calling=calling(authority, pairs)
    ) as opened:
        for _ in range(5):
            async with opened.get_source().retrieve(STUDY.study_uid, STUDY.series_uid(SERIES), UIDS) as instances:
                await anext(aiter(instances))
            assert opened.folders() == []
        got: list[StoredInstance] = []
        await collect(opened.get_source(), STUDY.study_uid, None, UIDS, got)
        assert len(got) == len(UIDS)


async def test_who_is_not_who_it_says_is_refused_by_both(
    over_tls: PacsPeer, authority: TestAuthority, pairs: dict[str, PemPair], tls_port: int, tmp_path: Path
) -> None:
    trusted = client_context(load_trust([authority.roots]))
    for tls, code in ((None, "pacs-silent|pacs-aborted"), (trusted, "pacs-aborted|pacs-tls|pacs-silent")):
        link = PacsLink(pacs_of(over_tls, tls_name="localhost", answer_timeout=1.0, connect_timeout=1.0), tls=tls)
        # In clear, or without the certificate that Orthanc asks for.
        with pytest.raises(Unavailable) as error:
            await link.echo()
        assert error.value.code in code.split("|")
        link.close()
    # Its own certificate does not carry the name that the box knows the PACS by: nothing is taken from it.
    async with desk(
        pacs_of(over_tls, tls_name="localhost"),
        tmp_path / "spool",
        tls_port,
        calling=calling(authority, pairs),
        called=called(authority, pairs),
        names={"PACS_TLS": frozenset({"pacs.example"})},
    ) as opened:
        with pytest.raises((Unavailable, Rejected)):
            await collect(opened.source(), STUDY.study_uid, STUDY.series_uid(SERIES), UIDS, [])
        assert opened.folders() == []


# ---------------------------------------------------------------------------------------------------------------- DCMTK


@pytest.fixture(scope="module")
def dcmtk_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def dcmtk(studies: Path, dcmtk_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PacsPeer]:
    """DCMTK's own PACS with one study in uncompressed and one in compressed images; it knows us as a destination."""
    if not Path(DCMQRSCP).exists():
        pytest.skip("dcmtk is not installed")
    folder = tmp_path_factory.mktemp("dcmqrscp")
    store = folder / "images"
    store.mkdir()
    files = [
        Path(shutil.copy(path, store / f"{letter}-{path.parent.parent.name}-{path.parent.name}-{path.name}"))
        for letter in "BF"
        for path in sorted((studies / letter).rglob("*.dcm"))
    ]
    port = free_port()
    config = folder / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        f"HostTable BEGIN\nbox = ({OUR_AE}, 127.0.0.1, {dcmtk_port})\nHostTable END\n"
        "VendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nQRSCP {store} RW (200, 1024mb) ANY\nAETable END\n"
    )
    subprocess.run(["/usr/bin/dcmqridx", str(store), *map(str, files)], check=True, capture_output=True, timeout=60)
    process = subprocess.Popen(
        [DCMQRSCP, "-c", str(config)],
        env={name: value for name, value in os.environ.items() if name != "TCP_NODELAY"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        yield PacsPeer("QRSCP", "127.0.0.1", port)
    finally:
        process.terminate()
        process.wait(10)


def contents(studies: Path) -> Contents:
    """What another query would have told: DCMTK's own does not name the SOP classes."""
    known = Contents()
    headers = [read_header(path) for path in sorted((studies / "B").rglob("*.dcm"))]
    instances = tuple(Instance(h.sop_class_uid, h.sop_instance_uid) for h in headers)
    known.note(Study(STUDY.study_uid, *([""] * 12), series=(Series("1.2.3", "", 1, "", "", instances),)))
    return known


async def test_dcmtk_by_c_move_and_c_get(dcmtk: PacsPeer, dcmtk_port: int, studies: Path, tmp_path: Path) -> None:
    async with desk(pacs_of(dcmtk), tmp_path / "spool", dcmtk_port) as opened:
        await opened.link.echo()
        move = PacsSeriesSource(opened.link, opened.inbox, OUR_AE, late_timeout=0.3)
        get = PacsGetSource(opened.link, opened.inbox, PacsStudyFinder(opened.link), contents(studies))
        await check_series(move, STUDY, SERIES, studies / "B")
        await check_series(get, STUDY, SERIES, studies / "B")
        got: list[StoredInstance] = []
        with pytest.raises(Rejected) as missing:
            await collect(move, STUDY.study_uid, STUDY.series_uid(SERIES), [*UIDS, "1.2.3"], got)
        assert (missing.value.code, len(got)) == ("pacs-instances-missing", len(UIDS))
        # It lists images without their SOP class: that is no list that a KOS could be made of, and is told.
        with pytest.raises(Rejected) as error:
            await PacsStudyFinder(opened.link).find(STUDY.study_uid)
        assert error.value.code == "pacs-no-sop-class"
        assert await PacsStudyFinder(opened.link).find("1.2.3.4") is None
        assert opened.folders() == []


async def test_dcmtk_does_not_know_the_destination(dcmtk: PacsPeer, dcmtk_port: int, tmp_path: Path) -> None:
    async with desk(pacs_of(dcmtk), tmp_path / "spool", dcmtk_port) as opened:
        source = PacsSeriesSource(opened.link, opened.inbox, "NOBODY", late_timeout=0.3)
        with pytest.raises(Unavailable) as error:
            await collect(source, STUDY.study_uid, STUDY.series_uid(SERIES), UIDS, [])
        assert (error.value.code, error.value.peer_code) == ("pacs-destination-unknown", "A801H")

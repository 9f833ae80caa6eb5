"""The cache behind the WADO-RS service, over real mutual TLS: what callers get, who is told of what, and how fast."""

from __future__ import annotations

import asyncio
import io
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import pydicom
import pytest
import pytest_asyncio
from cache_world import Exam, Pacs, World, right
from cache_world import world as cache_world
from pydicom.encaps import get_frame
from test_wado_server import parts_of
from world import Access, Archive, Domain, Introspection, Keys, Psc, Whitelist, make_keys, until

from drimbox.cache.limits import Limits
from drimbox.dicom.syntaxes import EXPLICIT_LE, JPEG_LS
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Unavailable
from drimbox.foundation.http_client import HttpClient, Reply
from drimbox.foundation.http_server import serving
from drimbox.identity.ins import Ins, key
from drimbox.images.header import read_header
from drimbox.images.retrieval import Limits as AnswerLimits
from drimbox.images.wado import wado_app
from drimbox.images.workers import WorkerPool, worker_pool
from drimbox.pacs.study import Instance
from drimbox.sandbox.pki import TestAuthority

__all__ = ["Domain", "Whitelist"]
pytestmark = pytest.mark.asyncio(loop_scope="module")
ANY = 'multipart/related; type="application/dicom"; transfer-syntax=*'


@dataclass(frozen=True)
class _Series:
    series_uid: str
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class _Manifest:
    study_uid: str
    series: tuple[_Series, ...]


@dataclass
class Box:
    """A source box with a cache that listens."""

    keys: Keys
    here: World
    port: int = 0
    archive: Archive = field(default_factory=lambda: Archive({}))
    accesses: list[Access] = field(default_factory=list)
    manifests: dict[str, _Manifest] = field(default_factory=dict)

    def add(self, exam: Exam) -> Exam:
        self.here.pacs.add(exam)
        self.archive.held[exam.kos_uid] = exam.kos  # type: ignore[assignment]
        instances = tuple(Instance("1.2.840.10008.5.1.4.1.1.2", uid) for uid in exam.uids)
        self.manifests[exam.kos_uid] = _Manifest(exam.study_uid, (_Series(exam.series_uid, instances),))
        return exam

    def url(self, exam: Exam, more: str = "") -> str:
        return f"https://localhost:{self.port}/rs/studies/{exam.study_uid}/series/{exam.series_uid}{more}"

    async def get(self, http: HttpClient, exam: Exam, more: str = "", accept: str = ANY) -> Reply:
        return await http.send(
            "GET", self.url(exam, more), tls=self.keys.client(), headers=self.headers(exam, accept), timeout=60
        )

    def headers(self, exam: Exam, accept: str = ANY) -> dict[str, str]:
        return {"Authorization": "Bearer good", "KOS-SOPInstanceUID": exam.kos_uid, "Accept": accept}


@pytest.fixture(scope="module")
def keys(authority: TestAuthority) -> Keys:
    return make_keys(authority)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def workers() -> AsyncIterator[WorkerPool]:
    async with worker_pool(size=2) as pool:
        yield pool


@pytest_asyncio.fixture(loop_scope="module")
async def http() -> AsyncIterator[HttpClient]:
    async with HttpClient() as client:
        yield client


Open = Callable[..., Any]


@pytest.fixture
def listening(keys: Keys, workers: WorkerPool, tmp_path: Path) -> Open:
    @asynccontextmanager
    async def opened(*, sealed: bool = False, limits: Limits | None = None) -> AsyncIterator[Box]:
        async with cache_world(tmp_path, sealed=sealed, limits=limits, pacs=Pacs(tmp_path / "spool")) as here:
            box = Box(keys, here)
            (tmp_path / "scratch").mkdir(exist_ok=True)
            app = _app(box, workers, tmp_path / "scratch")
            async with serving(app, host="127.0.0.1", port=0, tls=keys.listener()) as box.port:
                yield box

    return opened


def _app(box: Box, workers: WorkerPool, scratch: Path) -> Any:
    async def whitelist() -> Any:
        return box.keys.whitelist()

    async def journal(access: Access) -> None:
        box.accesses.append(access)

    async def health() -> Mapping[str, bool]:
        return {}

    by_content = {kos.kos: uid for uid, kos in box.archive.held.items()}
    assert by_content == {}
    return wado_app(
        base_path="/rs",
        archive=_Numbered(box),  # type: ignore[arg-type]
        read_manifest=lambda content: box.manifests[content.decode()],  # type: ignore[arg-type]
        choose_source=lambda kos: box.here.cache.source(kos, box.here.pacs, box.here.pacs),
        choose_finder=lambda kos: box.here.pacs,
        introspect=Psc({"good": Introspection(active=True, national_id="899700218896", profession="10")}).introspect,
        whitelist=whitelist,
        professions=(),
        journal=journal,
        health=health,
        transcoder=workers,
        scratch=scratch,
        clock=SystemClock(),
        max_parallel=64,
        limits=AnswerLimits(stall=20.0),
    )


class _Numbered:
    """The archive, whose KOS stand for their UIDs."""

    def __init__(self, box: Box) -> None:
        self._box = box

    async def by_kos_uid(self, kos_uid: str) -> Any:
        kos = await self._box.archive.by_kos_uid(kos_uid)
        if kos is None:
            return None
        return type(kos)(kos.structure, kos.study_uid, kos.kos_uid, kos.state, kos.ins, kos.pacs, kos_uid.encode())


def another_ins(number: int) -> Ins:
    thirteen = f"2790351215{number:03d}"
    return Ins.of(thirteen + key(thirteen), "1.2.250.1.213.1.4.10")


def images_of(reply: Reply) -> dict[str, bytes]:
    return {read_header(body).sop_instance_uid: body for _, body in parts_of(reply.headers, reply.body)}


@pytest.mark.requirement("DB.SO.32", "DB.SO.39", "D23", "D25")
@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("size", [4_000, 2_500_000])
async def test_what_is_served_from_the_cache_is_what_the_pacs_sent_with_the_ins(
    listening: Open, http: HttpClient, sealed: bool, size: int
) -> None:
    async with listening(sealed=sealed) as box:
        exam = box.add(Exam(images=40 if size < 10_000 else 3, size=size))
        for turn in range(3):
            reply = await box.get(http, exam)
            assert reply.status == 200
            assert images_of(reply) == right(exam)
            await until(lambda turn=turn: len(box.accesses) > turn)
            assert (box.accesses[-1].instances, box.accesses[-1].code) == (exam.images, "")
            assert box.accesses[-1].bytes_sent == len(reply.body)
            assert box.accesses[-1].syntaxes == (EXPLICIT_LE,)
            for headers, body in parts_of(reply.headers, reply.body):
                assert headers["content-type"] == f"application/dicom; transfer-syntax={EXPLICIT_LE}"
                assert int(headers["content-length"]) == len(body)
            await box.here.quiet()
        uid = exam.uids[1]
        reply = await box.get(http, exam, f"/instances/{uid}")
        assert images_of(reply) == {uid: exam.served(uid)}
        reply = await box.get(http, exam, f"/instances/{uid}", f"application/dicom; transfer-syntax={EXPLICIT_LE}")
        assert reply.body == exam.served(uid)
        assert len(box.here.pacs.retrieves) == 1


@pytest.mark.requirement("DB.SO.32")
@pytest.mark.parametrize("sealed", [False, True])
async def test_metadata_is_written_once(listening: Open, http: HttpClient, sealed: bool) -> None:
    async with listening(sealed=sealed) as box:
        exam = box.add(Exam(images=20))
        for _ in range(2):
            reply = await box.get(http, exam, "/metadata", "application/dicom+json")
            assert (reply.status, reply.headers["content-type"]) == (200, "application/dicom+json")
            described = [pydicom.Dataset.from_json(item) for item in json.loads(reply.body)]
            assert [d.SOPInstanceUID for d in described] == exam.uids
            for one in described:
                sent = pydicom.dcmread(io.BytesIO(exam.served(one.SOPInstanceUID)), stop_before_pixels=True)
                assert one.pop("AvailableTransferSyntaxUID").value == EXPLICIT_LE
                assert one == sent
        assert len(box.here.pacs.retrieves) == 1
        uid = exam.uids[3]
        reply = await box.get(http, exam, f"/instances/{uid}/metadata", "application/dicom+json")
        assert [item["00080018"]["Value"] for item in json.loads(reply.body)] == [[uid]]
        box.here.pacs.find_failure = Unavailable("", code="pacs-silent")
        box.here.cache.confirmations.forget("pacs", exam.study_uid)
        assert (await box.get(http, exam, "/metadata", "application/dicom+json")).status == 504


@pytest.mark.parametrize("limits", [Limits(max_bytes=0), Limits(max_bytes=30_000, min_free=0)])
async def test_metadata_without_room_to_keep_it(listening: Open, http: HttpClient, limits: Limits) -> None:
    async with listening(limits=limits) as box:
        exam = box.add(Exam())
        reply = await box.get(http, exam, "/metadata", "application/dicom+json")
        assert [item["00080018"]["Value"][0] for item in json.loads(reply.body)] == exam.uids
        assert images_of(await box.get(http, exam)) == right(exam)


@pytest.mark.requirement("D14", "D25")
async def test_what_the_pacs_no_longer_holds_is_gone(listening: Open, http: HttpClient) -> None:
    async with listening(limits=Limits(min_free=0, confirm_for=0.0)) as box:
        exam = box.add(Exam())
        assert (await box.get(http, exam)).status == 200
        await box.here.quiet()
        box.here.pacs.find_failure = Unavailable("", code="pacs-unreachable")
        assert (await box.get(http, exam)).status == 503
        box.here.pacs.find_failure = None
        box.here.pacs.lost = {exam.uids[0]}
        reply = await box.get(http, exam)
        assert (reply.status, json.loads(reply.body)["code"]) == (410, "images-gone")


@pytest.mark.requirement("D14")
async def test_all_callers_of_a_retrieve_that_fails_are_told(listening: Open, http: HttpClient) -> None:
    async with listening() as box:
        exam = box.add(Exam(images=30, size=200_000))
        box.here.pacs.gate, box.here.pacs.fail_at = asyncio.Event(), 20
        calls = [asyncio.create_task(box.get(http, exam)) for _ in range(4)]
        await until(lambda: box.here.pacs.given)
        await asyncio.sleep(0.1)
        box.here.pacs.gate.set()
        told = await asyncio.gather(*calls, return_exceptions=True)
        # Cut in the middle, every one of them; nobody was given a body that ends well.
        assert not [one for one in told if isinstance(one, Reply) and one.status == 200]
        await until(lambda: len(box.accesses) == 4)
        assert all(access.code == "pacs-cut" for access in box.accesses)
        await box.here.quiet()
        assert box.here.files() == []


async def test_a_syntax_that_is_not_stored_is_made_from_the_cache(listening: Open, http: HttpClient) -> None:
    async with listening(sealed=True) as box:
        exam = box.add(Exam(images=2))
        content = {uid: _with_pixels(exam, uid) for uid in exam.uids}
        exam.content = content.__getitem__  # type: ignore[method-assign]
        accept = f'multipart/related; type="application/dicom"; transfer-syntax={JPEG_LS}'
        for _ in range(2):
            reply = await box.get(http, exam, accept=accept)
            got = images_of(reply)
            assert {read_header(body).transfer_syntax for body in got.values()} == {JPEG_LS}
            for uid, body in got.items():
                sent, kept = pydicom.dcmread(io.BytesIO(body)), pydicom.dcmread(io.BytesIO(content[uid]))
                assert imagecodecs.jpegls_decode(get_frame(sent.PixelData, 0)).tobytes() == kept.PixelData
            await box.here.quiet()
        assert len(box.here.pacs.retrieves) == 1


def _with_pixels(exam: Exam, uid: str) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(exam.content(uid)))
    dataset.Rows = dataset.Columns = 16
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = dataset.PixelData[:256]
    dataset["PixelData"].VR = "OB"
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


@pytest.mark.requirement("DB.SO.35")
@pytest.mark.parametrize("sealed", [False, True])
async def test_sixty_four_callers_of_thirty_two_patients(listening: Open, http: HttpClient, sealed: bool) -> None:
    """Every byte of every answer is the caller's own, some are cut at random, the cache is too small for all."""
    rng = random.Random(11)
    async with listening(sealed=sealed, limits=Limits(max_bytes=700_000, min_free=0)) as box:
        exams = [box.add(Exam(images=6, size=12_000, ins=another_ins(n))) for n in range(32)]

        async def whole(exam: Exam) -> None:
            assert images_of(await box.get(http, exam)) == right(exam)

        async def cut(exam: Exam) -> None:
            reader, writer = await asyncio.open_connection("localhost", box.port, ssl=box.keys.client())
            lines = {"Host": "localhost"} | box.headers(exam)
            path = box.url(exam).removeprefix(f"https://localhost:{box.port}")
            text = f"GET {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"
            writer.write(text.encode())
            await reader.read(rng.randrange(1, 40_000))
            writer.transport.abort()

        calls = [(cut if rng.random() < 0.3 else whole)(rng.choice(exams)) for _ in range(64)]
        await asyncio.gather(*calls)
        await until(lambda: len(box.accesses) == 64)
        await box.here.quiet()
        assert box.here.store.bytes <= 700_000
        assert list(box.here.pacs.spool.iterdir()) == []

"""The WADO-RS client: against our own service, and against sources that misbehave on purpose."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest
import pytest_asyncio
from world import INS, NOW, Box, Exam, Keys, Stored, another_ins, make_exam, until

from drimbox.dicom.syntaxes import EXPLICIT_LE, JPEG_BASELINE, JPEG_LS
from drimbox.foundation.clock import FixedClock, SystemClock
from drimbox.foundation.errors import Busy, DrimboxError, IdentityMismatch, Refused, Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.identity.ins import Ins
from drimbox.images.client import FetchedInstance, SourceState, WadoClient, accept_header
from drimbox.images.header import with_ins
from drimbox.images.multipart import Writer

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Those of the source are liked alike: it sends what it has.
ALL = (JPEG_BASELINE, f"{JPEG_LS} {EXPLICIT_LE}")


async def good() -> str:
    return "good"


class Fetch:
    """One fetch with everything right, but for what a test changes."""

    def __init__(self, http: HttpClient, keys: Keys, exam: Exam, url: str, folder: Path) -> None:
        self.client = WadoClient(http, SystemClock(), silence=1.0)
        self.keys, self.exam, self.url, self.folder = keys, exam, url, folder
        self.token: Callable[[], Awaitable[str]] = good
        self.accept: tuple[str, ...] = ALL
        self.ins: Ins = exam.ins
        self.kos_uid = exam.kos_uid
        self.tls = keys.client()
        self.classes: tuple[str, ...] = ()
        folder.mkdir(exist_ok=True)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[AsyncIterator[FetchedInstance]]:
        async with self.client.fetch_series(
            self.url,
            tls=self.tls,
            token=self.token,
            kos_uid=self.kos_uid,
            accept=self.accept,
            expected=[i.sop_instance_uid for i in self.exam.series[self.exam.first_series]],
            ins=self.ins,
            folder=self.folder,
            classes=self.classes,
        ) as images:
            yield images

    async def all(self) -> list[FetchedInstance]:
        async with self.opened() as images:
            return [image async for image in images]

    async def failure(self) -> DrimboxError:
        with pytest.raises(DrimboxError) as caught:
            await self.all()
        assert INS.matricule not in str(caught.value)
        return caught.value

    @property
    def left(self) -> list[str]:
        return sorted(p.name for p in self.folder.iterdir())


@pytest.fixture
def fetch(box: Box, http: HttpClient, tmp_path: Path) -> Fetch:
    exam = box.add(make_exam(tmp_path, series=2))
    return Fetch(http, box.keys, exam, box.series_url(exam), tmp_path / "received")


@pytest.mark.requirement("DB.CO.122", "DB.CO.124", "DB.CO.125", "DB.CO.68", "DB.CO.73")
async def test_a_series_is_fetched_whole_and_checked(fetch: Fetch) -> None:
    images = await fetch.all()
    stored = {i.sop_instance_uid: i for i in fetch.exam.series[fetch.exam.first_series]}
    assert {i.sop_instance_uid for i in images} == set(stored)
    for image in images:
        assert image.path.parent == fetch.folder
        assert image.size == image.path.stat().st_size
        assert image.transfer_syntax_uid == EXPLICIT_LE
        received = pydicom.dcmread(image.path)
        assert image.sop_class_uid == received.SOPClassUID
        assert np.array_equal(received.pixel_array, pydicom.dcmread(stored[image.sop_instance_uid].path).pixel_array)
    assert len(fetch.left) == 3


async def test_images_are_handed_over_as_they_arrive(fetch: Fetch, box: Box) -> None:
    box.pacs.gate = asyncio.Event()
    async with fetch.opened() as images:
        first = await anext(images)
        assert box.pacs.given == 1
        assert first.path.exists()
        box.pacs.gate.set()
        assert len([i async for i in images]) == 2


async def test_leaving_early_ends_the_transfer(fetch: Fetch, box: Box) -> None:
    box.pacs.gate = asyncio.Event()
    async with fetch.opened() as images:
        first = await anext(images)
    await until(lambda: box.accesses and not box.pacs.running)
    assert box.accesses[-1].code == "client-left"
    assert fetch.left == [first.path.name]


@pytest.mark.requirement("DB.VI-CO.27")
async def test_the_refusals_of_a_source_have_their_own_words(fetch: Fetch, box: Box) -> None:
    async def token(value: str) -> DrimboxError:
        async def give() -> str:
            return value

        fetch.token = give
        return await fetch.failure()

    assert (await token("expired")).code == "token-refused"
    refused = await token("baker")
    assert (refused.code, refused.peer_code) == ("profession-refused", "403 profession-refused")
    fetch.token, fetch.kos_uid = good, "1.2.3"
    assert (await fetch.failure()).code == "images-unknown"
    fetch.kos_uid = fetch.exam.kos_uid
    fetch.accept = (JPEG_BASELINE,)
    assert (await fetch.failure()).code == "syntax-unavailable"
    fetch.accept = ALL
    fetch.tls = fetch.keys.client(fetch.keys.stranger)
    assert (await fetch.failure()).code == "box-refused"
    fetch.tls = fetch.keys.client()
    box.psc.down = True
    busy = await fetch.failure()
    assert isinstance(busy, Busy)
    assert (busy.code, busy.retry_after) == ("source-busy", 10)
    box.psc.down = False
    box.pacs.lost = {i.sop_instance_uid for i in fetch.exam.instances}
    assert (await fetch.failure()).code == "images-gone"
    assert fetch.left == []


@pytest.mark.requirement("DB.VI-CO.27", "DB.CO.68")
async def test_what_the_source_sends_wrong_is_refused(fetch: Fetch, box: Box) -> None:
    fetch.classes = ("1.2.840.10008.5.1.4.1.1.4",)
    assert (await fetch.failure()).code == "sop-class"
    fetch.classes = ("1.2.840.10008.5.1.4.1.1.2",)
    assert len(await fetch.all()) == 3


@pytest.mark.requirement("DB.CO.68", "D23")
async def test_images_of_another_patient_are_never_kept(fetch: Fetch) -> None:
    fetch.ins = another_ins(5)
    mismatch = await fetch.failure()
    assert isinstance(mismatch, IdentityMismatch)
    assert mismatch.code == "ins-differs"
    assert fetch.left == []


async def test_a_pacs_that_stops_half_way_is_an_error_and_what_came_is_whole(fetch: Fetch, box: Box) -> None:
    box.pacs.fail_at = 2
    failure = await fetch.failure()
    assert isinstance(failure, Unavailable)
    assert failure.code == "source-error"
    assert all(name.endswith(".dcm") for name in fetch.left)
    assert len(fetch.left) < 3


async def test_a_token_that_cannot_be_had_asks_nothing_of_the_source(fetch: Fetch, box: Box) -> None:
    async def expired() -> str:
        raise Rejected("Session expirée", code="session")

    fetch.token = expired
    assert (await fetch.failure()).code == "session"
    assert box.accesses == []


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/studies/1.2/series/1.3",
        "https://localhost/series/1.3",
        "https://localhost/studies/../series/1",
        "",
    ],
)
async def test_an_address_that_is_none_is_refused(fetch: Fetch, url: str) -> None:
    fetch.url = url
    assert (await fetch.failure()).code == "retrieve-url"


# --- sources that misbehave


class Script:
    """A source that says what a test wrote, whatever it is asked."""

    def __init__(self, exam: Exam) -> None:
        self.exam = exam
        self.status = "200 OK"
        self.headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=XYZ'}
        self.body = b""
        self.chunked = True
        self.finish = True
        self.silent = False
        self.pause: asyncio.Event | None = None
        self.heard = b""

    def image(self, index: int = 0, ins: Ins | None = INS) -> bytes:
        return as_sent(self.exam.series[self.exam.first_series][index], ins)

    def whole(self, *images: bytes, writer: Writer | None = None) -> bytes:
        writer = writer or Writer("XYZ")
        header = writer.opening({"Content-Type": "application/dicom"})
        return writer.delimiter() + b"".join(header + i + writer.delimiter() for i in images) + writer.closing()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heard = await reader.readuntil(b"\r\n\r\n")
            headers = self.headers | ({"Transfer-Encoding": "chunked"} if self.chunked else {"Connection": "close"})
            lines = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
            writer.write(f"HTTP/1.1 {self.status}\r\n{lines}\r\n".encode())
            for start in range(0, len(self.body), 1000):
                if self.pause is not None and start > len(self.body) / 2:
                    await self.pause.wait()
                piece = self.body[start : start + 1000]
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self.chunked else piece)
            if self.silent:
                await writer.drain()
                await reader.read(1)
            if self.chunked and self.finish:
                writer.write(b"0\r\n\r\n")
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def as_sent(stored: Stored, ins: Ins | None) -> bytes:
    content = stored.path.read_bytes()
    if ins is None:
        return content
    change = with_ins(content, ins)
    return change.head + content[change.rest :]


@pytest_asyncio.fixture(loop_scope="module")
async def script(keys: Keys, tmp_path: Path) -> AsyncIterator[Script]:
    script = Script(make_exam(tmp_path))
    server = await asyncio.start_server(script.answer, "127.0.0.1", 0, ssl=keys.listener())
    script.headers["X-Port"] = str(server.sockets[0].getsockname()[1])
    async with server:
        yield script


@pytest.fixture
def scripted(script: Script, keys: Keys, http: HttpClient, tmp_path: Path) -> Fetch:
    exam = script.exam
    url = f"https://localhost:{script.headers['X-Port']}/rs/studies/{exam.study_uid}/series/{exam.first_series}"
    return Fetch(http, keys, exam, url, tmp_path / "received")


async def test_the_request_is_the_official_one(script: Script, scripted: Fetch) -> None:
    script.body = script.whole(*(script.image(i) for i in range(3)))
    assert len(await scripted.all()) == 3
    lines = script.heard.decode().split("\r\n")
    assert lines[0] == f"GET {scripted.url.partition('localhost')[2].partition('/')[1]}" + (
        f"rs/studies/{script.exam.study_uid}/series/{script.exam.first_series} HTTP/1.1"
    )
    assert f"KOS-SOPInstanceUID: {script.exam.kos_uid}" in lines
    assert "Authorization: Bearer good" in lines
    assert f"Accept: {accept_header(ALL)}" in lines
    assert "Accept-Encoding: identity" in lines


async def test_a_careless_source_is_understood(script: Script, scripted: Fetch) -> None:
    script.headers["Content-Type"] = 'Multipart/Related;start="<a@b>";type=application/dicom;boundary="XYZ"'
    images = [script.image(i) for i in range(3)]
    script.body = b"--XYZ\n\n" + b"\n--XYZ \n\n".join(images) + b"\n--XYZ--"
    assert len(await scripted.all()) == 3


async def test_a_body_without_length_is_whole_only_with_its_last_delimiter(script: Script, scripted: Fetch) -> None:
    script.chunked = False
    script.body = script.whole(*(script.image(i) for i in range(3)))
    assert len(await scripted.all()) == 3
    script.body = script.body[:-10]
    assert (await scripted.failure()).code == "source-error"


@pytest.mark.requirement("DB.VI-CO.27")
@pytest.mark.parametrize(
    "case", ["cut", "not-ended", "missing", "silent", "html", "none", "empty", "json", "no-boundary"]
)
async def test_an_answer_that_is_not_whole_is_never_taken_for_one(script: Script, scripted: Fetch, case: str) -> None:
    images = [script.image(i) for i in range(3)]
    script.body = script.whole(*images)
    match case:
        case "cut":
            script.body, script.finish = script.body[:-5000], False
        case "not-ended":
            script.finish = False
        case "missing":
            script.body = script.whole(*images[:2])
        case "silent":
            script.body, script.silent = script.body[:-5000], True
        case "html":
            script.headers["Content-Type"], script.body = "text/html", b"<html>Portail captif</html>"
        case "none":
            script.body = b"\r\n--XYZ--\r\n"
        case "empty":
            script.body = b""
        case "json":
            script.headers["Content-Type"] = "application/json"
        case "no-boundary":
            script.headers["Content-Type"] = 'multipart/related; type="application/dicom"'
    failure = await scripted.failure()
    assert isinstance(failure, Unavailable)
    assert failure.code == "source-error"
    assert "receiving.part" not in scripted.left


async def test_a_long_preamble_or_a_damaged_image_is_refused(script: Script, scripted: Fetch) -> None:
    script.body = b"<html>" * 50_000
    assert (await scripted.failure()).code == "multipart-preamble"
    script.body = script.whole(b"not an image")
    assert (await scripted.failure()).code == "dicom-part10"
    script.body = script.whole(script.image()[:400])
    assert (await scripted.failure()).code == "dicom-truncated"
    assert scripted.left == []


@pytest.mark.requirement("DB.CO.68", "D23")
@pytest.mark.parametrize("case", ["no-ins", "other-ins", "other-study", "other-series"])
async def test_a_stranger_s_image_ends_everything(script: Script, scripted: Fetch, tmp_path: Path, case: str) -> None:
    first = script.image(0)
    series = script.exam.first_series.encode()
    bad, code = {
        "no-ins": (script.image(1, None), "ins-absent"),
        "other-ins": (script.image(1, another_ins(7)), "ins-differs"),
        "other-study": (as_sent(make_exam(tmp_path).instances[0], INS), "image-identity"),
        "other-series": (script.image(1).replace(series, b"1.2".ljust(len(series), b"\0")), "image-identity"),
    }[case]
    script.body = script.whole(first, bad, script.image(2))
    failure = await scripted.failure()
    assert isinstance(failure, IdentityMismatch)
    assert failure.code == code
    assert scripted.left == []


@pytest.mark.requirement("DB.VI-CO.27")
async def test_unexpected_repeated_and_unasked_images_are_refused(
    script: Script, scripted: Fetch, tmp_path: Path
) -> None:
    script.body = script.whole(script.image(0), script.image(0), script.image(1))
    assert (await scripted.failure()).code == "image-unexpected"
    script.body = script.whole(*(script.image(i) for i in range(3)), script.image(0))
    assert (await scripted.failure()).code == "image-unexpected"
    scripted.accept = (JPEG_LS,)
    script.body = script.whole(script.image(0))
    failure = await scripted.failure()
    assert (failure.code, failure.peer_code) == ("syntax-not-asked", EXPLICIT_LE)


async def test_an_answer_has_a_size(script: Script, scripted: Fetch, http: HttpClient) -> None:
    script.body = script.whole(*(script.image(i) for i in range(3)))
    scripted.client = WadoClient(http, SystemClock(), max_bytes=60_000)
    failure = await scripted.failure()
    assert isinstance(failure, Refused)
    assert failure.code == "answer-size"
    assert "receiving.part" not in scripted.left


async def test_a_disk_that_takes_nothing_more_is_told(script: Script, scripted: Fetch) -> None:
    """Full, or over a quota that no look at the free space foretells: no defect, and no traceback."""
    (scripted.folder / "receiving.part").symlink_to("/dev/full")
    script.body = script.whole(*(script.image(i) for i in range(3)))
    failure = await scripted.failure()
    assert isinstance(failure, Unavailable)
    assert (failure.code, failure.reason) == ("disk", "Espace de stockage des images indisponible")
    assert scripted.left == []
    # Once there is room again, they come.
    assert len(await scripted.all()) == 3


async def test_what_is_announced_too_large_is_refused_unread(script: Script, scripted: Fetch, http: HttpClient) -> None:
    """Ten gigabytes: nothing of them is waited for, nor written."""
    script.chunked = False
    script.headers["Content-Length"] = "10000000000"
    script.body, script.silent = script.whole(script.image(0)), True
    failure = await scripted.failure()
    assert isinstance(failure, Refused)
    assert (failure.code, failure.reason) == ("answer-size", "La source annonce plus que la taille permise")
    assert scripted.left == []


@pytest.mark.requirement("D15")
async def test_a_host_that_left_the_whitelist_is_not_called(script: Script, scripted: Fetch, http: HttpClient) -> None:
    """Asked at each connection, before the token is: a KOS may have been read hours before."""
    script.body = script.whole(*(script.image(i) for i in range(3)))
    listed, asked = {"127.0.0.1", "localhost"}, []

    async def is_listed(host: str) -> bool:
        asked.append(host)
        return host in listed

    async def no_token() -> str:
        raise AssertionError("a token was asked for")

    scripted.client = WadoClient(http, SystemClock(), listed=is_listed)
    await scripted.all()
    listed.clear()
    scripted.token = no_token
    failure = await scripted.failure()
    assert isinstance(failure, Refused)
    assert failure.code == "host-not-listed"
    assert await scripted.client.probe(scripted.url, tls=scripted.tls) is SourceState.DEAD
    assert len(asked) == 3


async def test_an_answer_has_a_duration(script: Script, scripted: Fetch, http: HttpClient) -> None:
    clock = FixedClock(NOW)
    scripted.client = WadoClient(http, clock, longest=10)
    script.body = script.whole(*(script.image(i) for i in range(3)))
    script.pause = asyncio.Event()
    async with scripted.opened() as images:
        await anext(images)
        clock.advance(11)
        script.pause.set()
        with pytest.raises(Unavailable, match="trop lentement"):
            [i async for i in images]


@pytest.mark.parametrize(
    ("status", "body", "code", "kind"),
    [
        ("400 Bad", b"", "request-refused", Rejected),
        ("401 No", b"", "token-refused", Rejected),
        ("403 No", b"<html>", "profession-refused", Rejected),
        ("403 No", b'{"code": "box-not-listed"}', "box-refused", Rejected),
        ("403 No", b'{"code": ["box-not-listed"]}', "profession-refused", Rejected),
        ("404 No", b"[" * 4000, "images-unknown", Rejected),
        ("406 No", b"", "syntax-unavailable", Rejected),
        ("410 Gone", b"", "images-gone", Rejected),
        ("418 Teapot", b"", "request-refused", Rejected),
        ("206 Partial", b"", "source-error", Unavailable),
        ("302 Found", b"", "source-error", Unavailable),
        ("500 Oops", b"x" * 100_000, "source-error", Unavailable),
        ("503 Busy", b"", "source-busy", Busy),
    ],
)
async def test_every_status_has_its_error(
    script: Script, scripted: Fetch, status: str, body: bytes, code: str, kind: type[DrimboxError]
) -> None:
    script.status, script.body = status, body
    script.headers["Location"] = "https://elsewhere.example/"
    failure = await scripted.failure()
    assert (failure.code, type(failure)) == (code, kind)
    assert (failure.peer_code or "").startswith(status[:3])


@pytest.mark.requirement("DB.CO.112", "DB.VI-CO.27")
async def test_a_probe_tells_a_dead_source_from_a_dead_pacs(fetch: Fetch, box: Box) -> None:
    assert await fetch.client.probe(fetch.url, tls=fetch.tls) is SourceState.ALIVE
    box.checks = {"pacs": False}
    assert await fetch.client.probe(fetch.url, tls=fetch.tls) is SourceState.ALIVE
    nowhere = "https://localhost:1/rs/studies/1.2/series/1.3"
    assert await fetch.client.probe(nowhere, tls=fetch.tls) is SourceState.DEAD
    fetch.url = nowhere
    assert (await fetch.failure()).code == "source-unreachable"


async def test_many_fetches_at_once_are_never_mixed(box: Box, http: HttpClient, tmp_path: Path) -> None:
    exams = [box.add(make_exam(tmp_path, images=5, ins=another_ins(n))) for n in range(10)]
    fetches = [Fetch(http, box.keys, e, box.series_url(e), tmp_path / f"to-{n}") for n, e in enumerate(exams)]
    for exam, images in zip(exams, await asyncio.gather(*(f.all() for f in fetches)), strict=True):
        assert {i.sop_instance_uid for i in images} == {i.sop_instance_uid for i in exam.instances}
    gc.collect()

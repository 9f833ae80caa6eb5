"""``drimbox bench pixels``: everything runs, on a few images; how fast is not judged here."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import imagecodecs
import pydicom
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from drimbox.bench.pixels import images, peers, picture, proxied, report
from drimbox.bench.pixels.box import Keys, bare
from drimbox.bench.pixels.client import Address, as_stored, fetch
from drimbox.bench.pixels.comparison import BEFORE, Comparison, Goal
from drimbox.bench.pixels.images import QUICK, Batch
from drimbox.bench.pixels.load import US, Load
from drimbox.cli import main
from drimbox.foundation.errors import Unavailable
from drimbox.sandbox.pacs import orthanc as debian
from drimbox.trust.keystore import load_credential
from drimbox.trust.tls import load_trust, server_context


def need_peers() -> None:
    if not debian.installed() or not peers.STORESCU.exists() or proxied.program() is None:
        pytest.skip("a peer is not installed: apt-get install orthanc orthanc-dicomweb dcmtk nginx-light")


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.requirement("DB.SO.100")
def test_every_row_of_the_table_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_peers()
    monkeypatch.setenv("DRIMBOX_SHARED", str(tmp_path / "nowhere"))
    drawn, written = tmp_path / "table.png", tmp_path / "table.json"
    result = CliRunner().invoke(main, ["bench", "pixels", "--quick", "--picture", str(drawn), "--json", str(written)])
    assert result.exit_code == 0, result.output
    rows = {row["what"]: row for row in json.loads(written.read_text("utf-8"))["pixels"]}
    for part, theirs in (
        ("storescu without Nagle", {"storescp", "pynetdicom"}),
        ("default storescu", {"storescp"}),
        ("small MR", {"storescp"}),
        ("C-STORE out", {"storescu"}),
        ("not cached, by C-MOVE", {"storescp", "bare C-MOVE"}),
        ("first byte", {"bare C-MOVE"}),
        ("cached: reference study (made), 2 MB, clear", {"Orthanc", "bare"}),
        ("cached: reference study (made), 2 MB, mutual TLS", {"Orthanc behind nginx", "Orthanc", "bare"}),
        ("ultrasound", {"Orthanc", "bare"}),
        ("transcoding to HTJ2K, 8 CT", set()),
        ("transcoding to JPEG-LS, 8 CT", {"Orthanc"}),
        ("transcoding to JPEG lossless, 8 CT", {"Orthanc"}),
        ("/metadata", {"Orthanc"}),
        ("memory while 3 clients", {BEFORE}),
    ):
        row = next(row for what, row in rows.items() if part in what)
        assert set(row["peers"]) == theirs, part
        assert all(value > 0 for value in row["drimbox"])
        assert all(value > 0 for values in row["peers"].values() for value in values)
        assert row["limit"]
        assert f"| {row['what']} |" in result.output
    assert imagecodecs.png_decode(drawn.read_bytes()).shape[1] == 1500


# -------------------------------------------------------------------------------------------------------------- images


def test_the_images_made_are_sound_and_all_different_in_name(tmp_path: Path) -> None:
    for make, syntax in (
        (lambda f: images.reference(f, QUICK, None), images.JPEG_LS),
        (lambda f: images.ct(f, QUICK), images.EXPLICIT_LE),
        (lambda f: images.mr(f, QUICK), images.EXPLICIT_LE),
        (lambda f: images.ultrasound(f, QUICK), images.JPEG_BASELINE),
        (lambda f: images.mammography(f, QUICK), images.EXPLICIT_LE),
    ):
        batch: Batch = make(tmp_path / str(len(list(tmp_path.iterdir()))))
        read = [pydicom.dcmread(path) for path in batch.files]
        assert [one.SOPInstanceUID for one in read] == list(batch.instances)
        assert {one.file_meta.MediaStorageSOPInstanceUID for one in read} == set(batch.instances)
        assert {one.SeriesInstanceUID for one in read} == {batch.series_uid}
        assert {one.StudyInstanceUID for one in read} == {batch.study_uid}
        assert {str(one.file_meta.TransferSyntaxUID) for one in read} == {syntax}
        assert len({one.InstanceNumber for one in read}) == len(read)
        assert batch.bytes == sum(path.stat().st_size for path in batch.files)


def test_the_official_study_is_taken_where_it_is(samples: Path, tmp_path: Path) -> None:
    archive = samples / "reference-study" / "reference-study.tar.xz"
    if not archive.exists():
        pytest.skip("the official reference study is not among the samples")
    small = images.reference(tmp_path / "small", QUICK, samples.parent)
    assert "made" in small.name, "a quick run makes its own"


# -------------------------------------------------------------------------------------------------------------- client


async def _answering(answer: bytes, *, keep: bool = False) -> tuple[asyncio.Server, Address]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        if keep:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, Address(server.sockets[0].getsockname()[1], "")


@pytest.mark.parametrize(
    ("answer", "keep", "count"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", True, 5),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", False, 15),
        (b"HTTP/1.1 200 OK\r\nContent-Type: multipart/related\r\n\r\n--x\r\nhello\r\n--x--\r\n", False, 19),
    ],
)
async def test_a_whole_answer_is_counted(answer: bytes, keep: bool, count: int) -> None:
    server, address = await _answering(answer, keep=keep)
    async with server:
        fetched = await asyncio.to_thread(fetch, address, "/x", as_stored())
    assert fetched.bytes == count
    assert 0 < fetched.first <= fetched.seconds


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: multipart/related\r\n\r\n--x\r\nhello",
    ],
)
async def test_anything_else_is_no_measurement(answer: bytes) -> None:
    server, address = await _answering(answer)
    async with server:
        with pytest.raises(Unavailable):
            await asyncio.to_thread(fetch, address, "/x", as_stored())


# ---------------------------------------------------------------------------------------------------------- comparison


def row(ours: float, theirs: float, *, more: bool, floor: Goal, aim: Goal) -> Comparison:
    return Comparison("x", "s", more, [ours], {"peer": [theirs]}, floor, aim)


@pytest.mark.parametrize(
    ("ours", "more", "verdict"),
    [
        (30.0, True, "aim"),
        (16.0, True, "floor"),
        (14.0, True, "below floor"),
        (3.0, False, "aim"),
        (6.0, False, "floor"),
        (7.0, False, "below floor"),
    ],
)
def test_goals_relative_to_a_peer(ours: float, more: bool, verdict: str) -> None:
    floor, aim = Goal(times=1.5, beside="peer"), Goal(times=3, beside="peer")
    assert row(ours, 10.0, more=more, floor=floor, aim=aim).verdict == verdict


def test_goals_later_than_a_peer_by_so_much() -> None:
    floor, aim = Goal(plus=0.05, beside="peer"), Goal(plus=0.01, beside="peer")
    assert [row(x, 0.1, more=False, floor=floor, aim=aim).verdict for x in (0.105, 0.12, 0.2)] == [
        "aim",
        "floor",
        "below floor",
    ]


def test_without_its_peer_a_goal_is_neither_reached_nor_missed() -> None:
    alone = Comparison("x", "s", False, [1.0], {}, Goal(times=2, beside="peer"), Goal(times=3, beside="peer"))
    assert alone.verdict == ""


@pytest.mark.parametrize(
    ("cores", "machine", "disk", "limit"),
    [
        ({US: 1.0, "Orthanc": 0.2}, 0.6, 0.0, "CPU"),
        ({US: 0.3, "Orthanc": 0.95}, 0.7, 0.0, "PACS"),
        ({US: 0.1, "Orthanc": 0.1}, 0.2, 0.0, "PACS"),
        ({US: 0.2}, 0.3, 0.5, "disk"),
        ({US: 0.1, "Orthanc": 0.1}, 1.0, 0.0, "CPU (shared)"),
        ({US: 0.1, "client": 0.9}, 0.5, 0.0, "CPU (client)"),
        ({US: 0.9, "client": 1.0}, 0.5, 0.0, "CPU"),
    ],
)
def test_the_limit_is_read_from_what_everybody_did(
    cores: dict[str, float], machine: float, disk: float, limit: str
) -> None:
    assert Load(1.0, cores, machine, disk).limit("Orthanc") == limit


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=4),
    st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=4),
    st.booleans(),
)
def test_any_row_can_be_told_and_drawn(ours: list[float], theirs: list[float], more: bool) -> None:
    one = Comparison("was | war", "MB/s", more, ours, {"peer": theirs}, Goal(value=10), Goal(times=2, beside="peer"))
    table = report.table([one])
    assert table.count("\n") == 2
    assert picture.draw([one], "machine").pixels.shape[1] == 1500


# ----------------------------------------------------------------------------------------------------- the client's TLS


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


async def _secured(keys: Keys, answer: bytes, *, cut: bool) -> tuple[asyncio.Server, Address]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        if cut:
            writer.transport.abort()
        writer.close()

    trust = load_trust([keys.authority.roots], keys.authority.revocation_lists)
    context = server_context(load_credential(keys.server.certificate, keys.server.key), trust)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    return server, Address(server.sockets[0].getsockname()[1], "", (), keys.context())


@pytest.mark.parametrize("size", [0, 1, 16_384, 3_000_000])
async def test_what_comes_over_tls_is_counted(keys: Keys, size: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (size + 5)
    server, address = await _secured(keys, head + b"hello" + b"x" * size, cut=False)
    async with server:
        assert (await asyncio.to_thread(fetch, address, "/x", as_stored())).bytes == size + 5


@pytest.mark.parametrize("cut", [False, True])
async def test_what_is_cut_over_tls_is_no_measurement(keys: Keys, cut: bool) -> None:
    server, address = await _secured(keys, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhello", cut=cut)
    async with server:
        with pytest.raises((Unavailable, OSError)):
            await asyncio.to_thread(fetch, address, "/x", as_stored())


def test_the_bare_server_sends_the_files_as_they_lie(keys: Keys, tmp_path: Path) -> None:
    files = [tmp_path / "one", tmp_path / "two"]
    files[0].write_bytes(b"1" * 300_000)
    files[1].write_bytes(b"2" * 7)
    with bare(tmp_path / "bare", keys, {"/x": files}) as server:
        for tls in (False, True):
            assert fetch(server.address(tls=tls), "/x", as_stored()).bytes == 300_007

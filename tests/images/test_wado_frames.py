"""Frames over WADO-RS: taken out of the file as they lie, or made in the syntax that is asked for."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session
from files import named
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from world import Box, Exam, make_exam

from drimbox.dicom.syntaxes import (
    EXPLICIT_LE,
    HTJ2K_LOSSLESS,
    HTJ2K_LOSSLESS_RPCL,
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
    RLE,
)
from drimbox.foundation.http_client import HttpClient, Reply
from drimbox.images.media import parse_media_type
from drimbox.images.multipart import PartData, PartEnd, PartStart, Reader

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.filterwarnings("ignore::UserWarning")]

OCTETS = 'multipart/related; type="application/octet-stream"'
STORED = OCTETS + "; transfer-syntax=*"
TEN = named("emri_small.dcm")


def url_of(box: Box, exam: Exam, frames: str) -> str:
    return f"{box.series_url(exam)}/instances/{exam.instances[0].sop_instance_uid}/frames/{frames}"


async def get(box: Box, http: HttpClient, exam: Exam, frames: str, accept: str = "", method: str = "GET") -> Reply:
    headers = box.headers(exam, Accept=accept) if accept else box.headers(exam)
    return await http.send(method, url_of(box, exam, frames), tls=box.keys.client(), headers=headers)


def parts_of(headers: Mapping[str, str], body: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """The type of the whole, and of each part its Content-Type and its bytes."""
    media = parse_media_type(headers["content-type"])
    assert media is not None
    assert media.name == "multipart/related"
    parts: list[tuple[str, bytes]] = []
    reader = Reader(media.get("boundary"))
    for event in reader.feed(body):
        match event:
            case PartStart(own):
                assert int(own["content-length"]) >= 0
                parts.append((own["content-type"], b""))
            case PartData(data):
                parts[-1] = (parts[-1][0], parts[-1][1] + data)
            case PartEnd():
                pass
    reader.close()
    return media.get("type"), parts


def stored_as(exam: Exam, syntax: str, frames: list[bytes], **changes: Any) -> None:
    """Put other pixels into the one image of an exam."""
    path = exam.instances[0].path
    dataset = pydicom.dcmread(path)
    for name, value in changes.items():
        setattr(dataset, name, value)
    dataset.PixelData = encapsulate(frames, fragments_per_frame=changes.pop("fragments", 1))
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset.save_as(path)


@pytest.mark.requirement("DB.SO.32", "D14")
@pytest.mark.parametrize("accept", [STORED, OCTETS, "*/*", "", "application/octet-stream"])
async def test_native_frames_are_the_bytes_of_the_file(box: Box, http: HttpClient, tmp_path: Path, accept: str) -> None:
    exam = box.add(make_exam(tmp_path, images=1, source=TEN.name))
    pixels = pydicom.dcmread(exam.instances[0].path).pixel_array
    wanted = [3, 1, 3] if accept != "application/octet-stream" else [3]
    reply = await get(box, http, exam, ",".join(map(str, wanted)), accept)
    assert reply.status == 200
    if accept == "application/octet-stream":
        assert reply.headers["content-type"] == f"application/octet-stream; transfer-syntax={EXPLICIT_LE}"
        assert reply.body == pixels[2].tobytes()
        assert int(reply.headers["content-length"]) == len(reply.body)
        return
    kind, parts = parts_of(reply.headers, reply.body)
    assert kind == "application/octet-stream"
    assert [p for _, p in parts] == [pixels[n - 1].tobytes() for n in wanted]
    assert {t for t, _ in parts} == {f"application/octet-stream; transfer-syntax={EXPLICIT_LE}"}
    assert list(box.scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "accept", "media", "syntax"),
    [
        ("emri_small_jpeg_ls_lossless.dcm", STORED, "application/octet-stream", JPEG_LS),
        ("emri_small_jpeg_ls_lossless.dcm", "*/*", "image/jls", JPEG_LS),
        ("emri_small_jpeg_ls_lossless.dcm", 'multipart/related; type="image/jls"', "image/jls", JPEG_LS),
        ("emri_small_jpeg_ls_lossless.dcm", "", "image/jls", JPEG_LS),
        ("emri_small_RLE.dcm", 'multipart/related; type="image/dicom-rle"', "image/dicom-rle", RLE),
        ("emri_small_jpeg_2k_lossless.dcm", 'multipart/related; type="image/*"', "image/jp2", JPEG_2000_LOSSLESS),
        (
            "emri_small_jpeg_2k_lossless.dcm",
            f'multipart/related; type="image/jp2"; transfer-syntax={JPEG_2000}',
            "image/jp2",
            JPEG_2000,
        ),
        ("color3d_jpeg_baseline.dcm", STORED, "application/octet-stream", JPEG_BASELINE),
    ],
)
async def test_compressed_frames_leave_their_fragments_undecoded(
    box: Box, http: HttpClient, tmp_path: Path, source: str, accept: str, media: str, syntax: str
) -> None:
    exam = box.add(make_exam(tmp_path, images=1, source=source))
    dataset = pydicom.dcmread(exam.instances[0].path)
    stored = list(generate_frames(dataset.PixelData, number_of_frames=dataset.NumberOfFrames))
    reply = await get(box, http, exam, "2,4", accept)
    kind, parts = parts_of(reply.headers, reply.body)
    assert kind == media
    assert parts == [(f"{media}; transfer-syntax={syntax}", stored[n]) for n in (1, 3)]


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
async def test_frames_in_several_fragments(box: Box, http: HttpClient, tmp_path: Path, table: str) -> None:
    exam = box.add(make_exam(tmp_path, images=1, source=TEN.name))
    path = exam.instances[0].path
    dataset = pydicom.dcmread(path)
    frames = [bytes(imagecodecs.jpegls_encode(f)) for f in dataset.pixel_array]
    if table == "extended":
        dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = encapsulate_extended(
            frames
        )
    else:
        dataset.PixelData = encapsulate(frames, fragments_per_frame=3, has_bot=table == "basic")
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEG_LS
    dataset.save_as(path)
    reply = await get(box, http, exam, "1,7,10", STORED)
    _, parts = parts_of(reply.headers, reply.body)
    assert [p.rstrip(b"\0") for _, p in parts] == [frames[n].rstrip(b"\0") for n in (0, 6, 9)]


@pytest.mark.requirement("DB.CS.83")
@pytest.mark.parametrize(
    ("accept", "syntax"),
    [
        (OCTETS, EXPLICIT_LE),
        ('multipart/related; type="image/jls"', JPEG_LS),
        ('multipart/related; type="image/jpeg"', JPEG_LOSSLESS_SV1),
        ('multipart/related; type="image/jphc"', HTJ2K_LOSSLESS),
        (f'multipart/related; type="image/jphc"; transfer-syntax={HTJ2K_LOSSLESS_RPCL}', HTJ2K_LOSSLESS_RPCL),
        ('multipart/related; type="image/jp2"', JPEG_2000_LOSSLESS),
        (f"{OCTETS};q=0.3, multipart/related; type=image/jls;q=0.8", JPEG_LS),
        ("image/jls", JPEG_LS),
    ],
)
@pytest.mark.parametrize("source", ["emri_small.dcm", "emri_small_RLE.dcm", "emri_small_big_endian.dcm"])
async def test_frames_are_made_where_they_are_not_stored_so(
    box: Box, http: HttpClient, tmp_path: Path, source: str, accept: str, syntax: str
) -> None:
    exam = box.add(make_exam(tmp_path, images=1, source=source))
    pixels = pydicom.dcmread(exam.instances[0].path).pixel_array
    single = accept == "image/jls"
    reply = await get(box, http, exam, "5" if single else "5,2", accept)
    assert reply.status == 200
    if single:
        found = [(reply.headers["content-type"], reply.body)]
    else:
        _, found = parts_of(reply.headers, reply.body)
    for (content_type, body), number in zip(found, (5, 2), strict=False):
        assert content_type.endswith(f"; transfer-syntax={syntax}")
        # What stands above the stored bits is kept, and left out by pydicom.
        assert np.array_equal(decoded(body, syntax, pixels[0]) & 0xFFF, pixels[number - 1])
    assert list(box.scratch.iterdir()) == []


def decoded(body: bytes, syntax: str, like: Any) -> Any:
    if syntax == EXPLICIT_LE:
        return np.frombuffer(body, like.dtype.newbyteorder("<")).reshape(like.shape)
    decode: Any = {
        JPEG_LS: imagecodecs.jpegls_decode,
        JPEG_LOSSLESS_SV1: imagecodecs.jpegsof3_decode,
        JPEG_2000_LOSSLESS: imagecodecs.jpeg2k_decode,
    }.get(syntax, imagecodecs.htj2k_decode)
    return decode(body)


@pytest.mark.requirement("D14")
@pytest.mark.parametrize(
    ("frames", "accept", "status", "code"),
    [
        ("11", STORED, 404, "frame-unknown"),
        ("1,2,11", STORED, 404, "frame-unknown"),
        ("999999999", STORED, 404, "frame-unknown"),
        ("0", STORED, 400, "frames"),
        ("1,", STORED, 400, "frames"),
        ("1;2", STORED, 400, "frames"),
        ("-1", STORED, 400, "frames"),
        (",".join(["1"] * 3000), STORED, 400, "frames"),
        ("1", "image/jls; transfer-syntax=../etc", 400, "accept-syntax"),
        ("1", "image/jls; q=2", 400, "accept-quality"),
        ("1", "image/png", 406, "not-acceptable"),
        ("1", 'multipart/related; type="image/dicom-rle"', 406, "not-acceptable"),
        ("1", f"{STORED};q=0", 406, "not-acceptable"),
        ("1,2", "application/octet-stream", 406, "not-acceptable"),
        ("1", f'multipart/related; type="image/jls"; transfer-syntax={JPEG_2000}', 406, "not-acceptable"),
    ],
)
async def test_frames_that_are_not_there_or_not_taken(
    box: Box, http: HttpClient, tmp_path: Path, frames: str, accept: str, status: int, code: str
) -> None:
    exam = box.add(make_exam(tmp_path, images=1, source=TEN.name))
    reply = await get(box, http, exam, frames, accept)
    assert (reply.status, code in reply.body.decode()) == (status, True)


async def test_the_file_is_sent_to_those_who_ask_for_one(box: Box, http: HttpClient, tmp_path: Path) -> None:
    """The official request for frames asks for DICOM files (standards.md C.2)."""
    exam = box.add(make_exam(tmp_path, images=1, source=TEN.name))
    file = f'multipart/related; type="application/dicom"; transfer-syntax={EXPLICIT_LE}'
    reply = await get(box, http, exam, "2", file)
    kind, ((content_type, body),) = parts_of(reply.headers, reply.body)
    assert (kind, content_type) == ("application/dicom", f"application/dicom; transfer-syntax={EXPLICIT_LE}")
    assert pydicom.dcmread(io.BytesIO(body)).NumberOfFrames == 10
    # Frames where both are liked alike, the file where it is liked better.
    for qualities, expected in (((0.5, 0.5), "application/octet-stream"), ((0.4, 0.5), "application/dicom")):
        accept = f"{STORED};q={qualities[0]}, {file};q={qualities[1]}"
        reply = await get(box, http, exam, "2", accept)
        assert parts_of(reply.headers, reply.body)[0] == expected


async def test_a_video_has_no_frames_but_is_a_file(box: Box, http: HttpClient, tmp_path: Path) -> None:
    exam = box.add(make_exam(tmp_path, images=1))
    stored_as(exam, "1.2.840.10008.1.2.4.102", [b"not really a film!"], NumberOfFrames=50)
    assert (await get(box, http, exam, "1", STORED)).status == 406
    reply = await get(box, http, exam, "1", 'multipart/related; type="application/dicom"; transfer-syntax=*')
    ((content_type, body),) = parts_of(reply.headers, reply.body)[1]
    assert content_type == "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.102"
    assert b"not really a film!" in body


async def test_single_bit_frames_begin_on_a_byte(box: Box, http: HttpClient, tmp_path: Path) -> None:
    exam = box.add(make_exam(tmp_path, images=1, source="liver.dcm"))
    path = exam.instances[0].path
    dataset = pydicom.dcmread(path)
    cells = np.random.default_rng(3).integers(0, 2, (3, 5, 7), dtype=np.uint8)
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 5, 7, 3
    packed = np.packbits(cells.ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    dataset.save_as(path)
    reply = await get(box, http, exam, "1,2,3", OCTETS)
    _, parts = parts_of(reply.headers, reply.body)
    for (_, body), frame in zip(parts, cells, strict=True):
        bits = np.unpackbits(np.frombuffer(body, np.uint8), bitorder="little")[:35]
        assert np.array_equal(bits.reshape(5, 7), frame)


async def test_an_image_of_somebody_else_gives_no_frame(box: Box, http: HttpClient, tmp_path: Path) -> None:
    exam, other = (box.add(make_exam(tmp_path, images=1)) for _ in range(2))
    other.instances[0].path.replace(exam.instances[0].path)
    reply = await get(box, http, exam, "1", STORED)
    assert (reply.status, b"image-identity" in reply.body) == (502, True)


async def test_many_long_frames_go_through_the_scratch_folder_and_leave_nothing(
    box: Box, http: HttpClient, tmp_path: Path
) -> None:
    exam = box.add(make_exam(tmp_path, images=1))
    path = exam.instances[0].path
    dataset = pydicom.dcmread(path)
    dataset.Rows, dataset.Columns = 2048, 2048
    cells = np.random.default_rng(5).integers(0, 4096, (2048, 2048), dtype="<u2")
    dataset.PixelRepresentation, dataset.BitsStored, dataset.HighBit = 0, 12, 11
    dataset.PixelData = cells.tobytes()
    dataset.save_as(path)
    reply = await get(box, http, exam, "1,1,1,1,1", 'multipart/related; type="image/jls"')
    _, parts = parts_of(reply.headers, reply.body)
    assert len(parts) == 5
    assert len({body for _, body in parts}) == 1
    assert np.array_equal(imagecodecs.jpegls_decode(parts[0][1]), cells)
    assert list(box.scratch.iterdir()) == []


@pytest.mark.requirement("DB.SO.32")
async def test_dicomweb_client_reads_frames(box: Box, tmp_path: Path) -> None:
    exam = box.add(make_exam(tmp_path, images=1, source=TEN.name))
    pixels = pydicom.dcmread(exam.instances[0].path).pixel_array

    def fetch() -> list[list[bytes]]:
        session = create_session()
        session.trust_env = False
        session.verify = str(box.keys.authority.roots)
        session.cert = (str(box.keys.peer.certificate), str(box.keys.peer.key))
        client = DICOMwebClient(box.url, session=session, headers=box.headers(exam))
        uids = exam.study_uid, exam.first_series, exam.instances[0].sop_instance_uid
        asked: list[Any] = [None, ("application/octet-stream",), (("application/octet-stream", "*"),)]
        found = [client.retrieve_instance_frames(*uids, [2, 9], media_types=media) for media in asked]
        found.append(client.retrieve_instance_frames(*uids, [2, 9], media_types=(("image/jls", JPEG_LS),)))
        session.close()
        return found

    *plain, compressed = await asyncio.to_thread(fetch)
    for frames in plain:
        assert frames == [pixels[1].tobytes(), pixels[8].tobytes()]
    assert [imagecodecs.jpegls_decode(f).tolist() for f in compressed] == [pixels[1].tolist(), pixels[8].tolist()]

"""Headers as DICOM JSON and frames, against pydicom on every readable image it ships, and on damaged ones."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.data.data_manager import DATA_ROOT
from pydicom.encaps import generate_frames

from drimbox.consumer.frames import read_frame, read_video
from drimbox.consumer.header import bulk_value, read_header
from drimbox.dicom.syntaxes import HTJ2K, HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL, JPEG_LS
from drimbox.foundation.errors import Refused
from drimbox.images.transcode import transcode

FILES = sorted(Path(DATA_ROOT, "test_files").glob("*.dcm"))
# Not Part 10, deflated, or without the identifiers that the network needs.
UNREADABLE = {
    "ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "badVR.dcm", "image_dfl.dcm", "meta_missing_tsyntax.dcm",
    "no_meta.dcm", "rtstruct.dcm",
}  # fmt: skip


def headers() -> list[Path]:
    found = []
    for path in FILES:
        try:
            read_header(path)
        except Refused:
            continue
        found.append(path)
    return found


READABLE = headers()


def test_nearly_every_image_is_readable() -> None:
    refused = {p.name for p in FILES} - {p.name for p in READABLE}
    assert len(READABLE) >= 60
    assert refused >= UNREADABLE & {p.name for p in FILES}


@pytest.mark.parametrize("path", READABLE, ids=lambda p: p.name)
def test_metadata_say_what_pydicom_says(path: Path) -> None:
    header, described = read_header(path)
    ours = json.loads(described)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        theirs = dataset.to_json_dict(
            bulk_data_threshold=1024, bulk_data_element_handler=lambda _: "bulk", suppress_invalid_tags=True
        )
    assert header.sop_instance_uid == str(dataset.SOPInstanceUID)
    assert ours["00083002"]["Value"] == [header.transfer_syntax_uid]
    for tag, expected in theirs.items():
        if tag.endswith("0000") or tag == "00080005" or tag.startswith(("7FE0", "FFFC")):
            continue
        assert _plain(ours[tag]) == _plain(expected), tag


def _plain(element: dict[str, Any]) -> Any:
    """Without what two encoders may do differently: empty values, padding, where long values are."""
    values = [v for v in element.get("Value", []) if v not in ("", None)]
    if element["vr"] == "SQ":
        return [
            {tag: _plain(e) for tag, e in item.items() if tag != "7FE00010" and not tag.endswith("0000") and _plain(e)}
            for item in values
        ]
    if "BulkDataURI" in element or "InlineBinary" in element:
        return "binary"
    return [v.strip() if isinstance(v, str) else v for v in values]


@pytest.mark.parametrize("path", READABLE, ids=lambda p: p.name)
def test_frames_are_the_stored_ones(path: Path) -> None:
    header, _ = read_header(path)
    dataset = pydicom.dcmread(path)
    if header.pixels is None or not hasattr(dataset, "PixelData"):
        return
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_little_endian or path.name == "MR_truncated.dcm":
        return
    frames = header.pixels.frames
    if syntax.is_encapsulated:
        stored = list(generate_frames(dataset.PixelData, number_of_frames=frames))
        for number, expected in enumerate(stored, 1):
            assert read_frame(path, header, number).body == expected
    elif dataset.BitsAllocated >= 8:
        length = header.pixels.frame_bits // 8
        for number in range(1, frames + 1):
            frame = read_frame(path, header, number)
            assert frame.body == dataset.PixelData[(number - 1) * length : number * length]
            assert frame.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    for wrong in (0, frames + 1):
        with pytest.raises(Refused):
            read_frame(path, header, wrong)


def test_a_truncated_image_is_not_given_as_a_whole_one() -> None:
    path = Path(DATA_ROOT, "test_files", "MR_truncated.dcm")
    header, _ = read_header(path)
    with pytest.raises(Refused):
        read_frame(path, header, 1)


@pytest.mark.parametrize("columns", [8, 5, 3])
def test_single_bit_frames_begin_on_a_byte(tmp_path: Path, columns: int) -> None:
    frames = np.random.default_rng(1).integers(0, 2, (4, 3, columns), dtype=np.uint8)
    dataset = pydicom.dcmread(get_testdata_file("liver.dcm"))
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames, dataset.BitsAllocated = 3, columns, 4, 1
    packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    path = tmp_path / "seg.dcm"
    dataset.save_as(path)
    header, _ = read_header(path)
    for number in range(4):
        body = read_frame(path, header, number + 1).body
        bits = np.unpackbits(np.frombuffer(body, np.uint8), bitorder="little")[: 3 * columns]
        assert bits.tolist() == frames[number].ravel().tolist()


def test_long_values_are_fetched_apart(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    item = pydicom.Dataset()
    item.add_new(0x00420011, "OB", b"%PDF" + b"x" * 5000)
    dataset.add_new(0x00081115, "SQ", pydicom.Sequence([item]))
    path = tmp_path / "bulk.dcm"
    dataset.save_as(path)
    _, described = read_header(path)
    uri = json.loads(described)["00081115"]["Value"][0]["00420011"]["BulkDataURI"]
    assert uri == f"instances/{dataset.SOPInstanceUID}/bulkdata/00081115.0.00420011"
    assert bulk_value(path, "00081115.0.00420011") == item[0x00420011].value
    for wrong in ("00081115", "00081115.1.00420011", "zz", "", "00081115.0", ".".join(["00081115", "0"] * 40) + ".0"):
        assert bulk_value(path, wrong) in (None, b"")


def test_a_video_is_one_stream(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    dataset.PixelData = pydicom.encaps.encapsulate([b"mp4-stream-of-bytes!"])
    dataset["PixelData"].is_undefined_length = True
    path = tmp_path / "video.dcm"
    dataset.save_as(path)
    header, _ = read_header(path)
    video = read_video(path, header)
    assert (video.body, video.media_type) == (b"mp4-stream-of-bytes!", "video/mp4")
    with pytest.raises(Refused):
        read_frame(path, header, 1)


@pytest.mark.parametrize("syntax", [HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL, HTJ2K, JPEG_LS])
def test_frames_for_the_viewer_leave_as_they_lie(tmp_path: Path, syntax: str) -> None:
    """A source that is asked for HTJ2K (setting ``syntaxes_view``) spares the browser the slow codecs."""
    found = get_testdata_file("emri_small.dcm")
    assert isinstance(found, str)
    transcode(Path(found), tmp_path / "image.dcm", syntax)
    header, described = read_header(tmp_path / "image.dcm")
    assert json.loads(described)["00083002"]["Value"] == [syntax]
    expected = pydicom.dcmread(found).pixel_array
    for number in (1, 7, 10):
        frame = read_frame(tmp_path / "image.dcm", header, number)
        assert (frame.media_type, frame.transfer_syntax_uid) == (
            ("image/jls" if syntax == JPEG_LS else "image/jphc"),
            syntax,
        )
        decode = imagecodecs.jpegls_decode if syntax == JPEG_LS else imagecodecs.htj2k_decode
        assert np.array_equal(decode(frame.body), expected[number - 1])


def test_accents_and_names_are_utf8() -> None:
    _, described = read_header(Path(DATA_ROOT, "charset_files", "chrFren.dcm"))
    metadata = json.loads(described)
    assert metadata["00100010"]["Value"] == [{"Alphabetic": "Buc^Jérôme"}]
    assert metadata["00080005"]["Value"] == ["ISO_IR 192"]


WHOLE = {name: Path(get_testdata_file(name)).read_bytes() for name in ("CT_small.dcm", "693_J2KR.dcm")}


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(sorted(WHOLE)), st.integers(0, 3000), st.binary(min_size=1, max_size=8), st.integers(200, 40000))
def test_damaged_files_are_refused_or_read_but_never_worse(
    tmp_path: Path, name: str, where: int, what: bytes, length: int
) -> None:
    path, original = tmp_path / "damaged.dcm", WHOLE[name]
    path.write_bytes((original[:where] + what + original[where + len(what) :])[:length])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header, described = read_header(path)
            json.loads(described)
            read_frame(path, header, 1)
        except Refused:
            pass
        bulk_value(path, "00081115.0.00081150")

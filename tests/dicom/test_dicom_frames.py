"""Frames taken out of files, beside pydicom, however they were cut into fragments and whatever table tells of them."""

from __future__ import annotations

import struct
from contextlib import suppress
from itertools import accumulate

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames

from drimbox.dicom.elements import ITEM, PIXEL_DATA, SEQUENCE_END, UNDEFINED, head, write
from drimbox.dicom.files import Meta, read_meta
from drimbox.dicom.frames import all_spans, frame, native_span
from drimbox.dicom.pixels import OFFSET_LENGTHS, OFFSETS, read_layout
from drimbox.dicom.syntaxes import EXPLICIT_LE, JPEG_2000, JPEG_LS, MPEG4_HIGH, RLE, encoding_of
from drimbox.foundation.errors import Refused

LE = encoding_of(EXPLICIT_LE)


def image(frames: int, content: bytes, *more: bytes, bits: int = 8, columns: int = 4, photometric: str = "") -> bytes:
    """A data set with just what describes its pixels, and these."""
    samples = 3 if photometric else 1
    numbers = [
        (0x00280002, "US", struct.pack("<H", samples)),
        (0x00280004, "CS", (photometric or "MONOCHROME2").encode()),
        (0x00280008, "IS", str(frames).encode()),
        (0x00280010, "US", struct.pack("<H", 3)),
        (0x00280011, "US", struct.pack("<H", columns)),
        (0x00280100, "US", struct.pack("<H", bits)),
        (0x00280101, "US", struct.pack("<H", bits)),
        (0x00280103, "US", b"\0\0"),
    ]
    return b"".join(write(tag, vr, value, LE) for tag, vr, value in numbers) + b"".join(more) + content


def item(content: bytes) -> bytes:
    return head(ITEM, "", len(content), LE) + content


def encapsulated(table: bytes, fragments: list[bytes]) -> bytes:
    pieces = b"".join(map(item, fragments)) + head(SEQUENCE_END, "", 0, LE)
    return head(PIXEL_DATA, "OB", UNDEFINED, LE) + item(table) + pieces


def frames_of(data: bytes, syntax: str) -> list[bytes]:
    layout = read_layout(data, Meta(syntax, (), 0))
    spans = all_spans(data, layout, syntax)
    assert layout.pixels is not None
    return [frame(data, layout, number, spans) for number in range(1, layout.pixels.frames + 1)]


even = st.binary(min_size=2, max_size=20).map(lambda b: b + b"\0" * (len(b) % 2))
cut_frames = st.lists(st.lists(even, min_size=1, max_size=4), min_size=1, max_size=6)


@settings(max_examples=120, deadline=None)
@given(cut_frames, st.sampled_from(["basic", "extended", "none"]))
def test_each_frame_is_put_together_again(frames: list[list[bytes]], table: str) -> None:
    whole = [b"".join(fragments) for fragments in frames]
    flat = [fragment for fragments in frames for fragment in fragments]
    starts = [0, *accumulate(sum(8 + len(f) for f in fragments) for fragments in frames)][:-1]
    match table:
        case "basic":
            data = image(len(frames), encapsulated(struct.pack(f"<{len(starts)}I", *starts), flat))
        case "extended":
            # One fragment per frame is the rule of this table; the last byte is padding.
            starts = [0, *accumulate(8 + len(f) for f in whole)][:-1]
            told = [len(f) - 1 for f in whole]
            more = [
                write(OFFSETS, "OV", struct.pack(f"<{len(starts)}Q", *starts), LE),
                write(OFFSET_LENGTHS, "OV", struct.pack(f"<{len(told)}Q", *told), LE),
            ]
            data = image(len(frames), encapsulated(b"", whole), *more)
            whole = [f[:-1] for f in whole]
        case _:
            # Without a table each frame must be told by how it begins.
            marked = [[b"\xff\xd8\xff\xf7" + fragments[0], *fragments[1:]] for fragments in frames]
            inner = [fragment for fragments in marked for fragment in fragments[1:]]
            beginnings = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")
            if any(fragment.startswith(beginnings) for fragment in inner):
                return
            whole = [b"".join(fragments) for fragments in marked]
            data = image(len(frames), encapsulated(b"", [f for fragments in marked for f in fragments]))
    assert frames_of(data, JPEG_LS) == whole


def test_a_table_that_is_wrong_is_not_followed() -> None:
    frames = [b"\xff\xd8\xff\x01aa", b"\xff\xd8\xff\x02bb", b"\xff\xd8\xff\x03cc"]
    for table in (
        struct.pack("<3I", 0, 0, 0),
        struct.pack("<3I", 0, 13, 28),
        struct.pack("<3I", 0, 0xFFFFFFF0, 0xFFFFFFFF),
        struct.pack("<3I", 14, 28, 42),
        struct.pack("<2I", 0, 14),
        struct.pack("<4I", 0, 14, 28, 42),
    ):
        assert frames_of(image(3, encapsulated(table, frames)), JPEG_LS) == frames
    # Nor is an extended one; lengths over their fragments would read into the next image.
    for offsets, lengths in (((0, 14, 28), (6, 6, 99)), ((0, 15, 28), (6, 6, 6)), ((0, 14), (6, 6))):
        more = [
            write(OFFSETS, "OV", struct.pack(f"<{len(offsets)}Q", *offsets), LE),
            write(OFFSET_LENGTHS, "OV", struct.pack(f"<{len(lengths)}Q", *lengths), LE),
        ]
        assert frames_of(image(3, encapsulated(b"", frames), *more), JPEG_LS) == frames


def test_frames_that_cannot_be_told_apart_are_refused() -> None:
    start = b"\xff\x4f\xff\x51"
    for frames, fragments, syntax in (
        (3, [b"aa", b"bb"], JPEG_LS),
        (2, [b"aa", b"bb", b"cc"], JPEG_LS),
        (2, [b"aa", start + b"bb", start + b"cc"], JPEG_2000),
        (2, [start, start, start], JPEG_2000),
        (1, [b"aa", b"bb"], RLE),
        (1, [], JPEG_LS),
    ):
        with pytest.raises(Refused) as refused:
            frames_of(image(frames, encapsulated(b"", fragments)), syntax)
        assert refused.value.code == "dicom-frame"
    assert frames_of(image(1, encapsulated(b"", [b"aa", b"bb"])), JPEG_LS) == [b"aabb"]
    data = image(7, encapsulated(b"", [b"aa", b"bb"]))
    assert all_spans(data, read_layout(data, Meta(MPEG4_HIGH, (), 0)), MPEG4_HIGH)[0][0][1]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.sampled_from([1, 8, 16, 32]), st.integers(1, 9))
def test_native_frames_are_the_slices_that_numpy_makes(frames: int, bits: int, columns: int) -> None:
    rng = np.random.default_rng(frames * 1000 + bits * 10 + columns)
    if bits == 1:
        cells = rng.integers(0, 2, (frames, 3, columns), dtype=np.uint8)
        content = np.packbits(cells.ravel(), bitorder="little").tobytes()
        expected = [np.packbits(c.ravel(), bitorder="little").tobytes() for c in cells]
    else:
        cells = rng.integers(0, 2**bits, (frames, 3, columns), dtype=f"<u{bits // 8}")
        content, expected = cells.tobytes(), [c.tobytes() for c in cells]
    value = write(PIXEL_DATA, "OW", content, LE)
    data = image(frames, value, bits=bits, columns=columns)
    layout = read_layout(data, Meta(EXPLICIT_LE, (), 0))
    for number in range(1, frames + 1):
        assert frame(data, layout, number) == expected[number - 1]
        span = native_span(layout, number)
        assert span is None or data[slice(*span)] == expected[number - 1]
    for wrong in (0, -1, frames + 1):
        with pytest.raises(Refused):
            frame(data, layout, wrong)
    short = image(
        frames, write(PIXEL_DATA, "OW", content[: len(content) // 2 // 2 * 2], LE), bits=bits, columns=columns
    )
    with pytest.raises(Refused):
        frame(short, read_layout(short, Meta(EXPLICIT_LE, (), 0)), frames)


def test_shared_colours_take_two_thirds_of_the_room() -> None:
    data = image(2, write(PIXEL_DATA, "OB", bytes(range(48)), LE), photometric="YBR_FULL_422")
    layout = read_layout(data, Meta(EXPLICIT_LE, (), 0))
    assert frame(data, layout, 2) == bytes(range(24, 48))
    odd = image(1, write(PIXEL_DATA, "OB", bytes(30), LE), photometric="YBR_FULL_422", columns=5)
    with pytest.raises(Refused):
        read_layout(odd, Meta(EXPLICIT_LE, (), 0))


@pytest.mark.parametrize(
    "name",
    [
        "emri_small_jpeg_ls_lossless.dcm",
        "emri_small_RLE.dcm",
        "emri_small_jpeg_2k_lossless.dcm",
        "SC_rgb_rle_2frame.dcm",
    ],
)
def test_frames_of_real_files_are_those_of_pydicom(name: str) -> None:
    found = get_testdata_file(name)
    assert isinstance(found, str)
    dataset = pydicom.dcmread(found)
    with open(found, "rb") as file:
        data = file.read()
    meta = read_meta(data)
    layout = read_layout(data, meta)
    spans = all_spans(data, layout, meta.transfer_syntax)
    expected = list(generate_frames(dataset.PixelData, number_of_frames=dataset.NumberOfFrames))
    assert [frame(data, layout, n, spans) for n in range(1, len(expected) + 1)] == expected


@given(st.integers(0, 400), st.binary(max_size=30), st.integers(1, 5))
def test_damaged_pixels_are_refused_or_cut_within_the_file(at: int, noise: bytes, frames: int) -> None:
    data = image(frames, encapsulated(struct.pack("<2I", 0, 14), [b"\xff\xd8\xff\x01aa", b"\xff\xd8\xff\x02bb"]))
    mixed = data[:at] + noise + data[at + len(noise) :]
    with suppress(Refused):
        frames_of(mixed, JPEG_LS)

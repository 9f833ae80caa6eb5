"""Frames of an encrypted image: what is brought into the clear is enough for them, and no more than they need."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from files import part10_files
from hypothesis import given
from hypothesis import strategies as st
from pydicom.encaps import encapsulate

from drimbox.dicom.files import mapped, read_meta
from drimbox.dicom.frames import all_spans, frame
from drimbox.dicom.pixels import read_layout
from drimbox.dicom.syntaxes import DEFLATED_LE, NATIVE, VIDEO
from drimbox.foundation.errors import Refused
from drimbox.images.partly import PartlyKept
from drimbox.images.ports import Indexed, KeptInstance


class Sealed(KeptInstance):
    """An image that lies encrypted, in words of one syllable: it counts what is read of it."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.given = 0
        self.at_hand = False
        self.whole = 0
        self.open = 0

    @property
    def sop_instance_uid(self) -> str:
        return "1.2.3"

    @property
    def path(self) -> Path:
        return Path(f"/proc/{os.getpid()}/fd/{self.open}")

    @property
    def size(self) -> int:
        return len(self.content)

    @property
    def indexed(self) -> Indexed | None:
        return None

    @property
    def in_clear(self) -> bool:
        return False

    def head(self, *, wait: bool) -> bytes | None:
        return None

    def read_into(self, offset: int, target: memoryview, *, wait: bool) -> bool:
        piece = self.content[offset : offset + len(target)]
        assert len(piece) == len(target), "read beyond the end"
        target[:] = piece
        self.given += len(piece)
        return True

    def acquire(self) -> Path:
        self.whole += 1
        self.open = os.memfd_create("whole")
        os.write(self.open, self.content)
        return self.path

    def release(self) -> None:
        if self.open:
            os.close(self.open)
            self.open = 0


def read(path: Path, number: int) -> bytes | str:
    """One frame of a file, or why there is none."""
    try:
        with mapped(path) as buffer:
            meta = read_meta(buffer)
            layout = read_layout(buffer, meta)
            spans = () if meta.transfer_syntax in NATIVE else all_spans(buffer, layout, meta.transfer_syntax)
            return frame(buffer, layout, number, spans)
    except Refused as refused:
        return refused.code


def through(content: bytes, number: int) -> tuple[bytes | str, Sealed]:
    kept = Sealed(content)
    part = PartlyKept(kept, [number])
    try:
        return read(part.acquire(), number), kept
    finally:
        part.release()
        assert not kept.open


def every_frame() -> Iterator[tuple[Path, int]]:
    for path in part10_files():
        try:
            with mapped(path) as buffer:
                pixels = read_layout(buffer, read_meta(buffer)).pixels
        except Refused:
            pixels = None
        frames = pixels.frames if pixels is not None else 1
        for number in sorted({1, 2, frames, frames + 1}):
            yield path, number


def test_every_frame_of_real_files_is_the_same() -> None:
    compared = 0
    for path, number in every_frame():
        got, kept = through(path.read_bytes(), number)
        assert got == read(path, number), (path.name, number)
        compared += isinstance(got, bytes) and not kept.whole
    assert compared > 100


@pytest.mark.parametrize(
    ("table", "fragments"), [("basic", 1), ("basic", 3), ("none", 1), ("none", 3), ("extended", 1)]
)
def test_frames_in_fragments(tmp_path: Path, table: str, fragments: int) -> None:
    frames = [b"\xff\xd8\xff" + bytes([n]) * 400_000 for n in range(12)]
    dataset = pydicom.dcmread(next(p for p in part10_files() if p.name == "emri_small_RLE.dcm"))
    dataset.NumberOfFrames = len(frames)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
    if table == "extended":
        dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = (
            pydicom.encaps.encapsulate_extended(frames)
        )
    else:
        dataset.PixelData = encapsulate(frames, fragments, has_bot=table == "basic")
    out = io.BytesIO()
    dataset.save_as(out)
    for number in (1, 7, 12):
        got, kept = through(out.getvalue(), number)
        assert isinstance(got, bytes)
        assert got.rstrip(b"\0") == frames[number - 1].rstrip(b"\0")
        # All of it is 4.8 MB.
        assert kept.given < (4_500_000 if fragments == 1 else 5_000_000)
        assert not kept.whole


def test_one_frame_of_many_costs_one_frame(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(next(p for p in part10_files() if p.name == "emri_small.dcm"))
    dataset.NumberOfFrames = 400
    size = dataset.Rows * dataset.Columns * 2
    dataset.PixelData = b"".join(n.to_bytes(2, "little") * (size // 2) for n in range(400))
    out = io.BytesIO()
    dataset.save_as(out)
    got, kept = through(out.getvalue(), 300)
    assert got == (299).to_bytes(2, "little") * (size // 2)
    assert kept.given <= 3 * 2**18 < kept.size


def test_what_must_be_read_whole_is(tmp_path: Path) -> None:
    """A deflated image, and a video, whose frames are one stream."""
    for path in part10_files():
        with mapped(path) as buffer:
            try:
                syntax = read_meta(buffer).transfer_syntax
            except Refused:
                continue
        if syntax == DEFLATED_LE:
            assert through(path.read_bytes(), 1)[1].whole == 1
        elif syntax in VIDEO:
            assert through(path.read_bytes(), 1)[0] == read(path, 1)


_SAMPLE = next(p for p in part10_files() if p.name == "emri_small_RLE.dcm").read_bytes()


@given(st.integers(0, len(_SAMPLE)), st.binary(max_size=40), st.integers(0, 2**31))
def test_a_damaged_image_gives_the_same_frame_or_the_same_refusal(cut: int, noise: bytes, at: int) -> None:
    place = at % len(_SAMPLE)
    content = (_SAMPLE[:place] + noise + _SAMPLE[place + len(noise) :])[: max(cut, 1)]
    whole = Sealed(content)
    try:
        expected = read(whole.acquire(), 3)
    finally:
        whole.release()
    got, _ = through(content, 3)
    assert got == expected

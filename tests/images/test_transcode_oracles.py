"""Every kind of pixels in every syntax that we write, read again by others: GDCM, DCMTK, OpenJPH."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from files import named
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID

from drimbox.dicom.files import mapped, read_meta
from drimbox.dicom.pixels import read_layout
from drimbox.dicom.syntaxes import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    HTJ2K,
    HTJ2K_LOSSLESS,
    HTJ2K_LOSSLESS_RPCL,
    IMPLICIT_LE,
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
    RLE,
)
from drimbox.foundation.errors import Refused
from drimbox.images.offers import offers
from drimbox.images.transcode import transcode

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

GDCM = shutil.which("gdcmconv")
OPENJPH = shutil.which("ojph_expand")
WRITTEN = (JPEG_LS, JPEG_LOSSLESS_SV1, JPEG_LOSSLESS, JPEG_2000, JPEG_2000_LOSSLESS)
HT = (HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL, HTJ2K)


@dataclass(frozen=True)
class Kind:
    """A description of pixels."""

    dtype: str
    bits: int
    photometric: str = "MONOCHROME2"
    frames: int = 1
    planar: int = 0
    rows: int = 21
    columns: int = 34

    @property
    def samples(self) -> int:
        return 1 if self.photometric.startswith(("MONO", "PAL")) else 3

    def cells(self) -> Any:
        """Anatomy of a sort: smooth, with noise, and both ends of the scale."""
        rng = np.random.default_rng(self.bits * 7 + self.frames)
        shape = (self.frames, self.rows, self.columns, self.samples)
        low, high = (-(2 ** (self.bits - 1)), 2 ** (self.bits - 1)) if self.dtype[0] == "i" else (0, 2**self.bits)
        slope = np.linspace(low, high - 1, self.columns)[None, None, :, None]
        cells = np.clip(slope * 0.8 + rng.normal(0, max(1, (high - low) / 200), shape), low, high - 1)
        cells[:, 0, 0], cells[:, 0, 1] = low, high - 1
        return cells.astype(self.dtype)


KINDS = {
    "8 bits": Kind("u1", 8),
    "8 bits inverted": Kind("u1", 8, "MONOCHROME1", frames=3),
    "signed 8 bits": Kind("i1", 8),
    "10 bits": Kind("u2", 10),
    "12 bits, frames": Kind("u2", 12, frames=4),
    "signed 12 bits": Kind("i2", 12),
    "16 bits": Kind("u2", 16),
    "signed 16 bits": Kind("i2", 16, frames=2),
    "palette": Kind("u1", 8, "PALETTE COLOR"),
    "RGB": Kind("u1", 8, "RGB", frames=2),
    "RGB in planes": Kind("u1", 8, "RGB", planar=1),
    "YBR": Kind("u1", 8, "YBR_FULL"),
    "one row": Kind("u2", 12, rows=1, columns=2),
    "odd bytes": Kind("u1", 8, rows=5, columns=7, frames=3),
}


def make(kind: Kind, path: Path, cells: Any) -> Dataset:
    dataset = pydicom.dcmread(named("SC_rgb.dcm" if kind.samples == 3 else "MR_small.dcm"))
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = kind.rows, kind.columns, kind.samples
    dataset.BitsAllocated = 8 * np.dtype(kind.dtype).itemsize
    dataset.BitsStored, dataset.HighBit = kind.bits, kind.bits - 1
    dataset.PixelRepresentation = int(kind.dtype[0] == "i")
    dataset.PhotometricInterpretation = kind.photometric
    for name in ("SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue", "PlanarConfiguration"):
        if name in dataset:
            delattr(dataset, name)
    if kind.samples == 3:
        dataset.PlanarConfiguration = kind.planar
    if kind.photometric == "PALETTE COLOR":
        for number in range(3):
            dataset.add_new(0x00281101 + number, "US", [256, 0, 8])
            dataset.add_new(0x00281201 + number, "OW", bytes(range(256)))
    if kind.frames > 1:
        dataset.NumberOfFrames = kind.frames
    laid = cells.transpose(0, 3, 1, 2) if kind.planar else cells
    dataset.PixelData = laid.tobytes() + b"\0" * (laid.nbytes % 2)
    dataset["PixelData"].VR = "OB" if dataset.BitsAllocated == 8 else "OW"
    dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT_LE)
    dataset.save_as(path)
    return dataset


def raw_cells(path: Path, kind: Kind) -> Any:
    """The cells of a native file, whatever its planes."""
    dataset = pydicom.dcmread(path)
    shape = (kind.frames, kind.rows, kind.columns, kind.samples)
    count = int(np.prod(shape))
    cells = np.frombuffer(dataset.PixelData, kind.dtype, count)
    if dataset.get("PlanarConfiguration", 0) == 1:
        return cells.reshape(shape[0], kind.samples, kind.rows, kind.columns).transpose(0, 2, 3, 1)
    return cells.reshape(shape)


@pytest.mark.requirement("DB.CS.83", "DB.SO.85")
@pytest.mark.parametrize("syntax", WRITTEN)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_others_read_the_pixels_that_we_wrote(kind: Kind, syntax: str, tmp_path: Path) -> None:
    source, out, plain = tmp_path / "in.dcm", tmp_path / "out.dcm", tmp_path / "plain.dcm"
    cells = kind.cells()
    before = make(kind, source, cells)
    transcode(source, out, syntax)
    after = pydicom.dcmread(out)
    assert after.file_meta.TransferSyntaxUID == syntax
    assert after.PhotometricInterpretation == before.PhotometricInterpretation
    assert after.get("PlanarConfiguration", 0) == 0
    assert (after.BitsAllocated, after.BitsStored, after.PixelRepresentation) == (
        before.BitsAllocated,
        before.BitsStored,
        before.PixelRepresentation,
    )
    assert "LossyImageCompression" not in after or after.LossyImageCompression == "00"
    decoder = None
    if GDCM:
        decoder = [GDCM, "--raw", out, plain]
    elif syntax not in (JPEG_2000, JPEG_2000_LOSSLESS):
        decoder = ["/usr/bin/dcmdjpls" if syntax == JPEG_LS else "/usr/bin/dcmdjpeg", "+cn", out, plain]
    if decoder is not None:
        subprocess.run(decoder, check=True, capture_output=True)
        assert np.array_equal(raw_cells(plain, kind), cells)
    # Ours reads it again too.
    transcode(out, tmp_path / "again.dcm", EXPLICIT_LE)
    assert np.array_equal(raw_cells(tmp_path / "again.dcm", kind), cells)


@pytest.mark.parametrize(
    "kind", [k for k in KINDS.values() if k.dtype != "i1"], ids=[n for n in KINDS if n[:8] != "signed 8"]
)
def test_openjph_reads_our_htj2k(kind: Kind, tmp_path: Path) -> None:
    source = tmp_path / "in.dcm"
    cells = kind.cells()
    make(kind, source, cells)
    for syntax in HT:
        out, again = tmp_path / f"{syntax}.dcm", tmp_path / f"{syntax}-again.dcm"
        transcode(source, out, syntax)
        after = pydicom.dcmread(out)
        assert after.PhotometricInterpretation == ("YBR_RCT" if kind.photometric == "RGB" else kind.photometric)
        frames = list(generate_frames(after.PixelData, number_of_frames=kind.frames))
        assert all(is_rpcl_with_pointers(frame) for frame in frames)
        transcode(out, again, EXPLICIT_LE)
        assert np.array_equal(raw_cells(again, kind), cells)
        assert pydicom.dcmread(again).PhotometricInterpretation == kind.photometric
    if OPENJPH and kind.samples == 1 and kind.dtype[0] == "u":
        (tmp_path / "frame.j2c").write_bytes(frames[-1])
        subprocess.run(
            [OPENJPH, "-i", tmp_path / "frame.j2c", "-o", tmp_path / "frame.pgm"], check=True, capture_output=True
        )
        assert np.array_equal(grey(tmp_path / "frame.pgm"), cells[-1, ..., 0])


def is_rpcl_with_pointers(stream: bytes) -> bool:
    """What HTJ2K Lossless RPCL asks for (PS3.5 8.2.16)."""
    coding = stream.index(b"\xff\x52")
    return stream[coding + 5] == 2 and b"\xff\x55" in stream[:400]


def grey(path: Path) -> Any:
    content = path.read_bytes()
    magic, size, most, *_ = content.split(b"\n", 3)
    assert magic == b"P5"
    columns, rows = map(int, size.split())
    body = content[-rows * columns * (2 if int(most) > 255 else 1) :]
    return np.frombuffer(body, ">u2" if int(most) > 255 else "u1").reshape(rows, columns)


@pytest.mark.requirement("DB.SO.41", "DB.CS.83")
@pytest.mark.parametrize("stored", [IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE, RLE])
@pytest.mark.parametrize("name", ["signed 12 bits", "12 bits, frames", "RGB", "RGB in planes", "palette"])
def test_from_every_way_to_store_them(name: str, stored: str, tmp_path: Path) -> None:
    kind, source, kept = KINDS[name], tmp_path / "explicit.dcm", tmp_path / "in.dcm"
    cells = kind.cells()
    dataset = make(kind, source, cells)
    if stored == RLE:
        dataset.compress(RLE, arr=np.squeeze(cells, axis=tuple(a for a in (0, 3) if cells.shape[a] == 1)))
        dataset.save_as(kept)
    else:
        option = {IMPLICIT_LE: "+ti", EXPLICIT_BE: "+tb", DEFLATED_LE: "+td"}[stored]
        subprocess.run(["/usr/bin/dcmconv", option, source, kept], check=True, capture_output=True)
    for syntax in (EXPLICIT_LE, JPEG_LS, JPEG_LOSSLESS_SV1, HTJ2K_LOSSLESS):
        out, again = tmp_path / f"{syntax}.dcm", tmp_path / f"{syntax}-again.dcm"
        transcode(kept, out, syntax)
        if syntax == EXPLICIT_LE:
            again = out
        else:
            transcode(out, again, EXPLICIT_LE)
        assert np.array_equal(raw_cells(again, kind), cells)
    assert [p for p in tmp_path.iterdir() if p.name.endswith(".le")] == []


def test_shared_colours_become_each_pixel_s_own(tmp_path: Path) -> None:
    kind = Kind("u1", 8, "YBR_FULL_422", rows=4, columns=6)
    source, out, plain = tmp_path / "in.dcm", tmp_path / "out.dcm", tmp_path / "plain.dcm"
    dataset = make(kind, source, kind.cells())
    pairs = np.random.default_rng(1).integers(0, 256, (4, 3, 4), dtype=np.uint8)
    dataset.PixelData = pairs.tobytes()
    dataset.save_as(source)
    expected = np.dstack(
        [pairs[..., :2].reshape(4, 6), np.repeat(pairs[..., 2], 2, axis=1), np.repeat(pairs[..., 3], 2, axis=1)]
    )
    transcode(source, out, JPEG_LS)
    subprocess.run(["/usr/bin/dcmdjpls", out, plain], check=True, capture_output=True)
    after = pydicom.dcmread(plain)
    assert after.PhotometricInterpretation == "YBR_FULL"
    assert np.array_equal(raw_cells(plain, kind)[0], expected)
    # Explicit Little Endian from Implicit touches no pixel: they stay shared.
    subprocess.run(["/usr/bin/dcmconv", "+ti", source, tmp_path / "implicit.dcm"], check=True, capture_output=True)
    transcode(tmp_path / "implicit.dcm", tmp_path / "explicit.dcm", EXPLICIT_LE)
    assert pydicom.dcmread(tmp_path / "explicit.dcm").PixelData == pairs.tobytes()


def test_overlays_in_the_high_bits_survive(tmp_path: Path) -> None:
    kind = Kind("u2", 12)
    source = tmp_path / "in.dcm"
    cells = kind.cells() | np.uint16(0x8000)
    make(kind, source, cells)
    for syntax in (*WRITTEN, *HT):
        transcode(source, tmp_path / syntax, syntax)
        transcode(tmp_path / syntax, tmp_path / f"{syntax}-again", EXPLICIT_LE)
        assert np.array_equal(raw_cells(tmp_path / f"{syntax}-again", kind), cells)


# --- what cannot be, or must be forced


def described(path: Path) -> list[tuple[str, bool]]:
    with mapped(path) as buffer:
        meta = read_meta(buffer)
        return [(o.syntax, o.loses) for o in offers(meta.transfer_syntax, read_layout(buffer, meta).pixels)]


def test_single_bits_and_floats_leave_as_they_are(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(named("CT_small.dcm"))
    del dataset.PixelData
    dataset.BitsAllocated = 32
    dataset.FloatPixelData = b"\0\0\x80\x3f" * (dataset.Rows * dataset.Columns)
    dataset.save_as(tmp_path / "float.dcm")
    for path in (named("liver_1frame.dcm"), tmp_path / "float.dcm"):
        assert described(path) == [(EXPLICIT_LE, False)]
        with pytest.raises(Refused):
            transcode(path, tmp_path / f"{path.stem}-out.dcm", JPEG_LS)


@pytest.mark.requirement("D14")
@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("8 bits", JPEG_BASELINE),
        ("RGB", JPEG_BASELINE),
        ("YBR", JPEG_BASELINE),
        ("10 bits", JPEG_EXTENDED),
        ("12 bits, frames", JPEG_EXTENDED),
        ("signed 12 bits", ""),
        ("16 bits", ""),
        ("palette", ""),
    ],
)
def test_a_lossy_step_is_offered_where_it_can_be_and_marked(name: str, syntax: str, tmp_path: Path) -> None:
    kind, source, out, plain = KINDS[name], tmp_path / "in.dcm", tmp_path / "out.dcm", tmp_path / "plain.dcm"
    cells = kind.cells()
    before = make(kind, source, cells)
    assert [s for s, loses in described(source) if loses] == ([syntax] if syntax else [])
    for impossible in {JPEG_BASELINE, JPEG_EXTENDED} - {syntax}:
        with pytest.raises(Refused):
            transcode(source, tmp_path / "no.dcm", impossible)
        (tmp_path / "no.dcm").unlink()
    if not syntax:
        return
    transcode(source, out, syntax)
    after = pydicom.dcmread(out)
    assert after.SOPInstanceUID == before.SOPInstanceUID
    assert after.LossyImageCompression == "01"
    assert after.LossyImageCompressionMethod == "ISO_10918_1"
    assert float(after.LossyImageCompressionRatio) >= 1
    assert after.ImageType[0] == "DERIVED"
    assert list(after.ImageType[1:]) == list(before.ImageType[1:])
    assert after.PhotometricInterpretation == ("YBR_FULL" if kind.samples == 3 else "MONOCHROME2")
    # DCMTK sees nearly the same picture.
    keep = "+cn" if kind.photometric != "RGB" else "+ca"
    subprocess.run(["/usr/bin/dcmdjpeg", keep, out, plain], check=True, capture_output=True)
    assert np.abs(raw_cells(plain, kind).astype(int) - cells).max() < 2 ** (kind.bits - 2)
    assert np.abs(raw_cells(plain, kind).astype(int) - cells).mean() < 2**kind.bits / 60


def test_a_second_loss_is_added_to_the_first(tmp_path: Path) -> None:
    kind, source, out = KINDS["8 bits"], tmp_path / "in.dcm", tmp_path / "out.dcm"
    dataset = make(kind, source, kind.cells())
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.LossyImageCompression, dataset.LossyImageCompressionMethod = "01", "ISO_14495_1"
    dataset.LossyImageCompressionRatio = "3.5"
    dataset.save_as(source)
    transcode(source, out, JPEG_BASELINE)
    after = pydicom.dcmread(out)
    assert list(after.LossyImageCompressionMethod) == ["ISO_14495_1", "ISO_10918_1"]
    assert float(after.LossyImageCompressionRatio[0]) == 3.5
    assert list(after.ImageType) == ["DERIVED", "PRIMARY", "AXIAL"]
    # What decodes a lossy image says so where the image did not.
    del after.LossyImageCompression, after.LossyImageCompressionRatio, after.LossyImageCompressionMethod
    after.save_as(tmp_path / "silent.dcm")
    transcode(tmp_path / "silent.dcm", tmp_path / "plain.dcm", EXPLICIT_LE)
    plain = pydicom.dcmread(tmp_path / "plain.dcm")
    assert (plain.LossyImageCompression, plain.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert float(plain.LossyImageCompressionRatio) >= 1


@pytest.mark.parametrize(("reversible", "marked"), [(True, None), (False, "01")])
def test_an_irreversible_wavelet_tells_a_loss_that_the_header_does_not(
    tmp_path: Path, reversible: bool, marked: str | None
) -> None:
    kind = KINDS["8 bits"]
    dataset = make(kind, tmp_path / "in.dcm", kind.cells())
    stream = imagecodecs.jpeg2k_encode(kind.cells()[0, ..., 0], level=40, codecformat="j2k", reversible=reversible)
    dataset.PixelData = encapsulate([bytes(stream)])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = UID(JPEG_2000)
    dataset.save_as(tmp_path / "in.dcm")
    transcode(tmp_path / "in.dcm", tmp_path / "out.dcm", JPEG_LS)
    assert pydicom.dcmread(tmp_path / "out.dcm").get("LossyImageCompression") == marked


def test_a_compressed_icon_goes_where_its_syntax_goes(tmp_path: Path) -> None:
    def icon(compressed: bool) -> Dataset:
        item = Dataset()
        item.Rows = item.Columns = 8
        item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
        item.BitsAllocated = item.BitsStored = 8
        item.HighBit, item.PixelRepresentation = 7, 0
        cells = np.zeros((8, 8), np.uint8)
        item.PixelData = encapsulate([bytes(imagecodecs.jpegls_encode(cells))]) if compressed else cells.tobytes()
        item["PixelData"].VR = "OB"
        item["PixelData"].is_undefined_length = compressed
        return item

    kind = KINDS["12 bits, frames"]
    make(kind, tmp_path / "plain.dcm", kind.cells())
    transcode(tmp_path / "plain.dcm", tmp_path / "jls.dcm", JPEG_LS)
    for compressed in (True, False):
        dataset = pydicom.dcmread(tmp_path / "jls.dcm")
        dataset.IconImageSequence = [icon(compressed)]
        dataset.save_as(tmp_path / "icon.dcm")
        (tmp_path / "out.dcm").unlink(missing_ok=True)
        transcode(tmp_path / "icon.dcm", tmp_path / "out.dcm", EXPLICIT_LE)
        after = pydicom.dcmread(tmp_path / "out.dcm")
        assert ("IconImageSequence" in after) is not compressed
        assert np.array_equal(raw_cells(tmp_path / "out.dcm", kind), kind.cells())

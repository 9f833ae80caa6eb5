"""Pixels through our codecs, beside pydicom (Pillow, NumPy) and DCMTK."""

from __future__ import annotations

import io
import subprocess
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from files import named, part10_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from pydicom.encaps import encapsulate

from drimbox.dicom.files import mapped, read_meta
from drimbox.dicom.pixels import Pixels, read_layout
from drimbox.dicom.syntaxes import (
    DECODABLE,
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
    JPEG_LS_NEAR,
    MPEG4_HIGH,
    NATIVE,
    RLE,
)
from drimbox.foundation.errors import Refused
from drimbox.images.accept import Work
from drimbox.images.offers import header_offers, offers
from drimbox.images.reencode import to_explicit_le
from drimbox.images.transcode import transcode

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

DCMTK = {
    **{key: ["/usr/bin/dcmdjpeg", "+cn"] for key in (JPEG_BASELINE, JPEG_EXTENDED, JPEG_LOSSLESS, JPEG_LOSSLESS_SV1)},
    **{key: ["/usr/bin/dcmdjpls"] for key in (JPEG_LS, JPEG_LS_NEAR)},
    RLE: ["/usr/bin/dcmdrle"],
}
# What is not what it says: a label over implicit data, a codestream with absurd dimensions, no pixels, cut files.
IMPOSSIBLE = {
    "SC_rgb_jpeg.dcm": "dicom-syntax",
    "JPEG2000-embedded-sequence-delimiter.dcm": "dicom-frame",
    "UN_sequence.dcm": "dicom-pixels",
    "MR_truncated.dcm": "dicom-truncated",
    "rtplan_truncated.dcm": "dicom-truncated",
}


def syntax_of(path: Path) -> str:
    return str(pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID", ""))


def reference(path: Path, folder: Path) -> Any:
    """The pixels as another toolkit decodes them."""
    try:
        return pydicom.dcmread(path).pixel_array
    except RuntimeError:
        out = folder / "dcmtk.dcm"
        subprocess.run([*DCMTK[syntax_of(path)], path, out], check=True, capture_output=True)
        return pydicom.dcmread(out).pixel_array


def same_header(before: pydicom.Dataset, after: pydicom.Dataset, but: set[int]) -> None:
    for tag in (before.keys() | after.keys()) - but - {0x7FE00010}:
        if tag & 0xFFFF:
            assert before[tag].value == after[tag].value, hex(tag)


# A JP2 file of GDCM that Pillow cannot read is left out: nobody here to compare with.
COMPRESSED = [p for p in part10_files() if syntax_of(p) in DECODABLE and "TextGBR" not in p.name]
UNCOMPRESSED = [p for p in part10_files() if syntax_of(p) in NATIVE - {EXPLICIT_LE}]


@pytest.mark.requirement("DB.CS.83")
@pytest.mark.parametrize("path", COMPRESSED, ids=lambda p: f"{p.name}-{syntax_of(p)[17:]}")
def test_decompression_gives_the_pixels_that_others_see(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.dcm"
    if path.name in IMPOSSIBLE:
        with pytest.raises(Refused) as refused:
            transcode(path, out, EXPLICIT_LE)
        assert refused.value.code == IMPOSSIBLE[path.name]
        return
    transcode(path, out, EXPLICIT_LE)
    before, after = pydicom.dcmread(path), pydicom.dcmread(out)
    assert after.file_meta.TransferSyntaxUID == EXPLICIT_LE
    assert np.array_equal(after.pixel_array, reference(path, tmp_path))
    same_header(before, after, {0x00280004, 0x00280006, 0x00282110, 0x00282112, 0x00282114})
    if syntax_of(path) in (JPEG_BASELINE, JPEG_EXTENDED, JPEG_LS_NEAR) or "jp2klossy" in path.name:
        assert after.LossyImageCompression == "01"
        told = [before.get(f"LossyImageCompression{what}") for what in ("Ratio", "Method")]
        known = [after.get(f"LossyImageCompression{what}") for what in ("Ratio", "Method")]
        assert all(known) if not any(told) else known == told
    else:
        assert after.get("LossyImageCompression") == before.get("LossyImageCompression")


@pytest.mark.requirement("DB.SO.41")
@pytest.mark.parametrize("path", UNCOMPRESSED, ids=lambda p: f"{p.name}-{syntax_of(p)[13:]}")
def test_implicit_big_endian_and_deflated_become_explicit_little_endian(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.dcm"
    if path.name in IMPOSSIBLE:
        with pytest.raises(Refused) as refused:
            transcode(path, out, EXPLICIT_LE)
        assert refused.value.code == IMPOSSIBLE[path.name]
        return
    transcode(path, out, EXPLICIT_LE)
    before, after = pydicom.dcmread(path), pydicom.dcmread(out)
    assert after.file_meta.TransferSyntaxUID == EXPLICIT_LE
    # pydicom does not swap OW values outside of Pixel Data (palettes, LUTs) when it reads Big Endian; we must.
    words = {e.tag for e in before if e.VR == "OW"} if syntax_of(path) == EXPLICIT_BE else set()
    same_header(before, after, words)
    for tag in words - {0x7FE00010}:
        assert np.array_equal(np.frombuffer(before[tag].value, ">u2"), np.frombuffer(after[tag].value, "<u2"))
    if "PixelData" in before and "BitsAllocated" in before:
        assert np.array_equal(before.pixel_array, after.pixel_array)


def test_palettes_of_both_byte_orders_become_the_same(tmp_path: Path) -> None:
    transcode(named("OBXXXX1A_expb.dcm"), tmp_path / "big", EXPLICIT_LE)
    big, little = pydicom.dcmread(tmp_path / "big"), pydicom.dcmread(named("OBXXXX1A.dcm"))
    for color in ("Red", "Green", "Blue"):
        data = f"{color}PaletteColorLookupTableData"
        assert big[data].value == little[data].value


NATIVE_IMAGES = ["CT_small.dcm", "MR_small.dcm", "OBXXXX1A.dcm", "SC_rgb.dcm", "SC_rgb_2frame.dcm", "emri_small.dcm"]
NATIVE_IMAGES += ["MR_small_bigendian.dcm", "MR_small_implicit.dcm", "image_dfl.dcm", "color-pl.dcm"]
NATIVE_IMAGES += ["examples_overlay.dcm", "OBXXXX1A_2frame.dcm"]


@pytest.mark.requirement("DB.CS.83", "D14")
@pytest.mark.parametrize("syntax", [JPEG_LS, JPEG_LOSSLESS_SV1, JPEG_2000, JPEG_2000_LOSSLESS])
@pytest.mark.parametrize("name", NATIVE_IMAGES)
def test_lossless_compression_keeps_every_pixel(name: str, syntax: str, tmp_path: Path) -> None:
    path, out = named(name), tmp_path / "out.dcm"
    transcode(path, out, syntax)
    before, after = pydicom.dcmread(path), pydicom.dcmread(out)
    assert after.file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(reference(out, tmp_path), before.pixel_array)
    assert np.array_equal(after.get("NumberOfFrames"), before.get("NumberOfFrames"))
    # And back by our own decoder.
    back = tmp_path / "back.dcm"
    transcode(out, back, EXPLICIT_LE)
    assert np.array_equal(pydicom.dcmread(back).pixel_array, before.pixel_array)


@pytest.mark.parametrize(
    "name", ["JPEG2000.dcm", "MR_small_RLE.dcm", "SC_rgb_rle_2frame.dcm", "emri_small_jpeg_2k_lossless.dcm"]
)
def test_from_one_compression_to_another(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out.dcm"
    transcode(named(name), out, JPEG_LS)
    assert np.array_equal(reference(out, tmp_path), pydicom.dcmread(named(name)).pixel_array)


@pytest.mark.parametrize("syntax", [HTJ2K, HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL])
@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "SC_rgb.dcm"])
def test_htj2k_is_decoded(name: str, syntax: str, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(named(name))
    pixels = dataset.pixel_array
    rgb = pixels.ndim == 3
    dataset.PixelData = encapsulate([imagecodecs.htj2k_encode(pixels, reversible=True, rgb=rgb)])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    dataset.PhotometricInterpretation = "YBR_RCT" if rgb else dataset.PhotometricInterpretation
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(tmp_path / "in.dcm")
    transcode(tmp_path / "in.dcm", tmp_path / "out.dcm", EXPLICIT_LE)
    after = pydicom.dcmread(tmp_path / "out.dcm")
    assert np.array_equal(after.pixel_array, pixels)
    assert after.PhotometricInterpretation == ("RGB" if rgb else dataset.PhotometricInterpretation)


shapes = st.tuples(st.integers(1, 4), st.integers(2, 24), st.integers(2, 24))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.data(),
    st.sampled_from(["u1", "i1", "u2", "i2"]),
    shapes,
    st.sampled_from([JPEG_LS, JPEG_LOSSLESS_SV1, JPEG_2000]),
)
def test_any_cells_survive_lossless_compression(
    tmp_path: Path, data: st.DataObject, dtype: str, shape: tuple[int, int, int], syntax: str
) -> None:
    cells = data.draw(st_numpy.arrays(np.dtype(dtype), shape))
    dataset = pydicom.dcmread(named("MR_small.dcm"))
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = shape
    dataset.BitsAllocated = dataset.BitsStored = 8 * cells.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(dtype[0] == "i")
    dataset.PixelData = cells.tobytes() + b"\0" * (cells.nbytes % 2)
    dataset["PixelData"].VR = "OW"
    source, out, back = tmp_path / "in.dcm", tmp_path / "out.dcm", tmp_path / "back.dcm"
    for path in (source, out, back):
        path.unlink(missing_ok=True)
    dataset.save_as(source)
    transcode(source, out, syntax)
    transcode(out, back, EXPLICIT_LE)
    assert np.array_equal(pydicom.dcmread(back).pixel_array, cells.squeeze(axis=0) if shape[0] == 1 else cells)


def pixels_of(name: str) -> Pixels | None:
    with mapped(named(name)) as buffer:
        return read_layout(buffer, read_meta(buffer)).pixels


@pytest.mark.requirement("DB.SO.85", "DB.SO.41")
def test_what_is_offered() -> None:
    ct = pixels_of("CT_small.dcm")
    assert [o.syntax for o in header_offers(IMPLICIT_LE)] == [EXPLICIT_LE]
    assert [o.syntax for o in header_offers(DEFLATED_LE)] == [EXPLICIT_LE]
    assert [o.syntax for o in header_offers(JPEG_2000_LOSSLESS)] == [JPEG_2000_LOSSLESS, JPEG_2000]
    stored = offers(JPEG_LS, ct)
    assert [(o.syntax, o.work) for o in stored] == [
        (JPEG_LS, Work.NONE),
        (EXPLICIT_LE, Work.DECODE),
        (HTJ2K_LOSSLESS_RPCL, Work.ENCODE),
        (HTJ2K_LOSSLESS, Work.ENCODE),
        (HTJ2K, Work.ENCODE),
        (JPEG_LOSSLESS_SV1, Work.ENCODE),
        (JPEG_LOSSLESS, Work.ENCODE),
        (JPEG_2000, Work.ENCODE_SLOWLY),
        (JPEG_2000_LOSSLESS, Work.ENCODE_SLOWLY),
    ]
    # Video, objects without pixels, and what no codec takes: as they are.
    assert [o.syntax for o in offers(MPEG4_HIGH, ct)] == [MPEG4_HIGH]
    assert [o.syntax for o in offers(IMPLICIT_LE, None)] == [EXPLICIT_LE]
    assert [o.syntax for o in offers(EXPLICIT_LE, pixels_of("liver_1frame.dcm"))] == [EXPLICIT_LE]
    assert [o.syntax for o in offers(EXPLICIT_LE, pixels_of("rtdose.dcm"))] == [EXPLICIT_LE]
    # Nothing that we offer loses anything.
    assert not any(o.loses for s in (*NATIVE, *DECODABLE) for o in offers(s, ct))


def damaged_jpeg(rows: int, columns: int) -> bytes:
    dataset = pydicom.dcmread(named("MR_small_jpeg_ls_lossless.dcm"))
    dataset.Rows, dataset.Columns = rows, columns
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def test_dimensions_that_disagree_are_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "in.dcm").write_bytes(damaged_jpeg(65535, 65535))
    with pytest.raises(Refused) as refused:
        transcode(tmp_path / "in.dcm", tmp_path / "out.dcm", EXPLICIT_LE)
    assert refused.value.code in ("dicom-frame", "dicom-pixels")


def test_missing_frames_are_not_passed_over(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(named("emri_small_jpeg_ls_lossless.dcm"))
    dataset.NumberOfFrames = 9
    dataset.save_as(tmp_path / "in.dcm")
    with pytest.raises((Refused, ValueError)):
        transcode(tmp_path / "in.dcm", tmp_path / "out.dcm", EXPLICIT_LE)
    dataset = pydicom.dcmread(named("CT_small.dcm"))
    dataset.NumberOfFrames = 2
    dataset.save_as(tmp_path / "in2.dcm")
    with pytest.raises(Refused):
        transcode(tmp_path / "in2.dcm", tmp_path / "out2.dcm", JPEG_LS)


def test_a_deflate_bomb_is_cut_off() -> None:
    deflated = named("image_dfl.dcm").read_bytes()
    start = read_meta(deflated).end
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = deflated[:start] + squeezer.compress(b"\0" * 2**24) + squeezer.flush()
    out = io.BytesIO()
    with pytest.raises(Refused) as refused:
        to_explicit_le(bomb, read_meta(bomb), out, max_inflated=2**22)
    assert refused.value.code == "dicom-size"
    assert len(out.getvalue()) < 2**23


def test_a_jp2_file_in_place_of_a_codestream_is_decoded(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(named("MR_small.dcm"))
    pixels = dataset.pixel_array
    dataset.PixelData = encapsulate([imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="jp2", reversible=True)])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = JPEG_2000_LOSSLESS
    dataset.save_as(tmp_path / "in.dcm")
    transcode(tmp_path / "in.dcm", tmp_path / "out.dcm", EXPLICIT_LE)
    assert np.array_equal(pydicom.dcmread(tmp_path / "out.dcm").pixel_array, pixels)

"""The first image as a picture: what a radiologist sees of it is what the header asks for."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from drimbox.consumer.arrived import Arrived, Image
from drimbox.consumer.header import read_header
from drimbox.consumer.pictures import Pictures
from drimbox.images.workers import worker_pool

CT = Path(get_testdata_file("CT_small.dcm"))
COMPRESSED = ["MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "JPEG2000.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm"]


def image_of(path: Path) -> Image:
    return Image(path, path.stat().st_size, read_header(path)[0])


async def test_the_window_is_that_of_the_header(tmp_path: Path) -> None:
    dataset = dcmread(CT)
    dataset.WindowCenter, dataset.WindowWidth = 40, 400
    path = tmp_path / "ct.dcm"
    dataset.save_as(path)
    picture = await Pictures().of(image_of(path))
    assert picture is not None
    assert picture.media_type == "image/png"
    shown = imagecodecs.png_decode(picture.body).astype(float)
    values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    low, high = 40 - 0.5 - 399 / 2, 40 - 0.5 + 399 / 2
    expected = np.clip((apply_modality_lut(dataset.pixel_array, dataset) - low) / (high - low), 0, 1) * 255
    assert values.shape == shown.shape
    assert np.abs(shown - expected).max() <= 1


async def test_white_is_black_where_the_header_says_so(tmp_path: Path) -> None:
    dataset = dcmread(CT)
    plain = await Pictures().of(image_of(CT))
    dataset.PhotometricInterpretation = "MONOCHROME1"
    path = tmp_path / "inverse.dcm"
    dataset.save_as(path)
    inverse = await Pictures().of(image_of(path))
    assert plain is not None
    assert inverse is not None
    assert (imagecodecs.png_decode(inverse.body) == 255 - imagecodecs.png_decode(plain.body)).all()


@pytest.mark.parametrize("name", COMPRESSED)
async def test_compressed_images_are_decoded_elsewhere(name: str) -> None:
    path = Path(get_testdata_file(name))
    assert await Pictures().of(image_of(path)) is None
    async with worker_pool(size=1, timeout=30) as pool:
        picture = await Pictures(pool).of(image_of(path))
    assert picture is not None
    header = dcmread(path, stop_before_pixels=True)
    assert imagecodecs.png_decode(picture.body).shape[:2] == (header.Rows, header.Columns)


async def test_a_baseline_jpeg_is_shown_as_it_is() -> None:
    picture = await Pictures().of(image_of(Path(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm"))))
    assert picture is not None
    assert (picture.media_type, picture.body[:2]) == ("image/jpeg", b"\xff\xd8")


async def test_what_cannot_be_drawn_has_no_picture(tmp_path: Path) -> None:
    cut = tmp_path / "cut.dcm"
    shutil.copyfile(CT, cut)
    os.truncate(cut, cut.stat().st_size - 20_000)
    assert await Pictures().of(image_of(cut)) is None
    report = Path(get_testdata_file("reportsi.dcm"))
    assert await Pictures().of(image_of(report)) is None
    gone = tmp_path / "gone.dcm"
    shutil.copyfile(CT, gone)
    image = image_of(gone)
    gone.unlink()
    assert await Pictures().of(image) is None


def test_what_is_withdrawn_is_nowhere_any_more(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    arrived = Arrived(folder)
    header, described = read_header(CT)
    for number in range(3):
        path = folder / f"{number}.dcm"
        path.write_bytes(CT.read_bytes())
        arrived.add(Image(path, 10, replace(header, sop_instance_uid=f"2.25.{number}")), described)
    assert arrived.described(1, 9)[1] == 2
    assert arrived.described(0, 2)[1] == 2
    arrived.withdraw()
    assert (len(arrived), arrived.withdrawn, arrived.bytes) == (0, 3, 0)
    assert not folder.exists()
    assert arrived.described(0, 9) == (b"[]", 0)

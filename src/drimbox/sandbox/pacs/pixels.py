"""Pixels of the sample images, derived from the real images that ``pydicom`` and ``pydicom-data`` ship.

A package holds single slices; a series needs many. Each volume here is made from one or two real slices by smooth
scaling and fading, the same each time: it scrolls like a real one and means nothing medically.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from io import BytesIO

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.encaps import generate_frames

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint16]
Bytes = npt.NDArray[np.uint8]

CT_SPACING = 0.478516
_AIR = -1000.0


def ct_slices(count: int, rows: int, phase: float) -> Iterator[Pixels]:
    """A head from the skull base to the vertex: Hounsfield units + 1024 in 12 bits; ``phase`` in 0..1 shifts it."""
    base, brain = _skull_base(), _brain()
    for k in range(count):
        z = min((k + phase) / count, 1.0)
        # Half-axes of the head in pixels, which both sources are scaled to.
        roof = np.sqrt(max(1.0 - ((max(z, 0.5) - 0.5) / 0.53) ** 2, 0.0))
        width = (165.0 - 62.0 * z) * roof + 8.0
        height = (182.0 - 20.0 * z) * roof + 8.0
        share = np.float32(_smooth((z - 0.25) / 0.3))
        one = _scaled(base, (254.0, 256.0), (182.0, 202.0), (width, height), rows)
        two = _scaled(brain, (270.0, 274.0), (136.0, 170.0), (width, height), rows)
        mixed = one * (1 - share) + two * share
        yield np.clip(mixed + 1024.0, 0, 4095).astype(np.uint16)


def mr_slices(count: int, rows: int, phase: float, gamma: float) -> Iterator[Pixels]:
    """A joint; ``gamma`` other than 1 gives another contrast of the same anatomy."""
    source = (600.0 * (_joint() / 600.0) ** np.float32(gamma)).astype(np.float32)
    for k in range(count):
        z = (k + phase) / count
        size = 512.0 * (0.82 + 0.3 * np.sin(np.pi * z))
        centre = (512.0 + 60.0 * np.cos(np.pi * z), 512.0 - 40.0 * np.cos(np.pi * z))
        image = _scaled(source, centre, (512.0, 512.0), (size / 2, size / 2), rows, outside=0.0)
        yield np.clip(image * (0.8 + 0.4 * z), 0, 4095).astype(np.uint16)


def body_views() -> Iterator[Pixels]:
    """A whole-body bone scan: the anterior view, and what stands for the posterior one."""
    view = _bone_scan()
    yield view.astype(np.uint16)
    rng = np.random.default_rng(20210108)
    yield rng.binomial(view[:, ::-1].astype(np.int64), 0.8).astype(np.uint16)


def counting_frames(count: int, rows: int, seed: int) -> Iterator[Pixels]:
    """Head and neck of the same scan, counts building up from image to image, as a gamma camera sees them."""
    rates = _head_and_neck(rows)
    rng = np.random.default_rng(seed)
    total = np.zeros((rows, rows), dtype=np.int64)
    for _ in range(count):
        total += rng.poisson(rates / 6.0)
        yield np.clip(total, 0, 65535).astype(np.uint16)


def dynamic_frames(count: int, rows: int, seed: int) -> Iterator[Pixels]:
    """The same region, one short frame after the other while the tracer is taken up."""
    rates = _head_and_neck(rows)
    rng = np.random.default_rng(seed)
    for k in range(count):
        yield rng.poisson(rates * (0.5 + 0.5 * k / count)).astype(np.uint16)


def angiography_frames(count: int, rows: int, phase: float) -> Iterator[Bytes]:
    """A breathing chest, as a cine of 8 bits."""
    chest = _chest(rows + 32)
    for k in range(count):
        shift = round(16 + 12 * np.sin(2 * np.pi * (k / count + phase)))
        yield np.ascontiguousarray(chest[shift : shift + rows, 16 : 16 + rows])


# ------------------------------------------------------------------------------------------------------------- sources


@cache
def _brain() -> Floats:
    image = pydicom.dcmread(_opened(_shipped("data_store", "data", "693_UNCR.dcm"))).pixel_array
    return _in_air(image.astype(np.float32) - 1024.0, (270.0, 274.0), (150.0, 186.0))


@cache
def _skull_base() -> Floats:
    dataset = pydicom.dcmread(_opened(_shipped("pydicom", "data", "test_files", "J2K_pixelrep_mismatch.dcm")))
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    image = imagecodecs.jpeg2k_decode(frame).astype(np.int32)
    # 13 bits, signed, though the codestream says unsigned.
    signed = np.where(image >= 4096, image - 8192, image).astype(np.float32)
    return _in_air(signed, (254.0, 262.0), (212.0, 238.0))


@cache
def _joint() -> Floats:
    image: Floats = pydicom.dcmread(_opened(_shipped("data_store", "data", "MR2_UNCR.dcm"))).pixel_array
    return image.astype(np.float32)


@cache
def _bone_scan() -> Pixels:
    dataset = pydicom.dcmread(_opened(_shipped("data_store", "data", "JPEG-LL.dcm")))
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    return np.asarray(imagecodecs.ljpeg_decode(frame), dtype=np.uint16)


@cache
def _head_and_neck(rows: int) -> Floats:
    return _resized(_bone_scan()[80:272, 38:230], rows)


@cache
def _chest(rows: int) -> Bytes:
    image = pydicom.dcmread(_opened(_shipped("data_store", "data", "RG1_UNCR.dcm"))).pixel_array.astype(np.float32)
    side = min(image.shape)
    low, high = np.percentile(image, (1, 99))
    # MONOCHROME1: the low values are the bright ones.
    grey = 255.0 * (1.0 - np.clip((_resized(image[:side, :side], rows) - low) / (high - low), 0, 1))
    return np.asarray(grey, dtype=np.uint8)


def _shipped(package: str, *path: str) -> Traversable:
    source = files(package)
    for name in path:
        source = source / name
    return source


def _opened(source: Traversable) -> BytesIO:
    return BytesIO(source.read_bytes())


# ------------------------------------------------------------------------------------------------------------ geometry


def _smooth(t: float) -> float:
    t = min(max(t, 0.0), 1.0)
    return t * t * (3 - 2 * t)


def _in_air(image: Floats, centre: tuple[float, float], axes: tuple[float, float]) -> Floats:
    """The head without the head rest: air outside of an ellipse."""
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    inside = ((x - centre[0]) / axes[0]) ** 2 + ((y - centre[1]) / axes[1]) ** 2 <= 1
    return np.where(inside, np.maximum(image, _AIR), _AIR).astype(np.float32)


def _scaled(
    image: Floats,
    centre: tuple[float, float],
    axes: tuple[float, float],
    target: tuple[float, float],
    rows: int,
    outside: float = _AIR,
) -> Floats:
    """The image about ``centre``, half-axes (x, y) brought to ``target`` in a matrix of 512, in ``rows`` samples."""
    steps = (np.arange(rows, dtype=np.float32) + 0.5) * (512.0 / rows) - 256.0
    x = centre[0] + steps * (axes[0] / target[0])
    y = centre[1] + steps * (axes[1] / target[1])
    return _sampled(image, y, x, outside)


def _resized(image: npt.NDArray[np.generic], rows: int) -> Floats:
    at = (np.arange(rows, dtype=np.float32) + 0.5) * (image.shape[0] / rows) - 0.5
    return _sampled(image.astype(np.float32), np.clip(at, 0, None), np.clip(at, 0, None), 0.0)


def _sampled(image: Floats, y: Floats, x: Floats, outside: float) -> Floats:
    """Bilinear samples of the image on the grid of ``y`` and ``x``."""
    rows, row_ok, row_share = _taps(y, image.shape[0])
    columns, column_ok, column_share = _taps(x, image.shape[1])
    lines = image[rows] * (1 - row_share[:, None]) + image[rows + 1] * row_share[:, None]
    sampled = lines[:, columns] * (1 - column_share) + lines[:, columns + 1] * column_share
    return np.where(row_ok[:, None] & column_ok, sampled, np.float32(outside)).astype(np.float32)


def _taps(at: Floats, size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_], Floats]:
    inside = (at >= 0) & (at <= size - 1)
    first = np.clip(np.floor(at), 0, size - 2).astype(np.intp)
    return first, inside, np.clip(at - first, 0, 1).astype(np.float32)

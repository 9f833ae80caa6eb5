"""The DICOM files that packages ship, for the tests of this room."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import data_store  # the package pydicom-data
import pydicom
import pynetdicom

FOLDERS = (
    Path(pydicom.__file__).parent / "data",
    Path(data_store.__file__).parent,
    Path(pynetdicom.__file__).parent / "tests" / "dicom_files",
)


# Directories, and a file so cut that pydicom itself reads no identifier from it.
_LEFT_OUT = re.compile("DICOMDIR|too_short")


def part10_files() -> list[Path]:
    """Every image or other instance among the packages' files that says it is a DICOM file, smaller than 4 MB."""
    found = [
        p
        for folder in FOLDERS
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not _LEFT_OUT.search(p.name) and p.stat().st_size < 2**22
    ]
    return [p for p in found if _is_part10(p)]


@cache
def named(name: str) -> Path:
    """One of the packages' files by its name."""
    return next(p for folder in FOLDERS for p in folder.rglob(name))


def _is_part10(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"

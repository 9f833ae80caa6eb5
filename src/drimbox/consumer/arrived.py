"""What has come of a series, in the order of arrival: the images, and their headers as they are told to a viewer."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from drimbox.consumer.header import Header


@dataclass(frozen=True, slots=True)
class Image:
    """One image on disk, and what serving it takes."""

    path: Path
    size: int
    header: Header


class Arrived:
    """The images of one series that have come, and the one file where their headers stand one after the other."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is that of the series, and goes when its images are withdrawn."""
        self._folder = folder
        self._images: dict[str, Image] = {}
        self._ends: list[int] = [0]
        self.bytes = 0
        self.withdrawn = 0
        """How many images had come that may not be shown any more."""

    def __len__(self) -> int:
        return len(self._images)

    def find(self, sop_uid: str) -> Image | None:
        return self._images.get(sop_uid)

    def all(self) -> tuple[Image, ...]:
        """In the order of arrival."""
        return tuple(self._images.values())

    def add(self, image: Image, described: bytes) -> None:
        """One image more; ``described`` is its header as DICOM JSON. Raises ``OSError``."""
        with self._told.open("ab") as told:
            told.write(described + b",")
        self._images[image.header.sop_instance_uid] = image
        self._ends.append(self._ends[-1] + len(described) + 1)
        self.bytes += image.size

    def described(self, start: int, most: int) -> tuple[bytes, int]:
        """The headers of all but the first ``start`` images as one DICOM JSON array, ``most`` of them; how many."""
        ends = self._ends
        count = min(len(ends) - 1 - start, most)
        if count <= 0:
            return b"[]", 0
        first, last = ends[start], ends[start + count]
        with self._told.open("rb") as told:
            return b"[" + os.pread(told.fileno(), last - first, first)[:-1] + b"]", count

    def withdraw(self) -> None:
        """Nothing of it may be shown any more: files and headers go."""
        self.withdrawn += len(self._images)
        self._images.clear()
        self._ends = [0]
        self.bytes = 0
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _told(self) -> Path:
        return self._folder / "headers.json"

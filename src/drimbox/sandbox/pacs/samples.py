"""Writes the sample studies to a folder, one sub-folder per study and series. Needs no network, takes a few seconds."""

from __future__ import annotations

from pathlib import Path

from drimbox.sandbox.pacs.exams import EXAMS, OTHER_STUDY, SampleStudy
from drimbox.sandbox.pacs.objects import instances


def write_all(folder: Path) -> list[Path]:
    """Every official exam, and the study of another patient; the files in order."""
    written = [path for letter in EXAMS for path in write_exam(letter, folder)]
    return written + write_study(OTHER_STUDY, folder / "other")


def write_exam(letter: str, folder: Path) -> list[Path]:
    """The study of an official exam, both of them for F, under ``folder/<letter>``. Raises ``KeyError``."""
    return [path for study in EXAMS[letter] for path in write_study(study, folder / letter)]


def write_study(study: SampleStudy, folder: Path) -> list[Path]:
    """One study as ``folder/<number>/<series>/I<n>.dcm``."""
    written: list[Path] = []
    for series in study.series:
        place = folder / str(study.number) / str(series.key)
        place.mkdir(parents=True, exist_ok=True)
        for index, dataset in enumerate(instances(study, series), start=1):
            path = place / f"I{index}.dcm"
            dataset.save_as(path, enforce_file_format=True)
            written.append(path)
    return written

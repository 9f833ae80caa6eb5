"""The text of a KOS (113012, "Key Object Description"), the way the agency lays it out (standards.md A.5).

::

    Examen : <description of the study>
    Acte = <act>
    Série-<Series Instance UID> : <modality> @ <region> : <description>
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from drimbox.manifest.encoding import one_line
from drimbox.manifest.manifest import ManifestSeries

# Samples differ: "Série-" or "Serie-", with and without a region, CRLF line ends (standards.md A.5).
_SERIES = re.compile(r"S.{1,2}rie-([0-9.]{1,64})")
_ACT = re.compile(r"Acte\s*[=:]\s*:?\s*(.*)")
_EXAM = re.compile(r"Examen\s*:\s*(.*)")


@dataclass(frozen=True, slots=True)
class SeriesText:
    """What the text says of one series."""

    modality: str
    region: str
    description: str


@dataclass(frozen=True, slots=True)
class Description:
    """What the text says; series by their UID."""

    exam: str
    act: str
    series: dict[str, SeriesText]


def write_description(exam: str, act: str, series: Iterable[ManifestSeries]) -> str:
    """The text, one line per datum."""
    lines = [f"Examen : {one_line(exam)}", f"Acte = {one_line(act)}"]
    lines += [_series_line(s) for s in series]
    return "\n".join(lines) + "\n"


def _series_line(s: ManifestSeries) -> str:
    # A colon ends the region. Without a region the official sample has nothing between the "@" and the colon.
    region = one_line(s.region.replace(":", " "))
    place = f"@ {region} :" if region else "@ :"
    return f"Série-{s.series_uid} : {one_line(s.modality)} {place} {one_line(s.description)}"


def read_description(text: str) -> Description:
    """Read the text of any sample; what does not look like one of its lines is passed over."""
    exam, act, series = "", "", {}
    for line in map(str.strip, re.split(r"[\r\n]+", text)):
        head, *rest = line.split(":", 2)
        if len(rest) == 2 and (match := _SERIES.fullmatch(head.strip())):
            modality, _, region = rest[0].partition("@")
            series[match[1]] = SeriesText(modality.strip(), region.strip(), rest[1].strip())
        elif match := _ACT.match(line):
            act = act or match[1].strip()
        elif match := _EXAM.match(line):
            exam = exam or match[1].strip()
    return Description(exam, act, series)

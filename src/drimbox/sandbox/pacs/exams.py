"""The official exams as a PACS holds them: one study per exam, two for exam F, with the official identifiers.

Nothing here decides; it is the catalogue from which the sample images are made and against which they are checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import ascii_uppercase
from types import MappingProxyType

STUDY_ROOT = "1.2.250.1.213.4.5.2.1"
SERIES_ROOT = "1.2.250.1.213.4.5.2.2"
INSTANCE_ROOT = "1.2.250.1.213.4.5.2.3"
ACCESSION_ISSUER = "1.2.250.1.925.994044.27"
# The official reports on these exams give their accession numbers under three different issuers, for one exam even in
# turn: their images name none, as those of most PACSs.
_WITHOUT_ISSUER = frozenset({102, 103, 105, 106, 107, 108, 110, 112, 114})
ORDER_ISSUER = "1.2.250.1.748.12345678.12"
PATIENT_ISSUER = "1.2.250.1.213.4.5.2.4"

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_LS = "1.2.840.10008.1.2.4.80"


@dataclass(frozen=True, slots=True)
class LocalPatient:
    """A patient as the PACS knows them: by the site's own number."""

    patient_id: str
    name: str
    birth_date: str
    sex: str


PATIENT = LocalPatient("IPP101", "PAT-TROIS^DOMINIQUE", "19790328", "F")
OTHER_PATIENT = LocalPatient("IPP202", "PAT-DEUX^ALAIN", "19560214", "M")


@dataclass(frozen=True, slots=True)
class SampleSeries:
    """One series: ``key`` is the last part of its UID, ``images`` the number of instances, ``rows`` their matrix."""

    key: int
    kind: str
    description: str
    images: int
    rows: int = 256
    transfer_syntax: str = EXPLICIT


@dataclass(frozen=True, slots=True)
class SampleStudy:
    """One study; ``number`` makes its identifiers."""

    number: int
    modality: str
    description: str
    body_part: str
    series: tuple[SampleSeries, ...]
    patient: LocalPatient = PATIENT

    @property
    def study_uid(self) -> str:
        return f"{STUDY_ROOT}.{self.number}"

    @property
    def accession_number(self) -> str:
        return f"ACN{self.number}"

    @property
    def accession_issuer(self) -> str:
        """Empty where the images name none."""
        return "" if self.number in _WITHOUT_ISSUER else ACCESSION_ISSUER

    @property
    def placer_order_number(self) -> str:
        return f"OPN{self.number}"

    def series_uid(self, series: SampleSeries) -> str:
        return f"{SERIES_ROOT}.{self.number}.{series.key}"

    def instance_uid(self, series: SampleSeries, index: int) -> str:
        """``index`` counts from 1."""
        return f"{INSTANCE_ROOT}.{self.number}.{series.key}.3{index}"

    def instance_uids(self, series: SampleSeries) -> tuple[str, ...]:
        return tuple(self.instance_uid(series, index) for index in range(1, series.images + 1))


def _ct(number: int, images: int, transfer_syntax: str = EXPLICIT, *, late: bool = False) -> SampleStudy:
    series = [SampleSeries(201, "ct", "Cérébral sans injection", images, transfer_syntax=transfer_syntax)]
    if late:
        series.append(SampleSeries(202, "ct", "Cérébral après injection", images, transfer_syntax=transfer_syntax))
    return SampleStudy(number, "CT", "Scanner cérébral avec injection", "HEAD", tuple(series))


def _mr(number: int, images: int, transfer_syntax: str = EXPLICIT, *, second: bool = False) -> SampleStudy:
    series = [SampleSeries(201, "mr-t1", "Coronale T1", images, transfer_syntax=transfer_syntax)]
    if second:
        series.append(SampleSeries(202, "mr-pd", "Coronale DP FatSat", images, transfer_syntax=transfer_syntax))
    return SampleStudy(number, "MR", "IRM du genou", "KNEE", tuple(series))


def _nm(number: int) -> SampleStudy:
    dynamic = SampleSeries(201, "nm-dynamic", "Dynamique tête et cou", 1)
    return SampleStudy(number, "NM", "Scintigraphie de la tête et du cou", "HEAD", (dynamic,))


def _xa(number: int, images: int, transfer_syntax: str) -> SampleStudy:
    series = SampleSeries(201, "xa", "Séquence angiographique", images, 512, transfer_syntax)
    return SampleStudy(number, "XA", "Angiographie", "CHEST", (series,))


def _exam_a() -> SampleStudy:
    series = SampleSeries(201, "ct", "Cérébral volumique 0,6 mm", 300, 512)
    return SampleStudy(101, "CT", "Scanner cérébral avec injection", "HEAD", (series,))


def _exam_e() -> SampleStudy:
    # Single-frame images: the exam that is shown first, and scrolled through, in any viewer.
    body = SampleSeries(201, "nm-body", "Corps entier, faces antérieure et postérieure", 2, 1024)
    statics = SampleSeries(202, "nm-static", "Tête et cou, images successives", 24)
    return SampleStudy(105, "NM", "Scintigraphie de la tête et du cou", "HEAD", (body, statics))


EXAMS: Mapping[str, tuple[SampleStudy, ...]] = MappingProxyType(
    {
        "A": (_exam_a(),),
        "B": (_mr(102, 20),),
        "C": (_ct(103, 24, JPEG_LOSSLESS, late=True),),
        "D": (_mr(104, 12, IMPLICIT, second=True),),
        "E": (_exam_e(),),
        "F": (_mr(106, 12), _mr(107, 10, JPEG_LS)),
        "G": (_xa(108, 3, EXPLICIT),),
        "H": (_ct(109, 20, JPEG_LS),),
        "I": (_nm(110),),
        "J": (_ct(111, 16),),
        "K": (_ct(112, 12, IMPLICIT),),
        "L": (_ct(113, 12),),
        "M": (_nm(114),),
        "N": (_xa(115, 2, JPEG_BASELINE),),
        "O": (_ct(116, 10),),
        "P": (_ct(117, 10, JPEG_LS),),
        "Q": (_mr(118, 14, second=True),),
        "R": (_ct(119, 12, JPEG_LOSSLESS),),
        "S": (_ct(120, 8),),
        "T": (_nm(121),),
        "U": (_ct(122, 10),),
        "V": (_ct(123, 8),),
        "W": (_ct(124, 8),),
        "X": (_ct(125, 12, late=True),),
        "Y": (_ct(126, 10, IMPLICIT),),
        "Z": (_ct(127, 8),),
    }
)
assert tuple(EXAMS) == tuple(ascii_uppercase)

OTHER_STUDY = SampleStudy(
    902,
    "CT",
    "Scanner cérébral",
    "HEAD",
    (SampleSeries(201, "ct", "Cérébral sans injection", 12),),
    OTHER_PATIENT,
)
"""A study of another patient of the same site, outside of the official exams."""

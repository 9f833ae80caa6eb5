"""How an image names its patient, read from its head."""

from __future__ import annotations

from dataclasses import dataclass

from drimbox.dicom.charsets import DEFAULT, codecs_of, decoded
from drimbox.dicom.elements import Budget, Buffer, elements, raw
from drimbox.dicom.files import read_meta
from drimbox.dicom.syntaxes import encoding_of

_CHARACTER_SET, _NAME, _BIRTH_DATE, _SEX = 0x00080005, 0x00100010, 0x00100030, 0x00100040
_MAX_ELEMENTS = 20_000


@dataclass(frozen=True, slots=True)
class ImagePatient:
    """The patient of an image, in the forms of DICOM (PN, DA, CS); empty where it does not say."""

    name: str
    birth_date: str
    sex: str

    def __repr__(self) -> str:
        return "ImagePatient(…)"


def patient_in(buffer: Buffer) -> ImagePatient:
    """How a file names its patient. Raises ``Refused`` for what is no readable DICOM file."""
    meta = read_meta(buffer)
    budget = Budget(_MAX_ELEMENTS)
    encoding = encoding_of(meta.transfer_syntax)
    found = {
        e.tag: raw(buffer, e)
        for e in elements(buffer, meta.end, len(buffer), encoding, budget, until=_SEX)
        if e.tag in (_CHARACTER_SET, _NAME, _BIRTH_DATE, _SEX)
    }
    codecs = codecs_of(found[_CHARACTER_SET]) if _CHARACTER_SET in found else DEFAULT
    name = decoded(found.get(_NAME, b""), codecs, b"\\^=")
    return ImagePatient(name.strip(" \0"), _ascii(found.get(_BIRTH_DATE, b"")), _ascii(found.get(_SEX, b"")))


def _ascii(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \0")

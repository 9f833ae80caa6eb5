"""The identifiers of DICOM that this room decides on (PS3.6 Annex A)."""

from __future__ import annotations

from collections.abc import Sequence

VERIFICATION = "1.2.840.10008.1.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
ENCAPSULATED_LE = "1.2.840.10008.1.2.1.98"
EXPLICIT_BE = "1.2.840.10008.1.2.2"

IMPLEMENTATION_CLASS = "2.25.35029912218910616928316378089086711194"
IMPLEMENTATION_VERSION = "DRIMBOX"

_DICOM_ROOT = "1.2.840.10008."
_CHARACTERS = frozenset("0123456789.")
_STORAGE_BRANCH = "1.2.840.10008.5.1.4.1.1."
# Storage SOP classes that do not lie under the common branch (PS3.4 B.5, GG.3).
_STORAGE_ELSEWHERE = frozenset(
    f"1.2.840.10008.5.1.4.{leaf}" for leaf in ("34.1", "34.7", "34.10", "38.1", "39.1", "43.1", "44.1", "45.1")
)

LOSSLESS_COMPRESSED = (
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.201",  # HTJ2K lossless
    "1.2.840.10008.1.2.4.202",  # HTJ2K lossless RPCL
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.57",  # JPEG lossless, process 14
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.92",  # JPEG 2000 part 2 lossless
    "1.2.840.10008.1.2.4.110",  # JPEG XL lossless
    "1.2.840.10008.1.2.5",  # RLE
)
UNCOMPRESSED = (EXPLICIT_LE, DEFLATED_LE, ENCAPSULATED_LE, IMPLICIT_LE, EXPLICIT_BE)
LOSSY = (
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.51",  # JPEG extended
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.93",  # JPEG 2000 part 2
    "1.2.840.10008.1.2.4.203",  # HTJ2K
    "1.2.840.10008.1.2.4.111",  # JPEG XL recompression
    "1.2.840.10008.1.2.4.112",  # JPEG XL
    "1.2.840.10008.1.2.4.100",  # MPEG2 MP@ML, and its fragmentable form
    "1.2.840.10008.1.2.4.100.1",
    "1.2.840.10008.1.2.4.101",  # MPEG2 MP@HL
    "1.2.840.10008.1.2.4.101.1",
    "1.2.840.10008.1.2.4.102",  # MPEG-4 AVC HP@4.1
    "1.2.840.10008.1.2.4.102.1",
    "1.2.840.10008.1.2.4.103",  # MPEG-4 AVC HP@4.1 BD
    "1.2.840.10008.1.2.4.103.1",
    "1.2.840.10008.1.2.4.104",  # MPEG-4 AVC HP@4.2 2D
    "1.2.840.10008.1.2.4.104.1",
    "1.2.840.10008.1.2.4.105",  # MPEG-4 AVC HP@4.2 3D
    "1.2.840.10008.1.2.4.105.1",
    "1.2.840.10008.1.2.4.106",  # MPEG-4 AVC stereo
    "1.2.840.10008.1.2.4.106.1",
    "1.2.840.10008.1.2.4.107",  # HEVC main
    "1.2.840.10008.1.2.4.108",  # HEVC main 10
)

AS_STORED = LOSSLESS_COMPRESSED + UNCOMPRESSED + LOSSY
"""The default order of preference inside one presentation context.

A PACS that proposes a compressed syntax beside an uncompressed one most often holds the compressed object; what loses
pixels comes last, so that a PACS never loses any because we asked it to.
"""


def is_plausible(uid: str) -> bool:
    """Digits and dots, 64 at most. Leading zeros in a component are wrong, but old objects have them."""
    return 0 < len(uid) <= 64 and _CHARACTERS.issuperset(uid)


def is_storage(abstract_syntax: str) -> bool:
    """Is this a storage SOP class: a standard one, to come ones too, or a private one (PS3.4 Annex B)?"""
    if abstract_syntax.startswith(_DICOM_ROOT):
        return abstract_syntax.startswith(_STORAGE_BRANCH) or abstract_syntax in _STORAGE_ELSEWHERE
    return True


def preferred(proposed: Sequence[str], preference: Sequence[str]) -> str | None:
    """The proposed transfer syntax that comes first in our preference; none: nothing proposed is known."""
    return next((uid for uid in preference if uid in proposed), None)

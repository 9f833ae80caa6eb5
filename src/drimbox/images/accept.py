"""What a caller takes, and which of our offers it gets (PS3.18 8.7; official-data.md 7; DB.SO.85).

Pure: header lines in, a choice out. The forms of the official requests are all read: quoted or not, several lines, a
trailing comma, ``boundary=**``, no media type at all, ``q`` in any notation from 0 to 1, ``*`` as transfer syntax.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum

from drimbox.dicom.syntaxes import EXPLICIT_LE, FRAME_MEDIA, frame_media
from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import is_uid
from drimbox.images.media import MediaType, parse_media_type, split_outside_quotes

ANY = "*"
MAX_ACCEPT_CHARACTERS = 32 * 1024
MAX_RANGES = 256

DICOM = "application/dicom"
_OCTETS = "application/octet-stream"
_MULTIPART = "multipart/related"
_QUALITY = re.compile(r"(?:[0-9]{1,4}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})(?:[eE][-+]?[0-9]{1,2})?")


@dataclass(frozen=True, slots=True)
class Range:
    """One element of Accept: a media type (or bare parameters) with its quality."""

    media: MediaType
    quality: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """One form in which the caller takes images. ``syntax`` is a UID or ``*`` (any, as stored).

    ``media`` is what each part is: ``application/dicom``, or a media type of frames, or ``*`` for the one that goes
    with the syntax. ``single`` means one body of that type instead of a multipart, possible for one part only.
    """

    syntax: str
    quality: float
    single: bool = False
    media: str = DICOM

    @property
    def frames(self) -> bool:
        """Frames by themselves, not in a DICOM file?"""
        return self.media != DICOM


class Work(IntEnum):
    """What an offer costs us, cheapest first."""

    NONE = 0  # as stored, or a change of the header alone
    DECODE = 1
    ENCODE = 2
    ENCODE_SLOWLY = 3


@dataclass(frozen=True, slots=True)
class Offer:
    """A transfer syntax that one instance can be sent in. ``loses``: sending it so would degrade the pixels."""

    syntax: str
    work: Work
    loses: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """The offer that was chosen, and the form that the caller takes it in."""

    offer: Offer
    quality: float
    single: bool
    media: str = DICOM


class Policy(Enum):
    """Which comes first when the syntax that the caller likes best is not the one that costs least."""

    QUALITY = "quality"
    """The highest q of all that can be made; among equals what costs least (PS3.18 8.7; standards.md C.3)."""

    LEAST_WORK = "least-work"
    """q ranks what is stored only; pixels are transcoded when nothing else is acceptable (a reading of DB.SO.85)."""


def parse_accept(lines: Sequence[str]) -> tuple[Range, ...]:
    """The elements of all Accept lines, in order.

    Raises ``Refused``: ``accept-size`` over 32 KiB or 256 elements, ``accept-syntax`` for what is no media range,
    ``accept-quality`` for a ``q`` that is not a number from 0 to 1.
    """
    if sum(map(len, lines)) > MAX_ACCEPT_CHARACTERS:
        raise Refused("En-tête Accept trop long", code="accept-size")
    ranges: list[Range] = []
    for line in lines:
        for element in split_outside_quotes(line, ","):
            if not element.strip(" \t;"):
                continue
            if len(ranges) == MAX_RANGES:
                raise Refused("En-tête Accept trop long", code="accept-size")
            media = parse_media_type(element)
            if media is None:
                raise Refused("En-tête Accept mal formé", code="accept-syntax")
            ranges.append(Range(media, _quality(media.parameters.get("q"))))
    return tuple(ranges)


def dicom_wanted(ranges: Sequence[Range]) -> tuple[Wanted, ...]:
    """The forms among ``ranges`` that are DICOM files. No range at all means "any, as stored" (standards.md C.3).

    Raises ``Refused`` (``accept-syntax``) for a transfer syntax that is neither a UID nor ``*``.
    """
    if not ranges:
        return (Wanted(ANY, 1.0),)
    return tuple(wanted for each in ranges for wanted in _as_dicom(each))


def frames_wanted(ranges: Sequence[Range]) -> tuple[Wanted, ...]:
    """The forms that an answer to a request for frames can have: frames, or the DICOM file that holds them.

    PS3.18 10.4.1.1.6 knows the first only, the official requests ask for the second (standards.md C.2). What leaves
    it open gets frames. Raises as ``dicom_wanted`` does.
    """
    if not ranges:
        return (Wanted(ANY, 1.0, media=ANY),)
    return tuple(wanted for each in ranges for wanted in (*_as_frames(each), *_as_dicom(each, open_too=False)))


def takes_json(ranges: Sequence[Range]) -> bool:
    """Does the caller take DICOM JSON (the default of ``/metadata``, PS3.18 10.4.4)?"""
    names = {"application/dicom+json": 2, "application/json": 2, "application/*": 1, "*/*": 0}
    known = [(names[r.media.name], r.quality) for r in ranges if r.media.name in names]
    if not known:
        return not ranges
    closest = max(rank for rank, _ in known)
    return any(quality > 0 for rank, quality in known if rank == closest)


def wanted_boundaries(ranges: Sequence[Range]) -> tuple[str, ...]:
    """The multipart boundaries that the caller named, legal or not."""
    return tuple(dict.fromkeys(b for r in ranges if (b := r.media.get("boundary"))))


def choose(
    wanted: Sequence[Wanted], offers: Sequence[Offer], *, policy: Policy = Policy.QUALITY, one: bool = False
) -> Choice | None:
    """The best offer that the caller takes, None when it takes none.

    A named syntax outweighs ``*``; q=0 forbids. What degrades the pixels is chosen only when nothing else is taken.
    Among equals the order of ``offers`` decides, then that of ``wanted``. ``one``: the answer holds one part, so that
    a single body may do too.
    """
    forms = tuple(dict.fromkeys((w.media, w.single) for w in wanted if one or not w.single))
    candidates = [
        Choice(offer, quality, single, media)
        for offer in offers
        for media, single in forms
        if (quality := quality_of(wanted, offer.syntax, single=single, media=media)) > 0
    ]
    candidates = [c for c in candidates if not c.offer.loses] or candidates
    if not candidates:
        return None
    if policy is Policy.QUALITY:
        return min(candidates, key=lambda c: (-c.quality, c.offer.work))
    return min(candidates, key=lambda c: (c.offer.work, -c.quality))


def quality_of(wanted: Sequence[Wanted], syntax: str, *, single: bool = False, media: str = DICOM) -> float:
    """How much the caller likes ``syntax`` in this form, 0 when it does not take it."""
    alike = [w for w in wanted if w.single is single and w.media == media]
    named = [w.quality for w in alike if w.syntax == syntax]
    if named:
        return 0.0 if 0.0 in named else max(named)
    return max((w.quality for w in alike if w.syntax == ANY and _fits(media, syntax)), default=0.0)


def _fits(media: str, syntax: str) -> bool:
    """Can frames of ``syntax`` be sent as ``media``?"""
    return media in (DICOM, ANY, _OCTETS) or frame_media(syntax) == media


def _as_dicom(each: Range, *, open_too: bool = True) -> tuple[Wanted, ...]:
    name, parameters = each.media.name, each.media.parameters
    takes = (DICOM, "application/*", "*/*") if open_too else (DICOM,)
    if name == DICOM:
        return (Wanted(_syntax(parameters.get("transfer-syntax", EXPLICIT_LE)), each.quality, single=True),)
    if name == _MULTIPART and parameters.get("type", "*/*" if open_too else "").lower() in takes:
        return (Wanted(_syntax(parameters.get("transfer-syntax", EXPLICIT_LE)), each.quality),)
    if not name and "transfer-syntax" in parameters and parameters.get("type", DICOM).lower() == DICOM:
        return (Wanted(_syntax(parameters["transfer-syntax"]), each.quality),)
    if not open_too:
        return ()
    if name == "*/*":
        return (Wanted(ANY, each.quality),)
    if name in ("application/*", "multipart/*"):
        return (Wanted(_syntax(parameters.get("transfer-syntax", ANY)), each.quality, name == "application/*"),)
    return ()


def _as_frames(each: Range) -> tuple[Wanted, ...]:
    name, parameters = each.media.name, each.media.parameters
    named = parameters.get("transfer-syntax", "")
    single = name not in (_MULTIPART, "multipart/*", "*/*")
    kind = name if single else parameters.get("type", "*/*").lower()
    if kind == "*/*":
        return (Wanted(_syntax(named or ANY), each.quality, media=ANY),)
    if kind in ("image/*", "application/*"):
        among = [m for m in FRAME_MEDIA if m.startswith(kind[:-1])]
        return tuple(Wanted(_syntax(named or ANY), each.quality, single, media) for media in among)
    if kind not in FRAME_MEDIA:
        return ()
    syntax = _syntax(named or FRAME_MEDIA[kind])
    return (Wanted(syntax, each.quality, single, kind),) if syntax == ANY or _fits(kind, syntax) else ()


def _syntax(text: str) -> str:
    if text != ANY and not is_uid(text):
        raise Refused("Syntaxe de transfert mal formée dans l'en-tête Accept", code="accept-syntax")
    return text


def _quality(text: str | None) -> float:
    if text is None:
        return 1.0
    if not _QUALITY.fullmatch(text) or not 0 <= float(text) <= 1:
        raise Refused("Paramètre q hors de 0 à 1 dans l'en-tête Accept", code="accept-quality")
    return float(text)

"""The HL7 data types of XDS metadata: CX, CXi, XCN, XON, DTM (ITI TF-3 4.2.3.1.7, 4.2.3.2; standards.md D.5).

Names are cut to fit a slot (256 characters); an identifier never is.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drimbox.foundation.clock import PARIS, has_neighbours, utc_digits
from drimbox.foundation.errors import Refused
from drimbox.national.dmp.codes import PROFESSIONALS_OID, STRUCTURES_OID

MAX_VALUE = 256

_ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"}
_ESCAPING = str.maketrans(_ESCAPES)
_UNESCAPES = {escape[1]: char for char, escape in _ESCAPES.items()}
_NOT_XML = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_DTM = re.compile(r"(\d{4}(?:\d{2}){0,5})(?:\.\d{1,4})?([+-]\d{4})?")


def clean(text: str) -> str:
    """Text without what XML cannot carry: each such character made a space."""
    return _NOT_XML.sub(" ", text)


def escape(text: str) -> str:
    """Text as it stands in a component: cleaned, its separators escaped (HL7 v2 2.7)."""
    return clean(text).translate(_ESCAPING)


def unescape(text: str) -> str:
    """The inverse of ``escape``; sequences that HL7 does not define stay as they are."""
    return re.sub(r"\\([EFSTR])\\", lambda match: _UNESCAPES[match.group(1)], text)


@dataclass(frozen=True, slots=True)
class Cx:
    """An identifier and its issuer: CX of patients (``kind`` ``NH``, ``PI``), CXi of referenceIdList (a URN)."""

    value: str
    authority: str = ""
    kind: str = ""
    namespace: str = ""
    home: str = ""

    def encode(self) -> str:
        """``value^^^namespace&oid&ISO^kind``. Raises ``Refused`` (``metadata-length``) over 256 characters."""
        authority = _authority(self.namespace, self.authority)
        return _checked(_join([escape(self.value), "", "", authority, escape(self.kind), escape(self.home)]))

    @staticmethod
    def parse(text: str) -> Cx:
        parts = _components(text)
        namespace, authority = _hd(_raw(text, 4))
        return Cx(parts(1), authority, parts(5), namespace, parts(6))

    def __repr__(self) -> str:
        # Patient numbers are health data.
        return f"Cx(…, {self.authority}, {self.kind})"


@dataclass(frozen=True, slots=True)
class Xcn:
    """A person, or a device in a person's place (``name_type`` ``U``, ``identifier_type`` ``EI``)."""

    identifier: str
    family: str
    given: str = ""
    further_given: str = ""
    suffix: str = ""
    prefix: str = ""
    authority: str = ""
    name_type: str = ""
    identifier_type: str = ""

    @staticmethod
    def professional(identifier: str, family: str, given: str) -> Xcn:
        """A health professional by national id: legal name ``D``, type ``IDNPS``."""
        return Xcn(identifier, family, given, authority=PROFESSIONALS_OID, name_type="D", identifier_type="IDNPS")

    @staticmethod
    def device(identifier: str, name: str, model: str) -> Xcn:
        """This box as author (decision 9): name type ``U``, type ``EI``."""
        return Xcn(identifier, name, model, authority=PROFESSIONALS_OID, name_type="U", identifier_type="EI")

    def encode(self) -> str:
        """13 components. Raises ``Refused`` (``metadata-length``) when the identifiers alone pass 256 characters."""

        def with_names(family: str, given: str) -> str:
            names = [family, given, self.further_given, self.suffix, self.prefix]
            tail = [
                "",
                "",
                _authority("", self.authority),
                escape(self.name_type),
                "",
                "",
                escape(self.identifier_type),
            ]
            return _join([escape(self.identifier), *(escape(n) for n in names), *tail])

        return _fitting(with_names, self.family, self.given)

    @staticmethod
    def parse(text: str) -> Xcn:
        parts = _components(text)
        return Xcn(
            identifier=parts(1),
            family=unescape(_raw(text, 2).split("&")[0]),
            given=parts(3),
            further_given=parts(4),
            suffix=parts(5),
            prefix=parts(6),
            authority=_hd(_raw(text, 9))[1],
            name_type=parts(10),
            identifier_type=parts(13),
        )


@dataclass(frozen=True, slots=True)
class Xon:
    """An organisation: its name, and its identifier under an authority."""

    name: str
    identifier: str = ""
    authority: str = ""
    identifier_type: str = ""

    @staticmethod
    def structure(identifier: str, name: str) -> Xon:
        """A French structure by Struct_IdNat."""
        return Xon(name, identifier, STRUCTURES_OID, "IDNST")

    def encode(self) -> str:
        """10 components. Raises ``Refused`` (``metadata-length``) when the identifier alone passes 256 characters."""

        def with_name(name: str, _: str) -> str:
            authority = _authority("", self.authority)
            tail = [authority, escape(self.identifier_type), "", "", escape(self.identifier)]
            return _join([escape(name), "", "", "", "", *tail])

        return _fitting(with_name, self.name, "")

    @staticmethod
    def parse(text: str) -> Xon:
        parts = _components(text)
        return Xon(parts(1), parts(10), _hd(_raw(text, 6))[1], parts(7))


@dataclass(frozen=True, slots=True, order=True)
class Dtm:
    """An instant in UTC as XDS writes it, as exact as it was given: 4 to 14 digits."""

    digits: str

    @staticmethod
    def of(instant: dt.datetime) -> Dtm:
        return Dtm(utc_digits(instant))

    @staticmethod
    def parse(text: str) -> Dtm | None:
        """Read digits, and turn an offset that does not belong there into UTC; None for what is no date."""
        match = _DTM.fullmatch(text.strip())
        if match is None:
            return None
        digits, offset = match.groups()
        if _instant(digits) is None:
            return None
        if offset is None or len(digits) < 10:
            return Dtm(digits)
        try:
            shifted = dt.datetime.strptime(f"{digits:0<14}{offset}", "%Y%m%d%H%M%S%z")
        except ValueError:
            # An offset that no clock has.
            return None
        return Dtm(utc_digits(shifted)[: len(digits)])

    def instant(self) -> dt.datetime:
        """The first instant that the digits may mean, aware, in UTC."""
        found = _instant(self.digits)
        if found is None:
            raise ValueError("not a date")
        return found

    def paris_day(self) -> dt.date:
        """The day in France; a value without hours is that day already."""
        instant = self.instant()
        return (instant.astimezone(PARIS) if len(self.digits) >= 10 else instant).date()


def _instant(digits: str) -> dt.datetime | None:
    months_and_days = digits + "0101"[len(digits) - 4 :] if len(digits) < 8 else digits
    try:
        found = dt.datetime.strptime(f"{months_and_days:0<14}", "%Y%m%d%H%M%S").replace(tzinfo=dt.UTC)
    except ValueError:
        return None
    return found if has_neighbours(found) else None


def _authority(namespace: str, oid: str) -> str:
    if oid:
        return f"{escape(namespace)}&{escape(oid)}&ISO"
    return escape(namespace)


def _hd(raw: str) -> tuple[str, str]:
    """Namespace and universal id of an HD component."""
    pieces = [unescape(piece) for piece in raw.split("&")]
    return pieces[0], pieces[1] if len(pieces) > 1 else ""


def _raw(text: str, number: int) -> str:
    pieces = text.split("^")
    return pieces[number - 1] if number <= len(pieces) else ""


def _components(text: str) -> Callable[[int], str]:
    return lambda number: unescape(_raw(text, number))


def _join(components: Sequence[str]) -> str:
    return "^".join(components).rstrip("^")


def _checked(value: str) -> str:
    if len(value) > MAX_VALUE:
        raise Refused("Identifiant trop long pour les métadonnées du DMP", code="metadata-length")
    return value


def _fitting(encode: Callable[[str, str], str], first: str, second: str) -> str:
    """Encode with names as long as fit: the longer of the two loses its end first."""
    first, second = first[:MAX_VALUE], second[:MAX_VALUE]
    while len(value := encode(first, second)) > MAX_VALUE and (first or second):
        if len(first) >= len(second):
            first = first[:-1]
        else:
            second = second[:-1]
    return _checked(value)

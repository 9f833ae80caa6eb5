"""The contextual call: what the RIS or the EHR says about the patient when it opens the consumer (decision 18).

Every spelling of the parameters that was ever published is accepted (``demonstrator.md`` 9, ``rem-consumer.md`` 1.2,
``ans-faq.md`` 4.1); names are compared without regard to case, so that no caller fails on a capital letter.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal
from urllib.parse import unquote_to_bytes

from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import is_uid
from drimbox.identity.ins import Ins
from drimbox.identity.traits import LocalId, Sex, Traits

MAX_CALL_BYTES = 16 * 1024
_MAX_PARAMETERS = 64

# Canonical name (the newest one) -> the other names seen, in lower case. The first spelling is the one errors name.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "Patient.identifier.value": ("ins",),
    "Patient.identifier.system": ("insauthority",),
    "Patient.name.family": ("lastname",),
    "Patient.name.given": ("firstname",),
    "Patient.gender": ("sex",),
    "Patient.birthDate": ("birthdate",),
    "Address.district": ("birthplace",),
    "PatientID": (),
    "PatientIDIssuer": (),
    "InformationEtOppositionConsultation": ("informationetconsentement", "consent"),
    "Situation": (),
    "StudyInstanceUID": (),
    "Modality": (),
    "AccessionNumber": (),
    "AccessionNumberIssuer": (),
    "StudyDate": (),
    "AnatomicRegion": (),
}
_CANONICAL = {alias: name for name, aliases in _NAMES.items() for alias in (name.lower(), *aliases)}

_REQUIRED = (
    "Patient.identifier.value",
    "Patient.identifier.system",
    "Patient.name.family",
    "Patient.name.given",
    "Patient.gender",
    "Patient.birthDate",
    "Address.district",
    "PatientID",
    "PatientIDIssuer",
)

_SEXES = {
    "m": Sex.MALE,
    "male": Sex.MALE,
    "f": Sex.FEMALE,
    "female": Sex.FEMALE,
    "o": Sex.OTHER,
    "other": Sex.OTHER,
    "u": Sex.UNKNOWN,
    "un": Sex.UNKNOWN,
    "i": Sex.UNKNOWN,
    "unknown": Sex.UNKNOWN,
}

_PRINTABLE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_MODALITY = re.compile(r"[A-Z0-9_]{1,16}")
_DAY = r"(\d{8}|\d{4}-\d{2}-\d{2})"
_PERIOD = re.compile(rf"(?:{_DAY})?(-)?(?:{_DAY})?")

Range = Literal["test", "production"]


class Consent(StrEnum):
    """What the consent parameter means once mapped. Only ``YES`` lets anything be retrieved or shown."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class CallRefused(Refused):
    """The call cannot be accepted; ``parameter`` is the name at fault (as sent, when it is a plain word)."""

    def __init__(self, parameter: str, problem: str) -> None:
        text = f"Paramètre {parameter} : {problem}" if parameter else problem[:1].upper() + problem[1:]
        super().__init__(text, code="contextual-call")
        self.parameter = parameter


@dataclass(frozen=True, slots=True)
class Filters:
    """What the search is narrowed to; empty values narrow nothing. Both ends of the period are included.

    ``since_last_visit`` keeps what was registered since the user last saw the list; ``replaced`` also asks for former
    versions, which are left out otherwise.
    """

    study_uid: str = ""
    modalities: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    accession: str = ""
    accession_issuer: str = ""
    first_day: dt.date | None = None
    last_day: dt.date | None = None
    since_last_visit: bool = False
    replaced: bool = False

    def __repr__(self) -> str:
        return "Filters(…)"


@dataclass(frozen=True, slots=True)
class ContextualCall:
    """One well-formed call. The caller answers for the INS being qualified (UX.11): the box cannot check it.

    ``local_id`` is the IPP; its ``issuer`` is the OID found in PatientIDIssuer, empty when only a name was given, which
    is then in ``issuer_name``. ``situation`` is the practice that the caller names, empty when it names none.
    """

    ins: Ins
    traits: Traits
    local_id: LocalId
    issuer_name: str
    consent: Consent
    filters: Filters
    situation: str = ""

    def __repr__(self) -> str:
        return f"ContextualCall(…, consent={self.consent.value})"


def parse_call(
    body: bytes,
    *,
    environment: Range,
    consent_values: Mapping[str, str],
    issuers: Mapping[str, str] | None = None,
    today: dt.date | None = None,
) -> ContextualCall:
    """Read the body of a contextual call (``application/x-www-form-urlencoded``, UTF-8).

    ``environment`` is the range of INS that the box accepts. ``consent_values`` gives the meaning of each value of the
    consent parameter, compared without case; a key ``<name>=<value>`` holds for one spelling of the name only and wins.
    ``issuers`` gives the whole CX-4 (``name&OID&ISO``) of what callers send as PatientIDIssuer: the value whole, its
    OID, or its name, looked for in that order. Nobody is born after ``today``. Raises ``CallRefused``, whose text names
    the parameter and never repeats a value.
    """
    sent = _parameters(body)
    for name in _REQUIRED:
        if name not in sent:
            raise CallRefused(name, "obligatoire, absent de l'appel")
    issuer_oid, issuer_name = _known_issuer(sent, issuers or {})
    return ContextualCall(
        ins=_ins(sent, environment),
        traits=Traits(
            birth_family=_text(sent, "Patient.name.family", 128),
            first_given=_text(sent, "Patient.name.given", 128),
            birth_date=_birth_date(sent, today),
            sex=_sex(sent),
            birth_place=_text(sent, "Address.district", 64).upper(),
        ),
        local_id=LocalId(_text(sent, "PatientID", 64), issuer_oid),
        issuer_name=issuer_name,
        consent=_consent(sent, consent_values),
        filters=_filters(sent),
        situation=_text(sent, "Situation", 256) if "Situation" in sent else "",
    )


_Sent = Mapping[str, tuple[str, str]]  # canonical name -> (name as sent, value)


def _parameters(body: bytes) -> _Sent:
    if len(body) > MAX_CALL_BYTES:
        raise CallRefused("", "Appel trop volumineux")
    sent: dict[str, tuple[str, str]] = {}
    previous = ""
    pairs = body.strip(b"\r\n").split(b"&")
    if pairs == [b""]:
        raise CallRefused("", "Appel sans paramètre")
    if len(pairs) > _MAX_PARAMETERS:
        raise CallRefused("", "Trop de paramètres")
    for pair in pairs:
        raw_name, equals, raw_value = pair.partition(b"=")
        name = _decoded(raw_name, previous)
        canonical = _CANONICAL.get(name.lower())
        if not equals and canonical is None:
            # An unencoded "&" inside a value gives this, and the piece is then a part of the value: not repeated.
            raise CallRefused(previous, "valeur mal formée, ou caractère « & » non encodé")
        if canonical is None:
            raise CallRefused(name if _PRINTABLE_NAME.fullmatch(name) else "", "paramètre inconnu")
        if canonical in sent:
            raise CallRefused(name, "donné plusieurs fois")
        value = _decoded(raw_value, name).strip()
        if not value:
            raise CallRefused(name, "valeur vide")
        if _CONTROL.search(value):
            raise CallRefused(name, "caractère interdit")
        sent[canonical] = (name, value)
        previous = name
    return sent


def _decoded(raw: bytes, name: str) -> str:
    try:
        return unquote_to_bytes(raw.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise CallRefused(name, "l'encodage n'est pas UTF-8") from None


def _text(sent: _Sent, name: str, longest: int) -> str:
    spelling, value = sent[name]
    if len(value) > longest:
        raise CallRefused(spelling, f"plus de {longest} caractères")
    return " ".join(value.split())


def _ins(sent: _Sent, environment: Range) -> Ins:
    value_name, matricule = sent["Patient.identifier.value"]
    system_name, oid = sent["Patient.identifier.system"]
    try:
        ins = Ins.of(matricule, oid.removeprefix("urn:oid:"))
    except Refused as error:
        raise CallRefused(system_name if error.code == "ins-oid" else value_name, error.reason) from None
    if ins.authority.range != environment:
        kind = "de test" if ins.authority.range == "test" else "de production"
        raise CallRefused(system_name, f"un INS {kind} n'est pas accepté par cette DRIMbox")
    return ins


def _birth_date(sent: _Sent, today: dt.date | None) -> dt.date:
    name, value = sent["Patient.birthDate"]
    if not re.fullmatch(_DAY, value):
        raise CallRefused(name, "date mal formée (AAAAMMJJ ou AAAA-MM-JJ attendu)")
    born = _day(name, value)
    if today is not None and born > today:
        raise CallRefused(name, "date à venir")
    return born


def _day(name: str, value: str) -> dt.date:
    digits = value.replace("-", "")
    try:
        return dt.date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        raise CallRefused(name, "date impossible") from None


def _sex(sent: _Sent) -> Sex:
    name, value = sent["Patient.gender"]
    sex = _SEXES.get(value.lower())
    if sex is None:
        raise CallRefused(name, "sexe inconnu (male, female, other, unknown, ou M, F, O, U, I)")
    return sex


def _known_issuer(sent: _Sent, issuers: Mapping[str, str]) -> tuple[str, str]:
    """The OID and the name of the IPP's issuer: those of the setting when it knows the issuer, else those sent."""
    oid, name = _issuer_oid(sent, "PatientIDIssuer"), _issuer_name(sent["PatientIDIssuer"][1])
    known = {_normal_issuer(key): whole for key, whole in issuers.items()}
    for key in (sent["PatientIDIssuer"][1], oid, name):
        whole = known.get(_normal_issuer(key)) if key else None
        if whole is not None:
            mapped_name, mapped_oid = (*(part.strip() for part in whole.split("&")), "")[:2]
            return mapped_oid, mapped_name
    return oid, name


def _normal_issuer(text: str) -> str:
    return "&".join(part.strip().casefold().removeprefix("urn:oid:") for part in text.split("&"))


def _issuer_oid(sent: _Sent, parameter: str) -> str:
    """The OID in a CX-4 (``name&oid&ISO``), in a part of one (``&oid&ISO``, ``oid&ISO``), or alone; else empty."""
    name, value = sent[parameter]
    parts = [part.strip().removeprefix("urn:oid:") for part in value.split("&")]
    if len(value) > 256 or len(parts) > 3:
        raise CallRefused(name, "émetteur mal formé (CX-4 attendu : nom&OID&ISO)")
    found = [part for part in parts if is_uid(part)]
    if len(parts) == 3 and parts[2].upper() == "ISO" and parts[1] not in found:
        raise CallRefused(name, "OID de l'émetteur mal formé")
    return found[0] if found else ""


def _issuer_name(value: str) -> str:
    first = value.split("&")[0].strip().removeprefix("urn:oid:")
    return "" if is_uid(first) else first


def _consent(sent: _Sent, meanings: Mapping[str, str]) -> Consent:
    if "InformationEtOppositionConsultation" not in sent:
        return Consent.NO
    name, value = sent["InformationEtOppositionConsultation"]
    known = {key.lower(): meaning for key, meaning in meanings.items()}
    meaning = known.get(f"{name}={value}".lower(), known.get(value.lower(), "no"))
    return Consent(meaning) if meaning in ("yes", "unknown") else Consent.NO


def _filters(sent: _Sent) -> Filters:
    first, last = _period(sent)
    return Filters(
        study_uid=_study_uid(sent),
        modalities=_modalities(sent),
        regions=_words(sent, "AnatomicRegion"),
        accession=_text(sent, "AccessionNumber", 64) if "AccessionNumber" in sent else "",
        accession_issuer=_issuer_oid(sent, "AccessionNumberIssuer") if "AccessionNumberIssuer" in sent else "",
        first_day=first,
        last_day=last,
    )


def _study_uid(sent: _Sent) -> str:
    if "StudyInstanceUID" not in sent:
        return ""
    name, value = sent["StudyInstanceUID"]
    if not is_uid(value):
        raise CallRefused(name, "UID mal formé")
    return value


def _modalities(sent: _Sent) -> tuple[str, ...]:
    words = tuple(word.upper() for word in _words(sent, "Modality"))
    if any(not _MODALITY.fullmatch(word) for word in words):
        raise CallRefused(sent["Modality"][0], "code de modalité mal formé")
    return words


def _words(sent: _Sent, parameter: str) -> tuple[str, ...]:
    """A list separated by commas, semicolons or backslashes: the three separators that callers use."""
    if parameter not in sent:
        return ()
    name, value = sent[parameter]
    words = [" ".join(word.split()) for word in re.split(r"[,;\\]", value)]
    if len(words) > 32 or any(not word or len(word) > 128 for word in words):
        raise CallRefused(name, "liste mal formée")
    return tuple(dict.fromkeys(words))


def _period(sent: _Sent) -> tuple[dt.date | None, dt.date | None]:
    """``day``, ``day-day``, ``day-`` or ``-day``, each day ``YYYYMMDD`` or ``YYYY-MM-DD``."""
    if "StudyDate" not in sent:
        return None, None
    name, value = sent["StudyDate"]
    found = _PERIOD.fullmatch(value.replace(" ", ""))
    if found is None or not (found[1] or found[3]) or (found[1] and found[3] and not found[2]):
        raise CallRefused(name, "période mal formée (AAAAMMJJ ou AAAAMMJJ-AAAAMMJJ attendu)")
    first = _day(name, found[1]) if found[1] else None
    last = _day(name, found[3]) if found[3] else None
    if first and not found[2]:
        return first, first
    if first and last and first > last:
        raise CallRefused(name, "la fin précède le début")
    return first, last

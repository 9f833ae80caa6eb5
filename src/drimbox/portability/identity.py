"""Who acted at the DMP for a version: told whole between two drimboxes, else made again from what the archive says.

An update that comes from the PACS has no report of its own: it takes this identity (ans-faq.md 3.2).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from drimbox.foundation.errors import Refused
from drimbox.foundation.xml import Element, text_of
from drimbox.national.dmp.actor import INDIRECT, VihfIdentity
from drimbox.national.dmp.codes import HL7, PROFESSIONALS_OID, PROFESSIONS, SAML, SPECIALITIES, VihfName
from drimbox.national.dmp.metadata import Author, DocumentEntry, SubmissionSet, Xcn
from drimbox.reports.report import Coded, Structure

SECRET = "secret_connection"  # noqa: S105 - the name of a field
_UNSPECIFIED = "urn:oasis:names:tc:SAML:2.0:ac:classes:unspecified"
_DOCTOR = Coded("10", PROFESSIONS, "Médecin")
_DEVICE = "EI"
_MAX_INSTANT = 40


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """An identity for the archive; ``whole`` when the DMP would take it as it is."""

    identity: Mapping[str, object]
    whole: bool


def to_notes(identity: Mapping[str, object]) -> tuple[str, ...]:
    """An identity as lines ``name=value``, ``profession.code=10``."""
    return tuple(_lines(identity))


def _lines(identity: Mapping[str, object]) -> Iterator[str]:
    for name, value in identity.items():
        if isinstance(value, Mapping):
            yield from (f"{name}.{line}" for line in _lines(value))
        elif isinstance(value, bool):
            yield f"{name}={str(value).lower()}"
        elif isinstance(value, str):
            yield f"{name}={value}"


def from_notes(lines: Sequence[str]) -> Mapping[str, object] | None:
    """The inverse of ``to_notes``; None when the lines do not make a whole identity."""
    told = {name: value for name, _, value in (line.partition("=") for line in lines)}
    coded = {
        name: {part: told.get(f"{name}.{part}", "") for part in ("code", "system", "label")}
        for name in ("profession", "speciality")
        if f"{name}.code" in told
    }
    try:
        identity = VihfIdentity.from_json({"speciality": None, **told, **coded})
    except Refused:
        return None
    if identity.authenticated_at.tzinfo is None:
        return None
    return {**identity.to_json(), SECRET: told.get(SECRET) == "true"}


def rebuilt(
    entry: DocumentEntry,
    submission_set: SubmissionSet,
    assertion: Element | None,
    structure: Structure,
    sector: str,
    at: dt.datetime,
) -> Rebuilt:
    """An identity from the authors of the set and of the KOS, with the roles of the VIHF if it is of the same person.

    ``structure`` and ``sector`` are those under which this box acts. The name is never taken from the VIHF: official
    samples have the patient's in its place (standards.md L.1).
    """
    person = next(_people(entry, submission_set), None)
    found = person or Xcn("", "")
    told = [
        role
        for author in (*submission_set.authors, *entry.authors)
        for text in (*author.roles, *author.specialities)
        if (role := _role(text)) is not None
    ]
    instant = at
    if assertion is not None and _subject(assertion) == found.identifier:
        told = [*_assertion_roles(assertion), *told]
        instant = _instant(assertion) or at
    identity = VihfIdentity(
        subject_id=found.identifier,
        subject_name=f"{found.given} {found.family}".strip(),
        profession=next((role for role in told if role.system == PROFESSIONS), _DOCTOR),
        speciality=next((role for role in told if role.system == SPECIALITIES), None),
        structure_id=structure.identifier,
        structure_name=structure.name,
        sector=sector,
        mode=INDIRECT,
        authenticated_at=instant,
        authn_context=_UNSPECIFIED,
    )
    whole = bool(identity.subject_id and identity.subject_name and identity.speciality)
    return Rebuilt({**identity.to_json(), SECRET: False}, whole)


def acting_for(identity: Mapping[str, object], structure: Structure, sector: str) -> Mapping[str, object]:
    """The identity under this box's structure: its certificates name no other."""
    told = VihfIdentity.from_json(identity)
    if told.structure_id == structure.identifier:
        return identity
    moved = replace(told, structure_id=structure.identifier, structure_name=structure.name, sector=sector)
    return {**moved.to_json(), SECRET: identity.get(SECRET) is True}


def _people(entry: DocumentEntry, submission_set: SubmissionSet) -> Iterator[Xcn]:
    """Professionals, the sender of the set first; a device is no one."""
    authors: Iterable[Author] = (*submission_set.authors, *entry.authors)
    people = (*(author.person for author in authors), entry.legal_authenticator)
    for person in people:
        if person is None or not person.identifier or person.identifier_type == _DEVICE:
            continue
        if person.authority in ("", PROFESSIONALS_OID):
            yield person


def _role(text: str) -> Coded | None:
    """``code^label^system`` or ``code^label^&system&ISO``."""
    parts = [part.strip() for part in text.split("^")]
    system = next((s for part in parts[2:] for s in part.split("&") if s in (PROFESSIONS, SPECIALITIES)), None)
    return Coded(parts[0], system, parts[1]) if system and parts[0] else None


def _subject(assertion: Element) -> str:
    return text_of(assertion.find(f"{{{SAML}}}Subject/{{{SAML}}}NameID"))


def _assertion_roles(assertion: Element) -> list[Coded]:
    return [
        Coded(role.get("code", ""), role.get("codeSystem", ""), role.get("displayName", ""))
        for attribute in assertion.iter(f"{{{SAML}}}Attribute")
        if attribute.get("Name") == VihfName.ROLE
        for role in attribute.iter(f"{{{HL7}}}Role")
        if role.get("code")
    ]


def _instant(assertion: Element) -> dt.datetime | None:
    statement = next(assertion.iter(f"{{{SAML}}}AuthnStatement"), None)
    text = statement.get("AuthnInstant", "") if statement is not None else ""
    try:
        found = dt.datetime.fromisoformat(text.replace("Z", "+00:00")) if len(text) < _MAX_INSTANT else None
        return found.astimezone(dt.UTC) if found is not None and found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None

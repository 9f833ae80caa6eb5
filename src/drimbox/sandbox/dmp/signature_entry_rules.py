"""Rules of the document entry of the set's signature (standards.md D.6, D.7)."""

from __future__ import annotations

from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.entry_rules import EntryCase
from drimbox.sandbox.dmp.rules import Rule, rule


def _only(case: EntryCase, axis: str) -> tuple[str, str]:
    found = case.entry.only_code(axis)
    return (found.code, found.scheme) if found is not None else ("", "")


@rule("SIGN_ENTRY.MIME", v.REPOSITORY_METADATA)
def mime(case: EntryCase) -> str | None:
    """mimeType is text/xml (standards.md D.7)."""
    return None if case.entry.element.get("mimeType") == "text/xml" else "signature : mimeType text/xml attendu"


@rule("SIGN_ENTRY.CLASS", v.REPOSITORY_METADATA)
def class_code(case: EntryCase) -> str | None:
    """classCode is urn:oid:1.3.6.1.4.1.19376.1.2.1.1.1 of URN (standards.md D.7)."""
    right = _only(case, v.ENTRY_CLASS) == ("urn:oid:1.3.6.1.4.1.19376.1.2.1.1.1", "URN")
    return None if right else "signature : classCode faux"


@rule("SIGN_ENTRY.TYPE", v.REPOSITORY_METADATA)
def type_code(case: EntryCase) -> str | None:
    """typeCode is E1762 of ASTM (standards.md D.7)."""
    return None if _only(case, v.ENTRY_TYPE) == ("E1762", "ASTM") else "signature : typeCode faux"


@rule("SIGN_ENTRY.FORMAT", v.REPOSITORY_METADATA)
def format_code(case: EntryCase) -> str | None:
    """formatCode is the xmldsig namespace of URN, not the newer IHE DSG codes (standards.md D.7)."""
    right = _only(case, v.ENTRY_FORMAT) == ("http://www.w3.org/2000/09/xmldsig#", "URN")
    return None if right else "signature : formatCode faux"


@rule("SIGN_ENTRY.EVENT", v.REPOSITORY_METADATA)
def event(case: EntryCase) -> str | None:
    """One eventCode: 1.2.840.10065.1.12.1.14 Source (standards.md D.7)."""
    right = _only(case, v.ENTRY_EVENT) == ("1.2.840.10065.1.12.1.14", "1.2.840.10065.1.12")
    return None if right else "signature : eventCode faux"


@rule("SIGN_ENTRY.LANGUAGE", v.REPOSITORY_METADATA)
def language(case: EntryCase) -> str | None:
    """languageCode is art (standards.md D.7)."""
    return None if case.entry.slot("languageCode") == "art" else "signature : languageCode art attendu"


@rule("SIGN_ENTRY.TITLE", v.REPOSITORY_METADATA)
def title(case: EntryCase) -> str | None:
    """The title is Source (standards.md D.7)."""
    return None if case.entry.title == "Source" else "signature : titre Source attendu"


@rule("SIGN_ENTRY.CONFIDENTIALITY", v.REPOSITORY_METADATA)
def confidentiality(case: EntryCase) -> str | None:
    """N, MASQUE_PS and INVISIBLE_PATIENT, always (standards.md D.6)."""
    found = sorted((c.code, c.scheme) for c in case.entry.codes.get(v.ENTRY_CONFIDENTIALITY, ()))
    expected = sorted([
        ("N", v.CONFIDENTIALITY), (v.MASKED_TO_PROFESSIONALS, v.MASKS), (v.HIDDEN_FROM_PATIENT, v.MASKS)
    ])  # fmt: skip
    return None if found == expected else "signature : confidentialityCode faux"


SIGNATURE_ENTRY_RULES: tuple[Rule[EntryCase], ...] = (
    mime,
    class_code,
    type_code,
    format_code,
    event,
    language,
    title,
    confidentiality,
)

"""The parameters of stored queries: which exist, and how their values are written (ITI TF-2 3.18.4.1.2.3.5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from drimbox.foundation.xml import Element, text_of
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.ebrim import rim
from drimbox.sandbox.dmp.rules import stated

FIND_DOCUMENTS = "urn:uuid:14d4debf-8f97-4251-9a74-a90016b0af0d"
FIND_BY_REFERENCE = "urn:uuid:12941a89-e02e-4be5-967c-ce4bfc8fe492"
FIND_SETS = "urn:uuid:f26abbcb-ac74-4422-8a30-edb644bbc1a9"
GET_DOCUMENTS = "urn:uuid:5c4f972b-d56b-40ac-a5fc-c8ca9b40b9d4"
GET_ASSOCIATIONS = "urn:uuid:a7ae438b-4bc2-4642-93e9-be891f7bb155"

KNOWN = stated(
    "QUERY.KNOWN", "XDSUnknownStoredQuery", "The stored query is one that this registry has (standards.md D.4)."
)
REQUIRED = stated("QUERY.REQUIRED", "XDSStoredQueryMissingParam", "Mandatory parameters are given (standards.md D.4).")
REPEATED = stated(
    "QUERY.REPEATED",
    "XDSStoredQueryParamNumber",
    "A parameter stands once; EventCodeList, ConfidentialityCode, ReferenceIdList may repeat, which means AND (D.4).",
)
PARAMETER = stated(
    "QUERY.PARAMETER", "XDSRegistryError", "A parameter of another query, or misspelled, is not ignored."
)
CODING = stated(
    "QUERY.CODING", "XDSRegistryError", "Strings in single quotes, inner quotes doubled, lists in parentheses (D.4)."
)
SCHEME = stated(
    "QUERY.SCHEME", "XDSRegistryError", "A code is written 'code^^scheme'; a missing scheme is an error (D.4)."
)
DATE = stated("QUERY.DATE", "XDSRegistryError", "A date is unquoted digits, from the year to the second (D.4).")


class Kind(Enum):
    """How the value of a parameter is written."""

    TEXT = auto()
    LIST = auto()
    CODES = auto()
    DATE = auto()
    NUMBER = auto()


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a query takes under one name."""

    kind: Kind
    required: bool = False
    repeatable: bool = False


# The values of one parameter: a group of alternatives (OR) for each slot of that name (AND).
Values = tuple[tuple[str, ...], ...]

_FILTERS = {
    "$XDSDocumentEntryPatientId": Parameter(Kind.TEXT, required=True),
    "$XDSDocumentEntryStatus": Parameter(Kind.LIST, required=True),
    "$XDSDocumentEntryClassCode": Parameter(Kind.CODES),
    "$XDSDocumentEntryTypeCode": Parameter(Kind.CODES),
    "$XDSDocumentEntryFormatCode": Parameter(Kind.CODES),
    "$XDSDocumentEntryPracticeSettingCode": Parameter(Kind.CODES),
    "$XDSDocumentEntryHealthcareFacilityTypeCode": Parameter(Kind.CODES),
    "$XDSDocumentEntryEventCodeList": Parameter(Kind.CODES, repeatable=True),
    "$XDSDocumentEntryConfidentialityCode": Parameter(Kind.CODES, repeatable=True),
    "$XDSDocumentEntryReferenceIdList": Parameter(Kind.LIST, repeatable=True),
    "$XDSDocumentEntryAuthorPerson": Parameter(Kind.LIST),
    "$XDSDocumentEntryType": Parameter(Kind.LIST),
    "$XDSDocumentEntryCreationTimeFrom": Parameter(Kind.DATE),
    "$XDSDocumentEntryCreationTimeTo": Parameter(Kind.DATE),
    "$XDSDocumentEntryServiceStartTimeFrom": Parameter(Kind.DATE),
    "$XDSDocumentEntryServiceStartTimeTo": Parameter(Kind.DATE),
    "$XDSDocumentEntryServiceStopTimeFrom": Parameter(Kind.DATE),
    "$XDSDocumentEntryServiceStopTimeTo": Parameter(Kind.DATE),
    "$MetadataLevel": Parameter(Kind.NUMBER),
}

QUERIES: Mapping[str, Mapping[str, Parameter]] = {
    FIND_DOCUMENTS: {n: p for n, p in _FILTERS.items() if n != "$XDSDocumentEntryReferenceIdList"},
    FIND_BY_REFERENCE: _FILTERS
    | {"$XDSDocumentEntryReferenceIdList": Parameter(Kind.LIST, required=True, repeatable=True)},
    FIND_SETS: {
        "$XDSSubmissionSetPatientId": Parameter(Kind.TEXT, required=True),
        "$XDSSubmissionSetStatus": Parameter(Kind.LIST, required=True),
        "$XDSSubmissionSetSubmissionTimeFrom": Parameter(Kind.DATE),
        "$XDSSubmissionSetSubmissionTimeTo": Parameter(Kind.DATE),
        "$XDSSubmissionSetSourceId": Parameter(Kind.LIST),
        "$XDSSubmissionSetAuthorPerson": Parameter(Kind.TEXT),
        "$XDSSubmissionSetContentType": Parameter(Kind.CODES),
    },
    GET_DOCUMENTS: {
        "$XDSDocumentEntryUniqueId": Parameter(Kind.LIST),
        "$XDSDocumentEntryEntryUUID": Parameter(Kind.LIST),
        "$MetadataLevel": Parameter(Kind.NUMBER),
    },
    GET_ASSOCIATIONS: {"$uuid": Parameter(Kind.LIST, required=True)},
}

_STRING = r"'(?:[^']|'')*'"
_TEXT = re.compile(_STRING)
_LIST = re.compile(rf"\(\s*({_STRING}(?:\s*,\s*{_STRING})*)\s*\)")
_DATE = re.compile(r"\d{4}(\d\d){0,5}")
_MAX_VALUES = 500


def read_parameters(query: Element) -> dict[str, Values]:
    """Read the slots of an AdhocQuery. Raises ``Breach``."""
    allowed = QUERIES.get(query.get("id", ""))
    if allowed is None:
        raise KNOWN.broken("requête stockée inconnue")
    found: dict[str, list[tuple[str, ...]]] = {}
    for slot in query.findall(rim("Slot")):
        name = slot.get("name", "")
        parameter = allowed.get(name)
        if parameter is None:
            raise PARAMETER.broken(f"paramètre inconnu de cette requête : {name[:80]}")
        texts = [text_of(value) for value in slot.iterfind(f"{rim('ValueList')}/{rim('Value')}")]
        if len(texts) > _MAX_VALUES:
            raise REPEATED.broken(f"trop de valeurs pour {name}")
        if not texts:
            raise REQUIRED.broken(f"paramètre sans valeur : {name}")
        if name in found and not parameter.repeatable:
            raise REPEATED.broken(f"paramètre répété : {name}")
        found.setdefault(name, []).append(_values(name, parameter.kind, texts))
    for name, parameter in allowed.items():
        if parameter.required and name not in found:
            raise REQUIRED.broken(f"paramètre absent : {name}")
    return {name: tuple(groups) for name, groups in found.items()}


def _values(name: str, kind: Kind, texts: list[str]) -> tuple[str, ...]:
    if kind in (Kind.LIST, Kind.CODES):
        values = tuple(value for text in texts for value in _list(name, text))
        if kind is Kind.CODES:
            _check_schemes(name, values)
        return values
    if len(texts) != 1:
        raise REPEATED.broken(f"une seule valeur attendue pour {name}")
    text = texts[0]
    if kind is Kind.TEXT:
        if not _TEXT.fullmatch(text):
            raise CODING.broken(f"texte entre apostrophes attendu pour {name}")
        return (_unquoted(text),)
    if not (_DATE.fullmatch(text) if kind is Kind.DATE else text.isdigit()):
        raise DATE.broken(f"chiffres sans apostrophes attendus pour {name}")
    return (text,)


def _list(name: str, text: str) -> Iterable[str]:
    found = _LIST.fullmatch(text)
    if found is None:
        raise CODING.broken(f"liste entre parenthèses de textes entre apostrophes attendue pour {name}")
    return [_unquoted(one) for one in _TEXT.findall(found.group(1))]


def _check_schemes(name: str, values: Iterable[str]) -> None:
    for value in values:
        code, separator, scheme = value.partition("^^")
        if not code or not separator or not scheme or "^" in scheme:
            raise SCHEME.broken(f"'code^^système' attendu pour {name}")


def _unquoted(text: str) -> str:
    return text[1:-1].replace("''", "'")


STATED = (KNOWN, REQUIRED, REPEATED, PARAMETER, CODING, SCHEME, DATE)

ENTRY_AXES = {
    "$XDSDocumentEntryClassCode": v.ENTRY_CLASS,
    "$XDSDocumentEntryTypeCode": v.ENTRY_TYPE,
    "$XDSDocumentEntryFormatCode": v.ENTRY_FORMAT,
    "$XDSDocumentEntryPracticeSettingCode": v.ENTRY_PRACTICE,
    "$XDSDocumentEntryHealthcareFacilityTypeCode": v.ENTRY_FACILITY,
    "$XDSDocumentEntryEventCodeList": v.ENTRY_EVENT,
    "$XDSDocumentEntryConfidentialityCode": v.ENTRY_CONFIDENTIALITY,
}
ENTRY_TIMES = {
    "$XDSDocumentEntryCreationTime": "creationTime",
    "$XDSDocumentEntryServiceStartTime": "serviceStartTime",
    "$XDSDocumentEntryServiceStopTime": "serviceStopTime",
}

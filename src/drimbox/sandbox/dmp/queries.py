"""ITI-18 (TD3.1): stored queries, as far as the one who asks may see (standards.md D.4, D.8)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from drimbox.foundation.xml import Builder, Element, parse
from drimbox.sandbox.dmp import query_slots as q
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.access import ACCESS_RULES, RECORD_RULES, is_visible
from drimbox.sandbox.dmp.answers import Reply, registry_response
from drimbox.sandbox.dmp.ebrim import RegistryObject, read_object, rim
from drimbox.sandbox.dmp.hearing import Hearing
from drimbox.sandbox.dmp.query_slots import Values
from drimbox.sandbox.dmp.registering import leaf
from drimbox.sandbox.dmp.rules import judge, stated
from drimbox.sandbox.dmp.schemas import schema_error
from drimbox.sandbox.dmp.store import StoredEntry

SCHEMA = stated("QUERY.SCHEMA", v.MALFORMED, "The body is valid against ebRS query 3.0 (standards.md D.2).")
OPTION = stated(
    "QUERY.OPTION",
    "XDSRegistryError",
    "returnComposedObjects is true, returnType LeafClass or ObjectRef (standards.md D.4).",
)
MODE = stated(
    "QUERY.MODE",
    v.ACCESS_DENIED,
    "INDIRECTE without AIR cannot consult: only GetDocuments, for the structure's own documents (standards.md D.8).",
)
PATIENT = stated(
    "QUERY.PATIENT", "XDSPatientIdDoesNotMatch", "The patient of the query is that of the VIHF (standards.md E)."
)
ONE_OF = stated(
    "QUERY.ONE_OF", "XDSStoredQueryParamNumber", "GetDocuments takes uniqueIds or entryUUIDs, not both (ITI TF-2 3.18)."
)
TOO_MANY = stated(
    "QUERY.TOO_MANY", "XDSTooManyResults", "LeafClass is refused above a number of results (ITI TF-2 3.18)."
)

_RIM = Builder({"rim": v.RIM}, "rim")
_QUERY = Builder({"query": v.QUERY, "rim": v.RIM, "rs": v.RS}, "query")


def query(hearing: Hearing) -> Reply:
    """Judge and answer. Raises ``Breach``."""
    request = hearing.message.body
    error = schema_error(hearing.bench.schemas.query, request)
    adhoc = request.find(rim("AdhocQuery"))
    option = request.find(f"{{{v.QUERY}}}ResponseOption")
    if error is not None or adhoc is None or option is None:
        raise SCHEMA.broken(error or "ResponseOption et AdhocQuery attendus")
    composed, kind = option.get("returnComposedObjects", "false"), option.get("returnType", "RegistryObject")
    if composed not in ("true", "1") or kind not in ("LeafClass", "ObjectRef"):
        raise OPTION.broken("returnComposedObjects=true et returnType LeafClass ou ObjectRef attendus")
    parameters = q.read_parameters(adhoc)
    identifier = adhoc.get("id", "")
    if not hearing.vihf.reinforced and identifier != q.GET_DOCUMENTS:
        raise MODE.broken("consultation impossible en authentification indirecte simple")
    judge(ACCESS_RULES if hearing.vihf.reinforced else RECORD_RULES, hearing)
    _check_patient(hearing, parameters)
    found = _FINDERS[identifier](hearing, parameters)
    if kind == "ObjectRef":
        found = [_RIM("ObjectRef", id=one.get("id", "")) for one in found]
    elif len(found) > hearing.bench.policy.max_results:
        raise TOO_MANY.broken("trop de résultats")
    return Reply(f"{v.STORED_QUERY}Response", response(v.SUCCESS, found))


def response(status: str, found: Sequence[Element] = ()) -> Element:
    """An AdhocQueryResponse."""
    whole = _QUERY("AdhocQueryResponse", _RIM("RegistryObjectList", *found), totalResultCount=str(len(found)))
    return registry_response(status, wrapped=whole)


def _check_patient(hearing: Hearing, parameters: Mapping[str, Values]) -> None:
    for name in ("$XDSDocumentEntryPatientId", "$XDSSubmissionSetPatientId"):
        if name in parameters and parameters[name] != ((hearing.vihf.patient,),):
            raise PATIENT.broken("patient de la requête différent de celui du VIHF")


def _visible(hearing: Hearing) -> list[StoredEntry]:
    return [e for e in hearing.bench.store.entries(hearing.vihf.patient) if is_visible(hearing, e)]


def _find_documents(hearing: Hearing, parameters: Mapping[str, Values]) -> list[Element]:
    statuses = parameters["$XDSDocumentEntryStatus"][0]
    types = parameters.get("$XDSDocumentEntryType", ((v.STABLE_DOCUMENT,),))[0]
    if v.STABLE_DOCUMENT not in types:
        return []
    candidates = [e for e in _visible(hearing) if e.status in statuses]
    return [leaf(e) for e in candidates if _matches(_described(e.metadata), parameters)]


@lru_cache(maxsize=10_000)
def _described(metadata: bytes) -> RegistryObject:
    """What an entry says. A long record is asked about again and again."""
    return read_object(parse(metadata), v.ENTRY_AUTHOR)


def _matches(entry: RegistryObject, parameters: Mapping[str, Values]) -> bool:
    for name, axis in q.ENTRY_AXES.items():
        codes = {f"{c.code}^^{c.scheme}" for c in entry.codes.get(axis, ())}
        if not all(codes & set(group) for group in parameters.get(name, ())):
            return False
    references = set(entry.slots.get(v.REFERENCES_SLOT, ()))
    if not all(references & set(group) for group in parameters.get("$XDSDocumentEntryReferenceIdList", ())):
        return False
    persons = [p for a in entry.authors for p in a.persons]
    if not all(_like(persons, group) for group in parameters.get("$XDSDocumentEntryAuthorPerson", ())):
        return False
    return all(_within(entry.slot(slot), name, parameters) for name, slot in q.ENTRY_TIMES.items())


def _find_sets(hearing: Hearing, parameters: Mapping[str, Values]) -> list[Element]:
    statuses = parameters["$XDSSubmissionSetStatus"][0]
    shown = {e.submission for e in _visible(hearing)}
    found = []
    for one in hearing.bench.store.submissions(hearing.vihf.patient):
        element = parse(one.metadata)
        told = read_object(element, v.SET_AUTHOR)
        types = {f"{c.code}^^{c.scheme}" for c in told.codes.get(v.SET_CONTENT_TYPE, ())}
        persons = [p for a in told.authors for p in a.persons]
        if (
            one.uuid in shown
            and v.APPROVED in statuses
            and _within(told.slot("submissionTime"), "$XDSSubmissionSetSubmissionTime", parameters)
            and all(told.identifier(v.SET_SOURCE) in g for g in parameters.get("$XDSSubmissionSetSourceId", ()))
            and all(types & set(g) for g in parameters.get("$XDSSubmissionSetContentType", ()))
            and all(_like(persons, g) for g in parameters.get("$XDSSubmissionSetAuthorPerson", ()))
        ):
            found.append(element)
    return found


def _get_documents(hearing: Hearing, parameters: Mapping[str, Values]) -> list[Element]:
    if len(parameters.keys() - {"$MetadataLevel"}) > 1:
        raise ONE_OF.broken("uniqueId ou entryUUID attendu, pas les deux")
    uniques = parameters.get("$XDSDocumentEntryUniqueId")
    uuids = parameters.get("$XDSDocumentEntryEntryUUID")
    if uniques is None and uuids is None:
        raise q.REQUIRED.broken("paramètre absent : $XDSDocumentEntryUniqueId ou $XDSDocumentEntryEntryUUID")
    wanted_unique = set(uniques[0]) if uniques else set()
    wanted_uuid = set(uuids[0]) if uuids else set()
    return [leaf(e) for e in _visible(hearing) if e.unique_id in wanted_unique or e.uuid in wanted_uuid]


def _get_associations(hearing: Hearing, parameters: Mapping[str, Values]) -> list[Element]:
    wanted = parameters["$uuid"][0]
    entries = _visible(hearing)
    shown = {e.uuid for e in entries} | {e.submission for e in entries}
    found = hearing.bench.store.associations(wanted)
    return [parse(a.metadata) for a in found if {a.source, a.target} <= shown]


_FINDERS = {
    q.FIND_DOCUMENTS: _find_documents,
    q.FIND_BY_REFERENCE: _find_documents,
    q.FIND_SETS: _find_sets,
    q.GET_DOCUMENTS: _get_documents,
    q.GET_ASSOCIATIONS: _get_associations,
}


def _within(value: str, name: str, parameters: Mapping[str, Values]) -> bool:
    """Is From <= value < To, a shorter date standing for its first instant (ITI TF-2 3.18.4.1.2.3.3)?"""
    starts = [group[0] for group in parameters.get(f"{name}From", ())]
    ends = [group[0] for group in parameters.get(f"{name}To", ())]
    if (starts or ends) and not value:
        return False
    return all(_first_instant(s) <= value for s in starts) and all(value < _first_instant(e) for e in ends)


def _first_instant(date: str) -> str:
    return date + "00000101000000"[len(date) :]


def _like(values: Sequence[str], patterns: Sequence[str]) -> bool:
    """SQL LIKE: % for any text, _ for one character."""
    for pattern in patterns:
        expression = "".join({"%": ".*", "_": "."}.get(c, re.escape(c)) for c in pattern)
        if any(re.fullmatch(expression, value) for value in values):
            return True
    return False


STATED = (SCHEMA, OPTION, MODE, PATIENT, ONE_OF, TOO_MANY)

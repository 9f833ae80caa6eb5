"""ITI-43 (TD3.2): the octets of documents, in MTOM, to those who may see them (standards.md D.2, D.8)."""

from __future__ import annotations

from drimbox.foundation.xml import Builder, Element, text_of
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.access import ACCESS_RULES, is_visible
from drimbox.sandbox.dmp.answers import RegistryError, Reply, registry_error, registry_response
from drimbox.sandbox.dmp.hearing import Hearing
from drimbox.sandbox.dmp.rules import Breach, judge, stated
from drimbox.sandbox.dmp.schemas import schema_error
from drimbox.sandbox.dmp.store import StoredEntry

SCHEMA = stated("RETRIEVE.SCHEMA", v.MALFORMED, "The body is valid against IHE XDS.b (standards.md D.2).")
LIMIT = stated("RETRIEVE.LIMIT", "XDSRepositoryOutOfResources", "At most 50 documents in one request, each once.")
REPOSITORY = stated(
    "RETRIEVE.REPOSITORY", "XDSUnknownRepositoryId", "RepositoryUniqueId is that of this DMP (ITI TF-2 3.43)."
)
DOCUMENT = stated(
    "RETRIEVE.DOCUMENT",
    "XDSDocumentUniqueIdError",
    "The document exists, is of the VIHF's patient, and may be seen by the one who asks (ITI TF-2 3.43; D.8).",
)
STATED = (SCHEMA, LIMIT, REPOSITORY, DOCUMENT)

_MAX_DOCUMENTS = 50
_XDSB = Builder({"xdsb": v.XDSB, "rs": v.RS, "xop": v.XOP}, "xdsb")


def retrieve(hearing: Hearing) -> Reply:
    """Judge and answer: whole, partial (some documents refused) or failed. Raises ``Breach``."""
    request = hearing.message.body
    error = schema_error(hearing.bench.schemas.xds, request)
    asked = request.findall(f"{{{v.XDSB}}}DocumentRequest")
    if error is not None or not asked:
        raise SCHEMA.broken(error or "DocumentRequest attendu")
    pairs = [(_child(one, "RepositoryUniqueId"), _child(one, "DocumentUniqueId")) for one in asked]
    if len(pairs) > _MAX_DOCUMENTS or len(set(pairs)) < len(pairs):
        raise LIMIT.broken("trop de documents demandés, ou un document demandé deux fois")
    judge(ACCESS_RULES, hearing)
    errors: list[RegistryError] = []
    found: list[StoredEntry] = []
    for repository, unique_id in pairs:
        try:
            found.append(_allowed(hearing, repository, unique_id))
        except Breach as breach:
            errors.append(registry_error(breach))
    status = v.SUCCESS if not errors else v.PARTIAL if found else v.FAILURE
    attachments = [(f"{number}.urn:ihe:iti:xds-b:2007", _content(hearing, e)) for number, e in enumerate(found, 1)]
    described = [_described(hearing, e, cid) for e, (cid, _) in zip(found, attachments, strict=True)]
    return Reply(f"{v.RETRIEVE}Response", response(status, errors, described), True, attachments)


def response(status: str, errors: list[RegistryError], documents: list[Element]) -> Element:
    """A RetrieveDocumentSetResponse."""
    return _XDSB("RetrieveDocumentSetResponse", registry_response(status, errors), *documents)


def _allowed(hearing: Hearing, repository: str, unique_id: str) -> StoredEntry:
    if repository != hearing.bench.policy.repository:
        raise REPOSITORY.broken("RepositoryUniqueId inconnu")
    entry = hearing.bench.store.entry(unique_id=unique_id)
    if entry is None or not is_visible(hearing, entry):
        raise DOCUMENT.broken("document inconnu, ou non accessible")
    return entry


def _described(hearing: Hearing, entry: StoredEntry, content_id: str) -> Element:
    include = _XDSB("xop:Include", href=f"cid:{content_id.replace(':', '%3A')}")
    return _XDSB(
        "DocumentResponse",
        _XDSB("RepositoryUniqueId", hearing.bench.policy.repository),
        _XDSB("DocumentUniqueId", entry.unique_id),
        _XDSB("mimeType", entry.mime),
        _XDSB("Document", include),
    )


def _content(hearing: Hearing, entry: StoredEntry) -> bytes:
    content = hearing.bench.store.content(entry.unique_id)
    assert content is not None
    return content


def _child(element: Element, name: str) -> str:
    return text_of(element.find(f"{{{v.XDSB}}}{name}"))

"""ITI-43 Retrieve Document Set: the octets of documents, checked against what the registry said of them (TD3.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from drimbox.foundation.errors import Refused
from drimbox.foundation.xml import Builder, Element, text_of
from drimbox.national.dmp import mtom, registry, soap
from drimbox.national.dmp.codes import ACTION_RETRIEVE, RS, XDSB
from drimbox.national.dmp.errors import DmpRejected
from drimbox.national.dmp.metadata import DocumentEntry
from drimbox.national.dmp.transport import Request

MAX_ANSWER = 256 * 2**20

_XDSB = Builder({"xdsb": XDSB}, "xdsb")


@dataclass(frozen=True, slots=True)
class DocumentWanted:
    """A document to fetch. ``hash`` (SHA-1, hexadecimal) and ``size`` are checked where they are known."""

    repository_id: str
    unique_id: str
    hash: str = ""
    size: int | None = None

    @staticmethod
    def of(entry: DocumentEntry) -> DocumentWanted:
        return DocumentWanted(entry.repository_id, entry.unique_id, entry.hash, entry.size)


@dataclass(frozen=True, slots=True)
class RetrievedDocument:
    """A document as fetched."""

    unique_id: str
    mime_type: str
    content: bytes

    def __repr__(self) -> str:
        return f"RetrievedDocument({self.unique_id}, {self.mime_type}, {len(self.content)} bytes)"


def request(url: str, wanted: Sequence[DocumentWanted]) -> Request:
    """What is sent. Raises ``Refused`` (``retrieve-incomplete``) for a document whose repository is not known."""
    if not wanted or not all(w.repository_id and w.unique_id for w in wanted):
        raise Refused("Document sans identifiant d'entrepôt : il ne peut pas être demandé", code="retrieve-incomplete")
    body = _XDSB(
        "RetrieveDocumentSetRequest",
        *(
            _XDSB(
                "DocumentRequest",
                _XDSB("RepositoryUniqueId", w.repository_id),
                _XDSB("DocumentUniqueId", w.unique_id),
            )
            for w in wanted
        ),
    )
    return Request(url, ACTION_RETRIEVE, body, changes=False, max_answer=MAX_ANSWER)


def documents(answer: soap.Answer, wanted: Sequence[DocumentWanted]) -> tuple[RetrievedDocument, ...]:
    """All the documents asked for, in the order asked, and no other.

    Raises ``Refused`` when the answer cannot be read or lacks one (``answer-truncated``); ``DmpRejected``
    (``document-hash``, ``document-foreign``) when octets are not those of the entry, or nobody asked for them; as
    ``registry.whole`` when the repository failed.
    """
    body = soap.expect(answer, XDSB, "RetrieveDocumentSetResponse")
    response = body.find(f"{{{RS}}}RegistryResponse")
    if response is None:
        raise Refused("Réponse du DMP sans statut", code="registry-status")
    registry.whole(response)
    found: dict[str, RetrievedDocument] = {}
    for element in body.iterfind(f"{{{XDSB}}}DocumentResponse"):
        document = _document(element, answer)
        if document.unique_id in found or all(document.unique_id != w.unique_id for w in wanted):
            raise DmpRejected(
                "Le DMP a rendu un document qui n'était pas demandé", code="document-foreign", peer_code=None
            )
        found[document.unique_id] = document
    return tuple(_checked(w, found.get(w.unique_id)) for w in wanted)


def _document(element: Element, answer: soap.Answer) -> RetrievedDocument:
    content = element.find(f"{{{XDSB}}}Document")
    unique_id = text_of(element.find(f"{{{XDSB}}}DocumentUniqueId"))
    if content is None or not unique_id:
        raise Refused("Document rendu par le DMP sans contenu ou sans identifiant", code="answer-document")
    return RetrievedDocument(
        unique_id, text_of(element.find(f"{{{XDSB}}}mimeType")), mtom.document_bytes(content, answer.parts)
    )


def _checked(wanted: DocumentWanted, document: RetrievedDocument | None) -> RetrievedDocument:
    if document is None:
        raise Refused("Un document demandé manque dans la réponse du DMP", code="answer-truncated")
    digest = hashlib.sha1(document.content, usedforsecurity=False).hexdigest()
    wrong_hash = bool(wanted.hash) and wanted.hash.lower() != digest
    wrong_size = wanted.size is not None and wanted.size != len(document.content)
    if wrong_hash or wrong_size:
        raise DmpRejected(
            "Le document rendu par le DMP n'est pas celui que décrivent ses métadonnées",
            code="document-hash",
            peer_code=None,
        )
    return document

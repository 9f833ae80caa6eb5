"""The documents of an ITI-41 message: from xop:Include to octets, and back into the body for the schema."""

from __future__ import annotations

import base64
import copy
from collections.abc import Mapping
from urllib.parse import unquote

from lxml import etree

from drimbox.foundation.xml import Element
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.ebrim import Submission
from drimbox.sandbox.dmp.rules import stated
from drimbox.sandbox.dmp.soap import Message

MTOM = stated(
    "DOC.MTOM",
    v.MALFORMED,
    "Documents come by MTOM: each Document holds one xop:Include (standards.md D.2; EX_2.1-1260).",
)
CID = stated(
    "DOC.CID", v.MALFORMED, "Each href is cid:<Content-ID, URL-encoded> of a part (standards.md D.2; RFC 2392)."
)
UNUSED = stated("DOC.UNUSED", v.MALFORMED, "Each part is included once (XOP 1.0 3.2).")
MISSING = stated(
    "DOC.MISSING", v.MISSING_DOCUMENT, "Each entry has its document (standards.md D.2, XDSMissingDocument)."
)
EXTRA = stated("DOC.EXTRA", v.MISSING_METADATA, "Each document has its entry, once (XDSMissingDocumentMetadata).")


def octets(message: Message) -> dict[str, bytes]:
    """The octets of each Document by id. Raises ``Breach``."""
    if not message.multipart:
        raise MTOM.broken("MTOM attendu pour cette transaction")
    found: dict[str, bytes] = {}
    used: list[str] = []
    for document in message.body.findall(f"{{{v.XDSB}}}Document"):
        inside = list(document.iterchildren(etree.Element))
        if [c.tag for c in inside] != [f"{{{v.XOP}}}Include"] or (document.text or "").strip():
            raise MTOM.broken("un xop:Include attendu dans chaque Document")
        scheme, _, encoded = inside[0].get("href", "").partition(":")
        content_id = unquote(encoded)
        if scheme != "cid" or content_id not in message.attachments:
            raise CID.broken("href de xop:Include sans partie correspondante")
        identifier = document.get("id", "")
        if identifier in found:
            raise EXTRA.broken("deux documents pour une même entrée")
        used.append(content_id)
        found[identifier] = message.attachments[content_id].content
    if sorted(used) != sorted(message.attachments):
        raise UNUSED.broken("partie multipart incluse plusieurs fois, ou pas du tout")
    return found


def matched(submission: Submission, contents: Mapping[str, bytes]) -> None:
    """Raise ``Breach`` unless entries and documents go by pairs."""
    entries = {e.id for e in submission.entries}
    if entries - contents.keys():
        raise MISSING.broken("document absent pour une entrée")
    if contents.keys() - entries:
        raise EXTRA.broken("document sans entrée")


def inlined(body: Element, contents: Mapping[str, bytes]) -> Element:
    """A copy of the body whose documents stand in base64, as the schema knows them."""
    whole = copy.deepcopy(body)
    for document in whole.findall(f"{{{v.XDSB}}}Document"):
        for child in list(document):
            document.remove(child)
        document.text = base64.b64encode(contents[document.get("id", "")]).decode()
    return whole

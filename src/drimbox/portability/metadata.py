"""``METADATA.XML``: the submission set as it was published, and beside it what the archive knows of each document.

Written as the conformant ``lcm:SubmitObjectsRequest``; read in that form, and as the whole SOAP message of the official
sample, with its objects in any order (standards.md D.7, L.7). Taking out what writing put in gives back the octets of
the submission set.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lxml import etree

from drimbox.foundation.xml import Builder, Element, parse, text_of, to_bytes
from drimbox.national.dmp.codes import LCM, RIM, SAML, XDSB, XML_LANG, EntryScheme
from drimbox.national.dmp.metadata import Cx, RegistryObjects, read_objects
from drimbox.portability.layout import MAX_METADATA, refused

NOTES = "urn:drimbox:xdm:"
"""Our own slots: metadata attribute extensions (ITI TF-3 4.2.3.1.6), which others may ignore."""

# As the official sample has it.
_ENTRY_UUID_SCHEME = "1.2.3"
_ENTRY_UUID = "XDSDocumentEntry.EntryUUID"
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MAX_VALUE = 256

LOCAL_NUMBER = "urn:drimbox:local-number"
"""Stays with the submission set, since the archive has no other place for it."""

_RIM = Builder({"rim": RIM}, "rim")
# The order of the schema (rim.xsd RegistryObjectType); official samples mix it.
_ORDER = ("Slot", "Name", "Description", "VersionInfo", "Classification", "ExternalIdentifier")
_RANK = {f"{{{RIM}}}{name}": rank for rank, name in enumerate(_ORDER)}
_OBJECTS = tuple(
    f"{{{RIM}}}{name}"
    for name in ("RegistryPackage", "ExtrinsicObject", "Association", "Classification", "ExternalIdentifier")
)


@dataclass(frozen=True, slots=True)
class Filed:
    """What an archive says of one document beside its metadata.

    ``uri`` is its file, ``status`` its availability at the DMP, ``entry_uuid`` the DMP's id of it (empty when not
    known), ``notes`` our own slots by their name without its prefix.
    """

    uri: str = ""
    entry_uuid: str = ""
    status: str = ""
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, repr=False)
class Lot:
    """A submission set as an archive holds it.

    ``metadata`` are the octets of its ``lcm:SubmitObjectsRequest`` without what the archive added; ``filed`` is by
    uniqueId, ``inline`` the documents that the message itself carries, by entry id; ``assertion`` is the VIHF of the
    SOAP form.
    """

    metadata: bytes
    objects: RegistryObjects
    filed: Mapping[str, Filed]
    inline: Mapping[str, bytes]
    assertion: Element | None


def write_metadata(metadata: bytes, filed: Mapping[str, Filed]) -> bytes:
    """The submission set with what the archive knows of its documents. Raises ``Refused`` when it cannot be read."""
    root = parse(metadata, max_bytes=MAX_METADATA)
    request = _request(root)
    for document in request.iter(f"{{{RIM}}}ExtrinsicObject"):
        unique_id = _identifier(document, EntryScheme.UNIQUE_ID)
        if unique_id in filed:
            told = filed[unique_id]
            uri = (told.uri,) if told.uri else ()
            _add(document, told, {"URI": uri, **{NOTES + name: values for name, values in told.notes.items()}})
    return to_bytes(request)


def keep_local_number(metadata: bytes, number: Cx) -> bytes:
    """The submission set with the patient's number at the site, which only its CR.TXT told, on each document."""
    root = parse(metadata, max_bytes=MAX_METADATA)
    for document in root.iter(f"{{{RIM}}}ExtrinsicObject"):
        _add(document, Filed(), {LOCAL_NUMBER: (number.encode(),)})
    return to_bytes(root)


def read_metadata(data: bytes) -> Lot:
    """Read METADATA.XML. Raises ``Refused``: ``archive-metadata``, ``metadata-…``, ``xml-…``."""
    root = parse(data, max_bytes=MAX_METADATA)
    request = _request(root)
    if any(isinstance(element.tag, str) and element.tag[:1] != "{" for element in request.iter()):
        # Outside of every namespace it is nothing to the reader; written again, it could slip into that around it.
        raise refused("METADATA.XML contient un élément sans espace de noms", "metadata")
    objects = read_objects(request)
    if len(objects.submission_sets) != 1:
        raise refused("METADATA.XML doit décrire exactement un lot de soumission", "metadata")
    inline = dict(_inline(root))
    assertion = next(root.iter(f"{{{SAML}}}Assertion"), None)
    if request is not root:
        request = _alone(request)
    statuses = {entry.unique_id: entry.status for entry in objects.entries}
    filed = {}
    for document in request.iter(f"{{{RIM}}}ExtrinsicObject"):
        unique_id = _identifier(document, EntryScheme.UNIQUE_ID)
        filed[unique_id] = _take_out(document, statuses.get(unique_id, ""))
    _reorder(request)
    # What breaks the rules of namespaces may be read once, and not again as it is written. An empty text (CDATA) is no
    # text any more once it is read again: what is kept is what stays the same from then on.
    metadata = to_bytes(parse(to_bytes(request)))
    return Lot(metadata, objects, filed, inline, assertion)


def _request(root: Element) -> Element:
    found = list(root.iter(f"{{{LCM}}}SubmitObjectsRequest"))
    if len(found) != 1:
        raise refused("METADATA.XML n'est pas un lot de soumission XDS", "metadata")
    return found[0]


def _alone(request: Element) -> Element:
    """The request as a document of its own, free of the namespaces of the message around it."""
    alone = parse(etree.tostring(request, with_tail=False, encoding="UTF-8"))
    etree.cleanup_namespaces(alone)
    return alone


# --- writing ----------------------------------------------------------------------------------------------------------


def _add(document: Element, filed: Filed, slots: Mapping[str, tuple[str, ...]]) -> None:
    place = sum(1 for _ in document.iterchildren(f"{{{RIM}}}Slot"))
    for name, values in slots.items():
        if values:
            document.insert(place, _RIM("Slot", _RIM("ValueList", *map(_value, values)), name=name))
            place += 1
    if filed.status:
        document.set("status", filed.status)
    if filed.entry_uuid:
        last = max(n for n, child in enumerate(document, 1) if _rank(child) <= _RANK[f"{{{RIM}}}ExternalIdentifier"])
        document.insert(last, _entry_uuid(document.get("id", ""), filed.entry_uuid))


def _value(text: str) -> Element:
    return _RIM("Value", "".join(c if c.isprintable() else " " for c in text)[:_MAX_VALUE])


def _entry_uuid(owner: str, entry_uuid: str) -> Element:
    label = _RIM("LocalizedString", charset="UTF-8", value=_ENTRY_UUID)
    label.set(XML_LANG, "fr-FR")
    return _RIM(
        "ExternalIdentifier",
        _RIM("Name", label),
        id=f"entryuuid-{owner}",
        registryObject=owner,
        identificationScheme=_ENTRY_UUID_SCHEME,
        value=entry_uuid.removeprefix("urn:uuid:"),
    )


# --- reading ----------------------------------------------------------------------------------------------------------


def _take_out(document: Element, status: str) -> Filed:
    """What the archive added to a document, which is no longer there afterwards."""
    uri, notes, entry_uuid = "", {}, ""
    for slot in list(document.iterchildren(f"{{{RIM}}}Slot")):
        name = slot.get("name", "")
        values = tuple(text_of(v) for v in slot.iterfind(f"{{{RIM}}}ValueList/{{{RIM}}}Value"))
        if name == "URI":
            uri = "".join(values)
        elif name.startswith(NOTES):
            notes[name.removeprefix(NOTES)] = values
        else:
            continue
        document.remove(slot)
    for identifier in list(document.iterchildren(f"{{{RIM}}}ExternalIdentifier")):
        if _is_entry_uuid(identifier):
            entry_uuid = _urn(identifier.get("value", "").strip())
            document.remove(identifier)
    if "status" in document.attrib:
        del document.attrib["status"]
    return Filed(uri, entry_uuid, status, notes)


def _is_entry_uuid(identifier: Element) -> bool:
    names = identifier.iterfind(f"{{{RIM}}}Name/{{{RIM}}}LocalizedString")
    return any(name.get("value", "").lower() == _ENTRY_UUID.lower() for name in names)


def _urn(entry_uuid: str) -> str:
    return f"urn:uuid:{entry_uuid}" if _UUID.fullmatch(entry_uuid) else entry_uuid


def _identifier(document: Element, scheme: str) -> str:
    for identifier in document.iterchildren(f"{{{RIM}}}ExternalIdentifier"):
        if identifier.get("identificationScheme") == scheme:
            return identifier.get("value", "").strip()
    return ""


def _inline(root: Element) -> Mapping[str, bytes]:
    """Documents in base64 inside the message; those that it refers to (xop:Include) are files of the set."""
    found = {}
    for document in root.iter(f"{{{XDSB}}}Document"):
        text = text_of(document)
        if text and len(document) == 0:
            found[document.get("id", "")] = decoded(text.encode("ascii", "replace"))
    return found


def decoded(data: bytes) -> bytes:
    """The octets that a base64 text stands for. Raises ``Refused`` (``archive-base64``)."""
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise refused("Document base64 mal formé", "base64") from error


def _reorder(request: Element) -> None:
    """Put the parts of each object in the order of the schema, where they are not."""
    for element in list(request.iter(*_OBJECTS)):
        ranks = [_rank(child) for child in element]
        if ranks != sorted(ranks):
            element[:] = sorted(element, key=_rank)


def _rank(child: Element) -> int:
    return _RANK.get(child.tag, len(_ORDER)) if isinstance(child.tag, str) else len(_ORDER)

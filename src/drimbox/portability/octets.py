"""The files of one set: found by what its metadata say, checked against hash, size and signature."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from drimbox.foundation.xml import Element, parse, text_of
from drimbox.manifest.read import MAX_BYTES
from drimbox.national.dmp.codes import DS, SIGNATURE_FORMAT, SIGNATURE_TYPE
from drimbox.national.dmp.metadata import DocumentEntry
from drimbox.portability import layout
from drimbox.portability.layout import refused
from drimbox.portability.metadata import Lot, decoded
from drimbox.portability.references import ReportReference, read_references
from drimbox.portability.sources import SetFiles

# In base64, with its line ends.
_MAX_KOS_FILE = MAX_BYTES * 3 // 2
_DIGESTS: dict[str, Callable[[bytes], bytes]] = {
    "http://www.w3.org/2000/09/xmldsig#sha1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "http://www.w3.org/2001/04/xmlenc#sha256": lambda data: hashlib.sha256(data).digest(),
    "http://www.w3.org/2001/04/xmldsig-more#sha384": lambda data: hashlib.sha384(data).digest(),
    "http://www.w3.org/2001/04/xmlenc#sha512": lambda data: hashlib.sha512(data).digest(),
}


@dataclass(frozen=True, slots=True, repr=False)
class KosOctets:
    """A KOS of a set: its octets, and as they stood in their file (perhaps in base64), whose name may be empty."""

    octets: bytes
    stored: bytes
    name: str


class SetReader:
    """Reads the files of one set. Methods raise ``Refused`` and ``Unavailable``."""

    def __init__(self, files: SetFiles) -> None:
        names = files.names()
        if len(names) > layout.MAX_FILES:
            raise refused("Lot de trop de fichiers", "limits")
        self._files = files
        self._names = {name.upper(): name for name in names}
        if len(self._names) != len(names):
            raise refused("Deux fichiers du lot portent le même nom", "duplicate")

    def metadata(self) -> bytes:
        return self._read(layout.METADATA, layout.MAX_METADATA)

    def kos(self, lot: Lot, entry: DocumentEntry) -> KosOctets:
        """The KOS of an entry, by its URI, in the message itself, or by its hash; its hash and its size are right."""
        named = layout.base_name(lot.filed[entry.unique_id].uri).upper()
        if named and named not in self._names and entry.entry_id not in lot.inline:
            raise refused("Le fichier du KOS manque au lot", "file-missing")
        for candidate in self._candidates(named, lot, entry):
            if any(_is(entry, octets) for octets in (candidate.octets, candidate.stored)):
                return candidate
        raise refused("Le KOS n'est pas celui que décrivent ses métadonnées (empreinte ou taille)", "hash")

    def _candidates(self, named: str, lot: Lot, entry: DocumentEntry) -> Iterator[KosOctets]:
        if named in self._names:
            yield self._kos_file(named)
        if entry.entry_id in lot.inline:
            yield KosOctets(lot.inline[entry.entry_id], lot.inline[entry.entry_id], "")
        elif not named:
            yield from map(self._kos_file, self.kos_names())

    def _kos_file(self, name: str) -> KosOctets:
        stored = self._read(name, _MAX_KOS_FILE)
        return KosOctets(_dicom(stored), stored, name)

    def kos_names(self) -> tuple[str, ...]:
        """Files that are KOS by their names."""
        return tuple(name for name in self._names if name.endswith(".DCM") or name.startswith("KOS"))

    def references(self) -> dict[str, tuple[ReportReference, ...]]:
        """The reports of the set by the name of their file, the oldest first."""
        numbered = ((layout.report_number(name), name) for name in self._names)
        found = sorted(((number, name) for number, name in numbered if number is not None), reverse=True)
        return {name: read_references(self._read(name, layout.MAX_REPORT_FILE)) for _, name in found}

    def signature(self, lot: Lot) -> tuple[bytes, bool]:
        """The signature, empty when there is none, and whether it is the one that the metadata describe."""
        entry = next((e for e in lot.objects.entries if is_signature(e)), None)
        named = layout.base_name(lot.filed[entry.unique_id].uri).upper() if entry else ""
        name = named if named in self._names else next(filter(layout.is_signature, sorted(self._names)), "")
        if name:
            found = self._read(name, layout.MAX_SIGNATURE)
        else:
            found = lot.inline.get(entry.entry_id, b"") if entry else b""
        return found, entry is not None and _is(entry, found)

    def _read(self, name: str, limit: int) -> bytes:
        known = self._names.get(name)
        if known is None:
            raise refused(
                "Il manque un fichier au lot" + (f" ({name})" if name == layout.METADATA else ""), "file-missing"
            )
        return self._files.read(known, limit)


def is_signature(entry: DocumentEntry) -> bool:
    """Is this the signature of its set?"""
    formats, types = entry.format_code, entry.type_code
    return (formats is not None and formats.code == SIGNATURE_FORMAT.code) or (
        types is not None and types.code == SIGNATURE_TYPE.code
    )


def signs(signature: bytes, kos_uid: str, kos: KosOctets) -> bool:
    """Does a signature bear on a KOS? Raises ``Refused`` (``archive-signature``) when it bears on other octets."""
    root = parse(signature, max_bytes=layout.MAX_SIGNATURE)
    references = [r for r in root.iter(f"{{{DS}}}Reference") if r.get("URI") == f"urn:oid:{kos_uid}"]
    for reference in references:
        told = _digest(reference)
        if told is None:
            return False
        digest, value = told
        if value not in (digest(kos.octets), digest(kos.stored)):
            raise refused("La signature du lot porte sur un autre KOS", "signature")
    return bool(references)


def _digest(reference: Element) -> tuple[Callable[[bytes], bytes], bytes] | None:
    """How and to what a reference digests its document; None when it first transforms it, or does it otherwise."""
    method = reference.find(f"{{{DS}}}DigestMethod")
    digest = _DIGESTS.get(method.get("Algorithm", "")) if method is not None else None
    if digest is None or reference.find(f"{{{DS}}}Transforms/{{{DS}}}Transform") is not None:
        return None
    try:
        return digest, base64.b64decode(text_of(reference.find(f"{{{DS}}}DigestValue")))
    except (binascii.Error, ValueError):
        return None


def _dicom(stored: bytes) -> bytes:
    """The DICOM file that some octets are, or are the base64 of."""
    if stored[128:132] == b"DICM" or len(stored) < 132:
        return stored
    head = stored[:64].strip()
    if (
        head
        and head.translate(None, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\r\n\t ") == b""
    ):
        return decoded(stored)
    return stored


def _is(entry: DocumentEntry, octets: bytes) -> bool:
    """Are these the octets that an entry describes?"""
    actual = (hashlib.sha1(octets, usedforsecurity=False).hexdigest(), len(octets))
    return actual == (entry.hash, entry.size)

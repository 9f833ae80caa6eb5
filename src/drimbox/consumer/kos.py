"""The KOS behind the lines of the list: retrieved, read, compared with the call, their sources looked up in the list.

What this gives is the typed content of an exam (its series and instances) for whoever opens or imports it; it is
retrieved once for a call. Nothing is opened before its patient has been compared with the call's, and no host is called
that the signed list of DRIMboxes does not name (decision 15).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from drimbox.consumer.call import ContextualCall
from drimbox.consumer.consultant import Consultant, require_consent
from drimbox.consumer.exams import Document
from drimbox.consumer.identity_check import Difference, check_manifest
from drimbox.consumer.ports import AuditJournal, Dmp, HostList, HostLists
from drimbox.foundation.errors import DrimboxError, Refused, Unavailable
from drimbox.manifest.manifest import Manifest, ManifestSeries
from drimbox.manifest.read import read_manifest
from drimbox.record.audit import Kind, Object, Thing

MAX_INSTANCES = 50_000


@dataclass(frozen=True, slots=True)
class KosContent:
    """A KOS of the call's patient. ``differences`` are of other traits than the INS.

    ``refused`` names the series that must not be asked for at the address that the KOS gives, and why.
    """

    key: str
    manifest: Manifest
    differences: tuple[Difference, ...]
    refused: Mapping[str, DrimboxError]

    @property
    def sources(self) -> Mapping[str, str]:
        """Each source that may be asked, by its host: an address of it."""
        found: dict[str, str] = {}
        for series in self.manifest.series:
            if series.series_uid not in self.refused:
                found.setdefault(urlsplit(series.retrieve_url).netloc, series.retrieve_url)
        return found


KosOutcome = KosContent | DrimboxError


@dataclass(frozen=True, slots=True)
class KosReader:
    """Retrieves KOS for a professional; each retrieval is in the journal before its outcome is given (DB.CO.81)."""

    dmp: Dmp
    journal: AuditJournal
    hosts: HostLists

    async def read(self, who: Consultant, call: ContextualCall, document: Document) -> KosContent:
        """One KOS.

        Raises ``IdentityMismatch`` (``ins-differs``), ``Refused`` (not a KOS, not of this study, too big), and as the
        DMP client and the keeper of the signed list.
        """
        (outcome,) = await self._together(who, call, (document,))
        if isinstance(outcome, DrimboxError):
            raise outcome
        return outcome

    async def read_all(
        self, who: Consultant, call: ContextualCall, documents: Sequence[Document]
    ) -> Mapping[str, KosOutcome]:
        """Several, in one request; where it is refused, each is asked for by itself: one bad document spoils no other.

        By key; the outcome of each is its content or why it cannot be had. Raises nothing of its own.
        """
        try:
            outcomes = await self._together(who, call, documents)
            return {document.key: outcome for document, outcome in zip(documents, outcomes, strict=True)}
        except Unavailable as error:
            return {document.key: error for document in documents}
        except DrimboxError as error:
            if len(documents) == 1:
                return {documents[0].key: error}
        found: dict[str, KosOutcome] = {}
        for document in documents:
            found.update(await self.read_all(who, call, (document,)))
        return found

    async def _together(self, who: Consultant, call: ContextualCall, documents: Sequence[Document]) -> list[KosOutcome]:
        require_consent(call)
        objects = tuple(Object(Thing.KOS, d.entry.unique_id) for d in documents)
        try:
            retrieved = await self.dmp.retrieve(who.dmp, call.ins, [d.entry for d in documents])
        except DrimboxError as error:
            await self.journal.write(None, who.event(Kind.DOCUMENT_RETRIEVED, call.ins, objects, error))
            raise
        await self.journal.write(None, who.event(Kind.DOCUMENT_RETRIEVED, call.ins, objects))
        allowed = await self.hosts.current()
        found: list[KosOutcome] = []
        for document, one in zip(documents, retrieved, strict=True):
            try:
                # A KOS of thousands of images takes a while to read, and everybody else would wait.
                found.append(await asyncio.to_thread(kos_content, call, document, one.content, allowed))
            except DrimboxError as error:
                found.append(error)
        return found


def kos_content(call: ContextualCall, document: Document, content: bytes, allowed: HostList) -> KosContent:
    """Read and compare. Raises as ``KosReader.read``, but for the DMP's and the list's own errors."""
    manifest = read_manifest(content)
    differences = check_manifest(call, manifest)
    described = document.entry.study_uids()
    if described and manifest.study_uid not in described:
        raise Refused("Le KOS n'est pas celui de l'examen décrit par le DMP", code="kos-study")
    if sum(len(s.instances) for s in manifest.series) > MAX_INSTANCES:
        raise Refused(f"L'examen compte plus de {MAX_INSTANCES} images : il ne peut pas être ouvert", code="kos-size")
    refused = {s.series_uid: error for s in manifest.series if (error := unlisted(s, allowed)) is not None}
    return KosContent(document.key, manifest, differences, refused)


def unlisted(series: ManifestSeries, allowed: HostList) -> DrimboxError | None:
    """Why a series must not be asked for at the address its KOS gives; None when it may be."""
    try:
        address = urlsplit(series.retrieve_url)
        host = address.hostname
        plain = address.scheme == "https" and bool(host) and not address.username and not address.password
    except ValueError:
        plain, host = False, None
    if not plain or host is None:
        return Refused("L'adresse des images donnée par le KOS n'est pas une adresse https", code="retrieve-url")
    if not allowed.allows_host(host):
        return Refused("La source des images n'est pas dans la liste blanche des DRIMbox", code="host-not-listed")
    return None

"""The DMP as the rest of the box sees it: one method per transaction, plain values in and out.

Every call names the actor (identity and certificates) and the patient: nothing is remembered between two calls. Errors
are those of ``foundation.errors``; a refusal by the DMP is a ``DmpRejected``, whose ``contexts`` are for the operator.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.identity.ins import Ins
from drimbox.national.dmp import authorisation, existence, provide, query, retrieve, status
from drimbox.national.dmp.actor import REINFORCED, Actor, DmpEndpoints, Software, VihfIdentity
from drimbox.national.dmp.codes import Status
from drimbox.national.dmp.existence import Existence
from drimbox.national.dmp.metadata import Cx, DocumentEntry, SubmissionDraft
from drimbox.national.dmp.provide import KosDocument, PreparedSubmission, ProvideResult
from drimbox.national.dmp.query import Criteria, EntryRef
from drimbox.national.dmp.retrieve import DocumentWanted, RetrievedDocument
from drimbox.national.dmp.transport import Transport
from drimbox.national.dmp.xmldsig import Algorithm

__all__ = [
    "Actor",
    "Criteria",
    "DmpClient",
    "DmpEndpoints",
    "DocumentWanted",
    "EntryRef",
    "Existence",
    "KosDocument",
    "PreparedSubmission",
    "ProvideResult",
    "RetrievedDocument",
    "Software",
    "Status",
    "VihfIdentity",
]


class DmpClient:
    """Calls the DMP. Errors that every call may raise, besides its own:

    ``Rejected`` (``DmpRejected``: the DMP said no), ``Busy``, ``Unavailable`` (nothing was done), ``Misconfigured``
    (an INS of the other range, an unusable key), ``Refused`` (the identity lacks what the VIHF must say; not sent).
    Calls that change the DMP may raise ``OutcomeUnknown``.
    """

    def __init__(
        self,
        http: HttpClient,
        endpoints: DmpEndpoints,
        software: Software,
        clock: Clock,
        *,
        vihf_version: str,
        vihf_algorithm: Algorithm,
        signature_algorithm: Algorithm,
        source_id: str,
        timeout: float,
        test: bool,
    ) -> None:
        self._transport = Transport(http, software, clock, vihf_version, vihf_algorithm, timeout, test)
        self._endpoints = endpoints
        self._software = software
        self._clock = clock
        self._algorithm = signature_algorithm
        self._source_id = source_id
        self._test = test

    def prepare(
        self,
        actor: Actor,
        patient: Ins,
        kos: KosDocument | Sequence[KosDocument],
        submission: SubmissionDraft,
        replaces: str | None = None,
    ) -> PreparedSubmission:
        """A whole submission, signed, its ids fixed: to be stored, then sent with ``provide``, again if need be.

        ``replaces`` is the entryUUID of the version that a single KOS replaces (several say it each for themselves).
        Raises ``IdentityMismatch`` (``submission-patient``), ``Refused`` (``submission-empty``, ``kos-hash``,
        ``metadata-…``), ``Misconfigured`` (``sign-key``). Nothing is sent.
        """
        documents = [kos] if isinstance(kos, KosDocument) else list(kos)
        if replaces is not None:
            if len(documents) != 1:
                raise ValueError("replaces is for one KOS: several say it each for themselves")
            documents = [replace(documents[0], replaces=replaces)]
        return provide.prepare(
            patient,
            documents,
            submission,
            source_id=self._source_id,
            credential=actor.sign,
            algorithm=self._algorithm,
            clock=self._clock,
        )

    async def provide(self, actor: Actor, patient: Ins, prepared: PreparedSubmission) -> ProvideResult:
        """ITI-41 (TD2.1). Sending again what was registered is refused as ``XDSDuplicateUniqueIdInRegistry``.

        Raises ``OutcomeUnknown`` when no answer can be read: ask ``entry_by_unique_id`` before sending again;
        ``IdentityMismatch`` (``submission-patient``) for another patient's submission.
        """
        request = provide.request(self._endpoints.repository, patient, prepared)
        return await self._transport.exchange(actor, patient, request, provide.result)

    async def entry_by_unique_id(self, actor: Actor, patient: Ins, unique_id: str) -> EntryRef | None:
        """The entryUUID that stands for a document (TD3.1b); None only after a successful empty answer.

        The indirect mode may ask for technical ids alone, so the status is empty then.
        """
        url = self._endpoints.registry
        if actor.identity.mode == REINFORCED:
            return query.current(await self._versions(actor, patient, unique_id))
        request = query.get_documents(url, [unique_id], technical_ids_only=True)
        found = await self._transport.exchange(actor, patient, request, query.references)
        if len(found) > 1:
            # Several versions, and ids alone do not tell which stands: ask for more, or fail plainly.
            return query.current(await self._versions(actor, patient, unique_id))
        return EntryRef(found[0]) if found else None

    async def document(self, actor: Actor, patient: Ins, unique_id: str) -> DocumentEntry | None:
        """The metadata of one document as they stand now; None only after a successful empty answer."""
        versions = await self._versions(actor, patient, unique_id)
        standing = query.current(versions)
        return next((v for v in versions if standing and v.entry_id == standing.entry_uuid), None)

    async def find_documents(self, actor: Actor, patient: Ins, criteria: Criteria) -> tuple[DocumentEntry, ...]:
        """TD3.1: every document of the patient that matches, and none that does not.

        Raises ``IdentityMismatch`` (``answer-patient``) when the answer holds another patient's document;
        ``Unavailable`` (``answer-truncated``) when it is not whole; ``DmpRejected`` (``XDSTooManyResults``).
        """
        request = query.find_documents(self._endpoints.registry, patient, criteria)
        found = await self._transport.exchange(actor, patient, request, lambda a: query.entries(a, patient))
        return tuple(entry for entry in found if criteria.matches(entry))

    async def find_by_reference(
        self,
        actor: Actor,
        patient: Ins,
        references: Sequence[Cx],
        statuses: Sequence[Status] = (Status.APPROVED,),
    ) -> tuple[DocumentEntry, ...]:
        """Documents that carry one of the references (accession, order, study UID). Raises as ``find_documents``."""
        request = query.find_by_reference(self._endpoints.registry, patient, references, statuses)
        found = await self._transport.exchange(actor, patient, request, lambda a: query.entries(a, patient))
        wanted = {(reference.kind, reference.value) for reference in references}
        return tuple(
            entry
            for entry in found
            if query.has_status(entry, statuses) and any((r.kind, r.value) in wanted for r in entry.references)
        )

    async def retrieve(
        self, actor: Actor, patient: Ins, wanted: Sequence[DocumentEntry | DocumentWanted]
    ) -> tuple[RetrievedDocument, ...]:
        """ITI-43 (TD3.2): the documents, in the order asked, their octets checked against hash and size.

        Raises ``DmpRejected`` (``document-hash``) when octets are not those of the entry.
        """
        documents = [w if isinstance(w, DocumentWanted) else DocumentWanted.of(w) for w in wanted]
        request = retrieve.request(self._endpoints.repository, documents)
        return await self._transport.exchange(actor, patient, request, lambda a: retrieve.documents(a, documents))

    async def change_status(
        self, actor: Actor, patient: Ins, entry_uuid: str, original: Status, new: Status, submission: SubmissionDraft
    ) -> None:
        """ITI-57 (TD3.3c, TD3.3d): depublish (``DELETED``), archive, bring back. ``original`` is the status it has."""
        request = status.request(
            self._endpoints.registry,
            patient,
            entry_uuid,
            original=original,
            new=new,
            draft=submission,
            source_id=self._source_id,
            clock=self._clock,
        )
        await self._transport.exchange(actor, patient, request, status.result)

    async def existence(self, actor: Actor, patient: Ins) -> Existence:
        """TD0.2: the state of the patient's DMP, and of this professional's authorisation."""
        request = existence.request(
            self._endpoints.patients,
            patient,
            source_id=self._source_id,
            software=self._software,
            clock=self._clock,
            test=self._test,
        )
        return await self._transport.exchange(actor, patient, request, lambda a: existence.result(a, patient))

    async def authorise(self, actor: Actor, patient: Ins) -> None:
        """TD0.3 ``AJOUT``. Only upon an explicit act of the professional (decision 22)."""
        request = authorisation.request(self._endpoints.habilitations)
        await self._transport.exchange(actor, patient, request, authorisation.result)

    async def withdraw(self, actor: Actor, patient: Ins) -> None:
        """TD0.3 ``SUPPRESSION``: this professional's own authorisation ends (decision 18)."""
        request = authorisation.request(self._endpoints.habilitations, withdraw=True)
        await self._transport.exchange(actor, patient, request, authorisation.result)

    async def registered_since(self, actor: Actor, patient: Ins, since: dt.datetime) -> frozenset[str]:
        """The entryUUIDs of what was submitted from this instant on (FindSubmissionSets, EX_3.1-1020, then the members
        of each by GetAssociations).

        Raises ``Unavailable`` (``too-many-sets``) when there are more than 1,000 sets, and as ``find_documents``.
        """
        url = self._endpoints.registry
        asked = query.find_submission_sets(url, patient, since)
        sets = await self._transport.exchange(actor, patient, asked, query.references)
        if len(sets) > query.MOST_SETS:
            raise Unavailable("Trop de nouveautés dans le DMP pour les compter", code="too-many-sets")
        found: set[str] = set()
        for start in range(0, len(sets), query.SETS_AT_ONCE):
            request = query.get_associations(url, sets[start : start + query.SETS_AT_ONCE])
            found |= await self._transport.exchange(actor, patient, request, query.members)
        return frozenset(found)

    async def _versions(self, actor: Actor, patient: Ins, unique_id: str) -> tuple[DocumentEntry, ...]:
        request = query.get_documents(self._endpoints.registry, [unique_id], technical_ids_only=False)
        found = await self._transport.exchange(actor, patient, request, lambda a: query.entries(a, patient))
        return tuple(entry for entry in found if entry.unique_id == unique_id)

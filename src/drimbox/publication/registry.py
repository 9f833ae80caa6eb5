"""The DMP, fitted to what a publication needs of it: who acts, with which metadata, and what its answers mean."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from drimbox.foundation.errors import Misconfigured, Rejected
from drimbox.identity.ins import Ins
from drimbox.national.dmp.actor import INDIRECT, Actor, VihfIdentity
from drimbox.national.dmp.client import DmpClient
from drimbox.national.dmp.codes import Status
from drimbox.national.dmp.metadata import Device, DocumentEntry, KosCoding, kos_entry, submission_draft
from drimbox.national.dmp.provide import KosDocument, PreparedSubmission
from drimbox.publication.ports import AlreadyRegistered, Draft, Entry, Identity, Received, Site, Submission
from drimbox.reports.report import Coded, Person, Report, Visibility

# Who made the connection in the sender's software, and how, no message says (standards.md E).
_UNSPECIFIED = "urn:oasis:names:tc:SAML:2.0:ac:classes:unspecified"
_DOCTOR = Coded("10", "1.2.250.1.71.1.2.7", "Médecin")
_GONE = frozenset({Status.DEPRECATED, Status.DELETED})
_SECRET = "secret_connection"  # noqa: S105 - the name of a field
_DUPLICATES = frozenset({"XDSDuplicateUniqueIdInRegistry"})


class ActorMaker(Protocol):
    """Gives an identity the certificates of one structure; raises ``Misconfigured`` when they cannot be used now."""

    def __call__(self, identity: VihfIdentity, *, secret_connection: bool = False) -> Actor: ...


@dataclass(frozen=True, slots=True)
class DmpStructure:
    """How one structure acts at the DMP: its sector (JDV_J61) and its certificates."""

    sector: str
    actor: ActorMaker


class DmpRegistry:
    """``ports.Registry`` on the client of the DMP, in indirect authentication (DB.SO.19).

    ``structures`` are by ``Site.id``: one that is missing stops its own publications and no one else's. ``device`` is
    this box as author of its entries, ``author`` who the author of a KOS is (decision 9), ``coding`` decision 10.
    """

    def __init__(
        self,
        client: DmpClient,
        structures: Mapping[str, DmpStructure],
        *,
        device: Device,
        author: Literal["device", "radiologist"] = "device",
        coding: KosCoding | None = None,
    ) -> None:
        self._client = client
        self._structures = structures
        self._device = device
        self._author = author
        self._coding = coding or KosCoding()

    def identity(self, site: Site, report: Report, now: dt.datetime) -> Identity:
        """The sender of the message (PRT-5), else the signatory; profession and speciality from the CDA.

        Raises ``Misconfigured`` (``structure-keys``) for a structure that cannot act: before anyone is asked anything.
        """
        structure = self._structure(site)
        person = report.sender.person or report.signatory
        known = _described(person, report)
        identity = VihfIdentity(
            subject_id=_national_id(person.identifier),
            subject_name=f"{person.given} {person.family}".strip(),
            profession=known.profession or _DOCTOR,
            speciality=known.speciality,
            structure_id=site.in_vihf.identifier,
            structure_name=site.in_vihf.name,
            sector=structure.sector,
            mode=INDIRECT,
            authenticated_at=now,
            authn_context=_UNSPECIFIED,
        )
        structure.actor(identity)
        return {**identity.to_json(), _SECRET: report.visibility.secret_connection}

    def identity_again(self, site: Site, archived: Identity) -> Identity:
        """The archived person, under the structure that this box acts for now: its certificates name no other."""
        structure = self._structure(site)
        told = VihfIdentity.from_json(archived)
        identity = replace(
            told,
            structure_id=site.in_vihf.identifier,
            structure_name=site.in_vihf.name,
            sector=structure.sector,
        )
        structure.actor(identity)
        return {**identity.to_json(), _SECRET: archived.get(_SECRET) is True}

    def prepare(self, draft: Draft, identity: Identity, replaces: str | None) -> Submission:
        entry = kos_entry(
            report=draft.report,
            study=draft.study,
            orders=draft.orders,
            kos_uid=draft.kos_uid,
            kos_bytes=draft.kos,
            created=draft.created,
            device=self._device,
            author=self._author,
            structure=draft.site.structure,
            coding=self._coding,
        )
        prepared = self._client.prepare(
            self._actor(draft.site, identity),
            draft.report.patient.ins,
            KosDocument(entry, draft.kos),
            submission_draft(draft.report, structure=draft.site.structure),
            replaces=replaces,
        )
        return Submission(prepared.submission_uid, prepared.metadata, prepared.signature, identity, prepared)

    async def provide(self, site: Site, ins: Ins, kos: bytes, submission: Submission) -> Received:
        prepared = submission.ready
        if not isinstance(prepared, PreparedSubmission):
            prepared = PreparedSubmission.restore(submission.metadata, (kos, submission.signature))
        try:
            result = await self._client.provide(self._actor(site, submission.identity), ins, prepared)
        except Rejected as error:
            if (error.peer_code or "").rpartition(":")[2] in _DUPLICATES:
                raise AlreadyRegistered(error.reason, code=error.code, peer_code=error.peer_code) from error
            raise
        return Received(result.partial, tuple(e.code for e in result.errors))

    async def find(self, site: Site, ins: Ins, identity: Identity, kos_uid: str) -> Entry | None:
        found = await self._client.entry_by_unique_id(self._actor(site, identity), ins, kos_uid)
        if found is None:
            return None
        return Entry(found.entry_uuid, found.status not in _GONE, found.status == Status.ARCHIVED)

    async def inspect(self, site: Site, ins: Ins, identity: Identity, kos_uid: str) -> Entry | None:
        """The whole entry; where the DMP keeps that to those who may consult, its technical id alone (TD3.1b)."""
        try:
            entry = await self._client.document(self._actor(site, identity), ins, kos_uid)
        except Rejected:
            return await self.find(site, ins, identity, kos_uid)
        return _entry(entry) if entry is not None else None

    async def delete(self, site: Site, ins: Ins, identity: Identity, entry: Entry, report: Report) -> None:
        await self._client.change_status(
            self._actor(site, identity),
            ins,
            entry.entry_uuid,
            Status.ARCHIVED if entry.archived else Status.APPROVED,
            Status.DELETED,
            submission_draft(report, structure=site.structure),
        )

    def _actor(self, site: Site, identity: Identity) -> Actor:
        return self._structure(site).actor(
            VihfIdentity.from_json(identity), secret_connection=identity.get(_SECRET) is True
        )

    def _structure(self, site: Site) -> DmpStructure:
        structure = self._structures.get(site.id)
        if structure is None:
            raise Misconfigured(
                f"La structure {site.id} n'a pas de certificats (ORG AUTH_CLI et ORG SIGN)", code="structure-keys"
            )
        return structure


def _described(person: Person, report: Report) -> Person:
    """Where the profession of a person is told: under the same identifier, else the signatory's serves."""
    same = (p for p in (person, report.signatory, report.author) if p and _same_person(p, person) and p.profession)
    return next(same, report.signatory)


def _same_person(left: Person, right: Person) -> bool:
    return _national_id(left.identifier) == _national_id(right.identifier)


def _national_id(identifier: str) -> str:
    """PS_IdNat: a bare RPPS number of 11 digits gets its type digit ``8`` (standards.md D.5)."""
    cleaned = identifier.strip()
    return f"8{cleaned}" if len(cleaned) == 11 and cleaned.isdigit() else cleaned


def _entry(entry: DocumentEntry) -> Entry:
    return Entry(
        entry.entry_id,
        standing=entry.status not in _GONE,
        archived=entry.archived,
        visibility=Visibility(
            masked_to_professionals=entry.masked,
            hidden_from_patient=entry.hidden_from_patient,
            hidden_from_representatives=entry.hidden_from_representatives,
        ),
    )

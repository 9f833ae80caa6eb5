"""The neighbours of the publication, in the shapes that it needs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from drimbox.foundation.errors import DrimboxError, Misconfigured
from drimbox.identity.ins import Ins
from drimbox.pacs.keynotes import KeyNote
from drimbox.pacs.study import Study
from drimbox.record.audit import Event
from drimbox.reports.orders import ImagingOrder
from drimbox.reports.report import Order, Report, Structure, Visibility, normal_structure_id
from drimbox.store.database import Connection

Identity = Mapping[str, object]
"""Who acts at the DMP: the VIHF identity as a JSON value, kept with each version (ans-faq.md 3.2)."""


class ReportLoader(Protocol):
    """Gives back a report that was stored (``reports.intake.StoredReports``)."""

    async def load(self, report_id: int) -> Report: ...


class OrderLoader(Protocol):
    """Gives back an order message that was stored (``reports.orders.StoredOrders``)."""

    async def load(self, message_id: int) -> ImagingOrder: ...


class AuditJournal(Protocol):
    """Where each publication is written (``record.audit.Journal``)."""

    async def write(self, connection: Connection | None, event: Event) -> None: ...


class StudyFinder(Protocol):
    """Asks one PACS (``pacs.query.PacsStudyFinder``)."""

    async def find(self, study_uid: str) -> Study | None:
        """The study; None only after a successful query that matched nothing. ``Unavailable``, ``Rejected``."""


class KeyNotes(Protocol):
    """Reads the key-object notes of studies that one PACS holds (``pacs.note_source.PacsKeyNotes``)."""

    async def of(self, study: Study) -> tuple[KeyNote, ...]:
        """All notes that the PACS lists in the study. ``Unavailable`` when they cannot be had, ``Refused``."""


@dataclass(frozen=True, slots=True)
class SitePacs:
    """One PACS that may hold the studies of a structure.

    ``senders`` are the MSH-3 of the RISes whose studies it holds, ``accession_issuers`` the OIDs of the issuers of its
    accession numbers: whom the question is put to first (DB.SO.04). ``notes`` reads its key-object notes; None where
    the site publishes none.
    """

    id: str
    finder: StudyFinder
    senders: tuple[str, ...] = ()
    accession_issuers: tuple[str, ...] = ()
    notes: KeyNotes | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """One structure that this box publishes for.

    ``id`` is its short name in the configuration, ``structure`` the one that stands in submission sets (that of its
    identification mode: EG, EJ/EG or EJ), ``acting`` the one that stands in the VIHF where that is another (EJ/EG
    leaves the choice). ``pacs`` are all that may hold its studies, in order of preference (``finding``). ``senders``
    are the MSH-3 of the RISes that may send for it; none: any.
    """

    id: str
    structure: Structure
    pacs: tuple[SitePacs, ...]
    senders: tuple[str, ...] = ()
    acting: Structure | None = None

    @property
    def in_vihf(self) -> Structure:
        return self.acting or self.structure


class Sites:
    """The structures that this box publishes for, found by the identifiers that messages may use for them.

    The first identifier of each is its own and goes before all others. One that several structures share, such as that
    of their legal entity, names none of them: who publishes is never guessed.
    """

    def __init__(self, sites: Sequence[tuple[Site, Sequence[str]]]) -> None:
        others: dict[str, list[Site]] = {}
        own: dict[str, list[Site]] = {}
        for site, identifiers in sites:
            for index, identifier in enumerate(dict.fromkeys(map(normal_structure_id, identifiers))):
                (others if index else own).setdefault(identifier, []).append(site)
        self._by_identifier = {**others, **own}
        self._by_id = {site.id: site for site, _ in sites}

    def named(self, site_id: str) -> Site | None:
        """The structure of that short name, None when it is not in the configuration (any more)."""
        return self._by_id.get(site_id)

    def publisher(self, report: Report) -> Site:
        """The structure of the legal authenticator, else that of the sender (PRT-8; ans-faq.md 3.1).

        Raises ``Misconfigured``: ``structure-unknown`` when neither is one of ours, ``structure-ambiguous`` when the
        message tells no more than what several of ours share.
        """
        named = [report.structure, *([report.sender.structure] if report.sender.structure else [])]
        found = [self._by_identifier.get(normal_structure_id(structure.identifier), []) for structure in named]
        for sites in found:
            if len(sites) == 1:
                return sites[0]
        if any(found):
            raise Misconfigured(
                "Le message ne nomme que l'entité juridique de plusieurs structures de la passerelle : "
                "laquelle publie n'est pas dit",
                code="structure-ambiguous",
            )
        raise Misconfigured(
            "La structure du compte rendu n'est pas une de celles que sert la passerelle", code="structure-unknown"
        )

    def of(self, report: Report) -> Site | None:
        """The same; None where no one structure of ours is named."""
        try:
            return self.publisher(report)
        except Misconfigured:
            return None


@dataclass(frozen=True, slots=True)
class Draft:
    """A KOS about to be published: what its metadata are made of. ``report.visibility`` is the one to publish."""

    site: Site
    report: Report
    study: Study
    orders: tuple[Order, ...]
    kos_uid: str
    kos: bytes
    created: dt.datetime


@dataclass(frozen=True, slots=True, repr=False)
class Submission:
    """A submission set ready to be sent, as it is stored before: the same octets can be sent again.

    ``ready`` is what the registry that made it knows of it besides; one that is restored has none.
    """

    submission_uid: str
    metadata: bytes
    signature: bytes
    identity: Identity
    ready: object = field(default=None, compare=False)

    def __repr__(self) -> str:
        return f"Submission({self.submission_uid})"


@dataclass(frozen=True, slots=True)
class Entry:
    """A document as the DMP has it now.

    ``standing`` is False when it is there no longer to be seen or replaced (deleted, replaced); ``archived`` is True
    when it was put away by hand; ``visibility`` is None when the DMP does not tell it to us.
    """

    entry_uuid: str
    standing: bool = True
    archived: bool = False
    visibility: Visibility | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """The DMP took a submission. ``partial``: not wholly; ``peer_codes`` are its own words on that."""

    partial: bool = False
    peer_codes: tuple[str, ...] = ()


class AlreadyRegistered(DrimboxError):
    """The DMP already has a document of this uniqueId: what was sent before did arrive."""


class Registry(Protocol):
    """The DMP, as far as a publisher needs it. Errors are those of ``foundation.errors``.

    ``Misconfigured`` when the structure has no certificates; ``OutcomeUnknown`` only from ``provide`` and ``delete``.
    """

    def identity(self, site: Site, report: Report, now: dt.datetime) -> Identity:
        """Who acts for a report: its sender, else its signatory. Raises ``Refused`` when that is not said enough."""

    def identity_again(self, site: Site, archived: Identity) -> Identity:
        """Who acted for an earlier version, to act once more (ans-faq.md 3.2); the structure is named as it is now.

        Raises ``Refused`` when that identity cannot be read.
        """

    def prepare(self, draft: Draft, identity: Identity, replaces: str | None) -> Submission:
        """Metadata and signature; nothing is sent. ``replaces`` is the entryUUID of the version to replace."""

    async def provide(self, site: Site, ins: Ins, kos: bytes, submission: Submission) -> Received:
        """Send. Raises ``AlreadyRegistered`` besides the others."""

    async def find(self, site: Site, ins: Ins, identity: Identity, kos_uid: str) -> Entry | None:
        """The document of a uniqueId; None only after a successful empty answer."""

    async def inspect(self, site: Site, ins: Ins, identity: Identity, kos_uid: str) -> Entry | None:
        """As ``find``, with everything that the DMP tells us of it."""

    async def delete(self, site: Site, ins: Ins, identity: Identity, entry: Entry, report: Report) -> None:
        """Depublish (TD3.3c)."""

"""The neighbours of the publication, in the shapes that it needs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from drimbox.foundation.errors import DrimboxError
from drimbox.identity.ins import Ins
from drimbox.pacs.study import Study
from drimbox.record.audit import Event
from drimbox.reports.report import Order, Report, Structure, Visibility, normal_structure_id
from drimbox.store.database import Connection

Identity = Mapping[str, object]
"""Who acts at the DMP: the VIHF identity as a JSON value, kept with each version (ans-faq.md 3.2)."""


class ReportLoader(Protocol):
    """Gives back a report that was stored (``reports.intake.StoredReports``)."""

    async def load(self, report_id: int) -> Report: ...


class AuditJournal(Protocol):
    """Where each publication is written (``record.audit.Journal``)."""

    async def write(self, connection: Connection | None, event: Event) -> None: ...


class StudyFinder(Protocol):
    """Asks one PACS (``pacs.query.PacsStudyFinder``)."""

    async def find(self, study_uid: str) -> Study | None:
        """The study; None only after a successful query that matched nothing. ``Unavailable``, ``Rejected``."""


@dataclass(frozen=True, slots=True)
class SitePacs:
    """One PACS that may hold the studies of a structure."""

    id: str
    finder: StudyFinder


@dataclass(frozen=True, slots=True)
class Site:
    """One structure that this box publishes for.

    ``id`` is its short name in the configuration, ``structure`` the one that stands in submission sets and VIHF (that
    of its identification mode: EG, EJ/EG or EJ), ``pacs`` are asked in this order. ``senders`` are the MSH-3 of the
    RISes that may send for it; none: any.
    """

    id: str
    structure: Structure
    pacs: tuple[SitePacs, ...]
    senders: tuple[str, ...] = ()


class Sites:
    """The structures that this box publishes for, found by the identifiers that messages may use for them."""

    def __init__(self, sites: Sequence[tuple[Site, Sequence[str]]]) -> None:
        self._by_identifier = {
            normal_structure_id(identifier): site for site, identifiers in sites for identifier in identifiers
        }

    def of(self, report: Report) -> Site | None:
        """The structure of the legal authenticator, else that of the sender (ans-faq.md 3.1); None: none of ours."""
        named = [report.structure, *([report.sender.structure] if report.sender.structure else [])]
        found = (self._by_identifier.get(normal_structure_id(structure.identifier)) for structure in named)
        return next((site for site in found if site is not None), None)


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
    """A submission set ready to be sent, as it is stored before: the same octets can be sent again."""

    submission_uid: str
    metadata: bytes
    signature: bytes
    identity: Identity

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

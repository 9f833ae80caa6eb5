"""One version of the KOS of a study, as the archive keeps it (DB.SO.22)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from drimbox.identity.ins import Ins
from drimbox.reports.report import Visibility


class State(StrEnum):
    """What became of a version."""

    PREPARED = "prepared"  # stored; perhaps sent, nothing known yet
    CURRENT = "current"  # in the DMP
    REPLACED = "replaced"  # a newer version took its place
    DEPUBLISHED = "depublished"  # taken out of the DMP
    ABANDONED = "abandoned"  # the DMP refused it


@dataclass(frozen=True, slots=True, repr=False)
class ArchivedKos:
    """One version.

    ``structure`` is the short name of the publishing structure in the configuration; ``pacs`` that of the PACS that
    holds the study. ``document_ids`` are all reports that ever stood behind it, newest last. ``metadata`` are the
    octets of the lot de soumission, ``visibility`` what it said; of a depublished one, what the DMP showed last where
    it told. ``sent_at`` is when it was given to the DMP, None as long as it certainly was not. ``report_id`` is the
    report that it was made from, None when it was made from an imported version; ``cause`` why without a new report
    (``triggers.Cause``), empty for a report's own.
    """

    id: int
    structure: str
    study_uid: str
    kos_uid: str
    state: str
    ins: Ins
    pacs: str
    kos: bytes
    document_ids: tuple[str, ...]
    metadata: bytes
    signature: bytes
    submission_uid: str
    entry_uuid: str | None
    replaces: int | None
    report_id: int | None
    vihf_identity: Mapping[str, object]
    visibility: Visibility
    fingerprint: str
    prepared_at: dt.datetime
    sent_at: dt.datetime | None
    confirmed_at: dt.datetime | None
    ended_at: dt.datetime | None
    cause: str = ""

    def __repr__(self) -> str:
        return f"ArchivedKos({self.kos_uid}, {self.state})"


@dataclass(frozen=True, slots=True)
class History:
    """What the messages said of a study so far.

    ``last_report_id`` is the newest report that was taken into account, 0 for none; ``documents`` the ids of the
    reports that stand; ``spoken`` the newest report that said something of a document, for each that a message spoke of
    (an import brings documents without messages). ``before`` are the documents in whose place, step by step, the one
    came that the message in hand takes away: a step may be a report that was stopped, and then its predecessor stands.
    ``received``: a message brought one of those on this study, whatever became of it.
    """

    last_report_id: int = 0
    documents: tuple[str, ...] = ()
    spoken: Mapping[str, int] = field(default_factory=dict)
    before: frozenset[str] = frozenset()
    received: bool = False

    @property
    def standing_report_id(self) -> int:
        """The newest report that stands, 0 when none came by a message."""
        return max((self.spoken.get(document, 0) for document in self.documents), default=0)

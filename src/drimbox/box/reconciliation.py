"""Walks through the archive, as the configuration wants them."""

from __future__ import annotations

from collections.abc import Sequence

from drimbox.box.settings.source import SourceSection
from drimbox.publication.incidents import Incidents
from drimbox.publication.ports import AuditJournal
from drimbox.publication.services import Services
from drimbox.reconciliation.driver import Conduct, Driver
from drimbox.reconciliation.examine import Examiner
from drimbox.reconciliation.hours import parse_ranges
from drimbox.reconciliation.walk import Kind, Mode
from drimbox.store.database import Pool


def walk_drivers(
    section: SourceSection, services: Services, pool: Pool, incidents: Incidents, journal: AuditJournal, dsn: str
) -> Sequence[Driver]:
    """One driver for each kind of walk."""
    chosen = section.reconciliation
    hours = parse_ranges(chosen.suspended)
    conducts = {
        Kind.RECONCILIATION: Conduct(
            hours=hours, rate=chosen.rate, mode=Mode(chosen.mode), every_days=chosen.every_days
        ),
        # One study that cannot be had now does not keep the others from being rewritten.
        Kind.ADDRESS: Conduct(hours=hours, rate=chosen.address_rate, put_off=100),
    }
    return [
        Driver(
            kind=kind,
            dsn=dsn,
            examine=Examiner(services, pool),
            incidents=incidents,
            journal=journal,
            clock=services.clock,
            base=section.wado.base,
            conduct=conduct,
        )
        for kind, conduct in conducts.items()
    ]

"""Compares one study with PACS and DMP as a resynchronisation would, and changes nothing anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from drimbox.foundation.errors import Misconfigured, Rejected
from drimbox.manifest.compare import compare
from drimbox.manifest.read import read_manifest
from drimbox.publication import checks
from drimbox.publication.changed import admitted, has_images
from drimbox.publication.compose import compose
from drimbox.publication.decide import Depublish, Move, PublishNew, Replace, Stop, same_visibility, says_the_same
from drimbox.publication.finding import Found, find_study
from drimbox.publication.kos import ArchivedKos, History, State
from drimbox.publication.ports import Identity, Site
from drimbox.publication.reconsider import decide_by_pacs, decide_by_record, shows_the_same
from drimbox.publication.services import Services
from drimbox.publication.transmit import report_behind, withdrawal
from drimbox.publication.triggers import study_lock
from drimbox.reconciliation.walk import Finding, Target
from drimbox.reports.report import Report
from drimbox.store.database import Pool

_Findings = dict[Finding, str]
_SENT = (State.REPLACED, State.DEPUBLISHED, State.ABANDONED)


@dataclass(frozen=True, slots=True)
class Examiner:
    """``driver.Examine`` on the services that publish."""

    services: Services
    pool: Pool

    async def __call__(self, target: Target) -> Mapping[Finding, str]:
        """What is not as it should be; nothing for a study that is being worked on, or that changed since.

        Raises ``Unavailable`` when PACS or DMP cannot answer, and as the publication does: ``Misconfigured`` for a
        structure or a PACS that is no longer configured, ``Refused`` for what cannot be read.
        """
        if await self._worked_on(target.study_uid):
            return {}
        before = await self._newest(target)
        if before is None or before.id != target.position:
            return {}
        found = await self._compared(target, before)
        # What was published or sent meanwhile was compared with what no longer holds.
        after = await self._newest(target)
        unmoved = after is not None and (after.id, after.state) == (before.id, before.state)
        return found if unmoved and not await self._worked_on(target.study_uid) else {}

    async def _newest(self, target: Target) -> ArchivedKos | None:
        return await self.services.archive.published_last(target.structure, target.study_uid)

    async def _worked_on(self, study_uid: str) -> bool:
        """Is there work on the study in the queue of jobs?"""
        async with self.pool.connection() as connection:
            row = await (
                await connection.execute(
                    "SELECT 1 FROM procrastinate_jobs WHERE lock = %s AND status IN ('todo', 'doing') LIMIT 1",
                    (study_lock(study_uid),),
                )
            ).fetchone()
        return row is not None

    async def _compared(self, target: Target, newest: ArchivedKos) -> _Findings:
        site = self.services.sites.named(target.structure)
        if site is None:
            raise Misconfigured("La structure n'est plus dans la configuration", code="structure-unknown")
        current = newest if newest.state == State.CURRENT else None
        identity = self.services.registry.identity_again(site, newest.vihf_identity)
        findings = await self._with_pacs(site, newest, current)
        if current is not None:
            findings |= await self._with_dmp(site, identity, current)
        return findings | await self._others(site, identity, target, current)

    # --- the PACS -----------------------------------------------------------------------------------------------------

    async def _with_pacs(self, site: Site, newest: ArchivedKos, current: ArchivedKos | None) -> _Findings:
        services = self.services
        history = await services.archive.history(site.id, newest.study_uid)
        report, report_id = await self._report(site, newest, history)
        said = await services.changes.of(newest.study_uid)
        gone = await withdrawal(services, said)
        match decide_by_record(current, history, withdrawn=gone is not None and gone.is_of(newest.ins)):
            case Depublish():
                return {Finding.GONE: "déclaré supprimé"}
            case None:
                pass
            case _:
                return {}
        issuers = dict.fromkeys(n.issuer for n in report.accession_numbers() if n.issuer)
        found = await find_study(
            site,
            newest.study_uid,
            sender=report.sender.application,
            accession_issuers=tuple(issuers),
            hint=newest.pacs,
        )
        found = admitted(said, found) if found is not None and said.out else found
        rejected = found is not None and bool(said.out or found.rejected)
        return await self._decided(site, report, report_id, found, current, rejected=rejected)

    async def _report(self, site: Site, newest: ArchivedKos, history: History) -> tuple[Report, int | None]:
        """The newest report that stands, as what was published last showed it."""
        if history.standing_report_id:
            report = await self.services.reports.load(history.standing_report_id)
            report_id: int | None = history.standing_report_id
        else:
            report, report_id = await report_behind(self.services, site, newest), newest.report_id
        return replace(report, visibility=newest.visibility, visibility_changed=False), report_id

    async def _decided(
        self,
        site: Site,
        report: Report,
        report_id: int | None,
        found: Found | None,
        current: ArchivedKos | None,
        *,
        rejected: bool,
    ) -> _Findings:
        rules = self.services.rules
        images = found is not None and has_images(found.study)
        blocking: tuple[checks.Finding, ...] = ()
        if found is not None and images:
            checked = checks.check(
                report, found.study, match_patient_name=rules.match_patient_name, ins_range=rules.ins_range
            )
            blocking = tuple(f for f in checked if f.severity is checks.Severity.BLOCKING)
        match decide_by_pacs(report, images, blocking, current):
            case Depublish():
                return {Finding.GONE: "images rejetées" if rejected else ""}
            case Stop():
                return {Finding.PATIENT: ", ".join(dict.fromkeys(f.code for f in blocking))}
            case Move():
                return {Finding.PATIENT: "INS"}
            case PublishNew():
                return {Finding.BACK: ""}
            case Replace(kos) if found is not None:
                words = await asyncio.to_thread(self._words, site, report, report_id, found, kos)
                return {Finding.CONTENT: words} if words else {}
        return {}

    def _words(self, site: Site, report: Report, report_id: int | None, found: Found, current: ArchivedKos) -> str:
        """What a new version would say otherwise; empty when nothing."""
        made = compose(
            self.services.rules,
            report,
            found.study,
            structure=site.structure,
            now=self.services.clock.now(),
            notes=found.notes,
        )
        published = read_manifest(current.kos)
        if report_id is None:
            same = shows_the_same(published, made.manifest)
        else:
            same = says_the_same(current, published, made.manifest, made.fingerprint)
        return "" if same else compare(published, made.manifest).words() or "description"

    # --- the DMP ------------------------------------------------------------------------------------------------------

    async def _with_dmp(self, site: Site, identity: Identity, current: ArchivedKos) -> _Findings:
        try:
            entry = await self.services.registry.inspect(site, current.ins, identity, current.kos_uid)
        except Rejected as error:
            return {Finding.DMP_REFUSES: error.peer_code or error.code}
        if entry is None or not entry.standing:
            return {Finding.MISSING: ""}
        if entry.visibility is not None and not same_visibility(entry.visibility, current.visibility):
            return {Finding.VISIBILITY: ""}
        return {}

    async def _others(self, site: Site, identity: Identity, target: Target, current: ArchivedKos | None) -> _Findings:
        """Does anything else of ours for this study still stand in the DMP?"""
        standing = 0
        for version in await self.services.archive.versions(target.structure, target.study_uid):
            if version.state not in _SENT or version.sent_at is None or (current and version.id == current.id):
                continue
            try:
                entry = await self.services.registry.inspect(site, version.ins, identity, version.kos_uid)
            except Rejected:
                continue
            # Where the DMP tells technical ids alone, it does not say what still stands.
            standing += entry is not None and entry.standing and entry.visibility is not None
        return {Finding.SEVERAL: str(standing)} if standing else {}

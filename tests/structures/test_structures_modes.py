"""EG, EJ/EG, EJ: which FINESS stands where, proven before a DMP that judges each message (ans-faq.md 3.1)."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from drimbox.box.settings.box import StructureSection
from drimbox.box.settings.common import KeyPair
from drimbox.box.structures import Served, serve
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Rejected
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.national.dmp.actor import DmpEndpoints, Software
from drimbox.national.dmp.client import DmpClient
from drimbox.national.dmp.metadata import Device
from drimbox.pacs.study import Instance, Series, Study
from drimbox.publication.compose import compose
from drimbox.publication.ports import Draft, Site, Submission
from drimbox.publication.registry import DmpRegistry, DmpStructure
from drimbox.publication.services import Rules
from drimbox.reports import hl7
from drimbox.reports.reading import read_report
from drimbox.reports.report import Report
from drimbox.sandbox.dmp import Dmp, KnownPatient, KnownStructure, dmp_app
from drimbox.sandbox.pki import PemPair, TestAuthority
from drimbox.sandbox.ris import exams, letters
from drimbox.trust.keystore import load_credential
from drimbox.trust.tls import load_trust, server_context
from drimbox.trust.watch import TrustWatch

EG, EJ = "1750803447", "1750000999"
NAME = "Centre de radiologie Ambroise"
BOTH = (KnownStructure(EG, NAME, legal_identifier=EJ),)
ALONE = (KnownStructure(EG, NAME),)
LEGAL = (KnownStructure(EJ, NAME),)


@dataclass(frozen=True)
class Desk:
    """One structure in front of the DMP."""

    judge: Dmp
    registry: DmpRegistry
    site: Site
    report: Report

    def refusals(self) -> list[str]:
        return [v.rule or "" for v in self.judge.store.verdicts() if v.verdict != "accepted"]

    async def publish(self, replaces: str | None = None) -> Submission:
        """One KOS, from the identity to the sending; what was sent."""
        made = compose(
            Rules("test", "https://db.example.test/dicom-web-rs"),
            self.report,
            STUDY,
            structure=self.site.structure,
            now=dt.datetime.now(dt.UTC),
        )
        identity = self.registry.identity(self.site, self.report, dt.datetime.now(dt.UTC))
        draft = Draft(self.site, self.report, STUDY, made.orders, made.kos_uid, made.kos, made.created)
        submission = self.registry.prepare(draft, identity, replaces)
        await self.registry.provide(self.site, self.report.patient.ins, made.kos, submission)
        entry = await self.registry.inspect(self.site, self.report.patient.ins, identity, made.kos_uid)
        assert entry is not None
        if replaces is None:
            await self.publish(entry.entry_uuid)
        else:
            await self.registry.delete(self.site, self.report.patient.ins, identity, entry, self.report)
        return submission


STUDY = Study(
    "1.2.250.1.213.4.5.2.1.105",
    "IPP101",
    "",
    "PAT-TROIS^DOMINIQUE",
    "19790328",
    "F",
    "ACN105",
    "",
    "E",
    "20210108",
    "102500",
    "Tête",
    "",
    (Series("1.2.3.1", "NM", 1, "", "", (Instance("1.2.840.10008.5.1.4.1.1.20", "1.2.3.1.1", 1),)),),
)
Open = Callable[..., AbstractAsyncContextManager[Desk]]


@pytest.fixture
def at_the_desk(pairs: dict[str, PemPair], authority: TestAuthority, shared: Path, tmp_path: Path) -> Open:
    trust = TrustWatch([authority.roots], authority.revocation_lists)
    server = pairs["server-EG"]
    report = read_report(hl7.parse(letters.oru(letters.Letter(exams.exam("E"), "M"), dt.datetime.now(dt.UTC))))

    def structure(mode: str, certificate: str, vihf: str, unit: str) -> Served:
        auth, sign = pairs[f"auth-{certificate}"], pairs[f"sign-{certificate}"]
        section = StructureSection(
            id="s",
            name=NAME,
            identifier=EG,
            legal_identifier=EJ,
            identification=mode,  # type: ignore[arg-type]
            vihf_finess=vihf,  # type: ignore[arg-type]
            certificate_unit=unit,
            auth=KeyPair(certificate=auth.certificate, key=auth.key),  # type: ignore[call-arg]
            sign=KeyPair(certificate=sign.certificate, key=sign.key),  # type: ignore[call-arg]
        )
        return serve(section, trust, SystemClock())

    @asynccontextmanager
    async def open_desk(
        mode: str, certificate: str, known: Sequence[KnownStructure], *, vihf: str = "EG", unit: str = ""
    ) -> AsyncIterator[Desk]:
        one = structure(mode, certificate, vihf, unit)
        app = dmp_app(
            state=tmp_path / "dmp",
            trust_roots=[authority.roots],
            revocation_lists=authority.revocation_lists,
            schema_dir=shared / "schemas",
            structures=known,
            patients=[KnownPatient("279035121518989", "1.2.250.1.213.1.4.10", "PAT-TROIS", "DOMINIQUE")],
        )
        tls = server_context(
            load_credential(server.certificate, server.key), load_trust([authority.roots], authority.revocation_lists)
        )
        async with HttpClient() as http, serving(app, host="127.0.0.1", port=0, tls=tls) as port:
            base = f"https://127.0.0.1:{port}/si-dmp-server/v2/services"
            client = DmpClient(
                http,
                DmpEndpoints(*(f"{base}/{s}" for s in ("repository", "registry", "patients", "habilitations"))),
                Software("drimbox", "0.1.0", "DRB-000000-tmp1", "drimbox-1"),
                SystemClock(),
                vihf_version="3.0",
                vihf_algorithm="rsa-sha256",
                signature_algorithm="rsa-sha256",
                source_id="1.2.250.1.999.1.1.9000",
                timeout=10,
                test=True,
            )
            registry = DmpRegistry(
                client, {"s": DmpStructure("SA08", one.actor)}, device=Device(f"3{EG}/drimbox-1", "drimbox")
            )
            site = Site("s", one.in_submissions, (), (), one.in_vihf)
            yield Desk(app.state.dmp, registry, site, report)
            app.state.dmp.close()

    return open_desk


@pytest.mark.requirement("DB.SO.19", "DB.SO.89")
@pytest.mark.parametrize(
    ("mode", "vihf", "certificate", "known", "in_set", "in_vihf"),
    [
        pytest.param("EG", "EG", "EG", ALONE, EG, EG, id="EG"),
        pytest.param("EJ/EG", "EG", "EJ", BOTH, EG, EG, id="EJ/EG, VIHF EG"),
        pytest.param("EJ/EG", "EJ", "EJ", BOTH, EG, EJ, id="EJ/EG, VIHF EJ"),
        pytest.param("EJ", "EG", "EJ", LEGAL, EJ, EJ, id="EJ"),
    ],
)
async def test_publication_replacement_and_deletion_in_each_mode(
    at_the_desk: Open,
    mode: str,
    vihf: str,
    certificate: str,
    known: Sequence[KnownStructure],
    in_set: str,
    in_vihf: str,
) -> None:
    async with at_the_desk(mode, certificate, known, vihf=vihf) as desk:
        submission = await desk.publish()
        assert desk.refusals() == []
        assert submission.identity["structure_id"] == in_vihf
        sent = submission.metadata.decode("utf-8")
        institutions = {i for i in (EG, EJ) if f"^IDNST^^^{i}" in sent}
        assert institutions == {in_set}
        statuses = [e.status.rpartition(":")[2] for e in desk.judge.store.entries() if e.mime == "application/dicom"]
        assert statuses == ["Deprecated", "Deleted"]


@pytest.mark.requirement("DB.SO.19")
@pytest.mark.parametrize(
    ("mode", "certificate", "known", "rule"),
    [
        pytest.param("EJ/EG", "EJ", ALONE, "TLS.STRUCTURE", id="the DMP does not know the legal entity"),
        pytest.param("EG", "OTHER", (*ALONE, KnownStructure("1690000017", "O")), "VIHF.STRUCTURE", id="another's pair"),
        pytest.param("EJ", "EJ", BOTH, "SET.STRUCTURE", id="the set names the legal entity, as it must not any more"),
    ],
)
async def test_the_judge_refuses_what_no_mode_allows(
    at_the_desk: Open, mode: str, certificate: str, known: Sequence[KnownStructure], rule: str
) -> None:
    """Otherwise the proof above would prove nothing."""
    unit = "1690000017" if certificate == "OTHER" else ""
    async with at_the_desk(mode, certificate, known, unit=unit) as desk:
        with pytest.raises(Rejected):
            await desk.publish()
        assert desk.refusals() == [rule]
        assert list(desk.judge.store.entries()) == []

"""The DMP client and the sandbox DMP, which share no deciding code, over mutual TLS: a report becomes a KOS in the DMP.

Each message of the client passes every rule of the judge and the schemas; each answer of the judge is understood.
"""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Busy, DrimboxError, OutcomeUnknown, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.foundation.uids import new_uid
from drimbox.identity.ins import Ins
from drimbox.manifest.build import build_manifest
from drimbox.national.dmp.actor import REINFORCED, Actor, DmpEndpoints, Software, VihfIdentity
from drimbox.national.dmp.client import Criteria, DmpClient, KosDocument, PreparedSubmission
from drimbox.national.dmp.codes import KOS_TYPE, REFERENCE_ACCESSION, Status
from drimbox.national.dmp.errors import DmpRejected, DmpUnavailable
from drimbox.national.dmp.existence import Authorisation, RecordStatus
from drimbox.national.dmp.metadata import Cx, Device, kos_entry, submission_draft
from drimbox.pacs.study import Instance, Series, Study
from drimbox.reports.hl7 import parse
from drimbox.reports.reading import read_report
from drimbox.reports.report import Report
from drimbox.sandbox.dmp import Authorisation as SandboxAuthorisation
from drimbox.sandbox.dmp import Dmp, FaultKind, KnownPatient, KnownStructure, OrderedFault, dmp_app
from drimbox.sandbox.dmp import RecordStatus as SandboxStatus
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.sandbox.ris.exams import exam
from drimbox.sandbox.ris.letters import Letter, oru
from drimbox.trust.keystore import Credential, load_credential
from drimbox.trust.tls import client_context, load_trust, server_context

STRUCTURE = "1750803447"
INS = Ins.of("279035121518989", "1.2.250.1.213.1.4.10")
CLOSED = Ins.of("162018885045327", "1.2.250.1.213.1.4.10")
NO_RECORD = Ins.of("207058575627097", "1.2.250.1.213.1.4.10")
CX = f"{INS.matricule}^^^&{INS.oid}&ISO^NH"
DEVICE = Device("31750803447/drimbox-1", "drimbox")


@dataclass(frozen=True)
class Site:
    """One structure that publishes and consults, and the DMP that it calls."""

    client: DmpClient
    dmp: Dmp
    actor: Actor

    @property
    def reinforced(self) -> Actor:
        return replace(self.actor, identity=replace(self.actor.identity, mode=REINFORCED))

    def verdicts(self) -> list[tuple[str, str, str]]:
        return [(v.transaction, v.verdict, v.rule) for v in self.dmp.store.verdicts()]


def issued(authority: TestAuthority, profile: Profile, name: str, **more: object) -> Credential:
    pair = authority.issue(  # type: ignore[arg-type]
        profile, name, common_name="DRIMbox", unit=STRUCTURE, organisation="CENTRE DE RADIOLOGIE AMBROISE", **more
    )
    return load_credential(pair.certificate, pair.key)


@pytest.fixture(scope="session")
def server_tls(authority: TestAuthority) -> ssl.SSLContext:
    server = issued(authority, Profile.SSL_SERV, "mesh-dmp-server", hosts=("127.0.0.1",))
    return server_context(server, load_trust([authority.roots], authority.revocation_lists))


@pytest.fixture(scope="session")
def report() -> Report:
    letter = Letter(exam("E"), "MSG-E-1")
    return read_report(parse(oru(letter, dt.datetime.now(dt.UTC))))


@pytest.fixture(scope="session")
def study(report: Report) -> Study:
    instances = tuple(Instance("1.2.840.10008.5.1.4.1.1.20", f"2.25.80{n}", n) for n in range(1, 4))
    return Study(
        study_uid=report.study_uids()[0],
        patient_id="IPP101",
        patient_id_issuer="",
        patient_name="PAT-TROIS^DOMINIQUE",
        birth_date="19790328",
        sex="F",
        accession_number="ACN105",
        accession_issuer="",
        study_id="",
        study_date="20210108",
        study_time="102500",
        description="Scintigraphie",
        referring_physician="",
        series=(Series("2.25.800", "NM", 1, "Planaire", "HEAD", instances),),
    )


@pytest.fixture
def actor(authority: TestAuthority, report: Report) -> Actor:
    signatory = report.signatory
    assert signatory.profession is not None
    identity = VihfIdentity(
        subject_id=signatory.identifier,
        subject_name=f"{signatory.given} {signatory.family}",
        profession=signatory.profession,
        speciality=signatory.speciality,
        structure_id=report.structure.identifier,
        structure_name=report.structure.name,
        sector="SA08",
        mode="INDIRECTE",
        authenticated_at=dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5),
        authn_context="urn:oasis:names:tc:SAML:2.0:ac:classes:TLSClient",
    )
    trust = load_trust([authority.roots], authority.revocation_lists)
    tls = client_context(trust, issued(authority, Profile.ORG_AUTH_CLI, "mesh-dmp-auth"))
    return Actor(identity, tls, issued(authority, Profile.ORG_SIGN, "mesh-dmp-sign"))


@pytest.fixture
def dmp_state(tmp_path: Path) -> Path:
    return tmp_path / "dmp"


@asynccontextmanager
async def opened(
    state: Path,
    authority: TestAuthority,
    schemas: Path | None,
    server_tls: ssl.SSLContext,
    actor: Actor,
    timeout: float,
) -> AsyncIterator[Site]:
    app = dmp_app(
        state=state,
        trust_roots=[authority.roots],
        revocation_lists=authority.revocation_lists,
        schema_dir=schemas,
        structures=[KnownStructure(STRUCTURE, "Centre de radiologie Ambroise")],
        patients=[
            KnownPatient(INS.matricule, INS.oid, "PAT-TROIS", "DOMINIQUE", "19790328", "F"),
            KnownPatient(
                CLOSED.matricule,
                CLOSED.oid,
                "PAT-SIX",
                "ALAIN",
                status=SandboxStatus.CLOSED,
                closed_on="20240131",
                closing=("DEMANDE", "À la demande du patient"),
            ),
        ],
    )
    async with HttpClient() as http, serving(app, host="127.0.0.1", port=0, tls=server_tls) as port:
        base = f"https://127.0.0.1:{port}/si-dmp-server/v2/services"
        client = DmpClient(
            http,
            DmpEndpoints(f"{base}/repository", f"{base}/registry", f"{base}/patients", f"{base}/habilitations"),
            Software("drimbox", "0.1.0", "DRB-000000-tmp1", "drimbox-1"),
            SystemClock(),
            vihf_version="3.0",
            vihf_algorithm="rsa-sha256",
            signature_algorithm="rsa-sha256",
            source_id="1.2.250.1.999.1.1.9000",
            timeout=timeout,
            test=True,
        )
        try:
            yield Site(client, app.state.dmp, actor)
        finally:
            app.state.dmp.close()


@pytest.fixture
async def site(
    dmp_state: Path, authority: TestAuthority, shared: Path, server_tls: ssl.SSLContext, actor: Actor
) -> AsyncIterator[Site]:
    """A DMP that knows the schemas too."""
    async with opened(dmp_state, authority, shared / "schemas", server_tls, actor, 10) as made:
        yield made


def kos_of(report: Report, study: Study) -> KosDocument:
    """The KOS of a study, with its entry."""
    kos_uid, created = new_uid(), dt.datetime.now(dt.UTC)
    content = build_manifest(
        report,
        study,
        orders=report.orders,
        retrieve_base="https://db1.test/dicom-web-rs",
        kos_uid=kos_uid,
        series_uid=new_uid(),
        created=created,
        manufacturer="drimbox",
    )
    entry = kos_entry(
        report=report,
        study=study,
        orders=report.orders,
        kos_uid=kos_uid,
        kos_bytes=content,
        created=created,
        device=DEVICE,
    )
    return KosDocument(entry, content)


def prepared(site: Site, report: Report, study: Study, replaces: str | None = None) -> PreparedSubmission:
    return site.client.prepare(site.actor, INS, kos_of(report, study), submission_draft(report), replaces)


@pytest.mark.requirement("DB.SO.01", "DB.SO.19", "exam:E", "D9", "D10", "D11", "D12", "D13")
async def test_a_report_becomes_a_kos_that_another_site_finds_and_reads(
    site: Site, report: Report, study: Study
) -> None:
    submission = prepared(site, report, study)
    (kos,) = submission.kos
    assert await site.client.entry_by_unique_id(site.actor, INS, kos.unique_id) is None
    result = await site.client.provide(site.actor, INS, submission)
    assert not result.partial
    assert not result.warnings
    reference = await site.client.entry_by_unique_id(site.actor, INS, kos.unique_id)
    assert reference is not None
    assert reference.entry_uuid.startswith("urn:uuid:")

    consumer = site.reinforced
    assert (await site.client.existence(consumer, INS)).authorisation is Authorisation.ABSENT
    await site.client.authorise(consumer, INS)
    existence = await site.client.existence(consumer, INS)
    assert existence.may_consult

    criteria = Criteria(
        type_codes=(KOS_TYPE,),
        modalities=("NM",),
        regions=tuple(r.code for act in report.acts for r in act.regions),
        exam_from=dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        exam_to=dt.datetime(2023, 1, 1, tzinfo=dt.UTC),
    )
    (entry,) = await site.client.find_documents(consumer, INS, criteria)
    assert entry.entry_id == reference.entry_uuid
    assert entry.is_kos
    assert entry.status == Status.APPROVED
    assert entry.study_uids() == report.study_uids()
    assert await site.client.find_documents(consumer, INS, replace(criteria, modalities=("MR",))) == ()

    accession = report.accession_numbers()[0]
    wanted = Cx(accession.value, accession.issuer, REFERENCE_ACCESSION)
    assert [e.entry_id for e in await site.client.find_by_reference(consumer, INS, [wanted])] == [entry.entry_id]

    (document,) = await site.client.retrieve(consumer, INS, [entry])
    assert document.content == kos.content
    assert {(verdict, rule) for _, verdict, rule in site.verdicts()} == {("accepted", "")}


@pytest.mark.requirement("DB.SO.13", "DB.SO.97", "DMP/CONF.03", "DMP/CONF.05")
async def test_a_kos_is_replaced_then_depublished(site: Site, report: Report, study: Study) -> None:
    first = prepared(site, report, study)
    await site.client.provide(site.actor, INS, first)
    old = await site.client.entry_by_unique_id(site.actor, INS, first.kos[0].unique_id)
    assert old is not None
    second = prepared(site, report, study, replaces=old.entry_uuid)
    await site.client.provide(site.actor, INS, second)
    new = await site.client.entry_by_unique_id(site.actor, INS, second.kos[0].unique_id)
    assert new is not None
    stored = {e.uuid: e.status for e in site.dmp.store.entries()}
    assert (stored[old.entry_uuid], stored[new.entry_uuid]) == (Status.DEPRECATED, Status.APPROVED)

    draft = submission_draft(report)
    await site.client.change_status(site.actor, INS, new.entry_uuid, Status.APPROVED, Status.ARCHIVED, draft)
    await site.client.change_status(site.actor, INS, new.entry_uuid, Status.ARCHIVED, Status.APPROVED, draft)
    await site.client.change_status(site.actor, INS, new.entry_uuid, Status.APPROVED, Status.DELETED, draft)
    assert {e.uuid: e.status for e in site.dmp.store.entries()}[new.entry_uuid] == Status.DELETED
    # No authorisation was ever asked for.
    assert site.dmp.store.authorisation(INS.cx(), site.actor.identity.subject_id) is None
    assert {(verdict, rule) for _, verdict, rule in site.verdicts()} == {("accepted", "")}


@pytest.mark.requirement("D26")
async def test_what_was_stored_can_be_sent_again_after_a_restart(site: Site, report: Report, study: Study) -> None:
    submission = prepared(site, report, study)
    restored = PreparedSubmission.restore(submission.metadata, [submission.signature, submission.kos[0].content])
    await site.client.provide(site.actor, INS, restored)
    with pytest.raises(DmpRejected) as again:
        await site.client.provide(site.actor, INS, submission)
    assert again.value.peer_code == "XDSDuplicateUniqueIdInRegistry"


async def test_an_answer_that_is_cut_leaves_a_question_that_can_be_asked(
    site: Site, report: Report, study: Study
) -> None:
    submission = prepared(site, report, study)
    site.dmp.faults.order(OrderedFault(FaultKind.CUT))
    with pytest.raises(OutcomeUnknown):
        await site.client.provide(site.actor, INS, submission)
    assert await site.client.entry_by_unique_id(site.actor, INS, submission.kos[0].unique_id) is not None

    other = prepared(site, report, study)
    site.dmp.faults.order(OrderedFault(FaultKind.DROP))
    with pytest.raises(OutcomeUnknown):
        await site.client.provide(site.actor, INS, other)
    assert await site.client.entry_by_unique_id(site.actor, INS, other.kos[0].unique_id) is None
    await site.client.provide(site.actor, INS, other)


@pytest.mark.parametrize(
    ("kind", "expected", "sent_again"),
    [
        (FaultKind.BUSY, Busy, True),
        (FaultKind.UNAVAILABLE, Busy, True),
        (FaultKind.FAULT, OutcomeUnknown, True),
        (FaultKind.PARTIAL, None, False),
    ],
)
async def test_each_fault_says_what_to_do(
    kind: FaultKind, expected: type[DrimboxError] | None, sent_again: bool, site: Site, report: Report, study: Study
) -> None:
    submission = prepared(site, report, study)
    site.dmp.faults.order(OrderedFault(kind))
    if expected is None:
        result = await site.client.provide(site.actor, INS, submission)
        assert result.partial
        assert result.errors
    else:
        with pytest.raises(expected):
            await site.client.provide(site.actor, INS, submission)
    if sent_again:
        assert not (await site.client.provide(site.actor, INS, submission)).partial


async def test_a_silent_dmp_leaves_the_outcome_unknown(
    dmp_state: Path, authority: TestAuthority, server_tls: ssl.SSLContext, actor: Actor, report: Report, study: Study
) -> None:
    async with opened(dmp_state, authority, None, server_tls, actor, 1.0) as site:
        submission = prepared(site, report, study)
        site.dmp.faults.order(OrderedFault(FaultKind.TIMEOUT, seconds=5))
        with pytest.raises(OutcomeUnknown):
            await site.client.provide(site.actor, INS, submission)


@pytest.mark.requirement("DMP/UX.08")
async def test_a_dmp_that_is_closed_or_is_not(site: Site) -> None:
    closed = await site.client.existence(site.reinforced, CLOSED)
    assert closed.status is RecordStatus.CLOSED
    assert (closed.closed_on, closed.closing_reason) == ("20240131", "À la demande du patient")
    assert (await site.client.existence(site.reinforced, NO_RECORD)).status is RecordStatus.NONE
    for patient in (CLOSED, NO_RECORD):
        with pytest.raises(DmpRejected):
            await site.client.find_documents(site.reinforced, patient, Criteria())


async def test_the_indirect_mode_cannot_consult(site: Site) -> None:
    with pytest.raises(DmpRejected):
        await site.client.find_documents(site.actor, INS, Criteria())


async def test_a_query_during_an_outage_is_never_an_empty_list(site: Site) -> None:
    await site.client.authorise(site.reinforced, INS)
    for kind in (FaultKind.BUSY, FaultKind.UNAVAILABLE, FaultKind.FAULT, FaultKind.DROP, FaultKind.CUT):
        site.dmp.faults.order(OrderedFault(kind))
        with pytest.raises(Unavailable):
            await site.client.find_documents(site.reinforced, INS, Criteria())
    site.dmp.faults.order(OrderedFault(FaultKind.PARTIAL))
    with pytest.raises(DmpUnavailable):
        await site.client.find_documents(site.reinforced, INS, Criteria())
    assert await site.client.find_documents(site.reinforced, INS, Criteria()) == ()


async def test_a_secret_connection_is_accepted(site: Site) -> None:
    secret = replace(site.reinforced, secret_connection=True)
    assert (await site.client.existence(secret, INS)).status is RecordStatus.ACTIVE


@pytest.mark.requirement("D22", "DMP/UX.08")
async def test_an_emergency_is_told_to_the_dmp_with_its_reason(site: Site, report: Report, study: Study) -> None:
    await site.client.provide(site.actor, INS, prepared(site, report, study))
    site.dmp.set_authorisation(CX, site.actor.identity.subject_id, SandboxAuthorisation.EXPIRED)
    hurried = replace(site.reinforced, emergency="Risque immédiat pour la santé du patient")
    assert (await site.client.existence(hurried, INS)).authorisation is Authorisation.EXPIRED
    with pytest.raises(DmpRejected):
        await site.client.find_documents(site.reinforced, INS, Criteria())
    assert len(await site.client.find_documents(hurried, INS, Criteria(type_codes=(KOS_TYPE,)))) == 1
    site.dmp.set_authorisation(CX, site.actor.identity.subject_id, SandboxAuthorisation.BLOCKED)
    with pytest.raises(DmpRejected):
        await site.client.find_documents(hurried, INS, Criteria())
    assert site.verdicts()[-1] == ("ITI-18", "refused", "ACCESS.BLOCKED")


@pytest.mark.requirement("D18", "D22")
async def test_an_authorisation_is_given_and_taken_back(site: Site) -> None:
    site.dmp.set_authorisation(CX, site.actor.identity.subject_id, SandboxAuthorisation.ABSENT)
    await site.client.authorise(site.reinforced, INS)
    assert (await site.client.existence(site.reinforced, INS)).authorisation is Authorisation.VALID
    await site.client.withdraw(site.reinforced, INS)
    assert (await site.client.existence(site.reinforced, INS)).authorisation is Authorisation.ABSENT


@pytest.mark.requirement("DMP/UX.15")
async def test_what_was_submitted_since_is_told_by_its_entries(site: Site, report: Report, study: Study) -> None:
    site.dmp.set_authorisation(CX, site.actor.identity.subject_id, SandboxAuthorisation.VALID)
    start = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)
    assert await site.client.registered_since(site.reinforced, INS, start) == frozenset()
    await site.client.provide(site.actor, INS, prepared(site, report, study))
    (kos,) = await site.client.find_documents(site.reinforced, INS, Criteria(type_codes=(KOS_TYPE,)))
    assert kos.entry_id in await site.client.registered_since(site.reinforced, INS, start)
    assert await site.client.registered_since(site.reinforced, INS, start + dt.timedelta(hours=1)) == frozenset()

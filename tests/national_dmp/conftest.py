"""The official test patient and a test professional, their report and study, and what a call to the DMP needs."""

from __future__ import annotations

import datetime as dt
import ssl

import pytest
from dmp_examples import KOS_BYTES, ORDER, RADIOLOGIST, SOURCE_ID, STRUCTURE, STUDY_UID, make_client, make_entry

from drimbox.foundation.clock import PARIS, FixedClock
from drimbox.foundation.http_client import HttpClient
from drimbox.identity.ins import Ins
from drimbox.identity.traits import LocalId, Patient, Sex, Traits
from drimbox.national.dmp.actor import INDIRECT, REINFORCED, Actor, DmpEndpoints, VihfIdentity
from drimbox.national.dmp.client import DmpClient
from drimbox.national.dmp.metadata import DocumentEntry, SubmissionDraft, submission_draft
from drimbox.national.dmp.provide import KosDocument, PreparedSubmission, prepare
from drimbox.pacs.study import Instance, Series, Study
from drimbox.reports.report import Act, Coded, Operation, Report, Sender, Visibility
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.trust.keystore import Credential, load_credential
from drimbox.trust.tls import client_context, load_trust


@pytest.fixture(scope="session")
def ins() -> Ins:
    return Ins.of("279035121518989", "1.2.250.1.213.1.4.10")


@pytest.fixture(scope="session")
def other_ins() -> Ins:
    return Ins.of("162018885045327", "1.2.250.1.213.1.4.10")


@pytest.fixture(scope="session")
def sign_pair(authority: TestAuthority) -> PemPair:
    return authority.issue(
        Profile.ORG_SIGN,
        "dmp-sign",
        common_name="DRIMbox",
        unit=STRUCTURE.identifier,
        organisation="CENTRE DE RADIOLOGIE AMBROISE",
    )


@pytest.fixture(scope="session")
def sign(sign_pair: PemPair) -> Credential:
    return load_credential(sign_pair.certificate, sign_pair.key)


@pytest.fixture(scope="session")
def auth(authority: TestAuthority) -> Credential:
    pair = authority.issue(
        Profile.ORG_AUTH_CLI,
        "dmp-auth",
        common_name="DRIMbox",
        unit=STRUCTURE.identifier,
        organisation="CENTRE DE RADIOLOGIE AMBROISE",
    )
    return load_credential(pair.certificate, pair.key)


@pytest.fixture(scope="session")
def tls(authority: TestAuthority, auth: Credential) -> ssl.SSLContext:
    return client_context(load_trust([authority.roots], authority.revocation_lists), auth)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(dt.datetime.now(dt.UTC).replace(microsecond=0))


@pytest.fixture(scope="session")
def identity() -> VihfIdentity:
    return VihfIdentity(
        subject_id=RADIOLOGIST.identifier,
        subject_name="Jacques BIDEAULT",
        profession=Coded("10", "1.2.250.1.71.1.2.7", "Médecin"),
        speciality=Coded("SM44", "1.2.250.1.71.4.2.5", "Radiodiagnostic"),
        structure_id=STRUCTURE.identifier,
        structure_name=STRUCTURE.name,
        sector="SA08",
        mode=INDIRECT,
        authenticated_at=dt.datetime(2024, 1, 15, 8, 30, tzinfo=dt.UTC),
        authn_context="urn:oasis:names:tc:SAML:2.0:ac:classes:unspecified",
    )


@pytest.fixture(scope="session")
def actor(identity: VihfIdentity, tls: ssl.SSLContext, sign: Credential) -> Actor:
    return Actor(identity, tls, sign)


@pytest.fixture(scope="session")
def reinforced(identity: VihfIdentity, tls: ssl.SSLContext, sign: Credential) -> Actor:
    """The same professional, proved by Pro Santé Connect."""
    stronger = VihfIdentity.from_json({**identity.to_json(), "mode": REINFORCED})
    return Actor(stronger, tls, sign)


@pytest.fixture(scope="session")
def report(ins: Ins) -> Report:
    traits = Traits(
        birth_family="PAT-TROIS",
        first_given="DOMINIQUE",
        birth_date=dt.date(1979, 3, 28),
        sex=Sex.FEMALE,
        birth_place="63220",
        given_names=("DOMINIQUE",),
    )
    patient = Patient(ins, True, traits, (LocalId("IPP101", "1.2.250.1.213.4.5.2.4"),))
    act = Act(
        study_uids=(STUDY_UID,),
        code=Coded("37174-0", "2.16.840.1.113883.6.1"),
        procedure=None,
        modalities=(Coded("CT", "1.2.840.10008.2.16.4", "Tomodensitométrie"),),
        regions=(Coded("67734004", "2.16.840.1.113883.6.96", "Thorax"),),
        start=dt.datetime(2021, 1, 8, 10, 25, tzinfo=PARIS),
        stop=dt.datetime(2021, 1, 8, 11, 17, tzinfo=PARIS),
    )
    return Report(
        operation=Operation.NEW,
        document_id="1.2.250.1.213.4.5.4.405",
        replaces=None,
        title="CR d’imagerie médicale",
        created=dt.datetime(2021, 1, 8, 11, 17, tzinfo=PARIS),
        language="fr-FR",
        patient=patient,
        message_patient=patient,
        orders=(ORDER,),
        acts=(act,),
        author=RADIOLOGIST,
        signatory=RADIOLOGIST,
        structure=STRUCTURE,
        practice_setting=Coded("AMBULATOIRE", "1.2.250.1.213.1.1.4.9", "Ambulatoire"),
        facility_type=Coded("SA08", "1.2.250.1.71.4.2.4", "Cabinet de groupe"),
        patient_class="I",
        visibility=Visibility(),
        visibility_changed=False,
        publish_to_dmp=True,
        sender=Sender("RIS", "AMBROISE"),
    )


@pytest.fixture(scope="session")
def study() -> Study:
    instances = (Instance("1.2.840.10008.5.1.4.1.1.2", "2.25.7001", 1),)
    return Study(
        study_uid=STUDY_UID,
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
        description="TDM thorax",
        referring_physician="",
        series=(
            Series("2.25.7000", "CT", 1, "Axial", "", instances),
            Series("2.25.7002", "SR", 2, "Dose", "", ()),
        ),
    )


@pytest.fixture(scope="session")
def entry(report: Report, study: Study) -> DocumentEntry:
    return make_entry(report, study)


@pytest.fixture(scope="session")
def draft(report: Report) -> SubmissionDraft:
    return submission_draft(report)


@pytest.fixture
def prepared(
    ins: Ins, entry: DocumentEntry, draft: SubmissionDraft, sign: Credential, clock: FixedClock
) -> PreparedSubmission:
    return prepare(
        ins,
        [KosDocument(entry, KOS_BYTES)],
        draft,
        source_id=SOURCE_ID,
        credential=sign,
        algorithm="rsa-sha256",
        clock=clock,
    )


@pytest.fixture
def client(endpoints: DmpEndpoints, clock: FixedClock) -> DmpClient:
    """A client for what sends nothing: its HTTP side is never opened."""
    return make_client(HttpClient(), endpoints, clock)


@pytest.fixture
def endpoints() -> DmpEndpoints:
    base = "https://dmp.test/si-dmp-server/v2/services"
    return DmpEndpoints(f"{base}/repository", f"{base}/registry", f"{base}/patients", f"{base}/habilitations")

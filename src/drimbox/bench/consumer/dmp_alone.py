"""What the DMP itself takes for the questions behind one list: asked as the box asks, by a client that does no more."""

from __future__ import annotations

import asyncio
import datetime as dt
import time

from drimbox import __version__
from drimbox.consumer.call import Filters
from drimbox.consumer.consultation import IMAGING_REPORT
from drimbox.consumer.searching import kos_criteria, report_criteria
from drimbox.demo import story
from drimbox.demo.mesh import PATIENT_AT_B, Mesh
from drimbox.foundation.clock import SystemClock
from drimbox.identity.ins import Ins
from drimbox.national.dmp.actor import REINFORCED, Actor, DmpEndpoints, Software, VihfIdentity
from drimbox.national.dmp.client import DmpClient
from drimbox.reports.report import Coded
from drimbox.sandbox.psc.people import CONSUMER_PLACE
from drimbox.sandbox.ris.app import call_parameters
from drimbox.trust.keystore import load_credential

_PROFESSIONS, _SPECIALITIES = "1.2.250.1.71.1.2.7", "1.2.250.1.71.4.2.5"
_NEWS = dt.timedelta(days=90)


def asked(mesh: Mesh) -> tuple[DmpClient, Actor, Ins]:
    """The client, in the name of the professional of the story; the patient."""
    national, clock = mesh.national, SystemClock()
    certificates = national.sites["b"].certificates
    endpoints = DmpEndpoints(
        national.dmp_repository, national.dmp_registry, national.dmp_patients, national.dmp_habilitations
    )
    software = Software("drimbox", __version__, "DRIMBOX-BAC-A-SABLE", f"3{CONSUMER_PLACE.identifier}/drimbox-1")
    user = next(one for one in national.logins if one.login == story.LOGIN)
    identity = VihfIdentity(
        subject_id=user.national_id,
        subject_name=f"{user.given} {user.family}",
        profession=Coded("10", _PROFESSIONS, "Médecin"),
        speciality=Coded("SM26", _SPECIALITIES, "Qualifié en médecine générale"),
        structure_id=CONSUMER_PLACE.identifier,
        structure_name=CONSUMER_PLACE.name,
        sector=CONSUMER_PLACE.sector,
        mode=REINFORCED,
        authenticated_at=clock.now(),
        authn_context="urn:oasis:names:tc:SAML:2.0:ac:classes:MobileTwoFactorUnregistered",
    )
    sign = load_credential(certificates.sign.certificate, certificates.sign.key)
    call = call_parameters(PATIENT_AT_B)
    patient = Ins.of(call["Patient.identifier.value"], call["Patient.identifier.system"])
    client = DmpClient(
        mesh.http,
        endpoints,
        software,
        clock,
        vihf_version="3.0",
        vihf_algorithm="rsa-sha256",
        signature_algorithm="rsa-sha256",
        source_id="2.25.1740066",
        timeout=60,
        test=True,
    )
    return client, Actor(identity, mesh.tls_b, sign), patient


async def seconds(mesh: Mesh) -> float:
    """TD0.2, then the three questions of a list at once."""
    client, actor, patient = asked(mesh)
    begun = time.monotonic()
    await client.existence(actor, patient)
    await asyncio.gather(
        client.find_documents(actor, patient, kos_criteria(Filters())),
        client.find_documents(actor, patient, report_criteria(Filters(), (IMAGING_REPORT,))),
        client.registered_since(actor, patient, dt.datetime.now(dt.UTC) - _NEWS),
    )
    return time.monotonic() - begun

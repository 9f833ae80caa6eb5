"""The sandbox DMP by itself, fed with submissions that are ready to send: what it can take at all."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from drimbox.bench.intake import Lost
from drimbox.bench.messages import Messages
from drimbox.bench.rows import Row
from drimbox.bench.site import Site
from drimbox.bench.studies import described
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.uids import new_uuid_urn
from drimbox.national.dmp import mtom, provide
from drimbox.national.dmp.client import Actor, DmpClient, DmpEndpoints, Software, VihfIdentity
from drimbox.national.dmp.metadata import Device
from drimbox.national.dmp.provide import PreparedSubmission
from drimbox.national.dmp.transport import Transport
from drimbox.publication import ports
from drimbox.publication.compose import compose
from drimbox.publication.registry import DmpRegistry, DmpStructure
from drimbox.publication.services import Rules
from drimbox.reports import hl7
from drimbox.reports.reading import read_report
from drimbox.reports.report import Structure
from drimbox.sandbox.pki import PemPair
from drimbox.trust.keystore import Credential, load_credential
from drimbox.trust.tls import client_context, load_trust

# As many as the box has under way at once.
_AT_ONCE = 4
_SOFTWARE = Software("drimbox", "bench", "DRIMBOX-BANC")


@dataclass(frozen=True, slots=True)
class Dmp:
    """What makes submissions for the site's DMP, as the box does; ``transport`` wraps them up."""

    registry: DmpRegistry
    place: ports.Site
    rules: Rules
    transport: Transport
    actor: Actor
    repository: str


def dmp_of(site: Site) -> Dmp:
    """The DMP of a site, by its certificates. Nothing is sent by it."""
    national, known = site.national, site.national.sites["a"]
    tls = client_context(load_trust([national.roots], national.revocation_lists), _credential(known.certificates.auth))
    sign = _credential(known.certificates.sign)

    def actor(identity: VihfIdentity, *, secret_connection: bool = False) -> Actor:
        return Actor(identity, tls, sign, secret_connection)

    http, clock = HttpClient(), SystemClock()
    addresses = (national.dmp_repository, national.dmp_registry, national.dmp_patients, national.dmp_habilitations)
    client = DmpClient(
        http,
        DmpEndpoints(*addresses),
        _SOFTWARE,
        clock,
        vihf_version="3.0",
        vihf_algorithm="rsa-sha256",
        signature_algorithm="rsa-sha256",
        source_id="2.25.1740097",
        timeout=30,
        test=True,
    )
    structures = {"ambroise": DmpStructure(known.site.place.sector, actor)}
    registry = DmpRegistry(client, structures, device=Device(f"3{known.site.place.identifier}/bench", "1"))
    place = ports.Site("ambroise", Structure(known.site.place.identifier, known.site.place.name), ())
    report = read_report(hl7.parse(Messages("J", 0).one(0)))
    identity = VihfIdentity.from_json(registry.identity(place, report, clock.now()))
    return Dmp(
        registry=registry,
        place=place,
        rules=Rules("test", f"https://localhost:{site.ports.wado_a}/dicom-web-rs"),
        transport=Transport(http, _SOFTWARE, clock, "3.0", "rsa-sha256", 30, True),
        actor=actor(identity),
        repository=national.dmp_repository,
    )


async def measure(site: Site, numbers: Sequence[int]) -> Row:
    """Submissions of new studies, signed beforehand, ``_AT_ONCE`` at once."""
    row = Row("the sandbox DMP alone, fed with ready-made submissions", "/s")
    dmp = dmp_of(site)
    ready = [_wrapped(dmp, number) for number in numbers]
    waiting: Iterator[tuple[str, bytes]] = iter(ready)

    async with HttpClient() as http:

        async def send() -> None:
            for content_type, body in waiting:
                reply = await http.send(
                    "POST", dmp.repository, tls=dmp.actor.tls, headers={"Content-Type": content_type}, body=body
                )
                if b"ResponseStatusType:Success" not in reply.body:
                    raise Lost("the sandbox DMP refused a submission")

        begun = time.monotonic()
        await asyncio.gather(*(send() for _ in range(_AT_ONCE)))
        row.values.append(len(ready) / (time.monotonic() - begun))
    return row


def _wrapped(dmp: Dmp, number: int) -> tuple[str, bytes]:
    """A whole HTTP body with its type: envelope, assertion, metadata, KOS, signature."""
    report, now = read_report(hl7.parse(Messages("J", 0).one(number))), dt.datetime.now(dt.UTC)
    study = described(number)
    kos = compose(dmp.rules, report, study, structure=dmp.place.structure, now=now)
    draft = ports.Draft(dmp.place, report, study, kos.orders, kos.kos_uid, kos.kos, now)
    made = dmp.registry.prepare(draft, dmp.registry.identity(dmp.place, report, now), None)
    whole = PreparedSubmission.restore(made.metadata, (kos.kos, made.signature))
    patient = report.patient.ins
    request = provide.request(dmp.repository, patient, whole)
    envelope = dmp.transport.envelope(dmp.actor, patient, request, new_uuid_urn())
    return mtom.write(envelope, request.attachments, request.action)


def _credential(pair: PemPair) -> Credential:
    return load_credential(pair.certificate, pair.key)

"""The DMP consulted through its API PSC, transition form: a bearer beside the VIHF (standards.md F.5).

Our clients of PSC, of the API's authorization server and of the DMP, against the sandbox's, over mutual TLS.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from drimbox.consumer.professional import Professional, vihf_identity
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import DrimboxError, Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.identity.ins import Ins
from drimbox.national.dmp.actor import Actor, DmpEndpoints, Software
from drimbox.national.dmp.client import Criteria, DmpClient
from drimbox.national.dmp.codes import KOS_TYPE, Status
from drimbox.national.dmp.existence import Authorisation, RecordStatus
from drimbox.national.psc.exchange import ApiAccess, ApiServer
from drimbox.national.psc.tokens import Tokens
from drimbox.national.psc.userinfo import UserInfo, read_userinfo
from drimbox.sandbox.dmp.vocabulary import SERVICES_PATH
from drimbox.sandbox.services import run_services
from drimbox.sandbox.sites import ServicesConfig
from drimbox.trust.keystore import load_credential
from drimbox.trust.tls import client_context, load_trust

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENT = Ins.of("279035121518989", "1.2.250.1.213.1.4.10")


class NeverRefreshed:
    async def refresh(self, former: Tokens) -> Tokens:
        raise Unavailable("Pro Santé Connect ne répond pas", code="psc-unavailable")


@dataclass
class World:
    config: ServicesConfig
    http: HttpClient
    tls: ssl.SSLContext
    tls_of_a: ssl.SSLContext
    actor_of: Actor
    infos: dict[str, UserInfo]
    dmp: DmpClient

    @property
    def api(self) -> str:
        return f"https://localhost:{self.config.api_port}"

    def access(self, tls: ssl.SSLContext | None = None, **changes: str) -> ApiAccess:
        server = ApiServer(f"{self.api}/api/token", self.config.sites[-1].client_id, "dmp", "psc")
        return ApiAccess(self.http, tls or self.tls, replace(server, **changes), SystemClock())

    async def professional(self, login: str = "doc0036790") -> Professional:
        """Logged in, by a token that the sandbox's PSC gives."""
        reply = await self.http.send(
            "POST",
            f"https://localhost:{self.config.psc_port}/sandbox/token",
            tls=self.tls,
            headers={"Content-Type": "application/json"},
            body=json.dumps({"user": login, "client_id": self.config.sites[-1].client_id}).encode(),
        )
        now = dt.datetime.now(dt.UTC)
        token = json.loads(reply.body)["access_token"]
        tokens = Tokens(token, "r", "i", now + dt.timedelta(minutes=2), None, "", "", now)
        return Professional(self.infos[login], tokens, psc=NeverRefreshed(), clock=SystemClock())

    def actor(self, professional: Professional, access: ApiAccess | None) -> Actor:
        place = self.config.sites[-1].place.identifier
        practice = next(p for p in professional.info.practices if p.structure_id == place)
        identity = vihf_identity(
            professional, practice, authn_context="urn:oasis:names:tc:SAML:2.0:ac:classes:MobileTwoFactorUnregistered"
        )
        bearer = professional.bearer("b", access) if access is not None else None
        return replace(self.actor_of, identity=identity, bearer=bearer)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    ports = _free_ports(4)
    config = ServicesConfig(
        tmp_path_factory.mktemp("api"),
        psc_port=ports[0],
        dmp_port=ports[1],
        whitelist_port=ports[2],
        api_port=ports[3],
    )
    async with HttpClient() as http, run_services(config) as told:
        trust = load_trust((told.roots,), told.revocation_lists)
        pairs = told.sites["b"].certificates
        auth = load_credential(pairs.auth.certificate, pairs.auth.key)
        sign = load_credential(pairs.sign.certificate, pairs.sign.key)
        other = told.sites["a"].certificates.auth
        tls = client_context(trust, auth)
        services = f"https://localhost:{config.api_port}{SERVICES_PATH}"
        dmp = DmpClient(
            http,
            DmpEndpoints(*(f"{services}/{s}" for s in ("repository", "registry", "patients", "habilitations"))),
            Software("drimbox", "0.1.0", "DRB-000000-tmp1", "drimbox-1"),
            SystemClock(),
            vihf_version="3.0",
            vihf_algorithm="rsa-sha256",
            signature_algorithm="rsa-sha256",
            source_id="1.2.250.1.999.1.1.9000",
            timeout=10,
            test=True,
        )
        reply = await http.send("GET", f"{told.psc_helpers}/users", tls=tls)
        infos = {known["login"]: read_userinfo(known["userinfo"]) for known in json.loads(reply.body)}
        yield World(
            config,
            http,
            tls,
            client_context(trust, load_credential(other.certificate, other.key)),
            Actor(None, tls, sign),  # type: ignore[arg-type] - each test puts its professional there
            infos,
            dmp,
        )


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    found = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return found


@pytest.mark.requirement("DB.CO.67", "DMP/PSC.01", "DMP/AIRS.06")
async def test_a_consultation_through_the_api(world: World) -> None:
    actor = world.actor(await world.professional(), world.access())
    existence = await world.dmp.existence(actor, PATIENT)
    assert (existence.status, existence.authorisation) == (RecordStatus.ACTIVE, Authorisation.VALID)
    found = await world.dmp.find_documents(actor, PATIENT, Criteria((Status.APPROVED,), type_codes=(KOS_TYPE,)))
    assert isinstance(found, tuple)


async def test_one_token_serves_every_request_of_a_login(world: World) -> None:
    class Counted(ApiAccess):
        asked = 0

        async def exchange(self, subject_token: str) -> tuple[str, dt.datetime]:
            Counted.asked += 1
            return await super().exchange(subject_token)

    server = ApiServer(f"{world.api}/api/token", world.config.sites[-1].client_id, "dmp", "psc")
    actor = world.actor(await world.professional(), Counted(world.http, world.tls, server, SystemClock()))
    await asyncio.gather(*(world.dmp.existence(actor, PATIENT) for _ in range(5)))
    assert Counted.asked == 1


async def test_without_a_token_the_api_is_shut(world: World) -> None:
    with pytest.raises(Rejected):
        await world.dmp.existence(world.actor(await world.professional(), None), PATIENT)
    # The PSC token is not one of the API.
    plain = world.actor(await world.professional(), world.access(endpoint=""))
    with pytest.raises(Rejected):
        await world.dmp.existence(plain, PATIENT)


async def test_the_token_and_the_vihf_are_of_one_person(world: World) -> None:
    actor = world.actor(await world.professional(), world.access())
    other = await world.professional("bideault")
    with pytest.raises(Rejected):
        await world.dmp.existence(replace(actor, bearer=other.bearer("b", world.access())), PATIENT)


async def test_the_token_and_the_connection_are_of_one_certificate(world: World) -> None:
    professional = await world.professional()
    with pytest.raises(Rejected):
        await world.dmp.existence(world.actor(professional, world.access(tls=world.tls_of_a)), PATIENT)


@pytest.mark.parametrize("wrong", [{"scope": "autre"}, {"subject_issuer": "autre"}])
async def test_an_exchange_that_is_not_as_the_api_wants_it(world: World, wrong: dict[str, str]) -> None:
    actor = world.actor(await world.professional(), world.access(**wrong))
    with pytest.raises(DrimboxError) as refused:
        await world.dmp.existence(actor, PATIENT)
    assert refused.value.code in ("api-token", "psc-client")


async def test_a_login_that_has_ended_consults_nothing_more(world: World) -> None:
    professional = await world.professional()
    actor = world.actor(professional, world.access())
    await world.dmp.existence(actor, PATIENT)
    professional.end()
    # The API's own token would live for four hours.
    with pytest.raises(Rejected) as ended:
        await world.dmp.existence(actor, PATIENT)
    assert ended.value.code == "login-ended"

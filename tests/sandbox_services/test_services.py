"""All services on loopback, as the demonstration and any outside client find them."""

from __future__ import annotations

import base64
import json
import signal
import ssl
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from lxml import etree

from drimbox.foundation.errors import DrimboxError
from drimbox.foundation.http_client import HttpClient
from drimbox.sandbox.issuing import site_certificates
from drimbox.sandbox.listeners import caller_context
from drimbox.sandbox.pki import TestAuthority
from drimbox.sandbox.services import run_services
from drimbox.sandbox.sites import SITE_A, ServicesConfig, config_from_json, config_to_json

NS = {"l": "https://github.com/ansforge/DRIM-M_DATA"}


async def test_an_outside_client_can_join_in(config: ServicesConfig) -> None:
    async with run_services(config) as endpoints, HttpClient() as http:
        told = json.loads(json.dumps(endpoints.as_json()))
        authority = TestAuthority(config.state / "pki")
        tls = caller_context(authority, site_certificates(authority, config.sites[1]).psc)

        discovery = json.loads((await http.send("GET", told["psc_discovery"], tls=tls)).body)
        assert discovery["issuer"] == told["psc_issuer"]
        assert discovery["authorization_endpoint"] == f"https://localhost:{config.wallet_port}/auth"

        wanted = json.dumps({"user": "doc0036790", "client_id": "drimbox-site-b"}).encode()
        headers = {"Content-Type": "application/json"}
        given = await http.send("POST", f"{told['psc_helpers']}/token", tls=tls, headers=headers, body=wanted)
        token = json.loads(given.body)["access_token"]
        form = f"client_id=drimbox-site-b&token={token}".encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await http.send("POST", discovery["introspection_endpoint"], tls=tls, headers=headers, body=form)
        read = json.loads(answer.body)
        assert read["active"] is True
        assert len(base64.urlsafe_b64decode(read["cnf"]["x5t#S256"] + "=")) == 32
        assert answer.status == 200

        listed = etree.fromstring((await http.send("GET", told["whitelist"], tls=tls)).body)
        assert listed.find("{http://www.w3.org/2000/09/xmldsig#}Signature") is not None
        operators = [e.text for e in listed.iterfind(".//l:DNCertificatOperateur", NS)]
        assert operators == [told["sites"][key]["operator_dn"] for key in ("a", "b")]
        assert operators[1] == "CN=DRIMbox,OU=499700367909006,O=CABINET M DOC0036790,ST=Paris (75),C=FR"


async def test_the_login_page_asks_browsers_for_no_certificate(config: ServicesConfig) -> None:
    async with run_services(config) as endpoints, HttpClient() as http:
        tls = caller_context(TestAuthority(endpoints.roots.parent))
        reply = await http.send("GET", f"https://localhost:{config.wallet_port}/auth", tls=tls)
        assert reply.status == 400
        with pytest.raises(DrimboxError):
            await http.send("GET", endpoints.whitelist, tls=ssl.create_default_context())


@pytest.mark.requirement("D15")
async def test_the_dmp_lets_in_structures_only(config: ServicesConfig) -> None:
    async with run_services(config) as endpoints, HttpClient() as http:
        authority = TestAuthority(endpoints.roots.parent)
        headers = {"Content-Type": "application/soap+xml; charset=UTF-8"}
        with pytest.raises(DrimboxError):
            await http.send(
                "POST", endpoints.dmp_registry, tls=caller_context(authority), headers=headers, body=b"<a/>"
            )
        structure = caller_context(authority, endpoints.sites["b"].certificates.auth)
        for address in (
            endpoints.dmp_registry,
            endpoints.dmp_repository,
            endpoints.dmp_patients,
            endpoints.dmp_habilitations,
        ):
            reply = await http.send("POST", address, tls=structure, headers=headers, body=b"<a/>")
            assert b"Fault" in reply.body, "judged, and refused"
        assert (await http.send("GET", endpoints.dmp_registry, tls=structure)).status == 405
        log = await http.send("GET", f"{endpoints.dmp_view}/log", tls=caller_context(authority))
        assert len(json.loads(log.body)) == 4
        held = json.loads((await http.send("GET", f"{endpoints.dmp_view}/documents", tls=structure)).body)
        assert {document["mime"] for document in held} == {"text/xml"}, "only what the RIS published by itself"


async def test_a_restart_keeps_keys_and_certificates(config: ServicesConfig) -> None:
    seen = []
    for _ in range(2):
        async with run_services(config) as endpoints, HttpClient() as http:
            tls = caller_context(TestAuthority(endpoints.roots.parent))
            keys = await http.send("GET", f"{endpoints.psc_issuer}/protocol/openid-connect/certs", tls=tls)
            pair = endpoints.sites["a"].certificates.sign
            seen.append((keys.body, pair.certificate.read_bytes(), endpoints.roots.read_bytes()))
    assert seen[0] == seen[1]


def test_a_certificate_follows_its_site(state: Path) -> None:
    authority = TestAuthority(state / "other-pki")
    before = site_certificates(authority, SITE_A).db.certificate.read_bytes()
    same = site_certificates(authority, SITE_A).db.certificate.read_bytes()
    moved = site_certificates(authority, replace(SITE_A, db_host="db1.test.mesimagesmedicales.fr"))
    leaf = x509.load_pem_x509_certificate(moved.db.certificate.read_bytes())
    assert before == same
    assert leaf.subject.rfc4514_string().startswith("CN=db1.test.mesimagesmedicales.fr,OU=1750803447,")
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["db1.test.mesimagesmedicales.fr", "localhost"]


def test_the_configuration_travels_as_json(config: ServicesConfig) -> None:
    assert config_from_json(config_to_json(config)) == config
    with_schemas = replace(config, schemas=Path("schemas"), wallet_port=None)
    assert config_from_json(config_to_json(with_schemas)) == with_schemas
    assert config_from_json('{"state": "x"}') == ServicesConfig(Path("x"))
    for wrong in ("", "{", '{"state": "x", "autre": 1}', "[]"):
        with pytest.raises((ValueError, TypeError)):
            config_from_json(wrong)


def test_the_process_stops_when_told(config: ServicesConfig) -> None:
    program = (
        "import sys; from drimbox.sandbox.services import main_services; "
        "from drimbox.sandbox.sites import config_from_json; "
        "main_services(config_from_json(sys.argv[1]), ready=lambda e: print(e.psc_issuer, flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, config_to_json(config)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == f"https://localhost:{config.psc_port}/auth/realms/esante-wallet"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=15) == 0
        finally:
            process.kill()

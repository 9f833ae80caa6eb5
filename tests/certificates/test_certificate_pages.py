"""The console's page about the market certificate: for administrators alone, and what they order happens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from lxml import html

from certificates.acme_world import HOST, SECRET, MovedClock, Pebble, authority_of
from certificates.strict_ca import issue, make_issuer
from console.console_world import Site, open_site, text_of
from drimbox.certificates import records, trouble
from drimbox.certificates.acts import CertificateActs
from drimbox.certificates.requests import new_key
from drimbox.certificates.rules import Rules
from drimbox.certificates.schedule import Trouble
from drimbox.console.advice import advice_for
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.http_client import HttpClient
from drimbox.publication.incidents import Incidents
from drimbox.record.audit import Journal
from drimbox.store.database import Pool
from drimbox.trust.vault import Vault

ROOT = make_issuer("Racine de marché")
NAMES: list[x509.GeneralName] = [x509.DNSName(HOST)]


@asynccontextmanager
async def console_on(pool: Pool, pebble: Pebble | None = None) -> AsyncIterator[tuple[Site, CertificateActs]]:
    clock = SystemClock()
    roots = pebble.roots() if pebble is not None else (ROOT.certificate,)
    async with HttpClient() as http:
        known = [authority_of(pebble, http, MovedClock())] if pebble is not None else []
        rules = Rules(HOST, roots, () if pebble is not None else ("DV", "OV"))
        acts = CertificateActs(pool, rules, Vault(SECRET), clock, Journal(pool), Incidents(pool, clock), known)
        async with open_site(pool, certificates=acts, clock=clock) as site:
            yield site, acts


async def pem_to_paste(acts: CertificateActs, number: int, **lies: object) -> str:
    request = next(r for r in (await acts.state()).requests if r.id == number).signing_request
    return issue(ROOT, request.public_key(), NAMES, **lies).public_bytes(Encoding.PEM).decode()


@pytest.mark.requirement("DB.SO.90", "SSI/GEN.16")
async def test_only_administrators_and_only_where_it_is_configured(pool: Pool) -> None:
    places = ("", "/commander", "/demander", "/installer", "/revoquer", "/cle-de-compte", "/demandes/1/retirer")
    async with console_on(pool) as (site, acts):
        for role in ("operator", "reader", "nobody"):
            browser = await site.logged_in(role)
            assert "Certificat" not in text_of(await browser.get("/deconnexion"))
            assert (await browser.get("/certificats")).status_code == 403
            assert (await browser.get("/certificats/demandes/1")).status_code == 403
            for place in places[1:]:
                assert (await browser.post(f"/certificats{place}", cle="P-256")).status_code == 403
        assert (await site.browser().get("/certificats")).url.path == "/connexion"
        assert (await acts.state()).requests == ()
        # A form of another site is refused, whoever is logged in.
        administrator = await site.logged_in("administrator")
        forged = await administrator.send("POST", "/certificats/demander", {"cle": "P-256", "jeton": "x"})
        assert forged.status_code == 400
        assert (await acts.state()).requests == ()
    async with open_site(pool) as site:
        browser = await site.logged_in("administrator")
        assert (await browser.get("/certificats")).status_code == 404


@pytest.mark.requirement("DB.SO.90")
async def test_a_request_is_made_downloaded_and_its_certificate_installed(pool: Pool) -> None:
    async with console_on(pool) as (site, acts):
        browser = await site.logged_in("administrator")
        page = text_of(await browser.get("/certificats"))
        assert "Aucun certificat" in page
        assert "numéro SIREN" in page
        assert (await browser.post("/certificats/demander", cle="DSA")).status_code == 404
        await browser.post("/certificats/demander", cle="P-256", organisme="Centre <d'imagerie> & Cie")
        await browser.post("/certificats/demander", cle="RSA-2048")
        answer = await browser.get("/certificats/demandes/1")
        assert answer.headers["content-type"] == "application/pkcs10"
        assert f'filename="{HOST}-1.csr"' in answer.headers["content-disposition"]
        request = x509.load_pem_x509_csr(answer.content)
        [organisation] = request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        assert organisation.value == "Centre <d'imagerie> & Cie"
        assert (await browser.get("/certificats/demandes/9")).status_code == 404

        wrong = await pem_to_paste(acts, 1, policy="2.23.140.1.1", cn="autre.example.org")
        answer = await browser.post("/certificats/installer", certificat=wrong)
        assert answer.status_code == 400
        told = html.fromstring(answer.content).xpath("//*[@role='alert']//li/text()")
        assert told == [
            f"Le nom commun (CN) du sujet n'est pas {HOST} : demandez le certificat à ce nom seul.",
            "Le certificat est de niveau EV : demandez à l'autorité un certificat DV ou OV.",
        ]
        # What was typed is still there, as text.
        assert wrong.strip() in str(html.fromstring(answer.content).xpath("//textarea/text()")[0]).replace("\r\n", "\n")
        for text in ("", "<script>", "é" * 300, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"):
            answer = await browser.post("/certificats/installer", certificat=text)
            assert answer.status_code == 400
            assert "Aucun certificat lisible" in text_of(answer)
        secret = "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----"
        answer = await browser.post("/certificats/installer", certificat=wrong + secret)
        assert "Une clé privée a été collée" in text_of(answer)
        assert "secret\n" not in answer.text
        stranger = issue(ROOT, new_key("P-256").public_key(), NAMES).public_bytes(Encoding.PEM).decode()
        answer = await browser.post("/certificats/installer", certificat=stranger)
        assert "ne répond à aucune demande" in text_of(answer)

        right = await pem_to_paste(acts, 1)
        assert (await browser.post("/certificats/installer", certificat=right)).status_code == 303
        page = text_of(await browser.get("/certificats"))
        assert "Certificat installé, valable jusqu'au" in page
        assert "Demande n° 1" not in page
        assert "à la main, à partir du" in page
        assert (await browser.post("/certificats/demandes/2/retirer")).status_code == 303
        assert (await browser.post("/certificats/demandes/2/retirer")).status_code == 404
        # Nothing to revoke with here: the authority that issued it is not one of ours.
        answer = await browser.post("/certificats/revoquer", numero="1", motif="superseded", confirme="oui")
        assert answer.status_code == 400
        details = [e.objects[0].detail for e in await site.traced("CONFIGURATION_CHANGED")]
        assert details[:3] == ["certificate-request:1", "certificate-request:2", "installed"]


@pytest.mark.requirement("DB.SO.90")
async def test_what_is_asked_for_and_what_is_revoked(pool: Pool, pebble: Pebble) -> None:
    async with console_on(pool, pebble) as (site, acts):
        browser = await site.logged_in("administrator")
        assert (await browser.post("/certificats/commander")).status_code == 303
        page = text_of(await browser.get("/certificats"))
        assert "Commande demandée le" in page
        assert "par Administrator Essai" in page
        async with pool.connection() as connection:
            assert (await records.plan(connection, HOST)).asked_by == "Administrator Essai"
            key = new_key("P-256")
            leaf = issue(ROOT, key.public_key(), NAMES)
            await records.install(
                connection,
                host=HOST,
                directory=pebble.directory,
                certificates=[leaf],
                key=Vault(SECRET).seal(key, f"market certificate {HOST}"),
                by="essai",
                now=acts.clock.now(),
            )
        answer = await browser.post("/certificats/revoquer", numero="1", motif="superseded")
        assert answer.status_code == 404
        assert "pas confirmée" in text_of(answer)
        for fields in ({"numero": "x", "confirme": "oui"}, {"numero": "7", "confirme": "oui", "motif": "superseded"}):
            assert (await browser.post("/certificats/revoquer", **fields)).status_code in (400, 404)
        # Pebble does not know this one: its own words are shown.
        answer = await browser.post(
            "/certificats/revoquer", numero="1", motif="superseded", confirme="oui", par="certificat"
        )
        assert answer.status_code == 400
        assert "Réponse de l’autorité" in text_of(answer)
        assert (await browser.post("/certificats/cle-de-compte", autorite="x")).status_code == 400
        assert (await browser.post("/certificats/cle-de-compte", autorite="")).status_code == 303
        assert "clé changée le" in text_of(await browser.get("/certificats"))


@pytest.mark.requirement("DB.SO.21", "DB.SO.90")
async def test_a_failure_in_the_queue_has_its_reason_and_its_button(pool: Pool) -> None:
    async with console_on(pool) as (site, acts):
        clock = acts.clock
        async with pool.connection() as connection:
            met = Trouble(2, clock.now().replace(year=2099))
            await records.tried(
                connection, HOST, now=clock.now(), outcome="Essai : en panne.", troubles={"x": met}, still_asked=False
            )
            for code in (trouble.ORDER, trouble.LATE, trouble.BY_HAND, trouble.LISTENER, trouble.SERVED):
                await trouble.tell(connection, acts.incidents, code, f"Motif de {code}.")
        # The same again is one line, with a history when it says something new.
        async with pool.connection() as connection:
            await trouble.tell(connection, acts.incidents, trouble.ORDER, f"Motif de {trouble.ORDER}.")
            await trouble.tell(connection, acts.incidents, trouble.ORDER, "Un autre motif.")
        lines = {line.code: line for line in await acts.incidents.list()}
        assert len(lines) == 5
        assert [step.text for step in lines[trouble.ORDER].history] == [f"Motif de {trouble.ORDER}.", "Un autre motif."]
        for line in lines.values():
            assert "message a été refusé" not in advice_for(line).text
        browser = await site.logged_in("operator")
        page = await browser.get(f"/file/{lines[trouble.ORDER].id}")
        assert "Motif de market-order." in text_of(page)
        assert "Commande le certificat maintenant." in text_of(page)
        await browser.submit(page, "/reessayer")
        async with pool.connection() as connection:
            plan = await records.plan(connection, HOST)
        assert plan.asked_at is not None
        assert plan.troubles == {}
        assert "le certificat est commandé" in text_of(await browser.get(f"/file/{lines[trouble.ORDER].id}"))
        for code in (trouble.BY_HAND, trouble.LISTENER, trouble.SERVED):
            assert "Réessayer" not in html_forms(await browser.get(f"/file/{lines[code].id}"))
        # Once it is over, every line closes by itself.
        await trouble.over(acts.incidents, "Certificat installé.")
        assert await acts.incidents.list() == ()


async def test_nothing_of_a_peer_is_markup(pool: Pool) -> None:
    async with console_on(pool) as (site, acts):
        async with pool.connection() as connection:
            outcome = "<img src=x onerror=alert(1)>\u202e"
            await records.tried(connection, HOST, now=acts.clock.now(), outcome=outcome, troubles={}, still_asked=False)
        browser = await site.logged_in("administrator")
        page = await browser.get("/certificats")
        assert b"<img src=x" not in page.content
        assert "\u202e" not in page.text


def html_forms(page) -> str:  # type: ignore[no-untyped-def]
    return " ".join(" ".join(f.itertext()) for f in html.fromstring(page.content).xpath("//main//form"))

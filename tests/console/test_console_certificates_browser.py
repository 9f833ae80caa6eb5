"""The page about the market certificate in a real browser: by keyboard, readable, on wide and narrow screens."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from test_console_browser import Scene, scene  # noqa: F401 - a fixture

from browsing import CHROMIUM
from certificates.acme_world import HOST, SECRET
from certificates.strict_ca import issue, make_issuer
from drimbox.certificates import records
from drimbox.certificates.accounts import Authority
from drimbox.certificates.acme.client import AcmeClient
from drimbox.certificates.acts import CertificateActs
from drimbox.certificates.requests import new_key
from drimbox.certificates.rules import Rules
from drimbox.certificates.schedule import Trouble
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_guard import Guard
from drimbox.record.audit import Journal
from drimbox.trust.chain import TrustStore
from drimbox.trust.tls import client_context
from drimbox.trust.vault import Vault

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed")]
ROOT = make_issuer("Racine de marché")


@pytest.mark.requirement("DB.SO.90")
async def test_an_administrator_looks_after_the_certificate(scene: Scene) -> None:  # noqa: F811
    site, clock = scene.site, SystemClock()
    tls = client_context(TrustStore((ROOT.certificate,)))
    known = [
        Authority(name, AcmeClient(HttpClient(), tls, f"https://acme.{name.lower()}.example/directory", clock))
        for name in ("Première", "Seconde")
    ]
    acts = CertificateActs(
        site.pool,
        Rules(HOST, (ROOT.certificate,)),
        Vault(SECRET),
        clock,
        Journal(site.pool),
        site.desk.incidents,
        known,
    )
    assert isinstance(site.app, Guard)
    site.app._app.state.desk = replace(site.desk, certificates=acts)  # type: ignore[attr-defined]
    await site.person("administrator")
    page = await scene.page()
    await scene.log_in(page, "administrator.essai")
    await page.get_by_role("link", name="Certificat").click()
    await scene.looked_at(page, "certificates-none")

    form = page.get_by_role("region", name="Autorité sans ACME")
    await form.get_by_label("Type de clé").select_option("P-384")
    await form.get_by_label("Raison sociale").fill("Centre d'imagerie de l'Étoile")
    await page.keyboard.press("Enter")
    await page.get_by_role("status").first.wait_for()
    async with page.expect_download() as download:
        await page.get_by_role("link", name="télécharger la demande n° 1").click()
    assert (await download.value).suggested_filename == f"{HOST}-1.csr"
    [request] = (await acts.state()).requests
    names = [x509.DNSName(HOST)]
    wrong = issue(ROOT, request.signing_request.public_key(), [*names, x509.DNSName("b.example.org")], policy="")
    field = page.get_by_label("Le certificat, puis sa chaîne (PEM)")
    await field.fill(wrong.public_bytes(Encoding.PEM).decode())
    await page.get_by_role("button", name="Vérifier et installer").click()
    assert "porte plusieurs noms" in await page.get_by_role("alert").inner_text()
    await scene.looked_at(page, "certificates-refused")
    right = issue(ROOT, request.signing_request.public_key(), list(names))
    await field.fill(right.public_bytes(Encoding.PEM).decode())
    await page.get_by_role("button", name="Vérifier et installer").click()
    assert "Certificat installé" in await page.get_by_role("status").first.inner_text()

    async with site.pool.connection() as connection:
        key, now = new_key("P-256"), clock.now()
        await records.add_account(connection, known[0].directory, b"x", now)
        await records.account_is(connection, known[0].directory, "https://acme.example/account/1")
        await records.install(
            connection,
            host=HOST,
            directory=known[0].directory,
            certificates=[issue(ROOT, key.public_key(), list(names))],
            key=Vault(SECRET).seal(key, f"market certificate {HOST}"),
            by="drimbox",
            now=now,
        )
        held = Trouble(1, now + dt.timedelta(hours=5), imposed=True)
        await records.tried(
            connection,
            HOST,
            now=now,
            outcome="Première : L'autorité demande d'attendre (limite de son service) [rateLimited: too many].",
            troubles={known[0].directory: held},
            still_asked=False,
        )
    await page.get_by_role("link", name="Actualiser").click()
    await page.get_by_role("button", name="Renouveler maintenant").click()
    assert "demandée" in await page.get_by_role("status").first.inner_text()
    await scene.looked_at(page, "certificates")
    await page.get_by_role("button", name="Révoquer").click()
    # Not confirmed: the browser asks for it.
    assert await page.locator("input[name=confirme]:invalid").count() == 1
    assert page.url.endswith("/certificats")

"""The archived studies: found by every identifier but the patient's, with all their versions."""

from __future__ import annotations

import datetime as dt
import ssl
import time
from dataclasses import replace
from pathlib import Path

import pytest
from console_world import STUDY, Site, text_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import html

from drimbox.foundation.clock import FixedClock
from drimbox.foundation.http_client import HttpClient
from drimbox.national.dmp.actor import Actor, DmpEndpoints, Software, VihfIdentity
from drimbox.national.dmp.client import DmpClient
from drimbox.national.dmp.metadata import Device
from drimbox.publication.ports import Draft
from drimbox.publication.ports import Site as PublishingSite
from drimbox.publication.registry import DmpRegistry, DmpStructure
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.trust.keystore import load_credential
from publication.publication_examples import AMBROISE, NOW, down, letter_of, report_of, study_of


@pytest.fixture(scope="session")
def registry(authority: TestAuthority) -> DmpRegistry:
    """Prepares real submissions; nothing is ever sent."""
    pair = authority.issue(
        Profile.ORG_SIGN, "console-sign", common_name="DRIMbox", unit="1750803447", organisation="AMBROISE"
    )
    sign = load_credential(pair.certificate, pair.key)
    client = DmpClient(
        HttpClient(),
        DmpEndpoints(*["https://dmp.example.test/"] * 4),
        Software("drimbox", "0.1.0", "DRB-000000-tmp1", "drimbox-1"),
        FixedClock(NOW),
        vihf_version="3.0",
        vihf_algorithm="rsa-sha256",
        signature_algorithm="rsa-sha256",
        source_id="1.2.250.1.999.1.1.9000",
        timeout=10,
        test=True,
    )

    def actor(identity: VihfIdentity, *, secret_connection: bool = False) -> Actor:
        return Actor(identity, ssl.create_default_context(), sign, secret_connection)

    return DmpRegistry(
        client, {"ambroise": DmpStructure("SA08", actor)}, device=Device("31750803447/drimbox-1", "drimbox")
    )


def submission_of(registry: DmpRegistry, accession: str = "ACN105") -> bytes:
    """The octets of a real submission of the study under that accession number."""
    report = report_of()
    [order] = [o for o in report.orders if o.accession.value == "ACN105"]
    orders = (replace(order, accession=replace(order.accession, value=accession)),)
    place = PublishingSite("ambroise", AMBROISE, ())
    draft = Draft(place, report, study_of(), orders, "2.25.7", b"DICM", NOW)
    return registry.prepare(draft, registry.identity(place, report, NOW), None).metadata


async def archive_under(site: Site, metadata: bytes) -> None:
    """Give the versions of the study the metadata of a real submission."""
    async with site.pool.connection() as connection:
        await connection.execute("UPDATE publication SET metadata = %s WHERE study_uid = %s", (metadata, STUDY))


@pytest.mark.requirement("DB.SO.22")
async def test_a_study_is_found_by_each_of_its_identifiers(site: Site, registry: DmpRegistry) -> None:
    await site.world.run(letter_of())
    current = await site.world.current()
    assert current is not None
    await archive_under(site, submission_of(registry))
    browser = await site.logged_in()
    for text in (STUDY, f"  {STUDY} ", current.kos_uid, current.document_ids[0], "ACN105"):
        await browser.submit(await browser.get("/examens"), "/examens", recherche=text)
        assert browser.path == f"/examens/{STUDY}", text
    for text in ("ACN", "ACN1055", "acn105 ", "279035121518989", "PAT-TROIS", "IPP101", "%", "", "\x00", "é" * 200):
        page = await browser.submit(await browser.get("/examens"), "/examens", recherche=text)
        assert "Aucun examen connu ici" in text_of(page), text


async def test_any_accession_number_finds_its_study(site: Site, registry: DmpRegistry) -> None:
    await site.world.run(letter_of())
    browser = await site.logged_in()
    form = await browser.get("/examens")
    for accession in ("A&B<1>", "n\"1'", "É-1", "a\\b", "x'); DROP TABLE account;--", "{1,2}"):
        await archive_under(site, submission_of(registry, accession))
        await browser.submit(form, "/examens", recherche=accession)
        assert browser.path == f"/examens/{STUDY}", accession


@pytest.mark.requirement("DB.SO.22")
async def test_every_version_is_there_with_its_dates(site: Site) -> None:
    letter = letter_of()
    await site.world.run(letter)
    site.world.pacs.hold(study_of(images=5))
    site.clock.advance(3600)
    await site.world.run(letter.corrected("1.2.250.1.213.4.5.4.4052", "M2"))
    await site.world.run(replace(letter.corrected("1.2.250.1.213.4.5.4.4052", "M3"), operation="delete"))
    browser = await site.logged_in()
    page = await browser.get(f"/examens/{STUDY}")
    states = html.fromstring(page.content).xpath("//table//tbody/tr/td[1]/text()")
    assert states == ["retirée du DMP", "remplacée"]
    text = text_of(page)
    assert "14/07/2026 à 11:31:12" in text
    assert "remplace la n° 1" in text
    assert "1.2.250.1.213.4.5.4.4052" in text
    for health in ("PAT-TROIS", "279035121518989", "IPP101"):
        assert health not in page.text


async def test_a_study_that_was_never_published_is_known_by_what_waits(site: Site) -> None:
    site.world.pacs.studies.clear()
    report = report_of()
    await site.world.run(letter_of())
    browser = await site.logged_in()
    for text in (STUDY, report.document_id):
        page = await browser.submit(await browser.get("/examens"), "/examens", recherche=text)
        assert browser.path == f"/examens/{STUDY}"
    assert "Rien n’a jamais été publié" in text_of(page)
    assert "Aucun PACS de la structure" in text_of(page)


async def test_too_many_answers_are_said_to_be_cut(site: Site) -> None:
    async with site.pool.connection() as connection:
        await connection.execute(
            "INSERT INTO reported_study (structure, study_uid, last_report_id, documents) "
            "SELECT 'ambroise', '1.2.' || n, %s, '{1.2.3}' FROM generate_series(1, 80) n",
            (await site.world.receive(letter_of()),),
        )
    browser = await site.logged_in()
    page = await browser.submit(await browser.get("/examens"), "/examens", recherche="1.2.3")
    assert len(html.fromstring(page.content).xpath("//tbody/tr")) == 50
    assert "seuls les plus récents" in text_of(page)


async def test_unknown_studies_are_unknown(site: Site) -> None:
    browser = await site.logged_in()
    for place in ("1.2.3", "abc", "1.02", "%3Cscript%3E", "1." * 40):
        page = await browser.get(f"/examens/{place}")
        assert page.status_code == 404


async def test_a_study_is_brought_in_accordance_by_hand(site: Site) -> None:
    await site.world.run(letter_of())
    browser = await site.logged_in()
    page = await browser.submit(await browser.get(f"/examens/{STUDY}"), "/resynchroniser")
    assert "Resynchronisation demandée" in text_of(page)
    assert "Travail en file, comparaison avec le PACS et le DMP" in text_of(page)
    [event] = await site.traced("QUEUE_ACTED")
    assert (event.structure, event.objects[0].identifier) == ("ambroise", STUDY)
    assert (await browser.post(f"/examens/{STUDY}/resynchroniser", structure="other")).status_code == 404
    site.world.pacs.error = down()


@given(st.binary(max_size=400) | st.text(max_size=400).map(lambda t: t.encode("utf-8", "replace")))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
async def test_no_metadata_whatever_makes_an_archiving_fail(dsn: str, octets: bytes) -> None:
    import psycopg

    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        row = await (await connection.execute("SELECT accessions_of(%s)", (octets,))).fetchone()
    assert row is not None
    assert isinstance(row[0], list)


async def test_finding_accession_numbers_costs_the_archive_little(
    site: Site, registry: DmpRegistry, tmp_path: Path
) -> None:
    metadata = submission_of(registry)
    async with site.pool.connection() as connection:
        began = time.perf_counter()
        await connection.execute(
            "SELECT accessions_of(%s || convert_to(n::text, 'UTF8')) FROM generate_series(1, 100) n", (metadata,)
        )
        each = (time.perf_counter() - began) / 100
    assert len(metadata) > 5_000
    assert each < 0.02, dt.timedelta(seconds=each)

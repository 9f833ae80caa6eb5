"""The journal's pages: for auditors alone, what they look for in no address, everything they do traced; statistics."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from console_world import INSTALLER, ORIGIN, STUDY, Site, open_site, text_of
from lxml import html

from drimbox.console.journal import PAGE_EVENTS, JournalRoom
from drimbox.foundation.clock import FixedClock
from drimbox.identity.ins import Ins
from drimbox.record.audit import Actor, Event, Journal, Kind, Object, Thing
from drimbox.record.keeper import Conduct, JournalKeeper
from drimbox.record.pseudonym import PatientKey
from drimbox.record.seals import Sealer
from drimbox.store.database import Pool
from publication.publication_examples import NOW, letter_of

MATRICULE, OID = "279035121518989", "1.2.250.1.213.1.4.10"
PATIENT = Ins.of(MATRICULE, OID)
DOCTOR = Actor(person="899700218896", name="PAUL DOC0021889", profession="10", address="192.0.2.7", system="=cmd()")
KEY = PatientKey(b"k" * 32)


def room_on(pool: Pool, alarm: Callable[[str], Awaitable[None]] | None = None, keep_days: int = 1096) -> JournalRoom:
    async def silent(reason: str) -> None:
        raise AssertionError(reason)

    journal = Journal(pool, KEY)
    keeper = JournalKeeper(pool, KEY, journal, FixedClock(NOW), Conduct(keep_days=keep_days), alarm or silent)
    return JournalRoom(journal, keeper, "test")


@asynccontextmanager
async def audited(pool: Pool, **options: object) -> AsyncIterator[Site]:
    async with open_site(pool, journal_room=room_on(pool, **options)) as site:  # type: ignore[arg-type]
        yield site


async def served(pool: Pool, count: int = 1, patient: Ins | None = PATIENT, study: str = STUDY) -> None:
    journal = Journal(pool, KEY)
    for _ in range(count):
        event = Event(Kind.IMAGES_SERVED, DOCTOR, (Object(Thing.STUDY, study, "3 images"),), patient=patient)
        await journal.write(None, event)


@pytest.mark.requirement("DB.CS.10")
async def test_an_auditor_finds_by_patient_professional_and_document(pool: Pool) -> None:
    async with audited(pool) as site:
        await served(pool)
        await served(pool, patient=None, study="1.2.3")
        browser = await site.logged_in("auditor")
        assert browser.path == "/journal"
        page = await browser.get("/journal")
        assert "aucune pour l’instant" in text_of(page)
        for fields, expected in (
            ({"matricule": "2 79 03 51 215 189 89", "oid": OID}, 1),
            ({"personne": "899700218896"}, 2),
            ({"identifiant": "1.2.3"}, 1),
            ({"nature": "IMAGES_SERVED"}, 2),
            ({"nature": "IMAGES_SERVED", "personne": "899700218896", "identifiant": STUDY}, 1),
            ({"nature": "IMAGES_SERVED", "du": "2000-01-01", "au": "2000-12-31"}, 0),
            ({"personne": "' OR 1=1 --"}, 0),
        ):
            found = await browser.submit(page, "/journal", **fields)
            rows = html.fromstring(found.content).xpath("//table[@class='rows']/tbody/tr")
            assert len(rows) == expected, fields
            assert browser.path == "/journal"
            assert MATRICULE not in browser.path
        text = text_of(await browser.submit(page, "/journal", identifiant=STUDY))
        assert "Images servies" in text
        assert "PAUL DOC0021889" in text
        assert MATRICULE not in text
        # Everything of one piece of work, from the line itself.
        found = await browser.submit(page, "/journal", identifiant="1.2.3")
        [form] = [f for f in html.fromstring(found.content).forms if f.fields.get("travail") and f.action == "/journal"]
        work = await browser.send("POST", "/journal", dict(form.fields))
        assert len(html.fromstring(work.content).xpath("//table[@class='rows']/tbody/tr")) == 1


@pytest.mark.requirement("DB.CS.10", "DB.CS.08")
async def test_who_reads_the_journal_is_in_it(pool: Pool) -> None:
    async with audited(pool) as site:
        await served(pool)
        browser = await site.logged_in("auditor")
        page = await browser.get("/journal")
        await browser.submit(page, "/journal", matricule=MATRICULE, oid=OID, nature="IMAGES_SERVED")
        found = await browser.submit(page, "/journal", nature="AUDIT_READ")
        assert len(html.fromstring(found.content).xpath("//table[@class='rows']/tbody/tr")) == 1
        text = text_of(found)
        assert "local:auditor.essai" in text
        assert "110104/RAD-107" in text
        assert MATRICULE not in found.text
        async with pool.connection() as connection:
            rows = await (await connection.execute("SELECT row_to_json(audit)::text AS t FROM audit")).fetchall()
        assert not [row for row in rows if MATRICULE in row["t"]]


@pytest.mark.requirement("DB.CS.10")
async def test_pages_go_on_and_an_export_holds_them_all(pool: Pool) -> None:
    async with audited(pool) as site:
        await served(pool, PAGE_EVENTS + 20)
        browser = await site.logged_in("auditor")
        page = await browser.submit(await browser.get("/journal"), "/journal", nature="IMAGES_SERVED", matricule="")
        assert len(html.fromstring(page.content).xpath("//table[@class='rows']/tbody/tr")) == PAGE_EVENTS
        [older] = [f for f in html.fromstring(page.content).forms if f.fields.get("avant")]
        second = await browser.send("POST", "/journal", dict(older.fields))
        assert len(html.fromstring(second.content).xpath("//table[@class='rows']/tbody/tr")) == 20
        assert "Revenir aux plus récentes" in text_of(second)
        answer = await browser.submit(page, "/journal/export")
        assert answer.headers["content-disposition"].startswith('attachment; filename="drimbox-journal-')
        lines = list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig")), delimiter=";"))
        assert len(lines) == 1 + PAGE_EVENTS + 20
        line = dict(zip(lines[0], lines[1], strict=True))
        assert line["personne"] == "899700218896"
        # A peer that is called like a formula does not become one.
        assert line["systeme"] == "'=cmd()"
        assert len(await site.traced("AUDIT_EXPORTED")) == 1


@pytest.mark.requirement("DB.CS.10")
async def test_what_cannot_be_looked_for_is_told_and_not_repeated_elsewhere(pool: Pool) -> None:
    async with audited(pool) as site:
        browser = await site.logged_in("auditor")
        page = await browser.get("/journal")
        for fields, told in (
            ({"matricule": "279035121518988", "oid": OID}, "Clé du matricule INS fausse"),
            ({"matricule": "x" * 15, "oid": OID}, "mal formé"),
            ({"matricule": MATRICULE, "oid": "1.2.3"}, "OID de l'INS inconnu"),
            ({"du": "14/07/2026"}, "AAAA-MM-JJ"),
            ({"du": "9999-01-01"}, "hors du journal"),
            ({"nature": "RIEN"}, "Nature de trace inconnue"),
            ({"identifiant": "x" * 201}, "200 caractères"),
            ({"identifiant": "a\x00b"}, "illisible"),
        ):
            answer = await browser.submit(page, "/journal", **fields)
            assert answer.status_code == 400, fields
            assert told in text_of(answer)
            assert (await browser.submit(page, "/journal", **fields)).status_code == 400
        assert await site.traced("AUDIT_READ") == []
        # Another key than that of the journal: no empty answer.
        await served(pool)
        stranger = room_on(pool)
        object.__setattr__(stranger, "journal", Journal(pool, PatientKey(b"x" * 32)))
        async with open_site(pool, journal_room=stranger) as other:
            browser = other.browser()
            await browser.log_in("auditor.essai")
            answer = await browser.submit(await browser.get("/journal"), "/journal", matricule=MATRICULE, oid=OID)
            assert answer.status_code == 409
            assert "autre clé" in text_of(answer)


@pytest.mark.requirement("DB.CS.08")
async def test_the_page_shows_the_last_verification(pool: Pool) -> None:
    told: list[str] = []

    async def alarm(reason: str) -> None:
        told.append(reason)

    async with audited(pool, alarm=alarm) as site:
        await served(pool, 3)
        await Sealer(pool, KEY).seal()
        browser = await site.logged_in("auditor")

        async def verified() -> str:
            page = await browser.submit(await browser.get("/journal"), "/journal/verifier")
            assert "Vérification commencée" in text_of(page)
            room = site.desk.journal_room
            assert room is not None
            await room.keeper.finished()
            return text_of(await browser.get("/journal"))

        text = await verified()
        assert "par Auditor Essai : journal intègre" in text
        async with pool.connection() as connection:
            await connection.execute("ALTER TABLE audit DISABLE RULE audit_no_update")
            await connection.execute("UPDATE audit SET outcome = 12 WHERE id = 2")
            await connection.execute("ALTER TABLE audit ENABLE RULE audit_no_update")
        text = await verified()
        assert "journal altéré" in text
        assert "au moins une a été altérée" in text
        assert len(told) == 1
        assert "1096 jours au moins" in text


@pytest.mark.requirement("SSI/GEN.16")
async def test_operators_and_administrators_do_not_read_the_journal(pool: Pool) -> None:
    async with audited(pool) as site:
        for roles in ("nobody", "operator", "reader", "administrator"):
            browser = await site.logged_in(roles)
            assert (await browser.get("/journal")).status_code == 403
            for path in ("/journal", "/journal/export", "/journal/verifier"):
                assert (await browser.post(path, nature="LOGIN")).status_code == 403
        auditor = await site.logged_in("auditor")
        for path in ("/file", "/examens", "/comptes", "/reglages", "/statistiques"):
            assert (await auditor.get(path)).status_code == 403
        assert await site.traced("AUDIT_READ", "AUDIT_EXPORTED", "AUDIT_VERIFIED") == []
        # A form of another site is none.
        answer = await auditor.send("POST", "/journal", {"jeton": "x"}, follow=False, origin="https://evil.test")
        assert answer.status_code == 400
        assert ORIGIN


# --- statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.87")
async def test_statistics_of_a_period_and_their_files(pool: Pool) -> None:
    async with audited(pool) as site:
        await site.world.run(letter_of())
        journal = Journal(pool, KEY)
        call = Event(Kind.CONTEXTUAL_CALL, Actor(system="contextual-call"), structure="ambroise")
        await journal.write(None, call)
        await served(pool)
        browser = await site.logged_in("administrator")
        async with pool.connection() as connection:
            row = await (await connection.execute("SELECT (now() AT TIME ZONE 'Europe/Paris')::date AS d")).fetchone()
        assert row is not None
        period = f"du={row['d']}&au={row['d']}&par=day"
        page = await browser.get(f"/statistiques?{period}")
        rows = {
            cells[0]: cells[1:]
            for tr in html.fromstring(page.content).xpath("(//table)[1]/tbody/tr")
            if (cells := [cell.text_content().strip() for cell in tr])
        }
        assert rows["KOS publiés"] == ["1", "0", "–", "–"]
        assert rows["Appels contextuels"][0] == "1"
        assert rows["Demandes d'images"][0] == "1"
        assert "Centre de radiologie Ambroise" in text_of(page)
        lines = (await browser.get(f"/statistiques/lignes.csv?{period}")).content.decode("utf-8-sig").splitlines()
        assert lines[0].startswith("debut;fin;structure;mesure")
        assert any(line.endswith("KOS publiés;1;0;0;0") for line in lines)
        calls = (await browser.get(f"/statistiques/appels.csv?{period}")).content.decode("utf-8-sig").splitlines()
        assert calls[0] == "Date;Heure;Structure;Nombre_Appel;Statut_Appel"
        assert calls[1].endswith(";ambroise;1;succes")
        empty = await browser.get("/statistiques?du=2001-01-01&au=2001-01-31&par=month")
        assert "ne contient rien de cette période" in text_of(empty)
        for wrong in ("du=demain", "du=2026-02-02&au=2026-02-01", "du=1900-01-01&au=2026-01-01"):
            assert (await browser.get(f"/statistiques?{wrong}")).status_code == 400
            assert (await browser.get(f"/statistiques/lignes.csv?{wrong}")).status_code in (400, 409)
            assert (await browser.get(f"/statistiques/appels.csv?{wrong}")).status_code in (400, 409)
        assert INSTALLER

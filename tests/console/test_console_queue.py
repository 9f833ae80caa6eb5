"""The queue: what is shown, what the buttons do, and the raw message."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import quote

import psycopg
import pytest
from console_world import INSTALLER, STUDY, Site, open_site, text_of
from hypothesis import given
from hypothesis import strategies as st
from lxml import html
from procrastinate import App, PsycopgConnector

from drimbox.console.acts import ActRefused, checked_reason
from drimbox.console.advice import advice_for
from drimbox.console.messages import readable
from drimbox.foundation.errors import OutcomeUnknown
from drimbox.publication.incidents import WAITING, Incident
from drimbox.publication.jobs import Pauses, register, work
from drimbox.publication.triggers import RESYNC_STUDY, Cause, defer_resync, study_lock
from drimbox.record.audit import Kind, Search
from drimbox.sandbox.ris import letters
from drimbox.store.database import Pool
from publication.publication_examples import NOW, down, letter_of

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>' \" {{ 7*7 }} \u202eenvers\u202c \x1b[2J &amp;"


@asynccontextmanager
async def worker(dsn: str, site: Site, *, first: float = 0.05) -> AsyncIterator[None]:
    app = App(connector=PsycopgConnector(conninfo=dsn, min_size=1, max_size=3))
    register(app, site.world.services, pauses=Pauses(first=first, longest=max(first, 0.2)))
    async with app.open_async():
        task = asyncio.create_task(work(app, poll=0.05, stop_within=1))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def job_rows(site: Site) -> list[dict[str, object]]:
    async with site.pool.connection() as connection:
        return await (await connection.execute("SELECT * FROM procrastinate_jobs ORDER BY id")).fetchall()


async def until(site: Site, statuses: list[str]) -> None:
    async with asyncio.timeout(15):
        while True:
            if [row["status"] for row in await job_rows(site)] == statuses:
                return
            await asyncio.sleep(0.02)


async def something_waits(site: Site) -> None:
    async with asyncio.timeout(15):
        while True:
            if await site.world.queue():
                return
            await asyncio.sleep(0.02)


async def one(site: Site, number: int) -> Incident:
    incident = await site.world.incidents.one(number)
    assert incident is not None
    return incident


# --- what is shown ----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.15", "DB.SO.21", "DB.SO.45")
async def test_an_incident_says_what_which_since_when_and_what_to_do(site: Site) -> None:
    site.world.pacs.studies.clear()
    await site.world.run(letter_of())
    [incident] = await site.world.queue()
    site.clock.advance(3 * 3600 + 7 * 60)
    browser = await site.logged_in()
    row = text_of(await browser.get("/file"))
    assert f"Examen {STUDY}" in row
    assert "Aucun PACS de la structure ne connaît l'examen" in row
    assert "3 h 07" in row
    assert "Erreurs ouvertes 1" in row
    page = await browser.get(f"/file/{incident.id}")
    for words in ("study-unknown", "Vérifiez qu'il y est arrivé", "Centre de radiologie Ambroise", "Historique"):
        assert words in text_of(page)
    labels = html.fromstring(page.content).xpath("//button/text()")
    assert labels == ["Réessayer", "Resynchroniser l’examen", "Classer sans suite"]
    # Nothing on these pages says who the patient is.
    for health in ("PAT-TROIS", "DOMINIQUE", "279035121518989", "IPP101", "1979"):
        assert health not in page.text


async def test_the_peers_own_code_is_shown(site: Site) -> None:
    number = await site.incident("dmp-rejected", peer_code="XDSPatientIdDoesNotMatch")
    browser = await site.logged_in()
    assert "XDSPatientIdDoesNotMatch" in text_of(await browser.get("/file"))
    assert "Code d’erreur du pair XDSPatientIdDoesNotMatch" in text_of(await browser.get(f"/file/{number}"))


async def test_filters(site: Site) -> None:
    first = await site.incident("study-unknown")
    other = await site.incident("study-unknown", "1.2.3.4", structure="other")
    warning = await site.incident("birth-place-differs", severity="warning")
    closed = await site.incident("dmp-rejected")
    await site.world.incidents.close(closed, "Réglé", "x")
    browser = await site.logged_in()

    async def numbers(query: str) -> list[int]:
        page = await browser.get(f"/file?{query}")
        return [int(n) for n in html.fromstring(page.content).xpath("//tbody/tr/td[1]/text()")]

    assert await numbers("") == [warning, other, first]
    assert await numbers("gravite=erreur") == [other, first]
    assert await numbers("gravite=alerte") == [warning]
    assert await numbers("motif=study-unknown") == [other, first]
    assert await numbers("structure=other") == [other]
    assert await numbers(f"examen={STUDY}") == [warning, first]
    assert await numbers("etat=clos") == [closed]
    assert await numbers("etat=tous") == [closed, warning, other, first]
    assert await numbers("etat=tous&gravite=erreur&structure=ambroise") == [closed, first]
    assert await numbers("motif=nothing-like-it") == []
    assert await numbers("etat=x&gravite=y&avant=z&motif=%00&examen=%F0%9F") == []
    assert await numbers("avant=99999999999999999999&etat=%27") == [warning, other, first]


async def test_a_long_queue_is_walked_page_by_page_while_it_grows(site: Site) -> None:
    async with site.pool.connection() as connection:
        await connection.execute(
            "INSERT INTO incident (structure, study_uid, code, reason) "
            "SELECT 'ambroise', '1.2.' || n, 'study-unknown', 'Inconnu' FROM generate_series(1, 120) n"
        )
    browser = await site.logged_in()
    page = await browser.get("/file?gravite=erreur")
    seen: list[int] = []
    while True:
        tree = html.fromstring(page.content)
        seen += [int(n) for n in tree.xpath("//tbody/tr/td[1]/text()")]
        await site.incident("study-unknown", f"1.3.{len(seen)}")
        older = tree.xpath("//nav[@class='pages']/a[contains(., 'anciens')]/@href")
        if not older:
            break
        assert "gravite=erreur" in older[0]
        page = await browser.get(str(older[0]))
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == len(set(seen)) == 120
    assert "Revenir aux plus récents" in text_of(page)


async def test_texts_of_others_are_never_markup(site: Site) -> None:
    number = await site.incident(HOSTILE[:60], reason=HOSTILE, peer_code=HOSTILE, study_uid=HOSTILE)
    await site.world.incidents.note(number, HOSTILE, HOSTILE)
    browser = await site.logged_in()
    for path in (
        "/file",
        f"/file/{number}",
        f"/file?etat=tous&motif={quote(HOSTILE)}&examen={quote(HOSTILE)}&structure={quote(HOSTILE)}",
    ):
        page = await browser.get(path)
        assert page.status_code == 200
        tree = html.fromstring(page.content)
        assert tree.xpath("//script | //img") == []
        assert not [name for e in tree.iter() for name in e.attrib if name.startswith("on")]
        assert "{{ 7*7 }}" in page.text or "7*7" in page.text
        assert "\u202e" not in page.text.split("<main", 1)[1].split('<form class="criteria"')[0]
        assert "\x1b" not in text_of(page).split("Filtrer")[-1]
    answer = await browser.post(f"/file/{number}/classer", motif=f"{HOSTILE} sans objet")
    assert answer.status_code == 303
    assert "<script>alert" not in (await browser.get(f"/file/{number}")).text


async def test_the_state_of_the_work_is_shown(pool: Pool) -> None:
    answers = {"PACS pacs-a": True, "DMP": False}

    async def health() -> dict[str, bool]:
        return answers

    async with open_site(pool, health=health) as site:
        browser = await site.logged_in()
        page = text_of(await browser.get("/file"))
        assert "Travaux en attente 0" in page
        assert "Plus ancien travail en attente aucun" in page
        assert "PACS pacs-a : répond" in page
        assert "DMP : ne répond pas" in page
        await site.world.run(letter_of())
        site.world.pacs.error = down()
        await site.world.receive(letter_of(control_id="M2"), deferred=True)
        await site.world.receive(letter_of(control_id="M3"), deferred=True)
        page = text_of(await browser.get("/file"))
        assert "Travaux en attente 2" in page
        assert "reçu le" in page
        assert "Dernière heure 1 publié " in page
        # The neighbours are asked again in the background, at most twice a minute.
        await asyncio.sleep(0.05)
        answers["DMP"] = True
        assert "DMP : ne répond pas" in text_of(await browser.get("/file"))
        site.clock.advance(31)
        await browser.get("/file")
        await asyncio.sleep(0.05)
        assert "DMP : répond" in text_of(await browser.get("/file"))


async def test_a_page_does_not_wait_for_a_neighbour_that_hangs(pool: Pool) -> None:
    async def health() -> dict[str, bool]:
        await asyncio.sleep(60)
        return {}

    async with open_site(pool, health=health) as site:
        browser = await site.logged_in()
        async with asyncio.timeout(5):
            page = text_of(await browser.get("/file"))
        assert "non connu pour l’instant" in page


# --- try again --------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.15", "DB.SO.21")
async def test_retry_carries_the_report_through_again(site: Site, dsn: str) -> None:
    """The study reaches the PACS late: one press publishes it, and closes the line."""
    studies = dict(site.world.pacs.studies)
    site.world.pacs.studies.clear()
    async with worker(dsn, site):
        report_id = await site.world.receive(letter_of(), deferred=True)
        await until(site, [])
        [incident] = await site.world.queue()
        browser = await site.logged_in()
        # Nothing has changed: the same cause again, on the same line.
        await browser.submit(await browser.get("/file"), f"/file/{incident.id}/reessayer")
        await until(site, [])
        assert [i.id for i in await site.world.queue()] == [incident.id]
        site.world.pacs.studies.update(studies)
        page = await browser.submit(await browser.get(f"/file/{incident.id}"), "/reessayer")
        assert "le travail est remis en file" in text_of(page)
        await until(site, [])
    assert len(site.world.dmp.standing(STUDY)) == 1
    settled = await one(site, incident.id)
    assert settled.closed_at is not None
    texts = [(step.text, step.by) for step in settled.history]
    by = "Operator Essai (local:operator.essai)"
    assert (texts[1], texts[-1]) == (("Nouvel essai demandé : le travail est remis en file", by), ("Publié", ""))
    acts = await site.traced("QUEUE_ACTED")
    assert [(e.actor.person, e.objects[0].identifier, e.objects[0].detail) for e in acts] == [
        ("local:operator.essai", str(incident.id), "retry")
    ] * 2
    assert acts[0].objects[1].identifier == STUDY
    assert (await one(site, incident.id)).report_id == report_id


@pytest.mark.requirement("D7")
async def test_retry_brings_forward_what_waits_instead_of_doubling_it(site: Site, dsn: str) -> None:
    site.world.pacs.error = down()
    async with worker(dsn, site, first=600):
        await site.world.receive(letter_of(), deferred=True)
        await site.world.receive(letter_of(control_id="M2"), deferred=True)
        await something_waits(site)
        await until(site, ["todo", "todo"])
        [incident] = await site.world.queue()
        assert incident.code == WAITING
        browser = await site.logged_in()
        page = await browser.get(f"/file/{incident.id}")
        assert "Prochain essai le" in text_of(page)
        site.world.pacs.error = None
        done = await browser.submit(page, "/reessayer")
        assert "le travail en attente est avancé" in text_of(done)
        await until(site, [])
    assert len(site.world.dmp.provided) == 1
    assert await site.world.queue() == ()


async def test_retry_while_a_try_is_running_adds_nothing(site: Site) -> None:
    report_id = await site.world.receive(letter_of(), deferred=True)
    number = await site.incident(report_id=report_id)
    async with site.pool.connection() as connection:
        await connection.execute("UPDATE procrastinate_jobs SET status = 'doing'")
    assert "déjà en cours" in await site.desk.acts.retry(number, INSTALLER)
    assert len(await job_rows(site)) == 1


async def test_a_refused_message_has_nothing_to_retry(site: Site) -> None:
    async with site.pool.connection() as connection:
        row = await (
            await connection.execute(
                "INSERT INTO message (sender, control_id, digest, raw, answer, accepted) "
                "VALUES ('RIS', '', '', 'MSH|', '', false) RETURNING id"
            )
        ).fetchone()
        assert row is not None
        await site.world.incidents.open_for_message(
            connection, code="hl7-pid", reason="Segment PID absent", message_id=row["id"]
        )
    [incident] = await site.world.queue()
    browser = await site.logged_in()
    page = await browser.get(f"/file/{incident.id}")
    assert html.fromstring(page.content).xpath("//button/text()") == ["Classer sans suite"]
    assert "renvoyez-le depuis le RIS" in text_of(page)
    for act in ("reessayer", "resynchroniser"):
        assert (await browser.post(f"/file/{incident.id}/{act}")).status_code == 409
    assert (await browser.post(f"/file/{incident.id}/classer", motif="Renvoyé par le RIS")).status_code == 303


async def test_what_is_closed_or_is_not_there_is_left_alone(site: Site) -> None:
    report_id = await site.world.receive(letter_of())
    number = await site.incident(report_id=report_id)
    await site.world.incidents.close(number, "Réglé", "x")
    browser = await site.logged_in()
    for act in ("reessayer", "resynchroniser", "classer"):
        closed = await browser.post(f"/file/{number}/{act}", motif="Sans objet")
        assert closed.status_code == 409
        assert "déjà clos" in text_of(closed)
        for absent in ("999999", "abc", "-1", "9" * 30, "1%00"):
            assert (await browser.post(f"/file/{absent}/{act}", motif="Sans objet")).status_code == 404
    assert await job_rows(site) == []
    assert len((await one(site, number)).history) == 2


# --- compare again ----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.13", "DB.SO.28")
async def test_resync_has_the_study_compared(site: Site) -> None:
    report_id = await site.world.receive(letter_of())
    await site.world.run(letter_of(control_id="M2"))
    number = await site.incident(report_id=report_id)
    browser = await site.logged_in()
    page = await browser.submit(await browser.get(f"/file/{number}"), "/resynchroniser")
    assert "comparé au PACS et au DMP" in text_of(page)
    assert "Travail en file, comparaison avec le PACS et le DMP" in text_of(page)
    [job] = await job_rows(site)
    assert job["args"] == {"study_uid": STUDY, "cause": "operator", "structure": "ambroise"}
    assert (job["task_name"], job["lock"]) == (RESYNC_STUDY, study_lock(STUDY))
    [event] = await site.traced("QUEUE_ACTED")
    assert event.objects[0].detail == "resync"
    # Asked for twice, it is done once.
    page = await browser.submit(await browser.get(f"/file/{number}"), "/resynchroniser")
    assert "la comparaison en attente est avancée" in text_of(page)
    assert len(await job_rows(site)) == 1


async def test_what_a_walk_asked_for_does_not_hold_up_the_operator(site: Site) -> None:
    await site.world.run(letter_of())
    async with site.pool.connection() as connection:
        await defer_resync(connection, STUDY, Cause.RECONCILIATION)
    await site.desk.acts.resync_of("", STUDY, INSTALLER)
    assert [job["args"]["cause"] for job in await job_rows(site)] == ["reconciliation", "operator"]


async def test_a_line_of_no_structure_has_the_study_compared_for_all(site: Site) -> None:
    await site.world.run(letter_of())
    number = await site.incident("iocm-empty", structure="")
    browser = await site.logged_in()
    await browser.submit(await browser.get(f"/file/{number}"), "/resynchroniser")
    [job] = await job_rows(site)
    assert job["args"]["structure"] == ""


async def test_a_line_that_a_comparison_left_is_tried_again_by_comparing(site: Site) -> None:
    await site.world.run(letter_of())
    number = await site.incident("resync-identity", report_id=1)
    browser = await site.logged_in()
    page = html.fromstring((await browser.get(f"/file/{number}")).content)
    assert page.xpath("//button/text()") == ["Resynchroniser l’examen", "Classer sans suite"]
    assert "comparé" in await site.desk.acts.retry(number, INSTALLER)
    [job] = await job_rows(site)
    assert job["task_name"] == RESYNC_STUDY


async def test_a_study_that_the_box_does_not_know_cannot_be_compared(site: Site) -> None:
    number = await site.incident()
    browser = await site.logged_in()
    refused = await browser.post(f"/file/{number}/resynchroniser")
    assert refused.status_code == 409
    assert "ni KOS ni compte rendu" in text_of(refused)


async def test_discarding_a_comparison_that_waits_gives_it_up_for_its_structure_alone(site: Site) -> None:
    world = site.world
    await world.run(letter_of())
    await world.run(letter_of(control_id="M2", structure="1690000017"))
    async with site.pool.connection() as connection:
        await defer_resync(connection, STUDY, Cause.NOTE)
    number = await site.incident("resync-waiting")
    assert "le travail en attente est abandonné" in await site.desk.acts.discard(number, "PACS remplacé", INSTALLER)
    left = [job["args"] for job in await job_rows(site) if job["status"] == "todo"]
    assert left == [{"study_uid": STUDY, "cause": "note", "structure": "other"}]


# --- file without follow-up -------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.21")
async def test_discarding_needs_a_reason_that_stays(site: Site) -> None:
    number = await site.incident()
    browser = await site.logged_in()
    page = await browser.get(f"/file/{number}")
    for reason in ("", "   ", "ok", "x" * 501):
        refused = await browser.submit(page, "/classer", motif=reason)
        assert refused.status_code == 400
        assert html.fromstring(refused.content).xpath("//textarea[@aria-invalid='true']")
    assert (await one(site, number)).closed_at is None
    done = await browser.submit(
        page, "/classer", motif=" Doublon du RIS,\n patient 2 79 03 51 215 189 89 \x07 prévenu "
    )
    assert "classé sans suite" in text_of(done)
    incident = await one(site, number)
    assert incident.closed_at == site.clock.now()
    last = incident.history[-1]
    # A matricule that was typed all the same is not kept.
    assert last.text == "Classé sans suite : Doublon du RIS, patient [masqué] prévenu"
    assert last.by == "Operator Essai (local:operator.essai)"
    [event] = await site.traced("QUEUE_ACTED")
    assert event.objects[0].detail.startswith("discard: Doublon du RIS")
    assert "Classé sans suite" in text_of(await browser.get(f"/file/{number}"))
    assert f">{number}<" not in (await browser.get("/file")).text


@given(st.text(max_size=600))
def test_any_reason_is_one_clean_line_or_refused(text: str) -> None:
    try:
        reason = checked_reason(text)
    except ActRefused:
        return
    assert reason == " ".join(reason.split())
    assert reason.isprintable()
    assert 5 <= len(reason) <= 500


async def test_discarding_what_waits_gives_the_work_up_and_lets_the_next_one_go(site: Site, dsn: str) -> None:
    site.world.pacs.error = down()
    first = await site.world.receive(letter_of(), deferred=True)
    await site.world.receive(letter_of(control_id="M2", operation="delete"), deferred=True)
    async with worker(dsn, site, first=600):
        await something_waits(site)
        await until(site, ["todo", "todo"])
        [incident] = await site.world.queue()
        assert (incident.code, incident.report_id) == (WAITING, first)
        browser = await site.logged_in()
        page = await browser.get(f"/file/{incident.id}")
        assert "Le travail en attente sera abandonné" in text_of(page)
        done = await browser.submit(page, "/classer", motif="Examen supprimé au PACS")
        assert "le travail en attente est abandonné" in text_of(done)
        # The deletion came after it: it needs no PACS, and now has its turn.
        await until(site, ["cancelled"])
    assert site.world.dmp.provided == []
    assert await site.world.queue() == ()


async def test_what_the_dmp_may_have_received_cannot_be_forgotten(site: Site, dsn: str) -> None:
    site.world.dmp.faults.append(OutcomeUnknown("réponse perdue", code="dmp-cut"))
    async with worker(dsn, site, first=600):
        await site.world.receive(letter_of(), deferred=True)
        await something_waits(site)
        await until(site, ["todo"])
    [incident] = await site.world.queue()
    browser = await site.logged_in()
    refused = await browser.post(f"/file/{incident.id}/classer", motif="Tant pis pour lui")
    assert refused.status_code == 409
    assert "On ne sait pas encore si le DMP a reçu" in text_of(refused)
    assert [row["status"] for row in await job_rows(site)] == ["todo"]
    assert (await one(site, incident.id)).closed_at is None


async def test_discarding_waits_for_a_try_that_runs(site: Site) -> None:
    report_id = await site.world.receive(letter_of(), deferred=True)
    number = await site.incident(WAITING, severity="warning", report_id=report_id)
    async with site.pool.connection() as connection:
        await connection.execute("UPDATE procrastinate_jobs SET status = 'doing'")
    with pytest.raises(ActRefused) as refused:
        await site.desk.acts.discard(number, "Sans objet", INSTALLER)
    assert refused.value.code == "work-running"
    assert (await one(site, number)).closed_at is None


async def test_discarding_an_error_leaves_other_work_alone(site: Site) -> None:
    report_id = await site.world.receive(letter_of(), deferred=True)
    number = await site.incident("dmp-rejected", report_id=report_id)
    await site.desk.acts.discard(number, "Traité ailleurs", INSTALLER)
    assert [row["status"] for row in await job_rows(site)] == ["todo"]


async def test_two_operators_press_at_the_same_moment(site: Site) -> None:
    number = await site.incident()
    acts = [site.desk.acts.discard(number, f"Motif {n} donné", INSTALLER) for n in range(4)]
    ends = await asyncio.gather(*acts, return_exceptions=True)
    assert sum(isinstance(end, str) for end in ends) == 1
    assert sum(isinstance(end, ActRefused) and end.code == "incident-closed" for end in ends) == 3
    assert len((await one(site, number)).history) == 2


async def test_an_act_is_nothing_without_its_line_in_the_journal(site: Site) -> None:
    report_id = await site.world.receive(letter_of())
    number = await site.incident(report_id=report_id)
    async with site.pool.connection() as connection:
        await connection.execute("ALTER TABLE audit ADD CONSTRAINT no CHECK (event <> '110100/operator-queue')")
    for act in (
        site.desk.acts.retry(number, INSTALLER),
        site.desk.acts.resync(number, INSTALLER),
        site.desk.acts.discard(number, "Sans objet", INSTALLER),
    ):
        with pytest.raises(psycopg.errors.CheckViolation):
            await act
    assert await job_rows(site) == []
    incident = await one(site, number)
    assert incident.closed_at is None
    assert len(incident.history) == 1


# --- the raw message --------------------------------------------------------------------------------------------------


@pytest.mark.requirement("SSI/GEN.16")
async def test_the_raw_message_is_for_those_who_may_and_is_traced(site: Site) -> None:
    site.world.pacs.studies.clear()
    await site.world.run(letter_of())
    [incident] = await site.world.queue()
    operator, reader = await site.logged_in("operator"), await site.logged_in("reader")
    page = await operator.get(f"/file/{incident.id}")
    assert "/message" not in page.text
    assert "lecture-messages" in text_of(page)
    assert (await operator.get(f"/file/{incident.id}/message")).status_code == 403
    assert await site.traced("MESSAGE_READ") == []
    link = html.fromstring((await reader.get(f"/file/{incident.id}")).content).xpath("//a[contains(., 'brut')]/@href")
    page = await reader.get(str(link[0]))
    assert page.headers["cache-control"] == "no-store"
    text = text_of(page)
    assert "PAT-TROIS^DOMINIQUE" in text
    document = base64.b64encode(b"<?xml")[:6].decode()
    folded = html.fromstring(page.content).xpath("//details/pre/text()")
    assert len(folded) == 1
    assert document in folded[0]
    file = await reader.get(f"/file/{incident.id}/message/fichier")
    assert file.content == letters.oru(letter_of(), NOW)
    assert re.fullmatch(r'attachment; filename="message-\d+\.hl7"', file.headers["content-disposition"])
    assert file.headers["content-type"] == "application/octet-stream"
    assert file.headers["cache-control"] == "no-store"
    events = await site.traced("MESSAGE_READ")
    assert [(e.actor.person, e.objects[0].detail) for e in events] == [
        ("local:reader.essai", "consultation"),
        ("local:reader.essai", "téléchargement"),
    ]
    # An auditor finds who looked at a patient's messages.
    found = await site.world.journal.search(Search(patient=letter_of_patient(), kind=Kind.MESSAGE_READ), INSTALLER)
    assert len(found) == 2


def letter_of_patient():  # type: ignore[no-untyped-def]
    from publication.publication_examples import report_of

    return report_of().patient.ins


async def test_a_message_is_not_shown_when_that_cannot_be_written_down(site: Site) -> None:
    site.world.pacs.studies.clear()
    await site.world.run(letter_of())
    [incident] = await site.world.queue()
    reader = await site.logged_in("reader")
    async with site.pool.connection() as connection:
        await connection.execute("ALTER TABLE audit ADD CONSTRAINT no CHECK (event <> '110110/message')")
    for path in ("message", "message/fichier"):
        page = await reader.get(f"/file/{incident.id}/{path}")
        assert page.status_code == 500
        assert "PAT-TROIS" not in page.text


ANY_MESSAGE = (
    b"",
    b"\xff\xfe\x00\x01binary" * 100,
    b"MSH|^~\\&|<script>alert(1)</script>|\r<img src=x onerror=alert(1)>",
    "MSH|^~\\&|É\u202egnE".encode(),
    b"A" * 3_000_000,
    b"MSH|\r" * 20_000,
)


async def test_any_message_can_be_looked_at(site: Site) -> None:
    reader = await site.logged_in("reader")
    for raw in ANY_MESSAGE:
        async with site.pool.connection() as connection:
            row = await (
                await connection.execute(
                    "INSERT INTO message (sender, control_id, digest, raw, answer, accepted, peer) "
                    "VALUES (%s, '', '', %s, %s, false, '') RETURNING id",
                    ("<b>RIS</b>", raw, raw[:200]),
                )
            ).fetchone()
            assert row is not None
            await site.world.incidents.open_for_message(
                connection, code="hl7-msh", reason="Ce n'est pas un message HL7", message_id=row["id"]
            )
        incident = (await site.world.queue())[-1]
        page = await reader.get(f"/file/{incident.id}/message")
        assert page.status_code == 200
        assert html.fromstring(page.content).xpath("//script | //img | //b") == []
        assert ("Seul le début" in text_of(page)) == (len(raw) > 2 * 2**20)
        assert (await reader.get(f"/file/{incident.id}/message/fichier")).content == raw
    events = await site.traced("MESSAGE_READ")
    assert len(events) == 2 * len(ANY_MESSAGE)
    assert all(event.patient is None for event in events)


@given(st.text(max_size=2000).map(lambda t: t.encode("utf-8", "replace")) | st.binary(max_size=2000))
def test_nothing_of_a_message_is_lost_by_cutting_it_in_pieces(data: bytes) -> None:
    joined = "\n".join("".join(piece.text for piece in line) for line in readable(data))
    try:
        whole = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        whole = data[: error.start].decode("utf-8-sig") if error.start >= len(data) - 3 else data.decode("iso8859-15")
    assert re.sub(r"\r\n|\r", "\n", whole).strip("\n") == joined.strip("\n")


@pytest.mark.parametrize("width", [0, 64, 76])
def test_a_document_is_folded_however_it_is_wrapped(width: int) -> None:
    document = base64.b64encode(bytes(range(256)) * 20).decode()
    wrapped = document if not width else "\r\n".join(document[i : i + width] for i in range(0, len(document), width))
    message = f"MSH|^~\\&|RIS\rOBX|1|ED|18748-4^CR^LN||^TEXT^XML^Base64^{wrapped}||||||F\rZBE|1\r"
    lines = readable(message.encode())
    assert [line[0].text[:3] for line in lines] == ["MSH", "OBX", "ZBE"]
    assert [piece.folded for piece in lines[1]] == [False, True, False]
    assert re.sub(r"\s", "", lines[1][1].text) == document
    assert lines[1][2].text == "||||||F"


# --- advice -----------------------------------------------------------------------------------------------------------


async def test_every_kind_of_cause_has_words_and_a_button_that_is_there(site: Site) -> None:
    report_id = await site.world.receive(letter_of())
    codes = (
        *(WAITING, "study-unknown", "study-empty", "ins-unqualified", "ipp-differs", "accession-missing"),
        *("birth-name-differs", "pacs-name", "pacs-unreachable", "pacs-silent", "dmp-rejected", "dmp-fault"),
        *("structure-unknown", "certificate-dates", "defect", "kos-gone", "kos-moved", "depublish-patient"),
        *("sender-unknown", "study-rejected", "resync-waiting", "resync-identity", "resync-order-patient"),
        *("resync-study-gone", "resync-structure-unknown", "resync-archive-metadata", "resync-vihf-identity"),
        *("resync-defect", "resync-dmp-rejected", "something-new"),
    )
    texts = set()
    for code in codes:
        incident = await one(site, await site.incident(code, report_id=report_id))
        advice = advice_for(incident)
        assert advice.text
        assert advice.press in ("retry", "resync", "discard")
        texts.add(advice.text)
    assert len(texts) >= 20

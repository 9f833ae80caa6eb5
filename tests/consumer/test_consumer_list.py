"""The list beside the DMP: what is new, what does not answer, what differs, who hurries; each told on the page."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from consumer_world import (
    DB_HOST,
    DOMINIQUE,
    KIT,
    OTHER,
    SECOND,
    Browser,
    FakeDmp,
    Record,
    Site,
    Study,
    make_study,
    report_entry,
    text_of,
)
from lxml import html
from pydicom.data import get_testdata_file

from drimbox.consumer.identity_check import Rules
from drimbox.consumer.users import StoredUsers
from drimbox.consumer.web.desk import ListSettings
from drimbox.foundation.errors import Rejected, Unavailable
from drimbox.foundation.http_client import Reply
from drimbox.images.client import SourceState
from drimbox.national.dmp.codes import HIDDEN_FROM_REPRESENTATIVES, KOS_TYPE, Status
from drimbox.national.dmp.existence import Authorisation, RecordStatus
from drimbox.national.dmp.metadata.datatypes import Cx
from drimbox.national.dmp.metadata.model import DocumentEntry
from drimbox.national.dmp.query import Criteria
from drimbox.record.audit import Kind
from drimbox.record.pseudonym import PatientKey
from drimbox.sandbox.ris import letters
from drimbox.sandbox.ris.exams import exam
from drimbox.store.database import Pool

CT = Path(get_testdata_file("CT_small.dcm"))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path, DOMINIQUE, [[CT, CT], [CT]])


def cda(**changes: str) -> bytes:
    return letters.clinical_document(letters.Letter(exam("E"), "1", letters.Identity(**changes)))


def add_report(site: Site, study: Study, content: bytes, unique_id: str = "1.2.250.1.213.4.5.4.405") -> None:
    record = site.dmp.records[study.patient.matricule]
    record.entries.append(report_entry(study, unique_id))
    record.contents[unique_id] = content


def link(page: Reply, words: str) -> str:
    found = html.fromstring(page.body).xpath(f"//a[contains(normalize-space(), '{words}')]/@href")
    assert found, f"no link {words!r} in {text_of(page)}"
    return str(found[0])


async def settled(browser: Browser, call: str) -> Reply:
    """The list once nothing runs around it any more, as its script would show it."""
    page = await browser.get(call)
    for _ in range(40):
        sources = html.fromstring(page.body).xpath("//section[@id='liste'][@data-source]/@data-source")
        if not sources:
            return page
        await asyncio.sleep(0.02)
        page = await browser.get(call)
    raise AssertionError("the list never settles")


async def listed(site: Site, browser: Browser | None = None, **more: str) -> tuple[Browser, str, Reply]:
    browser = browser or site.browser()
    await site.log_in(browser, **more)
    call = browser.path
    return browser, call, await settled(browser, call)


# --- what the user is told, and what is remembered --------------------------------------------------------------------


@pytest.mark.requirement("DMP/AIRS.07")
async def test_the_box_is_ticked_once_per_user_not_once_per_login(site: Site) -> None:
    site.hold(DOMINIQUE)
    await listed(site)
    assert Kind.NOTICE_ACCEPTED in [event.kind for event in site.journal.events]
    # The same person in another browser is not asked again; another person is.
    later = site.browser()
    await later.get(await site.call())
    page = await later.get(f"{later.path}/connexion")
    assert "Examens d’imagerie" in text_of(page)
    site.psc.next_user = OTHER
    stranger = site.browser()
    await stranger.get(await site.call())
    assert "Avant de consulter" in text_of(await stranger.get(f"{stranger.path}/connexion"))


@pytest.mark.requirement("DMP/AIRS.07", "INS/va1.36")
async def test_what_is_remembered_of_users_is_kept_and_names_nobody(pool: Pool) -> None:
    users = StoredUsers(pool, PatientKey(b"k" * 32))
    person, at = KIT.national_id, dt.datetime(2026, 11, 1, 9, tzinfo=dt.UTC)
    assert not await users.notice_accepted(person)
    assert await users.traits(person) == frozenset()
    assert await users.last_visit(person, DOMINIQUE.ins) is None
    await users.accept_notice(person, at)
    await users.keep_traits(person, ["matricule", "nom-utilise", "autre chose"])
    await users.visited(person, DOMINIQUE.ins, at)
    assert await users.notice_accepted(person)
    assert not await users.notice_accepted(OTHER.national_id)
    assert await users.traits(person) == {"matricule", "nom-utilise"}
    assert await users.last_visit(person, DOMINIQUE.ins) == at
    assert await users.last_visit(person, SECOND.ins) is None
    assert await users.last_visit(OTHER.national_id, DOMINIQUE.ins) is None
    # An older visit that is told late does not hide what is new.
    await users.visited(person, DOMINIQUE.ins, at - dt.timedelta(days=1))
    assert await users.last_visit(person, DOMINIQUE.ins) == at
    async with pool.connection() as connection:
        rows = await (await connection.execute("SELECT * FROM consumer_user")).fetchall()
        rows += await (await connection.execute("SELECT * FROM consumer_visit")).fetchall()
    for secret in (person, person[1:], DOMINIQUE.matricule):
        assert secret not in str(rows)
    # Another key finds nothing, and a year later the visit is forgotten.
    assert not await StoredUsers(pool, PatientKey(b"x" * 32)).notice_accepted(person)
    await users.visited(person, SECOND.ins, at + dt.timedelta(days=500))
    assert await users.last_visit(person, DOMINIQUE.ins) is None


async def test_a_database_that_is_away_costs_a_question_only(pool: Pool) -> None:
    users = StoredUsers(pool, PatientKey(b"k" * 32))
    async with pool.connection() as connection:
        await connection.execute("ALTER TABLE consumer_user RENAME TO elsewhere")
        await connection.execute("ALTER TABLE consumer_visit RENAME TO elsewhere_too")
    at = dt.datetime(2026, 11, 1, 9, tzinfo=dt.UTC)
    await users.accept_notice(KIT.national_id, at)
    await users.visited(KIT.national_id, DOMINIQUE.ins, at)
    assert not await users.notice_accepted(KIT.national_id)
    assert await users.last_visit(KIT.national_id, DOMINIQUE.ins) is None


@pytest.mark.requirement("INS/va1.36", "DB.VI-CS.29")
async def test_optional_traits_are_shown_by_the_users_setting(site: Site, study: Study) -> None:
    study.kos = replace(
        study.kos, source_patient_info=("PID-5|PAT-TROIS^DOMINIQUE^MARIE-LOUISE^^^^L~DUPONT^^^^^^D", "PID-8|F")
    )
    site.hold(DOMINIQUE, study)
    browser, call, page = await listed(site)

    def always(page: Reply) -> list[str]:
        return [str(t) for t in html.fromstring(page.body).xpath("//section[@class='patient']/dl//dt/text()")]

    strict = ["Nom de naissance", "Premier prénom de naissance", "Date de naissance", "Sexe", "Lieu de naissance"]
    assert always(page) == strict
    # Every optional trait has its place, filled from the documents found.
    shown = text_of(page)
    for words in ("Matricule INS", "1.2.250.1.213.1.4.10", "DOMINIQUE, MARIE-LOUISE", "Nom utiliséDUPONT", "IPP101"):
        assert words in shown
    page = await browser.submit(page, "/affichage", trait=["matricule", "nom-utilise"])
    assert always(page) == [*strict, "Matricule INS", "Nom utilisé"]
    # The user's own: there in another browser too, for another patient too.
    site.hold(SECOND)
    other = site.browser()
    await other.get(await site.call(SECOND))
    assert always(await other.get(f"{other.path}/connexion")) == [*strict, "Matricule INS", "Nom utilisé"]
    page = await browser.submit(await browser.get(call), "/affichage")
    assert always(page) == strict


# --- access -----------------------------------------------------------------------------------------------------------


def barred(site: Site, study: Study, state: Authorisation = Authorisation.ABSENT) -> Record:
    record = site.hold(DOMINIQUE, study)
    record.authorisation = state
    return record


@pytest.mark.requirement("D22", "DMP/UX.08")
async def test_an_emergency_takes_a_reason_and_is_shown_for_as_long_as_it_lasts(site: Site, study: Study) -> None:
    barred(site, study, Authorisation.EXPIRED)
    add_report(site, study, cda())
    browser, call, page = await listed(site)
    assert "a expiré" in text_of(page)
    form = await browser.get(link(page, "Urgence"))
    # No reason, no attestation, an invented choice, too long a text: no access.
    for fields in (
        {"motif": "autre", "precision": "", "urgence": "oui"},
        {"motif": "Régulation médicale"},
        {"motif": "curiosité", "urgence": "oui"},
        {"motif": "autre", "precision": "x" * 200, "urgence": "oui"},
    ):
        assert (await browser.submit(form, "/urgence", **fields)).status == 403
    assert site.dmp.emergencies == []
    page = await browser.submit(
        form, "/urgence", motif="autre", precision="Polytraumatisé, sans contact", urgence="oui"
    )
    page = await settled(browser, call)
    assert "1 examen" in text_of(page)
    assert set(site.dmp.emergencies) == {"Polytraumatisé, sans contact"}
    started = next(e for e in site.journal.events if e.kind is Kind.EMERGENCY_STARTED)
    assert started.objects[0].detail == "Polytraumatisé, sans contact"
    # On every page of the patient, until it is ended; nothing found under it stays.
    for words in ("Ouvrir les images", "Lire le compte rendu", "Séries"):
        assert "Accès en urgence (bris de glace) en cours" in text_of(await browser.get(link(page, words)))
    page = await browser.submit(page, "/urgence/fin")
    assert "Accès en urgence (bris de glace) en cours" not in text_of(page)
    assert "a expiré" in text_of(page)
    assert "1 examen" not in text_of(page)
    assert Kind.EMERGENCY_STOPPED in [e.kind for e in site.journal.events]
    assert list(site.folder.rglob("*.dcm")) == []


@pytest.mark.requirement("D22")
async def test_an_emergency_ends_by_itself(site: Site, study: Study) -> None:
    barred(site, study)
    browser, call, page = await listed(site)
    form = await browser.get(link(page, "Urgence"))
    page = await browser.submit(form, "/urgence", motif="Régulation médicale", urgence="oui")
    images = link(await settled(browser, call), "Ouvrir les images")
    site.clock.advance(29 * 60)
    assert "en cours" in text_of(await browser.get(call))
    site.clock.advance(29 * 60)
    await browser.get(call)
    site.clock.advance(3 * 60)
    assert (await browser.get(images)).status == 404
    assert "pas encore autorisé" in text_of(await settled(browser, call))
    assert site.journal.codes().count(Kind.EMERGENCY_STOPPED.code) == 1


@pytest.mark.requirement("D22")
@pytest.mark.parametrize("state", [Authorisation.FORBIDDEN, Authorisation.UNKNOWN])
async def test_no_emergency_against_a_patient_who_blocked(site: Site, study: Study, state: Authorisation) -> None:
    barred(site, study, state)
    browser, call, page = await listed(site)
    assert "Urgence" not in text_of(page)
    form = await browser.get(f"{call}/urgence")
    page = await browser.submit(form, "/urgence", motif="Régulation médicale", urgence="oui")
    assert page.status == 403
    assert site.dmp.emergencies == []


class TestWithdrawal:
    @pytest.fixture
    def ways(self) -> dict[str, Any]:
        return {"listing": ListSettings(withdraw_on_refusal=True)}

    @pytest.mark.requirement("D18")
    async def test_a_refusal_lets_the_professional_take_the_authorisation_back(self, site: Site, study: Study) -> None:
        record = site.hold(DOMINIQUE, study)
        browser = site.browser()
        page = await browser.get(await site.call(InformationEtConsentement="no"))
        page = await browser.get(link(page, "S’identifier"))
        assert "Retirer votre autorisation" in text_of(page)
        assert site.dmp.asked == []
        page = await browser.submit(page, "/retrait")
        assert "a été retirée" in text_of(page)
        assert record.authorisation is Authorisation.ABSENT
        assert [what for what, _, _ in site.dmp.asked] == ["TD0.3-"]

    @pytest.mark.requirement("D18")
    async def test_not_without_a_refusal(self, site: Site, study: Study) -> None:
        site.hold(DOMINIQUE, study)
        browser = site.browser()
        page = await browser.get(await site.call(InformationEtConsentement="unknown"))
        assert "retirer" not in text_of(page)
        browser, call, page = await listed(site)
        (token,) = set(html.fromstring(page.body).xpath("//input[@name='jeton']/@value"))
        answer = await browser.send("POST", f"{call}/autorisation/retrait", {"jeton": token})
        assert answer.status == 403


@pytest.mark.requirement("D18")
async def test_taking_back_is_not_offered_by_default(site: Site) -> None:
    page = await site.browser().get(await site.call(InformationEtConsentement="no"))
    assert "retirer" not in text_of(page).lower()


@pytest.mark.requirement("DMP/UX.08")
async def test_a_closed_record_says_why(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study).status = RecordStatus.CLOSED
    _, _, page = await listed(site)
    assert "est fermé" in text_of(page)
    assert "Urgence" not in text_of(page)


# --- identity ---------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("INS/va1.36", "DB.CO.68")
async def test_other_traits_of_a_kos_are_shown_in_red_and_take_a_decision(site: Site, tmp_path: Path) -> None:
    other = replace(DOMINIQUE, family="PAT-QUATRE", birth="19790329")
    site.hold(DOMINIQUE, make_study(tmp_path, DOMINIQUE, [[CT]], described_as=other))
    browser, _, page = await listed(site)
    assert "nom de naissance, date de naissance à vérifier" in text_of(page)
    stopped = await browser.get(link(page, "Ouvrir les images"))
    assert stopped.status == 409
    cells = [[c.text_content() for c in row] for row in html.fromstring(stopped.body).xpath("//tbody/tr")]
    assert ["Nom de naissance", "PAT-TROIS", "PAT-QUATRE"] in cells
    assert ["Date de naissance", "28/03/1979", "29/03/1979"] in cells
    assert (await browser.submit(stopped, "/identite/" + link(page, "Ouvrir les images").split("/")[-1])).status == 403
    assert Kind.IDENTITY_DECIDED not in [e.kind for e in site.journal.events]
    opened = await browser.submit(stopped, "", decision="oui")
    assert b"iframe" in opened.body
    assert "Identité à vérifier" in text_of(opened)
    decided = [e for e in site.journal.events if e.kind is Kind.IDENTITY_DECIDED]
    assert [(e.actor.person, e.patient) for e in decided] == [(KIT.national_id, DOMINIQUE.ins)]
    assert "PAT-QUATRE" not in str(decided)
    # For this patient in this session only.
    assert (await browser.get(link(page, "Ouvrir les images"))).status == 200
    again = site.browser()
    _, _, page = await listed(site, again)
    assert (await again.get(link(page, "Ouvrir les images"))).status == 409


class TestRefused:
    @pytest.fixture
    def ways(self) -> dict[str, Any]:
        return {"identity": Rules(traits="refuse")}

    @pytest.mark.requirement("INS/va1.36")
    async def test_nobody_may_decide_where_the_setting_says_so(self, site: Site, tmp_path: Path) -> None:
        study = make_study(tmp_path, DOMINIQUE, [[CT]], described_as=replace(DOMINIQUE, given="MARIE"))
        site.hold(DOMINIQUE, study)
        browser, call, page = await listed(site)
        stopped = await browser.get(link(page, "Ouvrir les images"))
        assert stopped.status == 409
        assert "MARIE" in text_of(stopped)
        assert html.fromstring(stopped.body).xpath("//main//form") == []
        (token, *_) = html.fromstring(stopped.body).xpath("//input[@name='jeton']/@value")
        key = link(page, "Ouvrir les images").split("/")[-1]
        await browser.send("POST", f"{call}/identite/{key}", {"jeton": token, "decision": "oui"})
        assert (await browser.get(link(page, "Ouvrir les images"))).status == 409


@pytest.mark.requirement("INS/va1.36", "DB.CO.68")
async def test_images_of_other_traits_are_not_shown_before_it_is_decided(site: Site, tmp_path: Path) -> None:
    study = make_study(tmp_path, DOMINIQUE, [[CT, CT]], image_patient=replace(DOMINIQUE, sex="M"))
    site.hold(DOMINIQUE, study)
    browser, _, page = await listed(site)
    viewer = await browser.get(link(page, "Ouvrir les images"))
    (source,) = html.fromstring(viewer.body).xpath("//*[@id='avancement']/@data-source")

    async def over() -> dict[str, Any]:
        for _ in range(100):
            state = (await browser.get(source, Accept="application/json")).body
            if b'"over":true' in state:
                return dict(json.loads(state)["series"][0])
            await asyncio.sleep(0.02)
        raise AssertionError

    series = await over()
    assert (series["state"], series["received"], series["again"]) == ("failed", 0, False)
    assert "sexe" in series["reason"]
    decision = await browser.get(series["decide"])
    assert "Masculin" in text_of(decision)
    await browser.submit(decision, "", decision="oui")
    series = await over()
    assert (series["state"], series["received"]) == ("done", 2)
    assert Kind.IDENTITY_DECIDED in [e.kind for e in site.journal.events]


@pytest.mark.requirement("INS/va1.36")
async def test_a_report_of_other_traits_takes_a_decision_one_of_another_ins_none(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    add_report(site, study, cda(family="PAT-QUATRE"))
    browser, _, page = await listed(site)
    address = link(page, "Lire le compte rendu")
    stopped = await browser.get(address)
    assert stopped.status == 409
    assert "PAT-QUATRE" in text_of(stopped)
    read = await browser.submit(stopped, "", decision="oui")
    assert b"/pdf" in read.body
    assert "PAT-QUATRE" in text_of(read)
    site.dmp.records[DOMINIQUE.matricule].contents["1.2.250.1.213.4.5.4.405"] = cda(ins=SECOND.matricule)
    other = site.browser()
    _, _, page = await listed(site, other)
    stopped = await other.get(link(page, "Lire le compte rendu"))
    assert stopped.status == 409
    assert html.fromstring(stopped.body).xpath("//main//form") == []


async def test_the_way_back_from_a_decision_stays_on_this_call(site: Site, tmp_path: Path) -> None:
    study = make_study(tmp_path, DOMINIQUE, [[CT]], described_as=replace(DOMINIQUE, given="MARIE"))
    site.hold(DOMINIQUE, study)
    browser, call, page = await listed(site)
    stopped = await browser.get(link(page, "Ouvrir les images"))
    key = link(page, "Ouvrir les images").split("/")[-1]
    (token, *_) = html.fromstring(stopped.body).xpath("//input[@name='jeton']/@value")
    for back in ("https://ailleurs.example/", "//ailleurs.example", f"{call}/\\ailleurs", "/deconnexion"):
        fields = {"jeton": token, "decision": "oui", "retour": back}
        answer = await browser.send("POST", f"{call}/identite/{key}", fields, follow=False)
        assert answer.headers["Location"] == call


# --- what is around the rows ------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.CO.79", "DB.CO.54")
async def test_what_the_local_pacs_holds_is_marked(site: Site, study: Study, tmp_path: Path) -> None:
    other = make_study(tmp_path, DOMINIQUE, [[CT]], day="20220310")
    site.hold(DOMINIQUE, study, other)
    site.pacs.studies = {study.manifest.study_uid: 2}
    _, _, page = await listed(site)
    cells = [cell.text_content().split() for cell in html.fromstring(page.body).xpath("//td[@class='held']")]
    assert [" ".join(words) for words in cells] == ["Déjà dans pacs-b (2 images sur 3)", "Pas dans pacs-b"]


@pytest.mark.requirement("DB.CO.79")
async def test_a_pacs_that_does_not_answer_is_never_one_that_holds_nothing(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    site.pacs.failure = Unavailable("Le PACS pacs-b est injoignable.", code="pacs-unreachable")
    browser, call, page = await listed(site)
    assert "Le PACS pacs-b ne répond pas : on ne sait pas quels examens il contient déjà." in text_of(page)
    assert "pacs-b : inconnu" in text_of(page)
    assert "Pas dans pacs-b" not in text_of(page)
    assert "1 examen" in text_of(page)
    asked = len([w for w, _, _ in site.dmp.asked if w == "TD3.1"])
    site.pacs.failure, site.pacs.studies = None, {study.manifest.study_uid: None}
    form = next(f for f in html.fromstring(page.body).forms if f.xpath(".//input[@name='partie']"))
    fields = {e.name: e.value for e in form.xpath(".//input[@type='hidden']")}
    assert fields["partie"] == "pacs:pacs-b"
    await browser.send("POST", form.action, fields)
    page = await settled(browser, call)
    assert "Déjà dans pacs-b" in text_of(page)
    assert "ne répond pas" not in text_of(page)
    # The DMP was not asked again for that.
    assert len([w for w, _, _ in site.dmp.asked if w == "TD3.1"]) == asked


@pytest.mark.requirement("DB.CO.112", "DB.CO.81")
async def test_a_dead_source_is_said_in_its_row_and_the_rest_works(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    add_report(site, study, cda())
    site.sources.state = SourceState.DEAD
    browser, call, page = await listed(site)
    assert f"La DRIMbox {DB_HOST} ne répond pas" in text_of(page)
    assert "Images : la source ne répond pas" in text_of(page)
    assert (await browser.get(link(page, "Lire le compte rendu"))).status == 200
    retrieved = [e for e in site.journal.events if e.kind is Kind.DOCUMENT_RETRIEVED]
    assert retrieved[0].objects[0].identifier == study.kos.unique_id
    site.sources.state = SourceState.ALIVE
    form = next(f for f in html.fromstring(page.body).forms if f.xpath(".//input[@name='partie']"))
    await browser.send("POST", form.action, {e.name: e.value for e in form.xpath(".//input[@type='hidden']")})
    assert "ne répond pas" not in text_of(await settled(browser, call))


@pytest.mark.requirement("DB.CO.112")
async def test_several_dead_sources_are_one_line_and_each_row_tries_again(site: Site, tmp_path: Path) -> None:
    """Ten of them must not push the list off the screen."""
    hosts = [f"db{number}.example" for number in range(10)]
    site.hosts.hosts.update(hosts)
    site.hold(DOMINIQUE, *(make_study(tmp_path, DOMINIQUE, [[CT]], host=host) for host in hosts))
    site.sources.state = SourceState.DEAD
    browser, call, page = await listed(site)
    tree = html.fromstring(page.body)
    (trouble,) = tree.xpath("//ul[@class='troubles']/li")
    assert "10 DRIMbox ne répondent pas" in trouble.text_content()
    assert "et 2 autres" in trouble.text_content()
    rows = tree.xpath("//table[contains(@class, 'exams')]/tbody/tr")
    assert len(rows) == 10
    forms = [form for row in rows for form in row.xpath(".//form[.//input[@name='partie']]")]
    assert len(forms) == 10
    assert len(tree.xpath("//@id")) == len(set(tree.xpath("//@id")))
    site.sources.state = SourceState.ALIVE
    fields = {e.name: e.value for e in forms[3].xpath(".//input[@type='hidden']")}
    await browser.send("POST", forms[3].action, fields)
    assert "ne répond" not in text_of(await settled(browser, call))


async def test_pro_sante_connect_away_is_said_and_the_list_is_there(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    browser, call, page = await listed(site)
    site.clock.advance(10 * 60)
    site.psc.down = True
    page = await settled(browser, call)
    assert "Pro Santé Connect ne répond pas" in text_of(page)
    assert "1 examen" in text_of(page)


@pytest.mark.requirement("DB.CO.54")
async def test_a_part_that_failed_is_a_row_of_its_own(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    site.dmp.failing["since"] = Unavailable("DMP en échec", code="dmp-failed")
    browser, call, page = await listed(site)
    assert "Les nouveautés depuis votre dernière visite n’ont pas pu être demandées" in text_of(page)
    assert "1 examen" in text_of(page)
    del site.dmp.failing["since"]
    await browser.submit(page, "/actualiser")
    page = await settled(browser, call)
    assert "n’ont pas pu être demandées" not in text_of(page)
    assert "aucun nouveau document" in text_of(page)


class OnlyReportsFail(FakeDmp):
    """A DMP that cannot tell the reports."""

    async def find_documents(self, actor: Any, patient: Any, criteria: Criteria) -> tuple[DocumentEntry, ...]:
        if KOS_TYPE not in criteria.type_codes:
            raise Unavailable("Aucune réponse lisible du DMP", code="answer-http")
        return await super().find_documents(actor, patient, criteria)


async def test_reports_that_cannot_be_searched_for_do_not_take_the_images_away(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    site.dmp.__class__ = OnlyReportsFail
    _, _, page = await listed(site)
    assert "Les comptes rendus n’ont pas tous pu être recherchés" in text_of(page)
    assert "1 examen" in text_of(page)


# --- the search -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.CO.55", "DMP/UX.10")
async def test_the_old_rows_stay_until_the_new_ones_come(site: Site, study: Study, tmp_path: Path) -> None:
    other = make_study(tmp_path, DOMINIQUE, [[CT]], day="20220310", modality="MR")
    site.hold(DOMINIQUE, study, other)
    browser, call, page = await listed(site)
    site.dmp.delay = 0.4
    page = await browser.submit(page, "/criteres", modalite=["MR"], action="chercher")
    assert "les lignes de la recherche précédente restent affichées" in text_of(page)
    assert "15/01/2024" in text_of(page)
    # They can still be opened, and the criteria still be changed.
    assert (await browser.get(link(page, "Séries"))).status == 200
    page = await settled(browser, call)
    assert "15/01/2024" not in text_of(page)
    assert "10/03/2022" in text_of(page)
    # A search that fails does not pass for its result.
    site.dmp.delay, site.dmp.failure = 0.0, Unavailable("Le DMP ne répond pas", code="timeout")
    await browser.submit(page, "/criteres", action="tout")
    page = await settled(browser, call)
    assert "Le DMP n’a pas pu être consulté" in text_of(page)
    assert "ne répondent pas à vos nouveaux critères" in text_of(page)
    assert "10/03/2022" in text_of(page)


async def test_rows_of_before_are_not_shown_once_access_is_barred(site: Site, study: Study) -> None:
    record = site.hold(DOMINIQUE, study)
    browser, call, page = await listed(site)
    record.authorisation = Authorisation.FORBIDDEN
    await browser.submit(page, "/actualiser")
    page = await settled(browser, call)
    assert "a bloqué votre accès" in text_of(page)
    assert "15/01/2024" not in text_of(page)


@pytest.mark.requirement("DMP/UX.15", "DMP/UX.27")
async def test_what_is_new_since_the_last_visit_is_counted_marked_and_filtered(
    site: Site, study: Study, tmp_path: Path
) -> None:
    record = site.hold(DOMINIQUE, study)
    _, _, page = await listed(site)
    first = site.clock.now()
    assert "Depuis le" in text_of(page)
    assert "aucun nouveau document" in text_of(page)
    assert site.dmp.since == [first - dt.timedelta(days=90)]
    site.clock.advance(2 * 86400)
    fresh = make_study(tmp_path, DOMINIQUE, [[CT]], day="20240302")
    site.hold(DOMINIQUE, fresh)
    record.fresh = {fresh.kos.entry_id}
    other = site.browser()
    _, call, page = await listed(site, other)
    # From when the DMP was asked the last time.
    assert site.dmp.since[-1] == first
    assert "Depuis votre dernière visite" in text_of(page)
    assert "1 Images (KOS)" in text_of(page)
    rows = html.fromstring(page.body).xpath("//table[contains(@class,'exams')]/tbody/tr")
    assert ["Nouveau" in row.text_content() for row in rows] == [True, False]
    page = await other.submit(page, "/criteres", nouveaux="oui", action="chercher")
    page = await settled(other, call)
    assert "1 examen" in text_of(page)
    assert "02/03/2024" in text_of(page)
    # Looking again does not make it old within the same visit.
    assert site.dmp.since[-1] == first


@pytest.mark.requirement("DB.CO.54")
async def test_former_versions_are_shown_as_such_when_asked_for(site: Site, study: Study, tmp_path: Path) -> None:
    former = make_study(tmp_path, DOMINIQUE, [[CT]], day="20240115")
    former.kos = replace(former.kos, status=Status.DEPRECATED)
    archived = make_study(tmp_path, DOMINIQUE, [[CT]], day="20230115")
    archived.kos = replace(archived.kos, status=Status.ARCHIVED)
    site.hold(DOMINIQUE, study, former, archived)
    browser, call, page = await listed(site)
    assert "2 examens" in text_of(page)
    assert "Images : archivé" in text_of(page)
    await browser.submit(page, "/criteres", remplaces="oui", action="chercher")
    page = await settled(browser, call)
    assert "3 examens" in text_of(page)
    assert "Images : version remplacée" in text_of(page)


@pytest.mark.requirement("DB.CO.54", "DB.CO.55")
async def test_the_list_is_sorted_by_its_headings(site: Site, study: Study, tmp_path: Path) -> None:
    site.hold(DOMINIQUE, study, make_study(tmp_path, DOMINIQUE, [[CT]], day="20220310", modality="MR"))
    browser, call, page = await listed(site)

    def days(page: Reply) -> list[str]:
        return [str(t) for t in html.fromstring(page.body).xpath("//td[@class='day']/time/text()")]

    assert days(page) == ["15/01/2024", "10/03/2022"]
    assert days(await browser.get(f"{call}?tri=ancien")) == ["10/03/2022", "15/01/2024"]
    # IRM, then Scanner.
    page = await browser.get(f"{call}?tri=modalite")
    assert days(page) == ["10/03/2022", "15/01/2024"]
    assert html.fromstring(page.body).xpath("//th[@aria-sort]/a/text()") == ["Modalité"]
    assert days(await browser.get(f"{call}?tri=inconnu")) == ["15/01/2024", "10/03/2022"]


class TooMuchAtOnce(FakeDmp):
    """A DMP that gives no more than 700 documents at once."""

    async def find_documents(self, actor: Any, patient: Any, criteria: Criteria) -> tuple[DocumentEntry, ...]:
        found = await super().find_documents(actor, patient, criteria)
        if len(found) > 700:
            raise Rejected("Trop de résultats", code="dmp-rejected", peer_code="XDSTooManyResults")
        return found


@pytest.mark.requirement("DMP/UX.10", "DB.CO.54")
async def test_three_thousand_documents(site: Site, study: Study) -> None:
    """All are found though the DMP gives few at once; the page shows the first rows and stays quick."""
    record = site.hold(DOMINIQUE, study)
    day = dt.date(2012, 1, 1)
    for number in range(1, 1500):
        when = (day + dt.timedelta(days=3 * number)).strftime("%Y%m%d")
        uid = f"2.25.{number}"
        again = replace(
            study.kos,
            unique_id=uid,
            entry_id=f"urn:uuid:{uid}",
            references=(Cx(f"1.2.{number}", "", study.kos.references[0].kind),),
            creation_time=type(study.kos.creation_time).parse(f"{when}120000"),  # type: ignore[union-attr]
            service_start=type(study.kos.creation_time).parse(f"{when}090000"),  # type: ignore[union-attr]
        )
        record.contents[uid] = record.contents[study.kos.unique_id]
        times = {"creation_time": again.creation_time, "service_start": again.service_start}
        record.entries += [again, report_entry(study, f"{uid}.1", references=again.references, **times)]
    site.dmp.__class__ = TooMuchAtOnce
    browser = site.browser()
    await site.log_in(browser)
    call = browser.path
    page = await settled(browser, call)
    assert "1500 examens" in text_of(page)
    assert "100 lignes affichées sur 1500" in text_of(page)
    started = time.process_time()
    for _ in range(3):
        page = await browser.get(call)
    assert (time.process_time() - started) / 3 < 1.0
    assert len(page.body) < 600_000
    more = await browser.get(link(page, "Afficher les 100 suivantes"))
    assert "200 lignes affichées" in text_of(more)
    # What is not on the screen was not asked of the PACS.
    assert sum(map(len, site.pacs.asked)) <= 200


# --- exams and their series -------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.CO.57", "DB.CO.81")
async def test_the_series_of_an_exam_are_listed_and_opened_one_by_one(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    browser, _, page = await listed(site)
    assert "EXAMEN DE TEST" in text_of(page)
    series = await browser.get(link(page, "Séries"))
    assert "2 séries, 3 images" in text_of(series)
    assert "SERIE 1" in text_of(series)
    opened = await browser.get(link(series, "Ouvrir cette série"))
    assert b"iframe" in opened.body
    # The KOS was read ahead, and is read once.
    assert [what for what, _, _ in site.dmp.asked].count("TD3.2") == 1


@pytest.mark.requirement("DB.CO.57")
async def test_a_kos_that_cannot_be_had_now_is_asked_for_again_from_its_row(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    site.dmp.failing["TD3.2"] = Unavailable("Le DMP ne répond pas", code="dmp-unreachable")
    browser, call, page = await listed(site)
    (row,) = html.fromstring(page.body).xpath("//table[contains(@class, 'exams')]/tbody/tr")
    assert "Images : Le DMP ne répond pas." in row.text_content()
    del site.dmp.failing["TD3.2"]
    (form,) = row.xpath(".//form[.//input[@name='partie']]")
    fields = {e.name: e.value for e in form.xpath(".//input[@type='hidden']")}
    searches = [what for what, _, _ in site.dmp.asked].count("TD3.1")
    await browser.send("POST", form.action, fields)
    page = await settled(browser, call)
    assert "ne répond pas" not in text_of(page)
    assert "EXAMEN DE TEST" in text_of(page)
    # The list itself was not asked for again.
    assert [what for what, _, _ in site.dmp.asked].count("TD3.1") == searches


async def test_large_kos_are_read_ahead_within_bounds_alone(site: Site, tmp_path: Path) -> None:
    """What lies around the rows of one call does not fill the memory; the others are read when they are opened."""
    studies = [make_study(tmp_path, DOMINIQUE, [[CT]]) for _ in range(6)]
    site.hold(DOMINIQUE, *(replace(study, kos=replace(study.kos, size=10 * 2**20)) for study in studies))
    browser, _, page = await listed(site)
    read = {o.identifier for e in site.journal.events if e.kind is Kind.DOCUMENT_RETRIEVED for o in e.objects}
    assert len(read) == 2
    addresses = html.fromstring(page.body).xpath("//a[starts-with(@id, 'series-')]/@href")
    assert len(addresses) == 6
    for address in addresses:
        assert "1 série, 1 image" in text_of(await browser.get(address))


async def test_what_is_no_kos_and_what_names_strange_hosts_is_said_in_its_row(
    site: Site, study: Study, tmp_path: Path
) -> None:
    stranger = make_study(tmp_path, DOMINIQUE, [[CT]], day="20230101", host="ailleurs.example")
    site.hold(DOMINIQUE, study, stranger)
    site.dmp.records[DOMINIQUE.matricule].contents[study.kos.unique_id] = b"<html>pas un KOS</html>"
    _, _, page = await listed(site)
    rows = [row.text_content() for row in html.fromstring(page.body).xpath("//tbody/tr")]
    assert re.search(r"Images : [^.]*(DICOM|KOS)[^.]*\.", rows[0])
    assert "pas dans la liste blanche" in rows[1]
    # One bad KOS does not spoil the other.
    assert "2 examens" in text_of(page)


async def test_hidden_documents_are_not_read_before_the_warning(site: Site, study: Study) -> None:
    study.kos = replace(study.kos, confidentiality=(*study.kos.confidentiality, HIDDEN_FROM_REPRESENTATIVES))
    site.hold(DOMINIQUE, study)
    browser, _, page = await listed(site)
    assert "TD3.2" not in [what for what, _, _ in site.dmp.asked]
    warned = await browser.get(link(page, "Séries"))
    assert "représentants légaux" in text_of(warned)
    assert "TD3.2" not in [what for what, _, _ in site.dmp.asked]


async def test_an_unknown_part_or_document_is_told_so(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    browser, call, page = await listed(site)
    assert (await browser.get(f"{call}/series/inconnu")).status == 404
    (token, *_) = html.fromstring(page.body).xpath("//input[@name='jeton']/@value")
    # An unknown part asks the DMP again: nothing is left unanswered.
    before = len(site.dmp.asked)
    await browser.send("POST", f"{call}/actualiser", {"jeton": token, "partie": "pacs:autre"})
    await settled(browser, call)
    assert len(site.dmp.asked) > before


@pytest.mark.requirement("DB.CO.59")
async def test_a_report_beside_the_images_is_framed_by_our_own_pages_alone(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    add_report(site, study, cda())
    browser, _, page = await listed(site)
    viewer = await browser.get(link(page, "Ouvrir les images"))
    (beside,) = html.fromstring(viewer.body).xpath("//a[@data-beside]/@href")
    report = await browser.get(beside)
    assert "frame-ancestors 'self'" in report.headers["Content-Security-Policy"]
    assert report.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert html.fromstring(report.body).xpath("//iframe/@src")[0].endswith("/pdf")
    assert "En-tête complet" in text_of(report)
    # Read once, whichever way it is shown.
    assert (await browser.get(link(page, "Lire le compte rendu"))).headers["X-Frame-Options"] == "DENY"
    assert [what for what, _, _ in site.dmp.asked].count("TD3.2") == 2
    # What goes wrong there is said there.
    gone = await browser.get(beside.replace("/compte-rendu/", "/compte-rendu/x"))
    assert gone.status == 404
    assert "frame-ancestors 'self'" in gone.headers["Content-Security-Policy"]


async def test_a_report_that_warns_first_is_not_offered_beside(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    add_report(site, study, cda())
    record = site.dmp.records[DOMINIQUE.matricule]
    hidden = (*study.kos.confidentiality, HIDDEN_FROM_REPRESENTATIVES)
    record.entries[-1] = replace(record.entries[-1], confidentiality=hidden)
    browser, _, page = await listed(site)
    viewer = await browser.get(link(page, "Ouvrir les images"))
    assert html.fromstring(viewer.body).xpath("//a[@data-beside]") == []

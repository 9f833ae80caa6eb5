"""The pages, over real HTTPS: the way in, who, permission, the list, reports, and all that can go wrong."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import pytest
from consumer_world import (
    DOMINIQUE,
    KIT,
    KIT_TWO_PLACES,
    OTHER,
    OTHER_STRUCTURE,
    SECOND,
    STRUCTURE,
    THIRD,
    Browser,
    Record,
    Site,
    Study,
    make_study,
    practice,
    report_entry,
    text_of,
)
from lxml import html
from pydicom.data import get_testdata_file

from drimbox.foundation.errors import Misconfigured, Unavailable
from drimbox.foundation.http_client import Reply
from drimbox.national.dmp.codes import HIDDEN_FROM_PATIENT, MASKED, REFERENCE_STUDY
from drimbox.national.dmp.existence import Authorisation, RecordStatus
from drimbox.national.dmp.metadata.datatypes import Cx
from drimbox.record.audit import Kind, Outcome
from drimbox.sandbox.ris import letters
from drimbox.sandbox.ris.exams import exam

CT = Path(get_testdata_file("CT_small.dcm"))
CT_BYTES = CT.read_bytes()


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path, DOMINIQUE, [[CT, CT], [CT]])


@pytest.fixture
def level_3(samples: Path) -> bytes:
    """The official example of a level 3 report."""
    (original,) = samples.rglob("IMG_CR_IMG_2024.01.xml")
    return original.read_bytes()


def add_report(site: Site, study: Study, content: bytes, unique_id: str = "1.2.250.1.213.4.5.4.405") -> None:
    record = site.dmp.records[study.patient.matricule]
    record.entries.append(report_entry(study, unique_id))
    record.contents[unique_id] = content


def cda(**changes: str) -> bytes:
    return letters.clinical_document(letters.Letter(exam("E"), "1", letters.Identity(**changes)))


async def whole(browser: Browser, page: Reply) -> Reply:
    """The page with its list, as its script would complete it."""
    sources = html.fromstring(page.body).xpath("//section[@data-source]/@data-source")
    if not sources:
        return page
    part = await browser.get(sources[0])
    return replace(page, body=page.body.replace(b"</main>", part.body + b"</main>"))


def link(page: Reply, words: str) -> str:
    found = html.fromstring(page.body).xpath(f"//a[contains(normalize-space(), '{words}')]/@href")
    assert found, f"no link {words!r}"
    return str(found[0])


# --- the way in -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.CO.48")
async def test_the_call_gives_an_opaque_single_use_address(site: Site) -> None:
    for path in ("/drim", "/autre/drim"):
        reply = await site.browser().send("POST", path, DOMINIQUE.call(), follow=False)
        assert reply.status == 303
        assert re.fullmatch(rf"{site.origin}/entree/[A-Za-z0-9_-]{{43}}", reply.headers["Location"])
        assert reply.body == b""
    first, second = site.browser(), site.browser()
    address = await site.call()
    assert (await first.get(address)).status == 200
    refused = await second.get(address)
    assert refused.status == 404
    assert "déjà été ouvert" in text_of(refused)
    assert (await first.get(address)).status == 200


@pytest.mark.requirement("DB.CO.48")
async def test_a_bad_call_is_refused_by_name_and_never_by_value(site: Site) -> None:
    browser = site.browser()
    fields = DOMINIQUE.call() | {"Patient.birthDate": "1979-99-28"}
    for accept in ("text/html", "*/*"):
        reply = await browser.send("POST", "/drim", fields, Accept=accept)
        assert reply.status == 400
        assert b"Patient.birthDate" in reply.body
        assert b"1979-99-28" not in reply.body
        assert b"PAT-TROIS" not in reply.body
    event = site.journal.events[-1]
    assert event.kind is Kind.CONTEXTUAL_CALL
    assert event.outcome is not Outcome.SUCCESS
    wrong_type = await site.http.send(
        "POST", f"{site.origin}/drim", tls=site.trust, body=b"{}", headers={"Content-Type": "application/json"}
    )
    assert wrong_type.status == 400
    assert (await browser.get("/drim")).status in (404, 405)
    huge = await browser.send("POST", "/drim", {"ins": "1" * 100_000})
    assert huge.status in (400, 413, 422)


@pytest.mark.requirement("DB.CO.48")
async def test_a_preview_does_not_use_the_address_up(site: Site) -> None:
    address = await site.call()
    peek = await site.http.send("HEAD", f"{site.origin}{address}", tls=site.trust)
    assert peek.status == 503
    prefetch = await site.http.send(
        "GET", f"{site.origin}{address}", tls=site.trust, headers={"Sec-Purpose": "prefetch"}
    )
    assert prefetch.status == 503
    assert (await site.browser().get(address)).status == 200


@pytest.mark.requirement("DB.CO.93", "DB.CO.94", "DMP/CONF.06", "D18")
@pytest.mark.parametrize(
    ("consent", "words"),
    [("no", "ne porte pas le consentement"), ("unknown", "recueillez son consentement"), ("INC", "ne porte pas")],
)
async def test_without_consent_nothing_is_asked_and_nothing_shown(site: Site, consent: str, words: str) -> None:
    browser = site.browser()
    page = await browser.get(await site.call(InformationEtConsentement=consent))
    assert words in text_of(page)
    assert "PAT-TROIS" not in text_of(page)
    # Even a professional who is logged in through another patient gets nothing.
    await site.log_in(browser, SECOND)
    site.dmp.asked.clear()
    page = await browser.get(await site.call(InformationEtConsentement=consent))
    assert words in text_of(page)
    call = browser.path
    for path in ("/liste", "/images/x", "/compte-rendu/x"):
        assert (await browser.get(f"{call}{path}")).status in (401, 403, 404)
    assert site.dmp.asked == []


# --- who --------------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.CO.63", "DB.CS.53", "DB.CO.50", "DMP/AIRS.07", "INS/va1.36")
async def test_from_the_call_to_the_list(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    browser = site.browser()
    login = await browser.get(await site.call())
    assert "Pro Santé Connect" in text_of(login)
    assert "notifiées au patient" in text_of(login)
    # Nobody has logged in yet: the patient is not shown to whoever sits there.
    assert "PAT-TROIS" not in text_of(login)
    call = browser.path
    notice = await browser.get(f"{call}/connexion")
    assert "identifiant national" in text_of(notice)
    assert site.dmp.asked == []
    again = await browser.submit(notice, "/information")
    assert "identifiant national" in text_of(again)
    page = await browser.submit(again, "/information", lu="oui")
    shown = text_of(page)
    for words in ("PAT-TROIS", "DOMINIQUE", "28/03/1979", "Féminin", "51215", "2 79 03 51 215 189 89", "IPP101"):
        assert words in shown
    for words in ("KIT DOC0036790", "RPPS 99700367909", "Connecté le 01/03/2024 à 10:00", "CENTRE DE RADIOLOGIE"):
        assert words in shown
    assert "1 examen" in shown
    assert [what for what, _, _ in site.dmp.asked][:4] == ["TD0.2", "TD3.1", "TD3.1", "since"]
    told = ["110100/contextual-call", "110114/110122", "110100/notice", "110112/TD0.2", "110112/ITI-18"]
    # The local PACS is asked beside all this for its studies of the patient.
    written = site.journal.codes()
    assert [code for code in written if code != "110112/C-FIND"][:5] == told
    assert "110112/C-FIND" in written
    # The box was ticked once for this user: not asked for the next patient.
    site.hold(SECOND)
    assert "Examens d’imagerie" in text_of(await browser.get(await site.call(SECOND)))


@pytest.mark.requirement("DB.CO.48")
async def test_no_address_ever_holds_health_data_nor_a_token(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    add_report(site, study, cda())
    browser = site.browser()
    page = await site.log_in(browser)
    page = await browser.submit(page, "/criteres", modalite=["CT"], numero="ACN101", du="2023-01-01", action="chercher")
    await browser.get(link(page, "Ouvrir les images"))
    await browser.get(link(page, "Lire le compte rendu"))
    everything = " ".join(browser.visited)
    for secret in (DOMINIQUE.matricule, "PAT-TROIS", "DOMINIQUE", "1979", "IPP101", "ACN101", "access-", "id-code"):
        assert secret not in everything


async def test_a_login_must_be_ours_and_answered_once(site: Site) -> None:
    victim, attacker = site.browser(), site.browser()
    await victim.get(await site.call())
    await attacker.get(await site.call(SECOND))
    begun = await attacker.send("GET", f"{attacker.path}/connexion", follow=False)
    callback = begun.headers["Location"]
    stolen = await victim.get(callback)
    assert stolen.status == 404
    assert "n'a pas été demandée par ce navigateur" in text_of(stolen)
    assert (await attacker.get(callback)).status == 200
    reloaded = await attacker.get(callback)
    assert reloaded.status == 404
    assert (await site.browser().get(callback)).status == 404


async def test_a_reload_in_the_middle_of_the_login_is_harmless(site: Site) -> None:
    browser = site.browser()
    await browser.get(await site.call())
    call = browser.path
    await browser.send("GET", f"{call}/connexion", follow=False)
    assert (await browser.get(call)).status == 200
    assert "identifiant national" in text_of(await browser.get(f"{call}/connexion"))


async def test_psc_may_refuse_or_be_away(site: Site) -> None:
    browser = site.browser()
    await browser.get(await site.call())
    call = browser.path
    site.psc.down = True
    away = await browser.get(f"{call}/connexion")
    assert away.status == 503
    assert "Pro Santé Connect ne répond pas" in text_of(away)
    site.psc.down = False
    begun = await browser.send("GET", f"{call}/connexion", follow=False)
    state = begun.headers["Location"].split("state=")[1].split("&")[0]
    denied = await browser.get(f"/connexion/retour?state={state}&error=access_denied&error_description=x")
    assert denied.status == 403
    assert "Vous avez refusé la connexion" in text_of(denied)
    assert link(denied, "Réessayer") == call
    begun = await browser.send("GET", f"{call}/connexion", follow=False)
    site.psc.down = True
    cut = await browser.get(begun.headers["Location"])
    assert cut.status == 503
    outcomes = [e.outcome for e in site.journal.events if e.kind is Kind.LOGIN]
    assert Outcome.SUCCESS not in outcomes
    assert len(outcomes) == 2


@pytest.mark.parametrize(
    ("user", "words"),
    [
        (replace(KIT, national_id=""), "identifiant national"),
        (replace(KIT, practices=()), "aucune situation d'exercice"),
    ],
)
async def test_somebody_psc_does_not_know_enough_of(site: Site, user: object, words: str) -> None:
    site.psc.next_user = user  # type: ignore[assignment]
    browser = site.browser()
    await browser.get(await site.call())
    page = await browser.get(f"{browser.path}/connexion")
    assert page.status == 403
    assert words in text_of(page)


@pytest.mark.requirement("DB.CO.49", "DB.CO.50", "DB.CO.91")
async def test_the_practice_is_chosen_remembered_and_changed(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    site.hold(SECOND)
    site.psc.next_user = KIT_TWO_PLACES
    browser = site.browser()
    page = await site.log_in(browser)
    call = browser.path
    assert "Choisissez votre situation d’exercice" in text_of(page)
    assert site.dmp.asked == []
    page = await browser.submit(page, "/situation", situation="0")
    assert {structure for _, structure, _ in site.dmp.asked} == {STRUCTURE}
    assert "Situation d’exercice CENTRE DE RADIOLOGIE" in text_of(page)
    # Remembered for the next patient.
    assert "Examens d’imagerie" in text_of(await browser.get(await site.call(SECOND)))
    await browser.get(link(await browser.get(call), "Ouvrir les images"))
    site.dmp.asked.clear()
    page = await browser.get(f"{call}/situation")
    page = await browser.submit(page, "/situation", situation="1")
    assert {structure for _, structure, _ in site.dmp.asked} == {OTHER_STRUCTURE}
    assert [what for what, _, _ in site.dmp.asked][:4] == ["TD0.2", "TD3.1", "TD3.1", "since"]
    assert "CABINET M DOC0036790" in text_of(page)
    # Nothing that was opened in the former practice is still there.
    assert list(site.folder.rglob("*.dcm")) == []
    bad = await browser.get(f"{call}/situation")
    for wrong in ("2", "-1", "x", "", "9" * 5000):
        assert (await browser.submit(bad, "/situation", situation=wrong)).status == 403


@pytest.mark.requirement("DB.CO.49")
async def test_the_situation_of_the_call_is_obeyed_for_that_call_alone(site: Site) -> None:
    site.hold(DOMINIQUE)
    site.hold(SECOND)
    site.psc.next_user = KIT_TWO_PLACES
    browser = site.browser()
    await site.log_in(browser, Situation=OTHER_STRUCTURE)
    await browser.get(await site.call(SECOND, Situation="750803447"))
    asked = {(patient, structure) for _, structure, patient in site.dmp.asked}
    assert asked == {(DOMINIQUE.matricule, OTHER_STRUCTURE), (SECOND.matricule, STRUCTURE)}
    unknown = await browser.get(await site.call(THIRD, Situation="Hôpital inconnu"))
    assert "n’est pas l’une des vôtres" in text_of(unknown)


@pytest.mark.requirement("DB.CO.91")
async def test_a_practice_in_a_structure_we_do_not_serve_is_told_so(site: Site) -> None:
    site.psc.next_user = replace(KIT, practices=(practice("1990000001", "AILLEURS"),))
    page = await site.log_in(site.browser())
    assert "une structure que cette DRIMbox ne sert pas" in text_of(page)
    assert site.dmp.asked == []


@pytest.mark.requirement("DB.CO.64")
async def test_logout_ends_everything_here_and_leads_to_psc(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    browser = site.browser()
    page = await site.log_in(browser)
    call = browser.path
    await browser.get(link(page, "Ouvrir les images"))
    await asyncio.sleep(0.2)
    assert list(site.folder.rglob("*.dcm"))
    asked = await browser.get("/deconnexion")
    bye = await browser.submit(asked, "/deconnexion")
    assert "Vous êtes déconnecté" in text_of(bye)
    assert link(bye, "Pro Santé Connect") == f"{site.origin}/au-revoir"
    assert '"storage"' in bye.headers["Clear-Site-Data"]
    assert site.psc.revoked
    assert list(site.folder.iterdir()) == []
    assert browser.cookies == {}
    assert (await browser.get(call)).status == 404
    assert site.journal.codes()[-1] == "110114/110123"


async def test_psc_can_end_a_session_from_its_side(site: Site) -> None:
    site.hold(DOMINIQUE)
    browser = site.browser()
    await site.log_in(browser)
    call = browser.path
    caller = site.browser()
    assert (await caller.send("POST", "/psc/deconnexion", {"logout_token": "forged"})).status == 400
    assert (await caller.send("POST", "/psc/deconnexion", {})).status == 400
    assert (await browser.get(call)).status == 200
    assert (await caller.send("POST", "/psc/deconnexion", {"logout_token": "signed:session-code0"})).status == 200
    assert (await browser.get(call)).status == 404


@pytest.mark.requirement("DB.CO.65")
async def test_idle_sessions_end_and_busy_ones_are_kept_alive_at_psc(site: Site) -> None:
    site.hold(DOMINIQUE)
    browser = site.browser()
    await site.log_in(browser)
    call = browser.path
    for _ in range(4):
        site.clock.advance(20 * 60)
        assert (await browser.get(call)).status == 200
    assert site.psc.refreshed == 4
    site.psc.refuse_refresh = True
    site.clock.advance(10 * 60)
    assert "reconnectez-vous" in text_of(await browser.get(call))
    site.clock.advance(31 * 60)
    ended = await browser.get(call)
    assert ended.status == 404
    assert "relancez l'appel" in text_of(ended)


async def test_logging_in_again_goes_on_where_it_stopped(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    browser = site.browser()
    page = await site.log_in(browser)
    call = browser.path
    images = link(page, "Ouvrir les images")
    site.clock.advance(10 * 60)
    site.psc.refuse_refresh = True
    assert (await browser.send("POST", "/presence?actif=1", {})).status == 401
    site.psc.refuse_refresh = False
    site.dmp.asked.clear()
    # However often it is asked, nothing more is done in the name of somebody PSC does not vouch for.
    for path in (call, images, call):
        assert "S’identifier avec Pro Santé Connect" in text_of(await browser.get(path))
    assert (await browser.get(f"{call}/liste", Accept="*/*")).status == 401
    assert site.dmp.asked == []
    page = await browser.get(f"{call}/connexion")
    assert "Examens d’imagerie" in text_of(page)


# --- permission -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DMP/UX.08", "D22")
@pytest.mark.parametrize(
    ("record", "words", "may_grant"),
    [
        (None, "n'a pas de DMP", False),
        (Record(RecordStatus.CLOSED), "est fermé", False),
        (Record(authorisation=Authorisation.ABSENT), "pas encore autorisé", True),
        (Record(authorisation=Authorisation.EXPIRED), "a expiré", True),
        (Record(authorisation=Authorisation.FORBIDDEN), "bloqué votre accès", False),
    ],
)
async def test_each_obstacle_is_said_in_words(site: Site, record: Record | None, words: str, may_grant: bool) -> None:
    if record is not None:
        site.dmp.records[DOMINIQUE.matricule] = record
    page = await site.log_in(site.browser())
    assert words in text_of(page)
    assert (b"/autorisation" in page.body) is may_grant
    assert [what for what, _, _ in site.dmp.asked] == ["TD0.2"]


@pytest.mark.requirement("D22", "DMP/UX.08")
async def test_an_authorisation_takes_an_explicit_act(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    site.dmp.records[DOMINIQUE.matricule].authorisation = Authorisation.ABSENT
    browser = site.browser()
    page = await site.log_in(browser)
    unticked = await browser.submit(page, "/autorisation")
    assert unticked.status == 403
    assert site.dmp.grants == []
    page = await browser.submit(page, "/autorisation", accord="oui")
    assert site.dmp.grants == [KIT.national_id]
    assert "1 examen" in text_of(page)
    assert "110110/TD0.3" in site.journal.codes()
    # Granting again, when nothing stands in the way, is no act at all.
    token = html.fromstring(page.body).xpath("//input[@name='jeton']/@value")[0]
    repeated = await browser.send("POST", f"{browser.path}/autorisation", {"jeton": token, "accord": "oui"})
    assert repeated.status == 403
    assert len(site.dmp.grants) == 1


async def test_a_dmp_that_fails_is_not_an_empty_one(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    site.dmp.failure = Unavailable("Le DMP ne répond pas", code="dmp-failed")
    browser = site.browser()
    page = await site.log_in(browser)
    assert "Le DMP ne répond pas" in text_of(page)
    assert "pas une liste vide" in text_of(page)
    site.dmp.failure = None
    page = await browser.submit(page, "/actualiser")
    assert "1 examen" in text_of(page)
    assert [e.outcome for e in site.journal.events if e.kind is Kind.DMP_ACCESS_CHECKED] == [
        Outcome.MINOR_FAILURE,
        Outcome.SUCCESS,
    ]


@pytest.mark.requirement("DMP/UX.10")
async def test_a_slow_dmp_does_not_hold_the_page_up(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    site.dmp.delay = 0.5
    browser = site.browser()
    page = await site.log_in(browser)
    assert "Interrogation du DMP" in text_of(page)
    assert "PAT-TROIS" in text_of(page)
    (source,) = html.fromstring(page.body).xpath("//*[@data-source]/@data-source")
    lists = await asyncio.gather(*(browser.get(source) for _ in range(3)))
    assert all("1 examen" in text_of(each) for each in lists)
    assert [what for what, _, _ in site.dmp.asked][:4] == ["TD0.2", "TD3.1", "TD3.1", "since"]


# --- the list ---------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.CO.54", "DB.CO.55", "DMP/UX.27")
async def test_criteria_ask_the_dmp_again(site: Site, study: Study, tmp_path: Path) -> None:
    other = make_study(tmp_path, DOMINIQUE, [[CT]], day="20220310", modality="MR")
    site.hold(DOMINIQUE, study, other)
    browser = site.browser()
    page = await site.log_in(browser)
    assert "2 examens" in text_of(page)
    page = await browser.submit(page, "/criteres", modalite=["MR"], du="2022-03-01", au="2022-03-31", action="chercher")
    assert "1 examen" in text_of(page)
    assert site.dmp.criteria[-2].modalities == ("MR",)
    assert len(site.dmp.criteria) == 4
    values = html.fromstring(page.body).xpath("//input[@name='du']/@value")
    assert values == ["2022-03-01"]
    page = await browser.submit(page, "/criteres", action="tout")
    assert "2 examens" in text_of(page)
    page = await browser.submit(page, "/criteres", du="2022-04-01", au="2022-03-31", action="chercher")
    assert page.status == 403
    assert [w for w, _, _ in site.dmp.asked].count("TD0.2") == 3


@pytest.mark.requirement("DB.CO.54")
async def test_the_filters_of_the_call_preset_the_search(site: Site, study: Study, tmp_path: Path) -> None:
    other = make_study(tmp_path, DOMINIQUE, [[CT]], day="20220310", modality="MR", accession="ACN102")
    site.hold(DOMINIQUE, study, other)
    for filters in ({"Modality": "MR"}, {"StudyDate": "20220310"}, {"AccessionNumber": "ACN102"}):
        page = await site.log_in(site.browser(), **filters)
        assert "1 examen" in text_of(page)
        assert "10/03/2022" in text_of(page)
        assert "15/01/2024" not in text_of(page)


@pytest.mark.requirement("DB.CO.54", "DB.CO.57")
async def test_the_study_of_the_call_opens_directly_and_once(site: Site, study: Study, tmp_path: Path) -> None:
    site.hold(DOMINIQUE, study, make_study(tmp_path, DOMINIQUE, [[CT]], day="20220310"))
    browser = site.browser()
    page = await site.log_in(browser, StudyInstanceUID=study.manifest.study_uid)
    assert b"iframe" in page.body
    page = await browser.get(link(page, "Liste des examens"))
    assert "1 examen" in text_of(page)
    page = await browser.submit(page, "/criteres", action="tout")
    assert "2 examens" in text_of(page)


async def test_states_are_shown_and_hidden_documents_warn_first(site: Site, study: Study) -> None:
    study.kos = replace(study.kos, confidentiality=(*study.kos.confidentiality, MASKED, HIDDEN_FROM_PATIENT))
    site.hold(DOMINIQUE, study)
    browser = site.browser()
    page = await site.log_in(browser)
    assert "Images : masqué aux professionnels" in text_of(page)
    assert "Images : non visible par le patient" in text_of(page)
    warned = await browser.get(link(page, "Ouvrir les images"))
    assert "n'est pas encore visible par le patient" in text_of(warned)
    assert "TD3.2" not in [what for what, _, _ in site.dmp.asked]
    opened = await browser.submit(warned, "")
    assert b"iframe" in opened.body


async def test_who_was_warned_goes_on_to_where_they_were_going(site: Site, study: Study, tmp_path: Path) -> None:
    study.kos = replace(study.kos, confidentiality=(*study.kos.confidentiality, HIDDEN_FROM_PATIENT))
    site.hold(DOMINIQUE, study, make_study(tmp_path, DOMINIQUE, [[CT]], day="20220310"))
    browser = site.browser()
    listed = await site.log_in(browser)
    keys = re.findall(rb'name="examen" value="([^"]+)"', listed.body)
    beside = "&".join(f"examen={key.decode()}" for key in keys)
    call = browser.path
    warned = await browser.get(f"{call}/comparaison?{beside}")
    assert "n'est pas encore visible par le patient" in text_of(warned)
    opened = await browser.submit(warned, "")
    assert b"hangingProtocolId=drimbox-comparaison-2" in opened.body
    # Once for the whole call; and never to another page than one of it.
    series = await browser.get(link(listed, "Séries"))
    assert "Ouvrir cette série" in text_of(series)
    for elsewhere in (
        "https://example.org/",
        "//example.org/appel",
        f"{call}x/",
        "/appel/autre/",
        f"{call}/\\example.org",
    ):
        await browser.submit(warned, "", retour=elsewhere)
        assert browser.path == call, elsewhere


# --- opening ----------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.CO.68", "D23", "INS/va1.36")
async def test_a_kos_of_another_patient_is_not_opened(site: Site, tmp_path: Path) -> None:
    site.hold(DOMINIQUE, make_study(tmp_path, DOMINIQUE, [[CT]], described_as=SECOND))
    browser = site.browser()
    page = await browser.get(link(await site.log_in(browser), "Ouvrir les images"))
    assert page.status == 409
    assert "n'est pas celui de l'appel (différence : matricule INS)" in text_of(page)
    assert site.sources.asked == []


@pytest.mark.requirement("DB.CO.68", "D23")
async def test_images_of_another_patient_are_not_shown(site: Site, tmp_path: Path) -> None:
    wrong = make_study(tmp_path, DOMINIQUE, [[CT, CT]], image_patient=SECOND)
    site.hold(DOMINIQUE, wrong)
    browser = site.browser()
    page = await browser.get(link(await site.log_in(browser), "Ouvrir les images"))
    (state,) = html.fromstring(page.body).xpath("//*[@id='avancement']/@data-source")
    await asyncio.sleep(0.2)
    told = (await browser.get(state)).body.decode()
    assert "INS des images" in told
    assert '"received":0' in told
    assert list(site.folder.rglob("*.dcm")) == []
    events = [e for e in site.journal.events if e.kind is Kind.IMAGES_FETCHED]
    assert [e.outcome for e in events] == [Outcome.SERIOUS_FAILURE]


@pytest.mark.requirement("D15", "D16")
async def test_only_listed_hosts_are_called(site: Site, tmp_path: Path) -> None:
    site.hold(DOMINIQUE, make_study(tmp_path, DOMINIQUE, [[CT]], host="ailleurs.example"))
    browser = site.browser()
    page = await site.log_in(browser)
    viewer = await browser.get(link(page, "Ouvrir les images"))
    (state,) = html.fromstring(viewer.body).xpath("//*[@id='avancement']/@data-source")
    await asyncio.sleep(0.1)
    assert "liste blanche" in (await browser.get(state)).body.decode()
    assert site.sources.asked == []
    site.hosts.failure = Misconfigured("Liste blanche trop ancienne", code="whitelist-age")
    fresh = site.browser()
    stale = await fresh.get(link(await site.log_in(fresh), "Ouvrir les images"))
    assert "Liste blanche trop ancienne" in text_of(stale)


@pytest.mark.requirement("DB.CO.65", "DB.CO.123", "DB.CO.125")
async def test_the_token_is_refreshed_just_before_the_fetch(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    browser = site.browser()
    page = await site.log_in(browser)
    site.clock.advance(110)
    await browser.get(link(page, "Ouvrir les images"))
    await asyncio.sleep(0.2)
    assert {token for _, token, _ in site.sources.asked} == {"access-code0-1"}
    assert {kos for _, _, kos in site.sources.asked} == {study.manifest.kos_uid}


async def test_what_is_no_kos_is_told_so(site: Site, study: Study) -> None:
    record = site.hold(DOMINIQUE, study)
    record.contents[study.kos.unique_id] = CT_BYTES
    browser = site.browser()
    page = await browser.get(link(await site.log_in(browser), "Ouvrir les images"))
    assert page.status == 422
    assert "PAT-TROIS" in text_of(page)
    record.contents[study.kos.unique_id] = b"<html>503</html>"
    assert (await browser.get(browser.path)).status == 422


async def test_a_kos_of_another_study_than_described_is_refused(site: Site, study: Study) -> None:
    record = site.hold(DOMINIQUE, study)
    record.entries[0] = replace(study.kos, references=(Cx("1.2.3.4", "", REFERENCE_STUDY),))
    browser = site.browser()
    page = await browser.get(link(await site.log_in(browser), "Ouvrir les images"))
    assert page.status == 422
    assert "n'est pas celui de l'examen" in text_of(page)


@pytest.mark.requirement("DB.CO.58", "DB.CO.59")
async def test_a_report_is_read_beside_the_images(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    add_report(site, study, cda())
    browser = site.browser()
    page = await site.log_in(browser)
    viewer = await browser.get(link(page, "Ouvrir les images"))
    report = await browser.get(link(viewer, "Lire le compte rendu"))
    shown = text_of(report)
    for words in ("CR d", "08/01/2021 à 11:17", "BIDEAULT", "Centre de radiologie Ambroise", "1.2.250.1.213.4.5.4.405"):
        assert words in shown
    (frame,) = html.fromstring(report.body).xpath("//iframe/@src")
    pdf = await browser.get(frame)
    assert pdf.headers["Content-Type"] == "application/pdf"
    assert pdf.body.startswith(b"%PDF-")
    assert "default-src 'none'" in pdf.headers["Content-Security-Policy"]
    assert pdf.headers["X-Content-Type-Options"] == "nosniff"
    # The traits that the call does not carry come from the document (ans-faq.md 4.2).
    assert "non communiqués" not in shown


@pytest.mark.requirement("DB.CO.58")
async def test_a_level_3_report_is_shown_as_text(site: Site, study: Study, level_3: bytes) -> None:
    hostile = level_3.replace(b"(texte libre)", b"&lt;script&gt;alert(1)&lt;/script&gt;", 1)
    site.hold(DOMINIQUE, study)
    add_report(site, study, hostile)
    browser = site.browser()
    page = await site.log_in(browser)
    report = await browser.get(link(page, "Lire le compte rendu"))
    assert report.status == 200
    assert "Informations cliniques" in text_of(report)
    assert "<script>alert(1)" not in report.body.decode()
    assert "&lt;script&gt;alert(1)" in report.body.decode()


@pytest.mark.requirement("DB.CO.68", "INS/va1.36")
@pytest.mark.parametrize("change", [{"ins": SECOND.matricule}, {"birth_date": "19790329"}, {"family": "PAT-QUATRE"}])
async def test_a_report_of_another_patient_is_not_shown(site: Site, study: Study, change: dict[str, str]) -> None:
    site.hold(DOMINIQUE, study)
    add_report(site, study, cda(**change))
    browser = site.browser()
    page = await browser.get(link(await site.log_in(browser), "Lire le compte rendu"))
    assert page.status == 409
    assert "n'est pas celui de l'appel" in text_of(page)
    assert b"%PDF" not in page.body


@pytest.mark.parametrize("content", [b"", b"<a/>", b"<!DOCTYPE a><a/>", b"%PDF-1.4", cda()[:2000]])
async def test_what_is_no_report_is_told_so(site: Site, study: Study, content: bytes) -> None:
    site.hold(DOMINIQUE, study)
    add_report(site, study, content)
    browser = site.browser()
    page = await browser.get(link(await site.log_in(browser), "Lire le compte rendu"))
    assert page.status == 422


# --- walls ------------------------------------------------------------------------------------------------------------


async def test_two_browsers_and_many_tabs_are_never_mixed(site: Site, tmp_path: Path) -> None:
    """The demonstrator's worst defect: every open session pointed to the last patient called."""
    patients = (DOMINIQUE, SECOND, THIRD)
    days = {p.matricule: f"2024010{n}" for n, p in enumerate(patients, 1)}
    for patient in patients:
        site.hold(patient, make_study(tmp_path, patient, [[CT]], day=days[patient.matricule]))
    browsers = [site.browser() for _ in range(2)]
    for browser, user in zip(browsers, (KIT, OTHER), strict=True):
        site.psc.next_user = user
        await site.log_in(browser, DOMINIQUE)
    site.dmp.delay = 0.01

    async def tab(browser: Browser, number: int) -> None:
        patient = patients[number % 3]
        own = Browser(browser.http, browser.origin, browser.tls, browser.cookies)
        page = await own.get(await site.call(patient))
        for _ in range(3):
            page = await whole(own, page)
            shown = text_of(page)
            digits = re.sub(r"\s", "", shown)
            assert patient.matricule in digits
            assert f"0{patients.index(patient) + 1}/01/2024" in shown
            assert patient.ipp in shown
            assert not any(p.matricule in digits for p in patients if p is not patient)
            images = await own.get(link(page, "Ouvrir les images"))
            assert patient.matricule in re.sub(r"\s", "", text_of(images))
            page = await own.get(link(images, "Liste des examens"))
            await asyncio.sleep(0)

    await asyncio.gather(*(tab(browser, n) for n in range(9) for browser in browsers))
    consulted = {(e.actor.person, e.kind) for e in site.journal.events if e.kind is Kind.DMP_QUERIED}
    assert {person for person, _ in consulted} == {KIT.national_id, OTHER.national_id}
    for event in site.journal.events:
        if event.kind is Kind.IMAGES_VIEWED and event.patient is not None:
            record = site.dmp.records[event.patient.matricule]
            assert {o.identifier for o in event.objects} & {e.unique_id for e in record.entries}


async def test_nothing_of_a_session_can_be_had_by_another(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    add_report(site, study, cda())
    owner = site.browser()
    page = await site.log_in(owner)
    call = owner.path
    viewer = await owner.get(link(page, "Ouvrir les images"))
    report = await owner.get(link(page, "Lire le compte rendu"))
    await asyncio.sleep(0.2)
    (frame,) = html.fromstring(viewer.body).xpath("//iframe/@src")
    (pdf,) = html.fromstring(report.body).xpath("//iframe/@src")
    root = frame.split("/viewer?")[0]
    series = study.manifest.series[0]
    web = f"{root}/dicomweb/studies"
    of_series = f"{web}/{study.manifest.study_uid}/series/{series.series_uid}"
    image = f"{of_series}/instances/{series.instances[0].sop_instance_uid}"
    secrets = [
        call, f"{call}/liste", f"{call}/situation", link(page, "Ouvrir les images"), link(page, "Lire le compte rendu"),
        frame, pdf, f"{root}/etat", web, f"{web}/{study.manifest.study_uid}/series", f"{of_series}/instances",
        f"{of_series}/metadata", image, f"{image}/metadata", f"{image}/frames/1", f"{image}/bulkdata/7FE00010",
        f"{image}/rendered",
    ]  # fmt: skip
    thief = site.browser()
    site.psc.next_user = OTHER
    await site.log_in(thief, SECOND)
    for path in secrets:
        # A CT is no video: those two have nothing to give, even to the owner.
        allowed = (422,) if path.endswith(("7FE00010", "/rendered")) else (200,)
        assert (await owner.get(path)).status in allowed, path
        for stranger in (thief, site.browser()):
            reply = await stranger.get(path)
            assert reply.status == 404, path
            assert b"PAT-TROIS" not in reply.body or stranger is thief
    jeton = html.fromstring(page.body).xpath("//input[@name='jeton']/@value")[0]
    for path in ("/criteres", "/actualiser", "/autorisation", "/information", "/situation"):
        assert (await thief.send("POST", f"{call}{path}", {"jeton": jeton})).status == 404
    asked = await owner.get("/deconnexion")
    await owner.submit(asked, "/deconnexion")
    for path in secrets:
        assert (await owner.get(path)).status == 404


async def test_forms_cannot_be_forged(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    browser = site.browser()
    page = await site.log_in(browser)
    call = browser.path
    good = html.fromstring(page.body).xpath("//input[@name='jeton']/@value")[0]
    for jeton in ("", "x", good[:-1], good + "x"):
        assert (await browser.send("POST", f"{call}/criteres", {"jeton": jeton, "action": "tout"})).status == 403
    foreign = await browser.send("POST", f"{call}/criteres", {"jeton": good}, Sec_Fetch_Site="cross-site")
    assert foreign.status == 403
    assert (await browser.send("POST", "/deconnexion", {"jeton": "x"})).status == 403
    assert (await browser.get(call)).status == 200
    too_big = await browser.send("POST", f"{call}/criteres", {"jeton": good, "numero": "9" * 50_000})
    assert too_big.status == 413


async def test_a_second_login_by_somebody_else_clears_the_first_ones_tabs(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    site.hold(SECOND)
    browser = site.browser()
    await site.log_in(browser, DOMINIQUE)
    first = browser.path
    await browser.get(await site.call(SECOND))
    second = browser.path
    site.psc.next_user = OTHER
    page = await browser.get(f"{second}/connexion")
    assert "identifiant national" in text_of(page)
    assert (await browser.get(first)).status == 404
    page = await browser.submit(await browser.get(second), "/information", lu="oui")
    assert "PAUL TOUBIB0021889" in text_of(page)


async def test_the_cookie_is_hard_to_steal(site: Site) -> None:
    browser = site.browser()
    await site.log_in(browser)
    assert len(browser.set_cookies) == 2
    names = set()
    for line in browser.set_cookies:
        lowered = line.lower()
        assert line.startswith("__Host-drimbox-site-b-")
        for flag in ("; secure", "; httponly", "; samesite=lax", "; path=/"):
            assert flag in lowered
        assert "domain" not in lowered
        names.add(line.split("=")[0])
    assert len(names) == 1
    values = {line.split("=")[1].split(";")[0] for line in browser.set_cookies}
    assert len(values) == 2, "the cookie must change at login"


async def test_every_answer_carries_the_security_headers(site: Site, study: Study) -> None:
    site.hold(DOMINIQUE, study)
    browser = site.browser()
    page = await site.log_in(browser)
    viewer = await browser.get(link(page, "Ouvrir les images"))
    (frame,) = html.fromstring(viewer.body).xpath("//iframe/@src")
    for path in ("/", "/nulle-part", browser.path, "/statique/style.css", frame, "/deconnexion", "/drim"):
        reply = await browser.get(path)
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["Referrer-Policy"] == "no-referrer"
        assert "frame-ancestors" in reply.headers["Content-Security-Policy"]
        assert "unsafe-eval" not in reply.headers["Content-Security-Policy"].replace("wasm-unsafe-eval", "")
        assert reply.headers["Cache-Control"] in ("no-store", "no-cache")
        # On loopback it would bind every other service of the machine.
        assert "Strict-Transport-Security" not in reply.headers
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]


async def test_callers_who_knock_too_often_are_held_back(site: Site) -> None:
    statuses = set()
    for _ in range(700):
        reply = await site.http.send("POST", f"{site.origin}/drim", tls=site.trust, body=b"x=1")
        statuses.add(reply.status)
        if reply.status == 429:
            break
    assert statuses == {400, 429}
    site.clock.advance(60)
    assert (await site.http.send("POST", f"{site.origin}/drim", tls=site.trust, body=b"x=1")).status == 400


async def test_what_is_typed_by_a_caller_is_never_markup(site: Site) -> None:
    site.hold(DOMINIQUE)
    browser = site.browser()
    page = await site.log_in(
        browser, **{"Address.district": "<script>alert(1)</script>", "AccessionNumber": '"><img src=x>'}
    )
    assert page.status == 200
    assert b"<script>alert" not in page.body.lower()
    assert b"<img src" not in page.body
    assert html.fromstring(page.body).xpath("//script[not(@src)]") == []


@pytest.mark.requirement("DB.CO.65")
async def test_only_true_inactivity_ends_a_session(site: Site) -> None:
    site.hold(DOMINIQUE)
    browser = site.browser()
    await site.log_in(browser)
    for _ in range(3):
        site.clock.advance(25 * 60)
        assert (await browser.send("POST", "/presence?actif=1", {})).status == 204
    assert site.psc.refreshed == 3
    for _ in range(2):
        site.clock.advance(14 * 60)
        assert (await browser.send("POST", "/presence", {})).status == 204
    site.clock.advance(2 * 60)
    assert (await browser.send("POST", "/presence", {})).status == 404

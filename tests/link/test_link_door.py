"""The door as people meet it: who they are, what they prove, what opens."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest
from link_world import (
    ACCESSION,
    DOCTOR,
    LINK,
    NOW,
    PATIENT,
    REPORT,
    SERIES,
    STUDY,
    Place,
    link,
    open_place,
    text_of,
)

from drimbox.foundation.errors import Rejected, Unavailable
from drimbox.link.agreement import hidden_from
from drimbox.link.patients import SENDING_FAILED
from drimbox.link.visit import Visitor
from drimbox.link.visits import Limits
from drimbox.link.web.desk import Portal
from drimbox.publication.publish import Outcome as Published
from drimbox.record.audit import Kind, Outcome, Thing
from drimbox.reports.report import Visibility
from drimbox.store.database import Pool
from publication.publication_examples import down, letter_of, study_of

GENERIC = "Lien non valable Ce lien n'ouvre pas d'images : adresse incorrecte ou identifiants incohérents."


@pytest.mark.requirement("DB.VI-SO.08")
async def test_the_link_asks_who_it_is_and_shows_nothing(place: Place) -> None:
    page = await place.browser().get(LINK)
    assert page.status_code == 200
    assert "Je suis le patient" in text_of(page)
    assert "Je suis un professionnel de santé" in text_of(page)
    assert "PAT-TROIS" not in page.text
    assert place.world.pacs.asked == 1, "a stranger does not make the PACS work"


@pytest.mark.requirement("D19", "DB.VI-SO.05")
@pytest.mark.parametrize("series", [None, SERIES])
async def test_a_patient_comes_in_by_a_code(place: Place, series: str | None) -> None:
    browser = place.browser()
    address = link(requestType="SERIES" if series else "STUDY", seriesUID=series)
    page = await place.patient(browser, address)
    assert page.status_code == 200
    kos = await place.world.current()
    assert kos is not None
    assert text_of(page) == f"patient {STUDY} {kos.kos_uid} {series}"
    assert (await browser.get(f"{browser.path}/image")).content == STUDY.encode()
    [code] = place.phone.codes
    assert (code.contact.email, code.contact.mobile) == ("279035121518989@patient.mssante.fr", "0647151010")
    assert code.ins == kos.ins


async def test_a_patient_writes_as_people_do(place: Place) -> None:
    browser = place.browser()
    forms = ({"lieu": "51215"}, {"lieu": " dompremy "}, {"naissance": "28 3 1979"}, {"naissance": "28031979"})
    for number, said in enumerate(forms, 1):
        await browser.submit(await browser.as_patient(), **PATIENT | said)
        await place.settle()
        assert len(place.phone.codes) == number, said


async def test_a_form_that_is_not_filled_in_says_so(place: Place) -> None:
    browser = place.browser()
    for said, advice in (
        ({"naissance": ""}, "28/03/1979"),
        ({"naissance": "31/02/1979"}, "n'existe pas"),
        ({"sexe": "X"}, "Choisissez le sexe"),
        ({"lieu": "  "}, "lieu de naissance"),
        ({"lieu": "x" * 81}, "lieu de naissance"),
    ):
        page = await browser.submit(await browser.as_patient(), **PATIENT | said)
        assert page.status_code == 422
        assert advice in text_of(page)
    assert not await place.told(Kind.LINK_IDENTITY_CHECKED)


@pytest.mark.requirement("DB.VI-SO.09", "DB.VI-SO.07")
async def test_a_professional_comes_in_by_psc(place: Place) -> None:
    browser = place.browser()
    page = await place.professional(browser)
    kos = await place.world.current()
    assert kos is not None
    assert text_of(page) == f"professional ANNE MAXIMINA {STUDY} {kos.kos_uid} None"
    [opened] = await place.told(Kind.LINK_OPENED)
    assert opened.event.actor.person == DOCTOR.national_id
    assert opened.event.actor.address == "192.0.2.7"
    [login] = await place.told(Kind.LOGIN)
    assert login.event.actor.name == "ANNE MAXIMINA"


async def test_a_profession_that_is_not_let_in(pool: Pool) -> None:
    async with open_place(pool, professions=frozenset({"60"})) as place:
        page = await place.professional(place.browser())
        assert page.status_code == 403
        assert "profession" in text_of(page)
        [event] = await place.told(Kind.LOGIN)
        assert event.event.outcome is Outcome.SERIOUS_FAILURE


async def test_psc_that_is_away_says_so(place: Place) -> None:
    place.psc.error = Unavailable("Pro Santé Connect ne répond pas", code="psc-unavailable")
    browser = place.browser()
    page = await browser.submit(await browser.get(LINK), visiteur="professional")
    assert page.status_code == 503
    assert "ne répond pas" in text_of(page)


@pytest.mark.requirement("DB.VI-SO.28", "DB.VI-SO.33")
async def test_one_message_for_every_link_that_does_not_agree(place: Place) -> None:
    pages = set()
    wrong: tuple[dict[str, str | None], ...] = (
        {"studyUID": "1.2.3.4"},
        {"accessionNumber": "ACN106"},
        {"idCDA": "1.2.3"},
        {"idCDA": f"{REPORT}_1"},
        {"requestType": "SERIES", "seriesUID": "1.2.3"},
        {"requestType": "PATIENT"},
        {"idCDA": None},
    )
    for changes in wrong:
        first = await place.browser().get(link(**changes))
        page = first if first.status_code == 404 else await place.professional(place.browser(), link(**changes))
        assert page.status_code == 404
        assert text_of(page).startswith(GENERIC)
        pages.add(page.content)
    assert len(pages) == 1
    events = [one.event for one in await place.told(Kind.LINK_OPENED)]
    assert [event.outcome for event in events] == [Outcome.SERIOUS_FAILURE] * len(wrong)
    assert len({event.outcome_text for event in events}) == 5, "the journal tells them apart"


@pytest.mark.requirement("DB.VI-SO.33")
async def test_the_pacs_has_the_last_word(place: Place) -> None:
    place.world.pacs.hold(study_of(accession_number="ACN900"))
    page = await place.professional(place.browser())
    assert text_of(page).startswith(GENERIC)
    place.world.pacs.studies.clear()
    page = await place.patient(place.browser())
    assert text_of(page).startswith(GENERIC)
    told = [one.event.outcome_text for one in await place.told(Kind.LINK_OPENED)]
    assert told == ["numéro d'examen différent de celui du PACS", "examen absent du PACS"]


@pytest.mark.requirement("DB.VI-SO.28")
async def test_a_pacs_that_is_away_is_not_an_empty_one(place: Place) -> None:
    place.world.pacs.error = down()
    page = await place.professional(place.browser())
    assert page.status_code == 503
    assert "réessayez plus tard" in text_of(page)
    [event] = await place.told(Kind.LINK_OPENED)
    assert event.event.outcome is Outcome.MINOR_FAILURE


async def test_a_depublished_study_is_gone(place: Place) -> None:
    assert await place.world.run(letter_of(operation="delete", control_id="M2")) is Published.DEPUBLISHED
    assert text_of(await place.professional(place.browser())).startswith(GENERIC)
    browser = place.browser()
    page = await browser.submit(await browser.as_patient(), **PATIENT)
    await place.settle()
    assert "Saisissez votre code" in text_of(page)
    assert not place.phone.codes


async def test_a_study_that_is_depublished_meanwhile_closes(place: Place) -> None:
    browser = place.browser()
    await place.patient(browser)
    assert await place.world.run(letter_of(operation="delete", control_id="M2")) is Published.DEPUBLISHED
    page = await browser.get(browser.path)
    assert page.status_code == 404
    assert "n'est plus ouverte" in text_of(page)
    assert len(place.desk.visits) == 0
    [out] = await place.told(Kind.LOGOUT)
    assert out.event.objects[0].detail == "examen dépublié"
    assert place.ended == [out.event.objects[0].identifier]


async def test_a_new_version_of_the_kos_goes_on_in_the_same_visit(place: Place) -> None:
    browser = place.browser()
    await place.professional(browser)
    before = await place.world.current()
    again = letter_of(control_id="M2").corrected("1.2.250.1.213.4.5.2.9.105", "M2")
    place.world.pacs.hold(study_of(images=4))
    assert await place.world.run(again) is Published.PUBLISHED
    now = await place.world.current()
    assert before is not None
    assert now is not None
    assert now.kos_uid != before.kos_uid
    assert now.kos_uid in text_of(await browser.get(browser.path))
    # The first report, on paper, still opens; so does the one that took its place.
    assert (await place.professional(place.browser())).status_code == 200
    assert (await place.professional(place.browser(), link(idCDA=again.document_id))).status_code == 200


async def test_what_the_patient_may_not_see_is_not_shown_to_the_patient(place: Place) -> None:
    before = letter_of()
    for number, (flag, seen) in enumerate((("INVISIBLE_PATIENT", 0), ("INVISIBLE_REP_LEGAUX", 1), ("MASQUE_PS", 2))):
        flags = frozenset({"DESTDMP", "MODIF_CONF_CODE", flag})
        control = f"M{number + 2}"
        hidden = replace(before, flags=flags).corrected(f"1.2.250.1.213.4.5.2.9.{number}", control)
        assert await place.world.run(hidden) is Published.PUBLISHED
        address = link(idCDA=hidden.document_id)
        browser = place.browser()
        await browser.submit(await browser.as_patient(address), **PATIENT)
        await place.settle()
        assert len(place.phone.codes) == seen
        assert (await place.professional(place.browser(), address)).status_code == 200
        before = hidden


async def test_a_visit_ends_by_idle_time_and_by_age(pool: Pool) -> None:
    async with open_place(pool, limits=Limits(idle=900, visit=3600)) as place:
        browser = place.browser()
        await place.patient(browser)
        inside = browser.path
        for _ in range(4):
            place.world.clock.advance(800)
            assert (await browser.get(inside)).status_code == 200
        place.world.clock.advance(500)
        assert (await browser.get(inside)).status_code == 404, "an hour is over"
        await place.professional(browser)
        inside = browser.path
        # A page that asks by itself whether the visit lasts does not make it last.
        place.world.clock.advance(500)
        assert (await browser.get(f"{inside}/presence")).status_code == 204
        place.world.clock.advance(401)
        assert (await browser.get(f"{inside}/presence")).status_code == 404
        assert (await browser.get(inside)).status_code == 404


@pytest.mark.requirement("D19")
async def test_logout_closes_the_door_here_and_shows_the_way_to_that_of_psc(place: Place) -> None:
    browser = place.browser()
    await place.professional(browser)
    inside = browser.path
    page = await browser.submit(await browser.get(f"{inside}/fin"))
    assert "https://psc.test/logout" in page.text
    assert page.headers["clear-site-data"] == '"cache", "storage"'
    assert (await browser.get(inside)).status_code == 404
    assert not any("visite" in name for name in browser.cookies)
    [out] = await place.told(Kind.LOGOUT)
    assert out.event.actor.person == DOCTOR.national_id


@pytest.mark.requirement("D19")
async def test_everything_is_in_the_journal_and_names_no_patient(place: Place) -> None:
    browser = place.browser()
    await browser.submit(await browser.as_patient(), **PATIENT | {"sexe": "M"})
    await place.settle()
    await place.patient(browser)
    kinds = [Kind.LINK_IDENTITY_CHECKED, Kind.LINK_CODE_SENT, Kind.LINK_OPENED, Kind.LOGIN]
    wrong, right_one = await place.told(Kind.LINK_IDENTITY_CHECKED)
    assert (wrong.event.outcome, wrong.event.outcome_text) == (Outcome.SERIOUS_FAILURE, "identité différente")
    assert right_one.event.outcome is Outcome.SUCCESS
    for kind in kinds:
        *_, event = await place.told(kind)
        assert event.event.actor.address == "192.0.2.7"
        assert event.event.outcome is Outcome.SUCCESS
    things = {(o.thing, o.identifier) for o in (await place.told(Kind.LINK_OPENED))[0].event.objects}
    assert {(Thing.STUDY, STUDY), (Thing.ACCESSION, ACCESSION), (Thing.DOCUMENT, REPORT)} <= things
    text = repr(await place.world.traced())
    for secret in ("PAT-TROIS", "279035121518989", "1979", "DOMPREMY", place.phone.last, "mssante"):
        assert secret not in text


async def test_a_code_that_cannot_leave_is_told_to_the_operator(place: Place) -> None:
    place.phone.errors = [Rejected("Le serveur SMTP refuse l'envoi", code="smtp", peer_code="550")]
    browser = place.browser()
    page = await browser.submit(await browser.as_patient(), **PATIENT)
    await place.settle()
    assert "Saisissez votre code" in text_of(page)
    [line] = [one for one in await place.world.queue() if one.code == SENDING_FAILED]
    assert "refuse l'envoi" in line.reason
    [event] = await place.told(Kind.LINK_CODE_SENT)
    assert event.event.outcome is Outcome.SERIOUS_FAILURE


async def test_patients_are_sent_to_the_portal_or_told_that_there_is_none(pool: Pool) -> None:
    async with open_place(pool, patients=Portal("Mon portail", "https://portail.test/")) as place:
        page = await place.browser().as_patient()
        assert 'href="https://portail.test/"' in page.text
        assert STUDY not in page.text
        for path in ("/lien/identite", "/lien/code"):
            assert (await place.browser().send("POST", path, {})).status_code == 404


async def test_patients_are_told_where_there_is_nothing_for_them(pool: Pool) -> None:
    async with open_place(pool, patients=None) as place:
        assert "Demandez vos images" in text_of(await place.browser().as_patient())


def test_a_minor_s_report_hidden_from_representatives() -> None:
    now = dt.datetime(2026, 7, 14, 9, tzinfo=dt.UTC)
    for visibility in (Visibility(hidden_from_representatives=True), Visibility(secret_connection=True)):
        assert hidden_from(visibility, "20080715", Visitor.PATIENT, now)
        assert hidden_from(visibility, "", Visitor.PATIENT, now)
        assert not hidden_from(visibility, "20080714", Visitor.PATIENT, now)
        assert not hidden_from(visibility, "20080715", Visitor.PROFESSIONAL, now)
    assert not hidden_from(Visibility(), "20200101", Visitor.PATIENT, NOW)

"""Sessions that end at Pro Santé Connect: what hangs on them ends, on whichever node of one database it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest
from citizen_world import open_hall
from link_world import DOCTOR, Browser, FakePsc, Place, link, open_place

from drimbox.link.logouts import BACKCHANNEL_PATH, FRONTCHANNEL_PATH, KEPT, WHY
from drimbox.publication.publish import Outcome
from drimbox.record.audit import Kind
from drimbox.store.database import Pool
from publication.publication_examples import letter_of, study_of


async def told(place: Place, token: str, browser: Browser | None = None) -> int:
    """Pro Santé Connect calls: no form of ours, no cookie."""
    answer = await (browser or place.browser("198.51.100.1")).client.post(
        BACKCHANNEL_PATH, data={"logout_token": token}
    )
    return answer.status_code


@dataclass
class Inside:
    """A browser, and the address of the visit that it is in."""

    browser: Browser
    path: str

    @staticmethod
    def of(browser: Browser) -> Inside:
        return Inside(browser, browser.path)

    async def image(self) -> int:
        return (await self.browser.get(f"{self.path}/image")).status_code


async def entered(place: Place, session: str = "s") -> Inside:
    place.psc.session = session
    browser = place.browser()
    assert (await place.professional(browser)).status_code == 200
    return Inside.of(browser)


async def by_session(place: Place) -> None:
    assert await told(place, "s:") == 200


async def by_person(place: Place) -> None:
    assert await told(place, f":{DOCTOR.subject}") == 200


async def by_frame(place: Place) -> None:
    answer = await place.browser("198.51.100.1").get(f"{FRONTCHANNEL_PATH}?iss=https://psc.test&sid=s")
    assert answer.status_code == 200
    assert "frame-ancestors https://psc.test" in answer.headers["content-security-policy"]
    assert "x-frame-options" not in answer.headers


@pytest.mark.requirement("DB.VI-SO.09")
@pytest.mark.parametrize("says", [by_session, by_person, by_frame])
async def test_a_session_that_is_over_ends_its_visits_on_every_node(
    pool: Pool, says: Callable[[Place], Awaitable[None]]
) -> None:
    async with open_place(pool) as one, open_place(pool) as other:
        here, there, visitor = await entered(one), await entered(other), one.browser()
        await one.patient(visitor)
        patient = Inside.of(visitor)
        assert [await inside.image() for inside in (here, there, patient)] == [200] * 3
        await says(one)
        assert await here.image() == 404, "at the node that was told, at once"
        assert one.ended == [here.path.rpartition("/")[2]], "the room behind the door breaks off what is on its way"
        await other.desk.logouts.follow()
        assert await there.image() == 404
        assert len(other.ended) == 1
        assert await patient.image() == 200, "a patient hangs on no such session"
        left = [event.event for event in await one.told(Kind.LOGOUT)]
        assert [(e.actor.person, e.objects[0].detail) for e in left] == [(DOCTOR.national_id, WHY)] * 2
        # Who logs in anew is let in, under a new session.
        one.world.clock.advance(1)
        other.world.clock.advance(1)
        again = await entered(other, "s2")
        await other.desk.logouts.follow()
        assert await again.image() == 200


async def test_a_visit_that_opens_after_its_session_was_over_does_not_last(pool: Pool) -> None:
    """The login was under way on one node when the other was told."""
    async with open_place(pool) as one, open_place(pool) as other:
        await by_session(one)
        late = await entered(other)
        await other.desk.logouts.follow()
        assert await late.image() == 404


async def test_other_sessions_and_persons_go_on(pool: Pool) -> None:
    async with open_place(pool) as place:
        mine, theirs = await entered(place, "s"), await entered(place, "t")
        place.psc.person = replace(DOCTOR, subject="f:1:other", national_id="899700218897")
        colleague = await entered(place, "u")
        await by_session(place)
        await place.desk.logouts.follow()
        statuses = [await each.image() for each in (mine, theirs, colleague)]
        assert statuses == [404, 200, 200]
        await by_person(place)
        statuses = [await each.image() for each in (theirs, colleague)]
        assert statuses == [404, 200]


async def test_words_that_are_not_pro_sante_connect_s_end_nothing(pool: Pool) -> None:
    async with open_place(pool) as place:
        browser = await entered(place)
        for token in ("", "forged", "x" * 20_000):
            assert await told(place, token) in (400, 413)
        for query in (
            "",
            "iss=https://evil.test&sid=s",
            "iss=https://psc.test",
            "iss=https://psc.test&sid=" + "s" * 300,
        ):
            answer = await place.browser().get(f"{FRONTCHANNEL_PATH}?{query}")
            assert answer.status_code == 400
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert (await browser.browser.get(BACKCHANNEL_PATH)).status_code == 405
        assert await browser.image() == 200


async def test_what_was_told_is_kept_as_digests_and_not_for_ever(pool: Pool) -> None:
    async with open_place(pool) as place:
        await by_session(place)
        await by_person(place)
        async with pool.connection() as connection:
            rows = await (await connection.execute("SELECT * FROM link_logout")).fetchall()
        assert len(rows) == 2
        assert DOCTOR.subject not in str(rows)
        assert all(len(row["session"] + row["subject"]) == 64 for row in rows)
        place.world.clock.advance(KEPT.total_seconds() + 1)
        await told(place, "later:")
        async with pool.connection() as connection:
            [row] = await (await connection.execute("SELECT count(*) AS n FROM link_logout")).fetchall()
        assert row["n"] == 1


async def test_a_database_that_is_away_does_not_keep_the_visit_open(pool: Pool) -> None:
    async with open_place(pool) as place:
        browser = await entered(place)

        class Away:
            def connection(self) -> object:
                raise OSError

        broken = place.desk.logouts.over
        object.__setattr__(broken, "pool", Away())
        assert await told(place, "s:") >= 500, "Pro Santé Connect is not told that all is well"
        assert await browser.image() == 404


@pytest.mark.requirement("D2", "D26")
async def test_a_report_that_is_taken_back_closes_what_its_link_opened(pool: Pool) -> None:
    """Another report stands behind the study: its own link goes on."""
    async with open_place(pool) as place:
        other = replace(letter_of().exam, document_id="1.2.250.1.213.4.5.2.9.777")
        place.world.pacs.hold(study_of(images=4))
        assert await place.world.run(letter_of(control_id="M2", exam=other)) is Outcome.PUBLISHED
        first, second = [place.browser() for _ in range(2)]
        await place.professional(first)
        await place.professional(second, link(idCDA=other.document_id))
        visits = [Inside.of(first), Inside.of(second)]
        assert await place.world.run(letter_of(control_id="M3", operation="delete")) is not Outcome.DEPUBLISHED
        place.world.clock.advance(31)
        assert [await inside.image() for inside in visits] == [404, 200]
        out = await place.told(Kind.LOGOUT)
        assert [one.event.objects[0].detail for one in out] == ["compte rendu inconnu ou retiré"]


async def test_a_patient_s_provider_is_no_pro_sante_connect(pool: Pool) -> None:
    async with open_hall(pool) as hall:
        assert isinstance(hall.place.psc, FakePsc)
        browser = hall.place.browser()
        await hall.enter(browser)
        inside = Inside.of(browser)
        await told(hall.place, ":" + hall.fed.citizens.citizens[0].subject("clinique"))
        await hall.place.desk.logouts.follow()
        assert await inside.image() == 200

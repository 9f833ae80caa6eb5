"""An attacker's tour of the door: each way round it that somebody may think of."""

from __future__ import annotations

import asyncio
import re
import time
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from link_world import LINK, PATIENT, REPORT, STUDY, Browser, Place, link, open_place, text_of
from lxml import html

from drimbox.foundation.clock import SystemClock
from drimbox.link.agreement import left_of_beat
from drimbox.link.limits import Allowance, Attempts, TooMany
from drimbox.link.web.desk import MAX_FORM_BYTES
from drimbox.publication.kos import ArchivedKos
from drimbox.record.audit import Kind, Outcome
from drimbox.store.database import Pool
from publication.publication_examples import study_of

CODE_PAGE = "Saisissez votre code"


def visit_cookies(browser: Browser) -> dict[str, str]:
    return {name: value for name, value in browser.cookies.items() if "-visite-" in name}


async def asked(place: Place, browser: Browser, address: str = LINK, **said: str) -> httpx2.Response:
    """The page that waits for the code."""
    page = await browser.submit(await browser.as_patient(address), **PATIENT | said)
    await place.settle()
    return page


# --- session fixation -------------------------------------------------------------------------------------------------


@pytest.mark.requirement("D19")
async def test_a_login_makes_a_secret_that_nobody_could_plant(place: Place) -> None:
    attacker, victim = place.browser("203.0.113.9"), place.browser()
    await place.professional(attacker)
    planted = dict(attacker.cookies)
    victim.cookies |= planted
    await place.patient(victim)
    fresh = {name: value for name, value in visit_cookies(victim).items() if name not in planted}
    [(name, secret)] = fresh.items()
    assert secret not in planted.values()
    # The attacker's browser holds what it planted, and that opens the attacker's own door alone.
    inside = victim.path
    assert (await attacker.get(inside)).status_code == 404
    attacker.cookies |= dict.fromkeys([name], next(iter(visit_cookies(attacker).values())))
    assert (await attacker.get(inside)).status_code == 404


async def test_who_planted_the_secret_of_the_forms_gains_nothing_by_the_login(place: Place) -> None:
    attacker, victim = place.browser("203.0.113.9"), place.browser()
    await attacker.get(LINK)
    victim.cookies |= attacker.cookies
    page = await asked(place, victim)
    code = place.phone.last
    assert (await victim.submit(page, code=code)).status_code == 200
    # The same form from the browser that shares that secret: the code has served.
    assert (await attacker.submit(page, code=code)).status_code == 403
    assert not visit_cookies(attacker)


async def test_each_login_has_a_door_and_a_secret_of_its_own(place: Place) -> None:
    browser = place.browser()
    await place.professional(browser)
    first, before = browser.path, visit_cookies(browser)
    await place.professional(browser)
    assert browser.path != first
    assert set(before.values()) < set(visit_cookies(browser).values())
    # The cookie of a door that is closed is taken back at the next login.
    await browser.submit(await browser.get(f"{first}/fin"))
    browser.cookies |= before
    await place.professional(browser)
    assert not set(before) & set(visit_cookies(browser))


# --- replay -----------------------------------------------------------------------------------------------------------


async def test_a_code_serves_once_in_its_own_browser_and_in_time(place: Place) -> None:
    browser, other = place.browser(), place.browser()
    page = await asked(place, browser)
    await other.get(LINK)
    stolen = await other.submit(page, code=place.phone.last)
    assert stolen.status_code in (400, 403), "another browser has another secret"
    assert (await browser.submit(page, code=place.phone.last)).status_code == 200
    again = place.browser()
    again.cookies |= {name: value for name, value in browser.cookies.items() if "-visite-" not in name}
    assert (await again.submit(page, code=place.phone.last)).status_code in (400, 403)

    late = await asked(place, browser)
    place.world.clock.advance(601)
    answer = await browser.submit(late, code=place.phone.last)
    assert answer.status_code == 403
    assert "n'est plus valable" in text_of(answer)


async def test_a_stolen_ticket_and_its_code_open_nothing_in_another_browser(place: Place) -> None:
    """With a form of its own: neither the page nor the code is worth anything without the cookie that asked."""
    browser, thief = place.browser(), place.browser("203.0.113.9")
    ticket = _hidden(await asked(place, browser))["billet"]
    own = _hidden(await asked(place, thief, naissance="01/01/1970"))
    stolen = {"jeton": own["jeton"], "billet": ticket, "code": place.phone.last}
    assert (await thief.send("POST", "/lien/code", stolen)).status_code == 403
    assert not visit_cookies(thief)


async def test_an_answer_of_psc_serves_once_and_in_the_browser_that_asked(place: Place) -> None:
    browser, other = place.browser(), place.browser()
    state = await browser.as_professional()
    await other.get(LINK)
    assert (await other.back(state)).status_code == 400
    assert (await browser.back(state)).status_code == 200, "another browser's try takes nothing away"
    assert (await browser.back(state)).status_code == 400
    assert (await browser.back("unknown")).status_code == 400
    late = await browser.as_professional()
    place.world.clock.advance(601)
    assert (await browser.back(late)).status_code == 400
    assert (await browser.back(await browser.as_professional(), more="&iss=https://evil.test")).status_code != 200
    assert (await browser.back(await browser.as_professional(), more="&error=access_denied")).status_code == 403
    assert (await browser.back(await browser.as_professional(), code="stolen")).status_code != 200


# --- forced browsing --------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.VI-SO.28")
async def test_no_address_opens_without_the_cookie_of_its_door(place: Place) -> None:
    mine, theirs = place.browser(), place.browser("203.0.113.9")
    await place.patient(mine)
    await place.professional(theirs)
    [secret] = visit_cookies(mine).values()
    for path in (theirs.path, f"{theirs.path}/", f"{theirs.path}/image", f"{theirs.path}/fin", "/visite/x", "/visite/"):
        assert (await mine.get(path)).status_code == 404, path
    key = theirs.path.rpartition("/")[2]
    for value in (secret, "", "x" * 10_000, secret.upper(), f"{secret} ", key):
        mine.cookies[f"__Host-lien-8443-visite-{key}"] = value
        assert (await mine.get(f"{theirs.path}/image")).status_code == 404
    for path in (f"{mine.path}/../{key}/image", f"/visite/..%2f{key}/image", f"{mine.path}%2f..%2f{key}/image"):
        assert (await place.browser().get(path)).status_code == 404
    # A script of the viewer is told in plain words.
    answer = await place.browser().get(f"{theirs.path}/image", accept="application/dicom")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/plain; charset=utf-8")


async def test_steps_cannot_be_left_out(place: Place) -> None:
    browser = place.browser()
    await browser.get(LINK)
    for path in ("/lien/visiteur", "/lien/identite", "/lien/code"):
        answer = await browser.send("POST", path, {"billet": "x", "code": "0" * 8, **PATIENT})
        assert answer.status_code == 400, path
        assert (await browser.get(path)).status_code == 405
    assert (await browser.send("POST", LINK, {})).status_code == 405
    assert (await browser.back("x")).status_code == 400
    assert not visit_cookies(browser)


# --- headers and parameters -------------------------------------------------------------------------------------------


async def test_nothing_that_is_sent_gets_into_headers_or_markup(place: Place) -> None:
    browser = place.browser()
    nasty = '"><script>alert(1)</script>'
    page = await browser.get(link(accessionNumber=quote(nasty)))
    assert page.status_code == 200
    assert "<script" not in page.text
    for split in ("A%0d%0aX-Evil:1", "A\r\nX-Evil: 1".replace("\r\n", "%0D%0A"), "A%00"):
        answer = await browser.get(link(accessionNumber=split))
        assert answer.status_code == 404
        assert "x-evil" not in answer.headers
    page = await browser.submit(await browser.as_patient(), **PATIENT | {"lieu": "", "naissance": nasty})
    assert page.status_code == 422
    assert "<script" not in page.text


async def test_the_host_and_the_addresses_that_a_request_tells_of_are_not_believed(pool: Pool) -> None:
    async with open_place(pool, allowance=Allowance(per_study=100, per_address=2)) as place:
        answers = []
        for number in range(4):
            browser = place.browser()
            page = await browser.as_patient(link(studyUID=f"1.2.{number}"))
            forged = {"x_forwarded_for": f"198.51.100.{number}", "forwarded": f"for=198.51.100.{number}"}
            answers.append(await browser.send("POST", "/lien/identite", {**_hidden(page), **PATIENT}, **forged))
        assert [a.status_code for a in answers] == [200, 200, 429, 429]
        browser = place.browser()
        await place.professional(browser)
        for path in (LINK, browser.path, "/nowhere"):
            answer = await browser.get(path, host="evil.test", x_forwarded_host="evil.test")
            assert "evil.test" not in answer.text + str(answer.headers)


async def test_forms_that_are_forged_or_swollen_are_refused(place: Place) -> None:
    browser = place.browser()
    page = await browser.get(LINK)
    hidden = _hidden(page)
    for headers in ({"origin": "https://evil.test"}, {"origin": "null"}, {"sec_fetch_site": "cross-site"}):
        answer = await browser.send("POST", "/lien/visiteur", {**hidden, "visiteur": "patient"}, **headers)
        assert answer.status_code == 400, headers
    for token in ("", "0" * 64, "é", hidden["jeton"][:-1]):
        assert (await browser.send("POST", "/lien/visiteur", {**hidden, "jeton": token})).status_code == 400
    swollen = await browser.send("POST", "/lien/visiteur", {**hidden, "x": "y" * MAX_FORM_BYTES})
    assert swollen.status_code == 413
    many = await browser.send("POST", "/lien/visiteur", {**hidden, **{f"x{n}": "" for n in range(60)}})
    assert many.status_code == 400
    raw = "&".join(f"{n}={quote(v)}" for n, v in hidden.items())
    for body in (f"{raw}&visiteur=patient&visiteur=professional", f"{raw}&studyUID=1.2.3", b"\xff\xfe", f"{raw}%ff"):
        sent = {"content-type": "application/x-www-form-urlencoded", "cookie": _cookies(browser)}
        answer = await browser.client.post("/lien/visiteur", content=body, headers=sent)
        assert answer.status_code == 400, body
    # Another link put into the form is held against the archive as any other.
    other = {**hidden, "idCDA": "1.2.3", "visiteur": "patient"}
    page = await browser.send("POST", "/lien/visiteur", other)
    await browser.submit(page, **PATIENT)
    await place.settle()
    assert not place.phone.codes


async def test_logout_asks_for_the_door_s_own_form(place: Place) -> None:
    browser = place.browser()
    await place.patient(browser)
    inside = browser.path
    assert (await browser.send("POST", f"{inside}/fin", {"jeton": "x"})).status_code == 400
    page = await browser.get(f"{inside}/fin")
    hidden = _hidden(page)
    forged = await browser.send("POST", f"{inside}/fin", hidden, sec_fetch_site="cross-site")
    assert forged.status_code == 400
    assert (await browser.get(inside)).status_code == 200


# --- brute force ------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("D19")
async def test_a_code_is_tried_three_times_and_the_pages_tell_nothing(place: Place) -> None:
    known, unknown = place.browser(), place.browser("203.0.113.9")
    pages = [await asked(place, known), await asked(place, unknown, link(studyUID="1.2.3.4"))]
    assert len(place.phone.codes) == 1
    for attempt in range(3):
        answers = [
            await browser.submit(page, code="00000000") for browser, page in zip((known, unknown), pages, strict=True)
        ]
        assert [a.status_code for a in answers] == [403, 403]
        assert text_of(answers[0]) == text_of(answers[1])
        assert (CODE_PAGE in text_of(answers[0])) is (attempt < 2)
    assert (await known.submit(pages[0], code=place.phone.last)).status_code == 403, "even the right one, now"
    failures = [one.event.outcome for one in await place.told(Kind.LOGIN)]
    assert failures == [Outcome.SERIOUS_FAILURE] * 7


@pytest.mark.requirement("D19")
async def test_identities_are_tried_so_often_per_study_whatever_the_address(pool: Pool) -> None:
    allowance = Allowance(per_study=3, per_address=100)
    for study in (STUDY, "1.2.3.4"):
        async with open_place(pool, allowance=allowance) as place:
            for number in range(3):
                browser = place.browser(f"198.51.100.{number}")
                page = await browser.submit(
                    await browser.as_patient(link(studyUID=study)), **PATIENT | {"lieu": "Riom"}
                )
                assert CODE_PAGE in text_of(page)
            await place.settle()
        # Over a restart too, and for the right identity as well.
        async with open_place(pool, allowance=allowance) as place:
            browser = place.browser("198.51.100.200")
            page = await browser.submit(await browser.as_patient(link(studyUID=study)), **PATIENT)
            assert page.status_code == 429
            assert "Trop d'essais" in text_of(page)
            assert not place.phone.codes
            place.world.clock.advance(24 * 3600 + 120)
            page = await browser.submit(await browser.as_patient(link(studyUID=study)), **PATIENT)
            assert page.status_code == 200
    async with pool.connection() as connection:
        [row] = await (await connection.execute("SELECT count(*) AS n FROM link_attempt")).fetchall()
    assert row["n"] <= 4, "what counts no more is gone"


async def test_many_at_once_are_no_more_than_allowed(pool: Pool) -> None:
    attempts = Attempts(pool, SystemClock(), Allowance(per_study=5, per_address=8))

    async def one(study: str, address: str) -> bool:
        try:
            await attempts.claim(study, address)
        except TooMany:
            return False
        return True

    assert sum(await asyncio.gather(*(one("1.2.3", f"a{n}") for n in range(20)))) == 5
    assert sum(await asyncio.gather(*(one(f"1.2.{n}", "b") for n in range(20)))) == 8


async def test_strangers_of_one_address_are_slowed_down(pool: Pool) -> None:
    async with open_place(pool, per_minute=5) as place:
        browser = place.browser()
        statuses = [(await browser.get(LINK)).status_code for _ in range(7)]
        assert statuses == [200] * 5 + [429] * 2
        assert (await place.browser("203.0.113.9").get(LINK)).status_code == 200
        place.world.clock.advance(12.5)
        assert (await browser.get(LINK)).status_code == 200


# --- a stolen link ----------------------------------------------------------------------------------------------------


async def test_a_link_alone_shows_nothing(place: Place) -> None:
    patient, thief = place.browser(), place.browser("203.0.113.9")
    await place.patient(patient)
    # Address and key name no study.
    assert re.fullmatch(r"/visite/[A-Za-z0-9_-]{22}", patient.path)
    assert (await thief.get(patient.path)).status_code == 404
    seen = await thief.get(LINK)
    seen_by_patient = await patient.get(LINK)
    assert _neutral(seen.text) == _neutral(seen_by_patient.text), "an open door is not told of"
    page = await asked(place, thief, naissance="29/03/1979")
    assert CODE_PAGE in text_of(page)
    assert len(place.phone.codes) == 1, "the patient's own"


# --- timing and enumeration -------------------------------------------------------------------------------------------


class HeldArchive:
    """Answers once it is let go, and takes longer where there is something to be found."""

    def __init__(self, place: Place, *, slow: float = 0.0) -> None:
        self._archive = place.world.archive
        self._slow = slow
        self.free = asyncio.Event()
        self.asked = 0

    async def publishers(self, study_uid: str) -> tuple[str, ...]:
        self.asked += 1
        await self.free.wait()
        return await self._archive.publishers(study_uid)

    async def current(self, study_uid: str, structure: str | None = None) -> ArchivedKos | None:
        await asyncio.sleep(self._slow)
        return await self._archive.current(study_uid, structure)

    async def history(self, structure: str, study_uid: str, taken_away: str | None = None) -> object:
        await asyncio.sleep(self._slow)
        return await self._archive.history(structure, study_uid, taken_away)


LINKS = {
    "right": LINK,
    "unknown study": link(studyUID="1.2.3.4"),
    "other accession": link(accessionNumber="ACN106"),
    "other report": link(idCDA="1.2.3"),
    "report with an extension": link(idCDA=f"{REPORT}_1"),
}


@pytest.mark.requirement("DB.VI-SO.28", "D19")
async def test_neither_pages_nor_times_tell_a_stranger_what_exists(pool: Pool) -> None:
    async with open_place(pool, allowance=Allowance(1000, 1000)) as place:
        held = HeldArchive(place)
        place.desk.patients.agreement._archive = held  # type: ignore[union-attr,assignment]
        texts = set[str]()
        for address in LINKS.values():
            browser = place.browser()
            page = await browser.as_patient(address)
            # The archive has answered nothing yet: no answer can take its time from what is in there.
            answer = await browser.submit(page, **PATIENT)
            texts.add(_neutral(page.text) + _neutral(answer.text) + str(_told(page)) + str(_told(answer)))
        assert len(texts) == 1
        assert not place.phone.codes
        held.free.set()
        await place.settle()
        assert held.asked == len(LINKS)
        assert len(place.phone.codes) == 1, "the right one did send"


@given(st.floats(0, 100), st.floats(0.01, 5))
def test_refusals_are_at_whole_beats(elapsed: float, beat: float) -> None:
    left = left_of_beat(elapsed, beat)
    assert -1e-9 <= left <= beat + 1e-9
    beats = (elapsed + left) / beat
    assert beats == pytest.approx(round(beats))
    assert round(beats) >= 1


@pytest.mark.requirement("DB.VI-SO.28")
async def test_refusals_come_at_the_same_time_and_are_the_same(pool: Pool) -> None:
    beat = 0.5
    async with open_place(pool, clock=SystemClock(), beat=beat) as place:
        held = HeldArchive(place, slow=0.1)
        held.free.set()
        place.desk.entrance.agreement._archive = held  # type: ignore[assignment]
        place.world.pacs.hold(study_of(accession_number="ACN900"))
        answers, spreads = set[str](), list[float]()
        for _ in range(4):
            times = []
            for address in LINKS.values():
                browser = place.browser()
                state = await browser.as_professional(address)
                begun = time.monotonic()
                answer = await browser.back(state)
                times.append(time.monotonic() - begun)
                answers.add(f"{answer.status_code} {_neutral(answer.text)} {_told(answer)}")
            assert len(answers) == 1
            assert min(times) >= beat
            spreads.append(max(times) - min(times))
            # On a busy machine a round may be noisy; a difference of the door's own would be in each.
            if spreads[-1] < 0.08:
                return
        raise AssertionError(spreads)


# --- what every answer says -------------------------------------------------------------------------------------------


async def test_cookies_and_headers(place: Place) -> None:
    browser = place.browser()
    await place.patient(browser)
    inside = browser.path
    for line in browser.set_cookies:
        assert line.startswith("__Host-lien-8443-")
        assert {"HttpOnly", "Secure", "Path=/", "SameSite=lax"} <= set(line.split("; ")), line
        assert "Domain" not in line
    for path in (LINK, "/", "/nowhere", inside, f"{inside}/fin", "/lien/style.css", "/visite/x"):
        headers = (await browser.get(path)).headers
        assert headers["strict-transport-security"] == "max-age=31536000", path
        assert headers["referrer-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "noindex" in headers["x-robots-tag"]
        assert headers["cache-control"] == ("no-cache" if path.endswith(".css") else "no-store")


def _hidden(page: httpx2.Response) -> dict[str, str]:
    return {e.name: e.value for e in html.fromstring(page.content).forms[0].xpath(".//input[@type='hidden']")}


def _cookies(browser: Browser) -> str:
    return "; ".join(f"{name}={value}" for name, value in browser.cookies.items())


def _neutral(text: str) -> str:
    """A page without what differs from browser to browser, or was in its own address."""
    return re.sub(r'value="[^"]*"', "", text)


def _told(answer: httpx2.Response) -> list[tuple[str, str]]:
    """Its headers, without the secrets of cookies and the length, which the ticket and the link of the page make."""
    told = [(name, re.sub(r"=[A-Za-z0-9_-]{43}", "", value)) for name, value in answer.headers.multi_items()]
    return [(name, value) for name, value in told if name not in ("content-length", "date")]

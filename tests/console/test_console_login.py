"""Coming in and going out: passwords, locks, forms and sessions that cannot be forged, and what the journal says."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from console_world import (
    INSTALLER,
    ORIGIN,
    OTHER_PASSWORD,
    PASSWORD,
    Browser,
    Site,
    open_site,
    text_of,
)
from lxml import html

from drimbox.console.accounts import LockRules
from drimbox.console.app import end_expired
from drimbox.console.passwords import PasswordRules, hashed
from drimbox.record.audit import Event, Outcome
from drimbox.store.database import Pool


async def failures(site: Site, login: str) -> int:
    account = await site.accounts.by_login(login)
    assert account is not None
    return account.failures


def session_of(browser: Browser) -> str | None:
    return next((value for name, value in browser.cookies.items() if name.endswith("-session")), None)


def said(event: Event) -> tuple[str, str, bool]:
    return event.actor.person, event.kind.name, event.outcome is Outcome.SUCCESS


# --- the first login --------------------------------------------------------------------------------------------------


@pytest.mark.requirement("IAM.91", "IAM.92")
async def test_a_first_password_must_be_changed_before_anything_else(site: Site) -> None:
    await site.accounts.add(
        login="jacques.bideault",
        name="Jacques Bideault",
        roles=["operateur"],
        by=INSTALLER,
        password=hashed(PASSWORD, site.desk.passwords.hasher.cost),
    )
    browser = site.browser()
    page = await browser.log_in("Jacques.Bideault ")
    assert browser.path == "/mot-de-passe"
    assert (await browser.send("GET", "/file", follow=False)).headers["location"] == "/mot-de-passe"
    for new, again, wrong in (
        ("court", "court", "12 caractères"),
        (OTHER_PASSWORD, OTHER_PASSWORD + "x", "diffèrent"),
        (PASSWORD, PASSWORD, "déjà servi"),
    ):
        refused = await browser.submit(page, "/mot-de-passe", ancien=PASSWORD, nouveau=new, encore=again)
        assert refused.status_code == 400
        assert wrong in text_of(refused)
    before = session_of(browser)
    done = await browser.submit(page, "/mot-de-passe", ancien=PASSWORD, nouveau=OTHER_PASSWORD, encore=OTHER_PASSWORD)
    assert browser.path == "/file"
    assert "Votre mot de passe est changé" in text_of(done)
    assert session_of(browser) not in (None, before)
    changes = await site.traced("ACCOUNT_CHANGED")
    assert [said(e) for e in changes] == [
        ("os:installer", "ACCOUNT_CHANGED", True),
        *[("local:jacques.bideault", "ACCOUNT_CHANGED", False)] * 3,
        ("local:jacques.bideault", "ACCOUNT_CHANGED", True),
    ]


async def test_a_password_changes_only_with_the_old_one(site: Site) -> None:
    browser = await site.logged_in()
    page = await browser.get("/mot-de-passe")
    refused = await browser.submit(
        page, "/mot-de-passe", ancien="Faux-faux 1234 !", nouveau=OTHER_PASSWORD, encore=OTHER_PASSWORD
    )
    assert refused.status_code == 400
    assert await failures(site, "operator.essai") == 1
    # It may be tried no faster than at the door.
    at_once = await browser.submit(
        page, "/mot-de-passe", ancien=PASSWORD, nouveau=OTHER_PASSWORD, encore=OTHER_PASSWORD
    )
    assert at_once.status_code == 400
    site.clock.advance(2)
    done = await browser.submit(page, "/mot-de-passe", ancien=PASSWORD, nouveau=OTHER_PASSWORD, encore=OTHER_PASSWORD)
    assert done.status_code == 200
    # Neither the one of now nor the one before may come back.
    page = await browser.get("/mot-de-passe")
    back = await browser.submit(page, "/mot-de-passe", ancien=OTHER_PASSWORD, nouveau=PASSWORD, encore=PASSWORD)
    assert "déjà servi" in text_of(back)


async def test_a_provisional_password_does_not_wait_for_ever(site: Site) -> None:
    await site.accounts.add(
        login="jacques.bideault", name="Jacques Bideault", roles=[], by=INSTALLER, password=hashed(PASSWORD)
    )
    site.clock.advance(8 * 86400)
    page = await site.browser().log_in("jacques.bideault")
    assert page.status_code == 401
    assert "plus valable" in text_of(page)


@pytest.mark.requirement("IAM.92")
async def test_passwords_age_when_the_site_says_so(pool: Pool) -> None:
    async with open_site(pool, passwords=PasswordRules(max_age_days=90)) as site:
        await site.person()
        browser = site.browser()
        await browser.log_in("operator.essai")
        assert browser.path == "/file"
        site.clock.advance(91 * 86400)
        browser = site.browser()
        await browser.log_in("operator.essai")
        assert browser.path == "/mot-de-passe"


# --- strangers --------------------------------------------------------------------------------------------------------


def shape(page: str) -> str:
    """A page without what is drawn at random and without the time."""
    return re.sub(r'value="[0-9a-f]{64}"|établie le [^<]*', "", page)


@pytest.mark.requirement("IAM.91", "IAM.92")
async def test_strangers_learn_nothing_of_accounts(site: Site) -> None:
    """Unknown, wrong, waiting, locked, without password: one answer."""
    await site.person("operator")
    await site.person("reader", login="locked.essai")
    await site.accounts.lock((await site.accounts.by_login("locked.essai")).id, INSTALLER)  # type: ignore[union-attr]
    await site.accounts.add(login="psc.essai", name="Psc Essai", roles=[], by=INSTALLER, national_id="899700218896")
    answers = []
    for login, password in (
        ("nobody.essai", PASSWORD),
        ("operator.essai", "faux"),
        ("operator.essai", PASSWORD),  # right, but too soon after a failure
        ("locked.essai", PASSWORD),
        ("psc.essai", ""),
        ("", ""),
        ("' OR 1=1 --", "x"),
        ("\U0001f600" * 40, "\x00"),
        ("a\x00b", "x"),
    ):
        page = await site.browser().log_in(login, password)
        answers.append((page.status_code, shape(page.text)))
    assert {status for status, _ in answers} == {401}
    assert len(set(answers)) == 1
    failed = [e for e in await site.traced("LOGIN") if e.outcome is not Outcome.SUCCESS]
    assert [(e.actor.person, e.outcome_text) for e in failed[:5]] == [
        ("", "compte inconnu"),
        ("local:operator.essai", "mot de passe faux"),
        ("local:operator.essai", "compte verrouillé, ou essai trop proche du précédent"),
        ("local:locked.essai", "compte verrouillé, ou essai trop proche du précédent"),
        ("899700218896", "compte sans mot de passe"),
    ]
    assert all(e.actor.address == "192.0.2.7" for e in failed)


@pytest.mark.requirement("IAM.91")
async def test_neither_passwords_nor_unknown_logins_are_written_anywhere(site: Site) -> None:
    await site.person()
    await site.browser().log_in("operator.essai", "Secret-de-trop 1 !")
    await site.browser().log_in("Secret-de-trop 2 !", "x")
    site.clock.advance(5)
    await site.browser().log_in("operator.essai", PASSWORD)
    async with site.pool.connection() as connection:
        rows = await (await connection.execute("SELECT actor, objects, outcome_text FROM audit")).fetchall()
        accounts = await (await connection.execute("SELECT * FROM account")).fetchall()
    written = json.dumps([rows, accounts], default=str, ensure_ascii=False).lower()
    assert "secret-de-trop" not in written
    assert PASSWORD.lower() not in written


@pytest.mark.requirement("IAM.92", "IAM.91", "SSI/IE.36")
async def test_five_failures_lock_the_account_for_longer_and_longer(site: Site) -> None:
    await site.person()
    for number in range(5):
        assert (await site.browser().log_in("operator.essai", f"faux {number}")).status_code == 401
        site.clock.advance(2**number)
    # The pause after the fifth is half an hour: the right password does not help before.
    assert (await site.browser().log_in("operator.essai")).status_code == 401
    site.clock.advance(29 * 60)
    assert (await site.browser().log_in("operator.essai")).status_code == 401
    site.clock.advance(61)
    assert (await site.browser().log_in("operator.essai", "encore faux")).status_code == 401
    site.clock.advance(31 * 60)
    assert (await site.browser().log_in("operator.essai")).status_code == 401
    site.clock.advance(30 * 60)
    assert (await site.browser().log_in("operator.essai")).status_code == 200
    assert await failures(site, "operator.essai") == 0
    locks = [e for e in await site.traced("ACCOUNT_CHANGED") if "échecs" in e.objects[0].detail]
    assert [e.objects[0].identifier for e in locks] == ["local:operator.essai"]


@pytest.mark.requirement("IAM.92")
async def test_an_administrator_unlocks(site: Site) -> None:
    account = await site.person()
    for _ in range(5):
        await site.browser().log_in("operator.essai", "faux")
        site.clock.advance(60)
    assert (await site.browser().log_in("operator.essai")).status_code == 401
    administrator = await site.logged_in("administrator")
    assert "bloqué après 5 échecs" in text_of(await administrator.get(f"/comptes/{account.id}"))
    await administrator.post(f"/comptes/{account.id}/deverrouiller")
    assert (await site.browser().log_in("operator.essai")).status_code == 200


@pytest.mark.requirement("IAM.92", "SSI/IE.36")
async def test_tries_made_at_once_are_counted_too(pool: Pool) -> None:
    """Of thirty guesses sent in the same instant one is looked at, were the right one among them or not."""
    async with open_site(pool, locking=LockRules(failures=5)) as site:
        await site.person()
        browsers = [site.browser() for _ in range(15)]
        pages = [await b.get("/connexion") for b in browsers]
        answers = await asyncio.gather(
            *(
                b.submit(p, "/connexion", identifiant="operator.essai", secret=f"faux {n}")
                for n, (b, p) in enumerate(zip(browsers, pages, strict=True))
            )
        )
        assert {a.status_code for a in answers} <= {401, 503}
        assert await failures(site, "operator.essai") == 1


async def test_one_address_does_not_knock_for_ever(pool: Pool) -> None:
    async with open_site(pool, logins_per_minute=5) as site:
        browser = site.browser()
        answers = [await browser.get("/connexion") for _ in range(7)]
        assert [a.status_code for a in answers] == [200] * 5 + [429] * 2
        site.clock.advance(60)
        assert (await browser.get("/connexion")).status_code == 200


# --- forms ------------------------------------------------------------------------------------------------------------


async def test_a_login_form_must_be_ours_and_this_browsers(site: Site) -> None:
    await site.person()
    browser, other = site.browser(), site.browser()
    mine, theirs = await browser.get("/connexion"), await other.get("/connexion")
    credentials = {"identifiant": "operator.essai", "secret": PASSWORD}
    token = html.fromstring(theirs.content).xpath("//input[@name='jeton']/@value")[0]
    for fields, headers in (
        (credentials, {}),
        ({**credentials, "jeton": ""}, {}),
        ({**credentials, "jeton": "é" * 64}, {}),
        ({**credentials, "jeton": str(token)}, {}),
    ):
        answer = await browser.send("POST", "/connexion", dict(fields), follow=False, **headers)
        assert answer.status_code == 400
    mine_token = str(html.fromstring(mine.content).xpath("//input[@name='jeton']/@value")[0])
    for headers in ({"origin": "https://evil.test"}, {"sec_fetch_site": "cross-site"}, {"origin": "null"}):
        fields: dict[str, object] = {**credentials, "jeton": mine_token}
        answer = await browser.send("POST", "/connexion", fields, follow=False, **headers)
        assert answer.status_code == 400
    assert session_of(browser) is None
    assert (await browser.submit(mine, "/connexion", **credentials)).status_code == 200


async def test_every_form_of_a_session_needs_its_token(site: Site) -> None:
    account = await site.person("operator")
    administrator = await site.logged_in("administrator")
    other = await site.logged_in("administrator")
    token = html.fromstring((await other.get("/deconnexion")).content).xpath("//input[@name='jeton']/@value")[0]
    for jeton in (None, "", "x", str(token)):
        fields: dict[str, object] = {} if jeton is None else {"jeton": jeton}
        answer = await administrator.send("POST", f"/comptes/{account.id}/verrouiller", fields, follow=False)
        assert answer.status_code == 400
    assert (await site.accounts.by_id(account.id)).locked_at is None  # type: ignore[union-attr]
    assert (await administrator.post(f"/comptes/{account.id}/verrouiller")).status_code == 303
    assert (await site.accounts.by_id(account.id)).locked_at is not None  # type: ignore[union-attr]


async def test_forms_are_bounded(site: Site) -> None:
    browser = await site.logged_in()
    assert (await browser.send("POST", "/examens", {"recherche": "x" * 20_000})).status_code == 413
    many: dict[str, object] = {f"f{n}": "" for n in range(500)}
    assert (await browser.send("POST", "/examens", many)).status_code == 400


# --- sessions ---------------------------------------------------------------------------------------------------------


async def test_a_session_is_never_one_that_was_there_before_the_login(site: Site) -> None:
    await site.person()
    name = site.desk.cookie
    browser = site.browser()
    browser.cookies[name] = "x" * 43
    await browser.log_in("operator.essai")
    first = browser.cookies[name]
    assert first != "x" * 43
    # A second login in the same browser ends the first session.
    await browser.log_in("operator.essai")
    second = browser.cookies[name]
    assert second != first
    assert len(site.desk.sessions) == 1
    thief = site.browser()
    for stolen in ("x" * 43, first, "", second[:-1], "\u00e9"):
        thief.cookies[name] = stolen
        assert (await thief.send("GET", "/file", follow=False)).status_code == 303
    assert [c for c in browser.set_cookies if c.startswith(name)]


async def test_cookies_are_for_this_host_and_for_no_script(site: Site) -> None:
    await site.person()
    browser = site.browser()
    await browser.log_in("operator.essai")
    given = [c for c in browser.set_cookies if "Max-Age=0" not in c]
    session = next(c for c in given if c.startswith(site.desk.cookie))
    assert session.startswith("__Host-console-site-a-8443-session=")
    for attribute in ("HttpOnly", "Secure", "Path=/", "SameSite=strict"):
        assert attribute in session
    # It goes when the browser does.
    assert "Max-Age" not in session
    assert "expires" not in session.lower()
    assert all("HttpOnly" in c and "Secure" in c for c in given)


@pytest.mark.requirement("SSI/IE.38", "IAM.91")
async def test_logout_ends_the_session_for_good(site: Site) -> None:
    browser = await site.logged_in()
    stolen = dict(browser.cookies)
    page = await browser.submit(await browser.get("/deconnexion"), "/deconnexion")
    assert "Votre session est fermée" in text_of(page)
    assert session_of(browser) is None
    thief = site.browser()
    thief.cookies = stolen
    assert (await thief.send("GET", "/file", follow=False)).headers["location"] == "/connexion"
    [event] = await site.traced("LOGOUT")
    assert event.actor.person == "local:operator.essai"


@pytest.mark.requirement("SSI/IE.39")
async def test_sessions_end_by_inactivity_and_by_age(site: Site) -> None:
    browser = await site.logged_in()
    for _ in range(3):
        site.clock.advance(890)
        assert (await browser.send("GET", "/file", follow=False)).status_code == 200
    site.clock.advance(901)
    assert (await browser.send("GET", "/file", follow=False)).status_code == 303
    browser = await site.logged_in()
    for _ in range(33):
        site.clock.advance(880)
        await browser.get("/file")
    assert browser.path == "/connexion"
    await end_expired(site.desk)
    assert len(site.desk.sessions) == 0
    ended = await site.traced("LOGOUT")
    assert [e.objects[0].detail for e in ended] == ["expired"] * 2


async def test_a_person_has_few_sessions_at_once(site: Site) -> None:
    browsers = [await site.logged_in() for _ in range(6)]
    assert len(site.desk.sessions) == 5
    assert (await browsers[0].send("GET", "/file", follow=False)).status_code == 303
    assert (await browsers[5].send("GET", "/file", follow=False)).status_code == 200
    await end_expired(site.desk)
    assert len(await site.traced("LOGOUT")) == 1


@pytest.mark.requirement("IAM.91")
@pytest.mark.parametrize("change", ["lock", "roles", "identity", "password"])
async def test_a_change_of_the_account_ends_its_sessions(site: Site, change: str) -> None:
    browser = await site.logged_in()
    account = await site.accounts.by_login("operator.essai")
    assert account is not None
    match change:
        case "lock":
            await site.accounts.lock(account.id, INSTALLER)
        case "roles":
            await site.accounts.set_roles(account.id, ["operateur", "lecture-messages"], INSTALLER)
        case "identity":
            await site.accounts.set_identity(account.id, "Autre Nom", "899700218896", INSTALLER)
        case "password":
            await site.accounts.set_password(account.id, hashed("x"), INSTALLER, former=5, must_change=True)
    assert (await browser.send("GET", "/file", follow=False)).headers["location"] == "/connexion"
    [event] = await site.traced("LOGOUT")
    assert event.objects[0].detail == "account-changed"


async def test_every_answer_carries_its_headers_and_no_script(site: Site) -> None:
    browser = await site.logged_in()
    number = await site.incident()
    for path in ("/connexion", "/file", f"/file/{number}", "/nulle-part", "/style.css", "/comptes"):
        page = await browser.get(path)
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "script-src" not in page.headers["content-security-policy"]
        assert "unsafe" not in page.headers["content-security-policy"]
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["strict-transport-security"]
        assert page.headers["cache-control"] == ("no-cache" if path == "/style.css" else "no-store")
        assert "<script" not in page.text
        assert " style=" not in page.text
        attributes = {name for e in html.fromstring(page.content or b"<p>").iter() for name in e.attrib}
        assert not [name for name in attributes if name.startswith("on")]


async def test_without_the_database_nothing_is_shown_as_empty(pool: Pool) -> None:
    async with open_site(pool) as site:
        browser = await site.logged_in()
        await pool.close()
        page = await browser.get("/file")
        assert page.status_code == 503
        assert "n'est pas connu" in text_of(page)
        assert ORIGIN not in page.text

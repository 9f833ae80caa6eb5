"""Who may do what: every page for every kind of account, and accounts that nobody can make of themselves."""

from __future__ import annotations

import psycopg
import pytest
from console_world import INSTALLER, OTHER_PASSWORD, PASSWORD, STUDY, Site, text_of
from lxml import html
from starlette.routing import Route

from drimbox.console.account import Role
from drimbox.console.app import routes
from drimbox.foundation.errors import Refused
from drimbox.record.audit import Outcome
from publication.publication_examples import letter_of

OPEN = "open"
ANYBODY = "anybody logged in"
COUNTING = "operators and administrators"
# Every page, who it is for; a page that is not here fails the test.
RIGHTS = {
    ("GET", "/style.css"): OPEN,
    ("GET", "/connexion"): OPEN,
    ("POST", "/connexion"): OPEN,
    ("GET", "/connexion/psc"): OPEN,
    ("GET", "/connexion/retour"): OPEN,
    ("GET", "/au-revoir"): OPEN,
    ("GET", "/"): ANYBODY,
    ("GET", "/deconnexion"): ANYBODY,
    ("POST", "/deconnexion"): ANYBODY,
    ("GET", "/mot-de-passe"): ANYBODY,
    ("POST", "/mot-de-passe"): ANYBODY,
    ("GET", "/file"): Role.OPERATOR,
    ("GET", "/file/{incident}"): Role.OPERATOR,
    ("POST", "/file/{incident}/reessayer"): Role.OPERATOR,
    ("POST", "/file/{incident}/resynchroniser"): Role.OPERATOR,
    ("POST", "/file/{incident}/classer"): Role.OPERATOR,
    ("GET", "/file/{incident}/message"): Role.MESSAGES,
    ("GET", "/file/{incident}/message/fichier"): Role.MESSAGES,
    ("GET", "/examens"): Role.OPERATOR,
    ("POST", "/examens"): Role.OPERATOR,
    ("GET", "/examens/{study}"): Role.OPERATOR,
    ("POST", "/examens/{study}/resynchroniser"): Role.OPERATOR,
    ("GET", "/journal"): Role.AUDITOR,
    ("POST", "/journal"): Role.AUDITOR,
    ("POST", "/journal/export"): Role.AUDITOR,
    ("POST", "/journal/verifier"): Role.AUDITOR,
    ("GET", "/statistiques"): COUNTING,
    ("GET", "/statistiques/lignes.csv"): COUNTING,
    ("GET", "/statistiques/appels.csv"): COUNTING,
    ("GET", "/comptes"): Role.ADMINISTRATOR,
    ("POST", "/comptes"): Role.ADMINISTRATOR,
    ("GET", "/comptes/{account}"): Role.ADMINISTRATOR,
    ("POST", "/comptes/{account}/identite"): Role.ADMINISTRATOR,
    ("POST", "/comptes/{account}/droits"): Role.ADMINISTRATOR,
    ("POST", "/comptes/{account}/verrouiller"): Role.ADMINISTRATOR,
    ("POST", "/comptes/{account}/deverrouiller"): Role.ADMINISTRATOR,
    ("POST", "/comptes/{account}/mot-de-passe"): Role.ADMINISTRATOR,
    ("GET", "/reglages"): Role.ADMINISTRATOR,
    ("GET", "/certificats"): Role.ADMINISTRATOR,
    ("POST", "/certificats/commander"): Role.ADMINISTRATOR,
    ("POST", "/certificats/demander"): Role.ADMINISTRATOR,
    ("POST", "/certificats/installer"): Role.ADMINISTRATOR,
    ("POST", "/certificats/revoquer"): Role.ADMINISTRATOR,
    ("POST", "/certificats/cle-de-compte"): Role.ADMINISTRATOR,
    ("GET", "/certificats/demandes/{request}"): Role.ADMINISTRATOR,
    ("POST", "/certificats/demandes/{request}/retirer"): Role.ADMINISTRATOR,
    ("GET", "/inventaire"): Role.ADMINISTRATOR,
    ("GET", "/inventaire.csv"): Role.ADMINISTRATOR,
    ("POST", "/inventaire/installer"): Role.ADMINISTRATOR,
    ("POST", "/inventaire/retirer"): Role.ADMINISTRATOR,
    ("GET", "/reseau"): Role.ADMINISTRATOR,
    ("POST", "/reseau/liste-blanche"): Role.ADMINISTRATOR,
    ("GET", "/lien"): Role.ADMINISTRATOR,
    ("POST", "/lien"): Role.ADMINISTRATOR,
    ("GET", "/parcours"): Role.ADMINISTRATOR,
    ("POST", "/parcours"): Role.ADMINISTRATOR,
    ("GET", "/parcours/{walk}"): Role.ADMINISTRATOR,
    ("GET", "/parcours/{walk}/constats.csv"): Role.ADMINISTRATOR,
    ("POST", "/parcours/{walk}/pause"): Role.ADMINISTRATOR,
    ("POST", "/parcours/{walk}/reprendre"): Role.ADMINISTRATOR,
    ("POST", "/parcours/{walk}/arreter"): Role.ADMINISTRATOR,
}
HELD = {
    "nobody": set(),
    "operator": {Role.OPERATOR, COUNTING},
    "reader": {Role.OPERATOR, Role.MESSAGES, COUNTING},
    "administrator": {Role.ADMINISTRATOR, COUNTING},
    "auditor": {Role.AUDITOR},
}


def every_page() -> set[tuple[str, str]]:
    found = set()
    for route in routes():
        assert isinstance(route, Route)
        found |= {(method, route.path) for method in route.methods or () if method != "HEAD"}
    return found


def test_every_page_has_a_right() -> None:
    assert every_page() == set(RIGHTS)


@pytest.mark.requirement("SSI/GEN.16")
async def test_strangers_reach_nothing_but_the_door(site: Site) -> None:
    for (method, path), right in RIGHTS.items():
        if right is OPEN:
            continue
        answer = await site.browser().send(method, filled(path, 1, 1), {"jeton": "x"}, follow=False)
        assert (answer.status_code, answer.headers.get("location")) == (303, "/connexion"), (method, path)
    # A HEAD is no way around.
    assert (await site.browser().send("HEAD", "/file/1/message", follow=False)).status_code == 303


@pytest.mark.requirement("SSI/GEN.16")
@pytest.mark.parametrize("roles", HELD)
async def test_each_page_for_each_kind_of_account(site: Site, roles: str) -> None:
    someone = await site.person("operator", login="someone.else")
    report_id = await site.world.receive(letter_of())
    browser = await site.logged_in(roles)
    for (method, path), right in RIGHTS.items():
        if right is OPEN or path in ("/deconnexion", "/mot-de-passe"):
            continue
        incident_id = await site.incident(report_id=report_id)
        place = filled(path, incident_id, someone.id)
        if method == "GET":
            answer = await browser.send("GET", place, follow=False)
        else:
            answer = await browser.post(place, motif="Sans objet ici", structure="ambroise", role="operateur")
        allowed = right is ANYBODY or right in HELD[roles]
        assert (answer.status_code != 403) == allowed, (roles, method, path, answer.status_code)
        assert answer.status_code < 500, (roles, method, path)
        if not allowed:
            assert "Votre compte n'a pas ce droit" in text_of(answer)
            assert STUDY not in answer.text


def filled(path: str, incident_id: int, account_id: int) -> str:
    return path.format(incident=incident_id, account=account_id, study=STUDY, walk=1, request=1)


async def test_the_menu_shows_what_may_be_opened(site: Site) -> None:
    expected = {
        "nobody": [],
        "operator": ["/file", "/examens", "/statistiques"],
        "reader": ["/file", "/examens", "/statistiques"],
        "administrator": ["/statistiques", "/comptes", "/reglages"],
        "auditor": [],
    }
    for roles, places in expected.items():
        page = await (await site.logged_in(roles)).get("/")
        links = html.fromstring(page.content).xpath("//nav[@aria-label='Rubriques']/a/@href")
        assert [str(link) for link in links] == places


# --- accounts ---------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("SSI/GEN.16")
async def test_technical_rights_and_health_data_are_never_in_the_same_hands(site: Site) -> None:
    administrator = await site.logged_in("administrator")
    someone = await site.person("operator")
    for roles in (
        ["administrateur", "operateur", "lecture-messages"],
        ["lecture-messages"],
        ["administrateur", "auditeur"],
        ["dieu"],
    ):
        answer = await administrator.post(f"/comptes/{someone.id}/droits", role=roles)
        assert answer.status_code == 400
        with pytest.raises(Refused):
            await site.accounts.set_roles(someone.id, roles, INSTALLER)
    assert (await site.accounts.by_id(someone.id)).roles == {Role.OPERATOR}  # type: ignore[union-attr]
    # Not even by a hand in the database.
    with pytest.raises(psycopg.errors.CheckViolation):
        async with site.pool.connection() as connection:
            await connection.execute("UPDATE account SET roles = '{administrateur,operateur,lecture-messages}'")
    with pytest.raises(psycopg.errors.CheckViolation):
        async with site.pool.connection() as connection:
            await connection.execute("UPDATE account SET roles = '{administrateur,auditeur}'")


@pytest.mark.requirement("SSI/GEN.16")
async def test_nobody_changes_their_own_rights(site: Site) -> None:
    administrator = await site.logged_in("administrator")
    me = await site.accounts.by_login("administrator.essai")
    assert me is not None
    for act in ("droits", "identite", "verrouiller", "deverrouiller", "mot-de-passe"):
        answer = await administrator.post(f"/comptes/{me.id}/{act}", role="operateur", nom="Autre Nom")
        assert answer.status_code == 403
        assert "ses propres droits" in text_of(answer)
    assert await site.accounts.by_id(me.id) == await site.accounts.by_login("administrator.essai")


@pytest.mark.requirement("IAM.91", "SSI/GEN.16")
async def test_an_administrator_opens_an_account_and_changes_it(site: Site) -> None:
    administrator = await site.logged_in("administrator")
    page = await administrator.get("/comptes")
    made = await administrator.submit(
        page,
        "/comptes",
        identifiant="Paul.Toubib",
        nom="  Paul   Toubib ",
        role=["operateur"],
        avec_mot_de_passe="oui",
    )
    first = str(html.fromstring(made.content).xpath("//p[@class='provisional']/code/text()")[0])
    account = await site.accounts.by_login("paul.toubib")
    assert account is not None
    assert (account.name, account.roles, account.must_change) == ("Paul Toubib", {Role.OPERATOR}, True)
    # The provisional password is shown once, opens once, and must be changed.
    assert first not in (await administrator.get(f"/comptes/{account.id}")).text
    browser = site.browser()
    page = await browser.log_in("paul.toubib", first)
    assert browser.path == "/mot-de-passe"
    await browser.submit(page, "/mot-de-passe", ancien=first, nouveau=OTHER_PASSWORD, encore=OTHER_PASSWORD)
    assert browser.path == "/file"
    await administrator.post(f"/comptes/{account.id}/droits", role=["operateur", "lecture-messages"])
    await administrator.post(f"/comptes/{account.id}/identite", nom="Kit Doc0036790", national="899700218896")
    again = await administrator.post(f"/comptes/{account.id}/mot-de-passe")
    assert again.status_code == 200
    await administrator.post(f"/comptes/{account.id}/verrouiller")
    told = [
        (e.kind.name, e.actor.person, e.objects[0].identifier, e.objects[0].detail)
        for e in await site.traced("ACCOUNT_CHANGED", "ROLES_CHANGED")
        if e.objects[0].identifier in ("local:paul.toubib", "899700218896")
    ]
    by = "local:administrator.essai"
    assert told == [
        ("ACCOUNT_CHANGED", by, "local:paul.toubib", "création"),
        ("ROLES_CHANGED", by, "local:paul.toubib", "operateur"),
        ("ACCOUNT_CHANGED", "local:paul.toubib", "local:paul.toubib", "mot de passe"),
        ("ROLES_CHANGED", by, "local:paul.toubib", "lecture-messages operateur"),
        ("ACCOUNT_CHANGED", by, "899700218896", "identité"),
        ("ACCOUNT_CHANGED", by, "899700218896", "mot de passe provisoire"),
        ("ACCOUNT_CHANGED", by, "899700218896", "verrouillage"),
    ]
    assert all(e.outcome is Outcome.SUCCESS for e in await site.traced("ACCOUNT_CHANGED"))
    assert (await site.browser().log_in("paul.toubib", OTHER_PASSWORD)).status_code == 401


@pytest.mark.requirement("SSI/GEN.17")
async def test_an_account_is_one_persons(site: Site) -> None:
    administrator = await site.logged_in("administrator")
    form = await administrator.get("/comptes")
    for login in ("admin", "Admin", "operateur2", "root", "pacs01", "x", "é.è", "a b", "../etc", "a" * 70, "a\x00"):
        page = await administrator.submit(
            form, "/comptes", identifiant=login, nom="Paul Toubib", avec_mot_de_passe="oui"
        )
        assert page.status_code == 400, login
    assert len(await site.accounts.all()) == 1


async def test_accounts_that_are_not_right_are_not_opened(site: Site) -> None:
    administrator = await site.logged_in("administrator")
    form = await administrator.get("/comptes")
    for name, national, more in (
        ("", "", {"avec_mot_de_passe": "oui"}),
        ("A", "", {"avec_mot_de_passe": "oui"}),
        ("Paul\x00Toubib", "", {"avec_mot_de_passe": "oui"}),
        ("P" * 101, "", {"avec_mot_de_passe": "oui"}),
        ("Paul Toubib", "<script>", {"avec_mot_de_passe": "oui"}),
        ("Paul Toubib", "8\x009", {"avec_mot_de_passe": "oui"}),
        ("Paul Toubib", "", {}),
    ):
        page = await administrator.submit(form, "/comptes", identifiant="p.toubib", nom=name, national=national, **more)
        assert page.status_code == 400, (name, national)
        # What was typed is still there, and harmless.
        assert "<script" not in page.text
    assert len(await site.accounts.all()) == 1


async def test_two_accounts_never_share_a_login_or_a_national_id(site: Site) -> None:
    await site.person("operator", login="paul.toubib", national_id="899700218896")
    administrator = await site.logged_in("administrator")
    for login, national in (("paul.toubib", ""), ("autre.toubib", "899700218896")):
        page = await administrator.submit(
            await administrator.get("/comptes"),
            "/comptes",
            identifiant=login,
            nom="Paul Toubib",
            national=national,
            avec_mot_de_passe="oui",
        )
        assert page.status_code == 400
        assert "déjà" in text_of(page)


async def test_the_settings_are_shown_to_administrators(site: Site) -> None:
    page = await (await site.logged_in("administrator")).get("/reglages")
    assert "Site A" in text_of(page)
    assert PASSWORD not in page.text

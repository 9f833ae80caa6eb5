"""The pages of imports: how they go, one by one, stopping them, having the rest, and who sees them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from consumer_world import DOMINIQUE, Browser, Site
from lxml import html

from drimbox.identity.ins import Ins
from drimbox.importing.desk import Choice, Identifiers
from drimbox.importing.orders import Counts, Fate, Import, ImportedPatient, Instance, NewImport, State
from drimbox.record.audit import Actor

TOTAL = 1330
PATIENT = ImportedPatient(Ins.of(DOMINIQUE.matricule, "1.2.250.1.213.1.4.10"), "IPP", "", "", "PAT-TROIS DOMINIQUE")


@dataclass
class FakeDesk:
    """What ``ImportDesk`` does, for one import that stands still; it is that of who asks first."""

    found: Import
    person: str = ""
    asked: list[str] = field(default_factory=list)
    choices: tuple[Choice, ...] = (Choice("pacs-b", "PACS du cabinet"),)
    rules: Identifiers = field(default_factory=Identifiers)

    def issuer_of(self, target: str) -> str:
        return ""

    async def ask(self, new: NewImport) -> int:
        raise AssertionError

    async def of_person(self, person: str) -> list[Import]:
        self.person = self.person or person
        return [self.found] if person == self.person else []

    async def find(self, order_id: int, person: str) -> Import | None:
        return self.found if (order_id, person) == (self.found.id, self.person) else None

    async def instances(self, order_id: int) -> list[Instance]:
        stored = [Instance("1.2", f"1.2.{n}", "1.2.3", Fate.FOUND, 0x0000) for n in range(3)]
        return [*stored, Instance("1.2", "1.2.9", "1.2.3", Fate.REFUSED, 0xC123, "", "Pas de cette modalité")]

    async def under_way(self, person: str) -> int:
        return int(self.found.open and person == self.person)

    async def brought(self, structure: str, study_uids: Collection[str]) -> Mapping[str, State]:
        return {}

    def state_of(self, structure: str, study_uids: Collection[str]) -> State | None:
        return None

    async def cancel(self, order_id: int, person: str) -> bool:
        self.asked.append("cancel")
        self.found = replace(self.found, state=State.CANCELLED, reason="Import annulé à votre demande")
        return True

    async def again(self, order_id: int, person: str, *, decided: bool = False) -> bool:
        self.asked.append("again")
        self.found = replace(self.found, state=State.QUEUED, reason="")
        return True


def import_of(state: State, done: int) -> Import:
    at = dt.datetime(2024, 3, 1, 8, tzinfo=dt.UTC)
    counts = Counts(TOTAL, done, done, 0, TOTAL - done)
    return Import(
        id=7, asked_at=at, person="", actor=Actor("x"), structure="b", target="pacs-b", study_uid="1.2.3",
        stored_as="1.2.3", kos_uid="1.2.4", title="Scanner", study_date="20240301", patient=PATIENT, state=state,
        code="pacs-status", reason="Le PACS a refusé cette image", tries=0, due_at=at, verified=True, cancelled=False,
        counts=counts,
    )  # fmt: skip


@pytest.fixture
def desk() -> FakeDesk:
    return FakeDesk(import_of(State.PARTIAL, 700))


@pytest.fixture
def ways(desk: FakeDesk) -> dict[str, Any]:
    return {"imports": desk}


async def at_imports(site: Site) -> tuple[Browser, str]:
    browser = site.browser()
    page = await site.log_in(browser)
    (call,) = {a.split("/imports")[0] for a in html.fromstring(page.body).xpath("//a/@href") if a.endswith("/imports")}
    return browser, f"{call}/imports"


@pytest.mark.requirement("DB.CO.76", "DB.CO.78")
async def test_the_rest_of_a_partial_import_then_no_more_of_it(site: Site, desk: FakeDesk) -> None:
    browser, imports = await at_imports(site)
    page = await browser.get(imports)
    text = page.body.decode("utf-8")
    assert "Import partiel : 700 sur 1\u202f330 enregistrées et retrouvées" in text
    assert "Importer le reste" in text
    assert "Le PACS a refusé cette image" in text
    # Nobody does it for the user from elsewhere.
    assert (await browser.send("POST", f"{imports}/7/reprendre", {"jeton": "x"})).status >= 400
    assert desk.asked == []
    page = await browser.submit(page, "/reprendre")
    assert desk.asked == ["again"]
    page = await browser.get(imports)
    assert "Annuler" in page.body.decode("utf-8")
    leaving = await browser.get("/deconnexion")
    assert "import en cours" in leaving.body.decode("utf-8")
    await browser.submit(page, "/annuler")
    assert desk.asked == ["again", "cancel"]
    assert "Import annulé à votre demande" in (await browser.get(imports)).body.decode("utf-8")


@pytest.mark.requirement("DB.CO.76")
async def test_it_is_seen_after_the_browser_was_started_again(site: Site, desk: FakeDesk) -> None:
    _, _ = await at_imports(site)
    browser, imports = await at_imports(site)
    assert "700 sur 1\u202f330" in (await browser.get(imports)).body.decode("utf-8")
    (told,) = json.loads((await browser.get(f"{imports}/etat")).body)
    assert (told["id"], told["state"], told["open"]) == (7, "partial", False)
    assert DOMINIQUE.family not in json.dumps(told)
    assert DOMINIQUE.matricule not in json.dumps(told)


async def test_each_instance_has_the_answer_of_the_pacs(site: Site) -> None:
    browser, imports = await at_imports(site)
    await browser.get(imports)
    page = (await browser.get(f"{imports}/7")).body.decode("utf-8")
    assert "C123H" in page
    assert "Pas de cette modalité" in page
    assert page.count("0000H") == 3


async def test_the_imports_of_somebody_else_are_not_there(site: Site, desk: FakeDesk) -> None:
    desk.person = "another professional"
    browser, imports = await at_imports(site)
    page = await browser.get(imports)
    assert "1\u202f330" not in page.body.decode("utf-8")
    assert (await browser.get(f"{imports}/7")).status == 404

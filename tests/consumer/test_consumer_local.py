"""Studies of the local PACS beside those of other sites: of this patient, compared, shown, and never mixed."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from consumer_world import DOMINIQUE, SECOND, Browser, Site, Study, make_study, text_of
from pydicom.data import get_testdata_file

from drimbox.foundation.errors import Unavailable
from drimbox.foundation.http_client import Reply
from drimbox.foundation.uids import new_uid
from drimbox.record.audit import Kind

CT = Path(get_testdata_file("CT_small.dcm"))
MR = Path(get_testdata_file("MR_small.dcm"))


@pytest.fixture
def remote(site: Site, tmp_path: Path) -> Study:
    study = make_study(tmp_path, DOMINIQUE, [[CT, CT]])
    site.hold(DOMINIQUE, study)
    return study


@pytest.fixture
def local(tmp_path: Path) -> Study:
    return make_study(tmp_path, DOMINIQUE, [[MR, MR, MR]], day="20240301")


async def listed(site: Site, browser: Browser) -> Reply:
    """The list once nothing more is on its way."""
    page = await site.log_in(browser)
    for _ in range(40):
        page = await browser.get(browser.path)
        if b"data-source" not in page.body:
            return page
        await asyncio.sleep(0.05)
    return page


def local_key(page: Reply) -> str:
    found = re.search(r"/images/(local[0-9a-f]{15})", page.body.decode())
    assert found is not None, text_of(page)
    return found[1]


def remote_key(page: Reply) -> str:
    found = re.search(r"/images/([0-9a-f]{20})", page.body.decode())
    assert found is not None, text_of(page)
    return found[1]


async def states(browser: Browser, page: Reply) -> dict[str, dict[str, object]]:
    """The series of a viewer's page once all is over, by study."""
    found = re.search(rb'data-source="(/visionneuse/[^"]+/etat)"', page.body)
    assert found is not None, text_of(page)
    for _ in range(100):
        told = json.loads((await browser.get(found[1].decode(), Accept="application/json")).body)
        if told["over"]:
            break
        await asyncio.sleep(0.05)
    return {series["study"]: series for series in told["series"]}


@pytest.mark.requirement("DB.VI-CS.35", "DB.VI-CS.36")
async def test_a_local_study_is_compared_with_a_remote_one_in_one_viewer(
    site: Site, remote: Study, local: Study
) -> None:
    site.archive.hold(local, DOMINIQUE.ipp)
    browser = site.browser()
    page = await listed(site, browser)
    assert "1 examen de ce patient dans le PACS local" in text_of(page)
    assert "SCANNER DU JOUR" in text_of(page)
    assert site.archive.asked == [DOMINIQUE.ipp]
    ours, theirs = local_key(page), remote_key(page)
    alone = await browser.get(f"{browser.path}/images/{theirs}")
    assert f"examen={theirs}&amp;examen={ours}" in alone.body.decode()
    call = browser.path.split("/images/")[0]
    beside = await browser.get(f"{call}/comparaison?examen={theirs}&examen={ours}")
    assert beside.status == 200
    assert "hangingProtocolId=drimbox-comparaison-2" in beside.body.decode()
    told = await states(browser, beside)
    assert told[remote.manifest.study_uid]["received"] == 2
    assert told[local.manifest.study_uid]["received"] == 3
    assert told[local.manifest.study_uid]["state"] == "done"
    viewed = [e for e in site.journal.events if e.kind is Kind.IMAGES_VIEWED]
    assert {o.identifier for e in viewed for o in e.objects} >= {remote.manifest.study_uid, local.manifest.study_uid}
    assert Kind.PACS_QUERIED in {e.kind for e in site.journal.events}
    # No other DRIMbox was asked for what lies here.
    assert len(site.sources.asked) == 1


@pytest.mark.requirement("DB.VI-CS.35")
async def test_a_local_study_opens_by_itself(site: Site, remote: Study, local: Study) -> None:
    site.archive.hold(local, DOMINIQUE.ipp)
    browser = site.browser()
    page = await listed(site, browser)
    opened = await browser.get(f"{browser.path}/images/{local_key(page)}")
    assert "PACS local (pacs-b)" in text_of(opened)
    told = await states(browser, opened)
    assert told[local.manifest.study_uid]["received"] == 3


@pytest.mark.requirement("DB.CO.68")
@pytest.mark.parametrize("other", ["number", "issuer"])
async def test_a_study_under_another_number_is_not_the_patients(
    site: Site, remote: Study, local: Study, other: str
) -> None:
    if other == "number":
        site.archive.hold(local, SECOND.ipp)
    else:
        site.archive.hold(local, DOMINIQUE.ipp, issuer="1.2.250.1.999.77")
    page = await listed(site, site.browser())
    assert "dans le PACS local" not in text_of(page).replace("PACS local Ouvrir", "")
    assert "SCANNER DU JOUR" not in text_of(page)


@pytest.mark.requirement("DB.CO.68", "INS/va1.36")
async def test_a_study_that_changed_hands_since_the_list_is_not_opened(site: Site, remote: Study, local: Study) -> None:
    held = site.archive.hold(local, DOMINIQUE.ipp)
    browser = site.browser()
    page = await listed(site, browser)
    site.archive.later[held.study_uid] = replace(held, patient_id=SECOND.ipp)
    refused = await browser.get(f"{browser.path}/images/{local_key(page)}")
    assert refused.status == 409
    assert "Rien n'est affiché" in text_of(refused)


@pytest.mark.requirement("INS/va1.36")
async def test_other_traits_of_a_local_study_take_a_decision_that_is_written_down(
    site: Site, remote: Study, tmp_path: Path
) -> None:
    other = make_study(tmp_path, replace(DOMINIQUE, birth="19790329"), [[MR]])
    site.archive.hold(other, DOMINIQUE.ipp)
    browser = site.browser()
    page = await listed(site, browser)
    assert "Identité : date de naissance à vérifier" in text_of(page)
    asked = await browser.get(f"{browser.path}/images/{local_key(page)}")
    assert asked.status == 409
    assert "29/03/1979" in text_of(asked)
    assert Kind.IMAGES_VIEWED not in {e.kind for e in site.journal.events}
    opened = await browser.submit(asked, f"/identite/{local_key(page)}", decision="oui")
    assert opened.status == 200
    assert "29/03/1979" in text_of(opened)
    [decided] = [e for e in site.journal.events if e.kind is Kind.IDENTITY_DECIDED]
    assert [o.identifier for o in decided.objects] == [other.manifest.study_uid]
    told = await states(browser, opened)
    assert told[other.manifest.study_uid]["received"] == 1


@pytest.mark.requirement("DB.CO.68")
async def test_an_image_of_the_local_pacs_with_another_ins_is_never_shown(
    site: Site, remote: Study, tmp_path: Path
) -> None:
    mixed = make_study(tmp_path, DOMINIQUE, [[MR, MR]], image_patient=SECOND)
    site.archive.hold(mixed, DOMINIQUE.ipp)
    browser = site.browser()
    page = await listed(site, browser)
    opened = await browser.get(f"{browser.path}/images/{local_key(page)}")
    told = await states(browser, opened)
    series = told[mixed.manifest.study_uid]
    assert (series["state"], series["received"]) == ("failed", 0)
    assert "INS" in str(series["reason"])
    assert not [p for p in site.folder.rglob("*.dcm") if mixed.manifest.study_uid in p.read_bytes().decode("latin-1")]


async def test_a_pacs_that_does_not_answer_is_a_row_of_its_own_with_another_try(
    site: Site, remote: Study, local: Study
) -> None:
    site.archive.failure = Unavailable("Le PACS pacs-b ne répond pas.", code="pacs-unreachable")
    site.archive.hold(local, DOMINIQUE.ipp)
    browser = site.browser()
    page = await listed(site, browser)
    assert "Les examens du patient dans le PACS pacs-b ne sont pas connus" in text_of(page)
    assert "Ouvrir les images" in text_of(page)
    site.archive.failure = None
    await browser.submit(page, "/actualiser", partie="local:pacs-b")
    for _ in range(40):
        page = await browser.get(browser.path)
        if "SCANNER DU JOUR" in text_of(page):
            break
        await asyncio.sleep(0.05)
    assert "SCANNER DU JOUR" in text_of(page)


async def test_one_study_here_and_elsewhere_is_nothing_to_compare(site: Site, remote: Study) -> None:
    site.archive.hold(remote, DOMINIQUE.ipp)
    browser = site.browser()
    page = await listed(site, browser)
    call = browser.path
    refused = await browser.get(f"{call}/comparaison?examen={remote_key(page)}&examen={local_key(page)}")
    assert refused.status == 422
    assert "deux fois le même examen" in text_of(refused)


async def test_a_study_that_left_the_pacs_is_told_so(site: Site, remote: Study, local: Study) -> None:
    site.archive.hold(local, DOMINIQUE.ipp)
    browser = site.browser()
    page = await listed(site, browser)
    site.archive.held.clear()
    gone = await browser.get(f"{browser.path}/images/{local_key(page)}")
    assert "n'est plus dans le PACS" in text_of(gone)
    assert (await browser.get(f"{browser.path.split('/images/')[0]}/images/local{new_uid()[-15:]}")).status == 404

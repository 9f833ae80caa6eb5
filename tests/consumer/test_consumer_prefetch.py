"""Likely priors on their way before they are asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from consumer_world import DOMINIQUE, Site, make_study
from pydicom.data import get_testdata_file

from drimbox.consumer.prefetch import Prefetcher
from drimbox.consumer.web.desk import Desk
from drimbox.record.audit import Kind

CT = Path(get_testdata_file("CT_small.dcm"))


@pytest.fixture
def prefetching(site: Site) -> Site:
    desk: Desk = site.app._app.state.desk  # type: ignore[attr-defined]
    object.__setattr__(desk, "prefetch", Prefetcher(1))
    return site


async def asked(site: Site, count: int) -> None:
    for _ in range(200):
        if len(site.sources.asked) >= count:
            break
        await asyncio.sleep(0.02)
    # What comes after would come now.
    await asyncio.sleep(0.1)
    assert len(site.sources.asked) == count


@pytest.mark.requirement("DB.CO.70")
async def test_the_newest_prior_of_the_modality_of_the_call_comes_first(prefetching: Site, tmp_path: Path) -> None:
    site = prefetching
    old = make_study(tmp_path, DOMINIQUE, [[CT]], day="20230115")
    new = make_study(tmp_path, DOMINIQUE, [[CT]], day="20240115")
    other = make_study(tmp_path, DOMINIQUE, [[CT]], day="20240201", modality="MR")
    site.hold(DOMINIQUE, old, new, other)
    browser = site.browser()
    page = await site.log_in(browser, Modality="CT")
    if b"data-source" in page.body:
        await browser.get(f"{browser.path}/liste")
    await browser.get(browser.path)
    await asked(site, 1)
    assert site.sources.asked[0][0] in new.files
    # Nobody has looked at it yet.
    assert not [e for e in site.journal.events if e.kind is Kind.IMAGES_VIEWED]
    # Opened, it does not travel a second time.
    await browser.get(f"{browser.path}")
    await asked(site, 1)


async def test_without_a_modality_nothing_is_guessed(prefetching: Site, tmp_path: Path) -> None:
    site = prefetching
    site.hold(DOMINIQUE, make_study(tmp_path, DOMINIQUE, [[CT]]))
    browser = site.browser()
    await site.log_in(browser)
    await browser.get(browser.path)
    await asked(site, 0)


async def test_nothing_is_fetched_ahead_by_default(site: Site, tmp_path: Path) -> None:
    site.hold(DOMINIQUE, make_study(tmp_path, DOMINIQUE, [[CT]]))
    browser = site.browser()
    await site.log_in(browser, Modality="CT")
    await browser.get(browser.path)
    await asked(site, 0)

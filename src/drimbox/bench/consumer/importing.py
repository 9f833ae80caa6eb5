"""The import of the study into site B's PACS, beside what that PACS takes when it is given the files at once."""

from __future__ import annotations

import asyncio
import json
import time
from urllib.parse import urljoin

from drimbox.bench.pixels.images import Batch
from drimbox.bench.rows import Row, ratio
from drimbox.demo import story
from drimbox.demo.mesh import Mesh
from drimbox.demo.visitor import Page, Visitor
from drimbox.pacs.header import outgoing
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.pacs.store import PacsStore
from drimbox.sandbox.pacs.orthanc import rest

_PATIENCE = 900.0
_LOOK = 0.05


async def imported(mesh: Mesh, batch: Batch, rounds: int, name: str, line: Row | None = None) -> list[Row]:
    """Click to the last image stored, as the page of imports tells it, over the line ``name``.

    ``line`` is what the line alone allows, where it allows less than the PACS. The PACS is Orthanc, emptied of the
    study before each round; alone, it is given the files over as many associations. Raises ``story.Untrue``.
    """
    if not mesh.pacs_b.rest_url:
        # The stand-in for Orthanc cannot be emptied, nor is it worth comparing with.
        return []
    whole = Row(f"import into the PACS, {name}", "MB/s")
    seconds = Row(f"import into the PACS, click to stored and found, {name}", "s")
    alone = Row("the PACS alone, by C-STORE", "MB/s")
    for _ in range(rounds):
        await asyncio.to_thread(_emptied, mesh, batch)
        alone.values.append(await _stored(mesh, batch))
        await asyncio.to_thread(_emptied, mesh, batch)
        taken, verified = await _imported(mesh, batch)
        whole.values.append(batch.megabytes / taken)
        seconds.values.append(verified)
    await asyncio.to_thread(_emptied, mesh, batch)
    limit = alone if line is None or line.median >= alone.median else line
    share = ratio(
        f"import, share of what the {'PACS' if limit is alone else 'line'} alone allows ({name})", whole, limit
    )
    return [alone, whole, seconds, share]


async def _imported(mesh: Mesh, batch: Batch) -> tuple[float, float]:
    """Seconds from the click to the last image stored, and to all of them found again."""
    visitor, listed = await story.consult(mesh, story.Timings(), lambda _: None)
    page = await _choice(visitor, listed)
    begun = time.monotonic()
    page = await visitor.press(page, "Importer")
    state = urljoin(page.address + "/", "etat")
    stored = 0.0
    while time.monotonic() - begun < _PATIENCE:
        answer = await visitor.get(state, accept="application/json")
        [newest, *_] = json.loads(answer.body)
        count = int("".join(c for c in newest["told"].partition(" sur ")[0] if c.isdigit()) or 0)
        if count == len(batch.files) and not stored:
            stored = time.monotonic() - begun
        if not newest["open"]:
            if newest["state"] != "done":
                raise story.Untrue(f"the import ended as {newest['state']}: {newest['reason']}")
            return stored, time.monotonic() - begun
        await asyncio.sleep(_LOOK)
    raise story.Untrue("the import did not end")


async def _choice(visitor: Visitor, listed: Page) -> Page:
    links = listed.tree.xpath("//a[contains(@href, '/import/')]/@href")
    if not links:
        raise story.Untrue("nothing in the list can be imported")
    return await visitor.get(urljoin(listed.address, links[0]))


async def _stored(mesh: Mesh, batch: Batch) -> float:
    """The files given to the PACS straight away; MB/s."""
    link = PacsLink(Pacs("pacs-b", "127.0.0.1", mesh.ports.pacs_b, mesh.pacs_b.ae_title, "DRIMBOX_B"))
    files = await asyncio.to_thread(lambda: [outgoing(path) for path in batch.files])
    begun = time.monotonic()
    try:
        async with PacsStore(link, associations=2).sending(files) as results:
            count = 0
            async for one in results:
                count += one.stored
    finally:
        link.close()
    if count < len(files):
        raise story.Untrue("the PACS did not take all of the study")
    return batch.megabytes / (time.monotonic() - begun)


def _emptied(mesh: Mesh, batch: Batch) -> None:
    query = json.dumps({"Level": "Study", "Query": {"StudyInstanceUID": batch.study_uid}}).encode()
    for study in json.loads(rest(mesh.pacs_b, "POST", "/tools/find", query)):
        rest(mesh.pacs_b, "DELETE", f"/studies/{study}")

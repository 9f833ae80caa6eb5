"""The import of the study into site B's PACS, beside what that PACS takes when it is given the files at once."""

from __future__ import annotations

import asyncio
import json
import time
from urllib.parse import urljoin

from drimbox.bench.consumer.processors import Processors
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
#: Between two looks at the page of imports, in seconds: its own script looks once in a second.
_LOOK, _LAST_LOOK = 0.4, 0.05
#: Seconds after which a file system hands out again the places of files that were deleted (ext4 keeps them for five).
_SETTLED = 6.0


async def imported(mesh: Mesh, batch: Batch, rounds: int, name: str, line: Row | None = None) -> list[Row]:
    """Click to the last image stored, as the page of imports tells it, over the line ``name``.

    ``line`` is what the line alone allows, where it allows less than the PACS. The PACS is Orthanc, emptied of the
    study before each round; alone, it is given the files over as many associations, and has the machine to itself: what
    each process took of the processors says how far that is a fair limit. Raises ``story.Untrue``.
    """
    if not mesh.pacs_b.rest_url:
        # The stand-in for Orthanc cannot be emptied, nor is it worth comparing with.
        return []
    whole = Row(f"import into the PACS, {name}", "MB/s")
    seconds = Row(f"import into the PACS, click to stored and found, {name}", "s")
    alone = Row("the PACS alone, by C-STORE", "MB/s")
    among = Processors(mesh, f"import into the PACS, {name}")
    few = Processors(mesh, f"the PACS alone, by C-STORE, {name}")
    for _ in range(rounds):
        await asyncio.to_thread(_emptied, mesh, batch)
        alone.values.append(await _stored(mesh, batch, few))
        await asyncio.to_thread(_emptied, mesh, batch)
        taken, verified = await _imported(mesh, batch, among)
        whole.values.append(batch.megabytes / taken)
        seconds.values.append(verified)
    await asyncio.to_thread(_emptied, mesh, batch)
    limit = alone if line is None or line.median >= alone.median else line
    share = ratio(
        f"import, share of what the {'PACS' if limit is alone else 'line'} alone allows ({name})", whole, limit
    )
    return [alone, *few.told(), whole, seconds, *among.told(), share]


async def _imported(mesh: Mesh, batch: Batch, processors: Processors) -> tuple[float, float]:
    """Seconds from the click to the last image stored, which ``processors`` count, and to all of them found again."""
    visitor, listed = await story.consult(mesh, story.Timings(), lambda _: None)
    page = await _choice(visitor, listed)
    processors.begin()
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
            processors.end()
        if not newest["open"]:
            if newest["state"] != "done":
                raise story.Untrue(f"the import ended as {newest['state']}: {newest['reason']}")
            return stored, time.monotonic() - begun
        # Seldom as long as much is left: whoever asks takes processor time from what is measured.
        left = (len(batch.files) - count) * (time.monotonic() - begun) / count if count else _LOOK
        await asyncio.sleep(min(max(left / 2, _LAST_LOOK), _LOOK))
    raise story.Untrue("the import did not end")


async def _choice(visitor: Visitor, listed: Page) -> Page:
    links = listed.tree.xpath("//a[contains(@href, '/import/')]/@href")
    if not links:
        raise story.Untrue("nothing in the list can be imported")
    return await visitor.get(urljoin(listed.address, links[0]))


async def _stored(mesh: Mesh, batch: Batch, processors: Processors) -> float:
    """The files given to the PACS straight away; MB/s."""
    link = PacsLink(Pacs("pacs-b", "127.0.0.1", mesh.ports.pacs_b, mesh.pacs_b.ae_title, "DRIMBOX_B"))
    files = await asyncio.to_thread(lambda: [outgoing(path) for path in batch.files])
    processors.begin()
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
    seconds = time.monotonic() - begun
    processors.end()
    return batch.megabytes / seconds


def _emptied(mesh: Mesh, batch: Batch) -> None:
    """The PACS without the study, and as quick as ever to write it down."""
    query = json.dumps({"Level": "Study", "Query": {"StudyInstanceUID": batch.study_uid}}).encode()
    for study in json.loads(rest(mesh.pacs_b, "POST", "/tools/find", query)):
        rest(mesh.pacs_b, "DELETE", f"/studies/{study}")
        time.sleep(_SETTLED)

"""``drimbox bench mesh``: the whole mesh, timed on its main walks."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import tempfile
import time
from pathlib import Path

from drimbox.bench.rows import Row
from drimbox.demo import mesh as meshes
from drimbox.demo import story
from drimbox.demo.mesh import Mesh
from drimbox.manifest.read import read_manifest
from drimbox.sandbox.pacs import orthanc
from drimbox.sandbox.ris import letters, wire
from drimbox.sandbox.ris.exams import exam

# A small exam of each kind for the walk of a report; the 300 CT of exam A for the walk of an image.
SMALL = "EBHJ"
LARGE = "A"


async def measure(home: Path, rounds: int) -> list[Row]:
    """Run the mesh in a folder of its own, twice; walk in the second."""
    with tempfile.TemporaryDirectory(prefix="drimbox-bench-") as folder:
        rows: list[Row] = []
        for start in range(2):
            begun = time.monotonic()
            async with meshes.running(Path(folder), home=home, say=lambda _: None) as mesh:
                whole = time.monotonic() - begun
                turn = ("first", "second")[start]
                rows.append(Row(f"start of the whole mesh, {turn} time", "s", [whole]))
                rows += [Row(f"start of {r.name}, {turn} time", "s", [r.started_in]) for r in mesh.processes]
                if start == 1:
                    rows += await _walks(mesh, rounds)
    return rows


async def _walks(mesh: Mesh, rounds: int) -> list[Row]:
    idle = _memory(mesh, "at rest")
    rows = [await _reports(mesh)]
    rows += await _images(mesh, rounds)
    rows += await _series(mesh, rounds)
    return [*rows, *idle, *_memory(mesh, "after the walks")]


async def _reports(mesh: Mesh) -> Row:
    """From the ACK of a report to its KOS in the DMP."""
    row = Row("from the ACK of a report to its KOS in the DMP", "s")
    for letter in SMALL + LARGE:
        known = exam(letter)
        message = letters.oru(letters.Letter(known, f"BENCH{letter}{os.getpid()}"), dt.datetime.now(dt.UTC))
        [answer] = await wire.send("127.0.0.1", mesh.ports.mllp_a, [message])
        if wire.verdict(answer) != "AA":
            raise story.Untrue(f"exam {letter} was not accepted")
        begun = time.monotonic()
        while not set(known.studies) <= await story.current_studies(mesh):
            if time.monotonic() - begun > 60:
                raise story.Untrue(f"exam {letter} is not in the DMP")
            await asyncio.sleep(0.01)
        row.values.append(time.monotonic() - begun)
    return row


async def _images(mesh: Mesh, rounds: int) -> list[Row]:
    """From the click on an exam to its first image, and the whole series; beside the PACS's own REST interface."""
    first = Row("from the click to the first of 300 CT (not cached)", "s")
    whole = Row("300 CT to the consumer, MB/s", "MB/s")
    peer = Row("the same 300 CT from the PACS by DICOMweb, in the clear, MB/s", "MB/s")
    study = exam(LARGE).studies[0]
    for _ in range(rounds):
        timings = story.Timings()
        visitor, listed = await story.consult(mesh, timings, lambda _: None)
        begun = time.monotonic()
        opened = await story.open_exam(visitor, listed, study, timings, lambda _: None)
        clicked = time.monotonic() - begun
        await story.fetch_all(opened, timings, lambda _: None)
        first.values.append(clicked + timings.steps["first_image"])
        whole.values.append(timings.steps["megabytes"] / timings.steps["all_images"])
        if mesh.pacs_a.rest_url:
            begun = time.monotonic()
            got = await asyncio.to_thread(orthanc.rest, mesh.pacs_a, "GET", f"/dicom-web/studies/{study}", None, 600)
            peer.values.append(len(got) / 1e6 / (time.monotonic() - begun))
    return [row for row in (first, whole, peer) if row.values]


async def _series(mesh: Mesh, rounds: int) -> list[Row]:
    """A whole series by WADO-RS, as another DRIMbox asks it: PACS -> source -> client, mutual TLS, nothing cached."""
    first = Row("WADO-RS of 300 CT, first byte (not cached)", "s")
    whole = Row("WADO-RS of 300 CT, PACS to client, mutual TLS", "MB/s")
    study = exam(LARGE).studies[0]
    kos_uid, address = await _published_series(mesh, study)
    for _ in range(rounds):
        asked = json.dumps({"user": story.LOGIN, "client_id": mesh.national.sites["b"].site.client_id}).encode()
        headers = {"Content-Type": "application/json"}
        reply = await mesh.http.send(
            "POST", f"{mesh.national.psc_helpers}/token", tls=mesh.tls_b, headers=headers, body=asked
        )
        headers = {
            "Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*',
            "Authorization": f"Bearer {json.loads(reply.body)['access_token']}",
            "KOS-SOPInstanceUID": kos_uid,
        }
        begun, size = time.monotonic(), 0
        async with mesh.http.stream("GET", address, tls=mesh.tls_b, headers=headers) as answer:
            if answer.status != 200:
                raise story.Untrue(f"WADO-RS answered {answer.status}")
            async for chunk in answer.chunks:
                if not size:
                    first.values.append(time.monotonic() - begun)
                size += len(chunk)
        whole.values.append(size / 1e6 / (time.monotonic() - begun))
    return [first, whole]


async def _published_series(mesh: Mesh, study: str) -> tuple[str, str]:
    """The KOS of a study in the DMP, and the address of its first series."""
    view = f"{mesh.national.dmp_view}/documents"
    for document in json.loads((await mesh.http.send("GET", view, tls=mesh.tls)).body):
        if document["mime"] == "application/dicom" and any(study in r for r in document["references"]):
            kos = await mesh.http.send("GET", f"{view}/{document['unique_id']}", tls=mesh.tls)
            return document["unique_id"], read_manifest(kos.body).series[0].retrieve_url
    raise story.Untrue("the study is not in the DMP")


def _memory(mesh: Mesh, when: str) -> list[Row]:
    return [Row(f"resident memory of {name}, {when}", "MB", [size / 1e6]) for name, size in mesh.memory().items()]

"""The whole of ``drimbox bench consumer``, row after row."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from drimbox.bench.consumer import dmp_alone, reference
from drimbox.bench.consumer.browser import Screen, screen
from drimbox.bench.consumer.importing import imported
from drimbox.bench.consumer.shaping import NEAR, THIN, Line, Shaper, shaped
from drimbox.bench.pixels import images
from drimbox.bench.pixels.images import Batch, Plan
from drimbox.bench.rows import Row, ratio
from drimbox.demo import mesh as meshes
from drimbox.demo import story
from drimbox.demo.mesh import Mesh
from drimbox.demo.places import ports

Say = Callable[[str], None]
_USERS = 20
#: Seconds that somebody looks at the list before they open an exam.
_READING = 5.0
_QUICK = Plan(reference=40, different=8)
_LINES: Sequence[tuple[str, Line]] = (("loopback", NEAR), ("100 Mbit/s and 30 ms", THIN))


@dataclass(slots=True)
class _Rows:
    """What is measured over one line."""

    listed: Row
    first: Row
    whole: Row
    seconds: Row

    @staticmethod
    def of(line: str) -> _Rows:
        return _Rows(
            Row(f"click to list, {line}", "s"),
            Row(f"click to first image (as a picture in the page), {line}", "s"),
            Row(f"whole series at the consumer, {line}", "MB/s"),
            Row(f"whole series at the consumer, {line}", "s"),
        )

    def all(self) -> list[Row]:
        return [row for row in (self.listed, self.first, self.whole, self.seconds) if row.values]


async def measure(home: Path, rounds: int, *, quick: bool, say: Say) -> list[Row]:
    """Every row, in a mesh of its own. Raises ``NotStarted``, ``Misconfigured``, ``story.Untrue``."""
    with tempfile.TemporaryDirectory(prefix="drimbox-bench-") as name:
        folder = Path(name)
        say("making the study")
        plan = _QUICK if quick else Plan()
        batch = await asyncio.to_thread(reference.given, folder, plan, images.shared_folder(home))
        state, before = folder / "mesh", _free_port()
        async with shaped(before, ports(state).wado_a) as line:
            # Alone, nothing kept: every image comes over the line.
            async with meshes.running(state, home=home, say=_unheard, before_wado=before, cached=False) as mesh:
                say("publishing the study")
                await reference.published(mesh, batch)
                found = await _alone(mesh, line, batch, rounds, say)
            # Many at once, as a site is: what one has fetched is there for the others.
            async with meshes.running(state, home=home, say=_unheard, before_wado=before) as mesh:
                for name, one in _LINES:
                    line.line = one
                    say(f"{name}: {_USERS} users at once")
                    found += _told(await _crowd(mesh, batch, name), say)
            return found


def _told(rows: list[Row], say: Say) -> list[Row]:
    """The rows, once they have been said: the whole takes minutes."""
    for row in rows:
        say(row.text())
    return rows


def _unheard(text: str) -> None:
    """What the mesh says while it starts."""


async def _alone(mesh: Mesh, line: Shaper, batch: Batch, rounds: int, say: Say) -> list[Row]:
    cold = Row("click to first image, the source's cache empty, loopback", "s")
    found: list[Row] = [cold]
    say("click to first image, nothing cached")
    cold.values.append(await _visit(mesh, batch, _Rows.of("")))
    for name, one in _LINES:
        line.line = one
        rows = _Rows.of(name)
        alone = Row(f"the DMP alone, for the same questions, {name}", "s")
        beyond = Row(f"click to list, beyond the DMP's own time, {name}", "s")
        say(name)
        for _ in range(rounds):
            alone.values.append(await dmp_alone.seconds(mesh))
            await _visit(mesh, batch, rows)
            beyond.values.append(rows.listed.values[-1] - alone.values[-1])
        found += _told([rows.listed, alone, beyond, *rows.all()[1:]], say)
        if one.rate:
            limit = Row("the line", "MB/s", [one.rate / 1e6])
            found.append(ratio(f"whole series, share of the line ({name})", rows.whole, limit))
        say(f"{name}: import")
        found += await imported(mesh, batch, rounds, name, Row("", "", [one.rate / 1e6]) if one.rate else None)
        say(f"{name}: on the screen")
        async with screen(mesh) as seen:
            found += _told(await _on_screen(seen, batch, rounds, name), say)
    return found


async def _visit(mesh: Mesh, batch: Batch, rows: _Rows) -> float:
    """One radiologist without a browser: list, first image, whole series; the seconds to the first image."""
    timings = story.Timings()
    visitor, listed = await story.consult(mesh, timings, lambda _: None)
    begun = time.monotonic()
    # The DMP is asked anew, as for a first list: who has logged in before is in front of theirs at once.
    listed = await visitor.press(listed, "Actualiser")
    while 'aria-busy="true"' in listed.body.decode("utf-8"):
        listed = await visitor.get(listed.address)
    rows.listed.values.append(time.monotonic() - begun)
    begun = time.monotonic()
    opened = await story.open_exam(visitor, listed, batch.study_uid, story.Timings(), lambda _: None)
    picture = await visitor.get(f"{opened.dicomweb.removesuffix('/dicomweb')}/apercu")
    if picture.status != 200:
        raise story.Untrue(f"no first image (HTTP {picture.status})")
    first = time.monotonic() - begun
    rows.first.values.append(first)
    series = f"{opened.dicomweb}/studies/{batch.study_uid}/series/{batch.series_uid}"
    answer = await visitor.get(f"{series}/metadata", accept="application/dicom+json", timeout=900)
    if answer.status != 200:
        raise story.Untrue(f"the series did not come (HTTP {answer.status})")
    whole = time.monotonic() - begun
    rows.whole.values.append(batch.megabytes / whole)
    rows.seconds.values.append(whole)
    return first


async def _crowd(mesh: Mesh, batch: Batch, name: str) -> list[Row]:
    """Many at once, each with a session of their own."""
    rows = _Rows.of(f"{_USERS} users at once, {name}")
    own = await asyncio.gather(*(dmp_alone.seconds(mesh) for _ in range(_USERS)))
    alone = Row(f"the DMP alone, {_USERS} lists at once, {name}", "s", list(own))
    begun = time.monotonic()
    await asyncio.gather(*(_visit(mesh, batch, rows) for _ in range(_USERS)))
    together = Row(f"all that {_USERS} users at once got, {name}", "MB/s")
    together.values.append(_USERS * batch.megabytes / (time.monotonic() - begun))
    beyond = Row(f"click to list, beyond the DMP's own time, {_USERS} users at once, {name}", "s")
    beyond.values.append(rows.listed.median - alone.median)
    return [rows.listed, alone, beyond, rows.first, rows.seconds, together]


async def _on_screen(seen: Screen | None, batch: Batch, rounds: int, name: str) -> list[Row]:
    """The same in Chromium, where it is installed: what the eyes of the radiologist get."""
    if seen is None:
        return []
    picture = Row(f"click to first image on the screen (Chromium), {name}", "s")
    viewer = Row(f"click to first image in the viewer (Chromium), {name}", "s")
    whole = Row(f"click to the whole series in the viewer (Chromium), {name}", "s")
    hurried = Row(f"the same, clicked as soon as the list is there, {name}", "s")
    # The first time it compiles the viewer, as once in a day.
    times = await seen.opened(len(batch.files), reading=0.0)
    first = Row(f"the same, and for the first time in this browser, {name}", "s", [times.viewer])
    for _ in range(rounds):
        hurried.values.append((await seen.opened(len(batch.files), reading=0.0)).viewer)
        times = await seen.opened(len(batch.files), reading=_READING)
        picture.values.append(times.picture)
        viewer.values.append(times.viewer)
        whole.values.append(times.whole)
    return [picture, viewer, hurried, first, whole]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

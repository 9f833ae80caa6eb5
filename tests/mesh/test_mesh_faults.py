"""What fails around a box, and the box itself killed: nothing is lost, nothing is doubled, and what happens is said."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from mesh_world import NOW, World, control, eventually

from drimbox.demo import story
from drimbox.demo.processes import NotStarted, Running, started
from drimbox.demo.visitor import Visitor
from drimbox.foundation.errors import Unavailable
from drimbox.sandbox.ris import letters, wire
from drimbox.sandbox.ris.exams import exam

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

ROOT = "1.2.250.1.213.4.5.2"
ANYTHING = 'multipart/related; type="application/dicom"; transfer-syntax=*'


def report(letter: str) -> bytes:
    return letters.oru(letters.Letter(exam(letter), control()), NOW)


def study_of(letter: str) -> str:
    return exam(letter).studies[0]


# --------------------------------------------------------------------------------------------------- the PACS of site A


@dataclass
class Orthanc:
    """The process of site A's PACS, to be frozen, killed and started again."""

    state: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else int((self.state / "orthanc.pid").read_text())

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    @asynccontextmanager
    async def stopped(self, world: World, number: signal.Signals) -> AsyncIterator[None]:
        """Without PACS while the block lasts; then it runs again, and answers."""
        command = arguments(self.pid)
        self.signal(number)
        if self.process:
            self.process.wait()
        await eventually(self._gone, "the PACS does not stop")
        try:
            yield
        finally:
            self._start(command)
            await eventually(lambda: answers(world), "the PACS does not come back")

    def _start(self, command: list[bytes]) -> None:
        with (self.state / "orthanc-again.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.state, stdout=log, stderr=log, start_new_session=True)

    async def _gone(self) -> bool:
        return not runs(self.pid)


def runs(pid: int) -> bool:
    """Does the process run? One that ended and that its parent has not asked after does not."""
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def arguments(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")


async def answers(world: World) -> bool:
    """Does site A say that all behind it works?"""
    reply = await world.mesh.http.send("GET", world.endpoints["wado_rs"]["health"], tls=world.mesh.tls_b)
    return reply.status == 200


@pytest.fixture(scope="session")
def orthanc(world: World) -> Iterator[Orthanc]:
    pacs = Orthanc(world.mesh.state / "pacs-a")
    yield pacs
    if pacs.process:
        pacs.process.terminate()
        pacs.process.wait()


# -------------------------------------------------------------------------------------------------- site A killed


@dataclass(frozen=True)
class Interrupted:
    """Site A after it was killed in the middle of two publications, and the processes that it left behind."""

    again: Running
    left: tuple[int, ...]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def interrupted(world: World, orthanc: Orthanc) -> AsyncIterator[Interrupted]:
    """SIGKILL between the acknowledgement and the publication: of P while the DMP has it in hand, of Q before the PACS
    has said a word. Site A then starts again."""
    await world.publish("B")
    site_a = world.mesh.processes[1]
    await world.view("/faults", "POST", {"kind": "slow", "service": "repository", "seconds": 3})
    await world.accepted(report("P"))
    await eventually(lambda: no_fault_left(world), "the DMP did not hear of exam P")
    orthanc.signal(signal.SIGSTOP)
    await world.accepted(report("Q"))
    await eventually(lambda: in_hand(world, study_of("Q")), "exam Q is not worked on")
    left = children(site_a.process.pid)
    site_a.process.kill()
    await site_a.process.wait()
    orthanc.signal(signal.SIGCONT)
    config, log = world.mesh.state / "site-a.toml", world.mesh.state / "logs" / "site-a.log"
    async with started("site a", ["run", "--config", str(config)], log=log) as again:
        yield Interrupted(again, left)


async def no_fault_left(world: World) -> bool:
    return await world.view("/faults") == []


async def in_hand(world: World, study: str) -> bool:
    return bool(
        await world.sql("SELECT 1 FROM procrastinate_jobs WHERE args ->> 'study_uid' = %s AND status = 'doing'", study)
    )


def children(pid: int) -> tuple[int, ...]:
    return tuple(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


@pytest.mark.requirement("DB.SO.22")
async def test_a_killed_box_starts_again_and_serves(world: World, interrupted: Interrupted) -> None:
    assert interrupted.again.alive
    assert await answers(world)
    await world.seen(study_of("B"))

    async def gone() -> bool:
        return not any(map(runs, interrupted.left))

    await eventually(gone, "processes of the killed box live on", 10)


async def test_a_box_started_twice_by_mistake(world: World) -> None:
    """The second one says so and ends; what the first one holds stays."""
    await world.publish("B")
    opened = await world.opened(study_of("B"))
    config = world.mesh.state / "site-b.toml"
    with pytest.raises(NotStarted, match="tourne déjà"):
        async with started("site b", ["run", "--config", str(config)], log=world.mesh.state / "logs" / "twice.log"):
            pass
    assert len(await story.fetch_all(opened, story.Timings(), world.said.append)) == 20


# ------------------------------------------------------------------------------------------------------------- the DMP


@pytest.mark.requirement("DB.SO.21", "DB.SO.22")
async def test_whatever_the_dmp_does_each_kos_gets_there_once(world: World, interrupted: Interrupted) -> None:
    """One report for each way to fail, all at once; those that failed wait in the queue and are tried again."""
    faults = {
        "J": "fault",
        "L": "busy",
        "O": "unavailable",
        "R": "drop",
        # These take effect, and the box cannot know it from the answer.
        "T": "cut",
        "N": "slow",
        "Z": "partial",
    }
    for kind in faults.values():
        await world.view("/faults", "POST", {"kind": kind, "service": "repository", "seconds": 1})
    await asyncio.gather(*(world.accepted(report(letter)) for letter in faults))
    for letter in faults:
        await eventually(lambda letter=letter: once(world, letter), f"exam {letter} is not in the DMP once")  # type: ignore[misc]
    assert await no_fault_left(world)
    for letter in faults:
        await world.at_rest(study_of(letter))
        assert len(await world.kos(study_of(letter), current=False)) == 1
        assert [i["code"] for i in await world.incidents(study_of(letter)) if i["severity"] == "error"] == []


async def once(world: World, letter: str) -> bool:
    return len(await world.kos(study_of(letter))) == 1


@pytest.mark.requirement("DB.CO.54")
async def test_a_dmp_that_does_not_answer_is_not_an_empty_one(world: World, interrupted: Interrupted) -> None:
    await world.publish("B")
    await world.view("/faults", "POST", {"kind": "unavailable", "service": "patients"})
    visitor, listed = await world.listed()
    assert "Le DMP n’a pas pu être consulté" in listed.text
    assert "Ce n’est pas une liste vide" in listed.text
    assert "Aucun examen" not in listed.text
    again = await visitor.press(listed, "Réessayer")
    assert "Ouvrir les images" in again.text


@pytest.mark.requirement("DB.CO.63")
@pytest.mark.parametrize("endpoint", ["token", "userinfo"])
async def test_pro_sante_connect_down_at_login(world: World, endpoint: str) -> None:
    visitor = Visitor(world.mesh.http, world.mesh.tls)
    page = await visitor.post(world.mesh.call_url, world.call())
    try:
        await world.psc_faults(**{endpoint: "down"})
        page = await visitor.press(await visitor.follow(page, "Pro Santé Connect"), "", user="doc0036790")
    finally:
        await world.psc_faults()
    assert page.status == 503
    assert "Connexion impossible" in page.text
    assert "Pro Santé Connect" in page.text
    # And then it works, from where they are.
    page = await visitor.follow(await visitor.follow(page, "Réessayer"), "Pro Santé Connect")
    if "/auth" in page.address:
        page = await visitor.press(page, "", user="doc0036790")
    assert "J’en ai pris connaissance" in page.text or "Examens d’imagerie" in page.text


# ------------------------------------------------------------------------------------------------------------ the PACS


@pytest.mark.requirement("DB.SO.103", "DB.CO.112", "D7", "D14", "D20")
async def test_without_pacs(world: World, interrupted: Interrupted, orthanc: Orthanc) -> None:
    # Nobody has fetched its images: the box has none of its own to serve.
    await world.publish("L")
    kos = (await world.published(study_of("L")))["unique_id"]
    headers = {"KOS-SOPInstanceUID": kos, "Accept": ANYTHING}
    base = world.endpoints["wado_rs"]["base"]
    async with orthanc.stopped(world, signal.SIGTERM):
        headers["Authorization"] = f"Bearer {await world.token()}"
        url = f"{base}/studies/{study_of('L')}"
        images = await world.mesh.http.send("GET", url, tls=world.mesh.tls_b, headers=headers)
        assert images.status == 503
        assert "Retry-After" in images.headers
        health = await world.mesh.http.send("GET", world.endpoints["wado_rs"]["health"], tls=world.mesh.tls_b)
        assert health.status == 503
        # The box itself lives, and says so (DB.CO.112).
        alive = await world.mesh.http.send(
            "OPTIONS", base, tls=world.mesh.tls_b, headers={"Accept": "application/json"}
        )
        assert alive.status == 200
        # The radiologist of site B is told who is down.
        opened = await world.opened(study_of("L"))
        state = opened.dicomweb.removesuffix("/dicomweb") + "/etat"

        async def failed() -> bool:
            page = await opened.visitor.get(state, accept="application/json")
            return "son PACS ne semble pas l'être" in page.body.decode()

        await eventually(failed, "the reader is not told that the PACS is down")
        # A report is taken all the same; it waits.
        await world.accepted(report("I"))
        await eventually(lambda: waits(world, study_of("I")), "exam I does not wait for the PACS")
        assert await world.kos(study_of("I"), current=False) == []
    again = await world.mesh.http.send("GET", f"{base}/studies/{study_of('L')}", tls=world.mesh.tls_b, headers=headers)
    assert again.status == 200
    await eventually(lambda: once(world, "I"), "exam I was not published once the PACS was back")
    await world.at_rest(study_of("I"))
    assert await world.incidents(study_of("I")) == []


async def waits(world: World, study: str) -> bool:
    return [i["code"] for i in await world.incidents(study)] == ["waiting"]


@pytest.mark.requirement("D14")
async def test_a_pacs_that_dies_in_the_middle(world: World, interrupted: Interrupted, orthanc: Orthanc) -> None:
    """The body breaks off: what is not whole never ends cleanly. Nothing stays on the disk."""
    await world.publish("A")
    known = (await world.published(study_of("A")))["unique_id"]
    # Another version of the report, and of the KOS: nothing that was fetched for the last one is served for it.
    act = exam("B").act
    await world.accepted(letters.oru(letters.Letter(replace(exam("A"), act=act), control()), NOW))

    async def renewed() -> bool:
        return [k for k in await world.kos(study_of("A")) if k["unique_id"] != known] != []

    await eventually(renewed, "the KOS of exam A was not replaced")
    kos = (await world.published(study_of("A")))["unique_id"]
    headers = {"KOS-SOPInstanceUID": kos, "Accept": ANYTHING, "Authorization": f"Bearer {await world.token()}"}
    url = f"{world.endpoints['wado_rs']['base']}/studies/{study_of('A')}"
    async with world.mesh.http.stream("GET", url, tls=world.mesh.tls_b, headers=headers) as answer:
        assert answer.status == 200
        await anext(answer.chunks)
        async with orthanc.stopped(world, signal.SIGKILL):
            with pytest.raises(Unavailable) as broken:
                await read(answer.chunks)
    assert broken.value.code == "answer-cut"
    await eventually(world.swept, "images of the broken answer are still there", 20)
    assert len(await world.seen(study_of("A"))) == 300


async def read(chunks: AsyncIterator[bytes]) -> None:
    async for _ in chunks:
        pass


# ------------------------------------------------------------------------------------------------- site A killed, later


@pytest.mark.requirement("DB.SO.03", "DB.SO.22")
@pytest.mark.parametrize("letter", ["P", "Q"])
async def test_what_was_in_hand_when_the_box_was_killed_is_published_once(
    world: World, interrupted: Interrupted, letter: str
) -> None:
    """The work of a dead box is taken up half a minute after its last sign of life."""
    await eventually(lambda: once(world, letter), f"exam {letter} was lost", 75)
    await world.at_rest(study_of(letter))
    assert len(await world.kos(study_of(letter), current=False)) == 1
    [publication] = await world.sql("SELECT state FROM publication WHERE study_uid = %s", study_of(letter))
    assert publication["state"] == "current"
    assert await world.incidents(study_of(letter)) == []
    await world.seen(study_of(letter))


async def test_the_service_went_on(world: World, interrupted: Interrupted) -> None:
    [answer] = await world.send(report("B"))
    assert wire.verdict(answer) == "AA"

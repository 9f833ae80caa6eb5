"""Comparing one study without changing anything: every way in which it may not be as it should."""

from __future__ import annotations

from dataclasses import replace

import pytest

from drimbox.foundation.errors import Misconfigured, Rejected, Unavailable
from drimbox.identity.ins import Ins
from drimbox.publication.ports import Entry, Sites
from drimbox.publication.triggers import Cause, defer_resync
from drimbox.reconciliation.examine import Examiner
from drimbox.reconciliation.walk import Finding, Target
from drimbox.reports.report import Visibility
from drimbox.store.database import Pool
from publication.publication_examples import STUDY, World, down, letter_of, study_of, world_on

IMAGE = "1.2.250.1.213.4.5.2.3.105.201.30"


@pytest.fixture
async def world(pool: Pool) -> World:
    """The study of exam E is published."""
    made = world_on(pool)
    made.pacs.hold(study_of())
    await made.run(letter_of())
    return made


async def examined(world: World, study_uid: str = STUDY) -> dict[Finding, str]:
    """Compare it; nothing may have changed by that."""
    newest = await world.archive.published_last("ambroise", study_uid)
    assert newest is not None
    before = (world.dmp.provided[:], world.dmp.deleted[:], await world.states(), await world.queue())
    target = Target(newest.id, "ambroise", study_uid, newest.state)
    found = dict(await Examiner(world.services, world.pool)(target))
    assert (world.dmp.provided, world.dmp.deleted, await world.states(), await world.queue()) == before
    return found


async def given_up(world: World) -> None:
    """The operator gave up the work that waited."""
    async with world.pool.connection() as connection:
        await connection.execute("DELETE FROM procrastinate_jobs")


@pytest.mark.requirement("DB.SO.28")
async def test_a_study_as_it_should_be(world: World) -> None:
    assert await examined(world) == {}


@pytest.mark.requirement("DB.SO.28", "D7")
async def test_what_the_pacs_says(world: World) -> None:
    world.pacs.hold(study_of(images=5))
    assert await examined(world) == {Finding.CONTENT: "images (+2, -0)"}
    world.pacs.hold(study_of(description="Autre"))
    assert await examined(world) == {Finding.CONTENT: "description de l'examen"}
    world.pacs.hold(study_of(birth_date="19790329"))
    assert list(await examined(world)) == [Finding.PATIENT]
    world.pacs.hold(study_of(patient_id="IPP999"))
    assert list(await examined(world)) == [Finding.PATIENT]
    world.pacs.studies.clear()
    assert await examined(world) == {Finding.GONE: ""}
    world.pacs.hold(study_of(images=0))
    assert await examined(world) == {Finding.GONE: ""}


@pytest.mark.requirement("D7")
async def test_a_pacs_that_does_not_answer_is_never_a_study_that_is_gone(world: World) -> None:
    world.pacs.studies.clear()
    world.vna.error = down()
    with pytest.raises(Unavailable):
        await examined(world)
    world.vna.error = Rejected("refus", code="pacs-association-rejected")
    with pytest.raises(Unavailable):
        await examined(world)


@pytest.mark.requirement("DB.SO.25", "DB.SO.28")
async def test_what_was_rejected_or_declared_deleted(world: World) -> None:
    await world.note("1.2.9.1", "113001", IMAGE)
    await given_up(world)
    assert await examined(world) == {Finding.CONTENT: "images (+0, -1)"}
    await world.order("CA")
    await given_up(world)
    assert await examined(world) == {Finding.GONE: "déclaré supprimé"}


@pytest.mark.requirement("DB.SO.28")
async def test_a_study_that_came_back(world: World) -> None:
    world.pacs.studies.clear()
    await world.resync(Cause.RECONCILIATION)
    assert await world.states() == ["depublished"]
    assert await examined(world) == {}
    world.pacs.hold(study_of())
    assert await examined(world) == {Finding.BACK: ""}


@pytest.mark.requirement("DB.SO.28", "D6")
async def test_what_the_dmp_says(world: World) -> None:
    [held] = world.dmp.standing(STUDY)
    held.visibility = Visibility(masked_to_professionals=True)
    assert await examined(world) == {Finding.VISIBILITY: ""}
    held.visibility = Visibility()
    held.status = "Deleted"
    world.pacs.hold(study_of(images=5))
    assert await examined(world) == {Finding.CONTENT: "images (+2, -0)", Finding.MISSING: ""}
    world.dmp.documents.clear()
    assert Finding.MISSING in await examined(world)
    world.dmp.down = Unavailable("DMP injoignable", code="dmp-unreachable")
    with pytest.raises(Unavailable):
        await examined(world)
    world.dmp.down = Rejected("refus", code="dmp-rejected", peer_code="DMPPatientUnknown")
    assert (await examined(world))[Finding.DMP_REFUSES] == "DMPPatientUnknown"


@pytest.mark.requirement("DB.SO.28")
async def test_another_version_that_stands_in_the_dmp_beside_the_current_one(world: World) -> None:
    world.pacs.hold(study_of(images=5))
    await world.resync(Cause.RECONCILIATION)
    assert await examined(world) == {}
    first = next(d for d in world.dmp.documents.values() if d.status == "Deprecated")
    first.status = "Approved"
    assert await examined(world) == {Finding.SEVERAL: "1"}
    # Where the DMP tells technical ids alone, nobody knows whether it stands.
    world.dmp.tells_visibility = False
    assert await examined(world) == {}
    world.dmp.tells_visibility = True
    world.pacs.studies.clear()
    await world.resync(Cause.RECONCILIATION)
    assert await examined(world) == {Finding.SEVERAL: "1"}


async def test_a_study_that_is_being_worked_on_is_left_alone(world: World) -> None:
    world.pacs.studies.clear()
    async with world.pool.connection() as connection:
        await defer_resync(connection, STUDY, Cause.NOTE)
    assert await examined(world) == {}
    await given_up(world)
    assert await examined(world) == {Finding.GONE: ""}


async def test_a_study_that_changes_while_it_is_compared_is_left_alone(world: World) -> None:
    world.pacs.hold(study_of(images=5))
    kos = await world.current()
    assert kos is not None
    inspect = world.dmp.inspect

    async def meanwhile(*given: object) -> Entry | None:
        world.dmp.inspect = inspect  # type: ignore[method-assign]
        await world.resync(Cause.NOTE)
        return await inspect(*given)  # type: ignore[arg-type]

    world.dmp.inspect = meanwhile  # type: ignore[method-assign]
    found = await Examiner(world.services, world.pool)(Target(kos.id, "ambroise", STUDY, "current"))
    assert found == {}
    # And a target that is no longer the newest version.
    assert await Examiner(world.services, world.pool)(Target(kos.id, "ambroise", STUDY, "current")) == {}


async def test_a_structure_that_is_no_longer_configured(world: World) -> None:
    world.services = replace(world.services, sites=Sites([]))
    with pytest.raises(Misconfigured):
        await examined(world)


async def test_the_kos_of_another_patient(world: World) -> None:
    async with world.pool.connection() as connection:
        other = Ins.of("162018885045327", "1.2.250.1.213.1.4.10")
        assert other is not None
        await connection.execute("UPDATE publication SET ins = %s", (other.matricule,))
    assert (await examined(world))[Finding.PATIENT] == "INS"

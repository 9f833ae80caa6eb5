"""Any order of reports, notes, deletions, returns and comparisons ends in one truth (property test)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from publication_examples import STUDY, World, down, letter_of, study_of, world_on

from drimbox.foundation.errors import OutcomeUnknown, Unavailable
from drimbox.publication.publish import Outcome, publish_study
from drimbox.publication.triggers import Cause
from drimbox.sandbox.ris.letters import Letter
from drimbox.store import database

UIDS = tuple(f"1.2.250.1.213.4.5.2.3.105.201.3{n}" for n in range(4))
TABLES = (
    "publication, reported_study, incident, audit, rejected_instance, change_note, withdrawn_study, report, message, "
    "procrastinate_jobs"
)


@dataclass
class Truth:
    """What was said of the study, and what the DMP must show for that once somebody looked."""

    standing: list[str] = field(default_factory=list)
    rejected: set[str] = field(default_factory=set)
    images: int = 3
    withdrawn: bool = False
    notes: int = 0

    def shown(self) -> set[str]:
        return set() if self.withdrawn or not self.standing else set(UIDS[: self.images]) - self.rejected


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("report", "replace", "delete", "images", "reject", "cancel", "order", "resync", "fault")),
        st.integers(0, 3),
    ),
    max_size=12,
)


async def take(world: World, truth: Truth, turn: int, step: Step) -> None:
    """One event, with the work that it causes."""
    what, n = step
    document = truth.standing[n % len(truth.standing)] if truth.standing else ""
    if what in ("report", "replace", "delete"):
        letter = letter_of(control_id=f"M{turn}", document_id=f"1.2.9.{turn}")
        if what == "replace" and document:
            letter = replace(letter, operation="replace", replaces=document)
        elif what == "delete":
            if not document:
                return
            letter = replace(letter, operation="delete", document_id=document)
        report_id = await world.receive(letter)
        await through(lambda: publish_study(world.services, report_id, STUDY))
        hear(truth, letter)
    elif what == "images":
        truth.images = n
        world.pacs.hold(study_of(images=n))
    elif what == "reject":
        truth.notes += 1
        truth.rejected.add(UIDS[n])
        await world.note(f"1.2.9.113001.{truth.notes}", "113001", UIDS[n])
        await through(lambda: world.resync(Cause.NOTE))
    elif what in ("cancel", "order"):
        truth.withdrawn = what == "cancel"
        await world.order("CA" if truth.withdrawn else "XO")
        await through(lambda: world.resync(Cause.ORDER_DELETED if truth.withdrawn else Cause.ORDER_CHANGED))
    elif what == "resync":
        await through(lambda: world.resync(tuple(Cause)[n]))
    else:
        world.dmp.faults = [("cut", OutcomeUnknown("coupé", code="cut"), down("dmp-down"), None)[n]]
        world.pacs.error = down() if n == 3 else None
        with suppress(Unavailable, OutcomeUnknown):
            await world.resync(Cause.NOTE)
        world.dmp.faults, world.pacs.error = [], None


def hear(truth: Truth, letter: Letter) -> None:
    """A report whose study has no image is stopped; it waits for the next comparison, and stands from then on."""
    if letter.operation == "delete":
        truth.standing.remove(letter.document_id)
        return
    if letter.replaces in truth.standing:
        truth.standing.remove(letter.replaces)
    truth.standing.append(letter.document_id)
    truth.withdrawn = False


async def through(work: Callable[[], Awaitable[Outcome]]) -> None:
    for _ in range(5):
        with suppress(Unavailable, OutcomeUnknown):
            await work()
            return
    raise AssertionError("never through")


async def play(dsn: str, steps: list[Step]) -> None:
    async with database.opened(dsn, size=2) as pool:
        async with pool.connection() as connection:
            # The journal is not truncated otherwise.
            await connection.execute("SET LOCAL session_replication_role = replica")
            await connection.execute(f"TRUNCATE {TABLES} CASCADE")  # type: ignore[arg-type]
        world = world_on(pool)
        world.pacs.hold(study_of())
        truth = Truth()
        for turn, step in enumerate(steps):
            await take(world, truth, turn, step)
        # However it was reached, a last look changes it to the truth, and a second one nothing any more.
        await through(lambda: world.resync(Cause.OPERATOR))
        provided = len(world.dmp.provided)
        for cause in Cause:
            await through(partial(world.resync, cause))
        assert len(world.dmp.provided) == provided
        standing = world.dmp.standing(STUDY)
        shown = {i.sop_instance_uid for held in standing for s in held.manifest.series for i in s.instances}
        assert shown == truth.shown()
        assert len(standing) == bool(shown)
        current = await world.archive.current(STUDY)
        assert [held.kos for held in standing] == ([current.kos] if current else [])
        assert len(set(world.dmp.provided)) == len(world.dmp.provided)
        history = await world.archive.history("ambroise", STUDY)
        # What is stopped for want of images stands from the day that they come.
        assert not shown or set(history.documents) == set(truth.standing)
        errors = [i.code for i in await world.queue() if i.severity == "error"]
        # What stays for a human: reports on a study of which nothing is to be shown.
        assert set(errors) <= {"study-rejected", "study-empty"} if not shown else errors == []


@pytest.mark.requirement("DB.SO.13", "DB.SO.26", "DB.SO.27", "D2", "D7", "D26")
@given(STEPS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_ends_in_one_truth(dsn: str, steps: list[Step]) -> None:
    asyncio.run(play(dsn, steps))

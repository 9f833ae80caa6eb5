"""Whatever the messages, the faults and their order: at the end the DMP says what the accepted messages say."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest
from publication_examples import World, down, letter_of, study_of

from drimbox.foundation.errors import Busy, DrimboxError, OutcomeUnknown, Unavailable
from drimbox.publication.publish import publish_study
from drimbox.sandbox.ris.letters import Letter

FAULTS: tuple[Callable[[], DrimboxError | str], ...] = (
    lambda: "cut",
    lambda: OutcomeUnknown("coupé", code="dmp-cut"),
    lambda: Unavailable("DMP injoignable", code="dmp-down"),
    lambda: Busy("DMP occupé", code="dmp-busy"),
)


@dataclass
class Expected:
    """What the accepted messages say of one study."""

    standing: list[str] = field(default_factory=list)
    hidden: bool = False
    images: int = 3

    def hear(self, letter: Letter, images: int) -> None:
        if "DESTDMP" not in letter.flags:
            return
        if letter.operation == "delete":
            if letter.document_id in self.standing:
                self.standing.remove(letter.document_id)
            return
        if letter.replaces in self.standing:
            self.standing.remove(letter.replaces)
        if letter.document_id not in self.standing:
            self.standing.append(letter.document_id)
        self.hidden = "INVISIBLE_PATIENT" in letter.flags
        self.images = images


def message(chance: random.Random, number: int, expected: Expected, turn: int) -> Letter:
    """A message that a RIS may send at this point."""
    base = letter_of("ABCDEGHIJK"[number], f"{number}-{turn}", document_id=f"1.2.9.{number}.{turn}")
    flags = {"DESTDMP"} if chance.random() < 0.9 else set()
    flags |= {"INVISIBLE_PATIENT"} if chance.random() < 0.3 else set()
    letter = replace(base, flags=frozenset(flags))
    if not expected.standing or chance.random() < 0.35:
        return letter
    known = chance.choice(expected.standing)
    if chance.random() < 0.5:
        return replace(letter, operation="delete", document_id=known)
    return replace(letter, operation="replace", replaces=known)


async def carry_through(world: World, chance: random.Random, report_id: int, study_uid: str) -> None:
    """Try until it is done, as the queue does, with a fault now and then."""
    for _ in range(100):
        world.dmp.faults = [chance.choice(FAULTS)()] if chance.random() < 0.4 else []
        world.pacs.error = down() if chance.random() < 0.2 else None
        with suppress(Unavailable, OutcomeUnknown):
            await publish_study(world.services, report_id, study_uid)
            return
    raise AssertionError("never through")


@pytest.mark.parametrize("seed", range(4))
async def test_the_dmp_says_what_the_messages_say(world: World, seed: int) -> None:
    chance = random.Random(seed)
    studies = {number: Expected() for number in range(10)}
    for turn in range(60):
        number = chance.randrange(10)
        expected = studies[number]
        letter = message(chance, number, expected, turn)
        [study_uid] = letter.exam.studies
        images = chance.choice((3, 3, 4, 5))
        world.pacs.hold(study_of(int(study_uid.rpartition(".")[2]), images=images))
        expected.hear(letter, images)
        report_id = await world.receive(letter)
        await carry_through(world, chance, report_id, study_uid)
        standing = world.dmp.standing(study_uid)
        assert len(standing) == bool(expected.standing)
        if standing:
            assert standing[0].visibility.hidden_from_patient is expected.hidden
            assert standing[0].manifest.instance_count == expected.images
            current = await world.archive.current(study_uid)
            assert current is not None
            assert current.kos == standing[0].kos
        else:
            assert await world.archive.current(study_uid) is None
    assert len(set(world.dmp.provided)) == len(world.dmp.provided)
    assert await world.queue() == ()

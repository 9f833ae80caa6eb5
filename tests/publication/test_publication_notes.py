"""Notes that lie in the PACS, on their way into the KOS: carried, obeyed, asked again, never passed over in silence."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from publication_examples import AMBROISE, World, letter_of, study_of

from drimbox.foundation.errors import DrimboxError, Refused, Unavailable
from drimbox.manifest.manifest import Manifest
from drimbox.pacs.keynotes import KEY_OBJECT_SELECTION, Concept, KeyNote
from drimbox.pacs.study import Instance, Series, Study
from drimbox.publication.notes import Noted, noted, read_notes
from drimbox.publication.ports import Site, SitePacs, Sites
from drimbox.publication.publish import Outcome, publish_study
from drimbox.publication.resync import resync_study
from drimbox.publication.triggers import Cause

STUDY = "1.2.250.1.213.4.5.2.1.105"
NOTES = "1.2.250.1.213.4.5.2.2.105.299"
OF_INTEREST = Concept("113000", "DCM", "Of Interest")
IMAGES = tuple(i.sop_instance_uid for s in study_of().series for i in s.instances)


def note(
    *selected: str, n: int = 1, title: Concept = OF_INTEREST, patient: str = "IPP101", description: str = "Lésion"
) -> KeyNote:
    return KeyNote(f"{NOTES}.{n}", NOTES, STUDY, patient, title, description, (), frozenset(selected))


def rejection(*selected: str, n: int = 9, code: str = "113001", patient: str = "IPP101") -> KeyNote:
    return note(*selected, n=n, title=Concept(code, "DCM"), patient=patient)


def listing(*notes: KeyNote, images: int = 3) -> Study:
    """The study of exam E as a PACS lists it that holds these notes."""
    study = study_of(images=images)
    if not notes:
        return study
    held = tuple(Instance(KEY_OBJECT_SELECTION, one.sop_uid, n) for n, one in enumerate(notes, 1))
    return replace(study, series=(*study.series, Series(NOTES, "KO", 99, "Images clés", "", held)))


@dataclass
class FakeNotes:
    """Gives the notes that the study lists; ``error`` is what it answers instead."""

    held: dict[str, KeyNote] = field(default_factory=dict)
    error: DrimboxError | None = None
    asked: int = 0

    async def of(self, study: Study) -> tuple[KeyNote, ...]:
        self.asked += 1
        listed = [i.sop_instance_uid for s in study.series for i in s.instances]
        wanted = [uid for uid in listed if uid.startswith(f"{NOTES}.")]
        if wanted and self.error is not None:
            raise self.error
        return tuple(self.held[uid] for uid in wanted)


@dataclass
class Hospital:
    """A world whose PACS holds notes."""

    world: World
    notes: FakeNotes

    def hold(self, *notes: KeyNote, images: int = 3) -> None:
        self.notes.held = {one.sop_uid: one for one in notes}
        self.world.pacs.hold(listing(*notes, images=images))

    def standing(self) -> list[Manifest]:
        return [held.manifest for held in self.world.dmp.standing(STUDY)]

    async def resync(self, cause: Cause = Cause.NOTE) -> Outcome:
        self.world.clock.advance(60)
        return await resync_study(self.world.services, STUDY, cause)


@pytest.fixture
def site(world: World) -> Hospital:
    notes = FakeNotes()
    pacs = SitePacs("pacs", world.pacs, notes=notes)
    sites = Sites([(Site("ambroise", AMBROISE, (pacs,)), ["1750803447"])])
    world.services = replace(world.services, sites=sites)
    return Hospital(world, notes)


# --- pure -------------------------------------------------------------------------------------------------------------


def test_what_notes_do_to_a_study() -> None:
    kept, gone, foreign = note(IMAGES[0]), rejection(IMAGES[1], "2.25.1"), note(IMAGES[2], n=3, patient="IPP202")
    found = noted(listing(kept, gone, foreign), (kept, gone, foreign))
    left = [i.sop_instance_uid for s in found.study.series for i in s.instances]
    assert left == [IMAGES[0], IMAGES[2], kept.sop_uid]
    assert found.notes == (kept,)
    assert found.rejected == {IMAGES[1]}
    assert [f.code for f in found.findings] == ["note-patient"]


def test_a_rejection_of_another_patient_number_is_obeyed() -> None:
    wrong = rejection(IMAGES[0], patient="IPP202")
    found = noted(listing(wrong), (wrong,))
    assert found.rejected == {IMAGES[0]}
    assert found.findings == ()
    assert found.study.instance_count == 2


async def test_a_pacs_whose_notes_are_not_wanted_is_not_asked(site: Hospital) -> None:
    study = listing(note(IMAGES[0]), rejection(IMAGES[1]))
    assert await read_notes(SitePacs("pacs", site.world.pacs), study) == Noted(study)
    assert site.notes.asked == 0


# --- stories ----------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("DB.SO.18", "DB.SO.26", "D8")
async def test_a_note_added_changed_and_removed_replaces_the_kos(site: Hospital) -> None:
    world = site.world
    assert await world.run(letter_of()) is Outcome.PUBLISHED
    assert site.standing()[0].marks == ()

    site.hold(note(IMAGES[0]))
    assert await site.resync() is Outcome.PUBLISHED
    [manifest] = site.standing()
    assert set(manifest.key_images) == {IMAGES[0]}
    assert manifest.instance_count == 4
    assert await site.resync() is Outcome.NOTHING

    site.hold(note(IMAGES[0], description="Autre"))
    assert await site.resync() is Outcome.PUBLISHED
    assert [m.text for m in site.standing()[0].marks] == ["Autre"]

    site.hold()
    assert await site.resync() is Outcome.PUBLISHED
    [manifest] = site.standing()
    assert (manifest.marks, manifest.instance_count) == ((), 3)
    assert await world.states() == ["replaced", "replaced", "replaced", "current"]
    assert await world.queue() == ()


@pytest.mark.requirement("DB.SO.18", "D8")
async def test_the_first_publication_carries_the_notes(site: Hospital) -> None:
    site.hold(note(IMAGES[0], IMAGES[2]), note(IMAGES[2], n=2, title=Concept("113003", "DCM", "For Surgery")))
    assert await site.world.run(letter_of()) is Outcome.PUBLISHED
    [manifest] = site.standing()
    assert {uid: len(marks) for uid, marks in manifest.key_images.items()} == {IMAGES[0]: 1, IMAGES[2]: 2}


@pytest.mark.requirement("DB.SO.26")
async def test_a_rejection_that_never_reached_the_listener_is_obeyed(site: Hospital) -> None:
    world = site.world
    site.hold(note(IMAGES[0]))
    assert await world.run(letter_of()) is Outcome.PUBLISHED
    site.hold(note(IMAGES[0]), rejection(IMAGES[0]))
    assert await site.resync(Cause.RECONCILIATION) is Outcome.PUBLISHED
    [manifest] = site.standing()
    listed = {i.sop_instance_uid for s in manifest.series for i in s.instances}
    assert listed == {IMAGES[1], IMAGES[2], note().sop_uid}  # nor is the rejection note listed
    assert manifest.marks == ()

    site.hold(rejection(*IMAGES))
    assert await site.resync() is Outcome.DEPUBLISHED
    assert site.standing() == []


async def test_a_study_rejected_whole_is_not_published(site: Hospital) -> None:
    site.hold(rejection(*IMAGES))
    assert await site.world.run(letter_of()) is Outcome.STOPPED
    assert [i.code for i in await site.world.queue()] == ["study-rejected"]
    assert site.standing() == []


@pytest.mark.requirement("D7")
async def test_notes_that_cannot_be_had_are_asked_for_again(site: Hospital) -> None:
    world = site.world
    site.hold(note(IMAGES[0]))
    site.notes.error = Unavailable("Le PACS n'a pas pu envoyer les notes", code="pacs-retrieve-failed")
    report_id = await world.receive(letter_of())
    with pytest.raises(Unavailable):
        await publish_study(world.services, report_id, STUDY)
    assert site.standing() == []
    assert [i.code for i in await world.queue()] == ["waiting"]
    site.notes.error = None
    assert await publish_study(world.services, report_id, STUDY) is Outcome.PUBLISHED
    assert set(site.standing()[0].key_images) == {IMAGES[0]}
    assert await world.queue() == ()

    # What stands stays as it is: a resync never takes "cannot say" for "no notes".
    site.notes.error = Unavailable("Le PACS n'a pas pu envoyer les notes", code="pacs-retrieve-failed")
    with pytest.raises(Unavailable):
        await site.resync()
    assert set(site.standing()[0].key_images) == {IMAGES[0]}


async def test_notes_that_cannot_be_read_stop_the_publication(site: Hospital) -> None:
    site.hold(note(IMAGES[0]))
    site.notes.error = Refused("Une note d'objets clés est illisible", code="note-unreadable")
    assert await site.world.run(letter_of()) is Outcome.STOPPED
    assert [i.code for i in await site.world.queue()] == ["note-unreadable"]


async def test_a_note_of_another_patient_is_not_published_and_the_operator_knows(site: Hospital) -> None:
    site.hold(note(IMAGES[0]), note(IMAGES[1], n=2, patient="IPP202"))
    assert await site.world.run(letter_of()) is Outcome.PUBLISHED
    [manifest] = site.standing()
    assert set(manifest.key_images) == {IMAGES[0]}
    assert manifest.instance_count == 4
    assert [i.code for i in await site.world.queue()] == ["note-patient"]

"""Key-image notes from a PACS that speaks DICOM to a DMP that judges: the whole way of a KOS that carries them."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from publication_examples import AMBROISE, letter_of
from pydicom.dataset import Dataset
from test_publication_dmp import Scene, keys, on_stage  # noqa: F401 - fixtures

from drimbox.foundation.errors import Unavailable
from drimbox.manifest.manifest import Manifest
from drimbox.manifest.read import read_manifest
from drimbox.pacs import inbox as inboxes
from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.receiver import ReceiverSettings, receiving
from drimbox.pacs.note_source import PacsKeyNotes
from drimbox.pacs.query import PacsStudyFinder
from drimbox.pacs.retrieve import PacsSeriesSource
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.publication.ports import Site, SitePacs, Sites
from drimbox.publication.publish import Outcome, publish_study
from drimbox.publication.resync import resync_study
from drimbox.publication.triggers import Cause
from drimbox.sandbox.pacs import orthanc as debian
from drimbox.sandbox.pacs.embedded import EmbeddedConfig, Faults, embedded_pacs
from drimbox.sandbox.pacs.exams import EXAMS
from drimbox.sandbox.pacs.key_notes import FOR_SURGERY, key_note, note_uid, write_note
from drimbox.sandbox.pacs.peer import Destination, PacsPeer
from drimbox.sandbox.pacs.samples import write_study

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning:pynetdicom")

EXAM = EXAMS["H"][0]
SERIES = EXAM.series[0]
STUDY = EXAM.study_uid
OUR_AE = "DRIMBOX"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class Stage:
    """A scene whose PACS is asked over the wire."""

    scene: Scene

    def standing(self) -> Manifest:
        [octets] = self.scene.standing()
        return read_manifest(octets)

    async def resync(self) -> Outcome:
        return await resync_study(self.scene.world.services, STUDY, Cause.NOTE)


@asynccontextmanager
async def asking(scene: Scene, peer: PacsPeer, spool: Path, port: int) -> AsyncIterator[Stage]:
    pacs = Pacs(id="pacs", host=peer.host, port=peer.port, ae_title=peer.ae_title, answer_timeout=5.0)
    link = PacsLink(pacs)
    receiver = ReceiverSettings(
        destinations={OUR_AE: uids.AS_STORED}, allowed_callers=frozenset({pacs.ae_title}), port=port
    )
    with inboxes.opened(spool) as inbox, receiving(receiver, inbox):
        notes = PacsKeyNotes(PacsSeriesSource(link, inbox, OUR_AE, late_timeout=0.3))
        site = Site("ambroise", AMBROISE, (SitePacs("pacs", PacsStudyFinder(link), notes=notes),))
        scene.world.services = replace(scene.world.services, sites=Sites([(site, ["1750803447"])]))
        yield Stage(scene)
    link.close()


def store(peer: PacsPeer, note: Dataset, folder: Path) -> str:
    """Give Orthanc a note; its own name for it."""
    answer = debian.rest(peer, "POST", "/instances", write_note(note, folder).read_bytes())
    return answer.decode().partition('"ID" : "')[2].partition('"')[0]


@pytest.mark.requirement("DB.SO.18", "DB.SO.25", "DB.SO.26", "D8", "exam:H")
async def test_a_kos_with_notes_of_a_real_pacs_passes_the_judge(
    on_stage: Callable[..., object],  # noqa: F811
    tmp_path: Path,
) -> None:
    if not debian.installed():
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    port = free_port()
    known = [Destination(OUR_AE, "127.0.0.1", port)]
    config = debian.OrthancConfig(tmp_path / "orthanc", "PACS_N", free_port(), free_port(), known)
    files = write_study(EXAM, tmp_path / "files")
    first = key_note(EXAM, [(SERIES, 3), (SERIES, 5)], description="Lésion à revoir")
    async with on_stage() as scene:  # type: ignore[attr-defined]
        with debian.orthanc(config, files) as peer:
            async with asking(scene, peer, tmp_path / "spool", port) as stage:
                held = store(peer, first, tmp_path / "notes")
                assert await scene.world.run(letter_of("H")) is Outcome.PUBLISHED, scene.refusals()
                manifest = stage.standing()
                assert manifest.instance_count == SERIES.images + 1
                assert set(manifest.key_images) == {EXAM.instance_uid(SERIES, n) for n in (3, 5)}
                assert {(m.note_uid, m.text) for m in manifest.marks} == {(note_uid(EXAM), "Lésion à revoir")}

                store(peer, key_note(EXAM, [(SERIES, 3)], index=2, title=FOR_SURGERY), tmp_path / "notes")
                assert await stage.resync() is Outcome.PUBLISHED, scene.refusals()
                assert len(stage.standing().key_images[EXAM.instance_uid(SERIES, 3)]) == 2
                assert await stage.resync() is Outcome.NOTHING

                debian.rest(peer, "DELETE", f"/instances/{held}")
                assert await stage.resync() is Outcome.PUBLISHED, scene.refusals()
                [mark] = stage.standing().marks
                assert (mark.note_uid, mark.text) == (note_uid(EXAM, 2), "")
        assert [e.status.rpartition(":")[2] for e in scene.entries()] == ["Deprecated", "Deprecated", "Approved"]
        assert scene.refusals() == []


@pytest.mark.requirement("D7")
async def test_a_pacs_that_does_not_give_its_notes_is_asked_again(
    on_stage: Callable[..., object],  # noqa: F811
    tmp_path: Path,
) -> None:
    port, faults, held = free_port(), Faults(), tmp_path / "held"
    write_study(EXAM, held)
    write_note(key_note(EXAM, [(SERIES, 1)]), held)
    known = [Destination(OUR_AE, "127.0.0.1", port)]
    async with on_stage() as scene:  # type: ignore[attr-defined]
        with embedded_pacs(EmbeddedConfig(held, "PACS_N", known=known), faults) as peer:
            async with asking(scene, peer, tmp_path / "spool", port) as stage:
                report_id = await scene.world.receive(letter_of("H"))
                faults.move_status, faults.move_after = 0xA702, 0
                for _ in range(2):
                    with pytest.raises(Unavailable):
                        await publish_study(scene.world.services, report_id, STUDY)
                assert scene.entries() == []
                assert [i.code for i in await scene.world.queue()] == ["waiting"]
                faults.repair()
                assert await publish_study(scene.world.services, report_id, STUDY) is Outcome.PUBLISHED
                assert set(stage.standing().key_images) == {EXAM.instance_uid(SERIES, 1)}
                assert await scene.world.queue() == ()

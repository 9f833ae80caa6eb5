"""Key-object notes: what each says, whatever its maker; what they do to a study; how they come out of a PACS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from drimbox.foundation.errors import IdentityMismatch, Refused, Unavailable
from drimbox.pacs import inbox as inboxes
from drimbox.pacs import keynotes, note_source
from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.receiver import ReceiverSettings, receiving
from drimbox.pacs.keynotes import Concept, KeyNote, read_note, rejected_by, without, without_rejected
from drimbox.pacs.note_source import PacsKeyNotes
from drimbox.pacs.query import PacsStudyFinder
from drimbox.pacs.retrieve import PacsSeriesSource
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.pacs.study import Instance, Series, Study
from drimbox.sandbox.pacs import orthanc as debian
from drimbox.sandbox.pacs.embedded import EmbeddedConfig, Faults, embedded_pacs
from drimbox.sandbox.pacs.exams import EXAMS
from drimbox.sandbox.pacs.key_notes import FOR_SURGERY, key_note, note_uid, write_note
from drimbox.sandbox.pacs.peer import Destination, PacsPeer
from drimbox.sandbox.pacs.samples import write_study
from pacs.conftest import OUR_AE, free_port, pacs_of

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning:pynetdicom")

STUDY = EXAMS["S"][0]
SERIES = STUDY.series[0]
FIRST, SECOND = STUDY.instance_uid(SERIES, 1), STUDY.instance_uid(SERIES, 2)


def octets(dataset: Dataset, syntax: str = "") -> bytes:
    """The note as a Part 10 file, in another transfer syntax if one is named."""
    buffer = BytesIO()
    dataset.file_meta.TransferSyntaxUID = syntax or dataset.file_meta.TransferSyntaxUID
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    pydicom.dcmwrite(buffer, dataset, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return buffer.getvalue()


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "syntax", ["", ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian], ids=str
)
def test_a_note_is_read_in_every_syntax(syntax: str) -> None:
    made = key_note(STUDY, [(SERIES, 1), (SERIES, 2)], title=FOR_SURGERY, description="Lésion à revoir")
    note = read_note(octets(made, syntax))
    assert (note.sop_uid, note.series_uid) == (note_uid(STUDY), str(made.SeriesInstanceUID))
    assert (note.study_uid, note.patient_id) == (STUDY.study_uid, "IPP101")
    assert note.title == Concept("113003", "DCM", "For Surgery")
    assert note.description == "Lésion à revoir"
    assert note.selected == {FIRST, SECOND}
    assert [(r.study_uid, r.series_uid, r.sop_instance_uid) for r in note.references] == [
        (STUDY.study_uid, STUDY.series_uid(SERIES), uid) for uid in (FIRST, SECOND)
    ]
    assert (note.flags, note.rejects) == (True, False)
    assert "Lésion" not in repr(note)


def test_what_makers_leave_out() -> None:
    made = key_note(STUDY, [(SERIES, 1)], description="x")
    made.ContentSequence = made.ContentSequence[:1]  # no reference in the tree: the evidence tells
    assert read_note(octets(made)).selected == {FIRST}
    made = key_note(STUDY, [(SERIES, 1)])
    del made.CurrentRequestedProcedureEvidenceSequence
    del made.ConceptNameCodeSequence
    bare = read_note(octets(made))
    assert (bare.selected, bare.references, bare.title.code, bare.rejects) == ({FIRST}, (), "", False)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda ds: setattr(ds, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"), "note-class"),
        (lambda ds: delattr(ds, "SeriesInstanceUID"), "note-unreadable"),
        (lambda ds: setattr(ds.ContentSequence[0].ReferencedSOPSequence[0], "ReferencedSOPInstanceUID", ""),
         "note-unreadable"),
    ],
)  # fmt: skip
def test_what_is_no_note_is_refused(change: Callable[[Dataset], None], code: str) -> None:
    made = key_note(STUDY, [(SERIES, 1)])
    change(made)
    with pytest.raises(Refused) as refused:
        read_note(octets(made))
    assert refused.value.code == code


def test_sizes_and_counts_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    made = octets(key_note(STUDY, [(SERIES, n) for n in range(1, 9)]))
    monkeypatch.setattr(keynotes, "MAX_REFERENCES", 7)
    with pytest.raises(Refused, match="volumineuse"):
        read_note(made)
    monkeypatch.setattr(keynotes, "MAX_REFERENCES", 8)
    assert len(read_note(made).selected) == 8
    monkeypatch.setattr(keynotes, "MAX_BYTES", len(made) - 1)
    with pytest.raises(Refused) as refused:
        read_note(made)
    assert refused.value.code == "note-size"


_WHOLE = octets(key_note(STUDY, [(SERIES, 1), (SERIES, 2)], description="PAT-TROIS"))


@given(
    st.lists(st.tuples(st.integers(0, len(_WHOLE) - 1), st.integers(0, 255)), max_size=6),
    st.integers(0, len(_WHOLE)),
    st.binary(max_size=60),
)
@settings(max_examples=300, deadline=None)
def test_a_damaged_note_is_read_or_refused(flips: list[tuple[int, int]], cut: int, tail: bytes) -> None:
    damaged = bytearray(_WHOLE)
    for position, value in flips:
        damaged[position] = value
    for data in (bytes(damaged), bytes(damaged[:cut]), bytes(damaged[:cut]) + tail):
        try:
            read_note(data)
        except Refused as error:
            assert "PAT-TROIS" not in error.reason  # noqa: PT017


# --- what notes do to a study -----------------------------------------------------------------------------------------


def study(*series: tuple[str, tuple[str, ...]]) -> Study:
    held = tuple(
        Series(uid, "CT", n, "", "", tuple(Instance("1.2.840.10008.5.1.4.1.1.2", i) for i in instances))
        for n, (uid, instances) in enumerate(series)
    )
    return Study("1.1", "IPP101", "", "", "", "", "ACN1", "", "", "", "", "", "", held)


def rejection(code: str, *rejected: str, uid: str = "9.9", scheme: str = "DCM") -> KeyNote:
    return KeyNote(uid, "9", "1.1", "IPP101", Concept(code, scheme), "", (), frozenset(rejected))


@pytest.mark.requirement("DB.SO.25", "DB.SO.26")
@pytest.mark.parametrize("code", ["113001", "113037", "113038", "113039"])
def test_rejection_notes_of_the_pacs_take_out_what_they_reject_and_themselves(code: str) -> None:
    held = study(("2.1", ("3.1", "3.2")), ("2.2", ("3.3",)), ("9", ("9.9", "9.8")))
    notes = (rejection(code, "3.1", "3.3", "8.8"), rejection("113000", "3.2", uid="9.8"))
    assert rejected_by(notes) == {"3.1", "3.3", "8.8"}
    left = without_rejected(held, notes)
    assert [(s.series_uid, [i.sop_instance_uid for i in s.instances]) for s in left.series] == [
        ("2.1", ["3.2"]),
        ("9", ["9.8"]),
    ]
    assert replace(left, series=held.series) == held


def test_a_private_code_of_the_same_digits_rejects_nothing() -> None:
    assert rejected_by([rejection("113001", "3.1", scheme="99LOCAL")]) == frozenset()
    assert rejected_by([rejection("113001", "3.1", scheme="")]) == {"3.1"}


def test_evidence_rejects_as_well_as_the_content_tree() -> None:
    made = key_note(STUDY, [(SERIES, 1), (SERIES, 2)], title=("113037", "Rejected for Patient Safety Reasons"))
    made.ContentSequence = made.ContentSequence[:1]
    assert rejected_by([read_note(octets(made))]) == {FIRST, SECOND}


@given(st.sets(st.sampled_from(["3.1", "3.2", "3.3", "3.4"])))
def test_nothing_else_goes(gone: set[str]) -> None:
    held = study(("2.1", ("3.1", "3.2")), ("2.2", ("3.3",)))
    left = [i.sop_instance_uid for s in without(held, frozenset(gone)).series for i in s.instances]
    assert left == [uid for uid in ("3.1", "3.2", "3.3") if uid not in gone]
    assert all(s.instances for s in without(held, frozenset(gone)).series)


# --- out of a PACS ----------------------------------------------------------------------------------------------------


@dataclass
class Site:
    """A PACS that holds notes, and how we ask it."""

    finder: PacsStudyFinder
    notes: PacsKeyNotes
    spool: Path

    async def read(self) -> tuple[KeyNote, ...]:
        found = await self.finder.find(STUDY.study_uid)
        assert found is not None
        return await self.notes.of(found)


@asynccontextmanager
async def site(pacs: Pacs, spool: Path, port: int, **settings: float) -> AsyncIterator[Site]:
    link = PacsLink(pacs)
    receiver = ReceiverSettings(
        destinations={OUR_AE: uids.AS_STORED}, allowed_callers=frozenset({pacs.ae_title}), port=port
    )
    with inboxes.opened(spool) as inbox, receiving(receiver, inbox):
        source = PacsSeriesSource(link, inbox, OUR_AE, late_timeout=0.3)
        yield Site(PacsStudyFinder(link), PacsKeyNotes(source, **settings), spool)
    link.close()
    assert left_in(spool) == []


def left_in(spool: Path) -> list[str]:
    return [path.name for path in spool.iterdir() if path.name != ".lock"]


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with notes in two series, as files."""
    folder = tmp_path_factory.mktemp("noted")
    write_study(STUDY, folder)
    for made in (
        key_note(STUDY, [(SERIES, 1)], description="Première"),
        key_note(STUDY, [(SERIES, 2)], index=2, title=FOR_SURGERY),
        key_note(STUDY, [(SERIES, 3)], series_key=298, title=("113001", "Rejected for Quality Reasons")),
    ):
        write_note(made, folder)
    return folder


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.dcm"))


@pytest.fixture(scope="module")
def playing(held: Path) -> Iterator[tuple[PacsPeer, Faults, int]]:
    faults, port = Faults(), free_port()
    known = [Destination(OUR_AE, "127.0.0.1", port)]
    with embedded_pacs(EmbeddedConfig(held, "EMBEDDED", known=known), faults) as peer:
        yield peer, faults, port


@pytest.fixture
def faults(playing: tuple[PacsPeer, Faults, int]) -> Iterator[Faults]:
    yield playing[1]
    playing[1].repair()


@pytest.fixture
async def embedded(playing: tuple[PacsPeer, Faults, int], tmp_path: Path) -> AsyncIterator[Site]:
    async with site(pacs_of(playing[0], answer_timeout=1.0), tmp_path / "spool", playing[2]) as opened:
        yield opened


def check_all(notes: tuple[KeyNote, ...]) -> None:
    titles = {n.sop_uid: (n.title.code, n.description, n.selected) for n in notes}
    assert titles == {
        note_uid(STUDY): ("113000", "Première", {FIRST}),
        note_uid(STUDY, 2): ("113003", "", {SECOND}),
        note_uid(STUDY, 1, 298): ("113001", "", {STUDY.instance_uid(SERIES, 3)}),
    }


@pytest.mark.requirement("DB.SO.18", "D8")
async def test_notes_come_out_of_a_real_pacs(held: Path, our_port: int, tmp_path: Path) -> None:
    if not debian.installed():
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    known = [Destination(name, "127.0.0.1", our_port) for name in (OUR_AE, "FINDSCU", "MOVESCU")]
    config = debian.OrthancConfig(tmp_path / "orthanc", "PACS_N", free_port(), free_port(), known)
    with debian.orthanc(config, files_of(held)) as peer:
        async with site(pacs_of(peer), tmp_path / "spool", our_port) as real:
            check_all(await real.read())


async def test_notes_come_out_of_the_stand_in(embedded: Site, faults: Faults) -> None:
    check_all(await embedded.read())


@pytest.mark.requirement("D7")
@pytest.mark.parametrize(
    "wrong",
    [
        {"move_status": 0xA702, "move_after": 0},
        {"move_status": 0xC000, "move_after": 1},
        {"move_status": 0xA801, "move_after": 0},
        {"move_aborts": True, "move_after": 0},
        {"move_stalls": True, "move_after": 0},
        {"move_changes": lambda ds: None},  # says that all went well, and sent nothing
    ],
    ids=str,
)
async def test_notes_that_do_not_come_are_never_no_notes(
    embedded: Site, faults: Faults, wrong: dict[str, object]
) -> None:
    for name, value in wrong.items():
        setattr(faults, name, value)
    with pytest.raises(Unavailable):
        await embedded.read()
    faults.repair()
    check_all(await embedded.read())


async def test_a_slow_pacs_is_given_up(playing: tuple[PacsPeer, Faults, int], faults: Faults, tmp_path: Path) -> None:
    faults.move_stalls, faults.move_after = True, 0
    async with site(pacs_of(playing[0]), tmp_path / "spool", playing[2], timeout=0.3) as slow:
        with pytest.raises(Unavailable) as unavailable:
            await slow.read()
        assert unavailable.value.code == "pacs-too-slow"
        faults.released.set()


def foreign(ds: Dataset) -> Dataset:
    if ds.InstanceNumber == 2:
        ds.PatientID = "IPP202"
    return ds


def unreadable(ds: Dataset) -> Dataset:
    ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[
        0
    ].ReferencedSOPInstanceUID = ""
    return ds


async def test_what_no_later_try_would_change_is_refused(
    embedded: Site, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.move_changes = foreign
    with pytest.raises(IdentityMismatch):
        await embedded.read()
    faults.move_changes = unreadable
    with pytest.raises(Refused) as refused:
        await embedded.read()
    assert refused.value.code == "note-unreadable"
    faults.repair()
    monkeypatch.setattr(note_source, "MAX_NOTES", 2)
    with pytest.raises(Refused) as refused:
        await embedded.read()
    assert refused.value.code == "note-count"
    monkeypatch.setattr(note_source, "MAX_NOTES", 3)
    monkeypatch.setattr(note_source, "MAX_TOTAL_BYTES", 2000)
    with pytest.raises(Refused) as refused:
        await embedded.read()
    assert refused.value.code == "note-size"


async def test_a_study_without_notes_costs_nothing() -> None:
    class Never:
        def retrieve(self, *asked: object) -> object:
            raise AssertionError("a study without notes was asked for")

    assert await PacsKeyNotes(Never()).of(study(("2.1", ("3.1",)))) == ()  # type: ignore[arg-type]

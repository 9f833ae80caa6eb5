"""What a note asks for: from any references, and from any bytes."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from changes.iocm_wire import encoded
from drimbox.changes.decide import Change, decide, read_change
from drimbox.foundation.errors import Refused
from drimbox.pacs.dimse import uids
from drimbox.pacs.dimse.part10 import file_head
from drimbox.pacs.keynotes import KEY_OBJECT_SELECTION, Concept, KeyNote, Reference
from drimbox.sandbox.pacs.exams import EXAMS
from drimbox.sandbox.pacs.rejections import rejection_of_all

[STUDY] = EXAMS["U"]
NOTE = rejection_of_all(STUDY)
UID = str(NOTE.SOPInstanceUID)
FILE = file_head(KEY_OBJECT_SELECTION, UID, uids.EXPLICIT_LE, "PACS_A") + encoded(NOTE)

_REFERENCES = st.lists(
    st.builds(Reference, st.sampled_from(["1.2.1", "1.2.2", "1.2.3"]), st.just("1.3"), st.sampled_from("123456")),
    max_size=8,
)
_TITLES = st.sampled_from([("113001", "DCM"), ("113039", "DCM"), ("113037", ""), ("113000", "DCM"), ("113001", "99X")])


def note(title: tuple[str, str], references: list[Reference], selected: set[str]) -> KeyNote:
    return KeyNote("1.9", "1.8", "1.2.1", "IPP", Concept(*title), "", tuple(references), frozenset(selected))


@given(_TITLES, _REFERENCES, st.sets(st.sampled_from("123456789")))
def test_nothing_named_is_lost_and_nothing_is_invented(
    title: tuple[str, str], references: list[Reference], selected: set[str]
) -> None:
    given_note = note(title, references, selected)
    named = {r.sop_instance_uid for r in references} | selected
    if given_note.rejects and not named:
        with pytest.raises(Refused):
            decide(given_note)
        return
    change = decide(given_note)
    assert set(change.studies) == {"1.2.1"} | {r.study_uid for r in references}
    pairs = {(study, uid) for study, instances in change.rejected.items() for uid in instances}
    assert {uid for _, uid in pairs} == (named if given_note.rejects else set())
    if given_note.rejects:
        assert {(r.study_uid, r.sop_instance_uid) for r in references} <= pairs
    assert set(change.rejected) <= set(change.studies)


@given(_TITLES, _REFERENCES, st.randoms())
def test_the_order_of_references_says_nothing(
    title: tuple[str, str], references: list[Reference], random: object
) -> None:
    selected = {r.sop_instance_uid for r in references} or {"1"}
    shuffled = list(references)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert decide(note(title, references, selected)) == decide(note(title, shuffled, selected))


def test_the_note_of_the_sandbox() -> None:
    change = read_change(FILE, UID)
    everything = sorted(uid for series in STUDY.series for uid in STUDY.instance_uids(series))
    assert change == Change(UID, STUDY.study_uid, "113001", (STUDY.study_uid,), {STUDY.study_uid: tuple(everything)})


@settings(max_examples=200)
@example(FILE.index(b"\x40\x00\x43\xa0"))
@given(st.integers(0, len(FILE) - 1))
def test_a_cut_note_is_refused(end: int) -> None:
    """Whole or refused: never part of what it rejects."""
    taken = None
    with suppress(Refused):
        taken = read_change(FILE[:end], UID)
    assert taken is None or taken == read_change(FILE, UID)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(FILE) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_notes_are_read_or_refused(damage: list[tuple[int, int]]) -> None:
    data = bytearray(FILE)
    for at, value in damage:
        data[at] = value
    with suppress(Refused):
        change = read_change(bytes(data), UID)
        assert change.note_uid == UID
        assert all(uids.is_plausible(uid) for uid in change.studies)


@given(st.binary(max_size=400))
def test_any_bytes_are_refused(data: bytes) -> None:
    for content in (data, FILE[:400] + data):
        with pytest.raises(Refused):
            read_change(content, UID)

"""What lies on our disk of an import, and the line in which it waits to be stored."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from import_world import LOCAL_ID, make_exam

from drimbox.importing import waiting_line
from drimbox.importing.coercion import Coercion, Renaming, coerced
from drimbox.importing.staging import Staging, written
from drimbox.importing.waiting_line import WaitingLine
from drimbox.pacs.dimse.storing import Outgoing

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.2"


def sent(image: Outgoing) -> bytes:
    """The file that an instance is sent as."""
    return image.head + image.path.read_bytes()[image.rest :]


def test_an_image_is_sent_with_the_local_identity_and_lies_as_it_came(tmp_path: Path) -> None:
    exam = make_exam("B", tmp_path)
    uid, source = next(iter(exam.files.items()))
    content = source.read_bytes()
    coercion = Coercion(LOCAL_ID, renaming=Renaming(exam.study_uid))
    staging = Staging(tmp_path / "imports" / "1")
    staging.open()
    image = staging.keep(source, SOP_CLASS, uid, coercion)
    assert not source.exists()
    assert staging.path_of(uid).read_bytes() == content
    change = coerced(content, coercion)
    assert sent(image) == change.head + content[change.rest :]
    assert image.size + image.start == len(sent(image))
    assert image.sop_instance_uid == coercion.uid(uid) != uid
    # The same after a restart, and again once a file was made of it: nothing is renamed twice.
    assert staging.open() == {uid}
    assert staging.outgoing(SOP_CLASS, uid, coercion) == image
    made = staging.make(uid, image)
    assert made.read_bytes() == sent(image)
    assert staging.open() == {uid}
    again = staging.outgoing(SOP_CLASS, uid, coercion)
    assert (again.path, again.sop_instance_uid) == (made, image.sop_instance_uid)
    assert pydicom.dcmread(again.path).SOPInstanceUID == image.sop_instance_uid
    staging.drop([uid])
    assert staging.open() == frozenset()


def test_a_file_of_an_image_that_does_not_change_is_the_same_file(tmp_path: Path) -> None:
    source = tmp_path / "a.dcm"
    source.write_bytes(b"as it came")
    image = Outgoing(SOP_CLASS, "1.2.3", "1.2.840.10008.1.2.1", source, 0, 10)
    written(image, tmp_path / "b.made")
    assert (tmp_path / "b.made").samefile(source)
    written(replace(image, head=b"now", rest=5, size=8), tmp_path / "c.made")
    assert (tmp_path / "c.made").read_bytes() == b"now came"


def image_of(uid: str, head: bytes = b"") -> Outgoing:
    return Outgoing(SOP_CLASS, uid, "1.2.840.10008.1.2.1", Path(uid), 0, 10, head)


async def test_each_lane_takes_a_share_and_all_hear_of_the_end() -> None:
    line = WaitingLine(image_of, lambda uid: None, lanes=2)
    for number in range(300):
        line.put(str(number), image_of(str(number)))
    line.void({"7"})
    line.end()
    batches: list[list[Outgoing]] = []

    async def lane() -> None:
        while batch := await line.batch():
            batches.append(batch)

    await asyncio.gather(lane(), lane())
    uids = [one.sop_instance_uid for batch in batches for one in batch]
    assert sorted(uids, key=int) == [str(n) for n in range(300) if n != 7]
    # What is left at the end is not all in one lane while the other has nothing to do.
    assert len(batches) >= 4


async def test_beginnings_that_wait_are_bounded_and_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_line, "_HEADS_BYTES", 25)
    again: list[str] = []
    lost: list[str] = []

    def make(uid: str) -> Outgoing:
        again.append(uid)
        if uid == "3":
            raise OSError(errno.EIO, "unreadable")
        return image_of(uid, b"0123456789")

    line = WaitingLine(make, lost.append)
    for number in range(5):
        line.put(str(number), image_of(str(number), b"0123456789"))
    line.end()
    batch = await line.batch()
    assert [one.sop_instance_uid for one in batch] == ["0", "1", "2", "4"]
    assert all(one.head for one in batch)
    assert (again, lost) == (["2", "3", "4"], ["3"])
    assert await line.batch() == []

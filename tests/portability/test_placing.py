"""Which version is current, when several archives, or the box itself, have a say."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest
from portability_examples import BCOM, STUDY, TARGET, Box, lot_of_two, tree

from drimbox.store.database import Pool


@pytest.fixture
def other(box: Box, other_pool: Pool) -> Box:
    return Box(other_pool, box.maker)


def as_of_others(archive: Path) -> None:
    """Take out what drimbox alone writes: our notes, and the availability status."""
    for file in archive.rglob("METADATA.XML"):
        text = file.read_text("utf-8").replace("urn:drimbox:xdm:", "urn:other:")
        for status in ("Deprecated", "Approved"):
            text = text.replace(f' status="urn:oasis:names:tc:ebxml-regrep:StatusType:{status}"', "")
        file.write_text(text, "utf-8")


@pytest.mark.requirement("DB.SO.30")
@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))))
async def test_of_several_versions_the_last_is_current_in_whatever_order_they_come(
    box: Box, other: Box, tmp_path: Path, order: tuple[int, ...]
) -> None:
    for images in (3, 4, 5):
        await box.publish(105, images=images, documents=(f"1.2.9.{images}",))
    await box.export(tmp_path / "a")
    as_of_others(tmp_path / "a")
    for number in order:
        done = await other.import_(tmp_path / f"a/KA202607/IHE_XDM/SS00000{number}", pacs="pacs")
        assert done.imported == 1, done.words()
    versions = {v.kos_uid: v for v in await other.archive.versions("ambroise", STUDY)}
    mine = await box.archive.versions("ambroise", STUDY)
    assert [versions[v.kos_uid].state for v in mine] == ["replaced", "replaced", "current"]
    assert await other.standing() == ("1.2.9.5",)
    assert await other.queue() == []
    assert all((v.ended_at is None) == (v.state == "current") for v in versions.values())
    if order == (1, 2, 3):
        # The association of the submission set tells what replaced what.
        assert [versions[v.kos_uid].replaces for v in mine] == [
            None,
            versions[mine[0].kos_uid].id,
            versions[mine[1].kos_uid].id,
        ]


@pytest.mark.requirement("DB.SO.30")
async def test_a_study_that_the_box_published_itself_is_told_to_the_operator(
    box: Box, other: Box, tmp_path: Path
) -> None:
    """The new box did not wait for the archive of the old one: the DMP has two KOS of one study."""
    old = await box.publish(105, documents=("1.2.9.1",))
    await box.export(tmp_path / "a")
    other.clock.advance(86400)
    own = await other.publish(105, documents=("1.2.9.2",))
    done = await other.import_(tmp_path / "a")
    assert (done.imported, dict(done.warnings)) == (1, {"other-current": 1})
    current = await other.archive.current(STUDY)
    assert current is not None
    assert current.kos_uid == own
    kept = await other.archive.by_kos_uid(old)
    assert kept is not None
    assert kept.state == "replaced"
    # What the box's own messages said of the study stands.
    assert await other.standing() == ("1.2.9.2",)
    [incident] = await other.queue()
    assert (incident.code, incident.study_uid, incident.severity) == ("archive-other-current", STUDY, "warning")
    assert (await other.import_(tmp_path / "a")).unchanged == 1
    assert len((await other.queue())[0].history) == 1


@pytest.mark.requirement("DB.SO.24", "DB.SO.30")
async def test_a_box_restored_from_an_old_backup_catches_up_from_an_archive(
    box: Box, other: Box, tmp_path: Path
) -> None:
    first = await box.publish(105)
    await box.export(tmp_path / "monday")
    await other.import_(tmp_path / "monday")
    # As if the other were the box itself on Monday: a message of its own is behind the KOS.
    async with other.pool.connection() as connection:
        await connection.execute(
            "WITH m AS (INSERT INTO message (sender, control_id, digest, raw, answer, accepted) "
            "VALUES ('RIS', 'x', '', '', '', true) RETURNING id), r AS (INSERT INTO report (message_id, structure, "
            "document_id, operation) SELECT id, 'ambroise', 'd', 'new' FROM m RETURNING id) "
            "UPDATE publication SET report_id = r.id FROM r"
        )
    await box.publish(105, images=9)
    await box.export(tmp_path / "friday")
    done = await other.import_(tmp_path / "friday")
    assert (done.imported, done.updated, done.warnings) == (1, 1, {})
    assert await other.states() == ["replaced", "current"]
    assert await other.rows() == await box.rows()
    assert first != (await other.rows())[-1]["kos_uid"]
    assert await other.queue() == []


@pytest.mark.requirement("DB.SO.30")
async def test_another_kos_of_the_same_identifier_is_refused(box: Box, other: Box, tmp_path: Path) -> None:
    await box.publish(105)
    await box.export(tmp_path / "a")
    await other.import_(tmp_path / "a")
    async with other.pool.connection() as connection:
        await connection.execute("UPDATE publication SET kos = kos || '\\x00'::bytea")
    before = await other.rows()
    done = await other.import_(tmp_path / "a")
    assert [d.code for d in done.details] == ["archive-conflict"]
    assert await other.rows() == before
    [incident] = await other.queue()
    assert (incident.code, incident.study_uid, incident.structure) == ("archive-conflict", STUDY, "ambroise")


@pytest.mark.requirement("DB.SO.30", "D26")
async def test_a_set_of_several_kos_comes_in_whole_and_leaves_as_one_set(box: Box, other: Box, tmp_path: Path) -> None:
    await lot_of_two(box, tmp_path / "a")
    done = await other.import_(tmp_path / "a", pacs="vna")
    assert (done.sets, done.imported, done.refused) == (1, 2, 0), done.words()
    await other.export(tmp_path / "b")
    names = {p.rpartition("/")[2] for p in tree(tmp_path / "b")}
    assert names == {"INDEX.HTM", "README.TXT", "METADATA.XML", "KOS_1_1.DCM", "KOS_1_2.DCM", "SIGN_1.XML", "CR.TXT"}
    again = Box(box.pool, box.maker)
    done = await again.import_(tmp_path / "b")
    assert done.imported == 2
    assert await again.rows() == await other.rows()

    # One of the two is not what its metadata say: none of them comes in.
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    kos = tmp_path / "c/KA202607/IHE_XDM/SS000001/KOS_1_2.DCM"
    kos.write_bytes(kos.read_bytes()[:-1])
    async with other.pool.connection() as connection:
        await connection.execute("DELETE FROM publication")
    assert (await other.import_(tmp_path / "c")).refused == 1
    assert await other.rows() == []


@pytest.mark.requirement("DB.SO.30")
async def test_sets_of_several_structures_go_to_their_own(box: Box, samples: Path, tmp_path: Path) -> None:
    await box.publish(105)
    await box.export(tmp_path / "a")
    shutil.copytree(samples / "xdm", tmp_path / "a", dirs_exist_ok=True)
    async with box.pool.connection() as connection:
        await connection.execute("DELETE FROM publication")
    done = await box.import_(tmp_path / "a", targets=[TARGET, BCOM])
    assert (done.imported, done.refused) == (2, 0), done.words()
    assert sorted((r["structure"], r["pacs"]) for r in await box.rows()) == [("ambroise", "vna"), ("bcom", "pacs")]

"""The archive of one box becomes that of another, and nothing of it is lost."""

from __future__ import annotations

import datetime as dt
import os
import zipfile
from pathlib import Path

import pytest
from lxml import etree
from portability_examples import STUDY, Box, tree

from drimbox.portability.export import Choice
from drimbox.reports.report import Visibility
from drimbox.store.database import Pool


@pytest.fixture
def other(box: Box, other_pool: Pool) -> Box:
    return Box(other_pool, box.maker)


async def lived(box: Box) -> None:
    """A box after some years: a replaced KOS, a depublished one, one that came back, several reports on one study."""
    await box.publish(105, documents=("1.2.250.1.213.1.1.6^A7102400008_6",))
    await box.publish(105, documents=("1.2.250.1.213.1.1.6^A7102400008_6", "1.2.3.44"), images=5)
    await box.publish(106, visibility=Visibility(hidden_from_patient=True, secret_connection=True))
    await box.depublish(106)
    box.clock.advance(40 * 86400)
    await box.publish(106)
    await box.publish(107, visibility=Visibility(masked_to_professionals=True, hidden_from_representatives=True))
    await box.publish(108)
    await box.depublish(108)


@pytest.mark.requirement("DB.SO.29", "DB.SO.30", "DB.SO.22")
@pytest.mark.parametrize("name", ["archive", "archive.zip"])
async def test_an_exported_archive_imports_into_an_empty_box_and_equals(
    box: Box, other: Box, tmp_path: Path, name: str
) -> None:
    await lived(box)
    told: list[tuple[int, int]] = []
    report = await box.export(tmp_path / name, progress=lambda *p: told.append(p))
    assert (report.sets, report.versions, report.volumes) == (6, 6, 2)
    assert (report.pending, report.abandoned, report.changed, report.failed) == (0, 0, 0, ())
    assert told[-1] == (6, 6)
    assert os.listdir(tmp_path) == [name]

    done = await other.import_(tmp_path / name)
    assert (done.sets, done.imported, done.refused) == (6, 6, 0)
    assert not done.warnings
    assert await other.rows() == await box.rows()
    assert await other.queue() == []
    for number in (105, 106, 107, 108):
        assert await other.standing(number) == await box.standing(number)
        assert await other.states(number) == await box.states(number)

    again = await other.import_(tmp_path / name)
    assert (again.imported, again.updated, again.unchanged, again.refused) == (0, 0, 6, 0)
    assert await other.rows() == await box.rows()

    # And what came in leaves again as it came.
    await other.export(tmp_path / "again")
    first = tmp_path / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(first) as unpacked:
            unpacked.extractall(tmp_path / "first")
        first = tmp_path / "first"
    assert tree(tmp_path / "again") == tree(first)


@pytest.mark.requirement("DB.SO.29")
async def test_layout_and_files_are_those_of_the_official_sample(box: Box, tmp_path: Path, samples: Path) -> None:
    await lived(box)
    await box.export(tmp_path / "a")
    official = {p.replace("202401", "202607") for p in tree(samples / "xdm")}
    files = tree(tmp_path / "a")
    assert official <= set(files)
    assert files["KA202607/IHE_XDM/SS000001/CR.TXT"] == (
        b"1.2.250.1.213.1.1.6;A7102400008_6;279035121518989;1.2.250.1.213.1.4.10;IPP101;1.2.250.1.213.4.5.2.4"
    )
    assert files["KA202607/IHE_XDM/SS000002/CR.TXT"].startswith(b"1.2.3.44;;279035121518989;")
    assert files["KA202607/IHE_XDM/SS000002/CR_2.TXT"].startswith(b"1.2.250.1.213.1.1.6;A7102400008_6;")
    assert "Lots de soumission : 3" in files["KA202607/README.TXT"].decode()
    assert etree.fromstring(files["KA202607/INDEX.HTM"]).tag.endswith("html")
    for path in (tmp_path / "a").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.requirement("DB.SO.29")
async def test_metadata_are_valid_and_tell_what_became_of_each_version(box: Box, tmp_path: Path, shared: Path) -> None:
    await lived(box)
    await box.export(tmp_path / "a")
    schema = etree.XMLSchema(file=str(shared / "schemas" / "xds" / "ebRS30" / "lcm.xsd"))
    rim = {"rim": "urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0"}
    statuses = []
    current = await box.archive.current(STUDY)
    assert current is not None
    for file in sorted((tmp_path / "a").rglob("METADATA.XML")):
        document = etree.parse(file)
        schema.assertValid(document)
        assert document.getroot().tag == "{urn:oasis:names:tc:ebxml-regrep:xsd:lcm:3.0}SubmitObjectsRequest"
        [kos] = document.xpath("//rim:ExtrinsicObject[@mimeType='application/dicom']", namespaces=rim)
        statuses.append(kos.get("status").rpartition(":")[2])
        [uri] = kos.xpath("rim:Slot[@name='URI']//rim:Value/text()", namespaces=rim)
        assert uri == f"{file.parent.name}/KOS_1_1.DCM"
        [sign] = document.xpath("//rim:ExtrinsicObject[@mimeType='text/xml']", namespaces=rim)
        assert sign.xpath("rim:Slot[@name='URI']//rim:Value/text()", namespaces=rim) == [
            f"{file.parent.name}/SIGN_1.XML"
        ]
    assert statuses == ["Deprecated", "Approved", "Deleted", "Approved", "Approved", "Deleted"]
    [value] = etree.parse(tmp_path / "a/KA202607/IHE_XDM/SS000002/METADATA.XML").xpath(
        "//rim:ExternalIdentifier[rim:Name/rim:LocalizedString/@value='XDSDocumentEntry.EntryUUID']/@value",
        namespaces=rim,
    )
    assert f"urn:uuid:{value}" == current.entry_uuid


@pytest.mark.requirement("DB.SO.29")
async def test_what_never_stood_in_the_dmp_does_not_leave_but_is_counted(box: Box, tmp_path: Path) -> None:
    await box.publish(105)
    await box.publish(106)
    async with box.pool.connection() as connection:
        await connection.execute("UPDATE publication SET state = 'prepared' WHERE study_uid = %s", (STUDY,))
    await box.publish(107)
    async with box.pool.connection() as connection:
        await connection.execute("UPDATE publication SET state = 'abandoned' WHERE study_uid LIKE '%%107'")
    report = await box.export(tmp_path / "a")
    assert (report.sets, report.pending, report.abandoned) == (1, 1, 1)
    assert "en cours de publication" in "\n".join(report.words())


@pytest.mark.requirement("DB.SO.29")
async def test_a_part_of_the_archive_leaves_by_structure_and_by_time_of_change(
    box: Box, other: Box, tmp_path: Path
) -> None:
    await box.publish(105)
    await box.publish(106)
    box.clock.advance(86400)
    since = box.clock.now()
    await box.depublish(105)
    await box.publish(107)
    until = box.clock.now() + dt.timedelta(hours=2)

    assert (await box.export(tmp_path / "none", choice=Choice(structure="other"))).sets == 0
    assert (await box.export(tmp_path / "all")).sets == 3
    assert (await box.export(tmp_path / "late", choice=Choice(since=since, until=until))).sets == 2
    assert (await box.export(tmp_path / "early", choice=Choice(until=since))).sets == 1

    # The new box took everything some days ago: the rest brings it up to date.
    await other.import_(tmp_path / "early")
    assert await other.states(106) == ["current"]
    await other.import_(tmp_path / "late")
    assert await other.rows() == await box.rows()


@pytest.mark.requirement("DB.SO.30")
async def test_a_later_export_moves_states_on_and_an_older_one_never_back(box: Box, other: Box, tmp_path: Path) -> None:
    await box.publish(105)
    await box.publish(106)
    await box.export(tmp_path / "monday.zip")
    await box.depublish(105)
    await box.publish(106, images=4)
    await box.export(tmp_path / "friday.zip")

    await other.import_(tmp_path / "monday.zip")
    assert await other.standing(105) != ()
    done = await other.import_(tmp_path / "friday.zip")
    assert (done.imported, done.updated, done.unchanged) == (1, 2, 0)
    assert await other.rows() == await box.rows()
    assert await other.standing(105) == ()
    await other.import_(tmp_path / "monday.zip")
    assert await other.rows() == await box.rows()


@pytest.mark.requirement("DB.SO.29")
async def test_a_month_with_many_sets_goes_on_in_another_volume(box: Box, other: Box, tmp_path: Path) -> None:
    for number in (105, 106, 107, 108, 109):
        await box.publish(number)
    report = await box.export(tmp_path / "a", volume_size=2)
    assert report.volumes == 3
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["KA202607", "KA202607_2", "KA202607_3"]
    assert sorted(p.name for p in (tmp_path / "a/KA202607_2/IHE_XDM").iterdir()) == ["SS000001", "SS000002"]
    await other.import_(tmp_path / "a")
    assert await other.rows() == await box.rows()


async def test_an_archive_is_never_written_over_another(box: Box, tmp_path: Path) -> None:
    from drimbox.foundation.errors import Refused

    await box.publish(105)
    for name in ("a", "a.zip"):
        await box.export(tmp_path / name)
        with pytest.raises(Refused) as refused:
            await box.export(tmp_path / name)
        assert refused.value.code == "archive-exists"

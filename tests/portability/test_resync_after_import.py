"""A box that took over an archive keeps its KOS true when the PACS changes, without any message of the RIS."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from portability_examples import BCOM, STUDY, Box
from publication_examples import BASE, CT, FakePacs, Held, World, letter_of, study_of, world_on

from drimbox.foundation.errors import Refused
from drimbox.identity.traits import Sex
from drimbox.manifest.read import read_manifest
from drimbox.pacs.study import Instance, Series, Study
from drimbox.portability.recollect import recollect
from drimbox.publication.checks import check
from drimbox.publication.kos import ArchivedKos
from drimbox.publication.ports import Site, SitePacs, Sites
from drimbox.publication.publish import Outcome
from drimbox.publication.triggers import Cause
from drimbox.reports.report import Report, Structure, Visibility
from drimbox.store.database import Pool

KOS = "1.3.2.751468943.3.1234.99352.240116151112.1.1.1"


@pytest.fixture
def other(box: Box, other_pool: Pool) -> Box:
    return Box(other_pool, box.maker)


def as_submitted(world: World, first: ArchivedKos) -> World:
    """The fake DMP has metadata of its own: those of later versions say of the exam what the imported ones said."""

    def again(kos: ArchivedKos, structure: Structure) -> Report:
        metadata = first.metadata.replace(first.kos_uid.encode(), kos.kos_uid.encode())
        return recollect(replace(kos, metadata=metadata), structure)

    world.services = replace(world.services, recollect=again)
    return world


@pytest.mark.requirement("DB.SO.30")
async def test_a_report_made_again_says_what_the_report_said(box: Box) -> None:
    report = box.maker.report()
    await box.publish(105, visibility=Visibility(hidden_from_patient=True))
    current = await box.archive.current(STUDY)
    assert current is not None
    again = recollect(current, report.structure)
    assert again.patient.traits == replace(report.patient.traits, given_names=again.patient.traits.given_names)
    assert " ".join(again.patient.traits.given_names) == " ".join(report.patient.traits.given_names)
    assert again.patient.ins == report.patient.ins
    assert [n.value for n in again.patient.local_ids] == ["IPP101"]
    assert set(again.orders) == set(report.orders)
    assert (again.facility_type, again.practice_setting) == (report.facility_type, report.practice_setting)
    assert again.signatory.identifier == report.signatory.identifier
    assert again.visibility == current.visibility
    [act], [was] = again.acts, report.acts
    assert (act.start, act.stop) == (was.start, was.stop)
    assert [r.code for r in act.regions] == [r.code for r in was.regions]
    # It passes every check against the study that it was published for.
    assert check(again, study_of(), match_patient_name=True, ins_range="test") == ()
    with pytest.raises(Refused) as error:
        recollect(replace(current, kos_uid="1.2.3"), report.structure)
    assert error.value.code == "archive-metadata"


@pytest.mark.requirement("DB.SO.30", "DB.SO.13", "DB.SO.26")
async def test_an_archive_of_our_own_is_updated_depublished_and_published_again(
    box: Box, other: Box, tmp_path: Path
) -> None:
    letter = letter_of("E", document_id="1.2.250.1.213.4.5.4.405")
    kos_uid = await box.publish(105, documents=(letter.document_id,))
    current = await box.archive.current(STUDY)
    assert current is not None
    await box.export(tmp_path / "archive")
    assert (await other.import_(tmp_path / "archive")).imported == 1
    world = as_submitted(world_on(other.pool), current)
    world.vna.hold(study_of())
    assert current.entry_uuid is not None
    world.dmp.documents[kos_uid] = Held(current.entry_uuid, current.ins, current.kos, current.visibility)

    assert await world.resync(Cause.RECONCILIATION) is Outcome.NOTHING
    world.vna.hold(study_of(images=7))
    assert await world.resync() is Outcome.PUBLISHED
    assert [held.manifest.instance_count for held in world.dmp.standing(STUDY)] == [7]
    assert world.dmp.documents[kos_uid].status == "Deprecated"
    world.vna.studies.clear()
    assert await world.resync() is Outcome.DEPUBLISHED
    world.vna.hold(study_of(images=2))
    assert await world.resync() is Outcome.PUBLISHED
    assert await other.states() == ["replaced", "depublished", "current"]
    assert await other.standing() == (letter.document_id,)
    # A report of the RIS settles it as if nothing had been imported.
    assert await world.run(replace(letter, control_id="M2", operation="delete")) is Outcome.DEPUBLISHED


@pytest.mark.requirement("DB.SO.30", "DB.SO.31", "DB.SO.13")
async def test_the_official_archive_is_brought_to_this_source_s_address_and_kept_true(box: Box, samples: Path) -> None:
    await box.import_(samples / "xdm", targets=[BCOM])
    archived = await box.archive.by_kos_uid(KOS)
    assert archived is not None
    manifest = read_manifest(archived.kos)
    report = recollect(archived, Structure("499700367909006", "BCOM"))
    assert report.patient.ins == archived.ins
    assert report.patient.traits.sex in (Sex.MALE, Sex.FEMALE)
    [number] = report.patient.local_ids

    # The PACS, as it must have been.
    series = tuple(
        Series(s.series_uid, s.modality, s.number, s.description, s.region, s.instances) for s in manifest.series
    )
    [order] = manifest.requests
    assert order.accession is not None
    study = Study(
        study_uid=archived.study_uid,
        patient_id=number.value,
        patient_id_issuer=number.issuer,
        patient_name=f"{report.patient.traits.birth_family}^{report.patient.traits.first_given}",
        birth_date=f"{report.patient.traits.birth_date:%Y%m%d}",
        sex=report.patient.traits.sex.value,
        accession_number=order.accession.value,
        accession_issuer="",
        study_id=manifest.study_id,
        study_date=manifest.study_date,
        study_time=manifest.study_time,
        description=manifest.description,
        referring_physician="",
        series=series,
    )
    world = as_submitted(world_on(box.pool), archived)
    pacs = FakePacs({study.study_uid: study})
    site = Site("bcom", Structure("499700367909006", "BCOM"), (SitePacs("pacs", pacs),))
    world.services = replace(world.services, sites=Sites([(site, ["499700367909006"])]))
    assert archived.entry_uuid is not None
    world.dmp.documents[KOS] = Held(archived.entry_uuid, archived.ins, archived.kos, archived.visibility)

    outcome = await world.resync(Cause.ADDRESS, study.study_uid)
    assert outcome is Outcome.PUBLISHED, [i.reason for i in await world.queue()]
    [held] = world.dmp.standing(study.study_uid)
    assert all(s.retrieve_url.startswith(BASE) for s in held.manifest.series)
    assert held.manifest.instance_count == manifest.instance_count
    assert world.dmp.documents[KOS].status == "Deprecated"
    assert await world.resync(Cause.RECONCILIATION, study.study_uid) is Outcome.NOTHING

    more = replace(series[0], instances=(*series[0].instances, Instance(CT, "1.2.9.1", 999)))
    pacs.hold(replace(study, series=(more, *series[1:])))
    assert await world.resync(Cause.NOTE, study.study_uid) is Outcome.PUBLISHED
    assert world.dmp.standing(study.study_uid)[0].manifest.instance_count == manifest.instance_count + 1

    # Another patient than the archive's is published nowhere.
    pacs.hold(replace(study, patient_id="SOMEONE"))
    assert await world.resync(Cause.NOTE, study.study_uid) is Outcome.STOPPED
    assert [i.code for i in await world.queue()] == ["resync-identity"]

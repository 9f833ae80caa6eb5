"""Two structures and two PACSs in one box: each publishes for itself, and what stops one stops no one else."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from messages import Case
from stage import EG, SECOND, Exam, Keys, Stage, box_on, dmp_for, instances, two_pacs

from drimbox.sandbox.pki import PemPair
from drimbox.store.database import Pool
from official_messages import Official

STUDY, OTHER_STUDY = "1.2.250.1.213.4.5.2.1.108", "1.2.250.1.213.4.5.2.1.908"


def by_second(message: Official) -> Official:
    """The report of G1 under other numbers, signed at the second structure."""
    values = {STUDY: OTHER_STUDY, "ACN108": "ACN908", "1.2.250.1.213.4.5.4.407": "1.2.250.1.213.4.5.4.9407"}
    return signed_at(message.changed(values), SECOND).identified()


def signed_at(message: Official, structure: str) -> Official:
    document = re.sub(
        rb'(root="1\.2\.250\.1\.71\.4\.2\.2" extension=)"[^"]*"', rf'\1"{structure}"'.encode(), message.document
    )
    assert structure.encode() in document
    return message.with_document(document)


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.requirement("DB.SO.19", "DB.SO.89")
async def test_each_report_is_published_by_its_structure(stage: Stage, samples: Path) -> None:
    report = Case(samples, "ORU").of("CR_G1-ORU.hl7")
    stage.pacs["pacs"].hold(Exam(STUDY, "ACN108"), Exam(OTHER_STUDY, "ACN908"))
    await stage.accepted(report, by_second(report))
    for study, structure in ((STUDY, EG), (OTHER_STUDY, SECOND)):
        entry, manifest = stage.current(study)
        assert manifest.institution.endswith(f"^{structure}")
        assert entry.structures == (structure,)
    units = {v.unit for v in stage.judge.store.verdicts()}
    assert units == {EG, SECOND}


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.requirement("DB.SO.19")
async def test_the_sender_s_structure_serves_where_the_signatory_s_is_not_ours(stage: Stage, samples: Path) -> None:
    """A signatory of a teleradiology company: PRT-8 says for which site the message was sent."""
    report = signed_at(Case(samples, "MDM").of("CR_G1-ORU.hl7"), "1999999999")
    prt = report.segment("PRT").replace("^750803447", f"^{SECOND[1:]}")
    stage.pacs["pacs"].hold(Exam(STUDY, "ACN108"))
    await stage.accepted(report.with_segment("PRT", prt))
    assert stage.current(STUDY)[0].structures == (SECOND,)
    # And where neither is ours, nothing is published, and the operator knows.
    nobody = signed_at(by_second(report), "1999999999")
    await stage.accepted(nobody.with_segment("PRT", prt.replace(SECOND[1:], "999999999")))
    assert await stage.codes(OTHER_STUDY) == ["structure-unknown"]
    assert stage.entries(OTHER_STUDY) == []


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.requirement("DB.SO.04")
async def test_the_pacs_of_the_sender_goes_before_the_archive(stage: Stage, samples: Path) -> None:
    case = Case(samples, "ORU")
    mine, archived = Exam(STUDY, "ACN108", images=2), Exam(STUDY, "ACN108", images=5)
    stage.pacs["pacs"].hold(mine)
    stage.pacs["vna"].hold(archived)
    await stage.accepted(case.of("CR_G1-ORU.hl7"))
    assert instances(stage.current(STUDY)[1]) == mine.instances
    [version] = await stage.archived(STUDY)
    assert version["pacs"] == "pacs"


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.requirement("DB.SO.04")
async def test_without_a_sender_of_theirs_the_archive_is_asked_first(stage: Stage, samples: Path) -> None:
    archived = Exam(STUDY, "ACN108", images=5)
    stage.pacs["pacs"].hold(Exam(STUDY, "ACN108", images=2))
    stage.pacs["vna"].hold(archived)
    await stage.accepted(Case(samples, "ORU").of("CR_G1-ORU.hl7").with_field("MSH", 3, "RIS-Z"))
    assert instances(stage.current(STUDY)[1]) == archived.instances
    [version] = await stage.archived(STUDY)
    assert version["pacs"] == "vna"


@pytest.mark.requirement("DB.SO.19", "DB.SO.21", "DB.SO.89")
async def test_a_structure_without_its_keys_stops_itself_alone(
    keys: Keys, dsn: str, pool: Pool, shared: Path, samples: Path, tmp_path: Path
) -> None:
    report = Case(samples, "ORU").of("CR_G1-ORU.hl7")
    pair = PemPair(tmp_path / "sign.pem", tmp_path / "sign.key")
    shutil.copy(keys.pairs["sign-2"].certificate, pair.certificate)
    with two_pacs(tmp_path) as pacs:
        pacs["pacs"].hold(Exam(STUDY, "ACN108"), Exam(OTHER_STUDY, "ACN908"))
        async with dmp_for(keys, shared / "schemas", tmp_path) as dmp:
            async with box_on(keys, dsn, pool, pacs, dmp, tmp_path, **{"sign-2": pair}) as stage:
                # Both are accepted: the message is safe with us, whatever our own keys.
                await stage.accepted(by_second(report), report)
                assert stage.statuses(STUDY) == ["Approved"]
                assert stage.entries(OTHER_STUDY) == []
                [incident] = await stage.queue(OTHER_STUDY)
                assert (incident.code, incident.structure, incident.severity) == (
                    "structure-keys",
                    "clinique",
                    "error",
                )
                assert "sign.key" in incident.reason
                # A new try without a repair says the same, and nothing is lost.
                await stage.retry(incident)
                assert await stage.codes(OTHER_STUDY) == ["structure-keys"]
                assert {v.unit for v in stage.judge.store.verdicts()} == {EG}
            shutil.copy(keys.pairs["sign-2"].key, pair.key)
            async with box_on(keys, dsn, pool, pacs, dmp, tmp_path, **{"sign-2": pair}) as stage:
                await stage.retry(incident)
                assert stage.current(OTHER_STUDY)[0].structures == (SECOND,)
                # The official document gives another birth place than its message: a warning.
                assert await stage.codes(OTHER_STUDY) == ["birth-place-differs"]
                assert stage.refusals() == []


@pytest.mark.requirement("DB.SO.89")
async def test_the_first_structure_without_its_keys_does_not_stop_the_box(
    keys: Keys, dsn: str, pool: Pool, shared: Path, samples: Path, tmp_path: Path
) -> None:
    """Not even the client of Pro Santé Connect, which takes its certificate by default."""
    report = Case(samples, "ORU").of("CR_G1-ORU.hl7")
    with two_pacs(tmp_path) as pacs:
        pacs["pacs"].hold(Exam(STUDY, "ACN108"), Exam(OTHER_STUDY, "ACN908"))
        async with (
            dmp_for(keys, shared / "schemas", tmp_path) as dmp,
            box_on(keys, dsn, pool, pacs, dmp, tmp_path, auth=keys.pairs["server"]) as stage,
        ):
            await stage.accepted(report, by_second(report))
            assert stage.entries(STUDY) == []
            assert stage.statuses(OTHER_STUDY) == ["Approved"]
            [incident] = await stage.queue(STUDY)
            assert (incident.code, incident.structure) == ("structure-keys", "ambroise")
            assert "SSL_SERV" in incident.reason

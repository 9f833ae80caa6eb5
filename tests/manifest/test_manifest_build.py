"""The KOS that is written: its content element by element, its validity by the dciodvfy tool, its speed."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifest_examples import BASE, CREATED, CT, ECG, PDF, SEGMENTATION, build, built, report_of, study_of

from drimbox.foundation.errors import Refused
from drimbox.identity.traits import Sex
from drimbox.manifest.build import describe, encode
from drimbox.manifest.read import read_manifest
from drimbox.pacs.study import Instance
from drimbox.reports.report import Identifier, Order, Report, Structure


def data_set(kos: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(BytesIO(kos))


def named(report: Report, **traits: object) -> Report:
    patient = report.patient
    return replace(report, patient=replace(patient, traits=replace(patient.traits, **traits)))  # type: ignore[arg-type]


@pytest.mark.requirement("DB.SO.18", "D8", "exam:E")
def test_the_header_says_who_and_what() -> None:
    kos = data_set(build())
    assert kos.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert kos.file_meta.MediaStorageSOPInstanceUID == kos.SOPInstanceUID == "2.25.1001"
    assert kos.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.59"
    assert (kos.Modality, kos.SeriesNumber, kos.InstanceNumber) == ("KO", 59, 1)
    assert kos.SpecificCharacterSet == "ISO_IR 100"
    # The national identity is the patient's number; the site's own number is not told.
    assert kos.PatientID == "279035121518989"
    assert kos.IssuerOfPatientID == "ASIP-SANTE-INS-NIR"
    assert kos.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID == "1.2.250.1.213.1.4.10"
    assert kos.OtherPatientIDsSequence[0].PatientID == "279035121518989"
    assert kos.OtherPatientIDsSequence[0].TypeOfPatientID == "TEXT"
    assert b"IPP101" not in build()
    assert kos.PatientName == "PAT-TROIS^DOMINIQUE"
    assert [str(n) for n in kos.OtherPatientNames] == ["^DOMINIQUE", "PAT-TROIS^DOMINIQUE"]
    assert (kos.PatientBirthDate, kos.PatientSex, kos.PatientComments) == ("19790328", "F", "51215")
    assert kos.InstitutionName == "Centre de radiologie Ambroise^^^^^^^^^1750803447"
    assert (kos.AccessionNumber, kos.StudyDescription, kos.StudyID) == ("", "Tête sans injection", "EX105")
    assert kos.ConceptNameCodeSequence[0].CodeValue == "113030"
    assert kos.ContentTemplateSequence[0].TemplateIdentifier == "2010"
    assert len(kos.ReferencedPerformedProcedureStepSequence) == 0


@pytest.mark.requirement("DB.SO.18", "D3", "D8")
def test_requests_carry_each_number_with_its_issuer() -> None:
    [request] = data_set(build()).ReferencedRequestSequence
    assert request.AccessionNumber == "ACN105"
    assert request.IssuerOfAccessionNumberSequence[0].UniversalEntityID == "1.2.250.1.925.994044.27"
    assert request.PlacerOrderNumberImagingServiceRequest == "OPN105"
    assert request.OrderPlacerIdentifierSequence[0].UniversalEntityID == "1.2.250.1.748.12345678.12"
    assert request.StudyInstanceUID == "1.2.250.1.213.4.5.2.1.105"


@pytest.mark.requirement("DB.SO.18", "D8")
def test_every_image_stands_in_the_evidence_and_in_the_content_tree() -> None:
    study = study_of((2, 3))
    kos = data_set(build(study=study))
    [evidence] = kos.CurrentRequestedProcedureEvidenceSequence
    assert [s.RetrieveURL for s in evidence.ReferencedSeriesSequence] == [
        f"{BASE}/studies/{study.study_uid}/series/{s.series_uid}" for s in study.series
    ]
    referenced = [
        (i.ReferencedSOPClassUID, i.ReferencedSOPInstanceUID, i.InstanceNumber)
        for s in evidence.ReferencedSeriesSequence
        for i in s.ReferencedSOPSequence
    ]
    assert referenced == [(i.sop_class_uid, i.sop_instance_uid, i.number) for s in study.series for i in s.instances]
    assert [s.SeriesNumber for s in evidence.ReferencedSeriesSequence] == [1, 2]
    *images, text = kos.ContentSequence
    assert [i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in images] == [uid for _, uid, _ in referenced]
    assert {i.RelationshipType for i in kos.ContentSequence} == {"CONTAINS"}
    assert text.ConceptNameCodeSequence[0].CodeValue == "113012"
    assert text.TextValue.splitlines() == [
        "Examen : Tête sans injection",
        "Acte = Scintigraphie",
        *(f"Série-{s.series_uid} : CT @ HEAD : {s.description}" for s in study.series),
    ]


@pytest.mark.parametrize(
    ("sop_class", "value_type"),
    [(CT, "IMAGE"), (SEGMENTATION, "IMAGE"), (ECG, "WAVEFORM"), (PDF, "COMPOSITE"), ("1.2.3.4", "COMPOSITE")],
)
@pytest.mark.requirement("D8")
def test_the_value_type_follows_the_sop_class(sop_class: str, value_type: str) -> None:
    kos = data_set(build(study=study_of(sop_class=sop_class)))
    assert kos.ContentSequence[0].ValueType == value_type


def test_times_are_written_in_the_offset_of_the_study() -> None:
    winter = data_set(build())
    assert (winter.StudyTime, winter.TimezoneOffsetFromUTC) == ("102500", "+0100")
    assert (winter.InstanceCreationDate, winter.InstanceCreationTime) == ("20260714", "103012")
    summer = data_set(build(study=study_of(study_date="20210708")))
    assert (summer.TimezoneOffsetFromUTC, summer.InstanceCreationTime) == ("+0200", "113012")
    assert built().created == built(study=study_of(study_date="20210708")).created == CREATED


def test_a_series_without_images_is_left_out_and_a_study_without_any_refused() -> None:
    assert len(built(study=study_of((2, 0, 1))).series) == 2
    with pytest.raises(Refused) as refused:
        build(study=study_of((0,)))
    assert refused.value.code == "manifest-empty"


@pytest.mark.parametrize(
    "order",
    [
        Order(None, Identifier("X" * 17, "1.2.3")),
        Order(Identifier("9" * 65, "1.2.3"), None),
        Order(None, Identifier("A\\B", "1.2.3")),
    ],
)
def test_an_identifier_is_never_cut(order: Order) -> None:
    with pytest.raises(Refused) as refused:
        build(orders=(order,))
    assert refused.value.code == "manifest-value"


def test_utf8_only_where_latin1_does_not_do() -> None:
    assert data_set(build(named(report_of(), birth_family="LEFÈBVRE"))).SpecificCharacterSet == "ISO_IR 100"
    polish = data_set(build(named(report_of(), birth_family="WIŚNIEWSKI", first_given="Œdipe")))
    assert polish.SpecificCharacterSet == "ISO_IR 192"
    assert polish.PatientName == "WIŚNIEWSKI^Œdipe"
    assert polish.ContentSequence[-1].TextValue.splitlines()[2].startswith("Série-")


@given(
    family=st.text(min_size=1, max_size=90),
    first=st.text(min_size=1, max_size=90),
    description=st.text(max_size=90),
    series=st.lists(st.text(max_size=90), min_size=1, max_size=4),
    sex=st.sampled_from(list(Sex)),
    born=st.dates(min_value=dt.date(1850, 1, 1)),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_words_pydicom_and_we_read_the_same(
    family: str, first: str, description: str, series: list[str], sex: Sex, born: dt.date
) -> None:
    study = study_of((1,) * len(series), description=description)
    study = replace(study, series=tuple(replace(s, description=d) for s, d in zip(study.series, series, strict=True)))
    octets = build(named(report_of(), birth_family=family, first_given=first, sex=sex, birth_date=born), study)
    ours, theirs = read_manifest(octets), data_set(octets)
    assert ours.kos_uid == theirs.SOPInstanceUID
    assert ours.patient_name == str(theirs.PatientName)
    assert len(ours.patient_name) <= 64
    assert ours.birth_date == f"{born:%Y%m%d}"
    assert ours.description == str(theirs.StudyDescription).strip()
    assert [s.series_uid for s in ours.series] == [s.series_uid for s in study.series]
    assert ours.instance_count == study.instance_count
    # What was read is written again without a change.
    assert read_manifest(encode(ours)) == ours


def test_what_is_described_is_what_is_read() -> None:
    report, study = report_of("F"), study_of((2, 1))
    manifest = describe(
        report,
        study,
        orders=report.orders,
        retrieve_base=BASE + "/",
        kos_uid="2.25.1",
        series_uid="2.25.2",
        created=CREATED,
        manufacturer="drimbox",
        structure=Structure("1750803447", "Centre"),
    )
    assert len(manifest.requests) == 2
    assert read_manifest(encode(manifest)) == manifest
    assert "PAT-TROIS" not in repr(manifest)


SHAPES = {
    "plain": lambda: build(),
    "accents": lambda: build(
        named(report_of(), birth_family="D'ÉTÉ-LEFÈBVRE", first_given="Zoë", given_names=("Zoë", "Françoise"))
    ),
    "utf-8": lambda: build(named(report_of(), birth_family="ŒUVRARD", used_family="WIŚNIEWSKI")),
    "long names": lambda: build(
        named(
            replace(report_of(), structure=Structure("1750803447", "Groupement hospitalier " * 6)),
            birth_family="PAT-TROIS-" * 9,
            first_given="DOMINIQUE" * 9,
            given_names=("DOMINIQUE",) * 12,
        ),
        study_of(description="x" * 90),
    ),
    "several series": lambda: build(study=study_of((1, 40, 2, 7))),
    "two orders": lambda: build(report_of("F")),
    "no order": lambda: build(orders=()),
    "order without accession": lambda: build(orders=(Order(Identifier("OPN1", "not an oid"), None),)),
    "1,000 images": lambda: build(study=study_of((600, 400))),
    "many kinds": lambda: build(
        study=replace(
            study_of((4,)),
            series=(
                replace(
                    study_of((4,)).series[0],
                    instances=tuple(Instance(c, f"2.25.{n}") for n, c in enumerate((CT, ECG, PDF, SEGMENTATION), 1)),
                ),
            ),
        )
    ),
    "little known": lambda: build(
        named(report_of(acts=()), sex=Sex.UNKNOWN, birth_place="", given_names=(), used_family="", used_given=""),
        study_of(study_id="", study_date="", study_time="", description="", accession_issuer=""),
    ),
}


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian dicom3tools) is not installed")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.requirement("DB.SO.18", "D8")
def test_dciodvfy_finds_no_error(shape: str, tmp_path: Path) -> None:
    file = tmp_path / "kos.dcm"
    file.write_bytes(SHAPES[shape]())
    found = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, errors="replace", check=False)
    assert [line for line in found.stderr.splitlines() if line.startswith("Error")] == []
    assert "KeyObjectSelectionDocument" in found.stdout + found.stderr


def test_ten_thousand_images_are_no_burden() -> None:
    study = study_of((5000, 5000))
    started = time.process_time()
    octets = build(study=study)
    written = time.process_time()
    assert read_manifest(octets).instance_count == 10_000
    # Of the processor, whatever else the machine does: a tenth of a second and two on the development machine.
    assert written - started < 3
    assert time.process_time() - written < 6

"""Reading KOS of any maker, and refusing everything else, hostile bytes included."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifest_examples import build, built, study_of
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from drimbox.foundation.errors import Refused
from drimbox.identity.ins import Ins
from drimbox.manifest import read
from drimbox.manifest.description import read_description
from drimbox.manifest.read import read_manifest

SAMPLE_STUDY = "1.3.6.1.4.1.5962.99.1.3711725607.829148806.1687338938407.3.116"


@pytest.mark.requirement("D8")
def test_the_agency_sample(samples: Path) -> None:
    kos = read_manifest((samples / "kos" / "publication_KOS.dcm").read_bytes())
    assert kos.kos_uid == "1.3.2.751468943.3.1234.56838.231114144457.1.1.1"
    assert kos.study_uid == SAMPLE_STUDY
    assert (kos.study_date, kos.description, kos.act) == ("20221215", "Exam A", "Abdomen + pelvis")
    assert kos.ins == Ins.of("162018885045327", "1.2.250.1.213.1.4.10")
    assert (kos.patient_name, kos.birth_date, kos.sex, kos.birth_place) == ("PAT-SIX", "19960124", "M", "29758")
    [request] = kos.requests
    assert request.accession is not None
    assert request.placer is not None
    assert (request.accession.value, request.accession.issuer) == ("7252295367250016", "1.2.840.113619.6.196")
    assert (request.placer.value, request.placer.issuer) == ("12989855966", "2.16.840.1.113883.6.96")
    assert [len(s.instances) for s in kos.series] == [10, 10]
    assert {(s.modality, s.region, s.description) for s in kos.series} == {("MR", "", "T2 Ax Space Iso RT")}
    assert kos.series[0].retrieve_url == (
        f"http://localhost:4200/api/source/studies/{SAMPLE_STUDY}/series/{kos.series[0].series_uid}"
    )
    assert kos.series[0].instances[0].sop_class_uid == "1.2.840.10008.5.1.4.1.1.4"


def test_the_demonstrator_sample_with_its_text_at_the_root(samples: Path) -> None:
    kos = read_manifest((samples / "kos" / "demonstrator_kos.dcm").read_bytes())
    assert kos.ins == Ins.of("248039263001064", "1.2.250.1.213.1.4.10")
    [series] = kos.series
    assert (series.modality, series.description, len(series.instances)) == ("CT", "Dentascan  0.75  H60s", 1)
    assert kos.description == "Tête^Dental (Adulte)"


def test_implicit_and_explicit_say_the_same() -> None:
    file = pydicom.dcmread(BytesIO(build()))
    buffer = BytesIO()
    file.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    pydicom.dcmwrite(buffer, file, implicit_vr=True, little_endian=True, enforce_file_format=True)
    assert read_manifest(buffer.getvalue()) == built()


def test_the_modality_comes_from_the_images_where_the_text_is_silent() -> None:
    assert changed(lambda kos: kos.ContentSequence.pop()).series[0].modality == "CT"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("Série-1.2.3 : MR @ tête et cou : T1", ("MR", "tête et cou", "T1")),
        ("Serie-1.2.3 : CT : os : dur", ("CT", "", "os : dur")),
        ("SÃ©rie-1.2.3 : US @  : ", ("US", "", "")),
        ("  Série-1.2.3:MG@sein:face", ("MG", "sein", "face")),
    ],
)
def test_the_text_of_every_sample_is_understood(line: str, told: tuple[str, str, str]) -> None:
    text = read_description(f"Examen : Genou\r\nActe =  : IRM\r\n{line}\r\n")
    series = text.series["1.2.3"]
    assert (text.exam, text.act) == ("Genou", "IRM")
    assert (series.modality, series.region, series.description) == told


def changed(change: object) -> read.Manifest:
    """The manifest read from a KOS that pydicom changed."""
    file = pydicom.dcmread(BytesIO(build(study=study_of((2, 1)))))
    assert callable(change)
    change(file)
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, file, enforce_file_format=True)
    return read_manifest(buffer.getvalue())


def set_class(kos: Dataset) -> None:
    kos.SOPClassUID = kos.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"


def set_title(kos: Dataset) -> None:
    kos.ConceptNameCodeSequence[0].CodeValue = "113001"


def add_study(kos: Dataset) -> None:
    kos.CurrentRequestedProcedureEvidenceSequence.append(kos.CurrentRequestedProcedureEvidenceSequence[0])


def no_study(kos: Dataset) -> None:
    kos.CurrentRequestedProcedureEvidenceSequence = Sequence()


def other_study(kos: Dataset) -> None:
    kos.StudyInstanceUID = "2.25.9"


def same_series_twice(kos: Dataset) -> None:
    series = kos.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    series[1].SeriesInstanceUID = series[0].SeriesInstanceUID


def second_identity(kos: Dataset) -> None:
    kos.OtherPatientIDsSequence[0].PatientID = "162018885045327"


def wrong_key(kos: Dataset) -> None:
    kos.PatientID = "279035121518988"


def no_uid(kos: Dataset) -> None:
    del kos.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].SeriesInstanceUID


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (set_class, "manifest-class"),
        (set_title, "manifest-class"),
        (add_study, "manifest-studies"),
        (no_study, "manifest-studies"),
        (other_study, "manifest-studies"),
        (same_series_twice, "manifest-series"),
        (second_identity, "manifest-patient"),
        (wrong_key, "ins-key"),
        (no_uid, "manifest-uid"),
    ],
)
def test_what_is_no_manifest_of_one_patient_and_one_study_is_refused(change: object, code: str) -> None:
    with pytest.raises(Refused) as refused:
        changed(change)
    assert refused.value.code == code


def test_other_encodings_and_sizes_are_refused() -> None:
    octets = build()
    big = octets.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0", 1)
    assert str(ExplicitVRBigEndian).encode() in big
    for bad in (b"", b"DICM", b"\0" * 200, octets[:140], octets[132:], big, b"\0" * (read.MAX_BYTES + 1)):
        with pytest.raises(Refused):
            read_manifest(bad)


def test_counts_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "MAX_INSTANCES", 10)
    with pytest.raises(Refused) as refused:
        built(study=study_of((6, 5)))
    assert refused.value.code == "manifest-size"


def test_an_identity_of_another_authority_is_none() -> None:
    def local(kos: Dataset) -> None:
        kos.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID = "1.2.3"
        del kos.OtherPatientIDsSequence

    assert changed(local).ins is None


@given(st.binary(max_size=400))
@settings(deadline=None)
def test_random_bytes_are_refused(data: bytes) -> None:
    for octets in (data, b"\0" * 128 + b"DICM" + data, build()[:400] + data):
        with pytest.raises(Refused):
            read_manifest(octets)


_WHOLE = build(study=study_of((2, 1)))


@given(
    st.lists(st.tuples(st.integers(0, len(_WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, len(_WHOLE)),
)
@settings(max_examples=400, deadline=None)
def test_a_damaged_manifest_is_read_or_refused(flips: list[tuple[int, int]], cut: int) -> None:
    damaged = bytearray(_WHOLE)
    for position, value in flips:
        damaged[position] = value
    for octets in (bytes(damaged), bytes(damaged[:cut])):
        try:
            read_manifest(octets)
        except Refused as error:
            assert "PAT-TROIS" not in error.reason  # noqa: PT017


@given(st.text(alphabet=" :@Série-0123456789.\n=Acte", max_size=3000))
@settings(deadline=None)
def test_any_text_is_parsed_in_no_time(text: str) -> None:
    read_description(text)

"""DICOM data sets and files: identities of what landed, KOS manifests, key objects, images to be served."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from drimbox.dicom.datasets import read_data_set
from drimbox.foundation.errors import IdentityMismatch, Refused
from drimbox.identity.ins import Ins
from drimbox.images import header, metadata, transcode
from drimbox.manifest.build import encode
from drimbox.manifest.manifest import Manifest, ManifestSeries
from drimbox.manifest.read import read_manifest
from drimbox.pacs import header as identity
from drimbox.pacs.dimse.part10 import file_head
from drimbox.pacs.keynotes import read_note
from drimbox.pacs.study import Instance
from drimbox.reports.report import Identifier, Order
from fuzz.grammars import dicom
from fuzz.target import Broken, Run, Target, pure
from fuzz.targets.reports import NOW

INS = Ins.of("279035121518989", "1.2.250.1.213.1.4.10")
KEY_OBJECT = "1.2.840.10008.5.1.4.1.1.88.59"
CT = "1.2.840.10008.5.1.4.1.1.2"
_SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")


def manifests() -> Iterator[bytes]:
    """KOS as we write them: one series, several; with and without an order."""
    for count, order in ((1, True), (3, False)):
        instances = tuple(Instance(CT, f"1.2.3.{n}", n) for n in range(1, 4))
        series = tuple(
            ManifestSeries(
                f"1.2.4.{n}", f"https://db.example/studies/1.2.3/series/1.2.4.{n}", "CT", n, "Axial é", instances
            )
            for n in range(1, count + 1)
        )
        requests = (
            (Order(Identifier("OPN105", "1.2.250.1.748.1"), Identifier("ACN105", "1.2.250.1.925.1")),) if order else ()
        )
        yield encode(
            Manifest(
                kos_uid="2.25.1",
                study_uid="1.2.3",
                study_date="20260504",
                description="SCANNER",
                ins=INS,
                patient_name="PAT-TROIS^DOMINIQUE",
                birth_date="19790328",
                sex="F",
                birth_place="63220",
                requests=requests,
                series=series,
                series_uid="2.25.2",
                created=NOW,
            )
        )


_ENCODERS = {
    "1.2.840.10008.1.2.4.70": imagecodecs.ljpeg_encode,
    "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_encode,
    "1.2.840.10008.1.2.4.90": lambda frame: imagecodecs.jpeg2k_encode(
        frame, codecformat="J2K", reversible=True, level=0
    ),
}


def image(syntax: str = "1.2.840.10008.1.2.1", frames: int = 1) -> bytes:
    """A small image of the test patient, as a file."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT, "1.2.3.4.5"
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "PAT-TROIS^DOMINIQUE", "IPP101", "19790328"
    other = Dataset()
    other.PatientID, other.TypeOfPatientID = "X1", "TEXT"
    dataset.OtherPatientIDsSequence = [other]
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    dataset.Rows = dataset.Columns = 16
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation, dataset.NumberOfFrames = 15, 0, str(frames)
    cells = np.arange(256 * frames, dtype="<u2").reshape(frames, 16, 16)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(CT), UID("1.2.3.4.5")
    meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta = meta
    if meta.TransferSyntaxUID.is_compressed and not meta.TransferSyntaxUID.is_deflated:
        dataset.PixelData = encapsulate([_ENCODERS[syntax](frame) for frame in cells])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    else:
        big = not meta.TransferSyntaxUID.is_little_endian
        dataset.PixelData = cells.astype(">u2" if big else "<u2").tobytes()
        dataset["PixelData"].VR = "OW"
    target = io.BytesIO()
    pydicom.dcmwrite(target, dataset, enforce_file_format=True)
    return target.getvalue()


@cache
def images() -> tuple[bytes, ...]:
    """In every syntax that matters for reading."""
    syntaxes = (
        *_SYNTAXES,
        "1.2.840.10008.1.2.1.99",
        "1.2.840.10008.1.2.4.70",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.4.80",
    )
    return (*(image(syntax) for syntax in syntaxes), image(frames=3), image("1.2.840.10008.1.2.4.90", 2))


def encoded(dataset: Dataset) -> bytes:
    """A data set in Explicit VR Little Endian, without any file around it."""
    out = io.BytesIO()
    file = DicomFileLike(out)
    file.is_little_endian, file.is_implicit_VR = True, False
    write_dataset(file, dataset)
    return out.getvalue()


def note(title: str = "113001") -> bytes:
    """A rejection note as a data set, without any file around it."""

    def code(value: str, meaning: str) -> Dataset:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
        return item

    instance, series, study = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = CT, "1.2.3.4.5"
    series.SeriesInstanceUID, series.ReferencedSOPSequence = "1.2.3.4", [instance]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = "1.2.3", [series]
    content = Dataset()
    content.RelationshipType, content.ValueType, content.ReferencedSOPSequence = "CONTAINS", "IMAGE", [instance]
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = KEY_OBJECT, "1.2.3.4.5"
    made.StudyInstanceUID, made.SeriesInstanceUID, made.Modality = "1.2.3", "1.2.3.9", "KO"
    made.PatientName, made.PatientID = "PAT-TROIS^DOMINIQUE", "IPP101"
    made.ValueType, made.ContinuityOfContent = "CONTAINER", "SEPARATE"
    made.ConceptNameCodeSequence = [code(title, "Rejected for Quality Reasons")]
    made.CurrentRequestedProcedureEvidenceSequence = [study]
    made.ContentSequence = [content]
    return encoded(made)


def _notes() -> Iterator[bytes]:
    for title in ("113000", "113001", "113039"):
        yield file_head(KEY_OBJECT, "1.2.3.4.5", "1.2.840.10008.1.2.1", "PACS_A") + note(title)


def _run_note(data: bytes) -> object:
    read = read_note(data)
    return len(read.references), len(read.selected), read.description != ""


def _run_elements(data: bytes) -> object:
    """The first byte chooses the syntax, as the presentation context does, and whether order matters."""
    kind = data[0] if data else 0
    found = read_data_set(data[1:], _SYNTAXES[kind % 3], ordered=kind < 128)
    seen = 0
    for tag in (0x00080016, 0x00100010, 0x0020000D, 0x00400032, 0x0040A160, 0x00080050):
        seen += found.text(tag) != ""
    for tag in (0x0040A375, 0x0040A730, 0x00101002, 0x00080051, 0x00100024):
        for item, _ in zip(found.items(tag), range(50), strict=False):
            seen += item.text(0x00080100) != ""
            for inner, _ in zip(item.items(0x00081115), range(50), strict=False):
                seen += inner.text(0x0020000E) != ""
    return min(seen, 20)


def _data_sets() -> Iterator[bytes]:
    for made in (*manifests(), *images()[:2]):
        file = pydicom.dcmread(io.BytesIO(made))
        del file["PixelData":]
        for number, syntax in enumerate(_SYNTAXES[:2]):
            target = io.BytesIO()
            file.file_meta.TransferSyntaxUID = UID(syntax)
            file.save_as(target, implicit_vr=number == 0, little_endian=True, enforce_file_format=True)
            start = 144 + int.from_bytes(target.getvalue()[140:144], "little")
            yield bytes((number,)) + target.getvalue()[start:]


def _run_file(data: bytes) -> object:
    found = identity.parse_header(memoryview(data))
    return bool(found.study_uid), found.transfer_syntax_uid


def _run_manifest(data: bytes) -> object:
    read = read_manifest(data)
    return len(read.series), len(read.requests), read.ins is None, read.created is None


def _run_image(data: bytes) -> object:
    """With the INS put in, an image reads as before, and carries the INS."""
    before = header.read_header(data)
    change = header.with_ins(data, INS)
    changed = change.head + data[change.rest :] if change.head else data
    after = header.read_header(changed)
    header.check_ins(after, INS)
    if (before.sop_instance_uid, before.patient_id, before.study_uid) != (
        after.sop_instance_uid,
        after.patient_id,
        after.study_uid,
    ):
        raise Broken("putting the INS in changed another identifier")
    return before.transfer_syntax, len(before.other_ids), before.character_sets == ()


@contextmanager
def _served() -> Iterator[Run]:
    """What the worker process does with a file; codecs may raise anything, but not hang, and nothing may grow."""
    with tempfile.TemporaryDirectory(prefix="drimbox-fuzz-") as name:
        folder = Path(name)

        def run(data: bytes) -> object:
            source = folder / "source.dcm"
            source.write_bytes(data)
            told = []
            for target, work in _works(source, folder):
                target.unlink(missing_ok=True)
                try:
                    work()
                    told.append("")
                except (Refused, IdentityMismatch) as refused:
                    told.append(refused.code)
                except MemoryError:
                    raise
                except Exception as error:  # noqa: BLE001 - documented: whatever the codecs raise
                    told.append(type(error).__name__)
                finally:
                    target.unlink(missing_ok=True)
            return told

        yield run


def _works(source: Path, folder: Path):  # type: ignore[no-untyped-def]
    yield folder / "m.json", lambda: metadata.write_metadata(source, folder / "m.json", INS)
    for number, syntax in enumerate(("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90")):
        target = folder / f"{number}.dcm"
        yield target, lambda target=target, syntax=syntax: transcode.transcode(source, target, syntax)


TARGETS = (
    Target("dicom_elements", pure(_run_elements), _data_sets, (Refused,), dicom.FILE, largest=64 * 1024),
    Target("dicom_file", pure(_run_file), images, (Refused,), dicom.FILE, ("kos/*", "xdm/**/*.DCM"), largest=64 * 1024),
    Target(
        "manifest", pure(_run_manifest), manifests, (Refused,), dicom.FILE, ("kos/*", "xdm/**/*.DCM"), largest=64 * 1024
    ),
    Target("key_note", pure(_run_note), _notes, (Refused,), dicom.FILE, ("kos/*", "xdm/**/*.DCM"), largest=64 * 1024),
    Target("image", pure(_run_image), images, (Refused,), dicom.FILE, (), largest=64 * 1024),
    Target("image_served", _served, images, (), dicom.FILE, seconds=20.0, largest=64 * 1024, slow=True),
)

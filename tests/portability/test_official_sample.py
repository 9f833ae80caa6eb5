"""The official archive comes in, in every form that products may give it."""

from __future__ import annotations

import base64
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from lxml import etree
from portability_examples import BCOM, TARGET, Box, tree

from drimbox.foundation.errors import Misconfigured
from drimbox.foundation.xml import parse
from drimbox.manifest.read import read_manifest
from drimbox.national.dmp.actor import VihfIdentity
from drimbox.national.dmp.metadata import read_objects
from drimbox.portability.references import read_references, write_reference

KOS = "1.3.2.751468943.3.1234.99352.240116151112.1.1.1"
STUDY = "1.3.6.1.4.1.5962.99.1.3711725607.829148806.1687338938407.3.12"
SET = "KA202401/IHE_XDM/SS000001"


@pytest.fixture
def sample(samples: Path, tmp_path: Path) -> Path:
    """A copy of the official archive, to be changed."""
    for path, content in tree(samples / "xdm").items():
        (tmp_path / "xdm" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "xdm" / path).write_bytes(content)
    return tmp_path / "xdm"


@pytest.mark.requirement("DB.SO.30", "DB.SO.22")
async def test_the_official_archive_imports(box: Box, samples: Path) -> None:
    done = await box.import_(samples / "xdm", targets=[BCOM])
    assert (done.imported, done.refused) == (1, 0), done.words()
    # Its signature was cut before it was published: its size is another than its metadata say.
    assert dict(done.warnings) == {"signature-hash": 1}
    archived = await box.archive.by_kos_uid(KOS)
    assert archived is not None
    assert (archived.study_uid, archived.state, archived.structure, archived.pacs) == (STUDY, "current", "bcom", "pacs")
    assert archived.ins.cx() == "162018885045327^^^&1.2.250.1.213.1.4.10&ISO^NH"
    assert archived.document_ids == ("1.2.250.1.213.1.1.6^A7102400008_6",)
    assert archived.kos == (samples / "xdm" / SET / "KOS_1_1.DCM").read_bytes()
    assert archived.signature == (samples / "xdm" / SET / "SIGN_1.XML").read_bytes()
    assert archived.entry_uuid == "urn:uuid:3d188b5d-0446-468b-a750-09246812625d"
    assert archived.submission_uid == "1.2.250.1.999.1.1.8121.4.9618"
    assert archived.report_id is None
    assert archived.confirmed_at is not None
    assert archived.confirmed_at.isoformat() == "2024-01-16T15:11:12+00:00"
    assert not archived.visibility.masked_to_professionals
    history = await box.archive.history("bcom", STUDY)
    assert (history.last_report_id, history.documents) == (0, archived.document_ids)

    # Who acted: from the VIHF of the message, but for the name, where the sample has the patient's.
    identity = VihfIdentity.from_json(archived.vihf_identity)
    assert (identity.subject_id, identity.subject_name) == ("899700367909", "KIT DOC0036790")
    assert (identity.profession.code, identity.speciality and identity.speciality.code) == ("10", "SM26")
    assert (identity.structure_id, identity.sector) == ("499700367909006", "SA25")

    again = await box.import_(samples / "xdm", targets=[BCOM])
    assert (again.imported, again.unchanged, again.refused) == (0, 1, 0)


@pytest.mark.requirement("DB.SO.29", "DB.SO.30")
async def test_the_official_archive_leaves_in_the_conformant_form(
    box: Box, samples: Path, shared: Path, tmp_path: Path
) -> None:
    await box.import_(samples / "xdm", targets=[BCOM])
    await box.export(tmp_path / "out")
    before, after = tree(samples / "xdm"), tree(tmp_path / "out")
    assert set(before) == set(after)
    for name in ("KOS_1_1.DCM", "SIGN_1.XML", "CR.TXT"):
        assert after[f"{SET}/{name}"] == before[f"{SET}/{name}"]
    schema = etree.XMLSchema(file=str(shared / "schemas" / "xds" / "ebRS30" / "lcm.xsd"))
    schema.assertValid(etree.fromstring(after[f"{SET}/METADATA.XML"]))
    old = read_objects(parse(before[f"{SET}/METADATA.XML"]))
    new = read_objects(parse(after[f"{SET}/METADATA.XML"]))
    assert new.submission_sets == old.submission_sets
    assert new.associations == old.associations
    assert [(e.unique_id, e.hash, e.uri, e.event_codes, e.references, e.authors) for e in new.entries] == [
        (e.unique_id, e.hash, e.uri, e.event_codes, e.references, e.authors) for e in old.entries
    ]


def test_the_official_report_reference_is_written_as_it_was_read(samples: Path) -> None:
    octets = (samples / "xdm" / SET / "CR.TXT").read_bytes()
    [reference] = read_references(octets)
    assert reference.document_id == "1.2.250.1.213.1.1.6^A7102400008_6"
    assert (reference.ipp, reference.ipp_issuer) == (
        "627028977073869316",
        "2.25.308558515749272265601084678280819623195.3.2.1",
    )
    assert write_reference(reference) == octets


def _conformant(folder: Path) -> None:
    """METADATA.XML as the standard has it."""
    file = folder / SET / "METADATA.XML"
    [request] = etree.parse(file).iter("{urn:oasis:names:tc:ebxml-regrep:xsd:lcm:3.0}SubmitObjectsRequest")
    file.write_bytes(etree.tostring(request, with_tail=False))


def _inline(folder: Path) -> None:
    """The KOS in base64 in the message itself."""
    file, kos = folder / SET / "METADATA.XML", folder / SET / "KOS_1_1.DCM"
    text = base64.encodebytes(kos.read_bytes()).decode()
    include = '<xop:Include xmlns:xop="http://www.w3.org/2004/08/xop/include" href="cid:0.2"/>'
    file.write_text(file.read_text("utf-8").replace(include, text), "utf-8")
    kos.unlink()


def _base64(folder: Path) -> None:
    kos = folder / SET / "KOS_1_1.DCM"
    kos.write_bytes(base64.encodebytes(kos.read_bytes()))


def _bare(folder: Path) -> None:
    """No signature, no report, no ids of files."""
    for name in ("SIGN_1.XML", "CR.TXT"):
        (folder / SET / name).unlink()
    file = folder / SET / "METADATA.XML"
    file.write_text(file.read_text("utf-8").replace('name="URI"', 'name="urn:other"'), "utf-8")


def _lower_case(folder: Path) -> None:
    """As some systems show an optical disc."""
    for path in sorted(folder.rglob("*"), key=lambda p: -len(p.parts)):
        path.rename(path.with_name(path.name.lower()))


def _several_reports(folder: Path) -> None:
    for n, number in enumerate(("2", "_3", "_1_4"), 2):
        text = (folder / SET / "CR.TXT").read_text().replace("A7102400008_6", f"R{n}")
        (folder / SET / f"CR{number}.TXT").write_text(text + "\r\n")


def _zip_of_volume(folder: Path) -> None:
    """One zip for a month, in a folder of zips."""
    shutil.make_archive(str(folder / "KA202401"), "zip", folder / "KA202401")
    shutil.rmtree(folder / "KA202401")


@pytest.mark.requirement("DB.SO.30")
@pytest.mark.parametrize(
    ("change", "warnings"),
    [
        (_conformant, {"signature-hash", "identity"}),
        (_inline, {"signature-hash"}),
        (_base64, {"signature-hash"}),
        (_bare, {"signature-missing", "report-missing"}),
        (_lower_case, {"signature-hash"}),
        (_several_reports, {"signature-hash"}),
        (_zip_of_volume, {"signature-hash"}),
    ],
)
async def test_other_forms_of_it_import_too(
    box: Box, sample: Path, change: Callable[[Path], None], warnings: set[str]
) -> None:
    original = (sample / SET / "KOS_1_1.DCM").read_bytes()
    change(sample)
    done = await box.import_(sample, targets=[BCOM])
    assert (done.imported, done.refused) == (1, 0), done.words()
    assert set(done.warnings) == warnings
    archived = await box.archive.by_kos_uid(KOS)
    assert archived is not None
    assert archived.kos == original
    assert read_manifest(archived.kos).study_uid == STUDY
    if change is _several_reports:
        assert [d.partition("^")[2] for d in archived.document_ids] == ["R3", "R2", "R4", "A7102400008_6"] or [
            d.partition("^")[2] for d in archived.document_ids
        ] == ["R3", "R2", "A7102400008_6", "R4"]


@pytest.mark.requirement("DB.SO.30")
@pytest.mark.parametrize("inner", ["", "XDM/", "a/b/"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
async def test_zips_of_others_import(box: Box, sample: Path, tmp_path: Path, inner: str, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "XDM.zip", "w", method) as made:
        for path, content in tree(sample).items():
            made.writestr(inner + path, content)
    done = await box.import_(tmp_path / "XDM.zip", targets=[BCOM])
    assert (done.imported, done.refused) == (1, 0), done.words()


@pytest.mark.requirement("DB.SO.30")
async def test_a_set_of_another_structure_needs_the_administrators_word(box: Box, samples: Path) -> None:
    done = await box.import_(samples / "xdm", pacs="vna")
    assert [d.code for d in done.details] == ["archive-structure"]
    [incident] = await box.queue()
    assert incident.code == "archive-structure"
    assert incident.study_uid == STUDY
    with pytest.raises(Misconfigured, match="plusieurs PACS"):
        await box.import_(samples / "xdm", structure="ambroise")
    done = await box.import_(samples / "xdm", structure="ambroise", pacs="vna")
    assert (done.imported, done.refused) == (1, 0)
    archived = await box.archive.by_kos_uid(KOS)
    assert archived is not None
    assert (archived.structure, archived.pacs) == ("ambroise", "vna")
    # Its certificates speak for that structure and no other.
    assert VihfIdentity.from_json(archived.vihf_identity).structure_id == TARGET.structure.identifier
    # What the queue said of it is over.
    assert await box.queue() == []
    with pytest.raises(Misconfigured):
        await box.import_(samples / "xdm", structure="unknown")

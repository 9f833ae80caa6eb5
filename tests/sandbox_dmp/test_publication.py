"""A right publication is accepted, registered as the DMP does, and replaced, archived, deleted by the rules."""

from __future__ import annotations

import hashlib
from pathlib import Path

from drimbox.foundation.uids import new_uuid_urn
from drimbox.foundation.xml import parse
from drimbox.sandbox.dmp import Policy
from sandbox_dmp.bending import KOS, SET, coded, edit, one, slot
from sandbox_dmp.conftest import Opener
from sandbox_dmp.kos_files import with_note
from sandbox_dmp.metadata import CLASS, SET_AUTHOR
from sandbox_dmp.refusals_registry import APPROVED, ARCHIVED, DELETED, DEPRECATED
from sandbox_dmp.scene import LEGAL, PATIENT, STRUCTURE, Bends, Scene


def test_right_publication_is_accepted_in_mtom(scene: Scene) -> None:
    wire = scene.publication()
    answered = scene.send(wire)
    assert (answered.status, answered.outcome, answered.broken) == (200, "Success", ("", ""))
    assert answered.content_type.startswith("multipart/related")
    assert 'start="<root.message@cxf.apache.org>"' in answered.content_type
    assert answered.text(".//{*}RelatesTo") in wire.body.decode("utf-8", "replace")
    assert answered.text(".//{*}Action") == "urn:ihe:iti:2007:ProvideAndRegisterDocumentSet-bResponse"


def test_a_kos_with_key_image_notes_is_accepted(scene: Scene) -> None:
    def without_text(kos: object) -> None:
        with_note(kos, ContentSequence=[])  # type: ignore[arg-type]

    for bend in (with_note, without_text):
        answered = scene.send(scene.publication(bends=Bends(kos=bend)))  # type: ignore[arg-type]
        assert (answered.outcome, answered.broken) == ("Success", ("", ""))


def test_right_publication_is_valid_against_the_schemas(schooled: Scene) -> None:
    answered = schooled.send(schooled.publication())
    assert (answered.status, answered.outcome, answered.broken) == (200, "Success", ("", ""))


def test_entry_gets_the_identifiers_of_the_dmp(scene: Scene) -> None:
    wire, uuid = scene.published()
    entry = scene.dmp.store.entry(unique_id=wire.unique_id)
    assert entry is not None
    assert entry.uuid.startswith("urn:uuid:")
    assert (entry.logical_id, entry.version, entry.status) == (uuid, 1, APPROVED)
    assert (entry.patient, entry.structures, entry.masked) == (PATIENT, (STRUCTURE,), False)
    assert entry.hash == hashlib.sha1(wire.content).hexdigest()
    element = parse(entry.metadata)
    assert element.get("id") == element.get("lid") == uuid
    assert {c.get("classifiedObject") for c in element.iterfind("{*}Classification")} == {uuid}
    assert one(element, "rim:Slot[@name='repositoryUniqueId']//rim:Value").text == scene.dmp.policy.repository
    assert one(element, "rim:VersionInfo").get("versionName") == "1"
    assert scene.dmp.store.content(wire.unique_id) == wire.content


def test_symbolic_identifiers_are_never_kept_even_when_they_are_uuids(scene: Scene) -> None:
    chosen = new_uuid_urn()

    def rename(body: object) -> None:
        for element in body.iter():  # type: ignore[attr-defined]
            for name, value in element.attrib.items():
                if value == "DocumentKOS":
                    element.set(name, chosen)

    _, uuid = scene.published(bends=Bends(body=rename))
    assert uuid != chosen


def test_replacement_deprecates_the_replaced_one_in_one_step(scene: Scene) -> None:
    first, uuid = scene.published()
    second, newer = scene.published(replaces=uuid)
    old, new = (scene.dmp.store.entry(unique_id=w.unique_id) for w in (first, second))
    assert old is not None
    assert new is not None
    assert (old.status, new.status, new.logical_id) == (DEPRECATED, APPROVED, newer)
    kinds = {(a.kind.rpartition(":")[2], a.source, a.target) for a in scene.dmp.store.associations([uuid])}
    assert ("RPLC", newer, uuid) in kinds


def test_archived_document_is_deleted_or_comes_back(scene: Scene) -> None:
    _, uuid = scene.published()
    caller = scene.caller()
    for before, after in ((APPROVED, ARCHIVED), (ARCHIVED, APPROVED), (APPROVED, ARCHIVED), (ARCHIVED, DELETED)):
        answered = scene.send(scene.status_change(caller, uuid, before=before, after=after))
        assert (answered.outcome, answered.broken) == ("Success", ("", ""))
        entry = scene.dmp.store.entry(uuid=uuid)
        assert entry is not None
        assert entry.status == after
    assert [s.kind for s in scene.dmp.store.submissions()] == ["provide", *["update"] * 4]


def test_legal_entity_publishes_for_its_site_in_mode_ej_eg(scene: Scene) -> None:
    with_its_own_number = scene.caller(LEGAL)
    with_the_number_of_the_site = scene.caller(LEGAL, structure=STRUCTURE)
    for caller in (with_its_own_number, with_the_number_of_the_site):
        answered = scene.send(scene.publication(caller))
        assert (answered.outcome, answered.broken) == ("Success", ("", ""))


def test_site_of_a_legal_entity_has_no_right_to_its_number_when_unknown(scene: Scene) -> None:
    path = f"{coded(SET, SET_AUTHOR)}/rim:Slot[@name='authorInstitution']/rim:ValueList/rim:Value"
    bend = edit(path, text="C^^^^^&1.2.250.1.71.4.2.2&ISO^IDNST^^^1999999999")
    answered = scene.send(scene.publication(bends=Bends(body=bend)))
    assert answered.broken == ("SET.STRUCTURE", "LocalPolicyRestrictionError")


def test_sha1_is_taken_only_where_the_dmp_is_set_so(tmp_path: Path, opener: Opener) -> None:
    scene = opener(tmp_path, policy=Policy(accept_sha1=True))
    answered = scene.send(scene.publication(bends=Bends(sha1_vihf=True, sha1_xades=True)))
    scene.dmp.close()
    assert (answered.outcome, answered.broken) == ("Success", ("", ""))


def test_other_vihf_version_is_taken_only_where_the_dmp_is_set_so(tmp_path: Path, opener: Opener) -> None:
    scene = opener(tmp_path, policy=Policy(vihf_versions=frozenset({"4.0"})))
    bend = edit("//saml:Attribute[@Name='VIHF_Version']/saml:AttributeValue", text="4.0")
    assert scene.send(scene.publication(bends=Bends(assertion=bend))).outcome == "Success"
    assert scene.send(scene.publication()).fault[2] == "VIHF.VERSION"
    scene.dmp.close()


def test_nothing_of_a_refused_publication_remains(scene: Scene) -> None:
    answered = scene.send(scene.publication(replaces=new_uuid_urn()))
    assert (answered.outcome, answered.status) == ("Failure", 200)
    assert answered.content_type.startswith("multipart/related")
    assert (scene.dmp.store.entries(), scene.dmp.store.submissions(), scene.dmp.store.associations()) == ([], [], [])


def test_documents_outlive_a_restart(tmp_path: Path, opener: Opener) -> None:
    scene = opener(tmp_path)
    wire, uuid = scene.published()
    scene.dmp.close()
    again = opener(tmp_path)
    entry = again.dmp.store.entry(uuid=uuid)
    assert entry is not None
    assert entry.unique_id == wire.unique_id
    assert again.dmp.store.content(wire.unique_id) == wire.content
    assert again.send(wire).broken == ("WSA.REPLAY", "wsa:InvalidAddressingHeader")
    again.dmp.close()


def test_identity_of_the_patient_is_not_in_the_journal_nor_in_refusals(scene: Scene) -> None:
    wrong = edit(slot(KOS, "sourcePatientId"), text=PATIENT.replace("^NH", "^XX"))
    answers = [scene.send(scene.publication()), scene.send(scene.publication(bends=Bends(body=wrong)))]
    answers.append(scene.send(scene.publication(bends=Bends(body=edit(coded(KOS, CLASS), nodeRepresentation="0")))))
    told = repr(scene.dmp.store.verdicts()) + "".join(repr(a.errors) for a in answers)
    assert [v.verdict for v in scene.dmp.store.verdicts()] == ["accepted", "refused", "refused"]
    assert not any(secret in told for secret in ("279035121518989", "PAT-TROIS", "DOMINIQUE", "19790328"))

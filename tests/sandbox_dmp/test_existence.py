"""TD0.2 and TD0.3: the state of the DMP, and the authorisation of the professional who asks."""

from __future__ import annotations

from lxml import etree

from drimbox.sandbox.dmp import Authorisation
from sandbox_dmp.scene import CLOSED, INS, NO_RECORD, OID, PATIENT, USER, Answered, Scene

HL7 = "{urn:hl7-org:v3}"


def observed(answered: Answered) -> dict[str, tuple[str, str]]:
    """Code of each observation, with the code or value and the label that it gives."""
    return {
        o.find(f"{HL7}code").get("code", ""): (  # type: ignore[union-attr]
            o.find(f"{HL7}value").get("code", o.find(f"{HL7}value").get("value", "")),  # type: ignore[union-attr]
            o.find(f"{HL7}value").get("displayName", ""),  # type: ignore[union-attr]
        )
        for o in answered.body.iter(f"{HL7}administrativeObservation")
    }


def code(answered: Answered, path: str) -> str:
    found = answered.body.find(".//" + "/".join(f"{HL7}{step}" for step in path.split("/")))
    return found.get("code", "") if found is not None else ""


def test_active_record_tells_its_patient_and_the_authorisation(scene: Scene) -> None:
    answered = scene.send(scene.existence(scene.caller()))
    assert answered.text(".//{*}Header/{*}Action") == "urn:hl7-org:v3:PRPA_IN201308UV02"
    assert code(answered, "acknowledgement/typeCode") == "AA"
    assert code(answered, "queryAck/queryResponseCode") == "OK"
    assert code(answered, "patient/statusCode") == "active"
    identifier = answered.body.find(f".//{HL7}patient/{HL7}id")
    assert identifier is not None
    assert (identifier.get("root"), identifier.get("extension")) == (OID, INS)
    assert observed(answered) == {"AUTORISATION": ("INEXISTANTE", "")}


def test_first_code_after_the_word_autorisation_is_its_value(scene: Scene) -> None:
    """The one fact that public text tells of the answer (demonstrator.md 7.3)."""
    scene.dmp.set_authorisation(PATIENT, USER, Authorisation.VALID)
    text = etree.tostring(scene.send(scene.existence(scene.caller())).body, encoding="unicode")
    assert text.partition("AUTORISATION")[2].partition(' code="')[2].startswith('VALIDE"')


def test_closed_record_tells_when_and_why(scene: Scene) -> None:
    answered = scene.send(scene.existence(scene.caller(patient=CLOSED)))
    assert code(answered, "patient/statusCode") == "terminated"
    told = observed(answered)
    assert (told["DATE_FERMETURE"], told["MOTIF_FERMETURE"]) == (("20240301", ""), ("2", "Demande"))


def test_no_record_tells_nothing_of_the_patient(scene: Scene) -> None:
    answered = scene.send(scene.existence(scene.caller(patient=NO_RECORD)))
    assert code(answered, "queryAck/queryResponseCode") == "NF"
    assert answered.body.find(f".//{HL7}patientPerson") is None


def test_authorisation_is_given_taken_away_and_outlives_the_question(scene: Scene) -> None:
    reader = scene.reader()
    for action, expected in (("AJOUT", "VALIDE"), ("SUPPRESSION", "INEXISTANTE"), ("AJOUT", "VALIDE")):
        answered = scene.send(scene.authorise(reader, action))
        assert answered.text(".//{urn:si-dmp-habilitations}status") == "OK"
        assert answered.text(".//{*}Header/{*}Action").endswith(":setAuthorizationResponse")
        assert observed(scene.send(scene.existence(reader)))["AUTORISATION"][0] == expected
    assert observed(scene.send(scene.existence(scene.reader(user="899700360001"))))["AUTORISATION"][0] == "INEXISTANTE"


def test_every_state_of_the_authorisation_is_told(scene: Scene) -> None:
    for state in Authorisation:
        scene.dmp.set_authorisation(PATIENT, USER, state)
        assert observed(scene.send(scene.existence(scene.reader())))["AUTORISATION"][0] == state.value

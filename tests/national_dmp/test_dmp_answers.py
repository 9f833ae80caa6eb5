"""What an answer means: every XDS error code, faults, pages that are no SOAP, answers to another question."""

from __future__ import annotations

import pytest
from dmp_answers import (
    ID,
    Sent,
    envelope,
    existence_response,
    extrinsic,
    query_response,
    registry_response,
    retrieve_response,
)
from multidict import CIMultiDict, CIMultiDictProxy

from drimbox.foundation.errors import Busy, DrimboxError, OutcomeUnknown, Rejected, Unavailable
from drimbox.foundation.http_client import Reply
from drimbox.foundation.xml import Builder
from drimbox.identity.ins import Ins
from drimbox.national.dmp import authorisation, errors, existence, mtom, provide, query, retrieve, status
from drimbox.national.dmp.codes import LCM, RS, XDSB, XOP
from drimbox.national.dmp.errors import Disposition, DmpRejected, DmpUnavailable, RegistryError
from drimbox.national.dmp.existence import Authorisation, Existence, RecordStatus
from drimbox.national.dmp.retrieve import DocumentWanted
from drimbox.national.dmp.transport import Request, understand

CHANGES = Request("https://dmp.test/", "urn:a", Builder({"lcm": LCM}, "lcm")("x"), changes=True)
READS = Request("https://dmp.test/", "urn:a", Builder({"lcm": LCM}, "lcm")("x"), changes=False)
SECRET = "PAT-TROIS DOMINIQUE 279035121518989"


def reply(body: bytes | str, http: int = 200, content_type: str = "application/soap+xml", **headers: str) -> Reply:
    raw = body.encode() if isinstance(body, str) else body
    named = {"Content-Type": content_type, **{k.replace("_", "-"): v for k, v in headers.items()}}
    return Reply(http, CIMultiDictProxy(CIMultiDict(named)), raw)


def error(code: str, context: str = SECRET, severity: str = "Error") -> str:
    uri = f"urn:oasis:names:tc:ebxml-regrep:ErrorSeverityType:{severity}"
    return f'<e:RegistryError xmlns:e="{RS}" errorCode="{code}" codeContext="{context}" severity="{uri}"/>'


def fault(code: str, *subcodes: str, reason: str = SECRET) -> str:
    nested = "".join(f"<soap:Subcode><soap:Value>x:{s}</soap:Value>" for s in subcodes) + "</soap:Subcode>" * len(
        subcodes
    )
    return (
        f'<soap:Fault xmlns:x="urn:x"><soap:Code><soap:Value>soap:{code}</soap:Value>{nested}</soap:Code>'
        f'<soap:Reason><soap:Text xml:lang="fr">{reason}</soap:Text></soap:Reason></soap:Fault>'
    )


def raised(received: Reply, request: Request = CHANGES) -> DrimboxError:
    with pytest.raises(DrimboxError) as found:
        understand(received, request, ID, provide.result)
    assert SECRET.split()[0] not in f"{found.value} {found.value!r} {found.value.reason} {found.value.peer_code}"
    return found.value


# --- registry answers -------------------------------------------------------------------------------------------------


def test_success() -> None:
    done = understand(reply(envelope(registry_response())), CHANGES, ID, provide.result)
    assert done == provide.ProvideResult(False, (), ())


def test_success_in_mtom() -> None:
    content_type, body = mtom.write(envelope(registry_response()).encode(), [], "urn:a")
    assert not understand(reply(body, content_type=content_type), CHANGES, ID, provide.result).partial


def test_warnings_do_not_undo_a_success() -> None:
    answer = registry_response("Success", error("XDSExtraMetadataNotSaved", "slot x", "Warning"))
    done = understand(reply(envelope(answer)), CHANGES, ID, provide.result)
    assert [w.code for w in done.warnings] == ["XDSExtraMetadataNotSaved"]
    assert not done.errors


def test_a_partial_success_says_what_failed() -> None:
    answer = registry_response(
        "PartialSuccess", error("XDSRegistryMetadataError", "second") + error("W", "w", "Warning")
    )
    done = understand(reply(envelope(answer)), CHANGES, ID, provide.result)
    assert done.partial
    assert [(e.code, e.context) for e in done.errors] == [("XDSRegistryMetadataError", "second")]
    assert [w.code for w in done.warnings] == ["W"]


@pytest.mark.parametrize("code", errors.KNOWN_CODES)
def test_every_error_code_says_what_can_be_done(code: str) -> None:
    found = raised(reply(envelope(registry_response("Failure", error(code)))))
    expected = {
        Disposition.REJECTED: DmpRejected,
        Disposition.BUSY: Busy,
        Disposition.UNAVAILABLE: DmpUnavailable,
    }[errors.disposition(code)]
    assert type(found) is expected
    assert found.peer_code == code
    if isinstance(found, DmpRejected | DmpUnavailable):
        assert found.contexts == (SECRET,)


def test_all_the_codes_of_the_standard_are_known() -> None:
    busy = {c for c in errors.KNOWN_CODES if errors.disposition(c) is Disposition.BUSY}
    failed = {c for c in errors.KNOWN_CODES if errors.disposition(c) is Disposition.UNAVAILABLE}
    assert busy == {
        "XDSRegistryBusy",
        "XDSRepositoryBusy",
        "XDSRegistryOutOfResources",
        "XDSRepositoryOutOfResources",
    }
    assert failed == {"XDSRegistryNotAvailable", "XDSRegistryError", "XDSRepositoryError"}
    assert len(errors.KNOWN_CODES) == 35


def test_a_code_of_the_dmp_s_own_is_a_refusal_that_keeps_its_text() -> None:
    found = raised(reply(envelope(registry_response("Failure", error("DMPRecordClosed")))))
    assert isinstance(found, DmpRejected)
    assert found.peer_code == "DMPRecordClosed"
    assert "DMPRecordClosed" in found.reason
    assert found.contexts == (SECRET,)


def test_a_code_that_is_no_word_is_not_repeated() -> None:
    found = raised(reply(envelope(registry_response("Failure", error(f"code of {SECRET}")))))
    assert found.peer_code == "inconnu"
    assert isinstance(found, DmpRejected)
    assert found.contexts == (SECRET,)


def test_of_several_errors_the_refusal_decides_and_all_are_kept() -> None:
    listed = error("W", "w", "Warning") + error("XDSRegistryBusy", "a") + error("XDSUnknownPatientId", "b")
    found = raised(reply(envelope(registry_response("Failure", listed))))
    assert isinstance(found, DmpRejected)
    assert found.peer_code == "XDSUnknownPatientId"
    assert [e.code for e in found.errors] == ["W", "XDSRegistryBusy", "XDSUnknownPatientId"]


def test_contexts_are_cut() -> None:
    found = raised(reply(envelope(registry_response("Failure", error("X", "y" * 9000)))))
    assert isinstance(found, DmpRejected)
    assert [len(c) for c in found.contexts] == [2000]


def test_a_failure_without_reason_is_a_refusal() -> None:
    found = raised(reply(envelope(registry_response("Failure"))))
    assert isinstance(found, DmpRejected)
    assert found.peer_code is None


def test_errors_do_not_show_their_context_by_repr() -> None:
    assert SECRET not in repr(RegistryError("X", SECRET))


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (registry_response("Success", error("XDSUnknownPatientId")), "registry-contradiction"),
        (registry_response("urn:other:Status"), "registry-status"),
        ("<r:RegistryResponse xmlns:r='urn:oasis:names:tc:ebxml-regrep:xsd:rs:3.0'/>", "registry-status"),
        ("<other xmlns='urn:other'/>", "soap-unexpected"),
        ("", "soap-envelope"),
    ],
)
def test_an_answer_that_says_nothing_leaves_the_outcome_unknown(answer: str, code: str) -> None:
    found = raised(reply(envelope(answer)))
    assert isinstance(found, OutcomeUnknown)
    assert found.code == code
    asked_again = raised(reply(envelope(answer)), READS)
    assert type(asked_again) is Unavailable


# --- faults and HTTP --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("http", [200, 400, 403, 500])
def test_a_sender_fault_is_a_refusal(http: int) -> None:
    found = raised(reply(envelope(fault("Sender", "InvalidSecurityToken"), ""), http))
    assert isinstance(found, DmpRejected)
    assert found.peer_code == "InvalidSecurityToken"
    assert found.contexts == (SECRET,)


def test_the_innermost_subcode_is_kept() -> None:
    found = raised(reply(envelope(fault("Sender", "InvalidSecurity", "DMPInvalidVIHF")), 500))
    assert found.peer_code == "DMPInvalidVIHF"


@pytest.mark.parametrize("code", ["MustUnderstand", "VersionMismatch", "DataEncodingUnknown", ""])
def test_other_faults_are_refusals_too(code: str) -> None:
    assert isinstance(raised(reply(envelope(fault(code)), 500)), DmpRejected)


def test_a_receiver_fault_leaves_a_change_unknown_and_a_question_open() -> None:
    answer = reply(envelope(fault("Receiver")), 500)
    assert isinstance(raised(answer), OutcomeUnknown)
    assert isinstance(raised(answer, READS), DmpUnavailable)


@pytest.mark.parametrize(
    ("received", "code"),
    [
        (reply("<html><body>maintenance</body></html>", 200, "text/html"), "soap-envelope"),
        (reply("<!DOCTYPE html><html></html>", 200, "text/html"), "xml-dtd"),
        (reply("not xml", 200), "xml-syntax"),
        (reply("", 200), "xml-syntax"),
        (reply("", 500), "xml-syntax"),
        (reply("oops", 502, "text/plain"), "xml-syntax"),
        (reply(envelope(registry_response())[:-20], 200), "xml-syntax"),
        (reply(b"--b\r\n\r\n<a/>", 200, "multipart/related; boundary=b"), "mtom-truncated"),
        (reply(envelope(registry_response()), 200, Content_Encoding="gzip"), "answer-encoding"),
        (reply(envelope(registry_response(), "urn:uuid:other"), 200), "answer-mismatch"),
        (reply(envelope(registry_response()), 500), "answer-http"),
        (reply('<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"/>', 200), "soap-envelope"),
    ],
)
def test_an_answer_that_cannot_be_read(received: Reply, code: str) -> None:
    found = raised(received)
    assert isinstance(found, OutcomeUnknown)
    assert found.code == code
    assert type(raised(received, READS)) is Unavailable


def test_a_failure_under_an_http_error_is_still_understood() -> None:
    found = raised(reply(envelope(registry_response("Failure", error("XDSUnknownPatientId"))), 500))
    assert found.peer_code == "XDSUnknownPatientId"


@pytest.mark.parametrize("http", [301, 302, 400, 401, 403, 404, 413])
def test_a_bare_http_refusal(http: int) -> None:
    found = raised(reply("no", http, "text/plain"))
    assert isinstance(found, DmpRejected)
    assert found.peer_code == f"HTTP {http}"


@pytest.mark.parametrize(
    ("header", "seconds"), [({"Retry_After": "120"}, 120.0), ({}, None), ({"Retry_After": "Wed"}, None)]
)
def test_a_busy_server_says_when_to_come_back(header: dict[str, str], seconds: float | None) -> None:
    for http in (429, 503):
        found = raised(reply("later", http, "text/plain", **header))
        assert isinstance(found, Busy)
        assert found.retry_after == seconds


def test_a_busy_server_may_say_so_in_a_fault() -> None:
    found = raised(reply(envelope(fault("Receiver", "Busy")), 503, Retry_After="7"))
    assert isinstance(found, Busy)
    assert (found.peer_code, found.retry_after) == ("Busy", 7.0)


def test_an_answer_without_relation_is_taken() -> None:
    assert understand(reply(envelope(registry_response(), "")), CHANGES, ID, provide.result)


# --- queries ----------------------------------------------------------------------------------------------------------


def test_entries_of_the_patient_are_read(ins: Ins) -> None:
    answer = reply(envelope(query_response(extrinsic("urn:uuid:1", ins.cx()), total="1")))
    (entry,) = understand(answer, READS, ID, lambda a: query.entries(a, ins))
    assert entry.entry_id == "urn:uuid:1"
    assert entry.is_of(ins)


def test_an_empty_answer_is_empty(ins: Ins) -> None:
    assert understand(reply(envelope(query_response(""))), READS, ID, lambda a: query.entries(a, ins)) == ()


@pytest.mark.requirement("DB.CO.68")
def test_one_entry_of_another_patient_spoils_the_whole_answer(ins: Ins, other_ins: Ins) -> None:
    both = extrinsic("urn:uuid:1", ins.cx()) + extrinsic("urn:uuid:2", other_ins.cx())
    with pytest.raises(DrimboxError) as found:
        understand(reply(envelope(query_response(both))), READS, ID, lambda a: query.entries(a, ins))
    assert found.value.code == "answer-patient"
    assert type(found.value).__name__ == "IdentityMismatch"


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (query_response("", "Failure", error("XDSTooManyResults")), Rejected, "dmp-rejected"),
        (query_response("", "PartialSuccess", error("XDSRegistryNotAvailable")), Unavailable, "dmp-failed"),
        (query_response(None), Unavailable, "answer-list"),
        (query_response('<ObjectRef id="urn:uuid:1"/>', total="2"), Unavailable, "answer-truncated"),
        (query_response("<ObjectRef/>"), Unavailable, "metadata-identifier"),
    ],
)
def test_an_incomplete_list_is_never_taken_for_the_whole(
    answer: str, kind: type[DrimboxError], code: str, ins: Ins
) -> None:
    for read in (query.references, lambda a: query.entries(a, ins)):
        with pytest.raises(kind) as found:
            understand(reply(envelope(answer)), READS, ID, read)  # type: ignore[arg-type]
        assert found.value.code == code


def test_references_are_read_once_each() -> None:
    two = '<ObjectRef id="urn:uuid:1"/><ObjectRef id="urn:uuid:1"/><ObjectRef id="urn:uuid:2"/>'
    assert understand(reply(envelope(query_response(two))), READS, ID, query.references) == ("urn:uuid:1", "urn:uuid:2")


# --- retrieval --------------------------------------------------------------------------------------------------------


WANTED = [DocumentWanted("1.2", "1.2.3", "0c7a623fd2bbc05b06423be359e4021d36e721ad", 3)]


def test_a_document_is_given_when_it_is_the_one_described() -> None:
    received = reply(envelope(retrieve_response(Sent())))
    (document,) = understand(received, READS, ID, lambda a: retrieve.documents(a, WANTED))
    assert (document.content, document.mime_type) == (b"\x00\x01\x02", "application/dicom")


def test_documents_come_in_mtom_parts() -> None:
    body = retrieve_response(Sent(content=f'<xop:Include xmlns:xop="{XOP}" href="cid:d%401"/>'))
    content_type, packed = mtom.write(envelope(body).encode(), [mtom.Attachment("d@1", b"\x00\x01\x02")], "urn:a")
    (document,) = understand(
        reply(packed, content_type=content_type), READS, ID, lambda a: retrieve.documents(a, WANTED)
    )
    assert document.content == b"\x00\x01\x02"


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (retrieve_response(Sent(content="AAED")), Rejected, "document-hash"),
        (retrieve_response(Sent(content="AAECAA==")), Rejected, "document-hash"),
        (retrieve_response(Sent("6.6.6")), Rejected, "document-foreign"),
        (retrieve_response(Sent(), Sent()), Rejected, "document-foreign"),
        (retrieve_response(), Unavailable, "answer-truncated"),
        (retrieve_response(Sent(unique_id="")), Unavailable, "answer-document"),
        (retrieve_response(Sent(content="AA*")), Unavailable, "document-base64"),
        (
            retrieve_response(Sent(content=f'<xop:Include xmlns:xop="{XOP}" href="cid:x"/>')),
            Unavailable,
            "xop-missing",
        ),
        (retrieve_response(state="Failure", errors=error("XDSDocumentUniqueIdError")), Rejected, "dmp-rejected"),
        (
            retrieve_response(Sent(), state="PartialSuccess", errors=error("XDSDocumentUniqueIdError")),
            Rejected,
            "dmp-rejected",
        ),
        (f'<RetrieveDocumentSetResponse xmlns="{XDSB}"/>', Unavailable, "registry-status"),
    ],
)
def test_a_document_that_is_not_the_one_asked_for(answer: str, kind: type[DrimboxError], code: str) -> None:
    with pytest.raises(kind) as found:
        understand(reply(envelope(answer)), READS, ID, lambda a: retrieve.documents(a, WANTED))
    assert found.value.code == code


# --- TD0.2, TD0.3, ITI-57 ---------------------------------------------------------------------------------------------


def observation(code: str, value: str) -> str:
    return (
        f'<subjectOf1><administrativeObservation><code code="{code}"/>{value}</administrativeObservation></subjectOf1>'
    )


def told(answer: str, ins: Ins) -> Existence:
    return understand(reply(envelope(answer)), READS, ID, lambda a: existence.result(a, ins))


@pytest.mark.requirement("DMP/UX.08")
def test_an_open_record_and_its_authorisation(ins: Ins) -> None:
    for code, expected in (
        ("VALIDE", Authorisation.VALID),
        ("INEXISTANTE", Authorisation.ABSENT),
        ("EXPIREE", Authorisation.EXPIRED),
        ("INTERDIT", Authorisation.FORBIDDEN),
        ("AUTRE_CHOSE", Authorisation.UNKNOWN),
    ):
        found = told(existence_response(ins, observation("AUTORISATION", f'<value code="{code}"/>')), ins)
        assert found == Existence(RecordStatus.ACTIVE, expected)
        assert found.may_consult is (code == "VALIDE")
        assert found.may_feed


def test_without_an_authorisation_told_none_is_supposed(ins: Ins) -> None:
    found = told(existence_response(ins), ins)
    assert found.authorisation is Authorisation.UNKNOWN
    assert not found.may_consult


def test_a_closed_record(ins: Ins) -> None:
    observations = (
        observation("AUTORISATION", '<value code="VALIDE"/>')
        + observation("DATE_FERMETURE", '<value value="20240131"/>')
        + observation("MOTIF_FERMETURE", '<value code="DECES" displayName="Décès"/>')
    )
    found = told(existence_response(ins, observations, state="terminated"), ins)
    assert found == Existence(RecordStatus.CLOSED, Authorisation.VALID, "20240131", "Décès")
    assert not found.may_consult
    assert not found.may_feed


def test_no_record(ins: Ins) -> None:
    found = told(existence_response(ins, code="NF"), ins)
    assert found.status is RecordStatus.NONE
    assert not found.may_feed


def test_a_state_not_known_is_not_open(ins: Ins) -> None:
    assert told(existence_response(ins, state="whatever"), ins).status is RecordStatus.UNKNOWN


def test_the_acknowledgement_may_be_an_attribute(ins: Ins) -> None:
    answer = existence_response(ins, ack="").replace("<acknowledgement>", '<acknowledgement typeCode="AA">')
    assert told(answer, ins).status is RecordStatus.ACTIVE


def test_another_patient_in_the_answer_is_a_mismatch(ins: Ins, other_ins: Ins) -> None:
    for wrong in (
        existence_response(other_ins),
        existence_response(ins).replace(
            "<statusCode", f'<id root="{ins.oid}" extension="162018885045327"/><statusCode'
        ),
    ):
        with pytest.raises(DrimboxError) as found:
            told(wrong, ins)
        assert found.value.code == "answer-patient"


def test_a_refused_question(ins: Ins) -> None:
    detail = (
        '<typeCode code="AE"/><acknowledgementDetail><code code="DMPInvalidData"/>'
        f"<text>{SECRET}</text></acknowledgementDetail>"
    )
    with pytest.raises(DmpRejected) as found:
        told(existence_response(ins, ack=detail), ins)
    assert found.value.peer_code == "DMPInvalidData"
    assert found.value.contexts == (SECRET,)
    assert SECRET not in str(found.value)


@pytest.mark.parametrize(
    "damage",
    [
        ('<typeCode code="AA"/>', ""),
        ('code="OK"', 'code="QE"'),
        ("registrationEvent", "otherEvent"),
        ("<patient>", "<person>"),
    ],
)
def test_an_answer_that_is_not_understood_is_no_answer(damage: tuple[str, str], ins: Ins) -> None:
    answer = existence_response(ins)
    damaged = (
        answer.replace(*damage).replace("</patient>", "</person>") if "person" in damage[1] else answer.replace(*damage)
    )
    with pytest.raises(Unavailable):
        told(damaged, ins)


def test_an_observation_told_twice_is_not_believed(ins: Ins) -> None:
    both = observation("AUTORISATION", '<value code="INTERDIT"/>') + observation(
        "AUTORISATION", '<value code="VALIDE"/>'
    )
    with pytest.raises(Unavailable):
        told(existence_response(ins, both), ins)


@pytest.mark.parametrize("status_word", ["OK", "DMPOk", "DMPOK"])
def test_an_authorisation_is_recorded(status_word: str) -> None:
    answer = (
        '<setAuthorizationResponse xmlns="urn:si-dmp-habilitations">'
        f"<status>{status_word}</status></setAuthorizationResponse>"
    )
    understand(reply(envelope(answer)), CHANGES, ID, authorisation.result)


def test_an_authorisation_refused() -> None:
    answer = (
        '<setAuthorizationResponse xmlns="urn:si-dmp-habilitations"><return><status>DMPAccessDenied</status>'
        f"<context>{SECRET}</context></return></setAuthorizationResponse>"
    )
    with pytest.raises(DmpRejected) as found:
        understand(reply(envelope(answer)), CHANGES, ID, authorisation.result)
    assert found.value.peer_code == "DMPAccessDenied"
    assert found.value.contexts == (SECRET,)


def test_an_authorisation_without_status_is_unknown() -> None:
    answer = '<setAuthorizationResponse xmlns="urn:si-dmp-habilitations"/>'
    with pytest.raises(OutcomeUnknown):
        understand(reply(envelope(answer)), CHANGES, ID, authorisation.result)


@pytest.mark.requirement("DMP/CONF.03")
def test_a_status_change_is_done_or_not() -> None:
    assert understand(reply(envelope(registry_response())), CHANGES, ID, status.result) is None
    with pytest.raises(DmpRejected):
        understand(
            reply(envelope(registry_response("Failure", error("XDSMetadataUpdateError")))), CHANGES, ID, status.result
        )

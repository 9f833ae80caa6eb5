"""How a code leaves: what the report says of the patient, e-mail and webhook, really sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from link_world import PATIENT, Place
from starlette.requests import Request
from starlette.responses import Response

from drimbox.foundation import xml
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.identity.ins import Ins
from drimbox.identity.traits import Sex
from drimbox.link.address import Link, ReportId
from drimbox.link.challenge import Answers, Incomplete, answers_of, right
from drimbox.link.contact import contact_in, contact_of
from drimbox.link.ports import Code, Contact
from drimbox.link.senders import MailSender, WebhookSender
from drimbox.link.visit import Visitor
from drimbox.notification.mail import MailChannel
from drimbox.notification.webhook import WebhookChannel
from drimbox.sandbox.listeners import ClientCertificate, caller_context, listener_context
from drimbox.sandbox.phone import PATH, phone_app
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.sandbox.ris import letters
from notification.smtp_server import SmtpServer, smtp_server
from publication.publication_examples import NOW, letter_of

INS = Ins.of("279035121518989", "1.2.250.1.213.1.4.10")
CODE = Code("12345678", 10, INS, Contact("p@patient.mssante.fr", "0647151010", "DOMPREMY"))
PLACE = "Centre de radiologie Ambroise"


async def test_the_e_mail_says_the_code_and_nothing_of_the_exam() -> None:
    async with smtp_server(SmtpServer()) as server:
        channel = MailChannel("127.0.0.1", server.port, "none", None, "drimbox@site.example", (), SystemClock())
        await MailSender(channel, PLACE).send(CODE)
        with pytest.raises(Rejected) as refused:
            await MailSender(channel, PLACE).send(Code("1" * 8, 10, INS, Contact()))
        assert refused.value.code == "link-no-address"
    [letter] = server.letters
    assert letter.recipients == ["p@patient.mssante.fr"]
    assert letter.message["Subject"] == "Votre code d'accès"
    text = letter.message.get_content()
    assert "1234 5678" in text
    assert "10 minutes" in text
    for word in ("PAT-TROIS", "2790351", "examen", "http"):
        assert word not in text + str(letter.message)


async def test_the_webhook_is_told_whom_to_reach(authority: TestAuthority) -> None:
    pair = authority.issue(
        Profile.SSL_SERV, "phone", common_name="localhost", unit="1", organisation="X", hosts=("localhost",)
    )
    tls = listener_context(pair, authority, ClientCertificate.UNASKED)
    async with HttpClient() as http, serving(phone_app(b"s3cret"), host="localhost", port=0, tls=tls) as port:
        url, ours = f"https://localhost:{port}{PATH}", caller_context(authority)
        await WebhookSender(WebhookChannel(http, url, ours, lambda: b"s3cret"), PLACE).send(CODE)
        [message] = json.loads((await http.send("GET", url, tls=ours)).body)
        assert message.pop("text").startswith("Votre code d'accès : 1234 5678")
        assert message == {
            "code": "12345678",
            "valid_minutes": 10,
            "ins": INS.matricule,
            "ins_oid": INS.oid,
            "email": "p@patient.mssante.fr",
            "mobile": "0647151010",
        }
        with pytest.raises(Rejected):
            await WebhookSender(WebhookChannel(http, url, ours, lambda: b"other"), PLACE).send(CODE)

    async def busy(scope, receive, send):  # type: ignore[no-untyped-def]
        assert Request(scope).method == "POST"
        await Response(status_code=503)(scope, receive, send)

    async with HttpClient() as http, serving(busy, host="localhost", port=0, tls=tls) as port:
        channel = WebhookChannel(http, f"https://localhost:{port}/", caller_context(authority))
        with pytest.raises(Unavailable):
            await WebhookSender(channel, PLACE).send(CODE)


def test_the_official_reports_say_how_the_patient_is_reached(samples: Path) -> None:
    for name in ("CR_E", "CR_C"):
        contact = contact_of(xml.parse((samples / "cda" / f"{name}.xml").read_bytes()))
        assert contact.email == "279035121518989@patient.mssante.fr"
        assert contact.mobile == "0647151010"
        assert contact.birth_city in ("MAZOIRES", "DOMPREMY")


@pytest.mark.parametrize(
    ("told", "email", "mobile"),
    [
        ("mailto:a@b.fr\r\nBcc: c@d.fr", "", ""),
        ("mailto:a@b.fr,c@d.fr", "", ""),
        ("mailto:a@b.fr?cc=c@d.fr", "", ""),
        ("mailto:&lt;a@b.fr&gt;", "", ""),
        ("mailto:" + "a" * 65 + "@b.fr", "", ""),
        ("mailto:é@b.fr", "", ""),
        ("MAILTO:a.b+c@d-e.example.fr", "a.b+c@d-e.example.fr", ""),
        ("tel:+33 6 47 15 10 10", "", "+33647151010"),
        ("tel:0144534551", "", ""),
        ("tel:0647151010;ext=1", "", ""),
        ("https://evil.test", "", ""),
    ],
)
def test_only_plain_addresses_are_written_to(told: str, email: str, mobile: str) -> None:
    role = f'<recordTarget><patientRole><telecom value="{told}"/></patientRole></recordTarget>'
    root = xml.parse(f'<ClinicalDocument xmlns="urn:hl7-org:v3">{role}</ClinicalDocument>'.encode())
    assert contact_of(root) == Contact(email, mobile)


@given(st.binary(max_size=400))
def test_a_message_that_cannot_be_read_gives_no_contact(garbage: bytes) -> None:
    assert contact_in(garbage) == Contact()
    cut = letters.oru(letter_of(), NOW)
    assert contact_in(cut[: len(garbage) * 7]) == Contact()
    assert contact_in(cut).birth_city == "DOMPREMY"


@given(st.dictionaries(st.sampled_from(["naissance", "sexe", "lieu"]), st.text(max_size=100)))
def test_any_form_is_an_answer_or_says_what_lacks(fields: dict[str, str]) -> None:
    try:
        answers = answers_of(fields)
    except Incomplete:
        return
    assert isinstance(answers, Answers)
    assert answers.place.strip()


async def test_each_trait_must_be_right(place: Place) -> None:
    named = await place.desk.entrance.agreement.published(
        Link("1.2.250.1.213.4.5.2.1.105", "ACN105", ReportId.of(letter_of().exam.document_id)), Visitor.PATIENT
    )
    contact = Contact(birth_city="Saint-Étienne-l'Allier")
    assert right(answers_of(PATIENT | {"lieu": "51215"}), named.manifest, contact)
    for lieu in ("SAINT ETIENNE L ALLIER", "st etienne l’allier", "  Saint-Etienne-l'Allier "):
        assert right(answers_of(PATIENT | {"lieu": lieu}), named.manifest, contact), lieu
    for wrong in ({"naissance": "29/03/1979"}, {"sexe": "M"}, {"lieu": "Dompremy"}, {"lieu": "51216"}, {"lieu": "5"}):
        assert not right(answers_of(PATIENT | {"lieu": "51215"} | wrong), named.manifest, contact), wrong
    # A report that does not say where opens by the code alone, never by an empty place.
    assert not right(Answers(answers_of(PATIENT).birth_date, Sex.FEMALE, ""), named.manifest, Contact())

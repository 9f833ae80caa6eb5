"""The simulated RIS: official templates filled in, and its page."""

import asyncio
import datetime as dt
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from drimbox.reports.mllp import Frame, Limits, listening
from drimbox.sandbox.ris import exams, letters
from drimbox.sandbox.ris.app import Mllp, call_parameters, ris_app


def test_placeholders_of_an_official_message_are_filled_in(samples: Path) -> None:
    template = (samples / "hl7v2" / "CR_E-ORU.hl7").read_bytes()
    message = letters.filled_in(template, letters.Letter(exams.exam("E"), "ID42"), dt.datetime.now(dt.UTC))
    assert b"{{" not in message
    assert message.startswith(b"MSH|^~\\&|RIS-A|AMBROISE|DRIMBOX|SOURCE|ID42||ORU^R01^ORU_R01|ID42|P|2.5")


def test_the_calling_page_posts_the_context_and_never_puts_it_in_an_address() -> None:
    page = TestClient(ris_app("RIS B", call_url="https://localhost:1/drim")).get("/")
    assert 'method="post" action="https://localhost:1/drim"' in page.text
    for name, value in call_parameters(letters.Identity()).items():
        assert f'name="{name}"' in page.text
        assert value.replace("&", "&amp;") in page.text


def test_a_source_that_is_down_is_said_to_be_down() -> None:
    client = TestClient(ris_app("RIS A", mllp=Mllp("127.0.0.1", 1)))
    page = client.post("/envoyer", data={"exam": "E"})
    assert page.status_code == 502
    assert "La DRIMbox ne répond pas" in page.text
    assert client.post("/envoyer", data={"exam": "??"}).status_code == 400
    assert client.post("/envoyer", data={"exam": "E", "message": "??"}).status_code == 400


@pytest.mark.parametrize(
    ("message", "beginning", "said"),
    [
        ("", b"ORC|NW|", "Compte rendu de l’examen W accepté"),
        ("changed", b"ORC|XO|", "Changement de l’examen W accepté"),
        ("deleted", b"ORC|CA|", "Retrait de l’examen W accepté"),
    ],
)
async def test_the_page_sends_reports_and_order_messages(message: str, beginning: bytes, said: str) -> None:
    received: list[bytes] = []

    async def take(frame: Frame, peer: str) -> bytes:
        received.append(frame.content)
        return b"MSH|^~\\&|||||||ACK\rMSA|AA|1\r"

    async with listening(take, host="127.0.0.1", port=0, limits=Limits()) as port:
        client = TestClient(ris_app("RIS A", mllp=Mllp("127.0.0.1", port)))
        page = await asyncio.to_thread(client.post, "/envoyer", data={"exam": "W", "message": message})
    assert page.status_code == 200
    assert said in " ".join(page.text.split())
    assert beginning in received[0]

"""The answer to a message (CI-SIS volet; official-data.md 11.3): AA, AE or AR, with ERR otherwise.

A report gets an ACK. An order message (OMI^O23) gets an ORI^O24 or an ACK: no text settles which, so it is a setting.
"""

from __future__ import annotations

import datetime as dt
from enum import StrEnum

from drimbox.foundation.clock import PARIS
from drimbox.foundation.uids import new_secret
from drimbox.reports.hl7 import Delimiters, Message, MessageError, escape

_STANDARD = Delimiters("|", "^", "~", "\\", "&")
_CONDITIONS = {
    "100": "Segment sequence error",
    "101": "Required field missing",
    "102": "Data type error",
    "103": "Table value not found",
    "200": "Unsupported message type",
    "201": "Unsupported event code",
    "203": "Unsupported version",
    "205": "Duplicate key identifier",
    "207": "Application error",
}


class Code(StrEnum):
    """MSA-1. ``AA``: understood, stored, our responsibility. ``AE``: wrong content. ``AR``: not now, send it again."""

    ACCEPTED = "AA"
    ERROR = "AE"
    REJECTED = "AR"


class OrderAnswer(StrEnum):
    """The type of the answer to an order message (HL7 2.5.1 4.16)."""

    ORI = "ORI"
    ACK = "ACK"


def answer(
    message: Message | None,
    code: Code,
    now: dt.datetime,
    error: MessageError | None = None,
    *,
    orders: OrderAnswer = OrderAnswer.ORI,
) -> bytes:
    """The acknowledgement of ``message`` (None when it could not even be read), without MLLP framing, in UTF-8."""
    header = message.header if message else None

    def sent(number: int, component: int = 1) -> str:
        return escape(header.value(number, component), _STANDARD) if header else ""

    version = sent(12) or "2.5"
    stamp = now.astimezone(PARIS).strftime("%Y%m%d%H%M%S%z")
    kind, identifier = _kind(message, orders), new_secret()[:20]
    segments = [
        rf"MSH|^~\&|{sent(5)}|{sent(6)}|{sent(3)}|{sent(4)}|{stamp}||{kind}|{identifier}|{sent(11) or 'P'}|{version}"
        "|||||FRA|UNICODE UTF-8",
        f"MSA|{code}|{sent(10)}",
    ]
    if error is not None:
        condition = error.condition
        text = _CONDITIONS.get(condition, "Application error")
        segments.append(f"ERR||{error.location}|{condition}^{text}^HL70357|E||||{escape(error.reason, _STANDARD)}")
    return "".join(segment + "\r" for segment in segments).encode("utf-8")


def _kind(message: Message | None, orders: OrderAnswer) -> str:
    """MSH-9: the trigger event of an ACK is the message's own, that of the answer to an OMI^O23 is O24."""
    kind, event = message.type if message else ("", "")
    if kind == "OMI" and orders is OrderAnswer.ORI:
        return "ORI^O24^ORI_O24"
    return f"ACK^{escape(event, _STANDARD)}^ACK" if event else "ACK"

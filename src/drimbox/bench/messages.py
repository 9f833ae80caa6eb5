"""Reports to send: each a message, a document and a study of its own, of a given size."""

from __future__ import annotations

import base64
import datetime as dt
import os
from dataclasses import replace

from drimbox.sandbox.ris.exams import Exam, exam
from drimbox.sandbox.ris.letters import Letter, oru

# What the official exams weigh, and what a report of several pages with its letterhead does.
SMALL, LARGE = 30_000, 420_000
_ROOT = "1.2.250.1.213.4.5.99"
_ACCESSION_ISSUER = "1.2.250.1.925.994044.27"


def study_uid(number: int) -> str:
    """The study of the report of that number."""
    return f"{_ROOT}.1.{number}"


def accession(number: int) -> str:
    """Its accession number."""
    return f"BA{number}"


def exam_of(number: int) -> Exam:
    """An exam of the bench: one order, one study."""
    return replace(
        exam("A"),
        document_id=f"{_ROOT}.4.{number}",
        studies=(study_uid(number),),
        orders=((f"BO{number}", accession(number)),),
        accession_issuer=_ACCESSION_ISSUER,
    )


class Messages:
    """Makes the messages of one run; ``run`` sets their control ids apart from those of other runs."""

    def __init__(self, run: str, size: int) -> None:
        self._run = run
        self._size = size
        self._now = dt.datetime.now(dt.UTC)
        # As hard to compress as the PDF that it stands for.
        self._filler = os.urandom(size)

    def one(self, number: int, *, second: bool = False) -> bytes:
        """The report of that number, or the one that replaces it and shows it to fewer; padded to the size by what
        follows the end of its PDF.
        """
        letter = Letter(exam_of(number), f"{self._run}-{number}")
        if second:
            letter = letter.corrected(f"{_ROOT}.5.{number}", f"{self._run}-{number}-2")
            letter = replace(letter, flags=letter.flags | {"MODIF_CONF_CODE", "INVISIBLE_PATIENT"})
        raw = oru(letter, self._now)
        head, mark, rest = raw.partition(b"^Base64^")
        encoded, bar, tail = rest.partition(b"|")
        document = base64.b64decode(encoded)
        before, opening, body = document.partition(b'representation="B64">')
        pdf, closing, after = body.partition(b"</text>")
        # The body is encoded twice: in the CDA, and with it in the message.
        missing = (self._size - len(raw)) * 9 // 16
        filled = base64.b64encode(base64.b64decode(pdf) + b"\n%" + self._filler[: max(missing, 0)])
        whole = before + opening + filled + closing + after
        return head + mark + base64.b64encode(whole) + bar + tail

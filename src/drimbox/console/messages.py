"""The raw HL7 message behind a line of the queue, cut so that people can read it: long encoded parts are folded."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from drimbox.foundation.errors import Refused
from drimbox.identity.ins import Ins
from drimbox.reports import hl7
from drimbox.reports.orders import ORDER, read_order
from drimbox.reports.reading import read_report
from drimbox.store.database import Pool

SHOWN_BYTES = 2 * 2**20
"""How much of a message is shown on a page; the rest is for the download."""

_LINE_END = re.compile(r"\r\n|\r|\n")
_SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}\|")
_ENCODED = re.compile(r"[A-Za-z0-9+/=\n]{120,}")


@dataclass(frozen=True, slots=True, repr=False)
class StoredMessage:
    """A message as it came in; ``raw`` may be its beginning only."""

    id: int
    received_at: dt.datetime
    sender: str
    control_id: str
    peer: str
    accepted: bool
    size: int
    raw: bytes = field(repr=False)
    answer: bytes = field(repr=False)

    @property
    def cut(self) -> bool:
        return len(self.raw) < self.size


@dataclass(frozen=True, slots=True, repr=False)
class Piece:
    """A part of a line: ``folded`` when it is encoded, long, and of no use to the eye."""

    text: str
    folded: bool = False


class Messages:
    """Reads the table ``message``. Who may is for the caller to say, and to write down."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def id_of(self, message_id: int | None, report_id: int | None) -> int | None:
        """The message of a line of the queue: the one it names, or the one its report came by."""
        if message_id is not None or report_id is None:
            return message_id
        async with self._pool.connection() as connection:
            row = await (
                await connection.execute("SELECT message_id FROM report WHERE id = %s", (report_id,))
            ).fetchone()
        return row["message_id"] if row else None

    async def read(self, message_id: int, limit: int | None = None) -> StoredMessage | None:
        """The message, its first ``limit`` octets when that is given."""
        async with self._pool.connection() as connection:
            row = await (
                await connection.execute(
                    "SELECT id, received_at, sender, control_id, peer, accepted, length(raw) AS size, answer, "
                    "substring(raw FROM 1 FOR coalesce(%(limit)s::int, length(raw))) AS raw "
                    "FROM message WHERE id = %(id)s",
                    {"id": message_id, "limit": limit},
                )
            ).fetchone()
        return StoredMessage(**{**row, "raw": bytes(row["raw"]), "answer": bytes(row["answer"])}) if row else None


def patient_of(raw: bytes) -> Ins | None:
    """Whose message it is, for the journal; None when it does not tell."""
    try:
        message = hl7.parse(raw)
        return read_order(message).ins if message.type[0] == ORDER else read_report(message).patient.ins
    except Refused:
        return None


def readable(data: bytes) -> list[list[Piece]]:
    """The segments of a message, each in pieces. Any octets are taken: it may be here because it is a bad one."""
    return [list(_pieces(segment)) for segment in _segments(_text(data))]


def _segments(text: str) -> Iterator[str]:
    """Segments with the lines that go on from them: senders break base64 over several."""
    pending: list[str] = []
    for line in _LINE_END.split(text.strip("\r\n")):
        if pending and _SEGMENT.match(line):
            yield "\n".join(pending)
            pending = []
        pending.append(line)
    yield "\n".join(pending)


def _pieces(segment: str) -> Iterator[Piece]:
    position = 0
    for run in _ENCODED.finditer(segment):
        if run.start() > position:
            yield Piece(segment[position : run.start()])
        yield Piece(run[0], folded=True)
        position = run.end()
    if position < len(segment) or not segment:
        yield Piece(segment[position:])


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # A cut may go through a character; anything else is a message of the eight-bit kind.
        if error.start >= len(data) - 3:
            return data[: error.start].decode("utf-8-sig")
        return data.decode("iso8859-15")

"""Messages derived from the official files: other carriers, operations, values and flags, every other octet as it was.

The official files come as ORU for most exams and with the values of one vintage; a homologation sends others. What is
derived here keeps the segments of the official ones and changes what official-data.md 3, 4 and 11 say may change.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

_OPERATIONS = {"new": ("NW", "F", "T02"), "replace": ("RO", "C", "T10"), "delete": ("CA", "D", "T04")}
_EVN = "EVN||20211005152908|||PAT^ADMIN PAT-Cpage I^ADM PAT^^^^^^CPAGE&1.2.250.1.154&ISO^U^^^RI|20211005152908"
_DOCUMENT = re.compile(r"\^Base64\^[A-Za-z0-9+/=\s]*")


@dataclass(frozen=True)
class Official:
    """One message: its segments, without line ends."""

    segments: tuple[str, ...]

    # --- what it says -------------------------------------------------------------------------------------------------

    @property
    def document(self) -> bytes:
        """The CDA of the first document."""
        found = _DOCUMENT.search(self.segment("OBX"))
        assert found is not None
        return base64.b64decode(found[0][len("^Base64^") :])

    @property
    def document_id(self) -> str:
        """The id of the CDA: the first of its header."""
        found = re.search(r'<id root="([0-9.]+)"/>', self.document.decode("utf-8"))
        assert found is not None
        return found[1]

    def segment(self, name: str) -> str:
        return next(s for s in self.segments if s.startswith(f"{name}|"))

    def field(self, name: str, number: int) -> str:
        fields = self.segment(name).split("|")
        return fields[number - (name == "MSH")]

    def flag(self, code: str) -> str:
        [found] = [s for s in self.segments if f"|{code}^" in s]
        return found.split("|")[5][0]

    # --- the same, otherwise ------------------------------------------------------------------------------------------

    def with_segment(self, name: str, text: str) -> Official:
        """The first segment of that name replaced; taken out when ``text`` is empty."""
        index = next(i for i, s in enumerate(self.segments) if s.startswith(f"{name}|"))
        return Official((*self.segments[:index], *([text] if text else []), *self.segments[index + 1 :]))

    def with_field(self, name: str, number: int, value: str) -> Official:
        fields = self.segment(name).split("|")
        number -= name == "MSH"
        fields += [""] * (number + 1 - len(fields))
        fields[number] = value
        return self.with_segment(name, "|".join(fields))

    def with_document(self, document: bytes) -> Official:
        encoded = base64.b64encode(document).decode()
        return self.with_segment("OBX", _DOCUMENT.sub(lambda _: f"^Base64^{encoded}", self.segment("OBX"), count=1))

    def with_flags(self, **flags: str) -> Official:
        """``MASQUE_PS="Y"`` and so on; None would be no flag at all: an empty string takes its segment out."""
        made = []
        for segment in self.segments:
            code = next((c for c in flags if f"|{c}^" in segment), None)
            if code is None:
                made.append(segment)
            elif flags[code]:
                fields = segment.split("|")
                fields[5] = flags[code] + fields[5][1:]
                made.append("|".join(fields))
        return Official(tuple(made))

    def identified(self, control_id: str = "") -> Official:
        """Under a message identifier of its own (MSH-7 and MSH-10, as an official run fills them in)."""
        control = control_id or f"MSG{secrets.token_hex(6)}"
        return self.with_field("MSH", 7, control).with_field("MSH", 10, control)

    def changed(self, values: Mapping[str, str]) -> Official:
        """Values replaced in the message and in the document alike, all at once, each where it stands alone."""
        whole = re.compile(r"(?<![\w.])(" + "|".join(map(re.escape, values)) + r")(?![\w]|\.\d)")

        def swap(text: str) -> str:
            return whole.sub(lambda found: values[found[0]], text)

        document = swap(self.document.decode("utf-8")).encode() if self.has_document else None
        plain = [
            segment if "^Base64^" in segment or segment.startswith("MSH") else swap(segment)
            for segment in self.segments
        ]
        made = Official(tuple(plain))
        return made.with_document(document) if document is not None else made

    @property
    def has_document(self) -> bool:
        return any("^Base64^" in segment for segment in self.segments)

    def doing(self, operation: str) -> Official:
        """The same document for another operation: ORC-1, OBX-11 and the event of an MDM (official-data.md 4.3)."""
        order, status, event = _OPERATIONS[operation]
        made = self.with_field("ORC", 1, order).with_field("OBX", 11, status)
        if made.field("MSH", 9).startswith("MDM"):
            made = made.with_field("MSH", 9, f"MDM^{event}^MDM_T02")
        return made

    def replacing(self, old: str, new: str) -> Official:
        """A new version of the document: id ``new``, version 2, RPLC to ``old`` (official-data.md 4.3)."""
        assert self.document_id == old
        text = self.document.decode("utf-8").replace(f'<id root="{old}"/>', f'<id root="{new}"/>', 1)
        text = re.sub(r'<versionNumber value="\d+"', '<versionNumber value="2"', text)
        related = (
            f'<relatedDocument typeCode="RPLC"><parentDocument><id root="{old}"/></parentDocument></relatedDocument>'
        )
        text = text.replace("<componentOf>", f"{related}<componentOf>", 1)
        return self.with_document(text.encode()).doing("replace")

    def as_mdm(self) -> Official:
        """The same report in an MDM of HL7 2.6 (official-data.md 4.2, 11.1, 11.2)."""
        assert self.field("MSH", 9).startswith("ORU")
        event = next(e for order, _, e in _OPERATIONS.values() if order == self.field("ORC", 1))
        header = self.with_field("MSH", 9, f"MDM^{event}^MDM_T02").with_field("MSH", 12, "2.6").segment("MSH")
        text = self.document.decode("utf-8")
        parent = re.search(r'typeCode="RPLC"[\s\S]*?<id root="([0-9.]+)"', text) if event == "T10" else None
        replaced = parent[1] if parent else ""
        document = self.segment("OBX").replace("^TEXT^XML^", "^text^XML^")
        rest = self.segments[self.segments.index(self.segment("OBX")) + 1 :]
        return Official(
            (
                header,
                _EVN,
                self.segment("PID"),
                self.segment("PV1"),
                self.segment("ORC"),
                f"OBR|1|||{self.field('OBR', 4)}|",
                f"TXA|1|18748-4|TEXT|202212160932||||||||{self.document_id}|{replaced}||||AU|||||801234564895",
                document,
                *(re.sub(r"^(OBX\|\d+)\|CE\|", r"\1|CWE|", segment) for segment in rest),
            )
        )

    # --- on the wire --------------------------------------------------------------------------------------------------

    def wire(self, *, line_end: str = "\r", charset: str = "utf-8", wrap: int = 0) -> bytes:
        """The octets; ``wrap`` breaks the base64 over lines of so many characters."""
        segments = list(self.segments)
        if wrap:
            segments = [_wrapped(s, wrap, line_end) for s in segments]
        text = line_end.join(segments)
        if charset != "utf-8":
            text = text.replace("UNICODE UTF-8", "8859/15")
        return text.encode(charset)


def load(samples: Path, name: str, application: str = "RIS-A") -> Official:
    """An official message file, its placeholders filled in, under a message identifier of its own."""
    text = (samples / "hl7v2" / name).read_bytes().decode("utf-8")
    values = {
        "{{applicationSupplier}}": application,
        "{{facilitySupplier}}": "AMBROISE",
        "{{applicationReceiver}}": "DRIMBOX",
        "{{facilityReceiver}}": "SOURCE",
    }
    for mark, value in values.items():
        text = text.replace(mark, value)
    return Official(tuple(line for line in re.split(r"\r\n|\r|\n", text) if line)).identified()


def with_report(samples: Path, carrier: str, report: str) -> Official:
    """An official message that carries another official report: the exams of which only the CDA is at hand."""
    return load(samples, carrier).with_document((samples / "cda" / report).read_bytes())


def with_segments(message: Official, *segments: str) -> Official:
    """With further segments at the end."""
    return replace(message, segments=(*message.segments, *segments))


def _wrapped(segment: str, width: int, line_end: str) -> str:
    start, mark, data = segment.partition("^Base64^")
    if not mark:
        return segment
    encoded, bar, rest = data.partition("|")
    lines = [encoded[i : i + width] for i in range(0, len(encoded), width)]
    return f"{start}{mark}{line_end.join(lines)}{bar}{rest}"

"""The values of a small data set: answers to a query, key-object documents, the beginning of an image.

Nothing is decoded before somebody asks for it; the sequences inside are read item by item.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

from drimbox.dicom.charsets import DEFAULT, codecs_of, decoded
from drimbox.dicom.elements import Budget, Buffer, Element, elements, inner_encoding, items, raw
from drimbox.dicom.files import read_meta
from drimbox.dicom.syntaxes import DEFLATED_LE, Encoding, encoding_of
from drimbox.foundation.errors import Refused

_CHARSET = 0x00080005
# Behind each of these the first character set holds again (PS3.5 6.1.2.5.3); ``^`` and ``=`` in names only.
_DELIMITERS = frozenset(b"\r\n\t\f\\^=")


class DataSet:
    """The elements of a data set, or of one item, by tag."""

    __slots__ = ("_budget", "_buffer", "_codecs", "_elements", "_encoding", "_ordered")

    def __init__(
        self,
        buffer: Buffer,
        start: int,
        end: int,
        encoding: Encoding,
        budget: Budget,
        *,
        until: int = 0xFFFFFFFF,
        ordered: bool = True,
        codecs: Sequence[str] = DEFAULT,
    ) -> None:
        """Raises ``Refused`` as ``elements.elements``; ``codecs`` are those around it, which its own replace."""
        found = elements(buffer, start, end, encoding, budget, until=until, ordered=ordered)
        self._buffer = buffer
        self._encoding = encoding
        self._budget = budget
        self._ordered = ordered
        self._elements = {element.tag: element for element in found}
        charset = self._elements.get(_CHARSET)
        self._codecs = codecs if charset is None else codecs_of(raw(buffer, charset))

    def __contains__(self, tag: int) -> bool:
        return tag in self._elements

    def element(self, tag: int) -> Element | None:
        """Where it lies."""
        return self._elements.get(tag)

    def text(self, tag: int) -> str:
        """The value as text without its padding, empty where there is none.

        An unknown or missing character set is read as Latin-1, and what a set cannot hold becomes U+FFFD: text is
        compared and shown, never a reason to fail.
        """
        element = self._elements.get(tag)
        if element is None:
            return ""
        return decoded(raw(self._buffer, element).rstrip(b"\0 "), self._codecs, _DELIMITERS).strip()

    def items(self, tag: int) -> Iterator[DataSet]:
        """The items of a sequence; none at all where it is not there. Raises ``Refused``."""
        sequence = self._elements.get(tag)
        if sequence is None:
            return
        encoding = inner_encoding(sequence, self._encoding)
        for item in items(self._buffer, sequence, encoding, self._budget):
            yield DataSet(
                self._buffer,
                item.value,
                item.content_end,
                encoding,
                self._budget,
                ordered=self._ordered,
                codecs=self._codecs,
            )


def budget_for(size: int) -> Budget:
    """Enough for what really stands in so many bytes, nested sequences included: each element takes eight."""
    return Budget(size // 2 + 64)


def read_data_set(data: Buffer, transfer_syntax: str, *, until: int = 0xFFFFFFFF, ordered: bool = True) -> DataSet:
    """A data set by itself (not deflated), as it comes over the network. Raises ``Refused``."""
    size = len(data)
    return DataSet(data, 0, size, encoding_of(transfer_syntax), budget_for(size), until=until, ordered=ordered)


def read_file(data: Buffer, *, until: int = 0xFFFFFFFF, most_inflated: int = 2**22) -> tuple[DataSet, str]:
    """The data set of a Part 10 file, and its transfer syntax. Raises ``Refused``.

    Of a deflated one the first ``most_inflated`` bytes are read.
    """
    meta = read_meta(data)
    syntax = meta.transfer_syntax
    if syntax == DEFLATED_LE:
        return read_data_set(_inflated(bytes(data[meta.end :]), most_inflated), syntax, until=until), syntax
    size = len(data)
    return DataSet(data, meta.end, size, encoding_of(syntax), budget_for(size), until=until), syntax


def _inflated(data: bytes, most: int) -> bytes:
    """The first ``most`` bytes of a deflated data set (PS3.5 A.5)."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, most)
    except zlib.error as error:
        raise Refused("Image DICOM illisible : données compressées endommagées", code="dicom-deflated") from error

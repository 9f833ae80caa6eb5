"""DIMSE messages over presentation data values (PS3.7 8.1, PS3.8 Annex E): put together, and cut up. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from drimbox.pacs.dimse import command
from drimbox.pacs.dimse.limits import Limits
from drimbox.pacs.dimse.pdu import DataValue

PDV_OVERHEAD = 6
DEFAULT_LENGTH = 131_072
"""Longest PDU sent to a peer that sets no limit."""


class ProtocolViolation(Exception):
    """The peer broke the order of messages: the association cannot go on."""


class Received(NamedTuple):
    """A whole command set."""

    context_id: int
    command: command.Command


class Fragment(NamedTuple):
    """A piece of the data set of the last command; ``data`` is good until the next receive."""

    data: bytes | memoryview
    is_last: bool


class MessageReader:
    """Puts the messages of one association together: a command set, then its data set where it announces one."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._command = bytearray()
        self._command_context: int | None = None
        self._data_context: int | None = None

    @property
    def between_messages(self) -> bool:
        """Is nothing begun that is not ended?"""
        return self._command_context is None and self._data_context is None

    def feed(self, value: DataValue) -> Received | Fragment | None:
        """What this value completes: a command, a piece of a data set, or nothing yet. Raises ``ProtocolViolation``."""
        if self._data_context is not None:
            return self._data(value)
        if not value.is_command:
            raise ProtocolViolation("data set where a command must come")
        return self._command_part(value)

    def _data(self, value: DataValue) -> Fragment:
        if value.is_command or value.context_id != self._data_context:
            raise ProtocolViolation("command or other presentation context inside a data set")
        if value.is_last:
            self._data_context = None
        return Fragment(value.data, value.is_last)

    def _command_part(self, value: DataValue) -> Received | None:
        if self._command_context not in (None, value.context_id):
            raise ProtocolViolation("presentation context changes inside a command")
        self._command_context = value.context_id
        if len(self._command) + len(value.data) > self._limits.command_length:
            raise ProtocolViolation("command set too long")
        self._command += value.data
        if not value.is_last:
            return None
        data, self._command, self._command_context = bytes(self._command), bytearray(), None
        try:
            read = command.decode(data)
        except command.InvalidCommand as wrong:
            raise ProtocolViolation(str(wrong)) from wrong
        if read.has_dataset:
            self._data_context = value.context_id
        return Received(value.context_id, read)


def cut(context_id: int, message: command.Command, dataset: bytes | None, peer_max_length: int) -> Iterator[DataValue]:
    """The presentation data values of a message, each to go in a PDU of its own no longer than the peer takes."""
    room = max((peer_max_length or DEFAULT_LENGTH) - PDV_OVERHEAD, 1)
    yield from _cut(context_id, True, command.encode(message), room)
    if dataset is not None:
        yield from _cut(context_id, False, dataset, room)


def _cut(context_id: int, is_command: bool, data: bytes, room: int) -> Iterator[DataValue]:
    view = memoryview(data)
    last = max(len(data) - 1, 0) // room * room
    for start in range(0, last + 1, room):
        yield DataValue(context_id, is_command, start == last, view[start : start + room])

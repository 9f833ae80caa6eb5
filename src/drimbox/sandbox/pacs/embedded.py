"""A stand-in PACS on a folder, in this process: where Orthanc cannot be had, and where a PACS must misbehave.

It is pynetdicom through and through and shares nothing with the code that it plays against.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_context, evt

from drimbox.foundation.errors import Misconfigured
from drimbox.sandbox.pacs.holdings import Holdings
from drimbox.sandbox.pacs.peer import Destination, PacsPeer

_VERIFICATION = "1.2.840.10008.1.1"
_STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
Answer = tuple[int, Dataset | None]


@dataclass(frozen=True, slots=True)
class EmbeddedConfig:
    """``folder`` holds the DICOM files, and takes those that are stored; ``known`` may ask, and be moved to."""

    folder: Path
    ae_title: str
    port: int = 0
    known: Sequence[Destination] = ()
    host: str = "127.0.0.1"
    takes: Mapping[str, Sequence[str]] | None = None
    """The storage classes that it takes, each with its transfer syntaxes; None: all."""


@dataclass(slots=True)
class Faults:
    """How it misbehaves; may be changed while it runs. Counts are of answers or instances that go well before."""

    find_status: int = 0x0000
    """Final status of every C-FIND, after ``find_after`` answers."""
    find_after: int | None = None
    find_aborts: bool = False
    find_stalls: bool = False
    find_ignores_keys: bool = False
    find_changes: Callable[[Dataset], Dataset | None] | None = None
    """Changes an answer, or leaves it out."""
    move_status: int = 0x0000
    """Final status of every C-MOVE, after ``move_after`` instances."""
    move_after: int | None = None
    move_aborts: bool = False
    move_stalls: bool = False
    move_changes: Callable[[Dataset], Dataset | None] | None = None
    """Changes an instance before it is sent, or leaves it out without a word."""
    store_answers: Callable[[int, Dataset], int] | None = None
    """The status of the instance of this number (from 0); it is kept where that is a success or a warning."""
    store_aborts_after: int | None = None
    """Breaks off at the instance of this number, and at all that follow, without keeping it."""
    released: threading.Event = field(default_factory=threading.Event)
    """Ends what stalls."""

    def repair(self) -> None:
        """It behaves well again; what stalled goes on."""
        self.released.set()
        well = Faults()
        for name in self.__slots__:
            setattr(self, name, getattr(well, name))


@contextmanager
def embedded_pacs(config: EmbeddedConfig, faults: Faults | None = None) -> Iterator[PacsPeer]:
    """The PACS for the time of the block. Raises ``Misconfigured`` where its port cannot be had."""
    pacs = _Pacs(config, faults or Faults())
    try:
        server = pacs.ae.start_server((config.host, config.port), block=False, evt_handlers=pacs.handlers())
    except OSError as error:
        raise Misconfigured(f"Le port DICOM {config.port} ne peut pas être ouvert.", code="dicom-port") from error
    assert server is not None
    assert server.socket is not None
    try:
        yield PacsPeer(config.ae_title, config.host, server.socket.getsockname()[1])
    finally:
        pacs.faults.released.set()
        server.shutdown()
        pacs.ae.shutdown()


class _Pacs:
    def __init__(self, config: EmbeddedConfig, faults: Faults) -> None:
        self.faults = faults
        self.ae = AE(ae_title=config.ae_title)
        self.ae.maximum_pdu_size = 131_072
        self.ae.maximum_associations = 32
        self.ae.require_called_aet = True
        self.ae.require_calling_aet = [node.ae_title for node in config.known]
        for sop_class in (_VERIFICATION, _STUDY_ROOT_FIND, _STUDY_ROOT_MOVE):
            self.ae.add_supported_context(sop_class)
        storage = [c.abstract_syntax for c in AllStoragePresentationContexts if c.abstract_syntax is not None]
        everything: Mapping[str, Sequence[str]] = {str(uid): ALL_TRANSFER_SYNTAXES for uid in storage}
        for sop_class, syntaxes in (everything if config.takes is None else config.takes).items():
            self.ae.add_supported_context(sop_class, list(syntaxes))
        self._known = {node.ae_title: node for node in config.known}
        self._holdings = Holdings(config.folder)
        self._offered = itertools.count()

    def handlers(self) -> list[Any]:
        return [
            (evt.EVT_CONN_OPEN, _no_nagle),
            (evt.EVT_C_ECHO, lambda event: 0x0000),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_C_MOVE, self._move),
        ]

    def _store(self, event: evt.Event) -> int:
        faults, number = self.faults, next(self._offered)
        if faults.store_aborts_after is not None and number >= faults.store_aborts_after:
            event.assoc.abort()
            return 0xC000
        dataset = event.dataset
        status = faults.store_answers(number, dataset) if faults.store_answers is not None else 0x0000
        if status == 0 or status & 0xF000 == 0xB000:
            dataset.file_meta = event.file_meta
            self._holdings.add(dataset)
        return status

    def _find(self, event: evt.Event) -> Iterator[Answer]:
        faults, query = self.faults, event.identifier
        if faults.find_ignores_keys:
            for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
                if keyword in query:
                    setattr(query, keyword, "")
        answers = self._holdings.find(query)
        if faults.find_changes is not None:
            answers = [changed for answer in answers if (changed := faults.find_changes(answer)) is not None]
        for answer in answers[: faults.find_after]:
            if event.is_cancelled:
                yield 0xFE00, None
                return
            yield 0xFF00, answer
        if self._misbehaves(event, aborts=faults.find_aborts, stalls=faults.find_stalls):
            return
        if faults.find_status:
            yield faults.find_status, None

    def _move(self, event: evt.Event) -> Iterator[Any]:
        faults = self.faults
        node = self._known.get(event.move_destination or "")
        if node is None:
            # pynetdicom answers A801H.
            yield None, None
            return
        paths = self._holdings.select(event.identifier)
        handlers = [(evt.EVT_CONN_OPEN, _no_nagle), (evt.EVT_CONN_OPEN, _answers_to_the_sender)]
        yield node.host, node.port, {"contexts": self._contexts(), "evt_handlers": handlers}
        yield len(paths)
        for path in paths[: faults.move_after]:
            if event.is_cancelled:
                yield 0xFE00, None
                return
            dataset: Dataset | None = pydicom.dcmread(path)
            if faults.move_changes is not None and dataset is not None:
                dataset = faults.move_changes(dataset)
            if dataset is not None:
                yield 0xFF00, dataset
        if self._misbehaves(event, aborts=faults.move_aborts, stalls=faults.move_stalls):
            return
        if faults.move_status:
            yield faults.move_status, None

    def _misbehaves(self, event: evt.Event, *, aborts: bool, stalls: bool) -> bool:
        if stalls:
            self.faults.released.wait()
        if aborts or stalls:
            event.assoc.abort()
        return aborts or stalls

    def _contexts(self) -> list[Any]:
        wanted: dict[UID, list[UID]] = {}
        for sop_class, syntax in sorted(self._holdings.contexts()):
            wanted.setdefault(sop_class, []).append(syntax)
        return [build_context(sop_class, [syntax]) for sop_class, syntaxes in wanted.items() for syntax in syntaxes]


def _no_nagle(event: evt.Event) -> None:
    transport = event.assoc.dul.socket
    if transport is not None and transport.socket is not None:
        transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _answers_to_the_sender(event: evt.Event) -> None:
    """Leave each C-STORE response to who waits for it.

    The association's own loop looks for messages too, and now and then takes the response away before it has noticed
    that it is told to pause: the sender would wait 30 s in vain, then abort.
    """
    wait = event.assoc.dimse.get_msg
    event.assoc.dimse.get_msg = (  # type: ignore[method-assign]
        lambda block=False: wait(block=True) if block else (None, None)
    )

"""The DICOM listener for listed workstations: C-FIND and C-MOVE on what users saved (DB.CO.72). Closed by default.

DICOM cannot tell who sits at a workstation: only those that the settings list, by AE title and address, are answered.
"""

from __future__ import annotations

import asyncio
import fnmatch
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, evt

from drimbox.foundation.errors import Misconfigured
from drimbox.importing.ports import AuditJournal
from drimbox.importing.shelf import Saved, Shelf
from drimbox.record.audit import Actor, Event, Kind, Object, Thing

_log = logging.getLogger(__name__)
_VERIFICATION = "1.2.840.10008.1.1"
_STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
_UNIQUE = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
_CONTROL = frozenset({"QueryRetrieveLevel", "SpecificCharacterSet"})
_MOST_ANSWERS = 5000
_WAIT = 30.0
# PS3.4 C.4.1.1.4: the identifier is not what the level asks for; it cannot be processed now.
_MISMATCH, _CANNOT, _CANCELLED, _PENDING = 0xA900, 0xC001, 0xFE00, 0xFF00


@dataclass(frozen=True, slots=True)
class Workstation:
    """One that may ask, and be moved to."""

    ae_title: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """Where it listens and whom it answers; times are in seconds."""

    ae_title: str
    clients: Sequence[Workstation]
    host: str = "127.0.0.1"
    port: int = 0
    idle_timeout: float = 60.0
    max_associations: int = 8


class Listener:
    """Answers workstations; its handlers run in threads of the associations, the database on the event loop."""

    def __init__(
        self, settings: ListenerSettings, shelf: Shelf, journal: AuditJournal, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._settings = settings
        self._shelf = shelf
        self._journal = journal
        self._loop = loop
        self._clients = {client.ae_title: client for client in settings.clients}
        self._addresses = {address for client in settings.clients for address in _addresses(client.host)}

    def application(self) -> AE:
        """The application entity, as it negotiates."""
        ae = AE(ae_title=self._settings.ae_title)
        ae.require_called_aet = True
        ae.require_calling_aet = list(self._clients)
        ae.maximum_associations = self._settings.max_associations
        ae.network_timeout = ae.dimse_timeout = self._settings.idle_timeout
        ae.acse_timeout = 10
        for sop_class in (_VERIFICATION, _STUDY_ROOT_FIND, _STUDY_ROOT_MOVE):
            ae.add_supported_context(sop_class)
        return ae

    def handlers(self) -> list[Any]:
        return [
            (evt.EVT_CONN_OPEN, self._opened),
            (evt.EVT_C_ECHO, lambda event: 0x0000),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_C_MOVE, self._move),
        ]

    def _opened(self, event: evt.Event) -> None:
        transport = event.assoc.dul.socket
        if transport is None or transport.socket is None:
            return
        address: tuple[str, int] = event.address  # type: ignore[attr-defined]
        if address[0] not in self._addresses:
            _log.warning("a DICOM connection from an address that is not listed was cut")
            transport.socket.shutdown(socket.SHUT_RDWR)
            return
        transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _saved(self) -> list[Saved]:
        """Raises what the database raises: that is never an empty answer."""
        return asyncio.run_coroutine_threadsafe(self._shelf.everything(), self._loop).result(_WAIT)

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        try:
            answers = found(self._saved(), event.identifier)
        except ValueError:
            yield _MISMATCH, None
            return
        except Exception as error:  # noqa: BLE001 - the boundary of a thread: the workstation is told
            _log.error("a workstation could not be answered: %s", type(error).__name__)
            yield _CANNOT, None
            return
        for answer in answers[:_MOST_ANSWERS]:
            if event.is_cancelled:
                yield _CANCELLED, None
                return
            yield _PENDING, answer
        if len(answers) > _MOST_ANSWERS:
            # A part is never given for the whole.
            yield 0xA700, None

    def _move(self, event: evt.Event) -> Iterator[Any]:
        client = self._clients.get(event.move_destination or "")
        if client is None:
            yield None, None
            return
        try:
            chosen = selected(self._saved(), event.identifier)
        except Exception as error:  # noqa: BLE001 - the boundary of a thread: the workstation is told
            _log.error("a workstation could not be answered: %s", type(error).__name__)
            yield client.host, client.port, {}
            yield 0
            yield _CANNOT, None
            return
        self._tell(event, client, chosen)
        contexts = [
            build_context(c, [s]) for c, s in sorted({(s.sop_class_uid, s.transfer_syntax_uid) for s in chosen})
        ]
        yield client.host, client.port, {"contexts": contexts[:128], "ae_title": self._settings.ae_title}
        yield len(chosen)
        for one in chosen:
            if event.is_cancelled:
                yield _CANCELLED, None
                return
            yield _PENDING, pydicom.dcmread(one.path)

    def _tell(self, event: evt.Event, client: Workstation, chosen: Sequence[Saved]) -> None:
        requestor = event.assoc.requestor
        studies = dict.fromkeys(one.study_uid for one in chosen)
        told = Event(
            Kind.IMAGES_EXPORTED,
            Actor(system=str(requestor.ae_title).strip(), address=str(requestor.address)),
            (
                *(Object(Thing.STUDY, uid, str(sum(o.study_uid == uid for o in chosen))) for uid in studies),
                Object(Thing.SYSTEM, client.ae_title),
            ),
        )
        asyncio.run_coroutine_threadsafe(self._journal.write(None, told), self._loop).result(_WAIT)


def found(saved: Sequence[Saved], query: Dataset) -> list[Dataset]:
    """The answers to an identifier, one for each entity of its level that matches (PS3.4 C.2.2.2).

    Raises ``ValueError`` for a level that this information model does not have.
    """
    level = str(query.get("QueryRetrieveLevel", ""))
    if level not in _UNIQUE:
        raise ValueError("unknown level")
    groups: dict[str, list[Saved]] = {}
    for one in saved:
        if _matches(one, query):
            groups.setdefault(one.attributes.get(_UNIQUE[level], ""), []).append(one)
    return [_answer(group, query, level, saved) for group in groups.values()]


def selected(saved: Sequence[Saved], query: Dataset) -> list[Saved]:
    """The images that a C-MOVE identifier names: at least a study must be named. Raises ``ValueError``."""
    if not query.get("StudyInstanceUID"):
        raise ValueError("no study is named")
    return [one for one in saved if _matches(one, query)]


def _answer(group: Sequence[Saved], query: Dataset, level: str, saved: Sequence[Saved]) -> Dataset:
    one = group[0]
    study = [s for s in saved if s.study_uid == one.study_uid]
    series = [s for s in study if s.series_uid == one.series_uid]
    counted = {
        "NumberOfStudyRelatedSeries": len({s.series_uid for s in study}),
        "NumberOfStudyRelatedInstances": len(study),
        "NumberOfSeriesRelatedInstances": len(series),
        "ModalitiesInStudy": sorted({s.attributes.get("Modality", "") for s in study}),
    }
    answer = Dataset()
    answer.SpecificCharacterSet = "ISO_IR 192"
    for element in query:
        keyword = element.keyword
        if not keyword or keyword in _CONTROL or element.VR == "SQ":
            continue
        value: Any = counted.get(keyword, one.attributes.get(keyword, ""))
        setattr(answer, keyword, value if value != "" else None)
    answer.QueryRetrieveLevel = level
    return answer


def _matches(one: Saved, query: Dataset) -> bool:
    for element in query:
        if not element.keyword or element.keyword in _CONTROL or element.VR == "SQ" or element.value in (None, ""):
            continue
        held = one.attributes.get("Modality" if element.keyword == "ModalitiesInStudy" else element.keyword)
        if held is not None and not _same(held, element):
            return False
    return True


def _same(held: str, element: pydicom.DataElement) -> bool:
    value = element.value
    wanted = [str(v) for v in value] if isinstance(value, Sequence) and not isinstance(value, str) else [str(value)]
    if element.VR in ("DA", "TM") and len(wanted) == 1 and "-" in wanted[0]:
        low, _, high = wanted[0].partition("-")
        return (not low or held >= low) and (not high or held <= high)
    tests: list[Callable[[str], bool]] = [lambda w: held == w]
    if element.VR != "UI":
        tests.append(lambda w: fnmatch.fnmatchcase(held.upper(), w.upper().replace("[", "[[]")))
    return any(test(w) for w in wanted for test in tests)


def _addresses(host: str) -> set[str]:
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        _log.error("a workstation of the settings has no address")
        return set()


@asynccontextmanager
async def listening(
    settings: ListenerSettings, shelf: Shelf, journal: AuditJournal, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Answer workstations until the block ends; gives the port. Raises ``Misconfigured`` where it is taken."""
    listener = Listener(settings, shelf, journal, asyncio.get_running_loop())
    ae = listener.application()
    try:
        server = ae.start_server(
            (settings.host, settings.port), block=False, evt_handlers=listener.handlers(), ssl_context=tls
        )
    except OSError as error:
        reason = f"Le port DICOM {settings.port} des postes de travail ne peut pas être ouvert"
        raise Misconfigured(reason, code="dicom-port") from error
    assert server is not None
    assert server.socket is not None
    try:
        yield int(server.socket.getsockname()[1])
    finally:
        await asyncio.to_thread(_stop, ae, server)


def _stop(ae: AE, server: Any) -> None:
    server.shutdown()
    ae.shutdown()

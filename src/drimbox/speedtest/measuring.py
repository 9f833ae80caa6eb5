"""One measurement: a study retrieved as the box retrieves it for a consumer, and thrown away as it comes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from drimbox.dicom.files import mapped, read_meta
from drimbox.dicom.pixels import LOSSY, read_layout
from drimbox.dicom.syntaxes import NATIVE
from drimbox.foundation.clock import PARIS, Clock
from drimbox.foundation.errors import DrimboxError, Refused, Rejected
from drimbox.images.threads import in_thread
from drimbox.pacs.access import AnySource, PacsAccess
from drimbox.pacs.dimse.storage import StoredInstance
from drimbox.pacs.study import Study
from drimbox.speedtest import asking
from drimbox.speedtest.measured import Arrival, Measured

OFFICIAL_STUDY = "1.2.250.1.213.4.5.2.1.199"
"""The agency's reference study for performance (official-data.md 9.2)."""
_LOOKED_AT = 3
_EVERY = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: what is being done, and of the images what has come; ``seconds`` since they were asked for."""

    step: str
    landed: int = 0
    expected: int = 0
    bytes: int = 0
    seconds: float = 0.0


Tell = Callable[[Progress], None]


@dataclass(slots=True)
class Trace:
    """What is kept of a measurement for the audit journal: images of a patient have left the PACS for it.

    ``code`` and ``reason`` say why it failed, empty where it did not.
    """

    pacs: str
    study_uid: str = ""
    images: int = 0
    bytes: int = 0
    code: str = "interrupted"
    reason: str = ""


Record = Callable[[Trace], Awaitable[None]]


async def measure(access: PacsAccess, study_uid: str, clock: Clock, tell: Tell, record: Record) -> Measured:
    """Measure a PACS with this study, or with one that it holds where none is named; ``record`` is told how it ended.

    Raises what its questions and retrieves raise, what ``record`` raises, and ``Rejected`` where there is no study to
    measure with.
    """
    trace = Trace(access.link.pacs.id, study_uid)
    try:
        measured = await _measured(access, study_uid, clock, tell, trace)
        trace.code = ""
        return measured
    except DrimboxError as error:
        trace.code, trace.reason = error.code, error.reason
        raise
    finally:
        await record(trace)


async def _measured(access: PacsAccess, study_uid: str, clock: Clock, tell: Tell, trace: Trace) -> Measured:
    tell(Progress("Dialogue avec le PACS (C-ECHO)"))
    associations, echoes = await asking.echoed(access.link)
    tell(Progress("Recherche de l'examen"))
    begun = time.monotonic()
    study = await _study(access, study_uid, clock)
    finding = time.monotonic() - begun
    trace.study_uid = study.study_uid
    told = await _told(access, study)
    expected = [one.sop_instance_uid for series in study.series for one in series.instances]
    if len(expected) < 2:
        raise Rejected("Cet examen a moins de deux images : il ne permet pas de mesurer un débit.", code="too-small")
    busy, begun = time.process_time(), time.monotonic()
    arrivals, unlike, lossy = await _retrieve(access, study, expected, told, tell, trace)
    seconds = time.monotonic() - begun
    return Measured(
        pacs=access.link.pacs.id,
        way=access.source.way if isinstance(access.source, AnySource) else "",
        series=len(study.series),
        expected=len(expected),
        associations=associations,
        echoes=echoes,
        finding=finding,
        arrivals=tuple(arrivals),
        seconds=seconds,
        stored=asking.counted(told),
        unlike=unlike,
        once_lossy=lossy,
        busy=(time.process_time() - busy) / max(seconds, 1e-6),
    )


async def _study(access: PacsAccess, study_uid: str, clock: Clock) -> Study:
    pacs = access.link.pacs.id
    study = await access.finder.find(study_uid or OFFICIAL_STUDY)
    if study is not None:
        return study
    if study_uid:
        raise Rejected(f"Le PACS {pacs} ne connaît pas cet examen.", code="study-unknown")
    recent = await asking.recent_study(access.link, clock.now().astimezone(PARIS).date())
    study = await access.finder.find(recent) if recent else None
    if study is None:
        raise Rejected(
            f"Le PACS {pacs} n'a ni l'examen de référence ni d'examen récent qui convienne : nommez-en un par --study.",
            code="study-needed",
        )
    return study


async def _told(access: PacsAccess, study: Study) -> dict[str, frozenset[str]]:
    """The syntaxes that the PACS tells; nothing where it does not like the question."""
    try:
        return dict(await asking.stored_syntaxes(access.link, study))
    except DrimboxError:
        return {}


async def _retrieve(
    access: PacsAccess,
    study: Study,
    expected: list[str],
    told: dict[str, frozenset[str]],
    tell: Tell,
    trace: Trace,
) -> tuple[list[Arrival], int, bool]:
    arrivals: list[Arrival] = []
    unlike, lossy, looked_at = 0, False, 0
    begun = said = time.monotonic()
    tell(Progress("Images", 0, len(expected)))
    source, patient = access.source, study.patient_id or None
    async with source.retrieve(study.study_uid, None, expected, patient_id=patient) as instances:
        async for stored in instances:
            now = time.monotonic()
            arrivals.append(Arrival(now - begun, stored.size, stored.transfer_syntax_uid))
            trace.images, trace.bytes = len(arrivals), trace.bytes + stored.size
            unlike += stored.transfer_syntax_uid not in told.get(stored.sop_instance_uid, (stored.transfer_syntax_uid,))
            if looked_at < _LOOKED_AT and stored.transfer_syntax_uid in NATIVE:
                looked_at += 1
                lossy = lossy or await in_thread(_was_lossy, stored)
            if now - said >= _EVERY:
                said = now
                tell(Progress("Images", len(arrivals), len(expected), trace.bytes, now - begun))
    tell(Progress("Images", len(arrivals), len(expected), trace.bytes, arrivals[-1].at))
    return arrivals, unlike, lossy


def _was_lossy(stored: StoredInstance) -> bool:
    """Does its header say that the pixels went through a lossy compression (0028,2110)?"""
    try:
        return _says_lossy(stored.path)
    except (Refused, OSError):
        return False


def _says_lossy(path: Path) -> bool:
    with mapped(path) as buffer:
        element = read_layout(buffer, read_meta(buffer)).find(LOSSY)
        return element is not None and bytes(buffer[element.value : element.end]).strip() == b"01"

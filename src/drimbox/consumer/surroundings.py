"""What is found out about the rows once they are on the screen: what the local PACSs hold of them, and else of the
patient, what their KOS say, whether their sources answer, whether Pro Santé Connect does.

Everything runs beside the page and rings its bell. What does not answer is a trouble of its own, with another try:
never "not there".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from drimbox.consumer.call import ContextualCall
from drimbox.consumer.consultant import Consultant
from drimbox.consumer.consultation import Bell, Trouble
from drimbox.consumer.exams import Document, Exam
from drimbox.consumer.kos import KosContent, KosOutcome, KosReader
from drimbox.consumer.local import LocalExam, differences_of, is_of
from drimbox.consumer.ports import LocalArchive, LocalPacs, SeriesFetcher
from drimbox.consumer.professional import LoginEnded
from drimbox.foundation.errors import DrimboxError, Unavailable
from drimbox.images.client import SourceState
from drimbox.record.audit import Kind

_log = logging.getLogger(__name__)

PSC = "psc"
SOURCES = "source:"
KOS = "kos:"
_KOS_AT_ONCE = 10
_LARGE_KOS = 512 * 1024
# Octets of KOS that are read for a call before anyone opens them: about 100,000 images, and as many octets of memory.
_AHEAD_BYTES = 24 * 2**20
_UNREAD = Unavailable("Erreur interne de la DRIMbox : le KOS n'a pas été lu", code="internal")


class Holding(StrEnum):
    """Does a PACS hold a study?"""

    HELD = "held"
    ABSENT = "absent"
    ASKING = "asking"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Presence:
    """What is known of one exam in one PACS; ``count``: the images that it holds, where it tells."""

    pacs: str
    holding: Holding
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Means:
    """What finding out takes. ``ahead``: KOS retrieved before anyone opens them; ``probe``: are their sources asked?"""

    kos: KosReader
    images: SeriesFetcher
    ahead: int = 20
    probe: bool = True


class Surroundings:
    """What is known around the rows of one call."""

    def __init__(self, means: Means, call: ContextualCall, bell: Bell) -> None:
        self._means = means
        self._call = call
        self._bell = bell
        self._held: dict[tuple[str, str], Presence] = {}
        # By PACS: its studies of this patient, None while it is being asked.
        self._local: dict[str, tuple[LocalExam, ...] | None] = {}
        self._kos: dict[str, KosOutcome] = {}
        self._reading: dict[str, asyncio.Task[None]] = {}
        self._sources: dict[str, SourceState | None] = {}
        self._ahead_bytes = 0
        self._troubles: dict[str, tuple[Trouble, Callable[[], Coroutine[Any, Any, None]]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        return bool(self._tasks)

    @property
    def troubles(self) -> tuple[Trouble, ...]:
        return tuple(trouble for trouble, _ in self._troubles.values())

    def known(self, document: Document | None) -> KosContent | None:
        """The content of a KOS that was read."""
        found = self._kos.get(document.key) if document is not None else None
        return found if isinstance(found, KosContent) else None

    def problem(self, document: Document | None) -> DrimboxError | None:
        """Why a KOS could not be read."""
        found = self._kos.get(document.key) if document is not None else None
        return found if isinstance(found, DrimboxError) else None

    def may_help(self, document: Document | None) -> bool:
        """Could another try of reading this KOS help? Not where the document itself is wrong."""
        return isinstance(self.problem(document), Unavailable)

    def presences(self, exam: Exam, pacs: Sequence[LocalPacs]) -> tuple[Presence, ...]:
        """What is known of an exam in each of these PACSs; of several studies in one line, the first that is held."""
        found = []
        for one in pacs:
            known = [self._held.get((one.id, uid), Presence(one.id, Holding.ASKING)) for uid in exam.study_uids]
            if known:
                order = (Holding.HELD, Holding.UNKNOWN, Holding.ASKING, Holding.ABSENT)
                found.append(min(known, key=lambda p: order.index(p.holding)))
        return tuple(found)

    @property
    def local(self) -> tuple[LocalExam, ...]:
        """The studies of this patient in the PACSs of the site, as far as is known, newest first."""
        return tuple(exam for exams in self._local.values() for exam in exams or ())

    def local_exam(self, key: str) -> LocalExam | None:
        return next((exam for exam in self.local if exam.key == key), None)

    @property
    def dead_sources(self) -> tuple[str, ...]:
        """The hosts of the sources that are known not to answer."""
        return tuple(host for host, state in self._sources.items() if state is SourceState.DEAD)

    def source_down(self, content: KosContent) -> bool:
        """Is one of the sources of this exam known not to answer?"""
        return any(self._sources.get(host) is SourceState.DEAD for host in content.sources)

    def look(self, who: Consultant, exams: Sequence[Exam]) -> None:
        """Find out what is not known yet of the rows that are on the screen."""
        uids = tuple(dict.fromkeys(uid for exam in exams for uid in exam.study_uids))
        for pacs in who.structure.pacs:
            self._ask_pacs(pacs, [uid for uid in uids if (pacs.id, uid) not in self._held])
        room = max(self._means.ahead - len(self._kos) - len(self._reading), 0)
        likely = [d for exam in exams if (d := exam.images) is not None and self._may_be_read_ahead(d)]
        wanted = self._affordable(likely, room)
        # A large one, of thousands of images, would hold the others up.
        small = [d for d in wanted if (d.entry.size or 0) < _LARGE_KOS]
        for start in range(0, len(small), _KOS_AT_ONCE):
            self._read(who, small[start : start + _KOS_AT_ONCE])
        for document in wanted:
            if document not in small:
                self._read(who, (document,))

    def look_around(self, who: Consultant, used_names: Callable[[], Collection[str]] = tuple) -> None:
        """Ask each PACS of the site, once, which studies of this patient it holds."""
        for archive in who.structure.archives:
            if archive.id not in self._local:
                self._local[archive.id] = None
                self._start(self._looked_around(who, archive, used_names))

    def check_login(self, who: Consultant) -> None:
        """Does Pro Santé Connect still answer? Images cannot be asked for without it; the rest can."""
        if PSC not in self._troubles:
            self._start(self._checked_login(who))

    async def content(self, who: Consultant, document: Document) -> KosContent:
        """The content of a KOS, retrieved unless it was. Raises as ``KosReader.read``."""
        task = self._reading.get(document.key)
        if task is not None:
            await asyncio.wait((task,))
        known = self._kos.get(document.key)
        if not isinstance(known, KosContent):
            # What failed before is tried again: this is asked for by a person.
            self._kos[document.key] = known = await self._outcome(who, document)
            self._bell.ring()
        if isinstance(known, DrimboxError):
            raise known
        return known

    def retry(self, part: str) -> bool:
        """Ask once more what did not answer; False when there is no such trouble.

        ``SOURCES`` are all sources; ``KOS`` all KOS that could not be had: they are read again with the rows.
        """
        if part == KOS:
            late = [key for key, outcome in self._kos.items() if isinstance(outcome, Unavailable)]
            for key in late:
                del self._kos[key]
            return bool(late)
        parts = [one for one in self._troubles if one == part or (part == SOURCES and one.startswith(SOURCES))]
        for one in parts:
            _, work = self._troubles.pop(one)
            self._start(work())
        if parts:
            self._bell.ring()
        return bool(parts)

    async def close(self) -> None:
        tasks = [*self._tasks, *self._reading.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the local PACSs ---

    def _ask_pacs(self, pacs: LocalPacs, uids: Sequence[str]) -> None:
        if not uids:
            return
        if (part := f"pacs:{pacs.id}") in self._troubles:
            # It did not answer: these join what waits for another try.
            self._put(pacs, uids, Holding.UNKNOWN)
            trouble = self._troubles[part][0]
            self._troubles[part] = (trouble, lambda: self._asked_pacs(pacs, self._unknown(pacs)))
            return
        self._put(pacs, uids, Holding.ASKING)
        self._start(self._asked_pacs(pacs, uids))

    async def _asked_pacs(self, pacs: LocalPacs, uids: Sequence[str]) -> None:
        self._put(pacs, uids, Holding.ASKING)
        try:
            held = await pacs.held(uids)
        except DrimboxError as error:
            self._put(pacs, uids, Holding.UNKNOWN)
            text = f"Le PACS {pacs.id} ne répond pas : on ne sait pas quels examens il contient déjà"
            trouble = Trouble(f"pacs:{pacs.id}", text, error.reason, error.code)
            self._troubles[trouble.part] = (trouble, lambda: self._asked_pacs(pacs, self._unknown(pacs)))
            return
        for uid in uids:
            state = Presence(pacs.id, Holding.HELD, held[uid]) if uid in held else Presence(pacs.id, Holding.ABSENT)
            self._held[pacs.id, uid] = state

    async def _looked_around(
        self, who: Consultant, archive: LocalArchive, used_names: Callable[[], Collection[str]]
    ) -> None:
        call, journal = self._call, self._means.kos.journal
        try:
            held = await archive.studies(call.local_id.value)
        except DrimboxError as error:
            await journal.write(None, who.event(Kind.PACS_QUERIED, call.ins, (), error))
            text = f"Les examens du patient dans le PACS {archive.id} ne sont pas connus"
            trouble = Trouble(f"local:{archive.id}", text, error.reason, error.code)
            self._troubles[trouble.part] = (trouble, lambda: self._looked_around(who, archive, used_names))
            return
        await journal.write(None, who.event(Kind.PACS_QUERIED, call.ins, ()))
        self._local[archive.id] = tuple(
            LocalExam(archive, one, differences_of(call, one.study, used_names()))
            for one in held
            if is_of(call, one.study)
        )

    def _put(self, pacs: LocalPacs, uids: Sequence[str], holding: Holding) -> None:
        self._held.update({(pacs.id, uid): Presence(pacs.id, holding) for uid in uids})

    def _unknown(self, pacs: LocalPacs) -> tuple[str, ...]:
        return tuple(uid for (name, uid), p in self._held.items() if name == pacs.id and p.holding is Holding.UNKNOWN)

    # --- the KOS and their sources ---

    def _may_be_read_ahead(self, document: Document) -> bool:
        """Not what the professional must be warned of first, nor what no source serves any more."""
        known = document.key in self._kos or document.key in self._reading
        return not known and not document.warning and not document.entry.masked and not document.entry.obsolete

    def _affordable(self, documents: Sequence[Document], most: int) -> list[Document]:
        """Those that together stay within what may be held in memory for rows that nobody has opened."""
        found: list[Document] = []
        for document in documents:
            size = document.entry.size or 0
            if len(found) < most and self._ahead_bytes + size <= _AHEAD_BYTES:
                self._ahead_bytes += size
                found.append(document)
        return found

    def _read(self, who: Consultant, documents: Sequence[Document]) -> None:
        async def read() -> None:
            try:
                outcomes = await self._means.kos.read_all(who, self._call, documents)
                self._kos.update(outcomes)
            finally:
                for document in documents:
                    self._reading.pop(document.key, None)
                    # Whatever went wrong here is not tried again and again behind the page.
                    self._kos.setdefault(document.key, _UNREAD)
            for outcome in outcomes.values():
                if isinstance(outcome, KosContent):
                    self._probe(who, outcome.sources)

        task = self._start(read())
        self._reading.update({document.key: task for document in documents})

    async def _outcome(self, who: Consultant, document: Document) -> KosOutcome:
        try:
            return await self._means.kos.read(who, self._call, document)
        except DrimboxError as error:
            return error

    def _probe(self, who: Consultant, sources: Mapping[str, str]) -> None:
        if not self._means.probe:
            return
        for host, url in sources.items():
            if host not in self._sources:
                self._sources[host] = None
                self._start(self._probed(who, host, url))

    async def _probed(self, who: Consultant, host: str, url: str) -> None:
        state = await self._means.images.probe(url, tls=who.structure.wado_tls)
        self._sources[host] = state
        if state is SourceState.DEAD:
            text = f"La DRIMbox {host} ne répond pas : les images de ses examens ne peuvent pas être demandées"
            trouble = Trouble(f"{SOURCES}{host}", text, state.value, "source-unreachable")
            self._troubles[trouble.part] = (trouble, lambda: self._probed(who, host, url))

    # --- Pro Santé Connect ---

    async def _checked_login(self, who: Consultant) -> None:
        try:
            await who.professional.keep_alive()
        except LoginEnded:
            # The next page says so, and how to log in again.
            return
        except Unavailable as error:
            text = "Pro Santé Connect ne répond pas : les images ne peuvent pas être demandées aux autres sites"
            self._troubles[PSC] = (Trouble(PSC, text, error.reason, error.code), lambda: self._checked_login(who))

    # --- work beside the page ---

    def _start(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.create_task(_recorded(work))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._bell.ring()


async def _recorded(work: Awaitable[None]) -> None:
    """A task boundary: nobody waits for these."""
    try:
        await work
    except DrimboxError as error:
        _log.warning("something around the list could not be found out: %s", error.code)
    except Exception:  # noqa: BLE001 - a task boundary
        _log.exception("something around the list could not be found out")

"""The patient's way in: an identity is said, a code goes where the site reaches the patient, the code opens (D19).

Whatever is said, the answer is the same and comes at once: what is right is found out afterwards, on the side.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, OutcomeUnknown, Unavailable
from drimbox.link.address import Link
from drimbox.link.agreement import Agreement, Disagrees
from drimbox.link.challenge import Answers, right
from drimbox.link.codes import CodeRefused, Codes
from drimbox.link.entrance import Entrance, objects_of, patient_actor, refusal
from drimbox.link.limits import Attempts, TooMany
from drimbox.link.ports import AuditJournal, Code, Contacts, Sender
from drimbox.link.visit import Visitor, Who
from drimbox.link.visits import Door
from drimbox.record.audit import Actor, Event, Kind, Object, Thing, failed

OpenIncident = Callable[[str, str], Awaitable[None]]
"""Puts a line in the operator's queue: code, reason."""

SENDING_FAILED = "link-code-not-sent"
_PAUSES = (2.0, 10.0)
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class PatientDesk:
    """``minutes`` is how long a code is good for; ``senders`` are tried in their order."""

    agreement: Agreement
    entrance: Entrance
    contacts: Contacts
    attempts: Attempts
    codes: Codes
    senders: tuple[Sender, ...]
    journal: AuditJournal
    clock: Clock
    open_incident: OpenIncident
    minutes: int = 10
    _tasks: set[asyncio.Task[None]] = field(default_factory=set, repr=False)

    async def ask(self, link: Link, answers: Answers, browser: str, address: str) -> str:
        """A ticket for the code that is sent, if what was said is right. Raises ``TooMany``."""
        actor = patient_actor(address)
        try:
            await self.attempts.claim(link.study_uid, address)
        except TooMany as problem:
            await self.journal.write(None, refusal(Kind.LINK_IDENTITY_CHECKED, link, actor, problem))
            raise
        ticket = self.codes.begin(browser, link)
        self._on_the_side(self._answered(ticket, link, answers, actor))
        return ticket

    async def enter(self, ticket: str, browser: str, typed: str, address: str) -> Door:
        """Open the door to whoever has the code. Raises ``CodeRefused``, and as ``Entrance.enter``."""
        actor = patient_actor(address)
        try:
            link = self.codes.use(ticket, browser, typed)
        except CodeRefused as problem:
            await self.journal.write(None, failed(Event(Kind.LOGIN, actor), problem))
            raise
        return await self.entrance.enter(link, Who(Visitor.PATIENT, self.clock.now()), actor)

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self.idle()

    def _on_the_side(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(_recorded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answered(self, ticket: str, link: Link, answers: Answers, actor: Actor) -> None:
        named = None
        try:
            named = await self.agreement.published(link, Visitor.PATIENT)
            contact = await self.contacts.of(named.archived, link.report.document_id)
            if not right(answers, named.manifest, contact):
                raise Disagrees("identité différente")
        except DrimboxError as problem:
            await self.journal.write(None, refusal(Kind.LINK_IDENTITY_CHECKED, link, actor, problem, named))
            return
        ins, structure = named.archived.ins, named.archived.structure
        event = Event(Kind.LINK_IDENTITY_CHECKED, actor, objects_of(link), structure=structure, patient=ins)
        await self.journal.write(None, event)
        digits = self.codes.arm(ticket)
        if digits:
            sending = Event(
                Kind.LINK_CODE_SENT, actor, (Object(Thing.STUDY, link.study_uid),), structure=structure, patient=ins
            )
            await self._send(Code(digits, self.minutes, ins, contact), sending)

    async def _send(self, code: Code, event: Event) -> None:
        """By the first way that works."""
        problem: DrimboxError | None = None
        for sender in self.senders:
            try:
                await _patiently(sender, code)
            except DrimboxError as error:
                problem = problem or error
                continue
            await self.journal.write(None, event)
            return
        if problem is not None:
            _log.error("code not sent: %s", problem.code)
            await self.journal.write(None, failed(event, problem))
            await self.open_incident(SENDING_FAILED, f"Le code d'un patient n'est pas parti : {problem.reason}")


async def _patiently(sender: Sender, code: Code) -> None:
    """A server that is busy is asked again while the patient waits. Raises ``DrimboxError``."""
    for pause in _PAUSES:
        try:
            await sender.send(code)
        except (Unavailable, OutcomeUnknown):
            # Twice the same code does no harm; none would.
            await asyncio.sleep(pause)
        else:
            return
    await sender.send(code)


async def _recorded(work: Coroutine[None, None, None]) -> None:
    try:
        await work
    except Exception:  # noqa: BLE001 - a task boundary: nobody waits for this one
        _log.exception("what a patient said was not held against the archive")

"""The RIS of a chaos run: what it means to say, how it writes it, and how it sends it over a line that breaks."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import itertools
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from chaos_model import DELETE, NEW, REPLACE, Held, Meant, Person
from chaos_site import STRUCTURES, Catalogue

from drimbox.sandbox.ris import letters, wire
from drimbox.sandbox.ris.exams import Act, Exam

NOW = dt.datetime(2026, 11, 23, 9, 0, tzinfo=dt.UTC)
#: What an act is told by in the DMP: its region.
REGIONS = {"774007": "tête et cou", "113257007": "système cardiovasculaire", "61685007": "membre inférieur"}
# What the RIS may ask, and the confidentiality code that the DMP must show for it.
_MASKS = {
    "MASQUE_PS": "MASQUE_PS",
    "INVISIBLE_PATIENT": "INVISIBLE_PATIENT",
    "INVISIBLE_REP_LEGAUX": "INVISIBLE_REPRESENTANTS_LEGAUX",
}
_UNKNOWN_STRUCTURE = "1990000011"


@dataclass(slots=True)
class Sent:
    """One message and what became of it. ``meant`` is None for what must be refused (AE)."""

    raw: bytes
    control_id: str
    meant: Meant | None
    what: str
    verdict: str = ""
    begun: float = 0.0
    ended: float = 0.0
    attempts: int = 0


@dataclass(slots=True)
class _Paper:
    """A report as the RIS keeps it."""

    document: str
    person: Person
    structure: str
    studies: tuple[Held, ...]
    masks: frozenset[str]
    act: str
    placer: str
    version: int = 1


@dataclass(slots=True)
class Writer:
    """Makes the messages about some of the patients; what it writes follows from its ``rng`` alone."""

    name: str
    rng: random.Random
    site: Catalogue
    people: list[Person]
    papers: list[_Paper] = field(default_factory=list)
    corrected: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)
    written: list[Sent] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def next(self) -> Sent:
        """The next message."""
        actions: list[tuple[Callable[[], Sent], int]] = [(self._new, 40), (self._invalid, 5)]
        if self.papers:
            actions += [(self._replace, 26), (self._delete, 9), (self._wrong, 6), (self._kept_from_dmp, 5)]
            actions += [(self._reused_id, 2), (self._corrected_identity, 1)]
        make = self.rng.choices([a for a, _ in actions], [w for _, w in actions])[0]
        sent = make()
        self.written.append(sent)
        return sent

    # --- what it means ------------------------------------------------------------------------------------------------

    def _new(self) -> Sent:
        paper = self._paper()
        self.papers.append(paper)
        return self._say(paper, NEW, "new")

    def _paper(self) -> _Paper:
        rng = self.rng
        person = rng.choice(self.people)
        theirs = self.site.of(person)
        count = min(rng.choice((1, 1, 1, 1, 2, 3)), len(theirs))
        first, second = STRUCTURES
        structure = rng.choice((first, second)) if person.mixed else first
        return _Paper(
            document=self._id("2.25.77"),
            person=person,
            structure=structure,
            studies=tuple(rng.sample(theirs, count)),
            masks=self._masks(),
            act=rng.choice(list(REGIONS)),
            placer=self._id("OPN"),
        )

    def _replace(self) -> Sent:
        old = self.rng.choice(self.papers)
        self.papers.remove(old)
        paper, kind = self._revised(old)
        self.papers.append(paper)
        changed = self.rng.random() < 0.5 and paper.masks != old.masks
        return self._say(paper, REPLACE, kind, replaces=old.document, changed=changed)

    def _revised(self, old: _Paper) -> tuple[_Paper, str]:
        paper = replace(old, document=self._id("2.25.77"), version=old.version + 1)
        kind = self.rng.choice(("same", "masks", "studies", "act"))
        theirs = [study for study in self.site.of(old.person) if not study.touched]
        if kind == "studies" and (old.person.ipp in self.touched or not theirs):
            # Whether the studies that it leaves out are under this INS by then depends on the moment.
            kind = "masks"
        if kind == "masks":
            paper.masks = self._masks()
        elif kind == "studies":
            paper.studies = tuple(self.rng.sample(theirs, min(self.rng.choice((1, 1, 2, 3)), len(theirs))))
            for study in paper.studies:
                study.named_anew = True
        elif kind == "act":
            paper.act, paper.placer = self.rng.choice(list(REGIONS)), self._id("OPN")
        return paper, f"replace ({kind})"

    def _delete(self) -> Sent:
        paper = self.rng.choice(self.papers)
        self.papers.remove(paper)
        return self._say(paper, DELETE, "delete")

    def _kept_from_dmp(self) -> Sent:
        """DESTDMP = N, on anything."""
        operation = self.rng.choice((NEW, REPLACE, DELETE))
        if operation == NEW:
            return self._say(self._paper(), NEW, "new, DESTDMP=N", to_dmp=False)
        old = self.rng.choice(self.papers)
        if operation == DELETE:
            return self._say(old, DELETE, "delete, DESTDMP=N", to_dmp=False)
        paper, _ = self._revised(old)
        self._kept_on(old, paper)
        return self._say(paper, REPLACE, "replace, DESTDMP=N", replaces=old.document, to_dmp=False)

    def _kept_on(self, old: _Paper, new: _Paper) -> None:
        """A version that was accepted and not published: some senders go on from it, some from the one before."""
        if self.rng.random() < 0.5:
            self.papers.remove(old)
            self.papers.append(new)

    def _corrected_identity(self) -> Sent:
        """The patient gets the INS that was the right one all along; what is published must move."""
        paper = self.rng.choice(self.papers)
        if any(s.touched for s in self.site.of(paper.person)):
            # What an order said of a study is told by the INS that it had then.
            return self._new()
        self.corrected.symmetric_difference_update({paper.person.ipp})
        self.touched.add(paper.person.ipp)
        self.papers.remove(paper)
        new = replace(paper, document=self._id("2.25.77"), version=paper.version + 1)
        self.papers.append(new)
        return self._say(new, REPLACE, "replace (identity)", replaces=paper.document)

    def _wrong(self) -> Sent:
        """A message that is well made and must be accepted, and that nothing may be published of."""
        kind = self.rng.choice(("unqualified", "name", "accession", "other-patient", "structure"))
        operation = self.rng.choice((NEW, REPLACE))
        old = self.rng.choice(self.papers)
        paper = self._paper() if operation == NEW else self._revised(old)[0]
        replaces = old.document if operation == REPLACE else ""
        if kind == "other-patient":
            others = [s for s in self.site.studies.values() if s.person is not paper.person and s.pacs]
            paper.studies = (self.rng.choice(others),)
        if kind in ("accession", "other-patient"):
            # A study of no PACS would be stopped for that.
            paper.studies = tuple(s for s in paper.studies if s.pacs)
            if not paper.studies:
                kind, paper.studies = "name", old.studies
                paper.person = old.person
        if kind == "structure":
            paper.structure = _UNKNOWN_STRUCTURE
        elif operation == REPLACE and kind != "other-patient":
            self._kept_on(old, paper)
        codes = {
            "unqualified": "ins-unqualified",
            "name": "birth-name-differs",
            "accession": "accession-differs",
            "other-patient": "pacs-ipp",
            "structure": "structure-unknown",
        }
        return self._say(paper, operation, f"wrong ({kind})", replaces=replaces, wrong=codes[kind])

    def _reused_id(self) -> Sent:
        """Another content under an identifier that was accepted: refused."""
        reports = (NEW, REPLACE, DELETE)
        accepted = [s for s in self.written if s.meant and s.meant.operation in reports and s.verdict == "AA"]
        if not accepted:
            return self._invalid()
        old = self.rng.choice(accepted)
        fresh = self._say(self._paper(), NEW, "reused identifier")
        raw = fresh.raw.replace(fresh.control_id.encode(), old.control_id.encode())
        return Sent(raw, old.control_id, None, "reused identifier")

    def _invalid(self) -> Sent:
        """What must be refused."""
        good = self._say(self._paper(), NEW, "invalid")
        kind = self.rng.choice(("no-msh", "no-pid", "ins-key", "operation", "flag", "type", "version", "base64"))
        raw = {
            "no-msh": lambda r: b"PID|1\r",
            "no-pid": lambda r: re.sub(rb"\rPID[^\r]*", b"", r),
            "ins-key": lambda r: re.sub(rb"(PID\|\|\|\d{13})(\d)", lambda m: m[1] + b"%d" % ((int(m[2]) + 1) % 10), r),
            "operation": lambda r: r.replace(b"\rORC|NW|", b"\rORC|CA|"),
            "flag": lambda r: re.sub(rb"\rOBX\|\d+\|C[WE]+\|DESTDMP[^\r]*", b"", r),
            "type": lambda r: re.sub(rb"\|(ORU\^R01\^ORU_R01|MDM\^T02\^MDM_T02)\|", b"|ADT^A08^ADT_A01|", r, count=1),
            "version": lambda r: re.sub(rb"\|P\|2\.[56]\|", b"|P|2.3|", r, count=1),
            "base64": lambda r: re.sub(rb"(\^Base64\^.{41})", rb"\1!", r, count=1),
        }[kind](good.raw)
        return Sent(raw, "" if kind == "no-msh" else good.control_id, None, f"invalid ({kind})")

    # --- how it writes it ---------------------------------------------------------------------------------------------

    def _say(
        self,
        paper: _Paper,
        operation: str,
        what: str,
        *,
        replaces: str = "",
        changed: bool = False,
        to_dmp: bool = True,
        wrong: str = "",
    ) -> Sent:
        rng = self.rng
        control_id = self.control_id()
        ins = paper.person.later_ins if paper.person.ipp in self.corrected else paper.person.ins
        other = "X" if wrong == "accession-differs" else ""
        flags = {flag for flag in _MASKS if flag in paper.masks}
        flags |= ({"DESTDMP"} if to_dmp else set()) | ({"MODIF_CONF_CODE"} if changed else set())
        letter = letters.Letter(
            Exam(
                "Z",
                paper.document,
                tuple(s.uid for s in paper.studies),
                tuple((paper.placer, s.accession + other) for s in paper.studies),
                _act(paper.act),
            ),
            control_id,
            identity=letters.Identity(
                ins=ins,
                family=paper.person.family,
                given=paper.person.given,
                birth_date=paper.person.birth_date,
                sex=paper.person.sex,
                birth_place="63220",
                ipp=paper.person.ipp,
                status="PROV" if wrong == "ins-unqualified" else "VALI",
            ),
            structure=paper.structure,
            structure_name="Structure",
            operation=operation,
            document_id=paper.document,
            replaces=replaces,
            version=paper.version,
            flags=frozenset(flags),
        )
        raw = rng.choice((letters.oru, letters.mdm))(letter, NOW)
        if wrong == "birth-name-differs":
            raw = re.sub(rb"(\rPID[^\r]*\|)%b\^" % paper.person.family.encode(), rb"\1AUTRE^", raw, count=1)
        meant = Meant(
            control_id=control_id,
            operation=operation,
            document=paper.document,
            replaces=replaces,
            studies=tuple(s.uid for s in paper.studies),
            structure=paper.structure,
            ins=ins,
            masks=frozenset(_MASKS[m] for m in paper.masks),
            placer=paper.placer,
            act=paper.act,
            to_dmp=to_dmp,
            wrong="" if wrong == "structure-unknown" else wrong,
        )
        return Sent(raw, control_id, meant, what)

    def control_id(self) -> str:
        """Identifiers in no order."""
        return f"{self.rng.randrange(16**6):06X}{self.name}{next(self._numbers)}"

    def _masks(self) -> frozenset[str]:
        return frozenset(m for m in _MASKS if self.rng.random() < 0.2)

    def _id(self, root: str) -> str:
        return f"{root}{self.rng.randrange(10**12)}{next(self._numbers)}"


def _act(region: str) -> Act:
    return Act("24727-0", "CT Tête", "ACQH004", "Scanner", "CT", "Tomodensitométrie", region, REGIONS[region])


@dataclass(slots=True)
class Post:
    """Sends messages as a RIS does: again and again until they are accepted or refused."""

    port: int
    rng: random.Random
    wild: bool = True
    counts: Counter[str] = field(default_factory=Counter)
    answers: dict[str, set[bytes]] = field(default_factory=dict)

    async def deliver(self, sent: Sent) -> None:
        """Until an answer says AA or AE."""
        sent.begun = time.monotonic()
        pause = 0.1
        while not sent.verdict:
            sent.attempts += 1
            if sent.attempts > 1:
                self.counts["repeated"] += 1
            try:
                verdict, answer = await self._once(sent.raw)
            except (OSError, TimeoutError, ConnectionError, asyncio.IncompleteReadError):
                verdict, answer = "", b""
            if verdict in ("AA", "AE"):
                sent.verdict = verdict
                self._remember(sent, verdict, answer)
            else:
                self.counts["answered AR" if verdict == "AR" else "no answer"] += 1
                await asyncio.sleep(pause * self.rng.uniform(0.5, 1.5))
                pause = min(pause * 1.7, 2.0)
        sent.ended = time.monotonic()

    async def again(self, sent: Sent) -> bool:
        """The same message once more, long after; True when it is answered as it was the first time."""
        self.counts["sent again later"] += 1
        copy = replace(sent, verdict="", attempts=0)
        await self.deliver(copy)
        return copy.verdict == sent.verdict

    def _remember(self, sent: Sent, verdict: str, answer: bytes) -> None:
        if verdict == "AA":
            self.answers.setdefault(sent.control_id, set()).add(answer)

    async def _once(self, raw: bytes) -> tuple[str, bytes]:
        """One attempt, on a line that breaks at times."""
        fault = self.rng.random() if self.wild else 1.0
        frame = b"\x0b" + raw + b"\x1c\r"
        if fault < 0.02:
            # Two lines, the same message, at the same time.
            self.counts["line: twice at once"] += 1
            first, second = await asyncio.gather(self._once_plain(frame), self._once_plain(frame))
            return min(first, second)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            if fault < 0.035:
                self.counts["line: cut before the end"] += 1
                writer.write(frame[: self.rng.randrange(len(frame))])
                await writer.drain()
                return "", b""
            if fault < 0.06:
                self.counts["line: cut before the ack"] += 1
                writer.write(frame)
                await writer.drain()
                await asyncio.sleep(self.rng.choice((0, 0, 0.005, 0.05)))
                writer.transport.abort()
                return "", b""
            if fault < 0.07:
                self.counts["line: noise first"] += 1
                writer.write(b"\r\n" + base64.b64encode(self.rng.randbytes(30)))
            if fault < 0.08:
                self.counts["line: in pieces"] += 1
                middle = self.rng.randrange(len(frame))
                writer.write(frame[:middle])
                await writer.drain()
                await asyncio.sleep(self.rng.uniform(0, 0.3))
                frame = frame[middle:]
            writer.write(frame)
            await writer.drain()
            return await self._answer(reader)
        finally:
            writer.close()

    async def _once_plain(self, frame: bytes) -> tuple[str, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(frame)
            await writer.drain()
            return await self._answer(reader)
        finally:
            with contextlib.suppress(OSError):
                writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[str, bytes]:
        async with asyncio.timeout(20):
            raw = await reader.readuntil(b"\x1c\r")
        answer = raw[raw.index(b"\x0b") + 1 : -2]
        return wire.verdict(answer), answer

"""What the site does to its studies besides reporting them: orders, notes, images out of and into the PACS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from dataclasses import dataclass, field

from chaos_model import CANCELLED, CHANGED, Held, Meant
from chaos_site import Site, sample_of
from chaos_traffic import NOW, Sent, Writer

from drimbox.foundation.errors import DrimboxError
from drimbox.sandbox.pacs import orthanc, rejections
from drimbox.sandbox.ris import letters
from drimbox.sandbox.ris.exams import Act, Exam
from drimbox.sandbox.ris.orders import OrderLetter, omi

_TITLES = (rejections.QUALITY, rejections.PATIENT_SAFETY, rejections.WRONG_WORKLIST_ENTRY, ("113000", "Of Interest"))
_ACT = Act("24727-0", "CT Tête", "ACQH004", "Scanner", "CT", "Tomodensitométrie", "774007", "tête et cou")


@dataclass(frozen=True, slots=True)
class Note:
    """A note that the box took: about which study, and when it was sent and answered (monotonic clock)."""

    uid: str
    study: str
    begun: float
    ended: float


@dataclass(slots=True)
class Changes:
    """What one lane does to the studies of its patients, one after the other."""

    site: Site
    writer: Writer
    rng: random.Random
    notes: list[Note] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def order(self) -> Sent | None:
        """An OMI^O23 about a study; None where no study lends itself."""
        held = self._study()
        if held is None:
            return None
        # What was taken out of the PACS must be told again: a deletion would hide it.
        kind = CANCELLED if self.rng.random() < 0.4 and not held.away else CHANGED
        return self._omi(held, kind)

    def _omi(self, held: Held, kind: str) -> Sent:
        held.touched = True
        control_id = self.writer.control_id()
        person = held.person
        identity = letters.Identity(
            ins=person.ins,
            family=person.family,
            given=person.given,
            birth_date=person.birth_date,
            sex=person.sex,
            ipp=person.ipp,
        )
        exam = Exam("Z", "", (held.uid,), (("OPN1", held.accession),), _ACT)
        letter = OrderLetter((exam,), control_id, "CA" if kind == CANCELLED else "XO", identity=identity)
        meant = Meant(control_id, kind, "", "", (held.uid,), "", person.ins, frozenset(), "", "")
        sent = Sent(omi(letter, NOW), control_id, meant, kind)
        self.writer.written.append(sent)
        return sent

    async def pacs(self) -> Sent | None:
        """Images leave the PACS, or come back; then the order that tells of it."""
        held = self._study("orthanc")
        if held is None:
            return None
        if held.away:
            await self._until_done(self._put_back, held)
            held.away = frozenset()
            self._count("images put back into the PACS")
        else:
            some = sorted(held.instances)
            out = frozenset(some if self.rng.random() < 0.5 and not held.named_anew else some[:1])
            await self._until_done(self._take_out, held, out)
            held.away = out
            self._count("images taken out of the PACS")
        return self._omi(held, CHANGED)

    async def note(self) -> None:
        """A Key Object Selection by C-STORE (RAD-66), again and again until the box takes it."""
        held = self._study()
        if held is None or held.rejected:
            return
        held.touched = True
        sample = sample_of(held)
        [series] = sample.series
        title = self.rng.choice(_TITLES)
        whole = self.rng.random() < 0.5 and not held.named_anew
        images = range(1, series.images + 1) if whole else (1,)
        index = self.rng.randrange(10**6)
        note = rejections.rejection_note(sample, [(series, i) for i in images], title=title, index=index)
        begun = time.monotonic()
        while True:
            with contextlib.suppress(ConnectionError, OSError):
                sending = asyncio.to_thread(
                    rejections.send,
                    "127.0.0.1",
                    self.site.iocm,
                    [note],
                    calling="PACS_A",
                    called="DRIMBOX_N",
                    timeout=10,
                )
                if await sending == [0]:
                    break
            await asyncio.sleep(self.rng.uniform(0.1, 1))
        self.notes.append(Note(str(note.SOPInstanceUID), held.uid, begun, time.monotonic()))
        if title[0] != "113000":
            held.rejected = frozenset(sample.instance_uid(series, i) for i in images)
        self._count(f"note {title[0]}")

    def _study(self, pacs: str = "") -> Held | None:
        """A reported study of a patient whose identity nobody corrects, of one structure alone."""
        papers = [p for p in self.writer.papers if p.person.ipp not in self.writer.touched and not p.person.mixed]
        studies = {s.uid: s for p in papers for s in p.studies if s.person is p.person}
        found = [s for s in studies.values() if s.pacs and pacs in ("", s.pacs)]
        return self.rng.choice(found) if found else None

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # --- Orthanc ------------------------------------------------------------------------------------------------------

    async def _until_done(self, work: object, *arguments: object) -> None:
        """The PACS may be down: again until it is done."""
        while True:
            with contextlib.suppress(DrimboxError):
                await asyncio.to_thread(work, *arguments)  # type: ignore[arg-type]
                return
            await asyncio.sleep(0.3)

    def _take_out(self, held: Held, instances: frozenset[str]) -> None:
        peer = self.site.orthanc.peer
        assert peer is not None
        query = {"Level": "Instance", "Expand": True, "Query": {"StudyInstanceUID": held.uid}}
        for found in json.loads(orthanc.rest(peer, "POST", "/tools/find", json.dumps(query).encode())):
            if found["MainDicomTags"]["SOPInstanceUID"] in instances:
                orthanc.rest(peer, "DELETE", f"/instances/{found['ID']}")

    def _put_back(self, held: Held) -> None:
        peer = self.site.orthanc.peer
        assert peer is not None
        for path in sorted((self.site.state / "images" / str(held.number)).rglob("*.dcm")):
            orthanc.rest(peer, "POST", "/instances", path.read_bytes())

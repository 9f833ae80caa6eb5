"""The oracle: from the messages that a box accepted, in their order, what the DMP must hold at the end.

Written from the specification (decisions 2, 4, 5, 6, 26 of its README; CI-SIS volet 2.1) for the chaos run alone. It
shares nothing with ``drimbox.publication``: it knows what the simulated RIS meant by each message, reads none, and
needs no database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

NEW, REPLACE, DELETE = "new", "replace", "delete"
# OMI^O23 with ORC-1 CA, and with another one.
CANCELLED, CHANGED = "order cancelled", "order changed"


@dataclass(frozen=True, slots=True)
class Person:
    """A patient of the site. ``later_ins`` is the INS that a correction of identity gives them.

    ``mixed``: both structures report their studies; the others' are all of one.
    """

    ins: str
    later_ins: str
    family: str
    given: str
    birth_date: str
    sex: str
    ipp: str
    mixed: bool = False

    def cx(self, ins: str) -> str:
        return f"{ins}^^^&1.2.250.1.213.1.4.10&ISO^NH"


@dataclass(slots=True)
class Held:
    """A study of the site: ``pacs`` holds its ``instances`` (none: no PACS knows it).

    ``away`` are those that somebody took out of the PACS for now, ``rejected`` those that a note rejected for good.
    ``named_anew``: a replacement left other studies for it. Some image of it stays: without any, the replacement may be
    stopped, by the moment, and what it replaces then stands.
    """

    number: int
    uid: str
    accession: str
    person: Person
    pacs: str
    instances: frozenset[str]
    away: frozenset[str] = frozenset()
    rejected: frozenset[str] = frozenset()
    touched: bool = False
    named_anew: bool = False

    @property
    def shared(self) -> frozenset[str]:
        """What a manifest must name."""
        return self.instances - self.away - self.rejected


@dataclass(frozen=True, slots=True)
class Meant:
    """What a message means. ``wrong`` is the code of the operator's line that it must end in, for every study.

    ``masks`` are the confidentiality codes that the report asks for; ``placer`` and ``act`` tell versions apart.
    """

    control_id: str
    operation: str
    document: str
    replaces: str
    studies: tuple[str, ...]
    structure: str
    ins: str
    masks: frozenset[str]
    placer: str
    act: str
    to_dmp: bool = True
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class Kos:
    """The one manifest of a study that stands: what it must say."""

    patient: str
    masks: frozenset[str]
    placer: str
    act: str


@dataclass(slots=True)
class Shelf:
    """What is true of one study for one structure.

    ``received`` are the reports that came on it, ``ever`` those that were once behind its manifests, ``said`` what the
    standing ones say, ``last`` the manifest that stood last. ``perhaps`` stands or not, by the moment: after a deletion
    that a report to another structure has ended.
    """

    received: set[str] = field(default_factory=set)
    standing: list[str] = field(default_factory=list)
    kos: Kos | None = None
    ever: set[str] = field(default_factory=set)
    said: dict[str, Kos] = field(default_factory=dict)
    last: Kos | None = None
    perhaps: Kos | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the operator's queue that a message must have made (``must``), or may have made."""

    structure: str
    study: str
    codes: frozenset[str]
    must: bool
    control_id: str


class Model:
    """Takes messages one after the other."""

    def __init__(self, studies: Mapping[str, Held], structures: Mapping[str, str]) -> None:
        """``structures``: the box's short name of each Struct_IdNat."""
        self._studies = studies
        self._structures = structures
        self.shelves: dict[tuple[str, str], Shelf] = {}
        self.lines: list[Line] = []
        self.published = 0
        self._came_for: dict[tuple[str, str], set[str]] = {}
        self._withdrawn: set[str] = set()

    def take_all(self, events: Iterable[Meant | str]) -> None:
        """Messages, and the UIDs of studies about which a note came."""
        for event in events:
            if isinstance(event, str):
                self._looked_at(event)
            else:
                self.take(event)

    def take(self, message: Meant) -> None:
        if message.operation in (CANCELLED, CHANGED):
            for study in message.studies:
                self._order(message, study)
            return
        if message.operation != DELETE:
            for study in message.studies:
                self._shelf(message, study).received.add(message.document)
        if message.operation == REPLACE:
            # Whatever becomes of the message: its sender holds the older document for replaced.
            self._came_for.setdefault((message.structure, message.document), set()).add(message.replaces)
        if message.structure not in self._structures:
            self._stopped(message, message.studies, "structure-unknown", structure="")
            return
        if not message.to_dmp:
            # Decision 5: nothing is published, and what was published stays.
            return
        if message.operation == DELETE:
            for study in message.studies:
                self._withdraw(message, study, self._gone(message))
            return
        # Every study has its turn.
        taken = [self._report(message, study) for study in message.studies]
        if not any(taken):
            return
        if message.operation == REPLACE:
            gone = self._gone(message)
            for (structure, study), shelf in list(self.shelves.items()):
                left_out = study not in message.studies and not gone.isdisjoint(shelf.standing)
                if structure == message.structure and left_out:
                    self._withdraw(message, study, gone)

    def _gone(self, message: Meant) -> set[str]:
        """The documents that a message ends: the one that it names, and all those in whose place that one came."""
        found: set[str] = set()
        waiting = {NEW: set[str](), REPLACE: {message.replaces}, DELETE: {message.document}}[message.operation]
        while waiting:
            document = waiting.pop()
            found.add(document)
            waiting |= self._came_for.get((message.structure, document), set()) - found
        return found

    def expected(self) -> dict[tuple[str, str], Kos]:
        """(structure, study) -> the manifest that must stand; every other study has none."""
        return {
            key: shelf.kos
            for key, shelf in self.shelves.items()
            if shelf.kos is not None and self._studies[key[1]].shared
        }

    def perhaps(self) -> dict[tuple[str, str], Kos]:
        """What may stand instead of nothing."""
        return {k: s.perhaps for k, s in self.shelves.items() if s.perhaps is not None and s.kos is None and s.standing}

    def _shelf(self, message: Meant, study: str) -> Shelf:
        return self.shelves.setdefault((message.structure, study), Shelf())

    def _report(self, message: Meant, study: str) -> bool:
        """A report stands on a study from now on; False where the operator must look at it first."""
        held = self._studies.get(study)
        if message.wrong:
            self._stopped(message, (study,), message.wrong)
            return False
        if held is None or not held.pacs:
            self._stopped(message, (study,), "study-unknown")
            return False
        shelf = self._shelf(message, study)
        gone = self._gone(message) | {message.document}
        shelf.standing = [d for d in shelf.standing if d not in gone] + [message.document]
        shelf.ever.add(message.document)
        new = Kos(held.person.cx(message.ins), message.masks, message.placer, message.act)
        self.published += new != shelf.kos
        shelf.kos = shelf.last = shelf.said[message.document] = new
        shelf.perhaps = None
        self._is_back(message, study)
        return True

    # --- orders and notes ---------------------------------------------------------------------------------------------

    def _order(self, message: Meant, study: str) -> None:
        if message.operation == CHANGED:
            self._withdrawn.discard(study)
            self._looked_at(study)
            return
        self._withdrawn.add(study)
        for (_, known), shelf in self.shelves.items():
            if known == study:
                shelf.kos = shelf.perhaps = None

    def _looked_at(self, study: str) -> None:
        """The study is compared with what stands."""
        for (_, known), shelf in self.shelves.items():
            if known != study or study in self._withdrawn:
                continue
            shelf.perhaps = None
            if shelf.standing:
                self._says_the_newest(shelf)

    def _says_the_newest(self, shelf: Shelf) -> None:
        """The manifest says what the newest report says that stands, and is shown to whom that one is shown."""
        new = shelf.said[shelf.standing[-1]]
        self.published += new != shelf.kos
        shelf.kos = shelf.last = new

    def _is_back(self, message: Meant, study: str) -> None:
        """A report carried through ends a deletion before it; for other structures it brings nothing back by itself."""
        if study not in self._withdrawn:
            return
        self._withdrawn.discard(study)
        for (structure, known), shelf in self.shelves.items():
            if known == study and structure != message.structure:
                shelf.perhaps = shelf.last

    def _withdraw(self, message: Meant, study: str, gone: set[str]) -> None:
        """A report no longer stands on a study; its manifest goes with the last one (decisions 2, 26)."""
        shelf = self._shelf(message, study)
        if shelf.kos is not None:
            stood, known = not gone.isdisjoint(shelf.standing), not gone.isdisjoint(shelf.received)
            if known and gone.isdisjoint(shelf.ever):
                # It was stopped: nothing of it is there to take away.
                return
            if shelf.kos.patient != Person.cx(self._studies[study].person, message.ins):
                self._stopped(message, (study,), "depublish-patient", must=stood or not known)
                return
            if not stood and not known:
                self._stopped(message, (study,), "depublish-document")
                return
        newest = shelf.standing[-1:]
        shelf.standing = [d for d in shelf.standing if d not in gone]
        if not shelf.standing:
            self.published += shelf.kos is not None
            shelf.kos = shelf.perhaps = None
        elif shelf.kos is not None and shelf.standing[-1:] != newest:
            self._says_the_newest(shelf)

    def _stopped(
        self, message: Meant, studies: Sequence[str], code: str, *, structure: str | None = None, must: bool = True
    ) -> None:
        where = self._structures.get(message.structure, "") if structure is None else structure
        for study in studies:
            self.lines.append(Line(where, study, frozenset(code.split("|")), must, message.control_id))

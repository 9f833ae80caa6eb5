"""How far an import went, and what it has to tell: in memory, and in a journal that outlives a cut. Blocking."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from drimbox.foundation.errors import Refused
from drimbox.portability.check import WARNINGS
from drimbox.portability.journal import Journal
from drimbox.portability.layout import refused
from drimbox.portability.placing import Placed
from drimbox.portability.sinks import writing
from drimbox.portability.sources import Key

_MOST_REFUSED = 1000


@dataclass(frozen=True, slots=True)
class RefusedSet:
    """A set that was not imported, and why; ``label`` is its place in the archive."""

    label: str
    code: str
    reason: str


@dataclass(slots=True)
class ImportReport:
    """What an import did, interruptions included.

    ``imported``, ``updated`` (their state moved on) and ``unchanged`` count versions of KOS; ``refused`` sets, of which
    ``details`` holds the first thousand; ``warnings`` counts by code (``check.WARNINGS``) what is odd and came in.
    """

    sets: int = 0
    imported: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: int = 0
    details: list[RefusedSet] = field(default_factory=list)
    warnings: Counter[str] = field(default_factory=Counter)
    resumed: bool = False

    def count(self, placed: Placed) -> None:
        """One more set, which came in."""
        self.sets += 1
        self.imported += placed.imported
        self.updated += placed.updated
        self.unchanged += placed.unchanged
        self.warnings.update(placed.warnings)

    def refuse(self, label: str, error: Refused) -> None:
        """One more set, which did not come in."""
        self.sets += 1
        self.refused += 1
        if len(self.details) < _MOST_REFUSED:
            self.details.append(RefusedSet(label, error.code, error.reason))

    def words(self) -> list[str]:
        """For the operator, line by line."""
        lines = [
            f"{self.sets} lots lus : {self.imported} KOS importés, {self.updated} mis à jour, "
            f"{self.unchanged} déjà présents ; {self.refused} lots refusés"
        ]
        lines += [f"  attention : {count} {WARNINGS.get(code, code)}" for code, count in sorted(self.warnings.items())]
        lines += [f"  refusé : {one.label} : {one.reason} ({one.code})" for one in self.details]
        if self.refused > len(self.details):
            lines.append(
                f"  … et {self.refused - len(self.details)} autres, dans la file d'attente (drimbox queue list)"
            )
        return lines


class Course:
    """Where an import stands, in memory and in its journal. Blocking."""

    def __init__(self, journal: Path | None, source: Path, stack: ExitStack) -> None:
        self.report = ImportReport()
        self.after: Key | None = None
        self._journal: Journal | None = None
        if journal is None:
            return
        with writing():
            journal.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._journal = Journal(journal)
            stack.callback(self._journal.close)
            known = {"source": _fingerprint(source)}
            if self._journal.states and self._journal.states[0].get("archive") == known:
                self._take_up(self._journal)
            else:
                self._journal.restart()
                self._journal.add({"archive": known})

    def _take_up(self, journal: Journal) -> None:
        last = journal.states[-1]
        if "after" not in last:
            return
        try:
            told = dict(last["report"])
            details = [RefusedSet(*map(str, one)) for one in told.pop("details")]
            warnings = Counter({str(code): int(n) for code, n in told.pop("warnings").items()})
            self.report = ImportReport(**told, details=details, warnings=warnings)
            self.after = tuple(map(str, last["after"]))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise refused("Le journal de l'import interrompu est abîmé : supprimez-le", "damaged") from error
        self.report.resumed = True

    def checkpoint(self) -> None:
        """What was done is not done again."""
        if self._journal is None or self.after is None:
            return
        report = asdict(self.report) | {"details": [(d.label, d.code, d.reason) for d in self.report.details]}
        with writing():
            self._journal.add({"after": list(self.after), "report": report})

    def done(self) -> None:
        if self._journal is not None:
            with writing():
                self._journal.done()


def _fingerprint(source: Path) -> str:
    """Which archive this is: where it is, and of a file its size and age."""
    found = os.stat(source)
    told = [str(source.resolve())]
    if source.is_file():
        told += [str(found.st_size), str(found.st_mtime_ns)]
    return hashlib.sha256("\0".join(told).encode("utf-8", "surrogateescape")).hexdigest()

"""What is told: the lines of the queue that a channel has not told of yet, as one notice."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from drimbox.foundation.clock import PARIS, iso_utc

MOST_LINES = 20


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the queue, without anything that a patient could be known by."""

    id: int
    code: str
    severity: str
    label: str
    structure: str
    opened_at: dt.datetime
    closed: bool


@dataclass(frozen=True, slots=True)
class Notice:
    """Several lines told at once. ``box`` is the name of the box, ``console`` its address (empty: it has none)."""

    box: str
    console: str
    items: tuple[Item, ...]

    @property
    def subject(self) -> str:
        errors = sum(item.severity == "error" for item in self.items)
        warnings = len(self.items) - errors
        told = [_some(errors, "erreur")] if errors else []
        told += [_some(warnings, "alerte")] if warnings else []
        return f"[DRIMbox {self.box}] {' et '.join(told)} dans la file"

    @property
    def text(self) -> str:
        """Plain French text: how many of each cause, then line by line, the oldest first."""
        lines = [f"{self.subject.partition('] ')[2].capitalize()} de la DRIMbox {self.box}.", "", "Par motif :"]
        lines += [f"  {count} x {code}" for code, count in self.counts.most_common()]
        lines += ["", "Détail :"]
        lines += [self._line(item) for item in self.items[:MOST_LINES]]
        if len(self.items) > MOST_LINES:
            lines.append(f"  … et {len(self.items) - MOST_LINES} de plus, dans la console")
        lines += ["", f"File de l'opérateur : {self.console}/file" if self.console else "Voyez : drimbox queue list"]
        return "\n".join(lines) + "\n"

    @property
    def counts(self) -> Counter[str]:
        return Counter(item.code for item in self.items)

    def to_json(self) -> dict[str, Any]:
        """For a webhook; ``text`` is what chat services show."""
        return {
            "text": f"{self.subject}\n{self.text}",
            "box": self.box,
            "console": self.console,
            "counts": dict(self.counts),
            "total": len(self.items),
            "incidents": [self._json(item) for item in self.items[:MOST_LINES]],
        }

    def _line(self, item: Item) -> str:
        at = f"{item.opened_at.astimezone(PARIS):%d/%m/%Y %H:%M}"
        where = f" ({item.structure})" if item.structure else ""
        state = " (close depuis)" if item.closed else ""
        link = f"\n    {self._link(item)}" if self.console else ""
        what = "ERREUR" if item.severity == "error" else "alerte"
        return f"  n° {item.id}, {at}, {what} {item.code} : {item.label}{where}{state}{link}"

    def _link(self, item: Item) -> str:
        return f"{self.console}/file/{item.id}"

    def _json(self, item: Item) -> dict[str, Any]:
        told: dict[str, Any] = {
            "id": item.id,
            "code": item.code,
            "severity": item.severity,
            "label": item.label,
            "structure": item.structure,
            "opened_at": iso_utc(item.opened_at),
            "closed": item.closed,
        }
        return {**told, "url": self._link(item)} if self.console else told


def example(box: str, console: str, now: dt.datetime) -> Notice:
    """What is sent to try a channel."""
    return Notice(box, console, (Item(0, "essai", "warning", "Essai de notification", "", now, closed=True),))


def items_of(rows: Sequence[dict[str, Any]]) -> tuple[Item, ...]:
    """Rows of the table ``incident``."""
    return tuple(
        Item(
            id=row["id"],
            code=_plain(row["code"]),
            severity=row["severity"],
            label=_plain(_label(row)),
            structure=_plain(row["structure"]),
            opened_at=row["opened_at"],
            closed=row["closed_at"] is not None,
        )
        for row in rows
    )


def _label(row: dict[str, Any]) -> str:
    if row["study_uid"]:
        return f"Examen {row['study_uid']}"
    return f"Message n° {row['message_id']}" if row["message_id"] is not None else f"Incident n° {row['id']}"


def _plain(text: str) -> str:
    """On one line, and of bounded length: parts of it came from peers."""
    return "".join(c if c.isprintable() else "?" for c in text)[:128]


def _some(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count > 1 else ''}"

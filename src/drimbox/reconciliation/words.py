"""What people read about walks, in French."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

from drimbox.foundation.clock import PARIS
from drimbox.reconciliation.hours import Range, ends_at
from drimbox.reconciliation.walk import Finding, Kind, Mode, State, Walk

KINDS: Mapping[Kind, str] = {
    Kind.RECONCILIATION: "Réconciliation",
    Kind.ADDRESS: "Changement d'adresse",
}
MODES: Mapping[Mode, str] = {Mode.REPAIR: "corrige", Mode.REPORT: "signale sans rien changer"}
STATES: Mapping[State, str] = {
    State.RUNNING: "en cours",
    State.PAUSED: "en pause",
    State.DONE: "terminée",
    State.STOPPED: "arrêtée",
}
FINDINGS: Mapping[Finding, str] = {
    Finding.GONE: "L'examen n'est plus dans le PACS",
    Finding.BACK: "L'examen est au PACS et n'a plus de KOS au DMP",
    Finding.CONTENT: "Le KOS ne dit pas ce que le PACS contient",
    Finding.PATIENT: "Le patient n'est pas le même au PACS",
    Finding.MISSING: "Le KOS n'est plus au DMP",
    Finding.SEVERAL: "Une version antérieure du KOS est encore au DMP",
    Finding.VISIBILITY: "La visibilité n'est pas celle qui a été publiée",
    Finding.PACS_REFUSES: "Le PACS ne sait pas répondre sur cet examen",
    Finding.DMP_REFUSES: "Le DMP refuse de répondre sur ce KOS",
    Finding.UNUSABLE: "L'examen ne peut pas être comparé",
    Finding.REPLACED: "KOS remplacé",
    Finding.DEPUBLISHED: "KOS retiré du DMP",
    Finding.PUBLISHED: "KOS publié de nouveau",
    Finding.STOPPED: "Correction impossible : voir la file de l'opérateur",
    Finding.LEFT: "Correction abandonnée ou laissée à la file des travaux",
    Finding.DEFECT: "Défaut de la passerelle : à signaler avec le journal technique",
}


def difference(findings: Mapping[Finding, str]) -> str:
    """What is wrong about one study, for the operator's queue."""
    return " ; ".join(described(kind, detail) for kind, detail in findings.items())


def described(kind: Finding, detail: str) -> str:
    return f"{FINDINGS[kind]} ({detail})" if detail else FINDINGS[kind]


def waiting(studies: int, reason: str) -> str:
    """Why a walk that repairs waits."""
    told = f" : {reason.removeprefix('En attente : ')}" if reason else ""
    return f"En attente : {studies} examen{'s' if studies > 1 else ''} en file pour un PACS ou le DMP{told}"


def progress(walk: Walk) -> str:
    """``1 204 examens sur 98 300 (1 %)``."""
    share = f" ({100 * min(walk.done, walk.total) // walk.total} %)" if walk.total else ""
    return f"{number(walk.done)} examen{'s' if walk.done > 1 else ''} sur {number(walk.total)}{share}"


def expected_end(walk: Walk, now: dt.datetime, hours: Sequence[Range]) -> dt.datetime | None:
    """When a walk will be through at its pace, the hours of rest included; None when it is not under way."""
    if walk.state is not State.RUNNING:
        return None
    return ends_at(now, dt.timedelta(seconds=walk.left * walk.pace), hours)


def forecast(walk: Walk, now: dt.datetime, hours: Sequence[Range]) -> str:
    """The expected end, to the minute."""
    end = expected_end(walk, now, hours)
    return f"{end.astimezone(PARIS):%d/%m/%Y à %H:%M}" if end else "non connue"


def number(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")


def report(walk: Walk, now: dt.datetime, hours: Sequence[Range]) -> list[str]:
    """Everything about one walk, a line each, for the command line."""
    begun = f"{walk.started_at.astimezone(PARIS):%d/%m/%Y %H:%M}"
    lines = [
        f"{KINDS[walk.kind]} n° {walk.id} : {STATES[walk.state]}, {MODES[walk.mode]}",
        f"  commencée le {begun} par {walk.started_by}, {walk.rate} examens par minute au plus",
        f"  {progress(walk)}",
    ]
    if walk.base:
        lines.append(f"  adresse : {walk.base}")
    if walk.ended_at is not None:
        lines.append(f"  finie le {walk.ended_at.astimezone(PARIS):%d/%m/%Y %H:%M}")
    if walk.state is State.RUNNING:
        lines.append(f"  fin prévue : {forecast(walk, now, hours)}")
    if walk.note:
        lines.append(f"  {walk.note}")
    lines += [f"  {number(walk.findings[kind.value])} × {FINDINGS[kind]}" for kind in Finding if kind in walk.findings]
    if not walk.findings and walk.done:
        lines.append("  aucun écart")
    return lines

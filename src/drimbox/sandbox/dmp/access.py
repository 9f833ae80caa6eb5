"""Who may consult, and who sees what (standards.md D.8, ans-faq.md 5)."""

from __future__ import annotations

from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.bench import Authorisation, RecordStatus
from drimbox.sandbox.dmp.hearing import Hearing
from drimbox.sandbox.dmp.rules import Rule, rule
from drimbox.sandbox.dmp.store import StoredEntry


@rule("ACCESS.RECORD", v.UNKNOWN_PATIENT)
def record(h: Hearing) -> str | None:
    """The patient has a DMP (standards.md D.8)."""
    known = h.bench.patient(h.vihf.patient)
    return "pas de DMP pour ce patient" if known is None or known.status is RecordStatus.NONE else None


@rule("ACCESS.OPEN", v.RECORD_CLOSED)
def is_open(h: Hearing) -> str | None:
    """A closed DMP is not consulted (standards.md D.8)."""
    known = h.bench.patient(h.vihf.patient)
    return "DMP fermé" if known is not None and known.status is RecordStatus.CLOSED else None


@rule("ACCESS.BLOCKED", v.ACCESS_DENIED)
def blocked(h: Hearing) -> str | None:
    """A blocked professional never gets access, not even in an emergency (standards.md D.8)."""
    return "professionnel bloqué par le patient" if h.authorisation() is Authorisation.BLOCKED else None


@rule("ACCESS.AUTHORISED", v.ACCESS_DENIED)
def authorised(h: Hearing) -> str | None:
    """Consultation needs a valid authorisation, but in an emergency (standards.md D.8, EX_0.3-1010)."""
    allowed = h.vihf.emergency or h.authorisation() is Authorisation.VALID
    return None if allowed else "autorisation de consultation absente ou expirée"


RECORD_RULES: tuple[Rule[Hearing], ...] = (record, is_open)
ACCESS_RULES: tuple[Rule[Hearing], ...] = (*RECORD_RULES, blocked, authorised)


def is_author(h: Hearing, entry: StoredEntry) -> bool:
    """Did the structure that asks author this document, itself or by its legal entity?"""
    return any(h.bench.one_structure(s, h.vihf.structure) for s in entry.structures)


def is_visible(h: Hearing, entry: StoredEntry) -> bool:
    """May this request see the entry?

    Never that of another patient nor a deleted one. In INDIRECTE, only the structure's own (TD3.1b). In
    INDIRECTE_RENFORCEE, all but those masked to professionals, which only their author sees.
    """
    if entry.patient != h.vihf.patient or entry.status == v.DELETED:
        return False
    return is_author(h, entry) or (h.vihf.reinforced and not entry.masked)

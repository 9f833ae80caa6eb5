"""May this professional consult this patient's DMP? TD0.2, and what may be done about its answer (DMP/UX.08, D22)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from drimbox.consumer.call import Consent, ContextualCall
from drimbox.consumer.consultant import Consultant, require_consent
from drimbox.consumer.ports import AuditJournal, Dmp
from drimbox.foundation.errors import DrimboxError, Refused
from drimbox.identity.ins import Ins
from drimbox.national.dmp.existence import Authorisation, Existence, RecordStatus
from drimbox.record.audit import Kind, Object, Thing

_SHORTEST_REASON, _LONGEST_REASON = 3, 160

#: Reasons offered for an emergency access; the professional may write another one.
EMERGENCY_REASONS = (
    "Risque immédiat pour la santé du patient",
    "Patient hors d'état d'exprimer sa volonté",
    "Régulation médicale",
)


class Obstacle(StrEnum):
    """Why the documents of a patient cannot be consulted."""

    NO_RECORD = "no-record"
    CLOSED = "closed"
    UNKNOWN = "unknown"
    ABSENT = "absent"
    EXPIRED = "expired"
    FORBIDDEN = "forbidden"


@dataclass(frozen=True, slots=True)
class Barred:
    """The DMP answered, and the documents may not be consulted.

    ``may_grant``: the patient's agreement would do; ``may_hurry``: so would an emergency.
    """

    obstacle: Obstacle
    text: str
    may_grant: bool
    may_hurry: bool = False


@dataclass(frozen=True, slots=True)
class Emergency:
    """An emergency access (*bris de glace*): its reason, and until when it lasts (monotonic seconds)."""

    reason: str
    until: float


def obstacle(existence: Existence, *, emergency: bool = False) -> Barred | None:
    """What stands in the way, in words; None when the DMP may be consulted.

    An ``emergency`` stands for the authorisation, never against a patient who blocked the professional (D.8).
    """
    if existence.may_consult:
        return None
    if existence.status is RecordStatus.NONE:
        return Barred(Obstacle.NO_RECORD, "Ce patient n'a pas de DMP.", False)
    if existence.status is RecordStatus.CLOSED:
        since = _closing_day(existence.closed_on)
        why = f" ({existence.closing_reason})" if existence.closing_reason else ""
        return Barred(Obstacle.CLOSED, f"Le DMP de ce patient est fermé{since}{why}.", False)
    if existence.status is not RecordStatus.ACTIVE:
        return Barred(Obstacle.UNKNOWN, "Le DMP n'a pas indiqué l'état du dossier de ce patient.", False)
    barred = _BARRED[existence.authorisation]
    return None if emergency and barred.may_hurry else barred


_BARRED = {
    Authorisation.ABSENT: Barred(
        Obstacle.ABSENT, "Vous n'êtes pas encore autorisé à consulter le DMP de ce patient.", True, True
    ),
    Authorisation.EXPIRED: Barred(
        Obstacle.EXPIRED, "Votre autorisation de consulter le DMP de ce patient a expiré.", True, True
    ),
    Authorisation.FORBIDDEN: Barred(
        Obstacle.FORBIDDEN, "Ce patient a bloqué votre accès à son DMP : il est le seul à pouvoir le rétablir.", False
    ),
    Authorisation.UNKNOWN: Barred(
        Obstacle.UNKNOWN, "Le DMP n'a pas indiqué si vous êtes autorisé à consulter le dossier de ce patient.", False
    ),
}


async def checked(dmp: Dmp, journal: AuditJournal, who: Consultant, patient: Ins) -> Barred | None:
    """TD0.2, written to the journal before its outcome is given. Raises as the DMP client."""
    try:
        existence = await dmp.existence(who.dmp, patient)
    except DrimboxError as error:
        await journal.write(None, who.event(Kind.DMP_ACCESS_CHECKED, patient, error=error))
        raise
    await journal.write(None, who.event(Kind.DMP_ACCESS_CHECKED, patient))
    return obstacle(existence, emergency=bool(who.dmp.emergency))


async def grant(dmp: Dmp, journal: AuditJournal, who: Consultant, call: ContextualCall) -> None:
    """TD0.3 ``AJOUT``: the professional states that the patient agrees (decision 22). Raises as the DMP client."""
    require_consent(call)
    await _changed(dmp, journal, who, call, withdraw=False)


async def withdraw(dmp: Dmp, journal: AuditJournal, who: Consultant, call: ContextualCall) -> None:
    """TD0.3 ``SUPPRESSION``: the call says that the patient refuses (decision 18). Raises as the DMP client."""
    if call.consent is not Consent.NO:
        raise Refused("L'appel ne porte pas de refus du patient", code="form")
    await _changed(dmp, journal, who, call, withdraw=True)


async def begun(journal: AuditJournal, who: Consultant, call: ContextualCall, emergency: Emergency) -> None:
    """Write down that an emergency access begins, and why, before anything is asked under it."""
    require_consent(call)
    reason = Object(Thing.QUERY, "emergency-reason", emergency.reason)
    await journal.write(None, who.event(Kind.EMERGENCY_STARTED, call.ins, (reason,)))


async def ended(journal: AuditJournal, who: Consultant, call: ContextualCall) -> None:
    await journal.write(None, who.event(Kind.EMERGENCY_STOPPED, call.ins))


def emergency_reason(chosen: str, written: str) -> str:
    """The reason that was chosen, or the one that was written. Raises ``Refused`` (``form``) when there is none."""
    reason = " ".join((written if chosen == "autre" else chosen).split())
    if chosen != "autre" and reason not in EMERGENCY_REASONS:
        raise Refused("Indiquez le motif de l'accès en urgence", code="form")
    if not _SHORTEST_REASON <= len(reason) <= _LONGEST_REASON:
        raise Refused(f"Indiquez le motif de l'accès en urgence, en {_LONGEST_REASON} caractères au plus", code="form")
    return reason


async def _changed(dmp: Dmp, journal: AuditJournal, who: Consultant, call: ContextualCall, *, withdraw: bool) -> None:
    objects = (Object(Thing.QUERY, "authorisation", "SUPPRESSION" if withdraw else "AJOUT"),)
    try:
        if withdraw:
            await dmp.withdraw(who.dmp, call.ins)
        else:
            await dmp.authorise(who.dmp, call.ins)
    except DrimboxError as error:
        await journal.write(None, who.event(Kind.DMP_ACCESS_CHANGED, call.ins, objects, error))
        raise
    await journal.write(None, who.event(Kind.DMP_ACCESS_CHANGED, call.ins, objects))


def _closing_day(digits: str) -> str:
    if len(digits) < 8 or not digits[:8].isdigit():
        return ""
    return f" depuis le {digits[6:8]}/{digits[4:6]}/{digits[:4]}"

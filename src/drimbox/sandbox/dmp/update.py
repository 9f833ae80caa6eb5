"""ITI-57 (TD3.3c, TD3.3d): the status of a document changes; no document, no signature (standards.md D.6)."""

from __future__ import annotations

from dataclasses import dataclass

from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.access import is_author
from drimbox.sandbox.dmp.answers import Reply, registry_response
from drimbox.sandbox.dmp.ebrim import Association, read_submission
from drimbox.sandbox.dmp.hearing import Hearing
from drimbox.sandbox.dmp.registering import new_identifiers, stored_association, stored_submission
from drimbox.sandbox.dmp.rules import Rule, judge, rule, stated
from drimbox.sandbox.dmp.schemas import schema_error
from drimbox.sandbox.dmp.set_rules import RECORD_RULES, SET_RULES, SetCase
from drimbox.sandbox.dmp.store import StoredEntry

SCHEMA = stated("UPDATE.SCHEMA", v.MALFORMED, "The body is valid against ebRS lcm 3.0 (standards.md D.2).")

_TRANSITIONS = frozenset({
    (v.APPROVED, v.DELETED),
    (v.APPROVED, v.ARCHIVED),
    (v.ARCHIVED, v.APPROVED),
    (v.ARCHIVED, v.DELETED),
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class StatusChange:
    """One UpdateAvailabilityStatus, and the entry that it names, None when the registry has no such entry."""

    hearing: Hearing
    association: Association
    target: StoredEntry | None

    def slot(self, name: str) -> str:
        values = self.association.slots.get(name, ())
        return values[0] if len(values) == 1 else ""

    def found(self) -> StoredEntry:
        assert self.target is not None
        return self.target


@rule("UPDATE.ONLY", "XDSMetadataUpdateOperationError")
def only(case: SetCase) -> str | None:
    """Nothing but the set and UpdateAvailabilityStatus associations from it (standards.md D.6)."""
    submission = case.submission
    if submission.entries:
        return "aucune entrée de document attendue"
    right = all(a.kind == v.UPDATE_STATUS and a.source == case.set.id for a in submission.associations)
    once = len({a.target for a in submission.associations}) == len(submission.associations) > 0
    return None if right and once else "seules des associations UpdateAvailabilityStatus du lot sont attendues"


@rule("UPDATE.TARGET", "XDSMetadataUpdateError")
def target(change: StatusChange) -> str | None:
    """The target is the entryUUID of a document that is not deleted (standards.md D.6)."""
    gone = change.target is None or change.target.status == v.DELETED
    return "document introuvable" if gone else None


@rule("UPDATE.PATIENT", "XDSPatientIdDoesNotMatch")
def patient(change: StatusChange) -> str | None:
    """The document is of the patient of the set and of the VIHF."""
    return None if change.found().patient == change.hearing.vihf.patient else "document d'un autre patient"


@rule("UPDATE.AUTHOR", v.LOCAL_POLICY)
def author(change: StatusChange) -> str | None:
    """Only the structure that authored the document may do it (standards.md D.6; EX_3.3-1060)."""
    return None if is_author(change.hearing, change.found()) else "document d'une autre structure"


@rule("UPDATE.CURRENT", "XDSMetadataVersionError")
def current(change: StatusChange) -> str | None:
    """OriginalStatus is the present status of the document (standards.md D.6, L.8)."""
    same = change.slot("OriginalStatus") == change.found().status
    return None if same else "OriginalStatus différent du statut actuel"


@rule("UPDATE.TRANSITION", "XDSMetadataUpdateError")
def transition(change: StatusChange) -> str | None:
    """Approved to Deleted or Archived, Archived to Approved or Deleted (standards.md D.6)."""
    asked = (change.slot("OriginalStatus"), change.slot("NewStatus"))
    return None if asked in _TRANSITIONS else "changement de statut non admis"


CHANGE_RULES: tuple[Rule[StatusChange], ...] = (target, patient, author, current, transition)


def update(hearing: Hearing) -> Reply:
    """Judge and apply. Raises ``Breach`` with nothing changed."""
    bench = hearing.bench
    error = schema_error(bench.schemas.lcm, hearing.message.body)
    if error is not None:
        raise SCHEMA.broken(error)
    submission = read_submission(hearing.message.body)
    case = SetCase(bench, hearing.vihf, submission)
    judge(SET_RULES, case)
    judge(RECORD_RULES, case)
    judge((only,), case)
    with bench.store.transaction():
        changes = [StatusChange(hearing, a, bench.store.entry(uuid=a.target)) for a in submission.associations]
        for change in changes:
            judge(CHANGE_RULES, change, location=change.association.target)
        ids = new_identifiers(submission)
        bench.store.register(
            stored_submission(submission.set, ids, kind="update", now=bench.now),
            [],
            [stored_association(a, ids) for a in submission.associations],
            [(change.found().uuid, change.slot("NewStatus")) for change in changes],
        )
    return Reply(f"{v.UPDATE}Response", registry_response(v.SUCCESS))

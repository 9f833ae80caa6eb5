"""ITI-57 Update Document Set: the availability status of one entry - depublish, archive, unarchive (standards.md D.6).

No document and no signature travel; the submission set says who did it. Only the author's structure may.
"""

from __future__ import annotations

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import Refused
from drimbox.foundation.uids import new_uid
from drimbox.identity.ins import Ins
from drimbox.national.dmp import registry, soap
from drimbox.national.dmp.codes import ACTION_UPDATE, RS, Status
from drimbox.national.dmp.metadata import Association, Dtm, SubmissionDraft, submit_objects_request
from drimbox.national.dmp.provide import submission_set
from drimbox.national.dmp.transport import Request

# TD3.3c deletes from either state; TD3.3d archives and brings back.
_ALLOWED = frozenset(
    {
        (Status.APPROVED, Status.DELETED),
        (Status.ARCHIVED, Status.DELETED),
        (Status.APPROVED, Status.ARCHIVED),
        (Status.ARCHIVED, Status.APPROVED),
    }
)


def request(
    url: str,
    patient: Ins,
    entry_uuid: str,
    *,
    original: Status,
    new: Status,
    draft: SubmissionDraft,
    source_id: str,
    clock: Clock,
) -> Request:
    """What is sent. Raises ``Refused`` (``status-change``) for a change that the DMP does not know."""
    if (original, new) not in _ALLOWED:
        raise Refused("Changement de statut impossible au DMP", code="status-change")
    owner = submission_set(draft, patient, new_uid(), source_id, Dtm.of(clock.now()))
    change = Association.status_change(owner.entry_id, entry_uuid, original, new)
    return Request(url, ACTION_UPDATE, submit_objects_request(owner, (), (change,)), changes=True)


def result(answer: soap.Answer) -> None:
    """Return when the DMP did it. Raises as ``registry.whole``; ``Refused`` when it is no answer."""
    registry.whole(soap.expect(answer, RS, "RegistryResponse"))

"""What else than a report makes the box look at a study again: changes in the PACS, the operator, a walk."""

from __future__ import annotations

from enum import StrEnum

from drimbox.store import jobs
from drimbox.store.database import Connection

RESYNC_STUDY = "resync_study"
"""The task that compares a study with PACS and DMP; its arguments are ``study_uid``, ``cause`` and ``structure``."""


def study_lock(study_uid: str) -> str:
    """Work on one study is done one piece at a time, in the order in which it came."""
    return f"study:{study_uid}"


class Cause(StrEnum):
    """Why a study is looked at again."""

    NOTE = "note"  # a Key Object Selection from the PACS (RAD-66)
    ORDER_CHANGED = "order-changed"  # OMI^O23
    ORDER_DELETED = "order-deleted"  # OMI^O23 with ORC-1 CA
    REPORT = "report"  # the report behind the KOS stands no longer, and another one does
    OPERATOR = "operator"
    RECONCILIATION = "reconciliation"
    ADDRESS = "address"  # this box has another address (DB.SO.31)


# Walks wait behind what people and PACSs ask for. What a report leaves to be done comes before the next report.
_PRIORITIES = {Cause.RECONCILIATION: -10, Cause.ADDRESS: -10, Cause.REPORT: 10}


async def defer_resync(connection: Connection, study_uid: str, cause: Cause, *, structure: str = "") -> int:
    """Have a study compared with PACS and DMP, within the caller's transaction; returns the id of the job.

    ``structure`` (its short name) limits it to what that one published; empty: to all who published the study.
    """
    return await jobs.defer(
        connection,
        RESYNC_STUDY,
        args={"study_uid": study_uid, "cause": cause.value, "structure": structure},
        lock=study_lock(study_uid),
        priority=_PRIORITIES.get(cause, 0),
    )

"""The effects of an order message (OMI^O23): which studies are withdrawn, and that they are all looked at again."""

from __future__ import annotations

from drimbox.publication.triggers import Cause, defer_resync
from drimbox.reports.orders import ImagingOrder
from drimbox.store.database import Connection


async def take_order(connection: Connection, message_id: int, order: ImagingOrder) -> None:
    """Note the studies that are deleted and those that no longer are, and defer the work on each.

    Whose studies they are is not checked here but when the work is done, against what is published then: the message
    may come before its study. ``withdrawn_study.message_id`` leads back to the message, and so to its patient.
    """
    # Always in the same order, so that two messages on the same studies wait for each other and never block.
    for study in sorted(order.studies, key=lambda s: s.study_uid):
        if study.deleted:
            await connection.execute(
                "INSERT INTO withdrawn_study (study_uid, message_id) VALUES (%(study)s, %(message)s) "
                "ON CONFLICT (study_uid) DO UPDATE SET withdrawn_at = now(), message_id = EXCLUDED.message_id",
                {"study": study.study_uid, "message": message_id},
            )
        else:
            await connection.execute("DELETE FROM withdrawn_study WHERE study_uid = %s", (study.study_uid,))
        await defer_resync(connection, study.study_uid, Cause.ORDER_DELETED if study.deleted else Cause.ORDER_CHANGED)

"""The storing side of a turn: what is ready goes to the target, and what the target says of each image is judged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from drimbox.foundation.errors import DrimboxError, OutcomeUnknown, Refused, Rejected, Unavailable
from drimbox.importing.converting import converted
from drimbox.importing.means import DISK, Means
from drimbox.importing.orders import Fate, Verdict
from drimbox.importing.standing import Standing
from drimbox.importing.targets import Target
from drimbox.importing.waiting_line import WaitingLine
from drimbox.pacs.dimse.storing import Outgoing
from drimbox.pacs.store import Sent


class Storing:
    """Stores what becomes ready, over as many associations side by side as the target has ``lanes``."""

    def __init__(self, means: Means, standing: Standing, ready: WaitingLine, target: Target) -> None:
        self._means = means
        self._standing = standing
        self._ready = ready
        self._target = target
        self._converted: set[str] = set()
        self.error: DrimboxError | None = None
        """Why the target takes nothing (any more)."""

    async def run(self) -> None:
        """Until nothing more becomes ready, or the target does not answer."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._target.lanes):
                group.create_task(self._lane())

    async def _lane(self) -> None:
        while batch := await self._ready.batch():
            if self.error is not None:
                return
            try:
                await self._convert(await self._send(batch))
                if self._ready.empty:
                    # A source that is slow, or stands still, is no reason not to tell what is stored.
                    await self._standing.flush()
            except (Unavailable, OutcomeUnknown, Rejected) as error:
                self.error = error
                return

    async def _send(self, batch: Sequence[Outgoing]) -> list[Outgoing]:
        """Those that the target does not take in their form."""
        refused: list[Outgoing] = []
        async with self._target.sending(batch) as results:
            async for sent in results:
                if sent.code == "context-refused" and self._uid(sent.instance) not in self._converted:
                    refused.append(sent.instance)
                else:
                    self._took(sent)
                await self._standing.flush(if_due=True)
        return refused

    async def _convert(self, refused: Sequence[Outgoing]) -> None:
        """What the target does not take as it is goes in a form that it takes, without loss."""
        again: list[Outgoing] = []
        for sop_class in dict.fromkeys(one.sop_class_uid for one in refused):
            accepted = await self._target.accepted(sop_class)
            for one in (o for o in refused if o.sop_class_uid == sop_class):
                uid = self._uid(one)
                try:
                    changed = await converted(self._means.transcoder, self._standing.staging, uid, one, accepted)
                except (Refused, OSError) as error:
                    detail = error.reason if isinstance(error, Refused) else DISK
                    self._refuse(uid, Sent(one, None, code="context-refused"), detail)
                    continue
                self._converted.add(uid)
                again.append(changed)
        if again:
            await self._send(again)

    def _uid(self, image: Outgoing) -> str:
        return self._standing.source_uid(image.sop_instance_uid)

    def _took(self, sent: Sent) -> None:
        standing, uid = self._standing, self._uid(sent.instance)
        if sent.stored:
            standing.progress = True
            standing.judge(Verdict(uid, Fate.STORED, sent.status, detail=sent.comment if sent.status else ""))
            standing.drop(uid)
        elif sent.code == "context-refused":
            self._refuse(uid, sent, "Le PACS n'accepte pas ce type d'image (classe SOP) dans cette forme")
        elif sent.code == "file-unreadable":
            standing.unreadable(uid)
        elif _may_pass(sent) and standing.instances[uid].tries + 1 < self._means.tries:
            standing.judge(Verdict(uid, Fate.WAITING, sent.status, sent.code, sent.comment or _words(sent)))
        else:
            self._refuse(uid, sent, sent.comment or _words(sent))

    def _refuse(self, uid: str, sent: Sent, detail: str) -> None:
        self._standing.judge(Verdict(uid, Fate.REFUSED, sent.status, sent.code, detail))
        self._standing.drop(uid)


def _may_pass(sent: Sent) -> bool:
    """Could the target take it later: it has no room now, or broke off, or forgot to answer?"""
    if sent.status is not None:
        return sent.status & 0xFF00 == 0xA700
    return sent.code in ("pacs-aborted", "not-answered")


def _words(sent: Sent) -> str:
    if sent.status is None:
        return {
            "pacs-aborted": "Le PACS coupe la connexion sur cette image",
            "not-answered": "Le PACS ne dit pas ce qu'il est advenu de cette image",
        }.get(sent.code, "Le PACS n'a pas enregistré cette image")
    if sent.status & 0xFF00 == 0xA700:
        return "Le PACS n'a plus de place"
    if sent.status & 0xFF00 == 0xA900:
        return "Le PACS dit que l'image n'est pas de la classe annoncée"
    if sent.status == 0x0122:
        return "Le PACS n'accepte pas ce type d'image (classe SOP)"
    if sent.status == 0x0124:
        return "Le PACS n'autorise pas la DRIMbox à enregistrer"
    return "Le PACS a refusé cette image"

"""The fetching side of a turn: the series that are not here yet, asked of their source, checked, put on our disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

from drimbox.dicom.elements import Buffer
from drimbox.foundation.errors import DrimboxError, IdentityMismatch, Refused, Rejected, Unavailable
from drimbox.images.threads import in_thread
from drimbox.importing.means import DISK, LOGIN_CODES, TRAITS_DIFFER, Means, event_of
from drimbox.importing.naming import patient_in
from drimbox.importing.orders import WantedSeries
from drimbox.importing.ports import Login
from drimbox.importing.standing import Standing
from drimbox.importing.waiting_line import WaitingLine
from drimbox.pacs.dimse.storing import Outgoing
from drimbox.record.audit import Kind, Object, Thing, failed

_log = logging.getLogger(__name__)
# Images that have come and are not prepared yet; over it the source waits.
_UNPREPARED = 64


class Receiving:
    """Fetches what is missing, series after series."""

    def __init__(self, means: Means, standing: Standing, ready: WaitingLine) -> None:
        self._means = means
        self._standing = standing
        self._order = standing.order
        self._ready = ready
        self.error: DrimboxError | None = None
        """Why something could not be fetched that may come later."""
        self.needs_login = False

    async def run(self) -> None:
        """Until everything is here, or cannot be had now."""
        for series in await self._means.ledger.series(self._order.id):
            missing = {i.sop_instance_uid for i in series.instances} & self._standing.waiting() - self._standing.staged
            if not missing:
                continue
            login = self._means.logins.find(self._order.person, self._order.structure)
            if login is None:
                self.needs_login = True
                continue
            await self._series(series, missing, login)

    async def _series(self, series: WantedSeries, missing: Collection[str], login: Login) -> None:
        standing = self._standing
        intake = _Intake(standing, self._ready, self._look(), hold_back=self._means.whole_series)
        error: DrimboxError | None = None
        try:
            await self._images(series, missing, login, intake)
        except IdentityMismatch as mismatch:
            error = mismatch
            await intake.over()
            await self._drop(series, mismatch)
        except (Refused, Rejected) as refusal:
            error = refusal
            if refusal.code in LOGIN_CODES:
                self.needs_login = True
            else:
                standing.give_up({u for u in missing if u not in standing.staged}, refusal)
        except DrimboxError as trouble:
            error = self.error = trouble
        except OSError:
            _log.error("an import has no room on the disk")
            error = self.error = Unavailable(DISK, code="disk")
            await standing.cleared()
        finally:
            # Whatever became of the rest: nothing is written behind the back of who comes after.
            await intake.over()
        await self._written_down(series, intake.count, error)

    async def _images(self, series: WantedSeries, missing: Collection[str], login: Login, intake: _Intake) -> None:
        order, folder = self._order, self._standing.staging.incoming
        fetching = self._means.fetcher.fetch(order.kos_uid, order.patient.ins, series, login, folder)
        try:
            async with fetching as images:
                async for image in images:
                    if image.sop_instance_uid not in missing:
                        await in_thread(image.path.unlink)
                        continue
                    # While it is prepared, the next ones come.
                    await intake.put(image.path, image.sop_instance_uid, image.size)
                await intake.finished()
        except IdentityMismatch:
            raise
        except (DrimboxError, OSError):
            # What came whole and checked before it is stored; the failure is what is told.
            with suppress(OSError, DrimboxError):
                await intake.finished()
            raise
        intake.let_go()

    def _look(self) -> Callable[[Buffer], None] | None:
        """Raises for an image that names the patient otherwise, unless the user decided to go on."""
        patient, differing = self._order.patient, self._means.differing
        if differing is None or patient.decided:
            return None

        def look(buffer: Buffer) -> None:
            traits = differing(patient, patient_in(buffer))
            if traits:
                reason = f"L'image ne nomme pas le patient comme l'appel ({', '.join(traits).lower()})"
                raise IdentityMismatch(reason, code=TRAITS_DIFFER)

        return look

    async def _drop(self, series: WantedSeries, mismatch: IdentityMismatch) -> None:
        """Another patient's image was among them: of this series nothing more is stored (DB.CO.68)."""
        uids = {i.sop_instance_uid for i in series.instances}
        self._ready.void(uids)
        self._standing.give_up(uids & self._standing.waiting(), mismatch)
        await self._standing.drop_now(uids)

    async def _written_down(self, series: WantedSeries, count: int, error: DrimboxError | None) -> None:
        objects = (
            Object(Thing.STUDY, self._order.study_uid),
            Object(Thing.SERIES, series.series_uid, f"{count}/{len(series.instances)}"),
            Object(Thing.KOS, self._order.kos_uid),
        )
        event = event_of(self._order, Kind.IMAGES_FETCHED, objects)
        await self._means.journal.write(None, event if error is None else failed(event, error))


_Came = tuple[Path, str, int]


class _Intake:
    """Prepares the images of one series as they come, as many in one go as there are."""

    def __init__(
        self, standing: Standing, ready: WaitingLine, look: Callable[[Buffer], None] | None, *, hold_back: bool
    ) -> None:
        self.count = 0
        self._standing = standing
        self._ready = ready
        self._look = look
        self._hold_back = hold_back
        self._held: list[tuple[str, Outgoing]] = []
        self._came: asyncio.Queue[_Came | None] = asyncio.Queue(_UNPREPARED)
        self._task = asyncio.create_task(self._run())

    async def put(self, path: Path, uid: str, size: int) -> None:
        """One more image. Raises what made an earlier one impossible to prepare."""
        await self._hand((path, uid, size))

    async def finished(self) -> None:
        """Come back once all are prepared. Raises as ``put``."""
        if not self._task.done():
            await self._hand(None)
        await self._task

    async def over(self) -> None:
        """Stop after what is being prepared."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def let_go(self) -> None:
        """The series is whole: what was held back for that may be stored."""
        for uid, image in self._held:
            self._ready.put(uid, image)
        self._held.clear()

    async def _hand(self, came: _Came | None) -> None:
        if not self._came.full() and not self._task.done():
            self._came.put_nowait(came)
            return
        putting = asyncio.create_task(self._came.put(came))
        try:
            await asyncio.wait((putting, self._task), return_when=asyncio.FIRST_COMPLETED)
        finally:
            putting.cancel()
        if self._task.done():
            await self._task

    async def _run(self) -> None:
        ended = False
        while not ended:
            batch = [await self._came.get()]
            while not self._came.empty():
                batch.append(self._came.get_nowait())
            ended = batch[-1] is None
            kept, failure = await in_thread(self._prepared, [one for one in batch if one is not None])
            for uid, image, size in kept:
                self.count += 1
                self._standing.stages(uid, size)
                if self._hold_back:
                    self._held.append((uid, image))
                else:
                    self._ready.put(uid, image)
            if failure is not None:
                raise failure
            await self._standing.flush(if_due=True)

    def _prepared(self, came: Sequence[_Came]) -> tuple[list[tuple[str, Outgoing, int]], Exception | None]:
        """Ready to be stored, up to the first that cannot be. Blocks."""
        standing, kept = self._standing, []
        for path, uid, size in came:
            sop_class = standing.instances[uid].sop_class_uid
            try:
                kept.append((uid, standing.staging.keep(path, sop_class, uid, standing.coercion, self._look), size))
            except (DrimboxError, OSError) as error:
                return kept, error
        return kept, None

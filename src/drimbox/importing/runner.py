"""The imports of a box, carried on in the background: one study at a time for each target, several side by side."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import random
import shutil
import uuid
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psycopg
from psycopg_pool import PoolTimeout

from drimbox.importing.course import Turn, TurnEnd
from drimbox.importing.means import DISK, Means
from drimbox.importing.orders import Fate, Import, State, Verdict
from drimbox.record.logs import correlated

_log = logging.getLogger(__name__)
_DATABASE = (psycopg.Error, PoolTimeout)
_IDLE_LOOK = 30.0
_BUSY_LOOK = 1.0
_SHORTEST, _LONGEST = 5.0, 300.0
_DAY = dt.timedelta(days=1)
_REMEMBERED = 20_000
_FORGET_EVERY = 3600.0


class Runner:
    """Takes the turns of the imports of this box. ``give_up``: after that time, what is missing is said to be."""

    def __init__(
        self,
        means: Means,
        *,
        parallel: int = 2,
        give_up: dt.timedelta = _DAY,
        keep: dt.timedelta = dt.timedelta(days=7),
        shortest: float = _SHORTEST,
    ) -> None:
        self._means = means
        self._parallel = parallel
        self._give_up = give_up
        self._keep = keep
        self._shortest = shortest
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._keys: dict[int, tuple[str, str]] = {}
        self._cancelled: set[int] = set()
        self._wake = asyncio.Event()
        self._states: dict[tuple[str, str], State] = {}
        self._forgotten_at = means.clock.monotonic()

    def state_of(self, structure: str, study_uids: Collection[str]) -> State | None:
        """How the newest import of a study of a structure stands; None where there was none lately."""
        return next((s for uid in study_uids if (s := self._states.get((structure, uid)))), None)

    def remember(self, structure: str, study_uid: str, state: State) -> None:
        """What ``state_of`` says from now on."""
        key = (structure, study_uid)
        self._states.pop(key, None)
        self._states[key] = state
        while len(self._states) > _REMEMBERED:
            del self._states[next(iter(self._states))]

    def wake(self) -> None:
        """There is something new to be done."""
        self._wake.set()

    def cancel(self, order_id: int) -> None:
        """Stop the turn of an import, if it has one now: the ledger says already that it is not wanted any more."""
        self._cancelled.add(order_id)
        task = self._tasks.get(order_id)
        if task is not None:
            task.cancel()
        self.wake()

    async def run(self) -> None:
        """Until cancelled. Survives the loss of the database."""
        await self._clear_up()
        try:
            while True:
                self._wake.clear()
                try:
                    pause = await self._look()
                except _DATABASE as error:
                    _log.error("imports wait for the database: %s", type(error).__name__)
                    pause = _BUSY_LOOK
                except Exception as error:  # noqa: BLE001 - the boundary of a task: the others go on
                    _log.error("imports could not be looked at: %s", type(error).__name__, exc_info=error)
                    pause = _IDLE_LOOK
                # Not ``wait_for``: before Python 3.12 it may swallow a cancellation that comes as the bell rings.
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _look(self) -> float:
        """Begin what may begin; seconds until the next look."""
        ledger, clock = self._means.ledger, self._means.clock
        if clock.monotonic() - self._forgotten_at > _FORGET_EVERY:
            await ledger.forget(clock.now() - self._keep)
            self._forgotten_at = clock.monotonic()
        due = await ledger.due(clock.now())
        for order in due:
            # Asked of another box on the same database: here it is read, within a second.
            if order.cancelled and order.id in self._tasks and order.id not in self._cancelled:
                self.cancel(order.id)
        for order in due:
            if len(self._tasks) >= self._parallel:
                break
            key = (order.target, order.stored_as)
            if order.id in self._tasks or key in self._keys.values() or not self._may_go_on(order):
                continue
            self._keys[order.id] = key
            task = asyncio.create_task(self._turn(order))
            self._tasks[order.id] = task
            task.add_done_callback(lambda _, order_id=order.id: self._over(order_id))  # type: ignore[misc]
        following = await ledger.next_due()
        if following is None:
            return _IDLE_LOOK
        return min(max((following - clock.now()).total_seconds(), 0.0) or _BUSY_LOOK, _BUSY_LOOK)

    def _may_go_on(self, order: Import) -> bool:
        """One that waits for its user goes on when they are there, or when it has waited too long."""
        if order.state is not State.LOGIN or order.cancelled or self._too_old(order):
            return True
        return self._means.logins.find(order.person, order.structure) is not None

    def _too_old(self, order: Import) -> bool:
        return self._means.clock.now() - order.asked_at > self._give_up

    def _over(self, order_id: int) -> None:
        self._tasks.pop(order_id, None)
        self._keys.pop(order_id, None)
        self._cancelled.discard(order_id)
        self.wake()

    async def _turn(self, order: Import) -> None:
        """A task boundary: whatever happens, the ledger says how the import stands."""
        with correlated(f"import-{order.id}"):
            turn = Turn(self._means, order)
            try:
                await self._take(turn, order)
            except asyncio.CancelledError:
                if order.id not in self._cancelled:
                    raise
                await self._end_cancelled(turn, order)
            except _DATABASE as error:
                _log.error("an import waits for the database: %s", type(error).__name__)
            except OSError as error:
                _log.error("an import cannot use the disk: %s", error.errno)
                reason = DISK
                await self._put_off(order, TurnEnd(State.WAITING, "disk", reason))
            except Exception as error:  # noqa: BLE001 - the boundary of a task
                _log.error("an import failed by a defect: %s", type(error).__name__, exc_info=error)
                reason = "Erreur interne de la DRIMbox : l'import sera repris"
                await self._put_off(order, TurnEnd(State.WAITING, "internal", reason))
            finally:
                self._cancelled.discard(order.id)

    async def _take(self, turn: Turn, order: Import) -> None:
        ledger = self._means.ledger
        if order.cancelled:
            await self._end_cancelled(turn, order)
            return
        await ledger.begin(order.id)
        end = await turn.run()
        if end.state in (State.WAITING, State.LOGIN):
            if not self._too_old(order):
                await self._put_off(order, end)
                return
            end = await self._given_up(order, end)
        # Written down first: told twice, should the database go away between, rather than never.
        await turn.journal(end)
        await ledger.end(order.id, end.state, end.code, end.reason, verified=end.verified)
        self.remember(order.structure, order.study_uid, end.state)
        await turn.close()
        _log.info("an import ended: %s", end.state.value)

    async def _given_up(self, order: Import, end: TurnEnd) -> TurnEnd:
        """It was tried for long enough: what is missing is said to be, and may be asked for anew."""
        instances = await self._means.ledger.instances(order.id)
        left = [i for i in instances if i.fate is Fate.WAITING]
        await self._means.ledger.note(
            order.id,
            [Verdict(i.sop_instance_uid, Fate.REFUSED, i.status, end.code, end.reason) for i in left],
        )
        state = State.FAILED if len(left) == len(instances) else State.PARTIAL
        return TurnEnd(state, end.code, end.reason, verified=False)

    async def _put_off(self, order: Import, end: TurnEnd) -> None:
        tries = 0 if end.progress else order.tries + 1
        pause = min(self._shortest * 2 ** min(tries, 10), _LONGEST) * random.uniform(0.8, 1.2)  # noqa: S311
        due = self._means.clock.now() + dt.timedelta(seconds=0 if end.state is State.LOGIN else pause)
        try:
            await self._means.ledger.put_off(order.id, end.state, end.code, end.reason, due, tries=tries)
        except _DATABASE as error:
            _log.error("an import waits for the database: %s", type(error).__name__)

    async def _end_cancelled(self, turn: Turn, order: Import) -> None:
        end = TurnEnd(State.CANCELLED, "cancelled", "Import annulé à votre demande")
        await turn.journal(end)
        # First of all: who reads that it was cancelled finds nothing of it on the disk.
        await turn.close()
        await self._means.ledger.end(order.id, end.state, end.code, end.reason, verified=False)
        self.remember(order.structure, order.study_uid, end.state)

    async def _clear_up(self) -> None:
        """What imports that are over left on the disk goes, and so does what is told of them after a while."""
        folder = self._means.folder
        try:
            await self._means.ledger.forget(self._means.clock.now() - self._keep)
            known = {str(number) for number in await self._means.ledger.open_ids()}
            for structure, study_uid, state in await self._means.ledger.newest():
                self.remember(structure, study_uid, state)
        except _DATABASE as error:
            _log.warning("imports were not cleared up: %s", type(error).__name__)
            return
        for entry in folder.iterdir():
            if entry.is_dir() and entry.name.isdecimal() and entry.name not in known:
                await asyncio.to_thread(shutil.rmtree, entry, ignore_errors=True)


def node_of(folder: Path) -> str:
    """The name of this box among those that share its database: made once, kept with what it fetched."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / "node"
    if not file.exists():
        part = file.with_suffix(".part")
        part.write_text(uuid.uuid4().hex, "ascii")
        part.rename(file)
    return file.read_text("ascii")


@asynccontextmanager
async def carried_on(runner: Runner) -> AsyncIterator[None]:
    """Imports go on until the block ends; what is under way then is taken up at the next start."""
    task = asyncio.create_task(runner.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

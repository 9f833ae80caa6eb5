"""One turn of an import: fetch what is not here, store what is, then look whether the target has it.

Fetching and storing go on side by side, so that neither waits for the other, and each goes as far as it can: what was
fetched and checked is stored when its user has left, and while the target is away, what is left is fetched as long as
there is a token for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, replace

from drimbox.foundation.errors import DrimboxError, Rejected
from drimbox.images.threads import in_thread
from drimbox.importing.coercion import Coercion, Renaming
from drimbox.importing.means import Means, event_of
from drimbox.importing.orders import Fate, Import, State, Verdict
from drimbox.importing.receiving import Receiving
from drimbox.importing.staging import Staging
from drimbox.importing.standing import Standing
from drimbox.importing.storing import Storing
from drimbox.importing.targets import Target
from drimbox.importing.waiting_line import WaitingLine
from drimbox.pacs.dimse.storing import Outgoing
from drimbox.pacs.study import Study
from drimbox.record.audit import Kind, Object, Outcome, Thing

_LOOK_AGAIN = (0.0, 0.3, 0.7, 1.0, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """How a turn ended: the state that the import is in, why, and whether anything was achieved."""

    state: State
    code: str = ""
    reason: str = ""
    progress: bool = False
    verified: bool = False


class Turn:
    """One turn of one import. Made for one ``run``."""

    def __init__(self, means: Means, order: Import) -> None:
        self._means = means
        self._order = order
        self._staging = Staging(means.folder / str(order.id))
        self._coercion = _coercion(means, order)
        self._standing = Standing(order, means.ledger, self._staging, self._coercion, means.clock)
        self._error: DrimboxError | None = None
        self._needs_login = False

    async def run(self) -> TurnEnd:
        """Go as far as possible. Raises ``psycopg.Error`` when the database is away, ``OSError`` for our own disk."""
        means, standing = self._means, self._standing
        target = means.targets.get(self._order.target)
        if target is None:
            return TurnEnd(State.FAILED, "target-unknown", "Le PACS de destination n'est plus configuré")
        await standing.opened()
        if (ended := await self._look_before(target)) is not None:
            return ended
        try:
            await self._fetch_and_send(target)
        finally:
            await standing.flush()
            await standing.cleared()
        return await self._concluded(target)

    async def close(self) -> None:
        """Nothing of it stays on our disk."""
        await in_thread(self._staging.remove)

    # --- what the target has already

    async def _look_before(self, target: Target) -> TurnEnd | None:
        """What is there is not sent again (DB.CO.79); a study that is there under another patient stops everything."""
        standing = self._standing
        try:
            study = await target.held(self._order.stored_as)
        except Rejected:
            return None
        except DrimboxError as error:
            self._error = error
            return None
        if (wrong := self._of_another(study)) is not None:
            return wrong
        held = _instances_of(study)
        here = {uid for uid in standing.waiting() if self._coercion.uid(uid) in held}
        for uid in here:
            standing.judge(Verdict(uid, Fate.PRESENT))
        await standing.flush()
        await standing.drop_now(here & standing.staged)
        return None

    def _of_another(self, study: Study | None) -> TurnEnd | None:
        if study is None or study.patient_id == self._order.patient.local_id:
            return None
        reason = (
            "Le PACS a déjà cet examen sous un autre identifiant de patient : rien de plus n'y est envoyé. "
            "Signalez-le à votre service informatique"
        )
        return TurnEnd(State.FAILED, "pacs-patient", reason)

    # --- side by side

    async def _fetch_and_send(self, target: Target) -> None:
        ready = WaitingLine(self._outgoing, self._standing.unreadable, target.lanes)
        receiving = Receiving(self._means, self._standing, ready)
        storing = Storing(self._means, self._standing, ready, target)
        try:
            if self._error is not None:
                # The target does not answer: what can be fetched is fetched, for the time when it does.
                await receiving.run()
                return
            for uid in sorted(self._standing.staged):
                ready.put(uid)
            async with asyncio.TaskGroup() as group:
                group.create_task(storing.run())
                try:
                    await receiving.run()
                finally:
                    ready.end()
        except ExceptionGroup as failures:
            # Both sides have ended; the first failure tells what to do.
            raise _first(failures) from None
        finally:
            self._error = self._error or storing.error or receiving.error
            self._needs_login = receiving.needs_login

    def _outgoing(self, uid: str) -> Outgoing:
        return self._staging.outgoing(self._standing.instances[uid].sop_class_uid, uid, self._coercion)

    # --- the end of the turn

    async def _concluded(self, target: Target) -> TurnEnd:
        if self._standing.waiting():
            return self._unfinished()
        return await self._verified(target)

    def _unfinished(self) -> TurnEnd:
        progress = self._standing.progress
        if (error := self._error) is not None:
            return TurnEnd(State.WAITING, error.code, error.reason, progress=progress)
        if self._needs_login:
            reason = "Votre session est terminée : l'import reprendra à votre prochaine connexion"
            return TurnEnd(State.LOGIN, "login", reason, progress=progress)
        kept = next(one for one in self._standing.instances.values() if one.fate is Fate.WAITING)
        reason = kept.detail or "Le PACS n'a pas pu enregistrer toutes les images"
        return TurnEnd(State.WAITING, kept.code or "pacs-status", reason, progress=progress)

    async def _verified(self, target: Target) -> TurnEnd:
        """Ask the target what it has, and hold it against what was to be imported."""
        standing = self._standing
        stored = {uid for uid, one in standing.instances.items() if one.fate is Fate.STORED}
        verified = True
        if stored or any(one.fate is Fate.PRESENT for one in standing.instances.values()):
            try:
                missing = await self._look_for(target, stored)
            except Rejected:
                verified, missing = False, set()
            except DrimboxError as error:
                return TurnEnd(State.WAITING, error.code, error.reason, progress=standing.progress)
            if isinstance(missing, TurnEnd):
                return missing
            if verified:
                for uid in stored - missing:
                    former = standing.instances[uid]
                    standing.judge(Verdict(uid, Fate.FOUND, former.status, former.code, former.detail))
            self._lost(missing)
            await standing.flush()
            if standing.waiting():
                return self._unfinished()
        return self._over(verified=verified)

    async def _look_for(self, target: Target, stored: Collection[str]) -> set[str] | TurnEnd:
        """Which of what was stored is not found; a PACS may take a moment to index what it took."""
        missing: set[str] = set(stored)
        for pause in _LOOK_AGAIN:
            await asyncio.sleep(pause)
            study = await target.held(self._order.stored_as)
            if (wrong := self._of_another(study)) is not None:
                return wrong
            held = _instances_of(study)
            missing = {uid for uid in stored if self._coercion.uid(uid) not in held}
            if not missing:
                break
        return missing

    def _lost(self, missing: Collection[str]) -> None:
        """The target said that it stored these and does not have them: once more, then it is said."""
        for uid in missing:
            former = self._standing.instances[uid]
            last = former.tries + 1 >= self._means.tries
            fate = Fate.REFUSED if last else Fate.WAITING
            detail = "Le PACS dit l'avoir enregistrée, mais ne la retrouve pas"
            self._standing.judge(Verdict(uid, fate, former.status, "not-found", detail))

    def _over(self, *, verified: bool) -> TurnEnd:
        instances = self._standing.instances.values()
        refused = [one for one in instances if one.fate is Fate.REFUSED]
        if not refused:
            note = (
                "" if verified else "Le PACS ne répond pas à la recherche : la présence des images n'est pas vérifiée"
            )
            return TurnEnd(State.DONE, "", note, progress=True, verified=verified)
        state = State.FAILED if len(refused) == len(instances) else State.PARTIAL
        first = refused[0]
        return TurnEnd(state, first.code or "refused", first.detail, progress=True, verified=verified)

    async def journal(self, end: TurnEnd) -> None:
        """Tell the audit journal how the import ended."""
        counts: dict[str, list[int]] = {}
        for one in self._standing.instances.values():
            count = counts.setdefault(one.series_uid, [0, 0])
            count[0] += one.fate in (Fate.STORED, Fate.FOUND, Fate.PRESENT)
            count[1] += 1
        objects = [Object(Thing.STUDY, self._order.study_uid), Object(Thing.KOS, self._order.kos_uid)]
        objects += [Object(Thing.SERIES, uid, f"{n}/{total}") for uid, (n, total) in counts.items()]
        objects.append(Object(Thing.SYSTEM, self._order.target))
        event = event_of(self._order, Kind.IMAGES_IMPORTED, objects)
        if end.state is not State.DONE:
            outcome = Outcome.SERIOUS_FAILURE if end.state is State.FAILED else Outcome.MINOR_FAILURE
            event = replace(event, outcome=outcome, outcome_text=f"{end.state.value}: {end.reason}"[:500])
        await self._means.journal.write(None, event)


def _coercion(means: Means, order: Import) -> Coercion:
    """What the images of an import are given."""
    patient = order.patient
    return Coercion(
        patient_id=patient.local_id,
        issuer=patient.issuer,
        issuer_name=patient.issuer_name,
        accession=patient.accession,
        accession_issuer=patient.accession_issuer,
        renaming=Renaming(order.study_uid, order.stored_as) if order.stored_as != order.study_uid else None,
        modified_by=means.box_name,
        at=means.clock.now(),
    )


def _first(failures: ExceptionGroup) -> Exception:
    """The first failure within a group, and within the groups in it."""
    failure = failures.exceptions[0]
    return _first(failure) if isinstance(failure, ExceptionGroup) else failure


def _instances_of(study: Study | None) -> set[str]:
    return {i.sop_instance_uid for s in study.series for i in s.instances} if study is not None else set()

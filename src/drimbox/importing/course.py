"""One turn of an import: fetch what is not here, store what is, then look whether the target has it.

Fetching and storing go on side by side, so that neither waits for the other, and each goes as far as it can: what was
fetched and checked is stored when its user has left, and while the target is away, what is left is fetched as long as
there is a token for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError, IdentityMismatch, OutcomeUnknown, Refused, Rejected, Unavailable
from drimbox.images.threads import in_thread
from drimbox.importing.coercion import Coercion, Renaming
from drimbox.importing.converting import converted
from drimbox.importing.fetching import LosslessFetcher
from drimbox.importing.ledger import Ledger
from drimbox.importing.naming import ImagePatient, image_patient
from drimbox.importing.orders import Fate, Import, ImportedPatient, Instance, State, Verdict, WantedSeries
from drimbox.importing.ports import AuditJournal, Login, Logins, LosslessTranscoder
from drimbox.importing.staging import Staging
from drimbox.importing.targets import Target
from drimbox.pacs.dimse.storing import Outgoing
from drimbox.pacs.header import outgoing
from drimbox.pacs.store import Sent
from drimbox.pacs.study import Study
from drimbox.record.audit import Event, Kind, Object, Outcome, Thing, failed

_log = logging.getLogger(__name__)
#: Errors that say that the user must log in again, not that the source refuses.
_LOGIN_CODES = frozenset({"login-ended"})
#: The code of images that name the patient otherwise: the user may decide to import them all the same.
TRAITS_DIFFER = "traits-differ"
_FLUSH_EVERY = 0.5
_GATHER_SECONDS, _GATHER_MOST = 0.25, 64
_FLUSH_MOST = 100
_PREPARED_AT_ONCE = 4
_LOOK_AGAIN = (0.0, 0.3, 0.7, 1.0, 2.0, 4.0)
_DISK = "Espace disque insuffisant sur la DRIMbox"


#: Which traits of an image (DICOM PN, DA, CS) are not those of the import's patient, in French; never their values.
Differing = Callable[[ImportedPatient, ImagePatient], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Means:
    """What every turn takes.

    ``tries``: how often an instance is offered to a target that might take it later; ``differing`` compares the patient
    of each image with the import's, None compares the INS alone.
    """

    ledger: Ledger
    targets: Mapping[str, Target]
    fetcher: LosslessFetcher
    logins: Logins
    journal: AuditJournal
    transcoder: LosslessTranscoder
    clock: Clock
    folder: Path
    box_name: str = "drimbox"
    whole_series: bool = False
    tries: int = 4
    differing: Differing | None = None


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """How a turn ended: the state that the import is in, why, and whether anything was achieved."""

    state: State
    code: str = ""
    reason: str = ""
    progress: bool = False
    verified: bool = False


@dataclass(slots=True)
class _Ready:
    """What may be sent, in the order in which it became ready; ``None`` ends it."""

    queue: asyncio.Queue[Outgoing | None] = field(default_factory=asyncio.Queue)
    void: set[str] = field(default_factory=set)
    pause: float = 0.02

    async def batch(self) -> list[Outgoing]:
        """What is ready, at least one; empty at the end.

        A moment is waited for more, longer from one batch to the next: an association for each image would cost more
        than the image.
        """
        while (batch := await self._gathered()) is not None:
            if batch := [one for one in batch if one.sop_instance_uid not in self.void]:
                return batch
        return []

    async def _gathered(self) -> list[Outgoing] | None:
        first = await self.queue.get()
        if first is None:
            self.queue.put_nowait(None)
            return None
        batch = [first]
        with suppress(TimeoutError):
            async with asyncio.timeout(self.pause):
                while len(batch) < _GATHER_MOST or not self.queue.empty():
                    one = await self.queue.get()
                    if one is None:
                        self.queue.put_nowait(None)
                        break
                    batch.append(one)
        self.pause = min(2 * self.pause, _GATHER_SECONDS)
        return batch


class Turn:
    """One turn of one import. Made for one ``run``."""

    def __init__(self, means: Means, order: Import) -> None:
        self._means = means
        self._order = order
        self._staging = Staging(means.folder / str(order.id))
        patient = order.patient
        renaming = Renaming(order.study_uid, order.stored_as) if order.stored_as != order.study_uid else None
        self._coercion = Coercion(
            patient_id=patient.local_id,
            issuer=patient.issuer,
            issuer_name=patient.issuer_name,
            accession=patient.accession,
            accession_issuer=patient.accession_issuer,
            renaming=renaming,
            modified_by=means.box_name,
            at=means.clock.now(),
        )
        self._instances: dict[str, Instance] = {}
        self._source_uid: dict[str, str] = {}
        self._ready = _Ready()
        self._staged: set[str] = set()
        self._verdicts: list[Verdict] = []
        self._drops: list[str] = []
        self._converted: set[str] = set()
        self._refused_forms: list[Outgoing] = []
        self._fetch_error: DrimboxError | None = None
        self._send_error: DrimboxError | None = None
        self._needs_login = False
        self._progress = False
        self._flushed_at = 0.0
        self._writing = asyncio.Lock()

    async def run(self) -> TurnEnd:
        """Go as far as possible. Raises ``psycopg.Error`` when the database is away, ``OSError`` for our own disk."""
        means, order = self._means, self._order
        target = means.targets.get(order.target)
        if target is None:
            return TurnEnd(State.FAILED, "target-unknown", "Le PACS de destination n'est plus configuré")
        self._instances = {i.sop_instance_uid: i for i in await means.ledger.instances(order.id)}
        self._source_uid = {self._coercion.uid(uid): uid for uid in self._instances}
        staged = await in_thread(self._staging.open)
        self._staged = set(staged & self._waiting())
        await in_thread(self._staging.drop, staged - self._staged)
        if (ended := await self._look_before(target)) is not None:
            return ended
        try:
            await self._fetch_and_send(target)
        finally:
            await self._flush()
        return await self._concluded(target)

    async def close(self) -> None:
        """Nothing of it stays on our disk."""
        await in_thread(self._staging.remove)

    def _waiting(self) -> set[str]:
        return {uid for uid, one in self._instances.items() if one.fate is Fate.WAITING}

    # --- what the target has already

    async def _look_before(self, target: Target) -> TurnEnd | None:
        """What is there is not sent again (DB.CO.79); a study that is there under another patient stops everything."""
        try:
            study = await target.held(self._order.stored_as)
        except Rejected:
            return None
        except DrimboxError as error:
            self._send_error = error
            return None
        if (wrong := self._of_another(study)) is not None:
            return wrong
        here = _instances_of(study) & {self._coercion.uid(uid) for uid in self._waiting()}
        for uid in here:
            self._judge(Verdict(self._source_uid[uid], Fate.PRESENT))
            self._drops.append(self._source_uid[uid])
            self._staged.discard(self._source_uid[uid])
        await self._flush()
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
        for uid in sorted(self._staged):
            self._ready.queue.put_nowait(await in_thread(self._outgoing, uid))
        if self._send_error is not None:
            # The target does not answer: what can be fetched is fetched, for the time when it does.
            await self._fetch_all()
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send_all(target))
                try:
                    await self._fetch_all()
                finally:
                    self._ready.queue.put_nowait(None)
        except ExceptionGroup as failures:
            # Both sides have ended; the first failure tells what to do.
            raise failures.exceptions[0] from None

    def _outgoing(self, uid: str) -> Outgoing:
        return outgoing(self._staging.path_of(uid))

    # --- fetching

    async def _fetch_all(self) -> None:
        for series in await self._means.ledger.series(self._order.id):
            missing = {i.sop_instance_uid for i in series.instances} & self._waiting() - self._staged
            if not missing:
                continue
            login = self._means.logins.find(self._order.person, self._order.structure)
            if login is None:
                self._needs_login = True
                continue
            await self._fetch(series, missing, login)

    async def _fetch(self, series: WantedSeries, missing: Collection[str], login: Login) -> None:
        preparing: deque[asyncio.Task[Outgoing]] = deque()
        held_back: list[Outgoing] = []
        count = 0
        error: DrimboxError | None = None

        async def prepared(most: int) -> None:
            """Hand on what is prepared, in its order, until ``most`` are left that are not."""
            nonlocal count
            while len(preparing) > most:
                one = await preparing[0]
                preparing.popleft()
                count += 1
                self._staged.add(self._source_uid[one.sop_instance_uid])
                self._progress = True
                if self._means.whole_series:
                    held_back.append(one)
                else:
                    self._ready.queue.put_nowait(one)
                await self._flush(if_due=True)

        try:
            order, folder = self._order, self._staging.incoming
            fetching = self._means.fetcher.fetch(order.kos_uid, order.patient.ins, series, login, folder)
            try:
                async with fetching as images:
                    async for image in images:
                        uid = image.sop_instance_uid
                        if uid not in missing:
                            await in_thread(image.path.unlink)
                            continue
                        # While these are prepared, the next ones come.
                        preparing.append(asyncio.create_task(in_thread(self._prepared, image.path, uid)))
                        await prepared(_PREPARED_AT_ONCE)
                    await prepared(0)
            except IdentityMismatch:
                raise
            except (DrimboxError, OSError):
                # What came whole and checked before it is stored; the failure is what is told.
                with suppress(OSError):
                    await prepared(0)
                raise
            for one in held_back:
                self._ready.queue.put_nowait(one)
        except IdentityMismatch as mismatch:
            error = mismatch
            await asyncio.gather(*preparing, return_exceptions=True)
            await self._drop_series(series, mismatch)
        except (Refused, Rejected) as refusal:
            error = refusal
            if refusal.code in _LOGIN_CODES:
                self._needs_login = True
            else:
                self._give_up({u for u in missing if u not in self._staged}, refusal)
        except DrimboxError as trouble:
            error = self._fetch_error = trouble
        except OSError:
            _log.error("an import has no room on the disk")
            error = self._fetch_error = Unavailable(_DISK, code="disk")
        finally:
            # Whatever became of the rest: nothing is written behind the back of who comes after.
            await asyncio.gather(*preparing, return_exceptions=True)
        await self._fetched(series, count, error)

    def _prepared(self, path: Path, uid: str) -> Outgoing:
        """Ready to be stored, unless it names the patient otherwise and nobody decided to go on. Blocks."""
        patient = self._order.patient
        if self._means.differing is not None and not patient.decided:
            traits = self._means.differing(patient, image_patient(path))
            if traits:
                reason = f"L'image ne nomme pas le patient comme l'appel ({', '.join(traits).lower()})"
                raise IdentityMismatch(reason, code=TRAITS_DIFFER)
        return self._staging.prepare(path, self._instances[uid].sop_class_uid, uid, self._coercion)

    async def _drop_series(self, series: WantedSeries, mismatch: IdentityMismatch) -> None:
        """Another patient's image was among them: of this series nothing more is stored (DB.CO.68)."""
        uids = {i.sop_instance_uid for i in series.instances}
        self._ready.void |= {self._coercion.uid(uid) for uid in uids}
        self._give_up(uids & self._waiting(), mismatch)
        await in_thread(self._staging.drop, uids)
        self._staged -= uids

    def _give_up(self, uids: Collection[str], error: DrimboxError) -> None:
        for uid in uids:
            self._judge(Verdict(uid, Fate.REFUSED, None, error.code, error.reason))

    async def _fetched(self, series: WantedSeries, count: int, error: DrimboxError | None) -> None:
        objects = (
            Object(Thing.STUDY, self._order.study_uid),
            Object(Thing.SERIES, series.series_uid, f"{count}/{len(series.instances)}"),
            Object(Thing.KOS, self._order.kos_uid),
        )
        event = self._event(Kind.IMAGES_FETCHED, objects)
        await self._means.journal.write(None, event if error is None else failed(event, error))

    # --- storing

    async def _send_all(self, target: Target) -> None:
        while batch := await self._ready.batch():
            try:
                await self._send(target, batch)
                await self._convert(target)
                if self._ready.queue.empty():
                    # A source that is slow, or stands still, is no reason not to tell what is stored.
                    await self._flush()
            except (Unavailable, OutcomeUnknown, Rejected) as error:
                self._send_error = error
                return

    async def _send(self, target: Target, batch: Sequence[Outgoing]) -> None:
        async with target.sending(batch) as results:
            async for sent in results:
                self._took(sent)
                await self._flush(if_due=True)

    def _took(self, sent: Sent) -> None:
        uid = self._source_uid[sent.instance.sop_instance_uid]
        if sent.stored:
            comment = sent.comment if sent.status else ""
            self._progress = True
            self._judge(Verdict(uid, Fate.STORED, sent.status, detail=comment))
            self._drops.append(uid)
        elif sent.code == "context-refused":
            if uid in self._converted:
                self._refuse(uid, sent, "Le PACS n'accepte pas ce type d'image (classe SOP) dans cette forme")
            else:
                self._refused_forms.append(sent.instance)
        elif sent.code == "file-unreadable":
            self._staged.discard(uid)
            self._drops.append(uid)
            self._judge(Verdict(uid, Fate.WAITING, None, sent.code, "Image illisible sur le disque de la DRIMbox"))
        elif _may_pass(sent) and self._instances[uid].tries + 1 < self._means.tries:
            self._judge(Verdict(uid, Fate.WAITING, sent.status, sent.code, sent.comment or _words(sent)))
        else:
            self._refuse(uid, sent, sent.comment or _words(sent))

    def _refuse(self, uid: str, sent: Sent, detail: str) -> None:
        self._judge(Verdict(uid, Fate.REFUSED, sent.status, sent.code, detail))
        self._drops.append(uid)

    async def _convert(self, target: Target) -> None:
        """What the target does not take as it is goes in a form that it takes, without loss."""
        refused, self._refused_forms = self._refused_forms, []
        again: list[Outgoing] = []
        for sop_class in dict.fromkeys(one.sop_class_uid for one in refused):
            accepted = await target.accepted(sop_class)
            for one in (o for o in refused if o.sop_class_uid == sop_class):
                uid = self._source_uid[one.sop_instance_uid]
                try:
                    changed = await converted(self._means.transcoder, self._staging, uid, one, accepted)
                except (Refused, OSError) as error:
                    detail = error.reason if isinstance(error, Refused) else _DISK
                    self._refuse(uid, Sent(one, None, code="context-refused"), detail)
                    continue
                self._converted.add(uid)
                again.append(changed)
        if again:
            await self._send(target, again)
            await self._convert(target)

    # --- writing down

    def _judge(self, verdict: Verdict) -> None:
        former = self._instances[verdict.sop_instance_uid]
        tries = former.tries + (verdict.fate is Fate.WAITING)
        self._instances[verdict.sop_instance_uid] = replace(
            former, fate=verdict.fate, status=verdict.status, code=verdict.code, detail=verdict.detail, tries=tries
        )
        self._verdicts.append(verdict)

    async def _flush(self, *, if_due: bool = False) -> None:
        """To the database, and only then off our disk: what is lost between is stored once more, to no effect."""
        now = self._means.clock.monotonic()
        if if_due and len(self._verdicts) < _FLUSH_MOST and now - self._flushed_at < _FLUSH_EVERY:
            return
        if if_due and self._writing.locked():
            return
        async with self._writing:
            self._flushed_at = now
            verdicts, self._verdicts = self._verdicts, []
            drops, self._drops = self._drops, []
            over = sum(1 for one in self._instances.values() if one.fate is not Fate.WAITING)
            here = len(self._staged & self._waiting())
            try:
                await self._means.ledger.note(self._order.id, verdicts, fetched=over + here)
            except BaseException:
                self._verdicts = verdicts + self._verdicts
                self._drops = drops + self._drops
                raise
            await in_thread(self._staging.drop, drops)

    # --- the end of the turn

    async def _concluded(self, target: Target) -> TurnEnd:
        if self._waiting():
            return self._unfinished()
        return await self._verified(target)

    def _unfinished(self) -> TurnEnd:
        error = self._send_error or self._fetch_error
        if error is not None:
            return TurnEnd(State.WAITING, error.code, error.reason, progress=self._progress)
        if self._needs_login:
            reason = "Votre session est terminée : l'import reprendra à votre prochaine connexion"
            return TurnEnd(State.LOGIN, "login", reason, progress=self._progress)
        kept = next(one for one in self._instances.values() if one.fate is Fate.WAITING)
        reason = kept.detail or "Le PACS n'a pas pu enregistrer toutes les images"
        return TurnEnd(State.WAITING, kept.code or "pacs-status", reason, progress=self._progress)

    async def _verified(self, target: Target) -> TurnEnd:
        """Ask the target what it has, and hold it against what was to be imported."""
        stored = {uid for uid, one in self._instances.items() if one.fate is Fate.STORED}
        verified = True
        if stored or any(one.fate is Fate.PRESENT for one in self._instances.values()):
            try:
                missing = await self._look_for(target, stored)
            except Rejected:
                verified, missing = False, set()
            except DrimboxError as error:
                return TurnEnd(State.WAITING, error.code, error.reason, progress=self._progress)
            if isinstance(missing, TurnEnd):
                return missing
            if verified:
                for uid in stored - missing:
                    former = self._instances[uid]
                    self._judge(Verdict(uid, Fate.FOUND, former.status, former.code, former.detail))
            self._lost(missing)
            await self._flush()
            if self._waiting():
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
            last = self._instances[uid].tries + 1 >= self._means.tries
            fate = Fate.REFUSED if last else Fate.WAITING
            detail = "Le PACS dit l'avoir enregistrée, mais ne la retrouve pas"
            self._judge(Verdict(uid, fate, self._instances[uid].status, "not-found", detail))

    def _over(self, *, verified: bool) -> TurnEnd:
        fates = [one.fate for one in self._instances.values()]
        refused = [one for one in self._instances.values() if one.fate is Fate.REFUSED]
        if not refused:
            note = (
                "" if verified else "Le PACS ne répond pas à la recherche : la présence des images n'est pas vérifiée"
            )
            return TurnEnd(State.DONE, "", note, progress=True, verified=verified)
        state = State.FAILED if len(refused) == len(fates) else State.PARTIAL
        first = refused[0]
        return TurnEnd(state, first.code or "refused", first.detail, progress=True, verified=verified)

    async def journal(self, end: TurnEnd) -> None:
        """Tell the audit journal how the import ended."""
        counts: dict[str, list[int]] = {}
        for one in self._instances.values():
            count = counts.setdefault(one.series_uid, [0, 0])
            count[0] += one.fate in (Fate.STORED, Fate.FOUND, Fate.PRESENT)
            count[1] += 1
        objects = [Object(Thing.STUDY, self._order.study_uid), Object(Thing.KOS, self._order.kos_uid)]
        objects += [Object(Thing.SERIES, uid, f"{n}/{total}") for uid, (n, total) in counts.items()]
        objects.append(Object(Thing.SYSTEM, self._order.target))
        event = self._event(Kind.IMAGES_IMPORTED, objects)
        if end.state is not State.DONE:
            outcome = Outcome.SERIOUS_FAILURE if end.state is State.FAILED else Outcome.MINOR_FAILURE
            event = replace(event, outcome=outcome, outcome_text=f"{end.state.value}: {end.reason}"[:500])
        await self._means.journal.write(None, event)

    def _event(self, kind: Kind, objects: Sequence[Object]) -> Event:
        order = self._order
        return Event(kind, order.actor, tuple(objects), structure=order.structure, patient=order.patient.ins)


def _instances_of(study: Study | None) -> set[str]:
    return {i.sop_instance_uid for s in study.series for i in s.instances} if study is not None else set()


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

"""What pages do with imports: ask for one, follow it, stop it, have the rest of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from drimbox.importing.coercion import Renaming
from drimbox.importing.ledger import Ledger
from drimbox.importing.orders import Import, Instance, NewImport, State
from drimbox.importing.runner import Runner

#: What becomes of a number or of UIDs: kept, replaced, or taken from the contextual call.
Policy = Literal["kept", "replaced", "call"]


@dataclass(frozen=True, slots=True)
class Choice:
    """One place where a user may import to."""

    id: str
    title: str


@dataclass(frozen=True, slots=True)
class Identifiers:
    """What the settings say of accession numbers and UIDs."""

    accession: Policy = "kept"
    uids: Policy = "kept"

    def stored_as(self, study_uid: str, call_study_uid: str) -> str:
        """The Study Instance UID of an imported study."""
        if self.uids == "call" and call_study_uid:
            return call_study_uid
        return Renaming(study_uid)(study_uid) if self.uids == "replaced" else study_uid

    def accession_number(self, call_number: str) -> str | None:
        """The accession number of imported images; None keeps theirs."""
        if self.accession == "call" and call_number:
            return call_number
        return "" if self.accession == "replaced" else None


class ImportDesk:
    """The imports of a box, as its users see them: each person their own."""

    def __init__(
        self, ledger: Ledger, runner: Runner, choices: Sequence[Choice], issuers: Mapping[str, str], rules: Identifiers
    ) -> None:
        """``issuers`` is the OID of the issuer of the local patient number of each target, where the call has none."""
        self._ledger = ledger
        self._runner = runner
        self._issuers = issuers
        self.choices = tuple(choices)
        self.rules = rules

    def issuer_of(self, target: str) -> str:
        """The OID of the issuer of the patient numbers of a target; empty when it is not configured."""
        return self._issuers.get(target, "")

    async def ask(self, new: NewImport) -> int:
        """Put an import in the queue; it goes on whatever becomes of the browser."""
        order_id = await self._ledger.add(new)
        self._runner.remember(new.structure, new.study_uid, State.QUEUED)
        self._runner.wake()
        return order_id

    async def of_person(self, person: str) -> list[Import]:
        """Newest first."""
        return await self._ledger.of_person(person)

    async def find(self, order_id: int, person: str) -> Import | None:
        return await self._ledger.find(order_id, person)

    async def instances(self, order_id: int) -> list[Instance]:
        return await self._ledger.instances(order_id)

    async def under_way(self, person: str) -> int:
        """How many of their imports go on: said at logout (DB.CO.76)."""
        return await self._ledger.open_of(person)

    async def brought(self, structure: str, study_uids: Collection[str]) -> Mapping[str, State]:
        """Which studies of a list are imported, or are being (DB.CO.61)."""
        return await self._ledger.brought(structure, study_uids)

    def state_of(self, structure: str, study_uids: Collection[str]) -> State | None:
        """The same from memory, for the rows of a list."""
        return self._runner.state_of(structure, study_uids)

    async def cancel(self, order_id: int, person: str) -> bool:
        """Stop it after the image at hand; what is stored stays stored."""
        if not await self._ledger.cancel(order_id, person):
            return False
        self._runner.cancel(order_id)
        return True

    async def again(self, order_id: int, person: str, *, decided: bool = False) -> bool:
        """The rest of it. ``decided``: although the images name the patient otherwise."""
        if not await self._ledger.again(order_id, person, decided=decided):
            return False
        self._runner.wake()
        return True

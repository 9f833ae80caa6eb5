"""Rules that look at what the registry holds already: uniqueness, replacement (standards.md D.2, D.6)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.bench import Bench
from drimbox.sandbox.dmp.ebrim import RegistryObject
from drimbox.sandbox.dmp.rules import Rule, rule
from drimbox.sandbox.dmp.store import StoredEntry
from drimbox.sandbox.dmp.vihf import Vihf


@dataclass(frozen=True, slots=True)
class EntryToRegister:
    """An entry about to be registered, and the uniqueIds of its whole set."""

    bench: Bench
    entry: RegistryObject
    content: bytes
    unique_ids: Sequence[str]

    @property
    def unique_id(self) -> str:
        return self.entry.identifier(v.ENTRY_UNIQUE)

    @property
    def known(self) -> StoredEntry | None:
        return self.bench.store.entry(unique_id=self.unique_id)


@dataclass(frozen=True, slots=True)
class Replacement:
    """The entry that an RPLC names, None when the registry has no such entry."""

    bench: Bench
    vihf: Vihf
    target: StoredEntry | None

    def found(self) -> StoredEntry:
        assert self.target is not None
        return self.target


@rule("REGISTRY.IN_MESSAGE", "XDSRepositoryDuplicateUniqueIdInMessage")
def in_message(e: EntryToRegister) -> str | None:
    """A uniqueId stands once in a set (standards.md D.2)."""
    return "uniqueId répété dans le lot" if list(e.unique_ids).count(e.unique_id) > 1 else None


@rule("REGISTRY.HASH", "XDSNonIdenticalHash")
def same_octets(e: EntryToRegister) -> str | None:
    """A registered uniqueId never comes back with other octets (standards.md D.2)."""
    other = e.known is not None and e.known.hash != hashlib.sha1(e.content).hexdigest()
    return "uniqueId déjà enregistré pour un autre contenu" if other else None


@rule("REGISTRY.UNIQUE", "XDSDuplicateUniqueIdInRegistry")
def unique(e: EntryToRegister) -> str | None:
    """EX_GEN-1060: an unchanged document is not sent again; its uniqueId is registered for good (ans-faq.md 3.3)."""
    return "EX_GEN-1060 : document déjà enregistré" if e.known is not None else None


UNIQUENESS_RULES: tuple[Rule[EntryToRegister], ...] = (in_message, same_octets, unique)


@rule("REPLACE.FOUND", "XDSReplaceFailed")
def found(r: Replacement) -> str | None:
    """The replaced entry exists and is not deleted (standards.md D.6)."""
    return "document à remplacer introuvable" if r.target is None or r.target.status == v.DELETED else None


@rule("REPLACE.PATIENT", "XDSPatientIdDoesNotMatch")
def patient(r: Replacement) -> str | None:
    """The replaced entry is of the same patient (standards.md D.2)."""
    return None if r.found().patient == r.vihf.patient else "document à remplacer d'un autre patient"


@rule("REPLACE.STRUCTURE", v.LOCAL_POLICY)
def structure(r: Replacement) -> str | None:
    """Only the structure that authored a document replaces it (ans-faq.md 3.2)."""
    own = any(r.bench.one_structure(s, r.vihf.structure) for s in r.found().structures)
    return None if own else "document à remplacer d'une autre structure"


@rule("REPLACE.STATUS", "XDSRegistryDeprecatedDocumentError")
def status(r: Replacement) -> str | None:
    """The replaced entry is Approved: the current version, not archived (standards.md D.6; ITI TF-3 4.2.2.2.3)."""
    return None if r.found().status == v.APPROVED else "document à remplacer qui n'est plus la version en cours"


REPLACEMENT_RULES: tuple[Rule[Replacement], ...] = (found, patient, structure, status)

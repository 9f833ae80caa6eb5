"""Rules of the associations of a publication: what belongs to the set, signs it, is replaced (standards.md D.6)."""

from __future__ import annotations

import re

from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.rules import Rule, rule
from drimbox.sandbox.dmp.set_rules import SetCase

_UUID = re.compile(r"urn:uuid:[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@rule("ASSOC.KINDS", v.REGISTRY_METADATA)
def kinds(case: SetCase) -> str | None:
    """Only HasMember, signs and RPLC (standards.md D.6)."""
    known = {v.HAS_MEMBER, v.SIGNS, v.REPLACES}
    return None if all(a.kind in known for a in case.submission.associations) else "association inattendue"


@rule("ASSOC.MEMBERS", v.REGISTRY_METADATA)
def members(case: SetCase) -> str | None:
    """The set has each entry as a member, once (standards.md D.6)."""
    told = sorted((a.source, a.target) for a in case.submission.of_kind(v.HAS_MEMBER))
    expected = sorted((case.set.id, e.id) for e in case.submission.entries)
    return None if told == expected else "association HasMember manquante, en trop ou fausse"


@rule("ASSOC.STATUS", v.REGISTRY_METADATA)
def status(case: SetCase) -> str | None:
    """SubmissionSetStatus is Original (standards.md D.3, D.7)."""
    marked = [*case.submission.of_kind(v.HAS_MEMBER), *case.submission.of_kind(v.SIGNS)]
    right = all(a.slots.get("SubmissionSetStatus") == ("Original",) for a in marked)
    return None if right else "SubmissionSetStatus Original attendu"


@rule("ASSOC.SIGNS", v.LOCAL_POLICY)
def signs(case: SetCase) -> str | None:
    """One signature entry signs the set: a feed in indirect authentication is signed (standards.md D.6, D.7)."""
    told = case.submission.of_kind(v.SIGNS)
    ids = {e.id for e in case.submission.entries}
    right = len(told) == 1 and told[0].source in ids and told[0].target == case.set.id
    return None if right else "lot non signé : une association signs de la signature vers le lot attendue"


@rule("ASSOC.DOCUMENTS", v.MISSING_METADATA)
def documents(case: SetCase) -> str | None:
    """The set holds at least one document besides its signature (standards.md D.6)."""
    return None if len(case.submission.entries) > 1 else "lot sans document"


@rule("ASSOC.REPLACES", v.REGISTRY_METADATA)
def replaces(case: SetCase) -> str | None:
    """RPLC goes from a KOS of the set to the entryUUID of the replaced one, at most one each (standards.md D.6)."""
    told = case.submission.of_kind(v.REPLACES)
    signature = case.submission.of_kind(v.SIGNS)[0].source
    ids = {e.id for e in case.submission.entries} - {signature}
    once = len({a.source for a in told}) == len(told) == len({a.target for a in told})
    right = once and all(a.source in ids and _UUID.fullmatch(a.target) for a in told)
    return None if right else "association RPLC fausse"


ASSOCIATION_RULES: tuple[Rule[SetCase], ...] = (kinds, signs, members, status, documents, replaces)

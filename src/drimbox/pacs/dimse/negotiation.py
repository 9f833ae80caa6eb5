"""Which presentation contexts we propose, and what an acceptor's answer lets us do with them (PS3.7 D.3, PS3.8 7.1).

No I/O. One context carries one transfer syntax wherever the 128 of an association allow it: a peer that holds an object
in some syntax then finds the context to send it as it lies, and nothing is decoded for want of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from drimbox.pacs.dimse import pdu, uids

MOST_CONTEXTS = 128
MOST_CLASSES = 8
"""Storage classes of one C-GET association: each then has fifteen contexts, and no usual syntax goes without."""

QUERY_SYNTAXES = (uids.EXPLICIT_LE, uids.IMPLICIT_LE)
_FIRST_WHEN_GETTING = (uids.EXPLICIT_LE, uids.IMPLICIT_LE, *uids.LOSSLESS_COMPRESSED, *uids.LOSSY)
# Those that nobody should be made to use are offered last.
GETTING = (
    *_FIRST_WHEN_GETTING,
    *(uid for uid in uids.UNCOMPRESSED if uid not in _FIRST_WHEN_GETTING),
)


@dataclass(frozen=True, slots=True)
class Offer:
    """One presentation context to propose; ``stored_to_us`` asks for the SCP role in it, as C-GET needs."""

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...] = QUERY_SYNTAXES
    stored_to_us: bool = False


@dataclass(frozen=True, slots=True)
class Agreed:
    """One presentation context that may be used."""

    id: int
    abstract_syntax: str
    transfer_syntax: str
    stored_to_us: bool


def services(abstract_syntaxes: Iterable[str]) -> tuple[Offer, ...]:
    """The offers for services without pixels: queries, C-MOVE, C-ECHO."""
    return tuple(Offer(uid) for uid in abstract_syntaxes)


def getting(sop_classes: Sequence[str]) -> tuple[Offer, ...]:
    """The offers of a C-GET for at most ``MOST_CLASSES`` storage classes, which the peer stores to us.

    What is left of the syntaxes when the contexts run out shares the last one of its class.
    """
    if not 0 < len(sop_classes) <= MOST_CLASSES:
        raise ValueError(f"{len(sop_classes)} storage classes in one association")
    each = (MOST_CONTEXTS - 1) // len(sop_classes)
    alone, together = GETTING[: each - 1], GETTING[each - 1 :]
    groups = [(uid,) for uid in alone] + ([together] if together else [])
    found = [Offer(uids.STUDY_ROOT_GET)]
    found += [Offer(sop_class, group, stored_to_us=True) for sop_class in sop_classes for group in groups]
    return tuple(found)


def storing(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[Offer, ...]]:
    """The offers to send objects of these (SOP class, transfer syntax) pairs, for one association after the other."""
    wanted = [Offer(sop_class, (syntax,)) for sop_class, syntax in dict.fromkeys(pairs)]
    for start in range(0, len(wanted), MOST_CONTEXTS):
        yield tuple(wanted[start : start + MOST_CONTEXTS])


def proposed(offers: Sequence[Offer]) -> tuple[pdu.ProposedContext, ...]:
    """The offers as the request carries them. Raises ``ValueError`` for more than an association can hold."""
    if len(offers) > MOST_CONTEXTS:
        raise ValueError(f"{len(offers)} presentation contexts")
    return tuple(
        pdu.ProposedContext(2 * number + 1, offer.abstract_syntax, offer.transfer_syntaxes)
        for number, offer in enumerate(offers)
    )


def roles(offers: Sequence[Offer]) -> tuple[pdu.Role, ...]:
    """The role selections that go with the offers: of the classes stored to us we are SCP, and SCP only."""
    wanted = dict.fromkeys(offer.abstract_syntax for offer in offers if offer.stored_to_us)
    return tuple(pdu.Role(uid, scu=False, scp=True) for uid in wanted)


def agreed(offers: Sequence[Offer], accept: pdu.AssociateAccept) -> dict[int, Agreed]:
    """What the acceptor's answer lets us use, by context id.

    An answer to what was not proposed counts for nothing. A class whose SCP role the acceptor denies is not used; where
    it says nothing of a role, the default ones hold by the letter (PS3.7 D.3.3.4), but peers exist that forget the
    answer and store all the same: whether they do is found out by asking.
    """
    denied = {role.sop_class_uid for role in accept.user.roles if not role.scp}
    found: dict[int, Agreed] = {}
    for answer in accept.contexts:
        offer = offers[(answer.id - 1) // 2] if answer.id & 1 and answer.id < 2 * len(offers) else None
        if offer is None or answer.result != pdu.ContextResult.ACCEPTANCE:
            continue
        if answer.transfer_syntax not in offer.transfer_syntaxes:
            continue
        if offer.stored_to_us and offer.abstract_syntax in denied:
            continue
        found[answer.id] = Agreed(answer.id, offer.abstract_syntax, answer.transfer_syntax, offer.stored_to_us)
    return found


def window(asked: int, accept: pdu.AssociateAccept) -> int:
    """How many operations may be open at once: what the acceptor allows, at most what was ``asked``; 1 by default."""
    granted = accept.user.window
    if granted is None or asked <= 1:
        return 1
    return max(1, min(asked, granted.invoked or asked))

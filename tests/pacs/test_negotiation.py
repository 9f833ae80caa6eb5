"""What we propose and what an answer lets us do: contexts, roles, the window of open operations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_RQ

from drimbox.pacs.dimse import negotiation, pdu, uids
from drimbox.pacs.dimse.negotiation import Offer

CT, MR, US = (f"1.2.840.10008.5.1.4.1.1.{leaf}" for leaf in ("2", "4", "6.1"))
JPEG_LS = "1.2.840.10008.1.2.4.80"
classes = st.lists(
    st.integers(1, 500).map(lambda n: f"1.2.840.10008.5.1.4.1.1.{n}"),
    min_size=1,
    max_size=negotiation.MOST_CLASSES,
    unique=True,
)


def accept(*contexts: pdu.AnsweredContext, roles: tuple[pdu.Role, ...] = (), **user: object) -> pdu.AssociateAccept:
    return pdu.AssociateAccept("A", "B", contexts, pdu.UserInformation(roles=roles, **user))  # type: ignore[arg-type]


@given(classes)
def test_a_get_offers_every_syntax_of_every_class(sop_classes: list[str]) -> None:
    offers = negotiation.getting(sop_classes)
    assert len(offers) <= negotiation.MOST_CONTEXTS
    assert offers[0] == Offer(uids.STUDY_ROOT_GET)
    for sop_class in sop_classes:
        mine = [offer for offer in offers if offer.abstract_syntax == sop_class]
        offered = [uid for offer in mine for uid in offer.transfer_syntaxes]
        assert sorted(offered) == sorted(uids.AS_STORED)
        # What French sites hold most has a context of its own, whatever the number of classes.
        assert {(uids.EXPLICIT_LE,), (uids.IMPLICIT_LE,), (JPEG_LS,)} <= {offer.transfer_syntaxes for offer in mine}
    assert {role.sop_class_uid for role in negotiation.roles(offers)} == set(sop_classes)
    assert all(role.scp and not role.scu for role in negotiation.roles(offers))


@pytest.mark.parametrize("count", [0, negotiation.MOST_CLASSES + 1])
def test_no_association_for_too_many_classes(count: int) -> None:
    with pytest.raises(ValueError, match="storage classes"):
        negotiation.getting([f"1.2.{n}" for n in range(count)])


def test_pynetdicom_reads_what_a_get_proposes() -> None:
    offers = negotiation.getting([CT, MR])
    user = pdu.UserInformation(16384, "1.2.3", "X", negotiation.roles(offers), pdu.Window(8, 1))
    data = pdu.encode(pdu.AssociateRequest("A", "B", negotiation.proposed(offers), user))
    read = A_ASSOCIATE_RQ()
    read.decode(data)
    roles = {item.sop_class_uid: (item.scu, item.scp) for item in read.user_information.role_selection.values()}
    assert roles == {CT: (False, True), MR: (False, True)}
    window = read.user_information.async_ops_window
    assert (window.maximum_number_operations_invoked, window.maximum_number_operations_performed) == (8, 1)
    assert len(read.presentation_context) == len(offers)


answers = st.lists(
    st.builds(
        pdu.AnsweredContext,
        st.integers(0, 255),
        st.integers(0, 4),
        st.sampled_from([uids.EXPLICIT_LE, uids.IMPLICIT_LE, JPEG_LS, "1.2.3", ""]),
    ),
    max_size=30,
)
said_roles = st.lists(st.builds(pdu.Role, st.sampled_from([CT, MR, US]), st.booleans(), st.booleans()), max_size=3)


@given(answers, said_roles)
def test_only_what_was_proposed_and_accepted_is_used(
    contexts: list[pdu.AnsweredContext], roles: list[pdu.Role]
) -> None:
    offers = (
        Offer(uids.STUDY_ROOT_GET),
        *(Offer(c, (t,), True) for c in (CT, MR) for t in (uids.EXPLICIT_LE, JPEG_LS)),
    )
    agreed = negotiation.agreed(offers, accept(*contexts, roles=tuple(roles)))
    accepted = {(c.id, c.transfer_syntax) for c in contexts if c.result == 0}
    denied = {role.sop_class_uid for role in roles if not role.scp}
    for id_, context in agreed.items():
        offer = offers[(id_ - 1) // 2]
        assert (id_, context.transfer_syntax) in accepted
        assert context.abstract_syntax == offer.abstract_syntax
        assert context.transfer_syntax in offer.transfer_syntaxes
        assert context.stored_to_us == offer.stored_to_us
        assert not (context.stored_to_us and context.abstract_syntax in denied)


def test_a_role_that_is_denied_is_not_used() -> None:
    offers = (Offer(CT, (uids.EXPLICIT_LE,), stored_to_us=True),)
    context = pdu.AnsweredContext(1, 0, uids.EXPLICIT_LE)
    assert negotiation.agreed(offers, accept(context))
    assert negotiation.agreed(offers, accept(context, roles=(pdu.Role(CT, False, True),)))
    assert not negotiation.agreed(offers, accept(context, roles=(pdu.Role(CT, True, False),)))


@pytest.mark.parametrize(
    ("asked", "granted", "window"),
    [
        (1, pdu.Window(9, 9), 1),
        (8, None, 1),
        (8, pdu.Window(4, 1), 4),
        (8, pdu.Window(0, 0), 8),
        (8, pdu.Window(99, 1), 8),
        (8, pdu.Window(1, 1), 1),
    ],
)
def test_no_more_operations_open_than_the_peer_allows(asked: int, granted: pdu.Window | None, window: int) -> None:
    assert negotiation.window(asked, accept(window=granted)) == window


@given(st.lists(st.tuples(st.integers(1, 60), st.sampled_from(uids.AS_STORED)), max_size=300))
def test_what_is_stored_is_offered_once_each(numbers: list[tuple[int, str]]) -> None:
    pairs = [(f"1.2.840.10008.5.1.4.1.1.{number}", syntax) for number, syntax in numbers]
    groups = list(negotiation.storing(pairs))
    assert all(0 < len(group) <= negotiation.MOST_CONTEXTS for group in groups)
    offered = [(offer.abstract_syntax, offer.transfer_syntaxes) for group in groups for offer in group]
    assert offered == [(sop_class, (syntax,)) for sop_class, syntax in dict.fromkeys(pairs)]

"""The PDUs: bytes of two independent peers, round trips, hostile bytes."""

from __future__ import annotations

import string
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import pdu as oracle

from drimbox.pacs.dimse import pdu, pdu_reader
from drimbox.pacs.dimse.limits import Limits
from pacs import captures

LIMITS = Limits()

uids = st.text("0123456789", min_size=1, max_size=8).map(lambda text: f"1.2.{text}")
titles = st.text(string.ascii_uppercase + string.digits + "_-", min_size=1, max_size=16)
user_information = st.builds(
    pdu.UserInformation,
    max_length=st.integers(0, 2**32 - 1),
    implementation_class_uid=uids,
    implementation_version=st.text(string.ascii_uppercase, max_size=16),
    roles=st.lists(st.builds(pdu.Role, uids, st.booleans(), st.booleans()), max_size=4).map(tuple),
    window=st.none() | st.builds(pdu.Window, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)),
    others=st.lists(st.tuples(st.sampled_from([0x56, 0x57, 0x58, 0x59]), st.binary(max_size=20)), max_size=3).map(
        tuple
    ),
)
context_ids = st.lists(st.integers(0, 127).map(lambda n: 2 * n + 1), unique=True, max_size=5)
requests = st.builds(
    lambda called, calling, ids, abstract, transfer, user: pdu.AssociateRequest(
        called, calling, tuple(pdu.ProposedContext(i, abstract, tuple(transfer)) for i in ids), user
    ),
    titles,
    titles,
    context_ids,
    uids,
    st.lists(uids, min_size=1, max_size=4),
    user_information,
)
accepts = st.builds(
    lambda called, calling, ids, transfer, user: pdu.AssociateAccept(
        called, calling, tuple(pdu.AnsweredContext(i, 0, transfer) for i in ids), user
    ),
    titles,
    titles,
    context_ids,
    uids,
    user_information,
)
values = st.builds(pdu.DataValue, st.integers(0, 255), st.booleans(), st.booleans(), st.binary(max_size=50))
octet = st.integers(0, 255)
pdus = st.one_of(
    requests,
    accepts,
    st.builds(pdu.AssociateReject, octet, octet, octet),
    st.builds(lambda items: pdu.Data(tuple(items)), st.lists(values, min_size=1, max_size=4)),
    st.just(pdu.ReleaseRequest()),
    st.just(pdu.ReleaseResponse()),
    st.builds(pdu.Abort, octet, octet),
)


def decoded(data: bytes) -> pdu.Pdu:
    kind, length = pdu.HEADER.unpack_from(data)
    assert length == len(data) - 6
    return pdu_reader.decode(kind, memoryview(data)[6:], LIMITS)


def test_request_of_dcmtk() -> None:
    assert decoded(captures.ECHOSCU_REQUEST) == pdu.AssociateRequest(
        called_ae="DRIMBOX",
        calling_ae="ECHOSCU",
        contexts=(pdu.ProposedContext(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",)),),
        user=pdu.UserInformation(16384, "1.2.276.0.7230010.3.0.3.6.7", "OFFIS_DCMTK_367"),
    )


def test_request_of_pynetdicom() -> None:
    request = decoded(captures.PYNETDICOM_REQUEST)
    assert isinstance(request, pdu.AssociateRequest)
    assert (request.called_ae, request.calling_ae, request.user.max_length) == ("DRIMBOX", "PYNET", 16382)
    assert pdu.encode(request) == captures.PYNETDICOM_REQUEST


@pytest.mark.parametrize(
    ("capture", "max_length", "version"),
    [
        (captures.STORESCP_ACCEPT, 16384, "OFFIS_DCMTK_367"),
        (captures.PYNETDICOM_ACCEPT, 16382, "PYNETDICOM_304"),
    ],
)
def test_accepts_of_real_peers(capture: bytes, max_length: int, version: str) -> None:
    accept = decoded(capture)
    assert isinstance(accept, pdu.AssociateAccept)
    assert accept.contexts == (pdu.AnsweredContext(1, 0, "1.2.840.10008.1.2"),)
    assert (accept.user.max_length, accept.user.implementation_version) == (max_length, version)
    assert pdu.encode(accept) == capture


@given(pdus)
def test_round_trip(unit: pdu.Pdu) -> None:
    assert decoded(pdu.encode(unit)) == unit


@given(requests)
def test_pynetdicom_reads_our_requests(request: pdu.AssociateRequest) -> None:
    theirs = oracle.A_ASSOCIATE_RQ()
    theirs.decode(pdu.encode(pdu.AssociateRequest(request.called_ae, request.calling_ae, request.contexts, _plain)))
    assert (theirs.called_ae_title.strip(), theirs.calling_ae_title.strip()) == (request.called_ae, request.calling_ae)
    assert [c.context_id for c in theirs.presentation_context] == [c.id for c in request.contexts]
    assert theirs.encode() == pdu.encode(
        pdu.AssociateRequest(request.called_ae, request.calling_ae, request.contexts, _plain)
    )


_plain = pdu.UserInformation(16384, "1.2.3", "TEST", (pdu.Role("1.2.4", True, False),))


@given(st.integers(0, 255), st.binary(max_size=400))
def test_any_bytes_are_a_pdu_or_refused(kind: int, body: bytes) -> None:
    with suppress(pdu.InvalidPdu):
        pdu_reader.decode(kind, memoryview(body), LIMITS)


@given(requests, st.data())
def test_a_spoiled_request_is_read_or_refused(request: pdu.AssociateRequest, data: st.DataObject) -> None:
    body = bytearray(pdu.encode(request)[6:])
    for _ in range(data.draw(st.integers(1, 5))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(octet)
    cut = data.draw(st.integers(0, len(body)))
    for spoiled in (bytes(body), bytes(body[:cut])):
        with suppress(pdu.InvalidPdu):
            pdu_reader.decode(1, memoryview(spoiled), LIMITS)


@pytest.mark.parametrize(
    "limits",
    [Limits(contexts=3), Limits(transfer_syntaxes=1), Limits(user_items=2)],
    ids=["contexts", "syntaxes", "user"],
)
def test_counts_are_limited(limits: Limits) -> None:
    contexts = tuple(pdu.ProposedContext(2 * i + 1, "1.2.3", ("1.2.4", "1.2.5")) for i in range(4))
    request = pdu.AssociateRequest("A", "B", contexts, _plain)
    body = memoryview(pdu.encode(request))[6:]
    assert pdu_reader.decode(1, body, LIMITS) == request
    with pytest.raises(pdu.InvalidPdu, match="more than"):
        pdu_reader.decode(1, body, limits)


@pytest.mark.parametrize("title", ["", "A" * 17])
def test_no_ae_title_that_no_peer_can_read(title: str) -> None:
    with pytest.raises(ValueError, match="AE title"):
        pdu.encode(pdu.AssociateRequest(title, "B", (), _plain))

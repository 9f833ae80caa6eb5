"""A client's first message, read: as OpenSSL writes it, cut anywhere, and any octets at all."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drimbox.trust.client_hello import INCOMPLETE, MAX_HELLO, NONE, Hello, Unread, read


def hello_of(host: str | None, protocols: list[str]) -> bytes:
    """As OpenSSL begins a handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(protocols)
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=host)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


SAMPLE = hello_of("vi1.test.mesimagesmedicales.fr", ["acme-tls/1"])


@pytest.mark.parametrize(
    ("host", "protocols"),
    [("vi1.test.mesimagesmedicales.fr", ["acme-tls/1"]), ("A.Example.ORG", ["h2", "http/1.1"]), (None, [])],
)
def test_what_openssl_writes(host: str | None, protocols: list[str]) -> None:
    assert read(hello_of(host, protocols)) == Hello((host or "").lower(), tuple(protocols))


def test_a_hello_in_several_records() -> None:
    body = SAMPLE[5:]
    pieces = [body[at : at + 50] for at in range(0, len(body), 50)]
    cut = b"".join(SAMPLE[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces)
    assert read(cut) == read(SAMPLE)
    assert read(cut + b"what follows") == read(SAMPLE)


@given(st.integers(0, len(SAMPLE) - 1))
def test_a_hello_that_is_not_whole_is_waited_for(size: int) -> None:
    assert read(SAMPLE[:size]) is INCOMPLETE


@given(st.binary(max_size=400))
def test_any_octets_are_read_or_refused(data: bytes) -> None:
    assert isinstance(read(data), Hello | Unread)
    assert isinstance(read(b"\x16\x03\x01" + data), Hello | Unread)


@given(st.integers(5, len(SAMPLE) - 1), st.integers(0, 255))
def test_an_altered_hello_harms_nobody(place: int, octet: int) -> None:
    altered = bytearray(SAMPLE)
    altered[place] = octet
    assert isinstance(read(altered), Hello | Unread)


def test_nobody_is_made_to_keep_much() -> None:
    record = b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" + b"\0" * (0x4000 - 4)
    assert read(record * 10) is NONE
    one_octet = b"\x16\x03\x01\x00\x01\x01"
    assert read(one_octet + b"\x16\x03\x01\x00\x01\x00" * MAX_HELLO) is not INCOMPLETE
    assert read(b"\x16\x03\x01\x00\x00" * 10) is NONE
    assert read(b"\x15\x03\x01\x00\x02\x02\x28") is NONE

"""What TLS a listener speaks, seen from outside: versions and suites, by its answers to ClientHellos.

Only the ServerHello is read, so that a listener which demands a client certificate is seen like any other. What this
cannot see (groups, known attacks) is for testssl.sh.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

_VERSIONS = (
    ("TLS 1.0", ssl.TLSVersion.TLSv1),
    ("TLS 1.1", ssl.TLSVersion.TLSv1_1),
    ("TLS 1.2", ssl.TLSVersion.TLSv1_2),
    ("TLS 1.3", ssl.TLSVersion.TLSv1_3),
)
_SECONDS = 5.0
_MAX_SUITES = 60
_HANDSHAKE, _SERVER_HELLO, _HEAD = 22, 2, 5


@dataclass(frozen=True, slots=True)
class Probe:
    """``versions`` that were accepted; ``suites`` of TLS 1.2 in the listener's own order; the one chosen of TLS 1.3.

    ``error`` is set when nobody answered: then nothing is known.
    """

    versions: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    suite13: str = ""
    error: str = ""


def probed(host: str, port: int) -> Probe:
    """Ask a listener. Never raises for what it answers."""
    try:
        with socket.create_connection((host, port), _SECONDS):
            pass
    except OSError as error:
        return Probe(error=str(error.strerror or error))
    accepted = [(name, _chosen(host, port, version)) for name, version in _VERSIONS]
    return Probe(
        tuple(name for name, suite in accepted if suite),
        tuple(_suites(host, port)),
        dict(accepted)["TLS 1.3"],
    )


def _suites(host: str, port: int) -> Sequence[str]:
    """Those of TLS 1.2: the chosen one is left out of the next offer, until none is taken."""
    every = _context(ssl.TLSVersion.TLSv1_2, "ALL:COMPLEMENTOFALL:@SECLEVEL=0").get_ciphers()
    left = [c["name"] for c in every if "TLSv1.3" not in c["protocol"]]
    found: list[str] = []
    while left and len(found) < _MAX_SUITES:
        chosen = _chosen(host, port, ssl.TLSVersion.TLSv1_2, ":".join(left))
        if chosen not in left:
            break
        left.remove(chosen)
        found.append(chosen)
    return found


def _context(version: ssl.TLSVersion, ciphers: str) -> ssl.SSLContext:
    import warnings

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings():
        # The old versions are asked for to see them refused.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0" if "SECLEVEL" not in ciphers else ciphers)
    return context


def _chosen(host: str, port: int, version: ssl.TLSVersion, ciphers: str = "ALL:@SECLEVEL=0") -> str:
    """The name of the suite of the ServerHello; empty when there is none of that version."""
    context = _context(version, ciphers)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing)
    with contextlib.suppress(ssl.SSLError):
        client.do_handshake()
    try:
        with socket.create_connection((host, port), _SECONDS) as connection:
            connection.settimeout(_SECONDS)
            connection.sendall(outgoing.read())
            hello = _server_hello(connection)
    except OSError:
        return ""
    return _suite_of(hello, version, context)


def _server_hello(connection: socket.socket) -> bytes:
    """The first handshake message, empty when it is another (an alert) or none."""
    received = bytearray()
    while len(received) < _HEAD or len(received) < _HEAD + int.from_bytes(received[3:5], "big"):
        piece = connection.recv(4096)
        if not piece:
            return b""
        received += piece
    if received[0] != _HANDSHAKE or received[_HEAD] != _SERVER_HELLO:
        return b""
    return bytes(received[_HEAD : _HEAD + int.from_bytes(received[3:5], "big")])


def _suite_of(hello: bytes, version: ssl.TLSVersion, context: ssl.SSLContext) -> str:
    """RFC 8446 4.1.3: type, length, version, random, session id, suite; 1.3 says itself in an extension."""
    if len(hello) < 40:
        return ""
    after = 4 + 2 + 32 + 1 + hello[38]
    suite = int.from_bytes(hello[after : after + 2], "big")
    is_13 = b"\x00\x2b\x00\x02\x03\x04" in hello[after + 2 :]
    told = ssl.TLSVersion.TLSv1_3 if is_13 else ssl.TLSVersion(int.from_bytes(hello[4:6], "big"))
    if told != version:
        return ""
    by_id = {c["id"] & 0xFFFF: str(c["name"]) for c in context.get_ciphers()}
    return by_id.get(suite, f"0x{suite:04X}")

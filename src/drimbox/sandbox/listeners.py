"""TLS for the sandbox's own listeners and calls: the floor of standards.md K.4, revocation checked."""

from __future__ import annotations

import ssl
from enum import Enum

from drimbox.sandbox.pki import PemPair, TestAuthority

_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"


class ClientCertificate(Enum):
    """Whether a listener asks its callers for a certificate."""

    UNASKED = ssl.CERT_NONE
    OPTIONAL = ssl.CERT_OPTIONAL
    REQUIRED = ssl.CERT_REQUIRED


def listener_context(pair: PemPair, authority: TestAuthority, client: ClientCertificate) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 with ``pair``; a client certificate must be the authority's, valid, for clients, not revoked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_SUITES)
    context.load_cert_chain(pair.certificate, pair.key)
    context.verify_mode = client.value
    if client is not ClientCertificate.UNASKED:
        _believe(context, authority)
    return context


def caller_context(authority: TestAuthority, pair: PemPair | None = None) -> ssl.SSLContext:
    """TLS towards servers of the test authority, with a client certificate when ``pair`` is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_SUITES)
    _believe(context, authority)
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


def _believe(context: ssl.SSLContext, authority: TestAuthority) -> None:
    context.load_verify_locations(authority.roots)
    for revocation_list in authority.revocation_lists:
        context.load_verify_locations(revocation_list)
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN

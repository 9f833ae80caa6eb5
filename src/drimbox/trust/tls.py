"""The TLS contexts of every client and every listener of the box; nobody else makes one.

What they all do (ANSSI guide, standards.md K.4): TLS 1.3 and 1.2 only; under 1.2 only ECDHE with an AEAD cipher; the
server's order; no compression, no renegotiation, no tickets; certificate chains end at a root of the ``TrustStore``;
purpose (serverAuth, clientAuth) are checked inside the handshake, and clients check the host name; as soon as lists are
configured, revocation of the whole chain is checked at its end, before anything is sent or read. A TLS 1.2 client may
still resume a session by its number, which the ``ssl`` module cannot forbid and which skips those checks: there, dates
and revocation of the client are asked again.
"""

from __future__ import annotations

import _ssl
import datetime as dt
import logging
import os
import secrets
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Misconfigured, Refused
from drimbox.trust import names
from drimbox.trust.chain import TrustStore, check_again
from drimbox.trust.keystore import UNREADABLE, Credential, read_certificates
from drimbox.trust.revocation import MISSING, REVOKED, STALE, RevocationLists, load_revocation_lists
from drimbox.trust.token import TokenKey

MUST_BE_A_FILE = (
    "La clé est dans un jeton PKCS#11, que le TLS de Python ne sait pas utiliser : il ne lit que des fichiers. "
    "Donnez à cet endroit une paire PEM ou PKCS#12 ; un jeton peut porter l'ORG SIGN, et le certificat d'un "
    "serveur si un serveur frontal (nginx) termine le TLS"
)

Judge = Callable[[Sequence[x509.Certificate], dt.datetime], None]
"""Asked about a verified chain, from the peer to the root, after each handshake; raises ``Refused``."""

_log = logging.getLogger(__name__)

# Key exchange groups of the ANSSI guide, best first.
GROUPS = "X25519:P-256:P-384:P-521:X448"
# Those of TLS 1.3 are all good and are not set by this list.
TLS12_SUITES = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES256-GCM-SHA384", "AES128-GCM-SHA256", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)


def load_trust(
    roots: Sequence[Path],
    revocation_lists: Sequence[Path] = (),
    fetched: RevocationLists | None = None,
    *,
    quiet: bool = False,
) -> TrustStore:
    """Read the pinned authorities (PEM or DER, roots and intermediates) and the revocation lists, beside ``fetched``.

    Raises ``Misconfigured`` (``trust-roots``, ``credential``, ``revocation-list``): a file that cannot be read, a
    certificate that is not an authority's, no root among them, test and production mixed. Unless ``quiet``, warns when
    revocation will not be checked, or will refuse every certificate of an authority that has no list.
    """
    pinned = tuple(dict.fromkeys(c for path in roots for c in _authorities(path)))
    lists = load_revocation_lists(revocation_lists)
    trust = TrustStore(pinned, lists.newest(fetched) if fetched is not None else lists)
    if not trust.anchors:
        raise _bad("Aucune autorité racine parmi trust.roots : ajoutez le certificat de la racine")
    _check_one_range(pinned)
    if quiet:
        return trust
    if not trust.revocation.configured:
        _log.warning("no revocation list is configured: revoked certificates will not be noticed")
        return trust
    for authority in pinned:
        if trust.revocation.of(authority) is None:
            _log.warning(
                "no revocation list of %s: every certificate it issued will be refused",
                names.written(authority.subject),
            )
    return trust


def client_context(
    trust: TrustStore, credential: Credential | None = None, *, judge: Judge | None = None
) -> ssl.SSLContext:
    """The context of a client: checks the server's chain, purpose, revocation and host name.

    With ``credential`` (ORG AUTH_CLI), proves who we are when the server asks; ``judge`` is asked about the chain too
    (``trust.public``). Raises ``Misconfigured`` (``credential``) when the credential is not fit for a client.
    """
    context = _Believing(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    _believe(context, trust)
    context.judge = judge
    if credential is not None:
        _require_purpose(credential, ExtendedKeyUsageOID.CLIENT_AUTH, "client (ORG AUTH_CLI)")
        _present(context, credential)
    return context


def public_client_context(
    roots: Sequence[Path] = (), credential: Credential | None = None, *, judge: Judge | None = None
) -> ssl.SSLContext:
    """The context of a client of servers that IGC-Sante did not certify: it believes ``roots``, else what the machine
    believes; ``judge`` is asked about each chain; with ``credential``, it proves who we are when the server asks.
    Raises ``Misconfigured`` (``trust-root``, ``credential``)."""
    context = _Believing(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    context.sslobject_class, context.sslsocket_class = _Side, _Socket
    context.judge = judge
    try:
        for path in roots:
            context.load_verify_locations(path)
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(f"Racine illisible : {path}", code="trust-root") from error
    if not roots:
        context.load_default_certs()
    if credential is not None:
        _present(context, credential)
    return context


def server_context(credential: Credential, client_trust: TrustStore | None = None) -> ssl.SSLContext:
    """The context of a listener; with ``client_trust``, every client must prove a certificate of that trust.

    Raises ``Misconfigured`` (``credential``) when the credential is not fit for a server.
    """
    context = _Believing(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    context.num_tickets = 0
    _require_purpose(credential, ExtendedKeyUsageOID.SERVER_AUTH, "serveur (SERV SSL_SERV)")
    _present(context, credential)
    if client_trust is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        _believe(context, client_trust)
    return context


def add_revocation_lists(context: ssl.SSLContext, revocation: RevocationLists) -> None:
    """Give a context, in use or not, (newer) lists: its next connections are judged by them.

    Raises ``TypeError`` for a context that was not made here.
    """
    if not isinstance(context, _Believing):
        raise TypeError("this context was not made by trust.tls")
    if context.believed is not None and revocation.configured:
        known = context.believed
        context.believed = replace(known, revocation=known.revocation.newest(revocation))


class _Believing(ssl.SSLContext):
    """A context that remembers whom it believes, by which lists, and asks them about each connection.

    OpenSSL could ask the lists, and would verify the signature of each whole list in each handshake: with lists of
    some hundred kilobytes that costs more than all the rest. Here that is done once for each list.
    """

    believed: TrustStore | None = None
    judge: Judge | None = None


class _Side(ssl.SSLObject):
    """A connection of a context that believes (asyncio makes one for each)."""

    def do_handshake(self) -> None:
        super().do_handshake()
        _check_peer(self)


class _Socket(ssl.SSLSocket):
    """The same where each connection has a thread."""

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        _check_peer(self)


def _check_peer(connection: ssl.SSLObject | ssl.SSLSocket) -> None:
    """What the lists say of the chain that OpenSSL verified. Raises ``ssl.SSLCertVerificationError``.

    Nothing was sent to the peer yet, nor anything of it read.
    """
    context = connection.context
    if not isinstance(context, _Believing):
        return
    trust, judge, now = context.believed, context.judge, SystemClock().now()
    listed = trust is not None and trust.revocation.configured
    try:
        if connection.session_reused:
            # There was no chain to verify this time. (No client of ours takes up a session.)
            if trust is not None:
                check_again(names.read_certificate(connection.getpeercert(binary_form=True) or b""), trust, now)
        elif listed or judge is not None:
            chain = [_parsed(der) for der in _verified_chain(connection)]
            if trust is not None and listed:
                _check_lists(chain, trust, now)
            if judge is not None:
                judge(chain, now)
    except Refused as error:
        raise ssl.SSLCertVerificationError(f"{error.code}: {_LIBRARY.get(error.reason, error.code)}") from error


def _check_lists(chain: Sequence[x509.Certificate], trust: TrustStore, now: dt.datetime) -> None:
    if len(chain) < 2:
        raise Refused("Chaîne du certificat inconnue", code="certificate-chain")
    for certificate, issuer in pairwise(chain):
        trust.revocation.check(certificate, issuer, now)


# What OpenSSL calls it: the words that people look for.
_LIBRARY = {REVOKED: "certificate revoked", MISSING: "unable to get certificate CRL", STALE: "CRL has expired"}


@lru_cache(512)
def _parsed(der: bytes) -> x509.Certificate:
    """The same issuers, and mostly the same peers, come again and again. Raises ``Refused``."""
    return names.read_certificate(der)


def _verified_chain(connection: Any) -> Sequence[bytes]:
    """From the peer to the root, as DER. Python has a public way from 3.13 on."""
    public = getattr(connection, "get_verified_chain", None)
    if public is not None:
        return tuple(public() or ())
    return tuple(one.public_bytes(_ssl.ENCODING_DER) for one in connection._sslobj.get_verified_chain() or ())


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(TLS12_SUITES)
    context.options |= (
        ssl.OP_NO_COMPRESSION
        | ssl.OP_NO_RENEGOTIATION
        | ssl.OP_NO_TICKET
        | ssl.OP_CIPHER_SERVER_PREFERENCE
        | ssl.OP_SINGLE_ECDH_USE
    )


def _believe(context: _Believing, trust: TrustStore) -> None:
    der = b"".join(c.public_bytes(Encoding.DER) for c in trust.roots)
    context.load_verify_locations(cadata=der)
    context.believed = trust
    context.sslobject_class, context.sslsocket_class = _Side, _Socket


def _present(context: ssl.SSLContext, credential: Credential) -> None:
    """Hand certificate, chain and key to OpenSSL, which only reads files: one in memory, the key encrypted again."""
    if isinstance(credential.key, TokenKey):
        raise Misconfigured(MUST_BE_A_FILE, code="credential")
    password = secrets.token_bytes(32).hex().encode()
    certificates = (credential.certificate, *credential.chain)
    pem = b"".join(c.public_bytes(Encoding.PEM) for c in certificates)
    pem += credential.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
    with _anonymous_file(pem) as path:
        try:
            context.load_cert_chain(path, password=password)
        except ssl.SSLError as error:
            raise Misconfigured(
                "Certificat ou clé refusés par OpenSSL : vérifiez la paire et sa force", code="credential"
            ) from error


@contextmanager
def _anonymous_file(data: bytes) -> Iterator[str]:
    """A file that exists in memory only, for as long as the block lasts, by the one path that leads to it."""
    descriptor = os.memfd_create("drimbox-tls", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        yield f"/proc/self/fd/{descriptor}"


def _require_purpose(credential: Credential, purpose: ObjectIdentifier, role: str) -> None:
    try:
        allowed = credential.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if purpose not in allowed and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in allowed:
        raise Misconfigured(
            f"Le certificat {credential.subject_dn} n'est pas un certificat {role} : les pairs le refuseraient. "
            "Vérifiez quel certificat est donné à cet endroit",
            code="credential",
        )


def _authorities(path: Path) -> tuple[x509.Certificate, ...]:
    found = read_certificates(path)
    for certificate in found:
        if not _is_authority(certificate):
            raise _bad(f"{path} contient un certificat qui n'est pas celui d'une autorité (AC)")
    return found


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *UNREADABLE):
        return False


def _check_one_range(pinned: Sequence[x509.Certificate]) -> None:
    units = {str(a.value) for c in pinned for a in c.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)}
    if {"IGC-SANTE", "IGC-SANTE TEST"} <= units:
        raise _bad("trust.roots mêle les gammes de test et de production de l'IGC-Santé : gardez l'une ou l'autre")


def _bad(reason: str) -> Misconfigured:
    return Misconfigured(reason, code="trust-roots")


__all__ = [
    "Judge",
    "TrustStore",
    "add_revocation_lists",
    "client_context",
    "load_trust",
    "public_client_context",
    "server_context",
]

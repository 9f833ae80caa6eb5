"""The market certificate: a client's first message, the answers of an authority, certificates that people paste."""

from __future__ import annotations

import base64
import json
import ssl
import warnings
from collections.abc import Callable, Iterator
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from certificates.strict_ca import Issuer, issue, make_issuer
from drimbox.certificates.acme import messages
from drimbox.certificates.acts import read_pem
from drimbox.certificates.rules import Rules, RulesBroken, check
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import DrimboxError
from drimbox.trust import client_hello
from fuzz.grammars import http
from fuzz.target import Broken, Target, pure

HOST = "vi1.test.mesimagesmedicales.fr"
_BASE = "https://acme.example.org"


def _run_hello(data: bytes) -> object:
    found = client_hello.read(data)
    if isinstance(found, client_hello.Hello) and client_hello.read(data + b"more") != found:
        raise Broken("what follows a hello changes it")
    return type(found).__name__, getattr(found, "protocols", ())[:2]


def _hellos() -> Iterator[bytes]:
    for host, protocols in ((HOST, ["acme-tls/1"]), (HOST, ["h2", "http/1.1"]), (None, [])):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if protocols:
            context.set_alpn_protocols(protocols)
        outgoing = ssl.MemoryBIO()
        client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=host)
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            yield outgoing.read()


def _run_answer(data: bytes) -> object:
    """Any answer of an authority, read as each of the things that it might be."""
    readers: tuple[Callable[[bytes], object], ...] = (
        messages.directory,
        messages.order,
        messages.authorization,
        lambda body: messages.renewal_window(body, SystemClock().now()),
    )
    found = []
    for read in readers:
        try:
            found.append(type(read(data)).__name__)
        except DrimboxError as error:
            found.append(error.code)
    told = messages.problem(data).told
    if not told.isprintable() or len(told) > 500:
        raise Broken("an authority's words go to the operator as they came")
    return found, told[:10]


def _answers() -> Iterator[bytes]:
    names = ("newNonce", "newAccount", "newOrder", "revokeCert", "keyChange", "renewalInfo")
    yield json.dumps({n: f"{_BASE}/{n}" for n in names} | {"meta": {"externalAccountRequired": True}}).encode()
    error = {"type": "urn:ietf:params:acme:error:caa", "detail": "no", "subproblems": [{"type": "x", "detail": "y"}]}
    identifier = {"type": "dns", "value": HOST}
    order = {"status": "invalid", "identifiers": [identifier], "authorizations": [f"{_BASE}/1"], "error": error}
    yield json.dumps({**order, "finalize": f"{_BASE}/f", "certificate": f"{_BASE}/c"}).encode()
    challenge = {"type": "http-01", "url": f"{_BASE}/2", "status": "pending", "token": "abc", "error": error}
    yield json.dumps({"status": "pending", "identifier": identifier, "challenges": [challenge]}).encode()
    window = {"start": "2026-01-02T04:00:00Z", "end": "2026-01-03T04:00:00Z"}
    yield json.dumps({"suggestedWindow": window, "explanationURL": _BASE}).encode()
    yield json.dumps(error).encode()


@cache
def _kept() -> tuple[Issuer, Issuer, ec.EllipticCurvePrivateKey, Rules]:
    root = make_issuer("Racine")
    return (
        root,
        make_issuer("Intermédiaire", root),
        ec.generate_private_key(ec.SECP256R1()),
        Rules(HOST, (root.certificate,)),
    )


def _run_certificate(data: bytes) -> object:
    """DER, so that every octet matters: a certificate is kept only as it was signed."""
    _, intermediate, key, rules = _kept()
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(data) + b"\n-----END CERTIFICATE-----\n"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        try:
            leaf = read_pem(pem + intermediate.certificate.public_bytes(Encoding.PEM))
            check(leaf, key, rules, SystemClock().now())
        except RulesBroken as error:
            return [breach.code for breach in error.breaches]
    if data not in _certificates_made():
        raise Broken("an altered certificate was accepted")
    return "kept"


@cache
def _certificates_made() -> tuple[bytes, ...]:
    _, intermediate, key, _ = _kept()
    names: list[list[x509.GeneralName]] = [
        [x509.DNSName(HOST)],
        [x509.DNSName(HOST), x509.DNSName("*.example.org")],
        [x509.DNSName(HOST), x509.RFC822Name("a@example.org")],
    ]
    return tuple(issue(intermediate, key.public_key(), each).public_bytes(Encoding.DER) for each in names)


TARGETS = (
    Target("client_hello", pure(_run_hello), _hellos, (), largest=80 * 1024),
    Target("acme_answer", pure(_run_answer), _answers, (), http.JSON, largest=64 * 1024),
    Target("market_certificate", pure(_run_certificate), _certificates_made, largest=16 * 1024),
)

"""An ACME authority written for these tests (RFC 8555, RFC 8737, RFC 9773): it judges each request by itself and can be
told to lie, to refuse, to be slow or away. It shares nothing with the client but the RFCs.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from drimbox.foundation.http_server import serving
from drimbox.sandbox.pki import Profile, TestAuthority

DV, OV = "2.23.140.1.2.1", "2.23.140.1.2.2"
DAY = dt.timedelta(days=1)


def unb64(text: str) -> bytes:
    assert "=" not in text
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class ProblemError(Exception):
    def __init__(self, kind: str, detail: str = "", status: int = 400, **headers: str) -> None:
        super().__init__(kind)
        self.kind, self.detail, self.status, self.headers = kind, detail, status, headers


@dataclass
class Issuer:
    """A root or an intermediate."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_issuer(name: str, parent: Issuer | None = None, **options: Any) -> Issuer:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(parent.certificate.subject if parent else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(options.get("start", now - 365 * DAY))
        .not_valid_after(options.get("end", now + 3650 * DAY))
        .add_extension(x509.BasicConstraints(ca=True, path_length=options.get("path_length")), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(parent.key if parent else key, hashes.SHA256())
    )
    return Issuer(certificate, key)


def issue(issuer: Issuer, public_key: Any, names: list[x509.GeneralName], **options: Any) -> x509.Certificate:
    """A certificate as asked for; ``options`` make it wrong."""
    now = dt.datetime.now(dt.UTC)
    start = options.get("start", now - dt.timedelta(hours=1))
    cn = options.get("cn", names[0].value if names and isinstance(names[0], x509.DNSName) else "")
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, cn)] if cn else []
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(issuer.certificate.subject)
        .public_key(public_key)
        .serial_number(options.get("serial") or x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(options.get("end", start + 90 * DAY))
        .add_extension(x509.BasicConstraints(ca=options.get("ca", False), path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if policy := options.get("policy", DV):
        told = x509.PolicyInformation(ObjectIdentifier(policy), None)
        builder = builder.add_extension(x509.CertificatePolicies([told]), critical=False)
    if purposes := options.get("purposes", [ExtendedKeyUsageOID.SERVER_AUTH]):
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return builder.sign(options.get("signer", issuer.key), options.get("hash", hashes.SHA256()))


@dataclass
class StrictAuthority:
    """What it knows, and how it behaves.

    ``lies`` go into each certificate (``issue``), ``wrong_key`` certifies another key; ``window`` is what it says of
    renewals; ``limits`` orders are refused with ``retry_after``; ``outages`` requests get 503; ``drops`` are paths
    whose next answer is cut after the work is done.
    """

    http_port: int
    root: Issuer = field(default_factory=lambda: make_issuer("Racine Essai"))
    lies: dict[str, Any] = field(default_factory=dict)
    lied_names: list[x509.GeneralName] | None = None
    wrong_key: bool = False
    no_chain: bool = False
    window: dict[str, str] | None = None
    window_retry: str = "21600"
    limits: int = 0
    retry_after: str = "7200"
    outages: int = 0
    drops: set[str] = field(default_factory=set)
    terms: str = ""
    externals: dict[str, bytes] | None = None
    slow: int = 0
    broken_order: dict[str, Any] = field(default_factory=dict)
    nonces: set[str] = field(default_factory=set)
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    orders: list[dict[str, Any]] = field(default_factory=list)
    certificates: list[x509.Certificate] = field(default_factory=list)
    revoked: dict[int, int] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    base: str = ""
    intermediate: Issuer = field(init=False)
    other_root: Issuer = field(init=False)

    def __post_init__(self) -> None:
        self.intermediate = make_issuer("Intermédiaire Essai", self.root)
        self.other_root = make_issuer("Racine Inconnue")

    @property
    def directory(self) -> str:
        return f"{self.base}/directory"

    def app(self) -> Starlette:
        routes = [
            Route("/directory", self.guarded(self.give_directory), methods=["GET"]),
            Route("/nonce", self.guarded(self.give_nonce), methods=["HEAD", "GET"]),
            Route("/account", self.guarded(self.new_account), methods=["POST"]),
            Route("/key-change", self.guarded(self.key_change), methods=["POST"]),
            Route("/order", self.guarded(self.new_order), methods=["POST"]),
            Route("/order/{number:int}", self.guarded(self.order), methods=["POST"]),
            Route("/order/{number:int}/finalize", self.guarded(self.finalize), methods=["POST"]),
            Route("/order/{number:int}/authorization", self.guarded(self.authorization), methods=["POST"]),
            Route("/order/{number:int}/challenge", self.guarded(self.challenge), methods=["POST"]),
            Route("/certificate/{number:int}", self.guarded(self.certificate), methods=["POST"]),
            Route("/revoke", self.guarded(self.revoke), methods=["POST"]),
            Route("/renewal/{identifier}", self.guarded(self.renewal), methods=["GET"]),
        ]
        return Starlette(routes=routes)

    def guarded(self, work: Any) -> Any:
        async def handle(request: Request) -> Response:
            path = request.url.path
            self.heard.append(f"{request.method} {path}")
            headers = {"Replay-Nonce": self.fresh(), "Cache-Control": "no-store"}
            if self.outages:
                self.outages -= 1
                return Response(status_code=503, headers=headers)
            try:
                response: Response = await work(request)
            except ProblemError as error:
                body = {"type": f"urn:ietf:params:acme:error:{error.kind}", "detail": error.detail or error.kind}
                told = {name.replace("_", "-"): value for name, value in error.headers.items()}
                return JSONResponse(body, error.status, {**headers, **told}, "application/problem+json")
            if path in self.drops:
                self.drops.discard(path)
                raise ConnectionAbortedError
            for name, value in headers.items():
                response.headers[name] = value
            return response

        return handle

    def fresh(self) -> str:
        nonce = secrets.token_urlsafe(16)
        self.nonces.add(nonce)
        return nonce

    async def give_directory(self, request: Request) -> Response:
        meta: dict[str, Any] = {}
        if self.terms:
            meta["termsOfService"] = self.terms
        if self.externals is not None:
            meta["externalAccountRequired"] = True
        found: dict[str, Any] = {
            "newNonce": f"{self.base}/nonce",
            "newAccount": f"{self.base}/account",
            "newOrder": f"{self.base}/order",
            "revokeCert": f"{self.base}/revoke",
            "keyChange": f"{self.base}/key-change",
            "meta": meta,
        }
        if self.window is not None:
            found["renewalInfo"] = f"{self.base}/renewal"
        return JSONResponse(found)

    async def give_nonce(self, request: Request) -> Response:
        return Response()

    async def signed(self, request: Request, *, by_key: bool = False) -> tuple[dict[str, Any], str, Any]:
        """The payload, the account's address (empty: signed by a key), the key. Judged as RFC 8555 6.2 asks."""
        if request.headers.get("content-type") != "application/jose+json":
            raise ProblemError("malformed", "content type", 415)
        if "drimbox" not in request.headers.get("user-agent", ""):
            raise ProblemError("malformed", "user agent")
        message = json.loads(await request.body())
        if set(message) != {"protected", "payload", "signature"}:
            raise ProblemError("malformed", "not flattened")
        protected = json.loads(unb64(message["protected"]))
        if protected.get("nonce") not in self.nonces:
            raise ProblemError("badNonce")
        self.nonces.discard(protected["nonce"])
        if protected.get("url") != self.base + request.url.path:
            raise ProblemError("unauthorized", "url", 403)
        if ("jwk" in protected) == ("kid" in protected):
            raise ProblemError("malformed", "jwk and kid")
        if "kid" in protected:
            account = self.accounts.get(protected["kid"])
            if account is None:
                raise ProblemError("accountDoesNotExist")
            jwk = account["jwk"]
        else:
            if not by_key:
                raise ProblemError("malformed", "kid expected")
            jwk = protected["jwk"]
        verify(message, protected["alg"], jwk)
        payload = unb64(message["payload"])
        return (json.loads(payload) if payload else {}), protected.get("kid", ""), jwk

    async def new_account(self, request: Request) -> Response:
        payload, _, jwk = await self.signed(request, by_key=True)
        known = next((url for url, kept in self.accounts.items() if kept["jwk"] == jwk), None)
        if known is None:
            if payload.get("onlyReturnExisting"):
                raise ProblemError("accountDoesNotExist")
            if self.terms and not payload.get("termsOfServiceAgreed"):
                raise ProblemError("userActionRequired", status=403)
            if self.externals is not None:
                self.judge_binding(payload.get("externalAccountBinding"), jwk)
            known = f"{self.base}/account/{len(self.accounts) + 1}"
            self.accounts[known] = {"jwk": jwk, "contact": payload.get("contact", [])}
            return JSONResponse({"status": "valid"}, 201, {"Location": known})
        return JSONResponse({"status": "valid"}, 200, {"Location": known})

    def judge_binding(self, binding: Any, jwk: Any) -> None:
        assert self.externals is not None
        if not isinstance(binding, dict):
            raise ProblemError("externalAccountRequired", status=403)
        protected = json.loads(unb64(binding["protected"]))
        secret = self.externals.get(protected["kid"])
        signing = f"{binding['protected']}.{binding['payload']}".encode()
        right = secret is not None and hmac.new(secret, signing, hashlib.sha256).digest() == unb64(binding["signature"])
        if not right or protected["alg"] != "HS256" or protected["url"] != f"{self.base}/account":
            raise ProblemError("unauthorized", "external account binding", 403)
        if json.loads(unb64(binding["payload"])) != jwk:
            raise ProblemError("malformed", "bound key")

    async def key_change(self, request: Request) -> Response:
        inner, account, old = await self.signed(request)
        protected = json.loads(unb64(inner["protected"]))
        verify(inner, protected["alg"], protected["jwk"])
        told = json.loads(unb64(inner["payload"]))
        if protected["url"] != f"{self.base}/key-change" or told != {"account": account, "oldKey": old}:
            raise ProblemError("malformed", "inner message")
        if "nonce" in protected:
            raise ProblemError("malformed", "inner nonce")
        self.accounts[account]["jwk"] = protected["jwk"]
        return JSONResponse({"status": "valid"})

    async def new_order(self, request: Request) -> Response:
        payload, account, jwk = await self.signed(request)
        if self.limits:
            self.limits -= 1
            raise ProblemError("rateLimited", "too many", 429, Retry_After=self.retry_after)
        if "replaces" in payload:
            if payload["replaces"] in self.replaced:
                raise ProblemError("alreadyReplaced", status=409)
            if payload["replaces"] not in [identifier_of(c) for c in self.certificates]:
                raise ProblemError("malformed", "replaces")
            self.replaced.append(payload["replaces"])
        order = {
            "account": account,
            "names": [i["value"] for i in payload["identifiers"]],
            "status": "pending",
            "token": secrets.token_urlsafe(24),
            "problem": None,
            "jwk": jwk,
        }
        self.orders.append(order)
        number = len(self.orders) - 1
        return JSONResponse(self.told(number), 201, {"Location": f"{self.base}/order/{number}"})

    def told(self, number: int) -> dict[str, Any]:
        order = self.orders[number]
        found = {
            "status": order["status"],
            "identifiers": [{"type": "dns", "value": name} for name in order["names"]],
            "authorizations": [f"{self.base}/order/{number}/authorization"],
            "finalize": f"{self.base}/order/{number}/finalize",
        }
        if "certificate" in order:
            found["certificate"] = f"{self.base}/certificate/{order['certificate']}"
        return {**found, **self.broken_order}

    async def own(self, request: Request) -> tuple[dict[str, Any], dict[str, Any], int]:
        payload, account, _ = await self.signed(request)
        number = request.path_params["number"]
        if self.orders[number]["account"] != account:
            raise ProblemError("unauthorized", "not your order", 403)
        return payload, self.orders[number], number

    async def order(self, request: Request) -> Response:
        _, order, number = await self.own(request)
        if order["status"] == "processing":
            if self.slow:
                self.slow -= 1
                return JSONResponse(self.told(number), headers={"Retry-After": "1"})
            order["status"] = "valid"
        return JSONResponse(self.told(number))

    async def authorization(self, request: Request) -> Response:
        _, order, number = await self.own(request)
        challenge = {
            "type": "http-01",
            "url": f"{self.base}/order/{number}/challenge",
            "status": "pending" if order["status"] == "pending" else "valid",
            "token": order["token"],
        }
        if order["problem"]:
            challenge |= {"status": "invalid", "error": order["problem"]}
        status = {"pending": "pending", "invalid": "invalid"}.get(order["status"], "valid")
        identifier = {"type": "dns", "value": order["names"][0]}
        return JSONResponse({"status": status, "identifier": identifier, "challenges": [challenge]})

    async def challenge(self, request: Request) -> Response:
        payload, order, _ = await self.own(request)
        assert payload == {}
        expected = f"{order['token']}.{thumbprint(order['jwk'])}"
        url = f"http://127.0.0.1:{self.http_port}/.well-known/acme-challenge/{order['token']}"
        try:
            headers = {"Host": order["names"][0]}
            async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
                body = await answer.text()
        except aiohttp.ClientError:
            body = ""
        if body.strip() == expected:
            order["status"] = "ready"
        else:
            kind = "urn:ietf:params:acme:error:" + ("unauthorized" if body else "connection")
            order["status"], order["problem"] = "invalid", {"type": kind, "detail": "no answer"}
        return JSONResponse({"status": "processing"})

    async def finalize(self, request: Request) -> Response:
        payload, order, number = await self.own(request)
        if order["status"] != "ready":
            raise ProblemError("orderNotReady", status=403)
        asked = x509.load_der_x509_csr(unb64(payload["csr"]))
        names = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if not asked.is_signature_valid or [n.value for n in names] != order["names"]:
            raise ProblemError("badCSR")
        key: Any = asked.public_key()
        if any(c.public_key() == key for c in self.certificates):
            raise ProblemError("badPublicKey", "reused")
        if self.wrong_key:
            key = ec.generate_private_key(ec.SECP256R1()).public_key()
        made = issue(self.intermediate, key, self.lied_names or list(names), **self.lies)
        self.certificates.append(made)
        order |= {"status": "processing" if self.slow else "valid", "certificate": len(self.certificates) - 1}
        return JSONResponse(self.told(number))

    async def certificate(self, request: Request) -> Response:
        await self.signed(request)
        chain = [self.certificates[request.path_params["number"]]]
        if not self.no_chain:
            chain.append(self.intermediate.certificate)
        pem = b"".join(c.public_bytes(Encoding.PEM) for c in chain)
        return Response(pem, media_type="application/pem-certificate-chain")

    async def revoke(self, request: Request) -> Response:
        payload, account, jwk = await self.signed(request, by_key=True)
        certificate = x509.load_der_x509_certificate(unb64(payload["certificate"]))
        if not account and jwk_of(certificate.public_key()) != jwk:
            raise ProblemError("unauthorized", "not its key", 403)
        if certificate.serial_number in self.revoked:
            raise ProblemError("alreadyRevoked")
        self.revoked[certificate.serial_number] = payload["reason"]
        return Response()

    async def renewal(self, request: Request) -> Response:
        identifier = request.path_params["identifier"]
        if identifier not in [identifier_of(c) for c in self.certificates]:
            raise ProblemError("malformed", "unknown certificate", 404)
        return JSONResponse({"suggestedWindow": self.window}, headers={"Retry-After": self.window_retry})


def identifier_of(certificate: x509.Certificate) -> str:
    """By RFC 9773 4.1, from the DER itself."""
    der = certificate.tbs_certificate_bytes
    key_id = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert key_id is not None
    # TBSCertificate: SEQUENCE, [0] version, INTEGER serial.
    place = 2 + (der[1] & 0x7F if der[1] & 0x80 else 0) + 5
    assert der[place] == 2
    return f"{b64(key_id)}.{b64(der[place + 2 : place + 2 + der[place + 1]])}"


def jwk_of(key: Any) -> dict[str, str]:
    if isinstance(key, ec.EllipticCurvePublicKey):
        size = (key.key_size + 7) // 8
        numbers = key.public_numbers()
        return {
            "crv": f"P-{key.key_size}",
            "kty": "EC",
            "x": b64(numbers.x.to_bytes(size, "big")),
            "y": b64(numbers.y.to_bytes(size, "big")),
        }
    n, e = key.public_numbers().n, key.public_numbers().e
    return {
        "e": b64(e.to_bytes((e.bit_length() + 7) // 8, "big")),
        "kty": "RSA",
        "n": b64(n.to_bytes((n.bit_length() + 7) // 8, "big")),
    }


def thumbprint(jwk: dict[str, str]) -> str:
    wanted = ("crv", "kty", "x", "y") if jwk["kty"] == "EC" else ("e", "kty", "n")
    return b64(hashlib.sha256(json.dumps({k: jwk[k] for k in wanted}, separators=(",", ":")).encode()).digest())


def verify(message: dict[str, str], algorithm: str, jwk: dict[str, str]) -> None:
    signing = f"{message['protected']}.{message['payload']}".encode()
    signature = unb64(message["signature"])
    try:
        if jwk["kty"] == "EC":
            curve, digest, name = {
                "P-256": (ec.SECP256R1(), hashes.SHA256(), "ES256"),
                "P-384": (ec.SECP384R1(), hashes.SHA384(), "ES384"),
            }[jwk["crv"]]
            assert algorithm == name
            x, y = (int.from_bytes(unb64(jwk[c]), "big") for c in ("x", "y"))
            half = len(signature) // 2
            r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
            key = ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
            key.verify(encode_dss_signature(r, s), signing, ec.ECDSA(digest))
        else:
            assert algorithm == "RS256"
            n, e = (int.from_bytes(unb64(jwk[c]), "big") for c in ("n", "e"))
            rsa.RSAPublicNumbers(e, n).public_key().verify(signature, signing, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise ProblemError("malformed", "signature") from None


@asynccontextmanager
async def running_authority(pki: TestAuthority, http_port: int, **options: Any) -> AsyncIterator[StrictAuthority]:
    """The authority at work, over TLS."""
    authority = StrictAuthority(http_port, **options)
    pair = pki.issue(
        Profile.SSL_SERV,
        "strict",
        common_name="localhost",
        unit="x",
        organisation="x",
        hosts=("localhost", "127.0.0.1"),
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.certificate, pair.key)
    async with serving(authority.app(), host="127.0.0.1", port=0, tls=tls) as port:
        authority.base = f"https://localhost:{port}"
        yield authority


__all__ = ["DV", "OV", "StrictAuthority", "issue", "make_issuer", "running_authority"]

"""A Pro Sante Connect in a few lines, whose every answer a test can bend."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from drimbox.foundation.clock import FixedClock
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import client_certificate, serving
from drimbox.national.psc.client import PscClient
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.trust.keystore import load_credential
from drimbox.trust.tls import client_context, load_trust, server_context

CLIENT_ID = "drimbox test"
SECRET = "s&cret: +é"
REALM = "/auth/realms/esante-wallet"
SUBJECT = "f:550dc1c8:899700218896"

RSA = RSAKey.generate_key(2048, {"kid": "rsa-1"})
OTHER_RSA = RSAKey.generate_key(2048, {"kid": "rsa-1"})
NEXT_RSA = RSAKey.generate_key(2048, {"kid": "rsa-2"})
EC = ECKey.generate_key("P-256", {"kid": "ec-1"})
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    WEAK_RSA = RSAKey.generate_key(1024, {"kid": "weak"})

Answer = Callable[[Request], Response] | dict[str, Any]


@dataclass
class Asked:
    """One request that arrived."""

    path: str
    headers: dict[str, str]
    form: dict[str, str]
    certificate: bytes | None


@dataclass
class PscDouble:
    """``answers`` by the last word of the path replace the usual ones."""

    clock: FixedClock
    base: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    keys: list[RSAKey | ECKey] = field(default_factory=lambda: [RSA, EC])
    nonce: str = "n" * 43

    @property
    def issuer(self) -> str:
        return self.base + REALM

    @property
    def discovery_url(self) -> str:
        return f"{self.issuer}/.well-known/wallet-openid-configuration"

    def discovery(self) -> dict[str, Any]:
        at = f"{self.issuer}/protocol/openid-connect"
        return {
            "issuer": self.issuer,
            "authorization_endpoint": "https://wallet.example/auth",
            "token_endpoint": f"{at}/token",
            "userinfo_endpoint": f"{at}/userinfo",
            "introspection_endpoint": f"{at}/introspect",
            "revocation_endpoint": f"{at}/revoke",
            "end_session_endpoint": f"{at}/logout",
            "jwks_uri": f"{at}/certs",
            "mtls_endpoint_aliases": {"token_endpoint": f"{at}/mtls/token"},
        }

    def seconds(self, later: float = 0) -> int:
        return int((self.clock.now() + dt.timedelta(seconds=later)).timestamp())

    def claims(self, **changes: Any) -> dict[str, Any]:
        content = {
            "iss": self.issuer,
            "sub": SUBJECT,
            "aud": CLIENT_ID,
            "azp": CLIENT_ID,
            "exp": self.seconds(120),
            "iat": self.seconds(),
            "auth_time": self.seconds(-5),
            "nonce": self.nonce,
            "acr": "eidas1",
            "sid": "session-1",
            "typ": "ID",
        } | changes
        return {name: value for name, value in content.items() if value is not ...}

    def signed(self, claims: dict[str, Any], key: Any = RSA, **header: Any) -> str:
        head = {"alg": "ES256" if isinstance(key, ECKey) else "RS256", "kid": key.kid} | header
        return jwt.encode({k: v for k, v in head.items() if v is not ...}, claims, key, algorithms=[head["alg"]])

    def token_answer(self, id_token: str | None = None, **changes: Any) -> dict[str, Any]:
        access = "access-token-1234567890"
        half = base64.urlsafe_b64encode(hashlib.sha256(access.encode()).digest()[:16]).rstrip(b"=").decode()
        return {
            "access_token": access,
            "expires_in": 120,
            "refresh_token": "refresh-token-1234567890",
            "refresh_expires_in": 1800,
            "token_type": "Bearer",
            "session_state": "session-1",
            "id_token": id_token if id_token is not None else self.signed(self.claims(at_hash=half)),
        } | changes

    def count(self, word: str) -> int:
        return sum(1 for asked in self.asked if asked.path.endswith(f"/{word}"))

    async def answer(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))
        self.asked.append(Asked(request.url.path, dict(request.headers), form, client_certificate(request)))
        word = request.url.path.rpartition("/")[2]
        usual: dict[str, Callable[[], Answer]] = {
            "wallet-openid-configuration": self.discovery,
            "certs": lambda: {"keys": [{**k.as_dict(private=False), "use": "sig"} for k in self.keys]},
            "token": self.token_answer,
            "userinfo": lambda: {"sub": SUBJECT, "SubjectNameID": "899700218896"},
            "introspect": lambda: {"active": False},
            "revoke": dict,
        }
        given = self.answers.get(word)
        chosen = given if given is not None else usual[word]()
        return JSONResponse(chosen) if isinstance(chosen, dict) else chosen(request)


def raw(body: bytes | str, status: int = 200, **headers: str) -> Answer:
    """An answer of these bytes."""
    return lambda _: Response(body, status_code=status, headers={k.replace("_", "-"): v for k, v in headers.items()})


def error(word: str, status: int = 400) -> Answer:
    """An OAuth error, with a description that must not be repeated."""
    return raw(json.dumps({"error": word, "error_description": "secret-detail 899700218896"}), status)


def unsigned(claims: dict[str, Any], **header: Any) -> str:
    """A token with ``alg: none``."""
    parts = ({"alg": "none", "typ": "JWT"} | header, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts) + "."


def signed_by_secret(claims: dict[str, Any]) -> str:
    """The classic confusion: HS256 with the public key as its secret."""
    head = unsigned(claims, kid="rsa-1", alg="HS256").rstrip(".")
    digest = hmac.new(RSA.as_pem(private=False), head.encode(), hashlib.sha256).digest()
    return f"{head}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


@asynccontextmanager
async def running(double: PscDouble, authority: TestAuthority) -> AsyncIterator[PscDouble]:
    """The double behind real TLS on loopback; it demands the certificate of a client when there is one to have."""
    server = authority.issue(
        Profile.SSL_SERV,
        "psc-double",
        common_name="localhost",
        unit="318751275100020",
        organisation="ANS",
        hosts=("localhost",),
    )
    app = Starlette(routes=[Route("/{path:path}", double.answer, methods=["GET", "POST"])])
    tls = server_context(
        load_credential(server.certificate, server.key), load_trust([authority.roots], authority.revocation_lists)
    )
    async with serving(app, host="127.0.0.1", port=0, tls=tls) as port:
        double.base = f"https://localhost:{port}"
        yield double


def make_client(double: PscDouble, http: HttpClient, authority: TestAuthority, secret: str | None) -> PscClient:
    pair = box(authority)
    tls = client_context(
        load_trust([authority.roots], authority.revocation_lists), load_credential(pair.certificate, pair.key)
    )
    return PscClient(http, tls, double.discovery_url, CLIENT_ID, secret, double.clock, timeout=5)


def box(authority: TestAuthority) -> PemPair:
    """The ORG AUTH_CLI of the box."""
    return authority.issue(
        Profile.ORG_AUTH_CLI, "psc-box", common_name=CLIENT_ID, unit="318751275100020", organisation="CENTRE"
    )

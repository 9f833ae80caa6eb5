"""Logging in: the address, the exchange, and every identity token that must not be believed."""

import asyncio
import base64
import datetime as dt
import hashlib
import logging
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from psc_double import (
    CLIENT_ID,
    EC,
    NEXT_RSA,
    OTHER_RSA,
    RSA,
    SECRET,
    SUBJECT,
    WEAK_RSA,
    PscDouble,
    box,
    error,
    make_client,
    raw,
    signed_by_secret,
    unsigned,
)

from drimbox.foundation.errors import Busy, DrimboxError, Misconfigured, Refused, Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.national.psc.client import PscClient, Tokens
from drimbox.sandbox.pki import TestAuthority

RETURN = "https://box.example/connexion/retour"
VERIFIER = "v" * 43


async def log_in(psc: PscDouble, client: PscClient) -> Tokens:
    return await client.exchange("the-code", RETURN, VERIFIER, psc.nonce)


@pytest.mark.requirement("DB.CO.63", "PSC.08")
async def test_the_address_of_the_login_page(client: PscClient) -> None:
    url = await client.authorization_url(RETURN, "the-state", "the-nonce", VERIFIER)
    assert url.startswith("https://wallet.example/auth?")
    challenge = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
    assert parse_qs(urlsplit(url).query) == {
        "response_type": ["code"],
        "client_id": [CLIENT_ID],
        "redirect_uri": [RETURN],
        "scope": ["openid scope_all"],
        "acr_values": ["eidas1"],
        "state": ["the-state"],
        "nonce": ["the-nonce"],
        "code_challenge": [challenge],
        "code_challenge_method": ["S256"],
    }


@pytest.mark.requirement("DB.CO.63")
async def test_an_exchange_with_a_secret(psc: PscDouble, client: PscClient) -> None:
    tokens = await log_in(psc, client)
    assert tokens.subject == SUBJECT
    assert tokens.session_id == "session-1"
    assert tokens.expires_at == psc.clock.now() + dt.timedelta(seconds=120)
    assert tokens.refresh_expires_at == psc.clock.now() + dt.timedelta(seconds=1800)
    assert tokens.authenticated_at == psc.clock.now() - dt.timedelta(seconds=5)
    [request] = [asked for asked in psc.asked if asked.path.endswith("/token")]
    assert request.form == {
        "grant_type": "authorization_code",
        "code": "the-code",
        "redirect_uri": RETURN,
        "code_verifier": VERIFIER,
    }
    scheme, _, pair = request.headers["authorization"].partition(" ")
    assert (scheme, base64.b64decode(pair)) == ("Basic", b"drimbox+test:s%26cret%3A+%2B%C3%A9")


@pytest.mark.requirement("DB.CO.91", "D17")
async def test_an_exchange_with_a_certificate(psc: PscDouble, tls_client: PscClient, authority: TestAuthority) -> None:
    await log_in(psc, tls_client)
    [request] = [asked for asked in psc.asked if asked.path.endswith("/token")]
    assert request.path.endswith("/mtls/token")
    assert request.form["client_id"] == CLIENT_ID
    assert "authorization" not in request.headers
    ours = x509.load_pem_x509_certificate(box(authority).certificate.read_bytes())
    assert request.certificate == ours.public_bytes(Encoding.DER)


GOOD: list[tuple[dict[str, Any], Any, dict[str, Any]]] = [
    ({}, RSA, {"alg": "PS256"}),
    ({}, EC, {}),
    ({"acr": ...}, RSA, {}),
    ({"acr": "eidas2"}, RSA, {}),
    ({"azp": ...}, RSA, {}),
    ({"aud": [CLIENT_ID, "account"]}, RSA, {}),
    ({"auth_time": ...}, RSA, {"typ": "x+jwt"}),
    ({"exp": 4_000_000_000.5}, RSA, {}),
]


async def test_identity_tokens_that_are_good(psc: PscDouble, client: PscClient, subtests: pytest.Subtests) -> None:
    for changes, key, header in GOOD:
        with subtests.test(changes=changes, header=header):
            psc.answers["token"] = psc.token_answer(psc.signed(psc.claims(**changes), key, **header))
            assert (await log_in(psc, client)).subject == SUBJECT


FALSE_CLAIMS: list[dict[str, Any]] = [
    {"iss": "https://evil.example"},
    {"iss": ...},
    {"aud": "another"},
    {"aud": ...},
    {"aud": ["another"]},
    {"aud": [CLIENT_ID, "another"], "azp": ...},
    {"azp": "another"},
    {"exp": 1_000_000_000},
    {"exp": ...},
    {"exp": "soon"},
    {"exp": True},
    {"iat": 1_000_000_000},
    {"iat": 4_000_000_000},
    {"iat": ...},
    {"iat": float("1e300")},
    {"nonce": "m" * 43},
    {"nonce": ...},
    {"nonce": ["n" * 43]},
    {"acr": "eidas0"},
    {"acr": None},
    {"acr": ["eidas1"]},
    {"sub": ...},
    {"sub": 7},
    {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
]


@pytest.mark.requirement("DB.CO.63")
async def test_identity_tokens_whose_claims_do_not_hold(
    psc: PscDouble, client: PscClient, subtests: pytest.Subtests
) -> None:
    for changes in FALSE_CLAIMS:
        with subtests.test(changes=changes):
            psc.answers["token"] = psc.token_answer(psc.signed(psc.claims(**changes)))
            await expect_refusal(psc, client)


@pytest.mark.requirement("DB.CO.63")
async def test_identity_tokens_that_psc_did_not_sign(psc: PscDouble, client: PscClient) -> None:
    claims = psc.claims()
    good = psc.signed(claims)
    head, body, signature = good.split(".")
    for token in (
        "",
        "a.b.c",
        "a.b",
        good + ".x",
        f"{head}.{body}.",
        f"{head}.{body}.{signature[:-4]}AAAA",
        f"{psc.signed(psc.claims(sub='x')).rpartition('.')[0]}.{signature}",
        unsigned(claims),
        unsigned(claims, kid="rsa-1"),
        unsigned(claims, kid="rsa-1", alg="RS256"),
        signed_by_secret(claims),
        psc.signed(claims, OTHER_RSA),
        psc.signed(claims, NEXT_RSA),
        psc.signed(claims, RSA, kid=...),
        psc.signed(claims, RSA, kid="ec-1"),
        psc.signed(claims, RSA, alg="RS512"),
        psc.signed(claims | {"pad": "x" * 70_000}),
        good.replace("e", "é", 1),
    ):
        psc.answers["token"] = psc.token_answer(token)
        await expect_refusal(psc, client)


async def expect_refusal(psc: PscDouble, client: PscClient) -> None:
    with pytest.raises(Refused) as refused:
        await log_in(psc, client)
    assert refused.value.code == "psc-jwt"
    assert refused.value.reason.startswith("Jeton de Pro Santé Connect refusé : ")


async def test_a_weak_or_foreign_key_is_no_key(psc: PscDouble, client: PscClient) -> None:
    psc.keys = [WEAK_RSA]
    psc.answers["token"] = psc.token_answer(psc.signed(psc.claims(), WEAK_RSA))
    await expect_refusal(psc, client)
    psc.clock.advance(31)
    for keys in ([], "none", [1], [{"kty": "oct", "k": "c2VjcmV0", "kid": "rsa-1"}], [{"kty": "RSA", "kid": "rsa-1"}]):
        psc.answers["certs"] = {"keys": keys}
        psc.answers["token"] = psc.token_answer()
        await expect_refusal(psc, client)
        psc.clock.advance(31)


async def test_a_new_key_is_fetched_but_not_for_every_stranger(psc: PscDouble, client: PscClient) -> None:
    await log_in(psc, client)
    psc.keys = [RSA, NEXT_RSA]
    psc.answers["token"] = psc.token_answer(psc.signed(psc.claims(), NEXT_RSA))
    for _ in range(3):
        await expect_refusal(psc, client)
    assert psc.count("certs") == 1
    psc.clock.advance(30)
    psc.answers["token"] = psc.token_answer(psc.signed(psc.claims(), NEXT_RSA))
    await log_in(psc, client)
    assert psc.count("certs") == 2


async def test_the_document_is_fetched_once_an_hour_and_once_for_all(psc: PscDouble, client: PscClient) -> None:
    await asyncio.gather(*(client.authorization_url(RETURN, "s", "n", VERIFIER) for _ in range(20)))
    assert psc.count("wallet-openid-configuration") == 1
    psc.clock.advance(3599)
    await client.authorization_url(RETURN, "s", "n", VERIFIER)
    assert psc.count("wallet-openid-configuration") == 1
    psc.clock.advance(1)
    await client.authorization_url(RETURN, "s", "n", VERIFIER)
    assert psc.count("wallet-openid-configuration") == 2


ASTRAY: list[dict[str, Any]] = [
    {"issuer": "https://evil.example/auth/realms/esante-wallet"},
    {"issuer": ""},
    {"issuer": None},
    {"token_endpoint": "http://localhost/token"},
    {"token_endpoint": "javascript:alert(1)"},
    {"token_endpoint": "https://"},
    {"authorization_endpoint": "https://user@wallet.example/auth"},
    {"jwks_uri": None},
    {"introspection_endpoint": "http://localhost/introspect"},
]


async def test_a_document_that_sends_tokens_astray(
    psc: PscDouble, client: PscClient, subtests: pytest.Subtests
) -> None:
    for changes in ASTRAY:
        psc.answers["wallet-openid-configuration"] = psc.discovery() | changes
        with subtests.test(changes=changes):
            with pytest.raises(Misconfigured) as wrong:
                await log_in(psc, client)
            assert wrong.value.code == "psc-discovery"
    assert psc.count("token") == 0


ANSWERS: list[tuple[Any, type[DrimboxError], str, str | None]] = [
    (error("invalid_grant"), Rejected, "psc-token", "invalid_grant"),
    (error("invalid_client", 401), Misconfigured, "psc-client", "invalid_client"),
    (error("unauthorized_client"), Misconfigured, "psc-client", "unauthorized_client"),
    (error("<script>alert(1)</script>"), Rejected, "psc-token", "http-400"),
    (error("temporarily_unavailable", 503), Busy, "psc-unavailable", "temporarily_unavailable"),
    (raw(b"", 500), Unavailable, "psc-unavailable", "http-500"),
    (raw(b"<html>", 502), Unavailable, "psc-unavailable", "http-502"),
    (raw(b"", 302, location="https://evil.example"), Unavailable, "psc-unavailable", "http-302"),
    (raw(b"", 404), Unavailable, "psc-unavailable", "http-404"),
    (raw(b"<html>proxy</html>"), Unavailable, "psc-unavailable", None),
    (raw(b"[]"), Unavailable, "psc-unavailable", None),
    (raw(b"[" * 100_000), Unavailable, "psc-unavailable", None),
    (raw(b"{}"), Unavailable, "psc-unavailable", None),
    (raw(b'{"access_token": "x", "token_type": "mac"}'), Unavailable, "psc-unavailable", None),
    (raw(b"x" * 600_000), Rejected, "answer-size", None),
]


async def test_what_psc_says_instead_of_tokens(psc: PscDouble, client: PscClient, subtests: pytest.Subtests) -> None:
    for number, (answer, kind, code, peer) in enumerate(ANSWERS):
        psc.answers["token"] = answer
        with subtests.test(number=number, code=code, peer=peer):
            with pytest.raises(kind) as failed:
                await log_in(psc, client)
            assert (failed.value.code, failed.value.peer_code) == (code, peer)
            assert "secret-detail" not in str(failed.value)


async def test_busy_says_when_to_come_back(psc: PscDouble, client: PscClient) -> None:
    psc.answers["token"] = raw(b"", 503, retry_after="7")
    with pytest.raises(Busy) as busy:
        await log_in(psc, client)
    assert busy.value.retry_after == 7


async def test_psc_out_of_reach(psc: PscDouble, http: HttpClient, authority: TestAuthority) -> None:
    psc.base = "https://localhost:9"
    with pytest.raises(Unavailable):
        await log_in(psc, make_client(psc, http, authority, SECRET))


async def test_an_answer_cut_short_is_an_outage(psc: PscDouble, client: PscClient) -> None:
    psc.answers["token"] = raw(b"{", content_length="500")
    with pytest.raises(Unavailable):
        await log_in(psc, client)


@pytest.mark.requirement("DB.CO.65")
async def test_a_login_is_prolonged(psc: PscDouble, client: PscClient) -> None:
    tokens = await log_in(psc, client)
    psc.clock.advance(100)
    answer = psc.token_answer(psc.signed(psc.claims(nonce=..., auth_time=...)), access_token="access-token-2")
    psc.answers["token"] = answer
    fresh = await client.refresh(tokens)
    assert fresh.access_token == "access-token-2"
    assert fresh.authenticated_at == tokens.authenticated_at
    assert fresh.expires_at == psc.clock.now() + dt.timedelta(seconds=120)
    assert psc.asked[-1].form == {"grant_type": "refresh_token", "refresh_token": "refresh-token-1234567890"}

    bare = {"access_token": "access-token-3", "token_type": "bearer"}
    psc.answers["token"] = bare
    kept = await client.refresh(fresh)
    assert (kept.access_token, kept.refresh_token, kept.id_token) == (
        "access-token-3",
        fresh.refresh_token,
        fresh.id_token,
    )
    assert kept.refresh_expires_at == fresh.refresh_expires_at
    assert kept.expires_at == psc.clock.now() + dt.timedelta(minutes=2)


@pytest.mark.requirement("DB.CO.65")
async def test_a_login_is_not_prolonged_for_somebody_else(psc: PscDouble, client: PscClient) -> None:
    tokens = await log_in(psc, client)
    for changes in ({"sub": "f:550dc1c8:1"}, {"sid": "session-2"}, {"aud": "another", "azp": ...}):
        psc.answers["token"] = psc.token_answer(psc.signed(psc.claims(nonce=..., **changes)))
        with pytest.raises(Refused):
            await client.refresh(tokens)
    psc.answers["token"] = error("invalid_grant")
    with pytest.raises(Rejected) as over:
        await client.refresh(tokens)
    assert over.value.code == "psc-token"
    psc.answers["token"] = {"access_token": "access-token-4", "token_type": "bearer"}
    without = Tokens("a", "", "i", tokens.expires_at, None, SUBJECT, "", tokens.authenticated_at)
    with pytest.raises(Rejected):
        await client.refresh(without)


@pytest.mark.requirement("PSC.01")
async def test_logging_out_and_revoking(psc: PscDouble, client: PscClient) -> None:
    tokens = await log_in(psc, client)
    url = await client.logout_url(tokens.id_token, "https://box.example/au-revoir", "st")
    assert url.startswith(f"{psc.issuer}/protocol/openid-connect/logout?")
    assert parse_qs(urlsplit(url).query) == {
        "id_token_hint": [tokens.id_token],
        "post_logout_redirect_uri": ["https://box.example/au-revoir"],
        "client_id": [CLIENT_ID],
        "state": ["st"],
    }
    await client.revoke(tokens.refresh_token)
    assert psc.asked[-1].form == {"token": tokens.refresh_token}
    psc.answers["wallet-openid-configuration"] = psc.discovery() | {"revocation_endpoint": None}
    psc.clock.advance(3600)
    with pytest.raises(Misconfigured):
        await client.revoke(tokens.refresh_token)


LOGOUT = {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}, "jti": "j", "nonce": ..., "azp": ...}


async def test_psc_says_that_a_session_is_over(psc: PscDouble, client: PscClient) -> None:
    notice = await client.logout_notice(psc.signed(psc.claims(**LOGOUT), typ="logout+jwt"))
    assert (notice.subject, notice.session_id) == (SUBJECT, "session-1")
    only = await client.logout_notice(psc.signed(psc.claims(**LOGOUT, sub=...)))
    assert (only.subject, only.session_id) == ("", "session-1")


NO_NOTICE: list[dict[str, Any]] = [
    {"events": ...},
    {"events": {}},
    {"events": {"http://schemas.openid.net/event/backchannel-logout": True}},
    {"events": ["http://schemas.openid.net/event/backchannel-logout"]},
    {"nonce": "n" * 43},
    {"jti": ...},
    {"sub": ..., "sid": ...},
    {"aud": "another"},
    {"iss": "https://evil.example"},
    {"iat": 1_000_000_000},
    {"exp": 1_000_000_000},
]


async def test_notices_that_log_nobody_out(psc: PscDouble, client: PscClient, subtests: pytest.Subtests) -> None:
    for changes in NO_NOTICE:
        with subtests.test(changes=changes):
            with pytest.raises(Refused) as refused:
                await client.logout_notice(psc.signed(psc.claims(**(LOGOUT | changes))))
            assert refused.value.code == "psc-jwt"


@pytest.mark.requirement("DB.CO.63")
async def test_no_token_shows_in_logs_or_texts(
    psc: PscDouble, client: PscClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = await log_in(psc, client)
    await client.userinfo(tokens.access_token, subject=SUBJECT)
    await client.introspect(tokens.access_token)
    await client.refresh(tokens)
    psc.answers["token"] = psc.token_answer(tokens.id_token[:-3] + "AAA")
    with pytest.raises(Refused) as refused:
        await log_in(psc, client)
    everything = caplog.text + repr(tokens) + str(refused.value) + repr(refused.value.__cause__) + repr(client)
    for secret in (tokens.access_token, tokens.refresh_token, tokens.id_token, "the-code", VERIFIER, SECRET):
        assert secret not in everything

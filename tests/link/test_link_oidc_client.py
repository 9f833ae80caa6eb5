"""The client of an identity provider against the strict one of the sandbox: every proof, every envelope."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from citizen_world import ORIGIN, PROVIDER, Federated, federated, query_of
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from drimbox.foundation.clock import FixedClock
from drimbox.foundation.errors import Misconfigured, Refused, Rejected, Unavailable
from drimbox.link.vouched import CALLBACK_PATH, GOODBYE_PATH
from drimbox.national.oidc.client import Vouched
from drimbox.national.oidc.person import Claims, read_person
from drimbox.national.oidc.sealed import opened
from drimbox.national.oidc.service import Proof, key_of
from drimbox.national.psc.jwt import BadToken
from publication.publication_examples import NOW

pytestmark = pytest.mark.requirement("D19")
BACK = f"{ORIGIN}{CALLBACK_PATH}"
_KEY = ec.generate_private_key(ec.SECP256R1())
_ANY = st.none() | st.booleans() | st.integers() | st.text(max_size=40) | st.lists(st.text(max_size=3), max_size=3)
STATE, NONCE, VERIFIER = "s" * 43, "n" * 43, "v" * 43


async def login(fed: Federated, nonce: str = NONCE, verifier: str = VERIFIER) -> Vouched:
    address = await fed.client.authorization_url(BACK, STATE, NONCE, VERIFIER)
    fields = query_of(await fed.logged_in(address))
    assert fields["state"] == STATE
    await fed.client.check_issuer(fields.get("iss"))
    return await fed.client.identify(fields["code"], BACK, verifier, nonce)


@pytest.mark.parametrize("proof", [Proof.SECRET_POST, Proof.SECRET_BASIC, Proof.PRIVATE_KEY])
@pytest.mark.parametrize("sealed", ["", "RSA", "EC"])
async def test_each_proof_and_each_envelope(proof: Proof, sealed: str) -> None:
    fed = federated(FixedClock(NOW), proof=proof, sealed=sealed)
    found = await login(fed)
    assert (found.person.family, found.person.given_names) == ("PAT-TROIS", ("Dominique",))
    assert found.person.birth_date == dt.date(1979, 3, 28)
    assert found.id_token.count(".") == 2, "what ends the session is the signed token, whatever it came in"
    to = await fed.client.logout_url(found.id_token, f"{ORIGIN}{GOODBYE_PATH}", STATE)
    async with fed.browser() as browser:
        assert (await browser.get(to)).status_code == 303
    assert "PAT-TROIS" not in repr(found) + repr(found.person)
    private = json.dumps(fed.client.public_keys())
    assert not {'"d"', '"p"', '"q"', "secret"} & set(private.split())


async def test_a_higher_level_than_asked_for_is_welcome_and_a_lower_one_is_not() -> None:
    fed = federated(FixedClock(NOW), acr="eidas3")
    assert (await login(fed)).person.family
    fed.citizens.fault = "low-acr"
    with pytest.raises(Refused, match="niveau d'authentification"):
        await login(fed)


async def test_a_nonce_or_a_verifier_of_another_login_is_refused() -> None:
    fed = federated(FixedClock(NOW))
    with pytest.raises(Refused) as refused:
        await login(fed, nonce="o" * 43)
    assert refused.value.code == "oidc-token"
    with pytest.raises(Rejected) as rejected:
        await login(fed, verifier="w" * 43)
    assert rejected.value.code == "oidc-refused"


async def test_what_goes_wrong_is_told_as_the_provider_s_own() -> None:
    fed = federated(FixedClock(NOW))
    address = await fed.client.authorization_url(BACK, STATE, NONCE, VERIFIER)
    code = query_of(await fed.logged_in(address))["code"]
    fed.citizens.services = {}
    with pytest.raises(Misconfigured) as wrong:
        await fed.client.identify(code, BACK, VERIFIER, NONCE)
    assert wrong.value.code == "oidc-registration"
    assert "[link.oidc]" in wrong.value.reason
    away = federated(FixedClock(NOW))

    async def nothing(*_: Any, **__: Any) -> Any:
        raise Unavailable("refusé", code="connect")

    away.http.send = nothing  # type: ignore[method-assign]
    with pytest.raises(Unavailable) as silent:
        await away.client.authorization_url(BACK, STATE, NONCE, VERIFIER)
    assert silent.value.code == "oidc-unavailable"
    assert "Pro Santé" not in silent.value.reason + wrong.value.reason


async def test_a_discovery_document_of_another_issuer_is_not_believed() -> None:
    fed = federated(FixedClock(NOW))
    fed.citizens.base_url = "https://evil.test"
    with pytest.raises(Misconfigured):
        await fed.client.authorization_url(BACK, STATE, NONCE, VERIFIER)


async def test_the_provider_is_told_nothing_but_what_it_needs() -> None:
    fed = federated(FixedClock(NOW))
    asked = query_of(await fed.client.authorization_url(BACK, STATE, NONCE, VERIFIER))
    assert set(asked) == {
        "response_type",
        "client_id",
        "redirect_uri",
        "scope",
        "acr_values",
        "prompt",
        "state",
        "nonce",
        "code_challenge",
        "code_challenge_method",
    }
    assert VERIFIER not in str(asked)
    bare = federated(FixedClock(NOW), pkce=False)
    assert "code_challenge" not in query_of(await bare.client.authorization_url(BACK, STATE, NONCE, VERIFIER))
    assert all(url.startswith(PROVIDER) for _, url in fed.http.sent)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
def test_any_token_is_a_refusal(token: str) -> None:
    key = key_of(_KEY, "test")
    with pytest.raises(BadToken):
        opened(token, key)


@given(st.dictionaries(st.sampled_from(["family_name", "given_name", "birthdate", "gender", "birthplace"]), _ANY))
def test_any_claims_are_a_person_or_nobody(content: dict[str, Any]) -> None:
    person = read_person(content, Claims())
    assert person.birth_place == "" or len(person.birth_place) == 5
    with pytest.raises(Refused):
        read_person({"family_name": "x" * 300}, Claims())


def test_weak_keys_are_not_taken() -> None:
    for weak in (rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP384R1()), object()):
        with pytest.raises(Misconfigured) as refused:
            key_of(weak, "link.oidc.encryption_key")
        assert refused.value.code == "oidc-key"

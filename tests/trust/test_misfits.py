"""Every kind of wrong certificate: ours is named with its remedy, a peer's is refused in the handshake."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from test_tls_contexts import shake_hands

from drimbox.foundation.errors import Misconfigured
from drimbox.sandbox.misfits import Misfits, Wrong
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.trust.chain import TrustStore
from drimbox.trust.fitness import Demand, Unfit, breaches_of, fitting, range_of
from drimbox.trust.keystore import load_credential, read_pem_pair
from drimbox.trust.profiles import Profile as Place
from drimbox.trust.tls import client_context, load_trust, server_context

UNIT, HOST = "1750803447", "db1.111.mesimagesmedicales.fr"
PLACES = {Profile.ORG_AUTH_CLI: Place.AUTH, Profile.ORG_SIGN: Place.SIGN, Profile.SSL_SERV: Place.SERVER}
# What each one is called where it is ours. A name is a matter of servers, an OU of structures.
CODES = {
    Wrong.EXPIRED: {"expired"},
    Wrong.NOT_YET: {"not-yet"},
    Wrong.REVOKED: {"revoked"},
    Wrong.PURPOSE: {"purpose"},
    Wrong.UNIT: {"unit"},
    Wrong.WILDCARD: {"wildcard", "name"},
    Wrong.TWO_NAMES: {"several"},
    Wrong.SHA1: {"digest"},
    Wrong.WEAK_KEY: {"key-size"},
    Wrong.OTHER_RANGE: {"range", "chain"},
    Wrong.BROKEN_CHAIN: {"chain"},
}
NAMES = {Wrong.WILDCARD, Wrong.TWO_NAMES}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Misfits:
    """A PKI that calls itself of the production range; the other one is the usual test PKI."""
    production = TestAuthority(tmp_path_factory.mktemp("production"), production=True)
    return Misfits(production, TestAuthority(tmp_path_factory.mktemp("test-range")), UNIT, HOST)


@pytest.fixture(scope="module")
def pairs(world: Misfits) -> Callable[[Profile, Wrong | None], PemPair]:
    made: dict[tuple[Profile, Wrong | None], PemPair] = {}

    def get(profile: Profile, wrong: Wrong | None) -> PemPair:
        if (profile, wrong) not in made:
            made[profile, wrong] = world.make(profile, wrong)
        return made[profile, wrong]

    return get


def believed(world: Misfits) -> TrustStore:
    return load_trust([world.authority.roots], world.authority.revocation_lists)


def demand(world: Misfits, profile: Profile) -> Demand:
    server = profile is Profile.SSL_SERV
    return Demand(
        PLACES[profile],
        () if server else (UNIT,),
        "production",
        believed(world),
        host=HOST if server else "",
        wildcard=not server,
    )


CASES = [
    (profile, wrong)
    for profile in PLACES
    for wrong in Wrong
    if wrong not in NAMES or profile is Profile.SSL_SERV
    if wrong is not Wrong.UNIT or profile is not Profile.SSL_SERV
]


@pytest.mark.requirement("DB.SO.89", "DB.SO.98", "DB.SO.99")
@pytest.mark.parametrize(("profile", "wrong"), CASES)
def test_each_wrong_one_of_ours_is_named_with_its_remedy(
    world: Misfits, pairs: Callable[[Profile, Wrong | None], PemPair], profile: Profile, wrong: Wrong
) -> None:
    pair, now = pairs(profile, wrong), dt.datetime.now(dt.UTC)
    if wrong in (Wrong.WEAK_KEY, Wrong.OTHER_KEY):
        with pytest.raises(Misconfigured) as refused:
            read_pem_pair(pair.certificate, pair.key)
        assert pair.key.name in refused.value.reason
        assert "trop faible" in refused.value.reason or "n'est pas celle du certificat" in refused.value.reason
        return
    loaded = read_pem_pair(pair.certificate, pair.key)
    found = breaches_of(loaded, demand(world, profile), now)
    assert {breach.code for breach in found} == CODES[wrong]
    assert all(breach.problem and breach.remedy.endswith(".") for breach in found)
    with pytest.raises(Unfit) as caught:
        fitting(loaded, demand(world, profile), now)
    assert caught.value.breaches == found


@pytest.mark.parametrize("profile", PLACES)
def test_a_right_one_passes_everywhere(
    world: Misfits, pairs: Callable[[Profile, Wrong | None], PemPair], profile: Profile, tmp_path: Path
) -> None:
    pair, now = pairs(profile, None), dt.datetime.now(dt.UTC)
    assert breaches_of(read_pem_pair(pair.certificate, pair.key), demand(world, profile), now) == ()
    # Without its intermediate, which is pinned: completed, so that peers are given it.
    alone = tmp_path / "alone.pem"
    alone.write_bytes(
        pair.certificate.read_bytes().partition(b"-----END CERTIFICATE-----\n")[0] + b"-----END CERTIFICATE-----\n"
    )
    bare = read_pem_pair(alone, pair.key)
    assert bare.chain == ()
    whole = fitting(bare, demand(world, profile), now)
    assert [c.subject for c in whole.chain] == [bare.certificate.issuer]


def test_ranges_are_told_by_the_authority(world: Misfits) -> None:
    for authority, name in ((world.authority, "production"), (world.other, "test")):
        assert range_of(load_trust([authority.roots]).roots) == name
    with pytest.raises(Misconfigured):
        load_trust([world.authority.roots, world.other.roots])


# --- a peer's, in the handshake ---------------------------------------------------------------------------------------


def stranger(pair: PemPair, world: Misfits, *, server: bool) -> ssl.SSLContext:
    """A peer that takes any pair of its own: it holds itself to nothing that we hold ourselves to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.load_cert_chain(pair.certificate, pair.key)
    context.load_verify_locations(world.authority.roots)
    if server:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


# That a name is the only one, and without a star, binds whoever orders the certificate; a peer's OU and range are the
# business of the whitelist and of the roots.
ACCEPTED = {Wrong.UNIT, Wrong.TWO_NAMES, Wrong.WILDCARD}


@pytest.mark.requirement("DB.SO.98")
@pytest.mark.parametrize("wrong", [w for w in Wrong if w not in NAMES and w is not Wrong.OTHER_KEY])
def test_a_listener_lets_no_wrong_client_in(
    world: Misfits, pairs: Callable[[Profile, Wrong | None], PemPair], wrong: Wrong
) -> None:
    own, theirs = pairs(Profile.SSL_SERV, None), pairs(Profile.ORG_AUTH_CLI, wrong)
    listener = server_context(load_credential(own.certificate, own.key), believed(world))
    client = stranger(theirs, world, server=False)
    if wrong in ACCEPTED:
        shake_hands(listener, client, HOST)
    else:
        with pytest.raises(ssl.SSLError):
            shake_hands(listener, client, HOST)


@pytest.mark.requirement("DB.CO.98")
@pytest.mark.parametrize("wrong", [w for w in Wrong if w is not Wrong.OTHER_KEY])
def test_a_client_believes_no_wrong_listener(
    world: Misfits, pairs: Callable[[Profile, Wrong | None], PemPair], wrong: Wrong
) -> None:
    own, theirs = pairs(Profile.ORG_AUTH_CLI, None), pairs(Profile.SSL_SERV, wrong)
    client = client_context(believed(world), load_credential(own.certificate, own.key))
    listener = stranger(theirs, world, server=True)
    if wrong in ACCEPTED:
        shake_hands(listener, client, HOST)
    else:
        with pytest.raises(ssl.SSLError):
            shake_hands(listener, client, HOST)

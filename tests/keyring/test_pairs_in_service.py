"""Which pair is in service: the newest that fits; one that does not is refused, and the one in service stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import NoEncryption, pkcs12
from keyring_world import OPERATOR, PASSWORD, World, as_pkcs12, brought, encrypted_key, loaded

from drimbox.foundation.errors import Misconfigured
from drimbox.keyring.acts import PairRefused, pair_of
from drimbox.keyring.keeper import Keyring
from drimbox.keyring.places import Place
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.store.database import Pool
from drimbox.trust.fitness import Demand, Unfit
from drimbox.trust.keystore import Credential
from drimbox.trust.pairs import PairSource
from drimbox.trust.token import Tokens
from drimbox.trust.vault import Vault


def serial(ring: Keyring, world: World) -> int:
    return ring.pair(world.name).certificate.serial_number


def settle(ring: Keyring) -> None:
    """Two looks: what changed is read once it has stopped changing."""
    ring.look()
    ring.look()


@pytest.mark.requirement("DB.SO.89")
@pytest.mark.parametrize("form", ["PEM", "encrypted PEM", "PKCS#12", "PKCS#12 without password"])
def test_each_form_of_file_is_read(pki: TestAuthority, tmp_path: Path, form: str) -> None:
    pair = brought(pki)
    secret = tmp_path / "secret"
    secret.write_bytes(PASSWORD + b"\n")
    held = tmp_path / "held"
    if form == "PEM":
        source = PairSource(pair.certificate, pair.key)
    elif form == "encrypted PEM":
        held.write_bytes(encrypted_key(pair))
        source = PairSource(pair.certificate, held, password_file=secret)
    elif form == "PKCS#12":
        held.write_bytes(as_pkcs12(pair))
        source = PairSource(pkcs12=held, password_file=secret)
    else:
        one = loaded(pair)
        held.write_bytes(
            pkcs12.serialize_key_and_certificates(None, one.key, one.certificate, one.chain, NoEncryption())
        )
        source = PairSource(pkcs12=held)
    read = source.read(Tokens())
    assert read.certificate == loaded(pair).certificate
    assert read.chain == loaded(pair).chain
    assert read.key.private_numbers() == loaded(pair).key.private_numbers()


@pytest.mark.requirement("DB.CS.83")
def test_a_wrong_password_says_so_and_nothing_more(pki: TestAuthority, tmp_path: Path) -> None:
    held, secret = tmp_path / "pair.p12", tmp_path / "secret"
    held.write_bytes(as_pkcs12(brought(pki)))
    for password in (b"autre secret", b""):
        secret.write_bytes(password)
        with pytest.raises(Misconfigured) as caught:
            PairSource(pkcs12=held, password_file=secret).read(Tokens())
        assert "mot de passe" in caught.value.reason
        assert caught.value.__cause__ is None
        assert "autre secret" not in str(caught.value)


def test_files_are_replaced_one_after_the_other(world: World, pki: TestAuthority) -> None:
    old, new = brought(pki, issued=30), brought(pki, issued=5)
    world.put(old)
    ring = world.ring()
    assert serial(ring, world) == loaded(old).certificate.serial_number
    ring.changes()
    # The certificate first: for an instant the two do not go together, which is nobody's mistake.
    (world.folder / "pair.pem").write_bytes(new.certificate.read_bytes())
    ring.look()
    (world.folder / "pair.key").write_bytes(new.key.read_bytes())
    settle(ring)
    assert serial(ring, world) == loaded(new).certificate.serial_number
    [change] = ring.changes()
    assert change.now.refused == ()


@pytest.mark.requirement("DB.SO.89")
@pytest.mark.parametrize("wrong", ["key", "unit", "expired", "purpose", "revoked", "junk", "gone"])
def test_a_pair_that_does_not_fit_is_refused_and_the_one_in_service_stays(
    world: World, pki: TestAuthority, wrong: str
) -> None:
    world.put(brought(pki))
    ring = world.ring()
    before = ring.pair(world.name)
    if wrong == "key":
        world.put(PemPair(brought(pki).certificate, brought(pki).key))
    elif wrong == "unit":
        world.put(brought(pki, unit="1990000001"))
    elif wrong == "expired":
        world.put(brought(pki, left=-1))
    elif wrong == "purpose":
        world.put(brought(pki, Profile.ORG_AUTH_CLI))
    elif wrong == "revoked":
        pair = brought(pki)
        pki.revoke(pair)
        world.put(pair)
    elif wrong == "junk":
        (world.folder / "pair.pem").write_text("rien")
    else:
        (world.folder / "pair.key").unlink()
    settle(ring)
    assert ring.pair(world.name) is before
    [refused] = ring.standing(world.name).refused
    assert refused.problem
    right = brought(pki, issued=1)
    world.put(right)
    settle(ring)
    assert serial(ring, world) == loaded(right).certificate.serial_number
    assert ring.standing(world.name).refused == ()


def test_a_pair_that_is_revoked_in_service_serves_no_more(world: World, pki: TestAuthority) -> None:
    pair = brought(pki)
    world.put(pair)
    ring = world.ring()
    pki.revoke(pair)
    world.put(pair)
    settle(ring)
    with pytest.raises(Misconfigured, match="révocation"):
        ring.pair(world.name)


def test_a_follower_may_refuse(world: World, pki: TestAuthority) -> None:
    world.put(brought(pki))
    ring, used = world.ring(), list[Credential]()
    good = True

    def ready(pair: Credential) -> Callable[[], None]:
        if not good:
            raise Misconfigured("refusé par OpenSSL", code="credential")
        return lambda: used.append(pair)

    ring.follow(world.name, ready)
    assert len(used) == 1
    good = False
    world.put(brought(pki, issued=3))
    settle(ring)
    assert len(used) == 1
    assert ring.pair(world.name) is used[0]
    assert "OpenSSL" in ring.standing(world.name).refused[0].problem
    # At the start, there is none to stay.
    late = world.ring()
    with pytest.raises(Misconfigured, match="OpenSSL"):
        late.follow(world.name, ready)
    with pytest.raises(Misconfigured, match=r"\[structures\.ambroise\.sign\] : refusé par OpenSSL"):
        late.pair(world.name)


@pytest.mark.requirement("DB.SO.89", "DB.CS.83")
async def test_an_installed_pair_takes_over_on_every_node_and_after_a_restart(
    world: World, pki: TestAuthority, pool: Pool
) -> None:
    world.put(brought(pki, issued=30))
    nodes = [world.acts(pool, world.ring()) for _ in range(2)]
    renewed = brought(pki, issued=2)
    said = await nodes[0].install(world.name, pair_of(as_pkcs12(renewed), None, PASSWORD), OPERATOR)
    assert "valable jusqu'au" in said
    await nodes[1].look()
    restarted = world.acts(pool, world.ring())
    await restarted.look()
    for node in (*nodes, restarted):
        assert serial(node.keyring, world) == loaded(renewed).certificate.serial_number
        assert node.keyring.standing(world.name).origin == "installed"
        # The key is the right one, unsealed.
        assert node.keyring.pair(world.name).key.private_numbers() == loaded(renewed).key.private_numbers()
    # Newer files take over in their turn, without anything to take out.
    newest = brought(pki, issued=1)
    world.put(newest)
    for node in nodes:
        await node.look()
        await node.look()
        assert serial(node.keyring, world) == loaded(newest).certificate.serial_number
    assert "fichiers" in await nodes[0].remove(world.name, OPERATOR)
    with pytest.raises(PairRefused):
        await nodes[0].remove(world.name, OPERATOR)


@pytest.mark.requirement("DB.CS.83")
async def test_what_is_kept_is_sealed_and_forgotten_when_taken_out(
    world: World, pki: TestAuthority, pool: Pool
) -> None:
    world.put(brought(pki))
    acts = world.acts(pool, world.ring())
    pair = loaded(brought(pki, issued=1))
    await acts.install(world.name, pair, OPERATOR)
    numbers = pair.key.private_numbers()
    async with pool.connection() as connection:
        row = await (await connection.execute("SELECT * FROM installed_pair")).fetchone()
    assert row is not None
    prime = numbers.p.to_bytes((numbers.p.bit_length() + 7) // 8, "big")  # type: ignore[union-attr]
    assert prime not in bytes(row["key"])
    assert b"PRIVATE" not in bytes(row["key"])
    # With another secret, or moved to another place, it opens nothing.
    other = world.acts(pool, world.ring(), secret=bytes(32))
    await other.look()
    assert other.keyring.standing(world.name).origin == "file"
    assert "secret" in other.keyring.standing(world.name).refused[0].problem
    await acts.remove(world.name, OPERATOR)
    async with pool.connection() as connection:
        row = await (await connection.execute("SELECT key FROM installed_pair")).fetchone()
    assert row is not None
    assert bytes(row["key"]) == b""


async def test_what_cannot_be_installed(world: World, pki: TestAuthority, pool: Pool) -> None:
    world.put(brought(pki, issued=10))
    acts = world.acts(pool, world.ring())
    with pytest.raises(Unfit) as caught:
        await acts.install(world.name, loaded(brought(pki, Profile.ORG_AUTH_CLI, unit="1990000001")), OPERATOR)
    assert {breach.code for breach in caught.value.breaches} == {"purpose", "unit"}
    with pytest.raises(PairRefused, match="émise plus tard"):
        await acts.install(world.name, loaded(brought(pki, issued=20)), OPERATOR)
    with pytest.raises(PairRefused, match=r"structures\.ambroise\.sign"):
        await acts.install("ailleurs", loaded(brought(pki)), OPERATOR)
    async with pool.connection() as connection:
        rows = await (await connection.execute("SELECT * FROM audit ORDER BY id")).fetchall()
    assert [row["outcome"] for row in rows] == [4, 4]


@pytest.mark.parametrize(
    "data",
    [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\x30\x82", b"x" * 300_000, bytes(2000)],
)
def test_what_is_no_pair_is_refused(data: bytes) -> None:
    with pytest.raises(Misconfigured) as caught:
        pair_of(data, None, b"secret")
    assert "secret" not in caught.value.reason


def test_a_pair_in_one_pem_file(pki: TestAuthority) -> None:
    pair = brought(pki)
    both = pair.certificate.read_bytes() + pair.key.read_bytes()
    assert pair_of(both, None, None).certificate == loaded(pair).certificate
    assert pair_of(pair.certificate.read_bytes(), encrypted_key(pair), PASSWORD).chain == loaded(pair).chain
    with pytest.raises(Misconfigured):
        pair_of(pair.certificate.read_bytes(), brought(pki).key.read_bytes(), None)


def test_nothing_of_a_key_is_told(
    world: World, pki: TestAuthority, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Whatever is wrong, neither the log, nor a repr, nor what is raised holds a line of the key or a password."""
    caplog.set_level("DEBUG")
    secret = tmp_path / "secret"
    secret.write_bytes(PASSWORD)
    pair = brought(pki)
    world.put(pair)
    (world.folder / "pair.key").write_bytes(encrypted_key(pair))
    ring = Keyring(
        [
            Place(
                "p",
                "s",
                "u",
                PairSource(world.folder / "pair.pem", world.folder / "pair.key", password_file=secret),
                Demand,
            )
        ],
        world.clock,
    )
    told = repr(ring.standings) + repr(Vault(b"s" * 32)) + repr(ring.pair("p")) + repr(ring.changes())
    (world.folder / "pair.key").write_bytes(brought(pki).key.read_bytes())
    settle(ring)
    told += repr(ring.standings) + caplog.text
    lines = [
        line
        for line in (*pair.key.read_text().splitlines(), *encrypted_key(pair).decode().splitlines())
        if len(line) > 40
    ]
    assert lines
    assert not any(line in told for line in lines)
    assert PASSWORD.decode() not in told
    numbers = loaded(pair).key.private_numbers()
    assert str(numbers.p) not in told  # type: ignore[union-attr]

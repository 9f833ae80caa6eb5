"""Private keys at rest: sealed, for one purpose, under a secret that is not beside them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from drimbox.foundation.errors import Misconfigured
from drimbox.trust.vault import Vault, load_vault

KEY = ec.generate_private_key(ec.SECP256R1())
VAULT = Vault(bytes(32))
SEALED = VAULT.seal(KEY, "one purpose")


def test_a_key_comes_back_for_its_purpose_only(tmp_path: Path) -> None:
    vault = load_vault(tmp_path / "keys" / "vault.key")
    for key in (KEY, rsa.generate_private_key(public_exponent=65537, key_size=2048)):
        sealed = vault.seal(key, "this")
        assert vault.open(sealed, "this").public_key() == key.public_key()
        with pytest.raises(Misconfigured, match="abîmée ou déplacée"):
            vault.open(sealed, "that")
        assert vault.seal(key, "this") != sealed
    assert load_vault(tmp_path / "keys" / "vault.key") == vault
    assert (tmp_path / "keys" / "vault.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Misconfigured, match="un autre secret"):
        load_vault(tmp_path / "other.key").open(vault.seal(KEY, "this"), "this")


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_an_altered_seal_does_not_open_and_says_nothing_of_the_key(place: int, change: int) -> None:
    altered = bytearray(SEALED)
    altered[place] ^= change
    with pytest.raises(Misconfigured) as error:
        VAULT.open(bytes(altered), "one purpose")
    assert error.value.code == "vault-key"
    assert error.value.__suppress_context__ or error.value.__context__ is None


@given(st.binary(max_size=80))
def test_any_octets_are_refused(octets: bytes) -> None:
    with pytest.raises(Misconfigured):
        VAULT.open(octets, "one purpose")


def test_a_secret_that_is_damaged_is_said_to_be(tmp_path: Path) -> None:
    for text in ("", "xyz", "00" * 31):
        (tmp_path / "vault.key").write_text(text)
        with pytest.raises(Misconfigured, match=r"vault\.key"):
            load_vault(tmp_path / "vault.key")
    assert "00000" not in repr(VAULT)


def test_nodes_that_start_together_make_one_secret(tmp_path: Path) -> None:
    found: list[Vault] = []
    threads = [threading.Thread(target=lambda: found.append(load_vault(tmp_path / "vault.key"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["vault.key"]

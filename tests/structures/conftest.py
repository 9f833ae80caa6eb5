"""Pairs of two structures and their legal entity, made once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from drimbox.sandbox.pki import PemPair, Profile, TestAuthority

Issue = Callable[..., PemPair]
EG, EJ, OTHER = "1750803447", "1750000999", "1690000017"


@pytest.fixture(scope="session")
def pairs(authority: TestAuthority) -> dict[str, PemPair]:
    """``auth-EG``, ``sign-EG``, ``auth-EJ``… and ``server-EG``: one of each profile for each."""
    made = {}
    for name, unit in (("EG", EG), ("EJ", EJ), ("OTHER", OTHER)):
        for word, profile in (("auth", Profile.ORG_AUTH_CLI), ("sign", Profile.ORG_SIGN), ("server", Profile.SSL_SERV)):
            if profile is Profile.SSL_SERV and name != "EG":
                continue
            made[f"{word}-{name}"] = authority.issue(
                profile,
                f"structures-{word}-{name}",
                common_name="DRIMbox",
                unit=unit,
                organisation="GROUPE",
                hosts=("127.0.0.1",) if profile is Profile.SSL_SERV else (),
            )
    return made

"""A test PKI of this folder's own: its tests revoke certificates and let lists expire."""

import datetime as dt
from typing import Protocol

import pytest

from drimbox.sandbox.pki import PemPair, Profile, TestAuthority


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    return TestAuthority(tmp_path_factory.mktemp("trust"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    """Another PKI, whose names are the same and whose keys are not."""
    return TestAuthority(tmp_path_factory.mktemp("stranger"))


class Make(Protocol):
    """How tests ask for a certificate of structure ``name``, valid from ``days[0]`` to ``days[1]`` from today."""

    def __call__(
        self, pki: TestAuthority, profile: Profile, name: str, *hosts: str, days: tuple[int, int] = (-1, 90)
    ) -> PemPair: ...


@pytest.fixture(scope="session", name="make")
def _make() -> Make:
    return make


def make(pki: TestAuthority, profile: Profile, name: str, *hosts: str, days: tuple[int, int] = (-1, 90)) -> PemPair:
    now = dt.datetime.now(dt.UTC)
    return pki.issue(
        profile,
        name,
        common_name=name,
        unit="318751275100020",
        organisation="CENTRE D'IMAGERIE",
        place="Côte-d'Or (21)",
        hosts=hosts,
        not_before=now + dt.timedelta(days=days[0]),
        not_after=now + dt.timedelta(days=days[1]),
    )


@pytest.fixture(scope="session")
def auth(pki: TestAuthority) -> PemPair:
    return make(pki, Profile.ORG_AUTH_CLI, "auth")


@pytest.fixture(scope="session")
def sign(pki: TestAuthority) -> PemPair:
    return make(pki, Profile.ORG_SIGN, "sign")


@pytest.fixture(scope="session")
def server(pki: TestAuthority) -> PemPair:
    return make(pki, Profile.SSL_SERV, "server", "db1.test", "127.0.0.1")


@pytest.fixture(scope="session")
def expired(pki: TestAuthority) -> PemPair:
    return make(pki, Profile.ORG_AUTH_CLI, "expired", days=(-90, -1))


@pytest.fixture(scope="session")
def revoked(pki: TestAuthority) -> PemPair:
    pair = make(pki, Profile.ORG_AUTH_CLI, "revoked")
    pki.revoke(pair)
    return pair


@pytest.fixture(scope="session")
def revoked_server(pki: TestAuthority) -> PemPair:
    pair = make(pki, Profile.SSL_SERV, "revoked-server", "db1.test")
    pki.revoke(pair)
    return pair


@pytest.fixture(scope="session")
def foreign(stranger: TestAuthority) -> PemPair:
    return make(stranger, Profile.ORG_AUTH_CLI, "foreign")

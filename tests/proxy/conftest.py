"""nginx in front of an application that tells what it saw, configured by `drimbox nginx`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from nginx_world import quiet_ports

from drimbox.sandbox.pki import PemPair, Profile, TestAuthority

UNIT = "1750803447"


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    """A PKI of this folder's own: certificates of it are revoked."""
    return TestAuthority(tmp_path_factory.mktemp("proxy-pki"))


Issue = Callable[..., PemPair]


@pytest.fixture(scope="session")
def issue(pki: TestAuthority) -> Issue:
    def inner(profile: Profile, name: str, *hosts: str) -> PemPair:
        return pki.issue(profile, name, common_name=name, unit=UNIT, organisation="SITE", hosts=hosts)

    return inner


@pytest.fixture(scope="session")
def server(issue: Issue) -> PemPair:
    return issue(Profile.SSL_SERV, "server", "localhost", "127.0.0.1")


@pytest.fixture(scope="session")
def auth(issue: Issue) -> PemPair:
    return issue(Profile.ORG_AUTH_CLI, "auth")


@pytest.fixture
def free_port() -> int:
    return quiet_ports(1)[0]

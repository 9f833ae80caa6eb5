"""A test PKI of this folder's own: its tests revoke certificates."""

from pathlib import Path

import pytest
from keyring_world import World

from drimbox.sandbox.pki import TestAuthority


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    return TestAuthority(tmp_path_factory.mktemp("keyring-pki"))


@pytest.fixture
def world(pki: TestAuthority, tmp_path: Path) -> World:
    return World(pki, tmp_path)

"""A PKI of this folder's own (its tests revoke certificates), and the way the agency signs."""

import pytest
from whitelist_signing import Signing, signer

from drimbox.sandbox.pki import TestAuthority
from drimbox.trust.chain import TrustStore
from drimbox.trust.tls import load_trust


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    return TestAuthority(tmp_path_factory.mktemp("whitelist"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    return TestAuthority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="session")
def good(pki: TestAuthority) -> Signing:
    """How the agency signs."""
    return Signing(signer(pki))


@pytest.fixture
def trust(pki: TestAuthority) -> TrustStore:
    pki.publish_revocations()
    return load_trust([pki.roots], pki.revocation_lists)

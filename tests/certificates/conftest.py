"""A Pebble for all of them, and the ports at which it validates."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from certificates.acme_world import Pebble, free_ports, running_pebble
from drimbox.sandbox.pki import TestAuthority


@pytest.fixture(scope="session")
def pebble(tmp_path_factory: pytest.TempPathFactory, authority: TestAuthority) -> Iterator[Pebble]:
    """Refuses every third good nonce, offers two chains of three certificates."""
    http_port, tls_port = free_ports(2)
    with running_pebble(
        tmp_path_factory.mktemp("pebble"),
        authority,
        http_port=http_port,
        tls_port=tls_port,
        PEBBLE_WFE_NONCEREJECT="30",
        PEBBLE_ALTERNATE_ROOTS="1",
        PEBBLE_CHAIN_LENGTH="2",
    ) as running:
        yield running

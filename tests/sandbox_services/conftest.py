"""A configuration on free ports, on one state folder."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from drimbox.sandbox.sites import SITE_A, SITE_B, ServicesConfig

RETURN = "https://localhost:1/retour"
END = "https://localhost:1/fin"


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One state folder for all: making its keys takes seconds, and keeping them is what is promised."""
    return tmp_path_factory.mktemp("services")


@pytest.fixture
def config(state: Path) -> ServicesConfig:
    psc, dmp, whitelist, wallet, view = _free_ports(5)
    site_b = replace(SITE_B, redirect_uris=(RETURN,), post_logout_redirect_uris=(END,))
    return ServicesConfig(
        state,
        (SITE_A, site_b),
        psc_port=psc,
        dmp_port=dmp,
        whitelist_port=whitelist,
        wallet_port=wallet,
        view_port=view,
    )


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports

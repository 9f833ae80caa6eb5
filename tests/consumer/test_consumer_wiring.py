"""What the settings make of the ways to log in and to consult: each of them the way that it names."""

from __future__ import annotations

import ssl
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from consumer_world import KIT
from pydantic import ValidationError

from drimbox.box import consumer as wiring
from drimbox.box.settings.common import KeyPair
from drimbox.box.settings.consumer import ConsumerSection
from drimbox.box.settings.national import DmpSection, PscSection
from drimbox.consumer.memory import StoredPractices
from drimbox.foundation.clock import SystemClock
from drimbox.keyring.keeper import Keyring
from drimbox.keyring.places import Place
from drimbox.national.psc.ciba import DeviceLogin
from drimbox.national.psc.exchange import ApiAccess
from drimbox.national.psc.proxy import ProxyLogin
from drimbox.sandbox.pki import Profile, TestAuthority
from drimbox.trust.fitness import Demand
from drimbox.trust.watch import TrustWatch


def services(authority: TestAuthority, psc: dict[str, Any] | None = None, dmp: dict[str, Any] | None = None) -> Any:
    pair = authority.issue(
        Profile.ORG_AUTH_CLI, "wiring", common_name="DRIMbox", unit="300000000000000", organisation="TEST"
    )
    auth = KeyPair(certificate=pair.certificate, key=pair.key)
    address = "https://dmp.example"
    return SimpleNamespace(
        settings=SimpleNamespace(
            psc=PscSection(discovery="https://psc.example/d", client_id="box", auth=auth, **(psc or {})),
            dmp=DmpSection(
                repository=address,
                registry=address,
                patients=address,
                habilitations=address,
                source_id="1.2.3",
                **(dmp or {}),
            ),
        ),
        http=None,
        pool=None,
        patient_key=None,
        psc=None,
        clock=SystemClock(),
        trust=TrustWatch((authority.roots,), authority.revocation_lists),
        keyring=Keyring([Place("psc.auth", "box", "PSC", auth.source, Demand)], SystemClock()),
    )


def test_how_one_logs_in(authority: TestAuthority) -> None:
    assert wiring._remote(services(authority)) is None
    assert isinstance(wiring._remote(services(authority, {"login": "both"})), DeviceLogin)
    proxied = {"login": "ciba", "proxy": "https://proxy.example"}
    assert isinstance(wiring._remote(services(authority, proxied)), ProxyLogin)
    with pytest.raises(ValidationError):
        services(authority, {"login": "carte"})
    with pytest.raises(ValidationError):
        services(authority, {"login": "ciba", "proxy": "http://proxy.example"})


async def test_how_the_dmp_is_consulted(authority: TestAuthority) -> None:
    keys = SimpleNamespace(tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    async def of_psc() -> str:
        return KIT.national_id

    assert wiring._api(services(authority), keys) is None  # type: ignore[arg-type]
    api = {"consultation": "API_PSC"}
    direct = wiring._api(services(authority, dmp=api), keys)  # type: ignore[arg-type]
    assert isinstance(direct, ApiAccess)
    # Without an authorization server of its own, the API takes the PSC token.
    assert direct.bearer(of_psc) is of_psc
    exchanged = wiring._api(services(authority, dmp=api | {"api_token": "https://api.example/token"}), keys)  # type: ignore[arg-type]
    assert isinstance(exchanged, ApiAccess)
    assert exchanged.bearer(of_psc) is not of_psc


def test_whether_practices_are_remembered(authority: TestAuthority, tmp_path: Path) -> None:
    listener = {
        "port": 1,
        "public_url": "https://box.example",
        "tls": {"certificate": tmp_path / "c.pem", "key": tmp_path / "k.pem"},
    }
    section = ConsumerSection.model_validate(listener)
    assert isinstance(wiring._memory(services(authority), section), StoredPractices)
    assert wiring._memory(services(authority), ConsumerSection.model_validate(listener | {"practice_days": 0})) is None

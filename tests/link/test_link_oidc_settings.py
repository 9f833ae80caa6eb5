"""The identity provider of patients in the configuration: what is taken, what is explained, and the client over TLS."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from citizen_world import SCOPES
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from lxml import html
from test_link_box import CONFIG, HOST, config

from drimbox.box.config import ConfigMistakes, load
from drimbox.box.flows import flows
from drimbox.box.link import identity_provider
from drimbox.box.registration import registration
from drimbox.foundation.clock import SystemClock
from drimbox.foundation.errors import Misconfigured
from drimbox.foundation.http_client import HttpClient
from drimbox.foundation.http_server import serving
from drimbox.sandbox.citizens.app import BASE, Citizens, citizens_app
from drimbox.sandbox.citizens.mint import Mint
from drimbox.sandbox.citizens.services import Service
from drimbox.sandbox.listeners import ClientCertificate, listener_context
from drimbox.sandbox.pki import Profile, TestAuthority

__all__ = ["CONFIG", "config"]
DISCOVERY = f"https://fc.example.test{BASE}/.well-known/openid-configuration"
BACK = "https://vi.test/lien/identite/retour"


def written(folder: Path, name: str, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    (folder / name).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def with_oidc(config: Path, **changes: object) -> Path:
    """The box with ``[link.oidc]``; None takes a key away."""
    folder = config.parent
    (folder / "secret").write_text("s")
    written(folder, "good.pem", ec.generate_private_key(ec.SECP256R1()))
    written(folder, "weak.pem", ec.generate_private_key(ec.SECP384R1()))
    values = {"discovery": DISCOVERY, "client_id": "c", "secret_file": "secret", "encryption_key": "good.pem"} | changes
    lines = [f"{name} = {value!r}".replace("'", '"') for name, value in values.items() if value is not None]
    config.write_text(config.read_text() + 'patients = "oidc"\n[link.oidc]\n' + "\n".join(lines) + "\n")
    return config


def told(file: Path) -> str:
    with pytest.raises(ConfigMistakes) as found:
        load(file, {})
    return " ".join(map(str, found.value.mistakes))


@pytest.mark.requirement("D19")
def test_the_defaults_are_those_of_france_connect(config: Path) -> None:
    settings = load(with_oidc(config), {})
    assert settings.link is not None
    assert settings.link.oidc is not None
    oidc = settings.link.oidc
    assert (oidc.acr, oidc.authentication, set(oidc.scopes)) == ("eidas2", "client_secret_post", set(SCOPES))
    # It is a flow of the box, and the addresses of logout are declared at Pro Santé Connect.
    [flow] = [flow for flow in flows(settings) if flow.where.startswith("fc.example.test")]
    assert flow.encryption
    found = registration(settings)
    assert f"https://{HOST}/connexion/retour" in found.redirect_uris
    assert f"https://{HOST}/psc/deconnexion" in found.backchannel_logout_uris


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"secret_file": None}, "demande secret_file"),
        ({"signing_key": "good.pem"}, "et rien d'autre"),
        ({"authentication": "private_key_jwt"}, "demande signing_key"),
        ({"authentication": "tls_client_auth", "secret_file": None}, "demande auth"),
        ({"authentication": "none"}, "Valeurs possibles"),
        ({"discovery": "http://fc.example.test/.well-known/x"}, "https://"),
        ({"discovery": "https://fc.example.test/"}, "/.well-known/"),
        ({"scopes": ["family_name"]}, "openid manque"),
        ({"scopes": ["openid email"]}, "openid manque"),
        ({"scopes": ["openid", "a b"]}, "sans espace"),
        ({"secret_file": "absent"}, "fichier absent"),
        ({"encryption_key": "weak.pem"}, "P-256 est attendue"),
        ({"encryption_key": "secret"}, "link.oidc.encryption_key"),
        ({"acr_values": "eidas2"}, "réglage inconnu"),
    ],
)
def test_mistakes_are_explained(config: Path, changes: dict[str, object], says: str) -> None:
    assert says in told(with_oidc(config, **changes))


def test_patients_by_a_provider_that_nobody_named(config: Path) -> None:
    config.write_text(config.read_text() + 'patients = "oidc"\n')
    assert "[link.oidc]" in told(config)


async def test_an_empty_secret_is_none(config: Path) -> None:
    settings = load(with_oidc(config), {})
    assert settings.link is not None
    assert settings.link.oidc is not None
    (config.parent / "secret").write_text(" \n")
    async with HttpClient() as http:
        with pytest.raises(Misconfigured):
            identity_provider(settings.link.oidc, http, SystemClock())


@pytest.mark.requirement("D19")
async def test_the_box_proves_itself_by_its_certificate(config: Path, authority: TestAuthority) -> None:
    """Over TLS (RFC 8705): with the certificate that was registered, and not with another."""
    server = authority.issue(
        Profile.SSL_SERV, "oidc-server", common_name="localhost", unit="1", organisation="S", hosts=("localhost",)
    )
    mine, other = [
        authority.issue(Profile.ORG_AUTH_CLI, f"oidc-{name}", common_name=name, unit="1", organisation="S")
        for name in ("mine", "other")
    ]

    async def no_keys() -> dict[str, Any]:
        return {"keys": []}

    shown = x509.load_pem_x509_certificate(mine.certificate.read_bytes()).fingerprint(hashes.SHA256())
    service = Service("c", "C", (BACK,), (), no_keys, method="tls_client_auth", certificate=shown, encrypted=False)
    provider = Citizens("", {"c": service}, SystemClock())
    tls = listener_context(server, authority, ClientCertificate.OPTIONAL)
    async with serving(citizens_app(provider), host="localhost", port=0, tls=tls) as port, HttpClient() as http:
        url = f"https://localhost:{port}"
        provider.base_url = url
        # Its port is known now, and with it its name.
        provider.mint = Mint(provider.issuer, provider.clock)
        proofs: Mapping[str, Any] = {"mine": mine, "other": other}
        for name, pair in proofs.items():
            found = with_oidc(
                _copy(config, name),
                discovery=f"{url}{BASE}/.well-known/openid-configuration",
                authentication="tls_client_auth",
                secret_file=None,
                encryption_key=None,
                roots=[str(authority.roots)],
            )
            auth = f'auth = {{ certificate = "{pair.certificate}", key = "{pair.key}" }}\n'
            found.write_text(found.read_text() + auth)
            settings = load(found, {})
            assert settings.link is not None
            assert settings.link.oidc is not None
            client = identity_provider(settings.link.oidc, http, SystemClock())
            address = await client.authorization_url(BACK, "s" * 43, "n" * 43, "v" * 43)
            code = await _code(http, client_tls(authority), address, url)
            if name == "mine":
                assert (await client.identify(code, BACK, "v" * 43, "n" * 43)).person.family == "PAT-TROIS"
            else:
                with pytest.raises(Misconfigured):
                    await client.identify(code, BACK, "v" * 43, "n" * 43)


def client_tls(authority: TestAuthority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.roots))


def _copy(config: Path, name: str) -> Path:
    copy = config.with_name(f"{name}.toml")
    copy.write_text(config.read_text())
    return copy


async def _code(http: HttpClient, tls: ssl.SSLContext, address: str, url: str) -> str:
    """Choose the identity on the provider's page; the code that comes back."""
    page = await http.send("GET", address, tls=tls)
    form = html.fromstring(page.body).forms[0]
    [ticket] = form.xpath(".//input[@name='ticket']/@value")
    cookie = page.headers["Set-Cookie"].partition(";")[0]
    answer = await http.send(
        "POST",
        url + form.action,
        tls=tls,
        headers={"Content-Type": "application/x-www-form-urlencoded", "Cookie": cookie},
        body=f"ticket={ticket}&citizen=dominique".encode(),
    )
    return answer.headers["Location"].partition("code=")[2].partition("&")[0]

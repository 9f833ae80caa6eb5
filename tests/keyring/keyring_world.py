"""A place with its files, and pairs to bring there."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    pkcs12,
)

from drimbox.foundation.clock import Clock, SystemClock
from drimbox.keyring.acts import KeyActs
from drimbox.keyring.keeper import Keyring
from drimbox.keyring.places import Place
from drimbox.record.audit import Actor, Journal
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.store.database import Pool
from drimbox.trust.chain import TrustStore
from drimbox.trust.fitness import Demand
from drimbox.trust.keystore import Credential, load_credential
from drimbox.trust.pairs import PairSource
from drimbox.trust.profiles import Profile as Kind
from drimbox.trust.tls import load_trust
from drimbox.trust.vault import Vault

UNIT = "1750803447"
SECRET = bytes(range(32))
PASSWORD = b"mot de passe du fichier"
OPERATOR = Actor(name="A. Admin", system="console")
KINDS = {Profile.ORG_AUTH_CLI: Kind.AUTH, Profile.ORG_SIGN: Kind.SIGN, Profile.SSL_SERV: Kind.SERVER}
_NUMBERS = itertools.count()


def brought(
    pki: TestAuthority,
    profile: Profile = Profile.ORG_SIGN,
    *,
    issued: int = 30,
    left: float = 365,
    unit: str = UNIT,
    hosts: Sequence[str] = (),
) -> PemPair:
    """A pair issued so many days ago, that ends in so many days."""
    now = dt.datetime.now(dt.UTC)
    return pki.issue(
        profile,
        f"keyring-{next(_NUMBERS)}",
        common_name="DRIMbox",
        unit=unit,
        organisation="CENTRE",
        hosts=hosts,
        not_before=now - dt.timedelta(days=issued),
        not_after=now + dt.timedelta(days=left),
    )


def loaded(pair: PemPair) -> Credential:
    return load_credential(pair.certificate, pair.key)


def as_pkcs12(pair: PemPair, password: bytes = PASSWORD) -> bytes:
    one = loaded(pair)
    assert not isinstance(one.key, str)
    return pkcs12.serialize_key_and_certificates(
        b"x", one.key, one.certificate, list(one.chain), BestAvailableEncryption(password)
    )


def encrypted_key(pair: PemPair, password: bytes = PASSWORD) -> bytes:
    return loaded(pair).key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))


@dataclass(slots=True)
class World:
    """``folder`` holds the files of the place ``name``, of one ``profile``."""

    pki: TestAuthority
    folder: Path
    profile: Profile = Profile.ORG_SIGN
    name: str = "structures.ambroise.sign"
    clock: Clock = field(default_factory=SystemClock)

    @property
    def source(self) -> PairSource:
        return PairSource(self.folder / "pair.pem", self.folder / "pair.key")

    def put(self, pair: PemPair) -> None:
        (self.folder / "pair.pem").write_bytes(pair.certificate.read_bytes())
        (self.folder / "pair.key").write_bytes(pair.key.read_bytes())

    def trust(self) -> TrustStore:
        return load_trust([self.pki.roots], self.pki.revocation_lists)

    def place(self) -> Place:
        units = () if self.profile is Profile.SSL_SERV else (UNIT,)
        return Place(
            self.name,
            "Centre Ambroise",
            "ORG SIGN",
            self.source,
            lambda: Demand(KINDS[self.profile], units, "test", self.trust()),
        )

    def ring(self) -> Keyring:
        return Keyring([self.place()], self.clock)

    def acts(self, pool: Pool, ring: Keyring, secret: bytes = SECRET) -> KeyActs:
        return KeyActs(pool, ring, Vault(secret), self.clock, Journal(pool))


# A box with one structure, whose ORG AUTH_CLI is a PKCS#12 file.
TEMPLATE = """
[box]
name = "b"
state_dir = "state"

[database]
dsn_file = "dsn"

[trust]
roots = ["{roots}"]

[[structures]]
id = "ambroise"
name = "Centre Ambroise"
identifier = "1750803447"
auth = {{ pkcs12 = "auth.p12", password_file = "password" }}
sign = {{ certificate = "{sign.certificate}", key = "{sign.key}" }}

[[pacs]]
id = "p"
host = "127.0.0.1"
port = 4242
ae_title = "PACS"

[source]
[source.hl7]
port = 2575
[source.dicom]
port = 11112
[source.wado]
port = 8443
public_url = "https://db1.111.mesimagesmedicales.fr"
tls = {{ certificate = "{server.certificate}", key = "{server.key}" }}

[dmp]
repository = "https://dmp.example.test/repository"
registry = "https://dmp.example.test/registry"
patients = "https://dmp.example.test/patients"
habilitations = "https://dmp.example.test/habilitations"
source_id = "1.2.3"

[psc]
discovery = "https://psc.example.test/d"
client_id = "x"

[whitelist]
url = "https://list.example.test/l"
"""

"""The configurations of the two boxes: site A publishes and serves, site B consults."""

from __future__ import annotations

import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from drimbox.demo.places import Ports
from drimbox.foundation.uids import new_secret
from drimbox.sandbox import phone
from drimbox.sandbox.citizens.app import BASE as CITIZENS_BASE
from drimbox.sandbox.services import Endpoints

WADO_PATH = "/dicom-web-rs"
CITIZENS_CLIENT = "drimbox-site-a"
IOCM_AE = "DRIMBOX_IOCM"


def wado_base(ports: Ports) -> str:
    """The address that site A's KOS carry."""
    return f"https://localhost:{ports.wado_a}{WADO_PATH}"


def consumer_url(ports: Ports) -> str:
    """The address of site B's pages."""
    return f"https://localhost:{ports.consumer_b}"


def console_url(ports: Ports, key: str) -> str:
    """The address of the operator's console of a site, ``a`` or ``b``."""
    return f"https://localhost:{ports.console_a if key == 'a' else ports.console_b}"


def viewer_url(ports: Ports) -> str:
    """The address of site A's viewer host, which the links in its reports carry."""
    return f"https://localhost:{ports.vi_a}"


def phone_url(ports: Ports) -> str:
    """The telephone of the patient."""
    return f"https://localhost:{ports.phone}"


def citizens_url(ports: Ports) -> str:
    """The identity provider of patients, where the demonstration has one."""
    return f"https://localhost:{ports.citizens}"


def dmp_services(ports: Ports) -> str:
    """The root of the DMP's services."""
    return f"https://localhost:{ports.dmp}/si-dmp-server/v2/services"


def write_site_a(
    file: Path, ports: Ports, national: Endpoints, before_wado: int = 0, *, patients: str = "code"
) -> None:
    """The source of site A, with its PACS. ``before_wado``: the port that others are told instead of WADO-RS's own.

    ``patients``: how they are let in by the link, ``code`` or ``oidc``.
    """
    certificates = national.sites["a"].certificates
    place = national.sites["a"].site.place
    text = _common("site-a", file.parent / "a", ports, national, "a")
    text += f"""
[[structures]]
id = "ambroise"
name = {_q(place.name)}
identifier = {_q(place.identifier)}
# Older official messages carry this FINESS for the same centre.
also_known_as = ["1101235555", "1300017985"]
sector = {_q(place.sector)}
pacs = ["pacs-a"]
auth = {{ certificate = {_q(certificates.auth.certificate)}, key = {_q(certificates.auth.key)} }}
sign = {{ certificate = {_q(certificates.sign.certificate)}, key = {_q(certificates.sign.key)} }}

[[pacs]]
id = "pacs-a"
host = "127.0.0.1"
port = {ports.pacs_a}
ae_title = "PACS_A"
calling_ae_title = "DRIMBOX_A"

[source]

[source.hl7]
port = {ports.mllp_a}

[source.dicom]
port = {ports.dicom_a}
ae_title = "DRIMBOX_A"

# Where the PACS tells what it rejected; DEMO_CLIENT lets any other sender of notes join in.
[source.iocm]
port = {ports.iocm_a}
ae_title = "{IOCM_AE}"
allowed_callers = ["PACS_A", "DEMO_CLIENT"]

[source.wado]
port = {ports.wado_a}
public_url = "https://localhost:{before_wado or ports.wado_a}"
base_path = "{WADO_PATH}"
tls = {{ certificate = {_q(certificates.db.certificate)}, key = {_q(certificates.db.key)} }}

# The link in the reports. On its own machine the site ends TLS itself: no authority certifies localhost.
[link]
host = "127.0.0.1"
port = {ports.vi_a}
public_url = "{viewer_url(ports)}"
tls = {{ certificate = {_q(certificates.vi.certificate)}, key = {_q(certificates.vi.key)} }}
patients = {_q(patients)}
tries_per_study = 100
tries_per_address = 1000
requests_per_minute = 1000
{_provider(file.parent, ports, national) if patients == "oidc" else _phone(ports, national)}
{_console(ports, national, "a")}"""
    file.write_text(text, "utf-8")


def _phone(ports: Ports, national: Endpoints) -> str:
    return f"""
[link.webhook]
url = "{phone_url(ports)}{phone.PATH}"
roots = [{_q(national.roots)}]"""


def _provider(folder: Path, ports: Ports, national: Endpoints) -> str:
    """In the manner of FranceConnect+: a shared secret, and a key that tokens are encrypted for."""
    secret, key = folder / "identity-secret.txt", folder / "identity-key.pem"
    if not key.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for file, content in ((secret, new_secret().encode()), (key, pem)):
            file.touch(0o600)
            file.write_bytes(content)
    return f"""
[link.oidc]
name = "FranceConnect+ (bac à sable)"
discovery = "{citizens_url(ports)}{CITIZENS_BASE}/.well-known/openid-configuration"
client_id = "{CITIZENS_CLIENT}"
secret_file = {_q(secret)}
encryption_key = {_q(key)}
roots = [{_q(national.roots)}]"""


def write_site_b(file: Path, ports: Ports, national: Endpoints, viewer: Path, *, cached: bool = True) -> None:
    """The consumer of site B; not ``cached``: each radiologist fetches everything anew."""
    certificates = national.sites["b"].certificates
    place = national.sites["b"].site.place
    text = _common("site-b", file.parent / "b", ports, national, "b")
    text += f"""
[[structures]]
id = "cabinet"
name = {_q(place.name)}
identifier = {_q(place.identifier)}
sector = {_q(place.sector)}
pacs = ["pacs-b"]
auth = {{ certificate = {_q(certificates.auth.certificate)}, key = {_q(certificates.auth.key)} }}
sign = {{ certificate = {_q(certificates.sign.certificate)}, key = {_q(certificates.sign.key)} }}

[[pacs]]
id = "pacs-b"
host = "127.0.0.1"
port = {ports.pacs_b}
ae_title = "PACS_B"
calling_ae_title = "DRIMBOX_B"

[consumer]
port = {ports.consumer_b}
public_url = "{consumer_url(ports)}"
viewer_dir = {_q(viewer)}
tls = {{ certificate = {_q(certificates.consumer.certificate)}, key = {_q(certificates.consumer.key)} }}

[[consumer.imports.targets]]
pacs = "pacs-b"
title = "PACS du cabinet"
{_console(ports, national, "b")}"""
    if not cached:
        text += "\n[consumer.cache]\nmax_gb = 0\n"
    file.write_text(text, "utf-8")


def _console(ports: Ports, national: Endpoints, key: str) -> str:
    url, pair = console_url(ports, key), national.sites[key].certificates.consumer
    return f"""
[console]
port = {url.rpartition(":")[2]}
public_url = "{url}"
pro_sante_connect = true
tls = {{ certificate = {_q(pair.certificate)}, key = {_q(pair.key)} }}
"""


def _common(name: str, state: Path, ports: Ports, national: Endpoints, key: str) -> str:
    certificates = national.sites[key].certificates
    place = national.sites[key].site.place
    services = dmp_services(ports)
    lists = ", ".join(_q(path) for path in national.revocation_lists)
    return f"""[box]
name = "{name}"
environment = "test"
state_dir = {_q(state)}
device_id = "3{place.identifier}/drimbox-1"
homologation_number = "DRIMBOX-BAC-A-SABLE"

[trust]
roots = [{_q(national.roots)}]
revocation_lists = [{lists}]

[dmp]
repository = "{services}/repository"
registry = "{services}/registry"
patients = "{services}/patients"
habilitations = "{services}/habilitations"
source_id = "2.25.17400{ord(key)}"
timeout = 20

[psc]
discovery = {_q(national.psc_discovery)}
client_id = {_q(national.sites[key].site.client_id)}
auth = {{ certificate = {_q(certificates.psc.certificate)}, key = {_q(certificates.psc.key)} }}
login = "both"

[whitelist]
url = {_q(national.whitelist)}
signer_cn = {_q(national.whitelist_signer_cn)}
signer_ou = {_q(national.whitelist_signer_ou)}
"""


def _q(value: object) -> str:
    # A JSON string is a TOML basic string.
    return json.dumps(str(value), ensure_ascii=False)

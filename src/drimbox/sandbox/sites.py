"""The imaging sites that the national services know: what must be told of them, and the two of the demonstration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from drimbox.sandbox.dmp.bench import Authorisation, KnownPatient, RecordStatus
from drimbox.sandbox.psc.people import CONSUMER_PLACE, SOURCE_PLACE, Workplace


@dataclass(frozen=True, slots=True)
class Site:
    """A structure and its DRIMbox.

    ``key`` names its files; ``client_id`` is its Client_ID at Pro Sante Connect, where ``redirect_uris`` and the
    addresses of logout are registered; ``db_host`` and ``vi_host`` are the host names of the signed list, without port.
    ``legal_identifier`` is the Struct_IdNat of its legal entity, for who identifies itself by that at the DMP.
    """

    key: str
    place: Workplace
    client_id: str
    box_name: str
    redirect_uris: tuple[str, ...] = ()
    post_logout_redirect_uris: tuple[str, ...] = ()
    backchannel_logout: str | None = None
    frontchannel_logout: str | None = None
    db_host: str = "localhost"
    vi_host: str = "localhost"
    region: str = "Paris (75)"
    legal_identifier: str = ""


SITE_A = Site("a", SOURCE_PLACE, "drimbox-site-a", "DRIMbox du Centre de radiologie Ambroise")
SITE_B = Site("b", CONSUMER_PLACE, "drimbox-site-b", "DRIMbox du Cabinet DOC0036790")


@dataclass(frozen=True, slots=True)
class ServicesConfig:
    """The national services: where they listen, what they keep, whom they know.

    ``state`` keeps the test PKI, the key of Pro Sante Connect and the documents of the DMP over a restart. ``host`` is
    the address to listen on, ``public_host`` the name in their addresses. ``wallet_port`` gives browsers a listener of
    their own that asks for no client certificate; None: they use ``psc_port``. ``proxy_port`` serves a proxy e-Sante
    for the last of ``sites``, ``api_port`` the DMP behind its API PSC (scope ``dmp``); None: neither is there.
    ``poll_seconds`` is how often a service may ask whether a professional has answered on their device. ``schemas`` is
    a folder of XSDs for the DMP. ``controls`` opens the helpers and the faults under ``/sandbox`` of each service. All
    test professionals practise at the last of ``sites``; the one with several practices has another at the first.
    ``view_port`` shows what the DMP holds to callers without a certificate; None: the DMP's own listener shows it.
    ``authorised`` are the professionals (PS_IdNat) who may consult the DMP of the test patient without asking first;
    ``published_reports`` the exams whose reports the first site's RIS has published. ``patients`` have a DMP besides
    the test patient.
    """

    state: Path
    sites: tuple[Site, ...] = (SITE_A, SITE_B)
    host: str = "127.0.0.1"
    public_host: str = "localhost"
    psc_port: int = 17400
    dmp_port: int = 17401
    whitelist_port: int = 17402
    wallet_port: int | None = None
    view_port: int | None = None
    proxy_port: int | None = None
    api_port: int | None = None
    poll_seconds: int = 5
    authorised: tuple[str, ...] = ("899700367909",)
    published_reports: str = "EA"
    patients: tuple[KnownPatient, ...] = ()
    schemas: Path | None = None
    controls: bool = True

    def url(self, port: int) -> str:
        """The address of one of the services."""
        return f"https://{self.public_host}:{port}"


def config_to_json(config: ServicesConfig) -> str:
    """The configuration as a JSON document."""
    return json.dumps(asdict(config), default=str, indent=2, ensure_ascii=False)


def config_from_json(text: str) -> ServicesConfig:
    """What ``config_to_json`` wrote. Raises ``ValueError``, ``KeyError`` or ``TypeError`` for anything else."""
    values: dict[str, Any] = json.loads(text)
    values["state"] = Path(values["state"])
    if values.get("schemas") is not None:
        values["schemas"] = Path(values["schemas"])
    if "authorised" in values:
        values["authorised"] = tuple(values["authorised"])
    if "sites" in values:
        values["sites"] = tuple(_site(site) for site in values["sites"])
    if "patients" in values:
        values["patients"] = tuple(_patient(patient) for patient in values["patients"])
    return ServicesConfig(**values)


def _site(values: Mapping[str, Any]) -> Site:
    lists = ("redirect_uris", "post_logout_redirect_uris")
    return Site(
        **{
            **values,
            "place": Workplace(**values["place"]),
            **{name: tuple(values[name]) for name in lists if name in values},
        }
    )


def _patient(values: Mapping[str, Any]) -> KnownPatient:
    given = {
        "status": RecordStatus(values.get("status", RecordStatus.ACTIVE)),
        "closing": tuple(values.get("closing", ("", ""))),
        "authorisations": {who: Authorisation(state) for who, state in values.get("authorisations", {}).items()},
    }
    return KnownPatient(**{**values, **given})

"""The flows of a box, read from its configuration: every listener and every address in it, known by name or not.

The configuration is walked whole, by the kind of each table and of each value: a listener or an address that is added
to it is in the table without a line here, which would only give it a better name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel

from drimbox.box.link import public_url
from drimbox.box.settings import Settings
from drimbox.box.settings.certificates import MarketCertificateSection
from drimbox.box.settings.common import KeyPair, TlsServer
from drimbox.box.settings.importing import WorkstationSection
from drimbox.box.settings.journal import SmtpSection
from drimbox.box.settings.pacs import PacsNode, PacsSection
from drimbox.box.trusting import has_public_servers, list_addresses
from drimbox.flows.table import Direction, Exception17, Flow

TLS = "TLS 1.3 ou 1.2, suites de l'ANSSI"
_OURS = "le serveur par son certificat"
_MUTUAL = "mutuelle (certificats)"

# What a table or a value is called; one that is not here goes by its place in the configuration.
_NAMES: Mapping[str, str] = {
    "source.hl7": "Comptes rendus et messages des RIS",
    "source.dicom": "Images que les PACS envoient (C-MOVE)",
    "source.iocm": "Notes de rejet des PACS (IOCM)",
    "source.wado": "Images servies aux autres DRIMbox (hôte db)",
    "consumer": "Pages des radiologues, appel contextuel",
    "consumer.workstations": "Stations de travail (C-FIND, C-MOVE)",
    "consumer.workstations.clients": "Station de travail servie (C-STORE)",
    "console": "Console d'exploitation",
    "link": "Visionneuse des patients et des correspondants (hôte vi)",
    "link.webhook.url": "Codes à usage unique des patients (service du site)",
    "link.mail": "Codes à usage unique des patients (courriel)",
    "dmp.repository": "DMP : dépôt et retrait de documents",
    "dmp.registry": "DMP : recherche et mise à jour",
    "dmp.patients": "DMP : existence et autorisations",
    "dmp.habilitations": "DMP : autorisation d'accès",
    "dmp.api_token": "API PSC du DMP : échange de jeton",
    "psc.discovery": "Pro Santé Connect : découverte",
    "psc.proxy": "Proxy e-Santé",
    "whitelist.url": "Liste blanche",
    "notifications.webhook.url": "Notifications (webhook)",
    "notifications.mail": "Notifications (courriel)",
    "market_certificate.authorities.directory": "Autorité de certification (ACME)",
    "market_certificate": "Validation ACME HTTP-01, et redirection",
    "pacs": "PACS",
    "pacs.alternates": "PACS, autre adresse",
    "pacs.retrieve_from": "PACS, d'où les images viennent",
    "pacs.store_to": "PACS, où les images vont",
    "pacs.dicomweb.url": "PACS (DICOMweb)",
}
_PROTOCOLS: Mapping[str, str] = {
    "source.hl7": "HL7 v2 (MLLP)",
    "source.dicom": "DICOM",
    "source.iocm": "DICOM",
    "source.wado": "HTTPS (WADO-RS)",
    "consumer.workstations": "DICOM",
    "link": "HTTPS",
}
# Addresses of our own, that others call.
_OWN = ("public_url",)
# Where a national service or another DRIMbox asks for our certificate.
_WITH_OURS = ("dmp.", "psc.")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where something stands: ``key`` without numbers, ``written`` as people write it; ``owners`` are around it."""

    key: str
    written: str
    owners: tuple[BaseModel, ...]

    @property
    def name(self) -> str:
        known = _NAMES.get(self.key, f"[{self.written}]")
        labels = [str(getattr(o, "id", "") or getattr(o, "name", "")) for o in self.owners[1:]]
        label = next((one for one in labels if one), "")
        return f"{known} ({label})" if label and self.key in _NAMES else known


def flows(settings: Settings) -> tuple[Flow, ...]:
    """Every flow, those that come in first. Raises ``Misconfigured`` for certificates that cannot be read."""
    found = [
        *_walked(settings),
        *_database(settings),
        *_lists(settings),
        *_public_lists(settings),
        *_told_by_peers(settings),
    ]
    if settings.market_certificate is not None:
        found += _market(settings.market_certificate)
    found += _before_the_viewer(settings)
    return tuple(sorted(found, key=lambda flow: (flow.direction is Direction.OUT, flow.setting, flow.where)))


def _walked(settings: Settings) -> Iterator[Flow]:
    for place, value in _walk(settings, _Place("", "", (settings,))):
        if isinstance(value, TlsServer):
            yield from _https_listener(place, value)
        elif isinstance(value, BaseModel) and _is_listener(value):
            yield _listener(place, value)
        elif isinstance(value, BaseModel) and {"host", "port"} <= set(type(value).model_fields):
            yield _target(place, value)
        elif isinstance(value, str) and _is_foreign(place, value):
            yield _address(place, value)


def _is_foreign(place: _Place, value: str) -> bool:
    """An address that the box calls, in the configuration itself."""
    if not value.startswith(("https://", "http://")):
        return False
    return place.key.rpartition(".")[2] not in _OWN and place.key != "trust.revocation_urls"


def _walk(value: Any, place: _Place) -> Iterator[tuple[_Place, Any]]:
    """Every table and every value, each with its place."""
    if isinstance(value, BaseModel):
        yield place, value
        for name in type(value).model_fields:
            inner = _Place(
                f"{place.key}.{name}" if place.key else name,
                f"{place.written}.{name}" if place.written else name,
                (*place.owners, value),
            )
            yield from _walk(getattr(value, name), inner)
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            owners = (*place.owners, item) if isinstance(item, BaseModel) else place.owners
            yield from _walk(item, _Place(place.key, f"{place.written}[{index}]", owners))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _walk(item, _Place(place.key, f"{place.written}.{key}", place.owners))
    else:
        yield place, value


def _is_listener(model: BaseModel) -> bool:
    """A table with a port of ours: its certificate is a pair of ours, where it has one."""
    fields = type(model).model_fields
    return {"host", "port", "tls"} <= set(fields) and "KeyPair" in str(fields["tls"].annotation)


def _https_listener(place: _Place, section: TlsServer) -> Iterator[Flow]:
    protocol = _PROTOCOLS.get(place.key, "HTTPS")
    peers = _MUTUAL if place.key == "source.wado" else _OURS
    proxy = section.proxy
    if proxy is None:
        yield Flow(place.name, Direction.IN, section.host, section.port, protocol, TLS, place.written, peers)
        return
    public = urlsplit(section.public_url)
    yield Flow(
        f"{place.name}, chez le mandataire",
        Direction.IN,
        public.hostname or "",
        public.port or 443,
        protocol,
        f"{TLS} (terminé par le mandataire, voir « drimbox nginx »)",
        place.written,
        peers,
    )
    name, setting = f"{place.name}, du mandataire à la DRIMbox", f"{place.written}.proxy"
    if proxy.socket is not None:
        yield Flow(
            name, Direction.IN, "", 0, "HTTP", "", setting, "droits du fichier (socket unix)", path=str(proxy.socket)
        )
    else:
        peers = f"{_MUTUAL}, adresses {', '.join(proxy.addresses)}"
        yield Flow(name, Direction.IN, section.host, section.port, "HTTPS", TLS, setting, peers)


def _listener(place: _Place, section: Any) -> Flow:
    proxy = getattr(section, "proxy", None)
    if proxy is not None and proxy.socket is not None:
        name, rights = f"{place.name}, du mandataire à la DRIMbox", "droits du fichier (socket unix)"
        return Flow(name, Direction.IN, "", 0, "HTTP", "", f"{place.written}.proxy", rights, path=str(proxy.socket))
    peers = "titres AE" if _PROTOCOLS.get(place.key) == "DICOM" else ""
    # Without a pair of its own the viewer host shows the market certificate; it never speaks in the clear.
    encrypted = isinstance(section.tls, KeyPair) or place.key == "link"
    if encrypted:
        peers = _MUTUAL if getattr(section, "client_roots", ()) else _OURS
    return Flow(
        place.name,
        Direction.IN,
        section.host,
        section.port,
        _PROTOCOLS.get(place.key, "TCP"),
        TLS if encrypted else "",
        place.written,
        peers,
    )


def _target(place: _Place, section: Any) -> Flow:
    protocol, encryption, peers = "TCP", "", ""
    if isinstance(section, PacsSection | PacsNode):
        pacs = section if isinstance(section, PacsSection) else _pacs_of(place)
        protocol = "DICOM"
        if pacs.tls is not None:
            encryption, peers = TLS, _MUTUAL if pacs.tls.client is not None else _OURS
    elif isinstance(section, WorkstationSection):
        protocol = "DICOM"
    elif isinstance(section, SmtpSection):
        protocol = "SMTP"
        if section.security != "none":
            encryption, peers = f"{TLS} ({section.security})", _OURS
    return Flow(place.name, Direction.OUT, section.host, section.port, protocol, encryption, place.written, peers)


def _pacs_of(place: _Place) -> PacsSection:
    return next(owner for owner in reversed(place.owners) if isinstance(owner, PacsSection))


def _address(place: _Place, url: str) -> Flow:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    mutual = place.key.startswith(_WITH_OURS)
    return Flow(
        place.name,
        Direction.OUT,
        parts.hostname or "",
        parts.port or (443 if secure else 80),
        "HTTPS" if secure else "HTTP",
        TLS if secure else "",
        place.written,
        (_MUTUAL if mutual else _OURS) if secure else "",
    )


def _database(settings: Settings) -> Iterator[Flow]:
    file = settings.database.dsn_file
    name = "Base de données (PostgreSQL)"
    if file is None:
        folder = str(settings.box.state_dir / "postgres")
        yield Flow(name, Direction.OUT, "", 0, "PostgreSQL", "", "database", "droits du fichier", path=folder)
        return
    setting = "database.dsn_file"
    asked = conninfo_to_dict(file.read_text("utf-8").strip())
    hosts = str(asked.get("host") or "/").split(",")
    ports = str(asked.get("port") or 5432).split(",")
    mode = str(asked.get("sslmode") or "prefer")
    for index, host in enumerate(hosts):
        port = int(ports[min(index, len(ports) - 1)])
        if host.startswith(("/", "@")) or not host:
            yield Flow(
                name, Direction.OUT, "", 0, "PostgreSQL", "", "database.dsn_file", "droits du fichier", path=host
            )
            continue
        checked = mode in ("verify-ca", "verify-full")
        # Anything less than "require" falls back to plain text when the server asks for it.
        encryption = f"TLS (sslmode={mode})" if checked or mode == "require" else ""
        yield Flow(
            name,
            Direction.OUT,
            host,
            port,
            "PostgreSQL",
            encryption,
            setting,
            "le serveur par son certificat, la DRIMbox par mot de passe" if checked else "mot de passe",
        )


def _lists(settings: Settings) -> Iterator[Flow]:
    for url in list_addresses(settings):
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        setting = "trust.revocation_urls" if url in settings.trust.revocation_urls else "trust.revocation_fetch"
        yield Flow(
            "Listes de révocation (CRL)",
            Direction.OUT,
            parts.hostname or "",
            parts.port or (443 if secure else 80),
            "HTTPS" if secure else "HTTP",
            TLS if secure else "",
            setting,
            "listes signées par leur autorité",
            None if secure else Exception17.CRL,
        )


def _public_lists(settings: Settings) -> Iterator[Flow]:
    """The lists of public authorities, whose addresses stand in the certificates that servers show."""
    section = settings.trust
    if section.public_revocation == "off" or not section.revocation_fetch or not has_public_servers(settings):
        return
    yield Flow(
        "Listes de révocation des autorités publiques (adresses des certificats des serveurs)",
        Direction.OUT,
        "",
        80,
        "HTTP",
        "",
        "trust.public_revocation",
        "listes signées par leur autorité",
        Exception17.CRL,
    )


def _market(section: MarketCertificateSection) -> Iterator[Flow]:
    if section.validation != "http-01":
        return
    place = "market_certificate"
    yield Flow(
        _NAMES[place],
        Direction.IN,
        section.http_host,
        section.http_port,
        "HTTP",
        "",
        f"{place}.http_port",
        "",
        Exception17.ACME,
    )


def _before_the_viewer(settings: Settings) -> Iterator[Flow]:
    """What an nginx before the viewer's listener takes from the network in its place."""
    link, market = settings.link, settings.market_certificate
    if link is None or link.proxy is None:
        return
    public = urlsplit(public_url(settings))
    name = _NAMES["link"]
    shown = f"{TLS} (terminé par le mandataire, voir « drimbox nginx »)"
    yield Flow(
        f"{name}, chez le mandataire",
        Direction.IN,
        public.hostname or "",
        public.port or 443,
        "HTTPS",
        shown,
        "link.proxy",
        _OURS,
    )
    if market is not None and market.validation == "http-01":
        yield Flow(
            f"{_NAMES['market_certificate']}, chez le mandataire",
            Direction.IN,
            public.hostname or "",
            80,
            "HTTP",
            "",
            "link.proxy",
            "",
            Exception17.ACME,
        )


def _told_by_peers(settings: Settings) -> Iterator[Flow]:
    """Flows whose address is not in the configuration: a document that is signed, or comes over TLS, gives it."""
    yield Flow(
        "Pro Santé Connect : connexion, jetons, introspection (adresses du document de découverte, https seul)",
        Direction.OUT,
        "",
        443,
        "HTTPS",
        TLS,
        "psc.discovery",
        _MUTUAL,
    )
    if settings.consumer is not None:
        yield Flow(
            "Images des autres DRIMbox (WADO-RS, hôtes db de la liste blanche)",
            Direction.OUT,
            "",
            443,
            "HTTPS",
            TLS,
            "whitelist",
            _MUTUAL,
        )
        yield Flow(
            "Fichiers de la visionneuse, à l'installation (registre de npm)",
            Direction.OUT,
            "",
            443,
            "HTTPS",
            "TLS",
            "drimbox viewer install",
            _OURS,
        )

"""What Pro Sante Connect must know of this box: client id, certificate, addresses, roles, in one place.

The circle of trust of PSC: standards.md F.3 to F.5, ans-faq.md 10.2. And what the proxy e-Sante must be able to show.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict, dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from drimbox import __version__
from drimbox.box import link
from drimbox.box.operator import on_database, shell_user
from drimbox.box.services import PRODUCT, credential, patient_key
from drimbox.box.settings import Settings
from drimbox.box.settings.common import KeyPair
from drimbox.foundation.errors import DrimboxError, Misconfigured, Refused
from drimbox.link.logouts import BACKCHANNEL_PATH
from drimbox.record.audit import Journal, Kind, Outcome, Recorded, Search, Thing
from drimbox.store.database import Pool
from drimbox.trust import names
from drimbox.trust.keystore import Credential
from drimbox.trust.profiles import Profile, require_profile

_CALLBACK, _GOODBYE = "/connexion/retour", "/au-revoir"


@dataclass(frozen=True, slots=True)
class Registration:
    """What is declared; ``problems`` are French sentences on what PSC would refuse, or a habilitation."""

    software: str
    version: str
    environment: str
    discovery: str
    client_id: str
    authentication: str
    certificate_dn: str
    certificate_cn: str
    certificate_ou: str
    certificate_issuer: str
    certificate_serial: str
    certificate_sha256: str
    certificate_until: str
    redirect_uris: tuple[str, ...]
    post_logout_redirect_uris: tuple[str, ...]
    backchannel_logout_uris: tuple[str, ...]
    roles: tuple[str, ...]
    scope: str
    acr: str
    proxy: str
    problems: tuple[str, ...]


def registration(settings: Settings) -> Registration:
    """The data as the configuration and the certificate have them."""
    psc, problems = settings.psc, []
    pair, where = _pair(settings)
    own: Credential | None = None
    try:
        own = credential(pair)
        require_profile(own, Profile.AUTH)
    except Misconfigured as error:
        problems.append(f"{where} : {error.reason}")
    if psc.client_secret_file is not None:
        problems.append(
            "psc.client_secret_file est donné : dans l'espace de confiance, le client s'authentifie par son "
            "certificat (RFC 8705), sans secret"
        )
    common, unit = _subject(own)
    if own is not None and common != psc.client_id:
        problems.append(f"le CN du certificat ({common or 'absent'}) n'est pas le client_id ({psc.client_id})")
    if own is not None and not unit:
        problems.append("le certificat n'a pas d'OU : celle de la structure qui exploite la DRIMbox est attendue")
    pages = _pages(settings)
    return Registration(
        software=PRODUCT,
        version=__version__,
        environment=settings.box.environment,
        discovery=psc.discovery,
        client_id=psc.client_id,
        authentication="client_secret" if psc.client_secret_file else "tls_client_auth (RFC 8705)",
        certificate_dn=own.subject_dn if own else "",
        certificate_cn=common,
        certificate_ou=unit,
        certificate_issuer=names.written(own.certificate.issuer) if own else "",
        certificate_serial=f"{own.certificate.serial_number:X}" if own else "",
        certificate_sha256=own.certificate.fingerprint(hashes.SHA256()).hex() if own else "",
        certificate_until=own.expires_at.date().isoformat() if own else "",
        redirect_uris=tuple(f"{page}{_CALLBACK}" for page in pages),
        post_logout_redirect_uris=tuple(f"{page}{_GOODBYE}" for page in pages),
        backchannel_logout_uris=_told_of_logouts(settings),
        roles=_roles(settings),
        scope=psc.scope,
        acr=psc.acr,
        proxy=psc.proxy or ("cette DRIMbox" if psc.login != "code" and settings.consumer is not None else ""),
        problems=tuple(problems),
    )


def _pair(settings: Settings) -> tuple[KeyPair, str]:
    if settings.psc.auth is not None:
        return settings.psc.auth, "psc.auth"
    first = settings.structures[0]
    return first.auth, f"structures[0].auth ({first.id})"


def _subject(own: Credential | None) -> tuple[str, str]:
    if own is None:
        return "", ""
    subject = own.certificate.subject
    try:
        return names.single(subject, NameOID.COMMON_NAME), names.single(subject, NameOID.ORGANIZATIONAL_UNIT_NAME)
    except Refused:
        return "", ""


def _pages(settings: Settings) -> tuple[str, ...]:
    """The origins whose pages send people to PSC and have them back."""
    found = []
    if settings.consumer is not None and settings.psc.login != "ciba":
        found.append(settings.consumer.public_url)
    if settings.console is not None and settings.console.pro_sante_connect:
        found.append(settings.console.public_url)
    if settings.link is not None:
        found.append(link.public_url(settings))
    return tuple(found)


def _told_of_logouts(settings: Settings) -> tuple[str, ...]:
    """Where PSC tells that a session is over, of people who look at images."""
    found = []
    if settings.consumer is not None and settings.psc.login != "ciba":
        found.append(settings.consumer.public_url + BACKCHANNEL_PATH)
    if settings.link is not None:
        found.append(link.public_url(settings) + BACKCHANNEL_PATH)
    return tuple(found)


def _roles(settings: Settings) -> tuple[str, ...]:
    psc, found = settings.psc, []
    if settings.consumer is not None:
        if psc.login != "ciba":
            found.append("LPS : connexion des professionnels par la page de PSC (code d'autorisation, PKCE S256)")
        if psc.login != "code":
            found.append(
                "LPS : connexion sur l'appareil du professionnel (CIBA) par un proxy e-Santé"
                if psc.proxy
                else "LPS et proxy e-Santé : connexion sur l'appareil du professionnel (CIBA, mode poll)"
            )
        if settings.dmp.consultation == "API_PSC":
            found.append("proxy e-Santé : jetons d'API pour le DMP (RFC 8693), liés au certificat (RFC 8705)")
    if settings.source is not None:
        found.append("serveur de ressources : introspection des jetons reçus avec WADO-RS (mTLS)")
    if settings.console is not None and settings.console.pro_sante_connect:
        found.append("console : connexion des exploitants qui ont un identifiant national")
    return tuple(found)


def written(found: Registration) -> str:
    """For people."""
    rows = [
        ("logiciel", f"{found.software} {found.version}, environnement {found.environment}"),
        ("client_id", found.client_id),
        ("authentification", found.authentication),
        ("certificat, sujet", found.certificate_dn or "illisible"),
        ("certificat, CN", found.certificate_cn or "absent"),
        ("certificat, OU", found.certificate_ou or "absente"),
        ("certificat, émetteur", found.certificate_issuer),
        ("certificat, série", found.certificate_serial),
        ("certificat, SHA-256", found.certificate_sha256),
        ("certificat, jusqu'au", found.certificate_until),
        ("découverte", found.discovery),
        *(("retour de connexion", each) for each in found.redirect_uris),
        *(("retour de déconnexion", each) for each in found.post_logout_redirect_uris),
        *(("annonce de déconnexion", each) for each in found.backchannel_logout_uris),
        ("portée, acr", f"{found.scope} ; {found.acr}"),
        *(("rôle", each) for each in found.roles),
        ("proxy e-Santé", found.proxy or "aucun"),
        *(("À CORRIGER", each) for each in found.problems),
    ]
    return "\n".join(f"{name:<24}{value}" for name, value in rows)


def as_json(found: Registration) -> str:
    """For programs."""
    return json.dumps(asdict(found), indent=2, ensure_ascii=False)


# What the proxy e-Sante keeps of a session (standards.md F.5), as the journal of this box has it.
_SENT = (
    Kind.DMP_QUERIED,
    Kind.DMP_ACCESS_CHECKED,
    Kind.DMP_ACCESS_CHANGED,
    Kind.DOCUMENT_RETRIEVED,
    Kind.IMAGES_FETCHED,
)
_TRACED = (Kind.LOGIN, Kind.LOGOUT, *_SENT)


def traces(settings: Settings, since: dt.datetime, until: dt.datetime) -> str:
    """The traces of the proxy e-Sante between two instants, oldest first, one JSON object a line.

    They are read in the journal, and reading them is an event of it. Where the box has a proxy outside of it, that one
    keeps its own. Raises ``Refused`` (``psc-traces``) when the end is before the beginning.
    """
    if until < since:
        raise Refused("La fin de la période est avant son début", code="psc-traces")
    pair, _ = _pair(settings)
    try:
        presented = credential(pair).subject_dn
    except DrimboxError:
        presented = ""

    async def work(pool: Pool) -> list[Recorded]:
        journal = Journal(pool, patient_key(settings))
        found: list[Recorded] = []
        for kind in _TRACED:
            search = Search(kind=kind, since=since, until=until)
            async for recorded in await journal.export(search, shell_user()):
                if recorded.event.actor.person or recorded.event.kind is Kind.LOGIN:
                    found.append(recorded)
        return sorted(found, key=lambda recorded: recorded.id)

    lines = (_trace(recorded, settings.psc.client_id, presented) for recorded in on_database(settings, work))
    return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines if line)


def _trace(recorded: Recorded, client_id: str, presented: str) -> dict[str, str]:
    event, actor = recorded.event, recorded.event.actor
    if actor.person.startswith(("local:", "os:")):
        # An account of the console: PSC is not in it.
        return {}
    good = event.outcome is Outcome.SUCCESS
    kind = {Kind.LOGIN: "CONNECT_SUCCESS" if good else "CONNECT_FAILURE", Kind.LOGOUT: "DISCONNECT"}.get(
        event.kind, "SEND"
    )
    found = {
        "type": kind,
        "timestamp": recorded.at.astimezone(dt.UTC).isoformat(timespec="milliseconds"),
        "clientId": client_id,
        "IdRPPS": actor.person,
        "ip": actor.address,
        "proxy_id_session": next((o.identifier for o in event.objects if o.thing is Thing.SESSION), ""),
        "certificate_dn": presented,
        "request": event.kind.code if kind == "SEND" else "",
        "outcome": "" if good else event.outcome_text,
        "correlation": event.correlation,
    }
    return {name: value for name, value in found.items() if value}

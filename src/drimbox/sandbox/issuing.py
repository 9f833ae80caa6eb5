"""The certificates of a sandbox: one set per site, one server certificate per service, the signer of the list (K.2)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.sandbox.sites import Site

AGENCY = ("318751275100020", "AGENCE DU NUMERIQUE EN SANTE")
WHITELIST_SIGNER = "Liste Blanche DRIM-M"
#: A certificate with less left than this is made anew at the start.
RENEWAL = dt.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class SiteCertificates:
    """What a site orders.

    ``auth`` and ``sign``: ORG AUTH_CLI and ORG SIGN of the structure; ``psc``: what it shows to PSC;
    ``db``, ``vi``, ``consumer``: servers towards other boxes, of the viewer, of the consumer's own pages.
    """

    auth: PemPair
    sign: PemPair
    psc: PemPair
    db: PemPair
    vi: PemPair
    consumer: PemPair


def site_certificates(authority: TestAuthority, site: Site) -> SiteCertificates:
    """The certificates of a site, made on first use."""
    structure = (site.place.identifier, site.place.name)

    def server(purpose: str, host: str) -> PemPair:
        hosts = tuple(dict.fromkeys((host, "localhost", "127.0.0.1")))
        return _issued(authority, Profile.SSL_SERV, f"{site.key}-{purpose}", host, structure, site.region, hosts)

    auth = _issued(authority, Profile.ORG_AUTH_CLI, f"{site.key}-auth", "DRIMbox", structure, site.region)
    return SiteCertificates(
        auth=auth,
        sign=_issued(authority, Profile.ORG_SIGN, f"{site.key}-sign", "DRIMbox", structure, site.region),
        # One pair for PSC and for the other boxes: a token is bound to the certificate it was asked with, and a source
        # checks that binding against the certificate that the caller shows (RFC 8705; decision 17).
        psc=auth,
        db=server("db", site.db_host),
        vi=server("vi", site.vi_host),
        consumer=server("consumer", "localhost"),
    )


def service_certificate(authority: TestAuthority, name: str, host: str) -> PemPair:
    """The server certificate of a national service."""
    hosts = tuple(dict.fromkeys((host, "localhost", "127.0.0.1")))
    return _issued(authority, Profile.SSL_SERV, name, host, AGENCY, hosts=hosts)


def whitelist_signer(authority: TestAuthority) -> PemPair:
    """The ORG SIGN of the signed list (K.5)."""
    return _issued(authority, Profile.ORG_SIGN, "liste-blanche", WHITELIST_SIGNER, AGENCY)


def subject_of(pair: PemPair) -> str:
    """The subject DN, ``CN=...,OU=...,O=...,ST=...,C=FR``."""
    return _leaf(pair).subject.rfc4514_string()


def _issued(
    authority: TestAuthority,
    profile: Profile,
    name: str,
    common_name: str,
    holder: tuple[str, str],
    place: str = "Paris (75)",
    hosts: Sequence[str] = (),
) -> PemPair:
    """The pair of that name, made again when what is there is for somebody else, or about to expire."""
    unit, organisation = holder

    def issue() -> PemPair:
        return authority.issue(
            profile, name, common_name=common_name, unit=unit, organisation=organisation, place=place, hosts=hosts
        )

    pair = issue()
    leaf = _leaf(pair)
    wanted = {
        NameOID.COMMON_NAME: common_name,
        NameOID.ORGANIZATIONAL_UNIT_NAME: unit,
        NameOID.ORGANIZATION_NAME: organisation,
        NameOID.STATE_OR_PROVINCE_NAME: place,
        NameOID.COUNTRY_NAME: "FR",
    }
    same = {attribute.oid: attribute.value for attribute in leaf.subject} == wanted and _hosts(leaf) == set(hosts)
    if same and leaf.not_valid_after_utc - dt.datetime.now(dt.UTC) > RENEWAL:
        return pair
    pair.certificate.unlink()
    pair.key.unlink()
    return issue()


def _hosts(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in names}


def _leaf(pair: PemPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes())

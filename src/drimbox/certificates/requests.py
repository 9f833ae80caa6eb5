"""New keys, and the requests (CSR, PKCS#10) that a market authority is asked with: one name, nothing else."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from drimbox.certificates.rules import Rules, RulesBroken, host_breaches, request_breaches
from drimbox.trust.keystore import PrivateKey

KEY_KINDS = ("P-256", "P-384", "RSA-2048", "RSA-3072", "RSA-4096")

OV_ORDER = (
    "le nom exact du serveur, donné par l'agence ; une seule demande, sans autre nom (SAN) et sans générique (*)",
    "la raison sociale, l'adresse et le numéro SIREN de l'établissement, tels qu'au répertoire Sirene",
    "un contact administratif joignable par le standard public de l'établissement : l'autorité le rappelle",
    "un contact technique, qui reçoit le certificat et sa chaîne",
    "la preuve du contrôle du domaine : l'agence tient le DNS (mesimagesmedicales.fr), choisissez la preuve par "
    "fichier HTTP sur le port 80, ou par courriel de l'agence",
    "un accord CAA : si le DNS de l'agence limite les autorités, la vôtre doit y être",
    "la possibilité de révoquer soi-même, à toute heure : demandez à l'autorité par quel moyen",
    "la chaîne complète (certificats intermédiaires) avec le certificat, au format PEM",
    "le calendrier : comptez plusieurs jours de vérifications, et commandez au plus tard un mois avant l'expiration",
)


def new_key(kind: str) -> PrivateKey:
    """A fresh key of one of ``KEY_KINDS``."""
    if kind.startswith("RSA-"):
        return rsa.generate_private_key(public_exponent=65537, key_size=int(kind.removeprefix("RSA-")))
    return ec.generate_private_key(ec.SECP384R1() if kind == "P-384" else ec.SECP256R1())


def signing_request(key: PrivateKey, rules: Rules, organisation: str = "") -> x509.CertificateSigningRequest:
    """The request for the host of ``rules``; ``organisation`` (an OV order) stands in the subject with the country.

    Raises ``RulesBroken`` before anything that the programme forbids is asked for.
    """
    if broken := host_breaches(rules.host):
        raise RulesBroken(broken)
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, rules.host)] if len(rules.host) <= 64 else []
    if organisation:
        subject = [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "FR"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation[:64]),
            *subject,
        ]
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name(subject))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(rules.host)]), critical=False)
        .sign(
            key,
            hashes.SHA384() if isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size > 256 else hashes.SHA256(),
        )
    )
    if breaches := request_breaches(request, rules):
        raise RulesBroken(breaches)
    return request

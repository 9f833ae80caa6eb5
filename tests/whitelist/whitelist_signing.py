"""Makes whitelists and signs them with xmlsec: another hand than the one that verifies."""

import base64
import datetime as dt
import hashlib
from dataclasses import dataclass, replace

import xmlsec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from drimbox.sandbox.pki import PemPair, Profile, TestAuthority

SIGNER_CN, SIGNER_OU = "Liste Blanche DRIM-M", "318751275100020"
NAMESPACE = "https://github.com/ansforge/DRIM-M_DATA"

FILTER2 = (
    '<ds:Transform Algorithm="http://www.w3.org/2002/06/xmldsig-filter2"><f:XPath '
    'xmlns:f="http://www.w3.org/2002/06/xmldsig-filter2" Filter="subtract">/descendant::ds:Signature</f:XPath>'
    "</ds:Transform>"
)
ENVELOPED = '<ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/>'
EXCLUSIVE = '<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>'
SHA256 = "http://www.w3.org/2001/04/xmlenc#sha256"
PROPERTIES = "http://uri.etsi.org/01903#SignedProperties"


@dataclass(frozen=True)
class Signing:
    """How to sign; each test turns one screw."""

    pair: PemPair
    transforms: str = FILTER2 + EXCLUSIVE
    method: str = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
    digest: str = SHA256
    canonicalisation: str = "http://www.w3.org/2001/10/xml-exc-c14n#"
    version: str = "V2"
    named: PemPair | None = None
    whole: bool = True
    properties_type: str = PROPERTIES
    at: str = "2026-01-05T06:00:00Z"

    def but(self, **changes: object) -> "Signing":
        return replace(self, **changes)  # type: ignore[arg-type]


def domain(number: str, host: str, dn: str) -> str:
    return (
        f"<Domaine>\n\t<Identifiant>{number}</Identifiant><db>{host}</db>\n    <vi>vi{host[2:]}</vi>"
        f"<Denomination>Éditeur {number}</Denomination><DNCertificatOperateur>{dn}</DNCertificatOperateur>"
        "<SupportContact>a@b.fr</SupportContact><DateMAJ>2026-01-01T00:00:00Z</DateMAJ></Domaine>"
    )


def content(*domains: str, namespace: str = NAMESPACE, generated: str = "2026-01-05T05:00:00Z") -> str:
    return (
        f'<ListeBlancheDRIM-M xmlns="{namespace}" versionFormat="1.0.0">\n'
        f"  <DateDeGeneration>{generated}</DateDeGeneration><!-- main -->\n"
        f"  <ListeDomaines>{''.join(domains)}</ListeDomaines>\n</ListeBlancheDRIM-M>"
    )


def signed(text: str, how: Signing) -> bytes:
    """The document with its signature at the end, made by xmlsec."""
    root = etree.fromstring(text.encode())
    root.append(etree.fromstring(_template(how)))
    signature = root[-1]
    signature.tail = "\n"
    context = xmlsec.SignatureContext()
    properties = signature.find(".//{http://uri.etsi.org/01903/v1.3.2#}SignedProperties")
    context.register_id(properties, "Id")
    context.key = xmlsec.Key.from_file(str(how.pair.key), xmlsec.KeyFormat.PEM)
    context.sign(signature)
    return etree.tostring(root.getroottree(), encoding="UTF-8", xml_declaration=True, standalone=False)


def _template(how: Signing) -> str:
    certificates = x509.load_pem_x509_certificates(how.pair.certificate.read_bytes())
    named = x509.load_pem_x509_certificate((how.named or how.pair).certificate.read_bytes())
    ders = [base64.b64encode(c.public_bytes(Encoding.DER)).decode() for c in certificates]
    digest = base64.b64encode(hashlib.sha512(named.public_bytes(Encoding.DER)).digest()).decode()
    whole = (
        f'<ds:Reference Id="r" URI=""><ds:Transforms>{how.transforms}</ds:Transforms>'
        f'<ds:DigestMethod Algorithm="{how.digest}"/><ds:DigestValue/></ds:Reference>'
    )
    return f"""<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#" Id="sig"><ds:SignedInfo>
<ds:CanonicalizationMethod Algorithm="{how.canonicalisation}"/><ds:SignatureMethod Algorithm="{how.method}"/>
{whole if how.whole else ""}<ds:Reference Type="{how.properties_type}" URI="#props"><ds:Transforms>{EXCLUSIVE}
</ds:Transforms><ds:DigestMethod Algorithm="{SHA256}"/><ds:DigestValue/></ds:Reference></ds:SignedInfo>
<ds:SignatureValue/><ds:KeyInfo><ds:X509Data>{"".join(f"<ds:X509Certificate>{d}</ds:X509Certificate>" for d in ders)}
</ds:X509Data></ds:KeyInfo><ds:Object><xades:QualifyingProperties xmlns:xades="http://uri.etsi.org/01903/v1.3.2#"
 Target="#sig"><xades:SignedProperties Id="props"><xades:SignedSignatureProperties>
<xades:SigningTime>{how.at}</xades:SigningTime><xades:SigningCertificate{how.version}><xades:Cert><xades:CertDigest>
<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha512"/><ds:DigestValue>{digest}</ds:DigestValue>
</xades:CertDigest></xades:Cert></xades:SigningCertificate{how.version}></xades:SignedSignatureProperties>
</xades:SignedProperties></xades:QualifyingProperties></ds:Object></ds:Signature>"""


def signer(
    pki: TestAuthority,
    name: str = "signer",
    *,
    profile: Profile = Profile.ORG_SIGN,
    common_name: str = SIGNER_CN,
    unit: str = SIGNER_OU,
    days: tuple[int, int] = (-1, 365),
) -> PemPair:
    now = dt.datetime.now(dt.UTC)
    return pki.issue(
        profile,
        name,
        common_name=common_name,
        unit=unit,
        organisation="AGENCE DU NUMERIQUE EN SANTE",
        not_before=now + dt.timedelta(days=days[0]),
        not_after=now + dt.timedelta(days=days[1]),
    )

"""Rules of the door: the TLS client certificate (standards.md K; EX_AIR-080)."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509

from drimbox.sandbox.dmp import certificates
from drimbox.sandbox.dmp import vocabulary as v
from drimbox.sandbox.dmp.bench import Bench
from drimbox.sandbox.dmp.rules import Rule, rule, stated

no_certificate = stated(
    "TLS.CERTIFICATE", v.FAILED_AUTHENTICATION, "The connection is mutually authenticated (EX_AIR-080)."
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who opened the connection."""

    bench: Bench
    der: bytes | None

    @property
    def certificate(self) -> x509.Certificate | None:
        return certificates.read_certificate(self.der) if self.der else None

    @property
    def unit(self) -> str:
        certificate = self.certificate
        return certificates.unit(certificate) if certificate is not None else ""

    def proved(self) -> x509.Certificate:
        certificate = self.certificate
        assert certificate is not None
        return certificate


@rule("TLS.CHAIN", v.FAILED_AUTHENTICATION)
def chain(caller: Caller) -> str | None:
    """The certificate chains to IGC-Sante, is in its period and not revoked (standards.md K; EX_AIR-080)."""
    error = certificates.chain_error(caller.proved(), caller.bench.anchors, caller.bench.now)
    return f"certificat client : {error}" if error else None


@rule("TLS.PROFILE", v.FAILED_AUTHENTICATION)
def profile(caller: Caller) -> str | None:
    """It is an ORG AUTH_CLI certificate: client authentication, a structure as OU (standards.md K.1, K.2)."""
    error = certificates.auth_profile_error(caller.proved())
    return f"certificat client, profil ORG AUTH_CLI : {error}" if error else None


@rule("TLS.STRUCTURE", v.FAILED_AUTHENTICATION)
def structure(caller: Caller) -> str | None:
    """The OU is a structure that the DMP knows and lets in (standards.md D.8, K.1)."""
    known = caller.bench.structure(caller.unit)
    return None if known is not None and known.allowed else "structure du certificat inconnue du DMP, ou non autorisée"


DOOR_RULES: tuple[Rule[Caller], ...] = (chain, profile, structure)

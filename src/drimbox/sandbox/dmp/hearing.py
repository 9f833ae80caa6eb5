"""A request that has passed the door: who asks, in whose name, and what (the message)."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509

from drimbox.sandbox.dmp import certificates
from drimbox.sandbox.dmp.bench import Authorisation, Bench
from drimbox.sandbox.dmp.soap import Message
from drimbox.sandbox.dmp.vihf import Vihf


@dataclass(frozen=True, slots=True)
class Hearing:
    """One request under judgement."""

    bench: Bench
    message: Message
    vihf: Vihf
    transport: x509.Certificate

    @property
    def unit(self) -> str:
        """The OU of the certificate of the connection."""
        return certificates.unit(self.transport)

    def authorisation(self) -> Authorisation:
        """What this professional may do in the DMP of this patient."""
        told = self.bench.store.authorisation(self.vihf.patient, self.vihf.name_id)
        if told is not None:
            return Authorisation(told)
        known = self.bench.patient(self.vihf.patient)
        standing = known.authorisations if known is not None else {}
        return standing.get(self.vihf.name_id, Authorisation.ABSENT)

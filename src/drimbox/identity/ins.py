"""The national health identity: matricule, key, and the authority that gave it (standards.md J)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from drimbox.foundation.errors import Refused

_MATRICULE = re.compile(r"[0-9]{5}[0-9][0-9AB][0-9]{6}[0-9]{2}")


class Authority(Enum):
    """The assigning authorities of an INS, by OID; (OID, HL7 namespace, range)."""

    NIR = ("1.2.250.1.213.1.4.8", "ASIP-SANTE-INS-NIR", "production")
    NIA = ("1.2.250.1.213.1.4.9", "ASIP-SANTE-INS-NIA", "production")
    NIR_TEST = ("1.2.250.1.213.1.4.10", "ASIP-SANTE-INS-NIR", "test")
    NIR_DEMO = ("1.2.250.1.213.1.4.11", "ASIP-SANTE-INS-NIR", "test")

    @property
    def oid(self) -> str:
        return self.value[0]

    @property
    def namespace(self) -> str:
        return self.value[1]

    @property
    def range(self) -> str:
        """``production`` or ``test``: the two never mix in one box."""
        return self.value[2]

    @staticmethod
    def of(oid: str) -> Authority | None:
        return next((a for a in Authority if a.oid == oid), None)


@dataclass(frozen=True, slots=True)
class Ins:
    """A well-formed INS: 15 characters whose key is right, under a known authority. Build it with ``Ins.of``."""

    matricule: str
    authority: Authority

    @staticmethod
    def of(matricule: str, oid: str) -> Ins:
        """Raises ``Refused`` (``ins-oid``, ``ins-format``, ``ins-key``); the message never repeats the value."""
        authority = Authority.of(oid.strip())
        if authority is None:
            raise Refused("OID de l'INS inconnu", code="ins-oid")
        cleaned = matricule.strip().upper()
        if not _MATRICULE.fullmatch(cleaned):
            raise Refused(
                "Matricule INS mal formé (13 caractères et une clé de 2 chiffres attendus)", code="ins-format"
            )
        if key(cleaned[:13]) != cleaned[13:]:
            raise Refused("Clé du matricule INS fausse", code="ins-key")
        return Ins(cleaned, authority)

    @property
    def oid(self) -> str:
        return self.authority.oid

    def cx(self) -> str:
        """The XDS and VIHF form ``<matricule>^^^&<oid>&ISO^NH``."""
        return f"{self.matricule}^^^&{self.oid}&ISO^NH"

    def __repr__(self) -> str:
        # Health data: a stray log line or traceback must not show it.
        return f"Ins(…, {self.authority.name})"


def key(thirteen: str) -> str:
    """The two-digit key of a 13-character NIR or NIA: 97 - N mod 97, with 2A read as 19 and 2B as 18."""
    department = {"2A": "19", "2B": "18"}.get(thirteen[5:7], thirteen[5:7])
    digits = thirteen[:5] + department + thirteen[7:]
    if not digits.isdigit():
        raise Refused("Matricule INS mal formé", code="ins-format")
    return f"{97 - int(digits) % 97:02d}"

"""Who acts at the DMP, with which software, at which addresses."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Final, Literal, get_args

from drimbox.foundation.clock import iso_utc
from drimbox.foundation.errors import Refused
from drimbox.reports.report import Coded
from drimbox.trust.keystore import Credential

# ``Authentification_Mode`` of the VIHF: who vouches for the user (standards.md E).
Mode = Literal["INDIRECTE", "INDIRECTE_RENFORCEE"]
INDIRECT: Final = "INDIRECTE"  # the structure alone: feeding, and TD3.1b
REINFORCED: Final = "INDIRECTE_RENFORCEE"  # the user proved by PSC: consultation too (AIR)


@dataclass(frozen=True, slots=True)
class VihfIdentity:
    """The professional for whom the box acts, as the VIHF says it; kept with each publication (ans-faq.md 3.2).

    ``subject_id`` is PS_IdNat (``8`` + RPPS), ``subject_name`` given then family name, ``structure_id`` Struct_IdNat,
    ``sector`` a code of 1.2.250.1.71.4.2.4 (``SA05``), ``authn_context`` a SAML AuthnContextClassRef.
    """

    subject_id: str
    subject_name: str
    profession: Coded
    speciality: Coded | None
    structure_id: str
    structure_name: str
    sector: str
    mode: Mode
    authenticated_at: dt.datetime
    authn_context: str

    def to_json(self) -> dict[str, object]:
        """A value for a JSON column; ``from_json`` gives back an equal identity."""
        return {
            **asdict(self),
            "authenticated_at": self.authenticated_at.astimezone(dt.UTC).isoformat(),
        }

    @staticmethod
    def from_json(value: Mapping[str, object]) -> VihfIdentity:
        """Raises ``Refused`` (``vihf-identity``) for anything that ``to_json`` did not write."""
        try:
            speciality = value["speciality"]
            return VihfIdentity(
                subject_id=_text(value, "subject_id"),
                subject_name=_text(value, "subject_name"),
                profession=_coded(value["profession"]),
                speciality=None if speciality is None else _coded(speciality),
                structure_id=_text(value, "structure_id"),
                structure_name=_text(value, "structure_name"),
                sector=_text(value, "sector"),
                mode=_mode(_text(value, "mode")),
                authenticated_at=dt.datetime.fromisoformat(_text(value, "authenticated_at")),
                authn_context=_text(value, "authn_context"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Refused("Identité VIHF archivée illisible", code="vihf-identity") from error

    def authn_instant(self) -> str:
        """``AuthnInstant``: when the user logged in, xs:dateTime in UTC."""
        return iso_utc(self.authenticated_at)


@dataclass(frozen=True, slots=True)
class Software:
    """What the VIHF says of this product (``LPS_*``); ``installation_id`` may be empty, the other three may not."""

    name: str
    version: str
    homologation_number: str
    installation_id: str = ""


@dataclass(frozen=True, slots=True)
class DmpEndpoints:
    """Addresses of the four services of the DMP (standards.md D.1)."""

    repository: str
    registry: str
    patients: str
    habilitations: str


@dataclass(frozen=True, slots=True)
class Actor:
    """One identity with the certificates that go with it: TLS by ORG AUTH_CLI, signatures by ORG SIGN.

    ``secret_connection`` hides the access from a minor's legal representatives (VIHF confidentiality-code).
    ``bearer`` gives the token that goes beside the VIHF (API PSC, standards.md F.5); None where the VIHF is enough.
    ``emergency`` is the reason of an emergency access (*bris de glace*, standards.md E); empty for the normal one.
    """

    identity: VihfIdentity
    tls: ssl.SSLContext
    sign: Credential
    secret_connection: bool = False
    emergency: str = ""
    bearer: Callable[[], Awaitable[str]] | None = field(default=None, repr=False, compare=False)


def _text(value: Mapping[str, object], name: str) -> str:
    found = value[name]
    if not isinstance(found, str):
        raise TypeError(name)
    return found


def _mode(value: str) -> Mode:
    for mode in get_args(Mode):
        if value == mode:
            return mode  # type: ignore[no-any-return]
    raise ValueError(value)


def _coded(value: object) -> Coded:
    if not isinstance(value, Mapping):
        raise TypeError("code")
    return Coded(_text(value, "code"), _text(value, "system"), _text(value, "label"))

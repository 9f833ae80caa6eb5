"""How a market certificate is told to people, on the pages and on the command line."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from drimbox.certificates.accounts import Authority
from drimbox.certificates.acts import REASONS, State
from drimbox.certificates.keeper import renewal_of
from drimbox.certificates.records import Installed
from drimbox.certificates.rules import level_of
from drimbox.foundation.clock import PARIS
from drimbox.trust.names import written


def status(one: Installed, now: dt.datetime) -> str:
    """``en service``, ``révoqué``, ``expiré``, ``remplacé``."""
    if one.revoked_at is not None:
        return "révoqué"
    if now > one.not_after:
        return "expiré"
    return "remplacé" if one.replaced_at is not None else "en service"


def origin(one: Installed, authorities: Sequence[Authority]) -> str:
    """Where it comes from: the authority's name as configured, else who signed it."""
    known = next((a.name for a in authorities if one.directory and a.directory == one.directory), "")
    return known or issuer(one.leaf)


def issuer(leaf: x509.Certificate) -> str:
    names = leaf.issuer.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    names = [*names, *leaf.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return ", ".join(str(name.value) for name in names) or written(leaf.issuer)


def serial(one: Installed) -> str:
    return f"{one.leaf.serial_number:x}"


def fingerprint(one: Installed) -> str:
    """SHA-256, as browsers show it."""
    return one.leaf.fingerprint(hashes.SHA256()).hex(":").upper()


def level(one: Installed) -> str:
    return level_of(one.leaf) or "non dit"


def renewal(one: Installed, *, automatic: bool) -> str:
    """When it is renewed, and who says so."""
    at = renewal_of(one).astimezone(PARIS)
    if not automatic:
        return f"à la main, à partir du {at:%d/%m/%Y}"
    if one.window is not None:
        why = f" : {one.window.why}" if one.window.why else ""
        return f"le {at:%d/%m/%Y à %H:%M}, dans la fenêtre que l'autorité indique{why}"
    return f"le {at:%d/%m/%Y à %H:%M}, avant les deux tiers de sa durée"


def reason(code: str) -> str:
    return REASONS[code][1] if code in REASONS else code


def listing(state: State, authorities: Sequence[Authority], now: dt.datetime) -> list[str]:
    """Every certificate, newest first, one line each; then what is under way."""
    lines = []
    for one in state.certificates:
        told = status(one, now)
        lines.append(
            f"{one.id:>4}  {told:<11} jusqu'au {one.not_after.astimezone(PARIS):%d/%m/%Y %H:%M}  {one.host}  "
            f"{origin(one, authorities)}  série {serial(one)}"
        )
        if told == "en service":
            lines.append(f"      renouvellement {renewal(one, automatic=bool(authorities))}")
        elif one.reason:
            lines.append(f"      motif de la révocation : {reason(one.reason)}")
    if not lines:
        lines.append("Aucun certificat n'a été installé.")
    for asked in state.requests:
        lines.append(f"Demande n° {asked.id} du {asked.created_at.astimezone(PARIS):%d/%m/%Y} : attend son certificat.")
    if state.order is not None:
        lines.append("Une commande est en cours.")
    if state.plan.tried_at is not None:
        lines.append(f"Dernier essai le {state.plan.tried_at.astimezone(PARIS):%d/%m/%Y %H:%M} : {state.plan.outcome}")
    return lines

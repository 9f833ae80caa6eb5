"""The inventory: every pair with its site, its use and its end, like the list that the agency mails out."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from drimbox.foundation.clock import PARIS, iso_utc
from drimbox.keyring.keeper import Candidate, Standing
from drimbox.record.words import row
from drimbox.trust import names
from drimbox.trust.fitness import range_of

State = Literal["en service", "refusée", "absente"]
_COLUMNS = (
    ("site", "Site"),
    ("unit", "Structure (OU)"),
    ("use", "Usage"),
    ("state", "État"),
    ("not_after", "Fin de validité"),
    ("days_left", "Jours restants"),
    ("subject", "Sujet (DN)"),
    ("issuer", "Émetteur"),
    ("range", "Gamme"),
    ("serial", "Numéro de série"),
    ("sha256", "Empreinte SHA-256"),
    ("not_before", "Début de validité"),
    ("kind", "Provenance"),
    ("place", "Réglage"),
    ("problem", "Motif"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One pair at one place. Where there is none, the fields of the certificate are empty and ``problem`` says why."""

    site: str
    use: str
    place: str
    kind: str
    state: State
    problem: str = ""
    unit: str = ""
    subject: str = ""
    issuer: str = ""
    range: str = ""
    serial: str = ""
    sha256: str = ""
    not_before: dt.datetime | None = None
    not_after: dt.datetime | None = None
    days_left: int | None = None


def lines(standings: Iterable[Standing], now: dt.datetime) -> tuple[Line, ...]:
    """The pairs in service first at each place, then those that were brought there and refused."""
    return tuple(line for standing in standings for line in _of(standing, now))


def line_of(
    certificate: x509.Certificate,
    chain: Sequence[x509.Certificate],
    *,
    site: str,
    use: str,
    place: str,
    kind: str,
    now: dt.datetime,
    state: State = "en service",
    problem: str = "",
) -> Line:
    """One line about a certificate."""
    units = [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)]
    return Line(
        site=site,
        use=use,
        place=place,
        kind=kind,
        state=state,
        problem=problem,
        unit=", ".join(units),
        subject=names.written(certificate.subject),
        issuer=names.written(certificate.issuer),
        range=range_of((certificate, *chain)) or "",
        serial=f"{certificate.serial_number:x}",
        sha256=fingerprint(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        days_left=days_left(certificate, now),
    )


def days_left(certificate: x509.Certificate, now: dt.datetime) -> int:
    """Whole days until its end; negative past it."""
    return (certificate.not_valid_after_utc - now).days


def fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


def as_json(found: Sequence[Line]) -> str:
    return json.dumps(
        [{name: _plain(getattr(line, name)) for name, _ in _COLUMNS} for line in found], indent=2, ensure_ascii=False
    )


def as_csv(found: Sequence[Line]) -> str:
    """For a spreadsheet: semicolons, and a byte order mark so that it is read as UTF-8."""
    rows = [tuple(label for _, label in _COLUMNS)]
    rows += [tuple(_shown(getattr(line, name)) for name, _ in _COLUMNS) for line in found]
    return "\ufeff" + b"".join(map(row, rows)).decode("utf-8")


def as_text(found: Sequence[Line]) -> str:
    """For a terminal."""
    told = []
    for line in found:
        until = f"jusqu'au {line.not_after.astimezone(PARIS):%d/%m/%Y}" if line.not_after else "sans date"
        left = f" ({line.days_left} jours)" if line.days_left is not None else ""
        told.append(f"{line.site} : {line.use}, {line.state}, {until}{left}")
        told.append(f"    {line.subject or '-'} [{line.kind}, {line.place}]")
        if line.problem:
            told.append(f"    {line.problem}")
    return "\n".join(told)


def _of(standing: Standing, now: dt.datetime) -> Iterable[Line]:
    place = standing.place
    if standing.pair is not None:
        kind = "installée" if standing.origin == "installed" else place.source.kind
        yield line_of(
            standing.pair.certificate,
            standing.pair.chain,
            site=place.site,
            use=place.use,
            place=place.name,
            kind=kind,
            now=now,
            problem=next((c.problem for c in standing.refused if _in_service(c, standing)), ""),
        )
    elif not any(candidate.credential for candidate in standing.refused):
        yield Line(place.site, place.use, place.name, place.source.kind, "absente", standing.problem)
    for candidate in standing.refused:
        if candidate.credential is not None and not _in_service(candidate, standing):
            yield line_of(
                candidate.credential.certificate,
                candidate.credential.chain,
                site=place.site,
                use=place.use,
                place=place.name,
                kind="installée" if candidate.origin == "installed" else place.source.kind,
                now=now,
                state="refusée",
                problem=candidate.problem,
            )


def _in_service(candidate: Candidate, standing: Standing) -> bool:
    return (
        standing.pair is not None
        and candidate.credential is not None
        and candidate.credential.certificate == standing.pair.certificate
    )


def _plain(value: object) -> object:
    return iso_utc(value) if isinstance(value, dt.datetime) else value


def _shown(value: object) -> str:
    if isinstance(value, dt.datetime):
        return f"{value.astimezone(PARIS):%d/%m/%Y %H:%M}"
    return "" if value is None else str(value)

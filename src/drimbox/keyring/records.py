"""Rows: pairs that were installed in the box itself, their keys sealed, and the reminders that were given."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from drimbox.store.database import Connection


@dataclass(frozen=True, slots=True)
class Installed:
    """A pair that was installed at a place; ``key`` is sealed."""

    id: int
    place: str
    certificates: tuple[x509.Certificate, ...]
    key: bytes = field(repr=False)
    installed_at: dt.datetime
    installed_by: str


async def installed(connection: Connection) -> Mapping[str, Installed]:
    """The pair that stands installed at each place that has one."""
    rows = await (await connection.execute("SELECT * FROM installed_pair WHERE removed_at IS NULL")).fetchall()
    return {row["place"]: _installed(row) for row in rows}


async def install(
    connection: Connection,
    place: str,
    certificates: Sequence[x509.Certificate],
    key: bytes,
    by: str,
    now: dt.datetime,
) -> int:
    """A pair takes the place of the one installed before. Call it in a transaction; returns its number."""
    await remove(connection, place, by, now)
    row = await (
        await connection.execute(
            "INSERT INTO installed_pair (place, chain, key, not_before, not_after, installed_at, installed_by) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id",
            (
                place,
                b"".join(c.public_bytes(Encoding.PEM) for c in certificates).decode("ascii"),
                key,
                certificates[0].not_valid_before_utc,
                certificates[0].not_valid_after_utc,
                now,
                by,
            ),
        )
    ).fetchone()
    assert row is not None
    return int(row["id"])


async def remove(connection: Connection, place: str, by: str, now: dt.datetime) -> bool:
    """Take the installed pair out of its place, its key forgotten; was there one?"""
    done = await connection.execute(
        "UPDATE installed_pair SET removed_at = %s, removed_by = %s, key = '' WHERE place = %s AND removed_at IS NULL",
        (now, by, place),
    )
    return done.rowcount > 0


async def remind(connection: Connection, certificate: str, place: str, days: Sequence[int], now: dt.datetime) -> bool:
    """Note that these delays of a certificate (its fingerprint) are reached; True when the last one was not yet."""
    given: set[int] = set()
    for delay in days:
        row = await (
            await connection.execute(
                "INSERT INTO key_reminder (certificate, place, days, told_at) VALUES (%s, %s, %s, %s) "
                "ON CONFLICT DO NOTHING RETURNING days",
                (certificate, place, delay, now),
            )
        ).fetchone()
        if row is not None:
            given.add(row["days"])
    return bool(days) and min(days) in given


def _installed(row: dict[str, Any]) -> Installed:
    return Installed(
        row["id"],
        row["place"],
        tuple(x509.load_pem_x509_certificates(row["chain"].encode("ascii"))),
        bytes(row["key"]),
        row["installed_at"],
        row["installed_by"],
    )

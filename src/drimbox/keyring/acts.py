"""What an administrator does with the pairs of the box; each act is in the audit journal."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509

from drimbox.foundation.clock import PARIS, Clock
from drimbox.foundation.errors import Misconfigured, Refused
from drimbox.keyring import records
from drimbox.keyring.inventory import Line, lines
from drimbox.keyring.keeper import Keyring, Standing, purpose
from drimbox.publication.ports import AuditJournal
from drimbox.record.audit import Actor, Event, Kind, Object, Outcome, Thing
from drimbox.store.database import Connection, Pool
from drimbox.trust.fitness import fitting
from drimbox.trust.keystore import UNREADABLE, Credential, assembled, matches, parse_key, pkcs12_pair
from drimbox.trust.token import TokenKey
from drimbox.trust.vault import Vault

MAX_BYTES = 256 * 2**10


class PairRefused(Refused):
    """What was asked cannot be done."""

    def __init__(self, reason: str, code: str = "key-impossible") -> None:
        super().__init__(reason, code=code)


@dataclass(frozen=True, slots=True)
class KeyActs:
    """The acts. Each gives one French sentence that says what was done, or raises ``DrimboxError``."""

    pool: Pool
    keyring: Keyring
    vault: Vault = field(repr=False)
    clock: Clock
    journal: AuditJournal

    async def look(self) -> None:
        """Take in what was installed or replaced since, by any node."""
        async with self.pool.connection() as connection:
            found = await records.installed(connection)
        await self.keyring.refresh(found, self.vault)

    async def inventory(self) -> tuple[Line, ...]:
        """Every pair, as it stands now."""
        await self.look()
        return lines(self.keyring.standings, self.clock.now())

    async def install(self, place: str, pair: Credential, by: Actor) -> str:
        """Put a pair at a place, sealed; every node takes it in within seconds.

        Raises ``Unfit`` with every rule that it breaks, ``PairRefused`` for one issued before the one in service.
        """
        standing = self._standing(place)
        who = Object(Thing.SYSTEM, f"certificate:{pair.certificate.serial_number:x}", f"installed at {place}")
        if isinstance(pair.key, TokenKey):
            raise PairRefused("La clé d'un jeton ne s'installe pas : nommez le jeton dans la configuration")
        try:
            fit = fitting(pair, standing.place.demand(), self.clock.now())
            _not_older(fit, standing)
        except (Misconfigured, PairRefused) as error:
            await self._trace(None, by, who, error)
            raise
        sealed = self.vault.seal(pair.key, purpose(place))
        name = by.name or by.person or by.system
        async with self.pool.connection() as connection, connection.transaction():
            await records.install(connection, place, (fit.certificate, *fit.chain), sealed, name, self.clock.now())
            await self._trace(connection, by, who)
        await self.look()
        return f"Paire installée ({place}), valable jusqu'au {fit.expires_at.astimezone(PARIS):%d/%m/%Y}."

    async def remove(self, place: str, by: Actor) -> str:
        """Take the installed pair out again; that of the files serves, where it fits."""
        standing = self._standing(place)
        async with self.pool.connection() as connection, connection.transaction():
            name = by.name or by.person or by.system
            if not await records.remove(connection, place, name, self.clock.now()):
                raise PairRefused("Aucune paire n'est installée à cet endroit", "key-unknown")
            await self._trace(connection, by, Object(Thing.SYSTEM, place, "installed pair removed"))
        await self.look()
        left = self._standing(place)
        if left.origin == "installed" and standing.pair is left.pair:
            return "Paire retirée ; celle des fichiers ne convient pas : la paire retirée sert jusqu'au redémarrage."
        return "Paire retirée ; celle des fichiers sert désormais."

    def _standing(self, place: str) -> Standing:
        if place not in [known.name for known in self.keyring.places]:
            known = ", ".join(one.name for one in self.keyring.places)
            raise PairRefused(f"Aucun endroit de ce nom dans la configuration ; connus : {known}", "key-unknown")
        return self.keyring.standing(place)

    async def _trace(
        self, connection: Connection | None, by: Actor, what: Object, error: Misconfigured | PairRefused | None = None
    ) -> None:
        event = Event(
            Kind.CONFIGURATION_CHANGED,
            by,
            (what,),
            outcome=Outcome.SUCCESS if error is None else Outcome.MINOR_FAILURE,
            outcome_text=error.reason[:500] if error is not None else "",
        )
        await self.journal.write(connection, event)


def pair_of(data: bytes, key: bytes | None, password: bytes | None) -> Credential:
    """A pair as it was brought: PKCS#12, or PEM with its key apart or in the same file.

    Raises ``Misconfigured`` (``credential``); nothing of what was brought is in what is raised.
    """
    if len(data) > MAX_BYTES or (key is not None and len(key) > MAX_BYTES):
        raise Misconfigured("Fichier trop gros pour être une paire", code="credential")
    if b"-----BEGIN" not in data:
        return pkcs12_pair(data, password, "reçu")
    try:
        certificates = x509.load_pem_x509_certificates(data)
        _ = [(c.subject, c.issuer, c.public_key()) for c in certificates]
    except UNREADABLE:
        raise Misconfigured(
            "Le fichier reçu ne contient pas de certificat lisible (PEM ou PKCS#12)", code="credential"
        ) from None
    pair = assembled(certificates, parse_key(key if key is not None else data, password, "reçue"), "reçu")
    if not matches(pair):
        raise Misconfigured(
            "La clé privée n'est pas celle du certificat. Donnez les deux de la même paire", code="credential"
        )
    return pair


def _not_older(pair: Credential, standing: Standing) -> None:
    current = standing.pair
    if current is None or pair.certificate.not_valid_before_utc >= current.certificate.not_valid_before_utc:
        return
    issued = current.certificate.not_valid_before_utc.astimezone(PARIS)
    raise PairRefused(
        f"Une paire émise plus tard (le {issued:%d/%m/%Y}) est en service : elle le resterait. Retirez-la d'abord",
        "key-older",
    )

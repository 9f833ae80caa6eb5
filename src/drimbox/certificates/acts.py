"""What an administrator does, from the console and from the command line; each act is in the audit journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from drimbox.certificates import accounts, records, trouble
from drimbox.certificates.accounts import Authority
from drimbox.certificates.acme.client import AcmeClient
from drimbox.certificates.keeper import certificate_object
from drimbox.certificates.ordering import purpose
from drimbox.certificates.records import Installed, KeptAccount, KeptOrder, Plan
from drimbox.certificates.requests import new_key, signing_request
from drimbox.certificates.rules import Rules, check
from drimbox.foundation.clock import PARIS, Clock
from drimbox.foundation.errors import DrimboxError, Refused
from drimbox.publication.incidents import Incidents
from drimbox.publication.ports import AuditJournal
from drimbox.record.audit import Actor, Event, Object, Outcome, Thing
from drimbox.record.audit import Kind as Audited
from drimbox.store.database import Connection, Pool, single
from drimbox.trust.keystore import UNREADABLE, PrivateKey
from drimbox.trust.vault import Vault

# CRLReason (RFC 5280 5.3.1), those that the holder of a market certificate may give (RFC 8555 7.6).
REASONS = {
    "unspecified": (0, "sans motif particulier"),
    "key-compromise": (1, "clé compromise"),
    "affiliation-changed": (3, "l'établissement a changé"),
    "superseded": (4, "remplacé"),
    "cessation": (5, "le serveur n'est plus en service"),
}
MAX_PEM = 256 * 2**10


class CertificateRefused(Refused):
    """What was asked cannot be done."""

    def __init__(self, reason: str, code: str = "market-impossible") -> None:
        super().__init__(reason, code=code)


@dataclass(frozen=True, slots=True)
class State:
    """What is known of the market certificate, for those who look at it."""

    current: Installed | None
    plan: Plan
    order: KeptOrder | None
    requests: tuple[KeptOrder, ...]
    certificates: tuple[Installed, ...]
    accounts: tuple[KeptAccount, ...]


@dataclass(frozen=True, slots=True)
class CertificateActs:
    """The acts. Each gives one French sentence that says what was done, or raises ``DrimboxError``."""

    pool: Pool
    rules: Rules
    vault: Vault = field(repr=False)
    clock: Clock
    journal: AuditJournal
    incidents: Incidents
    authorities: Sequence[Authority] = ()

    @property
    def host(self) -> str:
        return self.rules.host

    async def state(self) -> State:
        async with self.pool.connection() as connection:
            return State(
                await records.current(connection, self.host),
                await records.plan(connection, self.host),
                await records.open_order(connection, self.host),
                await records.open_requests(connection, self.host),
                await records.certificates(connection),
                await records.accounts(connection),
            )

    async def order(self, by: Actor) -> str:
        """Have the first certificate ordered; one that is valid is left alone."""
        async with self.pool.connection() as connection:
            current = await records.current(connection, self.host)
        if current is not None and current.revoked_at is None and self.clock.now() < current.not_after:
            raise CertificateRefused(
                f"Un certificat valable jusqu'au {current.not_after.astimezone(PARIS):%d/%m/%Y} est en service : "
                "« renouveler » en commande un autre",
                "market-there",
            )
        return await self.renew(by)

    async def renew(self, by: Actor) -> str:
        """Have a certificate ordered now, whatever the date of the next renewal."""
        if not self.authorities:
            raise CertificateRefused(
                "Aucune autorité ACME n'est configurée : faites une demande (CSR), puis installez le certificat reçu",
                "market-by-hand",
            )
        async with self.pool.connection() as connection:
            await records.ask(connection, self.host, by.name or by.person or by.system, self.clock.now())
            await self._trace(connection, by, Object(Thing.SYSTEM, self.host, "certificate-asked"))
        return f"Commande d'un certificat pour {self.host} demandée."

    async def request(self, by: Actor, *, key_kind: str = "P-256", organisation: str = "") -> KeptOrder:
        """A request (CSR) for an authority without ACME; its key stays here, sealed."""
        key = new_key(key_kind)
        made = signing_request(key, self.rules, organisation)
        async with self.pool.connection() as connection:
            if len(await records.open_requests(connection, self.host)) >= records.KEPT_REQUESTS:
                raise CertificateRefused("Trop de demandes attendent leur certificat : retirez-en", "market-requests")
            kept = await records.add_order(
                connection,
                host=self.host,
                directory="",
                url="",
                key=self.vault.seal(key, purpose(self.host)),
                request=made.public_bytes(Encoding.DER),
                by=by.name or by.person or by.system,
                now=self.clock.now(),
            )
            await self._trace(connection, by, Object(Thing.SYSTEM, self.host, f"certificate-request:{kept.id}"))
        return kept

    async def withdraw(self, number: int, by: Actor) -> str:
        """Forget a request whose certificate will not come."""
        async with self.pool.connection() as connection:
            if number not in [kept.id for kept in await records.open_requests(connection, self.host)]:
                raise CertificateRefused("Cette demande n'existe pas, ou n'attend plus", "market-unknown")
            await records.end_order(connection, number, self.clock.now(), failure="retirée")
            await self._trace(connection, by, Object(Thing.SYSTEM, self.host, f"certificate-request:{number} dropped"))
        return f"Demande n° {number} retirée."

    async def install(self, pem: bytes, by: Actor, key: PrivateKey | None = None) -> str:
        """Serve a certificate with its chain (PEM); its key is given, or is that of a request made here.

        Raises ``RulesBroken`` with every rule of the programme that it breaks.
        """
        certificates = read_pem(pem)
        async with self.pool.connection() as connection:
            requests = await records.open_requests(connection, self.host)
            asked = next((r for r in requests if _answers(certificates[0], r)), None)
            if key is None:
                key = self._key_of(await records.current(connection, self.host), asked, certificates[0])
            checked = check(certificates, key, self.rules, self.clock.now())
            await self._refuse_compromised(connection, checked.certificate)
            now = self.clock.now()
            async with connection.transaction():
                number = await records.install(
                    connection,
                    host=self.host,
                    directory="",
                    certificates=(checked.certificate, *checked.chain),
                    key=self.vault.seal(key, purpose(self.host)),
                    by=by.name or by.person or by.system,
                    now=now,
                )
                if asked is not None:
                    await records.end_order(connection, asked.id, now, certificate=number)
                await self._trace(connection, by, certificate_object(checked.certificate.serial_number, "installed"))
        until = checked.certificate.not_valid_after_utc.astimezone(PARIS)
        done = f"Certificat installé, valable jusqu'au {until:%d/%m/%Y}."
        await trouble.over(self.incidents, done, trouble.ORDER, trouble.LATE, trouble.BY_HAND)
        return done

    async def revoke(
        self,
        number: int | None,
        reason: str,
        by: Actor,
        *,
        with_certificate_key: bool = False,
        elsewhere: AcmeClient | None = None,
        replace: bool = True,
    ) -> str:
        """Revoke one of our certificates (none: the one in service) at the authority that issued it.

        As its account, or by the certificate's own key alone; at ``elsewhere``, by that key, where it was not ordered
        over ACME here. A new one is then ordered, unless ``replace`` is False.
        """
        if reason not in REASONS:
            raise CertificateRefused(f"Motif inconnu : choisissez parmi {', '.join(REASONS)}", "market-reason")
        async with single(self.pool) as connection:
            chosen = (
                await records.current(connection, self.host)
                if number is None
                else await records.certificate(connection, number)
            )
            if chosen is None:
                raise CertificateRefused("Ce certificat n'existe pas", "market-unknown")
            if chosen.revoked_at is not None:
                raise CertificateRefused("Ce certificat est déjà révoqué", "market-revoked")
            what = certificate_object(chosen.leaf.serial_number, f"revoke:{reason}")
            try:
                await self._revoke(connection, chosen, REASONS[reason][0], with_certificate_key, elsewhere)
            except DrimboxError as error:
                await self._trace(connection, by, what, error)
                raise
            again = replace and bool(self.authorities) and chosen.replaced_at is None and reason != "cessation"
            async with connection.transaction():
                await records.mark_revoked(connection, chosen.id, reason, self.clock.now())
                await self._trace(connection, by, what)
                if again:
                    await records.ask(connection, self.host, by.name or by.person or by.system, self.clock.now())
        return "Certificat révoqué" + (" ; un autre est commandé." if again else ".")

    async def change_account_key(self, directory: str, by: Actor) -> str:
        """A fresh key for our account at an authority (empty: the first one)."""
        chosen = self._authority(directory)
        # Each step is kept by itself: a key is in the database before the authority hears of it.
        async with single(self.pool) as connection:
            if await records.open_order(connection, self.host) is not None:
                raise CertificateRefused("Une commande est en cours : attendez sa fin", "market-busy")
            await accounts.change_key(connection, chosen, self.vault)
            await self._trace(connection, by, Object(Thing.SYSTEM, chosen.directory[:200], "account-key-changed"))
        return f"La clé du compte chez {chosen.name} est changée."

    async def _revoke(
        self,
        connection: Connection,
        chosen: Installed,
        code: int,
        with_certificate_key: bool,
        elsewhere: AcmeClient | None,
    ) -> None:
        authority = next((a for a in self.authorities if a.directory == chosen.directory), None)
        client = elsewhere or (authority.client if authority is not None else None)
        if client is None:
            raise CertificateRefused(
                "Ce certificat ne vient pas d'une autorité ACME configurée ici : révoquez-le par le moyen que son "
                "autorité vous a donné, ou avec sa clé si elle a un répertoire ACME (drimbox certificate revoke "
                "--directory)",
                "market-authority",
            )
        if with_certificate_key or authority is None or elsewhere is not None:
            await client.revoke(chosen.leaf, code, key=self.vault.open(chosen.key, purpose(chosen.host)))
            return
        account = await accounts.signed_in(connection, authority, self.vault)
        await authority.client.revoke(chosen.leaf, code, account=account)

    async def leave_account(self, directory: str, by: Actor) -> str:
        """Forget our account at an authority (empty: the first one): the next order opens another.

        For a site whose secret of the vault is lost: the account's key can never be opened again.
        """
        chosen = self._authority(directory)
        async with self.pool.connection() as connection:
            await records.forget_account(connection, chosen.directory)
            await self._trace(connection, by, Object(Thing.SYSTEM, chosen.directory[:200], "account-left"))
        return f"Le compte chez {chosen.name} est oublié : la prochaine commande en ouvre un autre."

    def _authority(self, directory: str) -> Authority:
        """By its directory or its name; empty: the first one."""
        chosen = next((a for a in self.authorities if directory in ("", a.directory, a.name)), None)
        if chosen is None:
            raise CertificateRefused("Cette autorité n'est pas configurée ici", "market-authority")
        return chosen

    async def _refuse_compromised(self, connection: Connection, leaf: x509.Certificate) -> None:
        for one in await records.certificates(connection):
            if one.reason == "key-compromise" and one.leaf.public_key() == leaf.public_key():
                raise CertificateRefused(
                    "Cette clé a été déclarée compromise : faites une nouvelle demande, avec une autre clé",
                    "market-compromised",
                )

    def _key_of(self, current: Installed | None, asked: KeptOrder | None, leaf: x509.Certificate) -> PrivateKey:
        """The key of the request that this certificate answers, else of the one in service (the same key again)."""
        if asked is not None:
            return self.vault.open(asked.key, purpose(self.host))
        if current is not None:
            key = self.vault.open(current.key, purpose(self.host))
            if key.public_key() == leaf.public_key():
                return key
        raise CertificateRefused(
            "Ce certificat ne répond à aucune demande (CSR) faite ici : donnez aussi sa clé privée, par la ligne de "
            "commande (drimbox certificate install --key)",
            "market-key",
        )

    async def _trace(self, connection: Connection, by: Actor, what: Object, error: DrimboxError | None = None) -> None:
        outcome = Outcome.SUCCESS if error is None else Outcome.MINOR_FAILURE
        told = "" if error is None else error.reason
        await self.journal.write(
            connection, Event(Audited.CONFIGURATION_CHANGED, by, (what,), outcome=outcome, outcome_text=told)
        )


def pem_of(request: KeptOrder) -> str:
    """A request as it is sent to an authority."""
    return request.signing_request.public_bytes(Encoding.PEM).decode()


def read_pem(pem: bytes) -> tuple[x509.Certificate, ...]:
    """A certificate and its chain as people give them. Raises ``CertificateRefused`` (``market-syntax``)."""
    if len(pem) > MAX_PEM:
        raise CertificateRefused("Ce fichier est trop gros pour être un certificat et sa chaîne", "market-syntax")
    try:
        found = tuple(x509.load_pem_x509_certificates(pem))
        _ = [(c.public_key(), c.extensions) for c in found]
    except UNREADABLE:
        raise CertificateRefused(
            "Aucun certificat lisible : donnez le certificat, puis sa chaîne, au format PEM", "market-syntax"
        ) from None
    return found


def _answers(leaf: x509.Certificate, request: KeptOrder) -> bool:
    return request.signing_request.public_key() == leaf.public_key()

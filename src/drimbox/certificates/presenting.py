"""The viewer listener's context: always at the newest certificate, on every node, without a restart."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

import psycopg
import psycopg_pool

from drimbox.certificates import records, trouble
from drimbox.certificates.doors import validation_credential
from drimbox.certificates.handing import Handing
from drimbox.certificates.ordering import TLS_ALPN_01, purpose
from drimbox.certificates.records import Challenge
from drimbox.foundation.clock import Clock
from drimbox.foundation.errors import DrimboxError
from drimbox.publication.incidents import Incidents
from drimbox.store.database import Pool
from drimbox.trust.keystore import Credential
from drimbox.trust.reload import ReloadableServerContext, reloadable, validation_context
from drimbox.trust.tls import server_context
from drimbox.trust.vault import Vault

_log = logging.getLogger(__name__)
DATABASE_ERRORS = (psycopg.OperationalError, psycopg.InterfaceError, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed)


@dataclass(slots=True)
class Presenting:
    """``context`` is what a listener of ``host`` is given. ``validating``: it answers TLS-ALPN-01 too.

    ``handing``: the certificate is handed to an nginx as well.
    """

    host: str
    pool: Pool
    vault: Vault
    incidents: Incidents
    clock: Clock
    validating: bool = False
    poll: float = 5.0
    handing: Handing | None = None
    context: ReloadableServerContext = field(default_factory=reloadable)
    _number: int | None = None
    _answered: tuple[Challenge, ...] = ()

    async def refresh(self) -> None:
        """Take in a certificate that was installed since, and the validations under way.

        Raises what the database raises when it is away; a certificate that cannot be served is told to the operator
        and the one before stays.
        """
        async with self.pool.connection() as connection:
            number = await records.current_id(connection, self.host)
            if number is not None and number != self._number:
                installed = await records.certificate(connection, number)
                assert installed is not None
                try:
                    key = self.vault.open(installed.key, purpose(self.host))
                    leaf, *chain = installed.certificates
                    served = Credential(leaf, tuple(chain), key)
                    # Made apart: a connection that comes in meanwhile is not made to wait.
                    self.context.present(await asyncio.to_thread(server_context, served))
                    if self.handing is not None:
                        await self.handing.hand(served)
                except DrimboxError as error:
                    _log.error("market certificate not served: %s", error.code)
                    await trouble.tell(connection, self.incidents, trouble.SERVED, f"{error.reason}.")
                else:
                    self._number = number
                    _log.info("market certificate served: number %d", number)
                    await trouble.over(self.incidents, "Certificat servi.", trouble.SERVED)
            if self.validating:
                found = await records.challenges(connection, self.host, TLS_ALPN_01, self.clock.now())
                self._answer(found)

    async def run(self) -> None:
        """Keep it so until cancelled; while the database is away, what is served stays."""
        while True:
            try:
                await self.refresh()
            except DATABASE_ERRORS as error:
                _log.error("market certificate not looked at: %s", type(error).__name__)
            except Exception:  # noqa: BLE001 - a task boundary: the next look must come
                _log.exception("market certificate not looked at")
            await asyncio.sleep(self.poll)

    def _answer(self, found: tuple[Challenge, ...]) -> None:
        if found == self._answered:
            return
        now = self.clock.now()
        contexts = {
            c.host: validation_context(validation_credential(c.host, c.proof, now))
            # One name has one validation at a time: the newest wins.
            for c in sorted(found, key=lambda c: c.expires_at)
        }
        self.context.answer(contexts)
        self._answered = found

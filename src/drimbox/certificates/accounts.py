"""Our account at an authority: opened once, found again, its key changed without ever being lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from drimbox.certificates import records
from drimbox.certificates.acme.client import Account, AcmeClient, ExternalAccount
from drimbox.certificates.records import KeptAccount
from drimbox.certificates.requests import new_key
from drimbox.foundation.errors import Misconfigured, OutcomeUnknown, Rejected, Unavailable
from drimbox.store.database import Connection
from drimbox.trust.vault import Vault


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority that speaks ACME, as the site chose it.

    ``preferred_chain`` is the common name of a root or an intermediate, ``profile`` a profile that the authority names.
    """

    name: str
    client: AcmeClient = field(repr=False)
    contact: Sequence[str] = ()
    agreed: bool = False
    external: ExternalAccount | None = None
    preferred_chain: str = ""
    profile: str = ""

    @property
    def directory(self) -> str:
        return self.client.url


async def signed_in(connection: Connection, authority: Authority, vault: Vault) -> Account:
    """Our account, opened where there is none yet.

    Raises ``Misconfigured`` (``acme-account``): terms not agreed to, no external account where one is needed.
    """
    kept = await records.account(connection, authority.directory)
    if kept is not None and kept.next_key is not None:
        kept = await _settled(connection, authority, kept, vault)
    if kept is not None and kept.url:
        return Account(kept.url, vault.open(kept.key, purpose(authority.directory)))
    await _check_terms(authority)
    if kept is None:
        key = new_key("P-256")
        now = authority.client.clock.now()
        await records.add_account(connection, authority.directory, vault.seal(key, purpose(authority.directory)), now)
    else:
        key = vault.open(kept.key, purpose(authority.directory))
    account = await authority.client.register(
        key, contact=authority.contact, agreed=authority.agreed, external=authority.external
    )
    await records.account_is(connection, authority.directory, account.url)
    return account


async def change_key(connection: Connection, authority: Authority, vault: Vault) -> Account:
    """Our account under a fresh key (RFC 8555 7.3.5). Whatever happens on the way, one of the two keys is the right
    one, and ``signed_in`` finds out which."""
    account = await signed_in(connection, authority, vault)
    fresh = new_key("P-256")
    await records.prepare_key(connection, authority.directory, vault.seal(fresh, purpose(authority.directory)))
    try:
        changed = await authority.client.change_key(account, fresh)
    except (Unavailable, Rejected, Misconfigured):
        await records.settle_key(connection, authority.directory, authority.client.clock.now(), changed=False)
        raise
    except OutcomeUnknown:
        return await signed_in(connection, authority, vault)
    await records.settle_key(connection, authority.directory, authority.client.clock.now(), changed=True)
    return changed


def purpose(directory: str) -> str:
    """What an account's key is sealed for."""
    return f"acme account {directory}"


async def _settled(connection: Connection, authority: Authority, kept: KeptAccount, vault: Vault) -> KeptAccount | None:
    """Which key does the authority know since a change of key whose outcome we did not see?"""
    assert kept.next_key is not None
    found = await authority.client.find(vault.open(kept.next_key, purpose(authority.directory)))
    changed = found is not None and found.url == kept.url
    await records.settle_key(connection, authority.directory, authority.client.clock.now(), changed=changed)
    return await records.account(connection, authority.directory)


async def _check_terms(authority: Authority) -> None:
    where = await authority.client.directory()
    if where.terms and not authority.agreed:
        raise Misconfigured(
            f"Lisez les conditions de l'autorité {authority.name} ({where.terms[:200]}), puis acceptez-les : "
            "terms_agreed = true",
            code="acme-account",
        )
    if where.external_account and authority.external is None:
        raise Misconfigured(
            f"L'autorité {authority.name} demande un compte externe : donnez external_account_id et "
            "external_account_key_file",
            code="acme-account",
        )

"""``drimbox trust``: pinned authorities and revocation lists, shown and fetched."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence

from cryptography import x509

from drimbox.box.settings import Settings
from drimbox.box.trusting import fetching, list_keeper, public_lists, trust_at_rest
from drimbox.foundation.clock import PARIS, SystemClock
from drimbox.foundation.errors import Misconfigured, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.trust import names
from drimbox.trust.chain import TrustStore
from drimbox.trust.distribution import ListState


def shown(settings: Settings) -> str:
    """Raises ``Misconfigured``."""
    trust = trust_at_rest(settings).trust
    lines = [line for authority in trust.roots for line in _authority(authority, trust)]
    if not trust.revocation.configured:
        lines.append("AUCUNE liste de révocation : les certificats révoqués ne sont pas reconnus.")
    return "\n".join([*lines, *_addresses(settings)])


def _authority(authority: x509.Certificate, trust: TrustStore) -> list[str]:
    kind = "racine" if authority.subject == authority.issuer else "intermédiaire"
    head = f"{names.written(authority.subject)} ({kind}), jusqu'au {authority.not_valid_after_utc:%d/%m/%Y}"
    crl = trust.revocation.of(authority)
    if crl is None:
        return [head, "  aucune liste de révocation"]
    end = crl.next_update_utc
    until = _moment(end) if end else "jamais"
    late = " PÉRIMÉE" if end is not None and end < SystemClock().now() else ""
    return [head, f"  liste du {_moment(crl.last_update_utc)}, valable jusqu'au {until}, {len(crl)} révoqués{late}"]


def _addresses(settings: Settings) -> list[str]:
    async def nothing(_url: str) -> bytes:
        raise Unavailable("rien n'est téléchargé ici", code="not-fetched")

    states = list_keeper(settings, nothing, SystemClock()).states
    public = public_lists(settings, nothing, SystemClock())
    lines = ["Listes téléchargées :", *_states(states)]
    if not states:
        lines = ["Aucune liste n'est téléchargée : ni adresse configurée, ni adresse dans les certificats."]
    if public is None:
        return [*lines, "Serveurs des autorités publiques : révocation non vérifiée (trust.public_revocation)."]
    head = "Serveurs des autorités publiques, listes que leurs certificats nomment :"
    return [*lines, head, *(_states(public.states) or ["  aucune n'a encore été rencontrée"])]


def fetched(settings: Settings) -> str:
    """Fetch every list now. Raises ``Unavailable`` (``revocation-fetch``) when one was not, ``Misconfigured``."""

    async def work() -> Sequence[ListState]:
        async with HttpClient() as http:
            keeper = list_keeper(settings, fetching(http), SystemClock())
            public = public_lists(settings, fetching(http), SystemClock())
            await keeper.round(all_of_them=True)
            if public is not None:
                await public.round(all_of_them=True)
            states = (*keeper.states, *(public.states if public is not None else ()))
            if not states:
                raise Misconfigured("Aucune adresse de liste de révocation n'est connue", code="revocation-none")
            return states

    states = asyncio.run(work())
    text = "\n".join(_states(states))
    if any(state.problem for state in states):
        raise Unavailable(text, code="revocation-fetch")
    return text


def _states(states: Sequence[ListState]) -> list[str]:
    return [f"  {state.url} : {_said(state)}" for state in states]


def _said(state: ListState) -> str:
    held = f"valable jusqu'au {_moment(state.ends_at)}" if state.ends_at else "aucune liste"
    return f"{held} ; {state.problem}" if state.problem else held


def _moment(at: dt.datetime) -> str:
    return f"{at.astimezone(PARIS):%d/%m/%Y à %H:%M}"

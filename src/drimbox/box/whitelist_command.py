"""``drimbox whitelist``: the list in use, fetched now, or one in a file judged."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

from drimbox import __version__
from drimbox.box.operator import on_database, shell_user
from drimbox.box.services import patient_key
from drimbox.box.settings import Settings
from drimbox.box.trusting import fetching, list_keeper, trust_at_rest, trust_of
from drimbox.box.whitelisting import WhitelistDesk, judged, not_believed, whitelist_keeper
from drimbox.console.circle import in_french
from drimbox.foundation.clock import PARIS, SystemClock
from drimbox.foundation.http_client import HttpClient
from drimbox.national.whitelist import Domain, Held, Whitelist
from drimbox.publication.incidents import Incidents
from drimbox.record.audit import Journal
from drimbox.store.database import Pool
from drimbox.trust.keystore import read_file


def shown(settings: Settings, *, as_json: bool) -> str:
    """Raises ``Unavailable`` (``whitelist-none``) when no list was ever accepted."""
    clock = SystemClock()

    async def work(pool: Pool) -> Held | None:
        async with HttpClient() as http:
            return await whitelist_keeper(settings, http, clock, trust_at_rest(settings), pool).held()

    held = on_database(settings, work)
    keeper_age = dt.timedelta(days=settings.whitelist.max_age_days)
    why = not_believed(held, keeper_age, clock.now())
    if held is None:
        assert why is not None
        raise why
    end = held.fetched_at + keeper_age
    if as_json:
        return _json(held.whitelist, fetched_at=held.fetched_at.isoformat(), believed_until=end.isoformat())
    head = [
        f"Reçue le {_moment(held.fetched_at)} ; elle fait foi jusqu'au {_moment(end)}.",
        *([f"ELLE NE FAIT PLUS FOI : {why.reason}."] if why else []),
    ]
    return "\n".join([*head, *_lines(held.whitelist)])


def fetched(settings: Settings) -> str:
    """Raises what ``WhitelistDesk.renew`` raises: the reason is in the operator's queue too."""
    clock = SystemClock()

    async def work(pool: Pool) -> str:
        async with HttpClient() as http:
            lists = list_keeper(settings, fetching(http), clock)
            await lists.round()
            trust = trust_of(settings, lists)
            desk = WhitelistDesk(
                whitelist_keeper(settings, http, clock, trust, pool),
                pool,
                Journal(pool, patient_key(settings)),
                Incidents(pool, clock),
                clock,
                f"{settings.box.name} {__version__}",
                dt.timedelta(hours=settings.whitelist.refresh_hours),
            )
            renewal = await desk.renew(shell_user())
        changes = [f"  {in_french(line)}" for line in renewal.changes] or ["  rien ne change"]
        return "\n".join([f"Liste valable, {len(renewal.whitelist.domains)} DRIMbox.", *changes])

    return on_database(settings, work)


def checked(settings: Settings, file: Path) -> str:
    """Raises ``Refused`` with what is wrong."""
    found = judged(settings, read_file(file), trust_at_rest(settings), SystemClock())
    return "\n".join(["Liste valable : signature, signataire, chaîne, dates et révocation.", *_lines(found)])


def _lines(found: Whitelist) -> list[str]:
    signed = f", signée le {_moment(found.signed_at)}" if found.signed_at else ""
    rows = [f"  {d.db_host:<40} {d.vi_host:<40} {d.name} : {d.operator_dn}" for d in found.domains]
    return [f"Faite le {_moment(found.generated_at)}{signed} ; {len(found.domains)} DRIMbox :", *rows]


def _json(found: Whitelist, **more: str) -> str:
    content = {
        "generated_at": found.generated_at.isoformat(),
        "signed_at": found.signed_at.isoformat() if found.signed_at else None,
        **more,
        "domains": [_domain(domain) for domain in found.domains],
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def _domain(domain: Domain) -> dict[str, str]:
    return {
        "identifier": domain.identifier,
        "db": domain.db_host,
        "vi": domain.vi_host,
        "name": domain.name,
        "operator_dn": domain.operator_dn,
    }


def _moment(at: dt.datetime) -> str:
    return f"{at.astimezone(PARIS):%d/%m/%Y à %H:%M}"

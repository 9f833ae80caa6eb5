"""What a list that is refused, late or changed leaves for the operator and in the journal (decision 16)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from drimbox.box.whitelisting import LATE, REFUSED, WhitelistDesk
from drimbox.console.circle import in_french
from drimbox.foundation.clock import FixedClock
from drimbox.foundation.errors import Refused, Unavailable
from drimbox.national.whitelist import Whitelist, WhitelistKeeper, verify
from drimbox.publication.incidents import Incidents
from drimbox.record.audit import Actor, Journal, Kind, Search
from drimbox.sandbox.pki import PemPair, Profile, TestAuthority
from drimbox.sandbox.whitelist import ListedDomain, Publisher
from drimbox.store.database import Pool
from drimbox.trust.tls import load_trust

CN, OU = "Liste Blanche DRIM-M", "318751275100020"
BY = Actor(person="local:essai", name="Essai")
ITSELF = Actor(system="box")


def listed(number: int, host: str, dn: str = "") -> ListedDomain:
    return ListedDomain(
        str(number), host, f"vi.{host}", f"Site {number}", dn or f"CN={host},C=FR", "a@b.fr", dt.datetime.now(dt.UTC)
    )


@dataclass
class Agency:
    """Publishes what the test says; ``spoil`` changes the document on its way."""

    publisher: Publisher
    spoil: Callable[[bytes], bytes] = bytes
    down: bool = False

    async def fetch(self) -> bytes:
        if self.down:
            raise Unavailable("Serveur injoignable", code="unreachable")
        return self.spoil(self.publisher.signed())


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    return TestAuthority(tmp_path_factory.mktemp("circle"))


def signer(pki: TestAuthority, name: str, *, cn: str = CN, ou: str = OU, until: int = 300) -> PemPair:
    now = dt.datetime.now(dt.UTC)
    return pki.issue(
        Profile.ORG_SIGN,
        name,
        common_name=cn,
        unit=ou,
        organisation="AGENCE",
        not_before=now - dt.timedelta(days=400),
        not_after=now + dt.timedelta(days=until),
    )


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(dt.datetime.now(dt.UTC))


@pytest.fixture
def agency(pki: TestAuthority, clock: FixedClock) -> Agency:
    return Agency(Publisher((listed(1, "db1.test"),), signer(pki, "agency"), clock))


@pytest.fixture
def desk(pool: Pool, pki: TestAuthority, clock: FixedClock, agency: Agency) -> WhitelistDesk:
    def believed(document: bytes) -> Whitelist:
        trust = load_trust([pki.roots], pki.revocation_lists)
        return verify(document, trust=trust, signer_cn=CN, signer_ou=OU, now=clock.now())

    keeper = WhitelistKeeper(pool, agency.fetch, believed, clock)
    return WhitelistDesk(keeper, pool, Journal(pool), Incidents(pool, clock), clock, "box", dt.timedelta(days=1))


async def events(desk: WhitelistDesk, kind: Kind) -> list[tuple[str, ...]]:
    found = await desk.journal.search(Search(kind=kind), ITSELF)
    return [(one.event.outcome_text, *(o.identifier for o in one.event.objects)) for one in found]


async def queue(desk: WhitelistDesk) -> list[tuple[str, str]]:
    return [(incident.code, incident.reason) for incident in await desk.incidents.list()]


@pytest.mark.requirement("D16")
async def test_a_change_is_journalled_with_who_asked(desk: WhitelistDesk, agency: Agency, clock: FixedClock) -> None:
    await desk.renew(ITSELF)
    clock.advance(60)
    agency.publisher = Publisher(
        (listed(1, "db1.test", "CN=db1.test,OU=9,C=FR"), listed(2, "db2.test")), agency.publisher.signer, clock
    )
    renewal = await desk.renew(BY)
    assert renewal.changes == (
        "added db2.test (CN=db2.test,C=FR)",
        "changed db1.test: CN=db1.test,C=FR -> CN=db1.test,OU=9,C=FR",
    )
    newest, first = await events(desk, Kind.WHITELIST_CHANGED)
    assert newest == ("", *renewal.changes)
    assert first == ("", "first list, 1 DRIMboxes")
    [recorded, _] = await desk.journal.search(Search(kind=Kind.WHITELIST_CHANGED), ITSELF)
    assert recorded.event.actor.person == "local:essai"
    clock.advance(60)
    await desk.renew(ITSELF)
    assert len(await events(desk, Kind.WHITELIST_CHANGED)) == 2, "nothing changed, nothing is written"
    assert in_french(renewal.changes[0]) == "ajoutée : db2.test (CN=db2.test,C=FR)"


@pytest.mark.requirement("D16")
@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ("unsigned", "signature-missing"),
        ("altered", "signature-digest"),
        ("one-byte", "signature-"),
        ("expired", "certificate-dates"),
        ("revoked", "certificate-revoked"),
        ("cn", "whitelist-signer"),
        ("ou", "whitelist-signer"),
        ("stranger", "certificate-chain"),
        ("older", "whitelist-older"),
    ],
)
async def test_a_list_that_is_no_good_is_told_at_once_and_the_last_one_stays(
    wrong: str,
    code: str,
    desk: WhitelistDesk,
    agency: Agency,
    clock: FixedClock,
    pki: TestAuthority,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    await desk.renew(ITSELF)
    _spoil(wrong, agency, clock, pki, tmp_path_factory)
    with pytest.raises(Refused) as refused:
        await desk.renew(ITSELF)
    assert refused.value.code.startswith(code)
    [(kind, reason)] = await queue(desk)
    assert kind == REFUSED
    assert "reste en service jusqu'au" in reason
    [event] = await events(desk, Kind.WHITELIST_REFUSED)
    assert event[0].startswith(refused.value.code)
    assert (await desk.keeper.current()).allows_host("db1.test")

    with pytest.raises(Refused):
        await desk.renew(ITSELF)
    assert len(await queue(desk)) == 1, "one line for one cause"

    agency.spoil = lambda document: document
    agency.publisher = Publisher((listed(1, "db1.test"),), signer(pki, "agency"), clock)
    clock.advance(3600)
    await desk.renew(ITSELF)
    assert await queue(desk) == [], "the line closes by itself"


def _spoil(wrong: str, agency: Agency, clock: FixedClock, pki: TestAuthority, factory: pytest.TempPathFactory) -> None:
    domains = agency.publisher.domains
    match wrong:
        case "unsigned":
            agency.spoil = lambda _document: agency.publisher.unsigned()
        case "altered":
            agency.spoil = lambda document: document.replace(b"db1.test", b"db6.test", 1)
        case "one-byte":
            agency.spoil = lambda document: document.replace(b"Site 1", b"Site 7", 1)
        case "expired":
            agency.publisher = Publisher(domains, signer(pki, "expired", until=-1), clock)
        case "revoked":
            pair = signer(pki, "revoked")
            pki.revoke(pair)
            agency.publisher = Publisher(domains, pair, clock)
        case "cn":
            agency.publisher = Publisher(domains, signer(pki, "cn", cn="Liste Noire"), clock)
        case "ou":
            agency.publisher = Publisher(domains, signer(pki, "ou", ou="318751275100021"), clock)
        case "stranger":
            other = TestAuthority(factory.mktemp("other"))
            agency.publisher = Publisher(domains, signer(other, "agency"), clock)
        case _:
            agency.publisher = Publisher(
                domains, agency.publisher.signer, FixedClock(clock.now() - dt.timedelta(days=1))
            )


@pytest.mark.requirement("D16")
async def test_a_silent_server_is_told_once_the_list_is_a_day_late(
    desk: WhitelistDesk, agency: Agency, clock: FixedClock
) -> None:
    await desk.renew(ITSELF)
    agency.down = True
    for hours, lines in ((1, 0), (23, 0), (3, 1), (24, 1)):
        clock.advance(hours * 3600)
        with pytest.raises(Unavailable):
            await desk.renew(ITSELF)
        assert len(await queue(desk)) == lines
    [(kind, reason)] = await queue(desk)
    assert kind == LATE
    assert "reste en service" in reason
    clock.advance(6 * 86400)
    with pytest.raises(Unavailable):
        await desk.renew(ITSELF)
    [incident] = await desk.incidents.list()
    assert "ne fait plus foi" in incident.history[-1].text
    assert await events(desk, Kind.WHITELIST_REFUSED) == []
    agency.down = False
    await desk.renew(ITSELF)
    assert await queue(desk) == []

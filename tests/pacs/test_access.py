"""Several ways to one PACS, several addresses, a pace: what works is found, and no error becomes "nothing there"."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import ssl
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drimbox.foundation.errors import Busy, DrimboxError, IdentityMismatch, Rejected, Unavailable
from drimbox.foundation.http_client import HttpClient
from drimbox.pacs.access import Abilities, AnyFinder, AnySource, PacsAccess
from drimbox.pacs.contents import Contents
from drimbox.pacs.dicomweb import DicomWeb, WebService
from drimbox.pacs.dimse.storage import StoredInstance
from drimbox.pacs.nodes import Node, Nodes
from drimbox.pacs.pace import Pace
from drimbox.pacs.query import PacsStudyFinder
from drimbox.pacs.retrieve import PacsSeriesSource
from drimbox.pacs.site import Pacs, PacsLink
from drimbox.pacs.study import Instance, Series, Study
from drimbox.pacs.ways import Ways
from drimbox.pacs.web_query import WebStudyFinder
from drimbox.sandbox.pacs.embedded import EmbeddedConfig, embedded_pacs
from drimbox.sandbox.pacs.exams import EXAMS
from drimbox.sandbox.pacs.peer import Destination, PacsPeer
from pacs.conftest import OUR_AE, free_port, pacs_of
from pacs.desk import desk

STUDY = Study("1.2.3", *([""] * 12), series=(Series("1.2.3.1", "CT", 1, "", "", (Instance("1.2.9", "1.2.3.1.1"),)),))


@dataclass
class At:
    """A clock that is moved by hand."""

    time: dt.datetime = field(default_factory=lambda: dt.datetime(2026, 1, 5, tzinfo=dt.UTC))

    def now(self) -> dt.datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    def later(self, seconds: float) -> None:
        self.time += dt.timedelta(seconds=seconds)


@dataclass
class Finds:
    answer: Study | DrimboxError | None
    asked: int = 0

    async def find(self, study_uid: str) -> Study | None:
        self.asked += 1
        if isinstance(self.answer, DrimboxError):
            raise self.answer
        return self.answer


@dataclass
class Gives:
    """A source that gives so many instances, then perhaps fails."""

    count: int
    error: DrimboxError | None = None
    at_entry: bool = False
    asked: int = 0
    open: int = 0

    @asynccontextmanager
    async def retrieve(
        self, study_uid: str, series_uid: str | None, expected: Collection[str], *, patient_id: str | None = None
    ) -> AsyncIterator[AsyncIterator[StoredInstance]]:
        self.asked += 1
        if self.at_entry and self.error is not None:
            raise self.error
        self.open += 1
        try:
            yield self._given()
        finally:
            self.open -= 1

    async def _given(self) -> AsyncIterator[StoredInstance]:
        for number in range(self.count):
            yield StoredInstance("1.2.9", f"1.2.3.1.{number}", "1.2", Path("x"), 1)
        if self.error is not None:
            raise self.error


def unreachable() -> Unavailable:
    return Unavailable("Le PACS est injoignable.", code="pacs-unreachable")


def refused() -> Rejected:
    return Rejected("Le PACS n'offre pas ce service.", code="pacs-service-refused")


def finder(first: Finds, second: Finds, ways: Ways | None = None) -> AnyFinder:
    return AnyFinder({"a": first, "b": second}, ways or Ways(("a", "b"), At()), Contents())


# -------------------------------------------------------------------------------------------------------------- finding


async def test_what_is_found_is_noted() -> None:
    contents = Contents()
    assert await AnyFinder({"a": Finds(STUDY)}, Ways(("a",), At()), contents).find("1.2.3") is STUDY
    assert contents.classes("1.2.3") == {"1.2.3.1.1": "1.2.9"}


@pytest.mark.parametrize("error", [unreachable(), refused()])
async def test_the_second_way_finds_what_the_first_cannot(error: DrimboxError) -> None:
    first, second = Finds(error), Finds(STUDY)
    both = finder(first, second)
    assert await both.find("1.2.3") is STUDY
    assert await both.find("1.2.3") is STUDY
    # The second time, it goes first.
    assert (first.asked, second.asked) == (1, 2)


@pytest.mark.requirement("D7")
async def test_nothing_at_the_second_way_is_no_answer_while_the_first_could_not_say() -> None:
    """Nor later, when the second way has become the first to be asked: nothing is depublished by it."""
    first, second = Finds(unreachable()), Finds(None)
    both = finder(first, second)
    for asked in (1, 2):
        with pytest.raises(Unavailable, match="injoignable"):
            await both.find("1.2.3")
        assert (first.asked, second.asked) == (asked, asked)
    first.answer = STUDY
    assert await both.find("1.2.3") is STUDY


@pytest.mark.requirement("D7")
async def test_nothing_at_the_second_way_is_believed_where_the_first_is_not_offered_at_all() -> None:
    both = finder(Finds(refused()), Finds(None))
    assert await both.find("1.2.3") is None
    assert await both.find("1.2.3") is None
    # A refusal of another kind may come of our side, and hides what it hides.
    closed = finder(Finds(Rejected("x", code="pacs-association-rejected")), Finds(None))
    with pytest.raises(Rejected):
        await closed.find("1.2.3")


@pytest.mark.requirement("D7")
async def test_the_preferred_way_is_enough_to_say_that_nothing_is_there() -> None:
    second = Finds(STUDY)
    assert await finder(Finds(None), second).find("1.2.3") is None
    assert second.asked == 0


@pytest.mark.parametrize("code", ["pacs-truncated", "pacs-ambiguous", "pacs-too-many-answers"])
async def test_another_way_never_hides_what_the_first_says_of_the_study(code: str) -> None:
    """A list that the PACS itself says is not whole, a study that it tells in two ways."""
    second = Finds(STUDY)
    with pytest.raises(Unavailable):
        await finder(Finds(Unavailable("x", code=code)), second).find("1.2.3")
    assert second.asked == 0


async def test_where_no_way_works_the_first_error_is_told() -> None:
    with pytest.raises(Rejected, match="service"):
        await finder(Finds(refused()), Finds(unreachable())).find("1.2.3")


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("x", code="pacs-silent"),
        Rejected("x", code="pacs-wrong-answer"),
        IdentityMismatch("x"),
        Busy("x", code="pacs-busy"),
    ],
)
async def test_an_error_about_the_question_is_told_at_once(error: DrimboxError) -> None:
    second = Finds(STUDY)
    with pytest.raises(type(error)):
        await finder(Finds(error), second).find("1.2.3")
    assert second.asked == 0


# ---------------------------------------------------------------------------------------------------- retrieving


async def take(source: AnySource, got: list[str]) -> None:
    async with source.retrieve("1.2.3", None, ["1.2.3.1.0"]) as instances:
        async for one in instances:
            got.append(one.sop_instance_uid)


@pytest.mark.parametrize("at_entry", [True, False])
async def test_the_second_way_brings_what_the_first_cannot(at_entry: bool) -> None:
    first, second, got = Gives(0, refused(), at_entry), Gives(2), []
    source = AnySource({"a": first, "b": second}, Ways(("a", "b"), At()))
    await take(source, got)
    await take(source, got)
    assert len(got) == 4
    assert (first.asked, second.asked, first.open, second.open) == (1, 2, 0, 0)


async def test_once_something_came_no_other_way_is_tried() -> None:
    got: list[str] = []
    second = Gives(2)
    with pytest.raises(Unavailable):
        await take(AnySource({"a": Gives(1, unreachable()), "b": second}, Ways(("a", "b"), At())), got)
    assert (len(got), second.asked) == (1, 0)


async def test_where_no_way_brings_anything_the_first_error_is_told() -> None:
    sources = {"a": Gives(0, refused()), "b": Gives(0, unreachable(), at_entry=True)}
    with pytest.raises(Rejected, match="service"):
        await take(AnySource(sources, Ways(("a", "b"), At())), [])


async def test_nothing_expected_is_nothing_asked_twice() -> None:
    second = Gives(0)
    await take(AnySource({"a": Gives(0), "b": second}, Ways(("a", "b"), At())), [])
    assert second.asked == 0


async def test_leaving_early_lets_go() -> None:
    first = Gives(5)
    async with AnySource({"a": first}, Ways(("a",), At())).retrieve("1.2.3", None, ["1"]) as instances:
        await anext(aiter(instances))
        assert first.open == 1
    assert first.open == 0


# --------------------------------------------------------------------------------------------------------------- memory


def test_what_was_refused_is_tried_again_later_and_what_was_down_sooner() -> None:
    clock = At()
    ways = Ways(("a", "b"), clock)
    ways.failed("a", refused())
    clock.later(3599)
    assert ways.in_order() == ("b", "a")
    clock.later(2)
    assert ways.in_order() == ("a", "b")
    ways.failed("a", unreachable())
    clock.later(61)
    assert ways.in_order() == ("a", "b")
    ways.failed("b", refused())
    ways.worked("b")
    assert ways.in_order() == ("a", "b")


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("x", code="pacs-retrieve-failed", peer_code="A702H"),
        Rejected("x", code="pacs-instances-missing"),
        Rejected("x", code="pacs-web-rejected", peer_code="404"),
    ],
)
async def test_one_study_that_no_way_brings_teaches_nothing(error: DrimboxError) -> None:
    ways = Ways(("a", "b"), At())
    with pytest.raises(type(error)):
        await take(AnySource({"a": Gives(0, error), "b": Gives(0, refused())}, ways), [])
    # The second way was refused for good; of the first only this study is known.
    assert ways.in_order() == ("a", "b")


async def test_what_another_way_brings_instead_is_remembered_for_a_while() -> None:
    """A PACS that cannot connect to us fails each C-MOVE in its own words."""
    clock = At()
    ways = Ways(("a", "b"), clock)
    first = Gives(0, Unavailable("x", code="pacs-retrieve-failed", peer_code="A702H"))
    source = AnySource({"a": first, "b": Gives(1)}, ways)
    await take(source, [])
    await take(source, [])
    assert first.asked == 1
    clock.later(601)
    assert ways.in_order() == ("a", "b")


async def test_a_way_that_keeps_silent_goes_last_the_next_time() -> None:
    ways = Ways(("a", "b"), At())
    second, got = Gives(1), []
    source = AnySource({"a": Gives(0, Unavailable("x", code="pacs-silent")), "b": second}, ways)
    with pytest.raises(Unavailable):
        await take(source, got)
    # Who asked has waited long enough.
    assert (second.asked, got) == (0, [])
    await take(source, got)
    assert len(got) == 1


def test_a_clock_that_was_wrong_is_not_believed(tmp_path: Path) -> None:
    path, clock = tmp_path / "one.json", At()
    clock.later(10**8)
    Ways(("a", "b"), clock, path).failed("a", refused())
    assert Ways(("a", "b"), At(), path).in_order() == ("a", "b")


def test_what_was_learnt_is_kept_while_the_settings_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "pacs" / "one.json"
    Ways(("a", "b"), At(), path, "v1").failed("a", refused())
    assert Ways(("a", "b"), At(), path, "v1").in_order() == ("b", "a")
    assert Ways(("a", "b"), At(), path, "v2").in_order() == ("a", "b")
    assert Ways(("b",), At(), path, "v1").in_order() == ("b",)


@given(
    data=st.binary(max_size=60)
    | st.recursive(st.none() | st.integers(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_a_spoiled_memory_is_learnt_again(spoiled: Path, data: bytes) -> None:
    spoiled.write_bytes(data)
    assert Ways(("a", "b"), At(), spoiled, "v1").in_order() == ("a", "b")


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ways") / "ways.json"


@given(st.integers(1, 600), st.lists(st.floats(0, 30), max_size=200))
def test_a_pace_is_kept_over_any_minute(per_minute: int, gaps: list[float]) -> None:
    pace, now, begun = Pace(per_minute), 0.0, []
    for gap in gaps:
        now += gap
        wait = pace.reserve(now, 20.0)
        assert wait is None or 0 <= wait <= 20
        if wait is not None:
            begun.append(now + wait)
    for start in begun:
        within = [at for at in begun if start <= at < start + 60]
        assert len(within) <= per_minute + 5


def test_no_pace_no_wait() -> None:
    pace = Pace(0)
    assert [pace.reserve(0.0, 0.0) for _ in range(1000)] == [0.0] * 1000


def test_a_node_that_failed_is_tried_last_for_a_while() -> None:
    now = [0.0]
    one, two = Node("a", 1, "A"), Node("b", 2, "B")
    nodes = Nodes((one, two), lambda: now[0])
    nodes.failed(one)
    assert nodes.in_order() == [two, one]
    now[0] = 61
    assert nodes.in_order() == [one, two]
    nodes.failed(one)
    nodes.worked(one)
    assert nodes.in_order() == [one, two]


def test_contents_forget_the_oldest() -> None:
    contents = Contents(most=3)
    for number in range(5):
        instances = (Instance("1.2", f"1.{number}.1"), Instance("1.2", f"1.{number}.2"))
        series = (Series("1", "CT", 1, "", "", instances),)
        contents.note(Study(f"1.{number}", *([""] * 12), series=series))
    assert contents.classes("1.3") is None
    assert set(contents.classes("1.4") or {}) == {"1.4.1", "1.4.2"}


# ------------------------------------------------------------------------------------------------------------ real PACS


async def test_another_address_of_the_same_pacs_answers(orthanc_pacs: Pacs) -> None:
    dead = pacs_of(
        PacsPeer("DEAD", "127.0.0.1", free_port()),
        alternates=(Node(orthanc_pacs.host, orthanc_pacs.port, orthanc_pacs.ae_title),),
    )
    link = PacsLink(dead)
    await link.echo()
    study = await PacsStudyFinder(link).find(EXAMS["B"][0].study_uid)
    assert study is not None
    link.close()


async def test_the_operations_of_a_minute_are_limited(orthanc_pacs: Pacs) -> None:
    slow = pacs_of(
        PacsPeer(orthanc_pacs.ae_title, orthanc_pacs.host, orthanc_pacs.port),
        operations_per_minute=6,
        queue_timeout=0.2,
    )
    link = PacsLink(slow)
    for _ in range(5):
        await PacsStudyFinder(link).find("1.2.3")
    with pytest.raises(Busy):
        await PacsStudyFinder(link).find("1.2.3")
    # Whether it lives can still be asked.
    await link.echo()
    link.close()


async def test_what_orthanc_and_the_embedded_pacs_can_do(
    orthanc_pacs: Pacs, orthanc_peer: PacsPeer, studies: Path, tmp_path: Path
) -> None:
    async with HttpClient() as http, desk(orthanc_pacs, tmp_path / "spool") as opened:
        address = DicomWeb(
            orthanc_peer.dicomweb_url, ssl.create_default_context(), orthanc_peer.rest_user, orthanc_peer.rest_password
        )
        web = WebStudyFinder(opened.link, WebService(http, address, "essai"))
        access = PacsAccess(opened.link, PacsStudyFinder(opened.link), opened.source(), web)
        assert await access.probe() == Abilities(True, True, True, True, True, ())
    with embedded_pacs(EmbeddedConfig(studies, "EMBEDDED", known=[Destination(OUR_AE, "127.0.0.1", 1)])) as peer:
        async with desk(pacs_of(peer), tmp_path / "spool") as opened:
            access = PacsAccess(opened.link, PacsStudyFinder(opened.link), opened.source())
            assert await access.probe() == Abilities(True, True, True, False, None, ())
    link = PacsLink(pacs_of(PacsPeer("DEAD", "127.0.0.1", free_port())))
    found = await PacsAccess(link, PacsStudyFinder(link), Gives(0)).probe()
    assert found == Abilities(problems=("Le PACS essai est injoignable.",))
    link.close()


async def test_a_pacs_that_does_not_know_our_destination_is_asked_by_c_get(orthanc_pacs: Pacs, tmp_path: Path) -> None:
    """C-MOVE ends with A801H: C-GET brings the same, now and the next time."""
    study = EXAMS["B"][0]
    expected = study.instance_uids(study.series[0])
    async with desk(orthanc_pacs, tmp_path / "spool") as opened:
        ways = Ways(("move", "get"), At())
        move = PacsSeriesSource(opened.link, opened.inbox, "NOWHERE", late_timeout=0.2)
        source = AnySource({"move": move, "get": opened.get_source()}, ways)
        got: list[str] = []
        async with source.retrieve(study.study_uid, None, expected) as instances:
            async for one in instances:
                assert one.path.exists()
                got.append(one.sop_instance_uid)
        assert sorted(got) == sorted(expected)
        assert ways.in_order() == ("get", "move")
        assert opened.folders() == []


async def test_one_turn_is_enough_for_two_ways(orthanc_pacs: Pacs, tmp_path: Path) -> None:
    """What failed gives its turn back before the next way begins."""
    one = pacs_of(PacsPeer(orthanc_pacs.ae_title, orthanc_pacs.host, orthanc_pacs.port), max_associations=1)
    study = EXAMS["B"][0]
    async with desk(one, tmp_path / "spool") as opened, asyncio.timeout(15):
        move = PacsSeriesSource(opened.link, opened.inbox, "NOWHERE", late_timeout=0.2)
        source = AnySource({"move": move, "get": opened.get_source()}, Ways(("move", "get"), At()))
        async with source.retrieve(study.study_uid, None, study.instance_uids(study.series[0])) as instances:
            assert len([one async for one in instances]) == study.series[0].images

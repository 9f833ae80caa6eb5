"""This source's address changes: every KOS that carries another one is met once, and links of before are answered."""

from __future__ import annotations

import os

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from walk_world import ADMINISTRATOR, BASE, OLD, Site, led

from drimbox.box.former_paths import FormerPaths
from drimbox.manifest.read import read_manifest
from drimbox.reconciliation.walk import Kind, Mode, State
from publication.publication_examples import letter_of, study_of, world_on

KIND = Kind.ADDRESS


@pytest.mark.requirement("DB.SO.31")
async def test_a_change_of_address_is_seen_at_the_start_and_every_kos_is_met_once(site: Site) -> None:
    await site.stock(3, base=OLD)
    await site.stock(2, first=4)
    await site.stock(2, base=OLD, first=6)
    await site.stock(1, base=OLD, state="replaced", first=8)
    # A KOS of another product may carry no address at all.
    await site.stock(1, base="", first=9)
    driver = site.driver(KIND, rate=600)
    met: list[str] = []

    async def worker() -> None:
        for job in await site.jobs():
            study = job["args"]["study_uid"]
            assert job["args"]["cause"] == "address"
            met.append(study)
            await site.replace(study)
            await site.carried_out()

    async with led(driver) as connection:
        await driver.round(connection)
        walk = await site.walk(KIND)
        assert (walk.total, walk.base, walk.rate, walk.started_by) == (6, BASE, 600, "drimbox")
        walk = await site.go(driver, connection, between=worker)
    assert (walk.state, walk.done, walk.findings) == (State.DONE, 6, {"replaced": 6})
    assert met == [f"1.2.3.{n}" for n in (1, 2, 3, 6, 7, 9)]
    assert [base for base, _ in await site.walks.addresses()] == [BASE]
    # Nothing more to do, now or after a restart.
    again = site.driver(KIND)
    async with led(again) as connection:
        await site.go(again, connection, seconds=7200)
    assert len(await site.walks.latest()) == 1
    # An archive is imported: its addresses are the former product's.
    await site.stock(2, base=OLD, first=20)
    async with led(again) as connection:
        await site.go(again, connection, between=worker, seconds=600)
    assert (await site.walk(KIND)).total == 2
    # And one more address.
    moved = site.driver(KIND, base="https://db2.test.mesimagesmedicales.fr/dicom-web-rs")
    async with led(moved) as connection:
        await moved.round(connection)
    assert (await site.walk(KIND)).total == 10
    assert len(await site.walks.addresses()) == 2


@pytest.mark.requirement("DB.SO.31")
async def test_what_cannot_be_rewritten_is_told_and_not_tried_for_ever(site: Site) -> None:
    await site.stock(2, base=OLD)
    driver = site.driver(KIND)
    async with led(driver) as connection:
        walk = await site.go(driver, connection, rounds=400, between=site.carried_out)
    assert (walk.state, walk.findings) == (State.DONE, {"stopped": 2})
    assert [found.detail for found in await site.walks.found(walk.id)] == ["address", "address"]
    async with led(driver) as connection:
        await site.go(driver, connection, seconds=86_400, rounds=200)
    assert len(await site.walks.latest()) == 1
    # By hand, it is.
    assert "2 examens" in await site.acts.start(KIND, Mode.REPAIR, 60, ADMINISTRATOR)


@pytest.mark.requirement("DB.SO.31", "D7")
async def test_a_study_whose_pacs_is_away_does_not_hold_up_the_others(site: Site) -> None:
    await site.stock(10, base=OLD)
    driver = site.driver(KIND, put_off=100)
    busy = "1.2.3.4"

    async def worker() -> None:
        for job in await site.jobs():
            study = job["args"]["study_uid"]
            if study == busy:
                await site.rows(
                    "UPDATE procrastinate_jobs SET attempts = attempts + 1, scheduled_at = now() + interval '1 hour' "
                    "WHERE id = %s",
                    job["id"],
                )
                continue
            await site.replace(study)
            await site.rows("DELETE FROM procrastinate_jobs WHERE id = %s", job["id"])

    async with led(driver) as connection:
        walk = await site.go(driver, connection, seconds=120, between=worker)
        assert (walk.state, walk.done, walk.findings) == (State.RUNNING, 9, {"replaced": 9})
        assert walk.note == "En attente : 1 examen en file pour un PACS ou le DMP"
        busy = ""
        walk = await site.go(driver, connection, seconds=120, between=worker)
    assert (walk.state, walk.done) == (State.DONE, 10)


async def test_a_walk_to_a_former_address_gives_way(site: Site) -> None:
    await site.stock(5, base=OLD)
    first = site.driver(KIND, base="https://interim.example.fr/wado")
    async with led(first) as connection:
        await first.round(connection)
    second = site.driver(KIND)
    async with led(second) as connection:
        await second.round(connection)
    newest, former = await site.walks.latest()
    assert (newest.base, newest.state) == (BASE, State.RUNNING)
    assert (former.base, former.state) == ("https://interim.example.fr/wado", State.STOPPED)


@pytest.mark.requirement("DB.SO.31")
async def test_the_database_finds_the_address_in_a_real_kos(site: Site) -> None:
    world = world_on(site.pool)
    world.pacs.hold(study_of())
    await world.run(letter_of())
    kos = await world.current()
    assert kos is not None
    [row] = await site.rows("SELECT retrieve_base_of(kos) AS base FROM publication")
    assert row["base"] == BASE
    assert {s.retrieve_url.partition("/studies/")[0] for s in read_manifest(kos.kos).series} == {BASE}


async def test_no_kos_whatever_makes_an_insertion_fail(site: Site) -> None:
    tag = b"\x08\x00\x90\x11"
    kinds = [
        b"",
        tag,
        tag * 3,
        tag + b"UR\x00\x00",
        tag + b"\xff" * 600,
        tag + b"http://\xc3\x28/studies/",
        os.urandom(500),
    ]
    kinds += [os.urandom(20) + tag + os.urandom(60) for _ in range(50)]
    for kos in kinds:
        [row] = await site.rows("SELECT retrieve_base_of(%s) AS base", kos)
        assert isinstance(row["base"], str)
    implicit = tag + (60).to_bytes(4, "little") + f"{OLD}/studies/1.2.3".encode()
    [row] = await site.rows("SELECT retrieve_base_of(%s) AS base", b"\x00" * 900 + implicit)
    assert row["base"] == OLD


@pytest.mark.requirement("DB.SO.31")
@pytest.mark.parametrize(
    ("present", "former", "asked", "answered"),
    [
        ("/dicom-web-rs", ["/old/"], "/old/studies/1.2", "/dicom-web-rs/studies/1.2"),
        ("/dicom-web-rs", ["old", "old/deep"], "/old/deep/studies/1.2", "/dicom-web-rs/studies/1.2"),
        ("/dicom-web-rs", ["/old"], "/older/studies/1.2", "/older/studies/1.2"),
        ("/dicom-web-rs", ["/dicom"], "/dicom-web-rs/studies/1", "/dicom-web-rs/studies/1"),
        # The present path goes before a former one that is its beginning.
        ("/a/b", ["/a"], "/a/b/studies/1", "/a/b/studies/1"),
        ("/a/b", ["/a"], "/a/studies/1", "/a/b/studies/1"),
        ("", ["/old"], "/old/studies/1", "/studies/1"),
        ("", ["/old"], "/old", "/"),
        ("/new", ["", "/"], "/studies/1", "/studies/1"),
    ],
)
async def test_links_of_before_are_answered(present: str, former: list[str], asked: str, answered: str) -> None:
    async def echo(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.url.path} {request.query_params.get('x', '')}")

    app = FormerPaths(Starlette(routes=[Route("/{path:path}", echo)]), present, former)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="https://any.host.example") as client:
        assert (await client.get(f"{asked}?x=1")).text == f"{answered} 1"
